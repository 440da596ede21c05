"""Copies between ordinary host memory and a device through pinned buffers, in chunks.

A device reads and writes pinned memory at the full speed of its link, and ordinary memory several times slower. So
each chunk goes through a pinned buffer: the host copies chunks between its array and buffers, while the device moves
the chunks that are ready. One thread of Python hands out the work, because handing it to others costs more than a
chunk; the host copy itself is shared out among threads by the function that does it, in one call for each chunk.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from .host_copy import copy_host

CHUNK = 8 << 20  # bytes of one buffer: large enough for the link's full speed
BUFFERS = 6
PIECES, SMALLEST_STEP = 4, 1 << 20  # a smaller array goes in so many pieces, but not in smaller ones than that
PAGE = 4096


class Buffer(Protocol):
    """Host memory that the device reads and writes by itself."""

    array: np.ndarray  # its bytes


class Link(Protocol):
    """The device's part: pinned buffers, and copies that go on while the host does something else."""

    def allocate(self, nbytes: int) -> Buffer:
        """Return a pinned buffer."""

    def going(self, up: bool) -> AbstractContextManager[Any]:
        """Return a context in which the calling thread's copies go in one direction."""

    def send(self, buffer: Any, nbytes: int, target: Any, offset: int) -> Any:
        """Start copying the first bytes of a buffer to the device; returns what ``wait`` takes."""

    def fetch(self, source: Any, offset: int, buffer: Any, nbytes: int) -> Any:
        """Start copying bytes from the device into a buffer; returns what ``wait`` takes."""

    def wait(self, copy: Any) -> None:
        """Wait until a copy is done."""


class Slot:
    """A pinned buffer, and the copy that still uses it."""

    __slots__ = ("array", "buffer", "copy")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer, self.array = buffer, buffer.array
        self.copy: Any = None


class Stager:
    """Moves host arrays over one link.

    Parameters
    ----------
    link : Link
    copy : callable
        Copies one host array of bytes into another, by several threads where that is faster.
    chunk : int
        Bytes of one buffer.
    buffers : int
        Most buffers that are kept; they are made when first needed.
    """

    def __init__(
        self, link: Link, copy: Callable[[np.ndarray, np.ndarray], None] = copy_host, *,
        chunk: int = CHUNK, buffers: int = BUFFERS,
    ) -> None:  # fmt: skip
        self.link, self.copy, self.chunk, self.buffers = link, copy, chunk, buffers
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._made = 0
        self._lock = threading.Lock()

    def up(self, host: np.ndarray, target: Any) -> None:
        """Start copying host bytes to the device; returns when the host array has been read.

        Parameters
        ----------
        host : ndarray of uint8, one axis, contiguous
        target : object
            What the link's ``send`` takes.
        """
        step = self.step(host.nbytes)
        with self.link.going(True):
            for start in range(0, host.nbytes, step):
                part = host[start : start + step]
                slot = self.take()
                try:
                    self.copy(slot.array[: part.nbytes], part)
                    slot.copy = self.link.send(slot.buffer, part.nbytes, target, start)
                finally:
                    self.give(slot)

    def up_whole(self, host: np.ndarray, target: Any) -> None:
        """Do the same by one buffer, where the calling thread's copies go already."""
        slot = self.take()
        try:
            self.copy(slot.array[: host.nbytes], host)
            slot.copy = self.link.send(slot.buffer, host.nbytes, target, 0)
        finally:
            self.give(slot)

    def down_whole(self, source: Any, host: np.ndarray) -> None:
        """Copy from the device by one buffer, where the calling thread's copies go already."""
        slot = self.take()
        try:
            slot.copy = self.link.fetch(source, 0, slot.buffer, host.nbytes)
            self.settle(slot)
            self.copy(host, slot.array[: host.nbytes])
        finally:
            self.give(slot)

    def down(self, source: Any, host: np.ndarray) -> None:
        """Copy bytes from the device into a host array; returns when they are there."""
        step = self.step(host.nbytes)
        coming: deque[tuple[int, Slot]] = deque()
        starts = iter(range(0, host.nbytes, step))
        try:
            with self.link.going(False):
                start = next(starts, None)
                while start is not None or coming:
                    # Whoever holds a buffer does not wait for another one: several threads may be here.
                    slot = None
                    if start is not None:
                        slot = self.spare() if coming else self.take()
                    if start is not None and slot is not None:
                        coming.append((start, slot))
                        nbytes = min(step, host.nbytes - start)
                        slot.copy = self.link.fetch(source, start, slot.buffer, nbytes)
                        start = next(starts, None)
                        continue
                    first, slot = coming[0]
                    self.settle(slot)
                    part = host[first : first + step]
                    self.copy(part, slot.array[: part.nbytes])
                    coming.popleft()
                    self.give(slot)
        finally:
            for _, slot in coming:
                self.give(slot)

    def step(self, nbytes: int) -> int:
        """Return the bytes of one chunk: less than a buffer where that lets the first chunk leave sooner."""
        return min(self.chunk, max(SMALLEST_STEP, -(-nbytes // PIECES // PAGE) * PAGE))

    def take(self) -> Slot:
        """Return a buffer that nothing uses, waiting for one where all of them are taken."""
        slot = self.spare()
        return self._settled(self._free.get()) if slot is None else slot

    def spare(self) -> Slot | None:
        """Return a buffer that nothing uses, or None where all of them are taken.

        That is an idle one, while there are few a new one, else the one whose copy ends next.
        """
        try:
            slot = self._free.get_nowait()
        except queue.Empty:
            return self._new()
        if slot.copy is not None:
            new = self._new()
            if new is not None:
                self._free.put(slot)
                return new
        return self._settled(slot)

    def _settled(self, slot: Slot) -> Slot:
        try:
            self.settle(slot)
        except BaseException:
            self._free.put(slot)
            raise
        return slot

    def give(self, slot: Slot) -> None:
        """Return a buffer; the copy in ``slot.copy`` may go on."""
        self._free.put(slot)

    def settle(self, slot: Slot) -> None:
        """Wait for the copy that uses a buffer."""
        if slot.copy is not None:
            self.link.wait(slot.copy)
            slot.copy = None

    def _new(self) -> Slot | None:
        with self._lock:
            if self._made >= self.buffers:
                return None
            self._made += 1
        try:
            return Slot(self.link.allocate(self.chunk))
        except BaseException:
            with self._lock:
                self._made -= 1
            raise

    def release(self) -> int:
        """Let go of the buffers that no copy uses, and return their bytes."""
        freed = 0
        while True:
            try:
                slot = self._free.get_nowait()
            except queue.Empty:
                return freed
            self.settle(slot)
            freed += slot.array.nbytes
            with self._lock:
                self._made -= 1
