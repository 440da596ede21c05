"""Request + profile -> decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from .decision import Candidate as Candidate
from .decision import Decision as Decision
from .decision import show_seconds as show_seconds
from .errors import BackendUnavailable, NoKernelError, ToleranceError, TransferDenied
from .learning import Learning
from .operation import Request, log2
from .profile import Profile
from .registry import Registry
from .settings import Settings

if TYPE_CHECKING:
    from ..backends.base import Kernel
    from .array import Operand
    from .narrow import Narrow

# Predictions closer than this are not told apart, however quiet the measurements were.
NOISE_CEILING = 0.05
# Rounding operands is predicted from other passes over memory: a lower precision must be ahead by this factor.
LEAD = 1.25
# Errors are measured on part of the outputs and taken from neighbouring sizes, which is good to about this factor.
SLACK = 2.0


class Router:
    """Chooses among the kernels of a registry by what a profile measured."""

    def __init__(self, registry: Registry, profile: Profile | None = None) -> None:
        self.registry = registry
        self.profile = profile or Profile()
        # Kernels and devices that failed while running: (operation, kernel, device) or ("", "", device) -> reason.
        self.set_aside: dict[tuple[str, str, str], str] = {}
        self.learning = Learning()  # what real calls took, where ``learn`` is on

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
        kernels = self.registry.kernels(request.operation.name, self._in_question(request, state))
        ways: list[Narrow | None] = [None]
        if state.precision == "adaptive":
            ways += request.operation.narrowed(request)
        for narrow, kernel in product(ways, kernels):
            seen = request if narrow is None else narrow.request
            reason: str | None = failed.get(id(kernel)) or self._refusal(kernel, seen, state)
            if reason is None:
                candidate = self._candidate(kernel, seen) if narrow is None else self._narrow(kernel, request, narrow)
                if state.learn and narrow is None:
                    candidate = self._as_learned(candidate, request)
                reason = self._inexact(candidate, request, state)
                if reason is None:
                    candidates.append(candidate)
                    continue
                inexact.append(candidate)
            refused.append((kernel, reason if narrow is None else f"in {narrow.dtype}: {reason}"))
        if not candidates and inexact and request.tol is None:  # who asked for no accuracy gets the best, not an error
            candidates = [min(inexact, key=lambda c: c.error or 0.0)]
            refused = [pair for pair in refused if pair[0] is not candidates[0].kernel]
            inexact = [c for c in inexact if c is not candidates[0]]
        if not candidates and not self.registry.complete():
            self.registry.devices()  # asks every backend
            return self.decide(request, state, without)
        if not candidates:
            raise self._nothing_runs(request, state, refused, inexact)
        chosen, why = self._choose(candidates, request, state)
        ranked = sorted(candidates, key=lambda c: (c.total_s is None, c.total_s or 0.0))
        return Decision(request, chosen, tuple(ranked), tuple(refused), why, tuple(inexact))

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
        if estimate is not None and not math.isnan(estimate.seconds):  # part of an expression was not measured
            compute, spread, error, extrapolated = estimate
            compute += self._viewing(kernel, request)
        return Candidate(kernel, self._transfer(kernel, request), compute, error, spread or 0.0, extrapolated)

    def _as_learned(self, candidate: Candidate, request: Request) -> Candidate:
        """Return a candidate with the time that its latest calls took, where that is known."""
        seconds = self.learning.seconds(request, candidate.name, candidate.device)
        if seconds is None:
            return candidate
        transfer = candidate.transfer_s or 0.0
        return replace(candidate, transfer_s=transfer, compute_s=max(seconds - transfer, 0.0), extrapolated=False)

    def _narrow(self, kernel: Kernel, request: Request, narrow: Narrow) -> Candidate:
        """Return a candidate that runs a narrower request: its error and time, with those of rounding the operands."""
        plain = self._candidate(kernel, narrow.request)
        error = request.operation.tolerance(narrow.request) if plain.error is None else plain.error
        casts = self._casting(request, narrow)
        compute = None if plain.compute_s is None or casts is None else plain.compute_s + casts
        return replace(plain, compute_s=compute, error=error + narrow.added, narrow=narrow)

    def _casting(self, request: Request, narrow: Narrow) -> float | None:
        """Predict rounding operands and widening results, from what one pass over as much memory was measured to take.

        Bytes are counted in passes of 8 a value, which is what the measured product of float32 values moves. Operands
        are read twice, once to see whether they can be rounded.
        """
        passes: dict[str, float] = {}
        for wide, low in zip(request.operands, narrow.request.operands):
            if wide is not None and low is not None and wide.dtype != low.dtype:
                passes[wide.device] = passes.get(wide.device, 0.0) + (2 * wide.nbytes + low.nbytes) / 8
        for wide, low in zip(request.operation.result(request), request.operation.result(narrow.request)):
            passes[wide.device] = passes.get(wide.device, 0.0) + (wide.nbytes + low.nbytes) / 8
        total = 0.0
        for device, count in passes.items():
            curves = [
                self.profile.curves(device, "elementwise", kernel.name).get("one/float32")
                for kernel in self.registry.kernels("elementwise")
                if kernel.device == device
            ]
            known = [curve.at((log2(count),)).seconds for curve in curves if curve is not None]
            if not known:
                return None
            total += min(known)
        return total

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
        there: list[float | None] = []
        # What travels with the computation in one submission pays for its bytes; the submission is in the computation.
        latency = not (kernel.fuses_transfers and request.home == "cpu")
        for operand in request.operands:
            if operand is not None and not _stays(operand, kernel):
                there += self.legs(operand.device, kernel.device, operand.nbytes, latency)
        back: list[float | None] = []
        for result in request.operation.result(request) if request.first.device != kernel.device else ():
            back += self.legs(kernel.device, request.first.device, result.nbytes, latency)
        up, down = (sum(leg for leg in legs if leg is not None) for legs in (there, back))
        if None in there or None in back:
            return None
        pieces = kernel.stages(request) if request.home == "cpu" else 1
        return up + down if pieces < 2 else max(up, down) + min(up, down) / pieces

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
        if candidate.narrow is not None:
            error, limit = candidate.error or 0.0, candidate.narrow.limit
            return f"predicted error {error:.1e} exceeds {limit:.1e}" if error > limit else None
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
            return only, f"{only.shown} is the only kernel that may run this"
        home = request.home
        known = [c for c in candidates if c.total_s is not None]
        if not known:
            at_home = [c for c in candidates if c.device == home] or candidates
            return at_home[
                0
            ], f"nothing was measured for this request: it stays on {at_home[0].device} with the first kernel there"
        own = min((_total(c) for c in known if c.narrow is None), default=math.inf)
        known = [c for c in known if c.narrow is None or _total(c) * LEAD < own]
        here = [c for c in known if c.device == home]
        if here:
            known = [c for c in known if c.device == home or not self.guessed(c)]
        best = min(known, key=_total)
        if best.device != home and here:
            stay = min(here, key=_total)
            noise = min(max(best.spread, stay.spread), NOISE_CEILING)
            if _total(stay) <= _total(best) * (1 + noise):
                return stay, (
                    f"{stay.shown} on {home}, where the data is: {best.shown} on {best.device} is predicted "
                    f"{_total(stay) / _total(best):.2f}x faster, within the measured noise of {noise:.0%}"
                )
        rest = [c for c in known if c is not best]
        if not rest:
            return best, f"{best.shown} is the only candidate that was measured for this request"
        second = min(rest, key=_total)
        reason = f"{best.shown} on {best.device} is predicted to finish in {show_seconds(best.total_s)}"
        reason += f", {_total(second) / max(_total(best), 1e-12):.2f}x ahead of {second.shown} on {second.device}"
        if best.extrapolated:
            reason += " (extrapolated beyond what was measured)"
        return best, reason

    def guessed(self, candidate: Candidate) -> bool:
        """Tell whether a prediction goes beyond the few points that a software device is measured at."""
        return candidate.extrapolated and self.registry.backend_of(candidate.device).software(candidate.device)

    def _nothing_runs(
        self, request: Request, state: Settings, refused: list[tuple[Kernel, str]], inexact: list[Candidate]
    ) -> Exception:
        name = request.operation.name
        if inexact and request.tol is not None:
            return _not_exact_enough(request, inexact)
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


def _not_exact_enough(request: Request, inexact: list[Candidate]) -> ToleranceError:
    """Return the error for a tolerance that nothing can meet; it names the best that can."""
    text = f"no kernel runs {request!r} within tol={request.tol:.1e}"
    measured = [c for c in inexact if c.error is not None]
    if not measured:
        usual = request.operation.tolerance(request)
        return ToleranceError(
            f"{text}: errors were not measured, and {usual:.1e} is what all kernels keep. `adaptive profile` measures "
            f"them; tol={usual:.1e} needs no measurement"
        )
    best = min(measured, key=lambda c: c.error or 0.0)
    rest = "; ".join(f"{c.shown} on {c.device}: {c.error:.1e}" for c in measured if c is not best)
    return ToleranceError(
        f"{text}; the most exact is {best.shown} on {best.device}, whose measured error {best.error:.1e} exceeds tol"
        + (f" ({rest})" if rest else "")
    )


def _stays(operand: Operand, kernel: Kernel) -> bool:
    """Tell whether a kernel reads an operand on the host: a number."""
    return kernel.takes_host_scalars and not operand.shape and operand.device == "cpu"


def _total(candidate: Candidate) -> float:
    total = candidate.total_s
    assert total is not None
    return total
