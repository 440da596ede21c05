"""Small copies by few steps, with a GPU that is host memory: each way gives the same bytes or says that it cannot."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from adaptive_compute.backends.cuda import pinned as pinned_module
from adaptive_compute.backends.cuda import small

torch = pytest.importorskip("torch")


class Memory:
    """The driver's part: copies at once, and which ways were taken."""

    def __init__(self):
        self.ways = []

    def copy(self, target, source, nbytes):
        ctypes.memmove(target, source, nbytes)
        return True

    def pageable_up(self, target, source, nbytes, stream, foreign):
        self.ways.append("foreign" if foreign else "own")
        return self.copy(target, source, nbytes)

    def up_now(self, target, source, nbytes, stream):
        self.ways.append("locked")
        return self.copy(target, source, nbytes)

    def down_now(self, target, source, nbytes, stream):
        self.ways.append("scratch")
        return self.copy(target, source, nbytes)

    def pin(self, address, nbytes):
        return True

    def unpin(self, address):
        pass


@pytest.fixture
def gpu(monkeypatch):
    memory, empty = Memory(), torch.empty
    for module in (small, pinned_module):
        monkeypatch.setattr(module, "driver", lambda: memory)
    monkeypatch.setattr(small, "pinned", pinned_module.Pinned(1 << 30))
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: -1, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, raising=False)
    small.release()
    yield memory
    small.release()


def test_arrays_go_up_by_the_way_that_their_memory_allows(gpu):
    rng = np.random.default_rng(0)
    lent = torch.from_numpy(rng.integers(0, 255, (7, 9), np.uint8)).clone().numpy()  # torch's memory
    large = torch.from_numpy(rng.integers(0, 255, (3 << 14,), np.uint8)).clone().numpy()
    owned = rng.integers(0, 255, small.LEAST_PINNED, np.uint8)
    matrix, number = rng.standard_normal((3, 4)), np.full((), 3.0)
    for host, way in ((lent, "own"), (large, "foreign"), (matrix, "own"), (number, "own")):
        assert small.up(host, "cpu") is None  # not met yet
        there = small.up(host, "cpu")
        assert gpu.ways == [way]
        assert np.array_equal(there.numpy(), host)
        assert there.shape == host.shape
        gpu.ways.clear()
    small.up(owned, "cpu")
    assert small.up(owned, "cpu") is None  # may be locked soon: the whole way counts that
    for _ in range(pinned_module.PAYS + 1):
        with small.pinned.using(owned):
            pass
    there = small.up(owned, "cpu")
    assert gpu.ways == ["locked"]
    assert np.array_equal(there.numpy(), owned)


def test_what_needs_the_whole_way_is_told(gpu):
    for host in (np.arange(12).reshape(3, 4).T, np.arange(12)[::2], np.empty((0, 3))):
        for _ in range(3):
            assert small.up(host, "cpu") is None
    lazy = torch.ones(3, dtype=torch.complex64).conj()
    for tensor in (torch.arange(12).reshape(3, 4).t(), lazy, torch.empty(0, 3)):
        assert small.down(tensor, tensor.nbytes, None) is None
    assert small.down(torch.ones(3), 12, np.zeros(3, np.float64)) is None
    assert small.down(torch.ones(3), 12, np.zeros(4, np.float32)) is None
    assert not gpu.ways


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex128, torch.bfloat16, torch.int16])
def test_small_results_come_down(gpu, dtype):
    for shape in ((), (5,), (3, 4)):
        for value in (0, 1):
            tensor = torch.full(shape, value).to(dtype)
            bits = tensor.view(torch.uint16) if dtype is torch.bfloat16 else tensor
            found = small.down(tensor, tensor.nbytes, None)
            assert np.array_equal(found, bits.numpy())
            assert found.flags.owndata
            out = np.zeros(found.shape, found.dtype, order="F")
            assert small.down(tensor, tensor.nbytes, out) is out
            assert np.array_equal(out, found)
    assert set(gpu.ways) == {"scratch"}
