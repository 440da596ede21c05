"""torch.func over this library: vmap, jvp, vjp, grad, jacrev, jacfwd, hessian, and torch's forward mode."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch to test torch.func")
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402

import adaptive_compute as ac  # noqa: E402
from tests.integrations.gradient_cases import CASES, parts  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, on its first use
PARTS = parts(every=4, without={"3d3", "3d3 of a stack"})


def loss(result):
    return (result.abs() ** 2).sum() if result.is_complex() else result.square().sum()


def close(found, expected):
    return bool((found - expected).norm() <= 1e-9 * max(float(expected.norm()), 1e-3))


def inner(left, right):
    return sum((a.conj() * b).real.sum() for a, b in zip(left, right))


@pytest.mark.parametrize("case", PARTS)
def test_vmap_is_a_loop_of_calls(case):
    operands = case.operands()
    stacks = [torch.stack([operand, operand * 1.01, operand * 0.98]) for operand in operands]
    last = [stack.movedim(0, -1) for stack in stacks]
    with ac.using(threads=1):
        each = torch.stack([case.function(*(stack[i] for stack in stacks)) for i in range(3)])
        assert close(vmap(case.function)(*stacks), each)
        assert close(vmap(case.function, in_dims=-1, out_dims=-1)(*last).movedim(-1, 0), each)
        for place in range(len(operands)):  # one operand alone has an axis over calls
            some = [stacks[place] if i == place else operand for i, operand in enumerate(operands)]
            dims = tuple(0 if i == place else None for i in range(len(operands)))
            each = [case.function(*(a[n] if d == 0 else a for a, d in zip(some, dims))) for n in range(3)]
            assert close(vmap(case.function, in_dims=dims)(*some), torch.stack(each))


@pytest.mark.parametrize("case", PARTS)
def test_gradients_under_vmap(case):
    operands = case.operands()
    stacks = [torch.stack([operand, operand * 1.01]) for operand in operands]
    places = tuple(range(len(operands)))

    def gradient(*x):
        return grad(lambda *x: loss(case.function(*x)), argnums=places)(*x)

    with ac.using(threads=1):
        found = vmap(gradient)(*stacks)
        for n in range(2):
            here = [stack[n].detach().requires_grad_() for stack in stacks]
            expected = torch.autograd.grad(loss(case.function(*here)), here)
            assert all(close(f[n], e) for f, e in zip(found, expected))
        shared = vmap(gradient, in_dims=(0, *[None] * (len(operands) - 1)))(stacks[0], *operands[1:])
        here = [stacks[0][1], *operands[1:]]
        assert all(close(f[1], e) for f, e in zip(shared, gradient(*here)))


@pytest.mark.parametrize("case", PARTS)
def test_forward_mode_against_finite_differences(case):
    operands = case.operands()
    generator = torch.Generator().manual_seed(5)
    change = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in operands]
    h = 1e-6
    with ac.using(threads=1):
        up, down = (case.function(*(o + s * c for o, c in zip(operands, change))) for s in (h, -h))
        result, found = jvp(case.function, tuple(operands), tuple(change))
        assert close(result, case.function(*operands))
        assert (found - (up - down) / (2 * h)).norm() <= 1e-7 * max(float(found.norm()), 1e-2)
        one = (change[0], *(torch.zeros_like(c) for c in change[1:]))  # and one operand alone that changes
        alone = jvp(lambda x: case.function(x, *operands[1:]), (operands[0],), (change[0],))[1]
        assert close(alone, jvp(case.function, tuple(operands), one)[1])


@pytest.mark.parametrize("case", PARTS)
def test_forward_and_reverse_mode_are_adjoint(case):
    operands = case.operands()
    generator = torch.Generator().manual_seed(5)
    change = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in operands]
    with ac.using(threads=1):
        result, moved = jvp(case.function, tuple(operands), tuple(change))
        weights = torch.randn(result.shape, dtype=result.dtype, generator=generator)
        back = vjp(case.function, *operands)[1](weights)
    assert abs(inner([weights], [moved]) - inner(back, change)) <= 1e-9 * max(weights.norm() * moved.norm(), 1e-3)


SOME = [case for case in CASES if case.name in ("plain", "expression", "logsumexp rows", "1d3", "gather")]


@pytest.mark.parametrize("case", SOME, ids=str)
def test_jacobians_and_hessians_agree_in_every_mode(case):
    x, *rest = case.operands()

    def function(x):
        return torch.view_as_real(y) if (y := case.function(x, *rest)).is_complex() else y

    with ac.using(threads=1):
        assert close(jacrev(function)(x), jacfwd(function)(x))
        of_loss = lambda x: loss(case.function(x, *rest))  # noqa: E731
        expected = torch.autograd.functional.hessian(of_loss, x)
        for found in (hessian(of_loss), jacrev(jacfwd(of_loss)), jacrev(grad(of_loss))):
            assert close(found(x), expected)


def test_vmap_of_vmap():
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert close(vmap(vmap(ac.rfft), in_dims=1, out_dims=1)(x), ac.rfft(x))


def test_vmap_over_an_index():
    x, index = torch.randn(2, 5, 3), torch.tensor([[0, 4], [2, 2]])
    assert torch.equal(vmap(ac.gather)(x, index), torch.stack([x[0][index[0]], x[1][index[1]]]))
    found = vmap(lambda v, i: ac.segment_sum(v, i, 3))(torch.ones(2, 2), torch.tensor([[0, 2], [1, 1]]))
    assert found.tolist() == [[1, 0, 1], [0, 2, 0]]
    with pytest.raises(ValueError, match=r"index\[1\] = 5"):
        vmap(ac.gather)(x, torch.tensor([[0, 4], [2, 5]]))
    with pytest.raises(ValueError, match="size is needed where index has no values yet"):
        vmap(ac.scatter_add)(torch.ones(2, 2), index)


def test_vmap_over_a_mask():
    q, keep = torch.randn(2, 3, 4, dtype=torch.float64), torch.rand(5, 3, 3) < 0.5
    found = vmap(lambda m: ac.attention(q, q, q, mask=m))(keep)
    assert close(found, torch.stack([ac.attention(q, q, q, mask=m) for m in keep]))


def test_vmap_over_no_calls():
    assert vmap(ac.fft)(torch.ones(0, 4)).shape == (0, 4)
    with pytest.raises(ValueError, match="vmap over no elements"):
        vmap(ac.gather)(torch.ones(0, 4), torch.ones(0, 2, dtype=torch.int64))


def test_forward_mode_of_what_stays():
    index = np.array([0, 1, 1])
    result, change = jvp(lambda x: ac.floor(x) + 0 * ac.segment_sum(x, index, 3), (torch.ones(3),), (torch.ones(3),))
    assert result.tolist() == [1.0, 1.0, 1.0]
    assert change.tolist() == [0.0, 0.0, 0.0]


def test_forward_mode_over_duals():
    import torch.autograd.forward_ad as forward

    with forward.dual_level():
        x = forward.make_dual(torch.randn(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
        assert close(forward.unpack_dual(ac.fft(x)).tangent.real, torch.tensor([4.0, 0, 0, 0], dtype=torch.float64))


def test_a_mapped_function_that_cannot_be_traced():
    @ac.elementwise
    def function(x):
        return torch.special.bessel_j0(x)

    x = torch.rand(3, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match="cannot be traced"):
        each = function(x)
    assert close(vmap(function)(x), each)
