"""The parts of a NUFFT as dispatches: points made ready, spreading, interpolation, and modes to and from the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .nufft_grid import Grid
from .nufft_sort import LOCAL, over, padded, sort
from .program import Buffer, Builder, spread_groups

INTERPOLATING = 128  # invocations of a workgroup
LANES = {1: 1, 2: 1, 3: 4}  # invocations that share points in interpolation, by dimension
BATCHES = {1: 1, 2: 1, 3: 1}  # points that an invocation sets down at once in spreading, by dimension
STATES = 4  # that a set of points takes


class Points(NamedTuple):
    """What is kept of points: their order by bins, positions, where bins begin, and the turns of their phases."""

    number: int
    order: Buffer
    positions: Buffer
    begins: Buffer
    turns: Buffer


def points_of(b: Builder, grid: Grid, count: int, first_state: int) -> Points:
    """Return the states that hold points which an earlier run, or an earlier dispatch, made ready."""
    bins = 1
    for n in grid.bin_counts:
        bins *= n
    sizes = (4 * count, 4 * count * grid.dim, 4 * (bins + 1), 4 * count)
    return Points(count, *(b.state(first_state + number, size) for number, size in enumerate(sizes)))


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
    tiles = 1
    for n in grid.tile_counts:
        tiles *= n
    x, y, _ = spread_groups(tiles)
    constants = [
        across * beside, across, beside, count, *padded(grid.cells, 1), *padded(grid.bins, 0),
        *padded(grid.bin_counts, 1), *padded(grid.tile_counts, 1), BATCHES[grid.dim],
    ]  # fmt: skip
    b.dispatch(
        f"nufft_spread_{grid.dim}d_{grid.width}", [points.positions, ordered, points.begins, target],
        writes=[target], groups=(x, y, several), constants=constants,
    )  # fmt: skip


def interpolate(
    b: Builder, grid: Grid, points: Points, source: Buffer, values: Buffer, transforms: range, sign: int, *,
    turns: bool, lanes: int | None = None,
) -> None:  # fmt: skip
    """Add the dispatch that takes the values of some transforms from a fine grid each."""
    constants = [INTERPOLATING, lanes or LANES[grid.dim], points.number, *padded(grid.cells, 1), int(turns)]
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
