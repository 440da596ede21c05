"""Device memory when it runs out: plans and pools are freed, the call is tried once more, then the dispatcher is told.

torch's caching allocator is the one pool: CuPy's kernels write into tensors, and what CuPy itself allocates for this
library (the work areas of cuFFT plans) comes from torch's pool too. CuPy arrays that a caller makes stay in CuPy's own.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ...core.dispatcher import dispatcher
from ...core.errors import DeviceLost, DeviceOutOfMemory
from ..base import Plan

# What the libraries say where memory is short; cuFINUFFT and cuDNN raise plain RuntimeErrors.
_SHORT = ("out of memory", "ALLOC_FAILED", "not enough memory", "cudaErrorMemoryAllocation")
# After these the context is gone: every later call of the process fails alike.
_LOST = (
    "illegal memory access", "unspecified launch failure", "device-side assert", "misaligned address", "hardware stack",
    "illegal instruction", "uncorrectable ECC", "fallen off the bus", "device is lost", "launch timed out",
)  # fmt: skip
_FAILURES = (RuntimeError, MemoryError)  # torch's and CuPy's own errors are among these, or say so by name


def is_short(error: BaseException) -> bool:
    """Tell whether an error says that the device has no memory left."""
    if isinstance(error, DeviceOutOfMemory) or "OutOfMemory" in type(error).__name__:
        return True
    return isinstance(error, (*_FAILURES, Exception)) and any(part in str(error) for part in _SHORT)


def is_lost(error: BaseException) -> bool:
    """Tell whether an error says that the device answers no more."""
    return any(part in str(error) for part in _LOST)


class GuardedPlan(Plan):
    """A plan that is one function; where it runs out of memory, room is made and it is called once more."""

    def __init__(self, compute: Callable[..., Any], nbytes: int = 0) -> None:
        self.compute = compute
        self.nbytes = nbytes

    def close(self) -> None:
        if self.through_host is not None:
            self.through_host.close()  # type: ignore[attr-defined]

    def run(self, *arrays: Any) -> Any:
        try:
            return self.compute(*arrays)
        except Exception as error:
            make_room(error)
        return last_try(self.compute, *arrays)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that allocates on the device, with one more try after making room."""
    try:
        return function(*arguments)
    except Exception as error:
        make_room(error)
    return last_try(function, *arguments)


def make_room(error: Exception) -> None:
    """Free what is kept for later calls if an error says that memory is short; raise any other error."""
    if is_lost(error):
        raise DeviceLost(f"the GPU failed and must be set aside: {first_line(error)}") from error
    if not is_short(error):
        raise error
    traceback.clear_frames(error.__traceback__)  # the failed call's own temporaries
    dispatcher.invalidate()
    release()


def last_try(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call once more, and raise DeviceOutOfMemory where memory is still short."""
    try:
        return function(*arguments)
    except Exception as error:
        if is_short(error):
            raise DeviceOutOfMemory(f"the GPU has no room, with all caches freed: {first_line(error)}") from error
        raise


def first_line(error: BaseException) -> str:
    """Return the beginning of an error's message; torch's go on for many lines."""
    return (str(error) or type(error).__name__).partition("\n")[0]


def release() -> None:
    """Give back to the driver what the pools keep for later. Arrays in use are not touched."""
    gc.collect()
    cupy, torch = sys.modules.get("cupy"), sys.modules.get("torch")
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@cache
def _torch_allocator() -> Any:
    import cupy
    import torch

    def allocate(nbytes: int, device: int) -> int:
        stream = torch.cuda.current_stream(device)
        return torch.cuda.caching_allocator_alloc(nbytes, device, stream) if nbytes else 0

    def free(pointer: int, device: int) -> None:
        if pointer:
            torch.cuda.caching_allocator_delete(pointer)

    return cupy.cuda.PythonFunctionAllocator(allocate, free)


@contextmanager
def from_torch() -> Iterator[None]:
    """Let CuPy take its memory from torch's pool inside the block, in this thread."""
    import cupy

    with cupy.cuda.using_allocator(_torch_allocator().malloc):
        yield
