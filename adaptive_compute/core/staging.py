"""Copies between ordinary host memory and a device through pinned buffers, in chunks.

A device reads and writes pinned memory at the full speed of its link, and ordinary memory several times slower. So
each chunk goes through a pinned buffer: the host copies chunks between its array and buffers, with several threads to
a chunk, while the device moves the chunks that are ready. A lane is a thread that does so with buffers of its own; no
lane waits for another one.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from .crew import Crew

CHUNK = 8 << 20  # bytes of one buffer
BUFFERS = 16
EACH = 2  # buffers of one lane: it fills one while the device empties the other
TURNS = 2  # chunks that a lane has of an array, if they are not to become too small
SMALLEST, PAGE = 1 << 20, 4096


# Threads of their own, and few: each has a team of threads below it that copy, which is slow where it was not
# used lately.
lanes_of_all = Crew("adaptive-lane")


class Buffer(Protocol):
    """Host memory that the device reads and writes by itself."""

    array: np.ndarray  # its bytes


class Link(Protocol):
    """The device's part: pinned buffers, copies on the host, and copies that go on while the host does something else.

    Its functions are called often and by several threads: what they do besides copying should take microseconds.
    """

    def allocate(self, nbytes: int) -> Buffer:
        """Return a pinned buffer."""

    def lane(self, threads: int) -> AbstractContextManager[Any]:
        """Return a context in which the calling thread may start copies, those on the host by so many threads."""

    def view(self, host: np.ndarray) -> Any:
        """Return what ``fill`` and ``drain`` take for a host array's bytes."""

    def fill(self, buffer: Any, host: Any, start: int, nbytes: int) -> None:
        """Copy bytes of a host array, from ``start`` on, into a buffer."""

    def drain(self, buffer: Any, host: Any, start: int, nbytes: int) -> None:
        """Copy the first bytes of a buffer into a host array."""

    def send(self, buffer: Any, nbytes: int, target: Any, offset: int) -> None:
        """Start copying the first bytes of a buffer to the device."""

    def fetch(self, source: Any, offset: int, buffer: Any, nbytes: int) -> None:
        """Start copying bytes from the device into a buffer."""

    def wait(self, buffer: Any) -> None:
        """Wait until the last copy of a buffer is done."""


class Slot:
    """A pinned buffer, and whether a copy may still use it."""

    __slots__ = ("buffer", "busy", "nbytes")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer, self.busy, self.nbytes = buffer, False, buffer.array.nbytes


class Stager:
    """Moves host arrays over one link.

    Parameters
    ----------
    link : Link
    chunk : int
        Bytes of one buffer.
    buffers : int
        Most buffers that are kept; they are made when first needed.
    each : int
        Buffers of one lane.
    """

    def __init__(self, link: Link, *, chunk: int = CHUNK, buffers: int = BUFFERS, each: int = EACH) -> None:
        self.link, self.chunk, self.buffers, self.each = link, chunk, buffers, each
        self._free: list[Slot] = []
        self._made = 0
        self._change = threading.Condition()

    def up(self, host: np.ndarray, target: Any, threads: int, lanes: int = 1) -> None:
        """Start copying host bytes to the device; returns when the host array has been read.

        Parameters
        ----------
        host : ndarray of uint8, one axis, contiguous
        target : object
            What the link's ``send`` takes.
        threads : int
            Threads that copy on the host, over all lanes.
        lanes : int
            Chunks that are copied on the host at once.
        """
        link, lanes = self.link, self._lanes(threads, lanes)
        chunks = cuts(host.nbytes, self.chunk, lanes)
        whole = link.view(host)

        def lane(numbers: Iterator[int]) -> None:
            with link.lane(threads // lanes), self.slots() as take:
                for number in numbers:
                    start, nbytes = chunks[number]
                    slot = take()
                    link.fill(slot.buffer, whole, start, nbytes)
                    link.send(slot.buffer, nbytes, target, start)
                    slot.busy = True

        self._share(len(chunks), lane, lanes)

    def down(self, source: Any, host: np.ndarray, threads: int, lanes: int = 1) -> None:
        """Copy bytes from the device into a host array; returns when they are there."""
        link, lanes = self.link, self._lanes(threads, lanes)
        chunks = cuts(host.nbytes, self.chunk, lanes)
        whole = link.view(host)

        def finish(start: int, nbytes: int, slot: Slot) -> None:
            self.settle(slot)
            link.drain(slot.buffer, whole, start, nbytes)

        def lane(numbers: Iterator[int]) -> None:
            coming: deque[tuple[int, int, Slot]] = deque()
            with link.lane(threads // lanes), self.slots() as take:
                for number in numbers:
                    if len(coming) == self.each:
                        finish(*coming.popleft())
                    (start, nbytes), slot = chunks[number], take()
                    link.fetch(source, start, slot.buffer, nbytes)
                    slot.busy = True
                    coming.append((start, nbytes, slot))
                while coming:
                    finish(*coming.popleft())

        self._share(len(chunks), lane, lanes)

    def _lanes(self, threads: int, lanes: int) -> int:
        return max(1, min(lanes, threads, self.buffers // self.each))

    @staticmethod
    def _share(count: int, lane: Callable[[Iterator[int]], None], lanes: int) -> None:
        if lanes == 1:
            lane(iter(range(count)))
        elif count:
            lanes_of_all.share(count, lane, lanes)

    @contextmanager
    def slots(self) -> Iterator[Callable[[], Slot]]:
        """Give a function that returns a lane's own buffers in turn, each when no copy uses it any more."""
        with self.lend(self.each) as mine:
            turns = itertools.cycle(mine)

            def take() -> Slot:
                slot = next(turns)
                self.settle(slot)
                return slot

            yield take

    @contextmanager
    def lend(self, count: int) -> Iterator[list[Slot]]:
        """Give so many buffers to one lane, all at once, so that no lane holds some while it waits for others."""
        mine = self._borrow(count)
        try:
            yield mine
        finally:
            with self._change:
                self._free += mine
                self._change.notify_all()

    def settle(self, slot: Slot) -> None:
        """Wait for the copy that uses a buffer."""
        if slot.busy:
            self.link.wait(slot.buffer)
            slot.busy = False

    def _borrow(self, count: int) -> list[Slot]:
        with self._change:
            while len(self._free) < count and self._made + count - len(self._free) > self.buffers:
                self._change.wait()
            taken = [self._free.pop() for _ in range(min(count, len(self._free)))]
            missing = count - len(taken)
            self._made += missing
        try:
            while len(taken) < count:
                taken.append(Slot(self.link.allocate(self.chunk)))
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
            self.settle(slot)
        return sum(slot.nbytes for slot in gone)


def cuts(nbytes: int, chunk: int, lanes: int) -> list[tuple[int, int]]:
    """Return where chunks begin and how long they are: whole buffers, or less where every lane is to have several."""
    step = min(chunk, max(SMALLEST, -(-nbytes // (TURNS * lanes) // PAGE) * PAGE))
    return [(start, min(step, nbytes - start)) for start in range(0, nbytes, step)]


def address_of(array: np.ndarray) -> int:
    """Return where an array's memory begins."""
    address: int = array.__array_interface__["data"][0]
    return address
