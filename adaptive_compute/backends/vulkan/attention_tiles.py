"""What attention's programs share: tile shapes, compiled masks as tables, operands as buffers, sizes as constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...core.array import Operand, itemsize
from ...core.operation import Request
from ...core.operations.attention_rule import BACKWARD, FAMILY, Attention, AttentionBackward, Given, Sizes, given
from ...core.topology import TileTopology
from .gather import add_narrowing
from .limits import Limits, devices
from .program import Buffer, Builder, Program
from .tuning import tuned

LOG2_E = math.log2(math.e)
STORAGE = {"float32": 0, "float16": 1, "bfloat16": 2}
LONGEST_CHUNK = 8  # quads of the head axis that are staged at once


class Shape(NamedTuple):
    """A compiled variant: queries and keys of a tile, quads of a staged chunk, invocations, invocations along keys."""

    queries: int
    keys: int
    chunk: int
    invocations: int
    row: int
    shared: int
    shuffles: bool = True
    whole: int = 0  # quads of a query that stay in shared memory, where they do

    def runs(self, limits: Limits) -> bool:
        """Tell whether a device can run it."""
        lanes = limits.shuffle if self.shuffles else self.row
        return self.row <= lanes and self.shared <= limits.shared_memory and self.invocations <= limits.invocations


def _small(shuffles: bool) -> Shape:
    return Shape(32, 32, 8, 64, 8, (12 << 10) + (0 if shuffles else 1 << 10), shuffles)


# Variants of attention.comp, the best first: for results up to so many columns.
FORWARD: dict[int, dict[str, Shape]] = {
    32: {"small32": _small(True), "plain32": _small(False)},
    64: {
        "a64": Shape(128, 64, 4, 256, 16, 48 << 10),
        "b64": Shape(64, 64, 8, 256, 16, 32 << 10),
        "c64": Shape(64, 64, 16, 128, 16, 48 << 10, whole=16),
        "d64": Shape(64, 64, 16, 128, 16, 48 << 10),
        "small64": _small(True),
        "turned64": _small(True),
        "plain64": _small(False),
    },
    128: {
        "a128": Shape(128, 64, 4, 256, 16, 48 << 10),
        "b128": Shape(64, 64, 16, 256, 16, 48 << 10),
        "c128": Shape(64, 64, 8, 256, 16, 32 << 10),
        "d128": Shape(64, 64, 16, 128, 8, 48 << 10),
        "small128": _small(True),
        "plain128": _small(False),
    },
    256: {"a256": Shape(64, 64, 8, 256, 16, 32 << 10), "small256": _small(True), "plain256": _small(False)},
}
# Variants of attention_backward.comp: for the gradient of the queries, and for that of keys and values.
FOR_QUERIES: dict[int, dict[str, Shape]] = {
    64: {
        "a64": Shape(64, 64, 8, 128, 16, 32 << 10),
        "b64": Shape(64, 64, 8, 256, 16, 32 << 10),
        "small64": _small(True),
        "plain64": _small(False),
    },
    128: {"a128": Shape(64, 64, 8, 256, 16, 32 << 10), "small128": _small(True), "plain128": _small(False)},
    256: {"a256": Shape(64, 64, 8, 256, 16, 32 << 10), "small256": _small(True), "plain256": _small(False)},
}
FOR_KEYS: dict[int, dict[str, Shape]] = {
    64: {
        "a64": Shape(64, 64, 8, 128, 16, 32 << 10, False),
        "b64": Shape(64, 64, 8, 256, 16, 32 << 10, False),
        "small64": _small(False),
    },
    128: {"a128": Shape(64, 64, 8, 256, 16, 32 << 10, False), "small128": _small(False)},
    256: {"a256": Shape(32, 64, 8, 256, 8, 24 << 10, False), "small256": _small(False)},
}


def _sample(operation: Attention | AttentionBackward, width: int) -> Request:
    """Return a request to choose by: on a GPU one that gives each of its processors several workgroups of any shape."""
    long = any(not found.software for found in devices())
    return operation.sample(32, 2048 if long else 512, 512, width, "float32", None)


TUNING = {
    f"{prefix}.{width}": (
        next(iter(shapes)), tuple(n for n in shapes if not n.startswith("plain")), partial(_sample, operation, width)
    )
    for operation, prefix, table in (
        (FAMILY, "attention", FORWARD), (BACKWARD, "attention_dq", FOR_QUERIES), (BACKWARD, "attention_dkv", FOR_KEYS),
    )
    for width, shapes in table.items()
}  # fmt: skip


def shape_for(
    device: str, limits: Limits, shapes: dict[int, dict[str, Shape]], prefix: str, columns: int, heads: int
) -> tuple[str, Shape]:
    """Return the variant for results of so many columns and queries of a head size: the tuned one, or the first.

    A processor that stands in for a GPU gains nothing by large tiles, and compiles small ones soonest.
    """
    width = next(w for w in shapes if columns <= w)
    usable = {n: s for n, s in shapes[width].items() if s.runs(limits) and (not s.whole or heads <= 4 * s.whole)}
    if limits.software:
        usable = dict(sorted(usable.items(), key=lambda item: item[1].queries * item[1].keys))
    chosen = tuned(device, f"{prefix}.{width}", None)
    name = chosen if chosen in usable else next(iter(usable))
    return name, usable[name]


def chunks(size: int, longest: int = LONGEST_CHUNK) -> tuple[int, int]:
    """Return into how many chunks of how many quads an axis is cut."""
    quads = -(-size // 4)
    count = -(-quads // longest)
    return count, -(-quads // max(count, 1))


def mask_table(topology: TileTopology, by_keys: bool = False) -> np.ndarray:
    """Return a compiled mask as the shaders read it.

    First the tiles in the order in which workgroups take them (the longest first, so that none is left over at the
    end), then for each tile where its visits start, the tiles it visits, their patterns, and the bits: a word holds 32
    keys of a query. ``by_keys`` lists for each tile of keys the tiles of queries.
    """
    rows = np.repeat(np.arange(len(topology.start) - 1, dtype=np.int32), np.diff(topology.start))
    start, visits, pattern = topology.start, topology.keys, topology.pattern
    if by_keys:
        by = np.argsort(topology.keys, kind="stable")
        count = np.bincount(topology.keys, minlength=-(-topology.lk // topology.tile[1]))
        start = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
        visits, pattern = rows[by], topology.pattern[by]
    order = np.argsort(-np.diff(start), kind="stable").astype(np.int32)
    bits = np.packbits(np.unpackbits(topology.bits, axis=-1), axis=-1, bitorder="little").reshape(-1).view(np.int32)
    return np.concatenate([order, start, visits.astype(np.int32), pattern.astype(np.int32), bits])


class Pairs(NamedTuple):
    """How the elements of an operand that broadcasts to (..., heads, Lq, Lk) are found."""

    places: np.ndarray  # offset of each head
    query: int  # strides in elements, 0 along an axis that is repeated
    key: int

    @classmethod
    def of(cls, operand: Operand | None, s: Sizes) -> Pairs:
        """Return where the elements of a contiguous operand lie."""
        if operand is None:
            return cls(np.zeros(s.matrices, np.uint32), 0, 0)
        full = (*s.batch, s.heads, s.lq, s.lk)
        shape = (1,) * (len(full) - len(operand.shape)) + operand.shape
        strides, step = [0] * len(shape), 1
        for axis in reversed(range(len(shape))):
            strides[axis] = 0 if shape[axis] == 1 else step
            step *= shape[axis]
        grid = np.indices(full[:-2]).reshape(len(full) - 2, -1)
        places = np.tensordot(np.array(strides[:-2], np.int64), grid, 1) if grid.size else np.zeros(s.matrices)
        return cls(places.astype(np.uint32), strides[-2], strides[-1])


class Call:
    """The parts of a program that forward and backward share."""

    def __init__(self, request: Request) -> None:
        self.request, self.b = request, Builder()
        self.given: Given = given(request)
        self.sizes = self.given.sizes
        self.first = 1 if len(request.operands) > 5 else 0
        g, s = self.given, self.sizes
        self.mask, self.bias = Pairs.of(g.mask, s), Pairs.of(g.bias, s)
        self.places = self.b.table(np.stack([self.mask.places, self.bias.places], -1))
        self._unpacked: list[tuple[Buffer, Buffer, Operand]] = []

    def operand(self, number: int) -> Buffer:
        """Return an operand's buffer; for one that is missing or empty a buffer that is never read."""
        operand = self.request.operands[number]
        if operand is None or operand.size == 0:
            return self.places
        return self.b.operand(number, operand.nbytes)

    def shared(self) -> list[Buffer]:
        """Return query, key, value, boolean operand and bias."""
        return [self.operand(self.first + n) for n in range(5)]

    def target(self, number: int, result: Operand) -> Buffer:
        """Return where a shader writes a result: beside it where halves of different rows would share a word."""
        made = self.b.result(number, result.nbytes)
        if itemsize(result.dtype) == 4 or result.shape[-1] % 4 == 0:
            return made
        wide = self.b.scratch(4 * result.size)
        self._unpacked.append((wide, made, result))
        return wide

    def program(self) -> Program:
        """Return the finished program."""
        for wide, made, result in self._unpacked:
            add_narrowing(self.b, wide, made, result.size, STORAGE[result.dtype])
        return self.b.program()

    def topology(self, tile: tuple[int, int]) -> TileTopology | None:
        """Return the mask compiled for a tile shape."""
        mask = self.request.params.mask
        return None if mask is None else mask.tiles(self.sizes.lq, self.sizes.lk, tile)

    def constants(self, compiled: bool, scale: float, storage: str, option: int) -> Sequence[Any]:
        """Return the constants that every attention shader begins with."""
        g, s = self.given, self.sizes
        given = (int(g.mask is not None), int(g.bias is not None))
        return [s.d, s.dv, STORAGE[storage], int(compiled), *given, float(scale), option]

    def lengths(self, tiles: int, groups: int, topology: TileTopology | None) -> Sequence[int]:
        """Return the push constants of every attention shader."""
        s, visited = self.sizes, 0 if topology is None else topology.visited
        strides = self.mask.query, self.mask.key, self.bias.query, self.bias.key
        return [s.lq, s.lk, s.heads, s.key_heads, tiles, groups, visited, *strides]
