"""torch.autograd: any operation with a gradient rule, on any kernel, can be differentiated, twice and more.

The rule itself belongs to the operation (``Operation.gradient``). This room only records the call and hands the rule
its operands again when torch asks for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from ..core.array import kind_named
from ..core.errors import ArgumentError
from ..core.operation import Operation
from ..core.settings import using, without_kernel

_TORCH = kind_named("torch")


def differentiate(run: Callable[..., Any], operation: Operation, params: Any, arrays: tuple[Any, ...]) -> Any:
    """Run an operation as one node of torch's graph.

    Parameters
    ----------
    run : functools.partial
        ``run(operation, params, *arrays)`` runs a call without recording it, under the accuracy in its ``tol`` keyword.
    operation : Operation
        Its ``forward_for_gradient`` gives the result and what the gradient needs besides the operands; its ``gradient``
        gives the gradient. There, ``arrays[i].requires_grad`` tells whether operand i needs one.
    params : hashable
        The operation's parameters.
    arrays : tuple
        Operands: tensors, None, or other arrays, which count as constants.

    Returns
    -------
    Tensor or tuple of Tensor
        What ``run`` returns, recorded.

    Raises
    ------
    ArgumentError
        If the first operand, which decides the result's kind, is not a tensor: the gradient would be lost.

    Notes
    -----
    What ``forward_for_gradient`` saves is an output of the node that the caller never sees. Second derivatives then
    flow through it like through any result: ``gradient`` gets a longer ``grads``, with the saved arrays' gradients
    after the results'. An operation that knows what to do with them says ``differentiates_saved = True``; for any other
    one such a second derivative raises instead of leaving a term out.
    """
    if not isinstance(arrays[0], torch.Tensor):
        raise ArgumentError(
            f"{operation.name}: an operand requires grad, but the first one is a {type(arrays[0]).__name__}, so the "
            "result would be one as well and lose the gradient; pass tensors, or detach the operand"
        )
    # Tensors throughout, so that gradient rules meet one kind of array.
    arrays = tuple(a if a is None or isinstance(a, torch.Tensor) else _TORCH.from_numpy(a) for a in arrays)
    count, *outputs = _Call.apply(run, operation, params, *arrays)
    return outputs[0] if count is None else tuple(outputs[:count])


class _Call(torch.autograd.Function):  # type: ignore[misc]
    """One recorded call. Its outputs: the number of results (None where it is no tuple), the results, saved arrays."""

    @staticmethod
    def forward(run: Any, operation: Operation, params: Any, *arrays: Any) -> tuple[Any, ...]:
        # Detached, because a kernel may work in other threads, where gradient mode is on.
        plain = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arrays)
        result, saved = operation.forward_for_gradient(params, plain, run)
        if isinstance(result, tuple):
            return (len(result), *result, *saved)
        return (None, result, *saved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        run, ctx.operation, ctx.params, *arrays = inputs
        count, *outputs = output
        ctx.tol = run.keywords.get("tol")
        ctx.results = 1 if count is None else count
        ctx.operands = len(arrays)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(o for o in outputs if isinstance(o, torch.Tensor) and not _is_continuous(o)))
        ctx.like = [_like(o) for o in outputs[: ctx.results]]
        kept = [*arrays, *outputs[ctx.results :]]
        tensors = [isinstance(a, torch.Tensor) for a in kept]
        ctx.constants = [None if is_tensor else a for a, is_tensor in zip(kept, tensors)]
        ctx.places = [place for place, is_tensor in enumerate(tensors) if is_tensor]
        ctx.save_for_backward(*(kept[place] for place in ctx.places))

    @staticmethod
    def backward(ctx: Any, *received: Any) -> tuple[Any, ...]:
        kept = list(ctx.constants)
        for place, tensor in zip(ctx.places, ctx.saved_tensors):
            kept[place] = tensor
        arrays, saved = tuple(kept[: ctx.operands]), tuple(kept[ctx.operands :])
        grads = [
            torch.zeros(like[0], dtype=like[1], device=like[2]) if grad is None and like is not None else grad
            for grad, like in zip(received[1:], ctx.like)
        ]
        of_saved = received[1 + ctx.results :]
        if any(grad is not None for grad in of_saved):
            if not ctx.operation.differentiates_saved:
                raise NotImplementedError(f"{ctx.operation.name} has no rule for this higher derivative")
            grads.extend(of_saved)
        # A kernel forced by name belongs to the operation that was called; its gradient is made of other ones.
        with without_kernel(), nullcontext() if ctx.tol is None else using(tol=ctx.tol):
            found = ctx.operation.gradient(ctx.params, arrays, saved, tuple(grads))
        wanted = ctx.needs_input_grad[3:]
        cast = [_cast(g, a) if want else None for g, a, want in zip(found, arrays, wanted)]
        return (None, None, None, *cast)


def _is_continuous(tensor: torch.Tensor) -> bool:
    """Tell whether values of this dtype can be varied by a small amount."""
    return tensor.is_floating_point() or tensor.is_complex()


def _like(result: Any) -> Any:
    """Return what a gradient of zeros for this result is made of, or None where it can have no gradient."""
    if isinstance(result, torch.Tensor) and _is_continuous(result):
        return result.shape, result.dtype, result.device
    return None


def _cast(grad: Any, operand: Any) -> Any:
    """Return a gradient in its operand's dtype and place; a real operand sees the real part alone."""
    if grad is None:
        return None
    if grad.is_complex() and not operand.is_complex():
        grad = grad.real
    return grad.to(device=operand.device, dtype=operand.dtype)
