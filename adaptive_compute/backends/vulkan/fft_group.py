"""How threads and shared memory of a workgroup are laid out for one pass of a Fourier transform. Numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import fft_plan
from .fft_plan import Stages
from .limits import Limits


@dataclass(frozen=True)
class Arrangement:
    """A workgroup: lines it holds, and how it exchanges points through shared memory."""

    lines: int
    pitch: int
    pad: int
    words: int
    together: bool
    rounds: int


class Shape(NamedTuple):
    """What a device's measurements may choose.

    Threads of a workgroup, the most lines together where neighbouring threads are neighbouring lines, bytes of shared
    memory up to which real and imaginary parts are exchanged together; for two passes in one dispatch, how many
    bytes the first is ahead of the second (0: passes are dispatches of their own).
    """

    threads: int = 256
    widest: int = 16
    together: int = 16 << 10
    ahead: int = 8 << 20


SHAPE = Shape()


@lru_cache(maxsize=4096)
def arrangement(s: Stages, across: bool, count: int, mixes: bool, limits: Limits, shape: Shape = SHAPE) -> Arrangement:
    """Return how a workgroup is laid out; ``mixes`` where it exchanges points after the last stage as well."""
    words = limits.shared_memory // 4
    exchanges = len(s.radices) > 1 or mixes
    rounds = fft_plan.rounds(s, s.n, words) if exchanges else 1
    assert rounds is not None, s
    most = min(limits.invocations // s.threads, max(words // s.n, 1) if exchanges else 1 << 20)
    if across:
        # Four lines are pieces of 32 bytes, the least that memory gives at once.
        lines = min(most, shape.widest, max(shape.threads // s.threads, 4))
        lines = 1 << (max(lines, 1).bit_length() - 1)
    else:
        lines = min(most, max(shape.threads // s.threads, 1))
        if s.n > 64:
            lines = min(lines, max(words // 2 // s.n, 1))
    lines = max(min(lines, count), 1)
    if not exchanges:
        return Arrangement(lines, 1, 31, 1, True, 1)
    pitch, pad = _layout(s, across, lines, words, s.n // rounds)
    together = 8 * pitch * lines <= min(shape.together, limits.shared_memory)
    return Arrangement(lines, pitch, pad, pitch * lines * (1 + together), together, rounds)


def _layout(s: Stages, across: bool, lines: int, words: int, held: int) -> tuple[int, int]:
    """Return the pitch of a line and the padding with the fewest conflicts between the banks of shared memory.

    ``held`` are the points of a line that are there at a time.
    """
    best, least = (held, 31), math.inf
    for pad in (31, 5, 4, 3):
        size = held + ((held - 1) >> pad if pad < 31 else 0)
        for extra in range(32) if lines > 1 else (0,):
            pitch = size + extra
            if pitch * lines > words or (lines > 1 and pitch % 32 not in (1, 2, 4, 8, 16, 17, size % 32)):
                continue
            cost = _conflicts(s, across, lines, pitch, pad) + pitch * 1e-6
            if cost < least:
                best, least = (pitch, pad), cost
    return best


def _conflicts(s: Stages, across: bool, lines: int, pitch: int, pad: int) -> float:
    """Return the mean number of words of one bank that the first 32 threads write at a time in the exchanges."""
    ids = np.arange(min(32, lines * s.threads))
    t, c = (ids // lines, ids % lines) if across else (ids % s.threads, ids // s.threads)
    total, p = 0.0, 1
    for radix in s.radices[:-1]:
        spots = (t // p) * (p * radix) + t % p
        words = c * pitch + spots + (spots >> pad if pad < 31 else 0)
        total += np.bincount(words % 32, minlength=32).max()
        p *= radix
    words = c * pitch + t + (t >> pad if pad < 31 else 0)
    return float(total / max(len(s.radices) - 1, 1) + np.bincount(words % 32, minlength=32).max())
