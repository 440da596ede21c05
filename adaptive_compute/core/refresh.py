"""Measure again what no longer holds, and keep the rest: by a profile's validators, device by device.

A validator that names a library makes only the kernels that say they depend on it old; one that names the machine (its
processor, driver, thread count, the way of timing) makes all of the device's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .measure import FULL_SECONDS, QUICK_SECONDS, Progress, measure
from .profile import Profile, Section
from .registry import Registry

if TYPE_CHECKING:
    from ..backends.base import Kernel

LEAST_PART = 0.05  # of a whole profile's time, however little is to be measured


def outdated(profile: Profile, registry: Registry) -> dict[Kernel, str]:
    """Return the kernels of this machine that a profile says nothing valid of, each with the reason.

    ``profile`` is as it was loaded, before its sections were set aside. Devices that are the processor itself, behind a
    software driver, count only where the profile holds them.
    """
    old: dict[Kernel, str] = {}
    for device in registry.devices():
        section = profile.sections.get(device)
        if section is None and registry.backend_of(device).software(device):
            continue
        now = registry.backend_of(device).validators(device)
        changed = _changed(section, now)
        for operation in registry.operations():
            for kernel in registry.kernels(operation):
                if kernel.device == device:
                    why = _why(kernel, section, changed)
                    if why is not None:
                        old[kernel] = why
    return old


def _changed(section: Section | None, now: Mapping[str, str]) -> dict[str, str]:
    kept = section.validators if section is not None else {}
    return {
        name: f"{name} was {kept.get(name, 'unset')}, is {now.get(name, 'unset')}"
        for name in sorted({*kept, *now})
        if kept.get(name) != now.get(name)
    }


def _why(kernel: Kernel, section: Section | None, changed: Mapping[str, str]) -> str | None:
    if section is None:
        return f"{kernel.device} was not measured"
    for name, text in changed.items():
        if kernel.libraries is None or name in kernel.libraries or name in MACHINE:
            return text
    known = kernel.name in section.kernels.get(kernel.operation, {})
    wrong = kernel.name in section.rejected.get(kernel.operation, {})
    return None if known or wrong else "it was not measured"


# What the validators of our backends name beside libraries: a change of one of these changes every time.
MACHINE = frozenset({"processor", "threads", "timing", "python", "gpu", "device", "uuid", "driver", "cuda"})


def refresh(
    profile: Profile,
    registry: Registry,
    *,
    quick: bool = False,
    budget: float | None = None,
    report: Callable[[Progress], None] | None = None,
) -> dict[Kernel, str]:
    """Measure what no longer holds and put it into ``profile``; return what that was, each with the reason.

    Parameters
    ----------
    profile : Profile
        As it was loaded, before its sections were set aside. Changed in place.
    registry : Registry
        The backends and kernels of this machine.
    quick, budget, report
        As for ``measure``; by default the time goes by the part of the kernels that is measured.
    """
    old = outdated(profile, registry)
    if not old:
        return {}
    total = sum(len(registry.kernels(operation)) for operation in registry.operations())
    whole = QUICK_SECONDS if quick else FULL_SECONDS
    seconds = budget or whole * max(len(old) / max(total, 1), LEAST_PART)
    newer = measure(registry, kernels=frozenset(old), quick=quick, budget=seconds, report=report)
    redone = {(kernel.operation, kernel.name, kernel.device) for kernel in old}
    for device, section in newer.sections.items():
        before = profile.sections.get(device)
        for operation, kernels in before.kernels.items() if before else ():
            for name, classes in kernels.items():
                if (operation, name, device) not in redone:
                    section.kernels.setdefault(operation, {})[name] = classes
        for operation, reasons in before.rejected.items() if before else ():
            for name, reason in reasons.items():
                if (operation, name, device) not in redone:
                    section.rejected.setdefault(operation, {})[name] = reason
        profile.sections[device] = section
    profile.views.update(newer.views)
    profile.facts.update(newer.facts)
    profile.forget_curves()
    return old
