"""What ``adaptive profile`` does with profiles that were measured already: refresh, compare, merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import note, print_json, print_table

if TYPE_CHECKING:
    from ..core.compare import Change, Comparison
    from ..core.profile import Profile


def load(path: Path) -> Profile:
    """Read a profile; raises ProfileError where there is none."""
    from ..core.profile import Profile

    return Profile.load(path)


def refresh(path: Path, *, quick: bool, budget: float | None, as_json: bool) -> None:
    """Measure again what no longer holds of the profile at ``path``, and save it."""
    from ..core.dispatcher import dispatcher
    from ..core.profile import locked
    from ..core.refresh import refresh as refreshed
    from .profile import progress

    profile = load(path)
    with progress() as report:
        done = refreshed(profile, dispatcher.registry, quick=quick, budget=budget, report=report)
    if done:
        with locked(path):
            profile.save(path)
    rows = [{"operation": k.operation, "kernel": k.name, "device": k.device, "reason": why} for k, why in done.items()]
    if as_json:
        print_json({"measured": rows, "path": str(path)})
        return
    if not rows:
        print(f"{path} holds: nothing was measured")
        return
    print_table(("measured again", "device", "because"), [
        (f"{row['operation']}/{row['kernel']}", row["device"], row["reason"]) for row in rows
    ])  # fmt: skip
    note(f"measured in {profile.facts['seconds']} s, saved to {path}")


def merge(path: Path, others: Sequence[Path], *, as_json: bool) -> None:
    """Take over what other profiles say of this machine's devices, and save the profile at ``path``."""
    from ..core.dispatcher import dispatcher
    from ..core.errors import MissingProfileError
    from ..core.profile import Profile, locked

    registry = dispatcher.registry
    now = {device: registry.backend_of(device).validators(device) for device in registry.devices()}
    rows = []
    with locked(path):
        try:
            profile = Profile.load(path)
        except MissingProfileError:
            profile = Profile()
        for other in others:
            newer = Profile.load(other)
            newer.validate(now)
            rows += [{"file": str(other), "device": d, "taken": True, "reason": None} for d in newer.sections]
            rows += [{"file": str(other), "device": d, "taken": False, "reason": why} for d, why in newer.stale.items()]
            profile.merge(newer)
        profile.save(path)
    if as_json:
        print_json({"sections": rows, "path": str(path)})
        return
    print_table(("file", "device", ""), [
        (str(row["file"]), str(row["device"]), "taken" if row["taken"] else f"left: {row['reason']}") for row in rows
    ])  # fmt: skip
    note(f"saved to {path}")


def compare(path: Path, other: Path, *, as_json: bool) -> None:
    """Print what differs between the profile at ``path`` and an earlier or another one."""
    from ..core.compare import compared

    found = compared(load(path), load(other))
    if as_json:
        print_json(found.as_dict())
        return
    _print(found, path, other)


def _print(found: Comparison, path: Path, other: Path) -> None:
    print(f"{path} beside {other}: times as a multiple of the other's, 1.00 is the same")
    for device, differ in found.validators.items():
        print(f"  {device} differs: {'; '.join(differ)}")
    rows = [
        (f"{c.operation}/{c.kernel}", c.device, f"{c.ratio:.2f}x", f"{c.relative:.2f}x", str(c.points),
         "slower" if c.slower else "")
        for c in sorted(found.changes, key=lambda c: (c.device, c.operation, c.kernel))
    ]  # fmt: skip
    print_table(
        ("kernel", "device", "time", "beside the device's others", "points", ""), rows, right=("time", "points")
    )
    for label, ratio in found.links.items():
        print(f"  link {label}: {ratio:.2f}x")
    for side in ("newer", "older"):
        if found.only[side]:
            print(f"  only in {path if side == 'newer' else other}: {', '.join(found.only[side])}")
    for operation, kernel, device, reason in found.wrong:
        print(f"  wrong now: {operation}/{kernel} on {device}: {reason}")
    for change in found.slower:
        print(f"  {told(change)}")


def told(change: Change) -> str:
    """Return in words that a kernel has become slower."""
    return (
        f"slower: {change.operation}/{change.kernel} on {change.device} takes {change.ratio:.2f}x what it took, "
        f"{change.relative:.2f}x beside the device's other kernels"
    )


def lags(profile: Profile) -> list[dict[str, Any]]:
    """Return the kernels of a profile that a sibling beats everywhere by far."""
    from ..core.compare import lagging
    from ..core.dispatcher import dispatcher

    return [lag._asdict() for lag in lagging(profile, dispatcher.registry)]


def told_lag(lag: dict[str, Any]) -> str:
    """Return in words that a kernel is far behind a sibling."""
    return (
        f"far behind: {lag['operation']}/{lag['kernel']} on {lag['device']} takes at least {lag['ratio']:.1f}x "
        f"what {lag['sibling']} takes, for every request that both were measured at"
    )
