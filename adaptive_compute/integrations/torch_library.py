"""The operations in torch's own list: ``torch.ops.adaptive_compute.run``, which torch.compile and torch.export keep.

One operator serves every operation: its first argument is the name of a call (operation, parameters, and operands that
are no tensors), kept in a table of this process, its second the operands that are tensors. It has rules for tensors
without data (fake, meta), for autograd and for torch.vmap; all of them are the operations' own.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from typing import Any, NamedTuple

import torch

from ..core.array import Operand, kind_named
from ..core.dispatcher import dispatcher
from ..core.errors import ArgumentError
from ..core.operation import Operation, Request

NAME = "adaptive_compute::run"


class _Held(NamedTuple):
    """A call without its tensors; ``operands`` has None for a tensor, and a tuple of one around anything else."""

    operation: Operation
    params: Any
    operands: tuple[Any, ...]
    tol: float | None

    def fill(self, tensors: Any) -> tuple[Any, ...]:
        """Return all operands."""
        left = iter(tensors)
        return tuple(next(left) if operand is None else operand[0] for operand in self.operands)


_held: dict[str, _Held] = {}
_names: dict[Any, str] = {}
_lock = threading.Lock()
_numbers = itertools.count()
_process = secrets.token_hex(8)


def is_traced(arrays: tuple[Any, ...]) -> bool:
    """Tell whether some operand only stands for the data that a graph will be given."""
    torch_kind = kind_named("torch")
    return any(
        isinstance(a, torch.Tensor)
        and torch_kind.is_abstract(a)
        and not torch._C._functorch.is_functorch_wrapped_tensor(a)
        for a in arrays
    )


def run(operation: Operation, params: Any, *arrays: Any, tol: float | None = None) -> Any:
    """Run a call through the operator, so that a graph that is being traced gets it."""
    name = _name(operation, params, arrays, tol)
    results = torch.ops.adaptive_compute.run(name, [a for a in arrays if isinstance(a, torch.Tensor)])
    return results[0] if len(results) == 1 else tuple(results)


def _name(operation: Operation, params: Any, arrays: tuple[Any, ...], tol: float | None) -> str:
    """Return the name under which a call is kept.

    A name that does not say everything holds what tells this process apart, because compiled graphs outlive it in
    torch's caches, and there one name must never mean two things.
    """
    operands = tuple(None if isinstance(a, torch.Tensor) else (a,) for a in arrays)
    key = (operation, params, tol, tuple(None if o is None else (type(o[0]), id(o[0])) for o in operands))
    with _lock:
        name = _names.get(key)
        if name is None:
            name = f"{operation.name} {params!r} tol={tol} of {len(arrays)}"
            if not _is_plain(params) or any(o is not None for o in operands):
                name += f" #{next(_numbers)} of {_process}"
            _names[key] = name
            _held[name] = _Held(operation, params, operands, tol)
    return name


def _is_plain(value: Any) -> bool:
    """Tell whether a text of a value says all of it."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _call(name: str) -> _Held:
    held = _held.get(name)
    if held is None:
        raise ArgumentError(
            f"the call {name!r} belongs to another process: trace the graph again where it is to run, after importing "
            "adaptive_compute"
        )
    return held


_library = torch.library.Library("adaptive_compute", "DEF")
_library.define(
    "run(str call, Tensor[] operands) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order),
)


@torch.library.impl(NAME, "CompositeExplicitAutograd", lib=_library)  # type: ignore[untyped-decorator]
def _run(name: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    call = _call(name)
    result = dispatcher.compute(call.operation, call.params, *call.fill([t.detach() for t in tensors]), tol=call.tol)
    results = result if isinstance(result, tuple) else (result,)
    taken = {t.untyped_storage().data_ptr() for t in tensors if t.numel()}
    owned = []
    for part in results:  # an operator's results are arrays of their own, as the rule for fake tensors says they are
        part = part.resolve_conj().resolve_neg().contiguous()
        shared = part.numel() > 0 and part.untyped_storage().data_ptr() in taken
        owned.append(part.clone(memory_format=torch.contiguous_format) if shared else part)
        taken.add(owned[-1].untyped_storage().data_ptr())
    return owned


class _Shapes(Request):
    """A request whose lengths may be symbols of torch's, which cannot be hashed."""

    __slots__ = ()

    def __init__(self, operation: Operation, operands: tuple[Operand | None, ...], params: Any) -> None:
        self.operation, self.operands, self.params = operation, operands, params
        self.tol, self.threads = None, 1


@torch.library.register_fake(NAME, lib=_library)  # type: ignore[untyped-decorator]
def _fake(name: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    call = _call(name)
    operands = tuple(None if a is None else _described(a) for a in call.fill(tensors))
    results = call.operation.result(_Shapes(call.operation, operands, call.params))
    return [tensors[0].new_empty(r.shape, dtype=getattr(torch, r.dtype)) for r in results]


def _described(array: Any) -> Operand:
    return Operand(tuple(array.shape), str(array.dtype).removeprefix("torch."), "cpu", "torch")


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.name, tensors = inputs
    ctx.like = [(o.shape, o.dtype, o.device) if o.is_floating_point() or o.is_complex() else None for o in output]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grads: list[Any]) -> tuple[None, list[Any]]:
    from .torch import pull

    call = _call(ctx.name)
    arrays = call.fill(ctx.saved_tensors)
    asked = iter(ctx.needs_input_grad[1])
    wanted = tuple(bool(next(asked)) if operand is None else False for operand in call.operands)
    saved: tuple[Any, ...] = ()
    if call.operation.saves:  # the operator gives results only, so what the rule wants besides is computed again
        _, saved = call.operation.forward_for_gradient(call.params, arrays, dispatcher.run)
    found = pull(call.operation, call.params, arrays, saved, list(grads), wanted, ctx.like, call.tol)
    return None, [grad for grad, operand in zip(found, call.operands) if operand is None]


torch.library.register_autograd(NAME, _backward, setup_context=_setup_context, lib=_library)


@torch.library.register_vmap(NAME, lib=_library)  # type: ignore[untyped-decorator]
def _vmap(info: Any, in_dims: Any, name: str, tensors: list[torch.Tensor]) -> tuple[list[Any], list[int]]:
    from .torch import map_over

    call = _call(name)
    dims = iter(in_dims[1])
    places = tuple(next(dims) if operand is None else None for operand in call.operands)

    def once(operation: Operation, params: Any, *arrays: Any) -> tuple[Any, ...]:
        result = dispatcher.run(operation, params, *arrays, tol=call.tol)
        return (None, *(result if isinstance(result, tuple) else (result,)))

    _, *results = map_over(once, call.operation, call.params, call.fill(tensors), places, info.batch_size)
    return results, [0] * len(results)
