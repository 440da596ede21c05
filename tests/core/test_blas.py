"""NumPy's matrix products in one thread: the count is lent and given back, whatever happens inside."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.cpu import blas


@pytest.fixture
def library():
    found = blas.openblas()
    if found is None:
        pytest.skip("this NumPy brings no OpenBLAS whose thread count can be changed; install NumPy's own wheel")
    before = found.get()
    found.set(2)
    yield found
    found.set(before)


def test_the_count_comes_back_after_an_error(library):
    with pytest.raises(KeyError), blas.one_thread() as had:
        assert had
        assert library.get() == 1
        raise KeyError
    assert library.get() == 2


def test_overlapping_blocks_of_several_threads_share_it(library):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with blas.one_thread():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        entered.wait()
    assert library.get() == 1  # the other still needs it
    leave.set()
    thread.join()
    assert library.get() == 2


def test_attention_gives_it_back(library):
    q = np.ones((4, 256, 32), np.float32)
    with ac.using(kernel="numpy-tiles"):
        ac.attention(q, q, q, mask=ac.Window(16))
    assert library.get() == 2


def test_without_it_products_are_cut_to_pieces(monkeypatch):
    from adaptive_compute.backends.cpu import attention

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 70, 90)), rng.standard_normal((2, 90, 300))
    largest = []
    matmul = np.matmul

    def noted(x, y, **kwargs):
        largest.append(x.shape[-2] * x.shape[-1] * y.shape[-1])
        return matmul(x, y, **kwargs)

    out = np.ones((2, 70, 300))
    monkeypatch.setattr(attention, "openblas", lambda: None)
    monkeypatch.setattr(np, "matmul", noted)
    attention._multiply(a, b, out, False)
    assert len(largest) > 1
    assert max(largest) <= attention.ONE_THREAD
    np.testing.assert_allclose(out, np.einsum("bij,bjk->bik", a, b), rtol=1e-12, atol=1e-12)
