"""The dynamic programme against every placement there is, on machines and functions made at random."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.pipelines.costs import Model
from adaptive_compute.pipelines.place import place, settled
from adaptive_compute.pipelines.stand_in import Recorder
from tests.pipelines.machine import DEVICES, Recipe, ToyParams, machine, played, random_recipe

BYTES = 8 * 1000


def recorded(recipe: Recipe, size: int = BYTES // 8):
    """Return the graph of a recipe over host arrays."""
    from adaptive_compute.core.array import Operand
    from adaptive_compute.pipelines.graph import ARGUMENT, Source

    recorder = Recorder(set())
    arrays = [
        recorder.stand_in(Operand((size,), "float64", "cpu", "numpy"), Source(ARGUMENT, i))
        for i in range(recipe.inputs)
    ]
    recorder.graph.outputs = tuple(x.number for x in played(recipe, *arrays))
    return recorder.graph


def links(up, down, latency, peer, devices):
    """Return the seconds of one transfer of BYTES between two devices, by the definition of the machine."""
    found = {}
    for a, b in itertools.permutations(devices, 2):
        if a == "cpu":
            found[a, b] = latency + BYTES * up
        elif b == "cpu":
            found[a, b] = latency + BYTES * down
        elif peer is not None:
            found[a, b] = latency + BYTES * peer
    return found


def reached(links, origin, wanted, devices):
    """Return the least time to have a value on every wanted device: every set of transfers is tried."""
    best = math.inf
    for count in range(len(devices)):
        for chosen in itertools.combinations(links, count):
            there, grew = {origin}, True
            while grew:
                new = {b for a, b in chosen if a in there} - there
                grew = bool(new)
                there |= new
            if wanted <= there:
                best = min(best, sum(links[step] for step in chosen))
    return best


def brute_force(recipe, links, devices):
    """Return the least predicted time over every way to choose a device for each step."""
    best, ways = math.inf, {}
    offers = [[d for d in devices if p.seconds[DEVICES.index(d)] is not None] for p, _ in recipe.steps]
    for choice in itertools.product(*offers):
        places = ["cpu"] * recipe.inputs + list(choice)
        needed = [{d} for d in places]
        for device, (_, operands) in zip(choice, recipe.steps):
            for i in operands:
                needed[i].add(device)
        for i in recipe.outputs:
            needed[i].add("cpu")
        total = sum(p.seconds[DEVICES.index(d)] for d, (p, _) in zip(choice, recipe.steps))
        for origin, wanted in zip(places, needed):
            key = origin, frozenset(wanted)
            if key not in ways:
                ways[key] = reached(links, origin, wanted, devices)
            total += ways[key]
        best = min(best, total)
    return best


def greedy(recipe, links, devices):
    """Return what it takes when each step alone is placed where it finishes first and returns to the host."""
    total = 0.0
    for params, operands in recipe.steps:
        ways = []
        for device in devices:
            seconds = params.seconds[DEVICES.index(device)]
            if seconds is None:
                continue
            if device != "cpu":
                seconds += len(operands) * links["cpu", device] + links[device, "cpu"]
            ways.append(seconds)
        total += min(ways)
    return total


@pytest.mark.parametrize("seed", range(40))
def test_the_placement_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    devices = DEVICES[: int(rng.integers(2, 4))]
    up, down = (10.0 ** rng.uniform(-9, -6, 2)).tolist()
    peer = float(10.0 ** rng.uniform(-10, -6)) if rng.random() < 0.5 else None
    latency = float(10.0 ** rng.uniform(-6, -4))
    recipe = random_recipe(rng, int(rng.integers(1, 7 if len(devices) == 3 else 9)), len(devices))
    table = links(up, down, latency, peer, devices)
    with machine(up, down, latency, peer, devices=devices[1:]):
        placed = place(Model(dispatcher, recorded(recipe)))
    assert placed is not None
    assert placed.exact
    assert placed.seconds == pytest.approx(brute_force(recipe, table, devices), rel=1e-9)
    assert placed.seconds <= greedy(recipe, table, devices) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_it_is_never_predicted_slower_than_call_by_call_however_wide_the_function(seed):
    rng = np.random.default_rng(1000 + seed)
    up, down = (10.0 ** rng.uniform(-9, -6, 2)).tolist()
    recipe = random_recipe(rng, 25)
    with machine(up, down, 1e-5):
        model = Model(dispatcher, recorded(recipe))
        wide, narrow = place(model), place(model, beam=4)
    assert model.greedy_seconds == pytest.approx(greedy(recipe, links(up, down, 1e-5, None, DEVICES), DEVICES))
    assert wide.seconds <= model.greedy_seconds * (1 + 1e-9)
    assert narrow.seconds <= model.greedy_seconds * (1 + 1e-9)
    assert wide.seconds <= narrow.seconds * (1 + 1e-9)
    assert model.seconds(wide.options) == pytest.approx(wide.seconds)


def test_what_is_as_fast_within_noise_moves_nothing():
    recipe = Recipe(tuple((ToyParams(0.5, (1e-3, far, None)), (0,)) for far in (1e-3, 1e-3)), (1, 2), 1)
    for gain, device in ((1.0, "cpu"), (0.9, "sim:0")):
        steps = tuple((p._replace(seconds=(1e-3, gain * 0.98e-3, None)), o) for p, o in recipe.steps)
        with machine(1e-12, 1e-12, 1.2e-5):
            model = Model(dispatcher, recorded(recipe._replace(steps=steps)))
            best = place(model)
            chosen = settled(model, best)
        assert {o.device for o in best.options} == {"sim:0"}
        assert {o.device for o in chosen.options} == {device}
        assert chosen.seconds <= model.greedy_seconds * (1 + 1e-9)
        assert chosen.seconds <= best.seconds * 1.05
