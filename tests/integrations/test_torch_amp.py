"""Automatic mixed precision: what each family does inside torch.autocast, on the CPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install torch to test torch.autocast")

import adaptive_compute as ac  # noqa: E402

HALF = torch.bfloat16


def autocast():
    return torch.autocast("cpu", dtype=HALF)


def half(*shape):
    return torch.randn(*shape).to(HALF).requires_grad_()


@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        (lambda: ac.fft(half(8)), torch.complex64),
        (lambda: ac.irfft(torch.randn(5, dtype=torch.complex64, requires_grad=True)), torch.float32),
        (lambda: ac.nufft.nufft1d1(half(8), torch.randn(8, dtype=torch.complex64), 5), torch.complex64),
        (lambda: ac.nufft.nufft1d3(half(8), torch.randn(8, dtype=torch.complex64), half(3)), torch.complex64),
        (lambda: ac.attention(half(2, 4, 8), torch.randn(2, 4, 8), half(2, 4, 8)), HALF),
        (lambda: ac.attention(*[torch.randn(4, 8)] * 3, bias=half(4, 4).float()), HALF),
        (lambda: ac.attention(*[torch.randn(4, 8, dtype=torch.float64)] * 3), torch.float64),
        (lambda: ac.sin(half(8)), HALF),
        (lambda: ac.add(half(8), torch.randn(8)), torch.float32),
        (lambda: ac.evaluate("a*b", a=half(8), b=half(8)), HALF),
        (lambda: ac.sum(half(8)), torch.float32),
        (lambda: ac.logsumexp(half(8)), torch.float32),
        (lambda: ac.gather(half(8), [1, 1]), HALF),
        (lambda: ac.segment_sum(half(3), [0, 0, 1]), HALF),
    ],
)
def test_dtypes(call, dtype):
    with autocast():
        assert call().dtype is dtype


def test_outside_of_a_region_nothing_is_cast():
    with pytest.raises(TypeError, match="they must agree"):
        ac.attention(half(2, 4, 8), torch.randn(2, 4, 8), half(2, 4, 8))
    with autocast(), torch.autocast("cpu", enabled=False), pytest.raises(TypeError, match="they must agree"):
        ac.attention(half(2, 4, 8), torch.randn(2, 4, 8), half(2, 4, 8))
    assert ac.sum(half(8)).dtype is HALF


def test_gradients_have_the_operands_dtypes_and_the_calls_precision():
    q, k, v = (torch.randn(2, 6, 8, requires_grad=True) for _ in range(3))
    with autocast():
        ac.attention(q, k, v, is_causal=True).float().square().sum().backward()
    exact = [x.detach().to(HALF).double().requires_grad_() for x in (q, k, v)]
    ac.attention(*exact, is_causal=True).square().sum().backward()
    for x, e in zip((q, k, v), exact):
        assert x.grad.dtype is torch.float32
        assert (x.grad - e.grad).norm() <= 0.02 * e.grad.norm()


def test_second_gradients_inside_a_region_are_not_rounded_on_the_way():
    q, k, v = (torch.randn(1, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    found = []
    for region in (autocast(), torch.autocast("cpu", enabled=False)):
        with region:
            (first,) = torch.autograd.grad(ac.attention(q, k, v).square().sum(), q, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), k)
        found.append(second)
    torch.testing.assert_close(*found)


def test_a_call_seen_before_is_cast_all_the_same():
    q = torch.randn(2, 4, 8)
    assert ac.attention(q, q, q).dtype is torch.float32
    with autocast():
        assert ac.attention(q, q, q).dtype is HALF
        assert ac.attention(q, q, q).dtype is HALF
    assert ac.attention(q, q, q).dtype is torch.float32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inside_a_graph():
    q = torch.randn(2, 4, 8, requires_grad=True)

    def step(q):
        with torch.autocast("cpu", dtype=HALF):
            return ac.attention(q, q, q)

    found = torch.compile(step, fullgraph=True, backend="aot_eager")(q)
    assert found.dtype is HALF
    torch.testing.assert_close(found, step(q))
    found.float().sum().backward()
    assert q.grad.dtype is torch.float32
