"""Plans of the tiled kernels: how operands are laid out, and how the rows of tiles are shared out among threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...core.operation import Request
from ...core.operations.attention_rule import Sizes, given, visited, working
from ...core.topology import TileTopology
from ...core.transfer import counters
from ..base import Plan
from .attention_tiles import (
    COLUMNS,
    HIGH,
    LARGEST,
    LOW,
    SAFE,
    SCRATCH,
    SMALLEST,
    Gradients,
    Library,
    Problem,
    Row,
    array_rows,
    backward,
    dense_rows,
    forward,
    forward_shifted,
    topology_rows,
)

SMALL = 2e7  # floating-point operations below which waking another thread costs more than it saves


class Layout(NamedTuple):
    """How a call's operands are seen: B batches, H key heads, G query heads for each."""

    b: int
    h: int
    g: int

    @classmethod
    def of(cls, s: Sizes) -> Layout:
        """Return the layout of a call."""
        heads = max(s.key_heads, 1)
        return cls(math.prod(s.batch), heads, s.heads // heads)

    def queries(self, array: Any) -> Any:
        """Return an array laid out like the queries as (B, H, G, Lq, last)."""
        return array.reshape(self.b, self.h, self.g, *array.shape[-2:])

    def keys(self, array: Any) -> Any:
        """Return an array laid out like the keys as (B, H, Lk, last)."""
        return array.reshape(self.b, self.h, *array.shape[-2:])

    def pairs(self, array: Any, batch: tuple[int, ...]) -> Any:
        """Return an array that broadcasts to (..., heads, Lq, Lk) as (B or 1, H or 1, G or 1, Lq or 1, Lk or 1)."""
        shape = (1,) * (len(batch) + 3 - array.ndim) + tuple(array.shape)
        lead, (heads, *lengths) = shape[: len(batch)], shape[len(batch) :]
        array = array.reshape(shape)
        if math.prod(lead) not in (1, self.b):  # broadcast along some batch axes only
            array = _broadcast(array, (*batch, heads, *lengths))
            lead = batch
        split = (self.h, self.g) if heads == self.h * self.g else (1, 1)
        return array.reshape(math.prod(lead), *split, *lengths)


def _broadcast(array: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(array, shape) if isinstance(array, np.ndarray) else array.expand(shape)


class Program(NamedTuple):
    """Rows of tiles for some heads of some batches; heads whose masks agree share one."""

    b: int
    h0: int
    h1: int
    rows: Sequence[Row]


class TiledKernel(Protocol):
    """What the plans need of a kernel."""

    def library(self) -> Library:
        """Return the array library that the tiles run on."""

    def dtype(self, name: str) -> Any:
        """Return a dtype of the library."""

    def take(self, array: Any, dtype: Any) -> Any:
        """Return an array in a dtype, with rows that lie in one piece."""

    def repeat(self, array: Any, times: int) -> Any:
        """Repeat each key head."""

    def limited(self, threads: int) -> AbstractContextManager[Any]:
        """Return what keeps the caller's own thread to a number of threads."""

    def share(
        self, workers: int, tasks: Sequence[Sequence[Any]], step: Callable[..., None], problem: Problem, dtype: Any
    ) -> None:
        """Do the steps of all tasks, in worker threads where there are several."""


def _tile_rows(request: Request) -> int:
    """Return the queries of a tile: more where each sees many keys, so that the edges of a mask waste little."""
    g, s, rows = given(request), given(request).sizes, 64
    if request.params.mask is None and g.mask is None:
        rows = min(256, SCRATCH * s.key_heads // (4 * COLUMNS * max(s.heads, 1)))
    elif g.mask is None:
        while rows < 256 and visited(request) >= 16 * rows:
            rows *= 2
    return max(1, min(rows, s.lq))


class TiledPlan(Plan):
    """What a tiled kernel keeps for a request: the rows of its compiled mask, and how the work is shared out."""

    def __init__(self, kernel: TiledKernel, request: Request) -> None:
        g = given(request)
        self.kernel, self.request, self.given, self.sizes = kernel, request, g, g.sizes
        s, p = g.sizes, request.params
        self.layout = Layout.of(s)
        self.repeated = g.mask is not None and len(g.mask.shape) > 2 and g.mask.shape[-3] > 1 and self.layout.g > 1
        if self.repeated:  # query heads that share a key head have masks of their own
            self.layout = Layout(self.layout.b, s.heads, 1)
        self.library = kernel.library()
        self.dtype = kernel.dtype(working(request))
        self.tile = (_tile_rows(request), 64)
        self.topology: TileTopology | None = None
        self.rows: list[Row] | None = None
        if p.mask is not None:
            self.topology = p.mask.tiles(s.lq, s.lk, self.tile)
        if g.mask is None:
            if self.topology is not None:
                self.rows = topology_rows(self.topology, self.layout.g, self.library, self.dtype)
                self.nbytes = self.topology.nbytes + (1 << 20)
            else:
                self.rows = dense_rows(s.lq, s.lk, self.tile[0])
        # A call that waking other threads would only slow down stays in the caller's.
        self.workers = 1 if request.operation.work(request).flops < SMALL else request.threads

    def programs(self, mask: Any) -> list[Program]:
        """Return the work of a call; a boolean operand is compiled here, once for all heads that share it."""
        b, h, _ = self.layout
        if self.rows is not None:
            return [Program(n, 0, h, self.rows) for n in range(b)]
        s = self.sizes
        array = self.layout.pairs(mask if isinstance(mask, np.ndarray) else mask.numpy(), s.batch)[:, :, 0]
        made: dict[tuple[int, int], list[Row]] = {}
        programs = []
        for n in range(b):
            for m in range(array.shape[1]):
                at = (n if array.shape[0] > 1 else 0, m)
                if at not in made:
                    kept = np.broadcast_to(array[at], (s.lq, s.lk))
                    made[at] = array_rows(kept, self.topology, self.tile, self.layout.g, self.library, self.dtype)
                programs.append(Program(n, m, m + 1, made[at]) if array.shape[1] > 1 else Program(n, 0, h, made[at]))
        return programs

    def problem(self, query: Any, key: Any, value: Any, bias: Any) -> Problem:
        """Return the operands in the layout and dtype of the work."""
        take, layout, s = self.kernel.take, self.layout, self.sizes
        if self.repeated:
            counters.count_copy("attention with a mask for each query head repeats the shared key heads")
            repeats = s.heads // s.key_heads
            key, value = (self.kernel.repeat(a, repeats) for a in (key, value))
        q, k, v = (take(a, self.dtype) for a in (query, key, value))
        if bias is not None:
            bias = _broadcast(layout.pairs(take(bias, self.dtype), s.batch), (*layout, s.lq, s.lk))
        rows = {"query": layout.queries(q)}
        scale, tile = self.request.params.scale, self.tile[0]
        return Problem(self.library, layout.keys(k), layout.keys(v), bias, scale, tile, rows)

    def heads_at_once(self, programs: Sequence[Program], tasks: int) -> int:
        """Return how many key heads a step takes: as many as leave their scores in the cache and every thread busy."""
        widest = max((c.width for p in programs[:1] for row in p.rows for c in row.chunks), default=1)
        rows = max((row.stop - row.start for p in programs[:1] for row in p.rows), default=1) * self.layout.g
        size = 8 if working(self.request) == "float64" else 4
        buffers = 2 if self.request.operation.name == "attention_backward" else 1
        fitting = max(1, SCRATCH // (rows * widest * size * buffers))
        return max(1, min(fitting, -(-self.layout.b * self.layout.h // tasks)))

    def run(self, *arrays: Any) -> Any:
        with self.kernel.limited(self.workers):
            return self.compute(*arrays)

    def compute(self, *arrays: Any) -> Any:
        """Compute in the threads that the call may use."""
        raise NotImplementedError


def _largest_score(p: Problem, bias: Any) -> float:
    """Return a bound of every score's size, by Cauchy and Schwarz; NaN where an operand has one."""
    xp = p.library.xp
    bound = abs(p.scale) * _largest(xp, p.rows["query"]) * _largest(xp, p.key)
    if bias is not None:
        bound += float(abs(xp.where(bias == -math.inf, xp.zeros_like(bias), bias)).max())
    return bound


def _moderate(array: Any) -> bool:
    """Tell whether an array's largest element is neither so large nor so small that products with it are lost."""
    if not math.prod(array.shape):
        return True
    low, high = (array.min(), array.max()) if isinstance(array, np.ndarray) else array.aminmax()
    largest = max(float(high), -float(low))
    return largest == 0 or SMALLEST < largest < LARGEST


def _largest(xp: Any, array: Any) -> float:
    """Return the largest Euclidean norm of a row."""
    if not array.shape[-1]:
        return 0.0
    if xp is np:
        with np.errstate(over="ignore", invalid="ignore"):
            return float(np.sqrt(np.einsum("...d,...d->...", array, array).max()))
    return float(xp.linalg.vector_norm(array, dim=-1).amax())


class ForwardPlan(TiledPlan):
    """Attention over tiles."""

    def compute(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        s, layout, empty = self.sizes, self.layout, self.library.xp.empty
        out = empty((*layout, s.lq, s.dv), dtype=query.dtype)
        lse = empty((*layout, s.lq), dtype=self.dtype) if self.request.params.return_lse else None
        if not s.matrices * s.lq:
            return self.shaped(query, out, lse)
        p, programs = self.problem(query, key, value, bias), self.programs(mask)
        p.rows["out"] = out
        p.rows["total"] = total = empty((*layout, s.lq, 1), dtype=self.dtype)
        workers = self.workers
        step = self.heads_at_once(programs, 1 if s.lq > 64 else workers)
        items = [
            (program.b, h, min(h + step, program.h1), row)
            for program in programs for h in range(program.h0, program.h1, step) for row in program.rows
        ]  # fmt: skip
        self.kernel.share(workers, [[item] for item in items], forward, p, self.dtype)
        if lse is not None:
            lse[...] = self.log(total)[..., 0]
            p.rows["lse"] = lse[..., None]
        exact = (total > LOW) & (total < HIGH)
        if not _moderate(p.value):
            exact[...] = False
        if not exact.all():
            again = [[it] for it in items if not exact[it[0], it[1] : it[2], :, it[3].start : it[3].stop].all()]
            self.kernel.share(workers, again, forward_shifted, p, self.dtype)
        return self.shaped(query, out, lse)

    def shaped(self, query: Any, out: Any, lse: Any) -> Any:
        """Return the results in the caller's shape."""
        out = out.reshape(*query.shape[:-1], self.sizes.dv)
        return out if lse is None else (out, lse.reshape(query.shape[:-1]))

    def log(self, total: Any) -> Any:
        """Return the logarithm of sums, which may be 0 or NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.library.xp.log(total)


class BackwardPlan(TiledPlan):
    """Gradient of attention over tiles."""

    def compute(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        take, layout, xp, s = self.kernel.take, self.layout, self.library.xp, self.sizes
        like = (query, key, value, bias)[: 4 if self.request.params.bias_gradient and bias is not None else 3]
        if not s.matrices * s.lq * s.lk:
            return tuple(xp.zeros(a.shape, dtype=a.dtype) for a in like)
        p, programs = self.problem(query, key, value, bias), self.programs(mask)
        grad, out, lse = (layout.queries(take(a, self.dtype)) for a in (grad, out, lse[..., None]))
        delta = (grad * out).sum(axis=-1, keepdims=True)
        if dlse is not None:
            delta = delta - layout.queries(take(dlse[..., None], self.dtype))
        lse = xp.where(lse == -math.inf, xp.zeros_like(lse), lse)
        if _moderate(grad) and _moderate(delta) and _largest_score(p, bias) < SAFE:
            weight = xp.exp(-lse)
            grad, delta, lse = grad * weight, delta * weight, None
        dbias = None
        if len(like) == 4:
            dbias = xp.zeros(layout.pairs(bias, s.batch).shape, dtype=self.dtype)
        dquery = xp.empty(p.rows["query"].shape, dtype=self.dtype)
        p.rows.update(grad=grad, delta=delta, dquery=dquery, **({} if lse is None else {"lse": lse}))
        workers = self.workers
        # Rows that share keys add to the same gradients. Either each task has heads of its own, or, where there are
        # too few heads (or a bias that they share), each has rows of its own and adds to gradients of its own.
        by_heads = dbias is None and _even(layout.b * layout.h, workers)
        step = self.heads_at_once(programs, workers if by_heads else 1)
        groups = [(q, h, min(h + step, q.h1)) for q in programs for h in range(q.h0, q.h1, step)]
        if by_heads:
            tasks = [[(0, q.b, h0, h1, row) for row in q.rows] for q, h0, h1 in groups]
        else:
            tasks = [
                [(part, q.b, h0, h1, row) for q, h0, h1 in groups for row in _part(q.rows, part, workers)]
                for part in range(workers)
            ]
        copies = 1 if by_heads else workers
        dkeys = [xp.zeros(p.key.shape, dtype=self.dtype) for _ in range(copies)]
        dvalues = [xp.zeros(p.value.shape, dtype=self.dtype) for _ in range(copies)]
        owned = dbias is None or (dbias.shape[3] == s.lq and workers == 1) or dbias.shape[3] > 1
        dbiases = [dbias if owned else xp.zeros_like(dbias) for _ in range(copies)]
        gradients = [Gradients(*parts) for parts in zip(dkeys, dvalues, dbiases)]
        steps = [[(gradients[part], *item) for part, *item in task] for task in tasks]
        self.kernel.share(workers, steps, backward, p, self.dtype)
        results = [dquery, _total(dkeys), _total(dvalues)]
        if dbias is not None:
            results.append(dbias if owned else _total(dbiases))
        if self.repeated:
            kept = (layout.b, s.key_heads, s.heads // s.key_heads, s.lk)
            results[1:3] = [a.reshape(*kept, a.shape[-1]).sum(axis=2) for a in results[1:3]]
        return tuple(take(a, o.dtype).reshape(o.shape) for a, o in zip(results, like))


def _even(heads: int, workers: int) -> bool:
    """Tell whether heads can be shared out with nobody waiting long."""
    return heads % workers == 0 or heads >= 4 * workers


def _part(rows: Sequence[Row], part: int, parts: int) -> list[Row]:
    """Return one of several contiguous parts of rows with about the same number of pairs each."""
    widths = np.array([row.width for row in rows])
    middles = np.cumsum(widths) - widths / 2
    shares = np.minimum(middles * parts / max(widths.sum(), 1), parts - 1).astype(int)
    return [row for row, share in zip(rows, shares) if share == part]


def _total(parts: Sequence[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
