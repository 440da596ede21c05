"""Measure this machine: time and error of every kernel, and the links between its devices."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .curve import Measurement
from .errors import ArgumentError
from .links import Views, links, peer
from .operation import Operation, Request
from .operations import operations as all_operations
from .profile import Profile, Section
from .registry import Registry
from .runner import FAILURES, FailedError, Runner, relocated
from .schedule import FIRST, KEPT, KEPT_SOFTWARE, LEAST, Group, Ledger, ordered, part
from .timing import PAUSE, time_in_turn, typical

if TYPE_CHECKING:
    from ..backends.base import Kernel

# For a machine whose only device is the processor, and what any other device that is no software driver adds.
FULL_SECONDS, QUICK_SECONDS = 61.0, 10.0
MORE_SECONDS, MORE_QUICK_SECONDS = 12.0, 5.0
TUNING_SHARE = 0.15  # of a device's time, for finding its settings, on top of it
# A kernel that takes so many seconds for one run is timed by that run, and not asked for more work than that again.
SLOW = 0.5
# Part of the time that may go into checking results again. What a class has not shown yet is checked always.
CHECKING = 0.15
# Two orders of magnitude past the tolerance is no rounding: the kernel computes something else.
WRONG = 100.0
LARGEST_SHARE = 0.1  # seconds for the samples of one kernel at one point
# References use NumPy's matrix products, whose threads go on spinning for some 25 ms and would slow down what is timed
# next; so several points are checked together, and timed together after that.
SETTLE, TURNS = 0.03, 3

__all__ = ["Progress", "measure", "relocated"]


class Progress(NamedTuple):
    """How far a measurement has come."""

    done: int
    total: int
    what: str


def measure(
    registry: Registry,
    *,
    operations: Collection[str] | None = None,
    backends: Collection[str] | None = None,
    kernels: Collection[Kernel] | None = None,
    quick: bool = False,
    budget: float | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Profile:
    """Measure this machine and return its profile.

    Parameters
    ----------
    registry : Registry
        The backends and kernels to measure.
    operations, backends : collection of str, optional
        Names to limit the run to; default all.
    kernels : collection of Kernel, optional
        Those to limit the run to; default all.
    quick : bool
        Fewer sizes and samples, and no device that is a software driver, unless ``backends`` names its backend.
    budget : float, optional
        Seconds to stay within, approximately; a slow machine gets fewer samples a point, and past one and a quarter
        budgets the remaining points are left out and listed in ``facts["left_out"]``.
    report : callable, optional
        Called with a Progress before each point.

    Raises
    ------
    ArgumentError
        If a name is not known; the message lists the accepted ones.
    """
    known = all_operations()
    chosen = _named(known, operations, "op")
    names = _named(registry.backends(), backends, "backend")
    start = time.perf_counter()
    wanted = [d for d in registry.devices() if registry.backend_of(d).name in names]
    if kernels is not None:
        wanted = [d for d in wanted if any(kernel.device == d for kernel in kernels)]
        chosen = [name for name in chosen if any(kernel.operation == name for kernel in kernels)]
    named = backends is not None or kernels is not None
    parts = {d: part(registry, d, quick, named) for d in wanted}
    devices = [d for d in wanted if parts[d]]
    more = sum(d != "cpu" and not registry.backend_of(d).software(d) for d in devices)
    seconds = budget or (
        QUICK_SECONDS + more * MORE_QUICK_SECONDS if quick else FULL_SECONDS + more * MORE_SECONDS
    )  # fmt: skip
    budgets = {d: seconds * parts[d] / sum(parts.values()) for d in devices}
    profile = Profile({d: Section(dict(registry.backend_of(d).validators(d))) for d in devices})
    broken: dict[str, str] = {}
    for device in devices:
        backend, section, what = registry.backend_of(device), profile.sections[device], "its tuning"
        try:
            section.tuning = backend.tune(device, chosen, TUNING_SHARE * budgets[device])
            backend.apply(device, section.tuning)
            what = "its link"
            if device != "cpu":
                section.up, section.down = links(backend, device)
        except (*FAILURES, MemoryError) as error:
            broken[device] = f"{type(error).__name__} on {what}: {error}"
            del profile.sections[device]
    for target, source in permutations(profile.sections, 2):
        backend = registry.backend_of(target)
        if target != "cpu" and backend is registry.backend_of(source):
            try:
                profile.sections[target].peers[source] = peer(backend, source, target)
            except (*FAILURES, MemoryError) as error:
                broken[target] = f"{type(error).__name__} on its link from {source}: {error}"
    views = Views(registry, chosen)
    rng = np.random.default_rng(0)
    groups = ordered([known[name] for name in chosen], quick, rng)
    total = left = sum(len(group.requests) for group in groups)
    only = None if kernels is None else frozenset(kernels)
    groups = [group._replace(kernels=only) for group in groups]
    run = _Run(registry, profile, Ledger({d: budgets[d] for d in profile.sections}, total), rng)
    waits = {k.device for name in chosen for k in registry.kernels(name) if run.must_wait(k)} & set(profile.sections)
    if waits:
        run.ledger.keep(KEPT_SOFTWARE if all(registry.backend_of(d).software(d) for d in waits) else KEPT)
    for group in groups:
        if report is not None:
            report(Progress(total - left, total, group.operation.name))
        views.sample()
        run.group(group, left)
        left -= len(group.requests)
    run.rest()
    if report is not None:
        report(Progress(total, total, "done"))
    views.sample()
    profile.views = views.seconds()
    profile.facts = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 1),
        "quick": quick,
        "spent": {device: round(seconds, 1) for device, seconds in run.ledger.spent.items()},
        "left_out": run.left_out,
        "skipped": [d for d in wanted if not parts[d]],
        "broken": broken,
    }
    return profile


def _named(known: Collection[str], asked: Collection[str] | None, what: str) -> list[str]:
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise ArgumentError(f"{what} {', '.join(unknown)} is not known; use {', '.join(known)}")
    return [name for name in known if asked is None or name in asked]


def _copy(array: Any) -> Any:
    return array.copy() if isinstance(array, np.ndarray) else array


class _Run:
    """One measurement of the machine: what it may spend on each device, has spent, and has found."""

    def __init__(self, registry: Registry, profile: Profile, ledger: Ledger, rng: np.random.Generator) -> None:
        self.registry, self.profile, self.ledger, self.rng = registry, profile, ledger, rng
        self.seen: set[tuple[Kernel, str]] = set()
        self.limits: dict[Kernel, float] = {}  # work from which on a kernel is too slow to be measured
        self.waiting: dict[Kernel, list[Request]] = {}  # for the kernels that must wait
        self.waits = True  # while the others have not had their points
        self.left_out = 0

    def must_wait(self, kernel: Kernel) -> bool:
        """Tell whether a kernel must wait until the others have had their points."""
        if not self.waits or kernel.device not in self.ledger.spent or kernel.device == "cpu":
            return False
        return kernel.compiles or self.ledger.costly(kernel)

    def rest(self) -> None:
        """Measure what had to wait, each kernel in its share of the time that is left."""
        waiting, ledger = self.waiting, self.ledger
        self.waiting, self.waits, ledger.late = {}, False, dict.fromkeys(ledger.late, 0)
        for number, (kernel, requests) in enumerate(waiting.items()):
            now = time.perf_counter()
            for start in (0, *range(LEAST, len(requests), FIRST)):
                ledger.until = ledger.end if not start else now + (ledger.end - now) / (len(waiting) - number)
                if ledger.over(kernel.device):
                    self.left_out += (len(requests) - start) * ledger.matters(kernel.device)
                    break
                few = requests[start : start + FIRST if start else LEAST]
                self.group(Group(requests[0].operation, few, frozenset([kernel])), len(requests) - start)

    def group(self, group: Group, left: int) -> None:
        """Check some requests of one operation on every kernel, then time them together."""
        start = self.ledger.begin()
        operation, ready = group.operation, []
        for request in group.requests:
            found, late = self._ready(operation, request, group.kernels)
            self.left_out += late
            if found:
                ready.append((request, found))
        if ready:
            time.sleep(SETTLE)
        while ready:
            try:
                self._time(operation, ready, left)
                break
            except FailedError as failed:
                if not isinstance(failed.__cause__, MemoryError):
                    reason = f"{type(failed.__cause__).__name__} at {failed.runner.request!r}: {failed.__cause__}"
                    _reject(self.profile, operation, failed.runner.kernel, reason)
                ready = [(request, [r for r in found if self._goes_on(r, failed.runner)]) for request, found in ready]
        self.ledger.settle(start)

    def _goes_on(self, runner: Runner, failed: Runner) -> bool:
        kernel = runner.kernel
        return runner is not failed and self.profile.rejection(kernel.device, kernel.operation, kernel.name) is None

    def _ready(
        self, operation: Operation, request: Request, kernels: frozenset[Kernel] | None
    ) -> tuple[list[Runner], bool]:
        """Plan a request on every kernel that supports it, run each once, and keep those whose result is right.

        The second value tells whether a device had no time left for it.
        """
        ledger = self.ledger
        able: list[Kernel] = []
        waiting: list[Kernel] = []
        late = False
        for kernel in self.registry.kernels(operation.name):
            device = kernel.device
            if kernels is not None and kernel not in kernels:
                continue
            if device not in ledger.spent or self.profile.rejection(device, operation.name, kernel.name) is not None:
                continue
            if ledger.over(device):
                late = late or ledger.matters(device)
                continue
            if operation.work(request).flops >= self.limits.get(kernel, math.inf):
                continue
            if kernel.tells(request) and kernel.supports(relocated(request, kernel)) is True:
                (waiting if self.must_wait(kernel) else able).append(kernel)
        ledger.seen += 1
        for kernel in waiting:
            self.waiting.setdefault(kernel, []).append(request)
        for device in {kernel.device for kernel in waiting}:
            ledger.late[device] += 1
        if not able:
            return [], late
        start = time.perf_counter()
        arrays = operation.arrays(request, self.rng)
        copies = [_copy(a) for a in arrays]
        ledger.prepared("cpu" if "cpu" in ledger.spent else able[0].device, time.perf_counter() - start)
        runners: list[Runner] = []
        for kernel in able:
            start = time.perf_counter()
            try:
                runner = Runner(kernel, request, arrays, copies, self.registry)
                if self._right(operation, request, arrays, runner):
                    runners.append(runner)
                else:
                    _reject(self.profile, operation, kernel, f"relative error {runner.error:.1e} at {request!r}")
                    runner.plan.close()
            except MemoryError:
                pass  # too large for what is free at the moment, which says nothing about the kernel
            except FAILURES as failure:
                _reject(self.profile, operation, kernel, f"{type(failure).__name__} at {request!r}: {failure}")
            ledger.prepared(kernel.device, time.perf_counter() - start, kernel)
        return runners, late

    def _right(self, operation: Operation, request: Request, arrays: Sequence[Any], runner: Runner) -> bool:
        """Run a kernel once, and check what it gives where its class is new or time is left for that."""
        result = None
        for _ in range(3 if runner.kernel.device != "cpu" else 1):
            result = None  # its memory goes to the next run's, as in the timing
            start = time.perf_counter()
            result = runner.once()
            runner.backend.synchronize(runner.kernel.device)
            runner.first = time.perf_counter() - start
            if runner.first <= SLOW:
                break  # else it may have compiled, for one set of operands: the third run counts
        if runner.first > SLOW:
            work = operation.work(request).flops
            self.limits[runner.kernel] = min(work, self.limits.get(runner.kernel, math.inf))
        features, device = runner.kernel.features(runner.request), runner.kernel.device
        key = (runner.kernel, features.name)
        if key in self.seen and self.ledger.checking[device] > CHECKING * self.ledger.spent[device]:
            return True
        self.seen.add(key)
        start = time.perf_counter()
        runner.error = operation.error(request, tuple(arrays), runner.host(result))
        self.ledger.checking[device] += time.perf_counter() - start
        return bool(runner.error <= WRONG * operation.tolerance(request))

    def _time(self, operation: Operation, ready: Sequence[tuple[Request, Sequence[Runner]]], left: int) -> None:
        """Time the runners of some requests, a kernel after the other, and put what was found into the profile."""
        lanes: dict[Kernel, list[Runner]] = {}
        for _, found in ready:
            for runner in found:
                lanes.setdefault(runner.kernel, []).append(runner)
        on = Counter(kernel.device for kernel in lanes)
        shares = []
        for kernel, lane in lanes.items():
            share = self.ledger.share(kernel.device, left, on[kernel.device])
            shares.append([min(share, LARGEST_SHARE)] * len(lane))
        timed = [[runner for runner in lane if runner.first <= SLOW] for lane in lanes.values()]
        for runner in (runner for lane in timed for runner in lane if runner.kernel.device != "cpu"):
            runner.seconds(1)  # a device may compile anew for either set of operands, and for where its memory lies
            runner.seconds(1)
        samples = time_in_turn(timed, shares, turns=TURNS)
        for kernel, lane in lanes.items():
            if lane[0].threads:
                self.ledger.timed(kernel, PAUSE * TURNS)
        for lane, quick, times in zip(lanes.values(), timed, samples):
            for runner, own in zip(quick, times):
                self._keep(operation, runner, own)
            for runner in lane:
                if runner.first > SLOW:
                    self._keep(operation, runner, [runner.first])

    def _keep(self, operation: Operation, runner: Runner, times: Sequence[float]) -> None:
        kernel = runner.kernel
        features = kernel.features(runner.request)
        error = None if runner.error is None else float(f"{runner.error:.3g}")
        point = Measurement(features.at, *typical(times), error)
        classes = self.profile.sections[kernel.device].kernels.setdefault(operation.name, {})
        classes.setdefault(kernel.name, {}).setdefault(features.name, []).append(point)
        self.ledger.timed(kernel, runner.used)
        runner.plan.close()


def _reject(profile: Profile, operation: Operation, kernel: Kernel, reason: str) -> None:
    """Record a kernel as wrong, and take out what was measured of it."""
    section = profile.sections[kernel.device]
    section.rejected.setdefault(operation.name, {})[kernel.name] = reason
    section.kernels.get(operation.name, {}).pop(kernel.name, None)
