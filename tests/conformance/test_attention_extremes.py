"""Attention where values or gradients are so large or small that a shortcut could lose them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import NoKernelError

OPERATION = "attention"
BOUND = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2}


def run(kernel, *operands, **named):
    """Run on one kernel. One of a CUDA library may refuse what it does not take, which skips the test."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            return ac.attention(*operands, **named)
        except NoKernelError as refusal:
            if not kernel.device.startswith("cuda"):
                raise
            pytest.skip(str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2])


def computed_in(kernel):
    """Return float32, or bfloat16 (whose range is the same) where the kernel takes no more."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            ac.attention(*[torch.zeros(1, 1, 8, 8)] * 3)
        except NoKernelError:
            return torch.bfloat16
    return torch.float32


# With the sizes that every kernel takes, and with odd ones for those that take any.
@pytest.mark.parametrize(("d", "dv"), [(8, 8), (1, 3)])
@pytest.mark.parametrize("size", [1e31, 3e25, 1e-22, 1e-30])
@pytest.mark.parametrize("score", [20.0, -20.0])
def test_values_of_any_size_come_through(kernel, size, score, d, dv):
    rng = np.random.default_rng(0)
    q, k = torch.zeros(1, 2, 5, d), torch.zeros(1, 2, 7, d)
    q[..., 0], k[..., 0] = score, 1
    v = torch.from_numpy((rng.standard_normal((1, 2, 7, dv)) * size).astype(np.float32))
    q, k, v = (x.to(computed_in(kernel)) for x in (q, k, v))
    out = run(kernel, q, k, v, scale=1.0)
    expected = v.double().mean(-2, keepdim=True).expand(out.shape)
    assert torch.linalg.norm(out.double() / size - expected / size) <= BOUND[v.dtype] * torch.linalg.norm(
        expected / size
    )


@pytest.mark.parametrize("size", [1e28, 1e-25, 1e-30])
@pytest.mark.parametrize("score", [35.0, -35.0])
@pytest.mark.parametrize("by", ["bias", "products"])
def test_gradients_of_any_size_come_through(kernel, size, score, by):
    q, k, v = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 6, 8), torch.randn(1, 1, 6, 8)
    if by == "products":
        q[..., 0], k[..., 0] = score, 1
    q, k, v = (x.to(computed_in(kernel)) for x in (q, k, v))
    v = v.clone().requires_grad_()
    bias = torch.full((4, 6), score, dtype=v.dtype) if by == "bias" else None
    out = run(kernel, q, k, v, bias=bias, scale=1.0)
    (grad,) = torch.autograd.grad(out, v, torch.full_like(out, size))
    assert torch.allclose(grad.double() / size, torch.full(grad.shape, 4 / 6).double(), rtol=max(1e-5, BOUND[v.dtype]))
