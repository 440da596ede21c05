"""A block: a range of heights, all its zeros, and the proof that none is missing.

The zeros counted must be N at the block's end less N at its beginning, both closed by Turing's method. If fewer were
found, the windows are looked at again on finer grids, cell by cell; a block that stays short, or in which a sign
could not be told within the error budget, is reported open, with the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np

from . import probe, sign, spectral, turing
from .theta import Development, develop, horner, theta

_DIGITS = 400  # of decimal numbers: no float64 offset of a height has more that count
ZEROS = 1 << 18  # of a block, about
PIECE = 1 << 15  # zeros whose numbers stay in the cache from step to step
FINER = (8.0, 16.0, 48.0)  # oversampling of the further looks, at every cell


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


def plan(first: Height, last: Height, zeros: int = ZEROS) -> Iterator[tuple[Height, Height]]:
    """Cut a range into blocks of about as many zeros as told, at whole heights, one after another.

    The cuts depend on where the range begins and on nothing else, and a range that begins at a cut has the same cuts.
    """
    while True:
        here = float(first)
        length = zeros / max(spectral.density(max(here, 20.0)), 0.2)
        length = zeros / spectral.density(here + length)
        end = Height(first.base + max(math.ceil(length), 1), 0.0)
        if last.over(end.base) <= length / 4:
            break
        yield first, end
        first = end
    yield first, last


@dataclass(frozen=True)
class Part:
    """What was found in a window: its zeros, its error budget, and the places at which the sign could not be told."""

    offsets: np.ndarray
    error: float
    undecided: tuple[float, ...] = ()


class Finder(NamedTuple):
    """How windows are worked on.

    Attributes
    ----------
    find : callable
        ``find(windows, oversampling, every)`` gives a ``Part`` for each window; see ``find``, the CPU's own.
    zeros, windows : int
        About how many zeros, and how many windows at most, it works on at once.
    """

    find: Callable[[Sequence[spectral.Window], float, bool], list[Part]]
    zeros: int
    windows: int


def groups(first: Height, last: Height, finder: Finder) -> list[list[spectral.Window]]:
    """Cut a block into windows, in groups that are worked on at once."""
    windows = spectral.windows(first.base, first.offset, last.over(first.base))
    return spectral.groups(windows, finder.zeros, finder.windows)


def close(
    number: int, first: Height, last: Height, looked: Sequence[tuple[Sequence[spectral.Window], list[Part]]],
    closings: tuple[Any, Any], finder: Finder,
) -> Block:  # fmt: skip
    """Make a block of what was found in its windows, looking again where zeros are missing.

    Parameters
    ----------
    number : int
    first, last : Height
    looked : sequence of (windows, parts)
        The groups, in order, and what ``finder.find`` gave for each.
    closings : tuple
        N at both ends, as ``turing.close`` gave it, or the error that it raised.
    finder : Finder

    Returns
    -------
    Block
    """
    at_first, at_last = closings
    failures = [str(c) for c in closings if isinstance(c, Exception)]
    below = -1 if isinstance(at_first, Exception) else at_first.zeros
    expected = -1 if failures else at_last.zeros - at_first.zeros
    parts = [p for _, found in looked for p in found]
    count = sum(len(p.offsets) for p in parts)
    for finer in FINER:
        if expected < 0 or count == expected:
            break
        parts = [p for windows, _ in looked for p in finder.find(windows, finer, True)]
        count = sum(len(p.offsets) for p in parts)
    if expected >= 0 and count != expected:
        failures.append(f"{count} zeros found, {expected} are there")
    failures += [f"the sign of Z at {first.base} + {at!r} could not be told" for p in parts for at in p.undecided]
    offsets = np.concatenate([p.offsets for p in parts])
    return Block(
        number, first, last, offsets, below, expected, "; ".join(failures), max(p.error for p in parts),
        statistics(first, offsets, below) if below >= 0 else {},
    )  # fmt: skip


def find(windows: Sequence[spectral.Window], oversampling: float, every: bool) -> list[Part]:
    """Find several windows' zeros on the CPU.

    Where a grid meets a zero, that window is looked at again on another grid; if that goes on, the signs in doubt are
    worked out one by one.
    """
    samples = [spectral.sample(window, oversampling) for window in windows]
    parts = []
    for window, at, found in zip(windows, samples, sign.zeros(samples, every)):
        for attempt in (1, 2):
            if found.doubtful:
                at = spectral.sample(window, oversampling * (1 + attempt / 17))
                (found,) = sign.zeros([at], every)
        parts.append(Part(found.offsets, at.error, tuple(x for x in found.doubtful if not _told(at, x))))
    return parts


def _told(samples: spectral.Samples, at: float) -> bool:
    """Tell whether Z itself has the sign of its sample at a grid point, beyond its error."""
    value = probe.Z(samples.base, at)
    sample = float(samples.values[spectral.MARGIN + round((at - samples.first) / samples.step)])
    return abs(value) > probe.budget(samples.base + at) and (value > 0) == (sample > 0)


CPU = Finder(find, 1 << 16, 1 << 10)


def gram_coordinate(first: Height, offsets: np.ndarray) -> tuple[int, np.ndarray]:
    """Return theta / pi at each height as a whole number and what is over it: zeros' places among Gram points.

    Parameters
    ----------
    first : Height
    offsets : ndarray of float64
        Heights over ``first.base``.
    """
    whole, pieces = _gram_pieces(first, offsets)
    return whole, np.concatenate([np.empty(0), *pieces])


def _gram_pieces(first: Height, offsets: np.ndarray) -> tuple[int, Iterator[np.ndarray]]:
    """Return the same, the second part piece by piece: large arrays cost threads that share a memory more than sums."""
    low = first.base + (offsets[0] if len(offsets) else 0.0)
    reach = float(offsets[-1] - offsets[0]) if len(offsets) else 0.0
    cut = [offsets[k : k + PIECE] for k in range(0, len(offsets), PIECE)]
    if low < 1000 or reach > low / 4:
        return 0, (theta(first.base + piece) / math.pi for piece in cut)
    center = first.base + round(float(offsets[0] + offsets[-1]) / 2)
    around = develop(center, reach / 2 + 2)
    return 2 * around.turns, (_gram_piece(around, piece - float(center - first.base)) for piece in cut)


def _gram_piece(around: Development, s: np.ndarray) -> np.ndarray:
    bend = horner(around.curve, s)
    bend *= s
    bend *= s
    bend /= math.pi
    s *= 2 * around.frequency.hi
    s += 2 * around.rest
    bend += s
    return bend


def statistics(first: Height, offsets: np.ndarray, below: int) -> dict[str, Any]:
    """Summarise a block: gaps in mean distances, extremes of S(t), and how Gram's law fares.

    ``S(t) = N(t) - theta(t)/pi - 1``; its extremes are at zeros, just before or just after.
    """
    if len(offsets) < 2:
        return {}
    whole, pieces = _gram_pieces(first, offsets)
    gaps, after, intervals = _Extremes(), _Extremes(), _Intervals()
    k, last = 0, np.empty(0)
    for here in pieces:
        gaps.add(here[:1] - last, k - 1)
        gaps.add(np.diff(here), k)
        after.add(np.arange(below - whole + k, below - whole + k + len(here)) - here, k)
        intervals.add(here)
        k, last = k + len(here), here[-1:]
    at = offsets
    return {
        "smallest_gap": gaps.least, "smallest_gap_at": float(at[gaps.least_at]),
        "largest_gap": gaps.most, "largest_gap_at": float(at[gaps.most_at]),
        "largest_s": after.most, "largest_s_at": float(at[after.most_at]),
        "smallest_s": after.least - 1, "smallest_s_at": float(at[after.least_at]),
        "gram_intervals": intervals.counted(),
    }  # fmt: skip


class _Intervals:
    """How many Gram intervals hold so many zeros, from places that rise and come in pieces."""

    def __init__(self) -> None:
        self._per = np.zeros(6, np.int64)
        self._open: tuple[int, int] | None = None  # the last interval, and how many zeros it holds so far

    def _count(self, per: np.ndarray) -> None:
        self._per = np.pad(self._per, (0, max(len(per) - len(self._per), 0)))
        self._per[: len(per)] += per

    def add(self, places: np.ndarray) -> None:
        interval = np.floor(places).astype(np.int64)
        begin, end = int(interval[0]), int(interval[-1])
        interval -= begin
        counts = np.bincount(interval)
        if self._open is not None:
            before, held = self._open
            if before == begin:
                counts[0] += held
            else:
                self._per[0] += begin - before - 1
                self._count(np.bincount([held]))
        self._count(np.bincount(counts[:-1]))
        self._open = (end, int(counts[-1]))

    def counted(self) -> list[int]:
        if self._open is not None:
            self._count(np.bincount([self._open[1]]))
            self._open = None
        return self._per.tolist()


class _Extremes:
    """The least and the most of an array that comes in pieces, and their places."""

    def __init__(self) -> None:
        self.least, self.most = math.inf, -math.inf
        self.least_at = self.most_at = 0

    def add(self, values: np.ndarray, begin: int) -> None:
        if not len(values):
            return
        low, high = int(values.argmin()), int(values.argmax())
        if values[low] < self.least:
            self.least, self.least_at = float(values[low]), begin + low
        if values[high] > self.most:
            self.most, self.most_at = float(values[high]), begin + high


def closing(height: Height) -> Any:
    """Close N at a height; a failure is returned, not raised."""
    if float(height) < turing.FIRST:
        return turing.Closing(0, turing.FIRST, 0)
    try:
        return turing.close(height.base, height.offset)
    except turing.OpenCountError as error:
        return error
