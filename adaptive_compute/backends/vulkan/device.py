"""The Vulkan backend: its devices, what they are, and its kernels."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...core.array import describe, kind_named
from ...core.errors import BackendUnavailable
from ...core.profile import TIMING_METHOD
from ..base import Backend, Kernel
from . import array as _array
from . import tuning as _tuning
from .kompute import installed
from .limits import devices
from .runtime import opened_runtimes

# Rooms of this backend that offer kernels; each has a function ``kernels(device)``.
ROOMS = ("elementwise", "reduce", "gather", "fft", "nufft", "attention")
SCRIPT = Path(__file__).with_name("build-kp.sh")
# Which of the loader's devices to use: numbers or UUIDs, as CUDA_VISIBLE_DEVICES does for CUDA. They keep their names.
VISIBLE = "ADAPTIVE_VULKAN_DEVICES"


class VulkanBackend(Backend):
    """Every device that a Vulkan driver offers, software ones included."""

    name = "vulkan"
    accepts = ("torch",)  # as they are, because NumPy has no bfloat16

    def available(self) -> bool | str:
        return _installed()

    def remedy(self) -> str | None:
        return f"bash {SCRIPT} {sys.executable}"

    def steps(self) -> Sequence[str]:
        command = ["bash", str(SCRIPT), "--print", sys.executable]
        try:
            shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ()  # no bash here; docs/backends/vulkan.md says what it would do
        return tuple(shown.stdout.splitlines())

    def devices(self) -> Sequence[str]:
        return [f"vulkan:{index}" for index in visible(os.environ.get(VISIBLE, ""), [d.uuid for d in devices()])]

    def kernels(self) -> Sequence[Kernel]:
        return [kernel for device in self.devices() for room in _rooms() for kernel in room.kernels(device)]

    def validators(self, device: str) -> dict[str, str]:
        limits = devices()[int(device.partition(":")[2])]
        return {
            "device": limits.name, "uuid": limits.uuid, "driver": limits.driver, "timing": TIMING_METHOD,
            "kp": _version("kp"), "package": _version("adaptive-compute"),
        }  # fmt: skip

    def facts(self, device: str) -> dict[str, str]:
        limits = devices()[int(device.partition(":")[2])]
        return {
            **self.validators(device), "vulkan": limits.api,
            "kind": "a software driver: it computes on the processor" if limits.software else f"{limits.kind} GPU",
            "largest buffer": f"{limits.buffer / 2**20:.0f} MiB",
            "shared memory": f"{limits.shared_memory // 1024} KiB",
            "largest workgroup": f"{limits.invocations} invocations, {'x'.join(map(str, limits.group_size))}",
            "subgroup": str(limits.subgroup), "float64": "yes" if limits.float64 else "no",
        }  # fmt: skip

    def memory(self, device: str) -> int | None:
        return devices()[int(device.partition(":")[2])].memory

    def software(self, device: str) -> bool:
        return devices()[int(device.partition(":")[2])].software

    def tune(self, device: str, operations: Collection[str], budget: float) -> dict[str, Any]:
        kernels = [k for room in _rooms() for k in room.kernels(device) if k.operation in operations]
        return _tuning.search(device, kernels, _tuning.tunables(_rooms()), budget)

    def apply(self, device: str, tuning: Mapping[str, Any]) -> None:
        _tuning.apply(device, tuning, _tuning.tunables(_rooms()) if tuning else {})

    def upload(self, host: Any, device: str) -> Any:
        operand = describe(host)
        return _array.upload(kind_named(operand.kind).to_bits(host), device, operand.dtype)

    def download(self, array: Any) -> np.ndarray:
        return _array.download(array)

    def release(self) -> None:
        for opened in opened_runtimes():
            opened.trim()

    def synchronize(self, device: str) -> None:
        """Return at once: every run has finished when it returns."""


def visible(asked: str, uuids: Sequence[str]) -> list[int]:
    """Return the places of the devices that a list of numbers or UUIDs names; all of them where it is empty.

    A UUID may be cut short, have dashes, and begin with ``GPU-``, which is how NVIDIA's tools show it.
    """
    chosen = []
    for entry in filter(None, (part.strip() for part in asked.split(","))):
        digits = entry.lower().removeprefix("gpu-").replace("-", "")
        if entry.isdecimal() and len(entry) < 4:
            matches = [int(entry)] if int(entry) < len(uuids) else []
        else:
            matches = [place for place, uuid in enumerate(uuids) if uuid.startswith(digits)]
        if len(matches) != 1:
            shown = ", ".join(f"{place} ({uuid})" for place, uuid in enumerate(uuids))
            raise BackendUnavailable(f"{VISIBLE}: {entry!r} names {len(matches) or 'no'} device(s) of: {shown}")
        chosen += matches
    return sorted(set(chosen)) if chosen else list(range(len(uuids)))


@cache
def _installed() -> bool | str:
    return installed()


@cache
def _rooms() -> tuple[Any, ...]:
    return tuple(import_module(f"{__package__}.{room}") for room in ROOMS if _exists(room))


def _exists(room: str) -> bool:
    return importlib.util.find_spec(f"{__package__}.{room}") is not None


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


backend = VulkanBackend()
