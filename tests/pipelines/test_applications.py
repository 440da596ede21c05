"""Convolution, conjugate gradients and an attention block, against references that know nothing of this library."""

from __future__ import annotations

import math

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.registry import registry
from adaptive_compute.core.transfer import counters

RNG = np.random.default_rng(3)


@pytest.fixture(params=["cpu", "cuda", "vulkan"])
def backend(request):
    """Each backend that is here, every operation forced onto it."""
    reason = registry.backends()[request.param].available()
    if reason is not True:
        pytest.skip(f"{request.param}: {reason}")
    with ac.using(request.param):
        yield request.param


@ac.pipeline
def convolve(x, kernel):
    return ac.irfft2(ac.rfft2(x) * ac.rfft2(kernel), s=x.shape)


def test_convolution(backend):
    x, kernel = RNG.standard_normal((2, 24, 30)).astype(np.float32)
    exact = np.fft.irfft2(np.fft.rfft2(x.astype(float)) * np.fft.rfft2(kernel.astype(float)), s=x.shape)
    for _ in range(2):
        counters.reset()
        result = convolve(x, kernel)
        assert np.linalg.norm(result - exact) <= 1e-6 * np.linalg.norm(exact)
        assert result.dtype == np.float32
    moved = {name: row["count"] for name, row in ac.transfers()["transfers"].items()}
    assert moved == ({} if backend == "cpu" else {f"cpu -> {backend}:0": 2, f"{backend}:0 -> cpu": 1})


def solve(px, py, weights, b, steps):
    """Conjugate gradients for E^H W E x = b."""
    x, r, p = b * 0, b, b
    old = ac.sum(ac.square(ac.absolute(r)))
    for _ in range(steps):
        samples = ac.nufft.nufft2d2(px, py, p, eps=1e-5, isign=-1)
        q = ac.nufft.nufft2d1(px, py, samples * weights, p.shape, eps=1e-5, isign=1)
        step = old / ac.sum((p.conj() * q).real)
        x, r = x + step * p, r - step * q
        new = ac.sum(ac.square(ac.absolute(r)))
        p, old = r + (new / old) * p, new
    return x


@pytest.mark.parametrize("backend", ["cpu", "cuda", pytest.param("vulkan", marks=pytest.mark.slow)], indirect=True)
def test_conjugate_gradients(backend):
    modes, count = 8, 300
    px, py = RNG.uniform(-np.pi, np.pi, (2, count)).astype(np.float32)
    weights = RNG.uniform(0.5, 1.5, count).astype(np.float32) / count
    truth = RNG.standard_normal((modes, modes)) + 1j * RNG.standard_normal((modes, modes))
    k = np.arange(-modes // 2, modes // 2)
    k1, k2 = (axis.reshape(-1) for axis in np.meshgrid(k, k, indexing="ij"))
    matrix = np.exp(-1j * (np.outer(px.astype(float), k1) + np.outer(py.astype(float), k2)))
    b = (matrix.conj().T @ (weights[:, None] * matrix) @ truth.reshape(-1)).reshape(modes, modes).astype(np.complex64)
    recorded = ac.pipeline(solve)
    result = recorded(px, py, weights, b, 15)
    assert recorded.explain(px, py, weights, b, 15).reason is None
    assert np.linalg.norm(result - truth) <= 1e-3 * np.linalg.norm(truth)


def block(x, wider):
    """Attention, a residual and an activation."""
    normal = (x - ac.mean(x, axis=-1, keepdims=True)) / ac.norm(x, axis=-1, keepdims=True)
    return ac.gelu(x + ac.attention(normal, normal, normal, is_causal=True)) * wider


def test_an_attention_block(backend):
    x, wider = RNG.standard_normal((2, 3, 20, 16)).astype(np.float32)
    recorded = ac.pipeline(block)
    result = recorded(x, wider)
    y = x.astype(float)
    normal = (y - y.mean(-1, keepdims=True)) / np.linalg.norm(y, axis=-1, keepdims=True)
    scores = normal @ normal.swapaxes(-1, -2) / 4 + np.where(np.tri(20, dtype=bool), 0, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    z = y + share / share.sum(-1, keepdims=True) @ normal
    exact = z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2 * wider
    assert np.linalg.norm(result - exact) <= 2e-6 * np.linalg.norm(exact)
    assert recorded.explain(x, wider).reason is None
