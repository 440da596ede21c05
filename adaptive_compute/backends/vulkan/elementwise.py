"""Element-wise expressions on a Vulkan device: one interpreter shader whose program is specialization constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...core.array import Operand
from ...core.curve import Curve, Estimate
from ...core.expression import Node
from ...core.operation import Request
from ...core.operations.elementwise_rule import EXAMPLE, FAMILY
from ...core.program import program as steps_of
from ..base import Kernel, Plan
from .array import upload
from .elementwise_emit import RefusedError, Source
from .elementwise_lowering import lower, refusal_of_dtype
from .elementwise_model import estimated
from .elementwise_schedule import Dispatch, Schedule, operands_of, schedule
from .kernel import VulkanKernel, VulkanPlan
from .program import Buffer, Builder, Program, spread_groups
from .runtime import Runtime
from .tuning import tuned

MOST_AXES = 6
# How an operand is stored and how it is read: the same as in shaders/elementwise.comp.
KINDS = {
    "float32": 1, "int32": 1, "uint32": 1, "complex64": 2, "float16": 3, "bfloat16": 4, "int16": 5, "uint16": 6,
    "int8": 7, "uint8": 8, "bool": 8,
}  # fmt: skip
STORES = {**KINDS, "float16": 6, "bfloat16": 6, "int16": 6, "int8": 8}
FLAT, ROW, GATHER = 0, 1, 2
NO_PLANE = 0xFFFFFFFF


def _sample() -> Request:
    operands = tuple(Operand((1 << 22,), "float32", "cpu", "numpy") for _ in range(2))
    return Request(FAMILY, operands, EXAMPLE, None, 1)


TUNING = {
    "elementwise.local": (256, (64, 128, 256, 512), _sample),
    "elementwise.each": (1, (1, 2, 4), _sample),
}


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [ElementwiseKernel(device)]


class ElementwiseKernel(VulkanKernel):
    """The whole expression in one dispatch, or in a few where it is long."""

    name = "fused"
    operation = "elementwise"
    takes_host_scalars = True

    def refusal(self, request: Request) -> str | None:
        operands = [o for o in request.operands if o is not None]
        for operand in operands:
            reason = refusal_of_dtype(operand.dtype)
            # A Python number comes as float64 or complex128 and is used in the dtype that it adapts to.
            if reason is not None and operand.shape:
                return reason
        try:
            made = _schedule(request)
        except RefusedError as refused:
            return str(refused)
        read = operands_of(made)
        for source in read:
            if not source.number and (reason := refusal_of_dtype(source.dtype)) is not None:
                return reason
        (result,) = request.operation.result(request)
        axes = _joined(result.shape, tuple(operands[source.operand].shape for source in read))
        if len(axes.lengths) > MOST_AXES:
            return f"operands broadcast along {len(axes.lengths)} groups of axes, the shader has {MOST_AXES}"
        return None

    def too_large(self, request: Request) -> str | None:
        (result,) = request.operation.result(request)
        scratch = _schedule(request).planes * _plane_bytes(result.size)
        return super().too_large(request) or self.limits.too_large(scratch)

    def pieces(self, request: Request) -> Sequence[tuple[Request, tuple[Any, ...], Any]]:
        if any(o is not None and o.device != "cpu" for o in request.operands):
            return ()  # an array on the device is not cut
        return pieces(request, self.limits.largest)

    def estimate(self, request: Request, curves: Mapping[str, Curve]) -> Estimate | None:
        if self.features(request).name in curves:
            return super().estimate(request, curves)
        (result,) = request.operation.result(request)
        dtypes = tuple(o.dtype for o in request.operands if o is not None)
        nbytes = request.operation.work(request).bytes
        return estimated(steps_of(request.params, dtypes), result.size, nbytes, curves)

    def program(self, request: Request) -> Program:
        local = tuned(self.device, "elementwise.local", TUNING["elementwise.local"][0])
        each = tuned(self.device, "elementwise.each", TUNING["elementwise.each"][0])
        return built(request, local, each)

    def plan(self, request: Request) -> Plan:
        results = request.operation.result(request)
        if any(result.size == 0 for result in results) or self.too_large(request) is not None:
            return super().plan(request)
        return ElementwisePlan(self.runtime, request, self.program(request), results)


def _schedule(request: Request) -> Schedule:
    return _scheduled(request.params, tuple(o.dtype for o in request.operands if o is not None))


@lru_cache(maxsize=1024)
def _scheduled(root: Node, dtypes: tuple[str, ...]) -> Schedule:
    # By the expression, whose nodes tell 0.0 from -0.0; programs do not.
    return schedule(lower(steps_of(root, dtypes)))


@lru_cache(maxsize=64)
def pieces(request: Request, largest: int) -> tuple[tuple[Request, tuple[Any, ...], Any], ...]:
    """Cut a request along the first axis that is longer than 1, so that no array exceeds so many bytes."""
    (result,) = request.operation.result(request)
    given = [o for o in request.operands if o is not None]
    axis = next((axis for axis, n in enumerate(result.shape) if n > 1), None)
    if axis is None:
        return ()
    back = len(result.shape) - axis  # the axis counted from the end, where shapes are aligned
    cut = [len(o.shape) >= back and o.shape[-back] > 1 for o in given]
    if any(o.nbytes > largest for o, has in zip(given, cut) if not has):
        return ()
    n = result.shape[axis]
    sizes = [o.nbytes for o, has in zip(given, cut) if has]
    rows = largest * n // max(*sizes, result.nbytes, _schedule(request).planes * _plane_bytes(result.size))
    if rows == 0:
        return ()
    made = []
    for start in range(0, n, rows):
        count = min(rows, n - start)
        part = (..., slice(start, start + count), *[slice(None)] * (back - 1))
        operands = tuple(_cut(o, len(o.shape) - back, count) if has else o for o, has in zip(given, cut))
        smaller = Request(request.operation, operands, request.params, request.tol, request.threads)
        made.append((smaller, tuple(part if has else None for has in cut), part))
    return tuple(made)


def _cut(operand: Operand, axis: int, count: int) -> Operand:
    shape = (*operand.shape[:axis], count, *operand.shape[axis + 1 :])
    return Operand(shape, operand.dtype, operand.device, operand.kind)


def built(request: Request, local: int, each: int) -> Program:
    """Return the program of a request for a workgroup size and a number of groups of four for each invocation."""
    b = Builder()
    made = _schedule(request)
    (result,) = request.operation.result(request)
    read = operands_of(made)
    operands = [o for o in request.operands if o is not None]
    shapes = {source: operands[source.operand].shape for source in read}
    axes = _joined(result.shape, tuple(shapes[source] for source in read))
    places = dict(zip(read, axes.strides))
    numbers = _numbers(made, len(request.operands))
    buffers = {
        source: b.operand(numbers[source], 8 if source.dtype == "complex64" else 4)
        if source.number
        else b.operand(source.operand, operands[source.operand].nbytes)
        for source in read
    }
    target = b.result(0, result.nbytes)
    scratch = b.scratch(_plane_bytes(result.size) * made.planes) if made.planes else None
    for dispatch in made.dispatches:
        _add(b, dispatch, _Call(result, axes.lengths, places, buffers, target, scratch, local, each))
    return b.program()


class _Call(NamedTuple):
    """What all dispatches of a program share."""

    result: Operand
    lengths: tuple[int, ...]
    strides: dict[Source, tuple[int, ...]]
    buffers: dict[Source, Buffer]
    target: Buffer
    scratch: Buffer | None
    local: int
    each: int


def _add(b: Builder, dispatch: Dispatch, call: _Call) -> None:
    """Add one dispatch of the interpreter."""
    groups = -(-call.result.size // 4)
    last = bool(dispatch.result)
    geometry, table = _reading(dispatch, call)
    store = STORES[call.result.dtype] if last else 0
    constants: list[int] = [call.local, groups, call.each, geometry, call.result.size, store]
    constants += (*dispatch.result, 0, 0)[:2]
    constants += [groups, *_padded(_full(call.lengths), MOST_AXES, 1), 0]
    for kind, mode, strides in table:
        constants += [kind, mode, *_padded(_of_quotients(strides, call.lengths), MOST_AXES, 0)]
    constants += _padded(dispatch.numbers, 16, 0)
    constants += _padded(dispatch.loads, 8, NO_PLANE)
    for register, plane in _padded(dispatch.stores, 8, (0, NO_PLANE)):
        constants += [register, plane]
    for step in dispatch.steps:
        constants += step
    operands = [call.buffers[source] for source in dispatch.operands]
    spare = operands[0] if operands else call.target
    scratch = call.scratch or call.target
    writes = [buffer for buffer, used in ((call.target, last), (scratch, dispatch.stores)) if used]
    b.dispatch(
        dispatch.shader, [*_padded(operands, 8, spare), call.target, scratch], writes=writes,
        groups=spread_groups(-(-groups // (call.local * call.each))), constants=constants,
    )  # fmt: skip


def _reading(dispatch: Dispatch, call: _Call) -> tuple[int, list[tuple[int, int, tuple[int, ...]]]]:
    """Return how the shader finds elements, and kind, mode and strides of each operand."""
    strides = [call.strides[source] for source in dispatch.operands]
    inner = call.lengths[0] if call.lengths else 1
    full = _full(call.lengths)
    flat = all(own == full or not any(own) for own in strides)
    geometry = 0 if flat else 1 if inner % 4 == 0 else 2
    table = []
    for source, own in zip(dispatch.operands, strides):
        mode = FLAT if own == full and any(own) else ROW if geometry == 1 and own[0] == 1 else GATHER
        if call.result.size == 1:
            mode = GATHER
        table.append((KINDS[source.dtype], mode, own))
    return geometry, [*table, *[(0, 0, ())] * (8 - len(table))]


def _padded(values: Sequence[Any], count: int, fill: Any) -> list[Any]:
    return [*values, *[fill] * (count - len(values))]


def _plane_bytes(size: int) -> int:
    return -(-size // 4) * 16


class _Axes(NamedTuple):
    """The result's axes with neighbours joined, innermost first, and each operand's strides over them."""

    lengths: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=1024)
def _joined(shape: tuple[int, ...], operands: tuple[tuple[int, ...], ...]) -> _Axes:
    """Join neighbouring axes along which every operand is either repeated or not."""
    lengths: list[int] = []
    present: list[tuple[bool, ...]] = []
    for axis in range(1, len(shape) + 1):
        n = shape[-axis]
        if n == 1:
            continue
        has = tuple(axis <= len(own) and own[-axis] != 1 for own in operands)
        if present and present[-1] == has:
            lengths[-1] *= n
        else:
            lengths.append(n)
            present.append(has)
    strides = []
    for number in range(len(operands)):
        step, own = 1, []
        for n, has in zip(lengths, present):
            own.append(step if has[number] else 0)
            step *= n if has[number] else 1
        strides.append(tuple(own))
    return _Axes(tuple(lengths), tuple(strides))


def _full(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(lengths[:axis]) for axis in range(len(lengths)))


def _of_quotients(strides: tuple[int, ...], lengths: tuple[int, ...]) -> list[int]:
    """Return what each quotient of an element's number adds to an operand's place, modulo 2^32.

    The quotients are by the elements that one step along each axis passes; see shaders/elementwise.comp.
    """
    before = [0, *(stride * n for stride, n in zip(strides, lengths))]
    return [(stride - less) % (1 << 32) for stride, less in zip(strides, before)]


def _numbers(made: Schedule, count: int) -> dict[Source, int]:
    """Return the operand number, behind the arrays, of every number that is given at the call."""
    given = [source for source in operands_of(made) if source.number]
    return {source: count + place for place, source in enumerate(given)}


class ElementwisePlan(VulkanPlan):
    """A plan whose operands can be numbers: they are brought into the dtype that the expression uses them in."""

    def __init__(self, owner: Runtime, request: Request, program: Program, results: Sequence[Operand]) -> None:
        super().__init__(owner, program, results)
        self._numbers = tuple(_numbers(_schedule(request), len(request.operands)))

    def run(self, *arrays: Any) -> Any:
        return super().run(*arrays, *self._converted(arrays))

    def through_host(self, *arrays: Any) -> Any:
        return super().through_host(*arrays, *self._converted(arrays))

    def gpu_seconds(self, *arrays: Any, repeats: int = 1) -> list[float]:
        there = [upload(number, self.runtime.name) for number in self._converted(arrays)]
        return super().gpu_seconds(*arrays, *there, repeats=repeats)

    def _converted(self, arrays: Sequence[Any]) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            return [np.asarray(arrays[source.operand]).astype(source.dtype) for source in self._numbers]
