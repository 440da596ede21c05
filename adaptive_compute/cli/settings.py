"""``adaptive settings``: each setting, its value and where it came from."""

from __future__ import annotations

from typing import Any

from .output import AsJson, print_json, print_table


def command(as_json: AsJson = False) -> None:
    """Show every setting, what is in effect, and where the value came from."""
    settings = collect()
    if as_json:
        print_json(settings)
        return
    rows = [
        (name, "-" if entry["value"] is None else str(entry["value"]), str(entry["in_effect"]), entry["source"])
        for name, entry in settings.items()
    ]
    print_table(("setting", "value", "in effect", "source"), rows)


def collect() -> dict[str, dict[str, Any]]:
    """Return value, effect and source of every setting by name."""
    from ..core import settings as _settings
    from ..core.dispatcher import dispatcher

    view = _settings.settings
    effects = {
        "backend": "any", "device": "any", "kernel": "any", "tol": "the dtype's tolerance",
        "precision": "the operands' own", "threads": _settings.threads(_settings.current()),
        "profile": str(dispatcher.profile_path()),
    }  # fmt: skip
    sources = view.sources()
    return {
        name: {"value": value, "in_effect": effects[name] if value is None else value, "source": sources[name]}
        for name, value in view.as_dict().items()
    }
