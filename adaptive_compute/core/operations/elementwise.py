"""Element-wise functions by name. Like ``evaluate`` and ``elementwise``, each is one operation on an expression.

Names and broadcasting are NumPy's (the activations' are torch's), and so are dtypes, for every kind of array: Python
numbers adapt to the arrays, integers with float32 give float64. float16 and bfloat16 are computed in float32 and
rounded once. Operands may be arrays or Python numbers; the result has the kind and the device of the first array.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..expression import ARITY, Tracer, const, make, replaced, traced, variable
from ..traced import compiling, in_graph
from .elementwise_call import compute_call
from .elementwise_call import elementwise as elementwise
from .elementwise_call import evaluate as evaluate
from .elementwise_rule import FAMILY

OPERATIONS = (FAMILY,)


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
_WHERE, _CLIP = make("where", *_LEAVES), make("clip", *_LEAVES)
_GELU = {op: make(op, _LEAVES[0]) for op in ("gelu", "gelu_tanh")}
_NUMBERS = "Real or complex numbers."
_REALS = "Real numbers."
_SAME = "The operands' dtype by NumPy's rules."
_FLOATS = "Floating point; integers give float64 (8 and 16 bits: float16, float32)."
_TRUTH = "Booleans."


def _describe(
    function: Any, op: str, name: str, what: str, accepted: str, result: str, example: str, shown: str
) -> None:
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
        return traced(op, x) if isinstance(x, Tracer) else compute_call(root, (x,), ("x",), tol)

    _describe(function, op, name or op, what, accepted, result, example, shown)
    return function


def _binary(op: str, what: str, accepted: str, result: str, example: str, shown: str) -> Any:
    root = make(op, *_LEAVES[:2])

    def function(x1: Any, x2: Any, *, tol: float | None = None) -> Any:
        if isinstance(x1, Tracer) or isinstance(x2, Tracer):
            return traced(op, x1, x2)
        if op == "power" and isinstance(x2, float):  # a constant exponent may be a root or a product
            if compiling():
                return in_graph("elementwise", "power", x1, x2, tol=tol)
            return compute_call(make(op, _LEAVES[0], const(x2)), (x1,), ("x1",), tol)
        return compute_call(root, (x1, x2), ("x1", "x2"), tol)

    _describe(function, op, op, what, accepted, result, example, shown)
    return function


add = _binary("add", "Sum of two arrays.", _NUMBERS, _SAME, "np.array([1.0, 2.0]), 3", "array([4., 5.])")
subtract = _binary(
    "subtract", "Difference of two arrays.", _NUMBERS, _SAME, "np.array([1.0, 2.0]), 3", "array([-2., -1.])"
)
multiply = _binary("multiply", "Product of two arrays.", _NUMBERS, _SAME, "np.array([1.0, 2.0]), 3", "array([3., 6.])")
divide = _binary("divide", "Quotient of two arrays.", _NUMBERS, _FLOATS, "np.array([1.0, 2.0]), 2", "array([0.5, 1. ])")
floor_divide = _binary(
    "floor_divide", "Largest integer not above the quotient.", _REALS, _SAME, "np.array([7, -7]), 2", "array([ 3, -4])"
)
remainder = _binary(
    "remainder", "Remainder with the divisor's sign, as Python's ``%``.", _REALS, _SAME, "np.array([7, -7]), 3",
    "array([1, 2])",
)  # fmt: skip
power = _binary(
    "power", "First operand to the power of the second.", _NUMBERS, _SAME, "np.array([2.0, 3.0]), 2", "array([4., 9.])"
)
arctan2 = _binary(
    "arctan2", "Angle of the point (x2, x1) in radians, between -pi and pi.", _REALS, _FLOATS, "np.array([0.0]), 1.0",
    "array([0.])",
)  # fmt: skip
maximum = _binary("maximum", "Larger of two values.", _REALS, _SAME, "np.array([1.0, 5.0]), 3", "array([3., 5.])")
minimum = _binary("minimum", "Smaller of two values.", _REALS, _SAME, "np.array([1.0, 5.0]), 3", "array([1., 3.])")
greater = _binary("greater", "Whether x1 > x2.", _REALS, _TRUTH, "np.array([1, 5]), 3", "array([False,  True])")
greater_equal = _binary(
    "greater_equal", "Whether x1 >= x2.", _REALS, _TRUTH, "np.array([1, 3]), 3", "array([False,  True])"
)
less = _binary("less", "Whether x1 < x2.", _REALS, _TRUTH, "np.array([1, 5]), 3", "array([ True, False])")
less_equal = _binary("less_equal", "Whether x1 <= x2.", _REALS, _TRUTH, "np.array([3, 5]), 3", "array([ True, False])")
equal = _binary("equal", "Whether x1 == x2.", _NUMBERS, _TRUTH, "np.array([3, 5]), 3", "array([ True, False])")
not_equal = _binary("not_equal", "Whether x1 != x2.", _NUMBERS, _TRUTH, "np.array([3, 5]), 3", "array([False,  True])")
logical_and = _binary(
    "logical_and", "Whether both are true (not zero).", _NUMBERS, _TRUTH, "np.array([0, 2]), 1", "array([False,  True])"
)
logical_or = _binary(
    "logical_or",
    "Whether one or both are true (not zero).",
    _NUMBERS,
    _TRUTH,
    "np.array([0, 2]), 0",
    "array([False,  True])",
)
logical_xor = _binary(
    "logical_xor",
    "Whether exactly one is true (not zero).",
    _NUMBERS,
    _TRUTH,
    "np.array([0, 2]), 1",
    "array([ True, False])",
)
logical_not = _unary(
    "logical_not", "Whether an element is zero.", _NUMBERS, _TRUTH, "np.array([0, 2])", "array([ True, False])"
)
isfinite = _unary(
    "isfinite", "Whether an element is neither infinite nor NaN.", _NUMBERS, _TRUTH, "np.array([1.0, np.inf])",
    "array([ True, False])",
)  # fmt: skip
isinf = _unary(
    "isinf", "Whether an element is infinite.", _NUMBERS, _TRUTH, "np.array([1.0, np.inf])", "array([False,  True])"
)
isnan = _unary(
    "isnan", "Whether an element is NaN.", _NUMBERS, _TRUTH, "np.array([1.0, np.nan])", "array([False,  True])"
)
negative = _unary("negative", "Minus each element.", _NUMBERS, _SAME, "np.array([1.0, -2.0])", "array([-1.,  2.])")
positive = _unary(
    "positive", "Each element as it is, in a new array.", _NUMBERS, _SAME, "np.array([1.0, -2.0])", "array([ 1., -2.])"
)
reciprocal = _unary(
    "reciprocal", "One over each element.", _NUMBERS, _SAME, "np.array([2.0, 4.0])", "array([0.5 , 0.25])"
)
absolute = _unary(
    "absolute", "Absolute value; of a complex number its modulus.", _NUMBERS, "The operand's dtype, real.",
    "np.array([-2.0, 3.0])", "array([2., 3.])",
)  # fmt: skip
abs = _unary(
    "absolute", "Absolute value; of a complex number its modulus.", _NUMBERS, "The operand's dtype, real.",
    "np.array([-2.0, 3.0])", "array([2., 3.])", "abs",
)  # fmt: skip
sign = _unary(
    "sign",
    "-1, 0 or 1 by the sign of each element.",
    _REALS,
    _SAME,
    "np.array([-2.0, 0.0, 3.0])",
    "array([-1.,  0.,  1.])",
)
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
# The array API standard's names.
acos, acosh, asin, asinh, atan, atan2, atanh = arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh
pow = power
sigmoid = _unary(
    "sigmoid", "Logistic function 1 / (1 + exp(-x)).", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.5])"
)
relu = _unary("relu", "x where it is positive, else 0.", _REALS, _SAME, "np.array([-1.0, 2.0])", "array([0., 2.])")
silu = _unary("silu", "Sigmoid linear unit, x / (1 + exp(-x)).", _NUMBERS, _FLOATS, "np.array([0.0])", "array([0.])")
softplus = _unary(
    "softplus", "Smooth maximum of x and 0.", _REALS, _FLOATS, "np.array([-1000.0, 1000.0])", "array([   0., 1000.])"
)
erf = _unary("erf", "Error function.", _REALS, _FLOATS, "np.array([0.0])", "array([0.])")
floor = _unary("floor", "Largest integer not above x.", _REALS, _SAME, "np.array([-1.5, 1.5])", "array([-2.,  1.])")
ceil = _unary("ceil", "Smallest integer not below x.", _REALS, _SAME, "np.array([-1.5, 1.5])", "array([-1.,  2.])")
conj = _unary("conjugate", "Complex conjugate.", _NUMBERS, _SAME, "np.array([1 + 2j])", "array([1.-2.j])", "conj")
real = _unary(
    "real", "Real part, in a new array.", _NUMBERS, "The operand's dtype, real.", "np.array([1 + 2j])", "array([1.])"
)
imag = _unary(
    "imag",
    "Imaginary part, in a new array.",
    _NUMBERS,
    "The operand's dtype, real.",
    "np.array([1 + 2j])",
    "array([2.])",
)
angle = _unary(
    "angle", "Angle of a complex number, in radians.", _NUMBERS, _FLOATS, "np.array([1 + 0j])", "array([0.])"
)


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
    return compute_call(_WHERE, (condition, x, y), ("condition", "x", "y"), tol)


def clip(x: Any, min: Any = None, max: Any = None, *, tol: float | None = None) -> Any:
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
    return compute_call(_CLIP, (x, min, max), ("x", "min", "max"), tol)


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
    return traced(op, x) if isinstance(x, Tracer) else compute_call(_GELU[op], (x,), ("x",), tol)


def round(x: Any, decimals: int = 0, *, tol: float | None = None) -> Any:
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
    if compiling():
        return in_graph("elementwise", "round", x, decimals, tol=tol)
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
    return compute_call(root, (x,), ("x",), tol)
