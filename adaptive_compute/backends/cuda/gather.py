"""Gather, scatter-add and segment sums on NVIDIA GPUs by torch. Sums are the same bits in every run.

Atomic additions of floating-point numbers come in another order in each run, so those are summed segment by segment:
each slot's entries are added in their order. How the entries are ordered by slot is found by a stable sort, and kept
for as long as the index lives, so that a topology is sorted once.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

from ...core.operation import Request
from ...core.operations.gather_rule import SHORT, IndexParams
from ...core.precision import REAL_OF
from ..base import Kernel
from . import memory
from .array import stream_pointer
from .device import DTYPES, dtype_of, needs, on

_NOT_SUMMED = ("uint16", "uint32", "uint64", "bool")


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [TorchGather(device), TorchScatter(device)]


class TorchGather(Kernel):
    """``torch.index_select``."""

    name = "torch"
    operation = "gather"
    native = "torch"

    def __init__(self, device: str) -> None:
        self.device = device

    def supports(self, request: Request) -> bool | str:
        dtype = request.first.dtype
        if dtype not in DTYPES:
            return f"a GPU holds no {dtype}"
        return f"torch selects no {dtype} on a GPU" if dtype in _NOT_SUMMED[:3] else True

    def plan(self, request: Request) -> memory.GuardedPlan:
        import torch

        axis = request.params.axis
        return memory.GuardedPlan(lambda x, index, starts: torch.index_select(x, axis, index))


def _accumulator(request: Request) -> str:
    """Return the dtype that sums are accumulated in: float32 holds the sum of a few, float64 that of many."""
    dtype = request.first.dtype
    wide = request.params.longest > SHORT
    if dtype in ("float16", "bfloat16", "float32"):
        return "float64" if wide else "float32"
    return "complex128" if dtype == "complex64" and wide else dtype


def _real(dtype: str) -> str:
    """Return the dtype of the parts of a complex number, or the dtype itself."""
    return REAL_OF.get(dtype, dtype)


def worth_it(columns: int, longest: int) -> bool:
    """Tell whether one program for each slot has enough to read."""
    from .gather_triton import LEAST, tile

    return math.prod(tile(columns, longest)) >= LEAST


class Orders:
    """How the entries of an index are ordered by slot, for as long as the index lives.

    A new index is made for each call unless it is a topology's, which nobody writes to. Kept for each stream by itself:
    what was found on one may not be ready on another.
    """

    KEPT = 4

    def __init__(self, size: int) -> None:
        self.size = size
        self._found: dict[tuple[int, int], tuple[Any, Any, Any]] = {}

    def of(self, index: Any) -> tuple[Any, Any]:
        """Return the entries in the order of their slots, and where each slot begins."""
        import torch

        key = id(index), stream_pointer(index.device.index) if index.is_cuda else 0
        kept = self._found.get(key)
        if kept is not None and kept[0]() is index:
            return kept[1:]
        slots, order = torch.sort(index, stable=True)
        starts = torch.searchsorted(slots, torch.arange(self.size + 1, device=index.device))
        living = {k: v for k, v in list(self._found.items())[1 - self.KEPT :] if v[0]() is not None}
        self._found = {**living, key: (weakref.ref(index), order, starts)}
        return order, starts


class TorchScatter(Kernel):
    """Integers by ``index_add_``, whose order cannot matter; others by a Triton kernel or ``torch.segment_reduce``."""

    name = "torch"
    operation = "scatter_add"
    native = "torch"

    def __init__(self, device: str) -> None:
        self.device = device

    def supports(self, request: Request) -> bool | str:
        dtype = request.first.dtype
        return True if dtype in DTYPES and dtype not in _NOT_SUMMED else f"torch sums no {dtype} on a GPU"

    def plan(self, request: Request) -> memory.GuardedPlan:
        import torch

        p: IndexParams = request.params
        (result,) = request.operation.result(request)
        dtype, wide = dtype_of(result.dtype), dtype_of(_accumulator(request))
        shape, axis = result.shape, p.axis

        def whole(values: Any, index: Any, starts: Any) -> Any:
            return torch.zeros(shape, dtype=dtype, device=values.device).index_add_(axis, index, values)

        orders = Orders(p.size)
        real = dtype_of(_real(result.dtype))
        sums = wide.to_real() if wide.is_complex else wide
        columns = math.prod(shape) // max(p.size, 1) * (2 if wide.is_complex else 1)
        in_one_pass = self.device != "cpu" and needs("triton") is True and worth_it(columns, p.longest)

        def ordered(values: Any, index: Any, starts: Any) -> Any:
            rows = values.resolve_conj().resolve_neg().movedim(axis, 0)
            order = None
            if starts is None:
                order, starts = orders.of(index)
            if wide.is_complex:
                rows = torch.view_as_real(rows)
            flat = rows.reshape(rows.shape[0], columns).contiguous()
            if in_one_pass:
                from .gather_triton import segment_sums

                with on(flat):
                    found = segment_sums(flat, order, starts, p.size, p.longest, sums)
            else:
                flat = (flat if order is None else torch.index_select(flat, 0, order)).to(sums)
                found = torch.segment_reduce(flat, "sum", offsets=starts, axis=0, unsafe=True, initial=0).to(real)
            found = found.reshape(p.size, *rows.shape[1:])
            if wide.is_complex:
                found = torch.view_as_complex(found)
            found = found.movedim(0, axis)
            return found if axis == 0 else found.contiguous()

        def nothing(values: Any, index: Any, starts: Any) -> Any:
            return torch.zeros(shape, dtype=dtype, device=values.device)

        if 0 in request.first.shape or 0 in shape:
            return memory.GuardedPlan(nothing)
        floating = dtype.is_floating_point or dtype.is_complex
        return memory.GuardedPlan(ordered if floating else whole)
