#version 450
#extension GL_GOOGLE_include_directive : require
// Spreading: each cell of the fine grid gets what the points around it give. A workgroup owns a tile of cells: each
// invocation one cell across (two axes of lanes in three dimensions) and DEPTH cells along the last axis, in registers.
// It goes through the bins that can reach the tile, keeps the points that do, sets down their kernel values in shared
// memory, a batch at a time, and each invocation takes its own; nothing is added by two, so that the order of summing,
// and with it every bit, is always the same. Cells outside a point's reach get its value times zero.
// Bindings: 0 positions, [axis][point], sorted by bins, 1 strengths in that order, [transform][point], 2 beginnings of
// the bins, 3 fine grid, [transform][cells].
// Constants: 0 local size (1 x 2), 1, 2 lanes of the first two axes, 3 points, 4.. cells of each axis, 7.. cells of a
// bin as a power of two, 10.. bins of each axis, 13.. tiles of each axis, 16 depth (a multiple of 4).
// A workgroup's z is the transform. Method: output-driven spreading as in A. Barnett, Y. Shih et al., "cuFINUFFT: a
// load-balanced GPU library for general-purpose nonuniform FFTs", 2021, with registers in place of shared-memory sums.
// variant: nufft_spread_1d_2 -DDIM=1 -DWIDTH=2
// variant: nufft_spread_1d_3 -DDIM=1 -DWIDTH=3
// variant: nufft_spread_1d_4 -DDIM=1 -DWIDTH=4
// variant: nufft_spread_1d_5 -DDIM=1 -DWIDTH=5
// variant: nufft_spread_1d_6 -DDIM=1 -DWIDTH=6
// variant: nufft_spread_1d_7 -DDIM=1 -DWIDTH=7
// variant: nufft_spread_2d_2 -DDIM=2 -DWIDTH=2
// variant: nufft_spread_2d_3 -DDIM=2 -DWIDTH=3
// variant: nufft_spread_2d_4 -DDIM=2 -DWIDTH=4
// variant: nufft_spread_2d_5 -DDIM=2 -DWIDTH=5
// variant: nufft_spread_2d_6 -DDIM=2 -DWIDTH=6
// variant: nufft_spread_2d_7 -DDIM=2 -DWIDTH=7
// variant: nufft_spread_3d_2 -DDIM=3 -DWIDTH=2
// variant: nufft_spread_3d_3 -DDIM=3 -DWIDTH=3
// variant: nufft_spread_3d_4 -DDIM=3 -DWIDTH=4
// variant: nufft_spread_3d_5 -DDIM=3 -DWIDTH=5
// variant: nufft_spread_3d_6 -DDIM=3 -DWIDTH=6
// variant: nufft_spread_3d_7 -DDIM=3 -DWIDTH=7
layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 32;
layout(constant_id = 1) const uint LANES0 = 32;
layout(constant_id = 2) const uint LANES1 = 1;
layout(constant_id = 3) const uint COUNT = 1;
layout(constant_id = 4) const uint CELLS0 = 1;
layout(constant_id = 5) const uint CELLS1 = 1;
layout(constant_id = 6) const uint CELLS2 = 1;
layout(constant_id = 7) const uint BIN0 = 0;
layout(constant_id = 8) const uint BIN1 = 0;
layout(constant_id = 9) const uint BIN2 = 0;
layout(constant_id = 10) const uint BINS0 = 1;
layout(constant_id = 11) const uint BINS1 = 1;
layout(constant_id = 12) const uint BINS2 = 1;
layout(constant_id = 13) const uint TILES0 = 1;
layout(constant_id = 14) const uint TILES1 = 1;
layout(constant_id = 15) const uint TILES2 = 1;
layout(constant_id = 16) const uint DEPTH = 8;
layout(set = 0, binding = 0) readonly buffer Positions { uint positions[]; };
layout(set = 0, binding = 1) readonly buffer Strengths { vec2 strengths[]; };
layout(set = 0, binding = 2) readonly buffer Begins { uint begins[]; };
layout(set = 0, binding = 3) writeonly buffer Grid { vec2 grid[]; };
#include "nufft_cells.glsl"
#include "nufft_kernel.glsl"

const uint QUEUE = 2u * LOCAL;  // what one round may add to what is waiting
const uint SIDE1 = DIM == 2 ? DEPTH : LANES1;
shared uint waiting[QUEUE];
shared uint kept_mask[(LOCAL + 31u) / 32u];
shared vec2 strength[QUEUE];
shared uint cell0[QUEUE];
shared float across0[QUEUE * (WIDTH + 1)];  // the last of each point's values is the zero of lanes that it misses
#if DIM == 3
shared uint cell1[QUEUE];
shared float across1[QUEUE * (WIDTH + 1)];
#endif
#if DIM > 1
#define LAST_CELLS (DIM == 2 ? CELLS1 : CELLS2)
shared vec4 along[QUEUE * DEPTH / 4u];
vec2 sums[DEPTH];
#else
vec2 sums[1];
#endif
uvec3 corner;

// How far b lies before a, on a circle.
uint behind(uint a, uint b, uint cells) { return min(a - b, a - b + cells); }

// The bins that hold first cells from which a tile's side can be reached: the first one and how many.
uvec2 bins_of(uint begin, uint side, uint cells, uint bin, uint bins) {
    uint reach = side + WIDTH - 1u;
    if (reach >= cells) return uvec2(0u, bins);
    uint low = behind(begin, WIDTH - 1u, cells), high = low + reach - 1u;
    uint first = low >> bin;
    uint last = high < cells ? high >> bin : bins + ((high - cells) >> bin);
    return last - first + 1u >= bins ? uvec2(0u, bins) : uvec2(first, last - first + 1u);
}

bool reaches(uint cell, uint begin, uint side, uint cells) {
    return behind(cell, behind(begin, WIDTH - 1u, cells), cells) < side + WIDTH - 1u;
}

bool kept(uint i) {
    float s;
    bool keep = reaches(first_cell(positions[i], CELLS0, s), corner.x, LANES0, CELLS0);
#if DIM > 1
    keep = keep && reaches(first_cell(positions[COUNT + i], CELLS1, s), corner.y, SIDE1, CELLS1);
#endif
#if DIM > 2
    keep = keep && reaches(first_cell(positions[2u * COUNT + i], CELLS2, s), corner.z, DEPTH, CELLS2);
#endif
    return keep;
}

void set_down(uint place) {
    uint i = waiting[place];
    float s, k[WIDTH];
    cell0[place] = first_cell(positions[i], CELLS0, s);
    strength[place] = strengths[gl_WorkGroupID.z * COUNT + i];
    weights(s, k);
    for (uint j = 0u; j < WIDTH; j++) across0[place * (WIDTH + 1) + j] = k[j];
    across0[place * (WIDTH + 1) + WIDTH] = 0.0;
#if DIM == 3
    cell1[place] = first_cell(positions[COUNT + i], CELLS1, s);
    weights(s, k);
    for (uint j = 0u; j < WIDTH; j++) across1[place * (WIDTH + 1) + j] = k[j];
    across1[place * (WIDTH + 1) + WIDTH] = 0.0;
#endif
#if DIM > 1
    uint cell = first_cell(positions[(DIM - 1) * COUNT + i], LAST_CELLS, s);
    weights(s, k);
    for (uint r = 0u; r < DEPTH / 4u; r++) along[place * (DEPTH / 4u) + r] = vec4(0.0);
    uint from = behind(cell, DIM == 2 ? corner.y : corner.z, LAST_CELLS);
    for (uint j = 0u; j < WIDTH; j++) {
        uint r = min(from + j, from + j - LAST_CELLS);
        if (r < DEPTH) along[place * (DEPTH / 4u) + r / 4u][r % 4u] = k[j];
    }
#endif
}

void take(uint place, uvec2 mine) {
    float weight = across0[place * (WIDTH + 1) + min(behind(mine.x, cell0[place], CELLS0), WIDTH)];
#if DIM == 3
    weight *= across1[place * (WIDTH + 1) + min(behind(mine.y, cell1[place], CELLS1), WIDTH)];
#endif
    vec2 value = strength[place] * weight;
#if DIM == 1
    sums[0] += value;
#else
    for (uint r = 0u; r < DEPTH / 4u; r++) {
        vec4 k = along[place * (DEPTH / 4u) + r];
        sums[4u * r] += value * k.x;
        sums[4u * r + 1u] += value * k.y;
        sums[4u * r + 2u] += value * k.z;
        sums[4u * r + 3u] += value * k.w;
    }
#endif
}

void take_all(uint count, uvec2 mine) {
    for (uint place = gl_LocalInvocationIndex; place < count; place += LOCAL) set_down(place);
    barrier();
    for (uint place = 0u; place < count; place++) take(place, mine);
    barrier();
}

void main() {
    uint tile = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, me = gl_LocalInvocationIndex;
    if (tile >= TILES0 * TILES1 * TILES2) return;
    corner = uvec3(tile % TILES0 * LANES0, tile / TILES0 % TILES1 * SIDE1, tile / (TILES0 * TILES1) * DEPTH);
    uvec2 mine = corner.xy + uvec2(me % LANES0, me / LANES0);
    for (uint r = 0u; r < sums.length(); r++) sums[r] = vec2(0.0);

    uvec2 bins0 = bins_of(corner.x, LANES0, CELLS0, BIN0, BINS0);
    uvec2 bins1 = DIM > 1 ? bins_of(corner.y, SIDE1, CELLS1, BIN1, BINS1) : uvec2(0u, 1u);
    uvec2 bins2 = DIM > 2 ? bins_of(corner.z, DEPTH, CELLS2, BIN2, BINS2) : uvec2(0u, 1u);
    // Bins beside one another hold points beside one another; past the end of the axis they go on at its beginning.
    uint split = min(bins0.y, BINS0 - bins0.x), runs = split < bins0.y ? 2u : 1u;
    uint count = 0u;
    for (uint row = 0u; row < bins1.y * bins2.y * runs; row++) {
        uint line = row / runs, second = row % runs;
        uint b1 = bins1.x + line % bins1.y, b2 = bins2.x + line / bins1.y;
        uint bin = (min(b2, b2 - BINS2) * BINS1 + min(b1, b1 - BINS1)) * BINS0;
        uint begin = begins[bin + (second == 0u ? bins0.x : 0u)];
        uint end = begins[bin + (second == 0u ? bins0.x + split : bins0.y - split)];
        for (uint i = begin + me; i - me < end; i += LOCAL) {
            if (me < (LOCAL + 31u) / 32u) kept_mask[me] = 0u;
            barrier();
            bool keep = i < end && kept(i);
            if (keep) atomicOr(kept_mask[me / 32u], 1u << (me % 32u));
            barrier();
            uint before = 0u, total = 0u;
            for (uint word = 0u; word < (LOCAL + 31u) / 32u; word++) {
                uint mask = kept_mask[word];
                total += bitCount(mask);
                uint below = word == me / 32u ? (1u << (me % 32u)) - 1u : word < me / 32u ? 0xFFFFFFFFu : 0u;
                before += bitCount(mask & below);
            }
            if (keep) waiting[count + before] = i;
            count += total;
            barrier();
            if (count > LOCAL) {
                take_all(count, mine);
                count = 0u;
            }
        }
    }
    take_all(count, mine);

    if (mine.x >= CELLS0) return;
#if DIM == 1
    grid[gl_WorkGroupID.z * CELLS0 + mine.x] = sums[0];
#else
#if DIM == 2
    uint place = (gl_WorkGroupID.z * CELLS1 + corner.y) * CELLS0 + mine.x, step = CELLS0;
#else
    if (mine.y >= CELLS1) return;
    uint place = ((gl_WorkGroupID.z * CELLS2 + corner.z) * CELLS1 + mine.y) * CELLS0 + mine.x, step = CELLS0 * CELLS1;
#endif
    uint last = DIM == 2 ? corner.y : corner.z;
    for (uint r = 0u; r < DEPTH; r++) {
        if (last + r < LAST_CELLS) grid[place + r * step] = sums[r];
    }
#endif
}
