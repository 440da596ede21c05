"""Programs in blocks that fit a core's cache: which step runs when, in which temporary, over which part of the data.

A block's intermediate results never reach memory. The result's own block serves as a temporary from the first step on,
so that the cost of writing it for the first time hides behind a step that computes for long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ...core.array import itemsize
from ...core.program import Program, Value, shapes
from .pool import cache_bytes, share, temporaries

# Relative cost of an element, for the order of steps only: long ones first, so that their operands' and their result's
# way through memory is hidden.
_HEAVY = {
    **dict.fromkeys(("sin", "cos", "erf", "gelu", "gelu_tanh", "log1p", "expm1", "arctan2", "power"), 5),
    **dict.fromkeys(("tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"), 5),
    **dict.fromkeys(("exp", "exp2", "log", "log2", "log10", "sigmoid", "silu", "floor_divide", "remainder"), 3),
    **dict.fromkeys(("sqrt", "divide", "rsqrt", "reciprocal"), 2),
}
SMALLEST_BLOCK, LARGEST_BLOCK = 4096, 1 << 17
SMALL = 1 << 17  # bytes of a stage that takes its temporaries from the allocator


class Source(NamedTuple):
    """Where an input comes from: ``"var"``, ``"scalar"``, ``"const"``, or ``"stage"`` (an earlier stage's result)."""

    origin: str
    data: Any
    dtype: str
    shape: tuple[int, ...]


class Step(NamedTuple):
    """One call: a function of the slots ``args``, written to the slot ``out``."""

    op: str
    loop: str
    dtype: str
    args: tuple[int, ...]
    out: int


class Stage(NamedTuple):
    """The steps that compute one array in blocks.

    Slots are numbered: the inputs, then the result, then the temporaries.
    """

    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[Source, ...]
    steps: tuple[Step, ...]
    temporaries: tuple[str, ...]

    @property
    def width(self) -> int:
        """Bytes that one element of a block takes in the cache."""
        arrays = [source.dtype for source in self.inputs if source.shape]
        return sum(itemsize(dtype) for dtype in (*arrays, self.dtype, *self.temporaries))


def stages(
    steps: Program, operands: Sequence[tuple[int, ...]], fuse: bool, in_place: Mapping[str, tuple[int, ...]]
) -> list[Stage]:
    """Divide a program into stages: what depends on small operands only is computed once, at its own size.

    Parameters
    ----------
    steps : Program
        What to compute.
    operands : sequence of tuple of int
        Shapes of the operands.
    fuse : bool
        The library can add a product to an array in one pass.
    in_place : dict
        Functions that may overwrite only some of their arguments with the result, and which.
    """
    values, found = list(steps.values), shapes(steps, tuple(operands))
    last = len(values) - 1
    roots = {last}
    for index, value in enumerate(values):
        roots.update(arg for arg in value.args if values[arg].args and found[arg] != found[index])
    order = sorted(roots)
    return [_stage(values, found, root, order, fuse, in_place) for root in order]


def _stage(
    values: list[Value], found: list[tuple[int, ...]], root: int, roots: list[int], fuse: bool,
    in_place: Mapping[str, tuple[int, ...]],
) -> Stage:  # fmt: skip
    def inside(index: int) -> bool:
        return bool(values[index].args) and (index == root or index not in roots)

    if fuse:
        values = _fused(values, root, inside)
    order: list[int] = []
    weights: dict[int, int] = {}

    def weigh(index: int) -> int:
        if index not in weights:
            own = _HEAVY.get(values[index].op, 1) if inside(index) else 0
            weights[index] = own + (sum(weigh(arg) for arg in values[index].args) if own else 0)
        return weights[index]

    def visit(index: int) -> None:
        for arg in sorted(values[index].args, key=weigh, reverse=True):
            if inside(arg) and arg not in order:
                visit(arg)
        order.append(index)

    visit(root)
    leaves = list(dict.fromkeys(arg for index in order for arg in values[index].args if not inside(arg)))
    inputs = tuple(
        Source("stage", roots.index(leaf), values[leaf].dtype, found[leaf]) if values[leaf].args
        else Source(values[leaf].op, values[leaf].data, values[leaf].dtype, found[leaf])
        for leaf in leaves
    )  # fmt: skip
    slots = {leaf: number for number, leaf in enumerate(leaves)}
    assigned, temporary_dtypes = _registers([(i, values[i]) for i in order], slots, values[root].dtype, in_place)
    return Stage(found[root], values[root].dtype, inputs, assigned, temporary_dtypes)


def _fused(values: list[Value], root: int, inside: Callable[[int], bool]) -> list[Value]:
    """Return the values with each sum of a product, that is needed nowhere else, as one step."""
    values = list(values)
    uses: dict[int, int] = {}
    for value in values[: root + 1]:
        for arg in value.args:
            uses[arg] = uses.get(arg, 0) + 1

    def size(index: int) -> int:
        return 1 + sum(size(arg) for arg in values[index].args) if inside(index) else 0

    for index in range(root + 1):
        value = values[index]
        if not inside(index) or value.op not in ("add", "subtract") or not value.loop.startswith(("float", "complex")):
            continue
        products = [
            position for position, arg in enumerate(value.args)
            if inside(arg) and values[arg].op == "multiply" and uses[arg] == 1
            and (value.op == "add" or position == 1)
            and all(values[part].dtype == value.loop for part in values[arg].args)
        ]  # fmt: skip
        if products:
            small = min(products, key=lambda position: size(value.args[position]))
            name = "add_product" if value.op == "add" else "subtract_product"
            other = value.args[1 - small]
            values[index] = value._replace(op=name, args=(other, *values[value.args[small]].args))
    return values


def _registers(
    order: list[tuple[int, Value]], slots: dict[int, int], dtype: str, in_place: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Give every step's result a slot: the result's own block, a temporary that is free, or a new one."""
    slots = dict(slots)
    out = len(slots)
    last_use = {arg: time for time, (_, value) in enumerate(order) for arg in value.args}
    owned: dict[int, str] = {out: dtype}  # every slot that may be written, with its dtype
    free = [out]
    steps: list[Step] = []

    def take(wanted: str) -> int:
        for slot in free:
            if owned[slot] == wanted:
                free.remove(slot)
                return slot
        slot = out + len(owned)
        owned[slot] = wanted
        return slot

    for time, (index, value) in enumerate(order):
        args = tuple(slots[arg] for arg in value.args)
        may_overwrite = in_place.get(value.op, range(len(args)))
        dying = [slots[arg] for arg in dict.fromkeys(value.args) if last_use[arg] == time and slots[arg] in owned]
        kept = {args[p] for p in range(len(args)) if p not in may_overwrite}
        reusable = [slot for slot in dying if slot not in kept]
        free.extend(reusable)
        free.sort()  # the result's own block first
        final = time == len(order) - 1
        target = take(value.dtype) if not final or out in kept else out
        steps.append(Step(value.op, value.loop, value.dtype, args, target))
        if final and target != out:
            steps.append(Step("cast", value.dtype, value.dtype, (target,), out))
        free.extend(slot for slot in dying if slot in kept)
        slots[index] = target
    return tuple(steps), tuple(owned[slot] for slot in sorted(owned) if slot != out)


class Library:
    """What a stage asks of NumPy or torch."""

    in_place: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    fuses = False
    torch = False

    def function(self, op: str, loop: str) -> Callable[..., Any]:
        """Return a function of arrays with ``out=``."""
        raise NotImplementedError

    def constant(self, value: Any, dtype: str) -> Any:
        """Return a number as an array of no axes."""
        raise NotImplementedError

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an uninitialised array for a result."""
        raise NotImplementedError

    def temporaries(self, length: int, dtypes: Sequence[str]) -> list[Any]:
        """Return this thread's temporaries."""
        return temporaries(length, dtypes)

    def cast(self, array: Any, dtype: str) -> Any:
        """Return a small array in another dtype."""
        raise NotImplementedError

    def contiguous(self, array: Any) -> bool:
        """Tell whether an array lies in memory in C order."""
        raise NotImplementedError

    def strides(self, array: Any) -> tuple[int, ...]:
        """Return the distance between elements along each axis."""
        raise NotImplementedError

    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        """Return a view of a larger shape."""
        raise NotImplementedError

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        """Return a view with its axes in another order."""
        raise NotImplementedError


class BoundStage:
    """A stage with a library's functions, for a number of workers.

    ``pack`` blocks are computed at once by the library's own threads (1 where it uses none).
    """

    def __init__(self, stage: Stage, library: Library, workers: int, pack: int = 1) -> None:
        self.stage, self.library = stage, library
        self.size = math.prod(stage.shape)
        self.steps = [(library.function(s.op, s.loop), s.args, s.out) for s in stage.steps]
        # Half of the cache would do for the data, but threads then wait for each other more: each step gives up the
        # interpreter's lock and takes it back, which costs as much for a small block as for a large one.
        block = cache_bytes() // max(stage.width, 1)
        block = min(max(block, SMALLEST_BLOCK), LARGEST_BLOCK)
        if workers > 1:  # at least two blocks each, so that a worker that is slowed down can be helped
            block = max(min(block, -(-self.size // (2 * workers))), SMALLEST_BLOCK)
        self.block = (block & -1024) * pack
        self.workers = workers
        self.constants = {
            number: library.constant(source.data, source.dtype)
            for number, source in enumerate(stage.inputs) if source.origin == "const"
        }  # fmt: skip

        # Operands of a stage that is so small that preparing it would take longer than computing it.
        self.plain: list[int] | None = None
        fits = self.size * max(stage.width, 1) <= SMALL and self.size
        if fits and all(s.origin == "const" or (s.origin == "var" and s.shape == stage.shape) for s in stage.inputs):
            self.plain = [source.data for source in stage.inputs if source.origin == "var"]
        self.variable_slots = [number for number, source in enumerate(stage.inputs) if source.origin == "var"]
        self.constant_slots = [self.constants.get(number) for number in range(len(stage.inputs))]

    def run(self, operands: Sequence[Any], made: Sequence[Any]) -> Any:
        """Compute the stage from the operands and the results of earlier stages."""
        library, stage = self.library, self.stage
        if self.plain is not None:
            for number in self.plain:
                if not library.contiguous(operands[number]):
                    break
            else:
                return self._at_once(operands)
        inputs: list[Any] = []
        for number, (origin, data, dtype, _) in enumerate(stage.inputs):
            if origin == "var":
                inputs.append(operands[data])
            elif origin == "const":
                inputs.append(self.constants[number])
            elif origin == "stage":
                inputs.append(made[data])
            else:
                inputs.append(library.cast(operands[data], dtype))
        shape, axes = stage.shape, None
        if not all(not s.shape or (s.shape == shape and library.contiguous(x)) for s, x in zip(stage.inputs, inputs)):
            axes = self._memory_order(inputs)
            if axes is not None:
                shape = tuple(shape[axis] for axis in axes)
                inputs = [
                    library.permute(library.broadcast(x, stage.shape), axes) if s.shape else x
                    for s, x in zip(stage.inputs, inputs)
                ]  # fmt: skip
        result = library.empty(shape, stage.dtype)
        if self.size:
            flat = all(
                not s.shape or (tuple(x.shape) == shape and library.contiguous(x)) for s, x in zip(stage.inputs, inputs)
            )
            (self._flat if flat else self._strided)(shape, inputs, result)
        if axes is not None:
            result = library.permute(result, sorted(range(len(axes)), key=axes.__getitem__))
        return result

    def _at_once(self, operands: Sequence[Any]) -> Any:
        """Compute the whole of small operands that need no preparation."""
        assert self.plain is not None
        library, shape = self.library, self.stage.shape
        slots = list(self.constant_slots)
        for place, number in zip(self.variable_slots, self.plain):
            slots[place] = operands[number]
        result = library.empty(shape, self.stage.dtype)
        slots.append(result)
        slots.extend(library.empty(shape, dtype) for dtype in self.stage.temporaries)
        for function, args, out in self.steps:
            if len(args) == 2:
                function(slots[args[0]], slots[args[1]], out=slots[out])
            elif len(args) == 1:
                function(slots[args[0]], out=slots[out])
            else:
                function(*[slots[arg] for arg in args], out=slots[out])
        return result

    def _memory_order(self, inputs: list[Any]) -> list[int] | None:
        """Return the axes from the widest to the narrowest stride where operands do not lie in C order, else None.

        The result then gets the same order in memory, as NumPy's does.
        """
        best: tuple[int, ...] | None = None
        for source, array in zip(self.stage.inputs, inputs):
            if source.shape == self.stage.shape and self.size:
                if self.library.contiguous(array):
                    return None
                best = best or tuple(map(abs, self.library.strides(array)))
        if best is None:
            return None
        strides = best
        axes = sorted(range(len(strides)), key=lambda axis: -strides[axis])
        return None if axes == sorted(axes) else axes

    def _flat(self, shape: tuple[int, ...], inputs: list[Any], result: Any) -> None:
        size, block = self.size, self.block
        if not shape:
            own = [t.reshape(()) for t in self.library.temporaries(1, self.stage.temporaries)]
            self._compute([*inputs, result, *own])
            return
        whole = [x.reshape(-1) if s.shape else x for s, x in zip(self.stage.inputs, inputs)]
        cut = [bool(s.shape) for s in self.stage.inputs]
        out = result.reshape(-1)
        if size <= block:
            self._compute([*whole, out, *self.library.temporaries(size, self.stage.temporaries)])
            return

        def part(number: int, own: list[Any]) -> None:
            start = number * block
            stop = min(start + block, size)
            blocks = [x[start:stop] if c else x for x, c in zip(whole, cut)]
            blocks.append(out[start:stop])
            blocks.extend(own if stop - start == block else [t[: stop - start] for t in own])
            self._compute(blocks)

        self._parts(-(-size // block), part, lambda: self.library.temporaries(block, self.stage.temporaries))

    def _strided(self, shape: tuple[int, ...], inputs: list[Any], result: Any) -> None:
        """Compute boxes: whole inner axes, some rows of one axis, and one index of each axis outside it."""
        library = self.library
        whole = [library.broadcast(x, shape) if s.shape else x for s, x in zip(self.stage.inputs, inputs)]
        cut = [bool(s.shape) for s in self.stage.inputs]
        axis, inner = len(shape) - 1, 1
        while axis > 0 and inner * shape[axis] <= self.block:
            inner *= shape[axis]
            axis -= 1
        rows = min(max(self.block // inner, 1), shape[axis])
        cuts = -(-shape[axis] // rows)
        outer = shape[:axis]

        def part(number: int, own: list[Any]) -> None:
            place, cut_number = divmod(number, cuts)
            index: list[Any] = []
            for length in reversed(outer):
                place, remainder = divmod(place, length)
                index.insert(0, remainder)
            start = cut_number * rows
            count = min(rows, shape[axis] - start)
            where = (*index, slice(start, start + count))
            box = (count, *shape[axis + 1 :])
            blocks = [x[where] if c else x for x, c in zip(whole, cut)]
            blocks.append(result[where])
            blocks.extend(t[: count * inner].reshape(box) for t in own)
            self._compute(blocks)

        parts = math.prod(outer) * cuts
        self._parts(parts, part, lambda: library.temporaries(rows * inner, self.stage.temporaries))

    def _parts(self, parts: int, part: Callable[[int, Any], None], state: Callable[[], list[Any]]) -> None:
        if self.workers > 1 and parts > 1:
            share(parts, part, state, self.workers, self.library.torch)
            return
        own = state()
        for number in range(parts):
            part(number, own)

    def _compute(self, slots: list[Any]) -> None:
        for function, args, out in self.steps:
            function(*[slots[arg] for arg in args], out=slots[out])


def run_all(bound: Sequence[BoundStage], operands: Sequence[Any]) -> Any:
    """Run stages one after the other and return the last one's result."""
    if len(bound) == 1:
        return bound[0].run(operands, ())
    made: list[Any] = []
    for stage in bound:
        made.append(stage.run(operands, made))
    return made[-1]
