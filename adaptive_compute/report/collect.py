"""The figures of a report as JSON-ready data: machine, links, crossovers, accuracy against time, regret, health.

Everything is read from the profile or predicted by the router from it; nothing is measured or run here.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.profile import Link, Profile, Section
from ..core.registry import Registry
from ..core.router import Router
from .stored import load as load_regret
from .sweeps import crossovers, paretos


def collect(registry: Registry, profile: Profile, path: Path) -> dict[str, Any]:
    """Return the figures of a report.

    Parameters
    ----------
    registry : Registry
        The backends of this machine.
    profile : Profile
        What was measured; sections that no longer hold are in ``profile.stale``.
    path : Path
        The profile's file, beside which a regret result is kept.

    Returns
    -------
    dict
        ``machine``, ``profile``, ``devices``, ``links``, ``crossovers``, ``paretos``, ``regret``, ``health``.
    """
    router = Router(registry, profile)
    return {
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(profile),
        "profile": _profile(profile, path),
        "devices": _devices(registry, profile),
        "links": _links(profile),
        "crossovers": crossovers(router),
        "paretos": paretos(router),
        "regret": load_regret(path, profile),
        "health": _health(profile),
    }


def _machine(profile: Profile) -> dict[str, str]:
    host = profile.sections.get("cpu")
    validators = host.validators if host else {}
    return {
        "processor": validators.get("processor") or platform.processor() or platform.machine(),
        "threads": validators.get("threads", "unknown"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _profile(profile: Profile, path: Path) -> dict[str, Any]:
    facts = profile.facts
    measured = str(facts.get("measured", ""))
    try:
        age = (datetime.now(UTC) - datetime.fromisoformat(measured)).total_seconds() / 86400
    except (TypeError, ValueError):
        age = None
    return {
        "path": str(path), "measured": measured or None, "age_days": None if age is None else round(max(age, 0.0), 2),
        "seconds": facts.get("seconds"), "quick": bool(facts.get("quick")),
    }  # fmt: skip


def _devices(registry: Registry, profile: Profile) -> list[dict[str, Any]]:
    found = []
    here = registry.devices()
    for device in dict.fromkeys([*here, *profile.sections, *profile.stale]):
        section = profile.sections.get(device)
        backend = registry.backend_of(device) if device in here else None
        state = "in use" if section else f"set aside: {profile.stale[device]}" if device in profile.stale else (
            "not measured"
        )  # fmt: skip
        facts = backend.facts(device) if backend else section.validators if section else {}
        found.append({
            "device": device, "backend": device.partition(":")[0], "state": state,
            "software": bool(backend and backend.software(device)),
            "facts": {str(name): str(value) for name, value in facts.items()},
            "kernels": sum(len(kernels) for kernels in section.kernels.values()) if section else 0,
            "points": _points(section) if section else 0,
        })  # fmt: skip
    return found


def _points(section: Section) -> int:
    return sum(
        len(points)
        for kernels in section.kernels.values()
        for classes in kernels.values()
        for points in classes.values()
    )


def _links(profile: Profile) -> list[dict[str, Any]]:
    rows = []
    for device, section in profile.sections.items():
        ways: list[tuple[str, str, Link | None]] = [("cpu", device, section.up), (device, "cpu", section.down)]
        ways += [(source, device, link) for source, link in section.peers.items()]
        for source, target, link in ways:
            if link is not None:
                rows.append({
                    "from": source, "to": target, "latency_s": link.latency, "bytes_per_s": link.bandwidth,
                    "points": [[nbytes, seconds] for nbytes, seconds in link.points],
                })  # fmt: skip
    return rows


def _health(profile: Profile) -> dict[str, Any]:
    return {
        "set_aside": dict(profile.stale),
        "wrong": [
            {"operation": operation, "kernel": kernel, "device": device, "reason": reason}
            for device, section in profile.sections.items()
            for operation, kernels in section.rejected.items()
            for kernel, reason in kernels.items()
        ],
        "left_out": int(profile.facts.get("left_out") or 0),
        "skipped": [str(device) for device in profile.facts.get("skipped") or ()],
        "broken": {str(device): str(why) for device, why in dict(profile.facts.get("broken") or {}).items()},
        "validators": {device: dict(section.validators) for device, section in profile.sections.items()},
    }
