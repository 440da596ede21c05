"""Attention in lower precision: which requests may stand in for one, and what rounding the operands costs.

Rounding moves a score ``scale * q . k`` by about ``u * scale * sqrt(2 sum_d q_d^2 k_d^2)``, where u is the mean
rounding of one value, and moves the weights of a row by the same, relatively. So the error grows with the scores, and
softmax statistics in float32 do not help: it is the operands that were rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..array import kind_of
from ..narrow import Narrow, as_operands, rounded
from ..operation import Operation, Request
from ..precision import UNIT_ROUNDOFF

# Of numbers between two powers of two, rounding to the nearest moves one by this part of the unit roundoff in the mean.
MEAN_ROUNDING = 0.42


def narrower(operation: Operation, request: Request) -> Sequence[Narrow]:
    """Return the narrower requests that may stand in for one: float32 for float64, bfloat16 for float32."""
    if request.tol is None or request.params.precision is not None or request.operands[4] is not None:
        return ()
    found, own = [], request
    while own.first.dtype in ("float64", "float32"):
        low = "float32" if own.first.dtype == "float64" else "bfloat16"
        if low == "bfloat16" and own.first.kind == "numpy" and not _has_torch():
            break
        operands = rounded(own, "torch" if low == "bfloat16" and own.first.kind == "numpy" else None)
        if operands is None:
            break
        own = Request(operation, operands, request.params, request.tol, request.threads)
        found.append(_narrow(request, own, low))
    return found


def _narrow(request: Request, narrow: Request, dtype: str) -> Narrow:
    unit = UNIT_ROUNDOFF[dtype] * MEAN_ROUNDING
    limit = request.tol or 0.0

    def given(arrays: Sequence[Any], error: float) -> list[Any] | str:
        query, key = arrays[:2]
        expected = error + unit * (1 + request.params.scale * spread(query, key))
        if not expected <= limit:
            return f"rounding to {dtype} would cost {expected:.1e}"
        return as_operands(arrays, narrow, guarded=3)

    return Narrow(narrow, dtype, unit * (1 + math.sqrt(2)), limit, given)


@cache
def _has_torch() -> bool:
    return find_spec("torch") is not None


def spread(query: Any, key: Any) -> float:
    """Return sqrt(2 sum_d q_d^2 k_d^2) for the mean query and the key of the largest sum, over all heads."""
    kind = kind_of(query)
    if not math.prod(query.shape) or not math.prod(key.shape):
        return 0.0
    if kind is not None and kind.name == "torch":
        means = (query.detach() ** 2).mean(-2)
        sums = (key.detach() ** 2) @ _shared(means, key)[..., None]
        return math.sqrt(2 * float(sums.max()))
    with np.errstate(all="ignore"):
        means = (query**2).mean(-2)
        sums = (key**2) @ _shared(means, key)[..., None]
        return math.sqrt(2 * float(sums.max()))


def _shared(means: Any, key: Any) -> Any:
    """Return the mean squares of the query heads that share each key head, their largest: (..., key heads, d)."""
    if means.ndim < 2 or means.shape[-2] == key.shape[-3]:
        return means
    split = means.reshape(*means.shape[:-2], key.shape[-3], -1, means.shape[-1])
    return split.max(-2) if isinstance(split, np.ndarray) else split.amax(-2)
