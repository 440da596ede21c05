"""Reductions: every kernel against the definition in extended precision."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import adaptive_compute as ac
from adaptive_compute.core.errors import DtypeError, NoKernelError

OPERATION = "reduce"
FUNCTIONS = ("sum", "mean", "max", "min", "logsumexp", "norm")
BOUND = {np.float16: 2e-3, np.float32: 1e-6, np.float64: 2e-15, np.complex64: 1e-6, np.complex128: 2e-15}


def run(kernel, function, *args, **kwargs):
    """Run on one kernel; where it refuses the request, check that it says why, and return None."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            return getattr(ac, function)(*args, **kwargs)
        except NoKernelError as refusal:
            reason = str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2]
    assert reason.strip()
    return None


def widest(kernel):
    """Return float64, or float32 where the kernel refuses it."""
    return np.float32 if run(kernel, "sum", np.ones(2)) is None else np.float64


def exact(function, x, axis=None, keepdims=False):
    """Return the reduction by NumPy in extended precision."""
    wide = x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)
    options = {"axis": axis, "keepdims": keepdims}
    with np.errstate(all="ignore"):
        if function == "norm":
            return np.sqrt(np.sum(np.abs(wide) ** 2, **options))
        if function == "logsumexp":
            top = np.max(wide, axis=axis, keepdims=True, initial=-np.inf)
            top = np.where(np.isfinite(top), top, 0)
            total = np.log(np.sum(np.exp(wide - top), axis=axis, keepdims=True)) + top
            return total if keepdims else total.reshape(np.sum(wide, axis=axis).shape)
        if function == "mean":
            axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
            return np.sum(wide, **options) / math.prod(x.shape[a] for a in axes)
        return getattr(np, function)(wide, **options)


def close(result, reference, bound):
    assert result.shape == reference.shape
    finite = np.isfinite(reference)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(reference))
    np.testing.assert_array_equal(result[~finite & ~np.isnan(reference)], reference[~finite & ~np.isnan(reference)])
    scale = np.linalg.norm(reference[finite].astype(np.complex128))
    assert np.linalg.norm((result[finite] - reference[finite]).astype(np.complex128)) <= bound * max(scale, 1e-30)


@pytest.mark.parametrize("dtype", list(BOUND))
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((7,), None), ((1000003,), 0), ((300, 1000), 1), ((70000, 3), 0), ((1000, 300), 0), ((5, 70, 600), (0, 2)),
     ((40, 50, 60), 1), ((1, 8, 1), (0, 2)), ((), None), ((4, 5), ()), ((2, 200001), -1)],
)  # fmt: skip
def test_error_stays_in_bounds(kernel, function, dtype, shape, axis):
    if np.dtype(dtype).kind == "c" and function in ("max", "min", "logsumexp"):
        with pytest.raises(DtypeError, match="complex"):
            run(kernel, function, np.ones(shape, dtype), axis)
        return
    rng = np.random.default_rng(1)
    x = np.asarray(rng.uniform(0.1, 1, shape), dtype)
    if np.dtype(dtype).kind == "c":
        x = (x + 1j * rng.uniform(0.1, 1, shape)).astype(dtype)
    if dtype is np.float16 and x.size > 1000:
        x = x / np.float16(64)  # sums stay below float16's largest number
    result = run(kernel, function, x, axis)
    if result is not None:
        close(result, exact(function, x, axis), BOUND[dtype])
        real = np.dtype(dtype).type(0).real.dtype
        assert result.dtype == (real if function == "norm" else dtype)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_shapes_strides_and_axes(kernel, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9))
    dtype = widest(kernel)
    x = np.random.default_rng(0).uniform(-1, 1, (*shape[:-1], 2 * shape[-1])).astype(dtype)
    x = x[..., :: data.draw(st.sampled_from([1, 2, -1, -2]))]
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))
    if data.draw(st.booleans()):
        x = x.copy(order="F")
    x.flags.writeable = data.draw(st.booleans())
    before = x.copy()
    axis = data.draw(
        st.none() | st.integers(-x.ndim, x.ndim - 1) | st.lists(st.integers(0, x.ndim - 1), unique=True).map(tuple)
    )
    keepdims = data.draw(st.booleans())
    function = data.draw(st.sampled_from(FUNCTIONS))
    result = run(kernel, function, x, axis, keepdims)
    if result is not None:
        close(result, exact(function, x, axis, keepdims), {np.float64: 1e-14, np.float32: 1e-5}[dtype])
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint16", "uint64"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_integers_follow_numpy(kernel, function, dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, (300, 900)).astype(dtype)
    result = run(kernel, function, x, 1)
    if result is None:
        return
    if function in ("logsumexp", "norm"):
        assert result.dtype == np.float64
        close(result, exact(function, x, 1), 1e-14)
        return
    expected = getattr(np, function)(x, axis=1)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-15)


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_and_infinity_pass(kernel, function, size):
    x = np.ones((4, size), np.float32)
    x[0, size // 2], x[1, size // 3], x[2, -1] = np.nan, np.inf, -np.inf
    result = run(kernel, function, x, 1)
    if result is not None:
        close(result, exact(function, x, 1).astype(np.float32), 1e-6)


def test_logsumexp_of_minus_infinity_and_of_large_values(kernel):
    x = np.full((3, 200_000), -np.inf, np.float32)
    x[1] = 1e30
    x[2] = 1000.0
    result = run(kernel, "logsumexp", x, 1)
    if result is not None:
        np.testing.assert_allclose(result, [-np.inf, 1e30, 1000 + np.log(200_000)], rtol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_empty(kernel, function, shape):
    x = np.ones(shape, np.float32)
    for axis in (None, *range(len(shape))):
        if function in ("max", "min") and (axis is None or shape[axis] == 0):
            with pytest.raises(ac.core.errors.ShapeError, match=f"{function} of no values"):
                run(kernel, function, x, axis)
            continue
        result = run(kernel, function, x, axis)
        if result is not None:
            expected = {"logsumexp": -np.inf, "mean": np.nan}.get(function, 0)
            np.testing.assert_array_equal(result, np.full(np.sum(x, axis=axis).shape, expected, np.float32))


def test_long_sums_are_pairwise(kernel):
    """Adding one row after the other would be off by 1e-4 here."""
    x = np.full((1 << 20, 2), 0.1, np.float32)
    result = run(kernel, "sum", x, 0)
    if result is not None:
        np.testing.assert_allclose(result, np.float64(np.float32(0.1)) * (1 << 20), rtol=2e-6)


def test_same_bits_again_whatever_the_threads(kernel):
    x = np.random.default_rng(0).standard_normal((3, 700_001)).astype(np.float32)
    results = []
    for threads in (2, 2, 4):
        with ac.using(threads=threads):
            results.append(run(kernel, "sum", x, 1))
    np.testing.assert_array_equal(results[0], results[1])
    if kernel.native == "numpy":
        np.testing.assert_array_equal(results[0], results[2])


def test_torch_in_torch_out(kernel):
    torch = pytest.importorskip("torch")
    x = torch.arange(400_000.0).reshape(2, -1)
    result = run(kernel, "max", x, 1)
    assert isinstance(result, torch.Tensor)
    assert result.tolist() == [199_999.0, 399_999.0]
    half = run(kernel, "sum", x.to(torch.bfloat16), 1)
    assert half is None or half.dtype == torch.bfloat16


@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients(kernel, function, axis):
    torch = pytest.importorskip("torch")
    x = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def call(x):
        return getattr(ac, function)(x, axis)

    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            call(x)
        except NoKernelError:
            return
    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


def test_equal_maxima_share_the_gradient(kernel):
    torch = pytest.importorskip("torch")
    ours, theirs = (torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]], requires_grad=True) for _ in range(2))
    ac.max(ours, 1).sum().backward()
    torch.amax(theirs, 1).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_norm_of_zero_and_logsumexp_of_minus_infinity_have_finite_gradients(kernel):
    torch = pytest.importorskip("torch")
    x = torch.zeros(3, requires_grad=True)
    ac.norm(x).backward()
    assert x.grad.tolist() == [0, 0, 0]
    x = torch.full((3,), -torch.inf, requires_grad=True)
    ac.logsumexp(x).backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_gradient_of_logsumexp_of_infinity_and_nan_is_torch_s(kernel):
    torch = pytest.importorskip("torch")
    for values in ([math.inf, 1.0], [math.nan, 1.0]):
        ours, theirs = (torch.tensor(values, requires_grad=True) for _ in range(2))
        result = run(kernel, "logsumexp", ours)
        if result is not None:
            result.backward()
            torch.logsumexp(theirs, 0).backward()
            torch.testing.assert_close(ours.grad, theirs.grad, equal_nan=True)


def test_eight_threads_on_one_plan(kernel):
    dtype = widest(kernel)
    x = np.random.default_rng(0).standard_normal((8, 300_000)).astype(dtype)
    expected = [float(np.sum(row, dtype=np.float64)) for row in x]

    def call(row):
        with ac.using(kernel=kernel.name, device=kernel.device):
            return float(ac.sum(row))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            rtol = {np.float64: 1e-10, np.float32: 1e-5}[dtype]
            np.testing.assert_allclose(list(pool.map(call, x)), expected, rtol=rtol)


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        ((np.ones(3), 1), ac.core.errors.ShapeError, "axis=1 does not exist in x"),
        ((np.ones((3, 3)), (0, -2)), ac.core.errors.ShapeError, "names an axis twice"),
        ((np.ones(3), 0.5), ac.core.errors.ShapeError, "axis must be"),
        ((np.ones(3), 0, "yes"), ac.core.errors.ArgumentError, "keepdims must be"),
        ((np.array(["a"]),), ac.core.errors.DtypeError, "x has dtype"),
        ((np.ones(3, np.longdouble),), ac.core.errors.DtypeError, "x has dtype"),
    ],
)
def test_bad_input_is_named(args, error, text):
    with pytest.raises(error, match=text):
        ac.sum(*args)


def test_arguments_are_checked_whatever_was_called_before():
    x = np.ones((2, 3))
    for axis in (1, (1,)):
        ac.sum(x, axis, True)
    for axis in (1.0, (1.0,)):
        with pytest.raises(ac.core.errors.ShapeError, match="axis must be"):
            ac.sum(x, axis, True)
    with pytest.raises(ac.core.errors.ArgumentError, match="keepdims must be"):
        ac.sum(x, 1, 1)


def test_order_of_complex_values_is_refused():
    for function in (ac.max, ac.min, ac.logsumexp):
        with pytest.raises(ac.core.errors.DtypeError, match="complex"):
            function(np.ones(3, complex))


def test_operation_accepts_its_own_kernels_and_no_wrong_result(kernel):
    from adaptive_compute.core.operations.reduce import FAMILY

    request = FAMILY.example((40, 5000), "float32")
    arrays = FAMILY.arrays(request, np.random.default_rng(0))
    result = run(kernel, "sum", arrays[0], 1)
    assert FAMILY.error(request, arrays, result) < 1e-6
    result[7] *= 1.01
    assert FAMILY.error(request, arrays, result) > 1e-6
