"""Attention: every kernel against the definition in float64, gradients included."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adaptive_compute as ac
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import ArgumentError, DtypeError, NoKernelError, ShapeError
from adaptive_compute.core.masks import Blocks, Causal, Prefix, Window
from adaptive_compute.core.operations.attention import attention
from adaptive_compute.core.operations.attention_rule import BACKWARD, BackwardParams
from adaptive_compute.core.topology import Topology

torch = pytest.importorskip("torch")

OPERATION = "attention"
# Kernels of libraries that take a part of what attention is, by device; what they take: test_attention_half.py.
PARTIAL = {"cuda": ("cudnn", "flash", "efficient", "tiles")}
BOUND = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-6, "float64": 1e-14}
LQ, LK = 150, 203


def attempt(kernel, function, *args, **kwargs):
    """Run on one kernel; where it refuses the request, check that it says why, and return the reason as text."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            return function(*args, **kwargs)
        except NoKernelError as refusal:
            reason = str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2].strip()
            assert reason
            return reason


def run(kernel, function, *args, **kwargs):
    """Run on one kernel; return None where it refuses the request, and skip where it may."""
    found = attempt(kernel, function, *args, **kwargs)
    if not isinstance(found, str):
        return found
    if kernel.name in PARTIAL.get(kernel.device.partition(":")[0], ()):
        pytest.skip(found)
    return None


def widest(kernel):
    """Return float64, or float32 where the kernel refuses it; skip where it refuses that as well."""
    for dtype in ("float64", "float32"):
        found = attempt(kernel, attention, *operands((1, 2, 8), dtype=dtype))
        if not isinstance(found, str):
            return dtype
    pytest.skip(found)


def kept_pairs(mask, lq, lk):
    """Return a mask argument as a boolean array."""
    if mask is None or isinstance(mask, np.ndarray):
        return np.ones((lq, lk), bool) if mask is None else mask
    return mask.keep(np.arange(lq)[:, None], np.arange(lk)[None, :], lq, lk)


def reference(q, k, v, mask=None, bias=0.0, scale=None):
    """Return out and lse by the definition, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    if q.ndim > 2 and k.shape[-3] != q.shape[-3]:
        k, v = (np.repeat(a, q.shape[-3] // a.shape[-3], axis=-3) for a in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale) + np.asarray(bias, float)
    scores = np.where(kept_pairs(mask, q.shape[-2], k.shape[-2]), scores, -np.inf)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    top[np.isneginf(top)] = 0
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    return weights / np.where(total == 0, 1, total) @ v, lse


def gradients(q, k, v, grad, mask=None, bias=None, dlse=None):
    """Run the gradient's own operation, whose kernels have the names of attention's, on exact out and lse."""
    rule, array = (None, mask) if isinstance(mask, np.ndarray) else (mask, None)
    out, lse = (a.astype(q.dtype) for a in reference(q, k, v, mask, 0.0 if bias is None else bias))
    grad, dlse = (None if a is None else a.astype(q.dtype) for a in (grad, dlse))
    params = BackwardParams(rule, q.shape[-1] ** -0.5, bias is not None, None)
    return dispatcher.run(BACKWARD, params, grad, q, k, v, array, bias, out, lse, dlse)


def error(result, expected):
    result, expected = np.asarray(result, np.float64), np.asarray(expected)
    assert result.shape == expected.shape
    finite = np.isfinite(expected)
    assert np.array_equal(result[~finite], expected[~finite], equal_nan=True)
    assert np.isfinite(result[finite]).all()
    norm = np.linalg.norm(expected[finite])
    return np.linalg.norm(result[finite] - expected[finite]) / (norm or 1.0)


def operands(shape_q, shape_k=None, dv=None, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    shape_k = shape_q if shape_k is None else shape_k
    shape_v = (*shape_k[:-1], shape_k[-1] if dv is None else dv)
    return [rng.standard_normal(shape).astype(dtype) for shape in (shape_q, shape_k, shape_v)]


def all_masks():
    rng = np.random.default_rng(5)
    empty_rows = rng.random((LQ, LK)) < 0.3
    empty_rows[[0, 70, 149]] = False
    layout = rng.random((10, 13)) < 0.3
    return {
        "none": None,
        "causal": Causal(),
        "bottom-right": Causal("bottom-right"),
        "window": Window(20),
        "window-wide": Window(170),
        "prefix": Prefix(66) | Causal(),
        "prefix-none": Prefix(0),
        "blocks": Blocks(layout, 16),
        "inverse": ~Window(70),
        "causal-window": Causal() & Window(20),
        "scattered": Topology.from_mask(rng.random((LQ, LK)) < 0.01),
        "empty-rows": Topology.from_mask(empty_rows, 32),
        "array": empty_rows,
        "array-padding": (np.arange(LK) < 140)[None, :],
    }


MASKS = all_masks()


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_mask(kernel, name, dtype):
    q, k, v = operands((2, 3, LQ, 40), (2, 3, LK, 40), dtype=dtype)
    out, lse = reference(q, k, v, MASKS[name])
    got = run(kernel, attention, q, k, v, mask=MASKS[name])
    if got is None:
        assert dtype != widest(kernel)
        return
    assert got.dtype == dtype
    assert error(got, out) <= BOUND[dtype]
    both = run(kernel, attention, q, k, v, mask=MASKS[name], return_lse=True)
    if both is not None:
        assert error(both[0], out) <= BOUND[dtype]
        assert both[1].dtype == dtype
        assert error(both[1], lse) <= BOUND[dtype]


@pytest.mark.parametrize("name", MASKS)
def test_every_masks_gradients(kernel, name):
    arrays = operands((1, 4, LQ, 24), (1, 2, LK, 24), seed=1)
    mask = MASKS[name]
    grad = np.random.default_rng(2).standard_normal((1, 4, LQ, 24))
    found = run(kernel, gradients, *arrays, grad, mask)
    assert found is not None
    for got, expected in zip(found, exact_gradients(arrays, mask, grad)):
        assert got.dtype == np.float32
        assert error(got, expected) <= 2e-6


@pytest.mark.parametrize("name", MASKS)
def test_torch_differentiates_every_mask(name):
    arrays = operands((1, 4, LQ, 24), (1, 2, LK, 24), seed=1)
    mask = MASKS[name]
    grad = np.random.default_rng(2).standard_normal((1, 4, LQ, 24))
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    argument = torch.from_numpy(mask) if isinstance(mask, np.ndarray) else mask
    attention(*leaves, mask=argument, enable_gqa=True).backward(torch.tensor(grad, dtype=torch.float32))
    for leaf, expected in zip(leaves, exact_gradients(arrays, mask, grad)):
        assert error(leaf.grad, expected) <= 2e-6


def exact_gradients(arrays, mask, grad, bias=None, dlse=None):
    """Return the gradients by the chain rule written out, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in arrays)
    groups = q.shape[-3] // k.shape[-3]
    k, v = (np.repeat(a, groups, axis=-3) for a in (k, v))
    scale = q.shape[-1] ** -0.5
    scores = q @ np.swapaxes(k, -1, -2) * scale + (0.0 if bias is None else bias)
    kept = np.broadcast_to(kept_pairs(mask, q.shape[-2], k.shape[-2]), scores.shape)
    weights = np.where(kept, np.exp(np.where(kept, scores, 0.0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    weights /= np.where(total == 0, 1, total)
    dv = np.swapaxes(weights, -1, -2) @ grad
    dp = grad @ np.swapaxes(v, -1, -2)
    ds = weights * (dp - (dp * weights).sum(-1, keepdims=True) + (0.0 if dlse is None else dlse[..., None]))
    dk = np.swapaxes(ds, -1, -2) @ q * scale
    shared = [a.reshape(*a.shape[:-3], -1, groups, *a.shape[-2:]).sum(-3) for a in (dk, dv)]
    return [ds @ k * scale, *shared] if bias is None else [ds @ k * scale, *shared, ds]


@pytest.mark.parametrize(
    "shape", [(LQ, LK), (1, 4, LQ, LK), (2, 4, 1, 1), (1, 1, LK), (2, 1, LQ, 1), (4, LQ, 1), (1,)], ids=str
)
def test_bias_and_its_gradient(kernel, shape):
    arrays = operands((2, 4, LQ, 16), (2, 2, LK, 16), seed=3)
    rng = np.random.default_rng(4)
    bias = rng.standard_normal(shape).astype(np.float32)
    grad = rng.standard_normal((2, 4, LQ, 16))
    mask = Causal("bottom-right") & Window(90)
    got = run(kernel, attention, *arrays, bias=bias, mask=mask, enable_gqa=True)
    assert error(got, reference(*arrays, mask, bias)[0]) <= 2e-6
    found = run(kernel, gradients, *arrays, grad, mask, bias)
    if found is None:
        assert kernel.name == "sdpa"  # flash attention has no gradient of a bias
        return
    expected = exact_gradients(arrays, mask, grad, bias.astype(np.float64))
    ds = expected.pop()
    full = (1,) * (4 - bias.ndim) + bias.shape
    summed = ds.sum(tuple(axis for axis in range(4) if full[axis] == 1), keepdims=True).reshape(shape)
    for got, exact in zip(found, [*expected, summed]):
        # A constant added to all scores of a row changes nothing: such a gradient is zero up to rounding.
        assert error(got, exact) <= 2e-6 or np.linalg.norm(got - exact) <= 1e-7 * np.abs(ds).sum()


def test_gradient_through_the_logsumexp(kernel):
    dtype = widest(kernel)
    bound = {"float32": 2e-6, "float64": 1e-13}[dtype]
    arrays = operands((3, 40, 8), (3, 50, 8), dtype=dtype)
    rng = np.random.default_rng(6)
    grad, dlse = rng.standard_normal((3, 40, 8)), rng.standard_normal((3, 40))
    expected = exact_gradients(arrays, Window(9), grad, dlse=dlse)
    found = run(kernel, gradients, *arrays, grad, Window(9), dlse=dlse)
    assert (found is None) == (kernel.name == "sdpa")
    for got, exact in zip(found or (), expected):
        assert error(got, exact) <= bound
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, lse = run(kernel, attention, *leaves, mask=Window(9), return_lse=True)
    torch.autograd.backward([out, lse], [torch.tensor(grad, dtype=out.dtype), torch.tensor(dlse, dtype=lse.dtype)])
    for leaf, exact in zip(leaves, expected):
        assert error(leaf.grad, exact) <= bound


def test_second_derivatives(kernel):
    torch.manual_seed(0)
    shapes = (2, 3, 2), (1, 4, 2), (1, 4, 2), (3, 4)
    leaves = [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)

    def call(q, k, v, bias):
        return attention(q, k, v, bias=bias, mask=mask, enable_gqa=True)

    if run(kernel, call, *leaves) is None:  # a kernel that takes no float64 or no mask ends here
        return
    with ac.using(kernel=kernel.name, device=kernel.device):
        assert torch.autograd.gradcheck(call, leaves, nondet_tol=1e-10)
        assert torch.autograd.gradgradcheck(call, leaves, nondet_tol=1e-10)


@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("name", ["none", "causal", "window", "array", "empty-rows"])
def test_large_scores_do_not_overflow(kernel, name, size):
    dtype = widest(kernel)
    arrays = operands((2, LQ, 16), (2, LK, 16), dtype=dtype, seed=7)
    arrays[0] *= np.float32(size)
    out, _ = reference(*arrays, MASKS[name])
    # A score of float32 is off by its own rounding, which the exponential turns into a relative error.
    bound = {"float32": 5 * size * 2.0**-23, "float64": 1e-10}[dtype]
    assert error(run(kernel, attention, *arrays, mask=MASKS[name]), out) <= bound


def test_a_bias_that_is_minus_infinity_or_very_low(kernel):
    dtype = widest(kernel)
    bound = {"float32": 5000 * 2.0**-23, "float64": 1e-11}[dtype]  # the rounding of a score of 5000
    q, k, v = operands((2, 60, 16), dtype=dtype)
    bias = np.zeros((60, 60), dtype)
    bias[:, 30:] = -np.inf
    bias[5] = -np.inf
    bias[7] = -5000.0  # all keys alike: a constant, which changes the logsumexp alone
    out, lse = reference(q, k, v, bias=bias)
    assert error(run(kernel, attention, q, k, v, bias=bias), out) <= bound
    both = run(kernel, attention, q, k, v, bias=bias, return_lse=True)
    if both is not None:
        assert error(both[1], lse) <= bound


@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (6, 3), (4, 1)])
@pytest.mark.parametrize("per_head", [False, True])
def test_grouped_heads(kernel, heads, per_head):
    hq, hk = heads
    q, k, v = operands((2, hq, 70, 16), (2, hk, 90, 16), dv=24)
    mask = np.random.default_rng(0).random((2, hq, 70, 90) if per_head else (70, 90)) < 0.5
    for argument in (mask, Causal()):
        got = run(kernel, attention, q, k, v, mask=argument, enable_gqa=True)
        assert error(got, reference(q, k, v, argument)[0]) <= 2e-6
    grad = np.random.default_rng(1).standard_normal((2, hq, 70, 24))
    found = run(kernel, gradients, q, k, v, grad, mask)
    assert (found is None) == (kernel.name == "sdpa")  # flash attention has one head size
    for got, expected in zip(found or (), exact_gradients((q, k, v), mask, grad)):
        assert error(got, expected) <= 2e-6


def test_gradients_of_large_scores_do_not_overflow(kernel):
    dtype = widest(kernel)
    arrays = operands((2, LQ, 16), (2, LK, 16), dtype=dtype, seed=7)
    arrays[0] *= np.float32(20)
    grad = np.random.default_rng(1).standard_normal((2, LQ, 16))
    for name in ("none", "window", "empty-rows"):
        found = run(kernel, gradients, *arrays, grad, MASKS[name])
        assert found is not None
        for got, expected in zip(found, exact_gradients(arrays, MASKS[name], grad)):
            assert error(got, expected) <= {"float32": 100 * 2.0**-23, "float64": 1e-10}[dtype]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(kernel, dtype):
    arrays = [torch.tensor(a).to(getattr(torch, dtype)) for a in operands((2, 3, LQ, 32), (2, 3, LK, 32))]
    exact = [a.double().numpy() for a in arrays]
    got = run(kernel, attention, *arrays, mask=Window(33))
    if got is None:
        assert (kernel.name, dtype) == ("numpy-tiles", "bfloat16")
        return
    assert got.dtype == arrays[0].dtype
    assert error(got.double(), reference(*exact, Window(33))[0]) <= BOUND[dtype]


@pytest.mark.parametrize(("dtype", "precision", "bound"), [("float32", "float64", 6e-8), ("float64", "float32", 2e-6)])
def test_precision_of_the_bulk_work(kernel, dtype, precision, bound):
    q, k, v = operands((2, LQ, 32), (2, LK, 32), dtype=dtype)
    got = run(kernel, attention, q, k, v, mask=Causal(), precision=precision)
    if got is None:
        assert widest(kernel) == "float32"
        return
    assert got.dtype == dtype
    assert error(got, reference(q, k, v, Causal())[0]) <= bound
    scoped = run(kernel, ac.using(precision=precision)(attention), q, k, v, mask=Causal())
    assert np.array_equal(scoped, got)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 3, 5, 7), (2, 1, 2, 3, 5, 7)], ids=str)
def test_any_number_of_axes(kernel, shape):
    q, k, v = operands(shape)
    mask = np.random.default_rng(0).random((*shape[:-2], 5, 5)) < 0.6
    for argument in (None, Causal(), mask, mask[(0,) * (mask.ndim - 2)]):
        assert error(run(kernel, attention, q, k, v, mask=argument), reference(q, k, v, argument)[0]) <= 2e-6
        both = run(kernel, attention, q, k, v, mask=argument, return_lse=True)
        if both is not None:
            assert error(both[1], reference(q, k, v, argument)[1]) <= 2e-6


def test_masks_broadcast_over_some_axes(kernel):
    q, k, v = operands((2, 3, 4, 20, 8), (2, 3, 2, 30, 8))
    rng = np.random.default_rng(0)
    for shape in ((3, 1, 20, 30), (2, 1, 1, 1, 30), (2, 1, 4, 20, 1), (4, 20, 30), (1, 3, 4, 1, 30), (1, 1)):
        mask = rng.random(shape) < 0.7
        bias = rng.standard_normal(shape).astype(np.float32)
        got = run(kernel, attention, q, k, v, mask=mask, bias=bias, enable_gqa=True)
        assert error(got, reference(q, k, v, mask, bias)[0]) <= 2e-6


@pytest.mark.parametrize("lengths", [(0, 5), (5, 0), (1, 1), (1, 300), (300, 1), (64, 64), (65, 129)], ids=str)
@pytest.mark.parametrize("mask", [None, Causal(), Window(3)], ids=str)
def test_edge_lengths(kernel, lengths, mask):
    lq, lk = lengths
    dtype = widest(kernel)
    q, k, v = operands((2, lq, 8), (2, lk, 8), dtype=dtype)
    got = run(kernel, attention, q, k, v, mask=mask)
    if got is None:
        assert kernel.name == "sdpa"
        return
    assert error(got, reference(q, k, v, mask)[0]) <= BOUND[dtype]


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 0, 5, 4), (2, 3, 5, 0)], ids=str)
def test_empty_axes(kernel, shape):
    q, k, v = operands(shape)
    got = run(kernel, attention, q, k, v, return_lse=True)
    if got is not None:
        assert got[0].shape == shape
        assert got[1].shape == shape[:-1]
    leaves = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    if run(kernel, lambda: attention(*leaves).sum().backward() or True):
        assert all(leaf.grad.shape == leaf.shape for leaf in leaves)


@pytest.mark.parametrize("scale", [-1.0, 0.0])
@pytest.mark.parametrize("mask", [Causal(), Causal("bottom-right"), Window(1)], ids=repr)
def test_scales_that_are_not_positive(kernel, scale, mask):
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, 2, n, 4)).astype(widest(kernel)) for n in (2, 3, 3))
    got = run(kernel, attention, q, k, v, mask=mask, scale=scale)
    if got is not None:
        assert error(got, reference(q, k, v, mask, scale=scale)[0]) <= BOUND[widest(kernel)]


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_stride_and_mask(kernel, data):
    draw = data.draw
    lq, lk = draw(st.integers(1, 140)), draw(st.integers(1, 140))
    hk, g, b = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    d, dv = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["float32", "float64"]))

    def array(*shape):
        how = draw(st.sampled_from(["plain", "heads last", "every other", "reversed", "read-only", "fortran"]))
        if how == "heads last":
            return rng.standard_normal((shape[0], shape[2], shape[1], shape[3])).astype(dtype).swapaxes(1, 2)
        if how == "every other":
            return rng.standard_normal((*shape[:3], 2 * shape[3])).astype(dtype)[..., ::2]
        a = rng.standard_normal(shape).astype(dtype)
        if how == "reversed":
            return a[:, :, ::-1]
        if how == "read-only":
            a.flags.writeable = False
        return np.asfortranarray(a) if how == "fortran" else a

    q, k, v = array(b, hk * g, lq, d), array(b, hk, lk, d), array(b, hk, lk, dv)
    before = [a.copy() for a in (q, k, v)]
    mask = draw(st.sampled_from([
        None, Causal(), Causal("bottom-right"), Window(10), Prefix(9) | Window(3),
        rng.random((lq, lk)) < 0.5, rng.random((b, 1, lq, lk)) < 0.1, ~np.eye(lq, lk, dtype=bool),
    ]))  # fmt: skip
    scale = draw(st.sampled_from([None, 0.3, -1.0, 0.0]))
    got = run(kernel, attention, q, k, v, mask=mask, enable_gqa=True, scale=scale)
    if got is None:
        assert dtype != widest(kernel)
        return
    assert error(got, reference(q, k, v, mask, scale=scale)[0]) <= 10 * BOUND[dtype]
    for a, copy in zip((q, k, v), before):
        assert np.array_equal(a, copy)


def test_nan_and_infinity_stay_in_their_rows(kernel):
    q, k, v = operands((2, 100, 8))
    q[0, 3, 2], q[1, 5, 0] = np.nan, np.inf
    got = run(kernel, attention, q, k, v)
    bad = np.zeros((2, 100), bool)
    bad[0, 3] = bad[1, 5] = True
    assert np.isnan(got[bad]).all()
    q[bad] = 0
    assert error(got[~bad], reference(q, k, v)[0][~bad]) <= 2e-6


def test_torch_in_torch_out(kernel):
    q, k, v = (torch.tensor(a) for a in operands((2, 50, 8)))
    got = run(kernel, attention, q, k, v, is_causal=True)
    assert isinstance(got, torch.Tensor)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(got, expected, atol=1e-6)


def test_is_causal_adds_to_the_mask(kernel):
    q, k, v = operands((2, LQ, 8), (2, LK, 8))
    for mask in (Window(9), MASKS["array"]):
        kept = kept_pairs(mask, LQ, LK) & kept_pairs(Causal(), LQ, LK)
        got = run(kernel, attention, q, k, v, mask=mask, is_causal=True)
        assert error(got, reference(q, k, v, kept)[0]) <= 2e-6


def test_eight_threads_on_one_plan(kernel):
    """Large enough that the tiles wake their workers; the thread counts of torch must come out as they went in."""
    q, k, v = operands((2, 500, 32))
    before = torch.get_num_threads()
    expected = run(kernel, attention, q, k, v, mask=Window(200))
    wrong = []

    def call():
        for _ in range(2):
            with ac.using(kernel=kernel.name, device=kernel.device):
                if not np.array_equal(attention(q, k, v, mask=Window(200)), expected):
                    wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.get_num_threads() == before
    seen = []
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert seen == [before]


def test_results_do_not_depend_on_the_number_of_threads(kernel):
    if kernel.name != "tiles":
        pytest.skip("the library behind this kernel chooses its own order of sums")
    q, k, v = operands((1, 3, 1500, 16))
    results = []
    for threads in (1, 2, 3):
        with ac.using(kernel="tiles", threads=threads):
            results.append(attention(q, k, v, mask=Window(100)))
    assert all(np.array_equal(r, results[0]) for r in results)


@pytest.mark.parametrize(
    ("change", "raised", "named"),
    [
        ({"query": np.ones(3, np.float32)}, ShapeError, "query must have shape"),
        ({"query": np.ones((2, 5, 4), int)}, DtypeError, "query has dtype int64"),
        ({"query": np.ones((2, 5, 4), complex)}, DtypeError, "query has dtype complex128"),
        ({"query": [["a"]]}, DtypeError, "query"),
        ({"key": np.ones((2, 5, 4))}, DtypeError, "key has dtype float64"),
        ({"key": np.ones((2, 5, 3), np.float32)}, ShapeError, "key has head size 3"),
        ({"key": np.ones((3, 5, 4), np.float32)}, ShapeError, "value has 2 heads, key has 3"),
        ({"key": np.ones((1, 2, 5, 4), np.float32)}, ShapeError, "key has 4 axes"),
        ({"value": np.ones((2, 6, 4), np.float32)}, ShapeError, "value has length 6"),
        ({"mask": np.ones((5, 5), np.float32)}, DtypeError, "mask must be boolean"),
        ({"mask": np.ones((5, 4), bool)}, ShapeError, r"mask has shape \(5, 4\)"),
        ({"mask": Blocks(np.ones((2, 2), bool), 8)}, ShapeError, "layout"),
        ({"mask": Topology.from_mask(np.ones((6, 6), bool))}, ShapeError, "mask was compiled for 6"),
        ({"bias": np.ones((7, 7), np.float32)}, ShapeError, r"bias has shape \(7, 7\)"),
        ({"bias": np.ones((5, 5))}, DtypeError, "bias has dtype float64"),
        ({"scale": "large"}, ArgumentError, "scale"),
        ({"scale": np.nan}, ArgumentError, "scale"),
        ({"precision": "float16"}, ArgumentError, "precision"),
        ({"tol": -1}, ArgumentError, "tol"),
    ],
)
def test_bad_arguments_are_named(change, raised, named):
    given = dict(zip(("query", "key", "value"), operands((2, 5, 4)))) | change
    with pytest.raises(raised, match=named):
        attention(given.pop("query"), given.pop("key"), given.pop("value"), **given)


def test_grouped_heads_are_asked_for():
    q, k, v = operands((4, 5, 4), (2, 5, 4))
    with pytest.raises(ShapeError, match="enable_gqa"):
        attention(q, k, v)
    with pytest.raises(ShapeError, match="does not divide"):
        attention(q[:3], k, v, enable_gqa=True)
    with pytest.raises(ShapeError, match="batch axes"):
        attention(q[None], np.repeat(k[None], 2, 0), np.repeat(v[None], 2, 0), enable_gqa=True)
