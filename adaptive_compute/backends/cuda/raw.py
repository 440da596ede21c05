"""The CUDA driver's copies and events, called without giving up the interpreter's lock.

torch gives the lock up in each of its operations. Where several threads copy chunks, each of which takes some ten
microseconds of calls, they would spend their time handing the lock to each other.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from functools import cache
from typing import Any

_NOT_READY = 600
_NO_CONTEXT = 201
_NO_TIMING = 2
_TINY = 1 << 16  # the driver takes so much along with the command, without waiting for what was queued before
_PORTABLE = 1  # pinned for every GPU
_MEMORY_TYPE = 2  # the attribute of an address that ordinary memory does not have
_SIGNATURES: dict[str, list[Any]] = {
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(c_void_p), c_int],
    "cuCtxSetCurrent": [c_void_p],
    "cuCtxGetCurrent": [POINTER(c_void_p)],
    "cuEventCreate": [POINTER(c_void_p), c_uint],
    "cuEventRecord": [c_void_p, c_void_p],
    "cuStreamSynchronize": [c_void_p],
    "cuEventQuery": [c_void_p],
    "cuEventSynchronize": [c_void_p],
    "cuEventDestroy_v2": [c_void_p],
    "cuMemcpyHtoDAsync_v2": [c_uint64, c_void_p, c_size_t, c_void_p],
    "cuMemcpyDtoHAsync_v2": [c_void_p, c_uint64, c_size_t, c_void_p],
    "cuPointerGetAttribute": [c_void_p, c_uint, c_uint64],
    "cuMemHostRegister_v2": [c_void_p, c_size_t, c_uint],
    "cuMemHostUnregister": [c_void_p],
    "cuLaunchKernel": [c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p],
    "cuGetErrorString": [c_int, POINTER(ctypes.c_char_p)],
}


class Driver:
    """The driver's functions; each raises RuntimeError with the driver's own words."""

    def __init__(self, name: str = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1") -> None:
        quick = ctypes.PyDLL(name)
        for function, arguments in _SIGNATURES.items():
            getattr(quick, function).argtypes = arguments
        self._quick = quick
        slow = ctypes.CDLL(name)  # gives the lock up: for waiting
        for function in ("cuEventSynchronize", "cuMemHostRegister_v2", "cuMemHostUnregister", "cuMemcpyHtoDAsync_v2",
                         "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize", "cuLaunchKernel"):  # fmt: skip
            getattr(slow, function).argtypes = _SIGNATURES[function]
        self._synchronize, self._slow = slow.cuEventSynchronize, slow
        self._query, self._record = quick.cuEventQuery, quick.cuEventRecord
        self._up, self._down = quick.cuMemcpyHtoDAsync_v2, quick.cuMemcpyDtoHAsync_v2
        self._attribute, self._kind = quick.cuPointerGetAttribute, ctypes.c_uint64()
        self._of = ctypes.addressof(self._kind)  # nobody reads what is written there

    def _check(self, code: int) -> None:
        if code:
            text = ctypes.c_char_p()
            self._quick.cuGetErrorString(code, byref(text))
            raise RuntimeError(f"CUDA error {code}: {(text.value or b'unknown').decode(errors='replace')}")

    def context(self, index: int) -> int:
        """Return a GPU's primary context, which torch uses too."""
        device, context = c_int(), c_void_p()
        self._check(self._quick.cuDeviceGet(byref(device), index))
        self._check(self._quick.cuDevicePrimaryCtxRetain(byref(context), device))
        assert context.value is not None
        return context.value

    def current(self) -> int | None:
        """Return the calling thread's context, if it has one."""
        context = c_void_p()
        self._check(self._quick.cuCtxGetCurrent(byref(context)))
        return context.value

    def enter(self, context: int | None) -> None:
        """Make a context the calling thread's."""
        self._check(self._quick.cuCtxSetCurrent(context))

    def event(self) -> int:
        """Return a new event of the calling thread's context."""
        event = c_void_p()
        self._check(self._quick.cuEventCreate(byref(event), _NO_TIMING))
        assert event.value is not None
        return event.value

    def destroy(self, event: int) -> None:
        """Give an event back."""
        self._quick.cuEventDestroy_v2(event)

    def up(self, target: int, source: int, nbytes: int, stream: int, event: int) -> None:
        """Start copying from pinned memory to the GPU, and record an event behind it."""
        self._check(self._up(target, source, nbytes, stream) or self._record(event, stream))

    def down(self, target: int, source: int, nbytes: int, stream: int, event: int) -> None:
        """Start copying from the GPU to pinned memory, and record an event behind it."""
        self._check(self._down(target, source, nbytes, stream) or self._record(event, stream))

    def locked(self, address: int, nbytes: int) -> bool:
        """Tell whether memory is pinned, by anybody, at its beginning or its end."""
        ask, of = self._attribute, self._of
        return ask(of, _MEMORY_TYPE, address) == 0 or ask(of, _MEMORY_TYPE, address + nbytes - 1) == 0

    def pageable_up(self, target: int, source: int, nbytes: int, stream: int, foreign: bool) -> bool:
        """Copy host memory to the GPU behind what a stream does; returns when it was read. False: it failed.

        Memory that is pinned the driver reads later, so that there is something to wait for; only ``foreign`` memory
        may have been pinned by others.
        """
        copy = self._up if nbytes <= _TINY else self._slow.cuMemcpyHtoDAsync_v2
        if copy(target, source, nbytes, stream):
            return False
        return not (foreign and self.locked(source, nbytes)) or self._slow.cuStreamSynchronize(stream) == 0

    def pageable_down(self, target: int, source: int, nbytes: int, stream: int, foreign: bool) -> bool:
        """Copy to host memory behind what a stream does; returns when the bytes are there. False: it failed.

        Into memory that is pinned the driver copies later; only ``foreign`` memory may be.
        """
        if self._slow.cuMemcpyDtoHAsync_v2(target, source, nbytes, stream):
            return False
        return not (foreign and self.locked(target, nbytes)) or self._slow.cuStreamSynchronize(stream) == 0

    def up_now(self, target: int, source: int, nbytes: int, stream: int) -> bool:
        """Copy from pinned memory behind what a stream does; returns when it was read. False: it failed."""
        return not self._up(target, source, nbytes, stream) and self._slow.cuStreamSynchronize(stream) == 0

    def down_now(self, target: int, source: int, nbytes: int, stream: int) -> bool:
        """Copy to pinned memory behind what a stream does; returns when the bytes are there. False: it failed."""
        return not self._down(target, source, nbytes, stream) and self._slow.cuStreamSynchronize(stream) == 0

    def launch(self, kernel: int, grid: tuple[int, ...], threads: int, stream: int, table: int, index: int) -> None:
        """Start a kernel of a GPU whose context is current; ``table`` is where its arguments' addresses are.

        Where the queue is full this waits, and others may run meanwhile.
        """
        x, y, z = (*grid, 1, 1)[:3]
        code = self._slow.cuLaunchKernel(kernel, x, y, z, threads, 1, 1, 0, stream, table, None)
        if code == _NO_CONTEXT:  # a thread that has not used the GPU yet
            self.enter(self.context(index))
            code = self._slow.cuLaunchKernel(kernel, x, y, z, threads, 1, 1, 0, stream, table, None)
        if code:
            self._check(code)

    def pin(self, address: int, nbytes: int) -> bool:
        """Lock memory in its place, so that GPUs reach it by themselves; tell whether the driver did."""
        return self._slow.cuMemHostRegister_v2(address, nbytes, _PORTABLE) == 0

    def unpin(self, address: int) -> None:
        """Undo ``pin``."""
        self._slow.cuMemHostUnregister(address)

    def wait(self, event: int) -> None:
        """Wait until what was queued before an event is done."""
        code = self._query(event)
        if code == _NOT_READY:
            code = self._synchronize(event)
        self._check(code)


@cache
def driver() -> Driver:
    """Return the driver's functions."""
    return Driver()
