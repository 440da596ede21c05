"""Mixers against the sums that define them, written with loops and matrices over plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from adaptive_compute import nn  # noqa: E402
from adaptive_compute.core.errors import (  # noqa: E402
    AdaptiveError,
    ArgumentError,
    ArgumentTypeError,
    BackendUnavailable,
    DtypeError,
    NoProfileWarning,
    ShapeError,
)
from adaptive_compute.nn.blocks import fast_length  # noqa: E402
from adaptive_compute.nn.filters import ImplicitFilter  # noqa: E402

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")
DIM, MOST = 6, 200
FILTERS = ("full", "low-rank", "implicit", "multi-scale")


def plain(tensor):
    return tensor.detach().double().numpy()


def kernel_of(filter_):
    """Return a filter's kernels by its formula."""
    name = type(filter_).__name__
    if name == "FullFilter":
        return plain(filter_.weight)
    if name == "LowRankFilter":
        return sum(np.outer(plain(filter_.shares)[:, r], row) for r, row in enumerate(plain(filter_.shapes)))
    if name == "ImplicitFilter":
        return implicit(filter_)
    if name == "MultiScaleFilter":
        return multi_scale(plain(filter_.weight))
    return shaped(filter_)


def implicit(filter_):
    kernels = np.empty((len(filter_.last.weight), MOST))
    bands = (filter_.features.shape[1] - 1) // 2
    for t in range(MOST):
        turns = 2 * np.pi * (t / MOST) * np.arange(1, bands + 1)
        x = np.concatenate([[t / MOST], np.cos(turns), np.sin(turns)])
        for layer, frequency in zip(filter_.hidden, plain(filter_.frequency)):
            x = np.sin(frequency * (plain(layer.weight) @ x + plain(layer.bias)))
        decay = np.exp(-plain(filter_.rates)[:, 0] * np.exp(plain(filter_.log_factors)[:, 0]) * t)
        kernels[:, t] = plain(filter_.last.weight) @ x * decay
    return kernels


def multi_scale(weight, points=16):
    knots, step = [], 1.0
    while not knots or knots[-1] + step < points * 2 ** np.ceil(np.log2(MOST / points)):
        start = 0.0 if not knots else knots[-1] + step
        step = max(start, points) / points
        knots += [start + i * step for i in range(points)]
    knots.append(knots[-1] + step)
    assert len(knots) == weight.shape[1]
    return np.stack([np.interp(np.arange(MOST), knots, row) for row in weight])


def shaped(filter_):
    """Sum over frequencies, one lag at a time: the spectrum of n points is Hermitian, so real parts count twice."""
    inner, n = kernel_of(filter_.inner), fast_length(2 * MOST)
    bins = np.arange(n // 2 + 1)
    spectrum = inner @ np.exp(-2j * np.pi * np.outer(np.arange(MOST), bins) / n)
    if filter_.delay is not None:
        spectrum *= np.exp(-2j * np.pi * plain(filter_.delay) * bins / n)
    if filter_.phase is not None:
        at = bins / (n // 2) * (filter_.phase.shape[1] - 1)
        for c, (gain, phase) in enumerate(zip(plain(filter_.gain), plain(filter_.phase))):
            places = np.arange(len(gain))
            spectrum[c] *= np.exp(np.interp(at, places, gain) + 1j * np.interp(at, places, phase))
    twice = np.where((bins == 0) | (bins == n // 2), 1, 2)
    return ((spectrum * twice) @ np.exp(2j * np.pi * np.outer(bins, np.arange(MOST)) / n)).real / n


def by_the_sum(layer, x):
    """Return what a SpectralMixing layer should give, in O(length^2)."""
    x, h = plain(x), kernel_of(layer.filter)
    y = x * plain(layer.skip)
    for t in range(x.shape[1]):
        for s in range(t + 1):
            y[:, t] += h[:DIM, s] * x[:, t - s]
        if not layer.causal:
            for s in range(1, x.shape[1] - t):
                y[:, t] += h[DIM:, s] * x[:, t + s]
    if layer.gate is None:
        return y
    y = y @ plain(layer.gate.weight).T + plain(layer.gate.bias)
    return y[..., :DIM] / (1 + np.exp(-y[..., DIM:]))


def made(**switches):
    torch.manual_seed(0)
    layer = nn.SpectralMixing(DIM, max_length=MOST, **switches)
    with torch.no_grad():  # away from where parameters begin, so that each counts
        for p in layer.parameters():
            p += 0.05 * torch.randn(p.shape)
    return layer


SWITCHES = [
    *({"filter": name} for name in FILTERS),
    {"rotary": True}, {"phase": True}, {"glu": True}, {"causal": False},
    {"filter": "implicit", "rotary": True, "phase": True, "glu": True},
    {"filter": "low-rank", "rank": 2, "causal": False, "rotary": True, "phase": True, "glu": True},
]  # fmt: skip


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("length", [1, 61, MOST])
def test_it_is_its_sum_to_1e_5_in_float32(switches, length):
    layer, x = made(**switches), torch.randn(2, length, DIM)
    wanted = by_the_sum(layer, x)
    assert np.abs(plain(layer(x)) - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())
    assert np.abs(plain(layer.double()(x.double())) - wanted).max() < 2e-6 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_gradients_in_float64(switches):
    torch.manual_seed(0)
    options = {"width": 3, "bands": 2} if switches.get("filter") == "implicit" else {}
    layer = nn.SpectralMixing(2, max_length=7, **(switches | options)).double()
    x = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), x)

    assert torch.autograd.gradcheck(call, (x, *parameters))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_a_prefix_is_mixed_as_in_the_whole():
    layer, x = made(filter="implicit", rotary=True, phase=True), torch.randn(1, MOST, DIM)
    assert (layer(x)[:, :50] - layer(x[:, :50])).abs().max() < 1e-5


def test_only_causal_kernels_are_said_to_be_causal():
    assert nn.SpectralMixing(2, max_length=4).causal
    assert not nn.SpectralMixing(2, max_length=4, causal=False).causal
    assert not nn.CircularMixing.causal
    assert not nn.FNetMixing.causal


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize(("length", "most"), [(8, 8), (5, 8), (9, 9), (1, 1)])
def test_circular_mixing_is_its_sum(rank, length, most):
    torch.manual_seed(0)
    layer, x = nn.CircularMixing(3, max_length=most, rank=rank), torch.randn(2, length, 3)
    pairs = plain(layer.weight)
    weight = pairs[..., 0] + 1j * pairs[..., 1]
    if rank is not None:
        weight = plain(layer.shares) @ weight
    turn = np.exp(-2j * np.pi * np.outer(np.arange(most), np.arange(most)) / most)
    half = np.concatenate([weight, np.conj(weight[:, 1 : (most + 1) // 2])[:, ::-1]], 1)
    half[:, 0] = half[:, 0].real  # a real signal has real values at frequency 0 and at one half
    if most % 2 == 0:
        half[:, most // 2] = half[:, most // 2].real
    padded = np.zeros((2, most, 3))
    padded[:, :length] = plain(x)
    spectrum = np.einsum("kt,btc->bkc", turn, padded) * half.T
    wanted = np.einsum("tk,bkc->btc", np.conj(turn), spectrum)[:, :length] / most
    assert np.abs(wanted.imag).max() < 1e-12
    assert np.abs(plain(layer(x)) - wanted.real).max() < 1e-5
    layer = layer.double()
    assert torch.autograd.gradcheck(layer, (x.double().requires_grad_(),))


@pytest.mark.parametrize(("norm", "scale"), [("backward", 1), ("ortho", (5 * 4) ** -0.5), ("forward", 1 / 20)])
def test_fnet_mixing_is_its_sum(norm, scale):
    x = torch.randn(2, 5, 4)
    rows, columns = (np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (5, 4))
    wanted = scale * (rows @ plain(x) @ columns).real
    layer = nn.FNetMixing(4, norm=norm)
    assert np.abs(plain(layer(x)) - wanted).max() < 1e-5
    assert torch.autograd.gradcheck(layer, (x.double().requires_grad_(),))


LAYERS = {
    "SpectralMixing": lambda: nn.SpectralMixing(4, max_length=16, glu=True),
    "two-sided": lambda: nn.SpectralMixing(4, max_length=16, causal=False),
    "CircularMixing": lambda: nn.CircularMixing(4, max_length=16),
    "FNetMixing": lambda: nn.FNetMixing(4),
    "GatedConvolution": lambda: nn.GatedConvolution(4, max_length=16),
}


@pytest.mark.parametrize("layer", list(LAYERS))
def test_input_that_does_not_fit_is_refused_by_name(layer):
    layer = LAYERS[layer]()
    for x, error, said in (
        (np.ones((1, 2, 4)), ArgumentTypeError, "x must be a torch tensor"),
        (torch.ones(2, 4), ShapeError, r"x must be \(batch, length, dim\), got shape \(2, 4\)"),
        (torch.ones(1, 2, 5), ShapeError, "x must have dim 4"),
        (torch.ones(1, 0, 4), ShapeError, "x must have at least one position"),
        (torch.ones(1, 2, 4, dtype=torch.int64), DtypeError, "x has dtype torch.int64; accepted: float16"),
    ):
        with pytest.raises(error, match=said):
            layer(x)
    if layer.max_length is not None:
        with pytest.raises(ShapeError, match="x has 17 positions, more than max_length=16"):
            layer(torch.ones(1, 17, 4))
        with pytest.raises(BackendUnavailable, match=r"x is on meta, .* parameters on cpu"):
            layer(torch.ones(1, 2, 4, device="meta"))
        with pytest.raises(DtypeError, match=r"x has dtype torch.float16, .* parameters have torch.float32"):
            layer(torch.ones(1, 2, 4, dtype=torch.float16))


@pytest.mark.parametrize("layer", list(LAYERS))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_the_processor(layer, dtype):
    torch.manual_seed(0)
    layer, x = LAYERS[layer](), torch.randn(2, 15, 4)
    wanted = layer(x)
    found = layer.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    assert (found.float() - wanted).norm() < 3e-2 * wanted.norm()


def test_implicit_kernels_in_float16_reach_beyond_its_range():
    torch.manual_seed(0)
    filter_ = ImplicitFilter(2, 100_000, width=4, bands=2)
    wanted = filter_.kernel()[:, 70_000:]
    assert (filter_.half().kernel()[:, 70_000:].float() - wanted).norm() < 2e-2 * wanted.norm()


@pytest.mark.parametrize("layer", list(LAYERS))
def test_an_empty_batch_is_mixed_and_has_gradients(layer):
    layer, x = LAYERS[layer](), torch.ones(0, 7, 4, requires_grad=True)
    y = layer(x)
    assert y.shape == (0, 7, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.SpectralMixing(0, max_length=4), "dim must be a whole number of at least 1, got 0"),
        (lambda: nn.SpectralMixing(4, max_length=2.5), "max_length must be a whole number, got 2.5"),
        (lambda: nn.SpectralMixing(4, max_length=4, filter="box"), "filter must be one of 'full', 'low-rank'"),
        (lambda: nn.SpectralMixing(4, max_length=4, filter="low-rank", rank=0), "rank must be a whole number"),
        (lambda: nn.SpectralMixing(4, max_length=4, glu=1), "glu must be True or False, got 1"),
        (lambda: nn.CircularMixing(4, max_length=0), "max_length must be a whole number of at least 1"),
        (lambda: nn.FNetMixing(4, norm="none"), "norm must be one of 'ortho', 'backward', 'forward', got 'none'"),
        (lambda: nn.GatedConvolution(4, max_length=8, order=1), "order must be a whole number of at least 2, got 1"),
        (lambda: nn.GatedConvolution(4, max_length=8, taps=9), "taps must be at most max_length=8, got 9"),
        (lambda: nn.GatedConvolution(4, max_length=8, depth=0), "depth must be a whole number of at least 1"),
        (lambda: nn.GatedConvolution(4, max_length=8, shortest=0), "shortest must be a positive number of positions"),
        (lambda: nn.GatedConvolution(4, max_length=8, rank=3), "filter 'implicit' has no option 'rank'; it has width"),
    ],
)
def test_arguments_that_are_not_accepted_are_named(make, said):
    with pytest.raises(ArgumentError, match=said) as caught:
        make()
    assert isinstance(caught.value, AdaptiveError)
