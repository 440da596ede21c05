#version 450
// The spectrum of 2n real points from that of the n complex points z[j] = x[2j] + i x[2j+1]: the last step of a real
// transform that takes several passes. A thread makes bins k and n-k.
// Bindings: 0 source (lines of n bins), 1 target (lines of n+1 bins), 2 exp(-pi i k / n), k < n.
// Constants: 0 local size, 1 threads that have work, 2 n, 3 distance of neighbouring bins (both sides), 4 distance of
// lines in the target, 5 conjugate the result, 6 factor (float).
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint N = 1;
layout(constant_id = 3) const uint INNER = 1;
layout(constant_id = 4) const uint PITCH = 1;
layout(constant_id = 5) const uint CONJUGATE = 0;
layout(constant_id = 6) const float SCALE = 1.0;
layout(set = 0, binding = 0) readonly buffer Source { vec2 source[]; };
layout(set = 0, binding = 1) writeonly buffer Target { vec2 target[]; };
layout(set = 0, binding = 2) readonly buffer Roots { vec2 roots[]; };

void put(uint at, vec2 x) { target[at] = SCALE * vec2(x.x, CONJUGATE != 0 ? -x.y : x.y); }

void main() {
    uint id = gl_WorkGroupID.y * gl_NumWorkGroups.x * gl_WorkGroupSize.x + gl_GlobalInvocationID.x;
    if (id >= COUNT) return;
    uint s = id % INNER, rest = id / INNER;
    const uint PAIRS = N / 2 + 1;
    uint k = rest % PAIRS, line = rest / PAIRS;
    uint from = line * N * INNER + s, to = line * PITCH + s;
    vec2 x = source[from + k * INNER];
    if (k == 0) {
        put(to, vec2(x.x + x.y, 0.0));
        put(to + N * INNER, vec2(x.x - x.y, 0.0));
        return;
    }
    vec2 y = source[from + (N - k) * INNER];
    vec2 w = roots[k];
    vec2 even = 0.5 * vec2(x.x + y.x, x.y - y.y), difference = 0.5 * vec2(x.x - y.x, x.y + y.y);
    vec2 odd = vec2(difference.x * w.y + difference.y * w.x, difference.y * w.y - difference.x * w.x);
    put(to + k * INNER, even + odd);
    put(to + (N - k) * INNER, vec2(even.x - odd.x, odd.y - even.y));
}
