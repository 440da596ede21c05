"""Derivatives of expressions, by going through the expression backwards (PyTorch's convention for complex values).

The gradient of a real loss L with respect to a complex z is dL/dRe(z) + i dL/dIm(z) [1]_, so a holomorphic function
passes on the gradient times the conjugate of its derivative.

References
----------
.. [1] https://docs.pytorch.org/docs/stable/notes/autograd.html#autograd-for-complex-numbers
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from .errors import DtypeError
from .expression import Node, const, expand, make, ordered, replaced, variable
from .program import Builder

_CONSTANT = frozenset((
    "floor", "ceil", "rint", "sign", "floor_divide", "greater", "greater_equal", "less", "less_equal", "equal",
    "not_equal", "logical_and", "logical_or", "logical_xor", "logical_not", "isfinite", "isinf", "isnan",
))  # fmt: skip
_BY_EXPANSION = frozenset(("gelu", "gelu_tanh", "angle"))
_REAL_ONLY = frozenset(("sign", "arctan2", "erf", "maximum", "minimum", "clip", "relu", "remainder"))


def _add(a: Node, b: Node) -> Node:
    return make("add", a, b)


def _times(a: Node, b: Node) -> Node:
    return make("multiply", a, b)


def _over(a: Node, b: Node) -> Node:
    return make("divide", a, b)


def _minus(a: Node) -> Node:
    return make("negative", a)


def _of(value: float) -> Node:
    return const(float(value))


ZERO, ONE = const(0.0), const(1.0)

# Derivative of each function of one argument: from the argument x and the function's value y.
_SLOPES: dict[str, Callable[[Node, Node], Node]] = {
    "positive": lambda x, y: ONE,
    "reciprocal": lambda x, y: _minus(make("square", y)),
    "square": lambda x, y: _times(_of(2), x),
    "sqrt": lambda x, y: _over(_of(0.5), y),
    "exp": lambda x, y: y,
    "exp2": lambda x, y: _times(_of(math.log(2)), y),
    "expm1": lambda x, y: _add(y, _of(1)),
    "log": lambda x, y: make("reciprocal", x),
    "log2": lambda x, y: _over(_of(1 / math.log(2)), x),
    "log10": lambda x, y: _over(_of(1 / math.log(10)), x),
    "log1p": lambda x, y: make("reciprocal", _add(x, _of(1))),
    "sin": lambda x, y: make("cos", x),
    "cos": lambda x, y: _minus(make("sin", x)),
    "tan": lambda x, y: _add(make("square", y), _of(1)),
    "sinh": lambda x, y: make("cosh", x),
    "cosh": lambda x, y: make("sinh", x),
    "tanh": lambda x, y: make("subtract", _of(1), make("square", y)),
    "arcsin": lambda x, y: make("rsqrt", make("subtract", _of(1), make("square", x))),
    "arccos": lambda x, y: _minus(make("rsqrt", make("subtract", _of(1), make("square", x)))),
    "arctan": lambda x, y: make("reciprocal", _add(make("square", x), _of(1))),
    "arcsinh": lambda x, y: make("rsqrt", _add(make("square", x), _of(1))),
    "arccosh": lambda x, y: _times(make("rsqrt", make("subtract", x, _of(1))), make("rsqrt", _add(x, _of(1)))),
    "arctanh": lambda x, y: make("reciprocal", make("subtract", _of(1), make("square", x))),
    "erf": lambda x, y: _times(_of(2 / math.sqrt(math.pi)), make("exp", _minus(make("square", x)))),
    "rsqrt": lambda x, y: _times(_of(-0.5), _times(y, make("square", y))),
    # 1 - sigmoid(x) would cancel for large x
    "sigmoid": lambda x, y: _times(y, make("sigmoid", _minus(x))),
    "softplus": lambda x, y: make("sigmoid", x),
    "silu": lambda x, y: _add(make("sigmoid", x), _times(y, make("sigmoid", _minus(x)))),
}


@lru_cache(maxsize=1024)
def gradients(root: Node, dtypes: tuple[str, ...], grad: int, grad_dtype: str) -> tuple[Node | None, ...]:
    """Return the gradient with respect to each variable as an expression, or None where there is none.

    Parameters
    ----------
    root : Node
        The expression that was computed.
    dtypes : tuple of str
        Dtype of each operand.
    grad : int
        Variable number that stands for the gradient of the result, past those of the operands.
    grad_dtype : str
        Its dtype.

    Raises
    ------
    DtypeError
        If the expression uses a function on complex values whose gradient is not defined here.
    """
    types = Builder((*dtypes, *[grad_dtype] * (grad + 1 - len(dtypes))), frozenset())

    def dtype(node: Node) -> str:
        return types.value(node)[1].dtype

    root = _expanded(root)
    order = ordered(root)
    differentiable: dict[Node, bool] = {}
    for node in order:
        if node.op == "var":
            differentiable[node] = dtype(node).startswith(("float", "bfloat", "complex"))
        else:
            differentiable[node] = node.op not in _CONSTANT and any(differentiable[child] for child in node.children)
    adjoint: dict[Node, Node] = {root: variable(grad)}
    for node in reversed(order):
        if node not in adjoint or not differentiable[node] or not node.children:
            continue
        is_complex = dtype(node).startswith("complex")
        wanted = [differentiable[child] for child in node.children]
        for child, part in _passed_on(node, adjoint[node], is_complex, wanted, dtype):
            if not dtype(child).startswith("complex") and dtype(part).startswith("complex"):
                part = make("real", part)
            adjoint[child] = _add(adjoint[child], part) if child in adjoint else part
    return tuple(adjoint.get(variable(i)) if differentiable.get(variable(i)) else None for i in range(len(dtypes)))


@lru_cache(maxsize=1024)
def tangent(root: Node, dtypes: tuple[str, ...], result: str, moving: tuple[str | None, ...]) -> Node | None:
    """Return how an expression's value changes with its variables (forward mode), as an expression; None: not at all.

    Parameters
    ----------
    root : Node
        The expression.
    dtypes : tuple of str
        Dtype of each operand.
    result : str
        Dtype of the value.
    moving : tuple of (str or None)
        Dtype of each operand's change, None for one that stays. They are the variables after the operands.

    Notes
    -----
    The gradient is linear in the gradient of the result; its own gradient with respect to that is the change.
    """
    count = len(dtypes)
    total: Node | None = None
    for place, (back, dtype) in enumerate(zip(gradients(root, dtypes, count, result), moving)):
        if back is None or dtype is None:
            continue
        part = gradients(back, (*dtypes, result), count + 1, dtype)[count]
        if part is not None:
            number = count + place
            part = replaced(part, lambda leaf, n=number: variable(n) if leaf is variable(count + 1) else leaf)  # type: ignore[misc]
            total = part if total is None else _add(total, part)
    return total


def _expanded(root: Node) -> Node:
    """Return an expression without the composites whose derivative is that of their parts."""
    new: dict[Node, Node] = {}
    for node in ordered(root):
        same = make(node.op, *(new[child] for child in node.children)) if node.children else node
        new[node] = _expanded(expand(same)) if node.op in _BY_EXPANSION else same
    return new[root]


def _passed_on(
    node: Node, g: Node, is_complex: bool, wanted: list[bool], dtype: Callable[[Node], str]
) -> list[tuple[Node, Node]]:
    """Return each child that a gradient goes on to, with what it gets."""
    op, x = node.op, node.children[0]
    from_complex = any(dtype(child).startswith("complex") for child in node.children)
    if from_complex and op in _REAL_ONLY:
        raise DtypeError(f"{op} has no gradient for complex values")

    def conj(value: Node) -> Node:
        return make("conjugate", value) if is_complex else value

    if op in _SLOPES:
        slope = _SLOPES[op](x, node)
        return [(x, g if slope is ONE else _times(g, conj(slope)))]
    if op in ("negative", "conjugate", "real", "imag", "absolute", "relu"):
        return [(x, _unary(op, x, node, g, from_complex))] if op != "imag" or from_complex else []
    parts = _several(op, node, g, conj)
    return [(child, part) for child, part, want in zip(node.children, parts, wanted) if want and part is not None]


def _unary(op: str, x: Node, y: Node, g: Node, from_complex: bool) -> Node:
    if op == "negative":
        return _minus(g)
    if op == "conjugate":
        return make("conjugate", g) if from_complex else g
    if op == "real":
        return g
    if op == "imag":
        return _times(g, const(1j))
    if op == "relu":
        return make("where", make("greater", x, ZERO), g, ZERO)
    if from_complex:
        return _times(g, make("where", make("equal", y, ZERO), ZERO, _over(x, y)))
    return _times(g, make("sign", x))


def _several(op: str, node: Node, g: Node, conj: Callable[[Node], Node]) -> list[Node | None]:
    """Return what each of several arguments gets."""
    x, y = node.children[:2]
    if op == "add":
        return [g, g]
    if op == "subtract":
        return [g, _minus(g)]
    if op == "multiply":
        return [_times(g, conj(y)), _times(g, conj(x))]
    if op == "divide":
        quotient = _over(g, conj(y))
        return [quotient, _minus(_times(quotient, conj(node)))]
    if op == "power":
        return _power(x, y, node, g, conj)
    if op == "arctan2":
        squares = _add(make("square", x), make("square", y))
        # At the origin there is no angle; as in PyTorch it counts as constant, whichever way the point moves.
        origin = make("logical_and", make("equal", x, ZERO), make("equal", y, ZERO))
        squares = make("where", origin, ONE, squares)
        return [_over(_times(g, y), squares), _minus(_over(_times(g, x), squares))]
    if op in ("maximum", "minimum"):
        beaten = "less" if op == "maximum" else "greater"
        shared = make("where", make("equal", x, y), _times(_of(0.5), g), g)
        return [
            make("where", make(beaten, x, y), ZERO, shared),
            make("where", make(beaten, y, x), ZERO, shared),
        ]
    if op == "where":
        return [None, make("where", x, g, ZERO), make("where", x, ZERO, g)]
    if op == "remainder":
        return [g, _minus(_times(g, make("floor_divide", x, y)))]
    if op == "clip":
        low, high = node.children[1:]
        # The upper end wins where the two are the wrong way round.
        above = make("greater", make("maximum", x, low), high)
        below = make("less", x, low)
        inside = make("where", above, ZERO, g)
        return [
            make("where", below, ZERO, inside), make("where", below, inside, ZERO), make("where", above, g, ZERO)
        ]  # fmt: skip
    raise DtypeError(f"{op} has no gradient")


def _power(x: Node, y: Node, node: Node, g: Node, conj: Callable[[Node], Node]) -> list[Node | None]:
    """Return the gradients of base and exponent; 0 ** 0 and 0 * log(0) count as constants, as in PyTorch."""
    lower = make("power", x, const(y.args[0] - 1)) if y.op == "const" else make("power", x, make("subtract", y, _of(1)))
    base = _times(g, conj(_times(y, lower)))
    if y.op != "const":
        base = make("where", make("equal", y, ZERO), ZERO, base)
    elif y.args[0] == 0:
        base = _times(g, ZERO)
    exponent = make("where", make("equal", x, ZERO), ZERO, _times(g, conj(_times(node, make("log", x)))))
    return [base, exponent]
