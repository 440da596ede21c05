"""Complex layers against their definitions in NumPy, PyTorch's gradient convention, rotations as relations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adaptive_compute import nn
from adaptive_compute.core.errors import ArgumentError, BackendUnavailable, DtypeError, ShapeError

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", CUDA]
FORMS = ["cartesian", "polar"]


def drawn(*shape, seed=0, dtype=torch.complex64):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)).to(dtype)


def numbers(layer):
    """The parameters as complex arrays: weight and bias."""
    given = {name: p.detach().double().cpu().numpy() for name, p in layer.named_parameters()}
    if layer.parametrisation == "polar":
        w = given["magnitude"] * np.exp(1j * given["phase"])
    else:
        w = given["parts"][..., 0] + 1j * given["parts"][..., 1]
    return w, given["bias"][..., 0] + 1j * given["bias"][..., 1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_a_complex_matrix(form, device):
    torch.manual_seed(0)
    layer = nn.ComplexLinear(7, 5, parametrisation=form).to(device)
    with torch.no_grad():
        layer.bias.normal_()
    w, b = numbers(layer)
    for x in (drawn(2, 9, 7), drawn(2, 9, 7).real, drawn(0, 9, 7)):
        expected = x.to(torch.complex128).numpy() @ w.T + b
        found = layer(x.to(device))
        assert found.dtype is torch.complex64
        assert np.linalg.norm(found.detach().cpu().numpy() - expected) <= 1e-6 * np.linalg.norm(expected)


def test_both_parametrisations_start_from_the_same_distribution():
    torch.manual_seed(0)
    for form in FORMS:
        w = nn.ComplexLinear(400, 100, parametrisation=form).weight.detach()
        assert float(w.abs().square().mean()) == pytest.approx(1 / 400, rel=0.02)
        assert float((w**2).mean().abs()) < 0.02 / 400  # no direction of the plane is preferred
        # The magnitude of a complex Gaussian: its mean square is 4 / pi of its squared mean.
        assert float(w.abs().mean()) == pytest.approx(math.sqrt(math.pi / 4 / 400), rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    torch.manual_seed(0)
    layer = nn.ComplexLinear(3, 2, parametrisation=form).double()
    names, values = zip(*layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    x = drawn(2, 3, 3, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values))
    table = nn.ComplexEmbedding(3, 5, 2).double()
    names_t, values_t = zip(*table.named_parameters())
    ids = torch.tensor([[0, 4], [4, 4]])

    def score(*values):
        return torch.func.functional_call(_Score(table), dict(zip((f"of.{n}" for n in names_t), values)), (ids,))

    assert torch.autograd.gradcheck(score, values_t)


class _Score(torch.nn.Module):
    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, ids):
        return self.of.score(ids[:, 0], ids[:, 1] % 2, ids[:, 1]), torch.view_as_real(self.of(ids))


def test_gradients_follow_pytorchs_convention():
    """dL/dRe z + i dL/dIm z = 2 dL/dz*: for L = |w z|^2 it is 2 |w|^2 z, and a holomorphic chain takes conj(w)."""
    z = drawn(6, dtype=torch.complex128).requires_grad_()
    w = drawn(6, seed=1, dtype=torch.complex128)

    def loss(z):
        return (w * z + z.conj() * 0.3j).abs().square().sum() + (z**3).real.sum()

    (found,) = torch.autograd.grad(loss(z), z)
    step, expected = 1e-6, []
    for n in range(6):
        moved = torch.zeros(6, dtype=torch.complex128)
        moved[n] = step
        by_real, by_imaginary = ((loss(z + m) - loss(z - m)).item() / (2 * step) for m in (moved, 1j * moved))
        expected.append(by_real + 1j * by_imaginary)
    assert np.allclose(found.numpy(), expected, atol=1e-7)
    (found,) = torch.autograd.grad((w * z).abs().square().sum(), z)
    assert torch.allclose(found, 2 * w.abs().square() * z.detach())
    given = drawn(6, seed=2, dtype=torch.complex128)
    (found,) = torch.autograd.grad(w * z, z, given)
    assert torch.allclose(found, given * w.conj())
    # And so through a layer: dL/dx = dL/dy conj(W).
    layer = nn.ComplexLinear(6, 4, parametrisation="polar").double()
    x = drawn(1, 1, 6, dtype=torch.complex128).requires_grad_()
    given = drawn(1, 1, 4, seed=3, dtype=torch.complex128)
    (found,) = torch.autograd.grad(layer(x), x, given)
    assert np.allclose(found.numpy(), given.numpy() @ numbers(layer)[0].conj())


def test_a_phase_is_learned_beyond_a_turn_where_the_loss_tells_turns_apart():
    """e^{i phase} knows the phase modulo 2 pi; together with e^{i phase / 8} it knows it modulo 16 pi."""
    target = 7.87
    for parts, end in ((torch.tensor([1.0]), target - 2 * math.pi), (torch.tensor([0.125, 0.25, 0.5, 1.0]), target)):
        phase = torch.zeros((), requires_grad=True)
        for _ in range(200):
            apart = torch.exp(1j * parts * phase) - torch.exp(1j * parts * target)
            (slope,) = torch.autograd.grad((apart.abs() / parts).square().sum(), phase)
            phase = (phase - 0.1 * slope).detach().requires_grad_()
        assert float(phase.detach()) == pytest.approx(end, abs=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_relations_are_rotations(device):
    torch.manual_seed(0)
    layer = nn.ComplexEmbedding(6, entities=9, relations=3).to(device)
    ids = torch.tensor([[1, 8, 0], [3, 3, 2]], device=device)
    table, angles = (p.detach().double().cpu().numpy() for p in (layer.table.weight, layer.angles))
    z = table[:, :6] + 1j * table[:, 6:]
    assert np.allclose(layer(ids).detach().cpu().numpy(), z[ids.cpu().numpy()], atol=1e-7)
    h, r, t = (torch.tensor(v, device=device) for v in ([0, 3, 8], [2, 0, 1], [4, 4, 4]))
    expected = -np.abs(z[[0, 3, 8]] * np.exp(1j * angles[[2, 0, 1]]) - z[[4]]).sum(-1)
    assert np.allclose(layer.score(h, r, t).detach().cpu().numpy(), expected, rtol=1e-5)
    assert layer.score(h[:, None], r[:, None], torch.arange(9, device=device)).shape == (3, 9)
    # They compose by adding angles, and every magnitude stays.
    with torch.no_grad():
        layer.angles[2] = layer.angles[0] + layer.angles[1]
        turned = layer.relate(layer.relate(layer(ids), torch.zeros_like(ids)), torch.ones_like(ids))
        assert torch.allclose(turned, layer.relate(layer(ids), 2 * torch.ones_like(ids)), atol=1e-5)
        assert torch.allclose(turned.abs(), layer(ids).abs(), atol=1e-5)
    assert layer(ids[:0]).shape == (0, 3, 6)


def test_what_is_refused():
    linear, table = nn.ComplexLinear(4, max_length=5), nn.ComplexEmbedding(4, 7, 2, max_length=5)
    for call, error, words in (
        (lambda: linear(drawn(1, 5, 3)), ShapeError, "dim 4"),
        (lambda: linear(drawn(1, 6, 4)), ShapeError, "max_length=5"),
        (lambda: linear(drawn(1, 5, 4).to(torch.complex128)), DtypeError, "complex128"),
        (lambda: linear(torch.ones(1, 5, 4, dtype=torch.bfloat16)), DtypeError, "bfloat16"),
        (lambda: linear(torch.ones(1, 5, 4, device="meta")), BackendUnavailable, "meta"),
        (lambda: nn.ComplexLinear(4, dtype=torch.float16), DtypeError, "no complex half"),
        (lambda: nn.ComplexLinear(4, parametrisation="euler"), ArgumentError, "'cartesian', 'polar'"),
        (lambda: nn.ComplexLinear(4, 0), ArgumentError, "out_dim"),
        (lambda: table(torch.tensor([1])), ShapeError, "batch, length"),
        (lambda: table(torch.zeros(1, 6, dtype=torch.int64)), ShapeError, "max_length=5"),
        (lambda: table(torch.ones(1, 2)), DtypeError, "float32"),
        (lambda: table([[1]]), DtypeError, "list"),
        (lambda: table(torch.tensor([[7]])), ArgumentError, "0 to 6"),
        (lambda: table.relate(table(torch.tensor([[1]])), torch.tensor([[2]])), ArgumentError, "relations"),
        (lambda: table(torch.zeros(1, 2, dtype=torch.int64, device="meta")), BackendUnavailable, "meta"),
        (lambda: nn.ComplexEmbedding(4, 0), ArgumentError, "entities"),
    ):
        with pytest.raises(error, match=words):
            call()
    linear.half()
    with pytest.raises(DtypeError, match="float16"):
        linear(torch.ones(1, 5, 4, dtype=torch.float16))
