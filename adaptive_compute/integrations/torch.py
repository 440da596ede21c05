"""torch's autograd and torch.func: any operation with a gradient rule, on any kernel, as one node of torch's graph.

The rules belong to the operations (``Operation.gradient``, ``tangent`` and ``batched``). This room only records the
call and hands a rule its operands again when torch asks: for the gradient, twice and more; in forward mode; under
torch.vmap. Where a graph is being traced, the call goes through ``torch_library``, which puts it there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad

from ..core.array import kind_named
from ..core.errors import ArgumentError
from ..core.operation import Operation
from ..core.settings import using, without_kernel
from . import torch_library

_TORCH = kind_named("torch")


def differentiate(run: Callable[..., Any], operation: Operation, params: Any, arrays: tuple[Any, ...]) -> Any:
    """Run an operation as one node of torch's graph.

    Parameters
    ----------
    run : functools.partial
        ``run(operation, params, *arrays)`` runs a call without recording it, under the accuracy in its ``tol`` keyword.
    operation : Operation
        Its ``forward_for_gradient`` gives the result and what the gradient needs besides the operands; its ``gradient``
        gives the gradient.
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
    if not torch_library.is_traced(arrays):
        # Tensors throughout, so that gradient rules meet one kind of array. (A graph keeps the others as constants.)
        arrays = tuple(a if a is None or isinstance(a, torch.Tensor) else _TORCH.from_numpy(a) for a in arrays)
    node = _Call if torch._C._are_functorch_transforms_active() else _Plain
    form, *outputs = node.apply(run, operation, params, *arrays)
    return tuple(outputs[: form.results]) if form.several else outputs[0]


@dataclass(frozen=True)  # and no tuple, into which torch would look for results
class _Form:
    """What the outputs of a recorded call are: results first, then what was saved and is no result.

    ``saved`` has the place among the outputs of each array that the rule for the gradient wants besides the operands.
    """

    several: bool
    results: int
    saved: tuple[int, ...]


class _Call(torch.autograd.Function):  # type: ignore[misc]
    """One recorded call. Its outputs: their form, the results, and saved arrays that are none of the results."""

    @staticmethod
    def forward(run: Any, operation: Operation, params: Any, *arrays: Any) -> tuple[Any, ...]:
        if torch_library.is_traced(arrays):
            plain, run = arrays, partial(torch_library.run, tol=run.keywords.get("tol"))
        else:  # detached, because a kernel may work in other threads, where gradient mode is on
            plain = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arrays)
        result, saved = operation.forward_for_gradient(params, plain, run)
        outputs = list(result) if isinstance(result, tuple) else [result]
        count, places = len(outputs), []
        for array in saved:
            same = [place for place, output in enumerate(outputs) if output is array]
            places.append(same[0] if same else len(outputs))
            outputs += [] if same else [array]
        return _Form(isinstance(result, tuple), count, tuple(places)), *outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        run, ctx.operation, ctx.params, *arrays = inputs
        ctx.form, *outputs = output
        ctx.tol = run.keywords.get("tol")
        ctx.results = ctx.form.results
        ctx.operands = len(arrays)
        ctx.set_materialize_grads(False)
        constant = outputs[ctx.results :] if ctx.operation.saves else []
        discrete = [o for o in outputs if isinstance(o, torch.Tensor) and not _is_continuous(o)]
        ctx.mark_non_differentiable(*discrete, *constant)
        ctx.like = [_like(o) for o in outputs[: ctx.results]]
        kept = [*arrays, *outputs]
        tensors = [isinstance(a, torch.Tensor) for a in kept]
        ctx.constants = [None if is_tensor else a for a, is_tensor in zip(kept, tensors)]
        # The other results are for the forward mode, whose rules want to know their dtype and shape.
        needed = {*range(len(arrays)), *(len(arrays) + place for place in ctx.form.saved)}
        ctx.forward_places = [place for place, is_tensor in enumerate(tensors) if is_tensor]
        ctx.backward_places = [place for place in ctx.forward_places if place in needed]
        ctx.save_for_backward(*(kept[place] for place in ctx.backward_places))
        ctx.save_for_forward(*(kept[place] for place in ctx.forward_places))

    @staticmethod
    def backward(ctx: Any, *received: Any) -> tuple[Any, ...]:
        kept = list(ctx.constants)
        for place, tensor in zip(ctx.backward_places, ctx.saved_tensors):
            kept[place] = tensor
        arrays = tuple(kept[: ctx.operands])
        saved = tuple(kept[ctx.operands + place] for place in ctx.form.saved)
        wanted = tuple(ctx.needs_input_grad[3:])
        grads = list(received[1 : 1 + ctx.results])
        of_saved = received[1 + ctx.results :]
        if any(grad is not None for grad in of_saved):
            if not ctx.operation.differentiates_saved:
                raise NotImplementedError(f"{ctx.operation.name} has no rule for this higher derivative")
            grads.extend(of_saved)
        found = pull(ctx.operation, ctx.params, arrays, saved, grads, wanted, ctx.like, ctx.tol)
        return (None, None, None, *found)

    @staticmethod
    def jvp(ctx: Any, *received: Any) -> tuple[Any, ...]:
        kept = list(ctx.constants)
        for place, tensor in zip(ctx.forward_places, ctx.saved_tensors):
            kept[place] = forward_ad.unpack_dual(tensor).primal  # at this level it does not move any more
        arrays, outputs = tuple(kept[: ctx.operands]), kept[ctx.operands :]
        results, saved = outputs[: ctx.results], tuple(outputs[place] for place in ctx.form.saved)
        changes = tuple(
            c if isinstance(a, torch.Tensor) and _is_continuous(a) else None for c, a in zip(received[3:], arrays)
        )
        found = push(ctx.operation, ctx.params, arrays, saved, changes, results, ctx.tol)
        return (None, *found, *[None] * (len(outputs) - ctx.results))

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: Any, operation: Operation, params: Any, *arrays: Any) -> tuple[Any, Any]:
        outputs = map_over(partial(_Call.apply, run), operation, params, arrays, in_dims[3:], info.batch_size)
        return outputs, tuple(0 if isinstance(output, torch.Tensor) else None for output in outputs)


class _Plain(_Call):
    """The same where no transform of functions is active: in torch's older form, which costs a third less to call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Any, ...]:
        output = _Call.forward(*inputs)
        _Call.setup_context(ctx, inputs, output)
        return output

    setup_context = torch.autograd.Function.setup_context


def pull(
    operation: Operation, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: list[Any],
    wanted: tuple[bool, ...], like: list[Any], tol: float | None,
) -> list[Any]:  # fmt: skip
    """Return the gradients of operands by the operation's own rule, each in its operand's dtype and place.

    A gradient that is None arrives at the rule as zeros, made ``like`` the result that it belongs to.
    """
    filled = [
        torch.zeros(as_[0], dtype=as_[1], device=as_[2]) if grad is None and as_ is not None else grad
        for grad, as_ in zip(grads, [*like, *[None] * (len(grads) - len(like))])
    ]
    with _around(tol, arrays):
        found = operation.gradient(params, arrays, saved, tuple(filled), wanted)
    return [_cast(g, a) if want else None for g, a, want in zip(found, arrays, wanted)]


def push(
    operation: Operation, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], changes: tuple[Any, ...],
    results: list[Any], tol: float | None,
) -> list[Any]:  # fmt: skip
    """Return how results change with the operands: by the operation's rule, or by two gradients where it has none."""
    with _around(tol, arrays):
        if operation.linear:
            found: tuple[Any, ...] | None = (_again(operation, params, (changes[0], *arrays[1:])),)
        else:
            found = operation.tangent(params, arrays, changes, results[0])
        if found is None:
            found = _by_two_gradients(operation, params, arrays, saved, changes, results)
    return [_change(f, r) if _is_continuous(r) else None for f, r in zip(found, results)]


def _change(found: Any, result: torch.Tensor) -> torch.Tensor:
    """Return a result's change in the result's dtype and shape; zeros where there is none."""
    return torch.zeros_like(result) if found is None else _cast(found, result).expand(result.shape)


def _again(operation: Operation, params: Any, arrays: tuple[Any, ...]) -> Any:
    from ..core.dispatcher import dispatcher

    return dispatcher.run(operation, params, *arrays)


def _by_two_gradients(
    operation: Operation, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], changes: tuple[Any, ...],
    results: list[Any],
) -> tuple[Any, ...]:  # fmt: skip
    """Return the results' changes: the gradient is linear in the results' gradients, and its own adjoint gives them."""
    wanted = tuple(change is not None for change in changes)
    varied = [place for place, result in enumerate(results) if _is_continuous(result)]

    def back(*grads: Any) -> tuple[Any, ...]:
        every: list[Any] = [None] * len(results)
        for place, grad in zip(varied, grads):
            every[place] = grad
        found = operation.gradient(params, arrays, saved, tuple(every), wanted)
        moving[:] = [place for place, g in enumerate(found) if wanted[place] and g is not None]
        return tuple(_cast(found[place], arrays[place]) for place in moving)

    moving: list[int] = []
    given, adjoint = torch.func.vjp(back, *(torch.zeros_like(results[place]) for place in varied))
    moved = adjoint(tuple(changes[place] for place in moving)) if given else ()
    found: list[Any] = [None] * len(results)
    for place, part in zip(varied, moved):
        found[place] = part
    return tuple(found)


def map_over(
    call: Callable[..., Any], operation: Operation, params: Any, arrays: tuple[Any, ...], dims: tuple[Any, ...],
    size: int,
) -> tuple[Any, ...]:  # fmt: skip
    """Make a call for each element of an axis of some operands; the results have a leading axis over the calls.

    One call stands for all of them where the operation knows how; else they are made one by one.
    """
    stacked = tuple(dim is not None for dim in dims)
    front = tuple(a if dim is None else a.movedim(dim, 0) for a, dim in zip(arrays, dims))
    together = operation.batched(params, front, stacked, size)
    if together is not None:
        new_params, new_arrays, finish = together
        count, *outputs = call(operation, new_params, *new_arrays)
        return (count, *(outputs if finish is None else finish(outputs)))
    if size == 0:
        raise ArgumentError(f"{operation.name}: torch.vmap over no elements, of operands that one call cannot hold")
    rows = [call(operation, params, *(a[i] if has else a for a, has in zip(front, stacked))) for i in range(size)]
    return (rows[0][0], *(torch.stack(parts) for parts in list(zip(*rows))[1:]))


def _around(tol: float | None, arrays: tuple[Any, ...]) -> ExitStack:
    """Return the settings that a rule runs under.

    A kernel forced by name belongs to the operation that was called; its gradient is made of other ones. And the
    gradient of a call is computed in the call's precision, also inside a region of automatic mixed precision.
    """
    stack = ExitStack()
    stack.enter_context(without_kernel())
    if tol is not None:
        stack.enter_context(using(tol=tol))
    if torch._C._is_any_autocast_enabled():
        stack.enter_context(torch.autocast(arrays[0].device.type, enabled=False))
    return stack


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
