"""Where the result of ``adaptive bench regret`` is kept: beside the profile that it judged, as ``NAME.regret.json``."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.errors import ProfileError
from ..core.files import write_atomically
from ..core.profile import Profile


def regret_path(profile: Path) -> Path:
    """Return the file that belongs to a profile's.

    Examples
    --------
    >>> from pathlib import Path
    >>> regret_path(Path("profile.json")).name
    'profile.regret.json'
    """
    return profile.with_name(f"{profile.stem}.regret.json")


def keep(path: Path, profile: Profile, figures: dict[str, Any]) -> Path:
    """Keep the figures of a regret run (``RegretReport.as_dict()``) beside a profile's file, and return where."""
    target = regret_path(path)
    data = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "profile": profile.facts.get("measured"),
        "figures": figures,
    }  # fmt: skip
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda file: file.write(json.dumps(data, indent=1).encode()))
    except OSError as error:
        raise ProfileError(f"cannot write {target}: {error}") from None
    return target


def load(path: Path, profile: Profile) -> dict[str, Any]:
    """Return the regret that was kept beside a profile's file; ``state`` says whether there is one, and of what.

    ``"none"``: there is no file. ``"damaged"``: it cannot be read. ``"earlier"``: it judged an earlier profile.
    ``"current"``: it judged this one.
    """
    target = regret_path(path)
    empty = {"state": "none", "path": str(target), "command": "adaptive bench regret --count 200"}
    try:
        data = json.loads(target.read_text(encoding="utf-8"))
        figures = data["figures"]
        regrets = [float(value) for value in figures.get("regrets") or ()]
        if not all(math.isfinite(value) and value >= 1 for value in regrets):
            raise ValueError("a regret is a number of at least 1")
        known = {name: _figure(figures.get(name)) for name in ("mean", "median", "p90", "p99", "worst", "optimal")}
        policies = {str(n): _figure(p.get("mean")) for n, p in dict(figures.get("policies") or {}).items()}
        operations = {
            str(name): {k: _figure(row.get(k)) for k in ("count", "mean", "p90", "worst")}
            for name, row in dict(figures.get("per_operation") or {}).items()
        }
    except FileNotFoundError:
        return empty
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return {**empty, "state": "damaged", "reason": f"{type(error).__name__}: {error}"}
    current = data.get("profile") == profile.facts.get("measured")
    return {
        **empty, "state": "current" if current else "earlier", "date": str(data.get("date", "")), "regrets": regrets,
        "count": len(regrets) or int(figures.get("count") or 0), "undecided": int(figures.get("undecided") or 0),
        "figures": known, "policies": policies, "operations": operations,
    }  # fmt: skip


def _figure(value: Any) -> float | None:
    return None if value is None else float(value)
