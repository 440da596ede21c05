"""Measure this machine: time and error of every kernel, and the links between its devices.

Kernels of one request are timed in turn, round by round, so that a machine whose speed drifts does not favour one of
them. The first run of each is dropped, operands alternate between two copies, and the median and the spread are kept.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import settings as _settings
from .array import Operand, describe, kind_named
from .curve import Measurement
from .errors import AdaptiveError, ArgumentError
from .operation import Operation, Request
from .operations import operations as all_operations
from .profile import Link, Profile, Section
from .registry import Registry
from .router import Router

if TYPE_CHECKING:
    from ..backends.base import Backend, Kernel

FULL_SECONDS, QUICK_SECONDS = 57.0, 10.0
SHORTEST_SAMPLE = 40e-6  # a clock reading costs 0.1 us: shorter calls are timed several at a time
FEWEST, MOST = 2, 25  # samples of one point
# Two orders of magnitude past the tolerance is no rounding: the kernel computes something else.
WRONG = 100.0
# References use NumPy's matrix products, whose threads go on spinning for some 25 ms and would slow down what is timed
# next; so several points are checked together, and timed together after that.
TOGETHER, SETTLE = 8, 0.03
FAILURES = (AdaptiveError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, OSError)


class Progress(NamedTuple):
    """How far a measurement has come."""

    done: int
    total: int
    what: str


class Row(NamedTuple):
    """One line of the profile's table."""

    operation: str
    request: str
    kernel: str
    device: str
    seconds: float
    rate: float
    unit: str
    runner_up: str | None
    runner_up_ratio: float | None
    error: float | None


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
        Fewer sizes and samples.
    budget : float, optional
        Seconds to stay within, approximately; a slow machine gets fewer samples a point, and past one and a half
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
    devices = [d for d in registry.devices() if registry.backend_of(d).name in names]
    start = time.perf_counter()
    profile = Profile({d: Section(dict(registry.backend_of(d).validators(d))) for d in devices})
    broken: dict[str, str] = {}
    for device in devices:
        backend = registry.backend_of(device)
        if device != "cpu":
            section = profile.sections[device]
            try:
                section.up, section.down = _links(backend, device)
            except (*FAILURES, MemoryError) as error:
                broken[device] = f"{type(error).__name__} on its link: {error}"
                del profile.sections[device]
    profile.views = _views(registry, chosen)
    work = [(known[name], request) for name in chosen for request in known[name].samples(quick)]
    rng = np.random.default_rng(0)
    rng.shuffle(work)  # so that what a slow machine must leave out is spread over all families and classes
    left_out = 0
    clock = _Clock(budget or (QUICK_SECONDS if quick else FULL_SECONDS), len(work))
    for done in range(0, len(work), TOGETHER):
        group = work[done : done + TOGETHER]
        if report is not None:
            report(Progress(done, len(work), group[0][0].name))
        if clock.spent():
            left_out += len(group)
            continue
        clock.begin(done)
        ready = [(o, r, _checked(profile, registry, o, r, rng)) for o, r in group]
        time.sleep(SETTLE)
        for operation, request, runners in ready:
            _time(profile, operation, request, runners, clock.share)
    if report is not None:
        report(Progress(len(work), len(work), "done"))
    profile.facts = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 1),
        "quick": quick,
        "left_out": left_out,
        "broken": broken,
    }
    return profile


def _named(known: Collection[str], asked: Collection[str] | None, what: str) -> list[str]:
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise ArgumentError(f"{what} {', '.join(unknown)} is not known; use {', '.join(known)}")
    return [name for name in known if asked is None or name in asked]


class _Clock:
    """Shares a time budget out over the points that are left."""

    def __init__(self, budget: float, points: int) -> None:
        self.budget, self.points, self.start = budget, points, time.perf_counter()
        self.share = 0.0

    def begin(self, done: int) -> None:
        left = self.budget - (time.perf_counter() - self.start)
        self.share = min(max(left / (self.points - done), 0.0), 0.25)

    def spent(self) -> bool:
        return time.perf_counter() - self.start > 1.5 * self.budget


class _FailedError(Exception):
    """A kernel failed while it was timed; the cause is the error it raised."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner.kernel.name)
        self.runner = runner


class Runner:
    """A kernel ready to be timed on one request, with operands where the kernel wants them."""

    def __init__(self, kernel: Kernel, request: Request, arrays: Sequence[Any], registry: Registry) -> None:
        self.kernel = kernel
        self.request = relocated(request, kernel)
        self.backend = registry.backend_of(kernel.device)
        self.plan = kernel.plan(self.request)
        self.sets = [self._native(arrays), self._native([_copy(a) for a in arrays])]
        self.turn = 0
        self.error = math.inf

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
        return (time.perf_counter() - start) / repeats


def relocated(request: Request, kernel: Kernel) -> Request:
    """Return the request with every operand in the kernel's own kind, on its device."""
    operands = tuple(
        None if o is None else Operand(o.shape, o.dtype, kernel.device, kernel.native) for o in request.operands
    )
    return Request(request.operation, operands, request.params, request.tol, request.threads)


def _copy(array: Any) -> Any:
    return array.copy() if isinstance(array, np.ndarray) else array


def _checked(
    profile: Profile, registry: Registry, operation: Operation, request: Request, rng: np.random.Generator
) -> list[Runner]:
    """Plan a request on every kernel that supports it, run each once, and keep those whose result is right."""
    able = [
        k
        for k in registry.kernels(operation.name)
        if k.device in profile.sections
        and profile.rejection(k.device, operation.name, k.name) is None
        and k.supports(relocated(request, k)) is True
    ]
    if not able:
        return []
    arrays = operation.arrays(request, rng)
    runners: list[Runner] = []
    for kernel in able:
        try:
            runner = Runner(kernel, request, arrays, registry)
            runner.error = operation.error(request, arrays, runner.host(runner.once()))
        except MemoryError:
            continue  # too large for what is free at the moment, which says nothing about the kernel
        except FAILURES as failure:
            _reject(profile, operation, kernel, f"{type(failure).__name__} at {request!r}: {failure}")
            continue
        if runner.error <= WRONG * operation.tolerance(request):
            runners.append(runner)
        else:
            _reject(profile, operation, kernel, f"relative error {runner.error:.1e} at {request!r}")
            runner.plan.close()
    return runners


def _time(profile: Profile, operation: Operation, request: Request, runners: list[Runner], share: float) -> None:
    """Time a request's runners and put what was found into the profile."""
    samples: list[list[float]] = []
    runners = [r for r in runners if profile.rejection(r.kernel.device, operation.name, r.kernel.name) is None]
    while runners:
        try:
            samples = time_in_turn(runners, share)
            break
        except _FailedError as failed:
            runners.remove(failed.runner)
            if not isinstance(failed.__cause__, MemoryError):
                reason = f"{type(failed.__cause__).__name__} at {request!r}: {failed.__cause__}"
                _reject(profile, operation, failed.runner.kernel, reason)
    for runner, times in zip(runners, samples):
        kernel = runner.kernel
        features = kernel.features(runner.request)
        point = Measurement(features.at, *middle(times), float(f"{runner.error:.3g}"))
        classes = profile.sections[kernel.device].kernels.setdefault(operation.name, {}).setdefault(kernel.name, {})
        classes.setdefault(features.name, []).append(point)
        runner.plan.close()


def _reject(profile: Profile, operation: Operation, kernel: Kernel, reason: str) -> None:
    """Record a kernel as wrong, and take out what was measured of it."""
    section = profile.sections[kernel.device]
    section.rejected.setdefault(operation.name, {})[kernel.name] = reason
    section.kernels.get(operation.name, {}).pop(kernel.name, None)


def time_in_turn(runners: Sequence[Any], share: float) -> list[list[float]]:
    """Time runners that have run once in turn, until their share of the time is used; returns their samples."""
    repeats, expected = [], 0.0
    samples: list[list[float]] = [[] for _ in runners]
    for runner, own in zip(runners, samples):
        single = runner.seconds(1)
        count = max(1, math.ceil(SHORTEST_SAMPLE / max(single, 1e-9)))
        if count > 1:
            single = runner.seconds(count)
            count = max(1, math.ceil(SHORTEST_SAMPLE / max(single, 1e-9)))
        else:
            own.append(single)
        repeats.append(count)
        expected += count * single
    rounds = int(min(max(share / max(expected, 1e-9), FEWEST), MOST))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            for index in _order(len(runners), turn):
                samples[index].append(runners[index].seconds(repeats[index]))
    finally:
        if collecting:
            gc.enable()
    return samples


def _order(count: int, turn: int) -> Iterator[int]:
    """Yield a rotated order, so that no kernel always follows the same other one."""
    return ((index + turn) % count for index in range(count))


def middle(samples: Sequence[float]) -> tuple[float, float]:
    """Return the median and the relative spread (median absolute deviation) of samples."""
    median = statistics.median(samples)
    return median, statistics.median(abs(s - median) for s in samples) / max(median, 1e-12)


def _links(backend: Backend, device: str) -> tuple[Link, Link]:
    """Measure the link to a device, both directions: latency from small transfers, bandwidth from large ones."""
    times: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for nbytes in (1 << 12, 1 << 18, 1 << 22, 1 << 25):
        host = np.ones(nbytes // 4, np.float32)
        up, down = [], []
        for _ in range(6):
            start = time.perf_counter()
            array = backend.upload(host, device)
            backend.synchronize(device)
            middle_of = time.perf_counter()
            backend.download(array)
            up.append(middle_of - start)
            down.append(time.perf_counter() - middle_of)
        times[True][nbytes], times[False][nbytes] = statistics.median(up[1:]), statistics.median(down[1:])
    return _fit_link(times[True]), _fit_link(times[False])


def _fit_link(times: dict[int, float]) -> Link:
    small, large = min(times), max(times)
    bandwidth = (large - small) / max(times[large] - times[small], 1e-12)
    return Link(max(times[small] - small / bandwidth, 0.0), bandwidth)


def _views(registry: Registry, chosen: Collection[str]) -> dict[str, float]:
    """Measure what viewing a host array as another kind costs; this also loads the libraries of those kinds."""
    views: dict[str, float] = {}
    base = np.ones(4)
    for name in {k.native for operation in chosen for k in registry.kernels(operation) if k.device == "cpu"}:
        if name == "numpy":
            continue
        kind = kind_named(name)
        try:
            other = kind.from_numpy(base)
        except ImportError:
            continue  # its kernels say so themselves when they are asked whether they support a request
        for label, function, value in (
            (f"numpy->{name}", kind.from_numpy, base), (f"{name}->numpy", kind.to_numpy, other),
        ):  # fmt: skip
            samples = []
            for _ in range(7):
                start = time.perf_counter()
                for _ in range(200):
                    function(value)
                samples.append((time.perf_counter() - start) / 200)
            views[label] = statistics.median(samples)
    return views


def rows(profile: Profile, registry: Registry, limit: int = 8) -> list[Row]:
    """Return the lines of the profile's table: per operation the largest measured size of some parameter classes."""
    router = Router(registry, profile)
    state = _settings.Settings(threads=_settings.current().threads)  # what is fastest, whatever is asked for now
    lines: list[Row] = []
    for name, operation in all_operations().items():
        largest: dict[str, Request] = {}
        measured = {
            cls
            for section in profile.sections.values()
            for classes in section.kernels.get(name, {}).values()
            for cls in classes
        }
        for request in operation.samples(quick=True):
            features = operation.features(request)
            if not measured:
                break
            if features.name not in largest or request.first.size > largest[features.name].first.size:
                largest[features.name] = request
        picked = list(largest.values())
        picked = picked[:: max(1, math.ceil(len(picked) / limit))]
        for request in picked:
            try:
                lines.append(_row(router, request, state))
            except (AdaptiveError, TypeError):
                continue
    return lines


def _row(router: Router, request: Request, state: _settings.Settings) -> Row:
    decision = router.decide(request, state)
    seconds = decision.chosen.total_s
    if seconds is None:
        raise AdaptiveError("not measured")
    others = [c for c in decision.candidates if c is not decision.chosen and c.total_s is not None]
    second = others[0] if others else None
    work = request.operation.work(request)
    unit = "GFLOP/s" if work.flops > 8 * work.bytes else "GB/s"
    amount = work.flops if unit == "GFLOP/s" else work.bytes
    return Row(
        request.operation.name, request.operation.describe(request), decision.chosen.name, decision.chosen.device,
        seconds, amount / max(seconds, 1e-12) / 1e9, unit, second.name if second else None,
        second.total_s / max(seconds, 1e-12) if second and second.total_s else None, decision.chosen.error,
    )  # fmt: skip
