// What a thread knows while it reduces: Four of them for the four elements that it takes at a time, State for one.
// nothing() is that of no elements, added() takes four more, joined() brings two together, finished() gives the result.

#ifdef WHOLE
// Whole numbers of 64 bits: sums, and SECOND: 1 the largest, 2 the smallest; 3 and 4 those of unsigned ones.
struct Four { uvec4 low, high; };
#define State uvec2
State one(Four f, int k) { return uvec2(f.low[k], f.high[k]); }
uvec4 packed(State s) { return uvec4(s, 0u, 0u); }
State unpacked(uvec4 p) { return p.xy; }
uvec2 identity() {
    switch (SECOND) {
    case 1u: return uvec2(0u, 0x80000000u);
    case 2u: return uvec2(0xffffffffu, 0x7fffffffu);
    case 4u: return uvec2(0xffffffffu);
    }
    return uvec2(0u);
}
Four nothing() {
    uvec2 none = identity();
    return Four(uvec4(none.x), uvec4(none.y));
}
Four both(Four a, Four b) {
    if (SECOND == 0u) {
        uvec4 low = a.low + b.low;
        return Four(low, a.high + b.high + uvec4(lessThan(low, b.low)));
    }
    uint flip = SECOND <= 2u ? 0x80000000u : 0u;
    uvec4 p = a.high ^ flip, q = b.high ^ flip;
    uvec4 less = mix(uvec4(lessThan(p, q)), uvec4(lessThan(a.low, b.low)), equal(p, q));
    bvec4 second = notEqual(less, uvec4(SECOND & 1u ^ 1u));
    return Four(mix(a.low, b.low, second), mix(a.high, b.high, second));
}
Four added(Four f, uvec4 low, uvec4 high, bvec4 there) {
    uvec2 none = identity();
    if (KIND != LONG) // the sign of what was extended to 32 bits, or of int32
        high = KIND == INT16 || KIND == INT8 || (KIND == WORD && SIGNED != 0u) ? uvec4(ivec4(low) >> 31) : uvec4(0u);
    return both(f, Four(mix(uvec4(none.x), low, there), mix(uvec4(none.y), high, there)));
}
State joined(State a, State b) {
    Four f = both(Four(uvec4(a.x), uvec4(a.y)), Four(uvec4(b.x), uvec4(b.y)));
    return one(f, 0);
}
uvec2 finished(State s) { return s; }

#else
#include "maths.glsl"
struct Four { vec4 top, sum, low; }; // top: what was taken out; low: what additions have rounded off
#define State vec3
State one(Four f, int k) { return vec3(f.top[k], f.sum[k], f.low[k]); }
uvec4 packed(State s) { return uvec4(floatBitsToUint(s), 0u); }
State unpacked(uvec4 p) { return uintBitsToFloat(p.xyz); }

#ifdef EXTREME
// The largest, SECOND the smallest; NaN is passed on.
Four nothing() {
    vec4 none = uintBitsToFloat(uvec4(SECOND != 0u ? F_INFINITY : F_INFINITY | F_SIGN));
    return Four(none, none, none);
}
vec4 chosen(vec4 a, vec4 b) {
    bvec4 first = SECOND != 0u ? lessThan(a, b) : greaterThan(a, b);
    return choose(choose(choose(b, a, first), b, is_nan(b)), a, is_nan(a));
}
Four added(Four f, uvec4 low, uvec4 high, bvec4 there) {
    return Four(f.top, choose(f.sum, chosen(f.sum, uintBitsToFloat(low)), there), f.low);
}
State joined(State a, State b) { return vec3(a.x, chosen(vec4(a.y), vec4(b.y)).x, a.z); }
uvec2 finished(State s) { return uvec2(floatBitsToUint(s.y), 0u); }

#else
vec4 plus(vec4 sum, vec4 more, inout vec4 low) {
    precise vec4 total = sum + more;
    precise vec4 part = total - sum;
    precise vec4 rest = total - part;
    precise vec4 lost = (sum - rest) + (more - part);
    low += lost;
    return total;
}
// The carry of a sum that is not finite means nothing.
float whole(State s) { return (floatBitsToUint(s.y) & F_INFINITY) == F_INFINITY ? s.y : s.y + s.z; }

#ifdef SUM
// The sum, SECOND the mean.
Four nothing() { return Four(vec4(0.0), vec4(0.0), vec4(0.0)); }
Four added(Four f, uvec4 low, uvec4 high, bvec4 there) {
    f.sum = plus(f.sum, uintBitsToFloat(mix(uvec4(0u), low, there)), f.low);
    return f;
}
State joined(State a, State b) {
    vec4 low = vec4(a.z + b.z);
    return vec3(0.0, plus(vec4(a.y), vec4(b.y), low).x, low.x);
}
uvec2 finished(State s) {
    if (SECOND == 0u) return uvec2(floatBitsToUint(whole(s)), 0u);
    if (COUNT == 0u) return uvec2(F_NAN, 0u);
    float count = float(COUNT), quotient = whole(s) / count;
    // Division may be off by 2.5 units in the last place: one correction by the remainder.
    precise float better = quotient + fma(-quotient, count, whole(s)) / count;
    bool finite = (floatBitsToUint(better) & F_INFINITY) != F_INFINITY;
    return uvec2(floatBitsToUint(finite ? better : quotient), 0u);
}
#endif

#ifdef EXPONENTIAL
// The sum of exp(x - top). What is not finite is never taken out; NaN and infinity stay in the sum.
#define LOWEST -3.0e38
Four nothing() { return Four(vec4(LOWEST), vec4(0.0), vec4(0.0)); }
// exp of what is not positive, 0 below 1e-38; NaN and infinity pass.
vec4 falling(vec4 x) {
    vec4 bounded = max(x, vec4(-87.0)), n = roundEven(bounded * 1.442695041);
    vec4 r = (bounded - n * 0.693359375) + n * 2.121944417e-04;
    vec4 result = (1.0 + exp_remainder(r)) * uintBitsToFloat(uvec4(ivec4(n) + 127) << 23);
    result = mix(result, vec4(0.0), lessThan(x, vec4(-87.0)));
    uvec4 bits = floatBitsToUint(x);
    return choose(choose(result, x, is_nan(x)), x, equal(bits, uvec4(F_INFINITY)));
}
// Never zero: infinity times it must stay infinity. Beside a term that is 1 the least one counts nothing.
vec4 shrink(vec4 difference) { return falling(max(difference, vec4(-80.0))); }
Four added(Four f, uvec4 low, uvec4 high, bvec4 there) {
    vec4 x = uintBitsToFloat(low);
    bvec4 finite = lessThan(low & 0x7fffffffu, uvec4(F_INFINITY));
    vec4 top = choose(f.top, max(f.top, x), finite);
    top = choose(f.top, top, there);
    if (any(greaterThan(top, f.top))) {
        vec4 factor = shrink(f.top - top);
        f.sum *= factor;
        f.low *= factor;
    }
    f.top = top;
    f.sum = plus(f.sum, choose(vec4(0.0), falling(x - top), there), f.low);
    return f;
}
State joined(State a, State b) {
    vec4 top = vec4(max(a.x, b.x)), fa = shrink(vec4(a.x) - top), fb = shrink(vec4(b.x) - top);
    vec4 low = a.z * fa + b.z * fb;
    return vec3(top.x, plus(a.y * fa, b.y * fb, low).x, low.x);
}
uvec2 finished(State s) {
    float sum = whole(s);
    return uvec2(floatBitsToUint(sum == 0.0 ? -uintBitsToFloat(F_INFINITY) : s.x + log_f32(sum)), 0u);
}
#endif

#ifdef NORM
// The sum of (x 2^-top)^2, where top is the largest exponent so far.
#define LOWEST -126.0
Four nothing() { return Four(vec4(LOWEST), vec4(0.0), vec4(0.0)); }
vec4 power_of_two(vec4 exponent) { return uintBitsToFloat(uvec4(ivec4(exponent) + 127) << 23); }
// Never zero: infinity times it must stay infinity. Beside a term of 1 the least one counts nothing.
vec4 shrink(vec4 difference) { return power_of_two(2.0 * max(difference, vec4(-60.0))); }
Four added(Four f, uvec4 low, uvec4 high, bvec4 there) {
    uvec4 bits = mix(uvec4(0u), low, there);
    vec4 top = max(f.top, min(vec4(bits >> 23 & 0xffu) - 127.0, vec4(126.0)));
    if (any(greaterThan(top, f.top))) {
        vec4 factor = shrink(f.top - top);
        f.sum *= factor;
        f.low *= factor;
    }
    f.top = top;
    vec4 x = uintBitsToFloat(bits) * power_of_two(-top);
    precise vec4 square = x * x;
    f.low += fma(x, x, -square);
    f.sum = plus(f.sum, square, f.low);
    return f;
}
State joined(State a, State b) {
    vec4 top = vec4(max(a.x, b.x)), fa = shrink(vec4(a.x) - top), fb = shrink(vec4(b.x) - top);
    vec4 low = a.z * fa + b.z * fb;
    return vec3(top.x, plus(a.y * fa, b.y * fb, low).x, low.x);
}
uvec2 finished(State s) {
    float sum = whole(s), root = sqrt(sum);
    precise float better = root + 0.5 * (fma(-root, root, sum) / root);
    bool finite = (floatBitsToUint(better) & F_INFINITY) != F_INFINITY;
    return uvec2(floatBitsToUint((finite ? better : root) * power_of_two(vec4(s.x)).x), 0u);
}
#endif
#endif
#endif
