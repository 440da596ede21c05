"""Threads that share out numbered pieces of work which hold no lock of the interpreter, such as copying memory."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator

Lane = Callable[[Iterator[int]], None]


class _Job:
    """Numbers that lanes take one by one; nobody waits for a lane that has not begun when they are gone."""

    def __init__(self, count: int, lane: Lane) -> None:
        self.count, self.lane = count, lane
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._idle = threading.Lock()  # held while another thread's lane runs
        self._running = 0
        self._closed = False
        self.error: BaseException | None = None

    def numbers(self) -> Iterator[int]:
        """Yield this lane's numbers; they end for all lanes where one failed."""
        while not self._closed and (number := next(self._numbers)) < self.count:
            yield number

    def help(self) -> None:
        """Run a lane in another thread, unless the work is done."""
        with self._lock:
            if self._closed:
                return
            self._running += 1
            if self._running == 1:
                self._idle.acquire()
        try:
            self.lane(self.numbers())
        except BaseException as error:  # raised again by the caller's thread
            self.error = error
            self._closed = True
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._idle.release()

    def close(self) -> None:
        """Let no lane begin any more, and wait until those that did have ended."""
        with self._lock:
            self._closed = True
        interrupted = None
        while True:
            try:
                with self._idle:
                    break
            except KeyboardInterrupt as error:  # they end soon, and may be writing to the caller's memory until then
                interrupted = error
        if interrupted is not None:
            raise interrupted


_every: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew:
    """Threads that wait for jobs; they are started when first needed and stay."""

    def __init__(self, name: str = "adaptive-copy") -> None:
        self.name = name
        _every.add(self)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._started = 0
        self._lock = threading.Lock()

    def share(self, count: int, lane: Lane, threads: int) -> None:
        """Run a lane in the calling thread and in up to ``threads - 1`` others, which join as they wake.

        Parameters
        ----------
        count : int
            Pieces of work, numbered from 0.
        lane : callable
            Takes an iterator over the numbers that fall to it.
        threads : int
            Most threads, the calling one included.
        """
        job = _Job(count, lane)
        others = min(threads, count) - 1
        if others > self._started:
            self._start(others)
        for _ in range(others):
            self._jobs.put(job)
        try:
            lane(job.numbers())
        finally:  # whatever happens, nobody may still be at work when this returns
            job.close()
        if job.error is not None:
            raise job.error

    def _start(self, wanted: int) -> None:
        with self._lock:
            while self._started < wanted:
                name = f"{self.name}-{self._started}"
                threading.Thread(target=self._work, args=(self._jobs,), name=name, daemon=True).start()
                self._started += 1

    @staticmethod
    def _work(jobs: queue.SimpleQueue[_Job]) -> None:
        while True:
            job = jobs.get()
            job.help()
            del job


crew = Crew()


def _after_fork() -> None:
    """Start anew in a forked child, where the parent's threads do not exist."""
    for each in list(_every):
        Crew.__init__(each, each.name)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
