// What the attention shaders share: reading operands of any storage type, exp2, masks, reductions over a row of threads.
// A shader defines BQ, BK (pairs of a tile), TX, TY (threads along keys and queries) before it includes this.
#extension GL_EXT_control_flow_attributes : require
#ifdef SHUFFLE
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif
#define THREADS (TX * TY)
#define NEGATIVE_INFINITY uintBitsToFloat(0xff800000u)
#define LOG2_E 1.4426950408889634
#define LN_2 0.6931471805599453

layout(local_size_x = THREADS) in;
// What a driver folds into the code; sizes are push constants, so that it compiles once for all of them.
layout(constant_id = 0) const uint D = 4;
layout(constant_id = 1) const uint DV = 4;
layout(constant_id = 2) const uint TYPE = 0;       // storage, as in halves.glsl
layout(constant_id = 3) const uint COMPILED = 0;   // the table of a compiled mask is there
layout(constant_id = 4) const uint MASKED = 0;     // a boolean operand is there
layout(constant_id = 5) const uint BIASED = 0;     // a bias is there
layout(constant_id = 6) const float SCALE = 1.0;
layout(constant_id = 7) const uint OPTION = 0;     // the shader's own
layout(push_constant) uniform Sizes {
    uint LQ, LK, HEADS, KEY_HEADS;
    uint TILES;                  // tiles of queries (of keys where a workgroup owns keys)
    uint COUNT;                  // workgroups
    uint VISITED;                // tiles that a compiled mask visits
    uint MASK_QUERY, MASK_KEY;   // strides of the boolean operand and of the bias, in elements
    uint BIAS_QUERY, BIAS_KEY;
};

#include "halves.glsl"

// NAME(row, at, width): elements at .. at + 3 of a row of `width`; zero beyond its end.
#define READER(NAME, BINDING) \
    layout(set = 0, binding = BINDING) readonly buffer NAME##Quads { vec4 NAME##_quads[]; }; \
    layout(set = 0, binding = BINDING) readonly buffer NAME##Pairs { uvec2 NAME##_pairs[]; }; \
    layout(set = 0, binding = BINDING) readonly buffer NAME##Words { uint NAME##_words[]; }; \
    float NAME##_at(uint e) { \
        if (TYPE == 0u) return uintBitsToFloat(NAME##_words[e]); \
        vec2 both = widened(NAME##_words[e >> 1]); \
        return (e & 1u) == 0u ? both.x : both.y; \
    } \
    vec4 NAME(uint row, uint at, uint width) { \
        uint e = row * width + at; \
        if (at >= width) return vec4(0.0); \
        if ((width & 3u) == 0u && TYPE == 0u) return NAME##_quads[e >> 2]; \
        if ((width & 3u) == 0u) { \
            uvec2 both = NAME##_pairs[e >> 2]; \
            return vec4(widened(both.x), widened(both.y)); \
        } \
        vec4 found = vec4(NAME##_at(e), 0.0, 0.0, 0.0); \
        if (at + 1u < width) found.y = NAME##_at(e + 1u); \
        if (at + 2u < width) found.z = NAME##_at(e + 2u); \
        if (at + 3u < width) found.w = NAME##_at(e + 3u); \
        return found; \
    }

// NAME(row, at, width, values): writes elements at .. at + 3 of a row. Half precision needs a width that 4 divides.
#define WRITER(NAME, BINDING) \
    layout(set = 0, binding = BINDING) writeonly buffer NAME##Quads { vec4 NAME##_quads[]; }; \
    layout(set = 0, binding = BINDING) writeonly buffer NAME##Pairs { uvec2 NAME##_pairs[]; }; \
    layout(set = 0, binding = BINDING) writeonly buffer NAME##Floats { float NAME##_floats[]; }; \
    void NAME(uint row, uint at, uint width, vec4 values) { \
        uint e = row * width + at; \
        if (at >= width) return; \
        if ((width & 3u) == 0u && TYPE == 0u) { NAME##_quads[e >> 2] = values; return; } \
        if ((width & 3u) == 0u) { \
            NAME##_pairs[e >> 2] = uvec2(narrowed(values.x) | narrowed(values.y) << 16, \
                                         narrowed(values.z) | narrowed(values.w) << 16); \
            return; \
        } \
        NAME##_floats[e] = values.x; \
        if (at + 1u < width) NAME##_floats[e + 1u] = values.y; \
        if (at + 2u < width) NAME##_floats[e + 2u] = values.z; \
        if (at + 3u < width) NAME##_floats[e + 3u] = values.w; \
    }

// 2^x for x <= 0 to 1e-7 relative; 0 below 2^-125, and NaN for NaN. The fraction's series is the Taylor polynomial of
// 2^f on [-1/2, 1/2] with its degree lowered by Chebyshev's polynomials.
float exp2_negative(float x) {
#ifdef FAST_EXP
    return exp2(x);
#endif
    precise float shifted = x + 12582912.0;
    precise float whole = shifted - 12582912.0;
    precise float f = x - whole;
    float p = 1.535336188319500e-4;
    p = fma(p, f, 1.339887440266574e-3);
    p = fma(p, f, 9.618437357674640e-3);
    p = fma(p, f, 5.550332471162809e-2);
    p = fma(p, f, 2.402264791363012e-1);
    p = fma(p, f, 6.931472028550421e-1);
    p = fma(p, f, 1.0);
    p *= uintBitsToFloat((floatBitsToUint(shifted) << 23) + 0x3f800000u);
    return x < -125.0 ? 0.0 : p;
}

// log2(x) for a normal x > 0: the exponent, and the atanh series of the mantissa in [sqrt(1/2), sqrt(2)).
float log2_positive(float x) {
    uint bits = floatBitsToUint(x) - 0x3f3504f3u;
    float e = float(int(bits) >> 23);
    float m = uintBitsToFloat((bits & 0x7fffffu) + 0x3f3504f3u);
    float s = (m - 1.0) / (m + 1.0), z = s * s;
    float series = fma(z, fma(z, fma(z, fma(z, 0.3205989, 0.4121986), 0.5770780), 0.9617967), 2.8853901);
    return fma(s, series, e);
}

// Thread numbers whose runs of TX lie in one subgroup.
uint thread_number() {
#ifdef SHUFFLE
    return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
#else
    return gl_LocalInvocationIndex;
#endif
}
