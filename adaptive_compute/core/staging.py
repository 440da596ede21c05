"""Copies between ordinary host memory and a device through pinned buffers, in chunks, by several threads at once.

A device reads and writes pinned memory at the full speed of its link, and ordinary memory several times slower. So
each chunk goes through a pinned buffer: threads copy chunks between the host array and buffers, while the device moves
the chunks that are ready. No thread waits for another one, only for a buffer.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from .host_copy import copy_alone, threads

CHUNK = 4 << 20  # bytes: large enough for the link's full speed, small enough that filling the first one costs little
BUFFERS = 16
PIECES, SMALLEST_STEP = 16, 1 << 20  # a smaller array goes in so many pieces, but not in smaller ones than that
PAGE = 4096


class Buffer(Protocol):
    """Host memory that the device reads and writes by itself."""

    array: np.ndarray  # its bytes


class Link(Protocol):
    """The device's part: pinned buffers, and copies that go on while the host does something else."""

    def allocate(self, nbytes: int) -> Buffer:
        """Return a pinned buffer."""

    def enter(self, up: bool) -> None:
        """Prepare the calling thread, which is one of the stager's own, for copies in one direction."""

    def send(self, buffer: Any, nbytes: int, target: Any, offset: int) -> Any:
        """Start copying the first bytes of a buffer to the device; returns what ``wait`` takes."""

    def fetch(self, source: Any, offset: int, buffer: Any, nbytes: int) -> Any:
        """Start copying bytes from the device into a buffer; returns what ``wait`` takes."""

    def wait(self, copy: Any) -> None:
        """Wait until a copy is done."""


class _Slot:
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
    chunk : int
        Bytes of one buffer.
    buffers : int
        Most buffers that are kept; they are made when first needed.
    """

    def __init__(self, link: Link, *, chunk: int = CHUNK, buffers: int = BUFFERS) -> None:
        self.link, self.chunk, self.buffers = link, chunk, buffers
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._made = 0
        self._lock = threading.Lock()

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
        step = self._step(host.nbytes)

        def one(number: int) -> None:
            start = number * step
            part = host[start : start + step]
            with self.borrowed() as slot:
                copy_alone(slot.array[: part.nbytes], part)
                slot.copy = self.link.send(slot.buffer, part.nbytes, target, start)

        self.share(-(-host.nbytes // step), one, workers, up=True)

    def down(self, source: Any, host: np.ndarray, workers: int) -> None:
        """Copy bytes from the device into a host array; returns when they are there."""
        step = self._step(host.nbytes)

        def one(number: int) -> None:
            start = number * step
            part = host[start : start + step]
            with self.borrowed() as slot:
                slot.copy = self.link.fetch(source, start, slot.buffer, part.nbytes)
                self.link.wait(slot.copy)
                slot.copy = None
                copy_alone(part, slot.array[: part.nbytes])

        self.share(-(-host.nbytes // step), one, workers, up=False)

    def _step(self, nbytes: int) -> int:
        """Return the bytes of one chunk: less than a buffer where that lets the first chunk leave sooner."""
        return min(self.chunk, max(SMALLEST_STEP, -(-nbytes // PIECES // PAGE) * PAGE))

    @contextmanager
    def borrowed(self) -> Iterator[_Slot]:
        """Give a buffer that nothing uses for a block; a copy that the block leaves in ``slot.copy`` may go on."""
        slot = self._take()
        try:
            yield slot
        finally:
            self._free.put(slot)

    def _take(self) -> _Slot:
        """Return a buffer that nothing uses: an idle one, while there are few a new one, else the next to be idle."""
        try:
            slot = self._free.get_nowait()
        except queue.Empty:
            slot = None
        if slot is None or slot.copy is not None:
            new = self._new()
            if new is not None:
                if slot is not None:
                    self._free.put(slot)
                return new
        if slot is None:
            slot = self._free.get()
        if slot.copy is not None:
            try:
                self.link.wait(slot.copy)
            except BaseException:
                self._free.put(slot)
                raise
            slot.copy = None
        return slot

    def _new(self) -> _Slot | None:
        with self._lock:
            if self._made >= self.buffers:
                return None
            self._made += 1
        try:
            return _Slot(self.link.allocate(self.chunk))
        except BaseException:
            with self._lock:
                self._made -= 1
            raise

    def share(self, count: int, one: Callable[[int], None], workers: int, up: bool) -> None:
        """Call ``one`` for each number below ``count``, shared out among threads; whoever is free takes the next."""
        numbers = itertools.count()
        stop = threading.Event()

        def work() -> None:
            self.link.enter(up)
            while not stop.is_set():
                number = next(numbers)
                if number >= count:
                    return
                try:
                    one(number)
                except BaseException:
                    stop.set()
                    raise

        running = [threads().submit(work) for _ in range(max(1, min(workers, count, self.buffers)))]
        try:
            for future in running:
                future.exception()
        except BaseException:  # an interrupt: the host array may be freed only when nobody reads or writes it any more
            stop.set()
            for future in running:
                future.exception()
            raise
        for future in running:
            future.result()

    def release(self) -> int:
        """Let go of the buffers that no copy uses, and return their bytes."""
        freed = 0
        while True:
            try:
                slot = self._free.get_nowait()
            except queue.Empty:
                return freed
            if slot.copy is not None:
                self.link.wait(slot.copy)
            freed += slot.array.nbytes
            with self._lock:
                self._made -= 1
