"""How a norm is cut up: its kernels' loops, written again in Python, read every element once and none beyond."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from adaptive_compute.backends.cuda import norm
from adaptive_compute.backends.cuda.norm_source import across, along, finish

SIDES = [
    (1, 1, 1), (1, 7, 1), (3, 1000, 1), (1000, 3, 1), (5, 4096, 1), (1, 300_001, 1), (1, 400_000, 1), (2, 65_536, 1),
    (300, 260, 1), (1, 50, 7), (1, 3000, 64), (3, 129, 513), (2, 5, 4096), (1, 2, 100_000), (7, 1, 8),
]  # fmt: skip


def visits(found, pack):
    """Return how often each element is read, by the loops of the kernels; raise where one is read beyond the end."""
    shape, (first, n, part) = found.shape, found.sizes
    threads, side = shape.threads, shape.side
    outer, inner = (first, pack) if found.along else (found.grid[2], first * pack)
    seen = np.zeros((n, inner), np.int8)  # of one of the outer places, which are alike; packs of a row, or rows
    step = side if found.along else threads // side
    for number in range(found.parts):
        end = number * part + part
        assert number * part < n
        for lane in range(step):
            seen[number * part + lane : min(end, n) : step] += 1
    return outer, seen


@pytest.mark.parametrize("dtype", norm.ITEMSIZE)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sides", SIDES)
def test_every_element_is_added_up_once(sides, aligned, dtype):
    outer, n, inner = sides
    found = norm.cut(dtype, outer, n, inner, aligned)
    shape = found.shape
    assert shape.pack in (1, 16 // norm.ITEMSIZE[dtype])
    assert aligned or shape.pack == 1
    assert (n if inner == 1 else inner) % shape.pack == 0
    assert shape.threads % shape.side == 0
    assert shape.partial == (found.parts > 1)
    assert found.grid[1] == found.parts <= norm.MOST
    count, seen = visits(found, shape.pack)
    assert count * seen.size == outer * n * inner
    assert (seen == 1).all()
    if found.along:  # rows of all blocks
        assert (
            (found.grid[0] - 1) * (shape.threads // shape.side) < outer <= found.grid[0] * (shape.threads // shape.side)
        )
    else:  # packs of all blocks
        assert (found.grid[0] - 1) * shape.side < inner // shape.pack <= found.grid[0] * shape.side


def test_a_large_sum_is_cut_so_that_the_whole_gpu_has_work_and_a_small_one_is_not():
    assert norm.cut("float32", 1, 1 << 26, 1, True).parts >= 256
    assert norm.cut("float32", 1, 1 << 13, 1 << 14, True).parts > 1
    assert norm.cut("float32", 64, 256, 1, True).parts == 1
    assert norm.cut("float32", 1 << 16, 1 << 10, 1, True).parts == 1


def test_what_a_grid_cannot_hold_is_left_to_torch():
    assert norm.cut("float32", 70_000, 4, 4, True) is None


HOST = r"""
#include <math.h>
#include <string.h>
#include <algorithm>
using std::min;
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(x)
#define asm(...)
struct int4 { int x, y, z, w; };
static struct { int x, y, z; } threadIdx, blockIdx, gridDim, blockDim;
inline void __syncthreads() {}
inline double __shfl_down_sync(unsigned, double x, int) { return x; }
template <class T> T __ldcs(const T* place) { return *place; }
inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
"""


@pytest.mark.parametrize("dtype", norm.ITEMSIZE)
def test_the_sources_are_c_plus_plus(dtype, tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler here")
    texts = {finish(dtype)}
    for sides in SIDES:
        for aligned in (True, False):
            found = norm.cut(dtype, *sides, aligned)
            texts.add((along if found.along else across)(found.shape))
    whole = HOST + "".join(
        f"namespace n{i} {{ {text.replace(chr(34) + 'C' + chr(34), '')} }}\n".replace("extern ", "")
        for i, text in enumerate(sorted(texts))
    )
    (tmp_path / "all.cpp").write_text(whole)
    done = subprocess.run(
        [compiler, "-std=c++17", "-fsyntax-only", "-w", str(tmp_path / "all.cpp")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[:2000]
