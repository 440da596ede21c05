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
// STAGES: as many as there are (5: four or five). FEW: fewer radices. CONVOLVE: transform, multiply by binding 4,
// transform back: the middle of Bluestein's algorithm.
//
// Bindings: 0 source, 1 target, 2 roots of the stages, 3 factors by index (chirp), 4 exp(-pi i k / LENGTH) for real
// transforms, or the filter. Roots between passes, exp(-2 pi i k q / TW_N) of point k in column q, are computed.
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
// How many neighbouring threads are neighbours within a line before the next lines come: 1 or L.
layout(constant_id = 15) const uint LOAD_BLOCK = 1;
layout(constant_id = 16) const uint STORE_BLOCK = 1;
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
layout(constant_id = 45) const uint TW_N = 1;

const uint COMPLEX = 0, REAL = 1, PACKED = 2, MIRRORED = 3, HALF = 4;  // LOAD and STORE
const uint AT_LOAD = 1, AT_STORE = 2;  // TWIDDLE
const uint PAIRS = 0, FLOAT16 = 1, BFLOAT16 = 2;  // STORAGE; 3: float32

layout(set = 0, binding = 0) readonly buffer Source { vec2 source[]; };
layout(set = 0, binding = 0) readonly buffer SourceReal { float source_real[]; };
layout(set = 0, binding = 0) readonly buffer SourceBits { uint source_bits[]; };
layout(set = 0, binding = 1) writeonly buffer Target { vec2 target[]; };
layout(set = 0, binding = 1) writeonly buffer TargetReal { float target_real[]; };
layout(set = 0, binding = 2) readonly buffer Roots { vec2 roots[]; };
layout(set = 0, binding = 3) readonly buffer Factors { vec2 factors[]; };
layout(set = 0, binding = 4) readonly buffer Extra { vec2 extra[]; };

#define OF_SIDE(NAME) NAME
const uint FIRST_ROOT = 0;
#include "fft_butterflies.glsl"
#include "fft_common.glsl"
#include "fft_stages.glsl"

// Indices that a pass may meet at its load. What can be decided here need not be asked of every point.
const uint SPAN_IN = N * IN_MOD;
// Half a spectrum has one bin more than the points it gives.
const uint SPAN_BINS = SPAN_IN + (LOAD == 4 ? 1 : 0);

uint group;

uint address(uint line, uint s0, uint s1, uint s2, uint s3) {
    uint rest = line / D0, far = rest / D1;
    return (line % D0) * s0 + (rest % D1) * s1 + (far % D2) * s2 + (far / D2) * s3;
}

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

void load() {
    uint line = group * T + c;
    uint base = address(line, A0, A1, A2, A3);
    uint q = (line / IN_DIV) % IN_MOD, column = (line / TW_DIV) % TW_MOD;
    bool live = LINES % T == 0 || line < LINES;
    if (TWIDDLE == AT_LOAD) begin_roots(R0, C0, column, TW_N);
    [[unroll]] for (uint i = 0; i < C0 * R0; i++) {
        uint pos = spot(i, R0, C0), index = pos * IN_MOD + q;
        bool there = live && (C0 * L * R0 == N || pos < N) && (LENGTH >= SPAN_IN || index < LENGTH);
        v[i] = there ? point(base, index) : vec2(0.0);
        if ((FLAGS & SWAP_IN) != 0) v[i] = v[i].yx;
        if ((FLAGS & FACTOR_IN) != 0) v[i] = times(v[i], factors[min(index, LENGTH - 1)]);
        if (TWIDDLE == AT_LOAD) v[i] = times(v[i], root_between(i, R0, C0, column, TW_N));
    }
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
    if (TWIDDLE == AT_STORE) begin_roots(LAST, CL, column, TW_N);
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint pos = spot(i, LAST, CL), index = pos * OUT_MOD + q;
        if (CL * L * LAST != N && pos >= N || KEPT < N * OUT_MOD && index >= KEPT) continue;
        vec2 x = v[i];
        if (TWIDDLE == AT_STORE) x = times(x, root_between(i, LAST, CL, column, TW_N));
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
    place(LOAD_BLOCK);
    load();
    TRANSFORM(LOAD_BLOCK, STORE_BLOCK)
#ifdef CONVOLVE
    uint row = ((group * T + c) / TW_DIV) % TW_MOD;
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint k = spot(i, LAST, CL);
        if (k < N) v[i] = times(v[i], extra[row * N + k]).yx;
    }
    // Where the last radix is not the first, the points must change hands once more.
    if (LAST != R0) EXCHANGE(LAST, CL, N / LAST, R0, C0, STORE_BLOCK, STORE_BLOCK)
    TRANSFORM(STORE_BLOCK, STORE_BLOCK)
#endif
    store();
}
