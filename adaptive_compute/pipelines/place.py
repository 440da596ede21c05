"""The cheapest place for every node of a graph, by dynamic programming.

Nodes are taken in an order in which each comes after what it needs. The state between two nodes is where every value
that is still needed came to be and which devices it has been brought to: nothing else of the past decides what the rest
costs, so the cheapest way into each state is all that is kept. A state whose cost and the least that the remaining
kernels can take exceed a placement that is known already is dropped. Both are exact. Where more than BEAM states remain
(many values alive at once that no bound rules out), the cheapest BEAM of them go on, and the result says so.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..core.router import NOISE_CEILING
from .costs import Model, Option
from .graph import Graph

BEAM = 2048


class Placed(NamedTuple):
    """A placement: the order of the nodes, an option for each (by the node's number), and its predicted time.

    ``exact`` is False where the beam was too narrow to tell that nothing is cheaper.
    """

    order: tuple[int, ...]
    options: tuple[Option, ...]
    seconds: float
    exact: bool


def place(model: Model, beam: int = BEAM) -> Placed | None:
    """Return the cheapest placement of a graph, or None where nothing fits the devices' memory."""
    graph = model.graph
    order = narrow_order(graph)
    known = [p for p in _obvious(model) if fits(model, order, p)]
    best = min(known, key=model.seconds, default=None)
    bound = math.inf if best is None else model.seconds(best)
    found, exact = _search(model, order, bound, beam)
    if found is not None and (best is None or found[0] < bound):
        return Placed(order, found[1], found[0], exact)
    return None if best is None else Placed(order, tuple(best), bound, exact)


def _obvious(model: Model) -> list[list[Option]]:
    """Return placements that need no search: call by call, and as much as possible on one device."""
    found = [] if model.greedy is None else [model.greedy]
    return found + [_mostly(model, place) for place in range(len(model.devices))]


def _mostly(model: Model, place: int) -> list[Option]:
    """Return the placement that runs on one device whatever can run there."""
    return [min(options, key=lambda o: (o.place != place, o.seconds)) for options in model.options]


def narrow_order(graph: Graph) -> tuple[int, ...]:
    """Return the order of recording, or one from the outputs back where that keeps fewer values alive at once."""
    recorded = tuple(range(len(graph.nodes)))
    maker = {v: i for i, node in enumerate(graph.nodes) for v in node.results}
    order: list[int] = []
    done: set[int] = set()
    for output in (*graph.outputs, *(v for node in graph.nodes for v in node.results)):
        stack = [(maker[output], False)] if output in maker else []
        while stack:
            index, ready = stack.pop()
            if index in done:
                continue
            if ready:
                done.add(index)
                order.append(index)
                continue
            stack.append((index, True))
            stack += [(maker[v], False) for v in reversed(graph.moved(graph.nodes[index])) if v in maker]
    backward = tuple(order)
    return recorded if _width(graph, recorded) <= _width(graph, backward) else backward


def last_uses(graph: Graph, order: Sequence[int]) -> dict[int, int]:
    """Return for each value the step after which nothing reads it (its own, where nothing ever does)."""
    last = {}
    for step, index in enumerate(order):
        node = graph.nodes[index]
        last.update(dict.fromkeys(node.results, step))
        last.update(dict.fromkeys(graph.moved(node), step))
    return last


def _width(graph: Graph, order: Sequence[int]) -> int:
    last = last_uses(graph, order)
    alive, widest = 0, 0
    for step, index in enumerate(order):
        alive += len(graph.nodes[index].results)
        widest = max(widest, alive)
        alive -= sum(1 for v, end in last.items() if end == step and v not in graph.sources)
    return widest


class _State(NamedTuple):
    seconds: float
    path: Any  # the options so far, last first: (option, path before it)


def _search(
    model: Model, order: Sequence[int], bound: float, beam: int
) -> tuple[tuple[float, tuple[Option, ...]] | None, bool]:
    """Return the cheapest placement below a bound with its time, or None; and whether every state was followed."""
    graph = model.graph
    last, outputs = last_uses(graph, order), frozenset(graph.outputs)
    least = [min(o.seconds for o in options) for options in model.options]
    rest = [0.0] * (len(order) + 1)
    for step in range(len(order) - 1, -1, -1):
        rest[step] = rest[step + 1] + least[order[step]]
    # A state: for each value that is alive, its number, where it came to be, and the set of devices that it is on.
    start = tuple((v, model.homes[v], 1 << model.homes[v]) for v in sorted(graph.sources) if v in last)
    states: dict[tuple[tuple[int, int, int], ...], _State] = {start: _State(0.0, None)}
    exact = True
    ceiling = bound * (1 + 1e-12)
    for step, index in enumerate(order):
        node = graph.nodes[index]
        made = node.results
        following: dict[tuple[tuple[int, int, int], ...], _State] = {}
        for state, (seconds, path) in states.items():
            origins = {v: origin for v, origin, _ in state}
            for option in model.options[index]:
                moved = model.brought(node, option, origins.__getitem__)
                cost, alive = seconds + option.seconds, []
                bit = 1 << option.place
                for entry in state:
                    v, origin, mask = entry
                    if v in moved and not mask & bit:
                        cost += model.moving(v, mask | bit, origin) - model.moving(v, mask, origin)
                        entry = v, origin, mask | bit
                    alive.append(entry)
                alive += [(v, option.place, bit) for v in made]
                if cost + rest[step + 1] > ceiling or not _fit(model, alive):
                    continue
                kept = []
                for entry in alive:
                    v, origin, mask = entry
                    if last[v] > step:
                        kept.append(entry)
                    elif v in outputs and not mask >> model.homes[v] & 1:
                        home = 1 << model.homes[v]
                        cost += model.moving(v, mask | home, origin) - model.moving(v, mask, origin)
                if not math.isfinite(cost) or cost + rest[step + 1] > ceiling:
                    continue
                key = tuple(kept)
                old = following.get(key)
                if old is None or cost < old.seconds:
                    following[key] = _State(cost, (option, path))
        if len(following) > beam:
            exact = False
            following = dict(heapq.nsmallest(beam, following.items(), key=lambda pair: pair[1].seconds))
        states = following
    if not states:
        return None, exact
    best = min(states.values(), key=lambda state: state.seconds)
    chosen: dict[int, Option] = {}
    path = best.path
    for index in reversed(order):
        chosen[index], path = path
    return (best.seconds, tuple(chosen[index] for index in range(len(order)))), exact


def _fit(model: Model, alive: Sequence[tuple[int, int, int]]) -> bool:
    """Tell whether the values on each device fit its memory."""
    for place, limit in enumerate(model.limits):
        if limit < math.inf and sum(model.nbytes[v] for v, _, mask in alive if mask >> place & 1) > limit:
            return False
    return True


def fits(model: Model, order: Sequence[int], placement: Sequence[Option]) -> bool:
    """Tell whether a placement stays within every device's memory, node by node."""
    graph, last = model.graph, last_uses(model.graph, order)
    masks = {v: 1 << model.homes[v] for v in graph.sources if v in last}
    origins = {v: model.homes[v] for v in masks}
    for step, index in enumerate(order):
        node, bit = graph.nodes[index], 1 << placement[index].place
        for v in model.brought(node, placement[index], origins.__getitem__):
            masks[v] |= bit
        for v in node.results:
            masks[v], origins[v] = bit, placement[index].place
        if not _fit(model, [(v, origins[v], mask) for v, mask in masks.items()]):
            return False
        masks = {v: mask for v, mask in masks.items() if last[v] > step}
    return math.isfinite(model.seconds(placement))


def settled(model: Model, placed: Placed) -> Placed:
    """Return a plainer placement where that is predicted to be as fast within noise.

    That is the one that leaves everything where the function's arrays are, or the one that call-by-call routing would
    choose: predictions that measurements cannot tell apart are no reason to move data.
    """
    ceiling = math.inf if model.greedy_seconds is None else model.greedy_seconds * (1 + 1e-9)
    for plain in (_at_home(model), model.greedy):
        if plain is None or tuple(plain) == placed.options:
            continue
        seconds = model.seconds(plain)
        if seconds <= min(placed.seconds * (1 + NOISE_CEILING), ceiling) and fits(model, placed.order, plain):
            return placed._replace(options=tuple(plain), seconds=seconds)
    return placed


def _at_home(model: Model) -> list[Option] | None:
    """Return the placement that moves nothing, or None where some node cannot run where its result belongs."""
    stay = []
    for options, node in zip(model.options, model.graph.nodes):
        home = model.homes[node.results[0]]
        here = [o for o in options if o.place == home and not o.returns]
        if not here:
            return None
        stay.append(min(here, key=lambda o: o.seconds))
    return stay
