"""Reshapes, transposes, basic indices and casts: what a recorded function may do to an array besides operations."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core.array import Operand
from ..core.registry import registry

# Kinds of arrays on which every view works: those of the host, and CUDA's.
ABLE = frozenset(("numpy", "torch", "cupy"))
# What others offer by methods of their own: a copy on the device.
SOME = frozenset(("reshape", "index"))


class View(NamedTuple):
    """One view: its name, and the arguments that NumPy's function of this name takes."""

    name: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return self.name

    def result(self, operand: Operand) -> Operand:
        """Return what the view of an operand is, by NumPy on an array of no memory."""
        shape = operand.shape
        ghost = np.broadcast_to(np.zeros((), np.int8), shape)
        if self.name == "reshape":
            shape = np.empty(shape, np.dtype([])).reshape(self.arguments).shape
        elif self.name == "permute":
            shape = ghost.transpose(self.arguments).shape
        elif self.name == "index":
            shape = ghost[unfrozen(self.arguments)].shape
        elif self.name == "cast":
            return operand._replace(dtype=self.arguments[0])
        return operand._replace(shape=tuple(shape))

    def runs_on(self, device: str, kind: str) -> bool:
        """Tell whether a device offers it for its arrays."""
        return kind in ABLE or (device.partition(":")[0] == "vulkan" and self.name in SOME)

    def bind(self, kind: str) -> Callable[[Any], Any]:
        """Return the function of an array of a kind."""
        given = self.arguments
        if self.name == "reshape":
            return lambda x: x.reshape(given)
        if self.name == "permute":
            return (lambda x: x.permute(given)) if kind == "torch" else (lambda x: x.transpose(given))
        if self.name == "index":
            key = unfrozen(given)
            return lambda x: x[key]
        if kind == "torch":
            return lambda x: x.to(_torch_dtype(given[0]))
        return lambda x: x.astype(given[0])


def _torch_dtype(name: str) -> Any:
    import sys

    return getattr(sys.modules["torch"], name)


def native_kind(device: str) -> str:
    """Return the kind of the arrays that a device's own kernels take."""
    for operation in ("elementwise", "fft", *registry.operations()):
        for kernel in registry.kernels(operation, [device]):
            if kernel.device == device and device != "cpu":
                return kernel.native
    return "numpy"


def frozen(key: Any) -> tuple[Any, ...] | None:
    """Return a basic index as plain data that can be hashed, or None where it is not one."""
    parts = key if isinstance(key, tuple) else (key,)
    found: list[Any] = []
    for part in parts:
        if part is None or part is Ellipsis:
            found.append(part)
        elif isinstance(part, slice):
            try:
                ends = [None if e is None else operator.index(e) for e in (part.start, part.stop, part.step)]
            except TypeError:
                return None
            found.append(("slice", *ends))
        elif isinstance(part, (int, np.integer)) and not isinstance(part, (bool, np.bool_)):
            found.append(int(part))
        else:
            return None
    return tuple(found)


def unfrozen(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the index that ``frozen`` was given."""
    return tuple(slice(*part[1:]) if isinstance(part, tuple) else part for part in parts)
