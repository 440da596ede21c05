"""Attention on a Vulkan device: every compiled variant it can run, half storage, resident arrays, ordering."""

from __future__ import annotations

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import tuning
from adaptive_compute.backends.vulkan.array import download, upload
from adaptive_compute.backends.vulkan.attention_tiles import FOR_KEYS, FOR_QUERIES, FORWARD
from adaptive_compute.backends.vulkan.limits import devices
from adaptive_compute.backends.vulkan.runtime import installed, strict
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import NoKernelError
from adaptive_compute.core.operations.attention_rule import BACKWARD, BackwardParams

DEVICE = "vulkan:0"
LQ, LK = 90, 130
RULE = ac.Causal(align="bottom-right") & ac.Window(70)


@pytest.fixture(autouse=True)
def _default_tuning():
    yield
    tuning.apply(DEVICE, {}, {})
    ac.release()


def choose(prefix, width, name):
    """Have a variant chosen where results have up to so many columns."""
    tunable = tuning.Tunable(None, (name,), None)
    tuning.apply(DEVICE, {f"{prefix}.{width}": name}, {f"{prefix}.{width}": tunable})
    ac.release()  # plans that were made with another


# A software driver takes up to 40 s to compile the widest ones.
SLOW = ("small128", "small256", "plain128", "plain256", "a256")


def usable(table, *before):
    limits = devices()[0] if installed() is True else None
    return [
        pytest.param(*before, width, name, marks=[pytest.mark.slow] if name in SLOW else [])
        for width, shapes in table.items()
        for name, shape in shapes.items()
        if limits is not None and shape.runs(limits)
    ]


def on_device(function, *args, **kwargs):
    with ac.using(device=DEVICE):
        return function(*args, **kwargs)


def operands(d, dv, heads=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (1, heads, LQ, d), (1, heads, LK, d), (1, heads, LK, dv)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def dense(q, k, v, rule, grad):
    """Return out, lse and the gradients of q, k and v by the definition, in float64."""
    q, k, v, grad = (np.asarray(a, np.float64) for a in (q, k, v, grad))
    scale = q.shape[-1] ** -0.5
    kept = rule.keep(np.arange(q.shape[-2])[:, None], np.arange(k.shape[-2]), q.shape[-2], k.shape[-2])
    weights = np.where(kept, np.exp(q @ k.swapaxes(-1, -2) * scale), 0.0)
    total = weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = np.log(total[..., 0])
    weights /= np.where(total == 0, 1, total)
    out = weights @ v
    change = weights * (grad @ v.swapaxes(-1, -2) - (grad * out).sum(-1, keepdims=True)) * scale
    return out, lse, (change @ k, change.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ grad)


def off(found, exact):
    return np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact)


def gradient(q, k, v, grad, rule, out, lse):
    params = BackwardParams(rule, q.shape[-1] ** -0.5, False, None)
    return on_device(dispatcher.run, BACKWARD, params, grad, q, k, v, None, None, out, lse, None)


@pytest.mark.parametrize(("width", "name"), usable(FORWARD))
def test_every_forward_variant(width, name):
    choose("attention", width, name)
    q, k, v = operands(min(width, 48), width - 2)
    out, lse, _ = dense(q, k, v, RULE, np.zeros((1, 2, LQ, width - 2)))
    found = on_device(ac.attention, q, k, v, mask=RULE, return_lse=True)
    assert off(found[0], out) <= 2e-6
    assert off(found[1], lse) <= 2e-6


@pytest.mark.parametrize(
    ("prefix", "width", "name"),
    usable(FOR_QUERIES, "attention_dq") + usable(FOR_KEYS, "attention_dkv"),
)
def test_every_backward_variant(prefix, width, name):
    choose(prefix, width, name)
    q, k, v = operands(width - 24, width - 2)
    grad = np.random.default_rng(1).standard_normal((1, 2, LQ, width - 2)).astype(np.float32)
    out, lse, exact = dense(q, k, v, RULE, grad)
    found = gradient(q, k, v, grad, RULE, out.astype(np.float32), lse.astype(np.float32))
    assert all(off(a, b) <= 2e-6 for a, b in zip(found, exact))


FAST_HALVES = [("float16", 1), ("bfloat16", 3), ("float16", 8)]
ALL_HALVES = [(dtype, d) for dtype in ("float16", "bfloat16") for d in (1, 2, 3, 5, 8)]


@pytest.mark.parametrize(
    ("dtype", "d"),
    [*FAST_HALVES, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL_HALVES if case not in FAST_HALVES)],
)
def test_halves_of_any_head_size(dtype, d):
    """Rows that 4 does not divide share words with their neighbours."""
    torch = pytest.importorskip("torch")
    arrays = [torch.from_numpy(a).to(getattr(torch, dtype)) for a in operands(d, d)]
    grad = torch.randn(1, 2, LQ, d, generator=torch.Generator().manual_seed(0)).to(arrays[0].dtype)
    exact = [a.double().numpy() for a in arrays]
    out, lse, gradients = dense(*exact, RULE, grad.double().numpy())
    bound = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    found = on_device(ac.attention, *arrays, mask=RULE)
    assert found.dtype == arrays[0].dtype
    assert off(found.double(), out) <= bound
    made = gradient(*arrays, grad, RULE, torch.from_numpy(out).to(grad.dtype), torch.from_numpy(lse).float())
    for got, expected in zip(made, gradients):
        assert got.dtype == grad.dtype
        # The rounding of `out` enters through delta; a head size of 1 has hardly anything else to hide it.
        assert off(got.double(), expected) <= 8 * bound or np.linalg.norm(expected) < 1


def test_resident_arrays_stay_on_the_device():
    q, k, v = operands(16, 16)
    grad = np.random.default_rng(1).standard_normal(q.shape).astype(np.float32)
    there = [upload(a, DEVICE) for a in (q, k, v)]
    g = upload(grad, DEVICE)
    ac.transfers(reset=True)
    out, lse = ac.attention(*there, mask=RULE, return_lse=True)
    again = ac.attention(out, there[1], there[2])
    found = gradient(*there, g, RULE, out, lse)
    assert sum(t["bytes"] for t in ac.transfers(reset=True)["transfers"].values()) == 0
    assert {a.device for a in (out, lse, again, *found)} == {DEVICE}
    exact = dense(q, k, v, RULE, grad)
    assert off(download(out), exact[0]) <= 2e-6
    assert all(off(download(a), b) <= 2e-6 for a, b in zip(found, exact[2]))


def test_the_same_bits_however_dispatches_are_ordered():
    q, k, v = operands(24, 24)
    grad = np.random.default_rng(1).standard_normal(q.shape).astype(np.float32)
    out, lse, _ = dense(q, k, v, RULE, grad)
    out, lse = out.astype(np.float32), lse.astype(np.float32)

    def both():
        return on_device(ac.attention, q, k, v, mask=RULE), *gradient(q, k, v, grad, RULE, out, lse)

    results = [both(), both()]
    with strict():
        results.append(both())
    for made in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(made, results[0]))


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "reason"),
    [
        ((2, 8, 16), "float64", {}, "float64 operands need another device"),
        ((2, 8, 16), "float32", {"precision": "float64"}, "precision='float64'"),
        ((2, 8, 300), "float32", {}, "head sizes up to 256"),
    ],
)
def test_what_is_refused_is_told(shape, dtype, options, reason):
    x = np.ones(shape, dtype)
    with pytest.raises(NoKernelError, match=reason):
        on_device(ac.attention, x, x, x, **options)
