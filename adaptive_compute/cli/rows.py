"""The table that ``adaptive profile`` prints: what is fastest here, by how much, and how exact."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..core import settings as _settings
from ..core.errors import AdaptiveError
from ..core.operation import Request
from ..core.operations import operations
from ..core.profile import Profile
from ..core.registry import Registry
from ..core.router import Router


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


def rows(profile: Profile, registry: Registry, limit: int = 8) -> list[Row]:
    """Return the lines of the profile's table: per operation the largest measured size of some parameter classes."""
    router = Router(registry, profile)
    state = _settings.Settings(threads=_settings.current().threads)  # what is fastest, whatever is asked for now
    lines: list[Row] = []
    for name, operation in operations().items():
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
