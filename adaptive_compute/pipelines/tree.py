"""Arrays in tuples, lists and dicts: taken out, and put back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.array import kind_of

_PLAIN = frozenset((type(None), bool, int, str, bytes, type(Ellipsis), type))


class Same:
    """An object as part of a key: equal to nothing but itself, and alive for as long as the key is."""

    __slots__ = ("thing",)

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.thing is self.thing


class Flat:
    """What a tree of values comes to: a form that can be hashed, the arrays in it, and whether all of it is watched."""

    __slots__ = ("arrays", "opaque")

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.opaque: Any = None  # something whose changes nobody sees

    def add(self, value: Any) -> Any:
        """Take the arrays out of a value and return its form."""
        kind = type(value)
        if kind is np.ndarray:
            self.arrays.append(value)
            return "*"
        if kind in _PLAIN:
            return kind, value
        if kind is float:
            return kind, value, math.copysign(1, value), value != value
        if kind is complex or isinstance(value, (np.generic, np.dtype)):
            return kind, repr(value)
        if kind is tuple or kind is list:
            return (kind, *map(self.add, value))
        if kind is dict and all(isinstance(name, (str, int)) for name in value):
            return (kind, *((name, self.add(part)) for name, part in value.items()))
        if kind is slice:
            return kind, self.add(value.start), self.add(value.stop), self.add(value.step)
        if kind_of(value) is not None:
            self.arrays.append(value)
            return "*"
        return self._other(value)

    def _other(self, value: Any) -> Any:
        module = kind_module(value)
        if module == "torch" and type(value).__name__ in ("dtype", "device", "Size"):
            return type(value), str(value)
        if module == "adaptive_compute" and _is_frozen(value):
            return type(value), value
        self.opaque = value
        return Same(value)


def kind_module(value: Any) -> str:
    """Return the top-level module of a value's type."""
    return type(value).__module__.partition(".")[0]


def _is_frozen(value: Any) -> bool:
    """Tell whether a value of this library never changes: masks and topologies do not."""
    from ..core.topology import Mask, Topology

    return isinstance(value, (Mask, Topology))


def filled(value: Any, arrays: Iterator[Any]) -> Any:
    """Return a tree with its arrays replaced, in the order in which ``Flat`` took them."""
    kind = type(value)
    if kind is np.ndarray:
        return next(arrays)
    if kind is tuple or kind is list:
        return kind(filled(part, arrays) for part in value)
    if kind is dict and all(isinstance(name, (str, int)) for name in value):
        return {name: filled(part, arrays) for name, part in value.items()}
    if kind_of(value) is not None and not isinstance(value, np.generic):
        return next(arrays)
    return value


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a tree with every leaf changed."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind(mapped(part, change) for part in value)
    if kind is dict:
        return {name: mapped(part, change) for name, part in value.items()}
    return change(value)
