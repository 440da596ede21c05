"""CUDA kernels of the layers, compiled for their constants when they are first used, and kept on disk by CuPy.

A step of a layer starts a dozen kernels, so what the host does for each counts: arguments are written to places that a
launch's parameters already point to.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from ctypes import addressof, c_uint64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

Launch = Callable[[str, tuple[int, int], int, int, tuple[Any, ...]], None]
ARGUMENTS = 32  # of a kernel, at most
_compiling = threading.Lock()


class Places(threading.local):
    """A thread's eight bytes for each argument of a launch, and their addresses; the driver reads them at once."""

    def __init__(self) -> None:
        self.values = (c_uint64 * ARGUMENTS)()
        first = addressof(self.values)
        self.addresses = (c_void_p * ARGUMENTS)(*(first + 8 * n for n in range(ARGUMENTS)))
        self.parameters = addressof(self.addresses)


_places = Places()


def launcher(files: tuple[str, ...], constants: Mapping[str, int], index: int) -> Launch:
    """Return what starts the kernels of a source on torch's current stream of a GPU.

    Parameters
    ----------
    files : tuple of str
        The source: files beside this module, one behind the other.
    constants : mapping
        The macros that it is compiled with.
    index : int
        Which GPU.

    Returns
    -------
    callable
        ``launch(name, grid, threads, shared, arguments)``: ``shared`` bytes of a block's shared memory; arguments are
        tensors, for their address, and whole numbers that are not negative.
    """
    return _launcher(files, tuple(constants.items()), index)


@lru_cache(maxsize=64)
def shared_memory(index: int) -> int:
    """Return how many bytes of shared memory a block may have on a GPU."""
    return torch.cuda.get_device_properties(index).shared_memory_per_block_optin


@lru_cache(maxsize=256)
def _launcher(files: tuple[str, ...], constants: tuple[tuple[str, int], ...], index: int) -> Launch:
    import cupy

    driver = cupy.cuda.driver
    options = ("--std=c++17", *(f"-D{name}={value}" for name, value in constants))
    with _compiling, cupy.cuda.Device(index), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's about where it looks for headers that these sources do not need
        module = cupy.RawModule(code=source(files), options=options)
        module.compile()
        context = driver.ctxGetCurrent()
    functions: dict[tuple[str, int], Any] = {}

    def function(name: str, shared: int) -> Any:
        raw = module.get_function(name)
        if shared > 48 << 10:  # more than that a kernel must ask for
            raw.max_dynamic_shared_size_bytes = shared
        functions[name, shared] = raw.kernel.ptr, raw  # kept, for as long as its address is
        return functions[name, shared]

    def launch(name: str, grid: tuple[int, int], threads: int, shared: int, arguments: tuple[Any, ...]) -> None:
        if torch.cuda.current_device() != index:
            with torch.cuda.device(index):
                return launch(name, grid, threads, shared, arguments)
        if driver.ctxGetCurrent() != context:  # a thread has none before it has used CUDA's runtime
            driver.ctxSetCurrent(context)
        pointer, _ = functions.get((name, shared)) or function(name, shared)
        values = _places.values
        for n, x in enumerate(arguments):
            values[n] = x.data_ptr() if isinstance(x, torch.Tensor) else x
        stream = torch.cuda.current_stream(index).cuda_stream
        driver.launchKernel(pointer, *grid, 1, threads, 1, 1, shared, stream, _places.parameters, 0)

    return launch


@lru_cache(maxsize=16)
def source(files: tuple[str, ...]) -> str:
    """Return the text of source files beside this module, one behind the other."""
    return "\n".join((Path(__file__).parent / file).read_text(encoding="utf-8") for file in files)
