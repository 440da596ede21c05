#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
// Two passes of a Fourier transform in one dispatch, with what the first gives the second in the cache of the device: a
// transform of N_A * N_B points (Bailey's four-step form), or the last two passes of one of N0 times as many.
//
// variant: fft_pair_2 -O0 -DSTAGES=2 -DFEW
// variant: fft_pair_3 -O0 -DSTAGES=3 -DFEW
//
// The work is cut into UNITS: G rows of N_A * N_B points. Each is transformed by workgroups of side A (T_A columns each)
// and then by workgroups of side B (T_B rows each), which hand it over through one of RING places in `ring`. A workgroup
// draws a ticket, and tickets come in this order: side A of the first AHEAD units, then side B of unit 0, side A of unit
// AHEAD, side B of unit 1, and so on. A workgroup of side B waits until side A of its unit is done; one of side A until
// side B of the unit that had its place before is. Both have earlier tickets, so that whoever waits, waits for
// workgroups that already run: this needs a device on which those go on while others wait.
// Counters: tickets drawn, workgroups of side B that are done, then for every unit the workgroups of side A that are
// done, then those of side B. They are zero before and afterwards.
//
// Bindings: 0 source, 1 target, 2 roots of the stages (side A's, then side B's), 3 ring, 4 counters. Row r of the source begins at r * N_A * N_B. Rows k0 = 0..N0-1 of a
// transform of N0 * N_A * N_B points give every N0th point of its spectrum, from k0 on.
// Sources of the method: Bailey 1990 (four-step); Merrill and Garland 2016 (waiting for earlier workgroups).
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint N_A = 1;
layout(constant_id = 2) const uint L_A = 1;
layout(constant_id = 3) const uint T_A = 1;
layout(constant_id = 4) const uint R0_A = 1;
layout(constant_id = 5) const uint R1_A = 1;
layout(constant_id = 6) const uint R2_A = 1;
layout(constant_id = 7) const uint PITCH_A = 1;
layout(constant_id = 8) const uint PAD_A = 31;
layout(constant_id = 9) const uint TOGETHER_A = 1;
layout(constant_id = 10) const uint ROUNDS_A = 1;
layout(constant_id = 11) const uint N_B = 1;
layout(constant_id = 12) const uint L_B = 1;
layout(constant_id = 13) const uint T_B = 1;
layout(constant_id = 14) const uint R0_B = 1;
layout(constant_id = 15) const uint R1_B = 1;
layout(constant_id = 16) const uint R2_B = 1;
layout(constant_id = 17) const uint PITCH_B = 1;
layout(constant_id = 18) const uint PAD_B = 31;
layout(constant_id = 19) const uint TOGETHER_B = 1;
layout(constant_id = 20) const uint ROUNDS_B = 1;
layout(constant_id = 21) const uint SHARED = 1;
layout(constant_id = 22) const uint UNITS = 1;
layout(constant_id = 23) const uint G = 1;
layout(constant_id = 24) const uint N0 = 1;
layout(constant_id = 25) const uint AHEAD = 1;
layout(constant_id = 26) const uint RING = 1;
layout(constant_id = 27) const uint FLAGS = 0;
layout(constant_id = 28) const float SCALE = 1.0;

layout(set = 0, binding = 0) readonly buffer Source { vec2 source[]; };
layout(set = 0, binding = 1) writeonly buffer Target { vec2 target[]; };
layout(set = 0, binding = 2) readonly buffer Roots { vec2 roots[]; };
layout(set = 0, binding = 3) coherent buffer Ring { vec2 ring[]; };
layout(set = 0, binding = 4) coherent buffer Counters { uint counters[]; };

#include "fft_butterflies.glsl"
#include "fft_common.glsl"

const uint ROW = N_A * N_B, LINES_A = G * N_B, LINES_B = G * N_A;
const uint TILES_A = (LINES_A + T_A - 1) / T_A, TILES_B = (LINES_B + T_B - 1) / T_B;
const uint FIRST_ROOT_A = 0, FIRST_ROOT_B = N_A - R0_A;
const uint R3 = 1, R4 = 1;
shared uint told;

#include "fft_sides.glsl"

const uint TICKETS = 0, DONE = 1, FIRST_COUNTER = 2;
uint counter_a(uint unit) { return FIRST_COUNTER + unit; }
uint counter_b(uint unit) { return FIRST_COUNTER + UNITS + unit; }

// A driver may end a loop that goes round too often (Mesa's lavapipe: 65,535 times), so every round asks often.
void wait(uint counter, uint count) {
    bool ready = false;
    while (!ready) [[unroll]] for (uint i = 0; i < 64; i++) if (!ready) ready = atomicAdd(counters[counter], 0) >= count;
}

#define SIDE A
#include "fft_stages.glsl"

// Column l of a unit: every N_Bth point of row l / N_B from l % N_B on, in the source as in the ring.
void columns(uint unit, uint row, uint at, uint tile) {
    place(1);
    uint l = tile * T + c, first = l / N_B * ROW + l % N_B;
    bool live = LINES_A % T == 0 || l < LINES_A;
    [[unroll]] for (uint i = 0; i < C0 * R0; i++) {
        uint pos = spot(i, R0, C0);
        v[i] = live && (C0 * L * R0 == N || pos < N) ? source[row * ROW + first + pos * N_B] : vec2(0.0);
        if ((FLAGS & CONJUGATE_IN) != 0) v[i].y = -v[i].y;
        if ((FLAGS & SWAP_IN) != 0) v[i] = v[i].yx;
    }
    TRANSFORM(1, 1)
    if (unit >= RING) {
        if (gl_LocalInvocationID.x == 0) wait(counter_b(unit - RING), TILES_B);
        barrier();
    }
    if (!live) return;
    begin_roots(LAST, CL, l % N_B, ROW);
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint pos = spot(i, LAST, CL);
        if (CL * L * LAST != N && pos >= N) continue;
        ring[at + first + pos * N_B] = times(v[i], root_between(i, LAST, CL, l % N_B, ROW));
    }
}

#undef SIDE
#define SIDE B
#include "fft_stages.glsl"

// Line l of a unit is row l / G of the points that its row l % G has become.
void rows(uint unit, uint row, uint at, uint tile) {
    place(L);
    uint l = tile * T + c;
    bool live = LINES_B % T == 0 || l < LINES_B;
    [[unroll]] for (uint i = 0; i < C0 * R0; i++) {
        uint pos = spot(i, R0, C0);
        v[i] = live && (C0 * L * R0 == N || pos < N) ? ring[at + (l % G * N_A + l / G) * N + pos] : vec2(0.0);
    }
    TRANSFORM(L, 1)
    // All have read by now. The last to say so knows that nobody waits for side A of the unit any more.
    if (gl_LocalInvocationID.x == 0 && atomicAdd(counters[counter_b(unit)], 1) == TILES_B - 1)
        atomicExchange(counters[counter_a(unit)], 0);
    l = tile * T + c;
    if (LINES_B % T != 0 && l >= LINES_B) return;
    uint first = row / N0 * (N0 * ROW) + row % N0 + l % G + l / G * N0;
    [[unroll]] for (uint i = 0; i < CL * LAST; i++) {
        uint pos = spot(i, LAST, CL);
        if (CL * L * LAST != N && pos >= N) continue;
        vec2 x = v[i] * SCALE;
        if ((FLAGS & SWAP_OUT) != 0) x = x.yx;
        if ((FLAGS & CONJUGATE_OUT) != 0) x.y = -x.y;
        target[first + pos * (N0 * N_A)] = x;
    }
}

// Returns whether it was one of side B.
bool work(uint ticket) {
    uint unit, tile;
    bool second;
    const uint START = AHEAD * TILES_A, TURN = TILES_A + TILES_B, TURNS = (UNITS - AHEAD) * TURN;
    if (ticket < START) {
        second = false;
        unit = ticket / TILES_A;
        tile = ticket % TILES_A;
    } else if (ticket < START + TURNS) {
        uint turn = (ticket - START) / TURN;
        tile = (ticket - START) % TURN;
        second = tile < TILES_B;
        unit = second ? turn : turn + AHEAD;
        if (!second) tile -= TILES_B;
    } else {
        second = true;
        unit = UNITS - AHEAD + (ticket - START - TURNS) / TILES_B;
        tile = (ticket - START - TURNS) % TILES_B;
    }
    bool leader = gl_LocalInvocationID.x == 0;
    uint at = unit % RING * (G * ROW);
    if (second) {
        if (leader) {
            wait(counter_a(unit), TILES_A);
            memoryBarrierBuffer();
        }
        barrier();
        rows(unit, unit * G, at, tile);
        return true;
    }
    columns(unit, unit * G, at, tile);
    barrier();
    if (leader) {
        memoryBarrierBuffer();
        // The last has waited for side B of the unit that had the place before, as have all the others.
        if (atomicAdd(counters[counter_a(unit)], 1) == TILES_A - 1 && unit >= RING)
            atomicExchange(counters[counter_b(unit - RING)], 0);
    }
    return false;
}

void main() {
    const uint TOTAL = UNITS * (TILES_A + TILES_B), LEFT = UNITS - min(RING, UNITS);
    if (gl_LocalInvocationID.x == 0) told = atomicAdd(counters[TICKETS], 1);
    barrier();
    uint ticket = told, groups = gl_NumWorkGroups.x * gl_NumWorkGroups.y;
    bool last = ticket >= TOTAL;
    if (!last) last = work(ticket);
    // Whoever is the last of side B, or has had nothing to do, leaves the counters as they were found.
    if (last && gl_LocalInvocationID.x == 0 && atomicAdd(counters[DONE], 1) == groups - UNITS * TILES_A - 1) {
        for (uint unit = LEFT; unit < UNITS; unit++) counters[counter_b(unit)] = 0;
        counters[TICKETS] = 0;
        counters[DONE] = 0;
    }
}
