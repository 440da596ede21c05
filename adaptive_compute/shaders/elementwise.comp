#version 450
#extension GL_GOOGLE_include_directive : require
// Computes an expression element by element: an interpreter whose program is specialization constants, so that the
// driver folds it to the expression's own code. Each invocation computes groups of four elements.
// Bindings: 0-7 operands, 8 result, 9 scratch (one plane of words for every value that passes from one dispatch of a
// long expression to the next). What a program does not use is bound to any buffer.
// Constants: 0 local size, 1 groups of four in all, 2 groups an invocation computes, 3 geometry (0 operands have the
// result's shape or one element, 1 rows of a multiple of four, 2 any), 4 elements, 5 how the result is stored, 6 and 7
// its registers, 8 groups of a scratch plane, 9-14 elements that a step along each of the result's axes passes, the
// innermost first; from 16 for each operand its kind, how it is read and what each quotient below adds to its place;
// from 80 the 16 numbers; from 96 the planes of 8 scratch loads; from 104 register and plane of 8 scratch stores; from
// 120 the steps: operation and three registers each.
// An operand's place is made of quotients alone: with q_k = element / (n_0 ... n_(k-1)) the index along axis k is
// q_k - n_k q_(k+1), so the sum of index times stride is that of q_k (s_k - s_(k-1) n_(k-1)), factors the host makes.
// Chains of remainders give the same, but NVIDIA's compiler (580.159.04) died where two of them made one remainder.
// Registers: 0-7 operands, 8-15 their imaginary parts, 16-23 scratch loads, 24-39 numbers, from 40 the steps' results.
// variant: elementwise_simple8 -DSIMPLE8
// variant: elementwise_simple32 -DSIMPLE32
// variant: elementwise_growth1 -DFUNCTIONS=1 -DGROWTH
// variant: elementwise_waves1 -DFUNCTIONS=1 -DWAVES
// variant: elementwise_functions1 -DFUNCTIONS=1
// variant: elementwise_growth2 -DFUNCTIONS=2 -DGROWTH
// variant: elementwise_waves2 -DFUNCTIONS=2 -DWAVES
// variant: elementwise_functions2 -DFUNCTIONS=2
// variant: elementwise_growth4 -DFUNCTIONS=4 -DGROWTH
// variant: elementwise_waves4 -DFUNCTIONS=4 -DWAVES
// variant: elementwise_functions4 -DFUNCTIONS=4
#include "maths.glsl"
#include "elements.glsl"
#include "elementwise_steps.glsl"

// Which of a variant's steps are simple (S) and which can be functions (C): the same as in VARIANTS of
// backends/vulkan/elementwise_schedule.py.
#if defined(SIMPLE8)
#define STEPS 8
#define SLOTS(S, C) S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7)
#elif defined(SIMPLE32)
#define STEPS 32
#define SLOTS(S, C) S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) S(8) S(9) S(10) S(11) S(12) S(13) S(14) S(15) \
    S(16) S(17) S(18) S(19) S(20) S(21) S(22) S(23) S(24) S(25) S(26) S(27) S(28) S(29) S(30) S(31)
#elif FUNCTIONS == 1
#define STEPS 13
#define SLOTS(S, C) S(0) S(1) S(2) S(3) C(4) S(5) S(6) S(7) S(8) S(9) S(10) S(11) S(12)
#elif FUNCTIONS == 2
#define STEPS 18
#define SLOTS(S, C) S(0) S(1) S(2) S(3) C(4) S(5) S(6) S(7) S(8) C(9) S(10) S(11) S(12) S(13) S(14) S(15) S(16) S(17)
#else
#define STEPS 32
#define SLOTS(S, C) S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) C(8) S(9) S(10) S(11) S(12) C(13) S(14) S(15) S(16) S(17) \
    C(18) S(19) S(20) S(21) S(22) C(23) S(24) S(25) S(26) S(27) S(28) S(29) S(30) S(31)
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint GROUPS = 1;
layout(constant_id = 2) const uint EACH_COMPUTES = 1;
layout(constant_id = 3) const uint GEOMETRY = 0;
layout(constant_id = 4) const uint ELEMENTS = 1;
layout(constant_id = 5) const uint STORE = 0;
layout(constant_id = 6) const uint RESULT = 0;
layout(constant_id = 7) const uint RESULT_IMAGINARY = 0;
layout(constant_id = 8) const uint PLANE = 0;
layout(constant_id = 10) const uint P1 = 1;
layout(constant_id = 11) const uint P2 = 1;
layout(constant_id = 12) const uint P3 = 1;
layout(constant_id = 13) const uint P4 = 1;
layout(constant_id = 14) const uint P5 = 1;

#define FLAT 0u
#define ROW 1u
#define GATHER 2u

#define OPERANDS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define TABLE(X) OPERANDS(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

#define DECLARE_OPERAND(K) \
    layout(set = 0, binding = K) readonly buffer Quads##K { uvec4 quads##K[]; }; \
    layout(set = 0, binding = K) readonly buffer Pairs##K { uvec2 pairs##K[]; }; \
    layout(set = 0, binding = K) readonly buffer Words##K { uint words##K[]; }; \
    layout(constant_id = 16 + 8 * K) const uint KIND##K = 0; \
    layout(constant_id = 17 + 8 * K) const uint MODE##K = 0; \
    layout(constant_id = 18 + 8 * K) const uint S0_##K = 0; \
    layout(constant_id = 19 + 8 * K) const uint S1_##K = 0; \
    layout(constant_id = 20 + 8 * K) const uint S2_##K = 0; \
    layout(constant_id = 21 + 8 * K) const uint S3_##K = 0; \
    layout(constant_id = 22 + 8 * K) const uint S4_##K = 0; \
    layout(constant_id = 23 + 8 * K) const uint S5_##K = 0;
OPERANDS(DECLARE_OPERAND)

layout(set = 0, binding = 8) writeonly buffer ResultQuads { uvec4 result_quads[]; };
layout(set = 0, binding = 8) writeonly buffer ResultPairs { uvec2 result_pairs[]; };
layout(set = 0, binding = 8) writeonly buffer ResultWords { uint result_words[]; };
layout(set = 0, binding = 9) buffer Scratch { uvec4 scratch[]; };

#define DECLARE_NUMBER(K) layout(constant_id = 80 + K) const uint NUMBER##K = 0;
TABLE(DECLARE_NUMBER)
#define NO_PLANE 0xffffffffu
#define DECLARE_PLANES(K) \
    layout(constant_id = 96 + K) const uint FROM##K = NO_PLANE; \
    layout(constant_id = 104 + 2 * K) const uint KEPT##K = 0; \
    layout(constant_id = 105 + 2 * K) const uint TO##K = NO_PLANE;
OPERANDS(DECLARE_PLANES)

#define DECLARE_STEP(K) \
    layout(constant_id = 120 + 4 * K) const uint OP##K = 0; \
    layout(constant_id = 121 + 4 * K) const uint A##K = 0; \
    layout(constant_id = 122 + 4 * K) const uint B##K = 0; \
    layout(constant_id = 123 + 4 * K) const uint C##K = 0;
SLOTS(DECLARE_STEP, DECLARE_STEP)

#define NUMBERS_AT 24
#define STEPS_AT 40

#define LOAD(K) \
    if (KIND##K != NONE) { \
        uvec4 place = uvec4(0u); \
        if (MODE##K != FLAT) \
            place = q0 * S0_##K + q1 * S1_##K + q2 * S2_##K + q3 * S3_##K + q4 * S4_##K + q5 * S5_##K; \
        uint at = MODE##K == FLAT ? group : place.x >> 2; \
        bool whole = MODE##K != GATHER; \
        if (KIND##K == WORD) { \
            if (whole) v[K] = quads##K[at]; \
            else v[K] = uvec4(words##K[place.x], words##K[place.y], words##K[place.z], words##K[place.w]); \
        } else if (KIND##K == PAIR) { \
            if (whole) { \
                uvec4 low = quads##K[2u * at], high = quads##K[2u * at + 1u]; \
                v[K] = uvec4(low.xz, high.xz); \
                v[8 + K] = uvec4(low.yw, high.yw); \
            } else { \
                uvec2 p = pairs##K[place.x], q = pairs##K[place.y], r = pairs##K[place.z], s = pairs##K[place.w]; \
                v[K] = uvec4(p.x, q.x, r.x, s.x); \
                v[8 + K] = uvec4(p.y, q.y, r.y, s.y); \
            } \
        } else if (KIND##K <= UINT16) { \
            uvec4 raw; \
            if (whole) { \
                uvec2 p = pairs##K[at]; \
                raw = uvec4(p.x, p.x >> 16, p.y, p.y >> 16); \
            } else { \
                raw = uvec4(words##K[place.x >> 1], words##K[place.y >> 1], words##K[place.z >> 1], \
                            words##K[place.w >> 1]) >> ((place & 1u) << 4); \
            } \
            v[K] = decoded(KIND##K, raw & 0xffffu); \
        } else { \
            uvec4 raw; \
            if (whole) raw = uvec4(words##K[at]) >> uvec4(0u, 8u, 16u, 24u); \
            else raw = uvec4(words##K[place.x >> 2], words##K[place.y >> 2], words##K[place.z >> 2], \
                             words##K[place.w >> 2]) >> ((place & 3u) << 3); \
            v[K] = decoded(KIND##K, raw & 0xffu); \
        } \
    }
#define LOAD_SCRATCH(K) if (FROM##K != NO_PLANE) v[16 + K] = scratch[FROM##K * PLANE + group];
#define KEEP(K) if (TO##K != NO_PLANE) scratch[TO##K * PLANE + group] = v[KEPT##K];
// Zeros come by a way that no driver can see through: some fold 0/y and 0*y to 0, whatever y is.
#define NUMBER(K) v[NUMBERS_AT + K] = uvec4((NUMBER##K & 0x7fffffffu) == 0u ? NUMBER##K | nothing : NUMBER##K);
#define SIMPLE(K) if (OP##K != 0u) v[STEPS_AT + K] = simple(OP##K, v[A##K], v[B##K], v[C##K]);
#define FUNCTION(K) if (OP##K != 0u) v[STEPS_AT + K] = complicated(OP##K, v[A##K], v[B##K]);

void compute(uint group) {
    uvec4 v[STEPS_AT + STEPS];
    uint nothing = gl_NumWorkGroups.z - 1u;
    uvec4 q0 = uvec4(0u), q1 = q0, q2 = q0, q3 = q0, q4 = q0, q5 = q0;
    if (GEOMETRY != 0u) {
        q0 = uvec4(4u * group);
        if (GEOMETRY == 2u) q0 = min(q0 + uvec4(0u, 1u, 2u, 3u), uvec4(ELEMENTS - 1u));
        q1 = q0 / P1;
        q2 = q0 / P2;
        q3 = q0 / P3;
        q4 = q0 / P4;
        q5 = q0 / P5;
    }
    OPERANDS(LOAD)
    OPERANDS(LOAD_SCRATCH)
    TABLE(NUMBER)
    SLOTS(SIMPLE, FUNCTION)
    uvec4 result = v[RESULT];
    switch (STORE) {
    case WORD: result_quads[group] = result; break;
    case PAIR: {
        uvec4 imaginary = v[RESULT_IMAGINARY];
        result_quads[2u * group] = uvec4(result.x, imaginary.x, result.y, imaginary.y);
        result_quads[2u * group + 1u] = uvec4(result.z, imaginary.z, result.w, imaginary.w);
        break;
    }
    case UINT16:
        result &= 0xffffu;
        result_pairs[group] = uvec2(result.x | result.y << 16, result.z | result.w << 16);
        break;
    case UINT8:
        result &= 0xffu;
        result_words[group] = result.x | result.y << 8 | result.z << 16 | result.w << 24;
        break;
    }
    OPERANDS(KEEP)
}

void main() {
    uint workgroup = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    uint first = workgroup * (gl_WorkGroupSize.x * EACH_COMPUTES) + gl_LocalInvocationID.x;
    for (uint k = 0u; k < EACH_COMPUTES; k++) {
        uint group = first + k * gl_WorkGroupSize.x;
        if (group < GROUPS) compute(group);
    }
}
