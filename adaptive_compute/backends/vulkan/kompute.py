"""Kompute (``kp``) and its traps, in one file: the only one that touches it.

What it raises is turned into the errors that the dispatcher acts on; where it would crash for want of memory, the
driver's budget is asked first; it is never touched again by the child of a fork or after the device is lost.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...core.errors import DeviceLost, DeviceOutOfMemory
from ...shaders import spirv
from .limits import devices
from .program import Step
from .room import Room


def installed() -> bool | str:
    """Return True, or the reason why no Vulkan device can be used."""
    try:
        import kp  # noqa: F401
    except ImportError as error:
        return f"Kompute's Python package (kp) cannot be imported: {error}"
    try:
        return True if devices() else "Vulkan's loader finds no device: no driver is installed"
    except OSError as error:
        return str(error)


class Counts:
    """What a device has done; ``submits`` is the figure that one call must raise by one."""

    def __init__(self) -> None:
        self.submits = self.recorded = self.allocated = 0


class Kompute:
    """One device, opened: tensors, pipelines and sequences of it, and the operations that a sequence records."""

    def __init__(self, index: int, name: str) -> None:
        import kp

        self._kp = kp
        self.name = name
        self.counts = Counts()
        self.lost: str | None = None  # why the device must not be touched any more
        self._disowned = False
        with self.translated("opening the device"):
            self.room = Room(index)
            self.manager = kp.Manager(index)

    def tensor(self, capacity: int, staged: bool) -> Any:
        """Allocate memory, with a staging twin on the host where ``staged`` says so."""
        kinds = self._kp.TensorTypes
        with self.translated(f"allocating {capacity} bytes"):
            self.need(capacity, capacity if staged else 0)
            return self.manager.tensor_t(np.zeros(capacity // 4, np.uint32), kinds.device if staged else kinds.storage)

    def pipeline(self, step: Step, tensors: Sequence[Any]) -> Any:
        """Build the pipeline of a dispatch over the tensors of its buffers."""
        constants, sizes = np.array(step.constants, np.uint32), np.array(step.sizes, np.uint32)
        return self.manager.algorithm(tensors, spirv(step.shader), step.groups, constants, sizes)

    def sequence(self, timestamps: int = 0) -> Any:
        """Begin a sequence of operations, with room for so many timestamps."""
        return self.manager.sequence(0, timestamps) if timestamps else self.manager.sequence()

    def up(self, tensors: Sequence[Any]) -> Any:
        """Return the operation that copies staging memory to the device."""
        return self._kp.OpTensorSyncDevice(tensors)

    def down(self, tensors: Sequence[Any]) -> Any:
        """Return the operation that copies device memory to its staging twin."""
        return self._kp.OpTensorSyncLocal(tensors)

    def dispatch(self, pipeline: Any) -> Any:
        """Return the operation that runs a pipeline."""
        return self._kp.OpAlgoDispatch(pipeline)

    def need(self, device: int, staging: int) -> None:
        """Raise MemoryError where the driver has no room for so many bytes: Kompute would crash, not raise."""
        left = self.room.left()
        lacking = None if left is None else left.lacks(device, staging)
        if lacking is not None:
            raise MemoryError(lacking)

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Turn Vulkan's errors into the ones that the dispatcher acts on."""
        if self.lost is not None:
            raise DeviceLost(f"{self.name} was lost earlier ({self.lost})")
        try:
            yield
        except MemoryError as error:  # the driver's, or the host's: Kompute's copies of what it uploads
            raise DeviceOutOfMemory(f"{self.name} has no room while {what}: {error or 'no host memory'}") from error
        except RuntimeError as error:
            text = str(error)
            if "DeviceLost" in text:
                self.lost = text
                raise DeviceLost(f"{self.name} was lost while {what}: {text}") from error
            if "OutOf" in text and "Memory" in text:
                raise DeviceOutOfMemory(f"{self.name} has no room while {what}: {text}") from error
            raise

    @property
    def gone(self) -> bool:
        """True where nothing is left to destroy, or nothing may be."""
        return self._disowned or self.lost == "closed"

    def disown(self, owner: object) -> None:
        """Never touch the device again: a fork's child is without the driver's threads. Its owner is not let go of."""
        self.lost = "the process was forked; use the 'spawn' start method"
        self._disowned = True
        # The end of the process would destroy the device, which waits for the threads that are not here.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
        _skip_exit_handlers()

    def close(self) -> None:
        """Destroy the device; what was made of it must be gone, or goes with it."""
        self.lost = "closed"
        self.manager.destroy()
        self.room.close()


def _skip_exit_handlers() -> None:
    """Let this process end without the driver's handlers of C's ``exit``: Mesa's wait for threads that are not here."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "on_exit"):
        return  # not glibc
    address = ctypes.cast(libc._exit, ctypes.c_void_p)
    libc.on_exit(address, None)  # handlers run last in, first out, so this one hides those from before the fork
    libc.__cxa_atexit(ctypes.cast(libc.fflush, ctypes.c_void_p), None, None)  # and what C programs print is not lost
