"""torch.compile: what a call of this library becomes in code that torch.compile reads, without a break of the graph.

A user function that finds itself being read hands over here. Its arguments are put into a form that torch.compile lets
through (tensors, numbers, strings), and the call is made again by code that is not read but run on tensors without
data; what it does to them, ``torch_library``'s operator, is what the graph gets.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import torch
import torch._dynamo
from torch.utils import _pytree as pytree

from ..core.errors import AdaptiveError, UntraceableWarning
from ..core.expression import Node
from ..core.index_topology import IndexTopology
from ..core.masks import ArrayMask, Blocks, Causal, Prefix, Window
from ..core.operations.elementwise_call import Mapped
from ..core.topology import Both, Either, Inverse

_NONE = "\0none"  # torch.compile does not let None through
_MASK = "\0mask"

# Objects that hold arrays or code go through as what they are, if they were made outside of the code that is read.
for _constant in (Node, Mapped, IndexTopology, Blocks, ArrayMask):
    pytree.register_constant(_constant)


def in_graph(room: str, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Put a call into the graph; this function is read by torch.compile."""
    given = [_encoded(arg) for arg in args]
    return _call(room, function, given, {name: _encoded(arg) for name, arg in kwargs.items()})


def _encoded(arg: Any) -> Any:
    if arg is None:
        return _NONE
    if isinstance(arg, np.ndarray):
        return torch.as_tensor(arg)
    if isinstance(arg, (Causal, Window, Prefix, Both, Inverse)):
        return _of_mask(arg)
    if isinstance(arg, (tuple, list)):
        return [_encoded(part) for part in arg]
    return arg


def _of_mask(mask: Any) -> Any:
    """Return a mask that may have been made in the code that is read as a tuple of what it was made of."""
    if isinstance(mask, Both):  # either of the two combinations
        return (_MASK, "or" if isinstance(mask, Either) else "and", _of_mask(mask.left), _of_mask(mask.right))
    if isinstance(mask, Inverse):
        return (_MASK, "not", _of_mask(mask.mask))
    if isinstance(mask, Causal):
        return (_MASK, "causal", mask.align)
    if isinstance(mask, Window):
        return (_MASK, "window", mask.n)
    if isinstance(mask, Prefix):
        return (_MASK, "prefix", mask.n)
    return mask


_MAKERS = {
    "and": Both, "or": Either, "not": Inverse, "causal": Causal, "window": Window, "prefix": Prefix,
}  # fmt: skip


def _decoded(arg: Any) -> Any:
    if isinstance(arg, str) and arg == _NONE:
        return None
    if isinstance(arg, tuple):  # a mask's: all others came as lists
        return _MAKERS[arg[1]](*(_decoded(part) for part in arg[2:]))
    return tuple(map(_decoded, arg)) if isinstance(arg, list) else arg


def _made(room: str, function: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Make the call; torch.compile runs this on tensors without data, and so does what traces the graph."""
    target = getattr(importlib.import_module(f"adaptive_compute.core.operations.{room}"), function)
    try:
        return target(*map(_decoded, args), **{name: _decoded(arg) for name, arg in kwargs.items()})
    except AdaptiveError as error:  # of which torch.compile may not pass on the text
        text = f"torch.compile stops at a call of this library ({room}.{function}): {type(error).__name__}: {error}"
        warnings.warn(text, UntraceableWarning, stacklevel=2)
        raise


_call = torch._dynamo.nonstrict_trace(_made)
