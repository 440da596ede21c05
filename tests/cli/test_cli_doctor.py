from __future__ import annotations

import json

import pytest
import typer

from adaptive_compute.cli import doctor
from adaptive_compute.core.registry import Registry, registry
from tests.simulated import SimBackend, installed


def test_without_a_profile_it_says_how_to_make_one(adaptive):
    report = json.loads(adaptive("doctor", "--json").stdout)
    (cpu,) = [backend for backend in report["backends"] if backend["name"] == "cpu"]
    assert cpu["available"] is True
    assert cpu["devices"]["cpu"]["facts"]["numpy"]
    assert "pocketfft" in cpu["devices"]["cpu"]["kernels"]["fft"]
    assert report["profile"]["state"] == "missing"
    assert report["profile"]["remedy"] == "adaptive profile"
    text = adaptive("doctor").stdout
    assert f"profile {adaptive.profile}: missing" in text
    assert "to mend it: adaptive profile" in text


def test_a_partial_profile_lists_what_was_not_measured(profiled):
    profile = json.loads(profiled("doctor", "--json").stdout)["profile"]
    assert profile["state"] in ("ok", "partly usable")
    assert "fft on cpu" not in profile["unmeasured"]
    assert profile["facts"]["quick"] is True


def test_a_damaged_profile_is_a_failure(adaptive):
    adaptive.profile.write_text('{"schema": 1')
    report = json.loads(adaptive("doctor", "--json", code=1).stdout)
    assert report["profile"]["state"] == "damaged"
    assert "is not JSON" in report["profile"]["reason"]
    assert "is not JSON" in adaptive("doctor", code=1).stdout


def test_a_stale_profile_gives_the_reason_and_a_wrong_kernel_is_named(profiled, adaptive):
    data = json.loads(profiled.profile.read_text())
    data["devices"]["cpu"]["rejected"] = {"fft": {"torch": "relative error 1 at fft(...)"}}
    adaptive.profile.write_text(json.dumps(data))
    text = adaptive("doctor").stdout
    assert "wrong: fft/torch on cpu: relative error 1" in text
    data["devices"]["cpu"]["validators"]["threads"] = "1000"
    adaptive.profile.write_text(json.dumps(data))
    profile = json.loads(adaptive("doctor", "--json").stdout)["profile"]
    assert profile["state"] == "stale"
    assert "threads was 1000" in profile["stale"]["cpu"]


def test_an_unavailable_backend_gives_its_reason_and_remedy(capsys):
    with installed(SimBackend(reason="the driver is missing")):
        doctor.command()
    text = capsys.readouterr().out
    assert "backend sim: not available: the driver is missing" in text
    assert "to mend it: plug it in" in text


def test_no_working_backend_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(registry, "backends", lambda: {"sim": SimBackend(reason="the driver is missing")})
    with pytest.raises(typer.Exit) as stop:
        doctor.command()
    assert stop.value.exit_code == 1
    assert "no backend works" in capsys.readouterr().err


def test_an_entry_point_that_fails_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(Registry, "failed", lambda self: {"broken": "ImportError: no libbroken"})
    doctor.command()
    assert "backend broken: its entry point could not be loaded: ImportError: no libbroken" in capsys.readouterr().out


def test_a_kernel_whose_library_is_missing_is_shown_with_the_remedy(monkeypatch, capsys):
    reason = "torch is not installed (pip install torch)"
    (kernel,) = [kernel for kernel in registry.kernels("fft") if kernel.name == "torch"]
    monkeypatch.setattr(type(kernel), "supports", lambda self, request: reason)
    doctor.command()
    assert f"fft/torch on cpu: {reason}" in capsys.readouterr().out
