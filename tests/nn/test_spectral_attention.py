"""SpectralAttention against the formula it states, summed pair by pair in float64; causality; what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch

from adaptive_compute import nn
from adaptive_compute.core.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendUnavailable,
    DtypeError,
    NoProfileWarning,
    ShapeError,
)
from adaptive_compute.nn.spectral_kernel import phases, spectral_kernel_attention, spectrum_of

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", CUDA]
FORMS = [nn.SpectralAttention, nn.CausalSpectralAttention]


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def kernel(t, g, floor):
    """K(t) by its definition: floor + |sum_k g_k e^{ikt}|^2 / |g|^2."""
    waves = torch.exp(1j * t[..., None] * torch.arange(g.shape[-1], dtype=torch.float64))
    return floor + (waves * g).sum(-1).abs().square() / g.abs().square().sum(-1)


def direct(a, b, v, g, floor, causal):
    weights = kernel(a.double()[:, :, None] - b.double()[:, None], g[:, None, None].to(torch.complex128), floor)
    weights = weights.tril() if causal else weights
    return weights @ v.double() / weights.sum(-1, keepdim=True)


def by_hand(layer, x):
    """The layer by its docstring, in float64, from its parameters."""
    double = {name: p.detach().double().cpu() for name, p in layer.named_parameters()}
    x = x.double().cpu()
    batch, length, _ = x.shape
    v = (x @ double["value.weight"].T).reshape(batch, length, layer.heads, -1)
    heads = []
    for h in range(layer.heads):
        turned = double["rate"][h] * torch.arange(length, dtype=torch.float64)
        a, b = (x @ double["angles"][s, h] + turned for s in (0, 1))
        g = torch.complex(*double["kernel"][h].T)[None].expand(batch, -1)
        heads.append(direct(a, b, v[:, :, h], g, layer.floor, layer.causal))
    return torch.cat(heads, -1) @ double["out.weight"].T


def apart(found, expected):
    return float((found.detach().double().cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", ["nufft", "direct"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("modes", [1, 8, 33, 100])
@pytest.mark.parametrize("device", DEVICES)
def test_the_sum_is_the_formula(device, modes, causal, method):
    for length, width, chunk in ((1, 1, 64), (97, 4, 32), (130, 5, 64)):
        a, b, v = (10 * drawn(3, length), 10 * drawn(3, length, seed=1), drawn(3, length, width, seed=2))
        g = torch.complex(drawn(3, modes + 1, seed=3), drawn(3, modes + 1, seed=4))
        expected = direct(a, b, v, g, 0.01, causal)
        s = spectrum_of(g.to(device), 0.01)
        for wide in (False, True):
            given = (a.double(), b.double(), v) if wide else (a, b, v)
            given = [z.to(device) for z in given]
            found = spectral_kernel_attention(*given, s, causal=causal, chunk=chunk, method=method)
            assert found.dtype is torch.float32
            assert apart(found, expected) < 1e-5
        if device == "cpu" and length == 97:
            found = spectral_kernel_attention(
                a.double(),
                b.double(),
                v.double(),
                spectrum_of(g.to(torch.complex128), 0.01),
                causal=causal,
                method=method,
            )
            assert apart(found, expected) < 1e-11


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", DEVICES)
def test_layers_are_their_formula(device, form):
    for modes, method, length in ((32, None, 201), (16, "nufft", 70), (80, None, 129)):
        torch.manual_seed(modes)
        layer = form(12, heads=3, modes=modes, method=method).to(device)
        x = drawn(2, length, 12)
        assert apart(layer(x.to(device)), by_hand(layer, x)) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_blocks_change_nothing(form, monkeypatch):
    torch.manual_seed(0)
    layer, x = form(8, heads=2, modes=7), drawn(2, 150, 8).requires_grad_()
    found, slopes = [], []
    for size in (1, 1 << 40):
        monkeypatch.setattr("adaptive_compute.nn.spectral_kernel.CPU_BYTES", size)
        found.append(layer(x))
        slopes.append(torch.autograd.grad(found[-1].square().sum(), [x, *layer.parameters()]))
    assert torch.allclose(*found, atol=1e-6)
    for one, other in zip(*slopes):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_far_positions_keep_their_phase():
    torch.manual_seed(0)
    layer = nn.CausalSpectralAttention(4, heads=2, modes=16)
    x = drawn(1, 20_000, 4)
    x[:, 17] = x[:, 19_017]
    found = phases(layer.positions(x)[0][0, :, [17, 19_017]], 16)
    angle = torch.arange(17) * 19_000 * layer.rate.detach().double()[:, None]
    assert (found[:, 1] - found[:, 0] * torch.exp(1j * angle)).abs().max() < 1e-6


def test_like_finds_like_at_first():
    torch.manual_seed(0)
    layer = nn.SpectralAttention(16, heads=8, modes=32)
    assert (layer.rate == 0).sum() == 4
    x = drawn(1, 40, 16)
    a, b = layer.positions(x)
    assert torch.equal(a, b)
    g = torch.complex(*layer.kernel[0].detach().double().T)
    content = kernel(a[0, 0].detach()[:, None] - b[0, 0].detach(), g, layer.floor)
    assert (content.argmax(1) == torch.arange(40)).all()


@pytest.mark.parametrize(("form", "method"), list(itertools.product(FORMS, ["nufft", "direct"])))
def test_gradients(form, method, monkeypatch):
    torch.manual_seed(0)
    layer = form(4, heads=2, modes=5, method=method).double()
    layer.chunk = 3
    monkeypatch.setattr("adaptive_compute.nn.spectral_kernel.CPU_BYTES", 1)
    monkeypatch.setattr("adaptive_compute.nn.spectral_kernel.CHUNK", 3)
    names, values = zip(*layer.named_parameters())
    x = drawn(2, 7, 4, dtype=torch.float64).requires_grad_()

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values), atol=1e-6, nondet_tol=1e-12, fast_mode=True)


def test_phases_and_spectrum():
    t = 1e4 * drawn(5)
    exact = torch.exp(1j * t.double()[:, None] * torch.arange(41))
    assert (phases(t, 40) - exact).abs().max() < 3e-7
    g = torch.complex(drawn(6), drawn(6, seed=1)).to(torch.complex128)
    s, t = spectrum_of(g, 0.25), torch.linspace(-4, 4, 50, dtype=torch.float64)
    series = s[0].real + 2 * (s[1:] * torch.exp(1j * t[:, None] * torch.arange(1, 6))).sum(-1).real
    assert torch.allclose(series, kernel(t, g, 0.25), rtol=1e-12)
    assert torch.autograd.gradcheck(lambda t: phases(t, 6, t.dtype), (drawn(3, dtype=torch.float64).requires_grad_(),))


@pytest.mark.parametrize("method", ["nufft", "direct"])
def test_the_causal_form_is_certified(method):
    torch.manual_seed(0)
    layer = nn.CausalSpectralAttention(4, heads=2, modes=6, method=method)
    layer.chunk = 16
    shape, positions = (2, 53, 4), (1, 16, 17, 40) if method == "nufft" else None
    report = nn.certify_causal(layer, shape, positions=positions)
    assert report.causal, str(report)
    other = nn.SpectralAttention(4, heads=2, modes=6, method=method)
    assert not nn.certify_causal(other, shape, positions=positions).causal


def test_the_causal_form_keeps_every_bit_of_the_past():
    torch.manual_seed(0)
    layer, x = nn.CausalSpectralAttention(8, heads=2), drawn(1, 300, 8)
    changed = x.clone()
    changed[:, 150:] += 100
    assert torch.equal(layer(x)[:, :150], layer(changed)[:, :150])
    assert not torch.equal(layer(x)[:, 150:], layer(changed)[:, 150:])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_and_empty_batches(form, device):
    torch.manual_seed(0)
    layer, x = form(8, heads=2).to(device), drawn(2, 65, 8).to(device)
    expected = layer(x)
    assert layer(x[:0]).shape == (0, 65, 8)
    with torch.autocast(device, torch.bfloat16):
        inside = layer(x)
    assert inside.dtype is torch.bfloat16
    assert (inside - expected).norm() < 2e-2 * expected.norm()
    for dtype, bound in ((torch.bfloat16, 1e-2), (torch.float16, 1e-3)):
        narrow = form(8, heads=2).to(device, dtype)
        narrow.load_state_dict(layer.state_dict())
        found = narrow(x.to(dtype))
        assert found.dtype is dtype
        assert apart(found, by_hand(narrow, x.to(dtype))) < bound


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, in forward mode
@pytest.mark.parametrize(("form", "method"), list(itertools.product(FORMS, ["nufft", "direct"])))
def test_torch_func_looks_into_them(form, method):
    torch.manual_seed(0)
    layer, x = form(4, heads=2, modes=5, method=method).double(), drawn(2, 9, 4, dtype=torch.float64)
    wanted = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x)[0]
    x = x.detach()
    assert torch.allclose(torch.func.grad(lambda x: layer(x).square().sum())(x), wanted, atol=1e-9)
    assert torch.allclose(torch.func.vmap(lambda one: layer(one[None])[0])(x), layer(x), atol=1e-9)
    near = (layer(x + 1e-6 * wanted) - layer(x - 1e-6 * wanted)) / 2e-6
    assert torch.allclose(torch.func.jvp(layer, (x,), (wanted,))[1], near, atol=1e-6)


def test_what_is_refused():
    layer = nn.SpectralAttention(8, max_length=9)
    for x, error, words in (
        (drawn(1, 9, 7), ShapeError, "dim 8"),
        (drawn(1, 10, 8), ShapeError, "max_length=9"),
        (drawn(9, 8), ShapeError, "batch, length, dim"),
        (drawn(1, 0, 8), ShapeError, "at least one position"),
        (drawn(1, 9, 8).double(), DtypeError, "float64"),
        (torch.ones(1, 9, 8, device="meta"), BackendUnavailable, "meta"),
        (torch.ones(1, 9, 8, dtype=torch.int64), DtypeError, "int64"),
        ([[1.0]], ArgumentTypeError, "list"),
    ):
        with pytest.raises(error, match=words):
            layer(x)
    for wrong, words in (
        ({"heads": 3}, "heads must divide dim=8"),
        ({"modes": 0}, "modes"),
        ({"floor": 0.0}, "floor"),
        ({"method": "fft"}, "'nufft', 'direct'"),
    ):
        with pytest.raises(ArgumentError, match=words):
            nn.SpectralAttention(8, **wrong)
    with pytest.raises(ShapeError, match="groups, length"):
        spectral_kernel_attention(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 3, 1), torch.ones(2, 4) + 0j)
    with pytest.raises(ArgumentError, match="method"):
        spectral_kernel_attention(*[torch.ones(1, 1)] * 2, torch.ones(1, 1, 1), torch.ones(1, 2) + 0j, method="x")
