"""Layers among frequency bins against direct sums in NumPy: no FFT and no attention of the library in the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptive_compute import nn
from adaptive_compute.core.errors import ArgumentError, BackendUnavailable, DtypeError, NoProfileWarning, ShapeError

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", CUDA]


def drawn(*shape, seed=0, dtype=torch.float32):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(*shape, dtype=wide, generator=torch.Generator().manual_seed(seed)).to(dtype)


def array(x):
    x = x.detach().cpu()
    return x.to(torch.complex128 if x.is_complex() else torch.float64).numpy()


def to_bins(x):
    """The orthonormal DFT's bins 0..length // 2, by its sum."""
    n = x.shape[1]
    waves = np.exp(-2j * np.pi * np.outer(np.arange(n // 2 + 1), np.arange(n)) / n) / np.sqrt(n)
    return np.einsum("ft,btd->bfd", waves, x)


def to_time(z, n):
    """Real signal of bins: each counts with its conjugate, but for frequency zero and half the rate."""
    f = np.arange(z.shape[1])
    count = np.where((f == 0) | (2 * f == n), 1, 2)
    waves = np.exp(2j * np.pi * np.outer(np.arange(n), f) / n) * count / np.sqrt(n)
    return np.einsum("tf,bfd->btd", waves, z).real


def linear(layer, z):
    made = z @ array(layer.weight).T
    return made if layer.bias is None else made + array(torch.view_as_complex(layer.bias))


def among_bins(layer, z):
    q, k, v = np.split(linear(layer.project, z), 3, axis=-1)
    width, found = layer.dim // layer.heads, []
    for h in range(layer.heads):
        part = slice(h * width, (h + 1) * width)
        scores = np.einsum("bfd,bgd->bfg", q[..., part], k[..., part].conj()).real / np.sqrt(width)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        found.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    return linear(layer.out, np.concatenate(found, -1))


def normalised(layer, z):
    z = z - z.mean(-1, keepdims=True)
    return array(layer.gain) * z / np.sqrt((abs(z) ** 2).mean(-1, keepdims=True) + layer.eps)


def rectified(layer, z):
    return np.maximum(abs(z) + array(layer.bias), 0) * z / abs(z)


def apart(found, expected):
    return np.linalg.norm(array(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 2, 17, 32])
def test_transforms(length, device):
    x = drawn(2, length, 3)
    z = nn.spectrum(x.to(device))
    assert z.dtype is torch.complex64
    assert apart(z, to_bins(array(x))) < 1e-6
    assert apart(nn.signal(z, length), array(x)) < 1e-6
    few = z[:, : max(length // 4, 1)]
    assert apart(nn.signal(few, length), to_time(array(few), length)) < 1e-6
    assert nn.spectrum(x.to(device).bfloat16()).dtype is torch.complex64
    nothing = nn.spectrum(x[:0].to(device))
    assert nothing.shape == z[:0].shape
    assert nothing.dtype is torch.complex64
    assert nn.signal(nothing, length).shape == (0, length, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_layers_are_their_definitions(device):
    torch.manual_seed(0)
    z = drawn(2, 13, 12, dtype=torch.complex64)
    with torch.no_grad():
        relu, norm = nn.FrequencyReLU(12).to(device), nn.FrequencyLayerNorm(12).to(device)
        relu.bias.normal_()
        norm.gain.normal_()
        attend, whole = nn.SpectrumAttention(12, 3).to(device), nn.FrequencyTransformerLayer(12, 3, 20).to(device)
        for p in whole.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for layer, by_hand in ((relu, rectified), (norm, normalised), (attend, among_bins)):
            assert apart(layer(z.to(device)), by_hand(layer, array(z))) < 1e-5
            assert layer(z[:0].to(device)).shape == (0, 13, 12)
        expected = array(z) + among_bins(whole.among_bins, normalised(whole.before_attention, array(z)))
        inner = linear(whole.widen, normalised(whole.before_mlp, expected))
        expected = expected + linear(whole.narrow, rectified(whole.rectify, inner))
        assert apart(whole(z.to(device)), expected) < 1e-5
        for length, bins in ((31, None), (32, None), (32, 5), (9, 40)):
            layer, x = nn.FrequencyAttention(12, 3, bins=bins).to(device), drawn(2, length, 12)
            expected = to_time(among_bins(layer.among_bins, to_bins(array(x))[:, :bins]), length)
            assert apart(layer(x.to(device)), expected) < 1e-5
            assert layer(x[:0].to(device)).shape == (0, length, 12)


def test_phases_are_kept():
    z = drawn(1, 40, 6, dtype=torch.complex128)
    turn = torch.exp(torch.tensor(1.3j, dtype=torch.complex128))
    relu, norm = nn.FrequencyReLU(6, bias=-0.8).double(), nn.FrequencyLayerNorm(6).double()
    for layer in (relu, norm):
        assert torch.allclose(layer(turn * z), turn * layer(z))
    found = relu(z)
    passed = found != 0
    assert (passed == (z.abs() > 0.8)).all()
    assert 0 < int(passed.sum()) < passed.numel()
    assert torch.allclose(found[passed].angle(), z[passed].angle())
    # At zero there is no phase: nothing comes out, even above the threshold, and no gradient is lost to NaN.
    zero = torch.zeros(1, 1, 6, dtype=torch.complex128, requires_grad=True)
    out = nn.FrequencyReLU(6, bias=0.5).double()(zero)
    assert not out.any()
    out.abs().sum().backward()
    assert torch.isfinite(torch.view_as_real(zero.grad)).all()


def test_statistics_stay_within_a_position():
    layer, z = nn.FrequencyLayerNorm(4), drawn(2, 9, 4, dtype=torch.complex64)
    changed = z.clone()
    changed[:, 5] *= 100
    same = (layer(z) == layer(changed)).all(-1).all(0)
    assert same.tolist() == [True] * 5 + [False] + [True] * 3
    report = nn.certify_causal(layer, (2, 9, 4), dtype=torch.complex128)
    assert report.causal, str(report)
    assert report.exact


@pytest.mark.parametrize("make", [
    lambda: nn.FrequencyReLU(4), lambda: nn.FrequencyLayerNorm(4), lambda: nn.SpectrumAttention(4, 2),
    lambda: nn.FrequencyAttention(4, 2, bins=3), lambda: nn.FrequencyTransformerLayer(2, 1, 3),
])  # fmt: skip
def test_gradients(make):
    torch.manual_seed(0)
    layer = make().double()
    names, values = zip(*layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    wide = torch.complex128 if layer.complex_inputs else torch.float64
    x = drawn(2, 5, layer.dim, dtype=wide).requires_grad_()
    # Every entry of the small layers' Jacobians; random projections of the composed ones'.
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=len(values) > 1)


def test_attention_among_bins_sees_the_future():
    torch.manual_seed(0)
    layer = nn.FrequencyAttention(4, 2)
    assert layer.causal is False
    assert not nn.certify_causal(layer, (2, 9, 4)).causal


def test_autocast_leaves_complex_numbers_alone():
    torch.manual_seed(0)
    layer, z = nn.FrequencyTransformerLayer(4, 2), drawn(1, 9, 4, dtype=torch.complex64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(z)
    assert torch.allclose(inside, layer(z), atol=1e-5)


def test_what_is_refused():
    layer, z = nn.FrequencyTransformerLayer(4, 2, max_length=9), drawn(1, 9, 4, dtype=torch.complex64)
    attend = nn.FrequencyAttention(4, 2)
    for call, error, words in (
        (lambda: layer(z[..., :3]), ShapeError, "dim 4"),
        (lambda: layer(z.repeat(1, 2, 1)), ShapeError, "max_length=9"),
        (lambda: layer(z.to(torch.complex128)), DtypeError, "complex128"),
        (lambda: layer(z.to("meta")), BackendUnavailable, "meta"),
        (lambda: attend(z), DtypeError, "complex64"),
        (lambda: attend(z.real.half()), DtypeError, "float16"),
        (lambda: nn.FrequencyAttention(4, 3), ArgumentError, "heads"),
        (lambda: nn.FrequencyAttention(4, bins=0), ArgumentError, "bins"),
        (lambda: nn.FrequencyLayerNorm(4, eps=0), ArgumentError, "eps"),
        (lambda: nn.FrequencyReLU(4, dtype=torch.bfloat16), DtypeError, "bfloat16"),
        (lambda: nn.spectrum(z), DtypeError, "complex64"),
        (lambda: nn.signal(z.real, 9), DtypeError, "complex"),
        (lambda: nn.signal(z, 9), ShapeError, "9 bins"),
        (lambda: nn.signal(z, 0), ArgumentError, "length"),
    ):
        with pytest.raises(error, match=words):
            call()
