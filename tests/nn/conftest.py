"""What every test of a spectral layer runs under: one thread, because these layers are small and would only wait."""

from __future__ import annotations

import pytest

import adaptive_compute as ac


@pytest.fixture(autouse=True)
def one_thread():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ac.using(threads=1):
        yield
    torch.set_num_threads(threads)
