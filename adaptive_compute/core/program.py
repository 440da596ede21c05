"""An expression made ready to compute: dtypes decided, casts explicit, equal parts shared.

Dtypes follow NumPy 2 [1]_ for every array kind: a Python number adapts to the arrays it meets, and integers with
float32 give float64. float16 and bfloat16 are computed in float32 and rounded once, at the end.

References
----------
.. [1] NEP 50, https://numpy.org/neps/nep-0050-scalar-promotion.html
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .errors import DtypeError, ExpressionError
from .expression import COMPOSITES, UFUNCS, Node, const, expand, in_64_bits, make, ordered

WORKING = {"float16": "float32", "bfloat16": "float32"}
ACCEPTED = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128",
)  # fmt: skip
_DEFAULT: dict[str, str] = {"bool": "bool", "int": "int64", "float": "float64", "complex": "complex128"}
_PYTHON: dict[str, Any] = {"int64": int, "uint64": int, "float64": float, "complex128": complex}
_COMPARISONS = frozenset(("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"))
_UNORDERED = frozenset(("maximum", "minimum", "greater", "greater_equal", "less", "less_equal", "sign"))


class Value(NamedTuple):
    """One step of a program: what is computed from which earlier values.

    ``op`` is a function's name, ``"cast"``, or a leaf (``"var"`` and ``"scalar"``: an operand by its number,
    ``"const"``: a number; the number is ``data``). ``loop`` is the dtype of the arguments, ``dtype`` the result's.
    """

    op: str
    args: tuple[int, ...]
    loop: str
    dtype: str
    data: Any = None


class Program(NamedTuple):
    """Values in the order of computing; the last one is the result."""

    values: tuple[Value, ...]
    dtype: str


class _Type(NamedTuple):
    """A node's dtype; ``weak`` where it is a Python number's, which adapts to the arrays it meets."""

    dtype: str
    weak: bool


@lru_cache(maxsize=4096)
def program(root: Node, dtypes: tuple[str, ...], native: frozenset[str] = frozenset()) -> Program:
    """Return the program of an expression over operands of these dtypes.

    Parameters
    ----------
    root : Node
        The expression.
    dtypes : tuple of str
        Dtype of each operand.
    native : frozenset of str
        Composites that the backend computes in one step on real floating-point values; others are expanded.
    """
    builder = Builder(dtypes, native)
    for node in ordered(root):  # children first, so that no step recurses deeper than one expansion
        builder.value(node)
    index, kind = builder.value(root)
    if builder.values[index].dtype != kind.dtype:
        index = builder.cast(index, kind.dtype)
    if builder.values[index].op in ("var", "scalar", "const"):
        index = builder.emit(Value("cast", (index,), builder.values[index].dtype, kind.dtype))
    return Program(*_needed(builder.values, index), kind.dtype)


def _needed(values: list[Value], last: int) -> tuple[tuple[Value, ...]]:
    """Return only the values that the result depends on, renumbered."""
    keep = {last}
    for index in range(last, -1, -1):
        if index in keep:
            keep.update(values[index].args)
    order = sorted(keep)
    new = {old: position for position, old in enumerate(order)}
    return (tuple(values[i]._replace(args=tuple(new[a] for a in values[i].args)) for i in order),)


class Builder:
    """Collects the values of one program."""

    def __init__(self, dtypes: tuple[str, ...], native: frozenset[str]) -> None:
        self.dtypes, self.native = dtypes, native
        self.values: list[Value] = []
        self._index: dict[Any, int] = {}
        self._done: dict[Node, tuple[int, _Type]] = {}

    def emit(self, value: Value) -> int:
        """Return the number of a value, adding it where it is new."""
        key = (*value[:4], type(value.data), repr(value.data))
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = len(self.values)
            self.values.append(value)
        return index

    def cast(self, index: int, dtype: str) -> int:
        """Return a value in another dtype."""
        value = self.values[index]
        if value.dtype == dtype:
            return index
        if value.op == "const":
            return self.emit(value._replace(loop=dtype, dtype=dtype, data=_fits(value.data, dtype)))
        if value.op == "scalar":
            return self.emit(value._replace(loop=dtype, dtype=dtype))
        return self.emit(Value("cast", (index,), value.dtype, dtype))

    def value(self, node: Node) -> tuple[int, _Type]:
        """Return a node's value and type."""
        done = self._done.get(node)
        if done is None:
            done = self._done[node] = self._leaf(node) if not node.children else self._step(node)
        return done

    def _leaf(self, node: Node) -> tuple[int, _Type]:
        if node.op == "var":
            dtype = self.dtypes[node.args[0]]
            if dtype not in ACCEPTED:
                raise DtypeError(f"dtype {dtype} is not one of those computed in: {', '.join(ACCEPTED)}")
            index = self.emit(Value("var", (), dtype, dtype, node.args[0]))
            return self.cast(index, WORKING.get(dtype, dtype)), _Type(dtype, weak=False)
        data = node.args[0]
        kind = node.args[1] if node.op == "scalar" else type(data).__name__
        if node.op == "const" and kind == "int" and not in_64_bits(data):
            kind, data = "float", float(data)
        dtype = "uint64" if kind == "int" and data >= 1 << 63 else _DEFAULT[kind]
        return self.emit(Value(node.op, (), dtype, dtype, data)), _Type(dtype, weak=kind != "bool")

    def _step(self, node: Node) -> tuple[int, _Type]:
        op = node.op
        args = [self.value(child) for child in node.children]
        if op in COMPOSITES:
            index, kind = args[0]
            if op not in self.native or kind.weak or kind.dtype not in ("float16", "bfloat16", "float32", "float64"):
                return self.value(expand(node))
            working = WORKING.get(kind.dtype, kind.dtype)
            return self.emit(Value(op, (self.cast(index, working),), working, working)), kind
        if op == "power":
            simple = self._power(node)
            if simple is not None:
                return self.value(simple)
        loops, kind = _resolve(op, [kind for _, kind in args])
        if op in _COMPARISONS:
            certain = _certain(node, loops)
            if certain is not None:
                return self.value(certain)
        numbers = tuple(self.cast(index, loop) for (index, _), loop in zip(args, loops))
        working = WORKING.get(kind.dtype, kind.dtype)
        if op == "positive" or (op in ("real", "conjugate") and not loops[0].startswith("complex")):
            return numbers[0], kind  # the value itself
        if op == "absolute" and loops[0] == "bool":
            return numbers[0], kind
        if op in ("floor", "ceil", "rint") and not loops[0].startswith(("float", "complex")):
            return numbers[0], kind
        return self.emit(Value(op, numbers, loops[-1], working)), kind

    def _power(self, node: Node) -> Node | None:
        """Return a power with a small constant exponent by what NumPy computes it with: multiplication or a root."""
        base, exponent = node.children
        if exponent.op != "const" or isinstance(exponent.args[0], (bool, complex)):
            return None
        value = exponent.args[0]
        loops, kind = _resolve("power", [self.value(base)[1], self.value(exponent)[1]])
        if loops[0].startswith(("float", "complex")):
            if self.value(base)[1].dtype != kind.dtype:
                base = make("multiply", base, const(1.0))
            if value == 3:
                return make("multiply", make("square", base), base)
            name = {2: "square", 1: "positive", 0.5: "sqrt", -1: "reciprocal"}.get(value)
            return None if name is None else make(name, base)
        if value < 0:
            raise ExpressionError(f"integers cannot be raised to the negative integer power {value}")
        return make("square", base) if value == 2 else None


def _certain(node: Node, loops: tuple[str, ...]) -> Node | None:
    """Return a comparison of integers with a number beyond their dtype as one with a number in it; None for others.

    The outcome is certain. NumPy 2 compares with such a number too, while arithmetic with it is an error.
    """
    for side, child in enumerate(node.children):
        if child.op == "const" and type(child.args[0]) is int and loops[side].startswith(("int", "uint")):
            limits, value = np.iinfo(loops[side]), child.args[0]
            if not limits.min <= value <= limits.max:
                below = node.op.startswith("less") == (side == 1)  # asks whether the array is below the number
                true = node.op == "not_equal" or (node.op != "equal" and below == (value > limits.max))
                return make("greater_equal" if true else "less", node.children[1 - side], const(int(limits.min)))
    return None


def _resolve(op: str, kinds: list[_Type]) -> tuple[tuple[str, ...], _Type]:
    """Return the dtype in which each argument enters, and the type of the result."""
    if op in _UNORDERED and any(kind.dtype.startswith("complex") for kind in kinds):
        raise DtypeError(f"{op} is not defined for complex values, which have no order")
    if op in ("real", "imag"):
        dtype = kinds[0].dtype
        working = WORKING.get(dtype, dtype)
        part = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
        return (working,), _Type(part, kinds[0].weak)
    if op == "where":
        loops, kind = _resolve("maximum" if not _complex(kinds[1:]) else "add", kinds[1:])
        return ("bool", *loops), kind
    return _resolve_ufunc("sin" if op == "erf" else op, kinds, op)


def _complex(kinds: Iterable[_Type]) -> bool:
    return any(kind.dtype.startswith("complex") for kind in kinds)


@lru_cache(maxsize=4096)
def _resolved(op: str, asked: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(dtype.name for dtype in getattr(np, op).resolve_dtypes((*asked, None)))


def _resolve_ufunc(name: str, kinds: list[_Type], op: str) -> tuple[tuple[str, ...], _Type]:
    assert name in UFUNCS
    if op == "erf" and _complex(kinds):
        raise DtypeError("erf is not defined for complex values here")
    weak = all(kind.weak for kind in kinds)
    strong = {kind.dtype for kind in kinds if not kind.weak}
    brain = "bfloat16" in strong
    half = "float32" if brain and "float16" in strong else "float16"  # neither half precision holds the other
    asked = tuple(
        _PYTHON[kind.dtype] if kind.weak and not weak
        else np.dtype(half if kind.dtype in ("float16", "bfloat16") else kind.dtype)
        for kind in kinds
    )  # fmt: skip
    try:
        *loops, result = _resolved(name, asked)
    except TypeError:
        raise DtypeError(f"{op} is not defined for {', '.join(kind.dtype for kind in kinds)}") from None
    if result == "float16" and brain:
        result = "bfloat16"
    return tuple(WORKING.get(loop, loop) for loop in loops), _Type(result, weak and result in _PYTHON)


def _fits(value: Any, dtype: str) -> Any:
    """Return a Python number as it enters a dtype, or raise where an integer dtype cannot hold it."""
    if dtype.startswith(("int", "uint")) and isinstance(value, int):
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            raise ExpressionError(f"the number {value} does not fit {dtype}, the dtype it is combined with")
        return int(value)
    return float(value) if dtype.startswith("float") and isinstance(value, int) else value


def shapes(steps: Program, operands: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Return the shape of every value: a value that depends on small operands only is itself small."""
    found: list[tuple[int, ...]] = []
    for value in steps.values:
        if value.op == "var":
            found.append(operands[value.data])
        else:
            parts = {found[arg] for arg in value.args} - {()}
            found.append(parts.pop() if len(parts) == 1 else np.broadcast_shapes(*parts))
    return found
