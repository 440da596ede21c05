"""Gradients of every operation: against finite differences in float64 on the CPU, in float32 on the other backends."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install torch to test gradients")
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import adaptive_compute as ac  # noqa: E402
from adaptive_compute.core.errors import BackendUnavailable, NoKernelError  # noqa: E402
from adaptive_compute.core.registry import registry  # noqa: E402
from tests.integrations.gradient_cases import CASES, QUICK, parts  # noqa: E402

# Of float32 slopes, of the loss and of its gradient, relative to the gradient and the step.
CLOSE = 2e-4
SOFTWARE = QUICK - {"function", "where", "complex expression", "power, broadcast"}


@pytest.mark.parametrize("case", parts(every=1, without={"3d3 of a stack"}))
def test_gradients_and_second_gradients(case):
    operands = [operand.requires_grad_() for operand in case.operands()]
    with ac.using(threads=1):
        assert gradcheck(case.function, operands, fast_mode=True)
        assert gradgradcheck(case.function, operands, fast_mode=True)


def loss(result, weights):
    """Return a real number that depends on every element of a result, and not linearly."""
    part = (result * weights).real if result.is_complex() else result * weights.real.to(result.dtype)
    return part.sum() + 0.5 * (result.abs() ** 2).sum()


def weights_of(case, operands):
    with torch.no_grad():
        result = case.function(*operands)
    return torch.randn(result.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))


def moved(operands, change, by):
    return [operand.detach() + by * part for operand, part in zip(operands, change)]


def inner(left, right):
    return sum((a.conj() * b).real.sum() if a.is_complex() else (a * b).sum() for a, b in zip(left, right))


def gradient(case, operands, weights, create_graph=False):
    operands = [operand if operand.requires_grad else operand.requires_grad_() for operand in operands]
    return torch.autograd.grad(loss(case.function(*operands), weights), operands, create_graph=create_graph)


def narrow(tensor, device):
    return tensor.to(device, torch.complex64 if tensor.is_complex() else torch.float32)


def deviations(case, backend):
    """Return how far the slope of the loss, and of the gradient along a direction, are from float64 differences."""
    operands = case.operands()
    weights = weights_of(case, operands)
    generator = torch.Generator().manual_seed(2)
    change, along = ([torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in operands] for _ in range(2))
    h = 1e-6
    with ac.using("cpu", threads=1):
        up, down = (moved(operands, change, by) for by in (h, -h))
        first = (loss(case.function(*up), weights) - loss(case.function(*down), weights)) / (2 * h)
        slopes = [inner(gradient(case, at, weights), along) for at in (up, down)]
        second = (slopes[0] - slopes[1]) / (2 * h)
        sizes = [sum(float(g.norm()) ** 2 for g in gradient(case, operands, weights)) ** 0.5]
    device = "cuda" if backend == "cuda" else "cpu"
    here = [narrow(o.detach(), device).requires_grad_() for o in operands]
    w, v, u = narrow(weights, device), [narrow(p, device) for p in change], [narrow(p, device) for p in along]
    with ac.using(backend):
        grads = gradient(case, here, w, create_graph=True)
        slope = inner(grads, u)
        found = inner(grads, v).item()
        again = torch.autograd.grad(slope, here, allow_unused=True)
    again = [torch.zeros_like(o) if g is None else g for g, o in zip(again, here)]
    assert all(g.device.type == device for g in (*grads, *again))
    length = sum(float(p.norm()) ** 2 for p in change) ** 0.5
    sizes.append(sum(float(g.norm()) ** 2 for g in again) ** 0.5)
    pairs = ((found, first), (inner(again, v).item(), second))
    return [abs(got - exact.item()) / max(size * length, 1e-3) for (got, exact), size in zip(pairs, sizes)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("backend", ["vulkan", "cuda"])
def test_slopes_in_single_precision(backend, case):
    try:
        software = registry.require(backend).software(f"{backend}:0")
    except BackendUnavailable as error:
        pytest.skip(f"{error}")
    if software and case.name not in SOFTWARE:
        pytest.skip("a driver that runs on the processor takes seconds to compile each shader; a GPU runs every case")
    try:
        first, second = deviations(case, backend)
    except NoKernelError as error:
        pytest.skip(f"no kernel of {backend}: {error}")
    assert first <= CLOSE
    assert second <= CLOSE
