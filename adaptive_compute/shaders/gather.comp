#version 450
// result[b, e, c] = source[b, index[e], c]: a copy, whatever the elements mean.
// Bindings: 0 source, 1 index (64-bit whole numbers, checked before), 2 result.
// Constants: 0 local size, 1 units of the result, 2 entries, 3 slots, 4 units after the indexed axis, 5 elements a word,
// 6 elements of the result.
// A unit is a quad of words or a word; where several elements share a word (5) it is an element, and 1 counts words.
// variant: gather -DUNIT=uint
// variant: gather_quads -DUNIT=uvec4 -DQUADS
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint UNITS = 1;
layout(constant_id = 2) const uint ENTRIES = 1;
layout(constant_id = 3) const uint SLOTS = 1;
layout(constant_id = 4) const uint AFTER = 1;
layout(constant_id = 5) const uint PACK = 1;
layout(constant_id = 6) const uint ELEMENTS = 1;
layout(set = 0, binding = 0) readonly buffer Source { UNIT source[]; };
layout(set = 0, binding = 1) readonly buffer Index { uvec2 entry_slot[]; };
layout(set = 0, binding = 2) writeonly buffer Result { UNIT result[]; };

uint place(uint unit) {
    uint row = unit / AFTER, before = row / ENTRIES;
    return (before * SLOTS + entry_slot[row - before * ENTRIES].x) * AFTER + (unit - row * AFTER);
}

void main() {
    uint unit = gl_WorkGroupID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x + gl_GlobalInvocationID.x;
    if (unit >= UNITS) return;
    if (PACK == 1u) {
        result[unit] = source[place(unit)];
        return;
    }
#ifndef QUADS
    uint bits = 32u / PACK, word = 0u;
    for (uint part = 0u; part < PACK; part++) {
        uint element = unit * PACK + part;
        // What lies beyond the last element in its word may not be an entry.
        uint at = place(min(element, ELEMENTS - 1u));
        word |= bitfieldExtract(source[at / PACK], int(at % PACK * bits), int(bits)) << (part * bits);
    }
    result[unit] = word;
#endif
}
