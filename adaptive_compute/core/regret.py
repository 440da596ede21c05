"""How often the router is wrong, and by how much: the chosen kernel's time over the fastest candidate's.

Requests are of sizes that the profile did not measure. Every candidate is really run, in turn, on the same operands,
through the same path that a caller's arrays take. A request counts where two candidates differ by 1.2x or more; the
rest, where any choice is as good, are reported apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import settings as _settings
from .array import describe
from .dispatcher import Dispatcher
from .errors import AdaptiveError, ArgumentError, NoKernelError, TransferDenied
from .measure import SETTLE, Progress
from .operation import Request
from .operations import operations as all_operations
from .settings import changed
from .timing import time_in_turn, typical

DECIDED = 1.2
SECONDS_EACH = 0.15  # for each candidate


@dataclass(frozen=True)
class Outcome:
    """One request: what was chosen, and what each candidate took."""

    operation: str
    request: str
    home: str  # where the operands were
    chosen: str
    seconds: dict[str, float]
    predicted: dict[str, float | None]
    explained: str = field(repr=False)

    @property
    def regret(self) -> float:
        """Time of the chosen kernel over the fastest one's."""
        return self.seconds[self.chosen] / min(self.seconds.values())

    @property
    def decided(self) -> bool:
        """True where at least two candidates differ by 1.2x or more."""
        return max(self.seconds.values()) >= DECIDED * min(self.seconds.values())


@dataclass(frozen=True)
class RegretReport:
    """Regret over many requests."""

    outcomes: tuple[Outcome, ...]
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready data."""
        decided = [o for o in self.outcomes if o.decided]
        worst = max(decided, key=lambda o: o.regret, default=None)
        names = list(dict.fromkeys(o.operation for o in self.outcomes))
        return {
            **_figures([o.regret for o in decided]),
            "undecided": len(self.outcomes) - len(decided),
            "optimal": sum(o.regret == 1.0 for o in decided) / max(len(decided), 1),
            "seed": self.seed,
            "per_operation": {
                name: _figures([o.regret for o in decided if o.operation == name]) for name in names
            },
            "per_residency": {
                home: _figures([o.regret for o in decided if o.home == home])
                for home in dict.fromkeys(o.home for o in self.outcomes)
            },
            "prediction_error": _prediction_error(self.outcomes),
            "worst_explain": worst and {
                "request": worst.request, "chosen": worst.chosen, "seconds": worst.seconds,
                "predicted": worst.predicted, "explain": worst.explained,
            },
        }  # fmt: skip

    def __str__(self) -> str:
        figures = self.as_dict()
        lines = [f"{'':12s} {'count':>6s} {'median':>7s} {'mean':>7s} {'p90':>7s} {'p99':>7s} {'worst':>7s}"]
        places = [(f"on {home}", row) for home, row in figures["per_residency"].items()]
        for name, row in (("all", figures), *figures["per_operation"].items(), *(places if len(places) > 1 else ())):
            cells = " ".join(f"{row[k]:7.3f}" if row[k] is not None else f"{'-':>7s}" for k in _NAMES)
            lines.append(f"{name:12s} {row['count']:6d} {cells}")
        lines.append(f"{figures['undecided']} more requests had no two candidates {DECIDED}x apart")
        lines.append(f"the fastest candidate was chosen in {figures['optimal']:.0%} of the counted requests")
        if figures["worst_explain"]:
            lines += ["worst:", figures["worst_explain"]["explain"]]
            lines.append(
                "  measured: " + ", ".join(f"{k} {s:.3g} s" for k, s in figures["worst_explain"]["seconds"].items())
            )
        return "\n".join(lines)


_NAMES = ("median", "mean", "p90", "p99", "worst")


def _figures(values: list[float]) -> dict[str, Any]:
    if not values:
        return {**dict.fromkeys(_NAMES), "count": 0}
    array = np.array(values)
    figures = [np.median(array), array.mean(), *np.percentile(array, [90, 99]), array.max()]
    return {**{name: round(float(v), 4) for name, v in zip(_NAMES, figures)}, "count": len(values)}


def _prediction_error(outcomes: tuple[Outcome, ...]) -> float | None:
    """Return the median relative error of predicted against measured time, over every candidate."""
    errors = [
        abs(predicted / o.seconds[name] - 1)
        for o in outcomes
        for name, predicted in o.predicted.items()
        if predicted is not None and name in o.seconds
    ]
    return round(float(np.median(errors)), 4) if errors else None


class _Call:
    """A candidate bound to a request, run the way a caller's arrays would be."""

    def __init__(self, call: Callable[..., Any], arrays: tuple[Any, ...], synchronize: Callable[[], None]) -> None:
        self.call, self.arrays, self.synchronize = call, arrays, synchronize

    def seconds(self, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            self.call(*self.arrays)
        self.synchronize()
        return (time.perf_counter() - start) / repeats


def regret(
    dispatcher: Dispatcher,
    *,
    count: int = 200,
    seed: int = 0,
    operations: Collection[str] | None = None,
    homes: Sequence[str] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> RegretReport:
    """Measure the router's regret on held-out requests, their operands in turn on each device.

    Parameters
    ----------
    dispatcher : Dispatcher
        Its profile is judged.
    count : int
        Number of requests, shared out evenly over the operations.
    seed : int
        Of the random requests: the same seed gives the same ones.
    operations : collection of str, optional
        Names to limit the run to.
    homes : sequence of str, optional
        Devices that hold the operands; default every device of the profile.
    report : callable, optional
        Called with a Progress before each request.

    Raises
    ------
    ArgumentError
        If the dispatcher has no profile, or an operation is not known.
    """
    known = all_operations()
    unknown = [name for name in operations or () if name not in known]
    if unknown:
        raise ArgumentError(f"operation {', '.join(unknown)} is not known; use {', '.join(known)}")
    if not dispatcher.profile.sections:
        raise ArgumentError("there is no profile to judge; `adaptive profile` makes one")
    rng = np.random.default_rng(seed)
    names = [name for name in known if operations is None or name in operations]
    homes = homes or list(dispatcher.profile.sections)
    outcomes = []
    for done in range(count):
        operation, home = known[names[done % len(names)]], homes[done // len(names) % len(homes)]
        if report is not None:
            report(Progress(done, count, operation.name))
        outcome = _outcome(dispatcher, operation.held_out(rng), rng, home)
        if outcome is not None:
            outcomes.append(outcome)
    return RegretReport(tuple(outcomes), seed)


def _outcome(dispatcher: Dispatcher, request: Request, rng: np.random.Generator, home: str) -> Outcome | None:
    state = _settings.current()
    arrays = None
    if home != "cpu":
        try:
            arrays = tuple(_resident(dispatcher, a, home) for a in request.operation.arrays(request, rng))
        except AdaptiveError:  # a dtype that the device does not hold
            return None
        request = dispatcher.request(request.operation, request.params, arrays, state, request.tol)
    try:
        decision = dispatcher.decide(request, state)
    except (NoKernelError, TransferDenied):  # nothing there takes the operands where they are
        return None
    if len(decision.candidates) < 2:
        return None
    if arrays is None:
        arrays = request.operation.arrays(request, rng)
    calls = []
    for candidate in decision.candidates:
        forced = changed(state, kernel=candidate.name, device=candidate.device)
        try:
            call = dispatcher.entry(request, forced).call
        except AdaptiveError:
            return None
        backend = dispatcher.registry.backend_of(candidate.device)
        calls.append(_Call(call, arrays, lambda b=backend, d=candidate.device: b.synchronize(d)))  # type: ignore[misc]
    for ready in calls:
        ready.seconds(1)  # dropped: the first run after planning warms caches and thread pools
    time.sleep(SETTLE)
    samples = [lane[0] for lane in time_in_turn([[call] for call in calls], [[SECONDS_EACH]] * len(calls))]
    labels = [c.name if c.device == "cpu" else f"{c.name}@{c.device}" for c in decision.candidates]
    chosen = labels[decision.candidates.index(decision.chosen)]
    return Outcome(
        request.operation.name, repr(request), home, chosen, {n: typical(s)[0] for n, s in zip(labels, samples)},
        {n: c.total_s for n, c in zip(labels, decision.candidates)}, str(decision),
    )  # fmt: skip


def _resident(dispatcher: Dispatcher, array: Any, home: str) -> Any:
    """Return an operand's numbers on a device; indices and masks stay with the host, where topologies keep theirs."""
    moved = array is not None and describe(array).dtype.startswith(("float", "bfloat", "complex"))
    return dispatcher.to(array, home) if moved else array
