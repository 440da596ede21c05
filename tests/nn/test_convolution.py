"""Causal convolution by FFT against the sum that defines it: values, gradients, blocks, other devices, bad input."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

import adaptive_compute as ac  # noqa: E402
from adaptive_compute import nn  # noqa: E402
from adaptive_compute.core.errors import (  # noqa: E402
    ArgumentTypeError,
    BackendUnavailable,
    DtypeError,
    NoProfileWarning,
    ShapeError,
)
from adaptive_compute.nn import blocks  # noqa: E402

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")
DOUBLE = torch.float64


def direct(u, h):
    """Return ``y[t] = sum_s h[s] u[t - s]`` as the sum says."""
    y = torch.zeros_like(u)
    for s in range(min(u.shape[-1], h.shape[-1])):
        y[..., s:] += h[..., s : s + 1] * u[..., : u.shape[-1] - s]
    return y


def direct_gated(z, short, h):
    dim = h.shape[1]
    *gates, v = (direct(z.transpose(0, 1), short)[:, i : i + dim] for i in range(0, len(z), dim))
    for gate, kernel in zip(reversed(gates[1:]), reversed(h)):
        v = direct(gate * v, kernel)
    return (gates[0] * v).transpose(0, 1)


def numbers(*shape, dtype=DOUBLE, grad=True):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_(grad)


def pulled(function, operands):
    """Return the result, and the gradients for a gradient of fixed random numbers."""
    y = function(*operands)
    return [y.detach(), *torch.autograd.grad(y, operands, numbers(*y.shape, grad=False).to(y.dtype))]


def agree(found, wanted, tolerance):
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).abs().max() <= tolerance * b.abs().max().clamp_min(1.0)


@pytest.mark.parametrize(("length", "taps"), [(1, 1), (2, 5), (7, 7), (100, 3), (129, 129), (1000, 1001)])
def test_it_is_the_sum_in_float32_and_float64(length, taps):
    u, h = numbers(3, 5, length), numbers(5, taps)
    wanted = pulled(direct, (u, h))
    agree(pulled(nn.causal_convolution, (u, h)), wanted, 1e-12)
    narrow = [x.detach().float().requires_grad_() for x in (u, h)]
    assert (nn.causal_convolution(*narrow).double() - wanted[0]).abs().max() < 1e-5 * wanted[0].abs().max().clamp_min(1)
    agree(pulled(nn.causal_convolution, narrow), wanted, 1e-5)


@pytest.mark.parametrize("shape", [(4, 9), (2, 4, 9), (2, 3, 4, 9)])
def test_any_number_of_leading_axes(shape):
    u, h = numbers(*shape), numbers(4, 9)
    agree([nn.causal_convolution(u, h)], [direct(u, h)], 1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_between_gates_it_is_the_formula(order):
    z, short, h = numbers((order + 1) * 3, 2, 50), numbers((order + 1) * 3, 4), numbers(order - 1, 3, 50)
    wanted = pulled(direct_gated, (z, short, h))
    agree(pulled(nn.gated_convolution, (z, short, h)), wanted, 1e-11)
    agree(pulled(nn.gated_convolution, [x.detach().float().requires_grad_() for x in (z, short, h)]), wanted, 2e-5)


def test_skip_is_added_to_the_first_value():
    z, short, h, skip = numbers(6, 2, 20), numbers(6, 3), numbers(1, 2, 20), numbers(1, 2)
    more = h + torch.nn.functional.pad(skip[..., None], (0, 19))
    agree([nn.gated_convolution(z, short, h, skip)], [direct_gated(z, short, more)], 1e-12)


@pytest.mark.parametrize("far", [False, True], ids=["processor", "pipeline"])
@pytest.mark.parametrize("rows", [1, 3, 10**6])
def test_blocks_of_any_size_give_the_same(monkeypatch, rows, far):
    """Three sequences of seven channels, so that blocks split channels or the batch, and the last is smaller."""
    monkeypatch.setattr(blocks.Blocks, "_goes_far", lambda self: far)
    monkeypatch.setattr(blocks, "FEWEST_ROWS", 1)
    for name in ("CACHED_BLOCK", "LARGE_BLOCK"):
        monkeypatch.setattr(blocks, name, rows * blocks.fast_length(2 * 33 - 1) * 8)
    z, short, h = numbers(21, 3, 33), numbers(21, 3), numbers(1, 7, 33)
    agree(pulled(nn.gated_convolution, (z, short, h)), pulled(direct_gated, (z, short, h)), 1e-12)
    u, h = numbers(3, 7, 33), numbers(7, 33)
    agree(pulled(nn.causal_convolution, (u, h)), pulled(direct, (u, h)), 1e-12)


def test_on_vulkan_it_is_one_pipeline_and_the_same():
    pytest.importorskip("kp", reason="Kompute is not installed (pip install kp==0.9.0)")
    u, h = numbers(2, 3, 100, dtype=torch.float32), numbers(3, 100, dtype=torch.float32)
    try:
        with ac.using("vulkan"):
            found = pulled(nn.causal_convolution, (u, h))
    except BackendUnavailable as reason:
        pytest.skip(f"no Vulkan device: {reason}")
    agree(found, pulled(direct, (u.detach().double().requires_grad_(), h.detach().double().requires_grad_())), 1e-5)


def test_gradients_of_both_orders():
    u, h = numbers(2, 2, 6), numbers(2, 4)
    assert torch.autograd.gradcheck(nn.causal_convolution, (u, h))
    assert torch.autograd.gradgradcheck(nn.causal_convolution, (u, h))
    z, short, h = numbers(6, 1, 5), numbers(6, 2), numbers(1, 2, 5)
    assert torch.autograd.gradcheck(nn.gated_convolution, (z, short, h))
    assert torch.autograd.gradgradcheck(nn.gated_convolution, (z, short, h))


def test_only_operands_are_kept_for_backward():
    u, h = numbers(2, 4, 64), numbers(4, 64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda x: x):
        nn.causal_convolution(u, h)
    assert sum(kept) == u.numel() + h.numel()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_transforms_of_functions():
    u, h = numbers(3, 2, 8, grad=False), numbers(2, 8, grad=False)
    agree([torch.func.vmap(nn.causal_convolution, (0, None))(u, h)], [direct(u, h)], 1e-12)
    _, change = torch.func.jvp(lambda x: nn.causal_convolution(x, h), (u,), (u.flip(0),))
    agree([change], [direct(u.flip(0), h)], 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_is_summed_in_float32(dtype, tolerance):
    operands = [x.detach().to(dtype).requires_grad_() for x in (numbers(6, 2, 500), numbers(6, 3), numbers(1, 2, 500))]
    found = nn.gated_convolution(*operands)
    wanted = direct_gated(*(x.double() for x in operands))
    assert found.dtype == dtype
    assert (found.double() - wanted).norm() < tolerance * wanted.norm()
    assert all(g.dtype == dtype for g in torch.autograd.grad(found.sum(), operands))


def test_an_empty_batch_has_an_empty_result():
    u, h = numbers(0, 3, 8), numbers(3, 8)
    assert nn.causal_convolution(u, h).shape == (0, 3, 8)
    assert nn.gated_convolution(numbers(9, 0, 8), numbers(9, 3), numbers(1, 3, 8)).shape == (3, 0, 8)


@pytest.mark.parametrize(
    ("u", "h", "error", "said"),
    [
        ([1.0], torch.ones(1, 1), ArgumentTypeError, "u must be a torch tensor, got list"),
        (torch.ones(1, 1), None, ArgumentTypeError, "h must be a torch tensor, got NoneType"),
        (torch.ones(1, 4), torch.ones(2, 4), ShapeError, r"u must be \(..., 2, length\)"),
        (torch.ones(1, 4), torch.ones(4), ShapeError, r"h must be \(dim, taps\)"),
        (torch.ones(1, 4), torch.ones(1, 0), ShapeError, "at least one tap"),
        (torch.ones(1, 0), torch.ones(1, 4), ShapeError, "at least one position"),
        (torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 4), DtypeError, "u has dtype torch.int64; accepted"),
        (torch.ones(1, 4, dtype=DOUBLE), torch.ones(1, 4), DtypeError, "h has dtype torch.float32"),
        (torch.ones(1, 4, device="meta"), torch.ones(1, 4), BackendUnavailable, "h is on cpu, u on meta"),
    ],
)
def test_bad_input_is_refused(u, h, error, said):
    with pytest.raises(error, match=said):
        nn.causal_convolution(u, h)


@pytest.mark.parametrize(
    ("z", "short", "h", "said"),
    [
        ((9, 1, 4), (9, 2), (3, 4), r"h must be \(order - 1, dim, taps\)"),
        ((8, 1, 4), (8, 2), (1, 3, 4), r"z must be \(3 \* 3, batch, length\)"),
        ((9, 1, 4), (8, 2), (1, 3, 4), r"short must be \(9, taps\)"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(z, short, h, said):
    with pytest.raises(ShapeError, match=said):
        nn.gated_convolution(torch.ones(z), torch.ones(short), torch.ones(h))


def test_operands_that_are_no_tensors_are_refused_by_name():
    z, short, h = torch.ones(3, 1, 4), torch.ones(3, 2), torch.ones(1, 1, 4)
    for operands, said in (
        ((z, [[1.0]], h), "short must be a torch tensor, got list"),
        ((z, short, h, [[1.0]]), "skip must be a torch tensor, got list"),
        ((z, short, h, torch.ones(1, 1).double()), "skip has dtype torch.float64, z have torch.float32"),
    ):
        with pytest.raises((ArgumentTypeError, DtypeError), match=said):
            nn.gated_convolution(*operands)


def test_fast_lengths_are_as_long_as_asked_and_not_much_longer():
    for least in range(1, 3000):
        length = blocks.fast_length(least)
        assert least <= length <= 1.25 * least + 1
        while length % 2 == 0:
            length //= 2
        assert length in (1, 3, 5, 9, 15)
