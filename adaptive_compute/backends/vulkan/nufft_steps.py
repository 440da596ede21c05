"""The parts of a NUFFT as dispatches: points made ready, spreading, interpolation, and modes to and from the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .nufft_grid import Grid
from .nufft_sort import FEW_BLOCKS, LOCAL, over, padded, sort
from .program import Buffer, Builder, spread_groups

INTERPOLATING = 128  # invocations of a workgroup
LANES = {1: 1, 2: 1, 3: 4}  # invocations that share points in interpolation, by dimension
BATCHES = {1: 1, 2: 1, 3: 1}  # points that an invocation sets down at once in spreading, by dimension
STATES = 7  # that a set of points takes
# Points that one workgroup spreads at most, and into how many parts all points are cut at least where they are more.
FEWEST, PARTS = 2048, 512


class Loads(NamedTuple):
    """Which further workgroups spread the points of tiles that hold many, as nufft_loads.comp counts them."""

    limit: int
    further: int
    blocks: int
    within: Buffer
    before: Buffer
    total: Buffer


class Points(NamedTuple):
    """What is kept of points: their order by bins, positions, where bins begin, and the turns of their phases."""

    number: int
    order: Buffer
    positions: Buffer
    begins: Buffer
    turns: Buffer
    loads: Loads | None = None


def points_of(b: Builder, grid: Grid, count: int, first_state: int, *, spreads: bool = False) -> Points:
    """Return the states that hold points which an earlier run, or an earlier dispatch, made ready."""
    sizes = (4 * count, 4 * count * grid.dim, 4 * (math.prod(grid.bin_counts) + 1), 4 * count)
    order, positions, begins, turns = (b.state(first_state + number, size) for number, size in enumerate(sizes))
    points = Points(count, order, positions, begins, turns)
    limit = max(FEWEST, count // PARTS)
    if not spreads or count <= limit:
        return points
    tiles = math.prod(grid.tile_counts)
    blocks = -(-tiles // 256)
    further = count * grid.tiles_of_a_point // limit
    parts = (4 * tiles, 4 * blocks * (256 if blocks <= FEW_BLOCKS else 1), 4 * 256)
    within, before, total = (b.state(first_state + 4 + number, size) for number, size in enumerate(parts))
    return points._replace(loads=Loads(limit, further, blocks, within, before, total))


def make_ready(
    b: Builder, grid: Grid, points: Points, coordinates: Sequence[Buffer], places: Buffer, *, turns: bool
) -> None:
    """Add the dispatches that sort points and note their positions.

    ``coordinates`` come in the order of the call, the parameters ``places`` in the order of the grid's axes.
    """
    count, dim = points.number, grid.dim
    axes = [*coordinates[::-1], *[coordinates[0]] * (3 - dim)]
    keys = b.scratch(4 * count)
    constants = [LOCAL, count, dim, grid.width, *padded(grid.cells, 1), *padded(grid.bins, 0)]
    constants += padded(grid.bin_counts, 1)[:2]
    b.dispatch("nufft_keys", [*axes, places, keys], writes=[keys], groups=over(count), constants=constants)
    beginnings = points.begins.nbytes // 4
    ordered = sort(b, keys, points.order, count, beginnings - 2)
    b.dispatch(
        "nufft_bins", [ordered, points.begins], writes=[points.begins], groups=over(beginnings),
        constants=[LOCAL, count, beginnings],
    )  # fmt: skip
    b.dispatch(
        "nufft_arrange", [*axes, places, points.order, points.positions, points.turns],
        writes=[points.positions, points.turns], groups=over(count), constants=[LOCAL, count, dim, int(turns)],
    )  # fmt: skip
    if points.loads is not None:
        _count_loads(b, grid, points.begins, points.loads)


def _count_loads(b: Builder, grid: Grid, begins: Buffer, loads: Loads) -> None:
    """Add the dispatches that find out which tiles need further workgroups."""
    constants = [grid.width, loads.limit, *padded(grid.cells, 1), *padded(grid.bins, 0), *padded(grid.bin_counts, 1)]
    constants += [*padded(grid.tile_counts, 1), *padded(grid.sides, 1)]
    groups = spread_groups(loads.blocks)
    written = [loads.within, loads.before]
    b.dispatch("nufft_loads", [begins, *written], writes=written, groups=groups, constants=constants)
    written = [loads.before, loads.total]
    b.dispatch("sort_scan", written, writes=written, groups=(1, 1, 1), constants=[loads.blocks])


def spread(
    b: Builder, grid: Grid, points: Points, strengths: Buffer, target: Buffer, transforms: range, sign: int, *,
    turns: bool,
) -> None:  # fmt: skip
    """Add the dispatches that spread the strengths of some transforms to a fine grid each."""
    count, several = points.number, len(transforms)
    ordered = b.scratch(8 * count * several)
    b.dispatch(
        "nufft_values", [strengths, points.order, points.turns, ordered], writes=[ordered],
        groups=over(count, transforms=several), constants=[LOCAL, count, int(turns), transforms.start, sign],
    )  # fmt: skip
    across, beside, _ = grid.tile
    tiles = math.prod(grid.tile_counts)
    constants = [
        across * beside, across, beside, count, *padded(grid.cells, 1), *padded(grid.bins, 0),
        *padded(grid.bin_counts, 1), *padded(grid.tile_counts, 1), BATCHES[grid.dim],
    ]  # fmt: skip
    shader, buffers = f"nufft_spread_{grid.dim}d_{grid.width}", [points.positions, ordered, points.begins, target]
    loads = points.loads
    if loads is None:
        x, y, _ = spread_groups(tiles)
        unread = [points.begins] * 4
        b.dispatch(shader, [*buffers, *unread], writes=[target], groups=(x, y, several), constants=constants)
        return
    made = b.scratch(8 * several * loads.further * math.prod(grid.sides))
    buffers += [loads.within, loads.before, loads.total, made]
    for part, groups in enumerate((tiles, loads.further, loads.further)):
        x, y, _ = spread_groups(groups)
        b.dispatch(
            shader, buffers, writes=[made if part == 1 else target], groups=(x, y, several),
            constants=[*constants, loads.limit, part, loads.blocks, loads.further],
        )  # fmt: skip


def interpolate(
    b: Builder, grid: Grid, points: Points, source: Buffer, values: Buffer, transforms: range, sign: int, lanes: int, *,
    turns: bool,
) -> None:  # fmt: skip
    """Add the dispatch that takes the values of some transforms from a fine grid each."""
    constants = [INTERPOLATING, lanes, points.number, *padded(grid.cells, 1), int(turns)]
    constants += [transforms.start, sign]
    b.dispatch(
        f"nufft_interpolate_{grid.dim}d_{grid.width}", [points.positions, source, points.order, points.turns, values],
        writes=[values], groups=over(points.number, INTERPOLATING, len(transforms)), constants=constants,
    )  # fmt: skip


def modes(
    b: Builder, grid: Grid, source: Buffer, target: Buffer, lengths: Sequence[int], transforms: range, *,
    to_grid: bool, order: int,
) -> None:  # fmt: skip
    """Add the dispatch between modes (``lengths`` in C order) and the transform of a fine grid."""
    count = 1
    for n in lengths:
        count *= n
    count = grid.total if to_grid else count
    constants = [LOCAL, int(to_grid), order, grid.dim, *padded(tuple(lengths)[::-1], 1), *padded(grid.cells, 1)]
    b.dispatch(
        f"nufft_modes_{grid.width}", [source, target], writes=[target],
        groups=over(count, transforms=len(transforms)), constants=[*constants, transforms.start],
    )  # fmt: skip
