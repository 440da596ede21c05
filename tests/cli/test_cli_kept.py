"""``adaptive profile --refresh``, ``--compare`` and ``--merge``, and a wrong and a slow kernel in their words."""

from __future__ import annotations

import json

import pytest

from adaptive_compute.cli import kept
from adaptive_compute.core.profile import Profile


@pytest.fixture
def copied(profiled, adaptive):
    """A profile of its own, as it was measured."""
    adaptive.profile.write_bytes(profiled.profile.read_bytes())
    return adaptive


def slowed(path, target, factor):
    profile = Profile.load(path)
    for points in profile.sections["cpu"].kernels["fft"]["pocketfft"].values():
        points[:] = [point._replace(seconds=factor * point.seconds) for point in points]
    profile.save(target)


def test_compare_names_the_kernel_that_became_slower(profiled, copied):
    slowed(profiled.profile, copied.profile, 4.0)
    shown = copied("profile", "--compare", profiled.profile).stdout
    assert "slower: fft/pocketfft on cpu" in shown
    found = json.loads(copied("profile", "--compare", profiled.profile, "--json").stdout)
    assert [change["kernel"] for change in found["slower"]] == ["pocketfft"]
    assert found["validators"] == {}


def test_compare_with_itself_finds_nothing(profiled, copied):
    found = json.loads(copied("profile", "--compare", profiled.profile, "--json").stdout)
    assert found["slower"] == found["wrong"] == []
    assert found["only"] == {"newer": [], "older": []}
    assert all(change["ratio"] == pytest.approx(1.0, abs=0.5) for change in found["changes"])


def test_refresh_measures_what_a_profile_lacks_and_keeps_the_rest(copied):
    before = Profile.load(copied.profile)
    result = copied("profile", "--refresh", "--quick", "--budget", "2", "--json")
    measured = json.loads(result.stdout)["measured"]
    after = Profile.load(copied.profile)
    assert {row["reason"] for row in measured if row["device"] == "cpu"} == {"it was not measured"}
    assert after.sections["cpu"].kernels["fft"] == before.sections["cpu"].kernels["fft"]
    assert "gather" in after.sections["cpu"].kernels


def test_merge_takes_what_holds_here_and_says_why_it_leaves_the_rest(profiled, adaptive, tmp_path):
    foreign = Profile.load(profiled.profile)
    foreign.sections["cpu"].validators["processor"] = "an abacus"
    foreign.save(tmp_path / "foreign.json")
    shown = adaptive("profile", "--merge", profiled.profile, "--merge", tmp_path / "foreign.json").stdout
    assert "taken" in shown
    assert "processor was an abacus" in shown
    merged = Profile.load(adaptive.profile)
    assert merged.sections["cpu"].kernels == Profile.load(profiled.profile).sections["cpu"].kernels


@pytest.mark.parametrize("options", [("--refresh", "--op", "fft"), ("--compare", "x", "--merge", "y")])
def test_choices_that_exclude_one_another_are_refused(adaptive, options):
    assert "exclude one another" in adaptive("profile", *options, code=2).stderr


def test_a_file_to_compare_with_that_is_not_there_is_named(copied):
    assert "nowhere.json" in copied("profile", "--compare", "nowhere.json", code=1).stderr


def test_doctor_tells_of_a_kernel_far_behind_its_sibling(profiled, copied):
    slowed(profiled.profile, copied.profile, 1000.0)
    report = json.loads(copied("doctor", "--json").stdout)
    lag = next(entry for entry in report["profile"]["far_behind"] if entry["kernel"] == "pocketfft")
    assert lag["ratio"] >= 3
    assert "far behind: fft/pocketfft on cpu" in kept.told_lag(lag)
