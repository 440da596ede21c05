#version 450
#extension GL_GOOGLE_include_directive : require
// result[b, s, c] = sum of values[b, e, c] over the entries e of slot s, in the order of the entries' list.
// A workgroup holds LANES columns by ACROSS threads that share a slot's entries, for as many slots as it has room for.
// Long sums of floats carry what each addition rounds off (Knuth's two-sum), so that they are as good as in float64.
// Bindings: 0 values, 1 the entries in the order of their slots, 2 starts of the slots in it, 3 result.
// Constants: 0 entries, 1 slots, 2 columns, 3 rows (b, s), 4 LANES, 5 ACROSS, 6 words of a start, 7 the entries lie in
// order, 8 storage (floats: as in halves.glsl; whole numbers: bits), 9 carry the rounding, 10 parts that a slot's entries
// are cut into, 11 stage: 0 all in one, 1 sums of parts, 2 sums of those, whose
// number is 12.
// variant: gather_sum_float -DFLOATS -O0
// variant: gather_sum_whole -DWORDS
// variant: gather_sum_long -DLONGS
#define LOCAL 256
layout(local_size_x = LOCAL) in;
layout(constant_id = 0) const uint ENTRIES = 1;
layout(constant_id = 1) const uint SLOTS = 1;
layout(constant_id = 2) const uint COLUMNS = 1;
layout(constant_id = 3) const uint ROWS = 1;
layout(constant_id = 4) const uint LANES = 1;
layout(constant_id = 5) const uint ACROSS = 1;
layout(constant_id = 6) const uint START_WORDS = 1;
layout(constant_id = 7) const uint SORTED = 0;
layout(constant_id = 8) const uint TYPE = 0;
layout(constant_id = 9) const uint CARRY = 0;
layout(constant_id = 10) const uint PARTS = 1;
layout(constant_id = 11) const uint STAGE = 0;
layout(constant_id = 12) const uint READ = 1;
layout(set = 0, binding = 1) readonly buffer Order { uint order[]; };
layout(set = 0, binding = 2) readonly buffer Starts { uint starts[]; };

#ifdef FLOATS
#include "halves.glsl"
#define SUM vec2
layout(set = 0, binding = 0) readonly buffer Values { uint values[]; };
layout(set = 0, binding = 0) readonly buffer Partial { vec2 partial[]; };
layout(set = 0, binding = 3) writeonly buffer Result { float result[]; };
layout(set = 0, binding = 3) writeonly buffer Parts { vec2 parts[]; };
SUM value(uint at) {
    if (TYPE == 0u) return vec2(uintBitsToFloat(values[at]), 0.0);
    vec2 both = widened(values[at >> 1]);
    return vec2((at & 1u) == 0u ? both.x : both.y, 0.0);
}
SUM plus(SUM a, SUM b) {
    if (CARRY == 0u) return vec2(a.x + b.x, 0.0);
    precise float sum = a.x + b.x;
    precise float part = sum - a.x;
    precise float rest = sum - part;
    precise float low = (a.x - rest) + (b.x - part);
    return vec2(sum, a.y + b.y + low);
}
// The carry of a sum that is not finite means nothing.
float whole(SUM a) { return (floatBitsToUint(a.x) & 0x7f800000u) == 0x7f800000u ? a.x : a.x + a.y; }
#else
#ifdef WORDS
#define SUM uint
layout(set = 0, binding = 0) readonly buffer Values { uint values[]; };
layout(set = 0, binding = 0) readonly buffer Partial { uint partial[]; };
SUM value(uint at) {
    if (TYPE == 32u) return values[at];
    uint pack = 32u / TYPE;
    return bitfieldExtract(values[at / pack], int(at % pack * TYPE), int(TYPE));
}
SUM plus(SUM a, SUM b) { return a + b; }
#else
#define SUM uvec2
layout(set = 0, binding = 0) readonly buffer Values { uvec2 values[]; };
layout(set = 0, binding = 0) readonly buffer Partial { uvec2 partial[]; };
SUM value(uint at) { return values[at]; }
SUM plus(SUM a, SUM b) {
    uint carry, low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}
#endif
layout(set = 0, binding = 3) writeonly buffer Result { SUM result[]; };
layout(set = 0, binding = 3) writeonly buffer Parts { SUM parts[]; };
SUM whole(SUM a) { return a; }
#endif
shared SUM sums[LOCAL];

void main() {
    uint thread = gl_LocalInvocationIndex, chunks = (COLUMNS + LANES - 1u) / LANES, slots = LOCAL / (LANES * ACROSS);
    uint number = gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x;
    uint part = number % PARTS, chunk = number / PARTS % chunks, group = number / (PARTS * chunks);
    uint column = chunk * LANES + thread % LANES, across = thread / LANES % ACROSS;
    uint row = group * slots + thread / (LANES * ACROSS);
    bool there = row < ROWS && column < COLUMNS;
    SUM sum = SUM(0);
    if (there) {
        if (STAGE == 2u) {
            for (uint n = across; n < READ; n += ACROSS)
                sum = plus(sum, partial[(row * READ + n) * COLUMNS + column]);
        } else {
            uint before = row / SLOTS, slot = row - before * SLOTS;
            uint first = starts[slot * START_WORDS], last = starts[(slot + 1u) * START_WORDS];
            uint share = (last - first + PARTS - 1u) / PARTS;
            first += part * share;
            last = min(last, first + share);
            for (uint n = first + across; n < last; n += ACROSS) {
                uint entry = SORTED != 0u ? n : order[n];
                sum = plus(sum, value((before * ENTRIES + entry) * COLUMNS + column));
            }
        }
    }
    sums[thread] = sum;
    for (uint step = ACROSS / 2u; step > 0u; step /= 2u) {
        barrier();
        if (across < step) sums[thread] = plus(sums[thread], sums[thread + step * LANES]);
    }
    if (there && across == 0u) {
        if (STAGE == 1u) parts[(row * PARTS + part) * COLUMNS + column] = sums[thread];
        else result[row * COLUMNS + column] = whole(sums[thread]);
    }
}
