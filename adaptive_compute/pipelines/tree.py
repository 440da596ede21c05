"""Arrays in tuples, lists and dicts: taken out, and put back."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.array import kind_of
from ..core.dispatcher import Dispatcher
from ..core.operation import Operation
from ..core.topology import Mask, Topology

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
    """What a tree of values comes to: a form that can be hashed, and the arrays and the functions in it.

    ``opaque`` is something whose changes nobody sees, or None.
    """

    __slots__ = ("arrays", "functions", "opaque")

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.functions: list[types.FunctionType] = []
        self.opaque: Any = None

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
        if kind is tuple or kind is list or _is_named(kind):
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
        if is_pure(value):
            return Same(value)
        inner = plain_function(value)
        if inner is not None:
            self.functions.append(inner)
            return Same(value)
        module = kind_module(value)
        if module == "torch" and type(value).__name__ in ("dtype", "device", "Size"):
            return type(value), str(value)
        if module == "adaptive_compute" and isinstance(value, (Mask, Topology)):
            return type(value), value
        if isinstance(value, (Operation, Dispatcher)):
            return Same(value)
        self.opaque = value
        return Same(value)


# Libraries whose functions depend on their arguments alone, and whose state is theirs.
PURE = frozenset((
    "adaptive_compute", "numpy", "math", "cmath", "operator", "functools", "itertools", "scipy", "torch", "typing",
    "collections", "dataclasses", "builtins", "__future__", "enum",
))  # fmt: skip
# Names by which functions of these libraries give something else every time, or read the world.
IMPURE = frozenset((
    "random", "rand", "randn", "randint", "default_rng", "seed", "normal", "uniform", "input", "open", "load", "memmap",
    "fromfile", "empty", "empty_like", "eval", "exec", "globals", "locals", "vars", "getattr", "__import__",
    "import_module", "next",
))  # fmt: skip


def is_lasting(value: Any) -> bool:
    """Tell whether a value has no arrays and stays as it is: plain values, functions, and tuples of them."""
    kind = type(value)
    if kind is tuple or _is_named(kind):
        return all(map(is_lasting, value))
    return kind in _PLAIN or kind in (float, complex) or is_pure(value) or plain_function(value) is not None


def root_of(value: Any) -> str:
    """Return the top-level module that a function or a class comes from."""
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


def is_pure(value: Any) -> bool:
    """Tell whether a value is a function or a class of a library whose results depend on the arguments alone."""
    if not callable(value) or kind_of(value) is not None or root_of(value) not in PURE:
        return False
    owner = getattr(value, "__self__", None)
    bound = not isinstance(owner, (types.ModuleType, type(None), type))
    named = isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc)) or hasattr(
        value, "__name__"
    )
    return named and not bound and getattr(value, "__name__", "") not in IMPURE


def plain_function(value: Any) -> types.FunctionType | None:
    """Return a Python function, also that of a pipeline; None for anything else."""
    inner = getattr(value, "function", None) if type(value).__name__ == "Pipeline" else value
    return inner if isinstance(inner, types.FunctionType) else None


def kind_module(value: Any) -> str:
    """Return the top-level module of a value's type."""
    return type(value).__module__.partition(".")[0]


def _is_named(kind: type) -> bool:
    """Tell whether a type is a named tuple without methods, whose code nobody would watch."""
    if not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        return False
    functions = [part for part in vars(kind).values() if isinstance(part, types.FunctionType)]
    return all(root_of(part) in PURE or root_of(part).startswith("namedtuple_") for part in functions)


def filled(value: Any, arrays: Iterator[Any], build: Callable[[types.FunctionType], Any] | None = None) -> Any:
    """Return a tree with its arrays replaced, in the order in which ``Flat`` took them, and its functions rebuilt."""
    kind = type(value)
    if kind is np.ndarray:
        return next(arrays)
    if kind is tuple or kind is list:
        return kind(filled(part, arrays, build) for part in value)
    if _is_named(kind):
        return kind(*(filled(part, arrays, build) for part in value))
    if kind is dict and all(isinstance(name, (str, int)) for name in value):
        return {name: filled(part, arrays, build) for name, part in value.items()}
    if kind_of(value) is not None and not isinstance(value, np.generic):
        return next(arrays)
    inner = None if build is None or is_pure(value) else plain_function(value)
    return value if build is None or inner is None else build(inner)
