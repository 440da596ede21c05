"""Host memory of large results, used again when they are gone.

The first touch of fresh memory costs a page fault each 4 KiB, which for a large result takes longer than computing it.
So the memory of large results comes from a pool and returns to it when the last array that views it is collected.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np

# Below this a result comes from the allocator's own free lists, which hold pages that were touched before.
SMALLEST = 1 << 18


class _Lease:
    """Owns a buffer of the pool for as long as an array views it; an array's ``base`` points here."""

    def __init__(self, pool: MemoryPool, buffer: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._pool = pool
        self._buffer = buffer
        self.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "version": 3,
            "data": (buffer.__array_interface__["data"][0], False),
        }  # fmt: skip

    @property
    def buffer(self) -> np.ndarray:
        """The pool's memory."""
        return self._buffer

    def __del__(self) -> None:
        self._pool.give_back(self._buffer)


class MemoryPool:
    """Buffers of collected results, kept for the next results of about the same size.

    Parameters
    ----------
    limit : int
        Bytes that idle buffers may hold together; the ones that have been idle longest go first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.idle_bytes = 0
        self._idle: dict[int, list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an uninitialised array in C order."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < SMALLEST:
            return np.empty(shape, dtype)
        size = _size_class(nbytes)
        with self._lock:
            buffers = self._idle.get(size)
            buffer = buffers.pop() if buffers else None
            if buffer is not None:
                self.idle_bytes -= size
        if buffer is None:
            buffer = np.empty(size, np.uint8)
        return np.asarray(_Lease(self, buffer, shape, dtype))

    def give_back(self, buffer: np.ndarray) -> None:
        """Keep a buffer for later, or let it go."""
        # A collector run inside ``empty`` may end here on the thread that holds the lock: then the buffer is let go.
        if not self._lock.acquire(blocking=False):
            return
        try:
            size = buffer.nbytes
            if size > self.limit:
                return
            while self.idle_bytes + size > self.limit:
                oldest = next(iter(self._idle))
                buffers = self._idle[oldest]
                if buffers:
                    buffers.pop()
                    self.idle_bytes -= oldest
                if not buffers:
                    del self._idle[oldest]
            buffers = self._idle.pop(size, [])
            buffers.append(buffer)
            self._idle[size] = buffers  # at the end: most recently used
            self.idle_bytes += size
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Let every idle buffer go."""
        with self._lock:
            self._idle.clear()
            self.idle_bytes = 0


def owner_of(array: np.ndarray) -> np.ndarray | None:
    """Return the array whose end is the end of this array's memory: itself, one that it views, or a pool's buffer.

    None where the memory belongs to something else, which may give it back at any time.
    """
    owner: Any = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if isinstance(owner.base, _Lease):
        return owner.base.buffer
    return owner if owner.base is None and owner.flags.owndata else None


def _size_class(nbytes: int) -> int:
    """Round up to one of eight sizes between powers of two, so that nearly equal results share buffers."""
    step = 1 << max(nbytes.bit_length() - 4, 12)
    return -(-nbytes // step) * step


def _memory_limit() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        physical = 4 << 30
    return min(1 << 30, physical // 8)


results = MemoryPool(_memory_limit())


def _after_fork() -> None:
    """Start anew in a forked child, where the pool's lock may be held for ever."""
    MemoryPool.__init__(results, results.limit)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
