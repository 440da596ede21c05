"""Time and error against size: a simple law fitted to what was measured, corrected by the measured points nearby.

A point stands at one or more coordinates, of which the first is the base-2 logarithm of the work. The law is a fixed
cost plus a cost in proportion to the work. What a kernel takes beside it (caches, threads that start, odd lengths) is
interpolated between the points by a Gaussian process, wherever they lie: they need not form a grid, so that several
coordinates at once take few of them. Far from every point the law alone is left.

Gaussian processes: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, 2006, chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

TINY = 1e-20
# Octaves over which two points tell about each other. It is longer than the distance between most of them, and then
# the covariance exp(-distance / REACH) interpolates about linearly; its exact value hardly matters.
REACH = 12.0
# Octaves by which a measured time may differ from the law and the process without saying anything.
NOISE = 0.05
NEAR = 3  # checked points from which a request's error is told


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


class _Model(NamedTuple):
    """A law and the process around it: seconds are ``scale * (knee + work) * 2 ** sum(weights * covariances)``."""

    log_scale: float
    knee: float
    weights: np.ndarray


class Curve:
    """The measured points of one kernel in one parameter class."""

    def __init__(self, points: Iterable[Measurement]) -> None:
        self.points = tuple(points)
        if not self.points:
            raise ValueError("a curve needs at least one point")
        self._at = np.array([point.at for point in self.points], float).reshape(len(self.points), -1)
        self._low, self._high = self._at.min(0, initial=math.inf), self._at.max(0, initial=-math.inf)
        errors = np.array([math.nan if p.error is None else p.error for p in self.points])
        checked = ~np.isnan(errors)
        self._checked, self._errors = self._at[checked], errors[checked]
        self._model: _Model | None = None

    @property
    def coordinates(self) -> int:
        """Number of coordinates of each point."""
        return self._at.shape[1]

    def at(self, at: Sequence[float]) -> Estimate:
        """Predict at the given coordinates; outside the measured range of one of them flagged as extrapolated."""
        model = self._model
        if model is None:
            model = self._model = self._fit()
        place = np.asarray(at, float)
        distance = _distance(self._at, place)
        time = model.log_scale + float(np.exp(distance / -REACH) @ model.weights)
        if len(place):
            time += math.log2(model.knee + 2.0 ** place[0])
        outside = bool((place < self._low - 1e-9).any() or (place > self._high + 1e-9).any())
        nearest = self.points[int(distance.argmin())]
        return Estimate(2.0 ** min(time, 60.0), nearest.spread, self._error(place), outside)

    def _error(self, place: np.ndarray) -> float | None:
        """Return the largest error of the checked points nearby, or of one that was checked at this very place."""
        if not len(self._errors):
            return None
        distance = _distance(self._checked, place)
        near = np.argsort(distance, kind="stable")[:NEAR]
        here = near[distance[near] < 1e-9]
        return float(self._errors[here if len(here) else near].max())

    def _fit(self) -> _Model:
        times = np.log2(np.maximum([point.seconds for point in self.points], TINY))
        if not self.coordinates:
            return _Model(float(np.median(times)), 0.0, np.zeros(len(times)))
        log_scale, knee = _law(self._at[:, 0], times)
        rest = times - log_scale - np.log2(knee + 2.0 ** self._at[:, 0])
        covariance = np.exp(_distance(self._at[:, None], self._at) / -REACH)
        variance = max(float(np.mean(rest**2)), 1e-4)
        weights = np.linalg.solve(covariance + np.eye(len(rest)) * (NOISE**2 / variance), rest)
        return _Model(log_scale, knee, weights)


def _distance(points: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.sqrt(((points - place) ** 2).sum(-1))


def _law(work: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Return the logarithm of a cost by work, and the work that costs as much as every call costs besides.

    The knee is looked for among some places, by the least absolute error, which a few slow points do not move.
    """
    if np.ptp(work) < 1.0:  # one size alone: half of what it took may be what every call costs
        knee = 2.0 ** float(np.median(work))
        return float(np.median(times - np.log2(knee + 2.0**work))), knee
    knees = 2.0 ** np.linspace(work.min() - 6, work.max() + 1, 32)
    rest = times - np.log2(knees[:, None] + 2.0**work)
    middle = np.median(rest, axis=1)
    best = int(np.abs(rest - middle[:, None]).mean(1).argmin())
    return float(middle[best]), float(knees[best])
