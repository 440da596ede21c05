"""The CPU as a device: what it is, which libraries it has, and how many threads a kernel may use."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ...core.profile import TIMING_METHOD
from ...core.settings import available_threads
from ..base import Backend, Kernel

# Rooms of this backend that offer kernels; each has a function ``kernels()``.
ROOMS = ("elementwise", "reduce", "gather", "fft", "nufft", "attention")
LIBRARIES = ("numpy", "scipy", "torch", "finufft")


@cache
def installed(library: str) -> bool:
    """Tell whether a library could be imported, without importing it."""
    return importlib.util.find_spec(library) is not None


def needs(library: str) -> bool | str:
    """Return True, or the reason to give where a kernel's library is missing."""
    if installed(library):
        return True
    wanted = "'adaptive-compute[torch]'" if library == "torch" else library
    return f"{library} is not installed (pip install {wanted})"


@contextmanager
def torch_threads(count: int) -> Iterator[Any]:
    """Give torch this many threads inside the block and restore what it had."""
    import torch

    before = torch.get_num_threads()
    if before == count:
        yield torch
        return
    torch.set_num_threads(count)
    try:
        yield torch
    finally:
        torch.set_num_threads(before)


@cache
def processor() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class CpuBackend(Backend):
    """The host processor."""

    name = "cpu"

    def devices(self) -> Sequence[str]:
        return ["cpu"]

    def kernels(self) -> Sequence[Kernel]:
        return [kernel for room in ROOMS for kernel in import_module(f"{__package__}.{room}").kernels()]

    def validators(self, device: str) -> dict[str, str]:
        return _validators()

    def facts(self, device: str) -> dict[str, str]:
        return {**_validators(), "python": platform.python_version(), "system": platform.platform()}

    def memory(self, device: str) -> int | None:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return None

    def upload(self, host: np.ndarray, device: str) -> Any:
        return host

    def download(self, array: Any) -> np.ndarray:
        return array


@cache
def _validators() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {
        "processor": processor(),
        "threads": str(available_threads()),
        "timing": TIMING_METHOD,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
