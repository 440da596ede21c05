"""Arrays that live on a Vulkan device: ``ac.to(x, "vulkan")`` gives one, and calls on it stay there."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ...core import settings as _settings
from ...core.array import ArrayKind, Operand, itemsize, register_kind
from ...core.errors import ArgumentError, ArgumentTypeError, DtypeError, TransferDenied
from .memory import Memory
from .runtime import Runtime, runtime

DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128",
)  # fmt: skip


class VulkanArray:
    """A dense array in the memory of a Vulkan device, in C order.

    Made by ``ac.to`` and by calls on such arrays. Arithmetic (``+ - * / // % **``, comparisons, ``abs``, ``-``) runs on
    the device; ``array[...]`` with whole numbers and slices copies the part on the device. Values reach the host by
    ``numpy()``, and by ``np.asarray`` or DLPack only where ``using(transfers="allow")`` (or ``"log"``) permits it.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
        NumPy's name of the dtype, or ``"bfloat16"``.
    device : str
        For example ``"vulkan:0"``.
    """

    __array_priority__ = 1000.0
    __slots__ = ("__weakref__", "_finalizer", "device", "dtype", "memory", "shape")

    def __init__(self, memory: Memory | None, shape: tuple[int, ...], dtype: str, owner: Runtime) -> None:
        self.memory, self.shape, self.dtype, self.device = memory, shape, dtype, owner.name
        if memory is not None:
            self._finalizer = weakref.finalize(self, owner.release, memory)
            self._finalizer.atexit = False

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return Operand(self.shape, self.dtype, self.device, "vulkan").size

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * itemsize(self.dtype)

    def numpy(self) -> np.ndarray:
        """Copy the values to the host and return them as a NumPy array (bfloat16 as its bits, in uint16)."""
        from ...core.transfer import move
        from .device import backend

        return move(self, backend, None, "cpu", self.nbytes, origin=self.device)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._may_leave("np.asarray")
        if copy is False:
            raise ValueError("an array on a Vulkan device cannot become a NumPy array without a copy")
        if self.dtype == "bfloat16":
            raise DtypeError("NumPy has no bfloat16; .numpy() gives the bits in uint16")
        values = self.numpy()
        return values if dtype is None else values.astype(dtype, copy=False)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export through the host: Kompute cannot share device memory."""
        self._may_leave("DLPack")
        if copy is False:
            raise BufferError("an array on a Vulkan device cannot be exported without a copy")
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(
                f"dl_device={dl_device}: from a Vulkan device an array is exported to the host, (1, 0), only"
            )
        if stream is not None:
            raise BufferError(f"stream={stream!r}: what is exported is in host memory, where there are no streams")
        if self.dtype == "bfloat16":
            raise BufferError("NumPy, which makes the export, has no bfloat16; .numpy() gives the bits in uint16")
        host = self.numpy()
        versioned = max_version is not None and hasattr(np, "unstack")  # NumPy 2.1 brought both
        return host.__dlpack__(max_version=max_version) if versioned else host.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU: what __dlpack__ gives is host memory

    def _may_leave(self, how: str) -> None:
        allowed = _settings.current().transfers
        if allowed not in ("allow", "log"):
            raise TransferDenied(
                f"{how} would copy an array from {self.device} to the host and transfers={allowed!r}; call .numpy(), "
                "or allow it with using(transfers='allow')"
            )

    def __copy__(self) -> VulkanArray:
        return self[...]

    def __deepcopy__(self, memo: Any) -> VulkanArray:
        return self[...]

    def __reduce__(self) -> Any:
        raise TypeError(f"an array on {self.device} is bound to this process; send .numpy() instead")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __bool__(self) -> bool:
        raise TypeError("the truth of an array on a device is not known on the host; call .numpy() first")

    def __repr__(self) -> str:
        return f"<VulkanArray {'x'.join(map(str, self.shape)) or 'scalar'} {self.dtype} on {self.device}>"

    def __getitem__(self, key: Any) -> VulkanArray:
        from .slicing import take

        return take(self, key)

    def reshape(self, *shape: Any) -> VulkanArray:
        """Return a copy on the device with another shape of as many elements; one length may be -1."""
        from .slicing import reshaped

        return reshaped(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)


def _binary(name: str, swapped: bool = False) -> Any:
    def method(self: VulkanArray, other: Any) -> Any:
        if isinstance(other, np.ndarray) and other.ndim:
            raise ArgumentTypeError(
                f"one operand is a NumPy array, the other on {self.device}; move it with ac.to(...)"
            )
        from ...core.operations import elementwise

        function = getattr(elementwise, name)
        return function(other, self) if swapped else function(self, other)

    return method


def _unary(name: str) -> Any:
    def method(self: VulkanArray) -> Any:
        from ...core.operations import elementwise

        return getattr(elementwise, name)(self)

    return method


for _symbol, _name in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power",
}.items():  # fmt: skip
    setattr(VulkanArray, f"__{_symbol}__", _binary(_name))
    setattr(VulkanArray, f"__r{_symbol}__", _binary(_name, swapped=True))
for _symbol, _name in {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(VulkanArray, f"__{_symbol}__", _binary(_name))
for _symbol, _name in {"neg": "negative", "pos": "positive", "abs": "absolute"}.items():
    setattr(VulkanArray, f"__{_symbol}__", _unary(_name))
VulkanArray.__hash__ = None  # type: ignore[assignment]


class VulkanKind(ArrayKind):
    """``VulkanArray``, for the operations."""

    name = "vulkan"
    modules = ("adaptive_compute",)

    def matches(self, kind: type) -> bool:
        return issubclass(kind, VulkanArray)

    def describe(self, array: Any) -> Operand:
        return Operand(array.shape, array.dtype, array.device, "vulkan")

    def to_numpy(self, array: Any) -> np.ndarray:
        raise DtypeError("an array on a Vulkan device was read as if it were on the host")

    def fit(self, array: Any, axis: int, length: int) -> Any:
        from .slicing import fitted

        return fitted(array, axis, length)

    def extremes(self, array: Any) -> tuple[float, float]:
        from .nufft_extent import measured

        if array.dtype != "float32":
            raise DtypeError(f"Vulkan shaders here take the extent of float32 arrays, not of {array.dtype}")
        ((low, high, bad),) = measured(runtime(array.device), [array])
        return (low, high) if bad is None else (float("nan"), float("nan"))

    def constant(self, values: np.ndarray, like: Any) -> Any:
        real = {"complex64": "float32", "complex128": "float64"}.get(like.dtype, like.dtype)
        return upload(np.asarray(values).astype(real), like.device)


def upload(host: np.ndarray, device: str, dtype: str | None = None) -> VulkanArray:
    """Copy a host array to a device. ``dtype`` names what NumPy has no dtype for (bfloat16 in uint16)."""
    name = dtype or host.dtype.name
    if name not in DTYPES:
        raise DtypeError(f"dtype {name} cannot live on a Vulkan device; {', '.join(DTYPES)} can")
    owner = runtime(device)
    reason = owner.too_large(host.nbytes)
    if reason is not None:
        raise ArgumentError(reason)
    return VulkanArray(owner.upload(host) if host.nbytes else None, host.shape, name, owner)


def download(array: VulkanArray) -> np.ndarray:
    """Copy an array to the host."""
    result = np.empty(array.shape, "uint16" if array.dtype == "bfloat16" else array.dtype)
    if array.memory is not None:
        runtime(array.device).download(array.memory, result)
    return result


register_kind(VulkanKind())
