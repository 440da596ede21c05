#version 450
#extension GL_GOOGLE_include_directive : require
// Interpolation: each point gets the sum of the fine grid's cells around it, times the kernel. LANES invocations share
// LANES points: each sets down the kernel values of one, they sum up one point after the other, an invocation the cells
// of its own column (so that a row of cells is read together), and at last each adds up one point's columns.
// Bindings: 0 positions, [axis][point], sorted by bins, 1 fine grid, [transform][cells], 2 which point comes where,
// 3 turns (type 3), 4 values, [transform][point].
// Constants: 0 local size, 1 lanes, 2 points, 3.. cells of each axis, 6 whether there are turns, 7 transforms before
// these, 8 sign of the exponent. A workgroup's z is the transform.
// Type 3: the value is divided by the outer kernel's transform, which is taken at the point's position, and turned.
// variant: nufft_interpolate_1d_2 -DDIM=1 -DWIDTH=2
// variant: nufft_interpolate_1d_3 -DDIM=1 -DWIDTH=3
// variant: nufft_interpolate_1d_4 -DDIM=1 -DWIDTH=4
// variant: nufft_interpolate_1d_5 -DDIM=1 -DWIDTH=5
// variant: nufft_interpolate_1d_6 -DDIM=1 -DWIDTH=6
// variant: nufft_interpolate_1d_7 -DDIM=1 -DWIDTH=7
// variant: nufft_interpolate_2d_2 -DDIM=2 -DWIDTH=2
// variant: nufft_interpolate_2d_3 -DDIM=2 -DWIDTH=3
// variant: nufft_interpolate_2d_4 -DDIM=2 -DWIDTH=4
// variant: nufft_interpolate_2d_5 -DDIM=2 -DWIDTH=5
// variant: nufft_interpolate_2d_6 -DDIM=2 -DWIDTH=6
// variant: nufft_interpolate_2d_7 -DDIM=2 -DWIDTH=7
// variant: nufft_interpolate_3d_2 -DDIM=3 -DWIDTH=2
// variant: nufft_interpolate_3d_3 -DDIM=3 -DWIDTH=3
// variant: nufft_interpolate_3d_4 -DDIM=3 -DWIDTH=4
// variant: nufft_interpolate_3d_5 -DDIM=3 -DWIDTH=5
// variant: nufft_interpolate_3d_6 -DDIM=3 -DWIDTH=6
// variant: nufft_interpolate_3d_7 -DDIM=3 -DWIDTH=7
layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 128;
layout(constant_id = 1) const uint LANES = 8;
layout(constant_id = 2) const uint COUNT = 1;
layout(constant_id = 3) const uint CELLS0 = 1;
layout(constant_id = 4) const uint CELLS1 = 1;
layout(constant_id = 5) const uint CELLS2 = 1;
layout(constant_id = 6) const uint TURNS = 0;
layout(constant_id = 7) const uint BEFORE = 0;
layout(constant_id = 8) const int SIGN = 1;
layout(set = 0, binding = 0) readonly buffer Positions { uint positions[]; };
layout(set = 0, binding = 1) readonly buffer Grid { vec2 grid[]; };
layout(set = 0, binding = 2) readonly buffer Order { uint order[]; };
layout(set = 0, binding = 3) readonly buffer Turns { uint turns[]; };
layout(set = 0, binding = 4) writeonly buffer Values { vec2 values[]; };
#include "nufft_cells.glsl"
#include "nufft_kernel.glsl"
#include "nufft_turn.glsl"

shared uint cell[DIM * LOCAL];
shared float kernel[DIM * WIDTH * LOCAL];
shared vec2 part[LOCAL * LANES];

float outer_kernel(uint position) {
    float t = float(int(position)) * (4.0 / 4294967296.0);
    return corrected(t * t);
}

void main() {
    uint me = gl_LocalInvocationIndex, lane = me % LANES, group = me - lane;
    uint first = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * LOCAL;
    uint i = first + me;
    float factor = 1.0, s, k[WIDTH];
    if (i < COUNT) {
        const uint CELLS[3] = uint[3](CELLS0, CELLS1, CELLS2);
        for (uint axis = 0u; axis < DIM; axis++) {
            uint position = positions[axis * COUNT + i];
            cell[axis * LOCAL + me] = first_cell(position, CELLS[axis], s);
            weights(s, k);
            for (uint j = 0u; j < WIDTH; j++) kernel[(axis * WIDTH + j) * LOCAL + me] = k[j];
            if (TURNS != 0u) factor *= outer_kernel(position);
        }
    }
    barrier();
    for (uint p = 0u; p < LANES; p++) {
        uint q = group + p;
        vec2 sum = vec2(0.0);
        if (first + q < COUNT) {
            for (uint column = lane; column < WIDTH; column += LANES) {
                uint x = cell[q] + column;
                x = min(x, x - CELLS0);
                vec2 inner = vec2(0.0);
#if DIM == 1
                inner = grid[gl_WorkGroupID.z * CELLS0 + x];
#elif DIM == 2
                for (uint j = 0u; j < WIDTH; j++) {
                    uint y = cell[LOCAL + q] + j;
                    y = min(y, y - CELLS1);
                    inner += kernel[(WIDTH + j) * LOCAL + q] * grid[(gl_WorkGroupID.z * CELLS1 + y) * CELLS0 + x];
                }
#else
                for (uint l = 0u; l < WIDTH; l++) {
                    uint z = cell[2u * LOCAL + q] + l;
                    z = min(z, z - CELLS2);
                    vec2 plane = vec2(0.0);
                    for (uint j = 0u; j < WIDTH; j++) {
                        uint y = cell[LOCAL + q] + j;
                        y = min(y, y - CELLS1);
                        uint place = ((gl_WorkGroupID.z * CELLS2 + z) * CELLS1 + y) * CELLS0 + x;
                        plane += kernel[(WIDTH + j) * LOCAL + q] * grid[place];
                    }
                    inner += kernel[(2u * WIDTH + l) * LOCAL + q] * plane;
                }
#endif
                sum += kernel[column * LOCAL + q] * inner;
            }
        }
        part[lane * LOCAL + q] = sum;
    }
    barrier();
    if (i >= COUNT) return;
    vec2 value = part[me];
    for (uint column = 1u; column < min(LANES, WIDTH); column++) value += part[column * LOCAL + me];
    if (TURNS != 0u) value = times(value, factor * wave(SIGN > 0 ? turns[i] : 0u - turns[i]));
    values[(gl_WorkGroupID.z + BEFORE) * COUNT + order[i]] = value;
}
