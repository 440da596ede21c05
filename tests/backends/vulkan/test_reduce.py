"""Reductions on a Vulkan device: every dtype, both arrangements, parts, the two ways of ordering dispatches."""

from __future__ import annotations

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import reduce as room
from adaptive_compute.backends.vulkan.array import download, upload
from adaptive_compute.backends.vulkan.runtime import runtime, strict
from adaptive_compute.core.array import Operand
from adaptive_compute.core.errors import NoKernelError
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.reduce_rule import FAMILY, ReduceParams

DEVICE = "vulkan:0"


def reduced(function, x, axis=None, **options):
    with ac.using(device=DEVICE):
        return getattr(ac, function)(x, axis, **options)


def shape_of(shape, axes, dtype="float32", function="sum"):
    return room.shared(room._axes(shape, axes, function, dtype), room.TUNING["reduce.blocks"][0])


def test_arrangements():
    assert shape_of((1 << 20,), (0,)).parts > 1
    assert shape_of((1 << 20,), (0,)).fours
    assert shape_of(((1 << 20) + 1,), (0,)).fours  # one row: only its end is ragged
    assert not shape_of((5, 1003), (1,)).fours
    assert shape_of((1000, 64), (1,)).parts == 1
    assert shape_of((4096, 64), (0,)).lanes == 32


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((200_003,), 0), ((3, 40_001), 1), ((2, 64_000), 1), ((70_000, 3), 0), ((9, 5000, 7), 1), ((9, 500, 8), (0, 2))],
)
def test_parts_give_the_same_bits_in_either_mode(shape, axis, mode):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 1
    exact = x.astype(np.float64).sum(axis)
    with strict(mode):
        result = reduced("sum", x, axis)
    again = reduced("sum", x, axis)
    np.testing.assert_array_equal(result, again)
    assert np.linalg.norm(result - exact) <= 1e-7 * np.linalg.norm(exact)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize(("shape", "axis"), [((7, 1200), 1), ((1201, 3), 0)])
def test_whole_numbers_are_exact(dtype, shape, axis):
    rng = np.random.default_rng(1)
    if dtype == "bool":
        x = rng.random(shape) < 0.5
    else:
        x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    for function in ("sum", "max", "min"):
        exact = getattr(np, function)(x, axis)
        result = reduced(function, x, axis)
        assert result.dtype == exact.dtype
        np.testing.assert_array_equal(result, exact, err_msg=function)


@pytest.mark.parametrize("dtype", [np.float16, np.complex64])
@pytest.mark.parametrize(("shape", "axis"), [((33, 77), 1), ((33, 76), 0), ((5, 6, 7), (0, 2)), ((10_000,), 0)])
def test_halves_and_complex_values(dtype, shape, axis):
    rng = np.random.default_rng(2)
    x = rng.uniform(0.1, 1, shape) + (1j * rng.uniform(0.1, 1, shape) if dtype is np.complex64 else 0)
    x = x.astype(dtype)
    for function in ("sum", "mean", "norm", *(("max", "min", "logsumexp") if dtype is np.float16 else ())):
        w = x.astype(np.complex128 if dtype is np.complex64 else np.float64)
        exact = {
            "sum": lambda w=w: w.sum(axis), "mean": lambda w=w: w.mean(axis),
            "norm": lambda w=w: np.sqrt((np.abs(w) ** 2).sum(axis)), "max": lambda w=w: w.max(axis),
            "min": lambda w=w: w.min(axis), "logsumexp": lambda w=w: np.log(np.exp(w).sum(axis)),
        }[function]()  # fmt: skip
        result = reduced(function, x, axis)
        assert result.dtype == (np.float32 if dtype is np.complex64 and function == "norm" else dtype)
        bound = 1e-6 if dtype is np.complex64 else 5e-4
        assert np.linalg.norm(result - exact) <= bound * np.linalg.norm(exact)


def test_bfloat16():
    torch = pytest.importorskip("torch")
    x = torch.rand(30, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    for function, exact in (("sum", x.double().sum(1)), ("max", x.double().amax(1))):
        result = reduced(function, x, 1)
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, exact.bfloat16())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("size", [100, 300_000])
def test_the_norm_neither_overflows_nor_vanishes(size, scale):
    x = (np.random.default_rng(3).standard_normal(size) * scale).astype(np.float32)
    x[:50] *= 1e-7
    exact = np.sqrt((x.astype(np.float64) ** 2).sum())
    np.testing.assert_allclose(reduced("norm", x), exact, rtol=3e-7)


@pytest.mark.parametrize("order", ["up", "down"])
def test_logsumexp_of_a_slope(order):
    x = np.linspace(-200, 200, 100_001, dtype=np.float32)[:: 1 if order == "up" else -1].copy()
    w = x.astype(np.longdouble)
    np.testing.assert_allclose(reduced("logsumexp", x), float(np.log(np.exp(w - 200).sum()) + 200), rtol=2e-7)


def test_means_and_extremes_with_what_is_not_finite():
    x = np.ones((4, 600), np.float32)
    x[0, 5], x[1, 7], x[2, 9] = np.nan, np.inf, -np.inf
    for function in ("sum", "mean", "max", "min", "norm"):
        with np.errstate(all="ignore"):
            exact = np.sqrt((x * x).sum(1)) if function == "norm" else getattr(np, function)(x, 1)
        np.testing.assert_allclose(reduced(function, x, 1), exact, rtol=1e-6, err_msg=function)
    np.testing.assert_allclose(
        reduced("logsumexp", x, 1), [np.nan, np.inf, np.log(599) + 1, np.log(600) + 1], rtol=2e-7
    )


def test_no_values():
    x = np.ones((3, 0), np.float32)
    for function, exact in (("sum", 0), ("mean", np.nan), ("norm", 0), ("logsumexp", -np.inf)):
        np.testing.assert_array_equal(reduced(function, x, 1), np.full(3, exact, np.float32))
    assert reduced("sum", x, 0).shape == (0,)


def test_arrays_on_the_device_stay_there():
    x = np.random.default_rng(4).random((50, 60)).astype(np.float32)
    there = upload(x, DEVICE)
    owner = runtime(DEVICE)
    ac.sum(there, 1)
    before = owner.counts.submits
    result = ac.sum(there, 1, keepdims=True)
    assert owner.counts.submits == before + 1
    assert result.shape == (50, 1)
    np.testing.assert_allclose(download(result), x.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(download(ac.max(there / result)), (x / x.sum(1, keepdims=True)).max(), rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "dtype", "reason"),
    [("sum", "float64", "reduce in float32"), ("mean", "int32", "gives float64"), ("norm", "int8", "gives float64")],
)
def test_refusals_say_why(function, dtype, reason):
    with pytest.raises(NoKernelError, match=reason):
        reduced(function, np.ones(4, dtype))


def test_axes_that_alternate_too_often_are_refused():
    with pytest.raises(NoKernelError, match="alternate 5 times, the shader takes 4"):
        reduced("sum", np.ones((2,) * 10, np.float32), (0, 2, 4, 6, 8))


def test_the_largest_count_is_refused_before_anything_is_built():
    operand = Operand((1 << 32,), "uint8", "cpu", "numpy")
    request = Request(FAMILY, (operand,), ReduceParams("sum", (0,), False), None, 1)
    assert "32 bits" in room.ReduceKernel(DEVICE).supports(request)
