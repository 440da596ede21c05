"""How points are handed to cuFINUFFT, whose arithmetic for places on its grid is repeated here step by step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from adaptive_compute.core.errors import NufftError, NufftWarning
from adaptive_compute.core.operations.nufft_rule import FAMILY, sample

torch = pytest.importorskip("torch")

from adaptive_compute.backends.cuda import nufft  # noqa: E402

TURN = 8 * np.arctan(np.longdouble(1))


def towards_zero(x):
    """Round positive float64 to float32, down."""
    near = x.astype(np.float32)
    return np.where(near > x, np.nextafter(near, np.float32(0)), near).astype(np.float64)


def place_in_single(points, size):
    """cuFINUFFT's place of a single-precision point: a fused multiply-add, a fraction, a product rounded down."""
    turns = (points.astype(np.float64) * np.float64(np.float32(0.15915494309189535)) + 0.5).astype(np.float32)
    turns = towards_zero(turns.astype(np.float64) - np.floor(turns.astype(np.float64)))
    return towards_zero(turns * size)


def exact_place(points, size):
    turns = points.astype(np.longdouble) / TURN + np.longdouble(0.5)
    return (turns - np.floor(turns)) * size


def root_mean_square(points, handed, size):
    """Return the error of places, in turns."""
    off = (place_in_single(handed, size) - exact_place(points, size)) / size
    off -= np.rint(off)
    return float(np.sqrt(np.mean(off.astype(np.float64) ** 2)))


@pytest.mark.parametrize("reach", [np.pi, 40.0, 3e4])
@pytest.mark.parametrize("n", [101, 1000, 1024, 2001, 4000])
def test_single_precision_points_land_nearer_than_they_would_by_themselves(n, reach):
    points = np.random.default_rng(n).uniform(-reach, reach, 20_000).astype(np.float32)
    size = nufft.fine_grid(n, 2.0)
    handed = nufft.placed(torch.from_numpy(points), float(points.min()), float(points.max()), "x", n, 1e-6, 2.0)
    assert handed.dtype is torch.float32
    found, plain = root_mean_square(points, handed.numpy(), size), root_mean_square(points, points, size)
    # A turn's error is one of 2 pi k at frequency k, whose root mean square is n / sqrt(12).
    assert 2 * np.pi / np.sqrt(12) * found <= 4.4e-8
    assert found <= plain * (1.01 if size & (size - 1) == 0 else 0.7)


def test_double_precision_points_within_a_period_go_as_they_are():
    x = torch.linspace(-3.14, 3.14, 9, dtype=torch.float64)
    assert nufft.placed(x, -3.14, 3.14, "x", 100, 1e-12, 2.0) is x


def test_double_precision_points_are_folded_exactly():
    far = np.random.default_rng(0).uniform(-1e6, 1e6, 500)
    handed = nufft.placed(torch.from_numpy(far), float(far.min()), float(far.max()), "x", 100, 1e-12, 2.0).numpy()
    turns = (far.astype(np.longdouble) - handed) / TURN
    assert np.abs(handed).max() <= np.pi * (1 + 1e-15)
    assert np.abs((turns - np.rint(turns)) * TURN).max() < 1e-13  # what is left is the extended precision here


def test_points_too_far_out_are_refused_or_warned_of():
    far = torch.tensor([1e17], dtype=torch.float64)
    with pytest.raises(NufftError, match=r"x reaches 1e\+17"):
        nufft.placed(far, 0.0, 1e17, "x", 1000, 1e-6, 2.0)
    near = torch.tensor([1e11], dtype=torch.float64)
    with pytest.warns(NufftWarning, match="x reaches"):
        nufft.placed(near, 0.0, 1e11, "x", 1000, 1e-9, 2.0)


@pytest.mark.parametrize(("n", "size"), [(1, 2), (37, 80), (1000, 2000), (1024, 2048), (2001, 4050)])
def test_the_grid_is_the_next_even_smooth_number(n, size):
    assert nufft.fine_grid(n, 2.0) == size


def test_methods_are_offered_where_cufinufft_has_them(monkeypatch):
    monkeypatch.setattr(nufft, "needs", lambda library: True)
    for kind, dim in itertools.product((1, 2, 3), (1, 2, 3)):
        request = sample(kind, dim, "float32", 1e-3, 1, 99, 99)
        offered = {kernel.name for kernel in nufft.kernels("cuda:0") if kernel.supports(request) is True}
        missing = {(2, 1): {"cufinufft-tiles", "cufinufft-output"}}.get((kind, dim), set())
        if kind == 2:
            missing = missing | {"cufinufft-output"}
        assert offered == {"cufinufft-tiles", "cufinufft-points", "cufinufft-output"} - missing, (kind, dim)


@pytest.mark.parametrize(
    ("dim", "eps", "n", "double"),
    [(1, 1e-6, 37, True), (1, 1e-4, 37, False), (1, 1e-4, 5000, True), (3, 1e-5, 13**3, True), (3, 1e-4, 13**3, False)],
)
def test_type_3_runs_in_double_where_single_would_miss_the_tolerance(dim, eps, n, double):
    request = sample(3, dim, "float32", eps, 1, 50, n)
    plan = nufft.PointsPlan(request, 1, 0)
    assert plan.double is double
    assert (plan.name == "complex128") is double
    assert FAMILY.tolerance(request) > 0


def test_tiles_in_three_dimensions_leave_room_for_several_blocks():
    def options(kind, dim, real, eps):
        request = sample(kind, dim, real, eps, 1, 999, 999)
        return nufft.PointsPlan(request, nufft.METHODS["cufinufft-tiles"], 0).options

    for eps in (1e-2, 1e-4, 1e-6):
        side = options(1, 3, "float32", eps)["gpu_binsizex"]
        width = round(np.log10(10 / eps))
        assert side >= 8
        assert 8 * (side + 2 * ((width + 1) // 2)) ** 3 <= 48 << 10
    assert options(1, 3, "float32", 1e-6)["gpu_binsizez"] == 10  # as it was measured
    for other in ((1, 3, "float64", 1e-6), (1, 2, "float32", 1e-6), (3, 3, "float32", 1e-3)):
        assert "gpu_binsizex" not in options(*other)
    assert options(2, 2, "float32", 1e-6)["gpu_maxsubprobsize"] == 4096
    assert "gpu_maxsubprobsize" not in options(1, 2, "float32", 1e-6)
