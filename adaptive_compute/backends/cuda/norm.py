"""The L2 norm by kernels of its own: how an operand is cut up, and the launches.

A large sum is cut into parts, so that there is work for the whole GPU; the parts are added up in a fixed order, which
gives the same bits in every run.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...core.operation import Request
from . import memory
from .array import start
from .compiled import compiled
from .device import dtype_of
from .fused import Slots
from .norm_source import Shape, across, along, finish

ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
THREADS, UNROLL = 256, 2
WIDEST = 16  # packs of neighbouring sums in a block, where sums are not along contiguous memory
BLOCKS = 2048  # as many as keep a large GPU busy
LEAST = 4096  # bytes of a part that are worth a block of their own
MOST = 65535  # blocks along the second and third axis of a grid


class Cut(NamedTuple):
    """How a norm over the middle axis of a contiguous (outer, n, inner) is computed."""

    shape: Shape
    along: bool  # the axis is contiguous
    grid: tuple[int, ...]
    sizes: tuple[int, int, int]  # rows or packs of a row, packs or elements of a sum, and of a part
    parts: int


def cut(dtype: str, outer: int, n: int, inner: int, aligned: bool) -> Cut | None:
    """Choose packs, threads and parts; None where the grid cannot hold it."""
    itemsize = ITEMSIZE[dtype]
    row = n if inner == 1 else inner
    pack = 16 // itemsize if aligned and row % (16 // itemsize) == 0 else 1
    if inner == 1:
        packs = n // pack
        side = min(max(_power(-(-packs // UNROLL)), 1), THREADS)
        side = side if side <= 32 else THREADS
        blocks = -(-outer // (THREADS // side))
        parts = _parts(blocks, packs, max(side * UNROLL, LEAST // (pack * itemsize)))
        part = -(-packs // parts)
        parts = -(-packs // part)
        fits = parts <= MOST and blocks < 1 << 31
        shape = Shape(dtype, pack, THREADS, side, UNROLL, parts > 1)
        return Cut(shape, True, (blocks, parts), (outer, packs, part), parts) if fits else None
    packs = inner // pack
    side = min(_power(packs), WIDEST)
    blocks = -(-packs // side) * outer
    parts = _parts(blocks, n, THREADS // side * UNROLL)
    part = -(-n // parts)
    parts = -(-n // part)
    if parts > MOST or outer > MOST:
        return None
    shape = Shape(dtype, pack, THREADS, side, UNROLL, parts > 1)
    return Cut(shape, False, (-(-packs // side), parts, outer), (packs, n, part), parts)


def _power(n: int) -> int:
    """Return the smallest power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


def _parts(blocks: int, steps: int, least: int) -> int:
    """Return into how many parts a sum of so many steps is cut, at least so many steps each."""
    return max(min(BLOCKS // max(blocks, 1), steps // least), 1)


class NormPlan(memory.GuardedPlan):
    """The norm over neighbouring axes of a contiguous operand; others are left to ``otherwise``."""

    def __init__(self, request: Request, otherwise: Any, index: int) -> None:
        import torch

        super().__init__(self._compute)
        x, axes = request.first, sorted(request.params.axes)
        first, end = axes[0], axes[-1] + 1
        self.sides = math.prod(x.shape[:first]), math.prod(x.shape[first:end]), math.prod(x.shape[end:])
        self.dtype, self.index, self.otherwise = x.dtype, index, otherwise
        device, shape = torch.device("cuda", index), request.operation.result(request)[0].shape
        self._empty = partial(torch.empty, shape, dtype=dtype_of(x.dtype), device=device)
        self._wide = partial(torch.empty, dtype=torch.float64, device=device)
        self._launches: dict[bool, Any] = {}

    def _compute(self, x: Any) -> Any:
        pointer = x.data_ptr()
        if not x.is_contiguous() or x.is_neg():
            return self.otherwise(x)
        aligned = pointer % 16 == 0
        found = self._launches.get(aligned)
        if found is None:
            found = self._launches[aligned] = self._prepare(aligned)
        kernel, grid, slots, rest = found
        if kernel is None:
            return self.otherwise(x)
        out = self._empty()
        if rest is None:
            start(kernel, grid, THREADS, slots.filled(out.data_ptr(), (pointer,)), self.index)
            return out
        count, last, blocks, last_slots = rest
        middle = self._wide(count)
        place = middle.data_ptr()
        start(kernel, grid, THREADS, slots.filled(place, (pointer,)), self.index)
        start(last, blocks, THREADS, last_slots.filled(out.data_ptr(), (place,)), self.index)
        return out

    def _prepare(self, aligned: bool) -> tuple[Any, ...]:
        outer, n, inner = self.sides
        found = cut(self.dtype, outer, n, inner, aligned)
        if found is None:
            return None, (), None, None
        kernel = compiled((along if found.along else across)(found.shape), self.index)
        slots = Slots([np.int64(size) for size in found.sizes], [()])
        if found.parts == 1:
            return kernel, found.grid, slots, None
        count = outer * inner
        last = compiled(finish(self.dtype), self.index)
        last_slots = Slots([np.int64(size) for size in (count, inner, found.parts)], [()])
        return kernel, found.grid, slots, (count * found.parts, last, (-(-count // THREADS),), last_slots)


def takes(request: Request) -> bool:
    """Tell whether a norm is over neighbouring axes of something in a dtype that the kernels read."""
    x, axes = request.first, sorted(request.params.axes)
    return x.dtype in ITEMSIZE and x.size > 0 and axes == [*range(axes[0], axes[-1] + 1)]
