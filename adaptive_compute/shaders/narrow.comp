#version 450
#extension GL_GOOGLE_include_directive : require
// Words to elements of 16 or 8 bits, packed: floats rounded to halves, whole numbers cut.
// Bindings: 0 source (a word an element), 1 target. Constants: 0 local size, 1 elements, 2 storage (1 float16,
// 2 bfloat16; 16 or 8: the bits of whole numbers).
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ELEMENTS = 1;
layout(constant_id = 2) const uint TYPE = 1;
layout(set = 0, binding = 0) readonly buffer Source { uint source[]; };
layout(set = 0, binding = 1) writeonly buffer Target { uint target[]; };
#include "halves.glsl"

void main() {
    uint word = gl_WorkGroupID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x + gl_GlobalInvocationID.x;
    uint bits = TYPE == 8u ? 8u : 16u, pack = 32u / bits, packed = 0u;
    if (word * pack >= ELEMENTS) return;
    for (uint part = 0u; part < pack; part++) {
        uint at = word * pack + part;
        if (at >= ELEMENTS) break;
        uint element = TYPE >= 8u ? source[at] & ((1u << bits) - 1u) : narrowed(uintBitsToFloat(source[at]));
        packed |= element << (part * bits);
    }
    target[word] = packed;
}
