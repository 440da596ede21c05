"""What the router answers: the candidates with what the profile says of them, the chosen one, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .operation import Request

if TYPE_CHECKING:
    from ..backends.base import Kernel
    from .advice import Advice
    from .narrow import Narrow


@dataclass(frozen=True)
class Candidate:
    """A kernel that could run the request, and what the profile says of it (None: not measured).

    ``narrow`` is the request in a lower precision that the kernel runs in place of the caller's, where it does.
    """

    kernel: Kernel = field(repr=False)
    transfer_s: float | None
    compute_s: float | None
    error: float | None
    spread: float
    extrapolated: bool
    narrow: Narrow | None = None

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.kernel.name

    @property
    def shown(self) -> str:
        """The kernel's name, with the precision that it computes in where that is not the operands' own."""
        return self.name if self.narrow is None else f"{self.name} in {self.narrow.dtype}"

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
            "total_s": self.total_s, "error": self.error, "extrapolated": self.extrapolated,
            "precision": None if self.narrow is None else self.narrow.dtype,
        }  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """Which kernel runs a request, what else could have, what could not, and why.

    ``inexact`` are kernels that were refused for nothing but their error. ``advice`` is what ``explain`` adds: what the
    call moves, what stands in its way, and what would make it faster.
    """

    request: Request
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    refused: tuple[tuple[Kernel, str], ...]
    reason: str
    inexact: tuple[Candidate, ...] = ()
    advice: Advice | None = None

    @property
    def pareto(self) -> tuple[Candidate, ...]:
        """Candidates and inexact kernels than which no other is both faster and more exact, the fastest first."""
        known = [c for c in (*self.candidates, *self.inexact) if c.total_s is not None and c.error is not None]
        front: list[Candidate] = []
        for candidate in sorted(known, key=lambda c: (c.total_s, c.error)):
            if not front or (candidate.error or 0.0) < (front[-1].error or 0.0):
                front.append(candidate)
        return tuple(front)

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON-ready data."""
        front = {id(candidate) for candidate in self.pareto}

        def rows(candidates: tuple[Candidate, ...]) -> list[dict[str, Any]]:
            return [{**candidate.as_dict(), "pareto": id(candidate) in front} for candidate in candidates]

        return {
            "operation": self.request.operation.name,
            "request": repr(self.request),
            "candidates": rows(self.candidates),
            "inexact": rows(self.inexact),
            "refused": [{"kernel": k.name, "device": k.device, "reason": reason} for k, reason in self.refused],
            "chosen": self.chosen.name,
            "device": self.chosen.device,
            "reason": self.reason,
            "advice": None if self.advice is None else self.advice.as_dict(),
        }

    def __str__(self) -> str:
        front = {id(candidate) for candidate in self.pareto}
        rows = [("kernel", "device", "transfer", "compute", "error", "")]
        for c in (*self.candidates, *self.inexact):
            marks = [
                "chosen" if c is self.chosen else "not exact enough" if c in self.inexact else "",
                "Pareto" if id(c) in front else "",
                "extrapolated" if c.extrapolated else "",
            ]
            error = "unknown" if c.error is None else f"{c.error:.1e}"
            times = show_seconds(c.transfer_s), show_seconds(c.compute_s)
            rows.append((c.shown, c.device, *times, error, ", ".join(filter(None, marks))))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [repr(self.request)]
        lines += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        told = {(id(c.kernel), "" if c.narrow is None else f"in {c.narrow.dtype}: ") for c in self.inexact}
        lines += [
            f"  refused {kernel.name} on {kernel.device}: {reason}"
            for kernel, reason in self.refused
            if not any(id(kernel) == known and reason.startswith(prefix or "measured error") for known, prefix in told)
        ]
        lines.append(f"  {self.reason}")
        return "\n".join(lines if self.advice is None else [*lines, *(f"  {line}" for line in self.advice.lines())])


def show_seconds(seconds: float | None) -> str:
    """Return a time with a unit that fits it."""
    if seconds is None:
        return "unknown"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return "0" if seconds == 0 else f"{seconds / 1e-9:.3g} ns"
