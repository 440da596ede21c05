"""Time calls so that they can be compared: in turn, each alone in its turn, by samples that a disturbance cannot move.

Kernels share a machine with the threads of the kernel before, which go on waiting for work for a while, and with other
processes. A sample that either has slowed down says nothing about the kernel, and the samples that matter are the many
that nothing has: the lower quartile stands for them where up to three quarters are disturbed.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Sequence
from typing import Protocol

# How often it is a kernel's turn, and the samples that it gives each time: at most, and at least where they are short.
TURNS, MOST, FEWEST = 3, 9, 3
SHORTEST_SAMPLE = 40e-6  # a clock reading costs 0.1 us: shorter calls are timed several at a time
# Threads of OpenMP wait for more work by spinning, for about this long, and slow down what other threads do meanwhile.
PAUSE = 0.009
# A run of so many seconds needs no other before it, of so many few to repeat it; what is shorter runs so long first.
LONG, STEADY, SHORT = 0.01, 0.002, 0.0005
# Threads that were asleep take this long to get up to speed, spread over processors: what is first in a lane runs for
# so many seconds before it is timed.
WAKING = 0.005


class Timed(Protocol):
    """What ``time_in_turn`` times; ``threads`` where the host's threads compute, which others must not disturb."""

    threads: bool

    def seconds(self, repeats: int) -> float:
        """Return the mean time of some runs in a row."""


def time_in_turn(
    lanes: Sequence[Sequence[Timed]], shares: Sequence[Sequence[float]], turns: int = TURNS
) -> list[list[list[float]]]:
    """Time what has run once already, and return the samples of each.

    A lane holds what one kernel runs, for one request or several, and ``shares`` are the seconds that each may take.
    Lanes take turns in rotating order, so that a machine whose speed drifts does not favour one of them. In its turn a
    kernel is alone, as it is in a caller's loop: before it there is a pause, in which the threads of the kernel before
    go to sleep, and runs that are not timed, which wake its own.
    """
    samples: list[list[list[float]]] = [[[] for _ in lane] for lane in lanes]
    repeats = [[0] * len(lane) for lane in lanes]
    spinning = True
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(turns):
            for number in ((index + turn) % len(lanes) for index in range(len(lanes))):
                threads = bool(lanes[number]) and lanes[number][0].threads
                if len(lanes) > 1 and (threads or spinning):
                    time.sleep(PAUSE)
                spinning = threads
                awake = time.perf_counter() + (WAKING if threads else 0.0)
                for place, timed in enumerate(lanes[number]):
                    own, share = samples[number][place], shares[number][place]
                    if own and own[0] > LONG and sum(own) >= share:
                        continue
                    single = timed.seconds(1)
                    if single > LONG:
                        own.append(single)
                        continue
                    ready = time.perf_counter() + SHORT
                    while (single < SHORT and time.perf_counter() < ready) or time.perf_counter() < awake:
                        single = timed.seconds(1)
                    if not repeats[number][place]:
                        repeats[number][place] = math.ceil(SHORTEST_SAMPLE / max(single, 1e-9))
                    end = time.perf_counter() + share / turns
                    for taken in range(1, MOST + 1):
                        own.append(timed.seconds(repeats[number][place]))
                        if time.perf_counter() > end and (taken >= FEWEST or own[-1] > STEADY):
                            break
    finally:
        if collecting:
            gc.enable()
    return samples


def typical(samples: Sequence[float]) -> tuple[float, float]:
    """Return the lower quartile of samples, and their relative spread (median absolute deviation from the median)."""
    low = statistics.quantiles(samples, n=4, method="inclusive")[0] if len(samples) > 1 else samples[0]
    median = statistics.median(samples)
    return low, statistics.median(abs(s - median) for s in samples) / max(median, 1e-12)
