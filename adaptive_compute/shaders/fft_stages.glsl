// A transform within a workgroup: R0*R1*...*R4 = N points on L threads a line, T lines. A shader that holds two of them
// includes this twice, after fft_sides.glsl, which maps the names here to those of one side.

// Transforms of R points that each thread makes in the stages; a thread's number may exceed what is left for it.
const uint Q0 = N / R0, Q1 = N / R1, Q2 = N / R2, Q3 = N / R3, Q4 = N / R4;
const uint C0 = (Q0 + L - 1) / L, C1 = (Q1 + L - 1) / L, C2 = (Q2 + L - 1) / L, C3 = (Q3 + L - 1) / L;
const uint C4 = (Q4 + L - 1) / L;
// Roots of stage s begin where those of the stages before end, the first at FIRST_ROOT; stage 0 has none.
const uint P1 = R0, P2 = P1 * R1, P3 = P2 * R2, P4 = P3 * R3;
const uint LAST = R4 > 1 ? R4 : R3 > 1 ? R3 : R2 > 1 ? R2 : R1 > 1 ? R1 : R0;
const uint CL = (N / LAST + L - 1) / L;

// Result or operand number i of a thread in a stage of this radix: its place in the line, N or more where it has none.
uint offset(uint i, uint radix, uint count) { return (i % count) * L + (i / count) * (N / radix); }
uint spot(uint i, uint radix, uint count) {
    return count * L == N / radix || t + (i % count) * L < N / radix ? t + offset(i, radix, count) : N;
}

// Neighbouring threads are `block` neighbours within a line, then come the other lines, then the next block.
void place(uint block) {
    uint id = gl_LocalInvocationID.x;
    if (T * L < gl_WorkGroupSize.x) id = min(id, T * L - 1);  // who is left over does what the last one does
    if (block == L) { c = id / L; t = id % L; } else { t = id / (block * T) * block + id % block; c = id / block % T; }
}

// The root between passes of register i in column q: exp(-2 pi i k q / n), k = t + its place. Where the places rise
// evenly, four by four, it is that of register i - i % 4 times that of the place of i % 4. Registers come in order.
vec2 coarse, fine[4];
void begin_roots(uint radix, uint count, uint q, uint n) {
    coarse = root(t * q, n);
    if (count * radix > 4 && 4 % count == 0) {
        [[unroll]] for (uint i = 1; i < 4; i++) fine[i] = root(offset(i, radix, count) * q, n);
    }
}
vec2 root_between(uint i, uint radix, uint count, uint q, uint n) {
    if (count * radix <= 4 || 4 % count != 0) return root((t + offset(i, radix, count)) * q, n);
    if (i % 4 != 0) return times(coarse, fine[i % 4]);
    if (i > 0) coarse = root((t + offset(i, radix, count)) * q, n);
    return coarse;
}

uint word(uint pos) { return c * PITCH + pos + (PAD < 31 ? pos >> PAD : 0); }

// The transforms of R points of a stage; p is the product of the radices before.
#define BUTTERFLIES(R) \
void OF_SIDE(butterflies##R)(uint p, uint first) { \
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
void OF_SIDE(butterflies1)(uint p, uint first) {}
#define CHOICE(R) if (radix == R) OF_SIDE(butterflies##R)(p, first);
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
#define STAGE_1(B, A) EXCHANGE(R0, C0, 1, R1, C1, B, A) STAGE(R1, P1, FIRST_ROOT);
#else
#define STAGE_1(B, A)
#endif
#if STAGES > 2
#define STAGE_2(A) if (R2 > 1) { EXCHANGE(R1, C1, P1, R2, C2, A, A) STAGE(R2, P2, FIRST_ROOT + P2 - P1); }
#else
#define STAGE_2(A)
#endif
#if STAGES > 3
#define STAGE_3(A) if (R3 > 1) { EXCHANGE(R2, C2, P2, R3, C3, A, A) STAGE(R3, P3, FIRST_ROOT + P3 - P1); }
#define STAGE_4(A) if (R4 > 1) { EXCHANGE(R3, C3, P3, R4, C4, A, A) STAGE(R4, P4, FIRST_ROOT + P4 - P1); }
#else
#define STAGE_3(A)
#define STAGE_4(A)
#endif
#define TRANSFORM(BEFORE, AFTER) { \
    STAGE(R0, 1, 0); \
    STAGE_1(BEFORE, AFTER) STAGE_2(AFTER) STAGE_3(AFTER) STAGE_4(AFTER) \
}
