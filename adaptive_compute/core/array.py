"""What kind of array an operand is and where it lives, without importing a library that is not loaded.

An *array kind* is one array type that the library accepts: NumPy and torch here; a backend registers its own (CuPy,
Vulkan). Kinds that live on the host view the same memory as NumPy does, so going from one to another copies nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import ArgumentError, DtypeError
from .transfer import counters


class Operand(NamedTuple):
    """An operand without its data."""

    shape: tuple[int, ...]
    dtype: str
    device: str
    kind: str

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * itemsize(self.dtype)


_ITEMSIZES = {"bfloat16": 2}


def itemsize(dtype: str) -> int:
    """Return the bytes of one element of a dtype given by name."""
    size = _ITEMSIZES.get(dtype)
    if size is None:
        size = _ITEMSIZES[dtype] = np.dtype(dtype).itemsize
    return size


class ArrayKind:
    """One array type. A subclass answers what an array of it is, and turns it into a NumPy view and back.

    ``modules`` are the top-level modules whose types may be of this kind: an object whose type comes from elsewhere
    is never asked, so a library that is not loaded is never imported.
    """

    name: str = ""
    modules: tuple[str, ...] = ()
    differentiable = False

    def matches(self, kind: type) -> bool:
        """Tell whether objects of this type are of this kind."""
        raise NotImplementedError

    def describe(self, array: Any) -> Operand:
        """Return shape, dtype and device of an array."""
        raise NotImplementedError

    def to_numpy(self, array: Any) -> np.ndarray:
        """Return a NumPy view of an array that lives on the host."""
        raise NotImplementedError

    def from_numpy(self, array: np.ndarray) -> Any:
        """Return this kind's view of a NumPy array, on the host."""
        raise NotImplementedError

    def to_bits(self, array: Any) -> np.ndarray:
        """Return a NumPy view; of bfloat16, which NumPy does not have, the bits as uint16."""
        return self.to_numpy(array)

    def from_bits(self, array: np.ndarray, dtype: str) -> Any:
        """Return this kind's view of a NumPy array that holds values of ``dtype`` (bfloat16: their bits)."""
        return self.from_numpy(array)

    def adopt(self, array: Any) -> Any:
        """Return this kind's view of the memory of another library's array, wherever it is."""
        raise NotImplementedError

    def fit(self, array: Any, axis: int, length: int) -> Any:
        """Return an array cut, or padded with zeros at the end, to a length along one axis."""
        raise NotImplementedError

    def constant(self, values: np.ndarray, like: Any) -> Any:
        """Return values as an array of this kind, with the device and the real dtype of another."""
        raise NotImplementedError

    def extremes(self, array: Any) -> tuple[float, float]:
        """Return the smallest and the largest element; one of them is not finite where any element is not."""
        return float(array.min()), float(array.max())

    def module(self) -> Any:
        """Return the array library itself, imported; raises ImportError where it is not installed."""
        return importlib.import_module(self.name)

    def needs_gradient(self, array: Any) -> bool:
        """Tell whether a call with this operand must be recorded: for a gradient, a transform of functions, a graph."""
        return False

    def is_abstract(self, array: Any) -> bool:
        """Tell whether the elements cannot be read now: under torch.vmap, or while a graph is traced."""
        return False

    def stack(self, arrays: Sequence[Any]) -> Any:
        """Return arrays of one shape as one, along a new leading axis."""
        raise NotImplementedError

    def call_key(self, array: Any) -> tuple[Any, ...] | None:
        """Return all that decides how a call with this operand is run, or None where every call must be checked."""
        return None

    def autocast(self, array: Any, lower: bool) -> Any:
        """Return an operand as a region of automatic mixed precision wants it; see ``autocast``."""
        return array

    def differentiate(self, run: Any, operation: Any, params: Any, arrays: tuple[Any, ...]) -> Any:
        """Run an operation so that the array library can differentiate it."""
        raise NotImplementedError


class NumpyKind(ArrayKind):
    """``numpy.ndarray`` on the host."""

    name = "numpy"
    modules = ("numpy",)

    def matches(self, kind: type) -> bool:
        return issubclass(kind, (np.ndarray, np.generic))

    def describe(self, array: Any) -> Operand:
        return Operand(array.shape, array.dtype.name, "cpu", "numpy")

    def call_key(self, array: Any) -> tuple[Any, ...] | None:
        return (array.shape, array.dtype) if type(array) is np.ndarray else None

    def to_numpy(self, array: Any) -> np.ndarray:
        return array

    def from_numpy(self, array: np.ndarray) -> np.ndarray:
        return array

    def stack(self, arrays: Sequence[Any]) -> Any:
        return np.stack(arrays)

    def fit(self, array: Any, axis: int, length: int) -> Any:
        have = array.shape[axis]
        if have >= length:
            return array[(slice(None),) * axis + (slice(length),)] if have > length else array
        padding = np.zeros((*array.shape[:axis], length - have, *array.shape[axis + 1 :]), array.dtype)
        return np.concatenate([array, padding], axis)

    def constant(self, values: np.ndarray, like: Any) -> Any:
        return values.astype(like.real.dtype)


class TorchKind(ArrayKind):
    """``torch.Tensor`` on the CPU or, with the CUDA backend, on a GPU."""

    name = "torch"
    modules = ("torch",)
    differentiable = True

    def matches(self, kind: type) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and issubclass(kind, torch.Tensor)

    def describe(self, array: Any) -> Operand:
        if array.is_nested or str(array.layout) != "torch.strided":
            raise DtypeError(f"a torch tensor must be dense; this one has layout {array.layout}")
        return Operand(tuple(array.shape), str(array.dtype)[6:], str(array.device), "torch")

    def to_numpy(self, array: Any) -> np.ndarray:
        if array._is_zerotensor() or sys.modules["torch"]._C._functorch.is_functorch_wrapped_tensor(array):
            raise DtypeError("a tensor inside torch.func or forward-mode differentiation has no data to compute with")
        array = array.detach()
        if array.is_conj() or array.is_neg():
            counters.count_copy("torch tensor with a lazy conjugate or negative bit")
            array = array.resolve_conj().resolve_neg()
        return array.numpy()

    def from_numpy(self, array: np.ndarray) -> Any:
        import torch

        if not array.flags.writeable:
            array = _writable_view(array)
        if any(stride < 0 or stride % array.itemsize for stride in array.strides):
            counters.count_copy("NumPy array with strides that torch cannot have")
            array = array.copy()
        return torch.from_numpy(array)

    def adopt(self, array: Any) -> Any:
        import torch

        return torch.from_dlpack(array)

    def to_bits(self, array: Any) -> np.ndarray:
        torch = sys.modules["torch"]
        return self.to_numpy(array.detach().view(torch.uint16) if array.dtype is torch.bfloat16 else array)

    def from_bits(self, array: np.ndarray, dtype: str) -> Any:
        tensor = self.from_numpy(array)
        return tensor.view(sys.modules["torch"].bfloat16) if dtype == "bfloat16" else tensor

    def fit(self, array: Any, axis: int, length: int) -> Any:
        have = array.shape[axis]
        if have >= length:
            return array.narrow(axis, 0, length) if have > length else array
        shape = (*array.shape[:axis], length - have, *array.shape[axis + 1 :])
        return sys.modules["torch"].cat([array, array.new_zeros(shape)], axis)

    def constant(self, values: np.ndarray, like: Any) -> Any:
        torch = sys.modules["torch"]
        return torch.as_tensor(values, dtype=like.real.dtype if like.is_complex() else like.dtype, device=like.device)

    def needs_gradient(self, array: Any) -> bool:
        torch = sys.modules["torch"]
        return bool(
            (array.requires_grad and torch.is_grad_enabled())
            or torch._C._functorch.is_functorch_wrapped_tensor(array)
            or self._is_traced(array)
            or _has_tangent(torch, array)
        )

    def _is_traced(self, array: Any) -> bool:
        """Tell whether a tensor stands for data that are not there: that a graph will be given, or none at all."""
        torch = sys.modules["torch"]
        if type(array) is not torch.Tensor and isinstance(array, _traced_types(torch)):
            return True
        return array.device.type == "meta"

    def is_abstract(self, array: Any) -> bool:
        functorch = sys.modules["torch"]._C._functorch
        inner = array
        while functorch.is_functorch_wrapped_tensor(inner):
            if functorch.is_batchedtensor(inner):
                return True
            inner = functorch.get_unwrapped(inner)
        return self._is_traced(inner)

    def stack(self, arrays: Sequence[Any]) -> Any:
        return sys.modules["torch"].stack(list(arrays))

    def autocast(self, array: Any, lower: bool) -> Any:
        torch = sys.modules["torch"]
        device = array.device.type
        if array.dtype not in (torch.float16, torch.bfloat16, torch.float32) or not torch.is_autocast_enabled(device):
            return array
        return array.to(torch.get_autocast_dtype(device) if lower else torch.float32)

    def call_key(self, array: Any) -> tuple[Any, ...] | None:
        torch = sys.modules["torch"]
        # Subclasses may mean anything by an operation; what is or may be differentiated takes the whole path.
        if (
            type(array) is not torch.Tensor
            or array.is_nested
            or torch._C._functorch.is_functorch_wrapped_tensor(array)
            or (array.requires_grad and torch.is_grad_enabled())
            or getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0
        ):
            return None
        return array.shape, array.dtype, array.device, array.layout

    def differentiate(self, run: Any, operation: Any, params: Any, arrays: tuple[Any, ...]) -> Any:
        for array in arrays:  # what stands in for an array while a pipeline is recorded comes first
            kind = None if array is None else kind_of(array)
            if kind is not None and kind is not self and kind.differentiable:
                return kind.differentiate(run, operation, params, arrays)
        # By name, because integrations stand above the core and are loaded only when their library is in use.
        module = importlib.import_module("adaptive_compute.integrations.torch")
        return module.differentiate(run, operation, params, arrays)


def _has_tangent(torch: Any, array: Any) -> bool:
    forward = torch.autograd.forward_ad
    return getattr(forward, "_current_level", -1) >= 0 and forward.unpack_dual(array).tangent is not None


def _traced_types(torch: Any) -> tuple[type, ...]:
    """Return the types of tensors without data: those of graphs that are being traced, where such a thing is loaded."""
    modules = (
        ("torch._subclasses.fake_tensor", "FakeTensor"),
        ("torch._subclasses.functional_tensor", "FunctionalTensor"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in modules if module in sys.modules)


class _ViewOf:
    """Holds a read-only array alive and describes its memory as writable.

    torch has no read-only tensors and warns about the memory of one. Kernels never write to their operands, so the
    view is safe, and it avoids both the copy and the warning.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _writable_view(array: np.ndarray) -> np.ndarray:
    return np.asarray(_ViewOf(array))


loaders: list[Callable[[], object]] = []  # what makes the kinds of all backends known
NUMPY = NumpyKind()
_kinds: dict[str, ArrayKind] = {"numpy": NUMPY, "torch": TorchKind()}
_by_type: dict[type, ArrayKind] = {np.ndarray: NUMPY}


def register_kind(kind: ArrayKind) -> None:
    """Make an array type known to every operation; a backend calls this when it is loaded."""
    _kinds[kind.name] = kind
    _by_type.clear()
    _by_type[np.ndarray] = NUMPY


def kind_named(name: str) -> ArrayKind:
    """Return an array kind by its name."""
    return _kinds[name]


def kind_of(array: Any) -> ArrayKind | None:
    """Return the kind of an array, or None for an object that no kind knows (a list, a number)."""
    cls = type(array)
    kind = _by_type.get(cls)
    if kind is None:
        roots = {base.__module__.partition(".")[0] for base in cls.__mro__}
        for candidate in _kinds.values():
            if not roots.isdisjoint(candidate.modules) and candidate.matches(cls):
                kind = _by_type[cls] = candidate
                break
    return kind


def call_key(array: Any) -> tuple[Any, ...] | None:
    """Return all that decides how a call with an operand is run, cheaply; None where the call must be checked."""
    kind = _by_type.get(type(array))
    return None if kind is None else kind.call_key(array)


def as_array(value: Any, name: str) -> Any:
    """Return an operand as an array that kernels can take: known kinds as they are, anything else through NumPy.

    Raises DtypeError for what has no numeric dtype (strings, objects, ragged lists) and ArgumentError for masked
    arrays, whose mask would be lost silently.
    """
    kind = kind_of(value)
    if kind is None and hasattr(type(value), "__dlpack__"):  # an array of a library that a backend knows, once loaded
        for load in loaders:
            load()
        kind = kind_of(value) or importlib.import_module("adaptive_compute.core.dlpack").recognise(value)
    if kind is None:
        try:
            # without a namespace of its own nobody can say what such an array's library would make of a result
            bare = hasattr(type(value), "__dlpack__") and not hasattr(type(value), "__array__")
            value = np.from_dlpack(value) if bare else np.asarray(value)
        except (ValueError, BufferError, RuntimeError) as error:  # the last of a dtype that NumPy has not
            raise DtypeError(f"{name} is not an array of numbers: {error}") from None
    elif kind is not NUMPY:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentError(f"{name} is a masked array, whose mask would be ignored; pass {name}.filled(...) instead")
    if type(value) is not np.ndarray:
        value = np.asarray(value)
    if value.dtype.kind not in "biufc":
        raise DtypeError(f"{name} has dtype {value.dtype}; bool, integer, float and complex are accepted")
    if not value.dtype.isnative:
        counters.count_copy("array in the other byte order")
        value = value.astype(value.dtype.newbyteorder("="))
    return value


def autocasting() -> bool:
    """Tell whether the call stands in a region of automatic mixed precision."""
    torch = sys.modules.get("torch")
    return torch is not None and torch._C._is_any_autocast_enabled()


def autocast(array: Any, lower: bool) -> Any:
    """Return an operand as automatic mixed precision wants it, where torch.autocast is on: else as it is.

    ``lower`` casts float16, bfloat16 and float32 to the region's own dtype, its opposite to float32. What is no tensor
    stays as it is, and so do float64, complex numbers and integers, as for torch's own operators.
    """
    kind = None if array is None else kind_of(array)
    return array if kind is None else kind.autocast(array, lower)


def is_recorded(array: Any) -> bool:
    """Tell whether a call with this operand must be recorded, for a gradient say; False for what is no array."""
    kind = kind_of(array)
    return kind is not None and kind.needs_gradient(array)


def is_abstract(array: Any) -> bool:
    """Tell whether an operand is an array whose elements cannot be read now, though its shape is known."""
    kind = kind_of(array)
    return kind is not None and kind.is_abstract(array)


def describe(array: Any) -> Operand:
    """Return an operand's shape, dtype, device and kind, without touching its data."""
    kind = kind_of(array)
    if kind is None:
        raise DtypeError(f"not an array that this library knows: {type(array).__name__}")
    return kind.describe(array)


def device_of(array: Any) -> str:
    """Return the device where an array lives.

    Parameters
    ----------
    array : array_like
        A NumPy array, a torch tensor, an array of a loaded backend, or anything NumPy can read.

    Returns
    -------
    str
        ``"cpu"``, ``"cuda:0"``, ``"vulkan:0"`` ...

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.device_of(np.ones(3))
    'cpu'
    """
    return describe(as_array(array, "array")).device
