"""The kernel that mends operands of transforms to real values, compiled for the host, beside the same by torch."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from adaptive_compute.backends.cuda import fft, hermitian
from adaptive_compute.core.operations.fft_rule import NONE, FFTParams

torch = pytest.importorskip("torch")
# Operands' shapes, where the last transformed axis is 0 and becomes half of n, and the axes.
CASES = [
    ((0,), (0,)), ((3, 0), (1,)), ((0, 5), (0,)), ((6, 0), (0, 1)), ((3, 4, 0), (1, 2)), ((3, 5, 0), (0, 2)),
    ((2, 3, 5, 0), (1, 2, 3)), ((4, 0, 3), (0, 1)), ((2, 2, 0, 3, 2), (1, 2)), ((300, 0, 7), (0, 1)), ((0, 0), (0, 1)),
]  # fmt: skip
HOST = """
#define __global__
static struct { int x, y; } threadIdx, blockIdx;
"""
LOOP = """
extern "C" void grid(void *x, long long count, long long half, const long long *n, int planes) {
  for (blockIdx.y = 0; blockIdx.y < planes; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x * 256LL < count; blockIdx.x++)
      for (threadIdx.x = 0; threadIdx.x < 256; threadIdx.x++) compute((Complex *)x, count, half ARGUMENTS);
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler here")
    folder, libraries = tmp_path_factory.mktemp("hermitian"), {}

    def get(mirrored, average, double):
        key = mirrored, average, double
        if key not in libraries:
            text = HOST + hermitian.source(*key)
            text += LOOP.replace("ARGUMENTS", "".join(f", n[{i}]" for i in range(2 * len(mirrored))))
            place = folder / f"{len(libraries)}.cpp"
            place.write_text(text)
            library = place.with_suffix(".so")
            subprocess.run([compiler, "-O1", "-w", "-shared", "-fPIC", "-o", library, place], check=True)
            libraries[key] = ctypes.CDLL(str(library)).grid
        return libraries[key]

    return get


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize(("shape", "axes"), CASES)
def test_the_kernel_does_what_torch_does(built, shape, axes, n, dtype):
    last = axes[-1]
    whole = tuple(side or (n // 2 + 1 if axis == last else 9) for axis, side in enumerate(shape))
    p = FFTParams("c2r", False, (*[whole[axis] for axis in axes[:-1]], n), axes, NONE)
    rng = np.random.default_rng(n)
    x = (rng.standard_normal(whole) + 1j * rng.standard_normal(whole)).astype(dtype)
    expected = fft.hermitian_(torch.from_numpy(x.copy()), p).numpy()
    own = hermitian.planes(whole, p)
    made = x.copy()
    sizes = [number for side in own.sides for number in (side.length, side.step)]
    run = built(tuple(side.mirrored for side in own.sides), len(axes) > 1, dtype == "complex128")
    numbers = (ctypes.c_longlong * max(len(sizes), 1))(*sizes)
    longs = (ctypes.c_longlong(own.places), ctypes.c_longlong(own.half))
    run(ctypes.c_void_p(made.ctypes.data), *longs, numbers, own.planes)
    assert np.array_equal(made, expected)
    assert len(own.sides) <= 4


def test_nothing_is_done_where_there_is_nothing():
    p = FFTParams("c2r", False, (8,), (1,), NONE)
    assert hermitian.planes((0, 5), p).places == 0
    assert torch.is_tensor(hermitian.Hermitian((0, 5), p, True, 0)(torch.ones(0)))
