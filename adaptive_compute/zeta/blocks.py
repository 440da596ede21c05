"""A block: a range of heights, all its zeros, and the proof that none is missing.

The zeros counted must be N at the block's end less N at its beginning, both closed by Turing's method. If fewer were
found, the windows are looked at again on finer grids, cell by cell; a block that stays short, or in which a sign
could not be told within the error budget, is reported open, with the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from . import probe, sign, spectral, turing
from .theta import develop, horner, theta

_DIGITS = 400  # of decimal numbers: no float64 offset of a height has more that count
ZEROS = 1 << 18  # of a block, about
GPU_PARTS = 16  # parts of a window that a GPU works on at once
FINER = (8.0, 16.0, 48.0)  # oversampling of the further looks


@dataclass(frozen=True)
class Height:
    """``base + offset``, without rounding."""

    base: int
    offset: float

    @classmethod
    def of(cls, value: Any) -> Height:
        """Split a number; floats and decimal numbers are taken to their last digit."""
        with localcontext() as context:
            context.prec = _DIGITS
            exact = Decimal(value)
            base = math.floor(exact)
            return cls(base, float(exact - base))

    def __float__(self) -> float:
        return self.base + self.offset

    def over(self, base: int) -> float:
        """Return the height over another base."""
        return (self.base - base) + self.offset

    def __str__(self) -> str:
        with localcontext() as context:
            context.prec = _DIGITS
            return f"{self.base + Decimal(repr(self.offset)):f}" if self.offset else str(self.base)


@dataclass(frozen=True)
class Block:
    """The zeros between two heights.

    Attributes
    ----------
    number : int
        Place in the run.
    first, last : Height
        The range, ``first <= t < last``.
    offsets : ndarray of float64
        Heights of the zeros over ``first.base``, in order.
    below : int
        N at ``first``: zero k of the block is number ``below + k + 1`` of all.
    expected : int
        N(last) - N(first); -1 where one of the two could not be closed.
    open : str
        Why the block is not closed, and where; empty if it is.
    error : float
        The largest error budget of Z in its windows.
    statistics : dict
        Of gaps (in mean distances), of S(t), and of how many zeros lie in a Gram interval.
    """

    number: int
    first: Height
    last: Height
    offsets: np.ndarray = field(repr=False)
    below: int
    expected: int
    open: str
    error: float
    statistics: dict[str, Any]

    @property
    def base(self) -> int:
        """What the offsets are counted from."""
        return self.first.base

    @property
    def verified(self) -> bool:
        """True where all zeros of the range were found, simple and on the line, within the error budget."""
        return not self.open


def plan(first: Height, last: Height, zeros: int = ZEROS) -> list[tuple[Height, Height]]:
    """Cut a range into blocks of about as many zeros as told, at whole heights.

    The cuts depend on where the range begins and on nothing else, and a range that begins at a cut has the same cuts.
    """
    ends = [first]
    while True:
        here = float(ends[-1])
        length = zeros / max(spectral.density(max(here, 20.0)), 0.2)
        length = zeros / spectral.density(here + length)
        end = Height(ends[-1].base + max(math.ceil(length), 1), 0.0)
        if last.over(end.base) <= length / 4:
            break
        ends.append(end)
    ends.append(last)
    return list(pairwise(ends))


def work(
    number: int, first: Height, last: Height, closings: Callable[[], tuple[Any, Any]],
    run: Callable[[Callable, Iterable], Iterator] = map, xp: Any = np,
) -> Block:  # fmt: skip
    """Find and verify the zeros of a block.

    Parameters
    ----------
    number : int
    first, last : Height
    closings : callable
        Gives N at both ends, as ``turing.close`` gave it, or the error that it raised.
    run : callable
        Applies a function to each window, in order: ``map``, or that of a pool of threads.
    xp : module
        NumPy, or CuPy to work on the current GPU.

    Returns
    -------
    Block
    """
    shares = 1 if xp is np else GPU_PARTS
    windows = spectral.windows(first.base, first.offset, last.over(first.base), parts=shares)
    parts = list(run(partial(_window, xp=xp), windows))
    at_first, at_last = closings()
    failures = [str(c) for c in (at_first, at_last) if isinstance(c, Exception)]
    below = -1 if isinstance(at_first, Exception) else at_first.zeros
    expected = -1 if failures else at_last.zeros - at_first.zeros
    count = sum(len(p.found.offsets) for p in parts)
    for finer in FINER:
        if expected < 0 or count == expected:
            break
        parts = list(run(partial(_window, oversampling=finer, every=True, xp=xp), windows))
        count = sum(len(p.found.offsets) for p in parts)
    if expected >= 0 and count != expected:
        failures.append(f"{count} zeros found, {expected} are there")
    failures += [f"the sign of Z at {w.base} + {at!r} could not be told" for p, w in zip(parts, windows)
                 for at in p.undecided]  # fmt: skip
    offsets = np.concatenate([p.found.offsets for p in parts])
    return Block(
        number, first, last, offsets, below, expected, "; ".join(failures), max(p.error for p in parts),
        statistics(first, offsets, below) if below >= 0 else {},
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    found: sign.Found
    error: float
    undecided: tuple[float, ...]


def _window(
    window: spectral.Window, oversampling: float = sign.OVERSAMPLING, every: bool = False, xp: Any = np
) -> _Part:
    """Find one window's zeros; where the grid meets a zero, it is moved, and the ends' signs are worked out."""
    for attempt in range(3):
        samples = spectral.sample(window, oversampling * (1 + attempt / 17), xp)
        found = sign.zeros(samples, every)
        if not found.doubtful:
            return _Part(found, samples.error, ())
    undecided = []
    for at in found.doubtful:
        value = probe.Z(window.base, at)
        cells = samples.values.shape[1] - 1 - 2 * spectral.MARGIN
        place = round((at - samples.first) / samples.step)
        row = min(place // cells, len(samples.values) - 1)  # the window's last point is its last part's
        told = float(samples.values[row, spectral.MARGIN + place - row * cells])
        if abs(value) <= probe.budget(window.base + at) or (value > 0) != (told > 0):
            undecided.append(at)
    return _Part(found, samples.error, tuple(undecided))


def gram_coordinate(first: Height, offsets: np.ndarray) -> tuple[int, np.ndarray]:
    """Return theta / pi at each height as a whole number and what is over it: zeros' places among Gram points.

    Parameters
    ----------
    first : Height
    offsets : ndarray of float64
        Heights over ``first.base``.
    """
    low = first.base + (offsets[0] if len(offsets) else 0.0)
    reach = float(offsets[-1] - offsets[0]) if len(offsets) else 0.0
    if low < 1000 or reach > low / 4:
        return 0, theta(first.base + offsets) / math.pi
    center = first.base + round(float(offsets[0] + offsets[-1]) / 2)
    around = develop(center, reach / 2 + 2)
    s = offsets - float(center - first.base)
    bend = horner(around.curve, s)
    bend *= s
    bend *= s
    bend /= math.pi
    bend += s * (2 * around.frequency.hi)
    bend += 2 * around.rest
    return 2 * around.turns, bend


def statistics(first: Height, offsets: np.ndarray, below: int) -> dict[str, Any]:
    """Summarise a block: gaps in mean distances, extremes of S(t), and how Gram's law fares.

    ``S(t) = N(t) - theta(t)/pi - 1``; its extremes are at zeros, just before or just after.
    """
    if len(offsets) < 2:
        return {}
    whole, rest = gram_coordinate(first, offsets)
    gaps = np.diff(rest)
    after = (below - whole - 1) + np.arange(1, len(offsets) + 1) - rest
    per = np.bincount(np.unique(np.floor(rest), return_counts=True)[1], minlength=6)
    intervals = math.floor(rest[-1]) - math.floor(rest[0]) + 1
    return {
        "smallest_gap": float(gaps.min()), "smallest_gap_at": float(offsets[gaps.argmin()]),
        "largest_gap": float(gaps.max()), "largest_gap_at": float(offsets[gaps.argmax()]),
        "largest_s": float(after.max()), "largest_s_at": float(offsets[after.argmax()]),
        "smallest_s": float(after.min() - 1), "smallest_s_at": float(offsets[after.argmin()]),
        "gram_intervals": [int(intervals - per[1:].sum()), *(int(c) for c in per[1:])],
    }  # fmt: skip


def closing(height: Height) -> Any:
    """Close N at a height; a failure is returned, not raised."""
    if float(height) < turing.FIRST:
        return turing.Closing(0, turing.FIRST, 0)
    try:
        return turing.close(height.base, height.offset)
    except turing.OpenCountError as error:
        return error
