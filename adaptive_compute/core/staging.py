"""Copies between ordinary host memory and a device through pinned buffers, in chunks, by several threads at once.

A device reads and writes pinned memory at the full speed of its link, and ordinary memory several times slower. So
each chunk goes through a pinned buffer: threads copy chunks between the host array and buffers, while the device moves
the chunks that are ready. No thread waits for another one, only for its own buffers.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from .crew import crew

# Threads take turns at what they do between two copies, and a turn lasts as long as a sleeping thread takes to wake: 60
# microseconds a chunk, one after the other, were measured beside an H100. So chunks are large: of 256 MiB by 8 threads,
# 18 GB/s went in chunks of 1 MiB, 35 in chunks of 2, 42 of 4, and 34 to 40 of 8.
CHUNK = 4 << 20  # bytes of one buffer
BUFFERS = 32
SMALLEST_STEP, PAGE = 2 << 20, 4096
EACH = 2  # buffers of one thread: it fills one while the device empties the other
TURNS = 8  # chunks that a thread has of an array, if they are not to become too small


class Buffer(Protocol):
    """Host memory that the device reads and writes by itself."""

    array: np.ndarray  # its bytes


class Link(Protocol):
    """The device's part: pinned buffers, and copies that go on while the host does something else.

    Its functions are called often and by several threads: what they do should take microseconds.
    """

    def allocate(self, nbytes: int) -> Buffer:
        """Return a pinned buffer."""

    def lane(self) -> AbstractContextManager[Any]:
        """Return a context in which the calling thread may start copies."""

    def send(self, buffer: Any, nbytes: int, target: Any, offset: int) -> None:
        """Start copying the first bytes of a buffer to the device."""

    def fetch(self, source: Any, offset: int, buffer: Any, nbytes: int) -> None:
        """Start copying bytes from the device into a buffer."""

    def wait(self, buffer: Any) -> None:
        """Wait until the last copy of a buffer is done."""


class _Slot:
    """A pinned buffer, where it lies, and whether a copy may still use it."""

    __slots__ = ("address", "buffer", "busy", "nbytes")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer, self.busy = buffer, False
        self.address, self.nbytes = address_of(buffer.array), buffer.array.nbytes


class Stager:
    """Moves host arrays over one link.

    Parameters
    ----------
    link : Link
    chunk : int
        Bytes of one buffer.
    buffers : int
        Most buffers that are kept; they are made when first needed.
    """

    def __init__(self, link: Link, *, chunk: int = CHUNK, buffers: int = BUFFERS) -> None:
        self.link, self.chunk, self.buffers = link, chunk, buffers
        self._free: list[_Slot] = []
        self._made = 0
        self._change = threading.Condition()

    def up(self, host: np.ndarray, target: Any, workers: int) -> None:
        """Start copying host bytes to the device; returns when the host array has been read.

        Parameters
        ----------
        host : ndarray of uint8, one axis, contiguous
        target : object
            What the link's ``send`` takes.
        workers : int
            Threads that copy on the host.
        """
        base, total, chunk, link = address_of(host), host.nbytes, self.step(host.nbytes, workers), self.link

        def lane(numbers: Iterator[int]) -> None:
            with link.lane(), self._buffers() as take:
                for number in numbers:
                    start = number * chunk
                    nbytes = min(chunk, total - start)
                    slot = take()
                    ctypes.memmove(slot.address, base + start, nbytes)
                    link.send(slot.buffer, nbytes, target, start)
                    slot.busy = True

        self._share(-(-total // chunk), lane, workers)

    def down(self, source: Any, host: np.ndarray, workers: int) -> None:
        """Copy bytes from the device into a host array; returns when they are there."""
        base, total, chunk, link = address_of(host), host.nbytes, self.step(host.nbytes, workers), self.link

        def finish(start: int, slot: _Slot) -> None:
            self._settle(slot)
            ctypes.memmove(base + start, slot.address, min(chunk, total - start))

        def lane(numbers: Iterator[int]) -> None:
            coming: deque[tuple[int, _Slot]] = deque()
            with link.lane(), self._buffers() as take:
                for number in numbers:
                    if len(coming) == EACH:
                        finish(*coming.popleft())
                    start, slot = number * chunk, take()
                    link.fetch(source, start, slot.buffer, min(chunk, total - start))
                    slot.busy = True
                    coming.append((start, slot))
                while coming:
                    finish(*coming.popleft())

        self._share(-(-total // chunk), lane, workers)

    def step(self, nbytes: int, workers: int) -> int:
        """Return the bytes of one chunk: less than a buffer where every thread is to have several."""
        return min(self.chunk, max(SMALLEST_STEP, -(-nbytes // (TURNS * workers) // PAGE) * PAGE))

    def _share(self, count: int, lane: Callable[[Iterator[int]], None], workers: int) -> None:
        if count:
            crew.share(count, lane, max(1, min(workers, self.buffers // EACH)))

    @contextmanager
    def _buffers(self) -> Iterator[Callable[[], _Slot]]:
        """Give a function that returns a lane's own buffers in turn, each when no copy uses it any more."""
        mine = self._borrow()
        turn = 0

        def take() -> _Slot:
            nonlocal turn
            slot = mine[turn % EACH]
            turn += 1
            self._settle(slot)
            return slot

        try:
            yield take
        finally:
            with self._change:
                self._free += mine
                self._change.notify_all()

    def _settle(self, slot: _Slot) -> None:
        """Wait for the copy that uses a buffer."""
        if slot.busy:
            self.link.wait(slot.buffer)
            slot.busy = False

    def _borrow(self) -> list[_Slot]:
        """Return a lane's buffers, all at once, so that no lane holds one while it waits for another."""
        with self._change:
            while len(self._free) < EACH and self._made + EACH - len(self._free) > self.buffers:
                self._change.wait()
            taken = [self._free.pop() for _ in range(min(EACH, len(self._free)))]
            missing = EACH - len(taken)
            self._made += missing
        try:
            while len(taken) < EACH:
                taken.append(_Slot(self.link.allocate(self.chunk)))
                missing -= 1
        except BaseException:
            with self._change:
                self._made -= missing
                self._free += taken
                self._change.notify_all()
            raise
        return taken

    def release(self) -> int:
        """Let go of the buffers that no lane uses, and return their bytes."""
        with self._change:
            gone, self._free = self._free, []
            self._made -= len(gone)
            self._change.notify_all()
        for slot in gone:
            self._settle(slot)
        return sum(slot.nbytes for slot in gone)


def address_of(array: np.ndarray) -> int:
    """Return where an array's memory begins."""
    address: int = array.__array_interface__["data"][0]
    return address
