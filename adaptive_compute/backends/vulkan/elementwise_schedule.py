"""Steps of an expression put into the slots of the element-wise shader's variants: one dispatch, or several.

A variant of shaders/elementwise.comp computes a fixed number of steps in a fixed order of kinds. A program that none
holds is cut: values that pass from one dispatch to the next lie in a scratch buffer meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .elementwise_emit import FIRST_FUNCTION, FUNCTIONS, OPS, RefusedError, Register, Source
from .elementwise_lowering import Lowered


class Variant(NamedTuple):
    """A variant of the shader: its slots in order (S computes a simple step, C a function), and those functions."""

    slots: str
    functions: frozenset[int] = frozenset()


_SHARED = ("exp", "sinh", "cosh")
_GROWTH = frozenset(OPS[n] for n in (*_SHARED, "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "erf"))
_WAVES = frozenset(OPS[n] for n in (*_SHARED, "sin", "cos", "tan"))
_ALL = frozenset(OPS[n] for n in FUNCTIONS)
_ONE, _TWO, _FOUR = "SSSSC" + "S" * 8, "SSSSCSSSSC" + "S" * 8, "SSSSSSSSCSSSSCSSSSCSSSSC" + "S" * 8
# The variants of shaders/elementwise.comp, those that drivers compile fastest first.
VARIANTS = {
    "elementwise_simple8": Variant("S" * 8),
    "elementwise_growth1": Variant(_ONE, _GROWTH),
    "elementwise_waves1": Variant(_ONE, _WAVES),
    "elementwise_functions1": Variant(_ONE, _ALL),
    "elementwise_growth2": Variant(_TWO, _GROWTH),
    "elementwise_waves2": Variant(_TWO, _WAVES),
    "elementwise_growth4": Variant(_FOUR, _GROWTH),
    "elementwise_waves4": Variant(_FOUR, _WAVES),
    "elementwise_functions2": Variant(_TWO, _ALL),
    "elementwise_simple32": Variant("S" * 32),
    "elementwise_functions4": Variant(_FOUR, _ALL),
}
MOST_OPERANDS, MOST_CROSSING, MOST_NUMBERS = 8, 8, 16
MOST_DISPATCHES = 24  # more than that costs as much as computing step by step
IMAGINARY_AT, CROSSING_AT, NUMBERS_AT, STEPS_AT = 8, 16, 24, 40


class Dispatch(NamedTuple):
    """One dispatch of a variant.

    ``operands`` lie in registers 0, 1, ...; ``numbers`` are the constants; ``loads`` are planes of scratch, ``stores``
    registers and the planes that they go to; ``steps`` holds operation and three registers for each slot; ``result``
    the registers of the result, in the last dispatch only.
    """

    shader: str
    operands: tuple[Source, ...]
    numbers: tuple[int, ...]
    loads: tuple[int, ...]
    stores: tuple[tuple[int, int], ...]
    steps: tuple[tuple[int, int, int, int], ...]
    result: tuple[int, ...]


class Schedule(NamedTuple):
    """The dispatches of a program, and the number of scratch planes between them."""

    dispatches: tuple[Dispatch, ...]
    planes: int


@lru_cache(maxsize=1024)
def schedule(lowered: Lowered) -> Schedule:
    """Return the dispatches of a program; RefusedError where it is too long or has too many operands."""
    count, first = len(lowered.steps), 0
    planes: dict[int, int] = {}  # of the steps that a later dispatch reads
    made: list[Dispatch] = []
    while not made or first < count:
        found: Dispatch | None = None
        last = min(count, first + 32)
        while last > first or count == 0:
            found = _dispatch(lowered, first, last, dict(planes))
            if found is not None or count == 0:
                break
            last -= 1
        if found is None:
            raise RefusedError(
                f"the expression has too many operands at once: a shader reads {MOST_OPERANDS} arrays and numbers and "
                f"{MOST_CROSSING} values of earlier steps"
            )
        for step in _crossing(lowered, first, last):
            planes[step] = len(planes)
        made.append(found)
        first = last
        if len(made) > MOST_DISPATCHES:
            raise RefusedError(f"the expression has {count} steps, more than {MOST_DISPATCHES} dispatches hold")
    return Schedule(tuple(made), len(planes))


def _crossing(lowered: Lowered, first: int, last: int) -> list[int]:
    """Return the steps of a part that are read after it."""
    if last == len(lowered.steps):
        return []
    read = {arg[1] for _, args in lowered.steps[last:] for arg in args if arg[0] == "step"}
    read |= {register[1] for register in lowered.result if register[0] == "step"}
    return [step for step in range(first, last) if step in read]


def _dispatch(lowered: Lowered, first: int, last: int, planes: dict[int, int]) -> Dispatch | None:
    """Return the dispatch of some consecutive steps, or None where nothing holds them."""
    steps = lowered.steps[first:last]
    crossing = _crossing(lowered, first, last)
    result = lowered.result if last == len(lowered.steps) else ()
    read = [arg for _, args in steps for arg in args] + list(result)
    sources = list(dict.fromkeys(kind[1] for kind in read if kind[0] in ("load", "imaginary")))
    numbers = list(dict.fromkeys(kind[1] for kind in read if kind[0] == "number"))
    earlier = list(dict.fromkeys(kind[1] for kind in read if kind[0] == "step" and kind[1] < first))
    if len(sources) > MOST_OPERANDS or len(numbers) > MOST_NUMBERS:
        return None
    if len(earlier) > MOST_CROSSING or len(crossing) > MOST_CROSSING:
        return None
    for shader, variant in VARIANTS.items():
        slots = _slots(steps, first, variant)
        if slots is None:
            continue

        def register(kind: Register, slots: dict[int, int] = slots) -> int:
            name, what = kind
            if name == "number":
                return NUMBERS_AT + numbers.index(what)
            if name == "step":
                return CROSSING_AT + earlier.index(what) if what < first else STEPS_AT + slots[what]
            return sources.index(what) + (IMAGINARY_AT if name == "imaginary" else 0)

        table = [(0, 0, 0, 0)] * len(variant.slots)
        for number, (op, args) in enumerate(steps, first):
            a, b, c = (*map(register, args), 0, 0, 0)[:3]
            table[slots[number]] = (op, a, b, c)
        stores = tuple((STEPS_AT + slots[step], len(planes) + k) for k, step in enumerate(crossing))
        return Dispatch(
            shader, tuple(sources), tuple(numbers), tuple(planes[step] for step in earlier), stores, tuple(table),
            tuple(map(register, result)),
        )  # fmt: skip
    return None


def _slots(steps: Sequence[tuple[int, tuple[Register, ...]]], first: int, variant: Variant) -> dict[int, int] | None:
    """Return the slot of each step, every one behind those that it reads; None where they do not fit."""
    kinds = ["C" if op >= FIRST_FUNCTION else "S" for op, _ in steps]
    if len(steps) > len(variant.slots) or kinds.count("C") > variant.slots.count("C"):
        return None
    if any(kind == "C" and op not in variant.functions for (op, _), kind in zip(steps, kinds)):
        return None
    reads = [[arg[1] - first for arg in args if arg[0] == "step" and arg[1] >= first] for _, args in steps]
    # How many functions a step is followed by at least: the longest such way goes first.
    below = [0] * len(steps)
    for number in range(len(steps) - 1, -1, -1):
        for arg in reads[number]:
            below[arg] = max(below[arg], below[number] + (kinds[number] == "C"))
    places: dict[int, int] = {}
    waiting = sorted(range(len(steps)), key=lambda number: (-below[number], number))
    for slot, kind in enumerate(variant.slots):
        for number in waiting:
            if kinds[number] == kind and all(places.get(arg, slot) < slot for arg in reads[number]):
                places[number] = slot
                waiting.remove(number)
                break
    return None if waiting else {first + number: slot for number, slot in places.items()}


def operands_of(made: Schedule) -> tuple[Any, ...]:
    """Return every operand that a schedule's dispatches read."""
    return tuple(dict.fromkeys(source for dispatch in made.dispatches for source in dispatch.operands))
