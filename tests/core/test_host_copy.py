"""Copies in host memory, by one thread and by several."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core import host_copy
from adaptive_compute.core.transfer import copy_host

SIZES = [0, 1, 4095, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 * (1 << 20) + 4097]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 1, 3000])
def test_every_byte_arrives_and_no_other_is_touched(size, offset, threads):
    rng = np.random.default_rng(size + offset)
    source = rng.integers(0, 255, size, np.uint8)
    around = np.full(size + offset + 64, 255, np.uint8)
    with ac.using(threads=threads):
        copy_host(around[offset : offset + size], source)
    assert np.array_equal(around[offset : offset + size], source)
    assert np.all(around[:offset] == 255)
    assert np.all(around[offset + size :] == 255)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2],
        lambda x: x[:, ::-1],
        lambda x: x.transpose(2, 0, 1),
        lambda x: x[:1].transpose(1, 0, 2),
        lambda x: np.broadcast_to(x[:, :1], x.shape),
        lambda x: np.asfortranarray(x),
    ],
)
@pytest.mark.parametrize("into", ["C", "F"])
def test_any_layout(view, into):
    source = view(np.random.default_rng(0).standard_normal((64, 96, 128)))
    target = np.empty(source.shape, source.dtype, into)
    with ac.using(threads=3):
        copy_host(target, source)
    assert np.array_equal(target, source)


def test_a_copy_of_another_shape_or_dtype_is_refused():
    with pytest.raises(ValueError, match=r"cannot copy float64\(3,\) into float64\(4,\)"):
        copy_host(np.zeros(4), np.zeros(3))
    with pytest.raises(ValueError, match="float32"):
        copy_host(np.zeros(4), np.zeros(4, np.float32))


def test_the_settings_decide_how_many_threads_copy(monkeypatch):
    used = set()
    move = host_copy.ctypes.memmove

    def spy(*arguments):
        used.add(threading.get_ident())
        return move(*arguments)

    monkeypatch.setattr(host_copy.ctypes, "memmove", spy)
    source = np.ones(8 << 20, np.uint8)
    with ac.using(threads=1):
        copy_host(np.empty_like(source), source)
    assert used == {threading.get_ident()}
    assert len(host_copy._parts(np.empty_like(source), source, 3)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_copies_with_threads_of_its_own():
    source = np.arange(4 << 20, dtype=np.uint8)
    with ac.using(threads=2):
        copy_host(np.empty_like(source), source)
        child = os.fork()
        if child == 0:
            target = np.zeros_like(source)
            copy_host(target, source)
            os._exit(0 if np.array_equal(target, source) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_constant_is_the_array_that_was_marked_and_no_other():
    from adaptive_compute.core.transfer import is_constant

    topology = ac.Topology.from_index([0, 0, 1], 2)
    assert is_constant(topology.index)
    assert is_constant(topology.starts)
    assert not is_constant(topology.index.copy())
    for array in (topology.index, topology.starts):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
