#version 450
// Where each bin begins among sorted keys (and, last, how many there are), by bisection.
// Bindings: 0 sorted keys, 1 beginnings, one more than there are bins.
// Constants: 0 local size, 1 keys, 2 beginnings.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint BEGINNINGS = 1;
layout(set = 0, binding = 0) readonly buffer Keys { uint keys[]; };
layout(set = 0, binding = 1) writeonly buffer Begins { uint begins[]; };

void main() {
    uint bin = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (bin >= BEGINNINGS) return;
    uint low = 0u, high = COUNT;
    while (low < high) {
        uint middle = (low + high) / 2u;
        if (keys[middle] < bin) low = middle + 1u; else high = middle;
    }
    begins[bin] = low;
}
