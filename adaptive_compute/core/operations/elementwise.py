"""Element-wise functions, ``evaluate`` and ``elementwise``: all of them are one operation on an expression.

Names and broadcasting are NumPy's (the activations' are torch's), and so are dtypes, for every kind of array: Python
numbers adapt to the arrays, integers with float32 give float64. float16 and bfloat16 are computed in float32 and rounded
once. Operands may be arrays or Python numbers; the result has the kind and the device of the first array.
"""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, update_wrapper
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import as_array, describe, kind_of
from ..dispatcher import dispatcher
from ..errors import AdaptiveError, ArgumentError, DeviceError, DtypeError, ExpressionError, ShapeError, UntraceableWarning
from ..expression import (
    ARITY, Node, Tracer, UntraceableError, const, make, ordered, parse, replaced, scalar, show, trace, traced, variable,
)  # fmt: skip
from ..program import ACCEPTED, program
from .elementwise_rule import FAMILY, VMAP, VmapParams

OPERATIONS = (FAMILY,)


def _is_number(value: Any) -> bool:
    """Tell whether a value is a Python number, which adapts to the arrays' dtype (NumPy's scalars do not)."""
    return isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic)


def _operands(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return the values with each array made one that kernels take; numbers stay, unless there are only numbers."""
    if all(_is_number(value) for value in values):
        return [as_array(values[0], names[0]), *values[1:]]
    operands = [value if _is_number(value) else as_array(value, name) for value, name in zip(values, names)]
    for operand, name in zip(operands, names):
        if not _is_number(operand):
            dtype = describe(operand).dtype
            if dtype not in ACCEPTED:
                raise DtypeError(f"{name} has dtype {dtype}; {', '.join(ACCEPTED)} are accepted")
    return operands


def _leaf_of(value: Any) -> Any:
    """Return what a number becomes in an expression: floating-point ones stay out of it, so that a plan serves them all."""
    return type(value).__name__ if type(value) in (float, complex) else const(value)


@lru_cache(maxsize=4096)
def _bound(root: Node, leaves: tuple[Any, ...]) -> tuple[Node, tuple[int, ...]]:
    """Return an expression whose variables are the arrays first and the numbers after them, and the order of operands.

    ``leaves`` has for each variable None (an array), a constant, or the type of a number that is given at the call.
    """
    arrays = [index for index, leaf in enumerate(leaves) if leaf is None]
    numbers = [index for index, leaf in enumerate(leaves) if isinstance(leaf, str)]
    order = (*arrays, *numbers)
    place = {index: number for number, index in enumerate(order)}

    def leaf(node: Node) -> Node:
        if node.op != "var":
            return node
        index = node.args[0]
        kind = leaves[index]
        if kind is None:
            return variable(place[index])
        return scalar(place[index], kind) if isinstance(kind, str) else kind

    return replaced(root, leaf), order


def _compute(root: Node, values: Sequence[Any], names: Sequence[str], tol: float | None) -> Any:
    """Check operands, and run an expression of them; a call seen before goes straight to its plan."""
    key = None
    if all(type(value) is np.ndarray for value in values):
        key = (root, *[(v.shape, v.dtype) for v in values], tol, _settings.current())
        call = dispatcher.fast.get(key)
        if call is not None:
            try:
                return call(*values)
            except (MemoryError, DeviceError):
                pass  # the whole path hands over to the next candidate
    tol = None if tol is None else _settings.check_tol("tol", tol)
    operands = _operands(values, names)
    leaves = tuple(_leaf_of(value) if _is_number(value) else None for value in operands)
    if any(getattr(value, "requires_grad", False) for value in operands):
        leaves = tuple(const(value) if isinstance(leaf, str) else leaf for leaf, value in zip(leaves, operands))
    bound, order = (root, range(len(operands))) if not any(leaves) else _bound(root, leaves)
    arrays = tuple(operands[i] if leaves[i] is None else np.asarray(operands[i]) for i in order)
    _check(bound, arrays, [names[i] for i in order])
    result = dispatcher.run(FAMILY, bound, *arrays, tol=tol)
    if key is not None and all(array is value for array, value in zip(arrays, values)):
        dispatcher.bind(key, FAMILY, bound, arrays, tol)
    return result


def _check(root: Node, arrays: Sequence[Any], names: Sequence[str]) -> None:
    """Raise, before anything is computed, where shapes or dtypes do not go together."""
    shapes = [tuple(array.shape) for array in arrays]
    if len(set(shapes)) > 1:
        try:
            np.broadcast_shapes(*shapes)
        except ValueError:
            shown = ", ".join(f"{name} {list(shape)}" for name, shape in zip(names, shapes))
            raise ShapeError(f"the shapes cannot be broadcast together: {shown}") from None
    if len(shapes) > 64 or any(len(shape) > 32 for shape in shapes):
        raise ShapeError("at most 64 operands of at most 32 axes are accepted")
    try:
        program(root, tuple(describe(array).dtype for array in arrays))
    except (DtypeError, ExpressionError) as error:
        raise type(error)(f"{show(root, names)}: {error}") from None


def evaluate(expression: str, *, tol: float | None = None, **arrays: Any) -> Any:
    """Compute an expression of arrays in one pass over memory, without arrays for its intermediate results.

    Parameters
    ----------
    expression : str
        Arithmetic (``+ - * / // % **``), comparisons, numbers, ``pi``, ``e``, the element-wise functions of this library
        by name, and the names of the arrays. The text is parsed and never executed: nothing else is accepted.
    tol : float, optional
        Relative L2 error asked for. Default: the conformance tolerance of the dtype.
    **arrays : array_like or number
        What the names stand for, of shapes that broadcast together. The first one decides the kind and the device of
        the result. Every array must be used.

    Returns
    -------
    array
        Of the broadcast shape, with NumPy's dtype for the same arithmetic.

    Raises
    ------
    ExpressionError
        If the text has a syntax error, an unknown name or anything that is not allowed, or leaves an array unused.
    ShapeError, DtypeError, ArgumentError
        If the arrays do not go together, or are not arrays of numbers.

    Notes
    -----
    The idea is that of numexpr [1]_: blocks that fit the processor's cache go through all operations before the next.

    References
    ----------
    .. [1] https://github.com/pydata/numexpr

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.evaluate("2*a + sin(b)**2", a=np.arange(3.0), b=np.zeros(3))
    array([0., 2., 4.])
    """
    if not isinstance(expression, str):
        raise ArgumentError(f"expression must be a str, got {type(expression).__name__}")
    names = tuple(arrays)
    root = parse(expression, names)
    if not names:
        raise ExpressionError(f"{expression!r} has no array; give at least one by name")
    return _compute(root, tuple(arrays.values()), names, tol)


class _Mapped:
    """A Python function of scalars as a function of arrays; what ``elementwise`` returns."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._traced: dict[int, Node | str] = {}
        self._dtypes: dict[tuple[str, ...], str] = {}

    def expression(self, count: int) -> Node | str:
        """Return the expression of the function for a number of arguments, or the reason why it has none."""
        found = self._traced.get(count)
        if found is None:
            try:
                root = trace(self._function, count)
                unused = count - len({node for node in ordered(root) if node.op == "var"})
                found = f"it does not use {unused} of its arguments" if unused else root
            except RecursionError:
                found = "it is nested too deeply"
            except (UntraceableError, ExpressionError) as error:
                found = str(error)
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            self._traced[count] = found
            if isinstance(found, str):
                warnings.warn(
                    f"{self.__name__} cannot be traced to an expression ({found}); it runs under torch.vmap, which is "  # type: ignore[attr-defined]
                    "usually slower",
                    UntraceableWarning,
                    stacklevel=3,
                )
        return found

    def __call__(self, *arrays: Any, tol: float | None = None) -> Any:
        if any(isinstance(array, Tracer) for array in arrays):
            return self._function(*arrays)
        if not arrays:
            raise ArgumentError(f"{self.__name__} needs at least one array")  # type: ignore[attr-defined]
        names = [f"argument {number}" for number in range(1, len(arrays) + 1)]
        found = self.expression(len(arrays))
        if isinstance(found, Node):
            return _compute(found, arrays, names, tol)
        return self._mapped([as_array(array, name) for array, name in zip(arrays, names)], names, found, tol)

    def _mapped(self, arrays: list[Any], names: Sequence[str], reason: str, tol: float | None) -> Any:
        _check(const(0), arrays, names)
        dtypes = tuple(describe(array).dtype for array in arrays)
        if dtypes not in self._dtypes:
            few = [array.reshape(-1)[:1] if array.size else np.ones(1, array.dtype) for array in map(_on_host, arrays)]
            try:
                result = dispatcher.run(VMAP, VmapParams(self._function, dtypes[0]), *few)
            except AdaptiveError:
                raise
            except Exception as error:
                raise ExpressionError(
                    f"{self.__name__} can be neither traced ({reason}) nor mapped by torch.vmap "  # type: ignore[attr-defined]
                    f"({type(error).__name__}: {str(error).splitlines()[0]})"
                ) from error
            self._dtypes[dtypes] = describe(result).dtype
        return dispatcher.run(VMAP, VmapParams(self._function, self._dtypes[dtypes]), *arrays, tol=tol)


def _on_host(array: Any) -> Any:
    kind = kind_of(array)
    return kind.to_numpy(array) if kind is not None and describe(array).device == "cpu" else np.ones(1, np.float32)


def elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a Python function of numbers into a function of arrays, computed like ``evaluate``'s expressions.

    Parameters
    ----------
    function : callable
        Takes numbers and returns one. It is called once with stand-ins that record its operators and its calls of this
        library's element-wise functions; a branch or a loop must not depend on the arguments' values. What cannot be
        recorded (calls of torch, say) runs under ``torch.vmap``, and an UntraceableWarning says so, once.

    Returns
    -------
    callable
        Takes arrays that broadcast together, and ``tol=``.

    Raises
    ------
    ExpressionError
        At the call, if the function can be neither traced nor mapped; the message gives both reasons.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> @ac.elementwise
    ... def lorentz(x, width):
    ...     return 1 / (1 + (x / width) ** 2)
    >>> lorentz(np.array([0.0, 2.0]), 2.0)
    array([1. , 0.5])
    """
    if not callable(function):
        raise ArgumentError(f"elementwise takes a function, got {type(function).__name__}")
    return _Mapped(function)


# The named functions


_DOC = """{what}

    Parameters
    ----------
    {names} : array_like or number
        {accepted} Shapes broadcast together.
    tol : float, optional
        Relative L2 error asked for. Default: the conformance tolerance of the dtype.

    Returns
    -------
    array
        {result} Kind and device are those of the first array.

    Raises
    ------
    ShapeError, DtypeError
        If the operands do not go together, or their dtype is not accepted.
{notes}
    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.{name}({example})
    {shown}
    """

_LEAVES = tuple(variable(index) for index in range(3))
_NUMBERS = "Real or complex numbers."
_REALS = "Real numbers."
_SAME = "The operands' dtype by NumPy's rules."
_FLOATS = "Floating point; integers give float64 (8 and 16 bits: float16, float32)."
_TRUTH = "Booleans."


def _describe(function: Any, op: str, name: str, what: str, accepted: str, result: str, example: str, shown: str) -> None:
    names = {1: "x", 2: "x1, x2"}[ARITY[op]]
    notes = f"\n    Notes\n    -----\n    {_NOTES[name]}\n" if name in _NOTES else ""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = _DOC.format(
        what=what, names=names, accepted=accepted, result=result, name=name, example=example, shown=shown, notes=notes
    )


_NOTES = {
    "divide": "Division by zero gives an infinity or NaN, without a warning.",
    "maximum": "NaN is passed on, whichever operand has it.",
    "minimum": "NaN is passed on, whichever operand has it.",
    "log": "Of zero it is minus infinity, of a negative number NaN, without a warning.",
    "rint": "Halves go to the even neighbour.",
    "silu": "Also called swish: x * sigmoid(x).",
    "softplus": "log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-abs(x))), which does not overflow.",
}


def _unary(op: str, what: str, accepted: str, result: str, example: str, shown: str, name: str = "") -> Any:
    root = make(op, _LEAVES[0])

    def function(x: Any, *, tol: float | None = None) -> Any:
        return traced(op, x) if isinstance(x, Tracer) else _compute(root, (x,), ("x",), tol)

    _describe(function, op, name or op, what, accepted, result, example, shown)
    return function


def _binary(op: str, what: str, accepted: str, result: str, example: str, shown: str) -> Any:
    root = make(op, *_LEAVES[:2])

    def function(x1: Any, x2: Any, *, tol: float | None = None) -> Any:
        if isinstance(x1, Tracer) or isinstance(x2, Tracer):
            return traced(op, x1, x2)
        if op == "power" and isinstance(x2, float):  # a constant exponent may be a root or a product
            return _compute(make(op, _LEAVES[0], const(x2)), (x1,), ("x1",), tol)
        return _compute(root, (x1, x2), ("x1", "x2"), tol)

    _describe(function, op, op, what, accepted, result, example, shown)
    return function


add = _binary("add", "Sum of two arrays.", _NUMBERS, _SAME, "np.array([1.0, 2.0]), 3", "array([4., 5.])")
subtract = _binary("subtract", "Difference of two arrays.", _NUMBERS, _SAME, "np.array([1.0, 2.0]), 3", "array([-2., -1.])")
multiply = _binary("multiply", "Product of two arrays.", _NUMBERS, _SAME, "np.array([1.0, 2.0]), 3", "array([3., 6.])")
divide = _binary("divide", "Quotient of two arrays.", _NUMBERS, _FLOATS, "np.array([1.0, 2.0]), 2", "array([0.5, 1. ])")
floor_divide = _binary(
    "floor_divide", "Largest integer not above the quotient.", _REALS, _SAME, "np.array([7, -7]), 2", "array([ 3, -4])"
)
remainder = _binary(
    "remainder", "Remainder with the divisor's sign, as Python's ``%``.", _REALS, _SAME, "np.array([7, -7]), 3",
    "array([1, 2])",
)  # fmt: skip
power = _binary("power", "First operand to the power of the second.", _NUMBERS, _SAME, "np.array([2.0, 3.0]), 2", "array([4., 9.])")
arctan2 = _binary(
    "arctan2", "Angle of the point (x2, x1) in radians, between -pi and pi.", _REALS, _FLOATS, "np.array([0.0]), 1.0",
    "array([0.])",
)  # fmt: skip
maximum = _binary("maximum", "Larger of two values.", _REALS, _SAME, "np.array([1.0, 5.0]), 3", "array([3., 5.])")
minimum = _binary("minimum", "Smaller of two values.", _REALS, _SAME, "np.array([1.0, 5.0]), 3", "array([1., 3.])")
greater = _binary("greater", "Whether x1 > x2.", _REALS, _TRUTH, "np.array([1, 5]), 3", "array([False,  True])")
greater_equal = _binary("greater_equal", "Whether x1 >= x2.", _REALS, _TRUTH, "np.array([1, 3]), 3", "array([False,  True])")
less = _binary("less", "Whether x1 < x2.", _REALS, _TRUTH, "np.array([1, 5]), 3", "array([ True, False])")
less_equal = _binary("less_equal", "Whether x1 <= x2.", _REALS, _TRUTH, "np.array([3, 5]), 3", "array([ True, False])")
equal = _binary("equal", "Whether x1 == x2.", _NUMBERS, _TRUTH, "np.array([3, 5]), 3", "array([ True, False])")
not_equal = _binary("not_equal", "Whether x1 != x2.", _NUMBERS, _TRUTH, "np.array([3, 5]), 3", "array([False,  True])")
logical_and = _binary(
    "logical_and", "Whether both are true (not zero).", _NUMBERS, _TRUTH, "np.array([0, 2]), 1", "array([False,  True])"
)
logical_or = _binary(
    "logical_or", "Whether one or both are true (not zero).", _NUMBERS, _TRUTH, "np.array([0, 2]), 0", "array([False,  True])"
)
logical_xor = _binary(
    "logical_xor", "Whether exactly one is true (not zero).", _NUMBERS, _TRUTH, "np.array([0, 2]), 1", "array([ True, False])"
)
logical_not = _unary("logical_not", "Whether an element is zero.", _NUMBERS, _TRUTH, "np.array([0, 2])", "array([ True, False])")
isfinite = _unary(
    "isfinite", "Whether an element is neither infinite nor NaN.", _NUMBERS, _TRUTH, "np.array([1.0, np.inf])",
    "array([ True, False])",
)  # fmt: skip
isinf = _unary("isinf", "Whether an element is infinite.", _NUMBERS, _TRUTH, "np.array([1.0, np.inf])", "array([False,  True])")
isnan = _unary("isnan", "Whether an element is NaN.", _NUMBERS, _TRUTH, "np.array([1.0, np.nan])", "array([False,  True])")
negative = _unary("negative", "Minus each element.", _NUMBERS, _SAME, "np.array([1.0, -2.0])", "array([-1.,  2.])")
positive = _unary("positive", "Each element as it is, in a new array.", _NUMBERS, _SAME, "np.array([1.0, -2.0])", "array([ 1., -2.])")
reciprocal = _unary("reciprocal", "One over each element.", _NUMBERS, _SAME, "np.array([2.0, 4.0])", "array([0.5 , 0.25])")
absolute = _unary(
    "absolute", "Absolute value; of a complex number its modulus.", _NUMBERS, "The operand's dtype, real.",
    "np.array([-2.0, 3.0])", "array([2., 3.])",
)  # fmt: skip
abs = _unary(  # noqa: A001 - NumPy's name
    "absolute", "Absolute value; of a complex number its modulus.", _NUMBERS, "The operand's dtype, real.",
    "np.array([-2.0, 3.0])", "array([2., 3.])", "abs",
)  # fmt: skip
sign = _unary("sign", "-1, 0 or 1 by the sign of each element.", _REALS, _SAME, "np.array([-2.0, 0.0, 3.0])", "array([-1.,  0.,  1.])")
square = _unary("square", "Each element times itself.", _NUMBERS, _SAME, "np.array([2.0, 3.0])", "array([4., 9.])")
sqrt = _unary("sqrt", "Square root.", _NUMBERS, _FLOATS, "np.array([4.0, 9.0])", "array([2., 3.])")
rsqrt = _unary("rsqrt", "One over the square root.", _NUMBERS, _FLOATS, "np.array([4.0, 16.0])", "array([0.5 , 0.25])")
exp = _unary("exp", "Exponential.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([1.])")
exp2 = _unary("exp2", "Two to the power of each element.", _NUMBERS, _FLOATS, "np.array([3.0])", "array([8.])")
expm1 = _unary("expm1", "exp(x) - 1, exact for small x.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
log = _unary("log", "Natural logarithm.", _NUMBERS, _FLOATS, "np.array([1.0])", "array([0.])")
log2 = _unary("log2", "Logarithm to base 2.", _NUMBERS, _FLOATS, "np.array([8.0])", "array([3.])")
log10 = _unary("log10", "Logarithm to base 10.", _NUMBERS, _FLOATS, "np.array([1.0])", "array([0.])")
log1p = _unary("log1p", "log(1 + x), exact for small x.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
sin = _unary("sin", "Sine of an angle in radians.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
cos = _unary("cos", "Cosine of an angle in radians.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([1.])")
tan = _unary("tan", "Tangent of an angle in radians.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
sinh = _unary("sinh", "Hyperbolic sine.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
cosh = _unary("cosh", "Hyperbolic cosine.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([1.])")
tanh = _unary("tanh", "Hyperbolic tangent.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
arcsin = _unary("arcsin", "Inverse sine, in radians.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
arccos = _unary("arccos", "Inverse cosine, in radians.", _NUMBERS, _FLOATS, "np.array([1.0])", "array([0.])")
arctan = _unary("arctan", "Inverse tangent, in radians.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
arcsinh = _unary("arcsinh", "Inverse hyperbolic sine.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
arccosh = _unary("arccosh", "Inverse hyperbolic cosine.", _NUMBERS, _FLOATS, "np.array([1.0])", "array([0.])")
arctanh = _unary("arctanh", "Inverse hyperbolic tangent.", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
sigmoid = _unary("sigmoid", "Logistic function 1 / (1 + exp(-x)).", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.5])")
relu = _unary("relu", "x where it is positive, else 0.", _REALS, _SAME, "np.array([-1.0, 2.0])", "array([0., 2.])")
silu = _unary("silu", "Sigmoid linear unit, x / (1 + exp(-x)).", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
softplus = _unary("softplus", "Smooth maximum of x and 0.", _REALS, _FLOATS, "np.array([-1000.0, 1000.0])", "array([   0., 1000.])")
erf = _unary("erf", "Error function.", _REALS, _FLOATS, "np.array([0.0])", "array([0.])")
floor = _unary("floor", "Largest integer not above x.", _REALS, _SAME, "np.array([-1.5, 1.5])", "array([-2.,  1.])")
ceil = _unary("ceil", "Smallest integer not below x.", _REALS, _SAME, "np.array([-1.5, 1.5])", "array([-1.,  2.])")
conj = _unary("conjugate", "Complex conjugate.", _NUMBERS, _SAME, "np.array([1 + 2j])", "array([1.-2.j])", "conj")
real = _unary("real", "Real part, in a new array.", _NUMBERS, "The operand's dtype, real.", "np.array([1 + 2j])", "array([1.])")
imag = _unary("imag", "Imaginary part, in a new array.", _NUMBERS, "The operand's dtype, real.", "np.array([1 + 2j])", "array([2.])")
angle = _unary("angle", "Angle of a complex number, in radians.", _NUMBERS, _FLOATS, "np.array([1 + 0j])", "array([0.])")


def where(condition: Any, x: Any, y: Any, *, tol: float | None = None) -> Any:
    """``x`` where a condition is true, else ``y``.

    Parameters
    ----------
    condition : array_like or number
        Numbers other than zero count as true.
    x, y : array_like or number
        The values to choose from. Shapes broadcast together.
    tol : float, optional
        Accepted for uniformity: choosing is exact.

    Returns
    -------
    array
        With the dtype of ``x`` and ``y`` by NumPy's rules, and the kind and device of the first array.

    Raises
    ------
    ShapeError, DtypeError
        If the operands do not go together, or their dtype is not accepted.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.where(np.array([True, False]), np.array([1.0, 2.0]), 0)
    array([1., 0.])
    """
    if any(isinstance(value, Tracer) for value in (condition, x, y)):
        return traced("where", condition, x, y)
    return _compute(make("where", *_LEAVES), (condition, x, y), ("condition", "x", "y"), tol)


def clip(x: Any, min: Any = None, max: Any = None, *, tol: float | None = None) -> Any:  # noqa: A002 - NumPy's names
    """Limit values to an interval.

    Parameters
    ----------
    x : array_like
        Real numbers.
    min, max : array_like or number, optional
        Ends of the interval; None leaves that side open. Where ``min`` exceeds ``max``, the result is ``max``.
    tol : float, optional
        Accepted for uniformity: limiting is exact.

    Returns
    -------
    array
        The operands' dtype by NumPy's rules.

    Raises
    ------
    ArgumentError
        If both ends are None.
    ShapeError, DtypeError
        If the operands do not go together, or their dtype is not accepted.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.clip(np.array([-1.0, 0.5, 3.0]), 0, 1)
    array([0. , 0.5, 1. ])
    """
    if min is None and max is None:
        raise ArgumentError("clip needs min, max or both")
    if min is None:
        return minimum(x, max, tol=tol)
    if max is None:
        return maximum(x, min, tol=tol)
    if any(isinstance(value, Tracer) for value in (x, min, max)):
        return traced("clip", x, min, max)
    return _compute(make("clip", *_LEAVES), (x, min, max), ("x", "min", "max"), tol)


def gelu(x: Any, approximate: str = "none", *, tol: float | None = None) -> Any:
    """Gaussian error linear unit, x times the normal distribution function [1]_.

    Parameters
    ----------
    x : array_like or number
        Real numbers.
    approximate : {"none", "tanh"}
        The exact function, or its approximation by a hyperbolic tangent that many models were trained with.
    tol : float, optional
        Relative L2 error asked for. Default: the conformance tolerance of the dtype.

    Returns
    -------
    array
        Floating point.

    Raises
    ------
    ArgumentError
        If ``approximate`` is neither of the two.
    DtypeError
        If the dtype is not accepted.

    References
    ----------
    .. [1] D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv:1606.08415.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.gelu(np.array([0.0, 10.0]))
    array([ 0., 10.])
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"approximate={approximate!r} is not accepted; use 'none' or 'tanh'")
    op = "gelu" if approximate == "none" else "gelu_tanh"
    return traced(op, x) if isinstance(x, Tracer) else _compute(make(op, _LEAVES[0]), (x,), ("x",), tol)


def round(x: Any, decimals: int = 0, *, tol: float | None = None) -> Any:  # noqa: A001 - NumPy's name
    """Round to a number of decimals; halves go to the even neighbour.

    Parameters
    ----------
    x : array_like or number
        Real or complex numbers.
    decimals : int
        Digits after the point; negative ones count before it.
    tol : float, optional
        Relative L2 error asked for. Default: the conformance tolerance of the dtype.

    Returns
    -------
    array
        The operand's dtype.

    Raises
    ------
    ArgumentError
        If ``decimals`` is not a whole number.
    DtypeError
        If the dtype is not accepted.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.round(np.array([0.5, 1.26]), 1)
    array([0.5, 1.3])
    """
    if isinstance(decimals, bool) or not isinstance(decimals, (int, np.integer)) or not -300 <= decimals <= 300:
        raise ArgumentError(f"decimals must be a whole number between -300 and 300, got {decimals!r}")
    root = _LEAVES[0]
    if decimals:
        factor = const(10.0 ** builtins.abs(int(decimals)))
        there, back = ("multiply", "divide") if decimals > 0 else ("divide", "multiply")
        root = make(back, make("rint", make(there, root, factor)), factor)
    else:
        root = make("rint", root)
    if isinstance(x, Tracer):
        return Tracer(replaced(root, lambda leaf: x.node if leaf.op == "var" else leaf))
    return _compute(root, (x,), ("x",), tol)
