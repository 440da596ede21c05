"""Request + profile -> decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import BackendUnavailable, NoKernelError, TransferDenied
from .operation import Request
from .profile import Profile
from .registry import Registry
from .settings import Settings

if TYPE_CHECKING:
    from ..backends.base import Kernel
    from .array import Operand

# Predictions closer than this are not told apart, however quiet the measurements were.
NOISE_CEILING = 0.05
# Errors are measured on part of the outputs and taken from neighbouring sizes, which is good to about this factor.
SLACK = 2.0


@dataclass(frozen=True)
class Candidate:
    """A kernel that could run the request, and what the profile says of it (None: not measured)."""

    kernel: Kernel = field(repr=False)
    transfer_s: float | None
    compute_s: float | None
    error: float | None
    spread: float
    extrapolated: bool

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.name

    @property
    def device(self) -> str:
        """The kernel's device."""
        return self.kernel.device

    @property
    def total_s(self) -> float | None:
        """Predicted transfer plus compute."""
        if self.transfer_s is None or self.compute_s is None:
            return None
        return self.transfer_s + self.compute_s

    def as_dict(self) -> dict[str, Any]:
        """Return the candidate as JSON-ready data."""
        return {
            "kernel": self.name, "device": self.device, "transfer_s": self.transfer_s, "compute_s": self.compute_s,
            "error": self.error, "extrapolated": self.extrapolated,
        }  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """Which kernel runs a request, what else could have, what could not, and why."""

    request: Request
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    refused: tuple[tuple[Kernel, str], ...]
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON-ready data."""
        return {
            "operation": self.request.operation.name,
            "request": repr(self.request),
            "candidates": [candidate.as_dict() for candidate in self.candidates],
            "refused": [{"kernel": k.name, "device": k.device, "reason": reason} for k, reason in self.refused],
            "chosen": self.chosen.name,
            "device": self.chosen.device,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        rows = [("kernel", "device", "transfer", "compute", "error", "")]
        for c in self.candidates:
            mark = "chosen" if c is self.chosen else "extrapolated" if c.extrapolated else ""
            error = "unknown" if c.error is None else f"{c.error:.1e}"
            rows.append((c.name, c.device, show_seconds(c.transfer_s), show_seconds(c.compute_s), error, mark))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [repr(self.request)]
        lines += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        lines += [f"  refused {kernel.name} on {kernel.device}: {reason}" for kernel, reason in self.refused]
        return "\n".join([*lines, f"  {self.reason}"])


def show_seconds(seconds: float | None) -> str:
    """Return a time with a unit that fits it."""
    if seconds is None:
        return "unknown"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return "0" if seconds == 0 else f"{seconds / 1e-9:.3g} ns"


class Router:
    """Chooses among the kernels of a registry by what a profile measured."""

    def __init__(self, registry: Registry, profile: Profile | None = None) -> None:
        self.registry = registry
        self.profile = profile or Profile()
        # Kernels and devices that failed while running: (operation, kernel, device) or ("", "", device) -> reason.
        self.set_aside: dict[tuple[str, str, str], str] = {}

    def decide(self, request: Request, state: Settings, without: Sequence[tuple[Kernel, str]] = ()) -> Decision:
        """Return the decision for a request; ``without`` are kernels that just failed on it, with the reason.

        Raises NoKernelError, BackendUnavailable or TransferDenied where nothing may run it.
        """
        if state.backend is not None:
            self.registry.require(state.backend)
        if state.device is not None:
            self.registry.backend_of(state.device)
        failed = {id(kernel): reason for kernel, reason in without}
        candidates: list[Candidate] = []
        inexact: list[Candidate] = []
        refused: list[tuple[Kernel, str]] = []
        for kernel in self.registry.kernels(request.operation.name, self._in_question(request, state)):
            reason: str | None = failed.get(id(kernel)) or self._refusal(kernel, request, state)
            if reason is None:
                candidate = self._candidate(kernel, request)
                reason = self._inexact(candidate, request, state)
                if reason is None:
                    candidates.append(candidate)
                    continue
                if request.tol is None:
                    inexact.append(candidate)
            refused.append((kernel, reason))
        if not candidates and inexact:  # a caller who asked for no accuracy gets the best there is, not an error
            candidates = [min(inexact, key=lambda c: c.error or 0.0)]
            refused = [pair for pair in refused if pair[0] is not candidates[0].kernel]
        if not candidates and not self.registry.complete():
            self.registry.devices()  # asks every backend
            return self.decide(request, state, without)
        if not candidates:
            raise self._nothing_runs(request, state, refused)
        chosen, why = self._choose(candidates, request, state)
        ranked = sorted(candidates, key=lambda c: (c.total_s is None, c.total_s or 0.0))
        return Decision(request, chosen, tuple(ranked), tuple(refused), why)

    def _in_question(self, request: Request, state: Settings) -> set[str] | None:
        """Return the devices that a decision can fall on; None: any, because that is what the caller wants to know."""
        if state.explaining or (state.backend, state.device, state.kernel) != (None, None, None):
            return None
        return {"cpu", *self.profile.sections, *(o.device for o in request.operands if o is not None)}

    def _refusal(self, kernel: Kernel, request: Request, state: Settings) -> str | None:
        operation = request.operation.name
        if state.kernel is not None and kernel.name != state.kernel:
            return f"kernel={state.kernel!r} was asked for"
        if state.device is not None and kernel.device != state.device:
            return f"device={state.device!r} was asked for"
        if state.backend is not None and self.registry.backend_of(kernel.device).name != state.backend:
            return f"backend={state.backend!r} was asked for"
        for key in ((operation, kernel.name, kernel.device), ("", "", kernel.device)):
            if key in self.set_aside:
                return f"set aside: {self.set_aside[key]}"
        wrong = self.profile.rejection(kernel.device, operation, kernel.name)
        if wrong is not None:
            return f"found wrong when it was profiled: {wrong}"
        moving = self._may_not_move(kernel, request, state)
        if moving is not None:
            return moving
        supported = kernel.supports(request)
        return None if supported is True else str(supported)

    def _may_not_move(self, kernel: Kernel, request: Request, state: Settings) -> str | None:
        for operand in request.operands:
            if operand is None or operand.device == kernel.device or _stays(operand, kernel):
                continue
            if state.transfers == "deny":
                return f"an operand is on {operand.device} and transfers='deny'"
            if operand.device != "cpu" and state.transfers == "host":
                return f"an operand is on {operand.device} and transfers='host' moves host operands only"
        return None

    def _candidate(self, kernel: Kernel, request: Request) -> Candidate:
        profile = self.profile
        estimate = kernel.estimate(request, profile.curves(kernel.device, request.operation.name, kernel.name))
        compute = spread = error = None
        extrapolated = False
        if estimate is not None:
            compute, spread, error, extrapolated = estimate
            compute += self._viewing(kernel, request)
        return Candidate(kernel, self._transfer(kernel, request), compute, error, spread or 0.0, extrapolated)

    def _viewing(self, kernel: Kernel, request: Request) -> float:
        """Return the cost of viewing host arrays as the kernel's native kind and back, which matters below 10 us."""
        views = self.profile.views
        cost = 0.0
        for operand in request.operands:
            if operand is not None and operand.kind != kernel.native:
                cost += views.get(f"{operand.kind}->{kernel.native}", 0.0)
        if request.first.kind != kernel.native:
            cost += views.get(f"{kernel.native}->{request.first.kind}", 0.0)
        return cost

    def _transfer(self, kernel: Kernel, request: Request) -> float | None:
        """Predict bringing operands in and the result back; None where a link was not measured."""
        legs: list[float | None] = []
        # What travels with the computation in one submission pays for its bytes; the submission is in the computation.
        latency = not (kernel.fuses_transfers and request.home == "cpu")
        for operand in request.operands:
            if operand is not None and not _stays(operand, kernel):
                legs += self.legs(operand.device, kernel.device, operand.nbytes, latency)
        for result in request.operation.result(request) if request.first.device != kernel.device else ():
            legs += self.legs(kernel.device, request.first.device, result.nbytes, latency)
        return None if None in legs else sum(leg for leg in legs if leg is not None)

    def legs(self, source: str, target: str, nbytes: int, latency: bool = True) -> list[float | None]:
        """Predict each transfer on the way from one device to another; None for one over a link not measured."""
        if source == target:
            return []
        direct = self.profile.peer_seconds(source, target, nbytes)
        if direct is not None:
            return [direct]
        legs: list[float | None] = []
        if source != "cpu":
            legs.append(self.profile.link_seconds(source, nbytes, up=False, latency=latency))
        if target != "cpu":
            legs.append(self.profile.link_seconds(target, nbytes, up=True, latency=latency))
        return legs

    def _inexact(self, candidate: Candidate, request: Request, state: Settings) -> str | None:
        """Return why a kernel is not exact enough, or None."""
        usual = request.operation.tolerance(request)
        if request.tol is None:
            if candidate.error is not None and candidate.error > SLACK * usual and state.kernel is None:
                return f"measured error {candidate.error:.1e} exceeds the dtype's tolerance {usual:.1e}"
        elif candidate.error is not None:
            if candidate.error > request.tol:
                return f"measured error {candidate.error:.1e} exceeds tol={request.tol:.1e}"
        elif request.tol < usual:
            return f"its error was not measured; tol={request.tol:.1e} is tighter than the {usual:.1e} all kernels keep"
        return None

    def _choose(self, candidates: list[Candidate], request: Request, state: Settings) -> tuple[Candidate, str]:
        if len(candidates) == 1:
            only = candidates[0]
            return only, f"{only.name} is the only kernel that may run this"
        home = request.home
        known = [c for c in candidates if c.total_s is not None]
        if not known:
            at_home = [c for c in candidates if c.device == home] or candidates
            return at_home[
                0
            ], f"nothing was measured for this request: it stays on {at_home[0].device} with the first kernel there"
        here = [c for c in known if c.device == home]
        if here:
            known = [c for c in known if c.device == home or not self.guessed(c)]
        best = min(known, key=_total)
        if best.device != home and here:
            stay = min(here, key=_total)
            noise = min(max(best.spread, stay.spread), NOISE_CEILING)
            if _total(stay) <= _total(best) * (1 + noise):
                return stay, (
                    f"{stay.name} on {home}, where the data is: {best.name} on {best.device} is predicted "
                    f"{_total(stay) / _total(best):.2f}x faster, within the measured noise of {noise:.0%}"
                )
        rest = [c for c in known if c is not best]
        if not rest:
            return best, f"{best.name} is the only candidate that was measured for this request"
        second = min(rest, key=_total)
        reason = f"{best.name} on {best.device} is predicted to finish in {show_seconds(best.total_s)}"
        reason += f", {_total(second) / max(_total(best), 1e-12):.2f}x ahead of {second.name} on {second.device}"
        if best.extrapolated:
            reason += " (extrapolated beyond what was measured)"
        return best, reason

    def guessed(self, candidate: Candidate) -> bool:
        """Tell whether a prediction goes beyond the few points that a software device is measured at."""
        return candidate.extrapolated and self.registry.backend_of(candidate.device).software(candidate.device)

    def _nothing_runs(self, request: Request, state: Settings, refused: list[tuple[Kernel, str]]) -> Exception:
        name = request.operation.name
        if state.kernel is not None and all(kernel.name != state.kernel for kernel, _ in refused):
            known = ", ".join(dict.fromkeys(kernel.name for kernel, _ in refused)) or "none"
            return NoKernelError(f"{name} has no kernel {state.kernel!r}; its kernels: {known}")
        asked = [pair for pair in refused if "was asked for" not in pair[1]]
        if not asked and (state.backend or state.device):
            return BackendUnavailable(f"{state.device or state.backend} has no kernel for {name}")
        if asked and all("transfers=" in reason for _, reason in asked):
            return TransferDenied(
                f"{request!r}: {asked[0][1]}; move it with ac.to(...) or allow it with using(transfers='allow')"
            )
        reasons = "; ".join(f"{kernel.name} on {kernel.device}: {reason}" for kernel, reason in asked or refused)
        return NoKernelError(f"no kernel runs {request!r}. {reasons or 'No backend offers this operation'}")


def _stays(operand: Operand, kernel: Kernel) -> bool:
    """Tell whether a kernel reads an operand on the host: a number."""
    return kernel.takes_host_scalars and not operand.shape and operand.device == "cpu"


def _total(candidate: Candidate) -> float:
    total = candidate.total_s
    assert total is not None
    return total
