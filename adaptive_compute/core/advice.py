"""Why is my call slow? What ``explain`` adds to a decision: bytes moved, time lost to moving them, what would help.

Every suggestion comes from a prediction: the same request with something changed (where its operands are, its dtype,
its length, how many calls it stands for, the settings in force) is put to the router, and what that is predicted to
save is part of the suggestion. What saves less than a tenth of the call is not suggested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from . import settings as _settings
from .decision import Decision, show_seconds
from .errors import AdaptiveError
from .operation import Request
from .precision import NARROWER
from .settings import Settings, changed

if TYPE_CHECKING:
    from .router import Router

WORTH = 1.1  # times faster that a suggestion must make the call


class Suggestion(NamedTuple):
    """Something to do, and the seconds that it is predicted to save in each call (None: not predicted)."""

    text: str
    saves_s: float | None


@dataclass(frozen=True)
class Advice:
    """What a call moves and loses, what stands in its way, and what to do, the best first.

    Attributes
    ----------
    moved_bytes : int
        Bytes of operands and results that travel between devices in each call.
    transfer_s, total_s : float or None
        Predicted seconds that they take, and that the whole call takes; None where that was not measured.
    extrapolated : str or None
        What makes the prediction less certain, in words.
    set_aside : tuple of str
        Kernels and profile sections that are not in use, each with the reason.
    suggestions : tuple of Suggestion
    """

    moved_bytes: int
    transfer_s: float | None
    total_s: float | None
    extrapolated: str | None
    set_aside: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the advice as JSON-ready data."""
        suggestions = [suggestion._asdict() for suggestion in self.suggestions]
        return {
            "moved_bytes": self.moved_bytes, "transfer_s": self.transfer_s, "total_s": self.total_s,
            "extrapolated": self.extrapolated, "set_aside": list(self.set_aside),
            "suggestion": suggestions[0] if suggestions else None, "suggestions": suggestions,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return the advice in a few lines of words."""
        if not self.moved_bytes:
            lines = ["nothing is moved between devices"]
        elif self.transfer_s is None or self.total_s is None:
            lines = [f"{show_bytes(self.moved_bytes)} move between devices in each call, over a link not measured"]
        else:
            share = self.transfer_s / max(self.total_s, 1e-12)
            lines = [
                f"{show_bytes(self.moved_bytes)} move between devices in each call: {show_seconds(self.transfer_s)} of "
                f"{show_seconds(self.total_s)} ({share:.0%})"
            ]
        lines += [self.extrapolated] if self.extrapolated else []
        lines += [f"not in use: {text}" for text in self.set_aside]
        best = self.suggestions[0].text if self.suggestions else "nothing that was measured here is faster"
        return [*lines, f"to be faster: {best}"]


def show_bytes(nbytes: float) -> str:
    """Return a size with a unit that fits it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.3g} {unit}"
    return f"{nbytes:.0f} bytes"


def advise(router: Router, decision: Decision, state: Settings) -> Advice:
    """Return what ``explain`` tells besides the decision; runs nothing."""
    chosen = decision.chosen
    found: list[Suggestion] = []
    if chosen.total_s is not None:
        case = _Case(router, decision, state, chosen.total_s)
        for ask in (_resident, _settings_in_force, _precision, _tolerance, _variants):
            found += ask(case)
    found.sort(key=lambda s: -(s.saves_s or 0.0))
    lack = _unmeasured(router, decision)
    if lack is not None:
        found.insert(0 if chosen.total_s is None else len(found), Suggestion(lack, None))
    return Advice(
        moved_bytes(decision), chosen.transfer_s, chosen.total_s, _extrapolation(router, decision),
        tuple(_set_aside(router, decision)), tuple(found),
    )  # fmt: skip


def moved_bytes(decision: Decision) -> int:
    """Return the bytes of operands and results that a call moves between devices."""
    chosen = decision.chosen
    request = decision.request if chosen.narrow is None else chosen.narrow.request
    moved = [o for o in request.operands if o is not None and o.device != chosen.device]
    if chosen.kernel.takes_host_scalars:
        moved = [o for o in moved if o.shape or o.device != "cpu"]
    if request.first.device != chosen.device:
        moved += request.operation.result(request)
    return sum(o.nbytes for o in moved)


class _Case(NamedTuple):
    """A decision that something could be better than, and how to ask for it."""

    router: Router
    decision: Decision
    state: Settings
    total: float

    def ask(self, request: Request, state: Settings | None = None) -> Decision | None:
        """Return what would be decided; None where nothing would run, or nothing was measured."""
        try:
            decision = self.router.decide(request, state or self.state)
        except AdaptiveError:
            return None
        return None if decision.chosen.total_s is None else decision

    def worth(self, seconds: float, calls: int = 1) -> bool:
        return seconds * WORTH < self.total * calls


def _suggest(case: _Case, text: str, seconds: float, calls: int = 1) -> Suggestion:
    each = seconds / calls
    saved, faster = case.total - each, case.total / max(each, 1e-12)
    return Suggestion(f"{text}: saves {show_seconds(saved)} a call ({faster:.1f}x faster)", saved)


def _resident(case: _Case) -> Iterator[Suggestion]:
    """Where would the call be fastest if its operands were there already?"""
    request = case.decision.request
    there = [
        c
        for c in case.decision.candidates
        if c.device != request.home and c.compute_s is not None and c.narrow is None and not case.router.guessed(c)
    ]
    best = min(there, key=lambda c: c.compute_s or 0.0, default=None)
    if best is not None and best.compute_s is not None and case.worth(best.compute_s):
        names = "x" if sum(o is not None and bool(o.shape) for o in request.operands) == 1 else "the operands"
        call = f"ac.to(x, {best.device!r})"
        yield _suggest(case, f"keep {names} on {best.device}, {call}, where {best.shown} runs", best.compute_s)


def _settings_in_force(case: _Case) -> Iterator[Suggestion]:
    """What do the choices in force keep from running?"""
    state, request = case.state, case.decision.request
    forced = {n: v for n in ("backend", "device", "kernel") if (v := getattr(state, n)) is not None}
    if forced:
        shown = ", ".join(f"{name}={value!r}" for name, value in forced.items())
        other = case.ask(request, changed(state, backend=None, device=None, kernel=None))
        if other and case.worth(total := other.chosen.total_s or 0.0):
            yield _suggest(case, f"without {shown}, {other.chosen.shown} on {other.chosen.device} runs", total)
    if state.transfers == "deny" or (state.transfers == "host" and request.home != "cpu"):
        other = case.ask(request, changed(state, transfers="allow"))
        if other and case.worth(total := other.chosen.total_s or 0.0):
            text = f"ac.using(transfers='allow') lets {other.chosen.shown} run on {other.chosen.device}"
            yield _suggest(case, text, total)
    have = _settings.available_threads()
    if request.threads < have:
        more = Request(request.operation, request.operands, request.params, request.tol, have)
        other = case.ask(more)
        if other and case.worth(total := other.chosen.total_s or 0.0):
            yield _suggest(case, f"allow {have} threads instead of {request.threads}", total)


def _precision(case: _Case) -> Iterator[Suggestion]:
    """How much faster were it in a lower precision?"""
    request = case.decision.request
    if case.decision.chosen.narrow is not None or request.first.dtype not in ("float64", "complex128"):
        return
    operands = tuple(
        o and (o._replace(dtype=NARROWER[o.dtype]) if o.dtype in ("float64", "complex128") else o)
        for o in request.operands
    )
    other = case.ask(Request(request.operation, operands, request.params, None, request.threads))
    if other and case.worth(total := other.chosen.total_s or 0.0):
        error = "" if other.chosen.error is None else f" at error {other.chosen.error:.0e}"
        yield _suggest(case, f"operands in {operands[0].dtype if operands[0] else 'float32'}{error}", total)


def _tolerance(case: _Case) -> Iterator[Suggestion]:
    """Which kernel is faster and was refused for its error alone?"""
    known = [c for c in case.decision.inexact if c.total_s is not None and c.error is not None]
    best = min(known, key=lambda c: c.total_s or 0.0, default=None)
    if best is not None and best.total_s is not None and case.worth(best.total_s):
        text = f"tol={_above(best.error or 0.0)} lets {best.shown} run on {best.device}, at error {best.error:.0e}"
        yield _suggest(case, text, best.total_s)


def _variants(case: _Case) -> Iterator[Suggestion]:
    """What does the operation itself know to try: other lengths, many calls in one?"""
    for variant in case.decision.request.operation.variants(case.decision.request):
        other = case.ask(variant.request)
        if other and case.worth(total := other.chosen.total_s or 0.0, variant.calls):
            yield _suggest(case, variant.text, total, variant.calls)


def _above(error: float) -> str:
    """Return a round number a little above an error."""
    digits = f"{error:.0e}"
    return digits if float(digits) > error else f"{float(digits) + 10.0 ** int(digits[-3:]):.0e}"


def _unmeasured(router: Router, decision: Decision) -> str | None:
    """Return what to measure, where what was measured does not tell enough about this request."""
    chosen, profile = decision.chosen, router.profile
    if profile.stale:
        return f"run `adaptive profile`: what was measured on {', '.join(profile.stale)} does not hold any more"
    if not profile.sections:
        return "run `adaptive profile`: this machine was not measured, so the call stays where its data is"
    if chosen.total_s is None:
        name = decision.request.operation.name
        return f"run `adaptive profile`: {name} was not measured for requests of this kind"
    if chosen.extrapolated and profile.facts.get("quick"):
        return "run `adaptive profile`: this one was made with --quick, and has no requests of this size"
    missing = [c for c in decision.candidates if c.total_s is None and c.device not in profile.sections]
    if missing:
        backend = missing[0].device.partition(":")[0]
        return f"run `adaptive profile --backend {backend}`: {missing[0].device} was not measured"
    return None


def _extrapolation(router: Router, decision: Decision) -> str | None:
    if not decision.chosen.extrapolated:
        return None
    return "extrapolated: the request lies outside what was measured, so the prediction is less certain"


def _set_aside(router: Router, decision: Decision) -> Iterator[str]:
    for kernel, reason in decision.refused:
        if reason.startswith(("set aside", "found wrong", "failed with")):
            yield f"{kernel.name} on {kernel.device} ({reason})"
    for device, reason in router.profile.stale.items():
        yield f"the profile of {device} ({reason})"
