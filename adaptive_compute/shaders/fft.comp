#version 450
// One axis of a discrete Fourier transform by its definition.
// Bindings: 0 source, 1 target (complex, C order), 2 table of exp(-2 pi i m / n), m < n.
// Constants: 0 local size, 1 elements, 2 length n, 3 stride of the axis, 4 conjugate the table, 5 scale (float).
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint N = 1;
layout(constant_id = 3) const uint STRIDE = 1;
layout(constant_id = 4) const uint CONJUGATE = 0;
layout(constant_id = 5) const float SCALE = 1.0;
layout(set = 0, binding = 0) readonly buffer Source { vec2 source[]; };
layout(set = 0, binding = 1) writeonly buffer Target { vec2 target[]; };
layout(set = 0, binding = 2) readonly buffer Table { vec2 table[]; };

void main() {
    uint at = gl_WorkGroupID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x + gl_GlobalInvocationID.x;
    if (at >= COUNT) return;
    uint k = (at / STRIDE) % N, base = at - k * STRIDE, step = 0u;
    vec2 sum = vec2(0.0);
    for (uint j = 0u; j < N; j++) {
        vec2 x = source[base + j * STRIDE], w = table[step];
        if (CONJUGATE != 0u) w.y = -w.y;
        sum += vec2(x.x * w.x - x.y * w.y, x.x * w.y + x.y * w.x);
        step += k;
        if (step >= N) step -= N;
    }
    target[at] = sum * SCALE;
}
