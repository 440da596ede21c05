"""NVIDIA GPUs as devices: which there are, what they have, and how data gets to them and back."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DtypeError
from ...core.profile import TIMING_METHOD
from ..base import Backend, Kernel
from . import driver, memory

ROOMS = ("elementwise", "reduce", "gather", "fft", "nufft", "attention")
LIBRARIES = ("torch", "cupy", "triton", "cufinufft")
# What torch has as a dtype; the unsigned ones beyond uint8 can be stored and moved, and little else.
DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128",
)  # fmt: skip


QUICK = 8 << 20  # bytes below which there may be a way of fewer steps
_HELD = frozenset(np.dtype(name) for name in DTYPES if name != "bfloat16")  # NumPy has no name for that one


@cache
def _link() -> Any:
    return import_module(f"{__package__}.link")


@cache
def _small() -> Any:
    return import_module(f"{__package__}.small")


@cache
def installed(library: str) -> bool:
    """Tell whether a library could be imported, without importing it."""
    return library in sys.modules or importlib.util.find_spec(library) is not None


@cache
def needs(library: str) -> bool | str:
    """Return True, or the reason to give where a kernel's library is missing or does not load."""
    if not installed(library):
        wanted = {"cupy": "'adaptive-compute[cuda13]' or [cuda12]"}.get(library, library)
        return f"{library} is not installed (pip install {wanted})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of its surroundings when it is loaded
            import_module(library)
    except Exception as error:  # a library built for another CUDA fails in its own way
        return f"{library} is installed and does not load: {memory.first_line(error)}"
    return True


@cache
def torch_cuda() -> str | None:
    """Return the CUDA version that the installed torch was built for, without importing it; None for a CPU build."""
    if "torch" in sys.modules:
        return sys.modules["torch"].version.cuda
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            text = (Path(folder) / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
        return match.group(1) if match else None
    return None


@lru_cache(maxsize=64)
def index_of(device: str) -> int:
    """Return a device's number."""
    return int(device.partition(":")[2])


@lru_cache(maxsize=64)
def dtype_of(name: str) -> Any:
    """Return torch's dtype of this name."""
    import torch

    return getattr(torch, name)


@contextmanager
def on(tensor: Any) -> Iterator[None]:
    """Make a tensor's GPU the current one; a host tensor (Triton's interpreter) needs nothing."""
    import torch

    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        yield
        return
    with torch.cuda.device(tensor.device):
        yield


class CudaBackend(Backend):
    """Every NVIDIA GPU that this process may use. Arrays are torch tensors; CuPy arrays are viewed as such."""

    name = "cuda"
    accepts = ("torch",)

    def available(self) -> bool | str:
        if not installed("torch"):
            return "torch is not installed, which all CUDA kernels need"
        reason = driver.found().reason
        if reason:
            return reason
        return True if torch_cuda() else "the installed torch was built without CUDA"

    def remedy(self) -> str | None:
        if not installed("torch"):
            return "pip install 'adaptive-compute[cuda13]' (or [cuda12], by the driver's CUDA version)"
        if driver.found().reason:
            return "install NVIDIA's driver, and check with nvidia-smi that it shows a GPU"
        if not torch_cuda():
            return "pip install torch --index-url https://download.pytorch.org/whl/cu130 (a CUDA build)"
        return None

    def devices(self) -> Sequence[str]:
        return [f"cuda:{index}" for index in range(len(driver.found().gpus))]

    def kernels(self) -> Sequence[Kernel]:
        from . import array  # registers the kind of CuPy's arrays

        array.register()
        rooms = [import_module(f"{__package__}.{room}") for room in ROOMS]
        return [kernel for device in self.devices() for room in rooms for kernel in room.kernels(device)]

    def validators(self, device: str) -> dict[str, str]:
        gpu = driver.found().gpus[index_of(device)]
        return {
            "gpu": gpu.name, "uuid": gpu.uuid, "driver": driver.found().version, "cuda": str(torch_cuda()),
            "timing": TIMING_METHOD, **_versions(),
        }  # fmt: skip

    def facts(self, device: str) -> dict[str, str]:
        gpu = driver.found().gpus[index_of(device)]
        return {**self.validators(device), "memory": f"{gpu.memory / 2**30:.1f} GiB"}

    def memory(self, device: str) -> int | None:
        return driver.found().gpus[index_of(device)].memory

    def kept(self, host: Any, device: str) -> Any:
        return _link().kept(host, index_of(device))

    def upload(self, host: Any, device: str) -> Any:
        if type(host) is np.ndarray and host.nbytes < QUICK and host.dtype in _HELD:
            try:
                quick = _small().up(host, device)
            except Exception as error:
                memory.make_room(error)
                quick = None
            if quick is not None:
                return quick
        if isinstance(host, np.ndarray) and host.dtype not in _HELD:
            raise DtypeError(f"a GPU holds no {host.dtype}; {', '.join(DTYPES)} are accepted")
        return memory.guarded(_link().upload, host, index_of(device))

    def download(self, array: Any) -> Any:
        """Copy to the host as a NumPy array; a bfloat16 tensor, for which NumPy has no dtype, as a torch one."""
        link = _link()
        return link.download(array if type(array) is link.torch_tensor() else self.view(array, "torch"))

    def view(self, array: Any, kind: str) -> Any:
        """Return the same memory as a torch tensor or a CuPy array."""
        if kind == "torch" and type(array) is _link().torch_tensor():
            return array
        from . import array as kinds

        return kinds.view(array, kind)

    def across(self, array: Any, device: str) -> Any:
        """Copy to another GPU, directly where the two are connected, behind what the caller's stream there does."""
        tensor = self.view(array, "torch")
        return memory.guarded(tensor.to, device)

    def synchronize(self, device: str) -> None:
        import torch

        torch.cuda.synchronize(index_of(device))

    def release(self) -> None:
        _link().release()
        memory.release()


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for library in LIBRARIES:
        for package in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if library == "cupy" else (library,):
            try:
                found[library] = version(package)
                break
            except PackageNotFoundError:
                found[library] = "of unknown version" if installed(library) else "not installed"
    return found
