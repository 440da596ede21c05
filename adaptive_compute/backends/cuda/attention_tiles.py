"""Attention over any topology on NVIDIA GPUs: kernels that visit only the tiles that a mask keeps."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...core.operation import Features, Request
from ...core.operations.attention_rule import given, place
from ...core.topology import FULL, Mask, TileTopology
from ...core.transfer import counters
from ..base import Kernel
from . import memory
from .device import needs, on

LARGEST_HEAD = 256


class Tiling(NamedTuple):
    """Sides of a tile, and how a kernel runs: warps, and stages of its pipeline of loads."""

    m: int
    n: int
    warps: int
    stages: int


def tiling(purpose: str, dtype: str, head: int) -> Tiling:
    """Return the tiles of a kernel ("forward", "queries" or "keys") for a head size and a dtype, by measurement.

    Larger tiles would be a little faster where all pairs are kept, and lose more where a mask cuts them.
    """
    if dtype == "float32":
        return Tiling(64, 32, 4, 1) if head <= 64 else Tiling(32, 32, 4, 1)
    if head > 128:
        return Tiling(64, 32, 4, 2) if purpose == "forward" else Tiling(32, 32, 4, 1)
    return Tiling(64, 64, 4, 3 if purpose == "keys" else 2)


class Lists(NamedTuple):
    """Compressed sparse rows on the device: full tiles from ``start[r]`` to ``middle[r]``, then those that are cut."""

    start: Any
    middle: Any
    tiles: Any
    patterns: Any


class Compiled(NamedTuple):
    """A mask for a kernel: what each tile of queries visits, what visits each tile of keys, and the patterns' bits."""

    by_query: Lists
    by_key: Lists
    bits: Any
    nbytes: int


def split(topology: TileTopology) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each visited tile its row, and whether the end of the queries or of the keys cuts it."""
    rows = np.repeat(np.arange(len(topology.start) - 1), np.diff(topology.start))
    beyond_q = (rows + 1) * topology.tile[0] > topology.lq
    beyond_k = (topology.keys.astype(np.int64) + 1) * topology.tile[1] > topology.lk
    return rows, beyond_q, beyond_k


def lists(major: np.ndarray, minor: np.ndarray, pattern: np.ndarray, cut: np.ndarray, count: int) -> list[np.ndarray]:
    """Return tiles ordered by their major place, full ones first, as start, middle, minor places and patterns."""
    order = np.lexsort((minor, cut, major))
    start = np.searchsorted(major[order], np.arange(count + 1))
    full = np.bincount(major[~cut], minlength=count)[:count] if len(major) else np.zeros(count, np.int64)
    return [a.astype(np.int32) for a in (start, start[:-1] + full, minor[order], pattern[order])]


@lru_cache(maxsize=32)
def compiled(mask: Mask | None, lq: int, lk: int, m: int, n: int, device: str) -> Compiled:
    """Compile a mask into lists on a device."""
    import torch

    topology = everything(lq, lk, m, n) if mask is None else mask.tiles(lq, lk, (m, n))
    rows, beyond_q, beyond_k = split(topology)
    partial = topology.pattern != FULL
    counts = -(-lq // m), -(-lk // n)
    parts = [
        lists(rows, topology.keys, topology.pattern, partial | beyond_k, counts[0]),
        lists(topology.keys, rows, topology.pattern, partial | beyond_k | beyond_q, counts[1]),
    ]
    bits = topology.bits if len(topology.bits) else np.zeros((1, m, n // 8), np.uint8)
    put = [[torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in part] for part in parts]
    there = torch.from_numpy(np.array(bits)).to(device)
    nbytes = sum(a.nbytes for part in put for a in part) + there.nbytes
    return Compiled(Lists(*put[0]), Lists(*put[1]), there, nbytes)


def everything(lq: int, lk: int, m: int, n: int) -> TileTopology:
    """Return the topology that keeps every pair."""
    rows, columns = -(-lq // m), -(-lk // n)
    start = np.arange(rows + 1, dtype=np.int32) * columns
    keys = np.tile(np.arange(columns, dtype=np.int32), rows)
    full, none = np.full(len(keys), FULL, np.int32), np.zeros((0, m, n // 8), np.uint8)
    return TileTopology(lq, lk, (m, n), start, keys, full, none)


class TilesKernel(Kernel):
    """Triton kernels over the tiles that a mask keeps."""

    name = "tiles"
    native = "torch"
    compiles = True

    def __init__(self, operation: str, device: str) -> None:
        self.operation, self.device = operation, device

    def supports(self, request: Request) -> bool | str:
        g, s = given(request), given(request).sizes
        if g.query.dtype not in ("float16", "bfloat16", "float32") or request.params.precision:
            return "it computes in float16, bfloat16 and float32, with float32 sums"
        if g.mask is not None or g.bias is not None:
            return "it takes masks that compile to a topology, no array and no bias"
        if self.operation == "attention_backward" and request.params.bias_gradient:
            return "it has no gradient of a bias"
        if min(s.matrices, s.lq, s.lk, s.d, s.dv) == 0:
            return "an axis is empty"
        if max(s.d, s.dv) > LARGEST_HEAD:
            return f"the head size is above {LARGEST_HEAD}"
        if s.matrices > 65535:
            return "more than 65535 heads over the batch"
        return needs("triton")

    def features(self, request: Request) -> Features:
        s, mask = given(request).sizes, request.params.mask
        keys = float(s.lk)
        if mask is not None and s.lq:
            keys = min(max(mask.tiles(s.lq, s.lk, (64, 64)).visited * 4096 / s.lq, 1.0), keys)
        return place(request, "topology" if mask is not None else "none", keys)

    def plan(self, request: Request) -> memory.GuardedPlan:
        return TilesPlan(request, self.device)


def _side(size: int) -> int:
    """Return the power of two that a head is padded to; Triton's products need at least 16."""
    return max(16, 1 << (size - 1).bit_length())


class TilesPlan(memory.GuardedPlan):
    """Attention or its gradient over the tiles of one mask."""

    def __init__(self, request: Request, device: str) -> None:
        backward = request.operation.name == "attention_backward"
        super().__init__(self._backward if backward else self._forward)
        g, p = given(request), request.params
        s = self.sizes = g.sizes
        self.dtype, self.scale = g.query.dtype, p.scale
        self.lse = not backward and p.return_lse
        self.group = s.heads // s.key_heads
        head = max(s.d, s.dv)
        purposes = ("queries", "keys") if backward else ("forward",)
        self.tiles = [tiling(purpose, self.dtype, head) for purpose in purposes]
        self.topologies = [compiled(p.mask, s.lq, s.lk, tile.m, tile.n, device) for tile in self.tiles]
        self.nbytes = sum({id(t): t.nbytes for t in self.topologies}.values())
        self.constants = [
            {
                "D": s.d, "DV": s.dv, "HEAD": _side(s.d), "HEAD_V": _side(s.dv), "M": tile.m, "N": tile.n,
                "PRECISION": "ieee" if self.dtype == "float32" else "tf32",
                "num_warps": tile.warps, "num_stages": tile.stages,
            }
            for tile in self.tiles
        ]  # fmt: skip

    def _three(self, x: Any) -> Any:
        """Return an operand as (matrices, length, size) with rows in one piece."""
        y = x.reshape(-1, *x.shape[-2:])
        if y.stride(-1) != 1 and y.shape[-1] > 1:
            counters.count_copy("attention operand whose head axis is not contiguous")
            y = y.contiguous()
        return y

    def _steps(self, q: Any, k: Any, v: Any) -> tuple[int, ...]:
        return (q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1))

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        import torch

        from .attention_triton import forward

        s, tile, topology = self.sizes, self.tiles[0], self.topologies[0]
        q, k, v = (self._three(x) for x in (query, key, value))
        out = torch.empty((*query.shape[:-1], s.dv), dtype=query.dtype, device=query.device)
        lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        with on(query):
            forward[(-(-s.lq // tile.m), s.matrices)](
                q, k, v, out, lse, *topology.by_query, topology.bits, self.scale, s.lq, s.lk, s.heads, self.group,
                *self._steps(q, k, v), **self.constants[0],
            )  # fmt: skip
        return (out, lse) if self.lse else out

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        import torch

        from .attention_triton import backward_keys, backward_queries

        s = self.sizes
        q, k, v = (self._three(x) for x in (query, key, value))
        g, o, rows = grad.contiguous(), out.contiguous(), lse.float().contiguous()
        slope = rows if dlse is None else dlse.float().contiguous()
        delta = torch.empty_like(rows)
        found = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key, value)]
        common = (self.scale, s.lq, s.lk, s.heads, self.group, *self._steps(q, k, v))
        (tile, other), (first, second) = self.tiles, self.topologies
        with on(query):
            backward_queries[(-(-s.lq // tile.m), s.matrices)](
                q, k, v, o, g, found[0], rows, slope, delta, *first.by_query, first.bits, *common,
                LSE=dlse is not None, **self.constants[0],
            )  # fmt: skip
            backward_keys[(-(-s.lk // other.n), math.prod(s.batch) * s.key_heads)](
                q, k, v, g, found[1], found[2], rows, delta, *second.by_key, second.bits, *common, **self.constants[1]
            )
        return tuple(found)
