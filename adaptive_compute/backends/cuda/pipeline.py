"""A batch of host data through the GPU in pieces: one piece comes in while another computes and a third goes back.

The link moves data in both directions at once, so that a batch takes about as long as its larger side. One thread of
Python copies pieces into and out of pinned buffers and queues their work, in turn on a few streams.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ...core.host_memory import results
from ...core.operation import Request
from ...core.staging import CHUNK
from ...core.transfer import counters
from . import memory
from .device import dtype_of, index_of
from .link import stager

LEAST = 4 << 20  # bytes of both sides together from which pieces gain more than they cost
PIECE, MOST_PIECES = 2 << 20, 8  # least bytes of the larger side of one piece; a large batch goes in larger ones
STREAMS = 3
AHEAD = 2  # results on their way while the next piece goes in


@cache
def _streams(index: int) -> tuple[Any, ...]:
    """Return the streams on which pieces go through a GPU."""
    import torch

    return tuple(torch.cuda.Stream(index) for _ in range(STREAMS))


def rows_of(request: Request) -> int:
    """Return how many entries of the first axis make a piece; 0 where the batch cannot or need not be cut."""
    x, (result,) = request.first, request.operation.result(request)
    if x.nbytes + result.nbytes < LEAST or not x.shape or x.shape[0] != result.shape[0]:
        return 0
    row = max(x.nbytes, result.nbytes) // x.shape[0]
    if not 0 < row <= CHUNK:
        return 0
    piece = min(max(PIECE, row * x.shape[0] // MOST_PIECES), CHUNK)
    rows = max(piece // row, 1)
    return rows if 2 * rows <= x.shape[0] else 0


def through_host(request: Request, compute: Callable[[Any], Any], device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from a host array to the host result.

    Parameters
    ----------
    request : Request
        Of one operand and one result, whose entries along the first axis have nothing to do with each other. It can
        be cut into pieces (``rows_of``).
    compute : callable
        Takes and returns a tensor with any number of entries.
    device : str
        The kernel's.
    """
    x, (result,) = request.first, request.operation.result(request)
    rows = rows_of(request)
    index, count, given = index_of(device), -(-x.shape[0] // rows), dtype_of(x.dtype)

    def run(host: np.ndarray) -> np.ndarray:
        import torch

        start = time.perf_counter()
        if not host.flags.c_contiguous:
            counters.count_copy("a host batch that is not contiguous, on its way through the GPU")
            host = np.ascontiguousarray(host)
        out = results.empty(result.shape, "uint16" if result.dtype == "bfloat16" else result.dtype)
        source, target = (a.reshape(a.shape[0], -1).view(np.uint8) for a in (host, out))
        engine, streams = stager(index), _streams(index)
        going: deque[tuple[Any, np.ndarray]] = deque()  # pinned results on their way, and where they go

        def finish() -> None:
            slot, piece = going[0]
            engine.settle(slot)
            engine.copy(piece.reshape(-1), slot.array[: piece.nbytes])
            going.popleft()
            engine.give(slot)

        def buffer() -> Any:
            """Return a buffer; whoever holds some does not wait for others to return theirs."""
            while going:
                slot = engine.spare()
                if slot is not None:
                    return slot
                finish()
            return engine.take()

        try:
            for number in range(count):
                part, piece = (side[number * rows : (number + 1) * rows] for side in (source, target))
                with torch.cuda.stream(streams[number % STREAMS]), torch.no_grad():
                    slot = buffer()
                    try:
                        engine.copy(slot.array[: part.nbytes], part.reshape(-1))
                        pinned = bytes_of(slot)[: part.nbytes].view(given).reshape(len(part), *x.shape[1:])
                        there = pinned.to(device, non_blocking=True)
                        slot.copy = torch.cuda.Event()
                        slot.copy.record()
                    finally:
                        engine.give(slot)
                    found = compute(there).contiguous()
                    slot = buffer()
                    going.append((slot, piece))
                    bytes_of(slot)[: piece.nbytes].copy_(found.reshape(-1).view(torch.uint8), non_blocking=True)
                    slot.copy = torch.cuda.Event()
                    slot.copy.record()
                while len(going) > AHEAD:
                    finish()
            while going:
                finish()
        finally:
            for slot, _ in going:
                engine.give(slot)
        seconds = time.perf_counter() - start  # both directions take all of it
        counters.count_transfer("cpu", device, host.nbytes, seconds / 2)
        counters.count_transfer(device, "cpu", out.nbytes, seconds / 2)
        return out

    return lambda host: memory.guarded(run, host)


def bytes_of(slot: Any) -> Any:
    """Return a pinned buffer as a tensor of bytes."""
    return slot.buffer.tensor
