"""Arrays without data: each operation on one is recorded, and gives another.

A stand-in is an array kind of its own whose operations are "differentiated" by recording them, which is the one place
where the dispatcher lets a kind take a call over. So recording costs calls outside a pipeline nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core import settings as _settings
from ..core.array import ArrayKind, Operand, describe, kind_of, register_kind
from ..core.expression import UFUNCS
from ..core.operation import Operation
from ..core.operations import elementwise, reduce
from ..core.transfer import is_constant
from .graph import CONSTANT, NUMBER, Graph, Node, Source
from .views import View, frozen


class Unrecordable(BaseException):
    """Ends a recording: the function asked for something that only data can answer."""


class Recorder:
    """A graph in the making.

    Attributes
    ----------
    graph : Graph
    constants : list
        Arrays that the function brought in by ways that are not watched, in the order of their use.
    numbers : list
        Numbers given with calls.
    trusted : set of int
        Identities of arrays that are watched by other means.
    """

    def __init__(self, trusted: set[int]) -> None:
        self.graph = Graph()
        self.constants: list[Any] = []
        self.numbers: list[Any] = []
        self.trusted = trusted
        self.watched = True  # until an array turns up that nobody can tell the origin of
        self.open = True
        self._places: dict[int, int] = {}

    def stand_in(self, operand: Operand, source: Source) -> StandIn:
        """Return what stands in for an array that the function is given."""
        return StandIn(self, self.graph.add(operand, source), operand)

    def value(self, array: Any) -> int:
        """Return the number of an operand's value, adding it where it is an array with data."""
        if isinstance(array, StandIn):
            if array.recorder is not self or not self.open:
                raise Unrecordable("an array of an earlier recording was kept and used")
            return array.number
        kind = kind_of(array)
        assert kind is not None
        if kind.differentiable and kind.needs_gradient(array):
            raise Unrecordable("an array that it brings in requires a gradient")
        if isinstance(array, np.ndarray) and not array.shape:
            self.numbers.append(array)
            return self.graph.add(describe(array), Source(NUMBER, len(self.numbers) - 1))
        place = self._places.get(id(array))
        if place is None:
            self.constants.append(array)  # held, so that its identity stays its own
            place = self._places[id(array)] = self.graph.add(describe(array), Source(CONSTANT, len(self.constants) - 1))
            if id(array) in self.trusted or is_constant(array):
                self.graph.constant.add(place)
            else:
                self.watched = False
        return place

    def record(self, operation: Operation, params: Any, arrays: tuple[Any, ...], tol: float | None) -> Any:
        """Add a call and return what stands in for its results."""
        state = _settings.current()
        operands = tuple(None if array is None else self.value(array) for array in arrays)
        node = Node(operation, params, tol, operands, (), state)
        results = operation.result(self.graph.request(node))
        return self._add(node, results)

    def view(self, stand_in: StandIn, name: str, arguments: tuple[Any, ...]) -> Any:
        """Add a view and return what stands in for it."""
        view = View(name, arguments)
        node = Node(None, None, None, (self.value(stand_in),), (), _settings.current(), view)
        return self._add(node, (view.result(stand_in.operand),))

    def _add(self, node: Node, results: tuple[Operand, ...]) -> Any:
        numbers = tuple(self.graph.add(result) for result in results)
        self.graph.nodes.append(node._replace(results=numbers))
        made = tuple(StandIn(self, number, result) for number, result in zip(numbers, results))
        return made if len(made) > 1 else made[0]


def _refuse(what: str) -> Callable[..., Any]:
    def refuse(self: StandIn, *args: Any, **kwargs: Any) -> Any:
        raise Unrecordable(what)

    return refuse


class StandIn:
    """Stands in for an array while a function is recorded."""

    __slots__ = ("number", "operand", "recorder")
    __array_priority__ = 10_000.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, recorder: Recorder, number: int, operand: Operand) -> None:
        self.recorder, self.number, self.operand = recorder, number, operand

    # What is known without data

    @property
    def shape(self) -> Any:
        """Lengths of the axes."""
        torch = sys.modules.get("torch")
        shape = self.operand.shape
        return torch.Size(shape) if self.operand.kind == "torch" and torch is not None else shape

    @property
    def dtype(self) -> Any:
        """The dtype, as an array of the kind that this stands in for has it."""
        if self.operand.kind == "torch":
            return getattr(sys.modules["torch"], self.operand.dtype)
        return self.operand.dtype if self.operand.kind == "vulkan" else np.dtype(self.operand.dtype)

    @property
    def device(self) -> Any:
        """Where the array is when the function runs call by call."""
        return sys.modules["torch"].device(self.operand.device) if self._torch else self.operand.device

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.operand.shape)

    @property
    def size(self) -> Any:
        """Number of elements; of a torch tensor the method."""
        if self._torch:
            return lambda axis=None: self.shape if axis is None else self.operand.shape[axis]
        return self.operand.size

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.operand.nbytes

    @property
    def requires_grad(self) -> bool:
        """False: a function whose arrays require a gradient is not recorded."""
        return False

    @property
    def _torch(self) -> bool:
        return self.operand.kind == "torch"

    def dim(self) -> int:
        """Return the number of axes."""
        return self.ndim

    def is_complex(self) -> bool:
        """Tell whether the dtype is complex."""
        return self.operand.dtype.startswith("complex")

    def __len__(self) -> int:
        if not self.operand.shape:
            raise TypeError("len() of an array without axes")
        return self.operand.shape[0]

    def __repr__(self) -> str:
        return f"<stand-in for {self.operand.dtype}{list(self.operand.shape)} on {self.operand.device}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Unrecordable(f"it asks an array for .{name}, which cannot be recorded")

    # Views

    def reshape(self, *shape: Any) -> Any:
        """Return the elements in another shape."""
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
        return self.recorder.view(self, "reshape", tuple(int(n) for n in wanted))

    view = reshape

    def transpose(self, *axes: Any) -> Any:
        """Return the axes in another order: NumPy's arguments, or for a torch tensor the two axes to exchange."""
        if self._torch:
            return self.swapaxes(*axes)
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes
        return self.permute(*(given or range(self.ndim)[::-1]))

    def permute(self, *axes: Any) -> Any:
        """Return the axes in another order."""
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes
        return self.recorder.view(self, "permute", tuple(int(axis) % max(self.ndim, 1) for axis in given))

    def swapaxes(self, first: int, second: int) -> Any:
        """Return two axes exchanged."""
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.permute(*order)

    @property
    def T(self) -> Any:  # noqa: N802 - the name that arrays have for it
        """The axes in reverse order."""
        return self.permute(*range(self.ndim)[::-1])

    def ravel(self) -> Any:
        """Return the elements along one axis."""
        return self.reshape(-1)

    def squeeze(self, axis: Any = None) -> Any:
        """Return the array without axes of length 1."""
        drop = range(self.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        gone = {a % max(self.ndim, 1) for a in drop}
        if axis is not None and any(self.operand.shape[a] != 1 for a in gone) and not self._torch:
            raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
        return self.reshape(tuple(n for a, n in enumerate(self.operand.shape) if a not in gone or n != 1))

    def unsqueeze(self, axis: int) -> Any:
        """Return the array with one more axis, of length 1."""
        place = axis % (self.ndim + 1)
        return self.reshape((*self.operand.shape[:place], 1, *self.operand.shape[place:]))

    def astype(self, dtype: Any) -> Any:
        """Return the array in another dtype."""
        return self.recorder.view(self, "cast", (np.dtype(dtype).name,))

    def __getitem__(self, key: Any) -> Any:
        index = frozen(key)
        if index is None:
            raise Unrecordable("it indexes an array by another one; whole numbers, slices, None and ... are recorded")
        return self.recorder.view(self, "index", index)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    # Operations

    def detach(self) -> Any:
        """Return the array itself: nothing is differentiated while it is recorded."""
        return self

    def conj(self) -> Any:
        """Return the complex conjugate."""
        return elementwise.conj(self)

    conjugate = conj

    @property
    def real(self) -> Any:
        """The real part."""
        return elementwise.real(self) if self.is_complex() else self

    @property
    def imag(self) -> Any:
        """The imaginary part."""
        return elementwise.imag(self)

    def sum(self, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False) -> Any:
        """Return the sum over axes."""
        return self._reduced(reduce.sum, axis if dim is None else dim, keepdims or keepdim)

    def mean(self, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool = False) -> Any:
        """Return the mean over axes."""
        return self._reduced(reduce.mean, axis if dim is None else dim, keepdims or keepdim)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the largest value over axes."""
        return self._reduced(reduce.max, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        """Return the smallest value over axes."""
        return self._reduced(reduce.min, axis, keepdims)

    def _reduced(self, function: Any, axis: Any, keepdims: bool) -> Any:
        indexed = function in (reduce.max, reduce.min) and axis is not None
        if self._torch and (indexed or not self.operand.dtype.startswith(("float", "complex"))):
            raise Unrecordable(f"torch's .{function.__name__} gives something else than ac.{function.__name__} here")
        return function(self, axis, keepdims)

    def __invert__(self) -> Any:
        if self.operand.dtype != "bool":
            raise Unrecordable("it inverts the bits of whole numbers")
        return elementwise.logical_not(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs or ufunc.__name__ not in UFUNCS:
            called = ufunc.__name__ + ("" if method == "__call__" else f".{method}")
            raise Unrecordable(f"it calls numpy.{called} in a way that has no counterpart in this library")
        return function_named(ufunc.__name__)(*args)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise Unrecordable(f"it calls numpy.{function.__name__}; this library's functions are recorded")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", str(function))
        raise Unrecordable(f"it calls torch's {name}; this library's functions are recorded")


def function_named(name: str) -> Callable[..., Any]:
    """Return this library's element-wise function by NumPy's name."""
    return getattr(elementwise, {"conjugate": "conj", "rint": "round"}.get(name, name))


# What torch and NumPy promote to the same dtype.
_PROMOTED_ALIKE = ({"float32", "complex64"}, {"float64", "complex128"})


def _checked(stand_in: StandIn, other: Any) -> None:
    """Refuse what torch gives another dtype than NumPy does, by whose rules expressions go."""
    operands = [x.operand for x in (stand_in, other) if isinstance(x, StandIn)]
    if kind_of(other) is not None and not isinstance(other, StandIn):
        operands.append(describe(other))
    dtypes = {o.dtype for o in operands}
    alike = any(dtypes <= same for same in _PROMOTED_ALIKE) or (len(dtypes) == 1 and "float" in dtypes.copy().pop())
    if any(o.kind == "torch" for o in operands) and not alike:
        raise Unrecordable("an operator joins torch tensors whose result has another dtype by NumPy's rules")


def _binary(name: str, swapped: bool = False) -> Callable[..., Any]:
    def method(self: StandIn, other: Any) -> Any:
        _checked(self, other)
        function = getattr(elementwise, name)
        return function(other, self) if swapped else function(self, other)

    return method


def _logical(name: str, swapped: bool = False) -> Callable[..., Any]:
    def method(self: StandIn, other: Any) -> Any:
        dtypes = {x.operand.dtype if isinstance(x, StandIn) else np.asarray(x).dtype.name for x in (self, other)}
        if dtypes != {"bool"}:
            raise Unrecordable("it combines the bits of whole numbers")
        function = getattr(elementwise, name)
        return function(other, self) if swapped else function(self, other)

    return method


def _unary(name: str) -> Callable[..., Any]:
    return lambda self: getattr(elementwise, name)(self)


for _symbol, _name in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power",
}.items():  # fmt: skip
    setattr(StandIn, f"__{_symbol}__", _binary(_name))
    setattr(StandIn, f"__r{_symbol}__", _binary(_name, swapped=True))
    setattr(StandIn, f"__i{_symbol}__", _refuse("it changes an array in place"))
for _symbol, _name in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(StandIn, f"__{_symbol}__", _binary(_name))
for _symbol, _name in {"and": "logical_and", "or": "logical_or", "xor": "logical_xor"}.items():
    setattr(StandIn, f"__{_symbol}__", _logical(_name))
    setattr(StandIn, f"__r{_symbol}__", _logical(_name, swapped=True))
    setattr(StandIn, f"__i{_symbol}__", _refuse("it changes an array in place"))
for _symbol, _name in {"neg": "negative", "pos": "positive", "abs": "absolute"}.items():
    setattr(StandIn, f"__{_symbol}__", _unary(_name))
for _names, _reason in {
    ("bool",): "a branch or a loop depends on the values of an array",
    ("float", "int", "index", "complex"): "it makes a Python number of an array's value",
    ("array", "dlpack"): "it makes a NumPy array of what is recorded",
    ("setitem", "delitem"): "it changes an array in place",
    ("matmul", "rmatmul", "imatmul"): "it multiplies matrices, which is no operation of this library",
    ("contains",): "it looks for a value in an array",
}.items():
    for _name in _names:
        setattr(StandIn, f"__{_name}__", _refuse(_reason))
for _name in ("item", "tolist", "numpy", "cpu", "cuda", "to", "get"):
    setattr(StandIn, _name, _refuse(f"it takes an array's values out by .{_name}()"))


class StandInKind(ArrayKind):
    """Stand-ins, for the operations: they have metadata, and record what is done with them."""

    name = "stand-in"
    modules = ("adaptive_compute",)
    differentiable = True
    numbers_apart = True

    def matches(self, kind: type) -> bool:
        return issubclass(kind, StandIn)

    def describe(self, array: Any) -> Operand:
        return array.operand

    def needs_gradient(self, array: Any) -> bool:
        return True

    def to_numpy(self, array: Any) -> np.ndarray:
        raise Unrecordable("a call needs the values of an array before it can run")

    def fit(self, array: Any, axis: int, length: int) -> Any:
        raise Unrecordable("a call needs the values of an array before it can run")

    def constant(self, values: np.ndarray, like: Any) -> Any:
        raise Unrecordable("a call needs the values of an array before it can run")

    def extremes(self, array: Any) -> tuple[float, float]:
        raise Unrecordable("a call's plan depends on the values of an array (a NUFFT of type 3 does)")

    def differentiate(self, run: Any, operation: Any, params: Any, arrays: tuple[Any, ...]) -> Any:
        recorder = next(array.recorder for array in arrays if isinstance(array, StandIn))
        return recorder.record(operation, params, arrays, run.keywords.get("tol"))


register_kind(StandInKind())
