#version 450
// Copies a strided view into C order; what lies beyond a source's valid length becomes zero (slicing, cutting, padding).
// Bindings: 0 source, 1 target, both as 32-bit words. Elements of 1 or 2 bytes are packed four or two a word; longer
// ones are given as words with one more axis.
// Constants: 0 local size, 1 target words, 2 elements a word, 3 rank, 4 offset in elements, 5.. shape, stride (signed),
// valid length, eight of each.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint WORDS = 1;
layout(constant_id = 2) const uint PACK = 1;
layout(constant_id = 3) const uint RANK = 1;
layout(constant_id = 4) const int OFFSET = 0;
layout(constant_id = 5) const uint N0 = 1; layout(constant_id = 6) const uint N1 = 1;
layout(constant_id = 7) const uint N2 = 1; layout(constant_id = 8) const uint N3 = 1;
layout(constant_id = 9) const uint N4 = 1; layout(constant_id = 10) const uint N5 = 1;
layout(constant_id = 11) const uint N6 = 1; layout(constant_id = 12) const uint N7 = 1;
layout(constant_id = 13) const int S0 = 0; layout(constant_id = 14) const int S1 = 0;
layout(constant_id = 15) const int S2 = 0; layout(constant_id = 16) const int S3 = 0;
layout(constant_id = 17) const int S4 = 0; layout(constant_id = 18) const int S5 = 0;
layout(constant_id = 19) const int S6 = 0; layout(constant_id = 20) const int S7 = 0;
layout(constant_id = 21) const uint V0 = 1; layout(constant_id = 22) const uint V1 = 1;
layout(constant_id = 23) const uint V2 = 1; layout(constant_id = 24) const uint V3 = 1;
layout(constant_id = 25) const uint V4 = 1; layout(constant_id = 26) const uint V5 = 1;
layout(constant_id = 27) const uint V6 = 1; layout(constant_id = 28) const uint V7 = 1;
layout(set = 0, binding = 0) readonly buffer Source { uint source[]; };
layout(set = 0, binding = 1) writeonly buffer Target { uint target[]; };

#define AXIS(K, N, S, V) \
    if (RANK > K) { uint i = rest % N; rest /= N; inside = inside && i < V; at += int(i) * S; }

uint element(uint index) {
    uint rest = index;
    int at = OFFSET;
    bool inside = true;
    // The last axis first: axis K counts from the end.
    AXIS(0, N0, S0, V0) AXIS(1, N1, S1, V1) AXIS(2, N2, S2, V2) AXIS(3, N3, S3, V3)
    AXIS(4, N4, S4, V4) AXIS(5, N5, S5, V5) AXIS(6, N6, S6, V6) AXIS(7, N7, S7, V7)
    if (!inside || rest != 0u) return 0u;
    if (PACK == 1u) return source[at];
    uint bits = 32u / PACK;
    return bitfieldExtract(source[uint(at) / PACK], int((uint(at) % PACK) * bits), int(bits));
}

void main() {
    uint word = gl_WorkGroupID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x + gl_GlobalInvocationID.x;
    if (word >= WORDS) return;
    uint packed = 0u;
    for (uint part = 0u; part < PACK; part++) packed |= element(word * PACK + part) << (part * (32u / PACK));
    target[word] = packed;
}
