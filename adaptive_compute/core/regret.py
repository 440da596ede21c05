"""How often the router is wrong, and by how much: the chosen kernel's time over the fastest candidate's.

Requests are of sizes that the profile did not measure, their operands on the host, on a device, or on both. Every
candidate is really run on the same operands, through the same path that a caller's arrays take. A request counts where
two candidates differ by 1.2x or more; the rest, where any choice is as good, are reported apart.

Candidates are timed in rounds, each once a round in rotating order, and a round's time is the lower quartile of its
samples. What is three times as slow as the fastest after one round, or 1.7 times after two, runs no more. A candidate's
time is the lower quartile of its rounds, as in a profile, because a disturbance only ever adds to a time. The chosen
kernel counts as slower than the fastest one where it was so in all rounds but one at most; where it was not, noise
decides between the two, and either is right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from . import settings as _settings
from .array import Operand
from .dispatcher import Dispatcher
from .errors import AdaptiveError, ArgumentError, NoKernelError, TransferDenied
from .measure import SETTLE, Progress
from .operation import Request
from .operations import operations as all_operations
from .policies import POLICIES, best_threshold, picks
from .router import Candidate, Decision
from .settings import changed
from .timing import time_in_turn, typical

DECIDED = 1.2
ROUNDS, SECONDS_A_ROUND = 5, 0.008
# Rounds after which a candidate that is so many times slower runs no more.
SURE = {1: 3.0, 2: 1.7}
ATTEMPTS = 8  # requests tried for each that is wanted: many leave no choice
MIXED = "mixed "  # before a device's name: the first operand is there, the others are on the host


@dataclass(frozen=True)
class Outcome:
    """One request: what was chosen, what simple rules would have chosen, and what each candidate took.

    ``rounds`` are the seconds of each candidate, round by round; candidates are named ``kernel`` on the host and
    ``kernel@device`` elsewhere.
    """

    operation: str
    request: str
    home: str  # where the operands were
    nbytes: int  # of the operands
    chosen: str
    rounds: dict[str, list[float]]
    predicted: dict[str, float | None]
    extrapolated: frozenset[str]
    policies: dict[str, str]
    explained: str = field(repr=False)

    @property
    def seconds(self) -> dict[str, float]:
        """Return each candidate's time."""
        return {name: typical(times)[0] for name, times in self.rounds.items()}

    @property
    def regret(self) -> float:
        """Time of the chosen kernel over the fastest one's."""
        return self.regret_of(self.chosen)

    def regret_of(self, name: str) -> float:
        """Return a candidate's time over the fastest one's; 1 where noise decides between the two."""
        seconds = self.seconds
        best = min(seconds, key=seconds.__getitem__)
        slower = [own > least for own, least in zip(self.rounds[name], self.rounds[best])]
        return seconds[name] / seconds[best] if sum(slower) >= max(len(slower) - 1, 1) else 1.0

    @property
    def decided(self) -> bool:
        """True where at least two candidates differ by 1.2x or more."""
        seconds = self.seconds.values()
        return max(seconds) >= DECIDED * min(seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON-ready data."""
        return {
            "operation": self.operation, "request": self.request, "home": self.home, "chosen": self.chosen,
            "regret": round(self.regret, 4), "policies": self.policies,
            "seconds": {name: float(f"{s:.4g}") for name, s in self.seconds.items()},
            "predicted": {name: s and float(f"{s:.4g}") for name, s in self.predicted.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class RegretReport:
    """Regret over many requests."""

    outcomes: tuple[Outcome, ...]
    seed: int
    no_choice: int = 0

    @property
    def counted(self) -> list[Outcome]:
        """The outcomes that count: two candidates differ by 1.2x or more."""
        return [o for o in self.outcomes if o.decided]

    def policy_regrets(self) -> dict[str, list[float]]:
        """Return the regret of each simple rule on the counted requests, the best size threshold among them."""
        found = {name: [o.regret_of(o.policies[name]) for o in self.counted] for name in POLICIES}
        limit = best_threshold([(o.nbytes, o.regret_of(o.policies["always cpu"]), o.regret_of(o.policies["always gpu"]))
                                for o in self.counted])  # fmt: skip
        found[f"gpu from {limit} bytes on"] = [
            o.regret_of(o.policies["always gpu" if o.nbytes >= limit else "always cpu"]) for o in self.counted
        ]
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready data."""
        decided = self.counted
        worst = max(decided, key=lambda o: o.regret, default=None)
        names = list(dict.fromkeys(o.operation for o in self.outcomes))
        policies = {name: _figures(values) for name, values in self.policy_regrets().items()}
        own = _figures([o.regret for o in decided])
        least = min((p["mean"] for p in policies.values() if p["count"]), default=None)
        return {
            **own,
            "undecided": len(self.outcomes) - len(decided),
            "no_choice": self.no_choice,
            "optimal": sum(o.regret == 1.0 for o in decided) / max(len(decided), 1),
            "seed": self.seed,
            "policies": policies,
            "excess_ratio": None if least is None else round((least - 1) / max(own["mean"] - 1, 1e-9), 2),
            "per_operation": {
                name: _figures([o.regret for o in decided if o.operation == name]) for name in names
            },
            "per_residency": {
                home: _figures([o.regret for o in decided if o.home == home])
                for home in dict.fromkeys(o.home for o in self.outcomes)
            },
            "regrets": [round(o.regret, 3) for o in decided],
            "prediction_error": _prediction_error(self.outcomes, lambda o, name: True),
            "prediction_error_inside": _prediction_error(self.outcomes, lambda o, name: name not in o.extrapolated),
            "prediction_error_chosen": _prediction_error(self.outcomes, lambda o, name: name == o.chosen),
            "worst_explain": worst and {
                "request": worst.request, "chosen": worst.chosen, "seconds": worst.seconds,
                "predicted": worst.predicted, "explain": worst.explained,
            },
        }  # fmt: skip

    def __str__(self) -> str:
        figures = self.as_dict()
        width = max([12, *map(len, figures["policies"])])
        lines = [f"{'':{width}s} {'count':>6s} {'median':>7s} {'mean':>7s} {'p90':>7s} {'p99':>7s} {'worst':>7s}"]
        places = [(f"on {home}", row) for home, row in figures["per_residency"].items()]
        for name, row in (
            ("all", figures), *figures["per_operation"].items(), *(places if len(places) > 1 else ()),
            *figures["policies"].items(),
        ):  # fmt: skip
            cells = " ".join(f"{row[k]:7.3f}" if row[k] is not None else f"{'-':>7s}" for k in _NAMES)
            lines.append(f"{name:{width}s} {row['count']:6d} {cells}")
        lines.append(f"{figures['undecided']} more requests had no two candidates {DECIDED}x apart")
        lines.append(f"the fastest candidate was chosen in {figures['optimal']:.0%} of the counted requests")
        if figures["excess_ratio"] is not None:
            lines.append(f"mean regret above 1: {figures['excess_ratio']:.1f}x less than the best of the simple rules")
        if figures["prediction_error_inside"] is not None:
            lines.append(f"median error of a predicted time inside what was measured: "
                         f"{figures['prediction_error_inside']:.1%}")  # fmt: skip
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


def _prediction_error(outcomes: Sequence[Outcome], counts: Callable[[Outcome, str], bool]) -> float | None:
    """Return the median relative error of predicted against measured time, over the candidates that count."""
    errors = [
        abs(predicted / o.seconds[name] - 1)
        for o in outcomes
        for name, predicted in o.predicted.items()
        if predicted is not None and name in o.rounds and counts(o, name)
    ]
    return round(float(np.median(errors)), 4) if errors else None


class _Call:
    """A candidate bound to a request, run the way a caller's arrays would be."""

    def __init__(
        self, call: Callable[..., Any], arrays: tuple[Any, ...], synchronize: Callable[[], None], threads: bool
    ) -> None:
        self.call, self.arrays, self.synchronize, self.threads = call, arrays, synchronize, threads

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
    seconds: float | None = None,
    report: Callable[[Progress], None] | None = None,
) -> RegretReport:
    """Measure the router's regret on held-out requests, their operands in turn on the host, on devices, and on both.

    Parameters
    ----------
    dispatcher : Dispatcher
        Its profile is judged.
    count : int
        Number of requests with a choice, shared out evenly over operations and places of their operands. Fewer where
        an operation leaves no choice.
    seed : int
        Of the random requests: the same seed gives the same ones.
    operations : collection of str, optional
        Names to limit the run to.
    homes : sequence of str, optional
        Devices that hold the operands, ``"mixed DEVICE"`` for the first one there and the others on the host; default
        every device of the profile, and mixed for each that is not the host.
    seconds : float, optional
        Time after which no further request is begun. An operation whose requests take long (they compile anew, say)
        then gives fewer of them, so that it takes no more than twice its part of the time.
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
    devices = list(dispatcher.profile.sections)
    places = homes or [*devices, *(MIXED + device for device in devices if device != "cpu")]
    outcomes: list[Outcome] = []
    no_choice = 0
    begun = time.perf_counter()
    took = dict.fromkeys(names, 0.0)
    for name, home in _turns(names, places, count):
        start = time.perf_counter()
        if len(outcomes) >= count or (seconds is not None and start - begun > seconds):
            break
        if seconds is not None and took[name] > max(2 * (start - begun), seconds / 8) / len(names):
            continue
        if report is not None:
            report(Progress(len(outcomes), count, name))
        outcome = judged(dispatcher, known[name].held_out(rng), rng, home)
        took[name] += time.perf_counter() - start
        if outcome is not None:
            outcomes.append(outcome)
        else:
            no_choice += 1
    return RegretReport(tuple(outcomes), seed, no_choice)


def _turns(names: Sequence[str], places: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """Yield operations in turn, and for each the places in turn."""
    for done in range(ATTEMPTS * count):
        yield names[done % len(names)], places[done // len(names) % len(places)]


def judged(dispatcher: Dispatcher, request: Request, rng: np.random.Generator, home: str) -> Outcome | None:
    """Run every candidate of a request with its operands at ``home``; None where there is no choice to judge."""
    state = _settings.current()
    try:
        request = _at(dispatcher, request, home)
        decision = dispatcher.decide(request, state)
    except (NoKernelError, TransferDenied, AdaptiveError):  # nothing there takes the operands where they are
        return None
    if len(decision.candidates) < 2:
        return None
    try:
        arrays = _placed(dispatcher, request.operation.arrays(_on_host(request), rng), request)
        calls = _calls(dispatcher, decision, state, arrays)
        for call in calls.values():
            call.seconds(1)  # dropped: the first run after planning warms caches and thread pools
            call.seconds(1)
    except (AdaptiveError, MemoryError):
        return None
    return Outcome(
        request.operation.name, repr(request), home, sum(o.nbytes for o in request.operands if o is not None),
        label(decision.chosen), _rounds(calls), {label(c): c.total_s for c in decision.candidates},
        frozenset(label(c) for c in decision.candidates if c.extrapolated), picks(decision, dispatcher.registry),
        str(decision),
    )  # fmt: skip


def label(candidate: Candidate) -> str:
    """Return a candidate's name in an outcome."""
    return candidate.name if candidate.device == "cpu" else f"{candidate.name}@{candidate.device}"


def _at(dispatcher: Dispatcher, request: Request, home: str) -> Request:
    """Return a request of host arrays with its operands at another place."""
    device = home.removeprefix(MIXED)
    if device == "cpu":
        return request
    kinds = [k.native for k in dispatcher.registry.kernels(request.operation.name) if k.device == device]
    if not kinds:
        raise NoKernelError(f"{request.operation.name} has no kernel on {device}")
    operands: list[Operand | None] = []
    for operand in request.operands:
        # Indices and masks stay with the host, where topologies keep theirs.
        movable = operand is not None and operand.dtype.startswith(("float", "bfloat", "complex"))
        moves = movable and not (home.startswith(MIXED) and operands)
        operands.append(
            Operand(operand.shape, operand.dtype, device, kinds[0]) if operand is not None and moves else operand
        )
    if home.startswith(MIXED) and not any(o is not None and o.device == "cpu" for o in operands):
        raise NoKernelError("one operand alone is at one place")
    return Request(request.operation, tuple(operands), request.params, request.tol, request.threads)


def _on_host(request: Request) -> Request:
    operands = tuple(None if o is None else Operand(o.shape, o.dtype, "cpu", "numpy") for o in request.operands)
    return Request(request.operation, operands, request.params, request.tol, request.threads)


def _placed(dispatcher: Dispatcher, arrays: Sequence[Any], request: Request) -> tuple[Any, ...]:
    return tuple(
        array if operand is None or operand.device == "cpu" else dispatcher.to(array, operand.device)
        for array, operand in zip(arrays, request.operands)
    )


def _calls(
    dispatcher: Dispatcher, decision: Decision, state: _settings.Settings, arrays: tuple[Any, ...]
) -> dict[str, _Call]:
    calls = {}
    request = dispatcher.request(
        decision.request.operation, decision.request.params, arrays, state, decision.request.tol
    )
    for candidate in decision.candidates:
        forced = changed(state, kernel=candidate.name, device=candidate.device)
        call = dispatcher.entry(request, forced).call
        backend = dispatcher.registry.backend_of(candidate.device)
        wait: Callable[[], None] = partial(backend.synchronize, candidate.device)
        calls[label(candidate)] = _Call(
            call, arrays, wait, candidate.device == "cpu" or backend.software(candidate.device)
        )
    return calls


def _rounds(calls: dict[str, _Call]) -> dict[str, list[float]]:
    """Time calls in rounds, in rotating order, and leave out in the later ones what is far behind."""
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    running = list(calls)
    time.sleep(SETTLE)
    for turn in range(ROUNDS):
        if turn in SURE:
            least = min(min(rounds[name]) for name in running)
            running = [name for name in running if min(rounds[name]) < SURE[turn] * least]
        running = running[1:] + running[:1]
        samples = time_in_turn([[calls[name]] for name in running], [[SECONDS_A_ROUND]] * len(running), turns=1)
        for name, lane in zip(running, samples):
            rounds[name].append(typical(lane[0])[0])
    return rounds
