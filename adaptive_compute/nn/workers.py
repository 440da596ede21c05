"""Threads that take blocks of a call, one torch thread each: many small steps side by side instead of each one shared.

Sharing every small step out between threads makes them wait for each other at its end, tens of times for a block.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context

import torch

import adaptive_compute as ac

Lane = Callable[[Iterator[int]], None]

_pool: ThreadPoolExecutor | None = None


def share(count: int, lane: Lane) -> None:
    """Call ``lane`` in several threads, with an iterator over those of the numbers 0 ... count - 1 that fall to it.

    As many threads take part as torch, or ``ac.using(threads=...)``, would give a single call. Each runs torch with one
    thread, with no gradients recorded, under the caller's settings.
    """
    global _pool
    before = torch.get_num_threads()
    allowed = ac.settings.threads or before
    threads = min(allowed, count)
    if threads < 2:
        with ac.using(threads=allowed):
            lane(iter(range(count)))
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, "adaptive-blocks")
    numbers, inference = itertools.count(), torch.is_inference_mode_enabled()

    def work() -> None:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)  # a thread's own from then on
        with torch.inference_mode(inference), torch.no_grad(), ac.using(threads=1):
            lane(itertools.takewhile(lambda number: number < count, numbers))

    torch.set_num_threads(1)  # this thread's, and what a new one begins with
    try:
        others = [_pool.submit(copy_context().run, work) for _ in range(threads - 1)]
        try:
            work()
        finally:  # whatever happens, nobody may still be at work when this returns
            running = [other for other in others if not other.cancel()]
            wait(running)
        for other in running:
            other.result()
    finally:
        torch.set_num_threads(before)


def _after_fork() -> None:
    global _pool
    _pool = None  # the parent's threads do not exist in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
