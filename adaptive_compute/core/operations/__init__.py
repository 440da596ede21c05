"""The operations, one family a file: user functions, checks, work, gradient rule, reference."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..operation import Operation

# Rooms that hold an operation; each lists its instances in OPERATIONS.
_ROOMS = ("elementwise", "reduce", "gather", "fft", "nufft", "attention")


def operations() -> dict[str, Operation]:
    """Return every operation that is profiled, by name."""
    found: dict[str, Operation] = {}
    for room in _ROOMS:
        for operation in import_module(f"{__name__}.{room}").OPERATIONS:
            found[operation.name] = operation
    return found
