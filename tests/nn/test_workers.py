"""Blocks are shared out between threads: the same results, settings and thread counts as before."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

import adaptive_compute as ac  # noqa: E402
from adaptive_compute import nn  # noqa: E402
from adaptive_compute.core.errors import NoProfileWarning  # noqa: E402
from adaptive_compute.nn import blocks, workers  # noqa: E402

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")


@pytest.fixture(autouse=True)
def two_threads(one_thread):
    torch.set_num_threads(2)
    with ac.using(threads=2):
        yield


def test_every_number_is_taken_once_by_threads_with_one_thread_each():
    taken, meet = [], threading.Barrier(2, timeout=10)

    def lane(numbers):
        meet.wait()  # both threads take part
        taken.extend((n, torch.get_num_threads(), torch.is_grad_enabled(), ac.settings.tol) for n in numbers)

    with ac.using(tol=0.5):
        workers.share(50, lane)
    assert sorted(taken) == [(number, 1, False, 0.5) for number in range(50)]
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("fails", ["caller", "other"])
def test_an_error_in_any_thread_is_raised_and_thread_counts_are_restored(fails):
    caller, meet = threading.current_thread(), threading.Barrier(2, timeout=10)

    def lane(numbers):
        meet.wait()
        if (threading.current_thread() is caller) == (fails == "caller"):
            raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        workers.share(8, lane)
    assert torch.get_num_threads() == 2


def test_convolutions_are_the_same_with_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(blocks, "CACHED_BLOCK", 1 << 12)
    monkeypatch.setattr(blocks, "FEWEST_ROWS", 1)
    torch.manual_seed(0)
    z, short, h = torch.randn(48, 3, 100), torch.randn(48, 3), torch.randn(1, 16, 100)
    operands = [x.requires_grad_() for x in (z, short, h)]

    def both():
        y = nn.gated_convolution(*operands)
        return [y, *torch.autograd.grad(y.square().sum(), operands)]

    shared = both()
    with ac.using(threads=1):
        alone = both()
    assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True))
    with torch.inference_mode():
        assert torch.equal(nn.gated_convolution(*operands), alone[0])


def test_lengths_at_which_torch_is_not_exact_enough_use_another_transform():
    u, h = torch.zeros(1, 1 << 19), torch.tensor([[0.5]])
    u[0, 5] = 2
    y = nn.causal_convolution(u, torch.nn.functional.pad(h, (0, (1 << 19) - 1)))
    assert float(y[0, 5]) == pytest.approx(1, abs=1e-5)
    assert float(y.abs().sum()) == pytest.approx(1, abs=1e-2)
