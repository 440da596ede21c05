"""Plans of a NUFFT whose engines remember the points that they were made ready for, and lend them to one another.

A plan keeps a few *settings*: an engine (FINUFFT's plan, or matrices) with its own copy of its points. A call takes a
free setting whose points equal its own, so that nothing is prepared again, and otherwise makes one ready; calls in
several threads never share a setting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.operation import Request
from ...core.operations.nufft_period import TURN, TURN_REST, check_reach
from ...core.operations.nufft_rule import check_finite, coordinate_names
from ...core.transfer import counters
from ..base import Plan

SETTINGS_BYTES = 128 << 20  # what the settings of one plan may hold together, if more than one
MOST_SETTINGS = 4


class Setting:
    """An engine, and the points that it is ready for (None: no points yet)."""

    __slots__ = ("engine", "mark", "points")

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.points: list[np.ndarray] | None = None
        self.mark: tuple[bytes, ...] = ()

    def is_ready(self, mark: tuple[bytes, ...], points: Sequence[np.ndarray]) -> bool:
        """Tell whether the engine is ready for these points; the mark, a few of them, is compared first."""
        return self.points is not None and self.mark == mark and all(map(np.array_equal, self.points, points))


Execute = Callable[[Any, np.ndarray], np.ndarray]


class PointsPlan(Plan):
    """A plan whose engines remember their points.

    ``make`` returns an engine; ``prepare(engine, points)`` makes it ready for points, which it may keep;
    ``execute(engine, data)`` runs it. ``others`` are plans whose engines, once ready for the points of a call, can run
    it as well: each with how. So a gradient, which is transforms over the points of the forward call, sorts nothing.
    """

    def __init__(
        self,
        request: Request,
        make: Callable[[], Any],
        prepare: Callable[[Any, list[np.ndarray]], None],
        execute: Execute,
        nbytes: int,
        others: Callable[[], list[tuple[PointsPlan, Execute]]] = list,
    ) -> None:
        self._others = others
        self._params, self._names = request.params, coordinate_names(request.params)
        self._make, self._prepare, self._execute = make, prepare, execute
        self._limit = max(1, min(MOST_SETTINGS, SETTINGS_BYTES // max(nbytes, 1)))
        self.nbytes = nbytes * self._limit
        self._free = [Setting(make())]  # in the order of their last use
        self._count = 1
        self._change = threading.Condition()

    def run(self, data: np.ndarray, *points: np.ndarray) -> np.ndarray:
        if not data.flags.c_contiguous:
            counters.count_copy("strengths or modes that are not contiguous, for a NUFFT")
            data = np.ascontiguousarray(data)
        mark = tuple(x[:: max(1, len(x) // 3)].tobytes() for x in points)
        setting = self._take(mark)
        try:
            if not setting.is_ready(mark, points):
                for other, execute in self._others():
                    lent = other.lend(mark)
                    if lent is not None:
                        try:
                            if lent.is_ready(mark, points):
                                return execute(lent.engine, data)
                        finally:
                            other._give(lent)
                self._set(setting, mark, points)
            return self._execute(setting.engine, data)
        finally:
            self._give(setting)

    def lend(self, mark: tuple[bytes, ...]) -> Setting | None:
        """Return a free setting that seems to have these points, which the caller gives back; else None."""
        with self._change:
            for index in range(len(self._free) - 1, -1, -1):
                if self._free[index].mark == mark:
                    return self._free.pop(index)
        return None

    def _set(self, setting: Setting, mark: tuple[bytes, ...], points: Sequence[np.ndarray]) -> None:
        check_finite(points, self._names)
        setting.points = None  # an engine that fails half-way has no points
        copies = [np.array(x, order="C") for x in points]
        periodic = zip(copies, self._names, self._params.n_modes) if self._params.type != 3 else ()
        folded = [_folded(x, name, n, self._params.eps) for x, name, n in periodic]
        self._prepare(setting.engine, folded or copies)
        setting.points, setting.mark = copies, mark

    def _take(self, mark: tuple[bytes, ...]) -> Setting:
        """Return a free setting: one that seems to have these points, a new one, or the one used longest ago."""
        with self._change:
            while True:
                for index in range(len(self._free) - 1, -1, -1):
                    if self._free[index].mark == mark:
                        return self._free.pop(index)
                if self._count < self._limit and not (self._free and self._free[0].points is None):
                    self._count += 1
                    break
                if self._free:
                    return self._free.pop(0)
                self._change.wait()
        try:
            return Setting(self._make())
        except BaseException:
            with self._change:
                self._count -= 1
            raise

    def _give(self, setting: Setting) -> None:
        with self._change:
            self._free.append(setting)
            self._change.notify()


def _folded(x: np.ndarray, name: str, n: int, eps: float) -> np.ndarray:
    """Return points within one period, [-pi, pi], in their own dtype.

    FINUFFT folds as well, but in the points' precision, which costs up to three times the rounding of points within.
    """
    reach = max(-float(x.min()), float(x.max()))
    if reach <= np.pi:
        return x
    check_reach(reach, name, n, eps)
    wide = x.astype(np.float64)
    turns = np.rint(wide * (0.5 / np.pi))
    wide -= turns * TURN
    wide -= turns * TURN_REST
    return wide.astype(x.dtype)
