"""NUFFT on the CPU: FINUFFT with one thread or all, and the direct sum by matrix products for small problems.

A plan keeps a few *settings*: an engine (FINUFFT's plan, or matrices) with its own copy of the points that it was made
ready for. A call takes a free setting whose points equal its own, so that nothing is prepared again, and otherwise
makes one ready; calls in several threads never share a setting.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np

from ...core.curve import Curve, Estimate
from ...core.dispatcher import physical_memory
from ...core.errors import NufftError, NufftWarning
from ...core.operation import Features, Request, log2
from ...core.operations.nufft_rule import (
    FLOOR,
    LARGEST_PHASE,
    ROUNDING,
    SMALLEST_EPS,
    NufftParams,
    check_finite,
    coordinate_names,
    direct_limit,
    frequencies,
    grid_bytes,
    outputs_of,
    place,
    place_of,
    points_of,
    terms,
)  # fmt: skip
from ...core.precision import REAL_OF
from ...core.transfer import counters
from ...core.waits import short_waits
from ..base import Kernel, Plan
from .device import needs

SETTINGS_BYTES = 128 << 20  # what the settings of one plan may hold together, if more than one
MOST_SETTINGS = 4
ONE_THREAD = 1 << 18  # multiplications of a real matrix product up to which OpenBLAS uses one thread
# Bytes of a grid from which the transforms of a stack are made one after another, each by all threads. FINUFFT's own
# choice, a thread for each, was measured at 1.2 times as long with grids of 12 MB, and at the same with 0.8 MB.
ONE_BY_ONE = 4 << 20
LEAST_SHARED = 1e5  # floating-point operations below which threads cost more than they save


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [Finufft("finufft", threaded=True), Finufft("finufft-1", threaded=False), Direct()]


class Setting:
    """An engine, and the points that it is ready for (None: no points yet)."""

    __slots__ = ("engine", "mark", "points")

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.points: list[np.ndarray] | None = None
        self.mark: tuple[bytes, ...] = ()


class PointsPlan(Plan):
    """A plan whose engines remember their points.

    ``make`` returns an engine; ``prepare(engine, points)`` makes it ready for points, which it may keep;
    ``execute(engine, data)`` runs it.
    """

    def __init__(
        self,
        request: Request,
        make: Callable[[], Any],
        prepare: Callable[[Any, list[np.ndarray]], None],
        execute: Callable[[Any, np.ndarray], np.ndarray],
        nbytes: int,
    ) -> None:
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
            ready = setting.points
            if ready is None or setting.mark != mark or not all(map(np.array_equal, ready, points)):
                self._set(setting, mark, points)
            return self._execute(setting.engine, data)
        finally:
            self._give(setting)

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


# 2 pi as a sum, so that what is taken from a point is exact: multiples of the first part need no rounding.
_TURN = float(np.float32(2 * np.pi))
_EXACT = 2.0**29 * _TURN  # 24 bits of the first part, and 29 of turns
_TURN_REST = float(8 * np.arctan(np.longdouble(1)) - np.longdouble(_TURN))


def _folded(x: np.ndarray, name: str, n: int, eps: float) -> np.ndarray:
    """Return points within one period, [-pi, pi], in their own dtype.

    FINUFFT folds as well, but in the points' precision, which costs up to three times the rounding of points within.
    Farther out than folding is exact, the highest of the ``n`` frequencies turns a point's rounding into an error.
    """
    reach = max(-float(x.min()), float(x.max()))
    if reach <= np.pi:
        return x
    if reach > _EXACT:
        error = n / 2 * reach / LARGEST_PHASE
        said = f"{name} reaches {reach:.3g}, too far from [-pi, pi]: its rounding gives {n} modes an error of about"
        if error >= 1:
            raise NufftError(f"{said} {error:.1g}, which is no correct digit")
        if error > eps:
            warnings.warn(f"{said} {error:.1g}, more than eps={eps:.1g}", NufftWarning, stacklevel=2)
    wide = x.astype(np.float64)
    turns = np.rint(wide * (0.5 / np.pi))
    wide -= turns * _TURN
    wide -= turns * _TURN_REST
    return wide.astype(x.dtype)


class EmptyPlan(Plan):
    """The plan of a transform over no points, or to no targets: zeros, or nothing."""

    def __init__(self, request: Request) -> None:
        (result,) = request.operation.result(request)
        self._shape, self._dtype, self._names = result.shape, result.dtype, coordinate_names(request.params)

    def run(self, data: np.ndarray, *points: np.ndarray) -> np.ndarray:
        check_finite(points, self._names)
        return np.zeros(self._shape, self._dtype)


class Finufft(Kernel):
    """FINUFFT. With all threads it is faster on large problems, with one on small ones."""

    operation = "nufft"
    libraries = ("finufft",)

    def __init__(self, name: str, threaded: bool) -> None:
        self.name = name
        self.threaded = threaded

    def supports(self, request: Request) -> bool | str:
        if self.threaded and request.threads < 2:
            return "the call may use one thread only"
        if self.threaded and request.operation.work(request).flops < LEAST_SHARED:
            return "too little work to share between threads"
        memory, needed = physical_memory(), grid_bytes(request.params, request.first.dtype)
        if memory is not None and needed > memory:
            return f"its grid would take {needed / 2**30:.3g} GiB, and this machine has {memory / 2**30:.1f} GiB"
        return needs("finufft")

    def plan(self, request: Request) -> Plan:
        if points_of(request) == 0 or outputs_of(request) == 0:
            return EmptyPlan(request)
        p: NufftParams = request.params
        given = np.dtype(request.first.dtype)
        dtype = np.dtype(np.complex128) if _needs_double(p, REAL_OF[given.name]) else given
        sizes: Any = p.dim if p.type == 3 else p.n_modes
        options = {"showwarn": 0, **dict(p.options), "modeord": p.modeord}
        if p.n_trans > 1 and p.type != 3 and grid_bytes(p, dtype.name) >= ONE_BY_ONE:
            options = {"maxbatchsize": 1, **options}
        options["nthreads"] = request.threads if self.threaded else 1
        eps = max(p.eps, 1.01 * float(np.finfo(given).eps))  # FINUFFT does the same, and warns again

        def make() -> Any:
            return _finufft_plan(p.type, sizes, p.n_trans, eps, p.isign, dtype.name, options)

        def prepare(engine: Any, points: list[np.ndarray]) -> None:
            if dtype != given:
                points = [x.astype(np.float64) for x in points]
            gap = [None] * (3 - p.dim)
            with _Refusals():
                engine.setpts(*points[: p.dim], *gap, *points[p.dim :])

        def execute(engine: Any, data: np.ndarray) -> np.ndarray:
            with _Refusals():
                if dtype == given:
                    return engine.execute(data)
                counters.count_copy("single-precision strengths, for a type 3 NUFFT that needs double")
                return engine.execute(data.astype(dtype)).astype(given)

        batch = min(p.n_trans, request.threads)
        held = 1.6**p.dim * grid_bytes(p, dtype.name) * batch  # 2 / 1.25: FINUFFT's usual upsampling
        nbytes = int(held) + 16 * (points_of(request) * p.dim + outputs_of(request) * (p.type == 3))
        return PointsPlan(request, make, prepare, execute, nbytes)

    def features(self, request: Request) -> Features:
        found = super().features(request)
        double = _needs_double(request.params, REAL_OF[request.first.dtype])
        return found._replace(name="float64") if double else found

    def estimate(self, request: Request, curves: Mapping[str, Curve]) -> Estimate | None:
        features = self.features(request)
        curve = curves.get(features.name)
        if curve is None or curve.coordinates != len(features.at):
            return None
        return curve.at(features.at)._replace(error=_error(curve, request))


def _error(curve: Curve, request: Request) -> float:
    """Predict the error as so many times eps plus so many times the rounding, the median of what was measured of each.

    A curve cannot interpolate it: from one point to the next it changes as eps does, not as sizes do.
    """
    p, real = request.params, REAL_OF[request.first.dtype]
    beside = 0.0
    if _needs_double(p, real):  # then single precision rounds the result alone
        beside, real = ROUNDING[real], "float64"
    of_eps, of_rounding = _shares(curve, p.type, p.dim, real)
    return beside + of_eps * max(p.eps, SMALLEST_EPS[real]) + of_rounding * _rounding(max(p.n_modes), real)


@lru_cache(maxsize=64)
def _shares(curve: Curve, nufft_type: int, dim: int, real: str) -> tuple[float, float]:
    of_eps: list[float] = []
    of_rounding: list[float] = []
    for point in curve.points:
        found = place_of(point.at)
        if point.error is not None and (found.type, found.dim) == (nufft_type, dim):
            rounding = _rounding(found.modes ** (1 / dim), real)
            shares, unit = (of_eps, found.eps) if found.eps > rounding else (of_rounding, rounding)
            shares.append(point.error / unit)
    return median(of_eps or [1.0]), median(of_rounding or [1.0])


def _rounding(n: float, real: str) -> float:
    return max(ROUNDING[real] * n, FLOOR[real])


def _needs_double(p: NufftParams, real: str) -> bool:
    """Tell whether a type 3 transform in single precision could not keep the tolerance.

    There points and targets are both rounded to a grid, and FINUFFT's error was measured at up to 1.4e-7 times the
    number of modes that the extents amount to, twice what types 1 and 2 lose.
    """
    if p.type != 3 or real != "float32":
        return False
    n = max(p.n_modes)
    return 1.4e-7 * n > max(4 * p.eps + ROUNDING[real] * n, FLOOR[real])


class _Refusals:
    """Turns what FINUFFT refuses into this library's error."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is RuntimeError:
            raise NufftError(f"FINUFFT refuses the call: {error}") from error


_making = threading.Lock()


def _finufft_plan(
    nufft_type: int, sizes: Any, n_trans: int, eps: float, isign: int, dtype: str, options: dict[str, Any]
) -> Any:
    """Return FINUFFT's plan, with its warnings as this library's.

    The lock is for the warnings' filters, which belong to the whole process.
    """
    with _making, short_waits():
        import finufft
    with _making, warnings.catch_warnings(record=True) as given, _Refusals():
        warnings.simplefilter("always")
        plan = finufft.Plan(nufft_type, sizes, n_trans, eps, isign, dtype, **options)
    for warning in given:
        warnings.warn(f"FINUFFT warns: {warning.message}", NufftWarning, stacklevel=2)
    return plan


class Direct(Kernel):
    """The sum by its definition, as products with matrices of exponentials that are kept with the points.

    In types 1 and 2 a matrix belongs to one dimension, so that few exponentials are computed; the phases are in float64
    whatever the data are.
    """

    name = "direct"
    operation = "nufft"
    libraries = ("numpy",)

    def supports(self, request: Request) -> bool | str:
        if request.params.options:
            return f"FINUFFT's options were given: {', '.join(name for name, _ in request.params.options)}"
        limit = direct_limit(request.params)
        if terms(request) > limit:
            return f"points times modes is {terms(request)}; a direct sum is sensible up to {limit}"
        return True

    def features(self, request: Request) -> Features:
        n_trans = request.params.n_trans
        return place(request, n_trans * terms(request), log2(n_trans), log2(points_of(request)))

    def plan(self, request: Request) -> Plan:
        if points_of(request) == 0 or outputs_of(request) == 0:
            return EmptyPlan(request)
        p: NufftParams = request.params
        dtype = np.dtype(request.first.dtype)
        shape = request.operation.result(request)[0].shape
        build = _build_targets if p.type == 3 else _build_modes
        product = {1: _to_modes, 2: _to_points, 3: _to_targets}[p.type]

        def prepare(engine: list[np.ndarray], points: list[np.ndarray]) -> None:
            engine[:] = build(p, points, dtype)

        def execute(engine: list[np.ndarray], data: np.ndarray) -> np.ndarray:
            return product(engine, data.reshape(p.n_trans, -1)).reshape(shape)

        nbytes = 2 * dtype.itemsize * max(terms(request), points_of(request) * sum(p.n_modes))
        return PointsPlan(request, list, prepare, execute, nbytes)


def _waves(phase: np.ndarray) -> np.ndarray:
    """Return exp(i phase); the two real functions are faster than the complex one."""
    waves = np.empty(phase.shape, np.complex128)
    np.cos(phase, out=waves.real)
    np.sin(phase, out=waves.imag)
    return waves


def _powers(x: np.ndarray, n: int) -> np.ndarray:
    """Return exp(i k x) for the n frequencies from -n//2 up, as ``(points, n)``.

    Products of powers 0 .. step-1, which come from one exponential by multiplication, and of every step-th one: few
    exponentials, and an error of at most ``step`` roundings.
    """
    step = min(64 if n > 256 else 16, 1 << max(n - 1, 1).bit_length())
    fine = np.empty((len(x), step), np.complex128)
    fine[:, 0], fine[:, 1] = 1, _waves(x)
    have = 2
    while have < step:
        np.multiply(fine[:, :have], np.square(fine[:, have // 2])[:, None], out=fine[:, have : 2 * have])
        have *= 2
    coarse = _waves(np.multiply.outer(x, np.arange(-(n // 2), (n + 1) // 2, step)))
    return (coarse[:, :, None] * fine[:, None, :]).reshape(len(x), -1)[:, :n]


def _build_modes(p: NufftParams, points: list[np.ndarray], dtype: np.dtype) -> list[np.ndarray]:
    """Return the matrix of the first dimension, and the one of all the others together.

    Each is ``(points, modes)``, or for type 2 ``(modes, points)``.
    """
    matrices = []
    for x, n in zip(points, p.n_modes):
        matrix = _powers(p.isign * x.astype(np.float64), n)
        if p.modeord:
            matrix = matrix[:, frequencies(n, 1) + n // 2]
        matrices.append(matrix)
    while len(matrices) > 2:
        last = matrices.pop()
        matrices[-1] = (matrices[-1][:, :, None] * last[:, None, :]).reshape(len(last), -1)
    if p.type == 2:  # there the sum is over modes
        matrices = [matrix.T for matrix in matrices]
    return [np.ascontiguousarray(matrix, dtype) for matrix in matrices]


def _build_targets(p: NufftParams, points: list[np.ndarray], dtype: np.dtype) -> list[np.ndarray]:
    wide = [x.astype(np.float64) for x in points]
    phase = sum(np.multiply.outer(x, s) for x, s in zip(wide[: p.dim], wide[p.dim :]))
    return [_waves(p.isign * np.asarray(phase)).astype(dtype)]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a @ b`` by real products so small that OpenBLAS computes each in the calling thread.

    Its threads wait for one another by spinning: with one core taken by somebody else, a product of 10 us was measured
    at 8 ms. Complex products have threads from 2^16 multiplications on, vectors from 2^12, real ones much later.
    """
    (rows, inner), columns = a.shape, b.shape[1]
    real = b.view(b.real.dtype)
    if 4 * rows * inner * columns <= ONE_THREAD:
        return _real_product(a, real)
    out = np.empty((rows, columns), b.dtype)
    height = max(1, min(rows, ONE_THREAD // (4 * inner)))
    width = max(1, ONE_THREAD // (4 * height * inner))
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            piece = _real_product(a[top : top + height], real[:, 2 * left : 2 * (left + width)])
            out[top : top + height, left : left + width] = piece
    return out


def _real_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a`` times a complex matrix that is given as a real one of twice as many columns."""
    parts = np.concatenate([a.real, a.imag]) @ b
    out, turned = parts.view(a.dtype).reshape(2, len(a), -1)
    out.real -= turned.imag
    out.imag += turned.real
    return out


def _to_targets(matrices: list[np.ndarray], data: np.ndarray) -> np.ndarray:
    return _product(data, matrices[0])


def _to_modes(matrices: list[np.ndarray], data: np.ndarray) -> np.ndarray:
    if len(matrices) == 1:
        return _product(data, matrices[0])
    first, rest = matrices
    weighted = (data[:, None, :] * first.T).reshape(-1, len(first))
    return _product(weighted, rest)


def _to_points(matrices: list[np.ndarray], data: np.ndarray) -> np.ndarray:
    if len(matrices) == 1:
        return _product(data, matrices[0])
    first, rest = matrices
    partial = _product(data.reshape(-1, len(rest)), rest)
    return (partial.reshape(len(data), len(first), -1) * first).sum(1)
