"""Which host memory is locked and when it is unlocked, against a driver that only keeps a list."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

from adaptive_compute.backends.cuda import pinned as module
from adaptive_compute.backends.cuda.pinned import LEAST, PAYS, Pinned
from adaptive_compute.core.host_memory import MemoryPool, owner_of
from adaptive_compute.core.staging import address_of


class Driver:
    def __init__(self):
        self.locked, self.refuses, self.events = {}, False, []

    def pin(self, address, nbytes):
        if self.refuses:
            return False
        assert address not in self.locked
        self.locked[address] = nbytes
        self.events.append("pin")
        return True

    def unpin(self, address):
        del self.locked[address]
        self.events.append("unpin")


@pytest.fixture
def driver(monkeypatch):
    found = Driver()
    monkeypatch.setattr(module, "driver", lambda: found)
    return found


def moved(pinned, array, times=1):
    for _ in range(times):
        with pinned.using(array) as locked:
            pass
    return locked


def test_memory_is_locked_when_it_was_moved_often_enough_and_unlocked_with_its_array(driver):
    pinned, array = Pinned(1 << 30), np.empty(LEAST, np.uint8)
    assert not moved(pinned, array, PAYS)
    assert moved(pinned, array)
    assert driver.locked == {address_of(array): LEAST}
    assert pinned.total == LEAST
    del array
    gc.collect()
    assert not driver.locked
    assert pinned.total == 0


def test_small_arrays_and_memory_of_others_are_left_alone(driver):
    pinned = Pinned(1 << 30)
    whole = bytearray(2 * LEAST)
    read_only = np.empty(LEAST, np.uint8)
    read_only.flags.writeable = False
    for array in (np.empty(LEAST - 1, np.uint8), np.frombuffer(whole, np.uint8), read_only):
        assert not moved(pinned, array, 3 * PAYS)
    assert not driver.locked


def test_views_count_for_the_array_that_owns_their_memory(driver):
    pinned, array = Pinned(1 << 30), np.empty((4, LEAST), np.uint8)
    for turn in range(4 * PAYS):
        assert not moved(pinned, array[turn % 4])
    assert moved(pinned, array[2:].T)
    assert list(driver.locked) == [address_of(array)]
    view = array[1]
    del array
    gc.collect()
    assert driver.locked, "the view still needs the memory"
    del view
    gc.collect()
    assert not driver.locked


def test_a_pools_memory_stays_locked_from_one_result_to_the_next(driver):
    pinned, pool = Pinned(1 << 30), MemoryPool(8 * LEAST)
    for turn in range(PAYS + 3):
        result = pool.empty((LEAST // 4,), np.float32)
        assert moved(pinned, result[::2] if turn > PAYS else result) == (turn >= PAYS and turn == PAYS) or turn > PAYS
        del result
    assert driver.events == ["pin"]
    pool.clear()
    gc.collect()
    assert driver.events == ["pin", "unpin"]


def test_no_more_is_locked_than_allowed_and_what_is_in_use_stays(driver):
    pinned = Pinned(2 * LEAST)
    a, b, c = (np.empty(LEAST, np.uint8) for _ in range(3))
    for array in (a, b):
        assert moved(pinned, array, PAYS + 1)
    with pinned.using(a) as locked:
        assert locked
        assert moved(pinned, c, PAYS + 1)
        assert set(driver.locked) == {address_of(a), address_of(c)}
    with pinned.using(a), pinned.using(c):
        assert not moved(pinned, b, 3 * PAYS)
    assert sum(driver.locked.values()) == pinned.total == 2 * LEAST


def test_memory_that_is_held_stays_locked(driver):
    pinned, array, other = Pinned(LEAST), np.empty(LEAST, np.uint8), np.empty(LEAST, np.uint8)
    assert pinned.held(array) is None
    moved(pinned, array, PAYS)
    assert pinned.held(array) is None
    moved(pinned, array)
    held = pinned.held(array)
    assert held.address == address_of(array)
    assert pinned.held(array[:10]) is None  # not the owner
    with held:
        assert not moved(pinned, other, PAYS + 1)  # there is room for one, which is in use
        assert pinned.held(array) is not None
    with pinned.held(array):
        pass
    assert driver.locked == {address_of(array): LEAST}


def test_memory_that_cannot_be_locked_is_tried_once(driver):
    pinned, array = Pinned(1 << 30), np.empty(LEAST, np.uint8)
    driver.refuses = True
    assert not moved(pinned, array, 2 * PAYS)
    driver.refuses = False
    assert not moved(pinned, array, 2 * PAYS)
    assert pinned.total == 0


def test_numpy_resizes_no_array_that_is_watched(driver):
    pinned, array = Pinned(1 << 30), np.empty(LEAST, np.uint8)
    assert moved(pinned, array, PAYS + 1)
    with pytest.raises(ValueError, match="resize"):
        array.resize(4 * LEAST)
    assert driver.locked


def test_everything_is_unlocked_on_request_and_before_a_fork(driver, monkeypatch):
    pinned, array = Pinned(1 << 30), np.empty(LEAST, np.uint8)
    assert moved(pinned, array, PAYS + 1)
    pinned.clear()
    assert not driver.locked
    assert not moved(pinned, array, PAYS)
    if hasattr(os, "fork"):
        monkeypatch.setattr(module.pinned, "_known", {})
        monkeypatch.setattr(module.pinned, "total", 0)
        monkeypatch.setattr(module.pinned, "most", 1 << 30)
        assert moved(module.pinned, array, PAYS + 1)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        assert not driver.locked


def test_the_owner_of_memory():
    array = np.empty((4, 4))
    assert owner_of(array[1:].T) is array
    assert owner_of(np.frombuffer(b"abcd", np.uint8)) is None
    leased = MemoryPool(1 << 24).empty((1 << 20,), np.uint8)
    owner = owner_of(leased[5:])
    assert owner is not None
    assert owner.flags.owndata
    assert address_of(owner) == address_of(leased)
