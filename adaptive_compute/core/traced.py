"""Calls that torch.compile reads: whether it does, and where such a call goes.

torch.compile reads Python code, and what looks up a plan is nothing that it could put into a graph. So a user function
asks first, and hands its arguments to ``integrations.torch_compile``, which makes one node of the call.
"""

from __future__ import annotations

import sys
from typing import Any

_modules = sys.modules


def compiling() -> bool:
    """Tell whether this very code is being read by torch.compile, for which the answer is a constant."""
    torch = _modules.get("torch")
    return torch is not None and torch.compiler.is_dynamo_compiling()


def be_known() -> None:
    """Let torch.compile, where torch is loaded, know this library's objects before it reads code that holds one."""
    if "torch" in _modules and not compiling():
        from ..integrations import torch_compile  # noqa: F401


def in_graph(room: str, function: str, *args: Any, **kwargs: Any) -> Any:
    """Put a call of a function of ``core.operations`` into the graph that is being made."""
    # A statement, because that is what torch.compile runs instead of reading it.
    from ..integrations.torch_compile import in_graph as put

    return put(room, function, args, kwargs)
