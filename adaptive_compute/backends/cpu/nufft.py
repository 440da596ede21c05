"""NUFFT on the CPU: FINUFFT with one thread or all, and the direct sum by matrix products for small problems.

Plans keep their points and lend engines to one another: see nufft_points.py.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from statistics import median
from typing import Any

import numpy as np

from ...core.array import Operand
from ...core.curve import Curve, Estimate
from ...core.dispatcher import physical_memory
from ...core.errors import NufftError, NufftWarning
from ...core.host_memory import results
from ...core.operation import Features, Request, log2
from ...core.operations.nufft_rule import (
    FLOOR,
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
from .nufft_points import Execute, PointsPlan

ONE_THREAD = 1 << 18  # multiplications of a real matrix product up to which OpenBLAS uses one thread
# Bytes of a grid from which the transforms of a stack are made one after another, each by all threads. FINUFFT's own
# choice, a thread for each, was measured at 1.2 times as long with grids of 12 MB, and at the same with 0.8 MB.
ONE_BY_ONE = 4 << 20
MOST_LENDERS = 256  # sorts of plans that are known before those that are gone are looked for
LEAST_SHARED = 1e5  # floating-point operations below which threads cost more than they save


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [Finufft("finufft", threaded=True), Finufft("finufft-1", threaded=False), Direct()]


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
        alone = p.type == 3 or (p.n_trans > 1 and grid_bytes(p, dtype.name) < ONE_BY_ONE)
        key = (self.name, p.type, p.n_modes, eps, p.isign, p.modeord, p.options, dtype.name, request.threads)
        outcome = request.operation.result(request)[0]
        plan = PointsPlan(request, make, prepare, execute, nbytes, list if alone else partial(_partners, key, outcome))
        if p.type != 3 and p.n_trans == 1:
            with _lending:
                if len(_lenders) >= MOST_LENDERS:  # what no plan is left of is forgotten
                    for gone in [known for known, plans in _lenders.items() if not plans]:
                        del _lenders[gone]
                _lenders.setdefault(key, weakref.WeakSet()).add(plan)
        return plan

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


# Plans of one transform each, by what decides their engines. A stack of transforms on large grids is made one by one
# anyway, and an engine's adjoint is the transform of the other type and sign over the same points.
_lenders: dict[Any, weakref.WeakSet[PointsPlan]] = {}
_lending = threading.Lock()  # a set must not grow while another thread reads it


def _partners(key: tuple[Any, ...], outcome: Operand) -> list[tuple[PointsPlan, Execute]]:
    """Return the plans whose engines can run a transform of types 1 and 2 with such a result, and how."""
    name, kind, modes, eps, isign, *rest = key

    def each(engine: Any, data: np.ndarray) -> np.ndarray:
        return one_by_one(engine.execute, data)

    def each_adjoint(engine: Any, data: np.ndarray) -> np.ndarray:
        return one_by_one(engine.execute_adjoint, data)

    def one_by_one(run: Callable[..., np.ndarray], data: np.ndarray) -> np.ndarray:
        out = results.empty(outcome.shape, outcome.dtype)
        stacked = data.ndim > (1 if kind == 1 else len(modes))
        with _Refusals():
            for part, row in zip(data, out) if stacked else ((data, out),):
                run(part, out=row)
        return out

    with _lending:
        same = list(_lenders.get(key, ()))
        opposite = list(_lenders.get((name, 3 - kind, modes, eps, -isign, *rest), ()))
    found: list[tuple[PointsPlan, Execute]] = [(plan, each) for plan in same]
    return found + [(plan, each_adjoint) for plan in opposite] if _has_adjoint() else found


@lru_cache(maxsize=1)
def _has_adjoint() -> bool:
    """Tell whether this FINUFFT's plans run their adjoint; they do from 2.5 on."""
    import finufft

    return hasattr(finufft.Plan, "execute_adjoint")


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
