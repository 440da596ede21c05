"""Gather and scatter-add as operations: parameters, work, gradient rule, reference. User functions: gather.py.

Both take the same operands: the data, the index (int64), and the segment starts where the index is sorted (else None).
Both are linear, and each is the other's adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import Operand, itemsize
from ..dispatcher import dispatcher
from ..errors import DtypeError, ShapeError
from ..operation import Features, Operation, Request, Work, log2, relative_error
from ..precision import REAL_OF, UNIT_ROUNDOFF, conformance

# A float32 sum of equal values drifts by up to n/2 roundings, so only sums this short are accumulated in float32.
SHORT = 32
LARGEST = 1 << 19  # elements of the largest sample


class IndexParams(NamedTuple):
    """What distinguishes calls on one array.

    ``size`` is the number of slots along ``axis``; ``longest`` the most entries of one slot, rounded up to a power of
    two so that calls which differ little share a decision.
    """

    axis: int
    size: int
    is_sorted: bool
    longest: int


def indexing(axis: int, topology: Any) -> IndexParams:
    """Return the parameters of a call by a compiled index."""
    return IndexParams(axis, topology.size, topology.is_dense and topology.is_sorted, round_up(topology.longest))


def indices(topology: Any) -> tuple[Any, Any]:
    """Return the operands of a call by a compiled index: the index, and the segment starts where it is sorted."""
    return topology.index, topology.starts if topology.is_dense and topology.is_sorted else None


def round_up(count: int) -> int:
    """Return the next power of two."""
    return 1 << max(count - 1, 0).bit_length()


def width(request: Request) -> tuple[int, int]:
    """Return how many elements stand before and after the indexed axis."""
    shape, axis = request.first.shape, request.params.axis
    return math.prod(shape[:axis]), math.prod(shape[axis + 1 :])


class _Indexed(Operation):
    """What gather and scatter-add have in common.

    A call whose index has no values yet (in a graph that is being traced) has ``longest`` 0 until it is completed.
    """

    linear = True
    defers = True

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], None] | None:
        return None if any(stacked[1:]) else (params._replace(axis=params.axis + 1), arrays, None)

    def completed(self, params: Any, arrays: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        if params.longest:
            return params, arrays
        from ..index_topology import IndexTopology

        topology = IndexTopology.from_index(arrays[1], params.size)
        return indexing(params.axis, topology), (arrays[0], *indices(topology))

    def work(self, request: Request) -> Work:
        result = self.result(request)[0]
        return Work(float(request.first.size), float(request.first.nbytes + result.nbytes + _index(request).nbytes))

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        p: IndexParams = request.params
        values, index, result = (np.moveaxis(np.asarray(a), axis, 0) for a, axis in
                                 ((arrays[0], p.axis), (arrays[1], 0), (result, p.axis)))  # fmt: skip
        rng = np.random.default_rng(index.size)
        places = np.unique(rng.integers(0, len(result), 32)) if len(result) else np.zeros(0, int)
        columns = values.reshape(len(values), -1)[:, :64] if values.size else values.reshape(len(values), 0)
        got = result.reshape(len(result), -1)[places, :64] if result.size else np.zeros((len(places), 0))
        return relative_error(got, self._exact(columns, index, places).astype(result.dtype))

    def _exact(self, values: np.ndarray, index: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return some rows of the result, by the definition."""
        raise NotImplementedError

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        p: IndexParams = request.params
        index = np.arange(_index(request).size) % max(p.size, 1)  # no slot has more than its share
        index = np.sort(index) if p.is_sorted else rng.permutation(index)
        starts = np.searchsorted(index, np.arange(p.size + 1)).astype(np.int64) if p.is_sorted else None
        x = request.first
        if x.dtype.startswith(("int", "uint", "bool")):
            return rng.integers(0, 2 if x.dtype == "bool" else 100, x.shape).astype(x.dtype), index, starts
        values = rng.standard_normal(x.shape)
        if x.dtype.startswith("complex"):
            values = values + 1j * rng.standard_normal(x.shape)
        return values.astype(x.dtype), index, starts


class Gather(_Indexed):
    """``result[e] = x[index[e]]`` along one axis."""

    name = "gather"

    def result(self, request: Request) -> tuple[Operand, ...]:
        x, axis = request.first, request.params.axis
        return (x._replace(shape=(*x.shape[:axis], _index(request).size, *x.shape[axis + 1 :])),)

    def features(self, request: Request) -> Features:
        before, after = width(request)
        nbytes = itemsize(request.first.dtype)
        wide = max(nbytes // 8, 1)  # 16 bytes move like two of 8
        layout = "rows" if before == 1 else "inner"
        entries, columns = _index(request).size, before * after * wide
        at = (log2(entries * columns), log2(columns), log2(request.params.size))
        return Features(f"{8 if nbytes >= 8 else 4} bytes/{layout}", at)

    def tolerance(self, request: Request) -> float:
        return conformance(request.first.dtype) if request.first.dtype.startswith(("float", "complex")) else 0.0

    def samples(self, quick: bool) -> Iterable[Request]:
        for dtype in ("float32", "float64"):
            for entries, columns in _grid(quick):
                for size in (max(entries // 64, 1), entries):
                    yield _request(self, dtype, entries, columns, size)
                    if columns > 1:
                        yield _request(self, dtype, entries, columns, size, axis=1)

    def held_out(self, rng: np.random.Generator) -> Request:
        return _request(self, str(rng.choice(["float32", "float64", "complex64"])), *_random_sizes(rng))

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        return _example(self, shape, dtype, shape[0] if shape else 0)

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        return dispatcher.run(SCATTER, params, grads[0], *arrays[1:]), None, None

    def _exact(self, values: np.ndarray, index: np.ndarray, places: np.ndarray) -> np.ndarray:
        return values[index[places]]


class ScatterAdd(_Indexed):
    """``result[s] = sum of values[e] over the entries e with index[e] == s`` along one axis."""

    name = "scatter_add"

    def result(self, request: Request) -> tuple[Operand, ...]:
        x, p = request.first, request.params
        return (x._replace(shape=(*x.shape[: p.axis], p.size, *x.shape[p.axis + 1 :])),)

    def features(self, request: Request) -> Features:
        dtype, p = request.first.dtype, request.params
        real = REAL_OF.get(dtype, dtype)
        before, after = width(request)
        columns = before * after
        if real.startswith("float") and itemsize(real) >= 8:
            family = "float64"
        elif real.startswith(("int", "uint")):
            family = "int64"
        else:
            family = "float32, short" if p.longest <= SHORT else "float32"
        parts = 1 if real == dtype else 2  # a complex number costs what two real ones do
        entries = _index(request).size
        if columns == 1:
            if parts == 2:  # NumPy sums complex segments several times quicker than real ones
                family = "complex"
            return Features(f"{family}/{'sorted' if p.is_sorted else 'one'}", (log2(entries * parts), log2(p.size)))
        layout = "rows" if before == 1 else "inner"
        return Features(f"{family}/{layout}", (log2(entries * columns * parts), log2(columns * parts), log2(p.size)))

    def tolerance(self, request: Request) -> float:
        dtype = request.first.dtype
        usual = conformance(dtype)
        if REAL_OF.get(dtype, dtype) == "float64":  # summed one after another in float64
            return max(usual, request.params.longest * UNIT_ROUNDOFF["float64"])
        return usual

    def samples(self, quick: bool) -> Iterable[Request]:
        for dtype, ratios in (
            ("float32", (8, 1, 0.25)), ("float32", (4096, 512, 64)), ("float64", (64, 4, 0.5)), ("int64", (64, 4, 0.5)),
        ):  # fmt: skip
            for entries, columns in _grid(quick):
                for ratio in ratios[::2]:
                    size = max(int(entries / ratio), 1)
                    yield _request(self, dtype, entries, columns, size)
                    if columns > 1:
                        yield _request(self, dtype, entries, columns, size, axis=1)
                if columns == 1:  # where the time of a segment and the time of an entry both count
                    for ratio in ratios[:: 2 if quick else 1]:
                        yield _request(self, dtype, entries, 1, max(int(entries / ratio), 1), is_sorted=True)
                if columns == 1 and dtype == "float64":
                    for ratio in ratios[::2]:
                        size = max(int(entries / ratio), 1)
                        yield _request(self, "complex64", entries, 1, size)
                        yield _request(self, "complex64", entries, 1, size, is_sorted=True)

    def held_out(self, rng: np.random.Generator) -> Request:
        dtype = str(rng.choice(["float32", "float64", "complex64", "int64"]))
        return _request(self, dtype, *_random_sizes(rng), is_sorted=bool(rng.random() < 0.4))

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        return _example(self, shape, dtype, max(shape[0] // 8, 1) if shape else 0)

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        return dispatcher.run(GATHER, params, grads[0], *arrays[1:]), None, None

    def _exact(self, values: np.ndarray, index: np.ndarray, places: np.ndarray) -> np.ndarray:
        wide = np.result_type(values.dtype, np.longdouble) if values.dtype.kind in "fc" else np.dtype(np.int64)
        sums = np.zeros((len(places), values.shape[1]), wide)
        entries = np.flatnonzero(np.isin(index, places))
        for row, place in enumerate(places):
            sums[row] = values[entries[index[entries] == place]].sum(axis=0, dtype=wide)
        return sums


GATHER, SCATTER = Gather(), ScatterAdd()


def _index(request: Request) -> Operand:
    operand = request.operands[1]
    assert operand is not None
    return operand


def _grid(quick: bool) -> Iterable[tuple[int, int]]:
    """Yield entries and columns."""
    for columns in (1, 16) if quick else (1, 16, 256):
        for entries in (1 << 5, 1 << 14) if quick else (1 << 5, 1 << 10, 1 << 15, 1 << 19):
            if entries * columns <= LARGEST:
                yield entries, columns


def _random_sizes(rng: np.random.Generator) -> tuple[int, int, int]:
    columns = int(2.0 ** rng.uniform(0, 9)) if rng.random() < 0.6 else 1
    entries = max(int(2.0 ** rng.uniform(10, 21) / columns), 4)
    return entries, columns, max(int(entries * 2.0 ** rng.uniform(-8, 1)), 1)


def _request(
    operation: _Indexed, dtype: str, entries: int, columns: int, size: int, *, is_sorted: bool = False, axis: int = 0
) -> Request:
    long = size if operation.name == "gather" else entries
    shape = (long,) if columns == 1 else (columns, long) if axis else (long, columns)
    starts = Operand((size + 1,), "int64", "cpu", "numpy") if is_sorted else None
    params = IndexParams(axis, size, is_sorted, round_up(-(-entries // max(size, 1))))
    operands = (Operand(shape, dtype, "cpu", "numpy"), Operand((entries,), "int64", "cpu", "numpy"), starts)
    return Request(operation, operands, params, None, _settings.available_threads())


def _example(operation: _Indexed, shape: tuple[int, ...], dtype: str, size: int) -> Request:
    if not shape:
        raise ShapeError(f"{operation.name} needs at least one axis; give a shape such as 4096x64")
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = "O"
    if kind not in ("biufc" if operation.name == "gather" else "iufc"):
        raise DtypeError(f"dtype {dtype!r} is not one that {operation.name} computes in; use float64 or int64, say")
    operands = (Operand(shape, dtype, "cpu", "numpy"), Operand((shape[0],), "int64", "cpu", "numpy"), None)
    params = IndexParams(0, size, False, round_up(-(-shape[0] // max(size, 1))))
    return Request(operation, operands, params, None, _settings.threads(_settings.current()))
