"""What Vulkan says of its devices, asked of the loader itself: Kompute tells only a name and the workgroup limits."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from dataclasses import dataclass
from functools import cache

LARGEST = (1 << 32) - 4096  # Kompute counts bytes in 32 bits

_VK_SUCCESS, _VK_INCOMPATIBLE_DRIVER = 0, -9
_DRIVER_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
_KINDS = {0: "other", 1: "integrated", 2: "discrete", 3: "virtual", 4: "software"}
# Structure types of the requests below (Vulkan 1.1 core, and driver properties of 1.2).
_INSTANCE, _APPLICATION = 1, 0
_PROPERTIES2, _ID_PROPERTIES, _SUBGROUP, _DRIVER = 1000059001, 1000071004, 1000094000, 1000196000
_SUBGROUP_SIZES = 1000225000
_COMPUTE_STAGE, _SHUFFLE_OPERATIONS = 0x20, 0x10
_API_1_1 = 1 << 22 | 1 << 12


@dataclass(frozen=True)
class Limits:
    """One device: what it is and how much it takes. Sizes are in bytes.

    ``shuffle`` is the fewest invocations of a subgroup in which they can read each other's values; 0 where they cannot.
    ``waits`` says that workgroups may wait for each other although the driver is not known for it.
    """

    name: str
    kind: str
    uuid: str
    driver: str
    api: str
    buffer: int
    shared_memory: int
    invocations: int
    group_size: tuple[int, int, int]
    subgroup: int
    memory: int
    timestamp_period: float
    float64: bool
    shuffle: int = 0
    waits: bool = False

    @property
    def software(self) -> bool:
        """True for a driver that computes on the processor."""
        return self.kind == "software"

    @property
    def fair(self) -> bool:
        """True where workgroups that run are known to go on while others wait for them; Vulkan promises it nowhere."""
        return self.waits or self.driver.startswith("NVIDIA")

    @property
    def largest(self) -> int:
        """Bytes of the largest buffer that can be had."""
        return min(self.buffer, LARGEST)

    def too_large(self, nbytes: int) -> str | None:
        """Return why a buffer of this size cannot be had, or None."""
        if nbytes <= self.largest:
            return None
        return f"a buffer of {nbytes / 2**20:.0f} MiB exceeds the {self.largest / 2**20:.0f} MiB of {self.name}"


def library() -> str | None:
    """Return the name of Vulkan's loader, or None where it is not installed."""
    for name in ("libvulkan.so.1", "vulkan-1.dll", "libvulkan.1.dylib", "libMoltenVK.dylib"):
        try:
            ctypes.CDLL(name)
            return name
        except OSError:
            continue
    return ctypes.util.find_library("vulkan")


@cache
def devices() -> tuple[Limits, ...]:
    """Return every Vulkan device in the loader's order (which is Kompute's). Raises OSError with the reason."""
    name = library()
    if name is None:
        raise OSError("Vulkan's loader (libvulkan) is not installed")
    vk = ctypes.CDLL(name)
    instance = _create_instance(vk)
    try:
        count = ctypes.c_uint32()
        _check(vk.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None), "listing devices")
        handles = (ctypes.c_void_p * max(count.value, 1))()
        _check(vk.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles), "listing devices")
        return tuple(_limits(vk, ctypes.c_void_p(handle)) for handle in handles[: count.value])
    finally:
        vk.vkDestroyInstance(instance, None)


def _check(code: int, what: str) -> None:
    code = ctypes.c_int32(code).value
    if code == _VK_INCOMPATIBLE_DRIVER:
        named = [f"{name}={os.environ[name]}" for name in _DRIVER_VARIABLES if os.environ.get(name)]
        where = f", and {named[0]} is the only place where the loader looks" if named else ""
        raise OSError(f"no Vulkan driver is installed{where}")
    if code != _VK_SUCCESS:
        raise OSError(f"Vulkan answered {code} to {what}")


class _Application(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32), ("next", ctypes.c_void_p), ("name", ctypes.c_char_p), ("version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p), ("engine_version", ctypes.c_uint32), ("api", ctypes.c_uint32),
    )  # fmt: skip


class _InstanceInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32), ("next", ctypes.c_void_p), ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p), ("layers", ctypes.c_uint32), ("layer_names", ctypes.c_void_p),
        ("extensions", ctypes.c_uint32), ("extension_names", ctypes.c_void_p),
    )  # fmt: skip


def _create_instance(vk: ctypes.CDLL) -> ctypes.c_void_p:
    application = _Application(_APPLICATION, None, b"adaptive-compute", 0, None, 0, _API_1_1)
    info = _InstanceInfo(_INSTANCE, None, 0, ctypes.addressof(application), 0, None, 0, None)
    instance = ctypes.c_void_p()
    _check(vk.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)), "creating an instance")
    return instance


class _Chained:
    """A structure of Vulkan's as raw bytes: type, pointer to the next, then the body that the driver fills."""

    def __init__(self, kind: int, size: int, following: _Chained | None = None) -> None:
        self.raw = ctypes.create_string_buffer(size)
        struct.pack_into("<I4xQ", self.raw, 0, kind, 0 if following is None else ctypes.addressof(following.raw))

    def read(self, form: str, offset: int) -> tuple:
        return struct.unpack_from(form, self.raw, offset)


def _limits(vk: ctypes.CDLL, handle: ctypes.c_void_p) -> Limits:
    driver = _Chained(_DRIVER, 544)
    sizes = _Chained(_SUBGROUP_SIZES, 64, driver)  # stays zero where the driver does not know it
    subgroup = _Chained(_SUBGROUP, 64, sizes)
    identity = _Chained(_ID_PROPERTIES, 80, subgroup)
    properties = _Chained(_PROPERTIES2, 1024, identity)
    vk.vkGetPhysicalDeviceProperties2(handle, properties.raw)
    base = 16  # VkPhysicalDeviceProperties inside VkPhysicalDeviceProperties2
    api, version, _, _, kind = properties.read("<5I", base)
    name = properties.read("256s", base + 20)[0].split(b"\0")[0].decode(errors="replace")
    limits = base + 296  # its VkPhysicalDeviceLimits, aligned to 8 bytes
    (buffer,) = properties.read("<I", limits + 28)
    shared, *_groups, invocations, gx, gy, gz = properties.read("<8I", limits + 216)
    (period,) = properties.read("<f", limits + 424)
    uuid = identity.read("16s", 16)[0].hex()
    lanes, stages, operations = subgroup.read("<3I", 16)
    (fewest,) = sizes.read("<I", 16)
    shuffles = bool(stages & _COMPUTE_STAGE and operations & _SHUFFLE_OPERATIONS)
    label = driver.read("256s", 20)[0].split(b"\0")[0].decode(errors="replace")
    info = driver.read("256s", 276)[0].split(b"\0")[0].decode(errors="replace")
    features = ctypes.create_string_buffer(1024)
    vk.vkGetPhysicalDeviceFeatures(handle, features)
    (float64,) = struct.unpack_from("<I", features, 4 * 35)  # shaderFloat64 is the 36th feature
    return Limits(
        name, _KINDS.get(kind, "other"), uuid, f"{label} {info}".strip() or str(version),
        f"{api >> 22}.{api >> 12 & 0x3FF}.{api & 0xFFF}", buffer, shared, invocations, (gx, gy, gz), lanes,
        _memory(vk, handle), period, bool(float64), fewest if shuffles else 0,
    )  # fmt: skip


def _memory(vk: ctypes.CDLL, handle: ctypes.c_void_p) -> int:
    """Return the size of the largest device-local heap."""
    raw = ctypes.create_string_buffer(1024)
    vk.vkGetPhysicalDeviceMemoryProperties(handle, raw)
    (types,) = struct.unpack_from("<I", raw, 0)
    heaps_at = 4 + 32 * 8  # the count, then room for 32 memory types
    (heaps,) = struct.unpack_from("<I", raw, heaps_at)
    del types
    sizes = []
    for index in range(heaps):
        size, flags = struct.unpack_from("<QI", raw, heaps_at + 4 + index * 16)
        if flags & 1:
            sizes.append(size)
    return max(sizes, default=0)
