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

# Scores up to this size let the backward pass scale the incoming gradient by exp(-lse) once, instead of subtracting lse
# from every score: the scale stays within 1e-13 .. 1e9 for any length of sequence.
SAFE = 20.0
# Sums of exponentials in between are exact: what was lost to underflow is below 1e-20 of the sum, nothing overflowed.
LOW, HIGH = 1e-12, 1e18
# Values and gradients whose largest element is in between stay clear of overflow and underflow in those products.
SMALLEST, LARGEST = 1e-18, 1e18
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
    of the library; ``split`` cuts an array along axis 1 into views of a length.
    """

    xp: Any
    gemm: Callable[[Any, Any, Any, float, bool], None]
    array: Callable[[np.ndarray, Any], Any]
    split: Callable[[Any, int], Sequence[Any]]


def dense_rows(lq: int, lk: int, rows: int) -> list[Row]:
    """Return the rows of a call without a mask."""
    chunks = tuple(Chunk(((j, min(j + COLUMNS, lk)),), min(COLUMNS, lk - j), ()) for j in range(0, lk, COLUMNS))
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


class Problem(NamedTuple):
    """The arrays of one call. B batches, H key heads, G query heads for each of them.

    ``rows`` holds by name what is laid out like the queries, as (B, H, G, Lq, last): ``query`` itself; forward also
    ``out`` and ``total`` (sums of exponentials), which are written, and ``lse``, written where a row is done again;
    backward ``grad``, ``delta``, perhaps ``lse``, and ``dquery``, which is written.
    """

    library: Library
    key: Any  # (B, H, Lk, D)
    value: Any  # (B, H, Lk, Dv)
    bias: Any  # (B, H, G, Lq, Lk), broadcast, or None
    scale: float
    tile: int  # queries of a row of tiles
    rows: dict[str, Any]


class Heads:
    """A problem cut to some heads of one batch: the views that many steps share.

    Views are made here all at once where they can be: each call of a library lets another thread take the
    interpreter, and a step has few calls that are worth it.
    """

    def __init__(self, p: Problem, b: int, h0: int, h1: int) -> None:
        self.at = (b, h0, h1)
        self.tile = p.tile
        self.key, self.value = p.key[b, h0:h1], p.value[b, h0:h1]
        self.key_t, self.value_t = self.key.swapaxes(1, 2), self.value.swapaxes(1, 2)
        self.bias = None if p.bias is None else p.bias[b, h0:h1]
        self.grouped = p.rows["query"].shape[2] > 1
        if self.grouped:
            self.rows = {name: a[b, h0:h1] for name, a in p.rows.items()}
        else:
            self.rows = {name: p.library.split(a[b, h0:h1, 0], p.tile) for name, a in p.rows.items()}

    def cut(self, name: str, row: Row) -> Any:
        """Return a row of tiles as (heads, queries, last): a view, but a copy where heads are grouped."""
        if not self.grouped:
            return self.rows[name][row.start // self.tile]
        part = self.rows[name][:, :, row.start : row.stop]
        return part.reshape(part.shape[0], part.shape[1] * part.shape[2], part.shape[3])

    def put(self, name: str, row: Row, values: Any) -> None:
        """Write a row of tiles."""
        if self.grouped:
            target = self.rows[name][:, :, row.start : row.stop]
            target[...] = values.reshape(target.shape)
        else:
            self.rows[name][row.start // self.tile][...] = values


class Scratch:
    """Buffers and views of one worker, kept from step to step: memory that is fresh each time costs page faults."""

    def __init__(self, p: Problem, dtype: Any) -> None:
        self.problem, self.dtype = p, dtype
        self._buffers: dict[str, Any] = {}
        self._views: dict[tuple[Any, ...], Any] = {}
        self._heads: Heads | None = None

    def take(self, name: str, *shape: int) -> Any:
        """Return an array of this shape whose contents are arbitrary."""
        view = self._views.get((name, shape))
        if view is None:
            size = math.prod(shape)
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape[0] < size:
                buffer = self._buffers[name] = self.problem.library.xp.empty(size, dtype=self.dtype)
                self._views.clear()
            view = self._views[name, shape] = buffer[:size].reshape(shape)
        return view

    def columns(self, start: int, stop: int, name: str, shape: tuple[int, ...]) -> Any:
        """Return columns of the array that ``take`` returns for this name and shape."""
        view = self._views.get((name, shape, start, stop))
        if view is None:
            view = self._views[name, shape, start, stop] = self.take(name, *shape)[:, :, start:stop]
        return view

    def heads(self, b: int, h0: int, h1: int) -> Heads:
        """Return the problem cut to some heads; consecutive steps mostly ask for the same."""
        if self._heads is None or self._heads.at != (b, h0, h1):
            self._heads = Heads(self.problem, b, h0, h1)
        return self._heads


def _gathered(array: Any, name: str, chunk: Chunk, scratch: Scratch) -> Any:
    """Return the keys (or values) of a chunk as one batch of matrices; a copy where they do not lie side by side."""
    if len(chunk.pieces) == 1:
        ((j0, j1),) = chunk.pieces
        return array[:, j0:j1]
    out = scratch.take(name, array.shape[0], chunk.width, array.shape[2])
    scratch.problem.library.xp.concatenate([array[:, j0:j1] for j0, j1 in chunk.pieces], axis=1, out=out)
    return out


def _transposed(array: Any, gathered: Any, chunk: Chunk) -> Any:
    """Return a chunk of transposed keys (or values): a view of the whole where they lie side by side."""
    if len(chunk.pieces) == 1:
        ((j0, j1),) = chunk.pieces
        return array[:, :, j0:j1]
    return gathered.swapaxes(1, 2)


def _scores(heads: Heads, q: Any, key_t: Any, row: Row, chunk: Chunk, scratch: Scratch) -> Any:
    """Return the scaled scores of a chunk with the bias added, as (heads, queries, keys)."""
    p = scratch.problem
    s = scratch.take("scores", q.shape[0], q.shape[1], chunk.width)
    p.library.gemm(q, key_t, s, p.scale, False)
    if heads.bias is not None:
        grouped = s.reshape(s.shape[0], -1, row.stop - row.start, chunk.width)
        c = 0
        for j0, j1 in chunk.pieces:
            part = grouped[..., c : c + j1 - j0]
            part += heads.bias[:, :, row.start : row.stop, j0:j1]
            c += j1 - j0
    return s


def _masked(s: Any, chunk: Chunk, scratch: Scratch, log: Callable[[Any], Any] | None) -> None:
    """Take out of scores what the mask does not keep: before the exponential by adding log(0), after it by 0."""
    for start, stop, block in chunk.spots:
        if callable(block):
            block = block()
        part = scratch.columns(start, stop, "scores", s.shape)
        if log is None:
            part *= block
        else:
            part += log(block)


def forward(scratch: Scratch, b: int, h0: int, h1: int, row: Row) -> None:
    """Compute one row of tiles for some heads, taking the exponentials as they are.

    Where ``total`` comes out beyond LOW and HIGH the row is not exact, and ``forward_shifted`` must do it again.
    """
    p, heads = scratch.problem, scratch.heads(b, h0, h1)
    if not row.chunks:
        heads.put("total", row, p.library.xp.zeros_like(heads.cut("total", row)))
        return
    xp, q = p.library.xp, heads.cut("query", row)
    acc = scratch.take("acc", q.shape[0], q.shape[1], p.value.shape[-1])
    total = scratch.take("total", q.shape[0], q.shape[1], 1) if heads.grouped else heads.cut("total", row)
    for number, chunk in enumerate(row.chunks):
        k = _gathered(heads.key, "key", chunk, scratch) if len(chunk.pieces) > 1 else None
        s = _scores(heads, q, _transposed(heads.key_t, k, chunk), row, chunk, scratch)
        xp.exp(s, out=s)
        _masked(s, chunk, scratch, None)
        if number:
            total += s.sum(axis=-1, keepdims=True)
        else:
            xp.sum(s, axis=-1, keepdims=True, out=total)
        p.library.gemm(s, _gathered(heads.value, "value", chunk, scratch), acc, 1.0, number > 0)
    if heads.grouped:
        heads.put("total", row, total)
        acc /= total
        heads.put("out", row, acc)
    else:
        xp.divide(acc, total, out=heads.cut("out", row))


def forward_shifted(scratch: Scratch, b: int, h0: int, h1: int, row: Row) -> None:
    """Compute one row of tiles for some heads, subtracting each query's largest score before the exponential."""
    p, heads = scratch.problem, scratch.heads(b, h0, h1)
    xp, log, q = p.library.xp, _log(p.library.xp), heads.cut("query", row)
    acc = scratch.take("acc", q.shape[0], q.shape[1], p.value.shape[-1])
    total = scratch.take("total", q.shape[0], q.shape[1], 1)
    acc[...], total[...] = 0, 0
    top = xp.full_like(total, -math.inf)
    for chunk in row.chunks:
        k = _gathered(heads.key, "key", chunk, scratch)
        s = _scores(heads, q, k.swapaxes(1, 2), row, chunk, scratch)
        _masked(s, chunk, scratch, log)
        new = xp.maximum(xp.amax(s, axis=-1, keepdims=True), top)
        # A query that has kept nothing yet has -inf here; subtracting 0 instead keeps its weights zero.
        base = xp.where(new == -math.inf, xp.zeros_like(new), new)
        fade = xp.exp(top - base)
        total *= fade
        acc *= fade
        top = new
        s -= base
        xp.exp(s, out=s)
        total += s.sum(axis=-1, keepdims=True)
        p.library.gemm(s, _gathered(heads.value, "value", chunk, scratch), acc, 1.0, True)
    if "lse" in heads.rows:
        heads.put("lse", row, log(total) + xp.where(total == 0, xp.zeros_like(top), top))
    acc /= xp.where(total == 0, xp.full_like(total, 1.0), total)  # a query that keeps nothing gives zeros
    heads.put("out", row, acc)


def _log(xp: Any) -> Callable[[Any], Any]:
    """Return the logarithm, for which the logarithm of 0 is -inf and no cause for a warning."""
    if xp is not np:
        return xp.log

    def log(x: Any) -> Any:
        with np.errstate(divide="ignore"):
            return np.log(x)

    return log


class Gradients(NamedTuple):
    """Where the gradient of keys, values and bias is added up."""

    dkey: Any  # (B, H, Lk, D)
    dvalue: Any  # (B, H, Lk, Dv)
    dbias: Any  # (B or 1, H or 1, G or 1, Lq or 1, Lk or 1), or None


def backward(scratch: Scratch, g: Gradients, b: int, h0: int, h1: int, row: Row) -> None:
    """Compute the gradient of one row of tiles for some heads.

    The weights are exp(score - lse). Where scores are known to be small, ``grad`` and ``delta`` come multiplied by
    exp(-lse), which spares a pass over the scores, and there is no ``lse``.
    """
    p, heads = scratch.problem, scratch.heads(b, h0, h1)
    xp, gemm = p.library.xp, p.library.gemm
    q = heads.cut("query", row)
    dq = scratch.take("acc", *q.shape)
    if not row.chunks:
        dq[...] = 0
    grad, delta = heads.cut("grad", row), heads.cut("delta", row)
    lse = heads.cut("lse", row) if "lse" in heads.rows else None
    dkey, dvalue = g.dkey[b, h0:h1], g.dvalue[b, h0:h1]
    for number, chunk in enumerate(row.chunks):
        k = _gathered(heads.key, "key", chunk, scratch)
        v = _gathered(heads.value, "value", chunk, scratch) if len(chunk.pieces) > 1 else None
        s = _scores(heads, q, _transposed(heads.key_t, k, chunk), row, chunk, scratch)
        if lse is None:
            xp.exp(s, out=s)
            _masked(s, chunk, scratch, None)
        else:
            _masked(s, chunk, scratch, _log(xp))
            s -= lse
            xp.exp(s, out=s)
        ds = scratch.take("ds", *s.shape)
        gemm(grad, _transposed(heads.value_t, v, chunk), ds, 1.0, False)
        ds -= delta
        ds *= s
        if g.dbias is not None:
            grouped = ds.reshape(ds.shape[0], -1, row.stop - row.start, chunk.width)
            _add_to_bias(g.dbias, grouped, b, h0, h1, row, chunk)
        gemm(ds, k, dq, p.scale, number > 0)
        s_t, ds_t = s.swapaxes(1, 2), ds.swapaxes(1, 2)
        c = 0
        for j0, j1 in chunk.pieces:
            gemm(s_t[:, c : c + j1 - j0], grad, dvalue[:, j0:j1], 1.0, True)
            gemm(ds_t[:, c : c + j1 - j0], q, dkey[:, j0:j1], p.scale, True)
            c += j1 - j0
    heads.put("dquery", row, dq)


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
