"""Attention in half precision by every kernel: which masks each takes, what it computes, gradients included."""

from __future__ import annotations

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import NoKernelError
from adaptive_compute.core.masks import Blocks, Causal, Prefix, Window
from adaptive_compute.core.operations.attention_rule import BACKWARD, BackwardParams

torch = pytest.importorskip("torch")

OPERATION = "attention"
SIDE = 150
BOUND = {"float16": 2e-3, "bfloat16": 1.6e-2}
MASKS = {
    "none": None, "causal": Causal(), "bottom-right": Causal("bottom-right"), "window": Window(20),
    "causal-window": Causal() & Window(20), "prefix": Prefix(40) | Causal(),
    "blocks": Blocks(np.random.default_rng(5).random((10, 10)) < 0.3, 16),
    "array": np.random.default_rng(6).random((SIDE, SIDE)) < 0.3,
}  # fmt: skip
# What the kernels of CUDA's libraries take of as many queries as keys; every other kernel takes every mask.
TAKEN = {
    ("cuda", "cudnn"): {"none", "causal"},
    ("cuda", "flash"): {"none", "causal", "bottom-right", "window", "causal-window"},
    ("cuda", "tiles"): set(MASKS) - {"array"},
}


def tensors(*shapes, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(shape)).to(getattr(torch, dtype)) for shape in shapes]


def expected(mask, q, k, v, grad):
    """Return out, lse and the gradients of q, k and v by the definition, in float64, by torch's own differentiation."""
    q, k, v = (x.double().requires_grad_() for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    kept = mask
    if mask is None:
        kept = np.ones((SIDE, SIDE), bool)
    elif not isinstance(mask, np.ndarray):
        kept = np.broadcast_to(
            mask.keep(np.arange(SIDE)[:, None], np.arange(SIDE)[None, :], SIDE, SIDE), (SIDE, SIDE)
        ).copy()
    kept = torch.from_numpy(kept)
    scores = q @ k.repeat_interleave(groups, 1).mT / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~kept, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = torch.where(kept, torch.exp(scores - torch.where(lse == -torch.inf, 0, lse)[..., None]), 0.0)
    out = weights @ v.repeat_interleave(groups, 1)
    (out * grad.double()).sum().backward()
    return [x.detach() for x in (out, lse, q.grad, k.grad, v.grad)]


def error(found, exact):
    finite = torch.isfinite(exact)
    assert torch.equal(found.double()[~finite], exact[~finite])
    return float(torch.linalg.norm((found.double() - exact)[finite]) / torch.linalg.norm(exact[finite]))


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("heads", [(3, 3), (4, 2)], ids=str)
@pytest.mark.parametrize("name", MASKS)
def test_every_mask(kernel, name, heads, dtype):
    mask, (hq, hk) = MASKS[name], heads
    q, k, v, grad = tensors((2, hq, SIDE, 32), *[(2, hk, SIDE, 32)] * 2, (2, hq, SIDE, 32), dtype=dtype)
    rule, array = (None, torch.from_numpy(mask)) if isinstance(mask, np.ndarray) else (mask, None)
    taken = name in TAKEN.get((kernel.device.partition(":")[0], kernel.name), set(MASKS))
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            out, lse = ac.attention(q, k, v, mask=rule if array is None else array, enable_gqa=True, return_lse=True)
        except NoKernelError as refusal:
            if taken and "bfloat16" not in str(refusal) and "logsumexp" not in str(refusal):
                raise
            pytest.skip(str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2])
        assert taken
        exact = expected(mask, q, k, v, grad)
        assert out.dtype == q.dtype
        assert error(out, exact[0]) <= BOUND[dtype]
        assert error(lse, exact[1]) <= 1e-5
        params = BackwardParams(rule, q.shape[-1] ** -0.5, False, None)
        found = dispatcher.run(BACKWARD, params, grad, q, k, v, array, None, out, lse, None)
    for got, exactly in zip(found, exact[2:]):
        assert got.dtype == q.dtype
        assert error(got, exactly) <= BOUND[dtype]


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("d", [8, 64, 80, 128])
def test_sizes_of_heads_strides_and_lengths(kernel, d, dtype):
    bound = BOUND[dtype]
    for lq, lk in ((1, 1), (1, 300), (70, 33), (64, 128)):
        q, k, v = tensors((2, lq, 3, d), *[(2, lk, 3, d)] * 2, dtype=dtype, seed=lq)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # heads last in memory, as projections leave them
        with ac.using(kernel=kernel.name, device=kernel.device):
            try:
                out = ac.attention(q, k, v)
            except NoKernelError as refusal:
                if dtype not in str(refusal):
                    raise
                pytest.skip(str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2])
        weights = torch.softmax(q.double() @ k.double().mT / d**0.5, -1)
        assert error(out, weights @ v.double()) <= bound


def test_large_scores_do_not_overflow(kernel):
    q, k, v = tensors(*[(1, 2, SIDE, 32)] * 3, dtype="float16")
    q = q * 100
    with ac.using(kernel=kernel.name, device=kernel.device):
        out = ac.attention(q, k, v)
    exact = torch.softmax(q.double() @ k.double().mT / 32**0.5, -1) @ v.double()
    assert error(out, exact) <= 4e-3
