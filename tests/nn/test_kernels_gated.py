"""The gated convolution's CUDA kernels, compiled for the processor, where a block's threads take turns at barriers."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from adaptive_compute import nn  # noqa: E402
from adaptive_compute.nn.kernels import compiled, gated_convolution, gated_convolution_long, gated_layer  # noqa: E402

SHIM = Path(__file__).parent / "cuda_on_host.hpp"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ (apt install g++) to compile CUDA with")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def on_host(folder, monkeypatch):
    """Let the kernels' launches run on the processor."""

    def launcher(files, constants, index):
        return host_launcher(folder, compiled.source(files), constants)

    for module in (gated_convolution, gated_convolution_long):
        monkeypatch.setattr(module, "launcher", launcher)
    monkeypatch.setattr(gated_convolution, "shared_memory", lambda index: 227 << 10)
    gated_convolution.plan_of.cache_clear()
    yield
    gated_convolution.plan_of.cache_clear()


def host_launcher(folder, text, constants):
    """Compile a CUDA source with g++ and return what starts its kernels."""
    name = "_".join(f"{key}{value}" for key, value in constants.items())
    library = folder / f"{name}.so"
    if not library.exists():
        entries = re.findall(r'^extern "C" __global__.*\n(\w+)\(', text, re.MULTILINE)
        assert entries
        whole = f'#include "{SHIM}"\n{text}\n' + "\n".join(f"LAUNCH({entry})" for entry in entries)
        library.with_suffix(".cpp").write_text(whole)
        macros = [f"-D{key}={value}" for key, value in constants.items()]
        options = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run(["g++", *options, *macros, str(library.with_suffix(".cpp"))], check=True, timeout=120)
    made = ctypes.CDLL(str(library))

    def launch(name, grid, threads, shared, arguments):
        values = [
            ctypes.c_void_p(x.data_ptr()) if isinstance(x, torch.Tensor) else ctypes.c_longlong(x) for x in arguments
        ]
        places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        assert shared <= 16384 * 16, shared
        assert getattr(made, f"launch_{name}")(*grid, threads, places) == 0, f"{name}: threads part at a barrier"

    return launch


def convolve(h, u):
    """Causal convolution along the last axis, cut at the input's length, by NumPy's FFT of twice the length."""
    n = h.shape[-1] + u.shape[-1]
    return np.fft.irfft(np.fft.rfft(h, n) * np.fft.rfft(u, n), n)[..., : u.shape[-1]]


def correlate(h, g):
    """Return the adjoint of ``convolve``: what g, run backwards, gives."""
    return convolve(h, g[..., ::-1])[..., ::-1]


def reference(z, short, h, g):
    """Return result and gradients in float64 by their formulas: z (3, dim, batch, length), short (3, dim, taps)."""
    lags = range(short.shape[-1])
    length = z.shape[-1]
    later = [np.concatenate([np.zeros_like(z[..., :j]), z[..., : max(length - j, 0)]], -1)[..., :length] for j in lags]
    x0, x1, v = sum(short[:, :, None, j, None] * later[j] for j in lags)
    u, taps = x1 * v, h[:, None]
    y = convolve(taps, u)
    du = correlate(taps, g * x0)
    grads = np.stack([g * y, du * v, du * x1])
    dz = sum(correlate(np.eye(1, j + 1, j), short[:, :, None, j, None] * grads) for j in lags)
    dshort = np.stack([(grads * later[j]).sum((-1, -2)) for j in lags], -1)
    dh = correlate(u, g * x0).sum(1)[:, : h.shape[1]]
    dh = np.concatenate([dh, np.zeros((len(h), h.shape[1] - dh.shape[1]))], 1)
    return x0 * y, dz, dshort, dh


def check(batch, length, dim, dtype, taps=3, long=None, layout="rows"):
    """Compare a call and its gradients with the reference, each within what its dtype's rounding gives."""
    rng = np.random.default_rng(0)
    z, g = (
        torch.from_numpy(rng.standard_normal(shape)).to(dtype)
        for shape in ((3 * dim, batch, length), (dim, batch, length))
    )
    if layout == "batches":  # (batch, 3 dim, length) in memory
        z = z.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "channels":  # channels lie side by side: a copy is made
        z, g = (x.permute(1, 2, 0).contiguous().permute(2, 0, 1) for x in (z, g))
    short = torch.from_numpy(rng.standard_normal((3 * dim, taps))).float()
    h = torch.from_numpy(rng.standard_normal((1, dim, long or length))).float()
    skip = torch.from_numpy(rng.standard_normal((1, dim))).float()
    leaves = [x.requires_grad_() for x in (z, short, h, skip)]
    out = gated_convolution.fused_gated_convolution(*leaves)
    out.backward(g)
    found = out.detach(), *(x.grad for x in leaves)
    wide = [x.detach().double().numpy() for x in (z, short, h[0], g, skip)]
    wide[2][:, 0] += wide[4][0]
    wanted = reference(wide[0].reshape(3, dim, batch, length), wide[1].reshape(3, dim, taps), wide[2], wide[3])
    rounding = 2.5e-3 if dtype == torch.bfloat16 else 2e-6  # bfloat16's own is 1.7e-3 of uniformly spread values
    wanted = *wanted, wanted[3][:, :1]
    bounds = rounding, rounding, 2e-6, 2e-6, 1e-4  # of the skip's few values, sums of many, some are small
    for name, a, b, most in zip(("out", "z", "short", "h", "skip"), found, wanted, bounds):
        a, b = a.double().numpy().ravel(), b.ravel()
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error < most, (name, error)


@needs_compiler
@pytest.mark.parametrize(
    ("batch", "length", "dim", "dtype", "options"),
    [
        (5, 256, 9, torch.float32, {}),  # a block of 8 channels and one of 1
        (2, 101, 3, torch.float32, {"long": 30}),  # no packs of 16 bytes; zeros behind the sequence and the filter
        (1, 1, 1, torch.float32, {"long": 4}),
        (3, 200, 2, torch.float32, {"layout": "batches"}),
        (3, 512, 5, torch.bfloat16, {"layout": "channels", "long": 600}),
        (2, 1500, 1, torch.bfloat16, {}),
        (2, 9001, 1, torch.bfloat16, {"long": 5000}),  # by steps through memory
    ],
)
def test_result_and_gradients(on_host, batch, length, dim, dtype, options):
    check(batch, length, dim, dtype, **options)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_batches_in_parts(on_host, monkeypatch, dtype):
    """Several groups of items, each with a partial sum of the filter's gradient, the last one smaller."""
    monkeypatch.setattr(gated_convolution, "BLOCKS", 3)
    assert gated_convolution.parts(7, 3) == 3
    check(7, 250, 2, dtype)


@needs_compiler
def test_little_shared_memory(on_host, monkeypatch):
    """Where a block has less, as on older GPUs, 4096 points take the steps through memory."""
    monkeypatch.setattr(gated_convolution, "shared_memory", lambda index: 64 << 10)
    assert isinstance(gated_convolution.plan_of(4096, 0, 3, 0, True), gated_convolution_long.Plan)
    assert isinstance(gated_convolution.plan_of(2048, 0, 3, 0, True), gated_convolution.Plan)
    check(1, 4096, 1, torch.float32)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch", "length", "dim", "dtype", "taps"),
    [
        (2, 1024, 3, torch.bfloat16, 4),
        (1, 4000, 2, torch.float32, 1),
        (2, 8192, 1, torch.bfloat16, 3),
        (1, 16384, 2, torch.float32, 2),
        (1, 32767, 1, torch.bfloat16, 3),
        (2, 65536, 1, torch.float32, 3),
        (1, 200_000, 1, torch.float32, 3),
    ],
)
def test_every_length(on_host, batch, length, dim, dtype, taps):
    check(batch, length, dim, dtype, taps)


@needs_compiler
def test_later_positions_change_nothing_earlier(on_host):
    z, short, h = torch.randn(6, 1, 300), torch.randn(6, 3), torch.randn(1, 2, 300)
    changed = z.clone()
    changed[..., 200:] *= -1
    first, second = (gated_convolution.fused_gated_convolution(x, short, h) for x in (z, changed))
    assert not torch.equal(first, second)
    # A transform's rounding is that of the whole sequence's size, which is some 30 here.
    torch.testing.assert_close(first[..., :200], second[..., :200], atol=1e-4, rtol=0)


@needs_compiler
def test_gradients_are_the_same_every_time(on_host):
    z, short, h = torch.randn(6, 3, 256), torch.randn(6, 3), torch.randn(1, 2, 256)

    def gradients():
        leaves = [x.clone().requires_grad_() for x in (z, short, h)]
        out = gated_convolution.fused_gated_convolution(*leaves)
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients()))


@needs_compiler
def test_second_gradient(on_host):
    shapes = (6, 1, 64), (6, 3), (1, 2, 64), (1, 2)
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def plain(z, short, h, skip):
        return nn.convolution._plain_gated(z, short, nn.convolution.with_skip(h, skip))

    fused = gated_convolution.fused_gated_convolution
    for a, b in zip(second_gradients(fused, leaves), second_gradients(plain, leaves)):
        assert (a - b).norm() < 1e-5 * b.norm()


@needs_compiler
@pytest.mark.parametrize("length", [256, 100])
def test_whole_layer(on_host, length):
    """The layer as one node, against the layer's calls one by one."""
    torch.manual_seed(0)
    layer = nn.GatedConvolution(4, max_length=256, filter="full")
    x, grad = torch.randn(2, length, 4, requires_grad=True), torch.randn(2, length, 4)
    leaves = [x, layer.project.weight, layer.short, layer.filter.weight, layer.skip, layer.out.weight]

    def fused(x, project, short, h, skip, out):
        return gated_layer.fused_layer(x, project, short, h[None], skip, out)

    for found, wanted in zip(with_gradients(fused(*leaves), leaves, grad), with_gradients(layer(x), leaves, grad)):
        assert (found - wanted).norm() < 2e-6 * wanted.norm() + 1e-6


@needs_compiler
def test_whole_layer_in_mixed_precision(on_host, monkeypatch):
    """What autocast makes of it: parameters in float32, products in bfloat16."""
    monkeypatch.setattr(gated_layer, "_dtype", lambda x: torch.bfloat16)
    torch.manual_seed(0)
    layer = nn.GatedConvolution(4, max_length=256, filter="full")
    x, grad = torch.randn(2, 256, 4, requires_grad=True), torch.randn(2, 256, 4)
    leaves = [x, layer.project.weight, layer.short, layer.filter.weight, layer.skip, layer.out.weight]
    narrow, h = x.detach().bfloat16().requires_grad_(), layer.filter.weight[None]
    out = gated_layer.fused_layer(narrow, layer.project.weight, layer.short, h, layer.skip, layer.out.weight)
    assert out.dtype == torch.bfloat16
    found = with_gradients(out, [narrow, *leaves[1:]], grad.bfloat16())
    assert [part.dtype for part in found[1:]] == [torch.bfloat16, *[torch.float32] * 5]
    for a, b in zip(found, with_gradients(layer(x), leaves, grad)):
        assert (a.float() - b).norm() < 2e-2 * b.norm()


@needs_compiler
def test_second_gradient_of_the_whole_layer(on_host):
    shapes = (1, 32, 2), (6, 2), (6, 3), (1, 2, 32), (1, 2), (2, 2)
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def plain(x, project, short, h, skip, out):
        z = (project @ x.flatten(0, 1).T).view(6, 1, 32)
        y = nn.convolution._plain_gated(z, short, nn.convolution.with_skip(h, skip))
        return (out @ y.flatten(1)).T.view(x.shape)

    for a, b in zip(second_gradients(gated_layer.fused_layer, leaves), second_gradients(plain, leaves)):
        assert (a - b).norm() < 1e-5 * b.norm()


def with_gradients(out, leaves, grad):
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def second_gradients(function, leaves):
    first = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True)
    return torch.autograd.grad(sum(x.square().sum() for x in first), leaves)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, True),
        ({"z.device": SimpleNamespace(type="cpu")}, False),
        ({"z.dtype": torch.float64}, False),
        ({"z.dtype": torch.float16}, False),
        ({"z.shape": (6, 1, 1 << 18)}, True),
        ({"z.shape": (6, 1, (1 << 18) + 1)}, False),
        ({"z.shape": (6, 65536, 8)}, False),
        ({"short.shape": (6, 9)}, False),
        ({"h.shape": (2, 2, 8)}, False),
    ],
)
def test_what_is_supported(monkeypatch, changes, answer):
    monkeypatch.setattr(gated_convolution, "find_spec", lambda name: name == "cupy")
    z = SimpleNamespace(device=SimpleNamespace(type="cuda"), dtype=torch.bfloat16, shape=(6, 1, 8))
    call = {"z": z, "short": SimpleNamespace(shape=(6, 3)), "h": SimpleNamespace(shape=(1, 2, 8))}
    for place, value in changes.items():
        operand, attribute = place.split(".")
        setattr(call[operand], attribute, value)
    assert gated_convolution.supports(**call) is answer
    monkeypatch.setattr(gated_convolution, "find_spec", lambda name: None)
    assert gated_convolution.supports(**call) is False
