"""How many threads NumPy's matrix products take.

OpenBLAS shares a product out among threads of its own. Where a kernel has its own threads, both wait for each other,
by spinning; cutting products until OpenBLAS leaves them alone costs a fifth of its speed. So a kernel may ask OpenBLAS
for one thread while it runs.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

PTHREADS = 1  # what openblas_get_parallel says of a build with threads of its own


class OpenBlas(NamedTuple):
    """The functions of the OpenBLAS that NumPy brought along."""

    get: Callable[[], int]
    set: Callable[[int], None]


@cache
def openblas() -> OpenBlas | None:
    """Return NumPy's OpenBLAS, or None where NumPy brings none or its thread count cannot be changed safely.

    A build on OpenMP frees the buffers of its threads when the count changes, also those that another thread's product
    is using; a build with threads of its own only notes the number.
    """
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(path))  # loaded already by NumPy: the same instance
            except OSError:
                continue
            for prefix, suffix in product(("scipy_openblas", "openblas"), ("64_", "_64", "")):
                try:
                    get, change, kind = (
                        getattr(library, f"{prefix}_{name}{suffix}")
                        for name in ("get_num_threads", "set_num_threads", "get_parallel")
                    )
                except AttributeError:
                    continue
                return OpenBlas(get, change) if kind() == PTHREADS else None
    return None


class _Lent:
    """The thread count that OpenBLAS had before the first of the blocks that now hold it at one."""

    lock = threading.Lock()
    blocks = 0
    before = 1


@contextmanager
def one_thread() -> Iterator[bool]:
    """Let NumPy compute each product in the thread that asks; the value tells whether that could be had.

    The count belongs to the process: products of other threads take one thread as well meanwhile.
    """
    library = openblas()
    if library is None:
        yield False
        return
    with _Lent.lock:
        if not _Lent.blocks:
            _Lent.before = library.get()
            library.set(1)
        _Lent.blocks += 1
    try:
        yield True
    finally:
        with _Lent.lock:
            _Lent.blocks -= 1
            if not _Lent.blocks:
                library.set(_Lent.before)
