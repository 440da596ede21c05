"""The hunt: block after block of verified zeros, over threads, with checkpoints."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import explain, nufft, using
from . import blocks as _blocks
from . import sign, spectral, turing
from .blocks import Block, Height
from .checkpoint import RUN, Checkpoint
from .probe import HIGHEST


def height(value: Any, name: str) -> Height:
    """Return an argument as a height, or raise with its name."""
    try:
        exact = Decimal(value.item() if isinstance(value, np.generic) else value)
    except (TypeError, ValueError, ArithmeticError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if not exact.is_finite() or not turing.FIRST <= exact <= Decimal(HIGHEST):
        raise ValueError(f"{name} must be from {turing.FIRST} to {HIGHEST:g}, got {value}")
    return Height.of(exact)


def _threads(threads: int | None) -> int:
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads must be a whole number from 1 on, got {threads!r}")
    return threads


GPU_THREADS = 4  # that keep one GPU busy: what a batch needs from the host is worked out beside another's kernels
GPU_ZEROS = 1 << 21  # of a block found on a GPU, about
AHEAD = 3  # blocks begun before the one that comes next is done


def _place(device: str | None, first: Height) -> int | None:
    """Return the number of the GPU to work with; None: the CPU."""
    if device is None:
        window = spectral.windows(first.base, first.offset, first.offset + 10_000.0)[-1]
        x = np.linspace(-3, 3, max(window.terms, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a missing profile is told where a transform runs
            device = explain(nufft.nufft1d1, x, x + 0j, 1 << 17, isign=1, eps=spectral.EPS).chosen.device
        if not device.startswith("cuda") or importlib.util.find_spec("cupy") is None:
            device = "cpu"
    kind, _, number = device.partition(":")
    if kind == "cpu" and not number:
        return None
    if kind != "cuda" or not number.isdigit():
        raise ValueError(f"device must be 'cpu' or 'cuda:0' (or another number), got {device!r}")
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise ValueError(f"device {device!r} needs CuPy and an NVIDIA GPU: {error}") from None
    if int(number) >= count:
        raise ValueError(f"device {device!r} is not there: this machine has {count} GPUs")
    return int(number)


KERNEL = "finufft-1"  # of the transforms on the CPU


class _Begun(NamedTuple):
    """A block to come, and N at its end."""

    block: Future | None
    closing: Future


class _Pool:
    """Threads of which each computes with one thread, and that take what they are given in order."""

    def __init__(self, threads: int, gpu: int | None) -> None:
        ready = None
        self.finder = _blocks.CPU
        if gpu is not None:
            engine = importlib.import_module(f"{__package__}.gpu").device(gpu)
            ready, self.finder = engine.use, engine.finder
        self._pool = ThreadPoolExecutor(threads, "zeta", ready)

    def submit(self, function: Callable, *arguments: Any) -> Future:
        return self._pool.submit(self._alone, function, arguments)

    def _alone(self, function: Callable, arguments: tuple[Any, ...]) -> Any:
        # One kernel, whatever the profile says: a run that goes on later must give the same bits.
        with using(threads=1, kernel=KERNEL):
            return function(*arguments)

    def begin(self, number: int, ends: tuple[Height, Height], before: _Begun, store: Checkpoint | None) -> _Begun:
        """Begin the block that follows another one; it is kept in the store as soon as both are done."""
        looked = [
            (windows, self.submit(self.finder.find, windows, sign.OVERSAMPLING, False))
            for windows in _blocks.groups(*ends, self.finder)
        ]
        closing = self.submit(_blocks.closing, ends[1])
        return _Begun(self.submit(self._close, number, ends, looked, before, closing, store), closing)

    def _close(
        self, number: int, ends: tuple[Height, Height], looked: list, before: _Begun, closing: Future,
        store: Checkpoint | None,
    ) -> Block:  # fmt: skip
        # All that is waited for was given to the threads earlier, and they take it in order.
        found = [(windows, parts.result()) for windows, parts in looked]
        block = _blocks.close(number, *ends, found, (before.closing.result(), closing.result()), self.finder)
        if store is not None:
            if before.block is not None:
                before.block.result()
            store.append(block)
        return block

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown(cancel_futures=True)


def zeros(
    t0: Any, t1: Any, *, checkpoint: str | os.PathLike[str] | None = None, threads: int | None = None,
    device: str | None = None, block: int | None = None,
) -> Iterator[Block]:  # fmt: skip
    """Find and verify every zero of zeta on the critical line between two heights, block by block.

    Parameters
    ----------
    t0, t1 : float, int, str or Decimal
        The range, ``t0 <= t < t1``; 14 to 1e13. Numbers are taken to their last digit.
    checkpoint : path-like, optional
        Folder to keep each block in as soon as it is done. A folder of the same run goes on where it stopped.
    threads : int, optional
        Threads to compute with; default all. The result does not depend on it.
    device : str, optional
        ``"cpu"`` or a GPU such as ``"cuda:0"``, which needs CuPy. Default: where the router runs a window's transform,
        and for a run that goes on, where it began: zeros found on another device differ in their last bits. The same
        GPU gives the same bits in every run.
    block : int, optional
        Zeros of a block, about; at least 1000. Default 2^18, and 2^21 on a GPU.

    Yields
    ------
    Block
        In order. ``block.base + block.offsets`` are the zeros' heights; ``block.verified`` tells whether none is
        missing, and ``block.open`` what is not known otherwise.

    Raises
    ------
    ValueError
        If the range is empty, reversed or out of bounds.
    CheckpointError
        If the folder holds another run or a block that was changed, which it names.

    Notes
    -----
    The guarantee is of floating point: the zeros are sign changes of Z beyond an error budget that adds up the bounds
    of the transform, of rounding and of the Riemann-Siegel remainder, and their number is closed by Turing's method.
    It is not the rigour of interval arithmetic. Zeros were found within 5e-11 of FLINT's up to 1e10; in a close
    pair the error grows as the slope of Z falls.

    Examples
    --------
    >>> from adaptive_compute import zeta
    >>> [round(block.base + t, 6) for block in zeta.zeros(14, 30) for t in block.offsets.tolist()]
    [14.134725, 21.02204, 25.010858]
    """
    first, last = height(t0, "t0"), height(t1, "t1")
    if last.over(first.base) <= first.offset:
        raise ValueError(f"t1 must be above t0, got t0={t0} and t1={t1}")
    if block is not None and (not isinstance(block, int) or isinstance(block, bool) or block < 1000):
        raise ValueError(f"block must be a whole number from 1000 on, got {block!r}")
    count = _threads(threads)
    if device is None and checkpoint is not None and (Path(checkpoint) / RUN).exists():
        device = Checkpoint(checkpoint).settings.get("device")  # where it began
    gpu, store = _place(device, first), None
    if block is None:
        block = _blocks.ZEROS if gpu is None else GPU_ZEROS
    if checkpoint is not None:
        kind = "cpu" if gpu is None else f"cuda:{gpu}"
        store = Checkpoint(checkpoint, {"t0": str(first), "t1": str(last), "block": block, "device": kind})
        store.clear()
    return _hunt(_blocks.plan(first, last, block), store, count, gpu)


def _hunt(
    plan: Iterator[tuple[Height, Height]], store: Checkpoint | None, threads: int, gpu: int | None
) -> Iterator[Block]:
    done = 0
    if store is not None:
        for found in store.blocks():
            if (found.first, found.last) != next(plan, None):
                raise ValueError(f"block {done} of {store.folder} is not of this run")
            yield found
            done += 1
    if (ends := next(plan, None)) is None:
        return
    with _Pool(threads if gpu is None else min(threads, GPU_THREADS), gpu) as pool:
        begun = _Begun(None, pool.submit(_blocks.closing, ends[0]))
        coming: deque[Future] = deque()
        for number, piece in enumerate(chain([ends], plan), done):
            begun = pool.begin(number, piece, begun, store)
            assert begun.block is not None
            coming.append(begun.block)
            if len(coming) > AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


@dataclass
class Summary:
    """What a run has found so far.

    Attributes
    ----------
    zeros : int
        Found, in all blocks.
    verified : bool
        True while every block is.
    open_blocks : list of dict
        Number, range and reason of each block that is not.
    """

    t0: str = ""
    t1: str = ""
    zeros: int = 0
    blocks: int = 0
    verified: bool = True
    open_blocks: list[dict[str, Any]] | None = None
    error: float = 0.0

    def add(self, block: Block) -> None:
        """Count a block in."""
        self.open_blocks = self.open_blocks or []
        self.t0 = self.t0 or str(block.first)
        self.t1 = str(block.last)
        self.zeros += len(block.offsets)
        self.blocks += 1
        self.error = max(self.error, block.error)
        if not block.verified:
            self.verified = False
            self.open_blocks.append(
                {"block": block.number, "t0": str(block.first), "t1": str(block.last), "reason": block.open}
            )

    def __str__(self) -> str:
        if not self.blocks:
            return "nothing computed"
        if self.verified:
            return (
                f"verified to {self.t1}: {self.zeros} zeros from {self.t0} on, all simple and on the line within the "
                f"stated floating-point error budget ({self.error:.1e} in Z)"
            )
        places = "; ".join(f"{o['t0']} to {o['t1']}: {o['reason']}" for o in self.open_blocks or [])
        return f"{self.zeros} zeros found from {self.t0} to {self.t1}, NOT all verified: open are {places}"


def zeros_array(found: Iterable[Block]) -> tuple[np.ndarray, np.ndarray]:
    """Return the zeros of blocks as whole bases and offsets: ``base + offset`` without rounding.

    Returns
    -------
    bases : ndarray of int64
        The height's whole part.
    offsets : ndarray of float64
        The rest, in [0, 1).
    """
    bases, offsets = [], []
    for block in found:
        whole = np.floor(block.offsets)
        bases.append(block.base + whole.astype(np.int64))
        offsets.append(block.offsets - whole)
    if not bases:
        return np.empty(0, np.int64), np.empty(0)
    return np.concatenate(bases), np.concatenate(offsets)
