"""Reductions over axes with NumPy's signatures: sum, mean, max, min, logsumexp and the L2 norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import as_array, autocast, autocasting, call_key, describe
from ..dispatcher import dispatcher
from ..errors import ArgumentError, DeviceError, ShapeError
from ..traced import compiling, in_graph
from .reduce_rule import FAMILY, ReduceParams, check_axes, result_dtype

OPERATIONS = (FAMILY,)


def _reduce(function: str, x: Any, axis: Any, keepdims: Any, tol: float | None) -> Any:
    if type(x) is not np.ndarray and compiling():
        return in_graph("reduce", "_reduce", function, x, axis, keepdims, tol)
    if type(x) is not np.ndarray and autocasting():
        x = autocast(x, lower=False)
    key: tuple[Any, ...] | None = None
    known = call_key(x)
    if known is not None and not isinstance(axis, list):
        # With the types, because 1.0 and True equal 1 but not all are axes, nor truth values.
        types = (*map(type, axis if isinstance(axis, tuple) else (axis,)), type(keepdims), type(tol))
        key = (function, known, axis, keepdims, tol, types, _settings.current())
        try:
            call = dispatcher.fast.get(key)
        except TypeError:  # an axis that cannot be hashed: the checks below name it
            call = key = None
        if call is not None:
            try:
                return call(x)
            except (MemoryError, DeviceError):
                pass  # the whole path hands over to the next candidate
    given, x = x, as_array(x, "x")
    if not isinstance(keepdims, (bool, np.bool_)):
        raise ArgumentError(f"keepdims must be True or False, got {keepdims!r}")
    tol = None if tol is None else _settings.check_tol("tol", tol)
    result_dtype(function, describe(x).dtype)
    axes = check_axes(axis, x.ndim)
    if function in ("max", "min") and math.prod(x.shape[a] for a in axes) == 0:
        raise ShapeError(f"{function} of no values: x has shape {tuple(x.shape)}, and axis={axis!r} is empty")
    params = ReduceParams(function, axes, bool(keepdims))
    result = dispatcher.run(FAMILY, params, x, tol=tol)
    if key is not None and x is given:
        dispatcher.bind(key, FAMILY, params, (x,), tol)
    return result


_DOC = """{what}

    Parameters
    ----------
    x : array_like
        {accepted}
    axis : int or tuple of int, optional
        Axes to reduce; default all.
    keepdims : bool
        Leave the reduced axes with length 1, so that the result broadcasts against ``x``.
    tol : float, optional
        Relative L2 error asked for. Default: the conformance tolerance of the dtype.

    Returns
    -------
    array
        {result} Kind and device are those of ``x``; over all axes an array of no axes.

    Raises
    ------
    ShapeError
        If an axis does not exist or is named twice{empty}.
    DtypeError, ArgumentError
        If the dtype or an argument is not accepted.

    Notes
    -----
    {notes}

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.{name}(np.array([[0.0, 3.0], [0.0, 4.0]]), axis=0)
    {shown}
    """
_PAIRWISE = (
    "Sums are pairwise [1]_ at least, in float32 for half precision, and in an order that depends on the shape alone:\n"
    "    the same call gives the same bits.\n\n    References\n    ----------\n"
    '    .. [1] N. J. Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput. 14 (1993) 783-799.'
)


def _function(name: str, what: str, accepted: str, result: str, notes: str, shown: str, empty: str = "") -> Any:
    def function(x: Any, axis: Any = None, keepdims: bool = False, *, tol: float | None = None) -> Any:
        return _reduce(name, x, axis, keepdims, tol)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = _DOC.format(
        what=what, accepted=accepted, result=result, notes=notes, name=name, shown=shown, empty=empty
    )
    return function


_EMPTY = ", or there are no values to choose from"
sum = _function(
    "sum", "Sum over axes.", "Real or complex numbers.",
    "The dtype of ``x``; booleans and integers give int64, unsigned ones uint64.", _PAIRWISE, "array([0., 7.])",
)  # fmt: skip
mean = _function(
    "mean", "Mean over axes; of no values NaN.", "Real or complex numbers.",
    "The dtype of ``x``; booleans and integers give float64.", _PAIRWISE, "array([0. , 3.5])",
)  # fmt: skip
max = _function(
    "max", "Largest value over axes.", "Real numbers.", "The dtype of ``x``.",
    "NaN is passed on. The gradient is shared evenly among equal maxima.", "array([0., 4.])", _EMPTY,
)  # fmt: skip
min = _function(
    "min", "Smallest value over axes.", "Real numbers.", "The dtype of ``x``.",
    "NaN is passed on. The gradient is shared evenly among equal minima.", "array([0., 3.])", _EMPTY,
)  # fmt: skip
logsumexp = _function(
    "logsumexp", "Logarithm of the sum of exponentials over axes.", "Real numbers.",
    "The dtype of ``x``; booleans and integers give float64.",
    "The largest value is taken out first, so that nothing overflows. Of values that are all minus infinity, and of\n"
    "    no values, it is minus infinity.",
    "array([0.69314718, 4.31326169])",
)  # fmt: skip
norm = _function(
    "norm", "Euclidean (L2) norm over axes: the root of the sum of squared moduli.", "Real or complex numbers.",
    "Real, of the precision of ``x``; booleans and integers give float64.", _PAIRWISE, "array([0., 5.])",
)  # fmt: skip
