"""``adaptive explain``: which kernel a call would get, and why. Runs nothing."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import AsJson, print_json

if TYPE_CHECKING:
    from ..core.operation import Request
    from ..core.settings import Settings

MOST_AXES, MOST_ELEMENTS = 32, 1 << 56  # what NumPy can describe, whatever its version and the dtype
# Names that people say for an operation, besides its own name and the functions of the public face.
ALIASES = {"evaluate": "elementwise", "scaled_dot_product_attention": "attention", "segment_sum": "scatter_add"}


def command(
    op: Annotated[str, typer.Argument(metavar="OP", help="An operation or a function, such as fft, attention or sum.")],
    shape: Annotated[str, typer.Option("--shape", metavar="NxM", help="Shape of the first operand: 4096x1024.")],
    dtype: Annotated[str, typer.Option("--dtype", metavar="NAME", help="Its dtype, such as complex64.")],
    on: Annotated[
        str, typer.Option("--on", metavar="DEVICE", help="Where the operands are, such as cpu or cuda:0.")
    ] = "cpu",
    tol: Annotated[
        float | None, typer.Option("--tol", metavar="ERROR", help="Relative L2 error that the result may have.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="NAME", help="adaptive: the lowest that meets --tol.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every kernel that could run a call, its predicted time and error, the winner, and what would be faster.

    Runs nothing.
    """
    from ..core import settings as _settings
    from ..core.advice import advise
    from ..core.dispatcher import dispatcher

    request = placed(request_for(op, parse_shape(shape), parse_dtype(dtype)), on)
    with _settings.using(tol=tol, precision=precision):
        state = _settings.current()
        request = asked_for(request, state)
        decision = dispatcher.decide(request, state)
        decision = replace(decision, advice=advise(dispatcher.router, decision, state))
    if as_json:
        print_json(decision.as_dict())
    else:
        print(decision)


def asked_for(request: Request, state: Settings) -> Request:
    """Return the request with the tolerance that is asked for, which an operation may have as its own parameter."""
    from ..core.operation import Request

    if state.tol is None or request.operation.own_tolerance:
        return request
    return Request(request.operation, request.operands, request.params, state.tol, request.threads)


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape that a text such as ``4096x1024`` means."""
    from ..core.errors import ArgumentError

    if not re.fullmatch(r"\d+(x\d+)*", text):
        raise ArgumentError(f"--shape {text!r} is not a shape; write lengths joined by x, such as 4096x1024")
    if len(text) < 1000:
        shape = tuple(int(length) for length in text.split("x"))
        if len(shape) <= MOST_AXES and math.prod(max(length, 1) for length in shape) <= MOST_ELEMENTS:
            return shape
    raise ArgumentError(f"--shape is too large for any array: at most {MOST_AXES} axes and 2^56 elements")


def parse_dtype(text: str) -> str:
    """Return the dtype's name, or raise an error that lists the accepted ones."""
    import numpy as np

    from ..core.errors import ArgumentError

    names = list(dict.fromkeys(np.dtype(code).name for code in "?bhiqBHIQefdgFDG"))
    names.insert(names.index("float16") + 1, "bfloat16")
    if text not in names:
        raise ArgumentError(f"--dtype {text!r} is not known; use one of {', '.join(names)}")
    return text


def request_for(op: str, shape: tuple[int, ...], dtype: str) -> Request:
    """Return the plain request of an operation, or of a function of the public face, for a first operand like this."""
    from ..core.errors import ArgumentError
    from ..core.operations import operations

    known = operations()
    name = ALIASES.get(op, op)
    if name in known:
        return known[name].example(shape, dtype)
    function = _function(name)
    if function is not None and dtype != "bfloat16":
        return _request_of_call(function, shape, dtype)
    raise ArgumentError(
        f"{op!r} is no operation that can be explained; use one of {', '.join(known)}, "
        "or a function of adaptive_compute that takes arrays, such as rfft or exp"
    )


def _function(name: str) -> Callable[..., Any] | None:
    """Return a function of the public face that needs nothing but arrays, or None."""
    import adaptive_compute

    function = getattr(adaptive_compute, name, None)
    if name.startswith("_") or not inspect.isfunction(function) or "operations" not in function.__module__:
        return None
    return function


def _request_of_call(function: Callable[..., Any], shape: tuple[int, ...], dtype: str) -> Request:
    """Return the request that a call with operands of one shape makes; they view one number and take no memory."""
    import numpy as np

    from ..core.dispatcher import dispatcher

    operand = np.broadcast_to(np.zeros((), dtype), shape)
    parameters = inspect.signature(function).parameters.values()
    needed = sum(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in parameters)
    return dispatcher.explain(function, *[operand] * needed).request


def placed(request: Request, device: str) -> Request:
    """Return the request with its operands on a device, in the array kind of that device's kernels."""
    from ..core.dispatcher import dispatcher
    from ..core.errors import ArgumentError, BackendUnavailable
    from ..core.operation import Request

    registry = dispatcher.registry
    try:
        target = device if ":" in device else registry.require(device).devices()[0]
        registry.backend_of(target)
    except BackendUnavailable as error:
        raise ArgumentError(f"--on {device}: {error}") from None
    if target == "cpu":
        return request
    kernels = [k for k in registry.kernels(request.operation.name) if k.device == target]
    operands = tuple(
        o and o._replace(device=target, kind=kernels[0].native if kernels else o.kind) for o in request.operands
    )
    return Request(request.operation, operands, request.params, request.tol, request.threads)
