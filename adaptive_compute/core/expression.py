"""Expressions over arrays, element by element: built from Python operators, from text or by tracing a function.

An expression is a graph of nodes. Equal nodes are one object, so that a subexpression is computed once however often
it is written, and comparing or hashing an expression costs nothing.
"""

from __future__ import annotations

import ast
import math
import operator
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import ExpressionError

LONGEST = 20_000  # characters of an expression's text
DEEPEST = 200  # nested operations: passes over an expression recurse once a level

# Functions that are one NumPy ufunc each, whose names and dtype rules they keep: number of arguments.
UFUNCS = {
    **dict.fromkeys((
        "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "power", "arctan2", "maximum", "minimum",
        "greater", "greater_equal", "less", "less_equal", "equal", "not_equal",
        "logical_and", "logical_or", "logical_xor",
    ), 2),
    **dict.fromkeys((
        "negative", "positive", "reciprocal", "absolute", "sign", "square", "sqrt", "exp", "exp2", "expm1", "log",
        "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arcsinh",
        "arccosh", "arctanh", "floor", "ceil", "rint", "conjugate", "logical_not", "isfinite", "isinf", "isnan",
    ), 1),
}  # fmt: skip
# What every backend computes besides, and what is made of the others (see EXPANSIONS).
OTHERS = {"where": 3, "real": 1, "imag": 1, "erf": 1}
COMPOSITES = {
    "rsqrt": 1, "sigmoid": 1, "relu": 1, "silu": 1, "gelu": 1, "gelu_tanh": 1, "softplus": 1, "angle": 1, "clip": 3,
}  # fmt: skip
# NumPy's other names, and the array API standard's.
ALIASES = {
    "abs": "absolute", "conj": "conjugate", "round": "rint", "mod": "remainder", "true_divide": "divide",
    "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan", "atan2": "arctan2",
    "atanh": "arctanh", "pow": "power",
}  # fmt: skip
ARITY = {**UFUNCS, **OTHERS, **COMPOSITES}
CONSTANTS = {"pi": math.pi, "e": math.e}


class Node:
    """One operation of an expression, or a leaf.

    ``op`` is a function's name, or one of the leaves: ``"var"`` (an operand, by its number), ``"scalar"`` (a Python
    number given at the call: its number among the operands and ``"int"``, ``"float"`` or ``"complex"``) and
    ``"const"`` (a Python number, kept in the expression). Made by ``make`` and the leaf functions, never directly.
    """

    __slots__ = ("__weakref__", "args", "depth", "op")

    op: str
    args: tuple[Any, ...]
    depth: int

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes that this one is computed from."""
        return () if self.op in ("var", "scalar", "const") else self.args

    # Nodes of one content are one object. Said in so many words, because torch.compile takes no constant without it.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return show(self)


_nodes: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def _intern(op: str, args: tuple[Any, ...], key: tuple[Any, ...]) -> Node:
    with _lock:
        node = _nodes.get(key)
        if node is None:
            node = Node()
            node.op, node.args = op, args
            node.depth = 1 + max((child.depth for child in node.children), default=0)
            if node.depth > DEEPEST:
                raise ExpressionError(f"the expression is nested more than {DEEPEST} operations deep")
            _nodes[key] = node
        return node


def variable(index: int) -> Node:
    """Return the leaf that stands for an array operand."""
    return _intern("var", (index,), ("var", index))


def scalar(index: int, kind: str) -> Node:
    """Return the leaf that stands for a Python number given at the call, whose value the expression does not hold."""
    return _intern("scalar", (index, kind), ("scalar", index, kind))


def const(value: Any) -> Node:
    """Return the leaf of a Python number."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float, complex)):
        raise ExpressionError(f"{value!r} is not a number")
    if isinstance(value, int) and not is_finite(value):
        raise ExpressionError(f"a whole number of {value.bit_length()} bits is beyond every dtype")
    return _intern("const", (value,), ("const", type(value).__name__, repr(value)))


def is_finite(value: int) -> bool:
    """Tell whether the widest dtype holds a Python integer, if only rounded."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def in_64_bits(value: int) -> bool:
    """Tell whether int64 or uint64 holds a Python integer."""
    return -(1 << 63) <= value < 1 << 64


def make(op: str, *args: Node) -> Node:
    """Return the node of a function; on constants alone, its value."""
    op = ALIASES.get(op, op)
    if all(arg.op == "const" for arg in args) and op in UFUNCS:
        folded = _fold(op, [arg.args[0] for arg in args])
        if folded is not None:
            return folded
    return _intern(op, args, (op, *map(id, args)))


def _fold(op: str, values: list[Any]) -> Node | None:
    """Return an operation on Python numbers as a constant, or None where it would not stay a small one."""
    try:
        if all(type(value) is int for value in values):
            exact = _exact(op, values)
            if exact is not None and in_64_bits(exact):
                return const(exact)
            if exact is not None or op == "power" or not all(map(in_64_bits, values)):
                values = [float(value) for value in values]
        with np.errstate(all="ignore"):
            result = getattr(np, op)(*values)
    except (TypeError, ValueError, OverflowError):
        return None
    return const(result.item())


# NumPy would compute these in int64, and wrap around.
_EXACT: dict[str, Callable[..., int]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "floor_divide": operator.floordiv,
    "remainder": operator.mod, "power": operator.pow, "negative": operator.neg, "positive": operator.pos,
    "absolute": abs, "square": lambda x: x * x, "maximum": max, "minimum": min,
}  # fmt: skip


def _exact(op: str, values: list[int]) -> int | None:
    """Return an operation on integers exactly, or None where it gives no integer or one far beyond 64 bits."""
    if op not in _EXACT or (op in ("floor_divide", "remainder") and values[1] == 0):
        return None
    if op == "power" and (values[1] < 0 or values[1] * (abs(values[0]).bit_length() - 1) > 64):
        return None
    return _EXACT[op](*values)


def show(node: Node, names: Sequence[str] = (), room: int = 12) -> str:
    """Return an expression as text; below ``room`` levels as an ellipsis."""
    if node.op == "var" or node.op == "scalar":
        index = node.args[0]
        return names[index] if index < len(names) else f"x{index}"
    if node.op == "const":
        return repr(node.args[0])
    if not room:
        return "..."
    parts = [show(child, names, room - 1) for child in node.args]
    if node.op in _INFIX:
        return f"({parts[0]} {_INFIX[node.op]} {parts[1]})"
    return f"-{parts[0]}" if node.op == "negative" else f"{node.op}({', '.join(parts)})"


_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "floor_divide": "//", "remainder": "%", "power": "**",
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
}  # fmt: skip


def ordered(root: Node) -> list[Node]:
    """Return every node of an expression once, children before parents."""
    seen: set[Node] = set()
    order: list[Node] = []

    def visit(node: Node) -> None:
        if node not in seen:
            seen.add(node)
            for child in node.children:
                visit(child)
            order.append(node)

    visit(root)
    return order


def replaced(root: Node, leaf: Callable[[Node], Node]) -> Node:
    """Return an expression with each leaf exchanged for what ``leaf`` returns for it."""
    new: dict[Node, Node] = {}
    for node in ordered(root):
        new[node] = make(node.op, *(new[child] for child in node.args)) if node.children else leaf(node)
    return new[root]


# Composites in terms of the rest


def _gelu_tanh(x: Node) -> Node:
    cubic = make("add", x, make("multiply", const(0.044715), make("multiply", make("square", x), x)))
    inner = make("tanh", make("multiply", const(math.sqrt(2 / math.pi)), cubic))
    return make("multiply", make("multiply", const(0.5), x), make("add", const(1.0), inner))


def _softplus(x: Node) -> Node:
    tail = make("log1p", make("exp", make("negative", make("absolute", x))))
    return make("add", make("maximum", x, const(0.0)), tail)


EXPANSIONS: dict[str, Callable[..., Node]] = {
    "rsqrt": lambda x: make("reciprocal", make("sqrt", x)),
    "sigmoid": lambda x: make("reciprocal", make("add", make("exp", make("negative", x)), const(1.0))),
    "relu": lambda x: make("maximum", x, const(0)),
    "silu": lambda x: make("divide", x, make("add", make("exp", make("negative", x)), const(1.0))),
    "gelu": lambda x: make(
        "multiply", make("multiply", const(0.5), x),
        make("add", make("erf", make("multiply", x, const(math.sqrt(0.5)))), const(1.0)),
    ),
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
    "angle": lambda x: make("arctan2", make("imag", x), make("real", x)),
    "clip": lambda x, low, high: make("minimum", make("maximum", x, low), high),
}  # fmt: skip


def expand(node: Node) -> Node:
    """Return a composite in terms of what every backend computes."""
    return EXPANSIONS[node.op](*node.args)


# Text


_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide", ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder", ast.Pow: "power",
}  # fmt: skip
_UNARY: dict[type[ast.AST], str] = {ast.USub: "negative", ast.UAdd: "positive"}
_COMPARE: dict[type[ast.AST], str] = {
    ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal", ast.Eq: "equal",
    ast.NotEq: "not_equal",
}  # fmt: skip


@lru_cache(maxsize=1024)
def parse(text: str, names: tuple[str, ...]) -> Node:
    """Return the expression that a text writes; the arrays' names number its variables.

    Raises ExpressionError for anything but arithmetic, comparisons, numbers, ``pi``, ``e``, the named functions and
    the named arrays, and for arrays that the text does not use.
    """
    if len(text) > LONGEST:
        raise ExpressionError(f"the expression is {len(text)} characters long; at most {LONGEST} are accepted")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python finds odd about the text is said below, or is harmless
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ExpressionError(f"{_short(text)} is not an expression: {error}") from None
    except (RecursionError, MemoryError):
        raise ExpressionError(f"{_short(text)} is nested too deeply") from None
    used: set[str] = set()
    try:
        root = _from_ast(tree.body, names, used, 0)
    except ExpressionError as error:
        raise ExpressionError(f"{_short(text)}: {error}") from None
    unused = [name for name in names if name not in used]
    if unused:
        raise ExpressionError(f"{_short(text)} does not use the array{'s'[: len(unused) - 1]} {', '.join(unused)}")
    return root


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _from_ast(tree: ast.AST, names: tuple[str, ...], used: set[str], depth: int) -> Node:
    if depth > DEEPEST:
        raise ExpressionError(f"nested more than {DEEPEST} operations deep")

    def child(part: ast.AST) -> Node:
        return _from_ast(part, names, used, depth + 1)

    if isinstance(tree, ast.Constant) and type(tree.value) in (int, float, complex):
        return const(tree.value)
    if isinstance(tree, ast.Name):
        if tree.id in names:
            used.add(tree.id)
            return variable(names.index(tree.id))
        if tree.id in CONSTANTS:
            return const(CONSTANTS[tree.id])
        what = "is a function: call it" if ALIASES.get(tree.id, tree.id) in ARITY else "is unknown"
        raise ExpressionError(f"the name {tree.id!r} {what}; the arrays given are: {', '.join(names) or 'none'}")
    if isinstance(tree, ast.BinOp) and type(tree.op) in _BINARY:
        return make(_BINARY[type(tree.op)], child(tree.left), child(tree.right))
    if isinstance(tree, ast.UnaryOp) and type(tree.op) in _UNARY:
        return make(_UNARY[type(tree.op)], child(tree.operand))
    if isinstance(tree, ast.Compare) and type(tree.ops[0]) in _COMPARE:
        if len(tree.ops) > 1:
            raise ExpressionError("comparisons cannot be chained; join two with logical_and(...)")
        return make(_COMPARE[type(tree.ops[0])], child(tree.left), child(tree.comparators[0]))
    if isinstance(tree, ast.Call):
        return _call(tree, child)
    raise ExpressionError(
        f"{_short(ast.unparse(tree))} ({type(tree).__name__}) is not allowed; arithmetic (+ - * / // % **), "
        "comparisons, numbers, pi, e, the named functions and the arrays are"
    )


def _call(tree: ast.Call, child: Callable[[ast.AST], Node]) -> Node:
    if not isinstance(tree.func, ast.Name):
        raise ExpressionError(f"the call of {_short(ast.unparse(tree.func))} is not allowed; only named functions are")
    name = ALIASES.get(tree.func.id, tree.func.id)
    if name not in ARITY:
        raise ExpressionError(
            f"the call of {tree.func.id!r} is not allowed; the functions are: {', '.join(sorted({*ARITY, *ALIASES}))}"
        )
    if tree.keywords or any(isinstance(arg, ast.Starred) for arg in tree.args):
        raise ExpressionError(f"{tree.func.id} takes plain arguments only")
    if len(tree.args) != ARITY[name]:
        raise ExpressionError(f"{tree.func.id} takes {ARITY[name]} argument(s), {len(tree.args)} were given")
    return make(name, *map(child, tree.args))


# Tracing


class UntraceableError(Exception):
    """A traced function asked for something that only a value has."""


class Tracer:
    """Stands for an operand while a Python function is traced: every operation on it gives a larger expression."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: Node) -> None:
        self.node = node

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Take NumPy's functions too, where they have a counterpart here."""
        if method != "__call__" or kwargs or ufunc.__name__ not in UFUNCS:
            raise UntraceableError(f"numpy.{ufunc.__name__} has no counterpart in an expression")
        return traced(ufunc.__name__, *args)

    def __abs__(self) -> Tracer:
        return traced("absolute", self)

    def __neg__(self) -> Tracer:
        return traced("negative", self)

    def __pos__(self) -> Tracer:
        return self


def traced(op: str, *args: Any) -> Tracer:
    """Return the tracer of a function of tracers and numbers."""
    return Tracer(make(op, *(_node_of(arg) for arg in args)))


def _node_of(value: Any) -> Node:
    if isinstance(value, Tracer):
        return value.node
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return const(value)
    raise UntraceableError(f"it mixes its arguments with a {type(value).__name__}")


def _operator(op: str, swapped: bool = False) -> Callable[[Tracer, Any], Tracer]:
    if swapped:
        return lambda self, other: traced(op, other, self)
    return lambda self, other: traced(op, self, other)


def _refuse(reason: str) -> Callable[..., Any]:
    def refuse(self: Tracer, *args: Any) -> Any:
        raise UntraceableError(reason)

    return refuse


for _name, _op in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power",
}.items():  # fmt: skip
    setattr(Tracer, f"__{_name}__", _operator(_op))
    setattr(Tracer, f"__r{_name}__", _operator(_op, swapped=True))
for _name, _op in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(Tracer, f"__{_name}__", _operator(_op))
for _names, _reason in {
    ("bool",): "a branch depends on the value of an argument",
    ("float", "int", "index", "complex"): "it needs the value of an argument (math functions do; use this library's)",
    ("iter", "len", "getitem"): "it treats a scalar argument as a sequence",
}.items():
    for _name in _names:
        setattr(Tracer, f"__{_name}__", _refuse(_reason))


def trace(function: Callable[..., Any], count: int) -> Node:
    """Return the expression that a function of scalars computes; UntraceableError where it cannot be told."""
    result = function(*(Tracer(variable(index)) for index in range(count)))
    if isinstance(result, (tuple, list)):
        raise UntraceableError("it returns several values")
    return _node_of(result)


# The reference


_erf = np.vectorize(math.erf, otypes=[np.float64])


def reference(root: Node, operands: Iterable[Any]) -> Any:
    """Compute an expression node by node in extended precision, by NumPy's own functions: slow and obviously right.

    Integers and booleans stay as they are; where the platform has no extended precision, float64 stands in.
    """
    arrays = [_wide(operand) for operand in operands]
    values: dict[Node, Any] = {}
    with np.errstate(all="ignore"):
        for node in ordered(root):
            if node.op in ("var", "scalar"):
                values[node] = arrays[node.args[0]]
            elif node.op == "const":
                values[node] = node.args[0]
            elif node.op in COMPOSITES:
                values[node] = reference_composite(node.op, *(values[child] for child in node.args))
            elif node.op == "where":
                values[node] = np.where(*(values[child] for child in node.args))
            elif node.op == "erf":
                values[node] = _erf(values[node.args[0]])
            else:
                values[node] = getattr(np, node.op)(*(values[child] for child in node.args))
    return values[root]


def reference_composite(op: str, *args: Any) -> Any:
    """Compute a composite by its textbook definition."""
    x = args[0]
    if op == "rsqrt":
        return 1 / np.sqrt(x)
    if op == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if op == "relu":
        return np.where(x > 0, x, np.where(np.isnan(x), x, 0))
    if op == "silu":
        return x / (1 + np.exp(-x))
    if op == "gelu":
        return x * (1 + _erf(np.asarray(x) / np.sqrt(np.longdouble(2)))) / 2
    if op == "gelu_tanh":
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.longdouble(np.pi)) * (x + 0.044715 * x * x * x)))
    if op == "softplus":
        return np.logaddexp(x, 0)
    return np.angle(x) if op == "angle" else np.clip(x, args[1], args[2])


def _wide(operand: Any) -> Any:
    array = np.asarray(operand)
    wide = {"f": np.longdouble, "c": np.clongdouble}.get(array.dtype.kind)
    return array if wide is None else array.astype(wide)
