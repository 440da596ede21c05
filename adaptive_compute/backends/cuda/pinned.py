"""Host memory that is locked in its place after it was moved several times, so that the GPU reaches it by itself.

Beside an H100, locking 256 MiB took 13 ms and unlocking 5, of which each later transfer saves 3; of 16 MiB, 1.3 and
0.6, of which each saves 0.6. So memory is locked once three times its size has gone through buffers. Only memory that a
NumPy array owns, or the pool of results, is locked: it is known to be given back when that array is gone, and is
unlocked just before. (NumPy resizes no array in place that something watches.)
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...core.host_memory import owner_of
from ...core.staging import address_of
from .raw import driver

LEAST = 1 << 20  # bytes of memory that is worth it
PAYS = 3  # times its size that has gone through buffers before


def _most() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
    except (AttributeError, OSError, ValueError):
        return 1 << 30


class _Memory:
    """What is known of the memory of one array."""

    __slots__ = ("address", "moved", "nbytes", "owner", "pinned", "used")

    def __init__(self, owner: weakref.ref[np.ndarray], address: int, nbytes: int) -> None:
        self.owner, self.address, self.nbytes = owner, address, nbytes
        self.moved = 0  # bytes that went through buffers; negative where it cannot be locked
        self.pinned = False
        self.used = 0  # transfers that use it at this moment


class Held:
    """Locked memory that stays so until the end of a block."""

    __slots__ = ("_lock", "_memory", "address")

    def __init__(self, lock: threading.RLock, memory: _Memory) -> None:
        self._lock, self._memory, self.address = lock, memory, memory.address

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._memory.used -= 1


class Pinned:
    """The memory that was moved, by its owner, and which of it is locked.

    Parameters
    ----------
    most : int, optional
        Bytes that may be locked at once; by default an eighth of the machine's memory.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = _most() if most is None else most
        self.total = 0
        self._known: dict[int, _Memory] = {}
        self._lock = threading.RLock()  # an array may be collected, which takes it, in the middle of anything

    @contextmanager
    def using(self, array: np.ndarray) -> Iterator[bool]:
        """Tell whether the GPU may read and write an array's memory by itself inside the block; count the transfer."""
        memory = self._find(array)
        try:
            yield memory is not None and memory.pinned
        finally:
            if memory is not None:
                with self._lock:
                    memory.used -= 1

    def held(self, array: np.ndarray) -> Held | None:
        """Return the locked memory of an array that owns it, to be used in a ``with``; None where it is not locked."""
        memory = self._known.get(id(array))
        if memory is None or not memory.pinned or memory.owner() is not array:
            return None
        with self._lock:
            if not memory.pinned:
                return None
            memory.used += 1
            return Held(self._lock, memory)

    def _find(self, array: np.ndarray) -> _Memory | None:
        """Return what is known of the memory, marked as in use and locked if it is time; None of memory of others."""
        if array.nbytes < LEAST:
            return None
        owner = owner_of(array)
        if owner is None or not owner.flags.writeable:
            return None
        key, address, nbytes = id(owner), address_of(owner), owner.nbytes
        with self._lock:
            memory = self._known.get(key)
            if memory is None:
                memory = _Memory(weakref.ref(owner, lambda gone: self._forget(key, gone)), address, nbytes)
                self._known[key] = memory
            memory.used += 1
            if memory.pinned or memory.moved < 0:
                return memory
            memory.moved += array.nbytes
            if memory.moved <= PAYS * nbytes:
                return memory
            self._make_room(nbytes)
            if self.total + nbytes > self.most:
                return memory
            memory.moved = -1
            memory.pinned = driver().pin(address, nbytes)
            self.total += nbytes if memory.pinned else 0
            return memory

    def _make_room(self, nbytes: int) -> None:
        """Unlock what was locked first, until so much more may be locked."""
        for memory in [m for m in self._known.values() if m.pinned and not m.used]:
            if self.total + nbytes <= self.most:
                return
            self._unpin(memory)

    def _unpin(self, memory: _Memory) -> None:
        driver().unpin(memory.address)
        memory.pinned, memory.moved = False, 0
        self.total -= memory.nbytes

    def _forget(self, key: int, gone: Any = None, *, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """Unlock memory whose owner is about to give it back."""
        if ending():  # the driver takes everything back, and may be gone already
            return
        with self._lock:
            memory = self._known.get(key)
            if memory is None or (gone is not None and memory.owner is not gone):
                return
            del self._known[key]
            if memory.pinned:
                self._unpin(memory)

    def clear(self) -> None:
        """Unlock everything that no transfer uses."""
        with self._lock:
            for key, memory in list(self._known.items()):
                if not memory.used:
                    if memory.pinned:
                        self._unpin(memory)
                    del self._known[key]


pinned = Pinned()

if hasattr(os, "register_at_fork"):
    # Locked pages that parent and child share would become the child's where a kernel copies them on the first write.
    os.register_at_fork(before=pinned.clear)
