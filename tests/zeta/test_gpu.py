"""The GPU's way to find zeros: its kernels' own text, built for the CPU, with NumPy in CuPy's place."""

import ctypes
import re
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest

from adaptive_compute import zeta
from adaptive_compute.zeta import blocks, gpu, kernels, spectral

pytestmark = pytest.mark.filterwarnings("ignore:this machine has no profile")


COMPILER = shutil.which("g++") or shutil.which("clang++")
_BEFORE = r"""
#include <cmath>
using namespace std;
#define __device__
#define __global__
struct double2 { double x, y; };
struct Three { int x, y, z; };
static Three blockIdx, blockDim, threadIdx, gridDim;
static double __dadd_rn(double a, double b) { return a + b; }
static double __dsub_rn(double a, double b) { return a - b; }
static double __dmul_rn(double a, double b) { return a * b; }
static double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static void sincospi(double x, double* s, double* c) {
    const double pi = 3.14159265358979323846;
    x -= 2 * rint(x / 2);
    *s = sin(pi * x); *c = cos(pi * x);
}
"""
_LAUNCH = """
extern "C" void launch_{name}(int wide, int high, int threads, {parameters}) {{
    gridDim = {{wide, high, 1}}; blockDim = {{threads, 1, 1}};
    for (blockIdx.y = 0; blockIdx.y < high; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < wide; blockIdx.x++)
            for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) {name}({names});
}}
"""


def build(source, folder):
    """Compile kernels; returns ``launch(name, grid, block, arguments)`` for NumPy arrays and numbers."""
    text = _BEFORE + source
    for name, parameters in re.findall(r'extern "C" __global__ void (\w+)\((.*?)\)\s*{', source, re.S):
        names = ", ".join(p.split()[-1].lstrip("*") for p in parameters.split(","))
        text += _LAUNCH.format(name=name, parameters=parameters, names=names)
    (folder / "kernels.cpp").write_text(text)
    subprocess.run(
        [COMPILER, "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-o", folder / "kernels.so", folder / "kernels.cpp"],
        check=True,
    )  # fmt: skip
    library = ctypes.CDLL(str(folder / "kernels.so"))

    def launch(name, grid, block, arguments):
        ready = []
        for a in arguments:  # pointers and doubles as they are, whole numbers as int
            assert not isinstance(a, np.ndarray) or a.flags.c_contiguous
            kept = a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else ctypes.c_double(a)
            ready.append(ctypes.c_int(int(a)) if isinstance(a, np.int32) else kept)
        getattr(library, f"launch_{name}")(*map(ctypes.c_int, (*grid, *block)), *ready)

    return launch


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    return build(kernels.source(**gpu.constants()), tmp_path_factory.mktemp("kernels"))


class Array(np.ndarray):
    """NumPy's, with the one method of CuPy's that the GPU's room calls."""

    def get(self, out=None):
        if out is None:
            return np.array(self)
        out[...] = self
        return out


class Cupy:
    """What the GPU's room calls of CuPy."""

    fft = np.fft
    cumsum = staticmethod(np.cumsum)
    asarray = staticmethod(np.asarray)

    @staticmethod
    def empty(shape, dtype=float):
        return np.full(shape, 77, dtype).view(Array)  # an element that no kernel writes must not matter

    @staticmethod
    def zeros(shape, dtype=float):
        return np.zeros(shape, dtype)


@pytest.fixture
def device(launch, monkeypatch):
    found = gpu.Device.__new__(gpu.Device)
    found.cupy, found.number = Cupy, 0
    found.kernel = {name: partial(launch, name) for name in gpu.KERNELS}
    found._pinned, found._wait = np.empty, lambda: None
    found.make_tables()
    return found


def test_z_on_the_grid_is_the_cpus(device):
    windows = spectral.windows(10**6, 0.0, 9_000.0, zeros=3_000)
    g, z = device.samples(windows, 4.0)
    assert len({w.terms for w in windows}) > 1
    for row, window, values in zip(g.rows, windows, z):
        step, error = row[5], row[8]
        assert step == (window.last - window.first) / g.cells
        for k in (0, g.cells // 3, g.cells):
            exact = zeta.Z(window.base, window.first + k * step)
            assert abs(values[spectral.MARGIN + k] - exact) <= error
            assert abs(values[spectral.MARGIN + k] - exact) < 1e-10


def test_zeros_are_the_cpus(device):
    windows = spectral.windows(10**6, 0.0, 9_000.0, zeros=3_000)
    for every in (False, True):
        for mine, its in zip(device.find(windows, 4.0, every), blocks.find(windows, 4.0, every), strict=True):
            assert len(mine.offsets) == len(its.offsets)
            assert np.abs(mine.offsets - its.offsets).max() < 1e-9
            assert mine.undecided == ()
