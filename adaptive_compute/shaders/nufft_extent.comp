#version 450
// Extent of a coordinate and whether it is finite: each workgroup's smallest and largest value, and the number of the
// first that is not finite (0xFFFFFFFF: none).
// Bindings: 0 coordinate, 1 results, three words a workgroup.
// Constants: 0 elements, 1 workgroups, 2 first result.
layout(local_size_x = 256) in;
layout(constant_id = 0) const uint COUNT = 1;
layout(constant_id = 1) const uint GROUPS = 1;
layout(constant_id = 2) const uint FIRST = 0;
layout(set = 0, binding = 0) readonly buffer Values { uint values[]; };
layout(set = 0, binding = 1) writeonly buffer Results { uint results[]; };
shared float low[256];
shared float high[256];
shared uint bad[256];

void main() {
    uint me = gl_LocalInvocationIndex;
    float smallest = 3.402823e38, largest = -3.402823e38;
    uint found = 0xFFFFFFFFu;
    for (uint i = gl_WorkGroupID.x * 256u + me; i < COUNT; i += GROUPS * 256u) {
        uint bits = values[i];
        if ((bits & 0x7F800000u) == 0x7F800000u) {
            found = min(found, i);
        } else {
            smallest = min(smallest, uintBitsToFloat(bits));
            largest = max(largest, uintBitsToFloat(bits));
        }
    }
    low[me] = smallest; high[me] = largest; bad[me] = found;
    barrier();
    for (uint step = 128u; step > 0u; step /= 2u) {
        if (me < step) {
            low[me] = min(low[me], low[me + step]);
            high[me] = max(high[me], high[me + step]);
            bad[me] = min(bad[me], bad[me + step]);
        }
        barrier();
    }
    if (me == 0u) {
        uint place = FIRST + 3u * gl_WorkGroupID.x;
        results[place] = floatBitsToUint(low[0]);
        results[place + 1u] = floatBitsToUint(high[0]);
        results[place + 2u] = bad[0];
    }
}
