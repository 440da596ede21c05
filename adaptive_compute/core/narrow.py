"""A request in a lower precision in place of the caller's own: ``precision="adaptive"``, where ``tol`` allows it.

The bulk of the work is done in float32 or bfloat16; what decides the accuracy is not: points are brought into one
period in float64 before they are rounded, twiddles are what they always are, softmax statistics are float32. Operands
are rounded where they live, before they travel, and the result comes back in the caller's dtype.

An operation says which requests may stand in for one of its own (``Operation.narrowed``), and how it is seen, from the
data of a call, that rounding them costs no more than the tolerance leaves; where it costs more, the call runs in the
operands' own precision, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .array import Operand, describe, kind_named, kind_of
from .errors import PrecisionWarning
from .precision import NARROWER
from .rounding import as_dtype, rounded_if_ordinary

if TYPE_CHECKING:
    from .operation import Request

KINDS = ("numpy", "torch", "cupy")  # whose arrays can be rounded where they are


class Narrow(NamedTuple):
    """A request that may stand in for another.

    Attributes
    ----------
    request : Request
        The one that kernels see.
    dtype : str
        What the bulk of the work is done in.
    added : float
        Relative L2 error that rounding the operands adds on data of ordinary size.
    limit : float
        Relative L2 error that the result may have.
    given : callable
        Takes the operands and the error of the kernel; returns rounded operands, or the reason in words why these
        operands cannot be rounded.
    found : callable or None
        Takes the operands and the widened result; returns True, or the reason in words why the result will not do.
    """

    request: Request
    dtype: str
    added: float
    limit: float
    given: Callable[[Sequence[Any], float], list[Any] | str]
    found: Callable[[Sequence[Any], Any], bool | str] | None = None


def rounded(request: Request, kind: str | None = None) -> tuple[Operand | None, ...] | None:
    """Return a request's operands, each in the next lower precision; None where one of them cannot be rounded there."""
    if any(o is not None and (o.dtype in NARROWER) and o.kind not in KINDS for o in request.operands):
        return None
    return tuple(
        o if o is None or o.dtype not in NARROWER else o._replace(dtype=NARROWER[o.dtype], kind=kind or o.kind)
        for o in request.operands
    )


def as_operands(arrays: Sequence[Any], request: Request, guarded: int = 0) -> list[Any] | str:
    """Return operands as a narrower request wants them, or the reason why one of the first ``guarded`` cannot be."""
    wanted: list[Any] = []
    for number, (array, operand) in enumerate(zip(arrays, request.operands)):
        if array is None or operand is None:
            wanted.append(array)
            continue
        kind = kind_of(array)
        if operand.kind == "torch" and kind is not None and kind.name == "numpy":  # for bfloat16, which NumPy lacks
            array = kind_named("torch").from_numpy(array)
        if describe(array).dtype != operand.dtype:
            array = (rounded_if_ordinary if number < guarded else as_dtype)(array, operand.dtype)
            if isinstance(array, str):
                return array
        wanted.append(array)
    return wanted


def runner(
    call: Callable[..., Any], request: Request, narrow: Narrow, error: float, own: Callable[[], Callable[..., Any]]
) -> Callable[..., Any]:
    """Return a call that runs narrow where the data allows it, and otherwise what ``own`` gives."""
    first, dtypes = request.first, [result.dtype for result in request.operation.result(request)]

    def wide(result: Any) -> Any:
        parts = result if isinstance(result, tuple) else (result,)
        taken = []
        for part, dtype in zip(parts, dtypes):
            part = part if describe(part).dtype == dtype else as_dtype(part, dtype)
            kind = kind_of(part)
            back = first.kind == "numpy" and kind is not None and kind.name != "numpy"
            taken.append(kind.to_numpy(part) if back and kind is not None else part)
        return tuple(taken) if isinstance(result, tuple) else taken[0]

    def run(*arrays: Any) -> Any:
        given = narrow.given(arrays, error)
        verdict: bool | str = given if isinstance(given, str) else True
        if not isinstance(given, str):
            result = wide(call(*given))
            verdict = True if narrow.found is None else narrow.found(arrays, result)
            if verdict is True:
                return result
        warnings.warn(
            f"{request!r} cannot run in {narrow.dtype} within {narrow.limit:.1e} on this data: {verdict}; it runs in "
            f"{first.dtype} instead",
            PrecisionWarning,
            stacklevel=5,
        )
        return own()(*arrays)

    return run
