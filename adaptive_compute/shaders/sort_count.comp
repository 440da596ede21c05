#version 450
// First step of a pass of a stable radix sort: how often each value of eight bits of the keys occurs in each block.
// Bindings: 0 keys, 1 lowest of the eight bits, 2 counts, [digit][block]. A workgroup is a block.
// Constants: 0 keys, 1 keys a block, 2 blocks.
// Method: N. Satish, M. Harris, M. Garland, "Designing efficient sorting algorithms for manycore GPUs", 2009.
layout(local_size_x = 256) in;
layout(constant_id = 0) const uint COUNT = 1;
layout(constant_id = 1) const uint BLOCK = 2048;
layout(constant_id = 2) const uint BLOCKS = 1;
layout(set = 0, binding = 0) readonly buffer Keys { uint keys[]; };
layout(set = 0, binding = 1) readonly buffer Shift { uint shift[]; };
layout(set = 0, binding = 2) writeonly buffer Counts { uint counts[]; };
shared uint found[256];

void main() {
    uint block = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, me = gl_LocalInvocationIndex;
    if (block >= BLOCKS) return;
    found[me] = 0u;
    barrier();
    uint end = min(COUNT, (block + 1u) * BLOCK);
    for (uint i = block * BLOCK + me; i < end; i += 256u) atomicAdd(found[(keys[i] >> shift[0]) & 255u], 1u);
    barrier();
    counts[me * BLOCKS + block] = found[me];
}
