"""Programs recorded for the memory that they run on, and the order of what depends on each other.

Kompute orders dispatches only behind transfers. So between dependent dispatches a copy of one element is recorded: its
barriers (compute to transfer, transfer to compute) put the second dispatch behind the first. Strictly, Vulkan promises
memory visibility for that one buffer only; every driver known flushes whole caches. ``strict`` submits dependent steps
one by one instead, which is what the tests compare with.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import TooLargeError
from .kompute import Kompute
from .memory import Memory, Pool, write
from .program import Buffer, Program, Step

if TYPE_CHECKING:
    from .runtime import Runtime

BINDINGS = 512  # recorded programs kept a device
STRICT = "ADAPTIVE_VULKAN_STRICT"

_strict: ContextVar[bool | None] = ContextVar("strict", default=None)
_TRANSFER = Program((), (), (), (), (), (), ())


@contextmanager
def strict(on: bool = True) -> Iterator[None]:
    """Order dependent dispatches by separate submissions inside the block (the environment's STRICT does it always)."""
    token = _strict.set(on)
    try:
        yield
    finally:
        _strict.reset(token)


def is_strict() -> bool:
    """Tell how dependent dispatches are ordered here."""
    asked = _strict.get()
    return os.environ.get(STRICT, "") not in ("", "0") if asked is None else asked


class State:
    """Device memory that lasts as long as a plan: what its programs keep between runs."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.memory: dict[int, Memory] = {}

    def close(self) -> None:
        """Give the memory back."""
        for memory in self.memory.values():
            self.runtime.release(memory)
        self.memory = {}


class Binding:
    """A program recorded for given memory: what must be alive, and the sequences to evaluate in order."""

    __slots__ = ("algorithms", "memory", "program", "sequences", "state")

    def __init__(
        self, program: Program, memory: Sequence[Memory], algorithms: list[Any], sequences: list[Any], state: Any = None
    ) -> None:
        self.program, self.memory, self.algorithms, self.sequences = program, memory, algorithms, sequences
        self.state = state

    def destroy(self) -> None:
        """Give back what was recorded; the memory stays."""
        for sequence in self.sequences:
            sequence.destroy()
        for algorithm in self.algorithms:
            algorithm.destroy()


class Recordings:
    """All that is recorded on a device. Its owner sees to it that one thread at a time is here."""

    def __init__(self, kompute: Kompute, pool: Pool) -> None:
        self._kompute, self._pool = kompute, pool
        self.bindings: OrderedDict[Any, Binding] = OrderedDict()
        self._small: dict[int, tuple[Program, dict[int, Memory]]] = {}  # what programs keep for numbers from the host
        self.tick = pool.new(4, staged=True)  # the one element; it stands in for empty arrays too

    def evaluate(self, binding: Binding) -> None:
        """Submit what was recorded, and wait for it."""
        with self._kompute.translated("running"):
            for sequence in binding.sequences:
                sequence.eval()
                self._kompute.counts.submits += 1

    def binding(
        self, program: Program, memory: list[Memory], state: State | None, up: tuple[int, ...], down: bool
    ) -> Binding:
        """Return what was recorded of a program on given memory; the operands ``up`` are uploaded before it."""
        ordered = not is_strict()
        key = key_of(program, memory, state, up, down)
        known = self.bindings.get(key)
        if known is not None:
            self.bindings.move_to_end(key)
            return known
        algorithms, held = self.algorithms(program, memory, state)
        kompute = self._kompute
        operands = [memory[i].tensor for i in up]
        results = [m.tensor for m in memory[len(program.operands) :]]
        with kompute.translated("recording"):
            sequences: list[Any] = []
            for steps, made in _parts(program.steps, algorithms, whole=ordered):
                sequence = kompute.sequence()
                if not sequences and operands:
                    sequence.record(kompute.up(operands))
                self._record(sequence, steps, made)
                sequences.append(sequence)
            if down:
                if not sequences:
                    sequences.append(kompute.sequence())
                sequences[-1].record(kompute.down(results))
        kompute.counts.recorded += 1
        return self._keep(key, Binding(program, held, algorithms, sequences, state))

    def upload(self, array: np.ndarray) -> Memory:
        """Copy a host array to memory of its own."""
        memory = self._pool.take(max(array.nbytes, 4))
        try:
            write(memory, array)
            self._transfer("up", memory)
        except BaseException:
            self._pool.give(memory)
            raise
        return memory

    def download(self, memory: Memory) -> None:
        """Copy memory to its staging twin."""
        self._transfer("down", memory)

    def _transfer(self, way: str, memory: Memory) -> None:
        """Evaluate one transfer, recorded once for this memory."""
        key = (way, id(memory))
        binding = self.bindings.get(key)
        if binding is None:
            make = self._kompute.up if way == "up" else self._kompute.down
            with self._kompute.translated("recording a transfer"):
                sequence = self._kompute.sequence()
                sequence.record(make([memory.tensor]))
            binding = self._keep(key, Binding(_TRANSFER, [memory], [], [sequence]))
        self.evaluate(binding)

    def kept(self, program: Program, index: int, array: np.ndarray) -> Memory:
        """Write a host array into the memory that a program keeps for it, so that recordings stay good."""
        held = self._small.setdefault(id(program), (program, {}))[1]
        if index not in held:
            held[index] = self._pool.take(array.nbytes)
        write(held[index], array)
        return held[index]

    def timestamps(
        self, program: Program, memory: list[Memory], state: State | None, repeats: int
    ) -> Iterator[list[int]]:
        """Run a program and yield the ticks before its first operation and after each, a list a repeat."""
        algorithms, _ = self.algorithms(program, memory, state)
        sequence = self._kompute.sequence(4 * len(program.steps) + 4)
        self._record(sequence, program.steps, algorithms)
        for _ in range(repeats):
            sequence.eval()
            yield sequence.get_timestamps()
        Binding(program, memory, algorithms, [sequence]).destroy()

    def _record(self, sequence: Any, steps: Sequence[Step], algorithms: Sequence[Any]) -> None:
        for number, (step, algorithm) in enumerate(zip(steps, algorithms)):
            if step.waits and number:
                sequence.record(self._kompute.down([self.tick.tensor]))
            sequence.record(self._kompute.dispatch(algorithm))

    def algorithms(
        self, program: Program, memory: list[Memory], state: State | None
    ) -> tuple[list[Any], Sequence[Memory]]:
        """Build a pipeline for each step, bound to the memory of its buffers; returns them and all that memory."""
        for buffer in (*program.operands, *program.results, *program.scratch, *program.states):
            too_large = self._pool.limits.too_large(buffer.nbytes)
            if too_large is not None:
                raise TooLargeError(too_large)
        self._pool.building = True
        try:
            places = self._places(program, memory, state)
        finally:
            self._pool.building = False
        with self._kompute.translated("building a pipeline"):
            try:
                self._kompute.need(0, 0)
            except MemoryError:
                self._pool.empty()
                self._kompute.need(0, 0)
            made = [self._kompute.pipeline(step, [places[b].tensor for b in step.buffers]) for step in program.steps]
        return made, list(places.values())

    def _places(self, program: Program, memory: list[Memory], state: State | None) -> dict[Buffer, Memory]:
        """Return the memory of every buffer of a program."""
        places: dict[Buffer, Memory] = dict(zip((*program.operands, *program.results), memory))
        places.update(self._pool.scratch_for(program))
        for index, (key, values) in enumerate(zip(program.table_keys, program.tables)):
            places[Buffer("table", index, values.nbytes)] = self._table(key, values, program.table_keys)
        for buffer in program.states:
            assert state is not None, "a program with states needs the plan's State"
            held = state.memory.get(buffer.index)
            if held is None:
                held = state.memory[buffer.index] = self._pool.take(buffer.nbytes, staged=False)
            places[buffer] = held
        return places

    def _table(self, key: bytes, values: np.ndarray, needed: Collection[bytes]) -> Memory:
        """Return the memory of a constant table; others, not ``needed``, are dropped where there are too many."""
        tables = self._pool.tables
        if key not in tables:
            tables[key] = self.upload(values)
            self._pool.drop_tables(needed)
        tables.move_to_end(key)
        return tables[key]

    def _keep(self, key: Any, binding: Binding) -> Binding:
        self.bindings[key] = binding
        for memory in binding.memory:
            memory.users[key] = self.unbind
        while len(self.bindings) > BINDINGS:
            self.unbind(next(iter(self.bindings)))
        return binding

    def unbind(self, key: Any) -> None:
        """Drop one recording."""
        binding = self.bindings.pop(key, None)
        if binding is not None:
            for memory in binding.memory:
                memory.users.pop(key, None)
            binding.destroy()

    def forget(self, program: Program) -> None:
        """Drop what was recorded of a program."""
        for key in [key for key, binding in self.bindings.items() if binding.program is program]:
            self.unbind(key)
        for memory in self._small.pop(id(program), (program, {}))[1].values():
            self._pool.give(memory)


def _parts(
    steps: Sequence[Step], algorithms: Sequence[Any], *, whole: bool
) -> Iterator[tuple[Sequence[Step], Sequence[Any]]]:
    """Yield what is submitted together: everything, or (strict) the steps up to each that must wait."""
    if not steps:
        return
    starts = [0, *(i for i, step in enumerate(steps) if i and step.waits and not whole), len(steps)]
    for first, last in pairwise(starts):
        yield steps[first:last], algorithms[first:last]


def key_of(
    program: Program, memory: Sequence[Memory], state: State | None, up: tuple[int, ...], down: bool
) -> tuple[Any, ...]:
    """Return what a recording depends on."""
    return (id(program), up, down, not is_strict(), id(state), *map(id, memory))
