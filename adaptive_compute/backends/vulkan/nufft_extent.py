"""Extents of points on the device, and the refusal of points that are not finite, before anything runs on them.

A few numbers a coordinate come back; the points themselves stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ...core.errors import NufftError
from .array import VulkanArray
from .program import Builder, Program
from .runtime import Runtime

GROUPS = 64
_NONE = 0xFFFFFFFF


def extents(owner: Runtime, coordinates: Sequence[VulkanArray], names: Sequence[str]) -> list[tuple[float, float]]:
    """Return the smallest and largest value of each coordinate; raise where one holds what is not finite."""
    found = measured(owner, coordinates)
    for (_, _, bad), name in zip(found, names):
        if bad is not None:
            raise NufftError(f"{name}[{bad}] is not a finite number; nonuniform points must be")
    return [(low, high) for low, high, _ in found]


def measured(owner: Runtime, coordinates: Sequence[VulkanArray]) -> list[tuple[float, float, int | None]]:
    """Return each coordinate's smallest and largest finite value, and the number of its first that is not finite."""
    program = _program(tuple(x.size for x in coordinates))
    (memory,) = owner.run_resident(program, [x.memory for x in coordinates])
    found = np.empty((len(coordinates), GROUPS, 3), np.uint32)
    try:
        owner.download(memory, found)
    finally:
        owner.release(memory)
    ranges: list[tuple[float, float, int | None]] = []
    for values in found:
        bad = int(values[:, 2].min())
        numbers = np.ascontiguousarray(values[:, :2]).view(np.float32)
        ranges.append((float(numbers[:, 0].min()), float(numbers[:, 1].max()), None if bad == _NONE else bad))
    return ranges


@lru_cache(maxsize=64)
def _program(counts: tuple[int, ...]) -> Program:
    b = Builder()
    result = b.result(0, 12 * GROUPS * len(counts))
    for number, count in enumerate(counts):
        b.dispatch(
            "nufft_extent", [b.operand(number, 4 * count), result], writes=[result], groups=(GROUPS, 1, 1),
            constants=[count, GROUPS, 3 * GROUPS * number],
        )  # fmt: skip
    return b.program()
