"""The programs of a NUFFT: one that makes new points ready and transforms, one that transforms with known points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ...core.operation import Request
from ...core.operations.nufft_rule import NufftParams, outputs_of, points_of
from . import nufft_steps as steps
from .fft_steps import transform
from .limits import Limits
from .nufft_grid import UPSAMPLING, Grid, width_of
from .nufft_places import PER_RADIAN, periodic, words
from .program import LARGEST_GROUPS, Buffer, Builder, Program


def grids_of(params: NufftParams) -> tuple[Grid, ...]:
    """Return the fine grids: for type 3 the one of the points, and the one that it is transformed on."""
    width = width_of(params.eps, params.dim)
    if params.type != 3:
        return (Grid.of(tuple(2 * n for n in params.n_modes), width),)
    # Room for the points' extent, the kernel on both sides, and the rounding of the extents.
    first = Grid.of(tuple(2 * n + width + 1 for n in params.n_modes), width)
    return first, Grid.of(tuple(2 * n for n in first.shape), width)


class Programs(NamedTuple):
    """The two programs and the grids that they use."""

    fresh: Program
    again: Program
    grids: tuple[Grid, ...]

    @classmethod
    def of(cls, request: Request, limits: Limits, largest: int, lanes: int) -> Programs:
        """Build both; ``largest`` is the limit of a buffer, ``lanes`` share the points in interpolation."""
        grids = grids_of(request.params)
        fresh, again = (_build(request, grids, limits, largest, lanes, fresh=new) for new in (True, False))
        return cls(fresh, again, grids)

    @staticmethod
    def largest(request: Request) -> int:
        """Return the size of the largest buffer that is needed beside operands and results."""
        grids = grids_of(request.params)
        counts = [points_of(request), *([outputs_of(request)] if request.params.type == 3 else [])]
        bins = [math.prod(grid.bin_counts) + 1 for grid in grids]
        return max(
            *(8 * grid.total for grid in grids), *(4 * n for n in bins), *(4 * n * request.params.dim for n in counts)
        )


def _build(
    request: Request, grids: tuple[Grid, ...], limits: Limits, largest: int, lanes: int, *, fresh: bool
) -> Program:
    p: NufftParams = request.params
    b = Builder()
    data, values = b.operand(0, request.first.nbytes), b.result(0, request.operation.result(request)[0].nbytes)
    count = points_of(request)
    coordinates = [o for o in request.operands[1:] if o is not None]
    points = steps.points_of(b, grids[0], count, 0, spreads=p.type != 2)
    targets = steps.points_of(b, grids[-1], outputs_of(request), steps.STATES) if p.type == 3 else None
    if fresh:
        buffers = [b.operand(1 + n, o.nbytes) for n, o in enumerate(coordinates)]
        if targets is None:
            places = b.table(periodic(p.dim))
            steps.make_ready(b, grids[0], points, buffers, places, turns=False)
        else:
            size = 2 * periodic(p.dim).nbytes
            first, second = (b.operand(1 + len(coordinates) + n, size) for n in (0, 1))
            steps.make_ready(b, grids[0], points, buffers[: p.dim], first, turns=True)
            steps.make_ready(b, grids[1], targets, buffers[p.dim :], second, turns=True)
    beside = 0 if points.loads is None else points.loads.further * math.prod(grids[0].sides)
    per = max(1, min(p.n_trans, LARGEST_GROUPS, largest // (8 * max(count, beside, *(g.total for g in grids)))))
    fine = [b.scratch(8 * min(per, p.n_trans) * grid.total) for grid in grids]
    for start in range(0, p.n_trans, per):
        some = range(start, min(start + per, p.n_trans))
        if targets is not None:
            steps.spread(b, grids[0], points, data, fine[0], some, p.isign, turns=True)
            inner = range(len(some))
            steps.modes(b, grids[1], fine[0], fine[1], grids[0].shape, inner, to_grid=True, order=1)
            _transform(b, grids[1], fine[1], some, p.isign, limits)
            steps.interpolate(b, grids[1], targets, fine[1], values, some, p.isign, lanes, turns=True)
        elif p.type == 1:
            steps.spread(b, grids[0], points, data, fine[0], some, p.isign, turns=False)
            _transform(b, grids[0], fine[0], some, p.isign, limits)
            steps.modes(b, grids[0], fine[0], values, p.n_modes, some, to_grid=False, order=p.modeord)
        else:
            steps.modes(b, grids[0], data, fine[0], p.n_modes, some, to_grid=True, order=p.modeord)
            _transform(b, grids[0], fine[0], some, p.isign, limits)
            steps.interpolate(b, grids[0], points, fine[0], values, some, p.isign, lanes, turns=False)
    return b.program()


def _transform(b: Builder, grid: Grid, buffer: Buffer, some: range, sign: int, limits: Limits) -> None:
    axes = tuple(range(1, 1 + grid.dim))
    transform(b, buffer, buffer, (len(some), *grid.shape), axes, sign < 0, 1.0, limits)


def scales(grid: Grid, ranges: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters of a type 3 transform's points and of its targets, from their smallest and largest values.

    With x = X + g y and s = S + t, X and S in the middle of the extents: s x = S x + t X + g t y. The points y are
    spread on the first grid after a turn by S x; from its cells to the targets g t it is a transform of type 2, and a
    turn by t X ends it.
    """
    middles = [(Fraction(low) + Fraction(high)) / 2 for low, high in ranges]
    halves = [(Fraction(high) - Fraction(low)) / 2 for low, high in ranges]
    dim = grid.dim
    points, point_turns, targets, target_turns = [], [], [], []
    for axis, cells in enumerate(grid.cells):
        number = dim - 1 - axis
        x, s = middles[number], middles[dim + number]
        half_x, half_s = halves[number], halves[dim + number]
        # The targets may use half of the inner transform's frequencies, the points all of its period but a margin.
        stretch = Fraction(cells) / (half_s * 2 * Fraction(UPSAMPLING)) if half_s else half_x or Fraction(1)
        points.append(words(PER_RADIAN / stretch, x))
        point_turns.append(words(s * PER_RADIAN))
        targets.append(words(stretch / cells, s))
        target_turns.append(words(x * PER_RADIAN, s))
    return np.concatenate([*points, *point_turns]), np.concatenate([*targets, *target_turns])
