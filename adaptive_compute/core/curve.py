"""Time and error against size: measured points, interpolated in log-log.

A point stands at one or more coordinates (base-2 logarithms of sizes). Points that share the first coordinate form a
curve over the rest, so that a grid may be ragged: a batch of 4096 is measured at fewer lengths than a batch of 1.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

TINY = 1e-20
STEEPEST = 3.0


class Measurement(NamedTuple):
    """One measured point: median seconds, relative spread, relative L2 error (None where it was not checked)."""

    at: tuple[float, ...]
    seconds: float
    spread: float
    error: float | None


class Estimate(NamedTuple):
    """A prediction for one request: seconds, relative spread, error, and whether it lies outside what was measured."""

    seconds: float
    spread: float
    error: float | None
    extrapolated: bool


class _Values(NamedTuple):
    time: float
    spread: float
    error: float
    outside: bool


class _Axis:
    """Measured values along one coordinate; each value is itself an axis while coordinates are left."""

    def __init__(self, points: Sequence[Measurement], depth: int) -> None:
        groups: dict[float, list[Measurement]] = {}
        for point in points:
            groups.setdefault(point.at[depth], []).append(point)
        self.at = sorted(groups)
        last = depth + 1 == len(points[0].at)
        self.below: list[_Axis | _Values] = [
            _leaf(groups[at]) if last else _Axis(groups[at], depth + 1) for at in self.at
        ]

    def value(self, at: Sequence[float], depth: int) -> _Values:
        position, places = at[depth], self.at
        right = min(max(bisect_right(places, position), 1), len(places) - 1)
        if len(places) == 1:
            only = self._at(0, at, depth)  # no slope was measured: what grows is taken to cost in proportion
            outside = only.outside or abs(position - places[0]) > 1e-9
            return only._replace(time=only.time + max(position - places[0], 0.0), outside=outside)
        left = right - 1
        share = (position - places[left]) / (places[right] - places[left])
        if share in (0.0, 1.0):
            return self._at(left if share == 0 else right, at, depth)
        low, high = self._at(left, at, depth), self._at(right, at, depth)
        if 0 < share < 1:
            time = low.time + share * (high.time - low.time)
            error = max(low.error, high.error)
            return _Values(time, max(low.spread, high.spread), error, low.outside or high.outside)
        # Outside: the last slope goes on, within what a size can do. Beyond the largest, where a fixed cost no longer
        # counts, time grows at least in proportion; a smaller call takes an eighth of the smallest measured at least.
        flattest = 0.0 if share < 0 else 1.0
        slope = min(max((high.time - low.time) / (places[right] - places[left]), flattest), STEEPEST)
        near, distance = (low, position - places[left]) if share < 0 else (high, position - places[right])
        return near._replace(time=near.time + max(slope * distance, -3.0), outside=True)

    def _at(self, index: int, at: Sequence[float], depth: int) -> _Values:
        below = self.below[index]
        return below if isinstance(below, _Values) else below.value(at, depth + 1)


def _leaf(points: Sequence[Measurement]) -> _Values:
    best = min(points, key=lambda point: point.seconds)
    errors = [point.error for point in points if point.error is not None]
    return _Values(math.log2(max(best.seconds, TINY)), best.spread, max(errors) if errors else math.nan, outside=False)


class Curve:
    """The measured points of one kernel in one parameter class."""

    def __init__(self, points: Iterable[Measurement]) -> None:
        self.points = tuple(points)
        if not self.points:
            raise ValueError("a curve needs at least one point")
        errors = [point.error for point in self.points if point.error is not None]
        self._worst = max(errors) if errors else None
        self._axis = _Axis(self.points, 0) if self.points[0].at else None

    @property
    def coordinates(self) -> int:
        """Number of coordinates of each point."""
        return len(self.points[0].at)

    def at(self, at: Sequence[float]) -> Estimate:
        """Predict at the given coordinates; beyond the measured range by the last slope, flagged as extrapolated."""
        values = self._axis.value(at, 0) if self._axis is not None else _leaf(self.points)
        error = self._worst if math.isnan(values.error) else values.error
        return Estimate(2.0 ** min(values.time, 60.0), values.spread, error, values.outside)
