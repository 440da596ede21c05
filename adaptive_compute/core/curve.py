"""Time and error against size: a simple law fitted to what was measured, corrected by the measured points nearby.

A point stands at one or more coordinates, of which the first is the base-2 logarithm of the work. The law is a fixed
cost plus a cost in proportion to the work. What a kernel takes beside it (caches, threads that start, odd lengths) is
interpolated between the points by a Gaussian process, wherever they lie: they need not form a grid, so that several
coordinates at once take few of them. Far from every point the law alone is left.

The parameter classes of a kernel are fitted together: what is the same in all of them is learned from all their points,
and what is a class's own from its own. So a class with few points, or none, is told about by the others.

Gaussian processes: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, 2006, chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .operation import Features

TINY = 1e-20
# Octaves over which two points tell about each other. It is longer than the distance between most of them, and then
# the covariance exp(-distance / REACH) interpolates about linearly; its exact value hardly matters.
REACH = 12.0
# Octaves by which times differ from the law: in all classes alike, in a class of its own, and by as much everywhere in
# a class; then by which a measured time may differ from all that without saying anything, beside its own spread. They
# were cross-validated on profiles of two machines; none matters much.
SHARED, OWN, OFFSET, NOISE = 0.7, 0.5, 0.7, 0.07
# A point that differs from what the others say of it by so many times what points usually do is hardly believed.
OUTLYING = 4.0
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


class _Model:
    """The points of several classes with as many coordinates, fitted together."""

    def __init__(self, classes: Sequence[Sequence[Measurement]]) -> None:
        points = [point for own in classes for point in own]
        self._at = np.array([point.at for point in points], float).reshape(len(points), -1)
        classed = np.repeat(np.arange(len(classes)), [len(own) for own in classes])
        times = np.log2(np.maximum([point.seconds for point in points], TINY))
        work = self._at[:, 0] if self._at.shape[1] else np.zeros(len(times))
        self._log_scale, self._knee = _law(work, times)
        rest = times - self._law_at(work)
        same = classed[:, None] == classed
        near = np.exp(_distance(self._at[:, None], self._at) / -REACH)
        covariance = near * (SHARED**2 + OWN**2 * same) + OFFSET**2 * same
        noise = NOISE**2 + np.log2([1.0 + point.spread for point in points]) ** 2
        for _ in range(2):
            inverse = np.linalg.inv(covariance + np.diag(noise))
            weights = inverse @ rest
            # By how much each point differs from what the others say of it, beside how sure they are.
            alone, sure = weights / np.diag(inverse), np.sqrt(np.diag(inverse))
            usual = max(1.5 * float(np.median(np.abs(alone * sure))), 1.0)
            noise = np.where(np.abs(alone * sure) > OUTLYING * usual, np.maximum(noise, alone**2), noise)
        self._shared = SHARED**2 * weights
        of_class = [np.where(classed == number, weights, 0.0) for number in range(len(classes))]
        self._own = [(self._shared + OWN**2 * own, OFFSET**2 * float(own.sum())) for own in of_class]

    def _law_at(self, work: Any) -> Any:
        return self._log_scale + np.log2(self._knee + 2.0**work)

    def seconds(self, place: np.ndarray, number: int | None) -> float:
        """Predict at a place in one of the classes, or (None) in one that has no points."""
        weights, time = (self._shared, 0.0) if number is None else self._own[number]
        time += self._law_at(place[0] if len(place) else 0.0)
        time += np.exp(_distance(self._at, place) / -REACH) @ weights
        return float(2.0 ** min(time, 60.0))


class Curve:
    """The measured points of one kernel in one parameter class; ``among`` are those of the kernel's other classes."""

    def __init__(self, points: Iterable[Measurement], among: Curves | None = None, name: str = "") -> None:
        self.points = tuple(points)
        if not self.points:
            raise ValueError("a curve needs at least one point")
        self._at = np.array([point.at for point in self.points], float).reshape(len(self.points), -1)
        self._low, self._high = self._at.min(0, initial=math.inf), self._at.max(0, initial=-math.inf)
        errors = np.array([math.nan if p.error is None else p.error for p in self.points])
        checked = ~np.isnan(errors)
        self._checked, self._errors = self._at[checked], errors[checked]
        self._among, self._name = among, name

    @property
    def coordinates(self) -> int:
        """Number of coordinates of each point."""
        return self._at.shape[1]

    def at(self, at: Sequence[float]) -> Estimate:
        """Predict at the given coordinates; outside the measured range of one of them flagged as extrapolated."""
        place = np.asarray(at, float)
        if self._among is None:
            self._among = Curves({self._name: self})
        seconds = self._among.seconds(self._name, place)
        outside = bool((place < self._low - 1e-9).any() or (place > self._high + 1e-9).any())
        nearest = self.points[int(_distance(self._at, place).argmin())]
        return Estimate(seconds, nearest.spread, self._error(place), outside)

    def _error(self, place: np.ndarray) -> float | None:
        """Return the largest error of the checked points nearby, or of one that was checked at this very place."""
        if not len(self._errors):
            return None
        distance = _distance(self._checked, place)
        near = np.argsort(distance, kind="stable")[:NEAR]
        here = near[distance[near] < 1e-9]
        return float(self._errors[here if len(here) else near].max())


class Curves(dict[str, Curve]):
    """The curves of one kernel by parameter class, fitted together where they have as many coordinates.

    ``notes`` are for what a kernel derives from them and wants to keep.
    """

    def __init__(self, classes: Mapping[str, Curve | Sequence[Measurement]]) -> None:
        for name, points in classes.items():
            self[name] = points if isinstance(points, Curve) else Curve(points, self, name)
        self.notes: dict[Any, Any] = {}
        self._models: dict[int, tuple[_Model, dict[str, int]]] = {}

    def seconds(self, name: str, place: np.ndarray) -> float:
        """Predict at a place in a class, which needs no points of its own where others have as many coordinates."""
        found = self._models.get(len(place))
        if found is None:
            alike = {name: curve for name, curve in self.items() if curve.coordinates == len(place)}
            model = _Model([curve.points for curve in alike.values()])
            found = self._models[len(place)] = model, {name: number for number, name in enumerate(alike)}
        return found[0].seconds(place, found[1].get(name))

    def at(self, features: Features) -> Estimate | None:
        """Predict for a request; None where no class has as many coordinates.

        Of a class that was not measured the others tell, but not how exact it is.
        """
        curve = self.get(features.name)
        if curve is not None and curve.coordinates == len(features.at):
            return curve.at(features.at)
        others = [other for other in self.values() if other.coordinates == len(features.at)]
        if not others:
            return None
        spread = max(point.spread for other in others for point in other.points)
        return Estimate(self.seconds(features.name, np.asarray(features.at, float)), spread, None, True)


def _distance(points: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.sqrt(((points - place) ** 2).sum(-1))


def _law(work: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Return the logarithm of a cost by work, and the work that costs as much as every call costs besides.

    The knee is looked for among some places, by the least absolute error, which a few slow points do not move.
    """
    if np.ptp(work) < 1.0:  # one size alone: half of what it took may be what every call costs
        knee = 2.0 ** float(np.median(work))
        return float(np.median(times - np.log2(knee + 2.0**work))), knee
    knees = 2.0 ** np.linspace(work.min() - 6, work.max() + 5, 36)
    rest = times - np.log2(knees[:, None] + 2.0**work)
    middle = np.median(rest, axis=1)
    best = int(np.abs(rest - middle[:, None]).mean(1).argmin())
    return float(middle[best]), float(knees[best])
