"""What the NVIDIA driver tells of its GPUs, asked without starting CUDA: a process that forks may still use it after.

Names, memory and UUIDs come from NVML, the driver's management library. Where it is missing (some embedded systems),
torch is asked instead.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple


class Gpu(NamedTuple):
    """One GPU that this process may use."""

    name: str
    uuid: str
    memory: int


class Found(NamedTuple):
    """The GPUs in CUDA's order, the driver's version, and where there is none, why."""

    gpus: tuple[Gpu, ...]
    version: str
    reason: str = ""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _library(*names: str) -> Any:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


@cache
def found() -> Found:
    """Return what GPUs there are. Asked once: a driver does not come or go while a process runs."""
    nvml = _library(*(("nvml.dll",) if sys.platform == "win32" else ("libnvidia-ml.so.1",)))
    if nvml is not None:
        return _ask_nvml(nvml)
    if _library(*(("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1",))) is None:
        return Found((), "", "there is no NVIDIA driver here (neither libnvidia-ml nor libcuda could be loaded)")
    return _ask_torch()


def _ask_nvml(nvml: Any) -> Found:
    if nvml.nvmlInit_v2() != 0:
        return Found((), "", "the NVIDIA driver's library is here, but the driver does not answer (nvmlInit failed)")
    try:
        text = ctypes.create_string_buffer(96)
        nvml.nvmlSystemGetDriverVersion(text, ctypes.c_uint(96))
        version = text.value.decode(errors="replace")
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        every = tuple(_gpu(nvml, index) for index in range(count.value))
    finally:
        nvml.nvmlShutdown()
    gpus = visible(every, os.environ)
    if gpus:
        return Found(gpus, version)
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = f"; CUDA_VISIBLE_DEVICES={shown!r} shows none of {len(every)}" if every else ""
    return Found((), version, f"the NVIDIA driver {version} lists no GPU for this process{hidden}")


def _gpu(nvml: Any, index: int) -> Gpu:
    handle, memory = ctypes.c_void_p(), _Memory()
    name, uuid = ctypes.create_string_buffer(96), ctypes.create_string_buffer(96)
    nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
    nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(96))
    nvml.nvmlDeviceGetUUID(handle, uuid, ctypes.c_uint(96))
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    return Gpu(name.value.decode(errors="replace"), uuid.value.decode(errors="replace"), int(memory.total))


def visible(every: tuple[Gpu, ...], environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order, by CUDA's rules.

    A number is a place, anything else the beginning of a UUID; the list ends at the first entry that is neither.
    """
    asked = environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return every
    kept: list[Gpu] = []
    for entry in (part.strip() for part in asked.split(",")):
        if entry.isdecimal():
            matches = every[int(entry) : int(entry) + 1]
        else:
            matches = tuple(gpu for gpu in every if entry and gpu.uuid.startswith(entry))
        if len(matches) != 1:
            break
        kept.append(matches[0])
    return tuple(kept)


def _ask_torch() -> Found:
    try:
        import torch
    except ImportError:
        return Found((), "", "NVML is missing, so torch would have to be asked for the GPUs, and it is not installed")
    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(Gpu(properties.name, str(getattr(properties, "uuid", index)), int(properties.total_memory)))
    return Found(tuple(gpus), "unknown", "" if gpus else "torch finds no GPU here")
