"""CuPy arrays as operands, and one memory seen as a torch tensor or as a CuPy array.

Both libraries exchange through DLPack, which orders the consumer's stream behind the producer's; nothing is copied and
the host does not wait.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from ...core.array import ArrayKind, Operand, register_kind
from ...core.errors import DtypeError
from ...core.transfer import counters


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
    return _as_cupy(array) if is_tensor else array


def _as_tensor(array: Any) -> Any:
    import torch

    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        counters.count_copy("CuPy array with strides that torch cannot have")
        array = array.copy()
    return torch.from_dlpack(array)


def _as_cupy(tensor: Any) -> Any:
    import cupy

    tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return cupy.from_dlpack(tensor)


def stream_pointer(index: int) -> int:
    """Return torch's current stream on a GPU as the driver's number."""
    import torch

    return torch._C._cuda_getCurrentRawStream(index)


@lru_cache(maxsize=256)
def _stream(pointer: int, index: int) -> Any:
    import cupy

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


@contextmanager
def cupy_follows(index: int) -> Iterator[None]:
    """Let CuPy work on torch's current stream of a GPU inside the block."""
    import cupy

    pointer = stream_pointer(index)
    device = cupy.cuda.runtime.getDevice()
    if device == index and cupy.cuda.get_current_stream().ptr == pointer:
        yield
        return
    with cupy.cuda.Device(index), cupy.cuda.ExternalStream(pointer, index):
        yield
