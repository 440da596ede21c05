"""The FFT family as an operation: parameters, work, gradient rule, reference. The user functions stand in fft.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count, product
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import NUMPY, Operand, kind_of
from ..dispatcher import dispatcher
from ..errors import DtypeError, ShapeError
from ..narrow import Narrow, as_operands, rounded
from ..operation import Features, Operation, Request, Variant, Work, log2, relative_error
from ..precision import COMPLEX_OF, REAL_OF, UNIT_ROUNDOFF
from ..scattered import between, pick, scattered

# How much the result is divided by: nothing, sqrt(n), n. Also pocketfft's own code for it.
NONE, SQRT, FULL = 0, 1, 2
WORKING = {
    "bool": "float64", "float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64",
    "complex64": "float32", "complex128": "float64", "float128": "float128", "complex256": "float128",
    "float96": "float96", "complex192": "float96",
}  # fmt: skip
BATCH = 16  # calls that `explain` considers to make as one
_TOLERANCE = {"float32": 6e-7, "float64": 2e-15}


class FFTParams(NamedTuple):
    """What distinguishes transforms of one array.

    ``kind`` is ``"c2c"``, ``"r2c"`` or ``"c2r"``; ``lengths`` the transform lengths over ``axes`` (for the real kinds
    the length on the real side); ``forward`` the sign of the exponent; ``scale`` one of NONE, SQRT, FULL.
    """

    kind: str
    forward: bool
    lengths: tuple[int, ...]
    axes: tuple[int, ...]
    scale: int


@lru_cache(maxsize=4096)
def prime_factors(n: int) -> tuple[int, ...]:
    """Return the prime factors of a positive number, the largest last."""
    found, factor = [], 2
    while factor * factor <= n:
        while n % factor == 0:
            found.append(factor)
            n //= factor
        factor += 1
    return (*found, n) if n > 1 else tuple(found)


def largest_prime(n: int) -> int:
    """Return the largest prime factor of a positive number."""
    return prime_factors(n)[-1] if n > 1 else 1


class FFT(Operation):
    """The family's operation."""

    name = "fft"
    linear = True

    def result(self, request: Request) -> tuple[Operand, ...]:
        x, p = request.first, request.params
        shape = list(x.shape)
        for axis, length in zip(p.axes, p.lengths):
            shape[axis] = length
        if p.kind == "r2c":
            shape[p.axes[-1]] = p.lengths[-1] // 2 + 1
        real = WORKING.get(x.dtype, "float64")
        return (Operand(tuple(shape), real if p.kind == "c2r" else COMPLEX_OF[real], x.device, x.kind),)

    def work(self, request: Request) -> Work:
        points, length, _ = sizes(request)
        flops = 5.0 * points * max(math.log2(max(length, 1)), 1.0) * (1.0 if request.params.kind == "c2c" else 0.5)
        return Work(flops, float(request.first.nbytes + self.result(request)[0].nbytes))

    def features(self, request: Request) -> Features:
        p = request.params
        prime = max((largest_prime(n) for n in p.lengths), default=1)
        rough = 0.0 if prime <= 2 else 3.0 + 2 * log2(prime)
        odd = APART if p.lengths and p.lengths[-1] % 2 else 0.0
        return place(request, self.work(request).flops, rough, odd)

    def tolerance(self, request: Request) -> float:
        dtype = self.result(request)[0].dtype
        return _TOLERANCE.get(REAL_OF.get(dtype, dtype), 2e-15)

    def narrowed(self, request: Request) -> Sequence[Narrow]:
        x, p, operands = request.first, request.params, rounded(request)
        cut = any(length < x.shape[axis] for axis, length in zip(p.axes, p.lengths)) and p.kind != "c2r"
        if request.tol is None or operands is None or cut or x.dtype not in ("float64", "complex128"):
            return ()
        narrow = Request(self, operands, p, request.tol, request.threads)

        def given(arrays: Sequence[Any], error: float) -> list[Any] | str:
            return as_operands(arrays, narrow, guarded=1)

        # A transform keeps norms, and so it keeps the relative error of what it is given.
        return (Narrow(narrow, "float32", UNIT_ROUNDOFF["float32"], request.tol, given),)

    def variants(self, request: Request) -> Iterable[Variant]:
        x, p = request.first, request.params
        many = Operand((BATCH, *x.shape), x.dtype, x.device, x.kind)
        batched = p._replace(axes=tuple(axis + 1 for axis in p.axes))
        text = f"{BATCH} such calls as one, with a leading axis"
        yield Variant(text, Request(self, (many,), batched, request.tol, request.threads), BATCH)
        awkward = [n for n in p.lengths if largest_prime(n) > 7]
        if awkward and p.kind != "c2r":
            easy = tuple(next(m for m in count(n) if largest_prime(m) <= 7) for n in p.lengths)
            shape = list(x.shape)
            for axis, n in zip(p.axes, easy):
                shape[axis] = n
            n, m = awkward[0], easy[p.lengths.index(awkward[0])]
            why = f"length {n} is prime" if largest_prime(n) == n else f"length {n} has the factor {largest_prime(n)}"
            padded = (x._replace(shape=tuple(shape)),)
            text = f"{why}: pad to {m}, where another spacing of the frequencies will do"
            yield Variant(text, Request(self, padded, p._replace(lengths=easy), request.tol, request.threads))

    def samples(self, quick: bool) -> Iterable[Request]:
        points = 17.0 if quick else 21.0
        kinds = list(product(("c2c", "r2c", "c2r"), ("float32", "float64")))
        layouts = ("last", "last", "last", "last", "strided", "nd")
        for size, shape, rounding, one, which, where in scattered(160 if quick else 360, 6):
            (kind, real), layout = pick(which, kinds), pick(where, layouts)
            total = between(size, 3.0, points)
            if layout == "nd":
                side = between(shape, 1.5, max(math.log2(total) - 1.5, 2.0))
                sides = (_near(total / side, rounding), _near(side, rounding))
                yield _sample(kind, real, (1, *sides), (1, 2))
                continue
            n = _near(between(shape, 1.0, math.log2(total)), rounding)
            batch = 1 if one < 0.25 else max(1, round(total / n))
            if layout == "last":
                yield _sample(kind, real, (batch, n), (1,))
            else:
                yield _sample(kind, real, (n, max(batch, 2)), (0,))

    def held_out(self, rng: np.random.Generator) -> Request:
        total = 2.0 ** rng.uniform(4, 21)
        kind = str(rng.choice(["c2c", "r2c", "c2r"]))
        real = str(rng.choice(["float32", "float64"]))
        layout = rng.choice(["last", "strided", "nd"], p=[0.7, 0.15, 0.15])
        if layout == "nd":
            side = max(2, int(math.sqrt(total) * 2.0 ** rng.uniform(-1, 1)))
            return _sample(kind, real, (max(2, int(total / side)), side), (0, 1))
        n = max(2, int(2.0 ** rng.uniform(3, math.log2(total))))
        if rng.random() < 0.4:
            n = 1 << max(1, n.bit_length() - 1)
        batch = max(1, int(total / n)) if rng.random() < 0.7 else 1
        return _sample(kind, real, (batch, n), (1,)) if layout == "last" else _sample(kind, real, (n, batch), (0,))

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        if not shape:
            raise ShapeError("fft needs at least one axis; give a shape such as 4096x1024")
        if dtype not in WORKING and not dtype.startswith(("int", "uint")):
            raise DtypeError(f"dtype {dtype!r} is not one that fft computes in")
        params = FFTParams("c2c", True, shape[-1:], (len(shape) - 1,), NONE)
        x = Operand(shape, dtype, "cpu", "numpy")
        return Request(self, (x,), params, None, _settings.threads(_settings.current()))

    def describe(self, request: Request) -> str:
        axes = ",".join(map(str, request.params.axes))
        return f"{request.params.kind} over axis {axes} of {super().describe(request)}"

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        x = request.first
        if x.dtype not in REAL_OF:
            return (rng.standard_normal(x.shape, _precision(x.dtype)).astype(x.dtype, copy=False),)
        parts = rng.standard_normal((*x.shape, 2), _precision(x.dtype)).astype(REAL_OF[x.dtype], copy=False)
        return (parts.view(x.dtype)[..., 0],)

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        x, result = np.asarray(arrays[0]), np.asarray(result)
        if result.shape != self.result(request)[0].shape:
            return math.inf
        some, exact = _sampled(request.params, x, result)
        error = relative_error(some, exact)
        if not math.isfinite(error) or some.size == result.size:
            return error
        # Relative to the typical output, not to the few that were picked, which may happen to be small.
        picked = float(np.linalg.norm(exact.astype(complex))) / math.sqrt(max(some.size, 1))
        typical = float(np.linalg.norm(result)) / math.sqrt(max(result.size, 1))
        return error * picked / typical if 0 < typical < math.inf else error

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        return (_gradient(params, arrays[0], grads[0]),)

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], None]:
        return params._replace(axes=tuple(axis + 1 for axis in params.axes)), arrays, None


FAMILY = FFT()

# Octaves by which requests that differ in kind or layout stand apart in a time model. What one of them costs beside the
# law tells about the others too, only less; a class of its own for each would take ten times as many points.
APART = 3.0


def place(request: Request, work: float, *rough: float) -> Features:
    """Return where a request stands in a kernel's time model, given the work and what makes its lengths awkward."""
    p = request.params
    _, length, _ = sizes(request)
    several = len(p.axes) > 1
    strided = not several and any(n != 1 for n in request.first.shape[p.axes[0] + 1 :]) if p.axes else False
    dtype = request.operation.result(request)[0].dtype
    differs = (strided, several, p.kind == "r2c", p.kind == "c2r")
    at = (log2(work), log2(length), *rough, *(APART if apart else 0.0 for apart in differs))
    return Features(REAL_OF.get(dtype, dtype), at)


def sizes(request: Request) -> tuple[int, int, int]:
    """Return points in all, points of one transform, and the number of transforms."""
    p = request.params
    length = math.prod(p.lengths)
    batch = math.prod(n for axis, n in enumerate(request.first.shape) if axis not in p.axes)
    return length * batch, length, batch


def _near(size: float, rounding: float) -> int:
    """Return a length near one: a power of two, a product of small primes, or any other, by a coordinate in [0, 1)."""
    if rounding < 0.4:
        return max(2, 1 << round(math.log2(size)))
    n = max(2, round(size))
    if rounding < 0.55:
        return next(m for m in count(n) if largest_prime(m) <= 7)
    return n


def _precision(dtype: str) -> Any:
    return np.float32 if dtype in ("float32", "complex64") else np.float64


def _sample(kind: str, real: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Request:
    """Return a plain forward (or, for c2r, inverse) request whose real-side shape is ``shape``."""
    lengths = tuple(shape[axis] for axis in axes)
    dtype = real if kind == "r2c" else COMPLEX_OF[real]
    if kind == "c2r":
        shape = tuple(n // 2 + 1 if axis == axes[-1] else n for axis, n in enumerate(shape))
    params = FFTParams(kind, kind != "c2r", lengths, axes, NONE)
    return Request(FAMILY, (Operand(shape, dtype, "cpu", "numpy"),), params, None, _settings.available_threads())


def fit(x: np.ndarray, params: FFTParams) -> np.ndarray:
    """Cut or zero-pad the transformed axes to the lengths asked for (on the complex side for c2r)."""
    for axis, n in zip(params.axes, params.lengths):
        if params.kind == "c2r" and axis == params.axes[-1]:
            n = n // 2 + 1
        x = NUMPY.fit(x, axis, n)
    return x


def _complete(x: np.ndarray, params: FFTParams) -> np.ndarray:
    """Return the full spectrum that a half spectrum stands for (Hermitian symmetry over all transformed axes)."""
    last, n = params.axes[-1], params.lengths[-1]
    mirrored = np.conj(x)
    for axis in params.axes[:-1]:
        mirrored = np.roll(np.flip(mirrored, axis), 1, axis)
    tail = np.take(mirrored, np.arange((n - 1) // 2, 0, -1), axis=last)
    return np.concatenate([x, tail], axis=last)


def reference(params: FFTParams, x: np.ndarray) -> np.ndarray:
    """Return the transform by its definition, in extended precision where the platform has it."""
    wide = np.asarray(x).astype(np.clongdouble)
    wide = fit(wide, params)
    if params.kind == "c2r":
        edges = [0] if params.lengths[-1] % 2 else [0, params.lengths[-1] // 2]
        if len(params.axes) == 1:
            for edge in edges:  # their imaginary part has no counterpart in a real signal and is ignored
                lines = np.moveaxis(wide, params.axes[0], 0)
                lines[edge] = lines[edge].real
        wide = _complete(wide, params)
    for axis, n in zip(params.axes, params.lengths):
        wide = np.moveaxis(np.moveaxis(wide, axis, -1) @ _matrix(n, np.arange(n), params.forward).T, -1, axis)
    wide = wide / _factor(params)
    if params.kind == "r2c":
        wide = np.take(wide, np.arange(params.lengths[-1] // 2 + 1), axis=params.axes[-1])
    return wide.real if params.kind == "c2r" else wide


def _factor(params: FFTParams) -> Any:
    total = np.longdouble(math.prod(params.lengths))
    return {NONE: np.longdouble(1), SQRT: np.sqrt(total), FULL: total}[params.scale]


def _matrix(n: int, rows: np.ndarray, forward: bool) -> np.ndarray:
    """Return rows of the DFT matrix; the phase is reduced in integers, so that it is exact.

    Long rows are in float64: their rounding averages out to about 1e-16, well under any kernel's own.
    """
    steps = (rows[:, None] * np.arange(n)[None, :]) % n
    real: Any = np.longdouble if n <= 4096 else np.float64
    angles = steps.astype(real) * real(_TWO_PI) / n
    return np.cos(angles) + (-1j if forward else 1j) * np.sin(angles)


@lru_cache(maxsize=1)  # the kernels of one sample are checked one after another against the same rows
def _some_rows(n: int, rows: tuple[int, ...], forward: bool) -> np.ndarray:
    return _matrix(n, np.array(rows), forward)


_TWO_PI = 8 * np.arctan(np.longdouble(1))


def _sampled(params: FFTParams, x: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return result and reference where both are small enough to compare: whole, or some rows and bins of one axis."""
    if len(params.axes) > 1:
        for axis in set(range(x.ndim)) - set(params.axes):  # the first and the last transform
            x, result = (np.take(a, range(0, a.shape[axis], max(a.shape[axis] - 1, 1)), axis) for a in (x, result))
        if math.prod(params.lengths) <= 1 << 10:
            return result, reference(params, x)
        from numpy import fft as numpy_fft  # an independent library, in float64, where the definition is too slow

        name = {"c2c": "fftn" if params.forward else "ifftn", "r2c": "rfftn", "c2r": "irfftn"}[params.kind]
        wide = x.astype(np.float64 if params.kind == "r2c" else np.complex128)
        norm = {NONE: "backward", SQRT: "ortho", FULL: "forward"}[params.scale]
        if name.startswith("i"):
            norm = {"backward": "forward", "ortho": "ortho", "forward": "backward"}[norm]
        return result, getattr(numpy_fft, name)(wide, params.lengths, params.axes, norm=norm)
    (axis,), (n,) = params.axes, params.lengths
    x, result = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]), np.moveaxis(result, axis, -1)
    result = result.reshape(-1, result.shape[-1])
    rows = np.unique(np.linspace(0, len(x) - 1, 3).astype(int))
    moved = params._replace(axes=(1,))
    if n <= 128:
        return result[rows], reference(moved, x[rows])
    bins = np.unique(np.random.default_rng(n).integers(0, result.shape[-1], max(2, min(16, (1 << 16) // n))))
    wide = fit(x[rows].astype(np.clongdouble if n <= 4096 else np.complex128), moved)
    if params.kind == "c2r":
        wide[:, 0] = wide[:, 0].real
        if n % 2 == 0:
            wide[:, -1] = wide[:, -1].real
        wide = _complete(wide, moved)
    exact = wide @ _some_rows(n, tuple(bins.tolist()), params.forward).T / _factor(params)
    return result[rows][:, bins], exact.real if params.kind == "c2r" else exact


def _gradient(params: FFTParams, x: Any, grad: Any) -> Any:
    """Return the adjoint transform of the gradient (PyTorch's convention for complex values, dL/dz*).

    The adjoint of a transform has the opposite sign and the same scale; cutting and padding are each other's adjoint.
    """
    kind = kind_of(x)
    assert kind is not None
    back = params._replace(forward=not params.forward)
    last, n = params.axes[-1], params.lengths[-1]
    if params.kind == "c2r":
        result = dispatcher.run(FAMILY, back._replace(kind="r2c"), grad)
        weights = np.full(n // 2 + 1, 2.0)  # every interior bin stands for its mirror image as well
        weights[0] = 1.0
        if n % 2 == 0:
            weights[-1] = 1.0
        shape = [1] * x.ndim
        shape[last] = len(weights)
        result = result * kind.constant(weights.reshape(shape), result)
    else:  # for r2c the half spectrum is padded with zeros to the full length, which is what its adjoint sees
        result = dispatcher.run(FAMILY, back._replace(kind="c2c"), grad)
    for axis in params.axes:
        result = kind.fit(result, axis, x.shape[axis])
    return result
