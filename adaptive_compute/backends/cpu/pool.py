"""Memory and threads that calls share: result memory that is used again, and workers that stay."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...core.host_memory import SMALLEST, MemoryPool, results

__all__ = ["SMALLEST", "MemoryPool", "Workers", "cache_bytes", "quiet", "results", "share", "temporaries", "workers"]


class Workers:
    """Threads that stay, so that sharing a call out costs two hand-overs and no thread start.

    Workers ignore floating-point warnings: a kernel's NaN and infinity are results.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._count = 0
        self._quiet_torch = 0

    def run(self, work: Callable[[], None], count: int, torch: bool = False) -> None:
        """Run ``work`` on that many workers at once, wait for all, and raise the first error.

        With ``torch``, each worker's torch computes on that worker alone.
        """
        self._prepare(count, torch)
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def task() -> None:
            try:
                work()
            except BaseException as error:  # it belongs to the caller, who waits for it
                done.put(error)
            else:
                done.put(None)

        for _ in range(count):
            self._tasks.put(task)
        errors = [error for error in (done.get() for _ in range(count)) if error is not None]
        if errors:
            raise errors[0]

    def _prepare(self, count: int, torch: bool) -> None:
        if self._count >= count and (not torch or self._quiet_torch == self._count):
            return
        with self._lock:
            while self._count < count:
                threading.Thread(target=self._serve, args=(self._tasks,), daemon=True, name="adaptive-compute").start()
                self._count += 1
            if torch and self._quiet_torch != self._count:
                self._quieten()
                self._quiet_torch = self._count

    def _serve(self, tasks: queue.SimpleQueue[Callable[[], None]]) -> None:
        np.seterr(all="ignore")
        while True:
            tasks.get()()

    def _quieten(self) -> None:
        """Tell torch once that each worker computes alone.

        OpenMP keeps the number for each thread by itself, but torch also remembers the last one as the default of
        threads to come: so it is set again from here, to what it was.
        """
        import torch

        before = torch.get_num_threads()
        together = threading.Barrier(self._count + 1)

        def task() -> None:
            torch.set_num_threads(1)
            torch.set_grad_enabled(False)  # of this thread alone: a caller without it may pass what requires grad
            together.wait()

        for _ in range(self._count):
            self._tasks.put(task)
        together.wait()
        torch.set_num_threads(before)


workers = Workers()


def _after_fork() -> None:
    """Start anew in a forked child, where the parent's threads do not exist and its locks may be held for ever."""
    global workers
    workers = Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def share(parts: int, run_part: Callable[[int, Any], None], state: Callable[[], Any], count: int, torch: bool) -> None:
    """Compute numbered parts on some workers; whoever is free takes the next one.

    Parameters
    ----------
    parts : int
        Number of parts.
    run_part : callable
        Computes one part from its number and the worker's own state.
    state : callable
        Makes what a worker keeps from part to part (its temporaries).
    count : int
        Number of workers; 1 computes on the caller's own thread.
    torch : bool
        The parts call torch, which is to use one thread in each worker.
    """
    numbers = iter(range(parts))
    lock = threading.Lock()

    def work() -> None:
        own = state()
        while True:
            with lock:  # an iterator's ``next`` is not promised to be atomic
                number = next(numbers, None)
            if number is None:
                return
            run_part(number, own)

    count = min(count, parts)
    if count < 2:
        with quiet():
            work()
    else:
        workers.run(work, count, torch)


@contextmanager
def quiet() -> Iterator[None]:
    """Let NaN, infinity, overflow and division by zero pass as results, without a warning."""
    with np.errstate(all="ignore"):
        yield


class _Arena(threading.local):
    """Temporaries of one thread, kept from call to call."""

    def __init__(self) -> None:
        self.buffer = np.empty(0, np.uint8)


_arena = _Arena()
ARENA_LIMIT = 32 << 20


def temporaries(length: int, dtypes: Sequence[str]) -> list[np.ndarray]:
    """Return one array of this length for each dtype, in memory that this thread used before and will use again.

    They hold until the thread's next call of this function.
    """
    sizes = [-(-length * np.dtype(dtype).itemsize // 64) * 64 for dtype in dtypes]
    total = sum(sizes)
    buffer = _arena.buffer
    if buffer.nbytes < total + 64:
        buffer = np.empty(total + 64, np.uint8)
        if total <= ARENA_LIMIT:
            _arena.buffer = buffer
    start = -buffer.__array_interface__["data"][0] % 64
    offsets = itertools.accumulate(sizes, initial=start)
    return [
        buffer[offset : offset + length * np.dtype(dtype).itemsize].view(dtype)
        for offset, dtype in zip(offsets, dtypes)
    ]


def cache_bytes() -> int:
    """Return the size of one core's own (second-level) cache, or a cautious guess."""
    global _cache_bytes
    if _cache_bytes is None:
        _cache_bytes = _read_cache_bytes()
    return _cache_bytes


_cache_bytes: int | None = None


def _read_cache_bytes() -> int:
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index2/size", encoding="ascii") as file:
            text = file.read().strip()
        return int(text[:-1]) << {"K": 10, "M": 20}[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return 1 << 20
