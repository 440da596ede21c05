#version 450
#extension GL_GOOGLE_include_directive : require
// The bin that each point lies in, by the first cell that it touches: what the points are sorted by.
// Bindings: 0, 1, 2 coordinates (float32 as words; the grid's fastest axis first, those beyond DIM are not read),
// 3 parameters of the coordinates (nufft_places.glsl), 4 keys.
// Constants: 0 local size, 1 points, 2 dimensions, 3 width, 4.. cells of each axis, 7.. cells of a bin as a power of two,
// 10, 11 bins of the first two axes.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint DIM = 1;
layout(constant_id = 3) const uint WIDTH = 2;
layout(constant_id = 4) const uint CELLS0 = 1;
layout(constant_id = 5) const uint CELLS1 = 1;
layout(constant_id = 6) const uint CELLS2 = 1;
layout(constant_id = 7) const uint BIN0 = 0;
layout(constant_id = 8) const uint BIN1 = 0;
layout(constant_id = 9) const uint BIN2 = 0;
layout(constant_id = 10) const uint BINS0 = 1;
layout(constant_id = 11) const uint BINS1 = 1;
layout(set = 0, binding = 0) readonly buffer X0 { uint x0[]; };
layout(set = 0, binding = 1) readonly buffer X1 { uint x1[]; };
layout(set = 0, binding = 2) readonly buffer X2 { uint x2[]; };
layout(set = 0, binding = 3) readonly buffer Places { uint places[]; };
layout(set = 0, binding = 4) writeonly buffer Keys { uint keys[]; };
#include "nufft_places.glsl"
#include "nufft_cells.glsl"

void main() {
    uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (i >= COUNT) return;
    float s;
    uint key = first_cell(place(x0[i], 0u), CELLS0, s) >> BIN0;
    if (DIM > 1u) key += BINS0 * (first_cell(place(x1[i], 1u), CELLS1, s) >> BIN1);
    if (DIM > 2u) key += BINS0 * BINS1 * (first_cell(place(x2[i], 2u), CELLS2, s) >> BIN2);
    keys[i] = key;
}
