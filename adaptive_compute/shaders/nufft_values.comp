#version 450
#extension GL_GOOGLE_include_directive : require
// Strengths in the points' sorted order, so that spreading reads them in a row; for type 3 times their phase.
// Bindings: 0 strengths, [transform][point], 1 which point comes where, 2 turns, 3 sorted strengths.
// Constants: 0 local size, 1 points, 2 whether there are turns, 3 transforms before these, 4 sign of the exponent.
// A workgroup's z is the transform.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint TURNS = 0;
layout(constant_id = 3) const uint BEFORE = 0;
layout(constant_id = 4) const int SIGN = 1;
layout(set = 0, binding = 0) readonly buffer Strengths { vec2 strengths[]; };
layout(set = 0, binding = 1) readonly buffer Order { uint order[]; };
layout(set = 0, binding = 2) readonly buffer Turns { uint turns[]; };
layout(set = 0, binding = 3) writeonly buffer Sorted { vec2 sorted[]; };
#include "nufft_turn.glsl"

void main() {
    uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (i >= COUNT) return;
    vec2 value = strengths[(gl_WorkGroupID.z + BEFORE) * COUNT + order[i]];
    if (TURNS != 0u) value = times(value, wave(SIGN > 0 ? turns[i] : 0u - turns[i]));
    sorted[gl_WorkGroupID.z * COUNT + i] = value;
}
