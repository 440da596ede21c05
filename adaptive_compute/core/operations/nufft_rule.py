"""The NUFFT family as an operation: parameters, work, time model, reference, gradient rule.

Operands are the strengths or modes first (they decide the result's kind and device), then the points, a coordinate
each, then for type 3 the target frequencies, a coordinate each. What the profile measures is a repeated call with
points that the plan has seen before; a call with new points costs the sorting of the points, or the building of the
matrices, on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import Operand, kind_of
from ..dispatcher import dispatcher
from ..errors import DtypeError, NufftError, ShapeError
from ..narrow import Narrow, as_operands, rounded
from ..operation import Features, Operation, Request, Variant, Work, log2, relative_error
from ..precision import COMPLEX_OF, REAL_OF, UNIT_ROUNDOFF
from ..scattered import between, pick, scattered

# The conformance rule: error <= 4 eps + ROUNDING * (largest number of modes in a dimension), and at least FLOOR.
ROUNDING = {"float32": 6e-8, "float64": 1.1e-16}
FLOOR = {"float32": 1e-5, "float64": 0.0}
# The smallest eps that the rule is held to: below it, what a kernel reaches depends on the data.
SMALLEST_EPS = {"float32": 2.5e-6, "float64": 1e-12}
LARGEST_PHASE = 1 / UNIT_ROUNDOFF["float64"]  # radians; all phases are computed in float64
BATCH = 8  # calls that `explain` considers to make as one
# Between these tolerances the profile measures.
PROFILED_EPS = {"float32": (1e-1, 1e-6), "float64": (1e-1, 1e-12)}
# Terms (points times modes) up to which a direct sum is offered, by dimension. With known points it would win further
# on; but with new ones its matrices cost more than a fast transform, from about here more than three times as much.
_DIRECT_TERMS = {1: (1 << 16, 1 << 16, 1 << 18), 3: (1 << 14, 1 << 15, 1 << 17)}


class NufftParams(NamedTuple):
    """What distinguishes transforms of the same operands.

    ``n_modes`` are the modes of each dimension; for type 3 the number of modes that the extents of points and targets
    amount to (2 X S / pi for half-widths X and S), rounded up to a quarter of an octave: it decides the size of the
    grid; empty while the points have no values (in a graph that is being traced). ``modeord`` 0 counts modes up from
    -N//2, 1 is the FFT's order. ``options`` are FINUFFT's own, sorted.
    """

    type: int
    dim: int
    n_modes: tuple[int, ...]
    n_trans: int
    isign: int
    modeord: int
    eps: float
    options: tuple[tuple[str, float], ...] = ()


def points_of(request: Request) -> int:
    """Return the number of nonuniform points."""
    operand = request.operands[1]
    assert operand is not None
    return operand.size


def outputs_of(request: Request) -> int:
    """Return the number of modes, or for type 3 of targets."""
    if request.params.type == 3:
        operand = request.operands[-1]
        assert operand is not None
        return operand.size
    return math.prod(request.params.n_modes)


def terms(request: Request) -> int:
    """Return the terms of the direct sum for one transform."""
    return points_of(request) * outputs_of(request)


def direct_limit(params: NufftParams) -> int:
    """Return the terms up to which a direct sum is offered."""
    return _DIRECT_TERMS[3 if params.type == 3 else 1][params.dim - 1]


def grid_bytes(params: NufftParams, dtype: str) -> int:
    """Return the least memory that the fine grid of a fast transform takes, at FINUFFT's smallest upsampling."""
    nbytes = 8.0 if dtype in ("float32", "complex64") else 16.0
    for n in params.n_modes:
        nbytes *= 1.25 * n
    return int(nbytes * (1 + 1.25**params.dim if params.type == 3 else 1))


class NUFFT(Operation):
    """The family's operation."""

    name = "nufft"
    own_tolerance = True  # eps
    defers = True

    def result(self, request: Request) -> tuple[Operand, ...]:
        data, p = request.first, request.params
        if p.type == 2:
            shape = (*data.shape[: -p.dim], points_of(request))
        else:
            shape = (*data.shape[:-1], *(p.n_modes if p.type == 1 else (outputs_of(request),)))
        return (data._replace(shape=shape),)

    def work(self, request: Request) -> Work:
        p = request.params
        width = math.ceil(_width(p.eps))
        spread = points_of(request) + (outputs_of(request) if p.type == 3 else 0)
        modes = math.prod(p.n_modes)
        flops = p.n_trans * (4.0 * spread * width**p.dim + 5.0 * modes * math.log2(max(modes, 2)))
        nbytes = sum(o.nbytes for o in request.operands if o is not None) + self.result(request)[0].nbytes
        return Work(flops, float(nbytes))

    def features(self, request: Request) -> Features:
        p = request.params
        real = REAL_OF[request.first.dtype]
        eps = min(max(p.eps, PROFILED_EPS[real][-1]), PROFILED_EPS[real][0])
        spread = points_of(request) + (outputs_of(request) if p.type == 3 else 0)
        modes = math.prod(p.n_modes) * 2.0**p.dim  # of the fine grid
        flops = p.n_trans * (4.0 * spread * _width(eps) ** p.dim + 5.0 * modes * math.log2(max(modes, 2)))
        sizes = (
            log2(points_of(request)),
            log2(math.prod(p.n_modes)),
            log2(outputs_of(request)) if p.type == 3 else 0.0,
        )
        return place(request, flops, -math.log10(eps), log2(p.n_trans), *sizes)

    def tolerance(self, request: Request) -> float:
        p, real = request.params, REAL_OF[request.first.dtype]
        return max(4 * max(p.eps, SMALLEST_EPS[real]) + ROUNDING[real] * max(p.n_modes), FLOOR[real])

    def variants(self, request: Request) -> Iterable[Variant]:
        data, p = request.first, request.params
        if p.n_trans == 1:
            many = (data._replace(shape=(BATCH, *data.shape)), *request.operands[1:])
            text = f"{BATCH} such calls with the same points as one, with a leading axis"
            yield Variant(text, Request(self, many, p._replace(n_trans=BATCH), request.tol, request.threads), BATCH)

    def narrowed(self, request: Request) -> Sequence[Narrow]:
        p, operands = request.params, rounded(request)
        # Of type 3, targets far from the origin multiply what rounding the points costs.
        if operands is None or request.first.dtype != "complex128" or p.type == 3:
            return ()
        eps = p.eps / 2
        narrow = Request(self, operands, p._replace(eps=eps), request.tol, request.threads)
        # What the conformance rule allows in float32 must be within what it allows in float64. Rounding a point between
        # -pi and pi moves it by 7e-8 in the mean, and turns the phase of mode k by k times that: the rule's own term.
        added = ROUNDING["float32"] * sum(p.n_modes)
        limit = self.tolerance(request)
        if eps < SMALLEST_EPS["float32"] or self.tolerance(narrow) + added > limit:
            return ()

        def given(arrays: Sequence[Any], error: float) -> list[Any] | str:
            data, *points = arrays
            return as_operands([data, *map(folded, points)], narrow, guarded=1)

        return (Narrow(narrow, "float32", added, limit, given),)

    def samples(self, quick: bool) -> Iterable[Request]:
        kinds = list(product((1, 2, 3), (1, 2, 3), ("float32", "float64")))
        largest = 13.0 if quick else 15.0
        for points, modes, eps, n_trans, kind in scattered(90 if quick else 300, 5):
            nufft_type, dim, real = pick(kind, kinds)
            many = round(between(2 * n_trans - 1, 0.0, 4.0)) if n_trans > 0.5 else 1
            digits = between(eps, 0.0, math.log2(-math.log10(PROFILED_EPS[real][-1])))
            size = round(between(points, 3.0, largest))
            yield sample(nufft_type, dim, real, 10.0**-digits, many, size, round(between(modes, 2.0, largest - 0.5)))
        # How threads pay off where there is much to do, which smaller transforms do not tell.
        for points, modes, eps, kind in scattered(0 if quick else 16, 4):
            nufft_type, dim, real = pick(kind, kinds)
            digits = between(eps, 0.0, math.log2(-math.log10(PROFILED_EPS[real][-1])))
            size = round(between(points, 15.0, 19.5))
            yield sample(nufft_type, dim, real, 10.0**-digits, 1, size, round(between(modes, 12.0, 19.5)))

    def held_out(self, rng: np.random.Generator) -> Request:
        nufft_type, dim = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        real = str(rng.choice(["float32", "float64"]))
        eps = 10.0 ** rng.uniform(-6 if real == "float32" else -12, -1)
        n_trans = int(rng.choice([1, 1, 1, 2, 5, 12]))
        points, modes = 2.0 ** rng.uniform(4, 17), 2.0 ** rng.uniform(3, 16)
        return sample(nufft_type, dim, real, eps, n_trans, int(points), int(modes))

    def describe(self, request: Request) -> str:
        p = request.params
        size = f"{'x'.join(map(str, p.n_modes))} modes" if p.type < 3 else f"{outputs_of(request)} targets"
        return f"{p.dim}d{p.type} {points_of(request)} points, {size}, eps {p.eps:.0e} {request.first.dtype}"

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        """Return a type 2 transform from modes of this shape to as many points."""
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise ShapeError(f"nufft needs one to three dimensions of modes, such as 512x512, got {shape}")
        if dtype not in REAL_OF or dtype == "complex256":
            raise DtypeError(f"dtype {dtype!r} is not one that nufft computes in; use complex64 or complex128")
        real = Operand((math.prod(shape),), REAL_OF[dtype], "cpu", "numpy")
        params = NufftParams(2, len(shape), shape, 1, -1, 0, 1e-6)
        threads = _settings.threads(_settings.current())
        return Request(self, (Operand(shape, dtype, "cpu", "numpy"), *[real] * len(shape)), params, None, threads)

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        data, p = request.first, request.params
        real = REAL_OF[data.dtype]
        values = rng.standard_normal((*data.shape, 2)).astype(real).view(data.dtype)[..., 0]
        points = [rng.uniform(-np.pi, np.pi, points_of(request)).astype(real) for _ in range(p.dim)]
        if p.type == 3:
            points += [rng.uniform(-n / 2, n / 2, outputs_of(request)).astype(real) for n in p.n_modes]
        return (values, *points)

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        p: NufftParams = request.params
        total = outputs_of(request) if p.type != 2 else points_of(request)
        summed = max(terms(request) // max(total, 1), 1)
        count = min(total, max(4, (1 << 16) // summed))
        keep = np.unique(np.random.default_rng(total).integers(0, max(total, 1), count))
        exact = reference(p, *arrays, keep=keep)
        flat = np.asarray(result).reshape(p.n_trans, -1)
        return relative_error(flat[:, keep], exact)

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        return _gradient(params, arrays, grads[0], wanted)

    def tangent(
        self, params: Any, arrays: tuple[Any, ...], tangents: tuple[Any, ...], result: Any
    ) -> tuple[Any, ...] | None:
        return (_tangent(params, arrays, tangents, result),)

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], Any] | None:
        if any(stacked[1:]):  # a plan is for one set of points
            return None
        own = params.dim if params.type == 2 else 1
        data = arrays[0]
        lead, flat = data.shape[:-own], data.reshape(-1, *data.shape[-own:])

        def finish(results: list[Any]) -> list[Any]:
            return [result.reshape(*lead, *result.shape[1:]) for result in results]

        return params._replace(n_trans=flat.shape[0]), (flat, *arrays[1:]), finish

    def completed(self, params: Any, arrays: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        if params.n_modes:
            return params, arrays
        from .nufft_arguments import equivalent_modes

        points, targets = arrays[1 : params.dim + 1], arrays[params.dim + 1 :]
        return params._replace(n_modes=equivalent_modes(points, targets)), arrays


def folded(points: Any) -> Any:
    """Return coordinates in [-pi, pi], where float32 resolves them best, brought there in float64."""
    if not math.prod(points.shape) or max(abs(float(points.min())), abs(float(points.max()))) <= math.pi:
        return points
    turn = 2 * math.pi
    return points - turn * (points / turn).round()


FAMILY = NUFFT()

# Octaves by which transforms of different types and dimensions stand apart in a time model; see fft_rule.
APART = 3.0


def place(request: Request, work: float, *at: float) -> Features:
    """Return where a request stands in a kernel's time model, given the work and the kernel's own coordinates."""
    p = request.params
    differs = (p.type == 2, p.type == 3, p.dim == 2, p.dim == 3)
    return Features(REAL_OF[request.first.dtype], (log2(work), *at, *(APART if apart else 0.0 for apart in differs)))


class Place(NamedTuple):
    """What the operation's own coordinates tell of a measured request."""

    type: int
    dim: int
    eps: float
    modes: float


def place_of(at: Sequence[float]) -> Place:
    """Return what was measured at a place of the operation's own coordinates."""
    second, third, two, three = (x > 0 for x in at[-4:])
    return Place(1 + second + 2 * third, 1 + two + 2 * three, 10.0 ** -at[1], 2.0 ** at[4])


def _width(eps: float) -> float:
    """Return the points of the grid in each dimension that a nonuniform one is spread to."""
    return -math.log10(max(min(eps, 0.1), 1e-16)) + 1


def sample(nufft_type: int, dim: int, real: str, eps: float, n_trans: int, points: int, modes: int) -> Request:
    """Return a request with about this many points and modes (targets), of a shape as square as it can be."""
    side = max(round(modes ** (1 / dim)), 1)
    shape = (side,) * (dim - 1) + (max(round(modes / side ** (dim - 1)), 1),)
    modes = math.prod(shape)
    data = shape if nufft_type == 2 else (points,)
    batched = (n_trans, *data) if n_trans > 1 else data
    operands = [Operand(batched, COMPLEX_OF[real], "cpu", "numpy")]
    operands += [Operand((points,), real, "cpu", "numpy")] * dim
    operands += [Operand((modes,), real, "cpu", "numpy")] * (dim if nufft_type == 3 else 0)
    params = NufftParams(nufft_type, dim, shape, n_trans, 1, 0, eps)
    return Request(FAMILY, tuple(operands), params, None, _settings.available_threads())


def frequencies(n: int, modeord: int) -> np.ndarray:
    """Return the integer frequencies of n modes, in the order that ``modeord`` says."""
    k = np.arange(-(n // 2), (n + 1) // 2)
    return np.fft.ifftshift(k) if modeord else k


def reference(params: NufftParams, data: Any, *coordinates: Any, keep: Any = slice(None)) -> np.ndarray:
    """Return the direct sum by its definition, ``(n_trans, outputs)``, in float64, for the outputs that ``keep`` picks.

    Phases are computed and brought into one period in extended precision, where the platform has it: in float64 their
    rounding alone comes near the tolerance for many modes.
    """
    wide = [np.asarray(c).astype(np.longdouble) for c in coordinates]
    points, targets = wide[: params.dim], wide[params.dim :]
    if params.type != 3:
        mesh = np.meshgrid(*(frequencies(n, params.modeord) for n in params.n_modes), indexing="ij")
        targets = [k.reshape(-1).astype(np.longdouble) for k in mesh]
    sources, sinks = (targets, points) if params.type == 2 else (points, targets)
    turns = sum(np.multiply.outer(a, b[keep]) for a, b in zip(sources, sinks)) / _TWO_PI
    phase = (_TWO_PI * (turns - np.rint(turns))).astype(np.float64)
    values = np.asarray(data).reshape(params.n_trans, len(sources[0])).astype(np.complex128)
    return values @ (np.cos(phase) + 1j * params.isign * np.sin(phase))


_TWO_PI = 8 * np.arctan(np.longdouble(1))


def check_finite(coordinates: Sequence[np.ndarray], names: Sequence[str]) -> None:
    """Raise an error that names the argument and the element where a coordinate is not a finite number.

    FINUFFT ends the whole process on such points in types 1 and 3.
    """
    for values, name in zip(coordinates, names):
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            where = int(np.argmin(np.isfinite(values)))
            raise NufftError(f"{name}[{where}] is {values[where]}; nonuniform points must be finite numbers")


def coordinate_names(params: NufftParams) -> str:
    """Return the names of the coordinates, a letter each, in the operands' order."""
    return "xyz"[: params.dim] + ("stu"[: params.dim] if params.type == 3 else "")


def _gradient(params: NufftParams, arrays: tuple[Any, ...], grad: Any, wanted: tuple[bool, ...]) -> tuple[Any, ...]:
    """Return the gradients for data, points and targets (PyTorch's convention for complex values, dL/dz*).

    With A the transform, g the result's gradient and k the frequency of a mode, the data's gradient is A* g. A point of
    type 1 or 3 with strength c gets isign Im(conj(c) A*(k g)), so that both come from one adjoint transform of a stack;
    a point of type 2 gets isign Im(A(k f) conj(g)) with a minus, and so does a frequency of type 3, with x for k.
    """
    dim, sign = params.dim, params.isign
    data, points, targets = arrays[0], arrays[1 : dim + 1], arrays[dim + 1 :]
    found: list[Any] = [None] * len(arrays)
    moving = [d for d in range(dim) if wanted[1 + d]]
    if params.type == 2:
        if wanted[0]:
            found[0] = _run(params._replace(type=1, isign=-sign), grad, points).reshape(data.shape)
        for d, h in zip(moving, _weighted(params, data, points, (), moving)):
            found[1 + d] = _batch_sum(-sign * (grad.conj() * h).imag)
        return tuple(found)
    back = params._replace(type=2 if params.type == 1 else 3, isign=-sign)
    sources, sinks = (points, ()) if params.type == 1 else (targets, points)
    if wanted[0] or moving:
        first, *rest = _weighted(back, grad, sources, sinks, moving, plain=True)
        found[0] = first.reshape(data.shape)
        for d, h in zip(moving, rest):
            found[1 + d] = _batch_sum(sign * (data.conj() * h).imag)
    turning = [d for d in range(len(targets)) if wanted[1 + dim + d]]
    for d, h in zip(turning, _weighted(params, data, points, targets, turning)):
        found[1 + dim + d] = _batch_sum(-sign * (grad.conj() * h).imag)
    return tuple(found)


def _tangent(params: NufftParams, arrays: tuple[Any, ...], tangents: tuple[Any, ...], result: Any) -> Any:
    """Return how the result changes with data, points and targets; one transform of a stack.

    Of types 1 and 3 it is ``A dc + i isign sum_d k_d A(c dx_d)``, of type 2 ``A df + i isign sum_d dx_d A(k_d f)``; a
    frequency of type 3 that changes adds ``i isign ds_d A(x_d c)``.
    """
    dim = params.dim
    data, points, targets = arrays[0], arrays[1 : dim + 1], arrays[dim + 1 :]
    dpoints, dtargets = tangents[1 : dim + 1], tangents[dim + 1 :]
    stack: list[Any] = []
    factors: list[Any] = []
    if tangents[0] is not None:
        stack.append(tangents[0])
        factors.append(None)
    for d in range(dim):
        if dpoints[d] is not None:
            k = targets[d] if params.type == 3 else _modes_of(params, d, result if params.type == 1 else data)
            stack.append(data * (k if params.type == 2 else dpoints[d]))
            factors.append(dpoints[d] if params.type == 2 else k)
        if params.type == 3 and dtargets[d] is not None:
            stack.append(data * points[d])
            factors.append(dtargets[d])
    parts = _transforms(params, stack, (*points, *targets), data.shape)
    total = None
    for part, factor in zip(parts, factors):
        term = part.reshape(result.shape)
        term = term if factor is None else term * factor * (1j * params.isign)
        total = term if total is None else total + term
    return total


def _modes_of(params: NufftParams, d: int, like: Any) -> Any:
    """Return the frequencies of one dimension, shaped to multiply modes."""
    kind = kind_of(like)
    assert kind is not None
    shape = [1] * params.dim
    shape[d] = -1
    return kind.constant(frequencies(params.n_modes[d], params.modeord).reshape(shape), like)


def _weighted(
    params: NufftParams, data: Any, points: Sequence[Any], targets: Sequence[Any], dims: Sequence[int], *,
    plain: bool = False,
) -> list[Any]:  # fmt: skip
    """Return the transforms of data weighted by the frequencies (type 2) or positions (type 3) of some dimensions.

    All of them, and of the unweighted data first if ``plain``, are one call: a transform of a stack.
    """
    if not dims and not plain:
        return []
    stack = [data] if plain else []
    for d in dims:
        if params.type == 2:
            stack.append(data * _modes_of(params, d, data))
        else:
            stack.append(data * points[d])
    return _transforms(params, stack, (*points, *targets), data.shape)


def _transforms(
    params: NufftParams, stack: Sequence[Any], coordinates: Sequence[Any], shape: Sequence[int]
) -> list[Any]:
    """Return the transform of each array of a stack, by one call; the modes of a result are one axis."""
    kind = kind_of(stack[0])
    assert kind is not None
    own = params.dim if params.type == 2 else 1
    whole = stack[0] if len(stack) == 1 else kind.stack(stack)
    result = _run(params, whole.reshape(-1, *shape[len(shape) - own :]), coordinates)
    return list(result.reshape(len(stack), *shape[: len(shape) - own], -1))


def _run(params: NufftParams, data: Any, coordinates: Sequence[Any]) -> Any:
    own = params.dim if params.type == 2 else 1
    data = data.reshape(-1, *data.shape[-own:])
    return dispatcher.run(FAMILY, params._replace(n_trans=data.shape[0]), data, *coordinates)


def _batch_sum(values: Any) -> Any:
    """Return the sum over the transforms of a batch, which all share their points."""
    return values.sum(0) if values.ndim > 1 else values
