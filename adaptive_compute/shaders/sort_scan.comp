#version 450
#extension GL_GOOGLE_include_directive : require
// Second step of a radix sort's pass: for each digit, the counts of all blocks before a block, and the digit's total.
// Bindings: 0 counts, [digit][block], in place, 1 totals. A workgroup is a digit; with few
// blocks an invocation is.
// Constants: 0 blocks.
#define LOCAL 256u
layout(local_size_x = 256) in;
layout(constant_id = 0) const uint BLOCKS = 1;
layout(set = 0, binding = 0) buffer Counts { uint counts[]; };
layout(set = 0, binding = 1) writeonly buffer Totals { uint totals[]; };
#include "sort_scan.glsl"

void main() {
    if (BLOCKS <= 32u) {
        uint digit = gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex, sum = 0u;
        for (uint i = digit * BLOCKS; i < (digit + 1u) * BLOCKS; i++) {
            uint here = counts[i];
            counts[i] = sum;
            sum += here;
        }
        totals[digit] = sum;
        return;
    }
    uint first = gl_WorkGroupID.x * BLOCKS, sum = 0u, total;
    for (uint start = 0u; start < BLOCKS; start += LOCAL) {
        uint block = start + gl_LocalInvocationIndex;
        uint value = block < BLOCKS ? counts[first + block] : 0u;
        uint before = exclusive_sum(value, total);
        if (block < BLOCKS) counts[first + block] = sum + before;
        sum += total;
    }
    if (gl_LocalInvocationIndex == 0u) totals[gl_WorkGroupID.x] = sum;
}
