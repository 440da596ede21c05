// Bodies of maths.glsl, included once for float and once for vec4 (F, U, I, B: the types; LT, ... their comparisons).

#ifndef MATHS_SHARED
#define MATHS_SHARED
// 2/pi behind 32 zero bits.
const uint TWO_OVER_PI[8] = uint[8](
    0x00000000u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu);

// Return x - q pi/2 for a large positive x, exactly reduced: the product with those 96 bits of 2/pi that matter.
float reduce_large(float x, out int quadrant) {
    uint bits = floatBitsToUint(x);
    uint mantissa = (bits & 0x7fffffu) | 0x800000u;
    uint first = (bits >> 23) - 120u; // 32 zero bits, less the two of the quadrant, and the exponent of the mantissa
    uint word = min(first >> 5, 4u), shift = first & 31u;
    uint w0 = TWO_OVER_PI[word], w1 = TWO_OVER_PI[word + 1u], w2 = TWO_OVER_PI[word + 2u], w3 = TWO_OVER_PI[word + 3u];
    if (shift != 0u) {
        w0 = w0 << shift | w1 >> (32u - shift);
        w1 = w1 << shift | w2 >> (32u - shift);
        w2 = w2 << shift | w3 >> (32u - shift);
    }
    uint p0, p1, p2, high1, high2, carry;
    umulExtended(mantissa, w2, high2, p2);
    umulExtended(mantissa, w1, high1, p1);
    p1 = uaddCarry(p1, high2, carry);
    p0 = mantissa * w0 + high1 + carry;
    quadrant = int(p0 >> 30);
    uint high = p0 << 2 | p1 >> 30, low = p1 << 2 | p2 >> 30;
    bool negative = (high & F_SIGN) != 0u;
    if (negative) {
        quadrant += 1;
        low = ~low + 1u;
        high = ~high + (low == 0u ? 1u : 0u);
    }
    uint zeros = high == 0u ? 31u : uint(31 - findMSB(high));
    if (zeros != 0u) high = high << zeros | low >> (32u - zeros);
    float fraction = float(high) * uintBitsToFloat((95u - zeros) << 23); // 2^-(32 + zeros)
    return (negative ? -fraction : fraction) * 1.5707963268;
}

// The same for those of four that are large, one after the other: they are rare, and code for one is a quarter as long.
void reduce_large_of_four(vec4 x, bvec4 large, inout vec4 r, inout ivec4 quadrant) {
    uvec4 bits = mix(uvec4(0u), uvec4(1u, 2u, 4u, 8u), large);
    for (uint left = bits.x | bits.y | bits.z | bits.w; left != 0u; left &= left - 1u) {
        int k = findLSB(left), q;
        float found = reduce_large(k < 2 ? (k == 0 ? x.x : x.y) : (k == 2 ? x.z : x.w), q);
        bvec4 here = equal(ivec4(0, 1, 2, 3), ivec4(k));
        r = mix(r, vec4(found), here);
        quadrant = mix(quadrant, ivec4(q), here);
    }
}
#endif

B is_nan(F x) { return GT(floatBitsToUint(x) & 0x7fffffffu, U(F_INFINITY)); }
B is_infinite(F x) { return EQ(floatBitsToUint(x) & 0x7fffffffu, U(F_INFINITY)); }
F choose(F no, F yes, B which) {
    return uintBitsToFloat(mix(floatBitsToUint(no), floatBitsToUint(yes), which));
}
F with_sign(F magnitude, F sign) {
    return uintBitsToFloat(floatBitsToUint(magnitude) | (floatBitsToUint(sign) & F_SIGN));
}
F magnitude_of(F x) { return uintBitsToFloat(floatBitsToUint(x) & 0x7fffffffu); }
F nan_where(F result, B which) { return uintBitsToFloat(mix(floatBitsToUint(result), U(F_NAN), which)); }

// x 2^n for -252 <= n <= 254, in two factors so that neither leaves the range.
F scaled(F x, I n) {
    I half_ = n >> 1;
    return x * uintBitsToFloat(U(half_ + 127) << 23) * uintBitsToFloat(U(n - half_ + 127) << 23);
}

// exp(r) - 1 for |r| <= log(2)/2.
F exp_remainder(F r) {
    F q = F(1.978926739e-04);
    q = q * r + 1.394575345e-03;
    q = q * r + 8.333504200e-03;
    q = q * r + 4.166628048e-02;
    q = q * r + 1.666666567e-01;
    q = q * r + 0.5;
    return q * r * r + r;
}

F exp_f32(F x) {
    F bounded = clamp(x, F(-104.0), F(89.0));
    F n = roundEven(bounded * 1.442695041);
    F r = (bounded - n * 0.693359375) + n * 2.121944417e-04;
    return choose(scaled(1.0 + exp_remainder(r), I(n)), x, is_nan(x));
}

F exp2_f32(F x) {
    F bounded = clamp(x, F(-151.0), F(129.0));
    F n = roundEven(bounded);
    F r = bounded - n;
    F q = F(1.531620001e-05);
    q = q * r + 1.546839048e-04;
    q = q * r + 1.333342516e-03;
    q = q * r + 9.618032724e-03;
    q = q * r + 5.550410971e-02;
    q = q * r + 2.402265072e-01;
    q = q * r + 6.931471825e-01;
    return choose(scaled(1.0 + q * r, I(n)), x, is_nan(x));
}

F expm1_f32(F x) {
    F bounded = clamp(x, F(-104.0), F(89.0));
    F n = roundEven(bounded * 1.442695041);
    F r = (bounded - n * 0.693359375) + n * 2.121944417e-04;
    F p = exp_remainder(r);
    F small = p * uintBitsToFloat(U(clamp(I(n), I(-126), I(126)) + 127) << 23);
    small += uintBitsToFloat(U(clamp(I(n), I(-126), I(126)) + 127) << 23) - 1.0;
    F result = choose(small, scaled(1.0 + p, I(n)), GT(x, F(40.0)));
    result = choose(result, x, LT(magnitude_of(x), F(3e-8)));
    return choose(result, x, is_nan(x));
}

// The mantissa of a positive number less 1, in [sqrt(1/2) - 1, sqrt(2) - 1], and its exponent. A subnormal number is
// read as the whole number that its bits are, because the device may take it for zero.
F mantissa_less_1(F x, out F exponent) {
    B subnormal = LT(floatBitsToUint(x), U(0x800000u));
    U bits = mix(floatBitsToUint(x), floatBitsToUint(F(floatBitsToUint(x) & 0x7fffffu)), subnormal);
    I shifted = I(bits) - 0x3f3504f3;
    exponent = F(shifted >> 23) - mix(F(0.0), F(149.0), subnormal);
    return uintBitsToFloat(U((shifted & 0x7fffff) + 0x3f3504f3)) - 1.0;
}

// (log(1 + f) - f + f^2/2) / f^3
F log_remainder(F f) {
    F p = F(6.915296614e-02);
    p = p * f - 1.178977191e-01;
    p = p * f + 1.187298894e-01;
    p = p * f - 1.238435581e-01;
    p = p * f + 1.421865672e-01;
    p = p * f - 1.666925102e-01;
    p = p * f + 2.000222653e-01;
    p = p * f - 2.499998659e-01;
    return p * f + 3.333331048e-01;
}

// What a logarithm gives outside the positive finite numbers.
F log_special(F result, F x) {
    U bits = floatBitsToUint(x);
    U special = mix(floatBitsToUint(result), U(F_NAN), GT(bits, U(F_SIGN))); // negative, and NaN with a sign
    special = mix(special, U(0xff800000u), EQ(bits & 0x7fffffffu, U(0u)));
    special = mix(special, bits, EQ(bits, U(F_INFINITY)));
    return nan_where(uintBitsToFloat(special), is_nan(x));
}

F log_f32(F x) {
    F e;
    F f = mantissa_less_1(x, e);
    F square = f * f;
    F tail = square * f * log_remainder(f) - e * 2.121944417e-04 - 0.5 * square;
    return log_special(f + tail + e * 0.693359375, x);
}

F log2_f32(F x) {
    F e;
    F f = mantissa_less_1(x, e);
    F square = f * f;
    F tail = square * f * log_remainder(f) - 0.5 * square;
    return log_special((f + tail) * 4.426950409e-01 + (tail + f) + e, x); // log2(e) = 1 + 0.4426950409
}

F log10_f32(F x) {
    F e;
    F f = mantissa_less_1(x, e);
    F square = f * f;
    F tail = square * f * log_remainder(f) - 0.5 * square;
    F natural = f + tail;
    F low = e * 4.605039067e-06 + natural * 9.038033750e-05;
    return log_special(low + natural * 0.4342041015625 + e * 0.301025390625, x);
}

F log1p_f32(F x) {
    precise F u = 1.0 + x;
    precise F lost = choose(x - (u - 1.0), 1.0 - (u - x), GT(x, F(1.0)));
    F result = log_f32(u) + lost / u;
    result = choose(result, x, LT(magnitude_of(x), F(3e-8)));
    return log_special(choose(result, log_f32(u), is_infinite(x)), u);
}

// Sine and cosine of r in [-pi/4, pi/4] times the sign and swap of a quadrant.
void sincos_f32(F x, out F sine, out F cosine) {
    F a = magnitude_of(x);
    F n = roundEven(min(a, F(3000.0)) * 0.6366197724);
    F r = ((min(a, F(3000.0)) - n * 1.5703125) - n * 0.00048375129699707031) - n * 7.549790126e-08;
    I quadrant = I(n);
    REDUCE_LARGE(a, GT(a, F(3000.0)), r, quadrant);
    F z = r * r;
    F s = ((-1.951083832e-04 * z + 8.332131431e-03) * z - 1.666665375e-01) * z * r + r;
    F c = ((2.443120320e-05 * z - 1.388730598e-03) * z + 4.166664556e-02) * z * z - 0.5 * z + 1.0;
    B swap = EQ(quadrant & 1, I(1));
    U sine_sign = (U(quadrant & 2) << 30) ^ (floatBitsToUint(x) & F_SIGN);
    U cosine_sign = U((quadrant + 1) & 2) << 30;
    U unknown = mix(U(0u), U(F_NAN), NOT(LT(floatBitsToUint(a), U(F_INFINITY))));
    sine = uintBitsToFloat((floatBitsToUint(choose(s, c, swap)) ^ sine_sign) | unknown);
    cosine = uintBitsToFloat((floatBitsToUint(choose(c, s, swap)) ^ cosine_sign) | unknown);
}

F sin_f32(F x) { F s, c; sincos_f32(x, s, c); return s; }
F cos_f32(F x) { F s, c; sincos_f32(x, s, c); return c; }

F tanh_f32(F x) {
    F a = magnitude_of(x), z = x * x;
    F p = F(2.144207712e-03);
    p = p * z - 8.179165423e-03;
    p = p * z + 2.170160413e-02;
    p = p * z - 5.394696817e-02;
    p = p * z + 1.333320737e-01;
    p = p * z - 3.333333135e-01;
    F large = 1.0 - 2.0 / (exp_f32(2.0 * min(a, F(10.0))) + 1.0);
    F result = choose(large, p * z * a + a, LT(a, F(0.625)));
    return choose(with_sign(result, x), x, is_nan(x));
}

// Half of x >= 1, by its exponent, so that no compiler can see a factor that it could take out of the product t * t:
// half_of(t) * t is exp(|x|)/2 for t = exp(|x|/2) without leaving the range too early, t * t * 0.5 is not.
F half_of(F x) { return uintBitsToFloat(floatBitsToUint(x) - 0x00800000u); }

F sinh_f32(F x) {
    F a = magnitude_of(x), z = x * x;
    F p = ((2.817439736e-06 * z + 1.983606635e-04) * z + 8.333350532e-03) * z + 1.666666716e-01;
    F t = exp_f32(0.5 * a);
    F large = half_of(t) * t - 0.5 / t / t;
    return choose(with_sign(choose(large, p * z * a + a, LT(a, F(1.0))), x), x, is_nan(x));
}

F cosh_f32(F x) {
    F t = exp_f32(0.5 * magnitude_of(x));
    return choose(half_of(t) * t + 0.5 / t / t, x, is_nan(x));
}

// (arcsin(s) - s) / s for s^2 = z <= 1/4
F arcsin_remainder(F z) {
    F p = F(3.757815808e-02);
    p = p * z + 1.439380553e-02;
    p = p * z + 3.181982040e-02;
    p = p * z + 4.451547191e-02;
    p = p * z + 7.500512153e-02;
    return (p * z + 1.666665971e-01) * z;
}

F arcsin_f32(F x) {
    F a = magnitude_of(x);
    B large = GT(a, F(0.5));
    F z = mix(x * x, max(0.5 - 0.5 * a, F(0.0)), large);
    F s = mix(a, sqrt(z), large);
    F p = arcsin_remainder(z) * s + s;
    F result = with_sign(mix(p, 1.57079637 - (2.0 * p + 4.371139e-08), large), x);
    return nan_where(result, GT(floatBitsToUint(a), U(0x3f800000u)));
}

F arccos_f32(F x) {
    F a = magnitude_of(x);
    B large = GT(a, F(0.5));
    F z = mix(x * x, max(0.5 - 0.5 * a, F(0.0)), large);
    F s = mix(x, sqrt(z), large);
    F p = arcsin_remainder(z) * s + s;
    F far = mix(2.0 * p, 3.14159274 - (2.0 * p + 8.742278e-08), LT(x, F(0.0)));
    return nan_where(mix(1.57079637 - (p + 4.371139e-08), far, large), GT(floatBitsToUint(a), U(0x3f800000u)));
}

F arctan2_f32(F y, F x) {
    F ay = magnitude_of(y), ax = magnitude_of(x);
    B steep = GT(ay, ax);
    F small = mix(ay, ax, steep), large = mix(ax, ay, steep);
    F factor = mix(mix(F(1.0), F(16777216.0), LT(large, F(1e-30))), F(2.3283064e-10), GT(large, F(1e30)));
    small *= factor;
    large *= factor;
    B middle = GT(small, 0.41421356 * large);
    F t = mix(small, small - large, middle) / mix(large, small + large, middle);
    t = choose(t, F(0.0), EQ(large, F(0.0)));
    t = choose(t, F(0.0), is_infinite(large));
    F z = t * t;
    F p = F(-6.083374098e-02);
    p = p * z + 1.059597135e-01;
    p = p * z - 1.424384415e-01;
    p = p * z + 1.999848932e-01;
    p = p * z - 3.333331645e-01;
    p = p * z * t + t;
    p = mix(p, 0.785398163 + p, middle);
    p = choose(p, F(0.785398163), is_infinite(small)); // both are
    p = mix(p, 1.57079637 - (p + 4.371139e-08), steep);
    p = mix(p, 3.14159274 - (p + 8.742278e-08), NOT(EQ(floatBitsToUint(x) & F_SIGN, U(0u))));
    return nan_where(nan_where(with_sign(p, y), is_nan(x)), is_nan(y));
}

F erf_f32(F x) {
    F a = magnitude_of(x), z = x * x;
    F p = F(7.889114204e-05);
    p = p * z - 8.020839887e-04;
    p = p * z + 5.189535208e-03;
    p = p * z - 2.685444430e-02;
    p = p * z + 1.128360033e-01;
    p = p * z - 3.761262596e-01;
    p = p * z + 1.283791661e-01;
    F t = min(a, F(4.1)); // beyond it the result rounds to 1
    F q = F(-2.168681567e-05);
    q = q * t + 4.413358984e-04;
    q = q * t - 4.204559140e-03;
    q = q * t + 2.520824969e-02;
    q = q * t - 1.084185615e-01;
    q = q * t - 6.332198977e-01;
    q = q * t - 1.129578471e+00;
    q = q * t + 1.880381897e-04;
    F result = choose(1.0 - exp_f32(q), p * a + a, LT(a, F(1.0)));
    return choose(with_sign(result, x), x, is_nan(x));
}

// The upper 12 bits of a mantissa: products of two such numbers are exact.
F upper(F x) { return uintBitsToFloat(floatBitsToUint(x) & 0xfffff000u); }

F power_f32(F x, F y) {
    F a = magnitude_of(x);
    // log2(a) = e + head + tail: f - f^2/2 with the product's rounding error, and the small remainder.
    F e;
    F f = mantissa_less_1(a, e);
    precise F f_up = upper(f);
    precise F f_low = f - f_up;
    precise F half_square = 0.5 * f * f;
    precise F square_low = ((0.5 * f_up * f_up - half_square) + f_up * f_low) + 0.5 * f_low * f_low;
    precise F natural = f - half_square;
    precise F natural_low = ((f - natural) - half_square) - square_low + f * f * f * log_remainder(f);
    precise F sum = natural + natural_low;
    natural_low = (natural - sum) + natural_low;
    // Times log2(e) = 1.44238281 + 3.122284e-04, the first of 12 bits.
    precise F up = upper(sum);
    precise F low = sum - up;
    precise F head = up * 1.4423828125;
    precise F tail = low * 1.4423828125 + (sum * 3.122283961e-04 + natural_low * 1.442695041);
    precise F total = e + head;
    precise F total_low = choose((head - total) + e, (e - total) + head, GT(magnitude_of(e), magnitude_of(head))) + tail;
    precise F logarithm = total + total_low;
    total_low = (total - logarithm) + total_low;
    // Times y.
    F bounded = clamp(y, F(-3e38), F(3e38));
    F small_y = uintBitsToFloat(mix(floatBitsToUint(bounded), floatBitsToUint(with_sign(F(1e10), bounded)),
                                    GT(magnitude_of(bounded), F(1e10)))); // so that no product overflows
    precise F y_up = upper(small_y);
    precise F y_low = small_y - y_up;
    precise F l_up = upper(logarithm);
    precise F l_low = logarithm - l_up;
    precise F product = y_up * l_up;
    precise F product_low = (y_up * l_low + y_low * logarithm) + small_y * total_low;
    F rough = clamp(product + product_low, F(-160.0), F(160.0));
    F n = roundEven(rough);
    precise F r = (product - n) + product_low;
    r = choose(r, F(0.0), GT(magnitude_of(rough), F(155.0)));
    F q = F(1.531620001e-05);
    q = q * r + 1.546839048e-04;
    q = q * r + 1.333342516e-03;
    q = q * r + 9.618032724e-03;
    q = q * r + 5.550410971e-02;
    q = q * r + 2.402265072e-01;
    q = q * r + 6.931471825e-01;
    U result = floatBitsToUint(scaled(1.0 + q * r, I(n)));
    // A base of 0 or infinity, or an infinite exponent: 0, 1 or infinity by whether the magnitude grows.
    F ay = magnitude_of(y);
    U ua = floatBitsToUint(a), one = U(0x3f800000u);
    B zero = EQ(ua, U(0u));
    U rises = mix(U(0u), U(F_INFINITY), EQ(floatBitsToUint(y) & F_SIGN, U(0u))); // for a > 1
    U falls = rises ^ F_INFINITY;
    result = mix(result, mix(rises, falls, LT(ua, one)), is_infinite(y));
    result = mix(result, rises, is_infinite(x));
    result = mix(result, falls, zero);
    // The sign of a negative base: an odd whole exponent keeps it, a fraction gives NaN.
    B negative = NOT(EQ(floatBitsToUint(x) & F_SIGN, U(0u)));
    F half_y = 0.5 * min(ay, F(33554432.0));
    B odd = NOT(EQ(half_y, floor(half_y)));
    F fraction = min(ay, F(33554432.0)) - floor(min(ay, F(33554432.0)));
    U odd_sign = mix(mix(U(0u), U(F_SIGN), odd), U(0u), GT(fraction, F(0.0)));
    result ^= mix(U(0u), odd_sign, negative);
    U broken = mix(U(F_NAN), result, EQ(fraction, F(0.0)));
    broken = mix(broken, result, zero);
    broken = mix(broken, result, is_infinite(x));
    result = mix(result, broken, negative);
    result = mix(mix(result, U(F_NAN), is_nan(x)), U(F_NAN), is_nan(y));
    result = mix(result, one, EQ(floatBitsToUint(x), one));
    result = mix(result, one, EQ(floatBitsToUint(ay), U(0u)));
    result = mix(result, one, mix(B(false), EQ(ua, one), is_infinite(y)));
    return uintBitsToFloat(result);
}
