"""Reductions on NVIDIA GPUs by torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...core.operation import Request
from ...core.operations.reduce_rule import ReduceParams, result_dtype
from ..base import Kernel
from . import memory, norm
from .device import DTYPES, dtype_of, index_of, needs, on

LEAST = 1 << 20  # elements below which torch's norm with its wide copy takes less time than a Triton kernel's start
_UNKNOWN = ("uint16", "uint32", "uint64")


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [TorchReduce(device)]


class TorchReduce(Kernel):
    """torch's own reductions, which add in trees and are the same bits in every run."""

    name = "torch"
    operation = "reduce"
    native = "torch"

    def __init__(self, device: str) -> None:
        self.device = device

    def supports(self, request: Request) -> bool | str:
        p, dtype = request.params, request.first.dtype
        if dtype not in DTYPES or dtype in _UNKNOWN:
            return f"torch computes little in {dtype}"
        if p.function == "sum" and dtype == "uint8":
            return "torch sums uint8 in signed integers"
        if not p.axes:
            return "torch reads no axes as all axes"
        return True

    def plan(self, request: Request) -> memory.GuardedPlan:
        compute = _function(request.params, request.first.dtype)
        if request.params.function == "norm" and self.device != "cpu":
            if needs("cupy") is True and norm.takes(request):
                return norm.NormPlan(request, compute, index_of(self.device))
            if needs("triton") is True:
                return memory.GuardedPlan(one_pass(request, compute) or compute)
        return memory.GuardedPlan(compute)


def one_pass(request: Request, otherwise: Callable[[Any], Any]) -> Callable[[Any], Any] | None:
    """Return the norm of a contiguous operand in one pass over it, or None where its axes or dtype allow none."""
    x, axes = request.first, sorted(request.params.axes)
    if x.dtype not in ("float16", "bfloat16", "float32") or x.size < LEAST or axes != [*range(axes[0], axes[-1] + 1)]:
        return None
    outer, n, inner = (math.prod(part) for part in (x.shape[: axes[0]], x.shape[axes[0] : axes[-1] + 1],
                                                    x.shape[axes[-1] + 1 :]))  # fmt: skip
    shape, dtype = request.operation.result(request)[0].shape, dtype_of(x.dtype)

    def compute(x: Any) -> Any:
        if not x.is_contiguous() or x.is_neg():
            return otherwise(x)
        from . import reduce_triton

        with on(x):
            return reduce_triton.norm(x, outer, n, inner, dtype).reshape(shape)

    return compute


def _function(p: ReduceParams, given: str) -> Callable[[Any], Any]:
    import torch

    dtype = dtype_of(result_dtype(p.function, given))
    working = torch.float32 if dtype.itemsize == 2 else dtype  # half precision cannot hold the sum of many
    axes, keep = p.axes, p.keepdims

    def mean(x: Any) -> Any:
        return torch.mean(x, axes, keep, dtype=dtype)

    def logsumexp(x: Any) -> Any:
        return torch.logsumexp(x.to(working), axes, keep).to(dtype)

    def norm(x: Any) -> Any:
        # The sum of squares in float64, so that float32 loses nothing to a long sum or to overflow.
        wide = torch.complex128 if x.is_complex() else torch.float64
        return torch.linalg.vector_norm(x, 2, axes, keep, dtype=wide).to(dtype)

    functions: dict[str, Callable[[Any], Any]] = {
        "sum": lambda x: torch.sum(x, axes, keep, dtype=dtype),
        "mean": mean,
        "max": lambda x: torch.amax(x, axes, keep),
        "min": lambda x: torch.amin(x, axes, keep),
        "logsumexp": logsumexp,
        "norm": norm if given.startswith(("float", "bfloat", "complex")) else lambda x: norm(x.to(dtype)),
    }
    return functions[p.function]
