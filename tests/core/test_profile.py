from __future__ import annotations

import json
import os
import threading
import warnings

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.curve import Measurement
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import NoProfileWarning, ProfileError
from adaptive_compute.core.operations.fft_rule import FAMILY
from adaptive_compute.core.profile import Link, Profile, Section, default_path, locked
from adaptive_compute.core.registry import registry


def profile(validators=None, kernel="pocketfft", seconds=1e-5):
    by_name = {k.name: k for k in registry.kernels("fft")}
    places = [by_name.get(kernel, by_name["torch"]).features(FAMILY.example((n,), "complex128")) for n in (256, 1024)]
    points = [
        Measurement(places[0].at, seconds, 0.02, 1e-16),
        Measurement(places[1].at, 4 * seconds, 0.02, None),
    ]
    section = Section(validators or {"v": "1"}, {"fft": {kernel: {"float64": points}}}, {"fft": {"bad": "off by 1"}})
    section.up, section.down = Link(1e-5, 1e9), Link(2e-5, 2e9)
    return Profile({"cpu": section}, {"numpy->torch": 1e-6}, {"note": "test"})


@pytest.fixture
def profile_file(tmp_path, monkeypatch):
    """A path that the dispatcher reads its profile from, as a fresh process would."""
    path = tmp_path / "profile.json"
    monkeypatch.setenv("ADAPTIVE_PROFILE", str(path))
    ac.settings.reload()
    dispatcher.use_profile(None)
    yield path
    monkeypatch.undo()
    ac.settings.reload()


def test_saving_and_loading_keeps_everything(tmp_path):
    before = profile()
    before.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json").as_dict() == before.as_dict()


def test_no_profile_says_so_once_and_still_computes(profile_file):
    with pytest.warns(NoProfileWarning, match="adaptive profile"):
        y = ac.fft(np.ones(4))
    assert y[0] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ac.ifft(np.ones(8))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "12", '{"schema": 1}', '{"schema": 99, "devices": {}}', '{"other": "file"}',
        '{"schema": 1, "devices": {"cpu": []}}', '{"schema": 1, "devices": {"cpu": {"validators": {}}}}',
        "\x00\x01", "[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_profile_is_named_and_not_used(profile_file, text):
    profile_file.write_text(text)
    with pytest.raises(ProfileError, match=r"profile\.json"):
        Profile.load(profile_file)
    with pytest.warns(NoProfileWarning, match=r"profile\.json"):
        assert ac.fft(np.ones(4))[0] == 4
    assert profile_file.read_text() == text


def test_a_truncated_profile_is_never_half_used(profile_file):
    profile().save(profile_file)
    whole = profile_file.read_bytes()
    for keep in range(0, len(whole) - 1, 97):
        profile_file.write_bytes(whole[:keep])
        with pytest.raises(ProfileError):
            Profile.load(profile_file)


@pytest.mark.parametrize("bad", ["nan", -1.0, "fast", None, True, float("inf"), 10**400, 1e308])
def test_a_damaged_number_is_refused(tmp_path, bad):
    data = profile().as_dict()
    data["devices"]["cpu"]["kernels"]["fft"]["pocketfft"]["float64"][0][1] = bad
    with pytest.raises(ProfileError, match="damaged"):
        Profile.from_dict(json.loads(json.dumps(data)))


def test_a_foreign_section_is_set_aside_with_the_reason(profile_file):
    profile({"processor": "another machine"}).save(profile_file)
    with pytest.warns(NoProfileWarning, match="processor was another machine"):
        ac.fft(np.ones(4))
    assert "cpu" in dispatcher.profile.stale
    assert dispatcher.explain(ac.fft, np.ones(256)).chosen.compute_s is None


def test_a_valid_section_is_used(profile_file):
    profile(dict(registry.backend_of("cpu").validators("cpu"))).save(profile_file)
    with ac.using(threads=1):
        decision = ac.explain(ac.fft, np.ones(256))
    assert decision.chosen.name == "pocketfft"
    assert decision.chosen.compute_s == pytest.approx(1e-5, rel=0.01)


def test_an_unwritable_place_is_reported_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    profile().save(path)
    before = path.read_bytes()

    def no_space(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(ProfileError, match="cannot write"):
        profile(seconds=5.0).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_a_file_in_the_way_of_the_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfileError, match="cannot"):
        profile().save(tmp_path / "file" / "p.json")


def test_merging_replaces_what_was_measured_again_and_keeps_the_rest():
    old, new = profile(), profile(kernel="torch", seconds=9e-5)
    new.sections["cpu"].rejected = {"fft": {"wrong": "by a factor"}}
    old.merge(new)
    assert set(old.sections["cpu"].kernels["fft"]) == {"pocketfft", "torch"}
    assert set(old.sections["cpu"].rejected["fft"]) == {"bad", "wrong"}


def test_merging_clears_a_rejection_once_the_kernel_measures_right():
    old, new = profile(), profile(kernel="bad")
    new.sections["cpu"].rejected = {}
    old.merge(new)
    assert old.rejection("cpu", "fft", "bad") is None
    assert old.curves("cpu", "fft", "bad")


def test_a_section_with_other_validators_replaces_the_old_one_whole():
    old, new = profile({"v": "1"}), profile({"v": "2"}, kernel="torch")
    old.merge(new)
    assert set(old.sections["cpu"].kernels["fft"]) == {"torch"}


def test_writers_that_merge_under_the_lock_lose_nothing(tmp_path):
    path = tmp_path / "p.json"

    def add(index):
        for turn in range(5):
            with locked(path):
                merged = Profile.load(path) if path.exists() else Profile()
                merged.merge(profile(kernel=f"k{index}-{turn}"))
                merged.save(path)

    threads = [threading.Thread(target=add, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Profile.load(path).sections["cpu"].kernels["fft"]) == 20


def test_a_lock_that_is_held_is_reported(tmp_path):
    path = tmp_path / "p.json"
    with locked(path), pytest.raises(ProfileError, match="held by another"), locked(path, timeout=0.1):
        pass


def test_the_default_path_is_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(default_path()).endswith(os.path.join("adaptive-compute", "profile.json"))


def test_a_number_without_end_is_reported(tmp_path):
    (tmp_path / "p.json").write_text('{"schema": 1, "devices": {}, "facts": {"a": ' + "1" * 5000 + "}}")
    with pytest.raises(ProfileError, match="not JSON"):
        Profile.load(tmp_path / "p.json")


def test_points_with_a_wrong_number_of_coordinates_predict_nothing(profile_file):
    made = profile(dict(registry.backend_of("cpu").validators("cpu")))
    points = made.sections["cpu"].kernels["fft"]["pocketfft"]["float64"]
    points[:] = [p._replace(at=(*p.at, 1.0)) for p in points]
    made.save(profile_file)
    assert ac.explain(ac.fft, np.ones(256)).chosen.compute_s is None


@pytest.mark.parametrize("path", ["~nobody-of-this-name/p.json", "x" * 5000, "/proc/1/root/secret/p.json/below"])
def test_a_place_that_cannot_be_looked_at_is_a_warning_and_the_call_runs(monkeypatch, path):
    monkeypatch.setenv("ADAPTIVE_PROFILE", path)
    ac.settings.reload()
    dispatcher.use_profile(None)
    try:
        with pytest.warns(NoProfileWarning):
            assert ac.fft(np.ones(4))[0] == 4
    finally:
        monkeypatch.undo()
        ac.settings.reload()


def test_a_stale_section_does_not_cost_the_valid_one_where_warnings_are_errors(profile_file):
    made = profile(dict(registry.backend_of("cpu").validators("cpu")))
    made.sections["gone:0"] = Section({"driver": "1"})
    made.save(profile_file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NoProfileWarning, match="gone:0"):
            ac.fft(np.ones(256))
        assert ac.explain(ac.fft, np.ones(256)).chosen.compute_s is not None


def test_reading_the_environment_again_reads_the_profile_again(profile_file, monkeypatch, tmp_path):
    profile(dict(registry.backend_of("cpu").validators("cpu"))).save(profile_file)
    assert dispatcher.profile.sections
    monkeypatch.setenv("ADAPTIVE_PROFILE", str(tmp_path / "none.json"))
    ac.settings.reload()
    with pytest.warns(NoProfileWarning):
        assert not dispatcher.profile.sections


def test_a_link_predicts_what_was_measured_and_goes_on_by_its_bandwidth():
    link = Link(1e-6, 1e9, ((1000, 2e-6), (10_000, 8e-6), (100_000, 1e-4)))
    assert link.seconds(1) == link.seconds(1000) == 2e-6
    assert link.seconds(10_000) == pytest.approx(8e-6)
    assert 2e-6 < link.seconds(3000) < 8e-6
    assert link.seconds(1_100_000) == pytest.approx(1e-4 + 1e-3)
    assert Link(1e-6, 1e9).seconds(1000) == pytest.approx(2e-6)


def test_links_between_devices_survive_the_file_and_a_bad_one_is_damage():
    section = Section({}, peers={"gpu:1": Link(1e-6, 1e9, ((10, 1e-6), (20, 2e-6)))})
    data = Profile({"gpu:0": section}).as_dict()
    again = Profile.from_dict(data)
    assert again.sections["gpu:0"].peers == section.peers
    assert again.peer_seconds("gpu:1", "gpu:0", 10) == pytest.approx(1e-6)
    assert again.peer_seconds("gpu:0", "gpu:1", 10) is None
    data["devices"]["gpu:0"]["peers"]["gpu:1"]["points"] = [[20, 1e-6], [10, 2e-6]]
    with pytest.raises(ProfileError, match="sizes in order"):
        Profile.from_dict(data)
