"""Reductions on the CPU: NumPy in cache-sized tiles, alone or shared out, and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.operation import Features, Request, log2
from ...core.operations.reduce_rule import ReduceParams, result_dtype
from ...core.program import WORKING
from ...core.transfer import counters
from ..base import Kernel, Plan
from .device import needs, torch_threads
from .pool import quiet, share

TILE = 1 << 16  # elements: with its temporary it fits a core's cache
NARROW = 1 << 10  # elements of a kept inner axis in one tile, so that the tile spans many of the reduced one
TORCH_SHARED = 1 << 15  # values from which on torch shares a reduction out among threads (ATen's GRAIN_SIZE)
APART = 3.0  # octaves between what is shared out and what is not, in a time model
BEGINNING = 16  # values that take as long as beginning with another run of them
RUN = 64  # values that one accumulator adds up at most, where the reduced axis is not the innermost


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [NumpyTiled("numpy-threads", threaded=True), NumpyTiled("numpy", threaded=False), TorchReduce()]


def _by_runs(request: Request) -> Features:
    """Return a place in the time model whose work counts the runs of neighbouring values besides the values.

    A loop begins for each, which takes as long as some more values: what has short rows is slow.
    """
    found, p, shape = request.operation.features(request), request.params, request.first.shape
    length = math.prod(shape[axis] for axis in p.axes)
    inner = math.prod(shape[max(p.axes, default=-1) + 1 :])
    runs = length if inner > 1 else request.first.size / max(length, 1)
    return found._replace(at=(log2(request.first.size + BEGINNING * runs), *found.at[1:]))


class NumpyTiled(Kernel):
    """NumPy over tiles whose size depends on the shape alone, so that the result does not depend on the threads."""

    operation = "reduce"
    libraries = ("numpy",)

    def __init__(self, name: str, threaded: bool) -> None:
        self.name, self.threaded = name, threaded

    def supports(self, request: Request) -> bool | str:
        if request.first.dtype == "bfloat16":
            return "NumPy has no bfloat16"
        if self.threaded and request.threads < 2:
            return "the call may use one thread only"
        if self.threaded and request.first.size < 2 * TILE:
            return "there is too little to share out"
        return True

    def features(self, request: Request) -> Features:
        return _by_runs(request)

    def plan(self, request: Request) -> Plan:
        return TiledPlan(request, request.threads if self.threaded else 1)


class TiledPlan(Plan):
    """One reduction over axes of one shape."""

    def __init__(self, request: Request, workers: int) -> None:
        p: ReduceParams = request.params
        x = request.first
        self.function, self.axes, self.workers = p.function, p.axes, workers
        self.dtype = result_dtype(p.function, x.dtype)
        self.working = WORKING.get(self.dtype, self.dtype)
        self.shape = request.operation.result(request)[0].shape
        self.count = math.prod(x.shape[axis] for axis in p.axes)

    def run(self, x: np.ndarray) -> np.ndarray:
        with quiet():
            groups, reduced, order = self._groups(x)
            result = self._reduce(groups, reduced)
            if self.function == "mean":
                result = result / self.working_type(self.count) if self.count else np.full(result.shape, np.nan)
            elif self.function == "norm":
                result = np.sqrt(result)
        kept = [axis for axis in order if axis not in self.axes]
        result = np.asarray(result, self.dtype).reshape([x.shape[axis] for axis in kept])
        return result.transpose(sorted(range(len(kept)), key=kept.__getitem__)).reshape(self.shape)

    @property
    def working_type(self) -> Any:
        """The scalar type that is computed in."""
        return np.dtype(self.working).type

    def _groups(self, x: np.ndarray) -> tuple[np.ndarray, list[bool], list[int]]:
        """Return the operand with neighbouring axes merged, which of them are reduced, and the axes' order."""
        order = list(range(x.ndim))
        if not x.flags.c_contiguous:
            order.sort(key=lambda axis: -abs(x.strides[axis]))
            x = x.transpose(order)
        shape: list[int] = []
        reduced: list[bool] = []
        mergeable = True
        for place, axis in enumerate(order):
            is_reduced = axis in self.axes
            if reduced and reduced[-1] == is_reduced:
                n, stride = x.shape[place], x.strides[place]
                mergeable = mergeable and (n == 1 or shape[-1] == 1 or x.strides[place - 1] == n * stride)
                shape[-1] *= n
            else:
                shape.append(x.shape[place])
                reduced.append(is_reduced)
        if not mergeable and not x.flags.c_contiguous:
            counters.count_copy("strided array whose axes cannot be joined, for a reduction")
        return x.reshape(shape), reduced, order

    def _reduce(self, x: np.ndarray, reduced: list[bool]) -> np.ndarray:
        """Reduce one group of axes after the other, the innermost first."""
        tile = _TILES[self.function]
        dtype = self.working
        if not any(reduced):
            return tile(x.reshape(-1, 1, 1), dtype).reshape(x.shape)
        for place in range(len(reduced) - 1, -1, -1):
            if reduced[place]:
                outer, inner = math.prod(x.shape[:place]), math.prod(x.shape[place + 1 :])
                rest = x.shape[:place] + x.shape[place + 1 :]
                x = self._one(x.reshape(outer, x.shape[place], inner), tile).reshape(rest)
                tile = _COMBINE[self.function]
        return x

    def _one(self, x: np.ndarray, tile: Callable[[np.ndarray, str], np.ndarray]) -> np.ndarray:
        """Reduce the middle axis of three."""
        outer, length, inner = x.shape
        if not x.size:
            return np.full((outer, inner), -np.inf if self.function == "logsumexp" else 0, self.working)
        wide = min(inner, NARROW)
        long = min(length, max(TILE // wide, RUN))
        many = min(outer, max(TILE // (wide * long), 1))
        cuts = -(-outer // many), -(-length // long), -(-inner // wide)
        if cuts == (1, 1, 1):
            return tile(x, self.working)
        parts = np.empty((cuts[1], outer, inner), self.working)

        def part(number: int, own: None) -> None:
            number, k = divmod(number, cuts[2])
            i, j = divmod(number, cuts[1])
            rows, columns = slice(i * many, (i + 1) * many), slice(k * wide, (k + 1) * wide)
            parts[j, rows, columns] = tile(x[rows, j * long : (j + 1) * long, columns], self.working)

        share(math.prod(cuts), part, lambda: None, self.workers, torch=False)
        if cuts[1] == 1:
            return parts[0]
        return self._one(parts.reshape(1, cuts[1], outer * inner), _COMBINE[self.function]).reshape(outer, inner)


def _sum(x: np.ndarray, dtype: str) -> np.ndarray:
    """Sum the middle axis pairwise, or in short runs where NumPy itself would add one row after the other."""
    length = x.shape[1]
    if length <= RUN or x.shape[2] == 1 or dtype.startswith(("int", "uint")):
        return np.add.reduce(x, axis=1, dtype=dtype)
    runs, left = divmod(length, RUN)
    split = x[:, : runs * RUN].reshape(x.shape[0], runs, RUN, x.shape[2])
    result = _sum(np.add.reduce(split, axis=2, dtype=dtype), dtype)
    if left:
        result += np.add.reduce(x[:, runs * RUN :], axis=1, dtype=dtype)
    return result


def _squares(x: np.ndarray, dtype: str) -> np.ndarray:
    if x.dtype.kind == "c":
        return _sum(np.square(x.real), dtype) + _sum(np.square(x.imag), dtype)
    return _sum(np.square(x, dtype=dtype), dtype)


def _max(x: np.ndarray, dtype: str) -> np.ndarray:
    return np.maximum.reduce(x, axis=1)


def _min(x: np.ndarray, dtype: str) -> np.ndarray:
    return np.minimum.reduce(x, axis=1)


def _logsumexp(x: np.ndarray, dtype: str) -> np.ndarray:
    top = np.maximum.reduce(x, axis=1, keepdims=True).astype(dtype)
    top[~np.isfinite(top)] = 0
    shifted = np.subtract(x, top, dtype=dtype)
    np.exp(shifted, out=shifted)
    result = _sum(shifted, dtype)
    np.log(result, out=result)
    result += top[:, 0]
    return result


# What a tile of the operand gives, and what tiles' results give together.
_TILES: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "sum": _sum, "mean": _sum, "max": _max, "min": _min, "logsumexp": _logsumexp, "norm": _squares,
}  # fmt: skip
_COMBINE = {**_TILES, "norm": _sum}


class TorchReduce(Kernel):
    """torch's own reductions."""

    name = "torch"
    operation = "reduce"
    native = "torch"
    libraries = ("torch",)

    def supports(self, request: Request) -> bool | str:
        p, dtype = request.params, request.first.dtype
        if dtype in ("uint16", "uint32", "uint64"):
            return f"torch computes little in {dtype}"
        if p.function == "sum" and dtype == "uint8":
            return "torch sums uint8 in signed integers"
        if not p.axes:
            return "torch reads no axes as all axes"
        return needs("torch")

    def features(self, request: Request) -> Features:
        # From so many values on torch wakes its threads, which costs as much as several thousand values do.
        found = _by_runs(request)
        shared = request.threads > 1 and request.first.size >= TORCH_SHARED
        return found._replace(at=(*found.at, APART if shared else 0.0))

    def plan(self, request: Request) -> Plan:
        return TorchReducePlan(request)


class TorchReducePlan(Plan):
    """One reduction by torch."""

    def __init__(self, request: Request) -> None:
        import torch

        p: ReduceParams = request.params
        self.threads = request.threads
        dtype = getattr(torch, result_dtype(p.function, request.first.dtype))
        working = torch.float32 if dtype.itemsize == 2 else dtype  # half precision cannot hold the sum of many
        convert = p.function == "mean" and not request.first.dtype.startswith(("float", "bfloat", "complex"))
        axes, keep = p.axes, p.keepdims
        is_complex = request.first.dtype.startswith("complex")

        def norm(x: Any) -> Any:  # torch.linalg.vector_norm adds up one by one, which loses digits over many values
            squares = torch.square((x.abs() if is_complex else x).to(working))
            return torch.sum(squares, axes, keep).sqrt_().to(dtype)

        functions: dict[str, Callable[[Any], Any]] = {
            "sum": lambda x: torch.sum(x, axes, keep, dtype=dtype),
            "mean": lambda x: torch.mean(x, axes, keep),
            "max": lambda x: torch.amax(x, axes, keep),
            "min": lambda x: torch.amin(x, axes, keep),
            "logsumexp": lambda x: torch.logsumexp(x.to(working), axes, keep).to(dtype),
            "norm": norm,
        }
        function = functions[p.function]
        self.call = (lambda x: function(x.to(dtype))) if convert else function

    def run(self, x: Any) -> Any:
        with torch_threads(self.threads):
            return self.call(x)
