"""What is left of a device's memory is asked before each allocation, because Kompute dies where there is none."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan.array import upload
from adaptive_compute.backends.vulkan.room import SPARE, Left, Room
from adaptive_compute.backends.vulkan.runtime import Runtime
from adaptive_compute.core.errors import DeviceOutOfMemory

DEVICE = "vulkan:0"
GIB = 1 << 30


@pytest.fixture
def fresh():
    opened = Runtime(0, DEVICE)
    yield opened
    opened.close()


class Driver:
    """Answers as a driver does: memory types as (flags, heap), budget and usage of each heap."""

    def __init__(self, types, budget, usage):
        self.types, self.budget, self.usage = types, budget, usage

    def vkGetPhysicalDeviceMemoryProperties2(self, device, properties):  # noqa: N802
        kind, following = struct.unpack_from("<I4xQ", properties, 0)
        assert kind == 1000059006
        struct.pack_into("<I", properties, 16, len(self.types))
        for index, pair in enumerate(self.types):
            struct.pack_into("<2I", properties, 20 + 8 * index, *pair)
        chained = (ctypes.c_char * 272).from_address(following)
        assert struct.unpack_from("<I", chained, 0) == (1000237000,)
        struct.pack_into("<16Q", chained, 16, *self.budget, *[0] * (16 - len(self.budget)))
        struct.pack_into("<16Q", chained, 144, *self.usage, *[0] * (16 - len(self.usage)))

    def vkDestroyInstance(self, instance, allocator):  # noqa: N802
        pass


def told_by(*what):
    """Return what is left where a driver answers so."""
    room = Room(0)
    room.close()
    room._vk, room.told, room._instance = Driver(*what), True, ctypes.c_void_p(1)
    return room.left()


def test_a_card_of_its_own_has_two_heaps():
    types = [(0, 1), (1, 0), (6, 1), (14, 1)]
    assert told_by(types, [80 * GIB, 96 * GIB], [79 * GIB, 6 * GIB]) == Left(1 * GIB, 90 * GIB, False)


def test_memory_shared_with_the_host_is_counted_once():
    left = told_by([(7, 0)], [4 * GIB], [3 * GIB])
    assert left == Left(GIB, GIB, True)
    assert left.lacks(GIB // 2, 0) is None
    assert "1024.0 MiB asked for, 1024.0 MiB are left" in left.lacks(GIB // 2, GIB // 2)


def test_more_in_use_than_the_budget_is_nothing_left():
    assert told_by([(1, 0), (6, 1)], [GIB, GIB], [2 * GIB, 0]) == Left(0, GIB, False)


def test_what_is_lacking_is_said():
    left = Left(GIB, 1 << 20, False)
    assert left.lacks(GIB - SPARE, 0) is None
    assert "device's memory" in left.lacks(GIB - SPARE + 1, 0)
    assert "staging memory" in left.lacks(1 << 21, 1 << 21)


def test_the_driver_is_believed_where_it_tells():
    room = Room(0)
    left = room.left()
    room.close()
    assert (left is None) is not room.told
    if left is not None:
        assert left.device > 0
        assert left.staging > 0


def test_without_room_nothing_is_asked_of_kompute(fresh, monkeypatch):
    free = fresh.take(1 << 16)
    fresh.release(free)
    monkeypatch.setattr(fresh._kompute.room, "left", lambda: Left(SPARE, GIB, False))
    monkeypatch.setattr(fresh._kompute, "manager", None)  # any use of it would raise AttributeError
    with pytest.raises(DeviceOutOfMemory, match=r"allocating 1048576 bytes: 1\.0 MiB asked for, 32\.0 MiB are left"):
        fresh.take(1 << 20)
    assert fresh.held_bytes() == 0, "the pool was emptied first"
    monkeypatch.undo()
    assert fresh.take(1 << 20).capacity == 1 << 20


def test_room_that_the_pool_gives_back_is_used(fresh, monkeypatch):
    fresh.release(fresh.take(1 << 16))
    monkeypatch.setattr(
        fresh._kompute.room, "left", lambda: Left(SPARE + (0 if fresh.pool._free_bytes else GIB), GIB, False)
    )
    assert fresh.take(1 << 20).capacity == 1 << 20


def test_no_pipeline_is_built_without_room(monkeypatch):
    from adaptive_compute.backends.vulkan.runtime import runtime

    owner = runtime(DEVICE)
    x = upload(np.arange(37, dtype=np.float32), DEVICE)
    with ac.using(device=DEVICE):
        ac.add(x, x)  # memory for the next result is in the pool then
        monkeypatch.setattr(owner._kompute.room, "left", lambda: Left(SPARE - 1, GIB, False))
        with pytest.raises(DeviceOutOfMemory, match="has no room"):
            ac.evaluate("x*x*x - x", x=x)
        monkeypatch.undo()
        assert ac.evaluate("x*x*x - x", x=x).shape == (37,)
