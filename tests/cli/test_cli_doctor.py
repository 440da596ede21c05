from __future__ import annotations

import json

import pytest
import typer

from adaptive_compute.cli import doctor
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.registry import Registry, registry
from tests.simulated import SimBackend, installed


@pytest.fixture
def keep_profile(monkeypatch, tmp_path):
    """Write what the profile file shall hold; doctor finds it."""
    path = tmp_path / "profile.json"
    monkeypatch.setattr(dispatcher, "profile_path", lambda: path)
    return lambda data: path.write_text(data if isinstance(data, str) else json.dumps(data))


def test_without_a_profile_it_says_how_to_make_one(adaptive):
    report = json.loads(adaptive("doctor", "--json").stdout)
    (cpu,) = [backend for backend in report["backends"] if backend["name"] == "cpu"]
    assert cpu["available"] is True
    assert cpu["devices"]["cpu"]["facts"]["numpy"]
    assert "pocketfft" in cpu["devices"]["cpu"]["kernels"]["fft"]
    profile = report["profile"]
    assert (profile["path"], profile["state"], profile["remedy"]) == (
        str(adaptive.profile), "missing", "adaptive profile",
    )  # fmt: skip


def test_a_damaged_profile_is_a_failure(adaptive):
    adaptive.profile.write_text('{"schema": 1')
    text = adaptive("doctor", code=1).stdout
    assert f"profile {adaptive.profile}: damaged" in text
    assert "is not JSON" in text
    assert "to mend it: adaptive profile" in text


def test_a_partial_profile_lists_what_was_not_measured(profiled, keep_profile, capsys):
    keep_profile(profiled.profile.read_text())
    doctor.command(as_json=True)
    profile = json.loads(capsys.readouterr().out)["profile"]
    assert profile["state"] == "partly usable"
    assert "reduce on cpu" in profile["unmeasured"]
    assert "fft on cpu" not in profile["unmeasured"]
    assert profile["facts"]["quick"] is True


def test_a_wrong_kernel_is_named(profiled, keep_profile, capsys):
    data = json.loads(profiled.profile.read_text())
    data["devices"]["cpu"]["rejected"] = {"fft": {"torch": "relative error 1 at fft(...)"}}
    keep_profile(data)
    doctor.command()
    assert "wrong: fft/torch on cpu: relative error 1" in capsys.readouterr().out


def test_a_stale_profile_gives_the_reason(profiled, keep_profile, capsys):
    data = json.loads(profiled.profile.read_text())
    for device, section in data["devices"].items():
        section["validators"]["threads" if device == "cpu" else "device"] = "1000"
    keep_profile(data)
    doctor.command()
    text = capsys.readouterr().out
    assert ": stale\n" in text
    assert "set aside: cpu: threads was 1000" in text


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
