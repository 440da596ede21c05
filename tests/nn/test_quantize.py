"""Quantised tensors: errors on Gaussian values against the formulas, true bits, files, and what is refused."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from adaptive_compute import nn
from adaptive_compute.core.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from adaptive_compute.nn.levels import best_split, fitted_levels, polar_error, rayleigh_levels

torch = pytest.importorskip("torch")


def gaussian(*shape, dtype=torch.complex64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def distance(found, exact):
    """Return the relative RMS error, in float64."""
    wide = torch.complex128 if exact.is_complex() else torch.float64
    return float((found.to(wide) - exact.to(wide)).norm() / exact.to(wide).norm())


@pytest.mark.parametrize(("bits", "split", "asked"), [(8, (3, 5), 0.098), (12, (5, 7), 0.027), (16, (8, 8), 0.0091)])
def test_errors_of_fixed_codes_on_gaussian_values(bits, split, asked):
    w = gaussian(64, 4096)
    small = nn.PolarQuantizer(bits, split=split).quantize(w)
    error = distance(small.dequantize(), w)
    assert error <= asked
    assert error == pytest.approx(polar_error(*split), rel=0.01)
    assert bits < small.bits_per_value <= bits + 0.005
    assert distance(nn.PolarQuantizer(bits).quantize(w).dequantize(), w) <= error * 1.001


@pytest.mark.parametrize(("bits", "asked"), [(8, 0.075), (12, 0.019), (16, 0.005)])
def test_errors_of_entropy_codes_on_gaussian_values(bits, asked):
    pytest.importorskip("constriction", reason="constriction is not installed (pip install constriction)")
    w = gaussian(64, 4096)
    small = nn.PolarQuantizer(bits, entropy_coded=True).quantize(w)
    assert distance(small.dequantize(), w) <= asked
    assert bits - 0.05 < small.bits_per_value <= bits
    assert distance(small.dequantize(), w) > 2 ** (-bits / 2)  # the rate-distortion bound
    rows = small.rows(17, 41)
    assert torch.equal(rows, small.dequantize()[17:41])


def test_levels_are_the_best_ones():
    # A numerical quantiser of Rayleigh magnitudes, from samples: no other levels may do better than the computed ones.
    rng = np.random.default_rng(0)
    r = np.sqrt(rng.exponential(size=200_000))
    for bits in (1, 3, 5):
        levels = rayleigh_levels(bits)
        assert np.all(np.diff(levels) > 0)
        error = np.mean(np.abs(r[:, None] - levels).min(1) ** 2)
        fitted = fitted_levels(r, bits)
        assert error == pytest.approx(np.mean(np.abs(r[:, None] - fitted).min(1) ** 2), rel=0.01)
        for change in (0.97, 1.03):
            assert np.mean(np.abs(r[:, None] - levels * change).min(1) ** 2) > error
    # One level is the mean, sqrt(pi) / 2; two have a closed condition, each the mean of its side.
    assert rayleigh_levels(0) == pytest.approx([math.sqrt(math.pi) / 2])
    assert [best_split(bits) for bits in (8, 12, 16)] == [(3, 5), (5, 7), (7, 9)]


def test_a_phase_stays_and_a_magnitude_is_near():
    w = torch.polar(torch.ones(360), torch.arange(360) * (2 * math.pi / 360)).to(torch.complex128)
    found = nn.PolarQuantizer(12).quantize(w).dequantize()
    assert (found / w).angle().abs().max() <= math.pi / 128 + 1e-12
    assert float(((found.abs() - 1).abs()).max()) < 0.1


@pytest.mark.parametrize("bits", [2, 3, 7, 9, 12, 16, 19, 24])
def test_any_number_of_bits_in_any_part(bits):
    w = gaussian(3, 5, 7001 if bits == 9 else 71, dtype=torch.complex128)
    small = nn.PolarQuantizer(bits, block=50).quantize(w)
    assert small.dequantize().dtype is torch.complex128
    assert distance(small.dequantize(), w) == pytest.approx(polar_error(*best_split(bits)), rel=0.15)
    values = w.numel()
    assert small.parts["codes"].numel() == -(-values * bits // 8)
    assert small.nbytes == -(-values * bits // 8) + 2 * -(-values // 50)
    flat = small.dequantize().reshape(-1)
    for start, stop in ((0, 0), (1, 2), (7, 300), (values - 3, values)):
        assert torch.equal(small.elements(start, stop), flat[start:stop])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(33, 51), (4096,), (1,), (0,), (2, 0), ()])
def test_real_tensors_in_pairs(shape, dtype):
    w = gaussian(*shape, dtype=torch.float32).to(dtype)
    quantizers = [nn.PolarQuantizer(16), nn.PolarQuantizer(16, levels="fitted"), nn.Int8Quantizer()]
    for quantizer in quantizers:
        small = quantizer.quantize(w)
        found = small.dequantize()
        assert (found.shape, found.dtype) == (w.shape, dtype)
        if w.numel() > 1000:
            assert distance(found, w) < 0.012
            assert small.bits_per_value < 8.1 or "levels" in small.parts


def test_scales_follow_the_rows():
    w = gaussian(4, 512) * torch.tensor([1e-20, 1.0, 0.0, 1e20])[:, None]
    for quantizer in (nn.PolarQuantizer(12), nn.Int8Quantizer()):
        found = quantizer.quantize(w).dequantize()
        for row in (0, 1, 3):
            assert distance(found[row], w[row]) < 0.03
        assert torch.equal(found[2], w[2])


def test_fitted_levels_suit_what_is_not_gaussian():
    w = gaussian(20_000)
    w = w[w.abs() > 1.5]  # what a sparse spectrum keeps
    fitted = nn.PolarQuantizer(8, levels="fitted").quantize(w)
    assert distance(fitted.dequantize(), w) < 0.8 * distance(nn.PolarQuantizer(8).quantize(w).dequantize(), w)
    assert fitted.nbytes == len(w) + 8 * 4 + 2 * -(-len(w) // 1024)


def test_entropy_codes_of_odd_tensors():
    pytest.importorskip("constriction", reason="constriction is not installed (pip install constriction)")
    quantizer = nn.PolarQuantizer(10, entropy_coded=True)
    odd = [torch.zeros(7, 9), torch.ones(1000), torch.empty(0), (torch.arange(3000) % 2).float()]
    odd += [gaussian(1), gaussian(70_000), gaussian(3, 7, dtype=torch.float64)]
    for w in (*odd, torch.cat([gaussian(5000), torch.tensor([1e6 + 0j])])):
        small = quantizer.quantize(w)
        found = small.dequantize()
        assert (found.shape, found.dtype) == (w.shape, w.dtype)
        if w.numel() > 100:
            assert small.bits_per_value <= 10
            assert distance(found, w) < 0.04 or not w.any()
        assert torch.equal(small.elements(w.numel() // 2, w.numel()), found.reshape(-1)[w.numel() // 2 :])


@pytest.mark.parametrize("count", [300, 6000])
def test_more_bits_are_used_however_few_the_values(count):
    pytest.importorskip("constriction", reason="constriction is not installed (pip install constriction)")
    w, errors = gaussian(count), []
    for bits in (8, 12, 16, 20, 24):
        small = nn.PolarQuantizer(bits, entropy_coded=True).quantize(w)
        assert 0.95 * bits < small.bits_per_value <= bits
        errors.append(distance(small.dequantize(), w))
    assert all(more < less for less, more in pairwise(errors))


def test_entropy_codes_know_the_distribution():
    pytest.importorskip("constriction", reason="constriction is not installed (pip install constriction)")
    w = gaussian(100_000)
    heavy = w * (torch.rand(len(w), generator=torch.Generator().manual_seed(1)) < 0.1)  # nine in ten are zero
    coded = nn.PolarQuantizer(6, entropy_coded=True).quantize(heavy)
    fixed = nn.PolarQuantizer(6).quantize(heavy)
    assert distance(coded.dequantize(), heavy) < 0.2 * distance(fixed.dequantize(), heavy)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    import sys

    from adaptive_compute.core.errors import BackendUnavailable

    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(BackendUnavailable, match="pip install"):
        nn.PolarQuantizer(8, entropy_coded=True).quantize(gaussian(10))


def test_what_is_refused():
    for make, error, words in (
        (lambda: nn.PolarQuantizer(1), ArgumentError, "bits"),
        (lambda: nn.PolarQuantizer(25), ArgumentError, "2 to 24"),
        (lambda: nn.PolarQuantizer(8.0), ArgumentTypeError, "bits"),
        (lambda: nn.PolarQuantizer(8, split=(4, 5)), ArgumentError, "add up"),
        (lambda: nn.PolarQuantizer(8, split=3), ArgumentTypeError, "split"),
        (lambda: nn.PolarQuantizer(8, block=0), ArgumentError, "block"),
        (lambda: nn.PolarQuantizer(8, levels="best"), ArgumentError, "fitted"),
        (lambda: nn.PolarQuantizer(8, split=(3, 5), entropy_coded=True), ArgumentError, "fixed length"),
        (lambda: nn.Int8Quantizer(block=-1), ArgumentError, "block"),
    ):
        with pytest.raises(error, match=words):
            make()
    for quantizer in (nn.PolarQuantizer(8), nn.Int8Quantizer()):
        for wrong, error, words in (
            ([1.0], ArgumentTypeError, "list"),
            (torch.zeros(3, dtype=torch.int32), DtypeError, "torch.int32"),
            (torch.tensor([1.0, math.nan]), ArgumentError, "finite"),
            (torch.tensor([1.0 + 1j, math.inf]), ArgumentError, "finite"),
            (torch.full((3,), 1e-300, dtype=torch.float64), ArgumentError, "rescale"),
        ):
            with pytest.raises(error, match=words):
                quantizer.quantize(wrong)
    small = nn.PolarQuantizer(8).quantize(gaussian(4, 6))
    with pytest.raises(ShapeError, match="elements 0 to 30"):
        small.elements(0, 30)
    with pytest.raises(ShapeError, match="matrices"):
        nn.PolarQuantizer(8).quantize(gaussian(4)).rows(0, 1)
    with pytest.raises(ShapeError, match="must have shapes"):
        nn.QuantizedTensor((4, 7), torch.complex64, "polar", small.settings, small.parts)
