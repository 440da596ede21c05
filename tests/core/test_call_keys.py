"""Calls that were seen before go straight to their plan, with tensors as with NumPy arrays, and only where they may."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import adaptive_compute as ac
from adaptive_compute.core.array import call_key
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import AdaptiveError

CALLS = {
    "fft": ac.fft,
    "fft2": ac.fft2,
    "fftn": lambda x: ac.fftn(x, (3, 5), (1, 0), "ortho"),
    "sum": lambda x: ac.sum(x, axis=0),
    "evaluate": lambda x: ac.evaluate("2*x + sin(x)", x=x),
    "attention": lambda x: ac.attention(x, x, x, mask=ac.Causal()),
}


def exact(name, x):
    """Return a call's result in float64 by NumPy."""
    x = np.asarray(x, np.float64)
    if name == "attention":
        scores = np.where(np.tri(len(x), dtype=bool), np.exp(x @ x.T / np.sqrt(x.shape[1])), 0)
        return scores / scores.sum(1, keepdims=True) @ x
    if name == "fftn":
        return np.fft.fftn(x, (3, 5), (1, 0), "ortho")
    return {"fft": np.fft.fft, "fft2": np.fft.fft2, "sum": lambda x: x.sum(0), "evaluate": lambda x: 2 * x + np.sin(x)}[
        name
    ](x)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [torch.from_numpy, lambda x: x], ids=["torch", "numpy"])
def test_a_repeated_call_asks_no_router_and_is_right(name, kind, monkeypatch):
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((6, 4)) for _ in range(2))
    for _ in range(3):  # the first calls of a process make kinds of arrays known
        CALLS[name](kind(first))
    monkeypatch.setattr(dispatcher, "request", None)
    found = CALLS[name](kind(second))
    assert type(found) is type(kind(second))
    assert np.allclose(np.asarray(found), exact(name, second), rtol=1e-12)


def test_a_known_transform_excuses_no_argument_of_another_type():
    x = np.ones((4, 4))
    for _ in range(2):
        ac.fftn(x)
        ac.fftn(x, (2, 2), (0, 1))
        ac.fft(x, 2, 1)
    with pytest.raises(TypeError, match="axis must be a whole number"):
        ac.fft(x, None, None)
    with pytest.raises(TypeError, match="s must be a sequence of whole numbers"):
        ac.fftn(x, (2.0, 2), (0, 1))
    with pytest.raises(TypeError, match="axes must be a sequence of whole numbers"):
        ac.fftn(x, (2, 2), (0, 1.0))
    assert ac.fftn(x, [2, 2], [0, 1]).shape == (2, 2)
    assert ac.fftn(x, 2, 1).shape == ac.fft(x, 2, 1).shape == (4, 2)


@pytest.mark.parametrize("kind", [torch.from_numpy, lambda x: x], ids=["torch", "numpy"])
def test_numbers_beside_arrays_may_change_from_call_to_call(kind, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(5)

    def call(s, n, t):
        return np.asarray(ac.evaluate("s*x + n - t/x", s=s, x=kind(x), n=n, t=t))

    for _ in range(3):
        call(2.0, 3, 0.5)
    monkeypatch.setattr(dispatcher, "request", None)
    for s, t in ((2.0, 0.5), (-0.0, 7.0), (1e300, np.pi)):
        assert np.allclose(call(s, 3, t), s * x + 3 - t / x, rtol=1e-14)
    with pytest.raises(TypeError, match="NoneType"):  # whole numbers are part of the expression
        call(2.0, 4, 0.5)
    monkeypatch.undo()
    for s, n, t in (
        (2.0, 4, 0.5),
        (2, 3, 0.5),
        (2.0, True, 0.5),
        (1j, 3, 0.5),
        (np.float64(2), 3, 0.5),
        (2.0, 3.0, 0.5),
    ):
        for _ in range(2):
            assert np.allclose(call(s, n, t), s * x + n - t / x, rtol=1e-14)


def test_numbers_alone_are_an_array_of_no_axes():
    for _ in range(3):
        assert ac.add(2.0, 3.0) == 5
        assert ac.add(2, 3) == 5
        assert ac.add(2.0, 4.0) == 6


@pytest.mark.parametrize("name", CALLS)
def test_what_differs_is_looked_at_again(name):
    x = torch.randn(6, 4, dtype=torch.float64)
    for y in (x, x[:5], x.float(), x.T.contiguous(), x.T, x[::2]):
        for _ in range(2):
            found = CALLS[name](y)
            assert np.allclose(found.numpy(), exact(name, y), atol=1e-5)
            assert found.dtype in (y.dtype, {torch.float32: torch.complex64}.get(y.dtype, torch.complex128))
    z = torch.randn(6, 4, dtype=torch.complex128)
    if name != "attention":
        for y in (z, z.conj(), z, z.conj()):
            assert torch.allclose(CALLS[name](y), CALLS[name](y.resolve_conj()))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_seen_before_still_has_gradients(name):
    x = torch.randn(6, 4, dtype=torch.float64)
    CALLS[name](x)
    with torch.no_grad():
        assert not CALLS[name](x.clone().requires_grad_()).requires_grad
    leaf = x.clone().requires_grad_()
    out = CALLS[name](leaf)
    (torch.view_as_real(out) if out.is_complex() else out).square().sum().backward()
    assert leaf.grad.abs().sum() > 0


def test_a_call_seen_before_is_explained_and_follows_the_settings():
    x = torch.randn(6, 4)
    for _ in range(2):
        ac.fft(x)
    assert ac.explain(ac.fft, x).request.operands[0].kind == "torch"
    with ac.using("cpu", kernel="pocketfft"):
        assert torch.allclose(ac.fft(x), torch.fft.fft(x), atol=1e-5)


def test_keys_tell_what_decides_and_nothing_that_may_be_differentiated():
    x = torch.zeros(2, 3)
    assert call_key(x) == call_key(torch.ones(2, 3)) != call_key(x.double())
    assert call_key(x) != call_key(torch.zeros(2, 3, device="meta"))
    assert call_key(x) != call_key(x.to_sparse())
    assert call_key(torch.nn.Parameter(x)) is None
    assert call_key(x.clone().requires_grad_()) is None
    assert call_key(torch.nested.nested_tensor([x, x], layout=torch.jagged)) is None
    with torch.autograd.forward_ad.dual_level():
        assert call_key(x) is None
    assert call_key([1.0]) is None
    assert call_key(np.float64(1)) is None


def test_gathers_by_topologies_of_one_size_read_what_each_says():
    x = np.arange(12.0).reshape(4, 3)
    for index in ([0, 1, 2], [3, 3, 0], [2, 0, 1]):
        for axis, size in ((0, 4), (1, 3)):
            topology = ac.Topology.from_index(np.minimum(index, size - 1), size)
            for _ in range(2):
                assert np.array_equal(ac.gather(x, topology, axis), np.take(x, topology.index, axis))
    with pytest.raises(AdaptiveError, match="4"):
        ac.gather(x, ac.Topology.from_index([0, 1, 2], 3), 0)
