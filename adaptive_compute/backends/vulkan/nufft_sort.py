"""Points sorted by bins on the device: a stable radix sort, so that their order is the same every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .program import Buffer, Builder, spread_groups

LOCAL = 256
BLOCK = 2048  # keys that a workgroup of the sort holds
FEW_BLOCKS = 32  # up to here one workgroup scans all digits, as in sort_scan.comp


def sort(b: Builder, keys: Buffer, order: Buffer, count: int, largest: int) -> Buffer:
    """Add the dispatches that sort keys up to ``largest`` and write which came where; return the sorted keys."""
    blocks = -(-count // BLOCK)
    counts, totals = b.scratch(4 * 256 * blocks), b.scratch(4 * 256)
    passes = max(1, -(-largest.bit_length() // 8))
    values, groups = keys, spread_groups(blocks)
    for number in range(passes):
        shift = b.table(np.array([8 * number], np.uint32))
        to_keys = b.scratch(4 * count)
        to_values = order if number == passes - 1 else b.scratch(4 * count)
        b.dispatch(
            "sort_count", [keys, shift, counts], writes=[counts], groups=groups, constants=[count, BLOCK, blocks]
        )
        digits = (1 if blocks <= FEW_BLOCKS else 256, 1, 1)
        b.dispatch("sort_scan", [counts, totals], writes=[counts, totals], groups=digits, constants=[blocks])
        b.dispatch(
            "sort_scatter", [keys, values, shift, counts, totals, to_keys, to_values], writes=[to_keys, to_values],
            groups=groups, constants=[count, blocks, int(number == 0)],
        )  # fmt: skip
        keys, values = to_keys, to_values
    return keys


def over(count: int, local: int = LOCAL, transforms: int = 1) -> tuple[int, int, int]:
    """Return workgroups for so many elements of each of several transforms."""
    x, y, _ = spread_groups(-(-count // local))
    return x, y, transforms


def padded(values: Sequence[int], fill: int) -> list[int]:
    """Return three numbers, one an axis, from those of the axes that there are."""
    return [*values, *[fill] * (3 - len(values))]
