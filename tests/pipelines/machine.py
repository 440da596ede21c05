"""A machine of simulated devices with an operation whose times are made up, and random functions of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from adaptive_compute.backends.base import Kernel, Plan
from adaptive_compute.core.curve import Estimate
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.operation import Features, Operation
from adaptive_compute.core.profile import Link, Profile, Section
from tests.simulated import SimArray, SimBackend, SimPlan, installed

DEVICES = ("cpu", "sim:0", "sim:1")


class ToyParams(NamedTuple):
    """``factor * (sum of the operands) + 1``, and what that takes on each device (None: not offered there)."""

    factor: float
    seconds: tuple[float | None, ...]


class Toy(Operation):
    name = "toy"

    def result(self, request: Any) -> Any:
        return (request.first._replace(shape=np.broadcast_shapes(*(o.shape for o in request.operands))),)

    def features(self, request: Any) -> Features:
        return Features("toy", (0.0,))

    def tolerance(self, request: Any) -> float:
        return 1e-6


TOY = Toy()


class ToyKernel(Kernel):
    operation = "toy"

    def __init__(self, device: str) -> None:
        self.device, self.name = device, f"toy-{device.replace(':', '')}"
        self.native = "numpy" if device == "cpu" else "sim"
        self.fail: Exception | None = None
        self.ran = 0

    def supports(self, request: Any) -> bool | str:
        return True if request.params.seconds[DEVICES.index(self.device)] is not None else "made so"

    def estimate(self, request: Any, curves: Any) -> Estimate:
        return Estimate(request.params.seconds[DEVICES.index(self.device)], 0.0, 0.0, False)

    def plan(self, request: Any) -> Plan:
        def run(*arrays: Any) -> Any:
            if self.fail is not None:
                raise self.fail
            self.ran += 1
            assert not plan.closed
            if self.device == "cpu":
                return request.params.factor * sum(arrays) + 1
            given = [a.data if isinstance(a, SimArray) else a for a in arrays]
            assert all(a.device == self.device for a in arrays if isinstance(a, SimArray))
            assert self.takes_host_scalars or all(isinstance(a, SimArray) for a in arrays)
            return SimArray(request.params.factor * sum(given) + 1, self.device)

        plan = SimPlan(run)
        return plan


class Machine(SimBackend):
    """``SimBackend`` with toy kernels on the host and on its devices, of limited memory."""

    def __init__(self, devices: tuple[str, ...] = DEVICES[1:], room: int | None = None) -> None:
        super().__init__(*(ToyKernel(device) for device in ("cpu", *devices)), devices=devices)
        self.room = room

    def memory(self, device: str) -> int | None:
        return self.room

    def kernel(self, device: str) -> Any:
        return next(k for k in self._kernels if k.device == device)


@contextmanager
def machine(
    up: float = 1e-9, down: float = 1e-9, latency: float = 1e-6, peer: float | None = None, room: int | None = None,
    devices: tuple[str, ...] = DEVICES[1:],
) -> Iterator[Machine]:  # fmt: skip
    """Install a machine whose links take so many seconds a byte, each direction."""
    sections = {"cpu": Section({})}
    for device in devices:
        peers = {} if peer is None else {other: Link(latency, 1 / peer) for other in devices if other != device}
        sections[device] = Section({}, up=Link(latency, 1 / up), down=Link(latency, 1 / down), peers=peers)
    with installed(Machine(devices, room)) as backend:
        dispatcher.use_profile(Profile(sections))
        yield backend


def toy(params: ToyParams, *arrays: Any) -> Any:
    return dispatcher.run(TOY, params, *arrays)


class Recipe(NamedTuple):
    """A random function: for each step its parameters and the values that it adds up; then what is returned."""

    steps: tuple[tuple[ToyParams, tuple[int, ...]], ...]
    outputs: tuple[int, ...]
    inputs: int


def played(recipe: Recipe, *arrays: Any) -> Any:
    """Run a random function, or record it."""
    values = list(arrays)
    for params, operands in recipe.steps:
        values.append(toy(params, *(values[i] for i in operands)))
    return tuple(values[i] for i in recipe.outputs)


def random_recipe(rng: np.random.Generator, count: int, devices: int = 3, recent: int = 100) -> Recipe:
    """Return a random function of ``count`` steps, each reading up to three of the latest values."""
    inputs = int(rng.integers(1, 4))
    steps = []
    for index in range(count):
        known = inputs + index
        low = max(0, known - recent)
        operands = rng.integers(low, known, int(rng.integers(1, 4)))
        seconds: list[float | None] = [float(s) for s in 10.0 ** rng.uniform(-5, -2, devices)]
        for device in range(1, devices):
            if rng.random() < 0.15:
                seconds[device] = None
        seconds += [None] * (len(DEVICES) - devices)
        steps.append((ToyParams(float(rng.uniform(0.1, 0.5)), tuple(seconds)), tuple(int(i) for i in operands)))
    last = inputs + count - 1
    outputs = {last, *(int(i) for i in rng.integers(inputs, last + 1, int(rng.integers(0, 3))))}
    return Recipe(tuple(steps), tuple(sorted(outputs)), inputs)
