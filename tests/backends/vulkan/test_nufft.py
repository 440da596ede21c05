"""The NUFFT in shaders: arrays that stay on the device, the same bits every run, clustered points, its parts alone."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute import nufft
from adaptive_compute.core.errors import NoKernelError, NufftError
from adaptive_compute.core.operations.nufft_rule import NufftParams, reference

DEVICE = "vulkan:0"
TYPES = list(itertools.product((1, 2, 3), (1, 2, 3)))
MODES = {1: (45,), 2: (20, 17), 3: (7, 12, 9)}


def problem(dim, nufft_type, rng, count=300, batch=()):
    """Return data, points, targets in single precision."""
    points = [rng.uniform(-np.pi, np.pi, count).astype(np.float32) for _ in range(dim)]
    targets = [rng.uniform(-n / 2, n / 2, 70).astype(np.float32) for n in MODES[dim]] if nufft_type == 3 else []
    shape = (*batch, *(MODES[dim] if nufft_type == 2 else (count,)))
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64), points, targets


def call(dim, nufft_type, data, points, targets, modes=None, **kwargs):
    function = getattr(nufft, f"nufft{dim}d{nufft_type}")
    if nufft_type == 1:
        return function(*points, data, modes or MODES[dim], isign=1, **kwargs)
    return function(*points, data, *targets, isign=1, **kwargs)


def exact(dim, nufft_type, data, points, targets, modes=None):
    modes = modes or MODES[dim]
    shape = {1: modes, 2: points[0].shape, 3: targets[0].shape if targets else ()}[nufft_type]
    batch = data.shape[: data.ndim - (dim if nufft_type == 2 else 1)]
    params = NufftParams(nufft_type, dim, modes, int(np.prod(batch)), 1, 0, 1e-6)
    return reference(params, data, *points, *targets).reshape(*batch, *shape)


def relative(result, expected):
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


def moved(arrays):
    return [ac.to(a, DEVICE) for a in arrays]


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize(("dim", "nufft_type"), TYPES)
def test_resident_arrays_stay_on_the_device(dim, nufft_type, rng):
    data, points, targets = problem(dim, nufft_type, rng, batch=(2,))
    there = moved([data]), moved(points), moved(targets)
    before = ac.transfers()
    first = call(dim, nufft_type, there[0][0], *there[1:])
    again = call(dim, nufft_type, there[0][0], *there[1:])
    assert ac.transfers() == before
    assert first.device == DEVICE
    expected = exact(dim, nufft_type, data, points, targets)
    assert relative(first.numpy(), expected) <= 1e-5
    np.testing.assert_array_equal(again.numpy(), first.numpy())
    host = run_on_host(dim, nufft_type, data, points, targets)
    np.testing.assert_array_equal(host, first.numpy())


def run_on_host(dim, nufft_type, data, points, targets, **kwargs):
    with ac.using(device=DEVICE):
        return call(dim, nufft_type, data, points, targets, **kwargs)


@pytest.mark.parametrize(("dim", "nufft_type"), TYPES)
def test_same_bits_every_run_and_in_strict_mode(dim, nufft_type, rng):
    from adaptive_compute.backends.vulkan.runtime import strict

    data, points, targets = problem(dim, nufft_type, rng)
    other = [x[::-1].copy() for x in points]
    first = run_on_host(dim, nufft_type, data, points, targets)
    run_on_host(dim, nufft_type, data, other, targets)
    np.testing.assert_array_equal(run_on_host(dim, nufft_type, data, points, targets), first)
    run_on_host(dim, nufft_type, data, other, targets)
    with strict():
        np.testing.assert_array_equal(run_on_host(dim, nufft_type, data, points, targets), first)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("nufft_type", [1, 2])
def test_points_all_in_one_place_and_on_the_edges(dim, nufft_type, rng):
    data, points, targets = problem(dim, nufft_type, rng, count=700)
    for x in points:
        x[:500] = 1.25
        x[500:520] = np.float32(np.pi)
        x[520:540] = -np.float32(np.pi)
        x[540:560] = 0
    result = run_on_host(dim, nufft_type, data, points, targets)
    assert relative(result, exact(dim, nufft_type, data, points, targets)) <= 1e-5


@pytest.mark.parametrize(("dim", "nufft_type"), [(1, 1), (2, 1), (3, 1), (2, 3)])
@pytest.mark.parametrize("places", [1, 3])
def test_many_points_in_few_places(dim, nufft_type, places, rng):
    """More than one workgroup takes of a tile: further ones share the rest, and the sum is the same every time."""
    data, points, targets = problem(dim, nufft_type, rng, count=7000, batch=(2,))
    where = rng.integers(places, size=6500)
    for x in points:
        x[:6500] = rng.uniform(-3.1, 3.1, places).astype(np.float32)[where]
    result = run_on_host(dim, nufft_type, data, points, targets)
    assert relative(result, exact(dim, nufft_type, data, points, targets)) <= 1e-5
    np.testing.assert_array_equal(run_on_host(dim, nufft_type, data * 1, points, targets), result)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e8, 1e30])
def test_points_far_out_are_folded_exactly(scale, rng):
    data, _, _ = problem(1, 1, rng)
    points = [(rng.standard_normal(300) * scale).astype(np.float32)]
    there = moved([data, *points])
    result = nufft.nufft1d1(there[1], there[0], 45)
    # A float64 phase has no digits left of points so far out: fold in exact arithmetic.
    turn = Fraction(884279719003555, 140737488355328)  # float64's 2 pi, then the rest of it
    two_pi = turn + Fraction(2.4492935982947064e-16)
    folded = [np.array([float(Fraction(float(v)) % two_pi) for v in points[0]])] if scale <= 1e8 else None
    if folded is None:
        assert np.isfinite(result.numpy()).all()
        return
    assert relative(result.numpy(), exact(1, 1, data, folded, [])) <= 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("dim", "nufft_type"), TYPES)
def test_resident_points_that_are_not_finite(dim, nufft_type, bad, rng):
    data, points, targets = problem(dim, nufft_type, rng)
    points[-1][123] = bad
    there = moved([data]), moved(points), moved(targets)
    with pytest.raises(NufftError, match=f"^{'xyz'[dim - 1]}"):
        call(dim, nufft_type, there[0][0], *there[1:])


@pytest.mark.parametrize(("dim", "nufft_type"), TYPES)
def test_its_error_is_predicted(dim, nufft_type, rng):
    from adaptive_compute.backends.vulkan.nufft import predicted_error

    data, points, targets = problem(dim, nufft_type, rng)
    expected = exact(dim, nufft_type, data, points, targets)
    for eps in (1e-2, 1e-6):
        found = relative(run_on_host(dim, nufft_type, data, points, targets, eps=eps), expected)
        predicted = predicted_error(NufftParams(nufft_type, dim, MODES[dim], 1, 1, 0, eps))
        assert found / 2 <= predicted <= min(40 * found, 4 * eps)


def test_many_modes_make_the_predicted_error_larger(rng):
    from adaptive_compute.backends.vulkan.nufft import predicted_error

    modes = (200_000,)
    data, points, _ = problem(1, 1, rng, count=40)
    found = relative(run_on_host(1, 1, data, points, [], modes=modes), exact(1, 1, data, points, [], modes=modes))
    predicted = predicted_error(NufftParams(1, 1, modes, 1, 1, 0, 1e-6))
    assert found / 2 <= predicted <= 4 * found


def test_new_points_after_known_ones(rng):
    data, points, _ = problem(2, 1, rng)
    _, others, _ = problem(2, 1, rng)
    there, these, those = moved([data])[0], moved(points), moved(others)
    for chosen, values in ((these, points), (those, others), (these, points), (these, points)):
        got = call(2, 1, there, chosen, []).numpy()
        assert relative(got, exact(2, 1, data, values, [])) <= 1e-5
    del these, chosen
    again = moved(others)
    assert relative(call(2, 1, there, again, []).numpy(), exact(2, 1, data, others, [])) <= 1e-5


def test_more_points_than_a_block_of_the_sort(rng):
    data, points, _ = problem(2, 1, rng, count=9001)
    result = run_on_host(2, 1, data, points, [])
    assert relative(result, exact(2, 1, data, points, [])) <= 1e-5


@pytest.fixture
def small(shrink):
    """Have the device say that a buffer holds 64 KiB."""
    shrink(1 << 16)


@pytest.mark.parametrize("nufft_type", [1, 2, 3])
def test_more_transforms_than_fit_a_buffer(nufft_type, small, rng):
    dim = 1 if nufft_type == 3 else 2
    data, points, targets = problem(dim, nufft_type, rng, count=1500, batch=(40,))
    result = run_on_host(dim, nufft_type, data, points, targets)
    expected = exact(dim, nufft_type, data, points, targets)
    assert result.shape == expected.shape
    assert relative(result, expected) <= 1e-5


def test_one_transform_too_large_for_a_buffer_is_refused(small, rng):
    data, points, _ = problem(1, 1, rng, count=9000)
    with pytest.raises(NoKernelError, match="exceeds the"):
        run_on_host(1, 1, data, points, [])


def test_what_it_refuses_says_why(rng):
    data, points, _ = problem(1, 1, rng)
    with ac.using(device=DEVICE):
        with pytest.raises(NoKernelError, match="float32"):
            nufft.nufft1d1(points[0].astype(float), data.astype(complex), 45)
        with pytest.raises(NoKernelError, match="below 1e-06"):
            nufft.nufft1d1(points[0], data, 45, eps=5e-7)
        with pytest.raises(NoKernelError, match="upsampfac"):
            nufft.nufft1d1(points[0], data, 45, upsampfac=1.25)


def test_positions_are_rounded_once():
    from adaptive_compute.backends.vulkan.nufft_places import PER_RADIAN, words

    found = words(PER_RADIAN)
    whole = sum(int(word) << (32 * (5 - n)) for n, word in enumerate(found[:6]))
    kept = Fraction(whole, 1 << 192) * Fraction(2) ** int(np.int32(found[6]))
    assert abs(kept / PER_RADIAN - 1) < Fraction(1, 1 << 190)
    assert abs(float(PER_RADIAN) * 2 * np.pi - 1) < 1e-15
    assert words(-PER_RADIAN)[8] == 1


def test_the_kernel_in_glsl_is_the_one_that_its_script_writes():
    """Numbers are compared, not text: the last digit may depend on the linear algebra library."""
    import re

    from adaptive_compute.backends.vulkan.nufft_kernel import source
    from adaptive_compute.shaders import FOLDER

    number = re.compile(r"[-+]?\d\.\d{8}e[-+]\d\d")
    kept = (FOLDER / "nufft_kernel.glsl").read_text(encoding="utf-8")
    made = "\n".join(source()) + "\n"
    assert number.sub("#", kept) == number.sub("#", made)
    values = [np.array([float(v) for v in number.findall(text)]) for text in (kept, made)]
    np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-9)


def test_the_kernel_is_as_good_as_its_width_promises():
    """What lies above the band folds back onto the modes: measured by quadrature, apart from any shader."""
    from adaptive_compute.backends.vulkan.nufft_kernel import WIDTHS, error, prolate

    nodes, weights = np.polynomial.legendre.leggauss(500)
    for width in WIDTHS:
        values = weights * np.polynomial.legendre.legval(nodes, prolate(width))
        frequency = np.linspace(-0.25, 0.25, 401)

        def transform(f, values=values, width=width):
            return np.cos(np.pi * width * np.multiply.outer(f, nodes)) @ values

        folded = sum(transform(frequency + m) ** 2 for m in range(-12, 13) if m)
        assert np.sqrt(np.mean(folded / transform(frequency) ** 2)) <= 1.3 * error(width)
