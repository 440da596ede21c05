"""Measure this machine: time and error of every kernel, and the links between its devices."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .array import Operand, describe, kind_named
from .curve import Measurement
from .errors import AdaptiveError, ArgumentError
from .links import links, peer, views
from .operation import Operation, Request
from .operations import operations as all_operations
from .profile import Profile, Section
from .registry import Registry
from .timing import PAUSE, time_in_turn, typical

if TYPE_CHECKING:
    from ..backends.base import Kernel

FULL_SECONDS, QUICK_SECONDS = 58.0, 10.0
OVER = 1.25  # times its budget a device may spend, before points are left out
# What every device but the host adds to that, as a part of it. Each device spends its own part only, so that a slow one
# does not take the time of another.
ADDED = 0.35
# A software driver computes on the processor, where the CPU's own kernels do it better: it gets little time, and none
# in a quick run, unless its backend is asked for by name.
ADDED_SOFTWARE = 0.05
TUNING_SHARE = 0.3  # of a device's time, for finding its settings, on top of it
# A kernel that takes so many seconds for one run is timed by that run, and not asked for more work than that again.
SLOW = 0.5
# Part of the time that may go into checking results again. What a class has not shown yet is checked always.
CHECKING = 0.15
# Two orders of magnitude past the tolerance is no rounding: the kernel computes something else.
WRONG = 100.0
DECADE = math.log2(10)
LARGEST_SHARE = 0.1  # seconds for the samples of one kernel at one point
# References use NumPy's matrix products, whose threads go on spinning for some 25 ms and would slow down what is timed
# next; so several points are checked together, and timed together after that.
TOGETHER, SETTLE, TURNS = 16, 0.03, 2
FAILURES = (AdaptiveError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, OSError)


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
    seconds = budget or (QUICK_SECONDS if quick else FULL_SECONDS)
    wanted = [d for d in registry.devices() if registry.backend_of(d).name in names]
    budgets = {d: seconds * _part(registry, d, quick, backends is not None) for d in wanted}
    devices = [d for d in wanted if budgets[d]]
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
    profile.views = views(registry, chosen)
    run = _Run(registry, profile, budgets)
    groups = []
    for name in chosen:
        requests = list(known[name].samples(quick))
        run.rng.shuffle(requests)
        groups += [(known[name], requests[i : i + TOGETHER]) for i in range(0, len(requests), TOGETHER)]
    run.rng.shuffle(groups)  # what a slow machine leaves out is spread over all families
    total = left = sum(len(requests) for _, requests in groups)
    for operation, requests in groups:
        if report is not None:
            report(Progress(total - left, total, operation.name))
        run.group(operation, requests, left)
        left -= len(requests)
    if report is not None:
        report(Progress(total, total, "done"))
    profile.facts = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 1),
        "quick": quick,
        "left_out": run.left_out,
        "skipped": [d for d in wanted if not budgets[d]],
        "broken": broken,
    }
    return profile


def _part(registry: Registry, device: str, quick: bool, named: bool) -> float:
    """Return the part of the time that a device gets; ``named`` where the caller said which backends."""
    if device == "cpu":
        return 1.0
    if named or not registry.backend_of(device).software(device):
        return ADDED
    return 0.0 if quick else ADDED_SOFTWARE


def _named(known: Collection[str], asked: Collection[str] | None, what: str) -> list[str]:
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise ArgumentError(f"{what} {', '.join(unknown)} is not known; use {', '.join(known)}")
    return [name for name in known if asked is None or name in asked]


class _FailedError(Exception):
    """A kernel failed while it was timed; the cause is the error it raised."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner.kernel.name)
        self.runner = runner


class Runner:
    """A kernel ready to be timed on one request, with operands where the kernel wants them."""

    def __init__(
        self, kernel: Kernel, request: Request, arrays: Sequence[Any], copies: Sequence[Any], registry: Registry
    ) -> None:
        self.kernel = kernel
        self.request = relocated(request, kernel)
        self.backend = registry.backend_of(kernel.device)
        self.plan = kernel.plan(self.request)
        self.sets = [self._native(arrays), self._native(copies)]
        self.turn = 0
        self.first = 0.0  # seconds of the first run
        self.used = 0.0  # seconds of all timed and warming runs
        self.error: float | None = None

    def _native(self, arrays: Sequence[Any]) -> list[Any]:
        native = kind_named(self.kernel.native)
        if self.kernel.device == "cpu":
            return [None if a is None else native.from_numpy(a) for a in arrays]
        return [None if a is None else self.backend.upload(a, self.kernel.device) for a in arrays]

    def once(self) -> Any:
        """Run once and return the result, as it comes."""
        self.turn += 1
        return self.plan.run(*self.sets[self.turn % 2])

    def host(self, result: Any) -> Any:
        """Return a result as NumPy arrays."""
        if isinstance(result, tuple):
            return tuple(self.host(part) for part in result)
        if self.kernel.device != "cpu":
            result = self.backend.download(result)
        return kind_named(describe(result).kind).to_numpy(result)

    def seconds(self, repeats: int) -> float:
        """Return the mean time of some runs in a row."""
        start = time.perf_counter()
        try:
            for _ in range(repeats):
                self.once()
            self.backend.synchronize(self.kernel.device)
        except (*FAILURES, MemoryError) as error:
            raise _FailedError(self) from error
        elapsed = time.perf_counter() - start
        self.used += elapsed
        return elapsed / repeats


def relocated(request: Request, kernel: Kernel) -> Request:
    """Return the request with every operand in the kernel's own kind, on its device."""
    operands = tuple(
        None if o is None else Operand(o.shape, o.dtype, kernel.device, kernel.native) for o in request.operands
    )
    return Request(request.operation, operands, request.params, request.tol, request.threads)


def _copy(array: Any) -> Any:
    return array.copy() if isinstance(array, np.ndarray) else array


class _Run:
    """One measurement of the machine: what it may spend on each device, has spent, and has found."""

    def __init__(self, registry: Registry, profile: Profile, budgets: Mapping[str, float]) -> None:
        self.registry, self.profile = registry, profile
        self.rng = np.random.default_rng(0)
        self.budgets = {device: budgets[device] for device in profile.sections}
        self.spent = dict.fromkeys(self.budgets, 0.0)
        self.checking = dict.fromkeys(self.budgets, 0.0)
        self.preparing = dict.fromkeys(self.budgets, 0.0)  # seconds before the timing, over all points so far
        self.points = 0
        self.minor = [d for d, seconds in self.budgets.items() if seconds < ADDED * self.budgets.get("cpu", 0.0)]
        self.seen: set[tuple[Kernel, str, int]] = set()
        self.limits: dict[Kernel, float] = {}  # work from which on a kernel is too slow to be measured
        self.left_out = 0

    def group(self, operation: Operation, requests: Sequence[Request], left: int) -> None:
        """Check some requests of one operation on every kernel, then time them together."""
        ready = []
        for request in requests:
            found, late = self._ready(operation, request)
            self.left_out += late
            if found:
                ready.append((request, found))
        time.sleep(SETTLE)
        while ready:
            try:
                self._time(operation, ready, left)
                break
            except _FailedError as failed:
                if not isinstance(failed.__cause__, MemoryError):
                    reason = f"{type(failed.__cause__).__name__} at {failed.runner.request!r}: {failed.__cause__}"
                    _reject(self.profile, operation, failed.runner.kernel, reason)
                ready = [(request, [r for r in found if self._goes_on(r, failed.runner)]) for request, found in ready]

    def _goes_on(self, runner: Runner, failed: Runner) -> bool:
        kernel = runner.kernel
        return runner is not failed and self.profile.rejection(kernel.device, kernel.operation, kernel.name) is None

    def _ready(self, operation: Operation, request: Request) -> tuple[list[Runner], bool]:
        """Plan a request on every kernel that supports it, run each once, and keep those whose result is right.

        The second value tells whether a device had no time left for it.
        """
        able, late = [], False
        for kernel in self.registry.kernels(operation.name):
            device = kernel.device
            if device not in self.budgets or self.profile.rejection(device, operation.name, kernel.name) is not None:
                continue
            if operation.work(request).flops >= self.limits.get(kernel, math.inf):
                continue
            if kernel.supports(relocated(request, kernel)) is True:
                over = self.spent[device] > OVER * self.budgets[device]
                late = late or (over and device not in self.minor)
                able += [] if over else [kernel]
        self.points += 1
        if not able:
            return [], late
        start = time.perf_counter()
        arrays = operation.arrays(request, self.rng)
        copies = [_copy(a) for a in arrays]
        self._prepared("cpu" if "cpu" in self.spent else able[0].device, time.perf_counter() - start)
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
            self._prepared(kernel.device, time.perf_counter() - start)
        return runners, late

    def _prepared(self, device: str, seconds: float) -> None:
        self.spent[device] += seconds
        self.preparing[device] += seconds

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
        key = (runner.kernel, features.name, int(features.at[0] / DECADE) if features.at else 0)
        if key in self.seen and self.checking[device] > CHECKING * self.spent[device]:
            return True
        self.seen.add(key)
        start = time.perf_counter()
        runner.error = operation.error(request, tuple(arrays), runner.host(result))
        self.checking[device] += time.perf_counter() - start
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
            device = kernel.device
            ahead = self.preparing[device] / self.points * left  # what preparing the points to come will take
            share = max(self.budgets[device] - self.spent[device] - ahead, 0.0) / max(left, 1) / on[device]
            shares.append([min(share, LARGEST_SHARE)] * len(lane))
        timed = [[runner for runner in lane if runner.first <= SLOW] for lane in lanes.values()]
        for runner in (runner for lane in timed for runner in lane if runner.kernel.device != "cpu"):
            runner.seconds(1)  # a device may compile anew for either set of operands, and for where its memory lies
            runner.seconds(1)
        samples = time_in_turn(timed, shares, turns=TURNS)
        for kernel in lanes:
            self.spent[kernel.device] += PAUSE * TURNS
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
        self.spent[kernel.device] += runner.used
        runner.plan.close()


def _reject(profile: Profile, operation: Operation, kernel: Kernel, reason: str) -> None:
    """Record a kernel as wrong, and take out what was measured of it."""
    section = profile.sections[kernel.device]
    section.rejected.setdefault(operation.name, {})[kernel.name] = reason
    section.kernels.get(operation.name, {}).pop(kernel.name, None)
