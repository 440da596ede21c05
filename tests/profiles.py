"""Profiles made up for a purpose: what each kernel takes for given requests, and how exact it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from adaptive_compute.core.curve import Measurement
from adaptive_compute.core.profile import Link, Profile, Section
from adaptive_compute.core.registry import registry
from adaptive_compute.core.runner import relocated


class Took(NamedTuple):
    """A request, the seconds that kernels took for it, and their error; ``kernels`` names those that it is about."""

    request: Any
    seconds: float
    error: float | None = 1e-16
    kernels: tuple[str, ...] | None = None
    device: str = "cpu"
    spread: float = 0.01


def made_up(rows: Iterable[Took], links: Mapping[str, Link] | None = None, facts: Any = None) -> Profile:
    """Return a profile with these measurements, and a link in both directions for each device named."""
    sections: dict[str, Section] = {"cpu": Section({})}
    for device, link in (links or {}).items():
        sections[device] = Section({}, up=link, down=link)
    for row in rows:
        operation = row.request.operation.name
        for kernel in registry.kernels(operation):
            if kernel.device != row.device or (row.kernels is not None and kernel.name not in row.kernels):
                continue
            request = relocated(row.request, kernel)
            if kernel.supports(request) is not True:
                continue
            section = sections.setdefault(row.device, Section({}))
            features = kernel.features(request)
            classes = section.kernels.setdefault(operation, {}).setdefault(kernel.name, {})
            classes.setdefault(features.name, []).append(Measurement(features.at, row.seconds, row.spread, row.error))
    return Profile(sections, facts=facts)
