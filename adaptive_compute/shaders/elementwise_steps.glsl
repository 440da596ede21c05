// What one step of the interpreter computes, on four elements at once. Registers hold 32 bits an element: a float, an
// integer (those of 8 and 16 bits extended to 32), or a truth value as 0 or 1. The numbers are those of OPS in
// backends/vulkan/elementwise_lowering.py.

#define OP_ADD 1u
#define OP_SUB 2u
#define OP_MUL 3u
#define OP_DIV 4u
#define OP_SQRT 5u
#define OP_FLOOR 6u
#define OP_CEIL 7u
#define OP_RINT 8u
#define OP_MAX 9u
#define OP_MIN 10u
#define OP_LT 11u
#define OP_LE 12u
#define OP_EQ 13u
#define OP_SELECT 14u
#define OP_AND 15u
#define OP_OR 16u
#define OP_XOR 17u
#define OP_IADD 18u
#define OP_ISUB 19u
#define OP_IMUL 20u
#define OP_IDIV 21u
#define OP_UDIV 22u
#define OP_ILT 23u
#define OP_ULT 24u
#define OP_IEQ 25u
#define OP_EXTEND8 26u
#define OP_EXTEND16 27u
#define OP_FROM_INT 28u
#define OP_FROM_UINT 29u
#define OP_TO_HALF 30u
#define OP_TO_BFLOAT 31u

#define OP_EXP 64u
#define OP_EXP2 65u
#define OP_EXPM1 66u
#define OP_LOG 67u
#define OP_LOG2 68u
#define OP_LOG10 69u
#define OP_LOG1P 70u
#define OP_SIN 71u
#define OP_COS 72u
#define OP_TAN 73u
#define OP_SINH 74u
#define OP_COSH 75u
#define OP_TANH 76u
#define OP_ARCSIN 77u
#define OP_ARCCOS 78u
#define OP_ARCTAN2 79u
#define OP_ERF 80u
#define OP_POWER 81u
#define OP_FMOD 82u
#define OP_IPOWER 83u

// Division and square root may be off by 2.5 and 3 units in the last place: one correction by the remainder.
vec4 divided(vec4 x, vec4 y) {
    precise vec4 q = x / y;
    precise vec4 better = q + fma(-q, y, x) / y;
    uvec4 size = floatBitsToUint(better) & 0x7fffffffu; // zeros stay as they are: a sum would lose their sign
    return choose(q, better, lessThan(size - 1u, uvec4(F_INFINITY - 1u)));
}

vec4 rooted(vec4 x) {
    precise vec4 s = sqrt(x);
    precise vec4 better = s + 0.5 * (fma(-s, s, x) / s);
    bvec4 finite = lessThan(floatBitsToUint(better) & 0x7f800000u, uvec4(F_INFINITY));
    bvec4 negative = greaterThan(floatBitsToUint(x), uvec4(F_SIGN));
    return nan_where(choose(s, better, finite), negative);
}

uvec4 to_half(uvec4 x) {
    uvec4 a = x & 0x7fffffffu;
    uvec4 h = min((a + 0xfffu + (a >> 13 & 1u) - 0x38000000u) >> 13, uvec4(0x7c00u));
    // Below 2^-14 halves are multiples of 2^-24.
    h = mix(h, uvec4(roundEven(uintBitsToFloat(min(a, uvec4(0x38800000u))) * 16777216.0)), lessThan(a, uvec4(0x38800000u)));
    h = mix(h, uvec4(0x7e00u), greaterThan(a, uvec4(F_INFINITY)));
    return h | (x >> 16 & 0x8000u);
}

uvec4 to_bfloat(uvec4 x) {
    uvec4 rounded = (x + 0x7fffu + (x >> 16 & 1u)) >> 16;
    return mix(rounded, uvec4(0x7fc0u), greaterThan(x & 0x7fffffffu, uvec4(F_INFINITY)));
}

// Towards zero; 0 for a divisor of 0. The one quotient that overflows is the negative of the dividend.
uvec4 signed_quotient(uvec4 a, uvec4 b) {
    ivec4 divisor = mix(ivec4(b), ivec4(1), equal((b + 1u) & 0xfffffffeu, uvec4(0u)) );
    uvec4 q = uvec4(ivec4(a) / divisor);
    q = mix(q, 0u - a, equal(b, uvec4(0xffffffffu)));
    return mix(q, uvec4(0u), equal(b, uvec4(0u)));
}

uvec4 unsigned_quotient(uvec4 a, uvec4 b) {
    return mix(a / max(b, uvec4(1u)), uvec4(0u), equal(b, uvec4(0u)));
}

uvec4 simple(uint op, uvec4 a, uvec4 b, uvec4 c) {
    precise vec4 x = uintBitsToFloat(a), y = uintBitsToFloat(b), r;
    switch (op) {
    case OP_ADD: r = x + y; return floatBitsToUint(r);
    case OP_SUB: r = x - y; return floatBitsToUint(r);
    case OP_MUL: r = x * y; return floatBitsToUint(r);
    case OP_DIV: return floatBitsToUint(divided(x, y));
    case OP_SQRT: return floatBitsToUint(rooted(x));
    case OP_FLOOR: return floatBitsToUint(floor(x));
    case OP_CEIL: return floatBitsToUint(ceil(x));
    case OP_RINT: return floatBitsToUint(roundEven(x)) | (a & F_SIGN);
    case OP_MAX: return mix(mix(mix(b, a, greaterThan(x, y)), b, is_nan(y)), a, is_nan(x));
    case OP_MIN: return mix(mix(mix(b, a, lessThan(x, y)), b, is_nan(y)), a, is_nan(x));
    case OP_LT: return uvec4(lessThan(x, y));
    case OP_LE: return uvec4(lessThanEqual(x, y));
    case OP_EQ: return uvec4(equal(x, y));
    case OP_SELECT: return mix(c, b, notEqual(a, uvec4(0u)));
    case OP_AND: return a & b;
    case OP_OR: return a | b;
    case OP_XOR: return a ^ b;
    case OP_IADD: return a + b;
    case OP_ISUB: return a - b;
    case OP_IMUL: return a * b;
    case OP_IDIV: return signed_quotient(a, b);
    case OP_UDIV: return unsigned_quotient(a, b);
    case OP_ILT: return uvec4(lessThan(ivec4(a), ivec4(b)));
    case OP_ULT: return uvec4(lessThan(a, b));
    case OP_IEQ: return uvec4(equal(a, b));
    case OP_EXTEND8: return uvec4(ivec4(a << 24) >> 24);
    case OP_EXTEND16: return uvec4(ivec4(a << 16) >> 16);
    case OP_FROM_INT: return floatBitsToUint(vec4(ivec4(a)));
    case OP_FROM_UINT: return floatBitsToUint(vec4(a));
    case OP_TO_HALF: return to_half(a);
    case OP_TO_BFLOAT: return to_bfloat(a);
    }
    return a;
}

#ifdef FUNCTIONS
// C's fmod, exact: long division of the mantissas as integers.
uvec4 remainder_towards_zero(uvec4 x, uvec4 y) {
    uvec4 a = x & 0x7fffffffu, b = y & 0x7fffffffu;
    ivec4 ea = ivec4(max(a >> 23, 1u)), eb = ivec4(max(b >> 23, 1u));
    uvec4 ma = (a & 0x7fffffu) | mix(uvec4(0x800000u), uvec4(0u), lessThan(a, uvec4(0x800000u)));
    uvec4 mb = (b & 0x7fffffu) | mix(uvec4(0x800000u), uvec4(0u), lessThan(b, uvec4(0x800000u)));
    mb = max(mb, 1u);
    ivec4 left = mix(ea - eb, ivec4(0), lessThan(a, b));
    while (any(greaterThan(left, ivec4(0)))) {
        ivec4 part = clamp(left, 0, 8);
        ma = (ma % mb) << part;
        left -= part;
    }
    ma %= mb;
    // ma 2^(eb - 150): put the leading bit where the mantissa has it.
    ivec4 zeros = mix(23 - findMSB(ma), ivec4(0), equal(ma, uvec4(0u)));
    ivec4 exponent = mix(eb - zeros, ivec4(0), equal(ma, uvec4(0u)));
    uvec4 whole = (ma << zeros) - 0x800000u + (uvec4(exponent) << 23);
    uvec4 bits = mix(ma << max(eb - 1, 0) % 32, whole, greaterThan(exponent, ivec4(0)));
    bits = mix(bits, a, lessThan(a, b)) | (x & F_SIGN);
    bits = mix(bits, uvec4(F_NAN), greaterThanEqual(a, uvec4(F_INFINITY)));
    bits = mix(bits, uvec4(F_NAN), greaterThan(b, uvec4(F_INFINITY)));
    return mix(bits, uvec4(F_NAN), equal(b, uvec4(0u)));
}

uvec4 whole_power(uvec4 base, uvec4 exponent) {
    uvec4 result = uvec4(1u);
    for (int bit = 0; bit < 32 && any(notEqual(exponent, uvec4(0u))); bit++) {
        result *= mix(uvec4(1u), base, notEqual(exponent & 1u, uvec4(0u)));
        base *= base;
        exponent >>= 1;
    }
    return result;
}

// With GROWTH or WAVES only some of them: a driver compiles these several times as fast. The same as in
// backends/vulkan/elementwise_schedule.py.
uvec4 complicated(uint op, uvec4 a, uvec4 b) {
    vec4 x = uintBitsToFloat(a), y = uintBitsToFloat(b), r = x, s;
    switch (op) {
    case OP_EXP: r = exp_f32(x); break;
    case OP_SINH: r = sinh_f32(x); break;
    case OP_COSH: r = cosh_f32(x); break;
#ifndef WAVES
    case OP_EXP2: r = exp2_f32(x); break;
    case OP_EXPM1: r = expm1_f32(x); break;
    case OP_LOG: r = log_f32(x); break;
    case OP_LOG2: r = log2_f32(x); break;
    case OP_LOG10: r = log10_f32(x); break;
    case OP_LOG1P: r = log1p_f32(x); break;
    case OP_TANH: r = tanh_f32(x); break;
    case OP_ERF: r = erf_f32(x); break;
#endif
#ifndef GROWTH
    case OP_SIN:
    case OP_COS:
    case OP_TAN:
        sincos_f32(x, r, s);
        if (op == OP_COS) r = s;
        if (op == OP_TAN) r = divided(r, s);
        break;
#endif
#if !defined(WAVES) && !defined(GROWTH)
    case OP_ARCSIN: r = arcsin_f32(x); break;
    case OP_ARCCOS: r = arccos_f32(x); break;
    case OP_ARCTAN2: r = arctan2_f32(x, y); break;
    case OP_POWER: r = power_f32(x, y); break;
    case OP_FMOD: return remainder_towards_zero(a, b);
    case OP_IPOWER: return whole_power(a, b);
#endif
    }
    return floatBitsToUint(r);
}
#endif
