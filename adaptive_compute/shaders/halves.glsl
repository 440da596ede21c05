// Floats stored as TYPE says: 0 float32, 1 float16, 2 bfloat16 (two of which lie in a word).

vec2 widened(uint word) {
    if (TYPE == 1u) return unpackHalf2x16(word);
    return vec2(uintBitsToFloat(word << 16), uintBitsToFloat(word & 0xffff0000u));
}

// The nearest half, ties to even; a NaN stays one.
uint narrowed(float value) {
    uint bits = floatBitsToUint(value);
    if (TYPE == 1u) {
        uint sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
        if (size > 0x7f800000u) return sign | 0x7e00u;
        if (size >= 0x477ff000u) return sign | 0x7c00u;
        if (size < 0x38800000u) {
            // Below float16's normal range the rounding to multiples of 2^-24 is that of an addition.
            precise float shifted = uintBitsToFloat(size) + 0.5;
            return sign | (floatBitsToUint(shifted) - 0x3f000000u);
        }
        return sign | (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
    }
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
