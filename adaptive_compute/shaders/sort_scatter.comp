#version 450
#extension GL_GOOGLE_include_directive : require
// Third step of a radix sort's pass: each block sorts itself by the digit, in two rounds of four bits, and writes every
// digit's keys and values where they belong. Equal digits keep their order, so that the result is the same every time.
// Bindings: 0 keys, 1 values, 2 lowest of the eight bits, 3 counts before each block, [digit][block], 4 totals,
// 5 sorted keys, 6 sorted values. A workgroup is a block.
// Constants: 0 keys, 1 blocks, 2 first pass: the values are the keys' numbers.
#define LOCAL 256u
#define EACH 8u
#define BLOCK (LOCAL * EACH)
layout(local_size_x = 256) in;
layout(constant_id = 0) const uint COUNT = 1;
layout(constant_id = 1) const uint BLOCKS = 1;
layout(constant_id = 2) const uint FIRST = 0;
layout(set = 0, binding = 0) readonly buffer Keys { uint keys[]; };
layout(set = 0, binding = 1) readonly buffer Values { uint values[]; };
layout(set = 0, binding = 2) readonly buffer Shift { uint shift[]; };
layout(set = 0, binding = 3) readonly buffer Counts { uint counts[]; };
layout(set = 0, binding = 4) readonly buffer Totals { uint totals[]; };
layout(set = 0, binding = 5) writeonly buffer SortedKeys { uint sorted_keys[]; };
layout(set = 0, binding = 6) writeonly buffer SortedValues { uint sorted_values[]; };
#include "sort_scan.glsl"
shared uint key[BLOCK];
shared uint value[BLOCK];
// How many of an invocation's keys have each four-bit digit: digits d and d + 8 share a word.
shared uint ranks[8u * LOCAL];

void sort_by(uint low) {
    uint me = gl_LocalInvocationIndex, mine[EACH], carried[EACH], total;
    for (uint d = 0u; d < 8u; d++) ranks[d * LOCAL + me] = 0u;
    for (uint e = 0u; e < EACH; e++) {
        mine[e] = key[me * EACH + e];
        carried[e] = value[me * EACH + e];
        uint digit = (mine[e] >> low) & 15u;
        ranks[(digit & 7u) * LOCAL + me] += 1u << ((digit >> 3) * 16u);
    }
    barrier();
    uint sums[8], sum = 0u;
    for (uint d = 0u; d < 8u; d++) {
        sums[d] = sum;
        sum += ranks[me * 8u + d];
    }
    uint before = exclusive_sum(sum, total);
    before += total << 16;  // the upper digits come after all lower ones
    for (uint d = 0u; d < 8u; d++) ranks[me * 8u + d] = before + sums[d];
    barrier();
    for (uint e = 0u; e < EACH; e++) {
        uint digit = (mine[e] >> low) & 15u, word = (digit & 7u) * LOCAL + me, by = (digit >> 3) * 16u;
        uint place = (ranks[word] >> by) & 0xFFFFu;
        ranks[word] += 1u << by;
        key[place] = mine[e];
        value[place] = carried[e];
    }
    barrier();
}

void main() {
    uint block = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, me = gl_LocalInvocationIndex, total;
    if (block >= BLOCKS) return;
    uint first = block * BLOCK, here = min(BLOCK, COUNT - first);
    for (uint i = me; i < BLOCK; i += LOCAL) {
        key[i] = i < here ? keys[first + i] : 0xFFFFFFFFu;  // what fills up goes to the end and stays there
        value[i] = i >= here ? 0u : FIRST != 0u ? first + i : values[first + i];
    }
    uint start = exclusive_sum(totals[me], total) + counts[me * BLOCKS + block];
    sort_by(shift[0]);
    sort_by(shift[0] + 4u);
    for (uint i = me; i < here; i += LOCAL) {
        uint digit = (key[i] >> shift[0]) & 255u;
        if (i == 0u || digit != ((key[i - 1u] >> shift[0]) & 255u)) ranks[LOCAL + digit] = i;
    }
    ranks[me] = start;
    barrier();
    for (uint i = me; i < here; i += LOCAL) {
        uint digit = (key[i] >> shift[0]) & 255u, to = ranks[digit] + i - ranks[LOCAL + digit];
        sorted_keys[to] = key[i];
        sorted_values[to] = value[i];
    }
}
