"""CUDA kernels compiled from this library's own sources, and kept on disk for the next process.

By NVRTC as CuPy binds it, but not by ``cupy.RawKernel``, which always compiles so that numbers below the smallest
normal one become zero. NumPy keeps them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...core.files import write_atomically
from ...core.profile import default_path

# Without contraction: NumPy rounds every product, so x*x - x*x is NaN where x*x overflows, and 0 elsewhere.
OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
MOST = 1024  # files that are kept; the ones that were written longest ago go first
_compiling = threading.Lock()


@lru_cache(maxsize=512)
def compiled(text: str, index: int) -> Any:
    """Return the kernel named ``compute`` of a source, for a GPU."""
    import cupy

    device = cupy.cuda.Device(index)
    with device, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's about where it looks for headers that these sources do not need
        module = cupy.cuda.function.Module()
        module.load(_binary(text, device.compute_capability))
        return module.get_function("compute")


def _binary(text: str, architecture: str) -> bytes:
    from cupy.cuda import compiler, nvrtc

    key = hashlib.sha256(repr((text, OPTIONS, architecture, nvrtc.getVersion(), _headers())).encode()).hexdigest()
    place = _folder()
    path = None if place is None else place / f"{key}.cubin"
    if path is not None:
        with contextlib.suppress(OSError):
            return path.read_bytes()
    options = (*OPTIONS, *(f"-I{folder}" for folder in _headers()))
    with _compiling:
        binary, _ = compiler.compile_using_nvrtc(text, options, architecture)
    if path is not None:
        _keep(path, binary)
    return binary


@lru_cache(maxsize=1)
def _headers() -> tuple[str, ...]:
    """Return where CuPy keeps the headers of complex numbers."""
    import cupy

    folder = Path(cupy.__file__).parent / "_core" / "include"
    libraries = [folder / "cupy" / "_cccl" / name for name in ("thrust", "libcudacxx", "cub")]
    return tuple(str(place) for place in (folder, *libraries) if place.is_dir())


def _folder() -> Path | None:
    """Return the folder of compiled kernels in the user's cache; None where there can be none."""
    try:
        folder = default_path().parent / "kernels"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (OSError, RuntimeError):
        return None
    return folder


def _keep(path: Path, binary: bytes) -> None:
    with contextlib.suppress(OSError):
        kept = sorted(path.parent.glob("*.cubin"), key=lambda file: file.stat().st_mtime)
        for old in kept[: max(len(kept) + 1 - MOST, 0)]:
            os.unlink(old)
        write_atomically(path, lambda file: file.write(binary))
