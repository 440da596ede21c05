"""Two passes of a Fourier transform as one dispatch, so that what lies between them stays in the device's cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import fft_plan
from .fft_group import Arrangement, Shape, arrangement
from .fft_plan import Stages
from .limits import Limits
from .program import Buffer, Builder, spread_groups

# Lengths for which a pair was measured to be quicker than separate passes on an H100: points of the pass before
# (1: none) and of the two passes, each of which must have two stages or three.
MEASURED: dict[int, tuple[int, int, int]] = {1 << 16: (1, 256, 256)}


class Pair(NamedTuple):
    """A transform of ``first`` * a.n * b.n points: a pass of ``first`` points (1: none), then two as one dispatch."""

    first: int
    a: Stages
    b: Stages

    @property
    def row(self) -> int:
        """Points of a transform of the last two passes."""
        return self.a.n * self.b.n


class Layout(NamedTuple):
    """How the work of a pair lies: rows a unit, units, units ahead, units that the ring holds, and the workgroups."""

    rows: int
    units: int
    ahead: int
    ring: int
    a: Arrangement
    b: Arrangement
    size: int

    def groups(self, pair: Pair) -> int:
        """Return how many workgroups the dispatch has."""
        return self.units * (-(-self.rows * pair.b.n // self.a.lines) + -(-self.rows * pair.a.n // self.b.lines))


def layout(pair: Pair, rows: int, limits: Limits, shape: Shape) -> Layout:
    """Return how the transforms of so many rows are laid out.

    A unit is the least that side B can write in whole pieces: one row, or as many neighbouring rows as a workgroup of
    it has lines where the points of a row lie ``first`` apart. Units ahead fill ``shape.ahead`` bytes.
    """
    together = max(d for d in range(1, min(shape.widest, pair.first) + 1) if pair.first % d == 0)
    a = arrangement(pair.a, True, together * pair.b.n, False, limits, shape)
    b = arrangement(pair.b, True, together * pair.a.n, False, limits, shape)
    units = rows // together
    ahead = min(max(shape.ahead // (8 * together * pair.row), 1), units)
    ring = min(ahead + max((ahead + 1) // 2, 1), units)
    return Layout(together, units, ahead, ring, a, b, max(a.lines * pair.a.threads, b.lines * pair.b.threads))


def add(
    builder: Builder,
    source: Buffer,
    target: Buffer,
    pair: Pair,
    rows: int,
    flags: int,
    scale: float,
    limits: Limits,
    shape: Shape,
) -> None:
    """Add the dispatch of the last two passes of transforms whose rows are ``rows`` in all; both sides in C order."""
    plan = layout(pair, rows, limits, shape)
    a, b = plan.a, plan.b
    ring = builder.scratch(8 * plan.ring * plan.rows * pair.row)
    # Zero when a dispatch begins and when it ends, so that all those of a device may share them.
    counters = builder.table(np.zeros(2 + 2 * plan.units, np.uint32))
    roots = builder.table(np.concatenate([fft_plan.stage_roots(pair.a), fft_plan.stage_roots(pair.b)]))
    sides = [
        part
        for s, group in ((pair.a, a), (pair.b, b))
        for part in (
            s.n, s.threads, group.lines, *(*s.radices, 1)[:3], group.pitch, group.pad, int(group.together), group.rounds
        )
    ]  # fmt: skip
    builder.dispatch(
        f"fft_pair_{max(len(pair.a.radices), len(pair.b.radices))}",
        [source, target, roots, ring, counters],
        writes=[target, ring, counters],
        groups=spread_groups(plan.groups(pair)),
        constants=[
            plan.size, *sides, max(a.words, b.words), plan.units, plan.rows, pair.first, plan.ahead, plan.ring, flags,
            float(scale),
        ],
    )  # fmt: skip


def choose(n: int, limits: Limits, shape: Shape) -> Pair | None:
    """Return how n points are transformed with a pair, or None where the device or the length is not one for it."""
    if n not in MEASURED or not limits.fair or not shape.ahead:
        return None
    first, a, b = MEASURED[n]
    words, threads = limits.shared_memory // 4, limits.invocations
    one, two = fft_plan.stages(a, fft_plan.FEW), fft_plan.stages(b, fft_plan.FEW)
    if one is None or two is None or not all(fft_plan.fits(s, words, threads) for s in (one, two)):
        return None
    assert all(len(s.radices) in (2, 3) for s in (one, two)), (one, two)  # as many as the shader has
    return Pair(first, one, two)
