#version 450
#extension GL_GOOGLE_include_directive : require
// Positions of the points in sorted order, and for type 3 the turn of the phase that belongs to each.
// Bindings: 0, 1, 2 coordinates (float32 as words, the grid's fastest axis first), 3 parameters of the coordinates and
// after them of the phases (nufft_places.glsl), 4 which point comes where, 5 positions, [axis][point], 6 turns.
// Constants: 0 local size, 1 points, 2 dimensions, 3 whether there are turns.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint DIM = 1;
layout(constant_id = 3) const uint TURNS = 0;
layout(set = 0, binding = 0) readonly buffer X0 { uint x0[]; };
layout(set = 0, binding = 1) readonly buffer X1 { uint x1[]; };
layout(set = 0, binding = 2) readonly buffer X2 { uint x2[]; };
layout(set = 0, binding = 3) readonly buffer Places { uint places[]; };
layout(set = 0, binding = 4) readonly buffer Order { uint order[]; };
layout(set = 0, binding = 5) writeonly buffer Positions { uint positions[]; };
layout(set = 0, binding = 6) writeonly buffer Turns { uint turns[]; };
#include "nufft_places.glsl"

void main() {
    uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (i >= COUNT) return;
    uint from = order[i];
    uint x = x0[from], y = DIM > 1u ? x1[from] : 0u, z = DIM > 2u ? x2[from] : 0u;
    positions[i] = place(x, 0u);
    if (DIM > 1u) positions[COUNT + i] = place(y, 1u);
    if (DIM > 2u) positions[2u * COUNT + i] = place(z, 2u);
    if (TURNS != 0u) {
        uint turn = place(x, DIM);
        if (DIM > 1u) turn += place(y, DIM + 1u);
        if (DIM > 2u) turn += place(z, DIM + 2u);
        turns[i] = turn;
    }
}
