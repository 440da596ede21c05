#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
// One pass of a Fourier transform: lines of N = R0*R1*...*R4 points, each held in the registers of L threads (E points
// a thread, N = E*L), T lines a workgroup. Stockham's autosort form: every stage takes points t + i*L into registers,
// multiplies by the stage's roots, transforms R points at a time, and hands them on through shared memory. One global
// read and one write a point. Long transforms are several passes (Bailey's four-step form): the root between passes and
// the transposition are part of the pass, as are cutting, padding, float16 operands, real transforms of even length
// (half as many complex points) and Bluestein's chirp.
//
// variant: fft_1 -O0 -DSTAGES=1
// variant: fft_2 -O0 -DSTAGES=2
// variant: fft_3 -O0 -DSTAGES=3
// variant: fft_5 -O0 -DSTAGES=5
// variant: fft_few_1 -O0 -DSTAGES=1 -DFEW
// variant: fft_few_2 -O0 -DSTAGES=2 -DFEW
// variant: fft_few_3 -O0 -DSTAGES=3 -DFEW
// variant: fft_few_5 -O0 -DSTAGES=5 -DFEW
// variant: fft_convolve_1 -O0 -DSTAGES=1 -DFEW -DCONVOLVE
// variant: fft_convolve_2 -O0 -DSTAGES=2 -DFEW -DCONVOLVE
// variant: fft_convolve_3 -O0 -DSTAGES=3 -DFEW -DCONVOLVE
// variant: fft_convolve_5 -O0 -DSTAGES=5 -DFEW -DCONVOLVE
// STAGES: as many as there are (5: four or five). FEW: fewer radices. CONVOLVE: transform, multiply by binding 5,
// transform back: the middle of Bluestein's algorithm.
//
// Bindings: 0 source, 1 target, 2 roots of the stages, 3 roots between passes (E rows of A then L rows of B, each
// TW_MOD long: exp(-2 pi i k q / n) = A[i][q] * B[t][q], k = t + place of register i), 4 factors by index (chirp),
// 5 exp(-pi i k / LENGTH) for real transforms, or the filter.
// A line is the number of a transform; its four parts (lengths D0 (fastest), D1, D2) have strides A0.. in the source and
// B0.. in the target. A point of a line has the index pos * MOD + (line / DIV) % MOD along the axis, and the address
// base + index * STEP; indices from LENGTH on are zero. An inverse transform is a forward one with real and imaginary
// part exchanged before and after.
// Sources of the method: Govindaraju et al. 2008 (Stockham on GPUs), Bailey 1990 (four-step).
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint LINES = 1;
layout(constant_id = 2) const uint T = 1;
layout(constant_id = 3) const uint N = 1;
layout(constant_id = 4) const uint L = 1;
layout(constant_id = 5) const uint R0 = 1;
layout(constant_id = 6) const uint R1 = 1;
layout(constant_id = 7) const uint R2 = 1;
layout(constant_id = 8) const uint R3 = 1;
layout(constant_id = 9) const uint R4 = 1;
// The exchange: a line's place in shared memory, one word more after every 2^PAD words, real and imaginary parts
// together or one after the other, all points at once or in ROUNDS.
layout(constant_id = 10) const uint PITCH = 1;
layout(constant_id = 11) const uint PAD = 31;
layout(constant_id = 12) const uint SHARED = 1;
layout(constant_id = 13) const uint TOGETHER = 1;
layout(constant_id = 14) const uint ROUNDS = 1;
// Whether neighbouring threads are neighbours within a line (0) or of neighbouring lines (1).
layout(constant_id = 15) const uint LOAD_ACROSS = 0;
layout(constant_id = 16) const uint STORE_ACROSS = 0;
layout(constant_id = 17) const uint D0 = 1;
layout(constant_id = 18) const uint D1 = 1;
layout(constant_id = 19) const uint A0 = 0;
layout(constant_id = 20) const uint A1 = 0;
layout(constant_id = 21) const uint A2 = 0;
layout(constant_id = 22) const uint A_STEP = 1;
layout(constant_id = 23) const uint IN_DIV = 1;
layout(constant_id = 24) const uint IN_MOD = 1;
layout(constant_id = 25) const uint VALID = 1;
layout(constant_id = 26) const uint LOAD = 0;
layout(constant_id = 27) const uint STORAGE = 0;
layout(constant_id = 28) const uint B0 = 0;
layout(constant_id = 29) const uint B1 = 0;
layout(constant_id = 30) const uint B2 = 0;
layout(constant_id = 31) const uint B_STEP = 1;
layout(constant_id = 32) const uint OUT_DIV = 1;
layout(constant_id = 33) const uint OUT_MOD = 1;
layout(constant_id = 34) const uint KEPT = 1;
layout(constant_id = 35) const uint STORE = 0;
layout(constant_id = 36) const uint TW_DIV = 1;
layout(constant_id = 37) const uint TW_MOD = 1;
layout(constant_id = 38) const uint TWIDDLE = 0;
layout(constant_id = 39) const uint FLAGS = 0;
layout(constant_id = 40) const uint LENGTH = 1;
layout(constant_id = 41) const float SCALE = 1.0;
layout(constant_id = 42) const uint D2 = 1;
layout(constant_id = 43) const uint A3 = 0;
layout(constant_id = 44) const uint B3 = 0;

const uint COMPLEX = 0, REAL = 1, PACKED = 2, MIRRORED = 3, HALF = 4;  // LOAD and STORE
const uint CONJUGATE_IN = 1, SWAP_IN = 2, SWAP_OUT = 4, CONJUGATE_OUT = 8, FACTOR_IN = 16, FACTOR_OUT = 32;
const uint CONJUGATE_FACTOR = 64;
const uint AT_LOAD = 1, AT_STORE = 2;  // TWIDDLE
const uint PAIRS = 0, FLOAT16 = 1, BFLOAT16 = 2;  // STORAGE; 3: float32

layout(set = 0, binding = 0) readonly buffer Source { vec2 source[]; };
layout(set = 0, binding = 0) readonly buffer SourceReal { float source_real[]; };
layout(set = 0, binding = 0) readonly buffer SourceBits { uint source_bits[]; };
layout(set = 0, binding = 1) writeonly buffer Target { vec2 target[]; };
layout(set = 0, binding = 1) writeonly buffer TargetReal { float target_real[]; };
layout(set = 0, binding = 2) readonly buffer Roots { vec2 roots[]; };
layout(set = 0, binding = 3) readonly buffer Between { vec2 between[]; };
layout(set = 0, binding = 4) readonly buffer Factors { vec2 factors[]; };
layout(set = 0, binding = 5) readonly buffer Extra { vec2 extra[]; };


#include "fft_butterflies.glsl"

const uint MOST = 32;  // points a thread
// Transforms of R points that each thread makes in the stages; a thread's number may exceed what is left for it.
const uint Q0 = N / R0, Q1 = N / R1, Q2 = N / R2, Q3 = N / R3, Q4 = N / R4;
const uint C0 = (Q0 + L - 1) / L, C1 = (Q1 + L - 1) / L, C2 = (Q2 + L - 1) / L, C3 = (Q3 + L - 1) / L;
const uint C4 = (Q4 + L - 1) / L;
// Roots of stage s begin where those of the stages before end; stage 0 has none.
const uint P1 = R0, P2 = P1 * R1, P3 = P2 * R2, P4 = P3 * R3;
const uint LAST = R4 > 1 ? R4 : R3 > 1 ? R3 : R2 > 1 ? R2 : R1 > 1 ? R1 : R0;
const uint CL = (N / LAST + L - 1) / L;
// Indices that a pass may meet at its load. What can be decided here need not be asked of every point.
const uint SPAN_IN = N * IN_MOD;
// Half a spectrum has one bin more than the points it gives.
const uint SPAN_BINS = SPAN_IN + (LOAD == 4 ? 1 : 0);

shared float held[SHARED];
vec2 v[MOST];
uint c, t;  // this thread's line in the group and its place in it
uint group;

// Result or operand number i of a thread in a stage of this radix: its place in the line, N or more where it has none.
uint offset(uint i, uint radix, uint count) { return (i % count) * L + (i / count) * (N / radix); }
uint spot(uint i, uint radix, uint count) {
    return count * L == N / radix || t + (i % count) * L < N / radix ? t + offset(i, radix, count) : N;
}

void place(uint across) {
    uint id = gl_LocalInvocationID.x;
    if (across != 0) { t = id / T; c = id % T; } else { c = id / L; t = id % L; }
}

uint address(uint line, uint s0, uint s1, uint s2, uint s3) {
    uint rest = line / D0, far = rest / D1;
    return (line % D0) * s0 + (rest % D1) * s1 + (far % D2) * s2 + (far / D2) * s3;
}

uint word(uint pos) { return c * PITCH + pos + (PAD < 31 ? pos >> PAD : 0); }

vec2 conjugate(vec2 a) { return vec2(a.x, -a.y); }

float real_at(uint at) {
    if (STORAGE == FLOAT16) {
        vec2 pair = unpackHalf2x16(source_bits[at >> 1]);
        return (at & 1) != 0 ? pair.y : pair.x;
    }
    if (STORAGE == BFLOAT16) {
        uint bits = source_bits[at >> 1];
        return uintBitsToFloat((at & 1) != 0 ? bits & 0xFFFF0000u : bits << 16);
    }
    return source_real[at];
}

vec2 bin(uint base, uint index) {
    if (VALID < SPAN_BINS && index >= VALID) return vec2(0.0);
    if (STORAGE != PAIRS) return vec2(real_at(base + index * A_STEP), 0.0);
    vec2 x = source[base + index * A_STEP];
    return (FLAGS & CONJUGATE_IN) != 0 ? conjugate(x) : x;
}

vec2 point(uint base, uint index) {
    if (LOAD == COMPLEX) return bin(base, index);
    if (LOAD == REAL) return vec2(index < VALID ? real_at(base + index * A_STEP) : 0.0, 0.0);
    if (LOAD == PACKED) {
        uint at = base + 2 * index * A_STEP;
        return vec2(2 * index < VALID ? real_at(at) : 0.0, 2 * index + 1 < VALID ? real_at(at + A_STEP) : 0.0);
    }
    if (LOAD == MIRRORED) {  // the whole spectrum that half of one stands for
        if (index == 0) return vec2(bin(base, 0).x, 0.0);
        return 2 * index < LENGTH ? bin(base, index) : conjugate(bin(base, LENGTH - index));
    }
    // HALF: from the spectrum of 2*LENGTH real points to that of LENGTH complex ones
    vec2 x = bin(base, index), y = conjugate(bin(base, LENGTH - index));
    if (index == 0) { x.y = 0.0; y.y = 0.0; }
    vec2 odd = times(x - y, conjugate(extra[index]));
    return x + y + vec2(-odd.y, odd.x);
}

// The root between passes of register i: A[i] * B[t]. Where the places of the registers rise evenly, four by four, A[i]
// is A[i - i % 4] * A[i % 4]: fewer rows, which then stay in the cache. Registers come in order.
vec2 coarse, fine[4];
void begin_roots(uint rows, uint count, uint q) {
    coarse = between[(rows + t) * TW_MOD + q];
    if (rows > 4 && 4 % count == 0) {
        [[unroll]] for (uint i = 1; i < 4; i++) fine[i] = between[i * TW_MOD + q];
    }
}
vec2 root_between(uint i, uint rows, uint count, uint q) {
    if (rows <= 4 || 4 % count != 0) return i == 0 ? coarse : times(coarse, between[i * TW_MOD + q]);
    if (i % 4 != 0) return times(coarse, fine[i % 4]);
    if (i > 0) coarse = times(between[(rows + t) * TW_MOD + q], between[i * TW_MOD + q]);
    return coarse;
}

void load() {
    uint line = group * T + c;
    uint base = address(line, A0, A1, A2, A3);
    uint q = (line / IN_DIV) % IN_MOD, column = (line / TW_DIV) % TW_MOD;
    bool live = LINES % T == 0 || line < LINES;
    if (TWIDDLE == AT_LOAD) begin_roots(C0 * R0, C0, column);
    [[unroll]] for (uint i = 0; i < C0 * R0; i++) {
        uint pos = spot(i, R0, C0), index = pos * IN_MOD + q;
        bool there = live && (C0 * L * R0 == N || pos < N) && (LENGTH >= SPAN_IN || index < LENGTH);
        v[i] = there ? point(base, index) : vec2(0.0);
        if ((FLAGS & SWAP_IN) != 0) v[i] = v[i].yx;
        if ((FLAGS & FACTOR_IN) != 0) v[i] = times(v[i], factors[min(index, LENGTH - 1)]);
        if (TWIDDLE == AT_LOAD) v[i] = times(v[i], root_between(i, C0 * R0, C0, column));
    }
}

// The transforms of R points of a stage; p is the product of the radices before.
#define BUTTERFLIES(R) \
void butterflies##R(uint p, uint first) { \
    const uint COUNT = (N / R + L - 1) / L; \
    [[unroll]] for (uint b = 0; b < COUNT; b++) { \
        vec2 x[R]; \
        [[unroll]] for (uint r = 0; r < R; r++) x[r] = v[b + COUNT * r]; \
        if (p > 1) { \
            uint at = first + (t + b * L) % p; \
            [[unroll]] for (uint r = 1; r < R; r++) x[r] = times(x[r], roots[at + (r - 1) * p]); \
        } \
        dft##R(x); \
        [[unroll]] for (uint r = 0; r < R; r++) v[b + COUNT * r] = x[r]; \
    } \
}
// Radices that this binary offers: the fewer, the sooner a driver has a pipeline.
#ifdef FEW
#define EACH(ONE) ONE(2) ONE(3) ONE(4) ONE(5) ONE(7) ONE(8) ONE(16)
#else
#define EACH(ONE) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) ONE(8) ONE(9) ONE(10) ONE(11) ONE(12) ONE(13) ONE(14) \
    ONE(15) ONE(16) ONE(25) ONE(27) ONE(32)
#endif
EACH(BUTTERFLIES)
void butterflies1(uint p, uint first) {}
#define CHOICE(R) if (radix == R) butterflies##R(p, first);
void STAGE(uint radix, uint p, uint first) {
    EACH(CHOICE)
}

void give(uint i, uint at, uint part) {
    if (TOGETHER != 0) {
        held[at] = v[i].x;
        held[at + SHARED / 2] = v[i].y;
    } else held[at] = v[i][part];
}

// Hands the results of a stage (radix, p: product of the radices before) to the threads that need them in the next,
// which may be arranged in the other way.
#define EXCHANGE(RADIX, COUNT, P, NEXT_RADIX, NEXT_COUNT, BEFORE, AFTER) { \
    const uint PARTS = TOGETHER != 0 ? 1 : 2, PIECE = N / ROUNDS; \
    vec2 next[MOST]; \
    [[unroll]] for (uint part = 0; part < PARTS; part++) { \
        [[unroll]] for (uint round = 0; round < ROUNDS; round++) { \
            if (BEFORE != AFTER) place(BEFORE); \
            barrier(); \
            [[unroll]] for (uint i = 0; i < COUNT * RADIX; i++) { \
                uint j = t + (i % COUNT) * L; \
                uint at = (j / (P)) * ((P) * RADIX) + j % (P) + (i / COUNT) * (P) - round * PIECE; \
                if ((COUNT * L * RADIX == N || j < N / RADIX) && (ROUNDS == 1 || at < PIECE)) give(i, word(at), part); \
            } \
            barrier(); \
            if (BEFORE != AFTER) place(AFTER); \
            [[unroll]] for (uint i = 0; i < NEXT_COUNT * NEXT_RADIX; i++) { \
                if (i / NEXT_COUNT * ROUNDS / NEXT_RADIX != round) continue; \
                uint at = spot(i, NEXT_RADIX, NEXT_COUNT); \
                if (at >= N) continue; \
                at = word(at - round * PIECE); \
                if (TOGETHER != 0) next[i] = vec2(held[at], held[at + SHARED / 2]); \
                else next[i][part] = held[at]; \
            } \
        } \
    } \
    [[unroll]] for (uint i = 0; i < NEXT_COUNT * NEXT_RADIX; i++) v[i] = next[i]; \
}

#if STAGES > 1
#define STAGE_1(B, A) EXCHANGE(R0, C0, 1, R1, C1, B, A) STAGE(R1, P1, 0);
#else
#define STAGE_1(B, A)
#endif
#if STAGES > 2
#define STAGE_2(A) EXCHANGE(R1, C1, P1, R2, C2, A, A) STAGE(R2, P2, P2 - P1);
#else
#define STAGE_2(A)
#endif
#if STAGES > 3
#define STAGE_3(A) if (R3 > 1) { EXCHANGE(R2, C2, P2, R3, C3, A, A) STAGE(R3, P3, P3 - P1); }
#define STAGE_4(A) if (R4 > 1) { EXCHANGE(R3, C3, P3, R4, C4, A, A) STAGE(R4, P4, P4 - P1); }
#else
#define STAGE_3(A)
#define STAGE_4(A)
#endif
#define TRANSFORM(BEFORE, AFTER) { \
    STAGE(R0, 1, 0); \
    STAGE_1(BEFORE, AFTER) STAGE_2(AFTER) STAGE_3(AFTER) STAGE_4(AFTER) \
}

void put(uint base, uint index, vec2 x) {
    x *= SCALE;
    if ((FLAGS & SWAP_OUT) != 0) x = x.yx;
    if ((FLAGS & CONJUGATE_OUT) != 0) x.y = -x.y;
    uint at = base + index * B_STEP;
    if (STORE == REAL) target_real[at] = x.x;
    else if (STORE == PACKED) {
        target_real[at + index * B_STEP] = x.x;
        target_real[at + (index + 1) * B_STEP] = x.y;
    } else target[at] = x;
}

// From the spectrum of LENGTH complex points to that of 2*LENGTH real ones: bins k and LENGTH-k are mixed, which other
// threads hold.
void separate() {
    const uint PARTS = TOGETHER != 0 ? 1 : 2;
    vec2 mirrored[MOST];
    [[unroll]] for (uint part = 0; part < PARTS; part++) {
        barrier();
        [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
            uint k = spot(i, LAST, CL);
            if (k < N) give(i, word(k), part);
        }
        barrier();
        [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
            uint k = spot(i, LAST, CL);
            if (k >= N) continue;
            uint at = word(k == 0 ? 0 : N - k);
            if (TOGETHER != 0) mirrored[i] = vec2(held[at], held[at + SHARED / 2]);
            else mirrored[i][part] = held[at];
        }
    }
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint k = spot(i, LAST, CL);
        if (k == 0 || k >= N) continue;
        vec2 x = v[i], y = conjugate(mirrored[i]), odd = times(x - y, extra[k]);
        v[i] = 0.5 * (x + y + vec2(odd.y, -odd.x));
    }
}

void store() {
    uint line = group * T + c;
    uint base = address(line, B0, B1, B2, B3);
    uint q = (line / OUT_DIV) % OUT_MOD, column = (line / TW_DIV) % TW_MOD;
    if (STORE == HALF) separate();
    if (LINES % T != 0 && line >= LINES) return;
    if (TWIDDLE == AT_STORE) begin_roots(CL * LAST, CL, column);
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint pos = spot(i, LAST, CL), index = pos * OUT_MOD + q;
        if (CL * L * LAST != N && pos >= N || KEPT < N * OUT_MOD && index >= KEPT) continue;
        vec2 x = v[i];
        if (TWIDDLE == AT_STORE) x = times(x, root_between(i, CL * LAST, CL, column));
        if ((FLAGS & FACTOR_OUT) != 0) {
            vec2 f = factors[index];
            x = times(x, (FLAGS & CONJUGATE_FACTOR) != 0 ? conjugate(f) : f);
        }
        if (STORE == HALF && index == 0) {
            put(base, LENGTH, vec2(x.x - x.y, 0.0));
            x = vec2(x.x + x.y, 0.0);
        }
        put(base, index, x);
    }
}

void main() {
    group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    if (group * T >= LINES) return;
    place(LOAD_ACROSS);
    load();
    TRANSFORM(LOAD_ACROSS, STORE_ACROSS)
#ifdef CONVOLVE
    uint row = ((group * T + c) / TW_DIV) % TW_MOD;
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint k = spot(i, LAST, CL);
        if (k < N) v[i] = times(v[i], extra[row * N + k]).yx;
    }
    // Where the last radix is not the first, the points must change hands once more.
    if (LAST != R0) EXCHANGE(LAST, CL, N / LAST, R0, C0, STORE_ACROSS, STORE_ACROSS)
    TRANSFORM(STORE_ACROSS, STORE_ACROSS)
#endif
    store();
}
