"""What was measured on this machine: kernels' time and error, links; a readable, versioned JSON file."""

from __future__ import annotations

import bisect
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from .curve import Curve, Curves, Estimate, Measurement
from .errors import MissingProfileError, ProfileError
from .files import write_atomically

__all__ = ["Curve", "Curves", "Estimate", "Link", "Measurement", "Profile", "Section", "default_path"]

SCHEMA = 1
# Part of every section's validators: times measured by another method are not comparable.
TIMING_METHOD = "4"
# What no measurement exceeds: coordinates are logarithms of sizes, and nobody waits eleven days for one sample.
LARGEST_PLACE, LONGEST = 128.0, 1e6


class Link(NamedTuple):
    """One direction between two devices: seconds for an empty transfer, then bytes a second.

    ``points`` are what was measured, bytes and seconds in order of size: small transfers go another way than large
    ones, so that two numbers do not tell what those between them take. ``loaded`` is how many times longer a transfer
    takes while a thread of the host copies memory; it is shown, and decides nothing.
    """

    latency: float
    bandwidth: float
    points: tuple[tuple[int, float], ...] = ()
    loaded: float = 1.0

    def seconds(self, nbytes: int) -> float:
        """Predict the time of one transfer."""
        if len(self.points) < 2:
            return self.latency + nbytes / self.bandwidth
        sizes = [size for size, _ in self.points]
        place = bisect.bisect_left(sizes, nbytes)
        if place == 0:
            return self.points[0][1]
        if place == len(sizes):
            return self.points[-1][1] + (nbytes - sizes[-1]) / self.bandwidth
        (small, low), (large, high) = self.points[place - 1 : place + 1]
        part = math.log(nbytes / small) / math.log(large / small)
        return low ** (1 - part) * high**part


@dataclass
class Section:
    """What was measured on one device, valid while ``validators`` hold.

    ``tuning`` is what the backend's search chose for the device; its kernels were timed with these values. ``peers``
    are the links from other devices of the same backend straight to this one.
    """

    validators: dict[str, str]
    kernels: dict[str, dict[str, dict[str, list[Measurement]]]] = field(default_factory=dict)
    rejected: dict[str, dict[str, str]] = field(default_factory=dict)
    up: Link | None = None
    down: Link | None = None
    peers: dict[str, Link] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)


def default_path() -> Path:
    """Return where this user's profile is kept when ``ADAPTIVE_PROFILE`` does not say."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = str(Path.home() / "Library" / "Caches")
    else:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "adaptive-compute" / "profile.json"


def profile_path(asked: str | None) -> Path:
    """Return the profile's file: the one asked for (``~`` stands for the home folder), else the default one."""
    try:
        return Path(asked).expanduser() if asked else default_path()
    except RuntimeError as error:
        raise ProfileError(f"there is no place for a profile ({error}); ADAPTIVE_PROFILE can name one") from None


class Profile:
    """The measurements of a machine, a section a device.

    Attributes
    ----------
    sections : dict of str to Section
        What may be used.
    stale : dict of str to str
        Devices whose section no longer holds, with the reason.
    views : dict of str to float
        Seconds to view an array of one kind as another on the host, by ``"numpy->torch"``.
    facts : dict
        Free text about the machine and the run; shown, never used.
    """

    def __init__(
        self,
        sections: dict[str, Section] | None = None,
        views: dict[str, float] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.sections = sections or {}
        self.stale: dict[str, str] = {}
        self.views = views or {}
        self.facts = facts or {}
        self._curves: dict[tuple[str, str, str], Curves] = {}

    def curves(self, device: str, operation: str, kernel: str) -> Curves:
        """Return the measured curves of a kernel by parameter class; empty where nothing was measured."""
        key = (device, operation, kernel)
        curves = self._curves.get(key)
        if curves is None:
            section = self.sections.get(device)
            classes = section.kernels.get(operation, {}).get(kernel, {}) if section else {}
            curves = self._curves[key] = Curves({name: points for name, points in classes.items() if points})
        return curves

    def rejection(self, device: str, operation: str, kernel: str) -> str | None:
        """Return why a kernel was found wrong when it was profiled, or None."""
        section = self.sections.get(device)
        return section.rejected.get(operation, {}).get(kernel) if section else None

    def link_seconds(self, device: str, nbytes: int, *, up: bool, latency: bool = True) -> float | None:
        """Predict a transfer between the host and a device; None where the link was not measured."""
        section = self.sections.get(device)
        link = (section.up if up else section.down) if section else None
        return None if link is None else max(link.seconds(nbytes) - (0.0 if latency else link.latency), 0.0)

    def peer_seconds(self, source: str, target: str, nbytes: int) -> float | None:
        """Predict a transfer from one device of a backend to another; None where none was measured."""
        section = self.sections.get(target)
        link = section.peers.get(source) if section else None
        return None if link is None else link.seconds(nbytes)

    def validate(self, current: Mapping[str, Mapping[str, str]]) -> None:
        """Set aside every section that no longer describes its device; ``current`` maps devices to validators."""
        for device in list(self.sections):
            kept = self.sections[device].validators
            now = current.get(device)
            if now is None:
                reason = f"device {device} is not here"
            else:
                changes = [
                    f"{name} was {kept.get(name, 'unset')}, is {now.get(name, 'unset')}"
                    for name in sorted({*kept, *now})
                    if kept.get(name) != now.get(name)
                ]
                reason = "; ".join(changes)
            if reason:
                self.stale[device] = reason
                del self.sections[device]
        self.forget_curves()

    def forget_curves(self) -> None:
        """Fit every curve anew when it is next asked for; for whoever changed the measurements."""
        self._curves.clear()

    def merge(self, newer: Profile) -> None:
        """Take over what a newer profile measured; what it did not measure stays, if its section still holds."""
        for device, section in newer.sections.items():
            old = self.sections.get(device)
            if old is None or old.validators != section.validators:
                self.sections[device] = section
                continue
            for operation, kernels in section.kernels.items():
                old.kernels.setdefault(operation, {}).update(kernels)
                rejected = old.rejected.get(operation, {})
                for kernel in kernels:
                    rejected.pop(kernel, None)
            for operation, reasons in section.rejected.items():
                old.rejected.setdefault(operation, {}).update(reasons)
                for kernel in reasons:
                    old.kernels.get(operation, {}).pop(kernel, None)
            old.up, old.down = section.up or old.up, section.down or old.down
            old.peers.update(section.peers)
            old.tuning.update(section.tuning)
        self.views.update(newer.views)
        self.facts.update(newer.facts)
        self._curves.clear()

    def as_dict(self) -> dict[str, Any]:
        """Return the profile as JSON-ready data."""
        return {
            "schema": SCHEMA,
            "facts": self.facts,
            "views": self.views,
            "devices": {device: _section_to_json(section) for device, section in self.sections.items()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> Profile:
        """Build a profile from JSON data; raises ProfileError naming what is wrong with it."""
        if not isinstance(data, dict) or "schema" not in data or not isinstance(data.get("devices"), dict):
            raise ProfileError("this is not an adaptive-compute profile")
        if data["schema"] != SCHEMA:
            raise ProfileError(f"the profile has schema {data['schema']!r}, this version reads {SCHEMA}")
        try:
            sections = {str(device): _section_from_json(section) for device, section in data["devices"].items()}
            views = {str(name): _positive(seconds) for name, seconds in data.get("views", {}).items()}
            facts = dict(data.get("facts", {}))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ProfileError(f"the profile is damaged: {type(error).__name__}: {error}") from None
        return cls(sections, views, facts)

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile; raises MissingProfileError where there is none, ProfileError where it cannot be read."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingProfileError(f"cannot read {path}: {error}") from None
        except (OSError, ValueError) as error:
            raise ProfileError(f"cannot read {path}: {error}") from None
        try:
            return cls.from_dict(json.loads(text))
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError, and so is an endless number
            raise ProfileError(f"{path} is not JSON: {error}") from None

    def save(self, path: Path) -> None:
        """Write the profile atomically: readers see the old file or the new one, never a part."""
        text = json.dumps(self.as_dict(), indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: file.write(text.encode()))
        except OSError as error:
            raise ProfileError(f"cannot write {path}: {error}") from None


@contextlib.contextmanager
def locked(path: Path, timeout: float = 30.0) -> Iterator[None]:
    """Hold the lock of a profile file, so that two processes that merge into it do not lose each other's work."""
    lock = path.with_name(path.name + ".lock")
    deadline = time.monotonic() + timeout
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a+b")  # noqa: SIM115 - held open for as long as the lock is
    except OSError as error:
        raise ProfileError(f"cannot lock {path}: {error}") from None
    with file:
        while not _try_lock(file):
            if time.monotonic() > deadline:
                raise ProfileError(f"{lock} is held by another process; waited {timeout:.0f} s")
            time.sleep(0.05)
        yield


def _try_lock(file: Any) -> bool:
    """Take an advisory lock that the system drops when the file is closed or the process ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _positive(value: Any) -> float:
    number = float(value)
    if isinstance(value, (str, bool)) or not 0 <= number < math.inf:
        raise ValueError(f"{value!r} is not a measurement")
    return number


def _choice(value: Any) -> Any:
    if isinstance(value, list) and all(type(part) is int for part in value):
        return tuple(value)
    if isinstance(value, (int, str)):
        return value
    raise ValueError(f"{value!r} is nothing that a backend can choose")


def _link_to_json(link: Link) -> dict[str, Any]:
    points = [[nbytes, float(f"{seconds:.4g}")] for nbytes, seconds in link.points]
    return {"latency": link.latency, "bandwidth": link.bandwidth, "points": points, "loaded": link.loaded}


def _section_to_json(section: Section) -> dict[str, Any]:
    return {
        "validators": section.validators,
        "up": section.up and _link_to_json(section.up),
        "down": section.down and _link_to_json(section.down),
        "peers": {source: _link_to_json(link) for source, link in section.peers.items()},
        "rejected": section.rejected,
        "tuning": section.tuning,
        "kernels": {
            operation: {
                kernel: {
                    name: [[list(p.at), float(f"{p.seconds:.4g}"), round(p.spread, 4), p.error] for p in points]
                    for name, points in classes.items()
                }
                for kernel, classes in kernels.items()
            }
            for operation, kernels in section.kernels.items()
        },
    }


def _section_from_json(data: Any) -> Section:
    def link(value: Any) -> Link | None:
        if value is None:
            return None
        points = tuple((int(_positive(nbytes)), _positive(seconds)) for nbytes, seconds in value.get("points", ()))
        if any(a >= b for (a, _), (b, _) in pairwise(points)) or any(not s or not n for n, s in points):
            raise ValueError(f"{points!r} are no sizes in order with their times")
        return Link(_positive(value["latency"]), _positive(value["bandwidth"]) or math.inf, points,
                    _positive(value.get("loaded", 1.0)))  # fmt: skip

    def point(value: Any) -> Measurement:
        at, seconds, spread, error = value
        place = tuple(float(x) for x in at)
        if not all(abs(x) <= LARGEST_PLACE for x in place):
            raise ValueError(f"{at!r} is not a place")
        if _positive(seconds) > LONGEST:
            raise ValueError(f"{seconds!r} seconds are no measurement")
        return Measurement(place, _positive(seconds), _positive(spread), None if error is None else _positive(error))

    def curve(points: Any) -> list[Measurement]:
        curve = [point(value) for value in points]
        if len({len(p.at) for p in curve}) > 1:
            raise ValueError("points of one class have different numbers of coordinates")
        return curve

    return Section(
        validators={str(name): str(value) for name, value in data["validators"].items()},
        kernels={
            str(operation): {
                str(kernel): {str(name): curve(points) for name, points in classes.items()}
                for kernel, classes in kernels.items()
            }
            for operation, kernels in data["kernels"].items()
        },
        rejected={
            str(operation): {str(kernel): str(reason) for kernel, reason in kernels.items()}
            for operation, kernels in data["rejected"].items()
        },
        up=link(data["up"]),
        down=link(data["down"]),
        peers={str(source): found for source, value in data.get("peers", {}).items() if (found := link(value))},
        tuning={str(name): _choice(value) for name, value in data.get("tuning", {}).items()},
    )
