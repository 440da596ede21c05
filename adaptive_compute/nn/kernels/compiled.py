"""CUDA kernels of the layers, compiled for their constants when they are first used, and kept on disk by CuPy."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

Launch = Callable[[str, tuple[int, int], int, int, tuple[Any, ...]], None]
_compiling = threading.Lock()


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
        tensors, for their address, and whole numbers.
    """
    return _launcher(files, tuple(constants.items()), index)


@lru_cache(maxsize=256)
def _launcher(files: tuple[str, ...], constants: tuple[tuple[str, int], ...], index: int) -> Launch:
    import cupy

    options = ("--std=c++17", *(f"-D{name}={value}" for name, value in constants))
    with _compiling, cupy.cuda.Device(index), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's about where it looks for headers that these sources do not need
        module = cupy.RawModule(code=source(files), options=options)
        module.compile()

    @lru_cache(maxsize=64)
    def function(name: str, shared: int) -> Any:
        raw = module.get_function(name)
        if shared > 48 << 10:  # more than that a kernel must ask for
            raw.max_dynamic_shared_size_bytes = shared
        return raw.kernel

    def launch(name: str, grid: tuple[int, int], threads: int, shared: int, arguments: tuple[Any, ...]) -> None:
        with cupy.cuda.Device(index):
            stream = _stream(torch.cuda.current_stream(index).cuda_stream, index)
            values = [x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments]
            function(name, shared)(grid, (threads,), values, shared, stream)

    return launch


@lru_cache(maxsize=16)
def source(files: tuple[str, ...]) -> str:
    """Return the text of source files beside this module, one behind the other."""
    return "\n".join((Path(__file__).parent / file).read_text(encoding="utf-8") for file in files)


@lru_cache(maxsize=64)
def _stream(pointer: int, index: int) -> Any:
    import cupy

    return cupy.cuda.ExternalStream(pointer, index)
