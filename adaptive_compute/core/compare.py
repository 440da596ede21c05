"""Two profiles beside each other, and what one profile says of kernels that are slower than they should be.

A kernel is slower than before where its times, over the earlier profile's at the same places, are in the median
``SLOWER`` times those of the device's other kernels: a machine that has become slower as a whole makes no kernel slow.
Without an earlier profile a kernel is measured by its siblings, which do the same work on the same device: it is far
behind where one of them is ``BEHIND`` times as fast for every request that both can run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .curve import Curve
from .operations import operations
from .profile import Link, Profile, Section
from .registry import Registry

if TYPE_CHECKING:
    from ..backends.base import Kernel

SLOWER, BEHIND = 1.5, 3.0
FEWEST = 3  # points that a judgement takes


class Change(NamedTuple):
    """A kernel's times in one profile over those in another; ``relative`` to the device's other kernels."""

    operation: str
    kernel: str
    device: str
    ratio: float
    relative: float
    points: int

    @property
    def slower(self) -> bool:
        """Tell whether the kernel itself has become slower."""
        return self.points >= FEWEST and self.relative >= SLOWER


class Lag(NamedTuple):
    """A kernel that a sibling beats everywhere, at least by ``ratio``."""

    operation: str
    kernel: str
    device: str
    sibling: str
    ratio: float


@dataclass
class Comparison:
    """What differs between two profiles of a machine, or of two machines.

    ``drift`` is how much slower each device is as a whole; ``validators`` what names its software and hardware
    differently; ``wrong`` what only the newer one found wrong; ``only`` the kernels that one of them alone measured.
    """

    changes: list[Change] = field(default_factory=list)
    drift: dict[str, float] = field(default_factory=dict)
    links: dict[str, float] = field(default_factory=dict)
    validators: dict[str, list[str]] = field(default_factory=dict)
    wrong: list[tuple[str, str, str, str]] = field(default_factory=list)
    only: dict[str, list[str]] = field(default_factory=dict)

    @property
    def slower(self) -> list[Change]:
        """The kernels that have become slower by themselves, the worst first."""
        return sorted((c for c in self.changes if c.slower), key=lambda c: -c.relative)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data."""
        return {
            "drift": self.drift, "links": self.links, "validators": self.validators, "only": self.only,
            "changes": [change._asdict() for change in self.changes],
            "slower": [change._asdict() for change in self.slower],
            "wrong": [dict(zip(("operation", "kernel", "device", "reason"), row)) for row in self.wrong],
        }  # fmt: skip


def compared(newer: Profile, older: Profile) -> Comparison:
    """Compare two profiles device by device."""
    found = Comparison(only={"newer": [], "older": []})
    for device in dict.fromkeys((*newer.sections, *older.sections)):
        new, old = newer.sections.get(device), older.sections.get(device)
        if new is None or old is None:
            found.only["older" if new is None else "newer"].append(device)
            continue
        names = sorted({*new.validators, *old.validators})
        differ = [f"{n} was {old.validators.get(n, 'unset')}, is {new.validators.get(n, 'unset')}"
                  for n in names if new.validators.get(n) != old.validators.get(n)]  # fmt: skip
        if differ:
            found.validators[device] = differ
        ratios = dict(_ratios(new, old))
        drift = statistics.median([statistics.median(r) for r in ratios.values()]) if ratios else 1.0
        found.drift[device] = drift
        for (operation, kernel), own in ratios.items():
            ratio = statistics.median(own)
            found.changes.append(Change(operation, kernel, device, ratio, ratio / drift, len(own)))
        for side, one, other in (("newer", new, old), ("older", old, new)):
            found.only[side] += [
                f"{operation}/{kernel} on {device}"
                for operation, kernels in one.kernels.items()
                for kernel in kernels
                if kernel not in other.kernels.get(operation, {})
            ]
        for operation, reasons in new.rejected.items():
            known = old.rejected.get(operation, {})
            found.wrong += [(operation, kernel, device, why) for kernel, why in reasons.items() if kernel not in known]
        for direction, after, before in (("up", new.up, old.up), ("down", new.down, old.down)):
            if after is not None and before is not None:
                found.links[f"{device} {direction}"] = _link_ratio(after, before)
    return found


def _ratios(new: Section, old: Section) -> Iterator[tuple[tuple[str, str], list[float]]]:
    """Yield each kernel with its new times over what the old curves say at the same places."""
    for operation, kernels in new.kernels.items():
        for kernel, classes in kernels.items():
            before = old.kernels.get(operation, {}).get(kernel, {})
            ratios = []
            for name, points in classes.items():
                if not before.get(name) or len(before[name][0].at) != len(points[0].at):
                    continue
                curve = Curve(before[name])
                for point in points:
                    estimate = curve.at(point.at)
                    if not estimate.extrapolated:
                        ratios.append(point.seconds / max(estimate.seconds, 1e-12))
            if ratios:
                yield (operation, kernel), ratios


def _link_ratio(after: Link, before: Link) -> float:
    sizes = [nbytes for nbytes, _ in after.points] or [1 << 20]
    return statistics.median(after.seconds(n) / max(before.seconds(n), 1e-12) for n in sizes)


def lagging(profile: Profile, registry: Registry) -> list[Lag]:
    """Return the kernels that a sibling on the same device beats by far for every request that both can run."""
    found = []
    for name, operation in operations().items():
        known = [
            (kernel, curves)
            for kernel in registry.kernels(name)
            if (curves := profile.curves(kernel.device, name, kernel.name))
        ]
        if len(known) < 2:
            continue
        times: dict[Kernel, list[float]] = {kernel: [] for kernel, _ in known}
        for request in operation.samples(quick=True):
            for kernel, curves in known:
                able = kernel.supports(request) is True
                estimate = kernel.estimate(request, curves) if able else None
                inside = estimate is not None and not estimate.extrapolated
                times[kernel].append(estimate.seconds if estimate is not None and inside else math.nan)
        for kernel, own in times.items():
            lags = []
            for other, others in times.items():
                if other is kernel or other.device != kernel.device:
                    continue
                both = [a / b for a, b in zip(own, others) if a == a and b == b and b > 0]
                if len(both) >= FEWEST and min(both) >= BEHIND:
                    lags.append(Lag(name, kernel.name, kernel.device, other.name, min(both)))
            found += [max(lags, key=lambda lag: lag.ratio)] if lags else []
    return found
