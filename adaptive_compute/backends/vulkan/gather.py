"""Gather and scatter-add on a Vulkan device: copies by index, and sums over sorted entries. Deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.array import itemsize
from ...core.operation import Request
from ...core.operations.gather_rule import SHORT, IndexParams, width
from ..base import Kernel
from .array import DTYPES
from .kernel import VulkanKernel
from .program import Buffer, Builder, Program, spread_groups
from .tuning import tuned

LOCAL = 256
DIGIT = 8  # bits of a slot that one pass of the sort looks at
BLOCKS = 1024  # of entries that a pass counts apart, at most
ROUNDS = 4  # entries of a thread in a block, at least
TUNING = {"gather.local": (128, (64, 128, 256))}
# Shader and storage of each dtype that is summed; complex numbers are pairs.
SUMS: dict[str, tuple[str, int]] = {
    "float32": ("float", 0), "complex64": ("float", 0), "float16": ("float", 1), "bfloat16": ("float", 2),
    "int32": ("whole", 32), "uint32": ("whole", 32), "int16": ("whole", 16), "uint16": ("whole", 16),
    "int8": ("whole", 8), "uint8": ("whole", 8), "int64": ("long", 64), "uint64": ("long", 64),
}  # fmt: skip


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [GatherKernel(device), ScatterKernel(device)]


class GatherKernel(VulkanKernel):
    """One thread a word of the result, or four words where rows are long enough."""

    name = "gather"
    operation = "gather"

    def refusal(self, request: Request) -> str | None:
        dtype = request.first.dtype
        return None if dtype in DTYPES else f"dtype {dtype} cannot live on a Vulkan device"

    def program(self, request: Request) -> Program:
        b, p = Builder(), request.params
        x, index, result = request.first, _index(request), request.operation.result(request)[0]
        _, after = width(request)
        nbytes = itemsize(x.dtype)
        shader, pack, row = "gather", 1, after * nbytes
        if row % 16 == 0:
            shader, units, row = "gather_quads", result.nbytes // 16, row // 16
        elif row % 4 == 0:
            units, row = result.nbytes // 4, row // 4
        else:
            pack, units, row = 4 // nbytes, -(-result.nbytes // 4), after
        local = tuned(self.device, "gather.local", TUNING["gather.local"][0])
        target = b.result(0, result.nbytes)
        b.dispatch(
            shader,
            [b.operand(0, x.nbytes), b.operand(1, index.nbytes), target],
            writes=[target],
            groups=spread_groups(-(-units // local)),
            constants=[local, units, index.size, p.size, row, pack, result.size],
        )
        return b.program()


class ScatterKernel(VulkanKernel):
    """Sums over the entries of each slot, which a stable sort by slot brings together where the index is not sorted."""

    name = "scatter"
    operation = "scatter_add"

    def refusal(self, request: Request) -> str | None:
        dtype = request.first.dtype
        if dtype in ("float64", "complex128"):
            return f"Vulkan shaders here compute in float32; {dtype} operands need another device"
        return None if dtype in SUMS else f"Vulkan shaders add {', '.join(SUMS)}; dtype {dtype} is none of them"

    def program(self, request: Request) -> Program:
        b, p = Builder(), request.params
        x, result = request.first, request.operation.result(request)[0]
        entries = _index(request).size
        target = b.result(0, result.nbytes)
        if entries == 0:  # nothing to read, and an empty operand has no memory
            values, order, starts = (b.table(np.zeros(p.size + 1, np.uint32)),) * 3
            start_words, ordered = 1, True
        else:
            values = b.operand(0, x.nbytes)
            order, starts, start_words, ordered = _order(b, request)
        shader, storage = SUMS[x.dtype]
        narrow = storage if itemsize(x.dtype) < 4 else 0
        sums = b.scratch(4 * result.size) if narrow else target
        before, after = width(request)
        columns = after * (2 if x.dtype.startswith("complex") else 1)
        what = Sums(before, entries, p.size, columns, p.longest, start_words, ordered)
        add_sums(b, [values, order, starts], sums, f"gather_sum_{shader}", storage, what)
        if narrow:
            add_narrowing(b, sums, target, result.size, narrow)
        return b.program()


def _index(request: Request) -> Any:
    return request.operands[1]


def _order(b: Builder, request: Request) -> tuple[Buffer, Buffer, int, bool]:
    """Return the entries sorted by slot, the starts of the slots, words of a start, and whether they come sorted."""
    p: IndexParams = request.params
    index, given = _index(request), request.operands[2]
    slots = b.operand(1, index.nbytes)
    if given is not None:
        return slots, b.operand(2, given.nbytes), 2, True
    if p.size == 1:
        return slots, b.table(np.array([0, index.size], np.uint32)), 1, True
    order = slots
    rounds = max(ROUNDS, -(-index.size // (LOCAL * BLOCKS)))
    blocks = -(-index.size // (LOCAL * rounds))
    counts = b.scratch(4 * 256 * blocks)
    spare = [b.scratch(4 * index.size) for _ in range(2 if p.size > 1 << DIGIT else 1)]
    for number, shift in enumerate(range(0, (p.size - 1).bit_length(), DIGIT)):
        after = spare[number % len(spare)]
        buffers = [slots, order, counts, after]
        constants = [index.size, rounds, blocks, shift, int(number == 0)]
        # A binding that a stage does not use gets a buffer that it may see as read.
        counted = [slots, order, counts, counts]
        b.dispatch("gather_sort_count", counted, writes=[counts], groups=(blocks, 1, 1), constants=constants)
        b.dispatch("gather_sort_scan", counted, writes=[counts], groups=(1, 1, 1), constants=constants)
        b.dispatch("gather_sort_place", buffers, writes=[after], groups=(blocks, 1, 1), constants=constants)
        order = after
    starts = b.scratch(4 * (p.size + 1))
    b.dispatch(
        "gather_starts",
        [slots, order, starts],
        writes=[starts],
        groups=spread_groups(-(-(p.size + 1) // LOCAL)),
        constants=[LOCAL, p.size, index.size],
    )
    return order, starts, 1, False


class Sums(NamedTuple):
    """Sums over the entries of each of ``slots``, for ``before`` batches of ``columns`` columns."""

    before: int
    entries: int
    slots: int
    columns: int
    longest: int  # most entries of one slot
    start_words: int = 1
    ordered: bool = True  # the entries lie in the order of their slots


def add_sums(b: Builder, sources: list[Buffer], target: Buffer, shader: str, storage: int, s: Sums) -> None:
    """Add the dispatches of sums over each slot's entries; two where few slots have very many.

    ``sources`` are the values, the entries in the order of their slots, and the starts of the slots among them.
    """
    rows = s.before * s.slots
    lanes = min(_power(s.columns), 64)
    across = min(_power(-(-s.longest // 8)), LOCAL // lanes)
    chunks = -(-s.columns // lanes)
    groups = -(-rows // (LOCAL // (lanes * across))) * chunks
    parts = max(min(_power(-(-BLOCKS // groups)), s.longest // (16 * across)), 1) if s.longest > 4096 else 1
    first = [s.entries, s.slots, s.columns, rows, lanes]
    last = [s.start_words, int(s.ordered), storage, int(s.longest > SHORT)]
    if parts == 1:
        constants = [*first, across, *last, 1, 0, 1]
        b.dispatch(shader, [*sources, target], writes=[target], groups=spread_groups(groups), constants=constants)
        return
    partial = b.scratch(8 * rows * s.columns * parts)
    constants = [*first, across, *last, parts, 1, 1]
    b.dispatch(shader, [*sources, partial], writes=[partial], groups=spread_groups(groups * parts), constants=constants)
    across = min(_power(parts), LOCAL // lanes)
    groups = -(-rows // (LOCAL // (lanes * across))) * chunks
    constants = [*first, across, *last, 1, 2, parts]
    sources = [partial, *sources[1:]]
    b.dispatch(shader, [*sources, target], writes=[target], groups=spread_groups(groups), constants=constants)


def add_narrowing(b: Builder, source: Buffer, target: Buffer, elements: int, storage: int) -> None:
    """Add the dispatch that packs words into elements of 16 or 8 bits (``storage`` as in narrow.comp)."""
    words = -(-elements // (4 if storage == 8 else 2))
    groups = spread_groups(-(-words // LOCAL))
    b.dispatch("narrow", [source, target], writes=[target], groups=groups, constants=[LOCAL, elements, storage])


def _power(count: int) -> int:
    """Return the next power of two."""
    return 1 << max(count - 1, 0).bit_length()
