// How arrays are stored, and their elements in registers of 32 bits: floats widened to float32, whole numbers extended.
#define NONE 0u
#define WORD 1u
#define PAIR 2u
#define HALF 3u
#define BFLOAT 4u
#define INT16 5u
#define UINT16 6u
#define INT8 7u
#define UINT8 8u
#define LONG 9u

uvec4 from_half(uvec4 h) {
    uvec4 a = h & 0x7fffu;
    uvec4 x = (a << 13) + 0x38000000u;
    x = mix(x, floatBitsToUint(vec4(a) * 5.9604644775390625e-08), lessThan(a, uvec4(0x400u)));
    x = mix(x, a << 13 | 0x7f800000u, greaterThanEqual(a, uvec4(0x7c00u)));
    return x | (h & 0x8000u) << 16;
}

// What an element's raw 8 or 16 bits are in a register.
uvec4 decoded(uint kind, uvec4 raw) {
    switch (kind) {
    case HALF: return from_half(raw);
    case BFLOAT: return raw << 16;
    case INT16: return uvec4(ivec4(raw << 16) >> 16);
    case INT8: return uvec4(ivec4(raw << 24) >> 24);
    }
    return raw;
}
