"""CuPy arrays as operands, and one memory seen as a torch tensor or as a CuPy array.

Both libraries exchange through DLPack, which orders the consumer's stream behind the producer's, or, where they work on
the same stream, by the address alone; nothing is copied and the host does not wait.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ...core.array import ArrayKind, Operand, kind_named, register_kind
from ...core.errors import DtypeError
from ...core.transfer import counters
from .raw import driver


class CupyKind(ArrayKind):
    """``cupy.ndarray`` on an NVIDIA GPU."""

    name = "cupy"
    modules = ("cupy",)

    def matches(self, kind: type) -> bool:
        cupy = sys.modules.get("cupy")
        return cupy is not None and issubclass(kind, cupy.ndarray)

    def describe(self, array: Any) -> Operand:
        return Operand(array.shape, array.dtype.name, f"cuda:{array.device.id}", "cupy")

    def to_numpy(self, array: Any) -> np.ndarray:
        raise DtypeError("a CuPy array is on the GPU; move it with ac.to(x, 'cpu')")

    def call_key(self, array: Any) -> tuple[Any, ...] | None:
        return "cupy", array.shape, array.dtype, array.device.id

    def from_numpy(self, array: np.ndarray) -> Any:
        raise DtypeError("a NumPy array becomes a CuPy array by cupy.asarray(...), which copies it to the GPU")

    def fit(self, array: Any, axis: int, length: int) -> Any:
        have = array.shape[axis]
        if have >= length:
            return array[(slice(None),) * axis + (slice(length),)] if have > length else array
        cupy = sys.modules["cupy"]
        padding = cupy.zeros((*array.shape[:axis], length - have, *array.shape[axis + 1 :]), array.dtype)
        return cupy.concatenate([array, padding], axis)

    def constant(self, values: np.ndarray, like: Any) -> Any:
        return sys.modules["cupy"].asarray(values, like.real.dtype)


def register() -> None:
    """Make CuPy arrays known to every operation."""
    register_kind(CupyKind())


def view(array: Any, kind: str) -> Any:
    """Return the same memory as another kind; an array that has the kind already as it is."""
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(array, torch.Tensor)
    if kind == "torch":
        return array if is_tensor else _as_tensor(array)
    if kind != "cupy":
        return kind_named(kind).adopt(array)
    return _as_cupy(array) if is_tensor else _from_dlpack(array)


def _as_tensor(array: Any) -> Any:
    import torch

    if type(array).__module__.partition(".")[0] != "cupy":
        return torch.from_dlpack(array)
    itemsize = array.itemsize
    if any([stride < 0 or stride % itemsize for stride in array.strides]):
        counters.count_copy("CuPy array with strides that torch cannot have")
        array = array.copy()
    if _same_stream(array.data.device_id):
        return torch.utils.dlpack.from_dlpack(array.__dlpack__(stream=-1))
    return torch.from_dlpack(array)


def _from_dlpack(array: Any) -> Any:
    import cupy

    return array if isinstance(array, cupy.ndarray) else cupy.from_dlpack(array)


def _as_cupy(tensor: Any) -> Any:
    import cupy

    tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    index, pointer, dtype = tensor.get_device(), tensor.data_ptr(), _cupy_dtypes().get(tensor.dtype)
    if dtype is None or not pointer or not _same_stream(index):
        return cupy.from_dlpack(tensor)
    memory = cupy.cuda.UnownedMemory(pointer, tensor.nbytes, tensor, index)
    place = cupy.cuda.MemoryPointer(memory, 0)
    shape = tuple(tensor.shape)
    if tensor.is_contiguous():
        return cupy.ndarray(shape, dtype, place)
    return cupy.ndarray(shape, dtype, place, tuple([step * dtype.itemsize for step in tensor.stride()]))


def _same_stream(index: int) -> bool:
    """Tell whether torch and CuPy work on one stream of a GPU, so that there is nothing to order."""
    return sys.modules["cupy"].cuda.get_current_stream(index).ptr == stream_pointer(index)


@cache
def _cupy_dtypes() -> dict[Any, np.dtype]:
    """Return the dtypes that both libraries have, by torch's."""
    import torch

    names = (
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128",
    )  # fmt: skip
    return {getattr(torch, name): np.dtype(name) for name in names}


def stream_pointer(index: int) -> int:
    """Return torch's current stream on a GPU as the driver's number."""
    import torch

    return torch._C._cuda_getCurrentRawStream(index)


@lru_cache(maxsize=256)
def _stream(pointer: int, index: int) -> Any:
    import cupy

    with warnings.catch_warnings():
        # CuPy 14 has another function for it, which CuPy 13 does not have.
        warnings.simplefilter("ignore", DeprecationWarning)
        return cupy.cuda.ExternalStream(pointer, index)


def launch(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], index: int) -> None:
    """Start a CUDA kernel on torch's current stream of a GPU."""
    import cupy

    stream = _stream(stream_pointer(index), index)
    if cupy.cuda.runtime.getDevice() == index:
        kernel(grid, block, arguments, 0, stream)
        return
    with cupy.cuda.Device(index):
        kernel(grid, block, arguments, 0, stream)


def start(kernel: Any, grid: tuple[int, ...], threads: int, table: int, index: int) -> None:
    """Start a CUDA kernel, given where its arguments' addresses are, on torch's current stream of a GPU."""
    import torch

    stream = torch._C._cuda_getCurrentRawStream(index)
    if torch._C._cuda_getDevice() == index:
        driver().launch(kernel.ptr, grid, threads, stream, table, index)
        return
    with torch.cuda.device(index):
        driver().launch(kernel.ptr, grid, threads, stream, table, index)


@contextmanager
def cupy_follows(index: int) -> Iterator[None]:
    """Let CuPy work on torch's current stream of a GPU inside the block."""
    import cupy

    pointer = stream_pointer(index)
    device = cupy.cuda.runtime.getDevice()
    if device == index and cupy.cuda.get_current_stream().ptr == pointer:
        yield
        return
    with cupy.cuda.Device(index), _stream(pointer, index):
        yield
