from __future__ import annotations

import json

NAMES = {"backend", "device", "kernel", "tol", "precision", "transfers", "threads", "profile", "learn"}


def test_each_value_and_where_it_came_from(adaptive):
    settings = json.loads(adaptive("settings", "--json", ADAPTIVE_THREADS="1", ADAPTIVE_BACKEND="").stdout)
    assert set(settings) == NAMES
    assert settings["threads"] == {"value": 1, "in_effect": 1, "source": "environment (ADAPTIVE_THREADS)"}
    assert settings["profile"]["in_effect"] == str(adaptive.profile)
    assert settings["profile"]["source"] == "environment (ADAPTIVE_PROFILE)"
    assert settings["backend"] == {"value": None, "in_effect": "any", "source": "default"}
    assert settings["transfers"] == {"value": "host", "in_effect": "host", "source": "default"}


def test_the_table_shows_the_same(adaptive):
    text = adaptive("settings", ADAPTIVE_TRANSFERS="log").stdout
    (line,) = [line for line in text.splitlines() if "transfers" in line]
    assert line.split() == ["transfers", "log", "log", "environment", "(ADAPTIVE_TRANSFERS)"]
    assert all(name in text for name in NAMES)
