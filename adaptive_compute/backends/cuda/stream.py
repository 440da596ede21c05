"""Host operands through a GPU in pieces: while one piece is computed, the next one comes and the last one goes back.

The link moves data both ways at once, so that a batch takes about as long as its slower direction, and not as long as
both and the computation. What is cut is the leading axis, where it is one of a batch.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...core.array import Operand
from ...core.host_memory import results
from ...core.operation import Request
from ...core.staging import BUFFERS, CHUNK, Slot, Stager, address_of, lanes_of_all
from ...core.transfer import counters
from . import memory
from .device import dtype_of, index_of

if TYPE_CHECKING:
    from ..base import Kernel, Plan

LEAST = 8 << 20  # bytes of all operands and results together from which on pieces are worth it
PIECE = 8 << 20  # bytes of the largest operand's piece
LANES = 2  # pieces that are on their way at once, each with threads of its own
RING = 2  # pieces of one lane on the device


class Device(Protocol):
    """The device's part of one call: memory for pieces, the computation, and the order between copies and it."""

    def lane(self) -> Any:
        """Return a context with the memory of one lane, which is handed to the other functions."""

    def targets(self, lane: Any, turn: int) -> Sequence[Any]:
        """Return where the operands of a piece go, for ``send``: behind the computation that last used the place."""

    def compute(self, lane: Any, turn: int, rows: int) -> Any:
        """Start computing a piece behind its copies, and ``fetch`` behind that. Returns the result, for ``fetch``."""


class Rows:
    """A host array that is cut along its leading axis.

    Parameters
    ----------
    array : ndarray, contiguous
    locked : bool
        The device reads and writes its memory by itself.
    """

    def __init__(self, array: np.ndarray, locked: bool) -> None:
        self.host = array.reshape(-1).view(np.uint8)
        self.width = self.host.nbytes // len(array)
        self.address, self.locked = address_of(array), locked


def flow(
    stager: Stager, device: Device, pieces: Sequence[tuple[int, int]], sources: Sequence[Rows], out: Rows,
    threads: int, lanes: int,
) -> None:  # fmt: skip
    """Move pieces to the device, compute them and bring their results back, all at the same time.

    Parameters
    ----------
    stager : Stager
        Its link moves; its buffers hold what is on its way.
    device : Device
    pieces : sequence of (int, int)
        Where each piece begins and ends along the leading axis.
    sources : sequence of Rows
        Operands.
    out : Rows
        Where the results go.
    threads, lanes : int
        As for ``Stager.up``.
    """
    link: Any = stager.link
    views, target = [link.view(source.host) for source in sources], link.view(out.host)
    each = len(sources) * RING + RING
    lanes = max(1, min(lanes, threads, len(pieces), stager.buffers // each))

    def lane(numbers: Iterator[int]) -> None:
        with link.lane(threads // lanes), stager.lend(each) as slots, device.lane() as place:
            coming: deque[tuple[int, int, Slot, Any]] = deque()

            def finish() -> None:
                start, nbytes, slot, _ = coming.popleft()
                stager.settle(slot)
                if not out.locked:
                    link.drain(slot.buffer, target, start, nbytes)

            try:
                for turn, number in enumerate(numbers):
                    first, last = pieces[number]
                    own = slots[turn % RING :: RING]
                    for source, view, at, slot in zip(sources, views, device.targets(place, turn), own):
                        start, nbytes = first * source.width, (last - first) * source.width
                        stager.settle(slot)
                        if source.locked:
                            link.send_from(slot.buffer, source.address + start, nbytes, at)
                        else:
                            link.fill(slot.buffer, view, start, nbytes)
                            link.send(slot.buffer, nbytes, at, 0)
                        slot.busy = True
                    result = device.compute(place, turn, last - first)
                    if len(coming) == RING:
                        finish()
                    start, nbytes, slot = first * out.width, (last - first) * out.width, own[-1]
                    if out.locked:
                        link.fetch_to(slot.buffer, result, out.address + start, nbytes)
                    else:
                        link.fetch(result, 0, slot.buffer, nbytes)
                    slot.busy = True
                    coming.append((start, nbytes, slot, result))
                while coming:
                    finish()
            finally:
                for slot in slots:  # whatever happens, nothing may be on its way any more when memory is given back
                    stager.settle(slot)

    if lanes == 1:
        lane(iter(range(len(pieces))))
    else:
        lanes_of_all.share(len(pieces), lane, lanes)


class Pieces:
    """A kernel's computation on host operands, piece by piece.

    Parameters
    ----------
    kernel : Kernel
        Of this backend; its ``rows(request)`` tells which operands are cut.
    request : Request
        With every operand on the host.
    cut : tuple of bool
        Which operands are cut along their leading axis; others are the same for every piece.
    step : int
        Length of a piece.
    """

    def __init__(self, kernel: Kernel, request: Request, cut: Sequence[bool], step: int, index: int) -> None:
        self.kernel, self.request, self.cut, self.index = kernel, request, tuple(cut), index
        (self.result,) = request.operation.result(request)
        count = self.result.shape[0]
        self.pieces = [(start, min(start + step, count)) for start in range(0, count, step)]
        self.step = step
        self._plans: dict[int, Plan] = {}
        self._lock = threading.Lock()

    def __call__(self, *arrays: Any) -> Any:
        """Compute; operands and the result are NumPy arrays."""
        return memory.guarded(self._run, *arrays)

    def _run(self, *arrays: Any) -> Any:
        from .link import shares, stager
        from .pinned import pinned

        start = time.perf_counter()
        host = [self._readable(array) if cut else array for array, cut in zip(arrays, self.cut)]
        out = results.empty(self.result.shape, self.result.dtype)
        engine = stager(self.index)
        threads, _ = shares()
        with ExitStack() as held:
            rows = [Rows(a, held.enter_context(pinned.using(a))) for a, cut in zip(host, self.cut) if cut]
            target = Rows(out, held.enter_context(pinned.using(out)))
            device = CudaPieces(self, host, engine.link)
            flow(engine, device, self.pieces, rows, target, threads, LANES)
        seconds = time.perf_counter() - start
        up, down = sum(row.host.nbytes for row in rows) + device.whole_bytes, out.nbytes
        # They went at the same time; each direction is given the part of it that its bytes are.
        counters.count_transfer("cpu", self.kernel.device, up, seconds * up / (up + down))
        counters.count_transfer(self.kernel.device, "cpu", down, seconds * down / (up + down))
        return out

    @staticmethod
    def _readable(array: np.ndarray) -> np.ndarray:
        if array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative:
            return array
        counters.count_copy("NumPy array that is not contiguous, to be moved in pieces")
        return np.array(array, array.dtype.newbyteorder("="), order="C")

    def plan(self, rows: int) -> Plan:
        """Return the kernel's plan for a piece of so many rows."""
        with self._lock:
            plan = self._plans.get(rows)
            if plan is None:
                plan = self._plans[rows] = self.kernel.plan(self._piece(rows))
        return plan

    def _piece(self, rows: int) -> Request:
        request, kernel = self.request, self.kernel
        operands = []
        for operand, cut in zip(request.operands, self.cut):
            if operand is None or (not operand.shape and kernel.takes_host_scalars):
                operands.append(operand)
            else:
                shape = (rows, *operand.shape[1:]) if cut else operand.shape
                operands.append(Operand(shape, operand.dtype, kernel.device, kernel.native))
        return Request(request.operation, tuple(operands), request.params, request.tol, request.threads)

    def close(self) -> None:
        """Give back what the plans hold."""
        with self._lock:
            for plan in self._plans.values():
                plan.close()
            self._plans.clear()


class CudaPieces:
    """One call's pieces on a GPU: copies and the computation on streams of their own, ordered by events."""

    def __init__(self, pieces: Pieces, host: Sequence[Any], link: Any) -> None:
        import torch

        self.pieces, self.link, self.torch = pieces, link, torch
        self.stream = link.work
        self.whole: list[Any] = []
        self.whole_bytes = 0
        with torch.cuda.stream(self.stream):
            for array, cut, operand in zip(host, pieces.cut, pieces.request.operands):
                stays = cut or operand is None or (not operand.shape and pieces.kernel.takes_host_scalars)
                self.whole.append(array if stays else _same_for_all(array, pieces.index))
                self.whole_bytes += 0 if stays else array.nbytes

    @contextmanager
    def lane(self) -> Iterator[Any]:
        """Give a lane memory for its pieces."""
        torch, pieces, ring = self.torch, self.pieces, []
        with torch.cuda.stream(self.link.up):
            for _ in range(RING):
                own = [
                    torch.empty((pieces.step, *o.shape[1:]), dtype=dtype_of(o.dtype), device=f"cuda:{pieces.index}")
                    for o, cut in zip(pieces.request.operands, pieces.cut) if cut and o is not None
                ]  # fmt: skip
                ring.append((own, torch.cuda.Event(), torch.cuda.Event()))
        try:
            yield ring
        finally:
            for own, _, _ in ring:
                for tensor in own:
                    tensor.record_stream(self.stream)

    def targets(self, lane: Any, turn: int) -> Sequence[int]:
        """Return the addresses that a piece's operands go to."""
        own, _, done = lane[turn % RING]
        if turn >= RING:
            self.link.up.wait_event(done)
        return [tensor.data_ptr() for tensor in own]

    def compute(self, lane: Any, turn: int, rows: int) -> Any:
        """Start the computation of a piece."""
        own, came, done = lane[turn % RING]
        came.record(self.link.up)
        self.stream.wait_event(came)
        placed = iter(own)
        with self.torch.cuda.stream(self.stream):
            operands = [
                next(placed)[:rows] if cut else whole for cut, whole in zip(self.pieces.cut, self.whole)
            ]  # fmt: skip
            result = self.pieces.plan(rows).run(*operands).contiguous()
        done.record(self.stream)
        self.link.down.wait_event(done)
        return Result(result)


class Result:
    """A piece's result: an address for the link, and the tensor that must live until it was read."""

    __slots__ = ("address", "tensor")

    def __init__(self, tensor: Any) -> None:
        self.tensor, self.address = tensor, tensor.data_ptr()

    def __add__(self, offset: int) -> int:
        return self.address + offset


def _same_for_all(array: np.ndarray, index: int) -> Any:
    from .link import upload

    return upload(array, index)


def streamed(plan: memory.GuardedPlan, kernel: Kernel, request: Request, cut: Sequence[bool] | None) -> Any:
    """Give a plan its way through the host, where there is one that is worth it, and return it."""
    if kernel.device != "cpu":
        plan.through_host = through(kernel, request, cut, index_of(kernel.device))
    return plan


def through(kernel: Kernel, request: Request, cut: Sequence[bool] | None, index: int) -> Pieces | None:
    """Return what computes a request on host operands piece by piece, or None where that is not worth it."""
    step = step_of(request, cut)
    return None if step is None or cut is None else Pieces(kernel, request, cut, step, index)


def count(request: Request, cut: Sequence[bool] | None) -> int:
    """Return in how many pieces a request is computed on host operands."""
    step = step_of(request, cut)
    return 1 if step is None else -(-request.operation.result(request)[0].shape[0] // step)


def step_of(request: Request, cut: Sequence[bool] | None) -> int | None:
    """Return the length of a piece along the leading axis, or None where pieces are not worth it.

    Parameters
    ----------
    cut : sequence of bool or None
        Which operands are cut along their leading axis; None where the operation is no batch along it.
    """
    operands = request.operands
    if cut is None or any(o is not None and (o.device != "cpu" or o.dtype == "bfloat16") for o in operands):
        return None
    (result,) = request.operation.result(request)
    parts = [o for o, is_cut in zip(operands, cut) if is_cut and o is not None]
    if not parts or result.dtype == "bfloat16" or sum(p.nbytes for p in (*parts, result)) < LEAST:
        return None
    width = max(p.nbytes // p.shape[0] for p in (*parts, result))
    step = min(max(PIECE // width, 1), math.ceil(result.shape[0] / 2))
    fits = step * width <= CHUNK and (len(parts) + 1) * RING <= BUFFERS
    return step if fits and result.shape[0] > 1 else None
