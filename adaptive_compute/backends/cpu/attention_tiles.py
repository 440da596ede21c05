"""Attention over the tiles that a mask keeps: one algorithm, written for NumPy and torch alike.

A row of tiles is a set of queries and the chunks of keys that they visit. Its scores live in a small buffer that stays
in the processor's cache: product with the keys, exponential, product with the values. The gradient goes over the same
rows and recomputes the scores from the saved logsumexp, so that memory grows with the length and never with its square
(Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", 2022).

The largest score of a query is subtracted before the exponential only where that matters. Going forward, exponentials
are taken as they are and the sums tell afterwards whether all was well, or the row is done again. Going back, where
there are no sums, |q.k| <= |q||k| bounds the scores beforehand. Either spares passes at no cost in accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ...core.topology import FULL, TileTopology

# Scores up to this size need no maximum: exp(2 * 40) times the length of any sequence is still a float32.
SAFE = 40.0
# Sums of exponentials in between are exact: what was lost to underflow is below 1e-20 of the sum, nothing overflowed,
# and products with values up to 1e20 do not either.
LOW, HIGH = 1e-18, 1e18
COLUMNS = 1024  # keys of one chunk at most
SCRATCH = 5 << 18  # bytes of scores worked on at a time: 1.25 MiB, which fits the second-level cache


class Spot(NamedTuple):
    """Columns of a chunk in which the mask keeps some pairs only.

    ``block`` holds 1 for kept and 0 for not, for the queries of each head of a group one below the other; or it is a
    function that makes that array.
    """

    start: int
    stop: int
    block: Any


class Chunk(NamedTuple):
    """Keys that a row of tiles visits together: intervals of keys side by side."""

    pieces: tuple[tuple[int, int], ...]
    width: int
    spots: tuple[Spot, ...]


class Row(NamedTuple):
    """Queries [start, stop) and the chunks of keys they visit."""

    start: int
    stop: int
    chunks: tuple[Chunk, ...]

    @property
    def width(self) -> int:
        """Keys visited."""
        return sum(chunk.width for chunk in self.chunks)


class Library(NamedTuple):
    """What the algorithm needs of an array library besides the functions that NumPy and torch share.

    ``gemm(a, b, out, alpha, accumulate)`` multiplies batches of matrices; ``array`` brings a NumPy array into a dtype
    of the library.
    """

    xp: Any
    gemm: Callable[[Any, Any, Any, float, bool], None]
    array: Callable[[np.ndarray, Any], Any]


def dense_rows(lq: int, lk: int, rows: int) -> list[Row]:
    """Return the rows of a call without a mask."""
    chunks = tuple(
        Chunk(((j, min(j + COLUMNS, lk)),), min(COLUMNS, lk - j), ()) for j in range(0, lk, COLUMNS)
    )
    return [Row(i, min(i + rows, lq), chunks) for i in range(0, lq, rows)]


def topology_rows(topology: TileTopology, group: int, library: Library, dtype: Any) -> list[Row]:
    """Return the rows of a compiled mask for query heads in groups; blocks that recur are made once."""
    made: dict[Any, Any] = {}
    room = [1 << 25]  # bytes of blocks that are kept ready; beyond it they are unpacked at each use

    def block(i0: int, i1: int, parts: Sequence[tuple[int, int, int]]) -> Any:
        key = (i1 - i0, *((pattern, j1 - j0) for j0, j1, pattern in parts))
        if key in made:
            return made[key]

        def unpack() -> Any:
            kept = np.concatenate([topology.keep(p)[: i1 - i0, : j1 - j0] for j0, j1, p in parts], axis=1)
            return library.array(np.tile(kept, (group, 1)), dtype)

        array = unpack()
        room[0] -= int(array.nbytes)
        made[key] = array if room[0] > 0 else unpack
        return made[key]

    return [
        Row(i0, i1, _chunks(tiles, topology.lk, topology.tile[1], lambda parts: block(i0, i1, parts)))  # noqa: B023
        for i0, i1, tiles in _tile_rows(topology)
    ]


def array_rows(
    mask: np.ndarray, topology: TileTopology | None, tile: tuple[int, int], group: int, library: Library, dtype: Any
) -> list[Row]:
    """Return the rows of a boolean array (Lq, Lk), within a compiled mask where there is one as well."""
    lq, lk = mask.shape
    starts = np.arange(0, lk, tile[1])
    within = _tile_rows(topology) if topology is not None else None
    rows = []
    for i0 in range(0, lq, tile[0]):
        i1 = min(i0 + tile[0], lq)
        part = mask[i0:i1]
        some = np.logical_or.reduceat(part.any(0), starts)
        every = np.logical_and.reduceat(part.all(0), starts)
        allowed = [(int(c), FULL) for c in range(len(starts))] if within is None else next(within)[2]
        # A tile that the array keeps whole has the compiled mask's pattern; one that it cuts is asked from the array.
        tiles = [(c, p if every[c] else _CUT - p) for c, p in allowed if some[c]]

        def block(parts: Sequence[tuple[int, int, int]], i0: int = i0, i1: int = i1) -> Any:
            def cut() -> Any:
                kept = [_cut(mask, topology, i0, i1, *piece) for piece in parts]
                return library.array(np.tile(np.concatenate(kept, axis=1), (group, 1)), dtype)

            return cut

        rows.append(Row(i0, i1, _chunks(tiles, lk, tile[1], block)))
    return rows


_CUT = -3  # patterns p >= FULL stand as _CUT - p <= -2 where the array cuts the tile too


def _cut(mask: np.ndarray, topology: TileTopology | None, i0: int, i1: int, j0: int, j1: int, code: int) -> np.ndarray:
    pattern = code if code >= FULL else _CUT - code
    kept = mask[i0:i1, j0:j1] if code < FULL else np.ones((i1 - i0, j1 - j0), bool)
    if pattern == FULL or topology is None:
        return kept
    return kept & topology.keep(pattern)[: i1 - i0, : j1 - j0]


def _tile_rows(topology: TileTopology) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    start, keys, patterns = topology.start.tolist(), topology.keys.tolist(), topology.pattern.tolist()
    for r, (a, b) in enumerate(pairwise(start)):
        i0 = r * topology.tile[0]
        yield i0, min(i0 + topology.tile[0], topology.lq), list(zip(keys[a:b], patterns[a:b]))


def _chunks(
    tiles: Sequence[tuple[int, int]], lk: int, side: int, block: Callable[[list[tuple[int, int, int]]], Any]
) -> tuple[Chunk, ...]:
    """Join the tiles of one row into chunks of neighbouring keys."""
    chunks: list[Chunk] = []
    pieces: list[tuple[int, int]] = []
    marks: list[list[Any]] = []  # [first column, last column, parts]
    width = 0

    def close() -> None:
        if width:
            spots = tuple(Spot(a, b, block(parts)) for a, b, parts in marks)
            chunks.append(Chunk(tuple(pieces), width, spots))

    for c, pattern in tiles:
        j0, j1 = c * side, min((c + 1) * side, lk)
        if width + j1 - j0 > COLUMNS:
            close()
            pieces, marks, width = [], [], 0
        if pieces and pieces[-1][1] == j0:
            pieces[-1] = (pieces[-1][0], j1)
        else:
            pieces.append((j0, j1))
        if pattern != FULL:
            if not marks or marks[-1][1] != width:
                marks.append([width, width, []])
            marks[-1][1] += j1 - j0
            marks[-1][2].append((j0, j1, pattern))
        width += j1 - j0
    close()
    return tuple(chunks)


class Scratch:
    """Buffers of one worker, grown to what its largest row needs: fresh memory for each would cost page faults."""

    def __init__(self, xp: Any, dtype: Any) -> None:
        self.xp, self.dtype = xp, dtype
        self.held: dict[str, Any] = {}

    def take(self, name: str, *shape: int) -> Any:
        """Return an array of this shape whose contents are arbitrary."""
        size = math.prod(shape)
        buffer = self.held.get(name)
        if buffer is None or buffer.shape[0] < size:
            buffer = self.held[name] = self.xp.empty(size, dtype=self.dtype)
        return buffer[:size].reshape(shape)


class Problem(NamedTuple):
    """The arrays of one call. B batches, H key heads, G query heads for each of them."""

    library: Library
    query: Any  # (B, H, G, Lq, D)
    key: Any  # (B, H, Lk, D)
    value: Any  # (B, H, Lk, Dv)
    bias: Any  # (B, H, G, Lq, Lk), broadcast, or None
    scale: float

    def at(self, array: Any, b: int, h0: int, h1: int, row: Row) -> Any:
        """Return a row's part of an array that is laid out like the queries, as (heads, rows, last)."""
        part = array[b, h0:h1, :, row.start : row.stop]
        return part.reshape(h1 - h0, part.shape[1] * part.shape[2], part.shape[3])


def _keys(p: Problem, array: Any, name: str, b: int, h0: int, h1: int, chunk: Chunk, scratch: Scratch) -> Any:
    """Return the keys (or values) of a chunk as one batch of matrices; a copy where they do not lie side by side."""
    if len(chunk.pieces) == 1:
        ((j0, j1),) = chunk.pieces
        return array[b, h0:h1, j0:j1]
    out = scratch.take(name, h1 - h0, chunk.width, array.shape[-1])
    p.library.xp.concatenate([array[b, h0:h1, j0:j1] for j0, j1 in chunk.pieces], axis=1, out=out)
    return out


def _scores(p: Problem, q: Any, k: Any, b: int, h0: int, h1: int, row: Row, chunk: Chunk, scratch: Scratch) -> Any:
    """Return the scaled scores of a chunk with the bias added, as (heads, rows, keys)."""
    s = scratch.take("scores", h1 - h0, q.shape[1], chunk.width)
    p.library.gemm(q, k.swapaxes(1, 2), s, p.scale, False)
    if p.bias is not None:
        grouped = s.reshape(h1 - h0, -1, row.stop - row.start, chunk.width)
        c = 0
        for j0, j1 in chunk.pieces:
            part = grouped[..., c : c + j1 - j0]
            part += p.bias[b, h0:h1, :, row.start : row.stop, j0:j1]
            c += j1 - j0
    return s


def _masked(s: Any, chunk: Chunk, log: Callable[[Any], Any] | None) -> None:
    """Take out what the mask does not keep: before the exponential by adding log(0), after it by multiplying."""
    for start, stop, block in chunk.spots:
        if callable(block):
            block = block()
        part = s[:, :, start:stop]
        if log is None:
            part *= block
        else:
            part += log(block)


def forward(p: Problem, out: Any, lse: Any, b: int, h0: int, h1: int, row: Row, scratch: Scratch) -> None:
    """Compute one row of tiles for some heads; ``lse`` (B, H, G, Lq) may be None."""
    xp = p.library.xp
    out = out[b, h0:h1, :, row.start : row.stop]
    lse = None if lse is None else lse[b, h0:h1, :, row.start : row.stop]
    if not row.chunks:
        out[...] = 0
        if lse is not None:
            lse[...] = -math.inf
        return
    acc, total, top = _weigh(p, b, h0, h1, row, scratch, shift=False)
    if not (float(total.min()) > LOW and float(total.max()) < HIGH):
        acc, total, top = _weigh(p, b, h0, h1, row, scratch, shift=True)
    if lse is not None:
        logs = _log(xp)(total)
        if top is not None:
            logs += xp.where(total == 0, xp.zeros_like(top), top)
        lse[...] = logs.reshape(lse.shape)
    if top is not None:
        xp.clip(total, 1e-37, None, out=total)  # 0 where a row keeps nothing; its result is zeros
    xp.divide(acc.reshape(out.shape), total.reshape(*out.shape[:-1], 1), out=out)


def _weigh(
    p: Problem, b: int, h0: int, h1: int, row: Row, scratch: Scratch, *, shift: bool
) -> tuple[Any, Any, Any]:
    """Return the values weighted by exp(score - top) and the weights' sums; ``top`` is None without ``shift``."""
    xp, heads = p.library.xp, h1 - h0
    q = p.at(p.query, b, h0, h1, row)
    total = scratch.take("total", heads, q.shape[1], 1)
    acc = scratch.take("acc", heads, q.shape[1], p.value.shape[-1])
    top = None
    for number, chunk in enumerate(row.chunks):
        k = _keys(p, p.key, "key", b, h0, h1, chunk, scratch)
        v = _keys(p, p.value, "value", b, h0, h1, chunk, scratch)
        s = _scores(p, q, k, b, h0, h1, row, chunk, scratch)
        if shift:
            _masked(s, chunk, _log(xp))
            new = xp.amax(s, axis=-1, keepdims=True)
            if number:
                new = xp.maximum(new, top)
            # A query that has kept nothing yet has -inf here; subtracting 0 instead keeps its weights zero.
            base = xp.where(new == -math.inf, xp.zeros_like(new), new)
            if number:
                fade = xp.exp(top - base)
                total *= fade
                acc *= fade
            top = new
            s -= base
            xp.exp(s, out=s)
        else:
            xp.exp(s, out=s)
            _masked(s, chunk, None)
        if number:
            total += s.sum(axis=-1, keepdims=True)
        else:
            xp.sum(s, axis=-1, keepdims=True, out=total)
        p.library.gemm(s, v, acc, 1.0, number > 0)
    return acc, total, top


def _log(xp: Any) -> Callable[[Any], Any]:
    """Return the logarithm, for which the logarithm of 0 is -inf and no cause for a warning."""
    if xp is not np:
        return xp.log

    def log(x: Any) -> Any:
        with np.errstate(divide="ignore"):
            return np.log(x)

    return log


class Gradients(NamedTuple):
    """What the gradient reads besides the problem, and where it writes.

    The weights are exp(score - lse). Where scores are known to be small, ``grad`` and ``delta`` come multiplied by
    exp(-lse), which spares a pass over the scores, and ``lse`` is None.
    """

    grad: Any  # (B, H, G, Lq, Dv)
    delta: Any  # (B, H, G, Lq, 1): sum(grad * out) - gradient of lse
    lse: Any  # (B, H, G, Lq, 1), 0 for rows that keep nothing; or None
    dquery: Any  # like the queries
    dkey: Any  # (B, H, Lk, D), added to
    dvalue: Any  # (B, H, Lk, Dv), added to
    dbias: Any  # (B or 1, H or 1, G or 1, Lq or 1, Lk or 1), added to, or None


def backward(p: Problem, g: Gradients, b: int, h0: int, h1: int, row: Row, scratch: Scratch) -> None:
    """Compute the gradient of one row of tiles for some heads."""
    xp, gemm, heads = p.library.xp, p.library.gemm, h1 - h0
    dquery = g.dquery[b, h0:h1, :, row.start : row.stop]
    if not row.chunks:
        dquery[...] = 0
        return
    q, grad = p.at(p.query, b, h0, h1, row), p.at(g.grad, b, h0, h1, row)
    delta = p.at(g.delta, b, h0, h1, row)
    lse = None if g.lse is None else p.at(g.lse, b, h0, h1, row)
    count = q.shape[1]
    dq = scratch.take("acc", heads, count, q.shape[-1])
    for number, chunk in enumerate(row.chunks):
        k = _keys(p, p.key, "key", b, h0, h1, chunk, scratch)
        v = _keys(p, p.value, "value", b, h0, h1, chunk, scratch)
        s = _scores(p, q, k, b, h0, h1, row, chunk, scratch)
        if lse is None:
            xp.exp(s, out=s)
            _masked(s, chunk, None)
        else:
            _masked(s, chunk, _log(xp))
            s -= lse
            xp.exp(s, out=s)
        ds = scratch.take("ds", heads, count, chunk.width)
        gemm(grad, v.swapaxes(1, 2), ds, 1.0, False)
        ds -= delta
        ds *= s
        if g.dbias is not None:
            grouped = ds.reshape(heads, -1, row.stop - row.start, chunk.width)
            _add_to_bias(g.dbias, grouped, b, h0, h1, row, chunk)
        gemm(ds, k, dq, p.scale, number > 0)
        c = 0
        for j0, j1 in chunk.pieces:
            columns = slice(c, c + j1 - j0)
            gemm(s[..., columns].swapaxes(1, 2), grad, g.dvalue[b, h0:h1, j0:j1], 1.0, True)
            gemm(ds[..., columns].swapaxes(1, 2), q, g.dkey[b, h0:h1, j0:j1], p.scale, True)
            c += j1 - j0
    dquery[...] = dq.reshape(dquery.shape)


def _add_to_bias(dbias: Any, ds: Any, b: int, h0: int, h1: int, row: Row, chunk: Chunk) -> None:
    """Add a chunk's score gradients, summed over the axes along which the bias was broadcast."""
    for axis in (0, 1, 2):
        if dbias.shape[axis + 1] == 1 and ds.shape[axis] != 1:
            ds = ds.sum(axis=axis, keepdims=True)
    target = dbias[b if dbias.shape[0] > 1 else 0]
    target = target[h0:h1] if target.shape[0] > 1 else target
    target = target[:, :, row.start : row.stop] if target.shape[2] > 1 else target
    c = 0
    for j0, j1 in chunk.pieces:
        part = ds[..., c : c + j1 - j0]
        c += j1 - j0
        if target.shape[-1] == 1:
            target += part.sum(axis=-1, keepdims=True)
        else:
            target[..., j0:j1] += part
