"""What simple rules would choose, to compare the router with: always the host, always the GPU, a size threshold.

A rule knows nothing of kernels: on a device it takes the first one that the backend offers, which is what runs there
where nothing was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from .registry import Registry
from .router import Candidate, Decision

POLICIES = ("always cpu", "always gpu")


def picks(decision: Decision, registry: Registry) -> dict[str, str]:
    """Return what each rule chooses among a decision's candidates, as ``kernel`` or ``kernel@device``."""
    offered = list(registry.kernels(decision.request.operation.name))
    first = sorted(decision.candidates, key=lambda c: offered.index(c.kernel))
    # The GPU is the first device that is one; a driver in software is it only where there is no other.
    away = [c for c in first if c.device != "cpu"]
    real = [c for c in away if not registry.backend_of(c.device).software(c.device)]
    host = next((c for c in first if c.device == "cpu"), first[0])
    gpu = next(iter([*real, *away]), first[0])
    return {"always cpu": _label(host), "always gpu": _label(gpu)}


def _label(candidate: Candidate) -> str:
    return candidate.name if candidate.device == "cpu" else f"{candidate.name}@{candidate.device}"


def best_threshold(outcomes: Sequence[tuple[int, float, float]]) -> int:
    """Return the size in bytes from which on the GPU is taken that gives the least mean regret.

    ``outcomes`` are bytes, regret on the host, regret on the GPU. It is chosen with hindsight on the very requests that
    it is judged by, among the powers of two, so that no rule of its kind does better.
    """
    limits = [1 << n for n in range(8, 36)]
    return min(limits, key=lambda limit: sum(gpu if nbytes >= limit else cpu for nbytes, cpu, gpu in outcomes))
