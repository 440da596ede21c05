"""How much memory a Vulkan device can still give, asked before each allocation.

Kompute does not look at the result of ``vkAllocateMemory`` and its like: where the driver has no room, it goes on with
a null handle and the process dies of a segmentation fault. So what is asked for is compared with the driver's own
budget (VK_EXT_memory_budget), which counts what other processes hold. Where the driver tells none, nothing is refused.
"""

from __future__ import annotations

import ctypes
import struct
from typing import NamedTuple

from .limits import _Chained, _check, _create_instance, library

SPARE = 32 << 20  # left alone: drivers take memory for pipelines, descriptors and command buffers too

_PROPERTIES2, _BUDGET = 1000059006, 1000237000
_TYPES, _HEAPS = 32, 16  # the most that Vulkan has
_DEVICE_LOCAL, _HOST_VISIBLE_COHERENT = 1, 2 | 4
_EXTENSION = b"VK_EXT_memory_budget"


class Left(NamedTuple):
    """Bytes that may still be allocated on the device and for its staging memory; ``shared`` where both are one."""

    device: int
    staging: int
    shared: bool

    def lacks(self, device: int, staging: int) -> str | None:
        """Return why so many bytes more cannot be had, or None."""
        wanted = device + staging if self.shared else device
        if wanted + SPARE > self.device:
            return f"{wanted / 2**20:.1f} MiB asked for, {self.device / 2**20:.1f} MiB are left in the device's memory"
        if staging and staging > self.staging:
            return f"{staging / 2**20:.1f} MiB of staging memory asked for, {self.staging / 2**20:.1f} MiB are left"
        return None


class Room:
    """The budget of one device, in the loader's order. Keeps an instance of Vulkan open until ``close``."""

    def __init__(self, index: int) -> None:
        self._vk = ctypes.CDLL(library())
        self._instance: ctypes.c_void_p | None = _create_instance(self._vk)
        count = ctypes.c_uint32(index + 1)
        handles = (ctypes.c_void_p * (index + 1))()
        code = self._vk.vkEnumeratePhysicalDevices(self._instance, ctypes.byref(count), handles)
        if code != 5:  # VK_INCOMPLETE: there are more devices than were asked for
            _check(code, "listing devices")
        self._device = ctypes.c_void_p(handles[index])
        self.told = self._has_budget()

    def _has_budget(self) -> bool:
        count = ctypes.c_uint32()
        ask = self._vk.vkEnumerateDeviceExtensionProperties
        _check(ask(self._device, None, ctypes.byref(count), None), "listing extensions")
        raw = ctypes.create_string_buffer(260 * max(count.value, 1))  # a name of 256 bytes and a version each
        _check(ask(self._device, None, ctypes.byref(count), raw), "listing extensions")
        return any(raw.raw[at : at + 256].split(b"\0")[0] == _EXTENSION for at in range(0, 260 * count.value, 260))

    def left(self) -> Left | None:
        """Return what is left now, or None where the driver does not tell."""
        if not self.told or self._instance is None:
            return None
        budget = _Chained(_BUDGET, 16 + 16 * _HEAPS)
        properties = _Chained(_PROPERTIES2, 1024, budget)
        self._vk.vkGetPhysicalDeviceMemoryProperties2(self._device, properties.raw)
        (count,) = properties.read("<I", 16)
        types = [struct.unpack_from("<2I", properties.raw, 20 + 8 * index) for index in range(min(count, _TYPES))]
        may, held = (budget.read(f"<{_HEAPS}Q", at) for at in (16, 16 + 8 * _HEAPS))
        # Kompute takes the first memory type that has these flags.
        device, staging = (
            next(heap for flags, heap in types if flags & wanted == wanted)
            for wanted in (_DEVICE_LOCAL, _HOST_VISIBLE_COHERENT)
        )
        return Left(max(may[device] - held[device], 0), max(may[staging] - held[staging], 0), device == staging)

    def close(self) -> None:
        """Give the instance back."""
        if self._instance is not None:
            self._vk.vkDestroyInstance(self._instance, None)
            self._instance = None
