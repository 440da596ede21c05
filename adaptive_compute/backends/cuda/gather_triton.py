"""A Triton kernel for sums of segments: each program adds up the entries of one slot, in their order.

The entries are read where they are, in one pass; what is wide about the sum exists in registers only.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

COLUMNS = 128  # neighbouring elements of an entry that a program reads, at most
SHORT, LONG = 512, 4096  # elements of a tile where slots have few entries, and where one has many
LEAST = 32  # elements of a tile below which most of a warp would be idle
WIDE = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def add_up(
    X, ORDER, STARTS, OUT, columns, SORTED: tl.constexpr, ENTRIES: tl.constexpr, WIDTH: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """Store the sum of one slot's entries: of ``X`` (entries, columns) in the order of ``ORDER``, or as they stand."""
    slot = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    last = tl.load(STARTS + slot + 1)
    total = tl.zeros([ENTRIES, WIDTH], SUM)
    for at in range(tl.load(STARTS + slot), last, ENTRIES):
        entry = at + tl.arange(0, ENTRIES)
        there = entry < last
        place = entry if SORTED else tl.load(ORDER + entry, mask=there, other=0)
        inside = there[:, None] & (column < columns)[None, :]
        total += tl.load(X + place[:, None] * columns + column[None, :], mask=inside, other=0.0).to(SUM)
    tl.store(OUT + slot * columns + column, tl.sum(total, 0).to(OUT.dtype.element_ty), mask=column < columns)


def tile(columns: int, longest: int) -> tuple[int, int]:
    """Return how many entries and how many of their elements a program reads at a time."""
    width = min(triton.next_power_of_2(max(columns, 1)), COLUMNS)  # of nothing, the next power is 0
    most = (SHORT if longest <= SHORT else LONG) // width
    return max(min(triton.next_power_of_2(longest), most), 1), width


def segment_sums(rows: Any, order: Any, starts: Any, size: int, longest: int, wide: Any) -> Any:
    """Return the sums (size, columns) of contiguous rows (entries, columns), added up in the dtype ``wide``.

    ``order`` lists the entries slot by slot, or is None where they stand so; ``starts`` is where each slot begins.
    """
    columns = rows.shape[1]
    entries, width = tile(columns, longest)
    out = torch.empty((size, columns), dtype=rows.dtype, device=rows.device)
    add_up[(size, -(-columns // width))](
        rows, starts if order is None else order, starts, out, columns, SORTED=order is None, ENTRIES=entries,
        WIDTH=width, SUM=WIDE[wide], num_warps=min(max(entries * width // 512, 1), 4),
    )  # fmt: skip
    return out
