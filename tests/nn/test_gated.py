"""The gated convolution layer against its formula in loops, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from adaptive_compute import nn  # noqa: E402
from adaptive_compute.core.errors import NoProfileWarning  # noqa: E402

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")


def plain(tensor):
    return tensor.detach().double().numpy()


def by_the_sum(layer, x):
    """Return what the layer should give, position by position."""
    dim, order = layer.dim, layer.order
    z = plain(x) @ plain(layer.project.weight).T
    if layer.project.bias is not None:
        z += plain(layer.project.bias)
    short, h = plain(layer.short), plain(layer.filter.kernel()).reshape(order - 1, dim, -1)
    mixed = np.zeros_like(z)
    for t in range(z.shape[1]):
        for j in range(min(short.shape[1], t + 1)):
            mixed[:, t] += short[:, j] * z[:, t - j]
    parts = [mixed[..., i * dim : (i + 1) * dim] for i in range(order + 1)]
    v = parts[-1]
    for i in reversed(range(order - 1)):
        u = parts[i + 1] * v
        v = u * plain(layer.skip)[i]
        for t in range(z.shape[1]):
            for s in range(t + 1):
                v[:, t] += h[i, :, s] * u[:, t - s]
    y = (parts[0] * v) @ plain(layer.out.weight).T
    return y if layer.out.bias is None else y + plain(layer.out.bias)


OPTIONS = [
    {}, {"order": 3}, {"order": 4, "filter": "full"}, {"filter": "low-rank", "rank": 2}, {"filter": "multi-scale"},
    {"taps": 1, "bias": True}, {"taps": 7, "depth": 3},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("length", [1, 2, 93, 128])
def test_it_is_its_formula_to_1e_5_in_float32(options, length):
    torch.manual_seed(0)
    layer, x = nn.GatedConvolution(6, max_length=128, **options), torch.randn(2, length, 6)
    torch.nn.init.normal_(layer.skip)
    wanted = by_the_sum(layer, x)
    assert np.abs(plain(layer(x)) - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_in_float64(options):
    torch.manual_seed(0)
    small = {"width": 3, "bands": 2} if options.get("filter", "implicit") == "implicit" else {}
    layer = nn.GatedConvolution(2, max_length=7, **(options | small)).double()
    x = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), x)

    assert torch.autograd.gradcheck(call, (x, *parameters))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_it_keeps_the_projections_and_nothing_that_follows_from_them():
    layer, x = nn.GatedConvolution(32, max_length=512, filter="full"), torch.randn(2, 512, 32)
    kept: dict[int, int] = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    parameters = sum(p.numel() for p in layer.parameters())
    # Input, three streams, the result before the last projection; parameters, and the kernels with the skip once more.
    assert sum(kept.values()) <= 4 * (5 * x.numel() + parameters + 32 * 512)


def test_under_autocast_kernels_stay_in_float32():
    torch.manual_seed(0)
    layer, x = nn.GatedConvolution(16, max_length=300), torch.randn(2, 300, 16)
    wanted = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        assert layer.kernels().dtype == torch.float32
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).norm() < 2e-2 * wanted.norm()
    found.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
