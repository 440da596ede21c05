"""Attention on a Vulkan device: shaders that visit only the tiles a mask keeps, computing in float32."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.operation import Features, Request
from ...core.operations.attention_rule import given, place, visited, working
from ..base import Kernel
from .attention_gradient import gradient_program, scores_nbytes
from .attention_tiles import FORWARD, LOG2_E, STORAGE, TUNING, Call, chunks, mask_table, shape_for
from .kernel import VulkanKernel
from .program import Program, spread_groups

__all__ = ["TUNING", "kernels"]
LARGEST_HEAD = 256


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [AttentionKernel(device), BackwardKernel(device)]


class _TiledKernel(VulkanKernel):
    """What the two operations share."""

    name = "tiles"

    def refusal(self, request: Request) -> str | None:
        s, dtype = given(request).sizes, request.first.dtype
        if dtype not in STORAGE:
            return f"Vulkan shaders here compute in float32; {dtype} operands need another device"
        if working(request) != "float32":
            return f"Vulkan shaders here compute in float32; precision={working(request)!r} needs another device"
        if max(s.d, s.dv) > LARGEST_HEAD:
            return f"head sizes up to {LARGEST_HEAD} are compiled, this one is {max(s.d, s.dv)}"
        if any(o is not None and o.dtype not in ("bool", "float32") for o in request.operands[7:]):
            return "the logsumexp and its gradient are read as float32"
        if min(s.d, s.dv) == 0 and s.matrices * s.lq * s.lk:
            return "a head size of 0 has nothing to compute with"
        return None

    def features(self, request: Request) -> Features:
        keys = max(visited(request), 1.0)
        masked = request.params.mask is not None
        return place(request, "array" if given(request).mask else "topology" if masked else "none", keys)


class AttentionKernel(_TiledKernel):
    """One dispatch: a workgroup for each tile of queries, with a running maximum and sum over its tiles of keys."""

    operation = "attention"

    def program(self, request: Request) -> Program:
        call, p = Call(request), request.params
        b, s = call.b, call.sizes
        name, shape = shape_for(self.device, self.limits, FORWARD, "attention", s.dv, s.d)
        tiles = -(-s.lq // shape.queries)
        topology = call.topology((shape.queries, shape.keys))
        table = call.places if topology is None else b.table(mask_table(topology))
        results = request.operation.result(request)
        out = call.target(0, results[0])
        logs = b.result(1, results[1].nbytes) if p.return_lse else out
        groups = tiles * s.matrices
        b.dispatch(
            f"attention_{name}",
            [*call.shared(), call.places, table, out, logs],
            writes=[out, logs] if p.return_lse else [out],
            groups=spread_groups(groups),
            constants=[
                *call.constants(topology is not None, p.scale * LOG2_E, request.first.dtype, int(p.return_lse)),
                *chunks(s.d, shape.chunk),
            ],
            sizes=call.lengths(tiles, groups, topology),
        )
        return call.program()


class BackwardKernel(_TiledKernel):
    """Two dispatches, one for the gradient of the queries and one for keys and values; none adds to another's sums."""

    operation = "attention_backward"

    def too_large(self, request: Request) -> str | None:
        wanted = request.params.bias_gradient and given(request).bias is not None
        return super().too_large(request) or (self.limits.too_large(scores_nbytes(request)) if wanted else None)

    def program(self, request: Request) -> Program:
        return gradient_program(request, self.device, self.limits)
