"""Attention on the CPU: torch's fused SDPA, and a tiled kernel that visits only what a mask keeps (torch or NumPy)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import numpy as np

from ...core.operation import Features, Request
from ...core.operations.attention_rule import given, place, visited
from ...core.transfer import counters
from ..base import Kernel, Plan
from .attention_plans import BackwardPlan, ForwardPlan
from .attention_sdpa import SdpaKernel
from .attention_tiles import Library, Problem, Scratch
from .blas import one_thread, openblas
from .device import needs, torch_threads


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [
        TilesKernel("attention"), SdpaKernel("attention"), NumpyTilesKernel("attention"),
        TilesKernel("attention_backward"), SdpaKernel("attention_backward"), NumpyTilesKernel("attention_backward"),
    ]  # fmt: skip


class TilesKernel(Kernel):
    """Tiles by torch's batched products, one worker thread for each core."""

    name = "tiles"
    native = "torch"

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def supports(self, request: Request) -> bool | str:
        return needs("torch")

    def features(self, request: Request) -> Features:
        keys = max(visited(request), 1.0)
        masked = request.params.mask is not None
        return place(request, "array" if given(request).mask else "topology" if masked else "none", keys)

    def plan(self, request: Request) -> Plan:
        return (ForwardPlan if self.operation == "attention" else BackwardPlan)(self, request)

    def library(self) -> Library:
        """Return the array library that the tiles run on."""
        import torch

        def gemm(a: Any, b: Any, out: Any, alpha: float, accumulate: bool) -> None:
            if not accumulate:
                torch.baddbmm(out, a, b, beta=0, alpha=alpha, out=out)
            elif len(out) == 1 or out.is_contiguous():
                out.baddbmm_(a, b, alpha=alpha)
            else:
                for part, left, right in zip(out, a, b):
                    part.addmm_(left, right, alpha=alpha)

        def array(values: np.ndarray, dtype: Any) -> Any:
            return torch.from_numpy(values).to(dtype)

        return Library(torch, gemm, array, lambda values, size: values.split(size, 1))

    def dtype(self, name: str) -> Any:
        """Return a dtype of the library."""
        import torch

        return getattr(torch, name)

    def take(self, array: Any, dtype: Any) -> Any:
        """Return an array in a dtype, with rows that lie in one piece."""
        array = array.to(dtype)
        if array.ndim and array.shape[-1] > 1 and array.stride(-1) != 1:
            counters.count_copy("attention operand whose head axis is not contiguous")
            array = array.contiguous()
        return array

    def repeat(self, array: Any, times: int) -> Any:
        """Repeat each key head."""
        return array.repeat_interleave(times, dim=-3)

    def share(
        self, workers: int, tasks: Sequence[Sequence[Any]], step: Callable[..., None], problem: Problem, dtype: Any
    ) -> None:
        """Do the steps of all tasks, in worker threads where there are several."""

        def drain(numbers: Iterable[int]) -> None:
            scratch = Scratch(problem, dtype)
            with self.quiet():
                for number in numbers:
                    if number >= len(tasks):
                        return
                    for item in tasks[number]:
                        step(scratch, *item)

        if workers == 1:
            drain(range(len(tasks)))
            return
        shared = count()
        pool = _pool(self.native, workers)
        for future in [pool.submit(drain, shared) for _ in range(workers)]:
            future.result()

    def quiet(self) -> AbstractContextManager[Any]:
        """Return what a thread needs around its work."""
        import torch

        return torch.no_grad()

    def limited(self, threads: int) -> AbstractContextManager[Any]:
        """Return what keeps the caller's own thread to a number of threads."""
        return torch_threads(threads)


_pools: dict[tuple[str, int, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(library: str, workers: int) -> ThreadPoolExecutor:
    """Return a pool of threads, in each of which torch uses one thread.

    torch's thread count belongs to the thread that sets it, save for a default that new threads read; that default is
    put back as soon as all workers have started. A forked process has none of its parent's threads and makes its own.
    """
    key = (library, os.getpid(), workers)
    with _pools_lock:
        pool = _pools.get(key)
        if pool is None:
            pool = ThreadPoolExecutor(workers, thread_name_prefix="adaptive-attention")
            if library == "torch":
                _start_torch(pool, workers)
            _pools[key] = pool
    return pool


def _start_torch(pool: ThreadPoolExecutor, workers: int) -> None:
    import torch

    before = torch.get_num_threads()
    started = threading.Barrier(workers + 1)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    for _ in range(workers):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(before)


ONE_THREAD = 1 << 18  # OpenBLAS computes a product of M x K by K x N with M N K up to this in the thread that asks


def _multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool) -> None:
    """Multiply batches of matrices, each in the calling thread: in pieces where OpenBLAS cannot be asked for that."""
    (m, k), n = a.shape[1:], b.shape[2]
    pieces = 1 if openblas() is not None else -(-m * k * n // ONE_THREAD)
    if pieces <= 1 or max(m, k, n) < 2:
        if accumulate:
            out += a @ b
        else:
            np.matmul(a, b, out=out)
        return
    longest = max(m, k, n)
    step = -(-longest // min(pieces, longest))
    for i in range(0, longest, step):
        part = slice(i, i + step)
        if n == longest:
            _multiply(a, b[:, :, part], out[:, :, part], accumulate)
        elif m == longest:
            _multiply(a[:, part], b, out[:, part], accumulate)
        else:
            _multiply(a[:, :, part], b[:, part], out, accumulate or i > 0)


class NumpyTilesKernel(TilesKernel):
    """Tiles by NumPy's matrix products; needs no torch."""

    name = "numpy-tiles"
    native = "numpy"

    def supports(self, request: Request) -> bool | str:
        return "NumPy has no bfloat16" if request.first.dtype == "bfloat16" else True

    def library(self) -> Library:
        def gemm(a: Any, b: Any, out: Any, alpha: float, accumulate: bool) -> None:
            _multiply(a if alpha == 1.0 else a * a.dtype.type(alpha), b, out, accumulate)

        def split(values: Any, size: int) -> Any:
            return [values[:, i : i + size] for i in range(0, values.shape[1], size)]

        return Library(np, gemm, lambda values, dtype: values.astype(dtype), split)

    def dtype(self, name: str) -> Any:
        return np.dtype(name)

    def take(self, array: Any, dtype: Any) -> Any:
        return np.asarray(array, dtype)

    def repeat(self, array: Any, times: int) -> Any:
        return np.repeat(array, times, axis=-3)

    def quiet(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")  # as in torch

    def limited(self, threads: int) -> AbstractContextManager[Any]:
        return one_thread()  # whatever the number: these kernels have threads of their own
