"""Attention where values or gradients are so large or small that a shortcut could lose them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import adaptive_compute as ac

OPERATION = "attention"


@pytest.mark.parametrize("size", [1e31, 3e25, 1e-22, 1e-30])
@pytest.mark.parametrize("score", [20.0, -20.0])
def test_values_of_any_size_come_through(kernel, size, score):
    rng = np.random.default_rng(0)
    q = np.full((2, 5, 1), score, np.float32)
    k = np.ones((2, 7, 1), np.float32)
    v = (rng.standard_normal((2, 7, 3)) * size).astype(np.float32)
    with ac.using(kernel=kernel.name):
        out = ac.attention(q, k, v)
    expected = np.broadcast_to(v.astype(np.float64).mean(1, keepdims=True), out.shape)
    assert np.linalg.norm(out / size - expected / size) <= 2e-6 * np.linalg.norm(expected / size)


@pytest.mark.parametrize("size", [1e28, 1e-25, 1e-30])
@pytest.mark.parametrize("score", [35.0, -35.0])
def test_gradients_of_any_size_come_through(kernel, size, score):
    v = torch.randn(1, 6, 8, requires_grad=True)
    q = torch.zeros(1, 4, 8)
    with ac.using(kernel=kernel.name):
        out = ac.attention(q, torch.zeros(1, 6, 8), v, bias=torch.full((4, 6), score))
    (grad,) = torch.autograd.grad(out, v, torch.full_like(out, size))
    assert torch.allclose(grad / size, torch.full_like(grad, 4 / 6), rtol=1e-5)
