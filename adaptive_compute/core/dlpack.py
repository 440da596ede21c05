"""Arrays of any other library that speaks DLPack: JAX, array-api-strict, dpnp, ndonnx and whoever follows.

The two protocols of the array API standard are enough, so no library has to be known by name: ``__dlpack__`` gives the
memory, ``__array_namespace__`` the functions that turn a result into an array of the caller's library again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .array import ArrayKind, Operand, _writable_view, kind_named, register_kind
from .errors import DtypeError
from .transfer import counters

# DLPack's numbers for the places where memory may be, and our names for their devices
_PLACES = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}


class DlpackKind(ArrayKind):
    """Arrays of one library, known by its array namespace (the module that the array API standard describes).

    On the host their memory is read in place; a result is handed over by the namespace's ``from_dlpack``, which a
    library may answer with a copy of its own (JAX does for memory that is not aligned to 64 bytes). On an NVIDIA GPU
    torch or CuPy view the same memory.
    """

    def __init__(self, namespace: Any) -> None:
        self.namespace = namespace
        self.name = namespace.__name__
        self.modules = ()
        self._types: set[type] = set()

    def knows(self, kind: type) -> None:
        """Count a type among this library's arrays."""
        self._types.add(kind)
        self.modules += (kind.__module__.partition(".")[0],)

    def matches(self, kind: type) -> bool:
        return kind in self._types

    def describe(self, array: Any) -> Operand:
        return Operand(tuple(array.shape), _dtype_name(array), self._device(array), self.name)

    def _device(self, array: Any) -> str:
        kind, index = array.__dlpack_device__()
        place = _PLACES.get(int(kind))
        if place is None:
            raise DtypeError(
                f"a {self.name} array on a device of DLPack's kind {int(kind)}; host and CUDA are accepted"
            )
        return place if place == "cpu" else f"{place}:{index}"

    def call_key(self, array: Any) -> tuple[Any, ...] | None:
        return self.name, tuple(array.shape), str(array.dtype), *map(int, array.__dlpack_device__())

    def to_numpy(self, array: Any) -> np.ndarray:
        if self._device(array) != "cpu":
            raise DtypeError(f"a {self.name} array on {self._device(array)}; move it with ac.to(x, 'cpu')")
        try:
            return np.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError) as error:
            raise DtypeError(f"a {self.name} array of {array.dtype} cannot be read through DLPack: {error}") from None

    def to_bits(self, array: Any) -> np.ndarray:
        if _dtype_name(array) != "bfloat16":
            return self.to_numpy(array)
        torch = kind_named("torch")
        return torch.to_bits(torch.adopt(array))

    def from_numpy(self, array: np.ndarray) -> Any:
        if not array.flags.writeable:
            array = _writable_view(array)
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            counters.count_copy(f"result with strides that {self.name} may not take")
            array = np.ascontiguousarray(array)
        return self.adopt(array)

    def from_bits(self, array: np.ndarray, dtype: str) -> Any:
        return (
            self.from_numpy(array) if dtype != "bfloat16" else self.adopt(kind_named("torch").from_bits(array, dtype))
        )

    def adopt(self, array: Any) -> Any:
        return self.namespace.from_dlpack(array)

    def stack(self, arrays: Sequence[Any]) -> Any:
        return self.namespace.stack(list(arrays))

    def extremes(self, array: Any) -> tuple[float, float]:
        return float(self.namespace.min(array)), float(self.namespace.max(array))

    def fit(self, array: Any, axis: int, length: int) -> Any:
        have = array.shape[axis]
        if have >= length:
            places = [slice(None)] * array.ndim
            places[axis] = slice(length)
            return array[tuple(places)] if have > length else array
        shape = (*array.shape[:axis], length - have, *array.shape[axis + 1 :])
        padding = self.namespace.zeros(shape, dtype=array.dtype, device=array.device)
        return self.namespace.concat([array, padding], axis=axis)

    def constant(self, values: np.ndarray, like: Any) -> Any:
        name = {"complex64": "float32", "complex128": "float64"}.get(_dtype_name(like), _dtype_name(like))
        dtype = getattr(self.namespace, name)
        return self.namespace.asarray(values.tolist(), dtype=dtype, device=like.device)

    def module(self) -> Any:
        return self.namespace


def recognise(value: Any) -> ArrayKind | None:
    """Make the library of an array known by the protocols that the array speaks; None where it does not speak both.

    Raises DtypeError for what stands for an array while its library traces a function: it has no data.
    """
    kind = type(value)
    if not hasattr(kind, "__dlpack__") or not hasattr(value, "__array_namespace__"):
        return None
    try:
        value.__dlpack_device__()
    except Exception as error:
        raise DtypeError(
            f"{kind.__module__}.{kind.__qualname__} gives no data through DLPack ({type(error).__name__}); inside a "
            "function that its library traces or compiles, call this library through the tracer's own callback"
        ) from None
    namespace = value.__array_namespace__()
    try:
        known = kind_named(namespace.__name__)
    except KeyError:
        known = DlpackKind(namespace)
    if not isinstance(known, DlpackKind):
        return None
    known.knows(kind)
    register_kind(known)
    return known


def _dtype_name(array: Any) -> str:
    return str(array.dtype).rpartition(".")[2]
