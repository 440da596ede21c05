"""Gather, scatter-add and segment sums on NVIDIA GPUs by torch. Sums are the same bits in every run.

Atomic additions of floating-point numbers come in another order in each run, so those are summed segment by segment:
the entries are brought into the order of their slots (a stable sort, unless they are), and each slot's are added in
that order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.operation import Request
from ...core.operations.gather_rule import SHORT, IndexParams
from ..base import Kernel
from . import memory
from .device import DTYPES, dtype_of

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


class TorchScatter(Kernel):
    """Integers by ``index_add_``, whose order cannot matter; others by ``torch.segment_reduce``."""

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

        def ordered(values: Any, index: Any, starts: Any) -> Any:
            rows = values.resolve_conj().movedim(axis, 0)
            if starts is None:
                index, order = torch.sort(index, stable=True)
                rows = torch.index_select(rows, 0, order)
                starts = torch.searchsorted(index, torch.arange(p.size + 1, device=index.device))
            rows = rows.to(wide)
            if wide.is_complex:
                rows = torch.view_as_real(rows)
            flat = rows.reshape(rows.shape[0], math.prod(rows.shape[1:])).contiguous()
            sums = torch.segment_reduce(flat, "sum", offsets=starts, axis=0, unsafe=True, initial=0)
            sums = sums.reshape(p.size, *rows.shape[1:])
            if wide.is_complex:
                sums = torch.view_as_complex(sums)
            sums = sums.to(dtype).movedim(0, axis)
            return sums if axis == 0 else sums.contiguous()

        def nothing(values: Any, index: Any, starts: Any) -> Any:
            return torch.zeros(shape, dtype=dtype, device=values.device)

        if 0 in request.first.shape or 0 in shape:
            return memory.GuardedPlan(nothing)
        floating = dtype.is_floating_point or dtype.is_complex
        return memory.GuardedPlan(ordered if floating else whole)
