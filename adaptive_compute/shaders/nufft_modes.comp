#version 450
#extension GL_GOOGLE_include_directive : require
// Between modes and the fine grid's transform: cut out the modes (type 1) or fill up with zeros (type 2), shift to the
// asked order of frequencies, and divide by the kernel's transform, all in one.
// Bindings: 0 source, 1 target, each [transform][elements].
// Constants: 0 local size, 1 direction (0: grid to modes, 1: modes to grid), 2 order of the modes (0: counting up from
// -N/2, 1: the FFT's), 3 dimensions, 4.. modes of each axis (fastest first), 7.. cells of each axis, 10 transforms
// before these among the modes. A workgroup's z is the transform.
// variant: nufft_modes_2 -DWIDTH=2
// variant: nufft_modes_3 -DWIDTH=3
// variant: nufft_modes_4 -DWIDTH=4
// variant: nufft_modes_5 -DWIDTH=5
// variant: nufft_modes_6 -DWIDTH=6
// variant: nufft_modes_7 -DWIDTH=7
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint TO_GRID = 0;
layout(constant_id = 2) const uint FFT_ORDER = 0;
layout(constant_id = 3) const uint DIM = 1;
layout(constant_id = 4) const uint MODES0 = 1;
layout(constant_id = 5) const uint MODES1 = 1;
layout(constant_id = 6) const uint MODES2 = 1;
layout(constant_id = 7) const uint CELLS0 = 1;
layout(constant_id = 8) const uint CELLS1 = 1;
layout(constant_id = 9) const uint CELLS2 = 1;
layout(constant_id = 10) const uint BEFORE = 0;
layout(set = 0, binding = 0) readonly buffer Source { vec2 source[]; };
layout(set = 0, binding = 1) writeonly buffer Target { vec2 target[]; };
#include "nufft_kernel.glsl"

// The frequency of an element of an axis in one of the two orders, and the element of a frequency.
int frequency(uint index, uint length, bool ordered) {
    return ordered ? int(index) - (index < (length + 1u) / 2u ? 0 : int(length)) : int(index) - int(length / 2u);
}
uint element(int k, uint length, bool ordered) {
    return uint(ordered ? (k < 0 ? k + int(length) : k) : k + int(length / 2u));
}

bool inside = true;
float factor = 1.0;
uint place = 0u, stride = 1u;

void axis(uint index, uint modes, uint cells) {
    int k;
    if (TO_GRID == 0u) {
        k = frequency(index, modes, FFT_ORDER != 0u);
        place += stride * element(k, cells, true);
        stride *= cells;
    } else {
        k = frequency(index, cells, true);
        inside = inside && k >= -int(modes / 2u) && k <= int(modes - 1u) / 2;
        if (inside) place += stride * element(k, modes, FFT_ORDER != 0u);
        stride *= modes;
    }
    float t = 4.0 * float(k) / float(cells);
    factor *= corrected(t * t);
}

void main() {
    const uint N0 = TO_GRID == 0u ? MODES0 : CELLS0, N1 = TO_GRID == 0u ? MODES1 : CELLS1;
    const uint N2 = TO_GRID == 0u ? MODES2 : CELLS2;
    uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    if (i >= N0 * N1 * N2) return;
    axis(i % N0, MODES0, CELLS0);
    if (DIM > 1u) axis(i / N0 % N1, MODES1, CELLS1);
    if (DIM > 2u) axis(i / (N0 * N1), MODES2, CELLS2);
    uint transform = gl_WorkGroupID.z;
    if (TO_GRID == 0u) {
        target[(transform + BEFORE) * (N0 * N1 * N2) + i] = source[transform * stride + place] * factor;
    } else {
        vec2 value = inside ? source[(transform + BEFORE) * stride + place] * factor : vec2(0.0);
        target[transform * (N0 * N1 * N2) + i] = value;
    }
}
