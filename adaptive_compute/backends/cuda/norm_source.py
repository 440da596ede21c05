"""CUDA source of the L2 norm: one pass over memory in packs of 16 bytes, squares and sums in float64.

torch's own norm of float32 in float64 first writes a wide copy, which is five times the traffic; in float32 it
overflows beyond 1e19.
"""

from __future__ import annotations

from typing import NamedTuple

_NAMES = {"float32": "float", "float16": "unsigned short", "bfloat16": "unsigned short"}
_WIDE = {
    "float32": "return x;",
    "float16": 'float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y;',
    "bfloat16": "return __uint_as_float((unsigned)x << 16);",
}
_NARROW = {
    "float32": "return (float)x;",
    "float16": 'Element y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"((float)x)); return y;',
    "bfloat16": "unsigned u = __float_as_uint((float)x); "
    "return x != x ? 0x7fc0 : (Element)((u + 0x7fff + ((u >> 16) & 1)) >> 16);",
}


class Shape(NamedTuple):
    """How a kernel is made: what varies between kernels and not between calls."""

    dtype: str
    pack: int  # elements that are read at once
    threads: int  # of a block
    side: int  # threads that share a sum (along), or that stand side by side (across)
    unroll: int  # packs that a thread reads before it adds any of them up
    partial: bool  # sums of squares in float64 are stored, to be added up by ``finish``


_COMMON = """\
typedef {element} Element;
struct alignas({bytes}) Pack {{ Element at[{pack}]; }};
__device__ __forceinline__ double wide(Element x) {{ {wide} }}
__device__ __forceinline__ Element narrow(double x) {{ {narrow} }}
typedef {result} Result;
__device__ __forceinline__ Result last(double total) {{ return {last}; }}
__device__ __forceinline__ void add(double (&sums)[{pack}], const Pack& x) {{
#pragma unroll
    for (int i = 0; i < {pack}; i++) {{ double v = wide(x.at[i]); sums[i] = fma(v, v, sums[i]); }}
}}
__device__ __forceinline__ Pack load(const Pack* place) {{
    {load}
}}
"""
_LOADS = {
    16: "int4 bits = __ldcs((const int4*)place); return *(Pack*)&bits;",
    4: "int bits = __ldcs((const int*)place); return *(Pack*)&bits;",
    2: "short bits = __ldcs((const short*)place); return *(Pack*)&bits;",
}
_ALONG = """
// Sums along contiguous rows of n packs: {side} threads to a row, blockIdx.y the part of it.
extern "C" __global__ void __launch_bounds__({threads})
compute(Result* out, long long rows, long long n, long long part, const Pack* x) {{
    const int T = {side}, R = {threads} / T;
    const int lane = threadIdx.x % T;
    const long long row = (long long)blockIdx.x * R + threadIdx.x / T;
    const long long end = min((blockIdx.y + 1) * part, n);
    double sums[{pack}] = {{}};
    if (row < rows) {{
        const Pack* own = x + row * n;
        long long i = blockIdx.y * part + lane;
        for (; i + ({unroll} - 1) * T < end; i += {unroll} * T) {{
            Pack read[{unroll}];
#pragma unroll
            for (int u = 0; u < {unroll}; u++) read[u] = load(own + i + u * T);
#pragma unroll
            for (int u = 0; u < {unroll}; u++) add(sums, read[u]);
        }}
        for (; i < end; i += T) add(sums, load(own + i));
    }}
    double total = 0;
#pragma unroll
    for (int i = 0; i < {pack}; i++) total += sums[i];
#pragma unroll
    for (int step = min(T, 32) / 2; step; step /= 2) total += __shfl_down_sync(~0u, total, step);
    if (T > 32) {{
        __shared__ double warps[{threads} / 32];
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = total;
        __syncthreads();
        if (lane == 0) {{
            const int first = threadIdx.x / 32;
            total = 0;
            for (int i = 0; i < T / 32; i++) total += warps[first + i];
        }}
    }}
    if (lane == 0 && row < rows) out[row * gridDim.y + blockIdx.y] = last(total);
}}
"""
_ACROSS = """
// Sums over the middle axis of (blockIdx.z, n, inner packs): {side} neighbouring packs to a block, blockIdx.y the part.
extern "C" __global__ void __launch_bounds__({threads})
compute(Result* out, long long inner, long long n, long long part, const Pack* x) {{
    const int W = {side}, H = {threads} / W;
    const int c = threadIdx.x % W, h = threadIdx.x / W;
    const long long column = (long long)blockIdx.x * W + c;
    const long long end = min((blockIdx.y + 1) * part, n);
    double sums[{pack}] = {{}};
    if (column < inner) {{
        const Pack* own = x + (long long)blockIdx.z * n * inner + column;
        long long i = blockIdx.y * part + h;
        for (; i + ({unroll} - 1) * H < end; i += {unroll} * H) {{
            Pack read[{unroll}];
#pragma unroll
            for (int u = 0; u < {unroll}; u++) read[u] = load(own + (i + u * H) * inner);
#pragma unroll
            for (int u = 0; u < {unroll}; u++) add(sums, read[u]);
        }}
        for (; i < end; i += H) add(sums, load(own + i * inner));
    }}
    __shared__ double all[H][W];
    for (int k = 0; k < {pack}; k++) {{
        __syncthreads();
        all[h][c] = sums[k];
        __syncthreads();
        if (h == 0 && column < inner) {{
            double total = 0;
            for (int j = 0; j < H; j++) total += all[j][c];
            out[(((long long)blockIdx.z * gridDim.y + blockIdx.y) * inner + column) * {pack} + k] = last(total);
        }}
    }}
}}
"""
_FINISH = """
// Adds up the parts of (outer, parts, inner) sums in their order.
extern "C" __global__ void compute(Element* out, long long count, long long inner, long long parts, const double* x) {{
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const double* own = x + i / inner * parts * inner + i % inner;
    double total = 0;
    for (long long k = 0; k < parts; k++) total += own[k * inner];
    out[i] = narrow(sqrt(total));
}}
"""


def _source(text: str, shape: Shape) -> str:
    itemsize = 4 if shape.dtype == "float32" else 2
    nbytes = itemsize * shape.pack
    return (_COMMON + text).format(
        element=_NAMES[shape.dtype], wide=_WIDE[shape.dtype], narrow=_NARROW[shape.dtype], bytes=nbytes,
        load=_LOADS[nbytes], result="double" if shape.partial else "Element",
        last="total" if shape.partial else "narrow(sqrt(total))", **shape._asdict(),
    )  # fmt: skip


def along(shape: Shape) -> str:
    """Return the source for sums along contiguous rows."""
    return _source(_ALONG, shape)


def across(shape: Shape) -> str:
    """Return the source for sums over an axis with another one behind it."""
    return _source(_ACROSS, shape)


def finish(dtype: str) -> str:
    """Return the source that adds up partial sums and takes the root."""
    return _source(_FINISH, Shape(dtype, 1, 128, 1, 1, False))
