"""A placed graph as a list of steps: move a value, run a kernel or a view, forget what is not needed any more."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ..core.array import Operand, kind_named, kind_of
from ..core.dispatcher import Dispatcher
from ..core.errors import DeviceError
from ..core.settings import Settings, changed
from ..core.transfer import move
from .costs import Model, Option
from .graph import NUMBER, SOURCES, Node
from .place import Placed, last_uses

WORTH_FORGETTING = 1 << 16  # bytes
Step = Callable[[list[Any]], None]


class Kept:
    """Copies on devices of arrays that never change, each for as long as its array exists."""

    def __init__(self) -> None:
        self._copies: dict[tuple[int, str], tuple[weakref.ref[Any], Any]] = {}

    def get(self, array: Any, device: str, make: Callable[[Any], Any]) -> Any:
        """Return an array's copy on a device, making it where there is none."""
        key = id(array), device
        found = self._copies.get(key)
        if found is not None and found[0]() is array:
            return found[1]
        made = make(array)
        copies = self._copies
        copies[key] = weakref.ref(array, lambda gone: copies.pop(key, None)), made
        return made

    def clear(self) -> None:
        """Forget every copy."""
        self._copies.clear()


class NodeFailed(Exception):  # noqa: N818 - what it says, with the error that caused it
    """A step of a program ran out of memory or lost its device."""


class Program:
    """What runs a placed graph; may be run by several threads at once.

    Registers hold the values of one run: a value on a device is one register.
    """

    def __init__(self, dispatcher: Dispatcher, model: Model, placed: Placed, kept: Kept, log: bool) -> None:
        self.model, self.placed = model, placed
        self.profile = dispatcher.router.profile
        self._dispatcher, self._kept, self._log = dispatcher, kept, log
        self._graph = model.graph
        self._steps: list[Step] = []
        self._labels: dict[int, str] = {}  # by a step's identity: what to call it where it fails
        self._inputs: list[list[tuple[int, int]]] = [[] for _ in SOURCES]  # by kind: register and place
        self._registers: dict[tuple[int, int], int] = {}  # (value, place) -> register
        self._kinds: dict[tuple[int, int], str] = {}
        self._needed = model.needed(placed.options)
        self.by_call: float | None = None  # predicted time of what was recorded, routed one by one
        self.failed: str | None = None  # why it is not run any more
        self.events: list[tuple[int, ...]] = []  # in order: (node,) that runs, or (value, from, to) that moves
        self._compile()

    @property
    def saves(self) -> float:
        """Predicted seconds that a run saves over the same calls routed one by one; 0 where nothing was measured."""
        return 0.0 if self.by_call is None else max(self.by_call - self.placed.seconds, 0.0)

    def run(self, arguments: Sequence[Any], captured: Sequence[Any], constants: Sequence[Any], numbers: Any) -> Any:
        """Run the steps and return the outputs, in order."""
        registers: list[Any] = [None] * len(self._registers)
        for values, inputs in zip((arguments, captured, constants, numbers), self._inputs):
            for register, place in inputs:
                registers[register] = values[place]
        step = None
        try:
            for step in self._steps:
                step(registers)
        except (MemoryError, DeviceError) as error:
            raise NodeFailed(self._labels.get(id(step), "a step")) from error
        return [registers[register] for register in self._outputs]

    # Compiling

    def _register(self, value: int, place: int, kind: str) -> int:
        self._kinds[value, place] = kind
        return self._registers.setdefault((value, place), len(self._registers))

    def _compile(self) -> None:
        graph, model = self._graph, self.model
        for v, source in graph.sources.items():
            place = 0 if source.kind == NUMBER else model.homes[v]
            register = self._register(v, place, graph.values[v].kind)
            self._inputs[SOURCES.index(source.kind)].append((register, source.place))
        last = last_uses(graph, self.placed.order)
        outputs = frozenset(graph.outputs)
        for step, index in enumerate(self.placed.order):
            node, option = graph.nodes[index], self.placed.options[index]
            there = model.brought(node, option, self._origin)
            for v in there:
                self._bring(v, option.place)
            self._steps.append(self._view(node, option) if node.view else self._call(node, option, there))
            self.events.append((index,))
            gone = [v for v, end in last.items() if end == step]
            for v in gone:
                if v in outputs:
                    self._bring(v, model.homes[v])
            # What is small is not worth a step: it goes when the run ends.
            large = {v for v in gone if model.nbytes[v] >= WORTH_FORGETTING}
            dead = [
                register
                for (v, place), register in self._registers.items()
                if v in large and not (v in outputs and place == model.homes[v])
            ]
            if dead:
                self._steps.append(_forget(dead))
        self._outputs = [self._output(v) for v in graph.outputs]

    def _bring(self, value: int, place: int) -> None:
        """Add the moves that have a value on a device, along the tree that its placement was counted with."""
        if (value, place) in self._registers:
            return
        origin, mask = self._needed[value]
        _, steps = self.model.tree(self.model.nbytes[value], origin, mask)
        parent = {b: a for a, b in steps}
        above = parent.get(place)
        if above is None:  # a link that was not measured
            above = origin if origin == 0 or place == 0 else 0
        self._bring(value, above)
        if (value, place) not in self._registers:
            self._steps.append(self._move(value, above, place))
            self.events.append((value, above, place))

    def _move(self, value: int, a: int, b: int) -> Step:
        model, operand = self.model, self._graph.values[value]
        devices, registry = model.devices, self._dispatcher.registry
        source = None if a == 0 else registry.backend_of(devices[a])
        target = None if b == 0 else registry.backend_of(devices[b])
        before = kind_named(self._kinds[value, a])
        name = model.kinds[b] if b else _host_kind(operand)
        wanted = kind_named(name)
        convert = source is None and target is not None and before.name not in target.accepts
        origin, device, nbytes, log = devices[a], devices[b], operand.nbytes, self._log

        def carry(array: Any) -> Any:
            moved = move(
                before.to_numpy(array) if convert else array, source, target, device, nbytes, origin=origin, log=log
            )
            if target is not None:
                return target.view(moved, name)
            return moved if kind_of(moved) is wanted else wanted.from_bits(moved, operand.dtype)

        get, put = self._registers[value, a], self._register(value, b, name)
        if value in self._graph.constant and a == model.homes[value]:
            kept = self._kept

            def keep(registers: list[Any]) -> None:
                registers[put] = kept.get(registers[get], device, carry)

            return keep

        def step(registers: list[Any]) -> None:
            registers[put] = carry(registers[get])

        return self._labelled(step, f"the transfer to {device}")

    def _origin(self, value: int) -> int:
        return self._needed[value][0]

    def _call(self, node: Node, option: Option, there: Collection[int]) -> Step:
        graph, place = self._graph, option.place
        assert option.kernel is not None
        operands: list[Operand | None] = []
        registers: list[int | None] = []
        for v in node.operands:
            if v is None:
                operands.append(None)
                registers.append(None)
                continue
            at = place if v in there else 0
            operands.append(graph.values[v]._replace(device=self.model.devices[at], kind=self._kinds[v, at]))
            registers.append(self._registers[v, at])
        request = graph.request(node, tuple(operands))
        # Everything is in place already; what may move was decided when the options were found.
        state = changed(
            node.state, backend=None, kernel=option.kernel.name, device=option.device, transfers=_allowed(node.state)
        )
        first = operands[0]
        assert first is not None
        put = [self._register(v, place, first.kind) for v in node.results]
        self._dispatcher.entry(request, state)  # plans now: what cannot be planned fails before anything has run
        step = _caller(self._dispatcher, request, state, registers, put)
        return self._labelled(step, f"kernel {option.kernel.name} on {option.device}")

    def _labelled(self, step: Step, label: str) -> Step:
        self._labels[id(step)] = label
        return step

    def _view(self, node: Node, option: Option) -> Step:
        (v,), (result,) = node.operands, node.results
        assert v is not None
        assert node.view is not None
        kind = self._kinds[v, option.place]
        function = node.view.bind(kind)
        get, put = self._registers[v, option.place], self._register(result, option.place, kind)
        if kind == "numpy":

            def numpy_step(registers: list[Any]) -> None:
                registers[put] = np.asarray(function(registers[get]))  # a single element stays an array

            return numpy_step

        def step(registers: list[Any]) -> None:
            registers[put] = function(registers[get])

        return step

    def _output(self, value: int) -> int:
        """Return the register of an output, of the kind that it has where the function runs call by call."""
        place, operand = self.model.homes[value], self._graph.values[value]
        self._bring(value, place)
        register, kind = self._registers[value, place], self._kinds[value, place]
        if kind == operand.kind:
            return register
        wanted = kind_named(operand.kind)
        if place:
            view = self._dispatcher.registry.backend_of(operand.device).view
            self._steps.append(_changed(register, lambda x: view(x, operand.kind)))
        else:
            has = kind_named(kind)
            self._steps.append(_changed(register, lambda x: wanted.from_numpy(has.to_numpy(x))))
        self._kinds[value, place] = operand.kind
        return register


def _allowed(state: Settings) -> str:
    return "deny" if state.transfers == "deny" else "log" if state.transfers == "log" else "allow"


def _host_kind(operand: Operand) -> str:
    """Return the kind that a value has on the host: its own where it lives there."""
    if operand.device == "cpu":
        return operand.kind
    return "torch" if operand.dtype == "bfloat16" else "numpy"


def _caller(
    dispatcher: Dispatcher, request: Any, state: Settings, registers: Sequence[int | None], put: Sequence[int]
) -> Step:
    """Return the step of a kernel, which finds its plan like a repeated call does: the cache may have dropped it."""
    key, fast = object(), dispatcher.fast

    def found() -> Callable[..., Any]:
        call = dispatcher.entry(request, state).call
        dispatcher.bind_request(key, request, state)
        return call

    if len(put) == 1 and len(registers) == 1:
        (target,), (only,) = put, registers
        assert only is not None

        def simple(values: list[Any]) -> None:
            values[target] = (fast.get(key) or found())(values[only])

        return simple
    if len(put) == 1:
        (target,) = put

        def one(values: list[Any]) -> None:
            values[target] = (fast.get(key) or found())(*[None if r is None else values[r] for r in registers])

        return one

    def several(values: list[Any]) -> None:
        results = (fast.get(key) or found())(*[None if r is None else values[r] for r in registers])
        for target, result in zip(put, results):
            values[target] = result

    return several


def _changed(register: int, change: Callable[[Any], Any]) -> Step:
    def step(registers: list[Any]) -> None:
        registers[register] = change(registers[register])

    return step


def _forget(dead: Sequence[int]) -> Step:
    def step(registers: list[Any]) -> None:
        for register in dead:
            registers[register] = None

    return step
