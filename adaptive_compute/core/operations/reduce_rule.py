"""Reductions as an operation: result, work, gradient rule, reference. The user functions stand in reduce.py."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import Operand
from ..dispatcher import dispatcher
from ..errors import DtypeError, ShapeError
from ..operation import Features, Operation, Request, Work, log2, relative_error
from ..precision import REAL_OF, conformance
from ..program import ACCEPTED
from ..scattered import between, pick, scattered

FUNCTIONS = ("sum", "mean", "max", "min", "logsumexp", "norm")
# Values that ``error`` reads: a sum over more of them than this is checked on some of its results only.
CHECKED = 1 << 18
_MEASURED = {"mean": "sum", "min": "max"}  # cost the same


class ReduceParams(NamedTuple):
    """What is computed over which axes; ``keepdims`` leaves those with length 1."""

    function: str
    axes: tuple[int, ...]
    keepdims: bool


def result_dtype(function: str, dtype: str) -> str:
    """Return the dtype of a reduction's result, as NumPy's; raises DtypeError where it is not defined."""
    if dtype not in ACCEPTED:
        raise DtypeError(f"x has dtype {dtype}; {', '.join(ACCEPTED)} are accepted")
    if dtype in REAL_OF:
        if function in ("max", "min", "logsumexp"):
            raise DtypeError(f"{function} is not defined for complex values, x has dtype {dtype}")
        return REAL_OF[dtype] if function == "norm" else dtype
    if function in ("max", "min") or dtype.startswith(("float", "bfloat")):
        return dtype
    if function == "sum":
        return "uint64" if dtype.startswith("uint") else "int64"
    return "float64"


class Reduce(Operation):
    """The family's operation."""

    name = "reduce"

    def result(self, request: Request) -> tuple[Operand, ...]:
        x, p = request.first, request.params
        if p.keepdims:
            shape = tuple(1 if axis in p.axes else n for axis, n in enumerate(x.shape))
        else:
            shape = tuple(n for axis, n in enumerate(x.shape) if axis not in p.axes)
        return (Operand(shape, result_dtype(p.function, x.dtype), x.device, x.kind),)

    def work(self, request: Request) -> Work:
        return Work(float(request.first.size), float(request.first.nbytes + self.result(request)[0].nbytes))

    def features(self, request: Request) -> Features:
        x, p = request.first, request.params
        length = math.prod(x.shape[axis] for axis in p.axes)
        function = _MEASURED.get(p.function, p.function)
        dtype = "float64" if x.dtype in ("float64", "int64", "uint64", "complex64", "complex128") else "float32"
        last = max(p.axes, default=-1)
        layout = "strided" if p.axes and math.prod(x.shape[last + 1 :]) > 1 else "last"
        return Features(f"{function}/{dtype}/{layout}", (log2(x.size), log2(length)))

    def tolerance(self, request: Request) -> float:
        return conformance(self.result(request)[0].dtype)

    def samples(self, quick: bool) -> Iterable[Request]:
        kinds = list(product(("sum", "max", "logsumexp", "norm"), ("float32", "float64"), ("last", "strided")))
        for size, shape, kind in scattered(64 if quick else 280, 3):
            function, dtype, layout = pick(kind, kinds)
            total = between(size, 6.0, 20.0 if quick else 21.5)
            length = round(between(shape, 1.0, math.log2(total) - (1.0 if layout == "strided" else 0.0)))
            yield _sample(function, dtype, layout, max(length, 2), max(round(total / max(length, 2)), 1))

    def held_out(self, rng: np.random.Generator) -> Request:
        function = str(rng.choice(FUNCTIONS))
        dtype = str(rng.choice(["float32", "float64"]))
        total = 2.0 ** rng.uniform(12, 22)
        length = max(2, int(2.0 ** rng.uniform(3, math.log2(total))))
        kept = max(1, int(total / length)) if rng.random() < 0.7 else 1
        layout = "strided" if kept > 1 and rng.random() < 0.4 else "last"
        return _sample(function, dtype, layout, length, kept)

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        result_dtype("sum", dtype)
        return _request("sum", shape, dtype, (len(shape) - 1,) if shape else ())

    def describe(self, request: Request) -> str:
        axes = ",".join(map(str, request.params.axes))
        return f"{request.params.function} over axis {axes} of {super().describe(request)}"

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        x = request.first
        if x.dtype == "bool":
            return (rng.integers(0, 2, x.shape).astype(bool),)
        if x.dtype.startswith(("int", "uint")):
            return (rng.integers(0, 9, x.shape).astype(x.dtype),)
        values = rng.random(x.shape, dtype=np.float32) - np.float32(0.25)
        return (values.astype("float32" if x.dtype == "bfloat16" else x.dtype),)

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        x, p, result = np.asarray(arrays[0]), request.params, np.asarray(result)
        if result.shape != self.result(request)[0].shape:
            return math.inf
        kept = tuple(axis for axis in range(x.ndim) if axis not in p.axes)
        table = x.transpose(kept + p.axes).reshape(*(x.shape[axis] for axis in kept), -1)
        rows = table.reshape(-1, table.shape[-1]) if table.size else table.reshape(result.size, -1)
        few = np.unique(np.linspace(0, len(rows) - 1, max(CHECKED // max(rows.shape[1], 1), 1)).astype(int))
        few = few if len(rows) else np.arange(0)
        return relative_error(result.reshape(-1)[few], reference(p.function, rows[few]))

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        return (_gradient(params, arrays[0], grads[0]),)

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], None]:
        return params._replace(axes=tuple(axis + 1 for axis in params.axes)), arrays, None


FAMILY = Reduce()


def reference(function: str, rows: np.ndarray) -> np.ndarray:
    """Reduce each row by the definition, in extended precision where the platform has it."""
    wide = {"f": np.longdouble, "c": np.clongdouble}.get(rows.dtype.kind)
    if wide is None and function not in ("sum", "max", "min"):
        wide = np.longdouble
    x = rows if wide is None else rows.astype(wide)
    with np.errstate(all="ignore"):
        if function in ("sum", "max", "min"):
            return getattr(np, function)(x, axis=1)
        if function == "mean":
            return x.sum(axis=1) / x.shape[1]
        if function == "norm":
            return np.sqrt((np.abs(x) ** 2).sum(axis=1))
        top = x.max(axis=1, keepdims=True, initial=-np.inf)
        top = np.where(np.isfinite(top), top, 0)
        return np.log(np.exp(x - top).sum(axis=1)) + top[:, 0]


def total(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum over some axes, which stay with length 1."""
    return dispatcher.run(FAMILY, ReduceParams("sum", axes, keepdims=True), x)


def _gradient(params: ReduceParams, x: Any, grad: Any) -> Any:
    """Return the gradient of a reduction by element-wise operations; equal maxima share it evenly, as in torch.amax."""
    from .elementwise import divide, equal, exp, multiply, subtract, where

    function, axes = params.function, params.axes
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    grad = grad.reshape(kept)
    count = math.prod(x.shape[axis] for axis in axes)
    if function in ("sum", "mean"):
        return (divide(grad, float(max(count, 1))) if function == "mean" else grad).expand(x.shape)
    value = dispatcher.run(FAMILY, params._replace(keepdims=True), x)
    if function in ("max", "min"):
        best = multiply(equal(x, value), grad)
        return divide(best, total(equal(x, value).to(x.dtype), axes))
    if function == "norm":
        return multiply(grad, where(equal(value, 0), 0, divide(x, value)))
    # Of rows that are all -inf the value is -inf, and x - value would be NaN: there no element has a share.
    return multiply(grad, exp(subtract(x, where(equal(value, -math.inf), 0, value))))


def _request(function: str, shape: tuple[int, ...], dtype: str, axes: tuple[int, ...]) -> Request:
    operand = Operand(shape, dtype, "cpu", "numpy")
    return Request(
        FAMILY, (operand,), ReduceParams(function, axes, False), None, _settings.threads(_settings.current())
    )


def _sample(function: str, dtype: str, layout: str, length: int, kept: int) -> Request:
    if layout == "last":
        return _request(function, (kept, length), dtype, (1,))
    return _request(function, (length, kept), dtype, (0,))


def check_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that ``axis`` names (None: all), in order."""
    import operator

    if axis is None:
        return tuple(range(ndim))
    try:
        wanted = [operator.index(a) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    except TypeError:
        raise ShapeError(f"axis must be None, a whole number or a tuple of them, got {axis!r}") from None
    for a in wanted:
        if not -ndim <= a < ndim:
            raise ShapeError(f"axis={a} does not exist in x, which has {ndim} axes")
    axes = sorted(a % ndim for a in wanted)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis={axis!r} names an axis twice")
    return tuple(axes)
