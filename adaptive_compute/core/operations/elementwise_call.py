"""Calls of expressions: operands are checked, numbers kept apart from arrays; ``evaluate`` and ``elementwise``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, update_wrapper
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import as_array, call_key, describe, is_recorded, kind_of
from ..dispatcher import dispatcher
from ..errors import (
    AdaptiveError,
    ArgumentError,
    DeviceError,
    DtypeError,
    ExpressionError,
    ShapeError,
    UntraceableWarning,
)
from ..expression import (
    Node,
    Tracer,
    UntraceableError,
    const,
    is_finite,
    ordered,
    parse,
    replaced,
    scalar,
    show,
    trace,
    variable,
)
from ..program import ACCEPTED, program
from ..traced import be_known, compiling, in_graph
from .elementwise_rule import FAMILY, VMAP, VmapParams, broadcast_shapes

_NUMBERS = frozenset((bool, int, float, complex))


def _is_number(value: Any) -> bool:
    """Tell whether a value is a Python number, which adapts to the arrays' dtype (NumPy's scalars do not)."""
    return isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic)


def _operands(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return the values with each array made one that kernels take; numbers stay, unless there are only numbers."""
    for value, name in zip(values, names):
        if isinstance(value, int) and not is_finite(value):
            raise DtypeError(f"{name} is a whole number of {value.bit_length()} bits, which no dtype holds")
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
    """Return what a number becomes: floating-point ones stay out of the expression, and one plan serves them all."""
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


def _known(value: Any) -> tuple[Any, ...] | None:
    """Return what of an operand decides how a call is run: of a number that stays in the expression also its value."""
    kind = type(value)
    if kind is float or kind is complex:
        return (kind,)
    return (kind, value) if kind is int or kind is bool else call_key(value)


def _as_bound(values: Sequence[Any]) -> Sequence[Any]:
    """Return operands as ``_bound`` orders them: arrays, then the numbers that are given at the call."""
    kinds = [type(value) for value in values]
    if _NUMBERS.isdisjoint(kinds):
        return values
    arrays = [value for value, kind in zip(values, kinds) if kind not in _NUMBERS]
    return arrays + [np.asarray(value) for value, kind in zip(values, kinds) if kind is float or kind is complex]


def compute_call(root: Node, values: Sequence[Any], names: Sequence[str], tol: float | None) -> Any:
    """Check operands, and run an expression of them; a call seen before goes straight to its plan."""
    if compiling():
        return in_graph("elementwise_call", "compute_call", root, values, names, tol)
    key: tuple[Any, ...] | None = None
    known = tuple([_known(value) for value in values])
    if None not in known and not _NUMBERS.issuperset(map(type, values)):
        key = (root, known, tol, type(tol), _settings.current())
        call = dispatcher.fast.get(key)
        if call is not None:
            try:
                return call(*_as_bound(values))
            except (MemoryError, DeviceError):
                pass  # the whole path hands over to the next candidate
    tol = None if tol is None else _settings.check_tol("tol", tol)
    operands = _operands(values, names)
    leaves = tuple(_leaf_of(value) if _is_number(value) else None for value in operands)
    # A gradient rule wants numbers in the expression; a pipeline takes them with each call.
    if any(is_recorded(value) and not getattr(kind_of(value), "numbers_apart", False) for value in operands):
        leaves = tuple(const(value) if isinstance(leaf, str) else leaf for leaf, value in zip(leaves, operands))
    bound, order = (root, range(len(operands))) if not any(leaves) else _bound(root, leaves)
    arrays = tuple(operands[i] if leaves[i] is None else np.asarray(operands[i]) for i in order)
    _check(bound, arrays, [names[i] for i in order])
    result = dispatcher.run(FAMILY, bound, *arrays, tol=tol)
    if key is not None and all(a is b or _is_number(b) for a, b in zip(operands, values)):
        dispatcher.bind(key, FAMILY, bound, arrays, tol)
    return result


def _check(root: Node, arrays: Sequence[Any], names: Sequence[str]) -> None:
    """Raise, before anything is computed, where shapes or dtypes do not go together."""
    shapes = [tuple(array.shape) for array in arrays]
    if any(shape != shapes[0] for shape in shapes):
        try:
            broadcast_shapes(*shapes)
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
        Arithmetic (``+ - * / // % **``), comparisons, numbers, ``pi``, ``e``, the element-wise functions of this
        library by name, and the names of the arrays. The text is parsed, never executed: nothing else is accepted.
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
    if compiling():
        return in_graph("elementwise_call", "evaluate", expression, tol=tol, **arrays)
    if not isinstance(expression, str):
        raise ArgumentError(f"expression must be a str, got {type(expression).__name__}")
    names = tuple(arrays)
    root = parse(expression, names)
    if not names:
        raise ExpressionError(f"{expression!r} has no array; give at least one by name")
    return compute_call(root, tuple(arrays.values()), names, tol)


class Mapped:
    """A Python function of scalars as a function of arrays; what ``elementwise`` returns."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self.name = getattr(function, "__name__", repr(function))
        self._function = function
        self._traced: dict[int, Node | str] = {}
        self._dtypes: dict[tuple[str, ...], str] = {}

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

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
                    f"{self.name} cannot be traced to an expression ({found}); it runs under torch.vmap instead",
                    UntraceableWarning,
                    stacklevel=3,
                )
        return found

    def __call__(self, *arrays: Any, tol: float | None = None) -> Any:
        if compiling():
            return in_graph("elementwise_call", "call_mapped", self, arrays, tol)
        if any(isinstance(array, Tracer) for array in arrays):
            return self._function(*arrays)
        if not arrays:
            raise ArgumentError(f"{self.name} needs at least one array")
        names = [f"argument {number}" for number in range(1, len(arrays) + 1)]
        found = self.expression(len(arrays))
        if isinstance(found, Node):
            return compute_call(found, arrays, names, tol)
        return self._mapped([as_array(array, name) for array, name in zip(arrays, names)], names, found, tol)

    def _mapped(self, arrays: list[Any], names: Sequence[str], reason: str, tol: float | None) -> Any:
        _check(const(0), arrays, names)
        dtypes = tuple(describe(array).dtype for array in arrays)
        if dtypes not in self._dtypes:
            few = [array.reshape(-1)[:1] if array.size else np.ones(1, array.dtype) for array in map(_on_host, arrays)]
            try:
                with _settings.explaining(False):  # the probe is not the call that is to be explained
                    result = dispatcher.run(VMAP, VmapParams(self._function, dtypes[0]), *few)
            except (AdaptiveError, MemoryError):
                raise
            except Exception as error:
                raise ExpressionError(
                    f"{self.name} can be neither traced ({reason}) nor mapped by torch.vmap "
                    f"({type(error).__name__}: {str(error).splitlines()[0]})"
                ) from error
            self._dtypes[dtypes] = describe(result).dtype
        return dispatcher.run(VMAP, VmapParams(self._function, self._dtypes[dtypes]), *arrays, tol=tol)


def call_mapped(function: Mapped, arrays: Sequence[Any], tol: float | None) -> Any:
    """Call what ``elementwise`` returned."""
    return function(*arrays, tol=tol)


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
    be_known()
    return Mapped(function)
