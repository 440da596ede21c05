"""The fine grid of a fast NUFFT: how wide the kernel is, how many cells there are, in which bins and tiles.

Axes are counted from the one whose elements lie side by side, which belongs to the last coordinate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

UPSAMPLING = 2.0
SMALLEST_EPS = 1e-6  # what the widest kernel gives; float32 sums give no more
WIDEST = 7
# Up to here lengths are powers of two: a launch hides the work, and drivers compile their transforms soonest.
FEW_CELLS = 1 << 15
# Lanes of a tile along the first two axes, and the depth along the last that nufft_spread.comp is compiled with.
TILES = {1: (32, 1, 1), 2: (8, 4, 4), 3: (8, 4, 8)}
# Cells of a bin as powers of two, by dimension and width. A tile takes all points of the bins that reach it: bins are
# as wide as they can be with few points in them that do not.
BINS = {
    **{(1, width): (3,) for width in range(2, WIDEST + 1)},
    **{(2, width): (2, 2) if width in (4, 5) else (1, 1) for width in range(2, WIDEST + 1)},
    **{(3, width): (2, 2, 2) if width in (4, 5) else (1, 1, 1) for width in range(2, WIDEST + 1)},
}


def width_of(eps: float, dim: int) -> int:
    """Return the number of cells that a point touches in each dimension, by FINUFFT's rule."""
    wanted = math.log(0.18 * 1.4 ** (dim - 1) / eps) / (math.pi * math.sqrt(1 - 1 / UPSAMPLING)) + 1
    return min(max(math.ceil(wanted), 2), WIDEST)


def smooth(least: int) -> int:
    """Return the smallest even number, not below ``least``, whose prime factors are 2, 3 and 5."""
    best = 2 ** max(math.ceil(math.log2(max(least, 2))), 1)
    five = 1
    while five < best:
        three = five
        while three < best:
            quotient = -(-least // three)
            found = three * max(2, 1 << (quotient - 1).bit_length())
            best = min(best, found)
            three *= 3
        five *= 5
    return best


class Grid(NamedTuple):
    """A fine grid, the fastest axis first."""

    width: int
    cells: tuple[int, ...]
    bins: tuple[int, ...]
    tile: tuple[int, int, int]

    @classmethod
    def of(cls, lengths: tuple[int, ...], width: int, tile: tuple[int, int, int] | None = None) -> Grid:
        """Return the grid of at least these lengths, given in the order of the coordinates."""
        least = [max(n, 2 * width) for n in lengths[::-1]]
        cells = tuple(1 << (n - 1).bit_length() for n in least)
        if math.prod(cells) > FEW_CELLS:
            cells = tuple(smooth(n) for n in least)
        return cls(width, cells, BINS[len(cells), width], tile or TILES[len(cells)])

    @property
    def dim(self) -> int:
        return len(self.cells)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths in C order."""
        return self.cells[::-1]

    @property
    def total(self) -> int:
        return math.prod(self.cells)

    @property
    def bin_counts(self) -> tuple[int, ...]:
        return tuple((n + (1 << bits) - 1) >> bits for n, bits in zip(self.cells, self.bins))

    @property
    def sides(self) -> tuple[int, ...]:
        """Cells of a tile."""
        across, beside, depth = self.tile
        return {1: (across,), 2: (across, beside * depth), 3: (across, beside, depth)}[self.dim]

    @property
    def tile_counts(self) -> tuple[int, ...]:
        return tuple(-(-n // side) for n, side in zip(self.cells, self.sides))

    @property
    def tiles_of_a_point(self) -> int:
        """At most how many tiles take a point, because its bin reaches them."""
        reach = [side + self.width - 1 + 2 * ((1 << bits) - 1) for side, bits in zip(self.sides, self.bins)]
        most = [min(-(-n // side) + 1, tiles) for n, side, tiles in zip(reach, self.sides, self.tile_counts)]
        return math.prod(most)
