"""What the charts show: the router's predictions over sizes of some requests, and over accuracies of some others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..core import settings as _settings
from ..core.decision import Candidate, Decision
from ..core.errors import AdaptiveError
from ..core.masks import Causal
from ..core.operation import Operation, Request
from ..core.operations import operations
from ..core.router import Router


class Sweep(NamedTuple):
    """One chart: an operation's example over shapes that grow with n, from 2**low to 2**high in half octaves."""

    operation: str
    title: str
    axis: str
    dtype: str
    shape: Callable[[int], tuple[int, ...]]
    low: int
    high: int
    change: Callable[[Request], Request] | None = None


def causal(request: Request) -> Request:
    """Return a request of attention in which each query keeps only the keys up to its own."""
    return Request(
        request.operation, request.operands, request.params._replace(mask=Causal()), request.tol, request.threads
    )


SWEEPS = (
    Sweep("fft", "FFT, one transform", "points n", "complex64", lambda n: (n,), 6, 22),
    Sweep("fft", "FFT, 64 transforms at once", "points n of each", "complex64", lambda n: (64, n), 4, 16),
    Sweep("fft", "FFT in double precision", "points n", "complex128", lambda n: (n,), 6, 22),
    Sweep("nufft", "NUFFT, n x n modes to n² points", "n, eps = 1e-6", "complex64", lambda n: (n, n), 3, 10),
    Sweep("attention", "Attention, 8 heads of 64", "queries and keys n", "float32", lambda n: (1, 8, n, 64), 4, 12),
    Sweep("attention", "Causal attention, 8 heads of 64", "queries and keys n", "float32",
          lambda n: (1, 8, n, 64), 4, 12, causal),
    Sweep("attention_backward", "Gradient of attention", "queries and keys n", "float32",
          lambda n: (1, 8, n, 64), 4, 12),
    Sweep("elementwise", "Element-wise expression", "elements n", "float32", lambda n: (n,), 8, 24),
    Sweep("reduce", "Sum", "elements n", "float32", lambda n: (n,), 8, 24),
    Sweep("gather", "Gather", "rows n of 16", "float32", lambda n: (n, 16), 6, 20),
    Sweep("scatter_add", "Scatter-add", "rows n of 16", "float32", lambda n: (n, 16), 6, 20),
)  # fmt: skip


def crossovers(router: Router) -> list[dict[str, Any]]:
    """Return a chart's data for every sweep whose operation was measured; operands are on the host."""
    known, state = operations(), _plain()
    measured = {name for section in router.profile.sections.values() for name in section.kernels}
    found = []
    for sweep in SWEEPS:
        if sweep.operation in known and sweep.operation in measured:
            decisions = list(_decisions(router, known[sweep.operation], sweep, state))
            if decisions:
                found.append(_crossover(sweep, decisions))
    return found


def _plain() -> _settings.Settings:
    """Return settings under which what is fastest is told, whatever is asked for at the moment."""
    return _settings.Settings(threads=_settings.current().threads)


def _decisions(
    router: Router, operation: Operation, sweep: Sweep, state: _settings.Settings
) -> Iterator[tuple[int, Decision]]:
    for n in sorted(part << power for power in range(sweep.low - 1, sweep.high) for part in (2, 3))[:-1]:
        request = operation.example(sweep.shape(n), sweep.dtype)
        if sweep.change is not None:
            request = sweep.change(request)
        try:
            decision = router.decide(request, state)
        except (AdaptiveError, ValueError, TypeError):
            continue
        if decision.chosen.total_s is not None:
            yield n, decision


def _crossover(sweep: Sweep, decisions: Sequence[tuple[int, Decision]]) -> dict[str, Any]:
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for n, decision in decisions:
        for c in decision.candidates:
            if c.total_s is not None:
                series.setdefault((c.name, c.device), []).append({
                    "n": n, "transfer_s": c.transfer_s, "compute_s": c.compute_s, "total_s": c.total_s,
                    "error": c.error, "extrapolated": c.extrapolated,
                })  # fmt: skip
    return {
        "operation": sweep.operation, "title": sweep.title, "axis": sweep.axis, "dtype": sweep.dtype,
        "sizes": [n for n, _ in decisions],
        "chosen": [{"n": n, "kernel": d.chosen.name, "device": d.chosen.device} for n, d in decisions],
        "series": [{"kernel": k, "device": d, "points": p} for (k, d), p in sorted(series.items(), key=_place)],
    }  # fmt: skip


def _place(item: tuple[tuple[str, str], Any]) -> tuple[bool, str, str]:
    (kernel, device), _ = item
    return device != "cpu", device, kernel


# Accuracy against time

EPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12)


class Choice(NamedTuple):
    """One chart of accuracy against time: a request, in every precision, or for every tolerance."""

    operation: str
    title: str
    shape: tuple[int, ...]
    dtype: str


CHOICES = (
    Choice("fft", "64 FFTs of 4096 points", (64, 4096), "complex128"),
    Choice("nufft", "NUFFT, 256 x 256 modes to 65536 points", (256, 256), "complex128"),
    Choice("attention", "Attention, 8 heads, 512 x 64", (1, 8, 512, 64), "float64"),
    Choice("elementwise", "Expression of a million elements", (1 << 20,), "float64"),
)


def paretos(router: Router) -> list[dict[str, Any]]:
    """Return each choice's candidates in every precision with predicted time and error, and which are on the front."""
    known = operations()
    measured = {name for section in router.profile.sections.values() for name in section.kernels}
    found = []
    for choice in CHOICES:
        if choice.operation not in known or choice.operation not in measured:
            continue
        candidates = [
            (label, candidate)
            for label, request in _requests(known[choice.operation], choice)
            for candidate in _candidates(router, request)
        ]
        if candidates:
            found.append(_pareto(choice, candidates))
    return found


def _requests(operation: Operation, choice: Choice) -> Iterator[tuple[str, Request]]:
    plain = operation.example(choice.shape, choice.dtype)
    if choice.operation != "nufft":
        yield "", Request(operation, plain.operands, plain.params, 0.5, plain.threads)
        return
    for eps in EPS:
        yield f"eps {eps:.0e}", Request(operation, plain.operands, plain.params._replace(eps=eps), None, plain.threads)


def _candidates(router: Router, request: Request) -> list[Candidate]:
    state = replace(_plain(), precision="adaptive")
    try:
        decision = router.decide(request, state)
    except AdaptiveError:
        return []
    known = [c for c in (*decision.candidates, *decision.inexact) if c.total_s is not None and c.error is not None]
    return known


def _pareto(choice: Choice, candidates: Sequence[tuple[str, Candidate]]) -> dict[str, Any]:
    ranked = sorted(candidates, key=lambda pair: (pair[1].total_s or 0.0, pair[1].error or 0.0))
    least, rows = float("inf"), []
    for label, c in ranked:
        front = (c.error or 0.0) < least
        least = min(least, c.error or 0.0)
        rows.append({
            "kernel": c.name, "device": c.device, "precision": c.narrow.dtype if c.narrow else _real(choice.dtype),
            "label": label, "total_s": c.total_s, "error": c.error, "extrapolated": c.extrapolated, "pareto": front,
        })  # fmt: skip
    return {"operation": choice.operation, "title": choice.title, "dtype": choice.dtype, "points": rows}


def _real(dtype: str) -> str:
    return {"complex128": "float64", "complex64": "float32"}.get(dtype, dtype)
