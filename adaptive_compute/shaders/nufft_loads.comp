#version 450
#extension GL_GOOGLE_include_directive : require
// How many workgroups each tile of nufft_spread.comp needs beside its own, at LIMIT points each: the sum over the tiles
// before it in its block of 256, and each block's sum.
// Bindings: 0 beginnings of the bins, 1 sums within a block, 2 sums of the blocks. An invocation is a tile.
// Constants: 0 width, 1 LIMIT, 2.. cells of each axis, 5.. cells of a bin as a power of two, 8.. bins of each axis,
// 11.. tiles of each axis, 14.. cells of a tile.
#define LOCAL 256u
layout(local_size_x = 256) in;
layout(constant_id = 0) const uint WIDTH = 2;
layout(constant_id = 1) const uint LIMIT = 1;
layout(constant_id = 2) const uint CELLS0 = 1;
layout(constant_id = 3) const uint CELLS1 = 1;
layout(constant_id = 4) const uint CELLS2 = 1;
layout(constant_id = 5) const uint BIN0 = 0;
layout(constant_id = 6) const uint BIN1 = 0;
layout(constant_id = 7) const uint BIN2 = 0;
layout(constant_id = 8) const uint BINS0 = 1;
layout(constant_id = 9) const uint BINS1 = 1;
layout(constant_id = 10) const uint BINS2 = 1;
layout(constant_id = 11) const uint TILES0 = 1;
layout(constant_id = 12) const uint TILES1 = 1;
layout(constant_id = 13) const uint TILES2 = 1;
layout(constant_id = 14) const uint SIDE0 = 1;
layout(constant_id = 15) const uint SIDE1 = 1;
layout(constant_id = 16) const uint SIDE2 = 1;
layout(set = 0, binding = 0) readonly buffer Begins { uint begins[]; };
layout(set = 0, binding = 1) writeonly buffer Within { uint within[]; };
layout(set = 0, binding = 2) writeonly buffer Blocks { uint blocks[]; };
#include "nufft_reach.glsl"
#include "sort_scan.glsl"

void main() {
    uint block = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, tile = 256u * block + gl_LocalInvocationIndex;
    uint count = 0u, total;
    if (tile < TILES0 * TILES1 * TILES2) {
        uvec2 bins0 = bins_of(tile % TILES0 * SIDE0, SIDE0, CELLS0, BIN0, BINS0);
        uvec2 bins1 = bins_of(tile / TILES0 % TILES1 * SIDE1, SIDE1, CELLS1, BIN1, BINS1);
        uvec2 bins2 = bins_of(tile / (TILES0 * TILES1) * SIDE2, SIDE2, CELLS2, BIN2, BINS2);
        uint split = min(bins0.y, BINS0 - bins0.x);
        for (uint row = 0u; row < bins1.y * bins2.y; row++) {
            uint b1 = bins1.x + row % bins1.y, b2 = bins2.x + row / bins1.y;
            uint bin = (min(b2, b2 - BINS2) * BINS1 + min(b1, b1 - BINS1)) * BINS0;
            count += begins[bin + bins0.x + split] - begins[bin + bins0.x];
            if (split < bins0.y) count += begins[bin + bins0.y - split] - begins[bin];
        }
        count = count > LIMIT ? (count - 1u) / LIMIT : 0u;
    }
    uint before = exclusive_sum(count, total);
    if (tile < TILES0 * TILES1 * TILES2) within[tile] = before;
    if (gl_LocalInvocationIndex == 0u && 256u * block < TILES0 * TILES1 * TILES2) blocks[block] = total;
}
