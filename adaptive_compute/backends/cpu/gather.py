"""Gather and scatter-add on the CPU: by NumPy, by SciPy's sparse products, by torch. All sums are deterministic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.array import Operand
from ...core.operation import Request
from ...core.operations.gather_rule import SHORT, IndexParams, width
from ...core.transfer import counters
from ..base import Kernel, Plan
from .device import needs, torch_threads

BLOCK = 1 << 15  # elements added at a time, so that those converted to float64 are still in the cache then
TORCH_DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [NumpyGather(), TorchGather(), SparseScatter(), NumpyScatter(), TorchScatter()]


class IndexPlan(Plan):
    """A plan that is one function of the data, the index and the segment starts."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run  # type: ignore[method-assign]


def _known_to_numpy(request: Request) -> bool | str:
    return True if request.first.dtype != "bfloat16" else "NumPy has no bfloat16"


def _known_to_torch(request: Request) -> bool | str:
    dtype = request.first.dtype
    return needs("torch") if dtype in TORCH_DTYPES else f"torch computes no {dtype}"


def _accumulator(request: Request) -> str:
    """Return the dtype that sums are accumulated in.

    Measured over 1e5 equal float32 values: added one after another in float32 they are off by up to 7e-4, in float64
    by nothing that float32 shows.
    """
    dtype = request.first.dtype
    wide = request.params.longest > SHORT
    if dtype in ("float16", "bfloat16", "float32"):
        return "float64" if wide else "float32"
    return "complex128" if dtype == "complex64" and wide else dtype


class NumpyGather(Kernel):
    """``np.take``; by indexing where the memory is not in order, since ``np.take`` would copy all of it first."""

    name = "numpy"
    operation = "gather"
    libraries = ("numpy",)

    def supports(self, request: Request) -> bool | str:
        return _known_to_numpy(request)

    def plan(self, request: Request) -> Plan:
        axis = request.params.axis
        before = (slice(None),) * axis

        def run(x: np.ndarray, index: np.ndarray, starts: Any) -> np.ndarray:
            if x.flags.c_contiguous:
                return np.take(x, index, axis, mode="clip")  # the index was checked already
            return x[(*before, index)]

        return IndexPlan(run)


class TorchGather(Kernel):
    """``torch.index_select``."""

    name = "torch"
    operation = "gather"
    native = "torch"
    libraries = ("torch",)

    def supports(self, request: Request) -> bool | str:
        return _known_to_torch(request)

    def plan(self, request: Request) -> Plan:
        import torch

        axis, threads = request.params.axis, request.threads

        def run(x: Any, index: Any, starts: Any) -> Any:
            with torch_threads(threads):
                return torch.index_select(x, axis, index)

        return IndexPlan(run)


class NumpyScatter(Kernel):
    """One value an entry: ``np.add.reduceat`` over sorted segments, else ``np.bincount`` with weights."""

    name = "numpy"
    operation = "scatter_add"
    libraries = ("numpy",)

    def supports(self, request: Request) -> bool | str:
        dtype = request.first.dtype
        if math.prod(width(request)) != 1:
            return "NumPy's bincount and reduceat are fast for one value an entry only"
        if not request.params.is_sorted and not dtype.startswith(("float16", "float32", "float64", "complex64")) \
                and dtype != "complex128":  # fmt: skip
            return f"bincount adds in float64, which does not hold every {dtype}"
        return _known_to_numpy(request)

    def plan(self, request: Request) -> Plan:
        p: IndexParams = request.params
        dtype = np.dtype(request.first.dtype)
        shape = request.operation.result(request)[0].shape
        wide = _accumulator(request)

        def by_segment(values: np.ndarray, index: np.ndarray, starts: np.ndarray) -> np.ndarray:
            result = np.zeros(p.size, dtype)
            filled = np.flatnonzero(starts[1:] > starts[:-1])
            if len(filled):
                result[filled] = np.add.reduceat(values.reshape(-1), starts[filled], dtype=wide)
            return result.reshape(shape)

        def by_weight(values: np.ndarray, index: np.ndarray, starts: None) -> np.ndarray:
            values = values.reshape(-1)
            if dtype.kind != "c":
                return np.bincount(index, values, p.size).astype(dtype, copy=False).reshape(shape)
            result = np.empty(p.size, dtype)
            result.real = np.bincount(index, values.real, p.size)
            result.imag = np.bincount(index, values.imag, p.size)
            return result.reshape(shape)

        return IndexPlan(by_segment if p.is_sorted else by_weight)


class SparseScatter(Kernel):
    """The product of a sparse matrix of ones, one column an entry, with the values: SciPy adds column by column.

    Columns need no sorting, so that an index is used as it comes, and the order of the additions is the entries' own.
    """

    name = "scipy"
    operation = "scatter_add"
    libraries = ("scipy", "numpy")

    def supports(self, request: Request) -> bool | str:
        known = _known_to_numpy(request)
        return known if known is not True else needs("scipy")

    def plan(self, request: Request) -> Plan:
        p: IndexParams = request.params
        before, after = width(request)
        dtype, wide = np.dtype(request.first.dtype), np.dtype(_accumulator(request))
        columns = before * after
        if wide.kind == "c":  # as pairs of real numbers: a complex one times an infinity would make a NaN
            columns, wide = 2 * columns, wide.type(0).real.dtype
        entries = request.first.shape[p.axis]
        block = max(min(BLOCK // max(columns, 1), entries), 1)
        ones, pointers = np.ones(block, wide), np.arange(block + 1)
        add = _column_adder(p.size, columns)
        shape = request.operation.result(request)[0].shape
        moved = (p.size, *shape[: p.axis], *shape[p.axis + 1 :])

        def run(values: np.ndarray, index: np.ndarray, starts: Any) -> np.ndarray:
            rows = np.moveaxis(values, p.axis, 0)
            if not rows.flags.c_contiguous:
                counters.count_copy("values whose entries do not lie one after another, for a sparse product")
                rows = np.ascontiguousarray(rows)
            rows = rows.reshape(entries, math.prod(rows.shape[1:]))
            if dtype.kind == "c":
                rows = rows.view(dtype.type(0).real.dtype)
            sums = np.zeros(p.size * columns, wide)
            for start in range(0, entries if columns else 0, block):
                part = rows[start : start + block]
                count = len(part)
                slots = index[start : start + count]
                add(count, pointers[: count + 1], slots, ones[:count], part.astype(wide, copy=False).ravel(), sums)
            if dtype.kind == "c":
                sums = sums.astype(dtype.type(0).real.dtype, copy=False).view(dtype)
            result = sums.astype(dtype, copy=False).reshape(moved)
            return result if p.axis == 0 else np.ascontiguousarray(np.moveaxis(result, 0, p.axis))

        plan = IndexPlan(run)
        plan.nbytes = ones.nbytes + pointers.nbytes
        return plan


def _column_adder(size: int, columns: int) -> Callable[..., None]:
    """Return SciPy's own loop for ``sums += matrix @ values``, or the public product where the loop is elsewhere."""
    try:
        from scipy.sparse._sparsetools import csc_matvec, csc_matvecs
    except ImportError:
        from scipy.sparse import csc_array

        def add(count: int, pointers: Any, slots: Any, ones: Any, values: Any, sums: Any) -> None:
            matrix = csc_array((ones, slots, pointers), shape=(size, count))
            sums += (matrix @ values.reshape(count, columns)).ravel()

        return add
    if columns == 1:
        return lambda count, pointers, slots, ones, values, sums: csc_matvec(
            size, count, pointers, slots, ones, values, sums
        )
    return lambda count, pointers, slots, ones, values, sums: csc_matvecs(
        size, count, columns, pointers, slots, ones, values, sums
    )


class TorchScatter(Kernel):
    """``Tensor.index_add_``, which on the CPU adds in the order of the entries."""

    name = "torch"
    operation = "scatter_add"
    native = "torch"
    libraries = ("torch",)

    def supports(self, request: Request) -> bool | str:
        return _known_to_torch(request)

    def plan(self, request: Request) -> Plan:
        import torch

        p: IndexParams = request.params
        result: Operand = request.operation.result(request)[0]
        dtype, wide = getattr(torch, result.dtype), getattr(torch, _accumulator(request))
        threads = request.threads

        def run(values: Any, index: Any, starts: Any) -> Any:
            with torch_threads(threads):
                values, sums = values.to(wide), torch.zeros(result.shape, dtype=wide)
                if wide.is_complex:  # as pairs, as above
                    torch.view_as_real(sums).index_add_(p.axis, index, torch.view_as_real(values.resolve_conj()))
                else:
                    sums.index_add_(p.axis, index, values)
                return sums.to(dtype)

        return IndexPlan(run)
