"""In which order a profile's points are measured, and what each device may spend on them.

The most valuable first: every operation in turn gives a few points, one of each parameter class, small ones and large
ones by turns, before any gives more. A kernel whose points cost far more than those of the others (one that is compiled
anew for every shape) waits for the last part of the time, in which each such kernel has its share, however few points
come of it. What happens once, such as loading a library or compiling what all shapes share, is charged to the whole
profile and not to the device.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .operation import Operation, Request
from .registry import Registry

if TYPE_CHECKING:
    from ..backends.base import Kernel

# Times its budget a device may spend, before points are left out; and times all budgets that it may take in all.
OVER, IN_ALL = 1.25, 1.32
PACE = 0.87  # of the time, in which the points that are left should be done by
# What every device but the host has of the time, beside 1 for the host. Each device spends its own part only, so that
# a slow one does not take the time of another.
ADDED = 0.6
# A software driver computes on the processor, where the CPU's own kernels do it better: it gets little time, and none
# in a quick run, unless its backend is asked for by name.
ADDED_SOFTWARE = 0.05
# The part of the time that is kept for kernels that wait; where only software drivers have such; and the points that
# each of them has at least.
KEPT, KEPT_SOFTWARE, LEAST = 0.35, 0.05, 2
# Points that are checked together and timed together: a few of each operation first.
FIRST, TOGETHER = 4, 16
# A kernel waits that used so many times its part of the time so far, but not before it used so many times what its
# device can afford for a point.
AHEAD, COARSE = 2.0, 48.0


class Group(NamedTuple):
    """Requests of one operation that are measured together; ``kernels`` limits them to those that waited."""

    operation: Operation
    requests: Sequence[Request]
    kernels: frozenset[Kernel] | None = None


def part(registry: Registry, device: str, quick: bool, named: bool) -> float:
    """Return the part of the time that a device gets; ``named`` where the caller said which backends."""
    if device == "cpu":
        return 1.0
    if named or not registry.backend_of(device).software(device):
        return ADDED
    return 0.0 if quick else ADDED_SOFTWARE


def ordered(operations: Sequence[Operation], quick: bool, rng: np.random.Generator) -> list[Group]:
    """Return the points of some operations, in groups, in the order in which they are to be measured."""
    lanes = []
    for operation in operations:
        classes: dict[str, list[Request]] = {}
        for request in operation.samples(quick):
            classes.setdefault(operation.features(request).name, []).append(request)
        placed = []
        for number, own in enumerate(classes.values()):  # proportionally: large classes have more of each stretch
            for turn, request in enumerate(_spread(operation, own, rng, large=number % 2 == 1)):
                placed.append(((turn + 0.5) / len(own) / operation.urgency(request), request))
        placed.sort(key=lambda pair: pair[0])
        requests = [request for _, request in placed]
        starts = [0, *range(FIRST, len(requests), TOGETHER)]
        lanes.append([Group(operation, requests[a:b]) for a, b in zip(starts, [*starts[1:], len(requests)])])
    groups = []
    for turn in range(max(map(len, lanes), default=0)):
        groups += [lanes[i][turn] for i in rng.permutation(len(lanes)) if turn < len(lanes[i])]
    return groups


def _spread(operation: Operation, requests: Sequence[Request], rng: np.random.Generator, large: bool) -> list[Request]:
    """Return the requests of a class, a small and a large one first, which tell most, and the rest as it comes.

    ``large`` asks for the large one before the small one: the classes of a kernel tell about each other.
    """
    by_work = sorted(requests, key=lambda request: operation.work(request).flops)
    ends = by_work[len(by_work) // 8], by_work[-1 - len(by_work) // 8]
    first = [ends[0]] if ends[0] is ends[1] else [*reversed(ends)] if large else [*ends]
    rest = [request for request in requests if not any(request is other for other in first)]
    rng.shuffle(rest)
    return [*first, *rest]


class Ledger:
    """What each device may spend, and what it and its kernels have spent."""

    def __init__(self, budgets: Mapping[str, float], points: int) -> None:
        self.budgets = dict(budgets)
        # What no device is charged for (libraries that load, settling, links) must not add up without end either.
        self._start = time.perf_counter()
        self.end = self._start + IN_ALL * sum(budgets.values())
        self.until = self.end  # of the part of the time that has begun
        self.points = max(points, 1)  # to be measured in all
        self.spent = dict.fromkeys(budgets, 0.0)
        self.preparing = dict.fromkeys(budgets, 0.0)  # of that, before the timing
        self.checking = dict.fromkeys(budgets, 0.0)  # of that, comparing with references
        self._booked = 0.0  # since the group began
        self.seen = 0  # points looked at
        self.late = dict.fromkeys(budgets, 0)  # points that a device keeps for later
        self._used: dict[Kernel, float] = {}
        self._dearest: dict[Kernel, float] = {}
        self._minor = {d for d, seconds in budgets.items() if seconds < ADDED * budgets.get("cpu", 0.0)}

    def keep(self, part: float) -> None:
        """Keep the last part of the time for what must wait."""
        self.until = self.end - part * (self.end - self._start)

    def over(self, device: str) -> bool:
        """Tell whether a device has no time left, in this part of the time."""
        late = self.seen > 0 and time.perf_counter() > self.until
        return late or self.spent[device] > OVER * self.budgets[device]

    def matters(self, device: str) -> bool:
        """Tell whether a caller should hear of points that a device had no time for."""
        return device not in self._minor

    def costly(self, kernel: Kernel) -> bool:
        """Tell whether a kernel is so far ahead of its part of the time that it should wait.

        On the host none does: nothing is compiled there, and operands would have to be made twice.
        """
        if kernel.device == "cpu":
            return False
        budget = self.budgets[kernel.device]
        part = (time.perf_counter() - self._start) / max(self.end - self._start, 1e-9)
        on = sum(other.device == kernel.device for other in self._used)
        # Its dearest point may have loaded or compiled what is needed once.
        used = self._used.get(kernel, 0.0) - self._dearest.get(kernel, 0.0)
        return used > max(AHEAD * part * budget / max(on, 1), COARSE * budget / self.points)

    def prepared(self, device: str, seconds: float, kernel: Kernel | None = None) -> None:
        """Book what was spent before the timing of a point."""
        self._booked += seconds
        if kernel is not None:
            self._used[kernel] = self._used.get(kernel, 0.0) + seconds
            dearest = self._dearest.get(kernel, 0.0)
            self._dearest[kernel] = max(seconds, dearest)
            seconds = min(seconds, dearest)  # in all, each kernel's dearest point is left out
        self.spent[device] += seconds
        self.preparing[device] += seconds

    def timed(self, kernel: Kernel, seconds: float) -> None:
        """Book what the timing of a point took."""
        self._booked += seconds
        self.spent[kernel.device] += seconds
        self._used[kernel] = self._used.get(kernel, 0.0) + seconds

    def begin(self) -> float:
        """Begin a group, and return when."""
        self._booked = 0.0
        return time.perf_counter()

    def settle(self, start: float) -> None:
        """Book for the host what a group took beside what was booked for its points: waiting, mostly."""
        seconds = time.perf_counter() - start - self._booked
        device = "cpu" if "cpu" in self.spent else next(iter(self.spent), None)
        if device is not None:
            self.spent[device] += max(seconds, 0.0)
            self.preparing[device] += max(seconds, 0.0)

    def share(self, device: str, left: int, kernels: int) -> float:
        """Return the seconds for the samples of one kernel at one point, with so many points still to come."""
        left = max(left + self.late[device], 1)
        ahead = self.preparing[device] / max(self.seen, 1) * left  # what preparing those will take
        budget, total = self.budgets[device], sum(self.budgets.values())
        until = self._start + PACE * (self.until - self._start) - time.perf_counter()
        rest = min(budget - self.spent[device], until * budget / max(total, 1e-9))
        return max(rest - ahead, 0.0) / left / kernels
