#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
// Spreading: each cell of the fine grid gets what the points around it give. A workgroup owns a tile of cells: in one
// dimension a cell an invocation, in two and three DEPTH cells in a column along the last axis, in registers (in two
// dimensions LANES1 columns lie one behind the other). It goes through the points of the bins that can reach the tile,
// a batch at a time: every invocation sets down one point's kernel values in shared memory, spread out over the tile's
// sides with zeros where the point does not reach, and then each takes its own from every point. Nothing is added by
// two, so that the order of summing, and with it every bit, is always the same.
// Where many points lie in few tiles, a workgroup takes LIMIT of them (PART 0). The rest go to further workgroups, as
// many points each, which leave their tiles in a buffer of their own (PART 1), and are added up after that (PART 2).
// Bindings: 0 positions, [axis][point], sorted by bins, 1 strengths in that order, [transform][point], 2 beginnings of
// the bins, 3 fine grid, [transform][cells], 4, 5, 6 how many further workgroups the tiles before have, in their block
// of 256, before that block, and in all (nufft_loads.comp), 7 their tiles, [transform][workgroup][cell].
// Constants: 0 local size (1 x 2; a power of two), 1, 2 lanes of the first two axes, 3 points, 4.. cells of each axis,
// 7.. cells of a bin as a power of two, 10.. bins of each axis, 13.. tiles of each axis, 16 points
// that each invocation sets down at once, 17 LIMIT, 18 PART, 19 blocks, 20 further workgroups that there may be.
// A workgroup's z is the transform. Method: output-driven spreading as in A. Barnett, Y. Shih et al., "cuFINUFFT: a
// load-balanced GPU library for general-purpose nonuniform FFTs", 2021, with registers in place of shared-memory sums.
// variant: nufft_spread_1d_2 -DDIM=1 -DWIDTH=2
// variant: nufft_spread_1d_3 -DDIM=1 -DWIDTH=3
// variant: nufft_spread_1d_4 -DDIM=1 -DWIDTH=4
// variant: nufft_spread_1d_5 -DDIM=1 -DWIDTH=5
// variant: nufft_spread_1d_6 -DDIM=1 -DWIDTH=6
// variant: nufft_spread_1d_7 -DDIM=1 -DWIDTH=7
// variant: nufft_spread_2d_2 -DDIM=2 -DWIDTH=2 -DDEPTH=4
// variant: nufft_spread_2d_3 -DDIM=2 -DWIDTH=3 -DDEPTH=4
// variant: nufft_spread_2d_4 -DDIM=2 -DWIDTH=4 -DDEPTH=4
// variant: nufft_spread_2d_5 -DDIM=2 -DWIDTH=5 -DDEPTH=4
// variant: nufft_spread_2d_6 -DDIM=2 -DWIDTH=6 -DDEPTH=4
// variant: nufft_spread_2d_7 -DDIM=2 -DWIDTH=7 -DDEPTH=4
// variant: nufft_spread_3d_2 -DDIM=3 -DWIDTH=2 -DDEPTH=8
// variant: nufft_spread_3d_3 -DDIM=3 -DWIDTH=3 -DDEPTH=8
// variant: nufft_spread_3d_4 -DDIM=3 -DWIDTH=4 -DDEPTH=8
// variant: nufft_spread_3d_5 -DDIM=3 -DWIDTH=5 -DDEPTH=8
// variant: nufft_spread_3d_6 -DDIM=3 -DWIDTH=6 -DDEPTH=8
// variant: nufft_spread_3d_7 -DDIM=3 -DWIDTH=7 -DDEPTH=8
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
layout(constant_id = 16) const uint BATCHES = 1;
layout(constant_id = 17) const uint LIMIT = 0xFFFFFFFF;
layout(constant_id = 18) const uint PART = 0;
layout(constant_id = 19) const uint BLOCKS = 1;
layout(constant_id = 20) const uint FURTHER = 1;
layout(set = 0, binding = 0) readonly buffer Positions { uint positions[]; };
layout(set = 0, binding = 1) readonly buffer Strengths { vec2 strengths[]; };
layout(set = 0, binding = 2) readonly buffer Begins { uint begins[]; };
layout(set = 0, binding = 3) buffer Grid { vec2 grid[]; };
layout(set = 0, binding = 4) readonly buffer Within { uint within[]; };
layout(set = 0, binding = 5) readonly buffer Before { uint before_block[]; };
layout(set = 0, binding = 6) readonly buffer Total { uint further[]; };
layout(set = 0, binding = 7) buffer Tiles { vec2 tiles[]; };
#include "nufft_cells.glsl"
#include "nufft_kernel.glsl"

const uint QUEUE = BATCHES * LOCAL;  // points that are set down at once
const uint SIDE0 = DIM == 1 ? LOCAL : LANES0;
shared uint row_from[LOCAL], row_end[LOCAL];
shared vec2 strength[DIM == 3 ? 1 : QUEUE];
#if DIM == 1
#define ACROSS (WIDTH + 1u)  // the last of a point's values is the zero of lanes that it misses
shared uint cell0[QUEUE];
#else
#define QUADS (DEPTH / 4u)
#define ACROSS (LANES0 + 1u)  // one more than there are, so that invocations write to different banks
#define LAST_CELLS (DIM == 2 ? CELLS1 : CELLS2)
const uint SIDE_LAST = DIM == 2 ? LANES1 * DEPTH : DEPTH;
const uint ALONG = SIDE_LAST / 4u + 1u;
shared vec4 along[QUEUE * ALONG];
#if DIM == 3
const uint BESIDE = LANES1 + 1u;
shared vec2 beside[QUEUE * BESIDE];  // kernel values times the strength
#endif
#endif
shared float across[QUEUE * ACROSS];
uvec3 corner;

#include "nufft_reach.glsl"

#define EACH [[unroll]] for (uint j = 0u; j < WIDTH; j++)

// Set down point i at a place of the batch; nothing but zeros where there is no more point.
void set_down(uint place, uint i, bool there) {
    float s, k[WIDTH];
#if DIM == 1
    across[place * ACROSS + WIDTH] = 0.0;
    strength[place] = there ? strengths[gl_WorkGroupID.z * COUNT + i] : vec2(0.0);
    cell0[place] = there ? first_cell(positions[i], CELLS0, s) : 0u;
    weights(there ? s : 0.0, k);
    EACH across[place * ACROSS + j] = k[j];
#else
    for (uint l = 0u; l < ACROSS; l++) across[place * ACROSS + l] = 0.0;
    for (uint l = 0u; l < ALONG; l++) along[place * ALONG + l] = vec4(0.0);
#if DIM == 2
    strength[place] = there ? strengths[gl_WorkGroupID.z * COUNT + i] : vec2(0.0);
#else
    for (uint l = 0u; l < BESIDE; l++) beside[place * BESIDE + l] = vec2(0.0);
#endif
    if (!there) return;
    uint from = behind(first_cell(positions[i], CELLS0, s), corner.x, CELLS0);
    weights(s, k);
    EACH {
        uint l = min(from + j, from + j - CELLS0);
        if (l < SIDE0) across[place * ACROSS + l] = k[j];
    }
#if DIM == 3
    vec2 value = strengths[gl_WorkGroupID.z * COUNT + i];
    from = behind(first_cell(positions[COUNT + i], CELLS1, s), corner.y, CELLS1);
    weights(s, k);
    EACH {
        uint l = min(from + j, from + j - CELLS1);
        if (l < LANES1) beside[place * BESIDE + l] = value * k[j];
    }
#endif
    from = behind(first_cell(positions[(DIM - 1) * COUNT + i], LAST_CELLS, s), DIM == 2 ? corner.y : corner.z, LAST_CELLS);
    weights(s, k);
    EACH {
        uint l = min(from + j, from + j - LAST_CELLS);
        if (l < SIDE_LAST) along[place * ALONG + l / 4u][l % 4u] = k[j];
    }
#endif
}

// The tile of a further workgroup, and how many of the tile's there are before it and in all.
uvec3 owner(uint number) {
    uint block = 0u, tile;
    for (uint step = 1u << findMSB(BLOCKS); step > 0u; step /= 2u)
        if (block + step < BLOCKS && before_block[block + step] <= number) block += step;
    uint left = number - before_block[block];
    tile = 256u * block;
    for (uint step = 128u; step > 0u; step /= 2u)
        if (tile + step < TILES0 * TILES1 * TILES2 && within[tile + step] <= left) tile += step;
    bool last = (tile & 255u) == 255u || tile + 1u == TILES0 * TILES1 * TILES2;
    uint end = !last ? within[tile + 1u] : (block + 1u < BLOCKS ? before_block[block + 1u] : further[0]) - before_block[block];
    return uvec3(tile, left - within[tile], end - within[tile]);
}

void main() {
    uint number = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, me = gl_LocalInvocationIndex, tile = number;
    uint low = 0u, high = LIMIT, several = 0u;  // which of the tile's points, and how many further workgroups
    if (PART == 0u) {
        if (tile >= TILES0 * TILES1 * TILES2) return;
    } else {
        if (number >= further[0]) return;
        uvec3 found = owner(number);
        tile = found.x;
        low = LIMIT * (1u + found.y);
        high = low + LIMIT;
        several = found.z;
        if (PART == 2u && found.y > 0u) return;
    }
    uint lane = me % SIDE0, second = me / SIDE0;
    corner.x = tile % TILES0 * SIDE0;
#if DIM == 1
    vec2 sum = vec2(0.0);
    uvec2 bins1 = uvec2(0u, 1u), bins2 = uvec2(0u, 1u);
#elif DIM == 2
    corner.y = tile / TILES0 * SIDE_LAST;
    uvec2 bins1 = bins_of(corner.y, SIDE_LAST, CELLS1, BIN1, BINS1), bins2 = uvec2(0u, 1u);
#else
    corner.y = tile / TILES0 % TILES1 * LANES1;
    corner.z = tile / (TILES0 * TILES1) * DEPTH;
    uvec2 bins1 = bins_of(corner.y, LANES1, CELLS1, BIN1, BINS1), bins2 = bins_of(corner.z, DEPTH, CELLS2, BIN2, BINS2);
#endif
#if DIM > 1
    vec4 re[QUADS], im[QUADS];
    [[unroll]] for (uint r = 0u; r < QUADS; r++) re[r] = im[r] = vec4(0.0);
#endif
    uvec2 bins0 = bins_of(corner.x, SIDE0, CELLS0, BIN0, BINS0);
    // Bins beside one another hold points beside one another; past the end of the axis they go on at its beginning.
    uint split = min(bins0.y, BINS0 - bins0.x), runs = split < bins0.y ? 2u : 1u, rows = bins1.y * bins2.y * runs;
    uint seen = 0u;
    for (uint first = 0u; first < (PART == 2u ? 0u : rows) && seen < high; first += LOCAL) {
        // Each invocation looks up one row of points; their lengths are summed up.
        uint row = first + me, begin = 0u, length = 0u;
        if (row < rows) {
            uint line = row / runs, b1 = bins1.x + line % bins1.y, b2 = bins2.x + line / bins1.y;
            uint bin = (min(b2, b2 - BINS2) * BINS1 + min(b1, b1 - BINS1)) * BINS0;
            bool again = row % runs == 1u;
            begin = begins[bin + (again ? 0u : bins0.x)];
            length = begins[bin + (again ? bins0.y - split : bins0.x + split)] - begin;
        }
        row_end[me] = length;
        barrier();
        for (uint step = 1u; step < LOCAL; step *= 2u) {
            uint other = me >= step ? row_end[me - step] : 0u;
            barrier();
            row_end[me] += other;
            barrier();
        }
        row_from[me] = begin + length - row_end[me];  // modulo 2^32
        barrier();
        uint all = row_end[LOCAL - 1u], total = min(all, high - seen);
        for (uint base = low > seen ? low - seen : 0u; base < total; base += QUEUE) {
            for (uint place = me; place < QUEUE; place += LOCAL) {
                uint which = base + place, at = 0u;
                for (uint step = LOCAL / 2u; step > 0u; step /= 2u)
                    if (row_end[at + step - 1u] <= which) at += step;
                set_down(place, row_from[at] + which, which < total);
            }
            barrier();
            uint count = min(total - base, QUEUE);
            for (uint place = 0u; place < count; place += 4u) {
                [[unroll]] for (uint p = 0u; p < 4u; p++) {
                    uint at = place + p;  // past the last one lie zeros: QUEUE is a multiple of 4
#if DIM == 1
                    sum += strength[at] * across[at * ACROSS + min(behind(corner.x + me, cell0[at], CELLS0), WIDTH)];
#else
#if DIM == 2
                    vec2 value = strength[at] * across[at * ACROSS + lane];
                    uint from = at * ALONG + second * QUADS;
#else
                    vec2 value = beside[at * BESIDE + second] * across[at * ACROSS + lane];
                    uint from = at * ALONG;
#endif
                    [[unroll]] for (uint r = 0u; r < QUADS; r++) {
                        vec4 k = along[from + r];
                        re[r] += value.x * k;
                        im[r] += value.y * k;
                    }
#endif
                }
            }
            barrier();
        }
        seen += all;
    }
    uint place = gl_WorkGroupID.z * FURTHER + number;
#if DIM == 1
    place = place * LOCAL + me;
    if (PART == 1u) tiles[place] = sum;
    if (PART == 2u)
        for (uint n = 0u; n < several; n++) sum += tiles[place + n * LOCAL];
#else
    place = place * LOCAL * DEPTH + me;
    if (PART == 1u)
        [[unroll]] for (uint r = 0u; r < DEPTH; r++)
            tiles[place + r * LOCAL] = vec2(re[r / 4u][r % 4u], im[r / 4u][r % 4u]);
    for (uint n = 0u; n < (PART == 2u ? several : 0u); n++)
        [[unroll]] for (uint r = 0u; r < DEPTH; r++) {
            vec2 value = tiles[place + (n * DEPTH + r) * LOCAL];
            re[r / 4u][r % 4u] += value.x;
            im[r / 4u][r % 4u] += value.y;
        }
#endif
    if (PART == 1u) return;
    uint x = corner.x + lane;
    if (x >= CELLS0) return;
#if DIM == 1
    uint cell = gl_WorkGroupID.z * CELLS0 + x;
    grid[cell] = PART == 2u ? grid[cell] + sum : sum;
#else
#if DIM == 2
    uint last = corner.y + second * DEPTH, step = CELLS0, cell = (gl_WorkGroupID.z * CELLS1 + last) * CELLS0 + x;
#else
    uint y = corner.y + second, last = corner.z, step = CELLS0 * CELLS1;
    uint cell = ((gl_WorkGroupID.z * CELLS2 + last) * CELLS1 + y) * CELLS0 + x;
    if (y >= CELLS1) return;
#endif
    [[unroll]] for (uint r = 0u; r < DEPTH; r++) {
        vec2 value = vec2(re[r / 4u][r % 4u], im[r / 4u][r % 4u]);
        if (last + r < LAST_CELLS) grid[cell + r * step] = PART == 2u ? grid[cell + r * step] + value : value;
    }
#endif
}
