"""The GPU's way to find zeros: its kernels' own text, built for the CPU, with NumPy in CuPy's place."""

import ctypes
import math
import re
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest

from adaptive_compute import zeta
from adaptive_compute.zeta import blocks, gpu, hunt, kernels, sign, spectral

pytestmark = pytest.mark.filterwarnings("ignore:this machine has no profile")


COMPILER = shutil.which("g++") or shutil.which("clang++")
_BEFORE = r"""
#include <cmath>
using namespace std;
#define __device__
#define __global__
struct double2 { double x, y; };
struct Three { int x, y, z; };
static thread_local Three blockIdx, blockDim, threadIdx, gridDim;
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
    found._pinned, found._wait, found.use = np.empty, (lambda: None), (lambda: None)
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
            assert abs(values[spectral.MARGIN + k] - exact) < 2e-11


def test_phases_hold_their_digits_at_1e12(device):
    (window,) = spectral.windows(10**12, 0.25, 60.0)
    g, z = device.samples([window], 4.0)
    for k in (0, g.cells // 2, g.cells):
        assert abs(z[0, spectral.MARGIN + k] - zeta.Z(window.base, window.first + k * g.rows[0, 5])) < 1e-10


def test_a_cell_in_which_z_turns_twice_is_looked_into(device):
    (samples,) = [spectral.sample(w, 4.0) for w in spectral.windows(10**9, 288_887.25, 288_893.25)]
    quick, every = (device.roots(*_wave(samples.values[None], samples.error), e)[0][0].offsets for e in (False, True))
    assert np.array_equal(quick, every)
    assert np.diff(every).min() < 1


def test_zeros_are_the_cpus(device):
    windows = spectral.windows(10**6, 0.0, 9_000.0, zeros=3_000)
    for every in (False, True):
        for mine, its in zip(device.find(windows, 4.0, every), blocks.find(windows, 4.0, every), strict=True):
            assert len(mine.offsets) == len(its.offsets)
            assert np.abs(mine.offsets - its.offsets).max() < 1e-9
            assert mine.undecided == ()


def test_finer_looks_are_the_cpus(device, monkeypatch):
    windows = spectral.windows(10**6, 0.0, 600.0, zeros=500)
    monkeypatch.setattr(gpu, "ROWS", 3)
    wanted = blocks.find(windows, 4.0, False)
    monkeypatch.setattr(gpu.blocks, "find", None)
    for finer in (8.0, 10.0):
        for mine, its in zip(device.find(windows, finer, True), wanted, strict=True):
            assert np.abs(mine.offsets - its.offsets).max() < 1e-9
            assert mine.error >= its.error / 2


def test_a_row_at_the_least_number_of_terms_has_room_for_its_bend(device):
    base = math.ceil(2 * math.pi * gpu.LEAST_TERMS**2)
    window = spectral.windows(base, 0.0, 3_000.0)[0]
    assert window.terms == gpu.LEAST_TERMS
    (mine,), (its,) = device.find([window], 4.0, False), blocks.find([window], 4.0, False)
    assert np.abs(mine.offsets - its.offsets).max() < 1e-9


def _wave(values, error=1e-12):
    """A batch of rows whose grids are whole numbers and whose samples are these."""
    rows = np.zeros((len(values), len(kernels.FIELDS) + kernels.CURVE))
    rows[:, kernels.FIELDS.index("step")], rows[:, kernels.FIELDS.index("error")] = 1, error
    cells = values.shape[1] - 1 - 2 * spectral.MARGIN
    return gpu.Grid(rows, np.zeros((len(values), 1)), cells, values.shape[1], 1, 1, values.size), values


def test_close_pairs_and_none_where_there_are_none(device):
    k = np.arange(-spectral.MARGIN, 200 + 1 + spectral.MARGIN)
    wave = np.cos(math.pi / 4.3 * (k - 0.4))
    signals = np.array([wave, 1.0001 - wave, 0.9999 - wave])
    for every in (False, True):
        found, doubtful = device.roots(*_wave(signals), every)
        assert not doubtful.any()
        for part, signal in zip(found, signals):
            (wanted,) = sign.zeros([spectral.Samples(0, 0.0, 1.0, signal, 1e-12)], every)
            assert np.allclose(part.offsets, wanted.offsets, rtol=0, atol=1e-9)
        assert [len(part.offsets) > 0 for part in found] == [True, False, True]


def test_rows_in_doubt_are_told_apart(device):
    k = np.arange(-spectral.MARGIN, 50 + 1 + spectral.MARGIN)
    first, inside, last, beyond = (np.sin(0.6 * (k - at)) for at in (0.0, 20.0, 50.0, 51.0))
    _, doubtful = device.roots(*_wave(np.array([np.cos(0.6 * k), first, inside, last, beyond]), 1e-9), False)
    assert doubtful.tolist() == [False, True, True, True, False]


def test_a_row_in_doubt_is_worked_on_by_the_cpu(device, monkeypatch):
    windows, asked = spectral.windows(10**6, 0.0, 2_000.0, zeros=1_000), []
    plain = device.roots
    monkeypatch.setattr(device, "roots", lambda *a: (plain(*a)[0], np.arange(len(windows)) == 1))
    monkeypatch.setattr(gpu.blocks, "find", lambda w, *_: asked.append(w) or ["the CPU's"])
    found = device.find(windows, 4.0, False)
    assert asked == [[windows[1]]]
    assert found[1] == "the CPU's"
    assert len(found) == len(windows)


def test_more_zeros_than_were_likely_all_come_back(device):
    k = np.arange(-spectral.MARGIN, 200 + 1 + spectral.MARGIN)
    grid, values = _wave(np.cos(math.pi / 4.3 * (k - 0.4))[None])
    (all_of_them,), _ = device.roots(grid, values, False)
    (again,), _ = device.roots(grid._replace(likely=3), values, False)
    assert len(again.offsets) > 40
    assert np.array_equal(again.offsets, all_of_them.offsets)
    with pytest.raises(RuntimeError, match="make no sense"):
        device.roots(*_wave(np.tile([1.0, -1.0], 400)[None]), False)


def test_a_hunt_on_a_gpu_goes_on_with_the_same_bytes(device, monkeypatch, tmp_path):
    monkeypatch.setattr(hunt, "_place", lambda device, first: 0)
    monkeypatch.setattr(gpu, "device", lambda number: device)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    blocks_found = list(zeta.zeros(10**6, 10**6 + 3_000, block=2_000, checkpoint=whole))
    assert all(block.verified for block in blocks_found)
    assert sum(len(block.offsets) for block in blocks_found) == zeta.N(10**6 + 3_000) - zeta.N(10**6)
    next(zeta.zeros(10**6, 10**6 + 3_000, block=2_000, checkpoint=broken))
    assert len(list(broken.iterdir())) < len(list(whole.iterdir()))
    list(zeta.zeros(10**6, 10**6 + 3_000, block=2_000, checkpoint=broken))
    for path in whole.iterdir():
        assert (broken / path.name).read_bytes() == path.read_bytes()
        assert b'"device":"cuda:0"' in (whole / "run.json").read_bytes()
