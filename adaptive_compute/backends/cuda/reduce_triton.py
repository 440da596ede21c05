"""Triton kernels for the L2 norm: one pass over memory, squares and sums in float64.

torch's own norm of float32 in float64 first writes a wide copy, which is five times the traffic; in float32 it
overflows beyond 1e19. A large sum is cut into parts, so that there is work for the whole GPU; the parts are added up in
a fixed order, which gives the same bits in every run.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

TILE = 4096  # elements that a program reads at a time
WIDEST = 256  # neighbouring sums of a program, where sums are not along contiguous memory
WARPS = 8
PROGRAMS = 2048  # as many as keep a large GPU busy
LEAST = 4 * TILE  # elements of a row that are worth a program of their own


@triton.jit
def _put(OUT, place, total, inside, LAST: tl.constexpr):
    """Store sums of squares, or norms where nothing is added to them any more."""
    if LAST:
        total = tl.sqrt(total)
    tl.store(OUT + place, total.to(OUT.dtype.element_ty), mask=inside)


@triton.jit
def along(X, OUT, rows, n, part, parts, ROWS: tl.constexpr, N: tl.constexpr, LAST: tl.constexpr):
    """Add up squares along rows that are contiguous: a tile of ROWS rows, of each the elements of one part."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    number = tl.program_id(1)
    first = number.to(tl.int64) * part
    last = tl.minimum(first + part, n)
    total = tl.zeros([ROWS, N], tl.float64)
    for at in range(first, last, N):
        column = at + tl.arange(0, N)
        there = (row < rows)[:, None] & (column < last)[None, :]
        x = tl.load(X + row[:, None] * n + column[None, :], mask=there, other=0.0).to(tl.float64)
        total += x * x
    _put(OUT, row * parts + number, tl.sum(total, 1), row < rows, LAST)


@triton.jit
def across(X, OUT, n, inner, part, parts, tiles, N: tl.constexpr, COLUMNS: tl.constexpr, LAST: tl.constexpr):
    """Add up squares over the middle axis of (outer, n, inner): COLUMNS neighbouring sums, one part of each."""
    outer = (tl.program_id(0) // tiles).to(tl.int64)
    column = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    number = tl.program_id(1)
    first = number.to(tl.int64) * part
    last = tl.minimum(first + part, n)
    total = tl.zeros([N, COLUMNS], tl.float64)
    for at in range(first, last, N):
        place = at + tl.arange(0, N)
        there = (place < last)[:, None] & (column < inner)[None, :]
        x = tl.load(X + (outer * n + place[:, None]) * inner + column[None, :], mask=there, other=0.0).to(tl.float64)
        total += x * x
    _put(OUT, (outer * parts + number) * inner + column, tl.sum(total, 0), column < inner, LAST)


def norm(x: Any, outer: int, n: int, inner: int, dtype: Any) -> Any:
    """Return the L2 norms over the middle axis of a contiguous tensor seen as (outer, n, inner), as (outer, inner)."""
    side = min(TILE, triton.next_power_of_2(n)) if inner == 1 else min(WIDEST, triton.next_power_of_2(inner))
    other = TILE // side  # rows of a tile, or the elements of a sum that it adds up at once
    programs = -(-outer // other) if inner == 1 else outer * -(-inner // side)
    step = side if inner == 1 else other
    parts = max(min(PROGRAMS // programs, n * min(inner, side) // LEAST), 1)
    part = -(-n // (parts * step)) * step
    parts = -(-n // part)
    shape = (outer, inner) if parts == 1 else (outer, parts, inner)
    out = torch.empty(shape, dtype=dtype if parts == 1 else torch.float64, device=x.device)
    last = parts == 1
    if inner == 1:
        along[(programs, parts)](x, out, outer, n, part, parts, ROWS=other, N=side, LAST=last, num_warps=WARPS)
    else:
        sizes = n, inner, part, parts, -(-inner // side)
        across[(programs, parts)](x, out, *sizes, N=other, COLUMNS=side, LAST=last, num_warps=WARPS)
    return out if parts == 1 else out.sum(1).sqrt_().to(dtype)
