"""Reductions on a Vulkan device: one pass where results are many, two where they are few. Same bits in every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ...core.array import Operand, itemsize
from ...core.operation import Request
from ...core.operations.reduce_rule import result_dtype
from ..base import Kernel
from .gather import add_narrowing
from .kernel import VulkanKernel
from .program import Buffer, Builder, Program, spread_groups
from .tuning import tuned

LOCAL = 256  # threads of a workgroup, as in shaders/reduce.comp
ROUNDS = 8  # fours of a thread, at least, before a result is cut into parts
MOST_AXES = 4  # kept ones, and reduced ones, after joining
# How an array is stored, as in shaders/elements.glsl.
KINDS = {
    "float32": 1, "int32": 1, "uint32": 1, "complex64": 1, "float16": 3, "bfloat16": 4, "int16": 5, "uint16": 6,
    "int8": 7, "uint8": 8, "bool": 8, "int64": 9, "uint64": 9,
}  # fmt: skip
# Variant of the shader and its function; those of whole numbers are sum 0, max 1, min 2, unsigned max 3 and min 4.
FUNCTIONS = {
    "sum": ("reduce_sum", 0), "mean": ("reduce_sum", 1), "max": ("reduce_extreme", 0), "min": ("reduce_extreme", 1),
    "logsumexp": ("reduce_exponential", 0), "norm": ("reduce_norm", 0),
}  # fmt: skip
WHOLE = {"sum": 0, "max": 1, "min": 2}


def _sample() -> Request:
    from ...core.operations.reduce_rule import FAMILY, ReduceParams

    return Request(FAMILY, (Operand((1 << 24,), "float32", "cpu", "numpy"),), ReduceParams("sum", (0,), False), None, 1)


TUNING = {"reduce.blocks": (1024, (512, 2048, 4096), _sample)}  # workgroups that keep a device busy


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [ReduceKernel(device)]


class ReduceKernel(VulkanKernel):
    """Trees of fixed shape, with sums that carry what additions round off."""

    name = "tree"
    operation = "reduce"

    def refusal(self, request: Request) -> str | None:
        x, p = request.first, request.params
        wide = result_dtype(p.function, x.dtype)
        for dtype in (x.dtype, wide):
            if dtype in ("float64", "complex128"):
                return f"Vulkan shaders here reduce in float32; {p.function} of {x.dtype} gives {wide}"
        if x.dtype not in KINDS:
            return f"Vulkan shaders reduce {', '.join(KINDS)}; dtype {x.dtype} is none of them"
        if x.size >= 1 << 32:
            return f"an array of {x.size} elements exceeds the 32 bits that shaders count in"
        axes = _axes(x.shape, p.axes, p.function, x.dtype)
        most = max(len(axes.kept), len(axes.reduced))
        if most > MOST_AXES:
            return f"kept and reduced axes alternate {most} times, the shader takes {MOST_AXES}"
        return None

    def program(self, request: Request) -> Program:
        return built(request, tuned(self.device, "reduce.blocks", TUNING["reduce.blocks"][0]))


class _Axes(NamedTuple):
    """Lengths and strides of the kept and of the reduced axes, neighbours joined, innermost first."""

    kept: tuple[tuple[int, int], ...]
    reduced: tuple[tuple[int, int], ...]
    along: bool  # the innermost axis is reduced


@lru_cache(maxsize=1024)
def _axes(shape: tuple[int, ...], axes: tuple[int, ...], function: str, dtype: str) -> _Axes:
    sides = [(n, axis in axes) for axis, n in enumerate(shape)]
    if dtype.startswith("complex"):  # pairs of floats: apart in a sum, together in a norm
        sides.append((2, function == "norm"))
    found: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    stride, before = 1, None
    for n, reduced in reversed(sides):
        if n == 1:
            continue
        own = found[reduced]
        if before == reduced:
            own[-1] = (own[-1][0] * n, own[-1][1])
        else:
            own.append((n, stride))
        stride, before = stride * n, reduced
    return _Axes(tuple(found[False]), tuple(found[True]), bool(found[True]) and found[True][0][1] == 1)


class Shape(NamedTuple):
    """How the work is shared out: results a workgroup, threads a result, parts of a result, and fours in memory."""

    lanes: int
    across: int
    parts: int
    fours: bool


def shared(axes: _Axes, blocks: int) -> Shape:
    """Return how the work is shared out among about so many workgroups, or more where results are many."""
    results = math.prod(n for n, _ in axes.kept)
    count = math.prod(n for n, _ in axes.reduced)
    units = -(-count // 4)
    strides = [s for _, s in (*axes.kept, *axes.reduced[1:])]
    fours = axes.along and all(s % 4 == 0 for s in strides) and (axes.reduced[0][0] % 4 == 0 or len(axes.reduced) == 1)
    if axes.along:
        across = min(_power(-(-units // 2)), LOCAL)
        lanes = LOCAL // across
    else:
        lanes = min(_power(results), max(32, LOCAL // _power(-(-units // 2))), LOCAL)
        across = LOCAL // lanes
    groups = -(-results // lanes)
    parts = max(min(blocks // groups, units // (ROUNDS * across)), 1)
    return Shape(lanes, across, parts, fours)


def built(request: Request, blocks: int) -> Program:
    """Return the program of a request for a number of workgroups to aim at."""
    x, p = request.first, request.params
    (result,) = request.operation.result(request)
    axes = _axes(x.shape, p.axes, p.function, x.dtype)
    shape = shared(axes, blocks)
    floats = x.dtype.startswith(("float", "bfloat", "complex"))
    shader, function = FUNCTIONS[p.function] if floats else ("reduce_whole", WHOLE[p.function])
    if shader == "reduce_whole" and function and x.dtype.startswith(("uint", "bool")):
        function += 2
    results, count = (math.prod(n for n, _ in side) for side in (axes.kept, axes.reduced))
    if x.size == 0:
        count = 0
    b = Builder()
    source, target = b.operand(0, x.nbytes), b.result(0, result.nbytes)
    words = max(itemsize(result.dtype) // 4, 1) if result.dtype in ("int64", "uint64") else 1
    narrow = itemsize(result.dtype) < 4
    found = b.scratch(4 * results) if narrow else target
    places = [*_columns(axes.kept), *_columns(axes.reduced), int(x.dtype.startswith("int"))]
    kind = KINDS[x.dtype]

    def add(shape: Shape, stage: int, read: int, partial: Buffer, target: Buffer) -> None:
        constants = [results, count, shape.lanes, shape.across, shape.parts, stage, read, kind, int(shape.fours)]
        constants += [int(axes.along or stage == 2), function, words, *places]
        b.dispatch(
            shader, [source, target, partial], writes=[partial if stage == 1 else target],
            groups=spread_groups(-(-results // shape.lanes) * shape.parts), constants=constants,
        )  # fmt: skip

    if shape.parts == 1:
        add(shape, 0, 1, found, found)
    else:
        partial = b.scratch(16 * results * shape.parts)
        add(shape, 1, 1, partial, partial)
        across = min(_power(shape.parts), LOCAL)
        add(Shape(LOCAL // across, across, 1, False), 2, shape.parts, partial, found)
    if narrow:
        storage = {"float16": 1, "bfloat16": 2}.get(result.dtype, 8 * itemsize(result.dtype))
        add_narrowing(b, found, target, result.size, storage)
    return b.program()


def _columns(axes: Sequence[tuple[int, int]]) -> list[int]:
    filled = [*axes, *[(1, 0)] * (MOST_AXES - len(axes))]
    return [n for n, _ in filled] + [s for _, s in filled]


def _power(count: int) -> int:
    """Return the next power of two."""
    return 1 << max(count - 1, 0).bit_length()
