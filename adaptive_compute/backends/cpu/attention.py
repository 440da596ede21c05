"""Attention on the CPU: torch's fused SDPA, and a tiled kernel that visits only what a mask keeps, in torch or NumPy."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from ...core.operation import Features, Request
from ...core.operations.attention_rule import Given, Sizes, given, place, visited, working
from ...core.topology import Causal, TileTopology
from ...core.transfer import counters
from ..base import Kernel, Plan
from .attention_tiles import (
    COLUMNS, SAFE, SCRATCH, Gradients, Library, Problem, Row, Scratch,
    array_rows, backward, dense_rows, forward, topology_rows,
)  # fmt: skip
from .device import needs, torch_threads

DENSE_LIMIT = 1 << 26  # pairs for which a mask is written out for SDPA: 64 MiB of booleans
SMALL = 2e7  # floating-point operations below which waking another thread costs more than it saves


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [
        SdpaKernel("attention"), TilesKernel("attention"), NumpyTilesKernel("attention"),
        SdpaKernel("attention_backward"), TilesKernel("attention_backward"), NumpyTilesKernel("attention_backward"),
    ]  # fmt: skip


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


class TiledPlan(Plan):
    """What a tiled kernel keeps for a request: the rows of its compiled mask, and how the work is shared out."""

    def __init__(self, kernel: TilesKernel, request: Request) -> None:
        g = given(request)
        self.kernel, self.request, self.given, self.sizes = kernel, request, g, g.sizes
        s, p = g.sizes, request.params
        self.layout = Layout.of(s)
        self.repeated = g.mask is not None and len(g.mask.shape) > 2 and g.mask.shape[-3] > 1 and self.layout.g > 1
        if self.repeated:  # query heads that share a key head have masks of their own
            self.layout = Layout(self.layout.b, s.heads, 1)
        self.library = kernel.library()
        self.dtype = kernel.dtype(working(request))
        self.tile = (min(64, max(s.lq, 1)), 64)
        self.topology: TileTopology | None = None
        self.rows: list[Row] | None = None
        if p.mask is not None:
            self.topology = p.mask.tiles(s.lq, s.lk, self.tile)
        if g.mask is None:
            if self.topology is not None:
                self.rows = topology_rows(self.topology, self.library, self.dtype)
                self.nbytes = self.topology.nbytes + (1 << 20)
            else:
                self.rows = dense_rows(s.lq, s.lk, max(1, min(256, SCRATCH // 4 // (self.layout.g * COLUMNS))))
        self.flops = request.operation.work(request).flops

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
                    made[at] = array_rows(kept, self.topology, self.tile, self.library, self.dtype)
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
        xp = self.library.xp
        bound = abs(self.request.params.scale) * _largest(xp, q) * _largest(xp, k)
        if bias is not None:
            bias = layout.pairs(take(bias, self.dtype), s.batch)
            finite = xp.where(bias == -math.inf, xp.zeros_like(bias), bias)
            bound += float(abs(finite).max()) if math.prod(bias.shape) else 0.0
            bias = _broadcast(bias, (*layout, s.lq, s.lk))
        return Problem(
            self.library, layout.queries(q), layout.keys(k), layout.keys(v), bias, self.request.params.scale, bound < SAFE
        )

    def heads_at_once(self, programs: Sequence[Program], tasks: int) -> int:
        """Return how many key heads a step takes: as many as leave their scores in the cache and every thread busy."""
        widest = max((c.width for p in programs[:1] for row in p.rows for c in row.chunks), default=1)
        rows = max((row.stop - row.start for p in programs[:1] for row in p.rows), default=1) * self.layout.g
        size = 8 if working(self.request) == "float64" else 4
        fitting = max(1, SCRATCH // (rows * widest * size))
        return max(1, min(fitting, -(-self.layout.b * self.layout.h // tasks)))

    def workers(self) -> int:
        """Return how many threads a call is worth."""
        return 1 if self.flops < SMALL else self.kernel.workers(self.request.threads)


def _largest(xp: Any, array: Any) -> float:
    """Return the largest Euclidean norm of a row, infinite or NaN where the array is."""
    if not math.prod(array.shape):
        return 0.0
    if xp is np:
        return math.sqrt(float(np.einsum("...d,...d->...", array, array).max()))
    return float(xp.linalg.vector_norm(array, dim=-1).amax())


class ForwardPlan(TiledPlan):
    """Attention over tiles."""

    def run(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        p, programs = self.problem(query, key, value, bias), self.programs(mask)
        s, layout = self.sizes, self.layout
        empty = self.library.xp.empty
        out = empty((*layout, s.lq, s.dv), dtype=query.dtype)
        lse = empty((*layout, s.lq), dtype=self.dtype) if self.request.params.return_lse else None
        workers = self.workers()
        step = self.heads_at_once(programs, 1 if s.lq > 64 else workers)
        items = [
            (program.b, h, min(h + step, program.h1), row)
            for program in programs for h in range(program.h0, program.h1, step) for row in program.rows
        ]  # fmt: skip

        def work(item: Any, scratch: Scratch) -> None:
            forward(p, out, lse, *item, scratch)

        self.kernel.share(workers, [[item] for item in items], work, self.dtype)
        out = out.reshape(*query.shape[:-1], s.dv)
        return out if lse is None else (out, lse.reshape(query.shape[:-1]))


class BackwardPlan(TiledPlan):
    """Gradient of attention over tiles."""

    def run(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        p, programs = self.problem(query, key, value, bias), self.programs(mask)
        take, layout, xp, s = self.kernel.take, self.layout, self.library.xp, self.sizes
        grad, out, lse = (layout.queries(take(a, self.dtype)) for a in (grad, out, lse[..., None]))
        delta = (grad * out).sum(axis=-1, keepdims=True)
        if dlse is not None:
            delta = delta - layout.queries(take(dlse[..., None], self.dtype))
        lse = xp.where(lse == -math.inf, xp.zeros_like(lse), lse)
        dbias = None
        if self.request.params.bias_gradient and bias is not None:
            dbias = xp.zeros(layout.pairs(bias, s.batch).shape, dtype=self.dtype)
        dquery = xp.empty(p.query.shape, dtype=self.dtype)
        workers = self.workers()
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
        gradients = [
            Gradients(grad, lse, delta, dquery, dk, dv, db) for dk, dv, db in zip(dkeys, dvalues, dbiases)
        ]

        def work(item: Any, scratch: Scratch) -> None:
            backward(p, gradients[item[0]], *item[1:], scratch)

        self.kernel.share(workers, tasks, work, self.dtype)
        results = [dquery, _total(dkeys), _total(dvalues)]
        if dbias is not None:
            results.append(dbias if owned else _total(dbiases))
        if self.repeated:
            kept = (layout.b, s.key_heads, s.heads // s.key_heads, s.lk)
            results[1:3] = [a.reshape(*kept, a.shape[-1]).sum(axis=2) for a in results[1:3]]
        like = (query, key, value, bias)
        return tuple(take(a, o.dtype).reshape(o.shape) for a, o in zip(results, like))


def _even(heads: int, workers: int) -> bool:
    """Tell whether heads can be shared out with nobody waiting long."""
    return heads % workers == 0 or heads >= 4 * workers


def _part(rows: Sequence[Row], part: int, parts: int) -> list[Row]:
    """Return one of several contiguous parts of rows with about the same number of pairs each."""
    ends = np.cumsum([row.width for row in rows])
    share = ends[-1] / parts if len(ends) else 0
    return [row for row, end in zip(rows, ends) if part == min(int((end - row.width / 2) / max(share, 1e-9)), parts - 1)]


def _total(parts: Sequence[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


class TilesKernel(Kernel):
    """Tiles by torch's batched products, one worker thread for each core."""

    name = "tiles"
    native = "torch"

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def supports(self, request: Request) -> bool | str:
        return needs("torch")

    def features(self, request: Request) -> Features:
        keys = max(visited(request), 1.0)
        masked = request.params.mask is not None
        return place(request, "array" if given(request).mask else "topology" if masked else "none", keys)

    def plan(self, request: Request) -> Plan:
        return (ForwardPlan if self.operation == "attention" else BackwardPlan)(self, request)

    def library(self) -> Library:
        """Return the array library that the tiles run on."""
        import torch

        def gemm(a: Any, b: Any, out: Any, alpha: float, accumulate: bool) -> None:
            if not accumulate:
                torch.baddbmm(out, a, b, beta=0, alpha=alpha, out=out)
            elif len(out) == 1 or out.is_contiguous():
                out.baddbmm_(a, b, alpha=alpha)
            else:
                for part, left, right in zip(out, a, b):
                    part.addmm_(left, right, alpha=alpha)

        def array(values: np.ndarray, dtype: Any) -> Any:
            return torch.from_numpy(values).to(dtype)

        return Library(torch, gemm, array)

    def dtype(self, name: str) -> Any:
        """Return a dtype of the library."""
        import torch

        return getattr(torch, name)

    def take(self, array: Any, dtype: Any) -> Any:
        """Return an array in a dtype, with rows that lie in one piece."""
        array = array.to(dtype)
        if array.ndim and array.shape[-1] > 1 and array.stride(-1) != 1:
            counters.count_copy("attention operand whose head axis is not contiguous")
            array = array.contiguous()
        return array

    def repeat(self, array: Any, times: int) -> Any:
        """Repeat each key head."""
        return array.repeat_interleave(times, dim=-3)

    def workers(self, threads: int) -> int:
        """Return how many workers a call of some threads has."""
        return threads

    def share(self, workers: int, tasks: Sequence[Sequence[Any]], work: Callable[..., None], dtype: Any) -> None:
        """Do the tasks, in worker threads where there are several."""
        import torch

        def drain(numbers: Iterable[int]) -> None:
            scratch = Scratch(torch, dtype)
            with torch.no_grad():
                for number in numbers:
                    if number >= len(tasks):
                        return
                    for item in tasks[number]:
                        work(item, scratch)

        if workers == 1:
            with torch_threads(1):
                drain(range(len(tasks)))
            return
        shared = count()
        for future in [_pool(workers).submit(drain, shared) for _ in range(workers)]:
            future.result()


_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool of threads in each of which torch uses one thread.

    torch's thread count belongs to the thread that sets it, save for a default that new threads read; that default is
    put back as soon as all workers have started. A forked process has none of its parent's threads and makes its own.
    """
    key = (os.getpid(), workers)
    with _pools_lock:
        pool = _pools.get(key)
        if pool is None:
            import torch

            before = torch.get_num_threads()
            started = threading.Barrier(workers + 1)

            def start() -> None:
                torch.set_num_threads(1)
                started.wait()

            pool = ThreadPoolExecutor(workers, thread_name_prefix="adaptive-attention")
            for _ in range(workers):
                pool.submit(start)
            started.wait()
            torch.set_num_threads(before)
            _pools[key] = pool
    return pool


class NumpyTilesKernel(TilesKernel):
    """Tiles by NumPy's matrix products, whose BLAS brings its own threads."""

    name = "numpy-tiles"
    native = "numpy"

    def supports(self, request: Request) -> bool | str:
        return "NumPy has no bfloat16" if request.first.dtype == "bfloat16" else True

    def library(self) -> Library:
        def gemm(a: Any, b: Any, out: Any, alpha: float, accumulate: bool) -> None:
            if alpha != 1.0:
                a = a * a.dtype.type(alpha)
            if accumulate:
                out += a @ b
            else:
                np.matmul(a, b, out=out)

        return Library(np, gemm, lambda values, dtype: values.astype(dtype))

    def dtype(self, name: str) -> Any:
        return np.dtype(name)

    def take(self, array: Any, dtype: Any) -> Any:
        return np.asarray(array, dtype)

    def repeat(self, array: Any, times: int) -> Any:
        return np.repeat(array, times, axis=-3)

    def workers(self, threads: int) -> int:
        return 1

    def share(self, workers: int, tasks: Sequence[Sequence[Any]], work: Callable[..., None], dtype: Any) -> None:
        scratch = Scratch(np, dtype)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinite operands give NaN, as in torch
            for task in tasks:
                for item in task:
                    work(item, scratch)


class SdpaKernel(Kernel):
    """torch.nn.functional.scaled_dot_product_attention: flash attention on float operands, masks written out in full.

    The logsumexp and the gradient come from the operators that it is made of; where a torch has them no more, those
    requests are left to the tiles.
    """

    name = "sdpa"
    native = "torch"

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def supports(self, request: Request) -> bool | str:
        reason = needs("torch")
        if reason is not True:
            return reason
        g, p, s = given(request), request.params, given(request).sizes
        backward = self.operation == "attention_backward"
        masked = (p.mask is not None and p.mask != Causal()) or g.bias is not None
        if masked and s.lq * s.lk > DENSE_LIMIT:
            return f"the mask written out would have {s.lq * s.lk} entries, more than {DENSE_LIMIT}"
        if min(s.matrices, s.lq, s.lk, s.d, s.dv) == 0:
            return "an axis is empty"
        if backward or p.return_lse:
            if _flash() is None:
                return "this torch has no flash attention operator for the CPU that gives the logsumexp"
            if s.d != s.dv:
                return "flash attention needs keys and values of one head size"
            if backward and p.bias_gradient:
                return "flash attention has no gradient of a bias"
            if backward and request.operands[8] is not None:
                return "flash attention has no gradient through the logsumexp"
        return True

    def features(self, request: Request) -> Features:
        return request.operation.features(request)

    def plan(self, request: Request) -> Plan:
        return _SdpaPlan(request)


def _flash() -> Any:
    """Return torch's forward and backward flash operators for the CPU, or None where this torch lacks one."""
    import torch

    names = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
    found = [getattr(torch.ops.aten, name, None) for name in names]
    return None if None in found else found


class _SdpaPlan(Plan):
    def __init__(self, request: Request) -> None:
        import torch

        self.request, self.given = request, given(request)
        p, s = request.params, self.given.sizes
        self.sizes, self.group = s, s.heads // s.key_heads
        self.dtype = getattr(torch, p.precision) if p.precision else getattr(torch, request.first.dtype)
        plain = self.given.mask is None and self.given.bias is None
        self.causal = plain and p.mask == Causal()
        self.kept: Any = None
        if p.mask is not None and not self.causal:
            kept = p.mask.keep(np.arange(s.lq)[:, None], np.arange(s.lk)[None, :], s.lq, s.lk)
            self.kept = torch.from_numpy(np.array(np.broadcast_to(kept, (s.lq, s.lk))))
            self.nbytes = self.kept.nbytes
        self.run = self._backward if request.operation.name == "attention_backward" else self._forward  # type: ignore[method-assign]

    def _mask(self, mask: Any, bias: Any) -> Any:
        """Return everything that is asked of the scores as the one mask that SDPA takes."""
        if self.kept is not None:
            mask = self.kept if mask is None else mask & self.kept
        if bias is None:
            return mask
        bias = bias.to(self.dtype)
        return bias if mask is None else bias.masked_fill(~mask, -math.inf)

    def _heads(self, array: Any) -> Any:
        """Return an operand as (B, heads, length, size) with as many heads as the query has."""
        array = array.to(self.dtype).reshape(-1, *array.shape[-3:]) if array.ndim > 2 else array.to(self.dtype)[None, None]
        return array.repeat_interleave(self.group, 1) if array.shape[1] != self.sizes.heads else array

    def _full(self, mask: Any) -> Any:
        """Return the mask with four axes, as the operators want it, floating so that both read it."""
        import torch

        if mask is None:
            return None
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=self.dtype).masked_fill_(~mask, -math.inf)
        s = self.sizes
        return mask.expand(*s.batch, s.heads, s.lq, s.lk).reshape(-1, s.heads, s.lq, s.lk)

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        import torch

        mask = self._mask(mask, bias)
        q, k, v = (self._heads(a) for a in (query, key, value))
        p = self.request.params
        with torch_threads(self.request.threads), torch.no_grad():
            if p.return_lse:
                out, lse = _flash()[0](q, k, v, 0.0, self.causal, attn_mask=self._full(mask), scale=p.scale)
                return self._finish(out, lse, mask, query)
            if mask is not None and mask.ndim > 2:
                mask = self._full(mask) if len(self.sizes.batch) != 1 else mask
            out = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=self.causal, scale=p.scale
            )
        return out.reshape(*query.shape[:-1], self.sizes.dv).to(query.dtype)

    def _finish(self, out: Any, lse: Any, mask: Any, query: Any) -> Any:
        """Give rows that keep nothing a logsumexp of -inf, where the operator leaves 0."""
        lse = lse.reshape(query.shape[:-1]).contiguous()
        if mask is not None:
            full = mask.expand(*query.shape[:-1], self.sizes.lk) if query.ndim > 2 else mask
            nothing = ~mask.any(-1) if mask.dtype.is_floating_point is False else (mask == -math.inf).all(-1)
            del full
            lse.masked_fill_(nothing.expand(lse.shape), -math.inf)
        return out.reshape(*query.shape[:-1], self.sizes.dv).to(query.dtype), lse

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        import torch

        s, p = self.sizes, self.request.params
        full = self._full(self._mask(mask, bias))
        q, k, v, grad, out = (self._heads(a) for a in (query, key, value, grad, out))
        lse = lse.masked_fill(lse == -math.inf, 0.0).reshape(-1, s.heads, s.lq)
        with torch_threads(self.request.threads), torch.no_grad():
            dq, dk, dv = _flash()[1](grad, q, k, v, out, lse, 0.0, self.causal, attn_mask=full, scale=p.scale)
        if self.group > 1:
            dk, dv = (a.reshape(-1, s.key_heads, self.group, *a.shape[-2:]).sum(2) for a in (dk, dv))
        return tuple(a.reshape(o.shape).to(o.dtype) for a, o in zip((dq, dk, dv), (query, key, value)))
