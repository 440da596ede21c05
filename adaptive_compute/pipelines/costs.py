"""What a graph costs on the devices of this machine, by the profile: kernels for each node, and moving each value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from ..backends.base import Kernel
from ..core.dispatcher import Dispatcher
from ..core.operation import Request
from ..core.router import Candidate, Decision
from ..core.settings import Settings
from .graph import Graph, Node
from .views import native_kind

VIEW_SECONDS = {"cpu": 1e-6, "cuda": 3e-6}  # what NumPy and torch take for a view, about
VIEW_ELSEWHERE = 2e-4  # a copy, and the submission that makes it
# A link that was not measured, where a device is asked for all the same: one that makes moving nothing the best.
UNMEASURED, UNMEASURED_RATE = 1e-4, 5e9
MEMORY_SHARE = 0.75  # of a device's memory that values may fill together; plans and pools have the rest
EXACT_DEVICES = 4  # up to so many, the cheapest way to reach several is found by trying every one


class Option(NamedTuple):
    """One way to run a node.

    ``place`` is the number of the device where its operands must be and its result is: with ``returns`` that is the
    host, and the kernel moves both itself (in one submission, for less than the link takes).
    """

    place: int
    device: str
    kernel: Kernel | None
    seconds: float
    spread: float = 0.0
    returns: bool = False


class Decisions:
    """What the router says of each node, asked once."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._known: dict[tuple[Request, Settings], Decision] = {}

    def of(self, graph: Graph, node: Node) -> Decision:
        """Return the decision for a node; raises what the call would raise where nothing may run it."""
        key = graph.request(node), node.state
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._dispatcher.decide(*key)
        return found

    def greedy_seconds(self, graph: Graph) -> float | None:
        """Return the predicted time of a graph routed call by call; None where a part of it was not measured."""
        totals = [self.of(graph, node).chosen.total_s for node in graph.nodes if node.operation is not None]
        return None if None in totals else sum(t for t in totals if t is not None)


class Model:
    """Everything that placement asks of a graph, as numbers.

    Attributes
    ----------
    devices : tuple of str
        ``"cpu"`` first; a place is a number among them.
    options : list of list of Option
        For each node.
    homes : list of int
        Place of each value when the function runs call by call.
    nbytes : list of int
        Of each value; what never changes counts nothing, because a device keeps it.
    limits : list of float
        Bytes that the values on a device may take together.
    greedy_seconds : float or None
        Predicted time of the nodes routed one by one; None where a part of it was not measured.
    """

    def __init__(self, dispatcher: Dispatcher, graph: Graph, decisions: Decisions | None = None) -> None:
        self.dispatcher, self.graph = dispatcher, graph
        known = decisions or Decisions(dispatcher)
        self.decisions: list[Decision | None] = [
            None if n.operation is None else known.of(graph, n) for n in graph.nodes
        ]
        found = {"cpu": None, **{o.device: None for o in graph.values}}
        for decision in self.decisions:
            found.update((c.device, None) for c in (decision.candidates if decision else ()))
        self.devices = tuple(found)
        self.kinds = [native_kind(device) for device in self.devices]
        self.homes = [self.devices.index(o.device) for o in graph.values]
        self.nbytes = [o.nbytes for o in graph.values]
        self.limits = [self._limit(device) for device in self.devices]
        self.options = [self._options(n, d) for n, d in zip(graph.nodes, self.decisions)]
        self.greedy_seconds = known.greedy_seconds(graph)
        self._trees: dict[tuple[int, int, int], tuple[float, tuple[tuple[int, int], ...]]] = {}
        self._edges: dict[int, list[list[float]]] = {}

    def _limit(self, device: str) -> float:
        memory = None if device == "cpu" else self.dispatcher.registry.backend_of(device).memory(device)
        return math.inf if memory is None else memory * MEMORY_SHARE

    def _options(self, node: Node, decision: Decision | None) -> list[Option]:
        if decision is None:
            return self._view_options(node)
        request, router = decision.request, self.dispatcher.router
        known = [c for c in decision.candidates if c.compute_s is not None and c.transfer_s is not None]
        if any(c.device == request.home for c in known):
            known = [c for c in known if c.device == request.home or not router.guessed(c)]
        if not known:  # nothing was measured: where the router leaves it
            chosen = decision.chosen
            return [Option(self.devices.index(chosen.device), chosen.device, chosen.kernel, 0.0)]
        best: dict[str, Candidate] = {}
        for c in sorted(known, key=lambda c: c.compute_s or 0.0):
            best.setdefault(c.device, c)
        found = [
            Option(self.devices.index(c.device), c.device, c.kernel, c.compute_s or 0.0, c.spread)
            for c in best.values()
        ]
        if request.home == "cpu":
            found += [
                Option(0, c.device, c.kernel, c.total_s or 0.0, c.spread, returns=True)
                for c in known
                if c.device != "cpu" and c.kernel.fuses_transfers
            ]
        return found

    def _view_options(self, node: Node) -> list[Option]:
        assert node.view is not None
        home = self.homes[node.results[0]]
        found = []
        for place, device in enumerate(self.devices):
            stays = home != 0 and place != home and node.state.transfers not in ("allow", "log")
            denied = node.state.transfers == "deny" and place != home
            if not stays and not denied and node.view.runs_on(device, self.kinds[place]):
                seconds = VIEW_SECONDS.get(device.partition(":")[0], VIEW_ELSEWHERE)
                found.append(Option(place, device, None, seconds))
        # By its caller's own array, whatever that is: the function has just done the same when it was recorded.
        return found or [Option(home, self.devices[home], None, 0.0)]

    # Moving

    def edges(self, nbytes: int) -> list[list[float]]:
        """Return the seconds from each device to each other one by one step; infinite where there is no such step."""
        found = self._edges.get(nbytes)
        if found is None:
            router, devices = self.dispatcher.router, self.devices
            found = [[math.inf] * len(devices) for _ in devices]
            for a, source in enumerate(devices):
                for b, target in enumerate(devices):
                    legs = router.legs(source, target, nbytes)
                    if a != b and len(legs) == 1:
                        found[a][b] = UNMEASURED + nbytes / UNMEASURED_RATE if legs[0] is None else legs[0]
            self._edges[nbytes] = found
        return found

    def moving(self, value: int, mask: int, start: int | None = None) -> float:
        """Return the seconds that it takes to have a value on every device of a set, from one of them."""
        origin = self.homes[value] if start is None else start
        if mask == 1 << origin or value in self.graph.constant:
            return 0.0
        return self.tree(self.nbytes[value], origin, mask)[0]

    def tree(self, nbytes: int, origin: int, mask: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        """Return the cheapest steps that bring a value from one device to every one of a set, in order, and their time.

        The host may lie on the way without being in the set.
        """
        key = nbytes, origin, mask
        found = self._trees.get(key)
        if found is None:
            edges = self.edges(nbytes)
            best: tuple[float, tuple[tuple[int, int], ...]] = (math.inf, ())
            for through in {mask | 1 << origin, mask | 1 << origin | 1}:
                places = [p for p in range(len(self.devices)) if through >> p & 1 and p != origin]
                best = min(best, _cheapest(edges, origin, places), key=lambda pair: pair[0])
            found = self._trees[key] = best
        return found

    def brought(self, node: Node, option: Option, origin: Callable[[int], int]) -> list[int]:
        """Return the values that must be on a node's device; ``origin`` tells where each came to be.

        A number that is on the host is handed to kernels that take it from there, unless it decides by being the first
        operand where the result goes.
        """
        moved = self.graph.moved(node)
        if option.place == 0 or option.kernel is None or not option.kernel.takes_host_scalars:
            return moved
        first, shapes = node.operands[0], self.graph.values
        return [v for v in moved if v == first or shapes[v].shape or origin(v) != 0]

    # What a placement costs

    def seconds(self, placement: Sequence[Option]) -> float:
        """Return the predicted time of a placement: kernels, and each value moved once to each device that needs it."""
        needed = self.needed(placement)
        moves = sum(self.moving(v, mask, origin) for v, (origin, mask) in needed.items())
        return sum(option.seconds for option in placement) + moves

    def needed(self, placement: Sequence[Option]) -> dict[int, tuple[int, int]]:
        """Return for each value where it comes to be, and the set of devices where it is needed."""
        found = {v: (self.homes[v], 1 << self.homes[v]) for v in self.graph.sources}
        for node, option in zip(self.graph.nodes, placement):
            for v in self.brought(node, option, lambda v: found[v][0]):
                found[v] = found[v][0], found[v][1] | 1 << option.place
            for v in node.results:
                found[v] = option.place, 1 << option.place
        for v in self.graph.outputs:
            found[v] = found[v][0], found[v][1] | 1 << self.homes[v]
        return found

    @cached_property
    def greedy(self) -> list[Option] | None:
        """What call-by-call routing would choose, as a placement; None where that is not among the options."""
        placement = []
        for options, decision, node in zip(self.options, self.decisions, self.graph.nodes):
            home = self.homes[node.results[0]]
            if decision is None:
                same = [o for o in options if o.place == home]
            else:
                same = [o for o in options if o.kernel is decision.chosen.kernel]
                same.sort(key=lambda o: not o.returns)  # with its transfers in one submission, where it can
            if not same:
                same = [o for o in options if decision and o.device == decision.chosen.device]
            if not same:
                return None
            placement.append(same[0])
        return placement


def _cheapest(edges: list[list[float]], origin: int, places: list[int]) -> tuple[float, tuple[tuple[int, int], ...]]:
    """Return the cheapest tree from one device to all of some others, as steps in order."""
    if len(places) >= EXACT_DEVICES:
        return _nearest_first(edges, origin, places)
    best: tuple[float, tuple[tuple[int, int], ...]] = (math.inf, ())
    for parents in itertools.product([origin, *places], repeat=len(places)):
        seconds = sum(edges[a][b] if a != b else math.inf for a, b in zip(parents, places))
        if seconds < best[0]:
            steps = _in_order(dict(zip(places, parents)), origin)
            if len(steps) == len(places):
                best = seconds, steps
    return best


def _in_order(parents: dict[int, int], origin: int) -> tuple[tuple[int, int], ...]:
    """Return the steps of a tree from its root on; fewer than given where some hang on a cycle."""
    there = {origin}
    steps: list[tuple[int, int]] = []
    while True:
        ready = [(a, b) for b, a in parents.items() if a in there and b not in there]
        if not ready:
            return tuple(steps)
        steps += ready
        there.update(b for _, b in ready)


def _nearest_first(
    edges: list[list[float]], origin: int, places: list[int]
) -> tuple[float, tuple[tuple[int, int], ...]]:
    there, steps, total = [origin], [], 0.0
    rest = set(places)
    while rest:
        a, b = min(((a, b) for a in there for b in rest), key=lambda step: edges[step[0]][step[1]])
        total += edges[a][b]
        steps.append((a, b))
        there.append(b)
        rest.remove(b)
    return total, tuple(steps)
