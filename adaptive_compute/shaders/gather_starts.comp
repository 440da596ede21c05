#version 450
// Where each slot begins among the sorted entries, by bisection; at the end the number of entries.
// Bindings: 0 index (64-bit whole numbers), 1 entries in the order of their slots, 2 starts.
// Constants: 0 local size, 1 slots, 2 entries.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SLOTS = 1;
layout(constant_id = 2) const uint ENTRIES = 1;
layout(set = 0, binding = 0) readonly buffer Index { uvec2 entry_slot[]; };
layout(set = 0, binding = 1) readonly buffer Order { uint order[]; };
layout(set = 0, binding = 2) writeonly buffer Starts { uint starts[]; };

void main() {
    uint slot = gl_WorkGroupID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x + gl_GlobalInvocationID.x;
    if (slot > SLOTS) return;
    uint low = 0u, high = ENTRIES;
    while (low < high) {
        uint middle = (low + high) / 2u;
        if (entry_slot[order[middle]].x < slot) low = middle + 1u;
        else high = middle;
    }
    starts[slot] = low;
}
