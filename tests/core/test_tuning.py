"""What a backend chooses for a device is measured by ``measure``, kept in the profile and handed back with it."""

from __future__ import annotations

import pytest

from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import ProfileError
from adaptive_compute.core.measure import measure
from adaptive_compute.core.profile import Profile, Section
from adaptive_compute.core.registry import registry
from tests.simulated import SimBackend, SimFFT, installed


class Tunable(SimBackend):
    """A simulated device whose search always finds the same."""

    def __init__(self, *kernels):
        super().__init__(*kernels)
        self.applied: list[dict] = []
        self.asked: list[tuple] = []
        self.fail: Exception | None = None

    def tune(self, device, operations, budget):
        self.asked.append((device, tuple(operations), budget))
        if self.fail is not None:
            raise self.fail
        return {"fft.tile": (8, 4), "fft.local": 64}

    def apply(self, device, tuning):
        self.applied.append(dict(tuning))


def test_a_search_is_part_of_measuring_and_of_the_file(tmp_path):
    with installed(Tunable(SimFFT())) as backend:
        profile = measure(registry, operations=["fft"], backends=["sim"], quick=True, budget=2.0)
        ((device, operations, budget),) = backend.asked
        assert (device, operations) == ("sim:0", ("fft",))
        assert 0 < budget < 1
        assert backend.applied == [{"fft.tile": (8, 4), "fft.local": 64}], "kernels are timed with what was chosen"
        profile.save(tmp_path / "profile.json")
        kept = Profile.load(tmp_path / "profile.json")
        assert kept.sections["sim:0"].tuning == {"fft.tile": (8, 4), "fft.local": 64}


def test_a_profile_in_use_is_applied_and_the_next_one_takes_it_back():
    section = Section({"driver": "1"}, tuning={"fft.local": 128})
    with installed(Tunable(SimFFT())) as backend:
        dispatcher.use_profile(Profile({"sim:0": section}))
        assert backend.applied == [{"fft.local": 128}]
        dispatcher.use_profile(Profile())
        assert backend.applied == [{"fft.local": 128}, {}]
        dispatcher.use_profile(Profile())
        assert len(backend.applied) == 2


def test_a_section_that_is_set_aside_is_not_applied(monkeypatch, tmp_path):
    path = tmp_path / "profile.json"
    Profile({"sim:0": Section({"driver": "another"}, tuning={"fft.local": 128})}).save(path)
    monkeypatch.setattr("adaptive_compute.core.dispatcher.profile_path", lambda asked: path)
    with installed(Tunable(SimFFT())) as backend:
        dispatcher.use_profile(None)
        with pytest.warns(UserWarning, match="driver was another"):
            assert dispatcher.profile.sections == {}
        assert backend.applied == []


def test_merging_keeps_what_was_not_searched_again():
    old = Profile({"sim:0": Section({"driver": "1"}, tuning={"a": 1, "b": 2})})
    old.merge(Profile({"sim:0": Section({"driver": "1"}, tuning={"b": 3})}))
    assert old.sections["sim:0"].tuning == {"a": 1, "b": 3}


def test_a_search_that_fails_leaves_its_device_out_with_the_reason():
    with installed(Tunable(SimFFT())) as backend:
        backend.fail = RuntimeError("the device hiccuped")
        profile = measure(registry, operations=["fft"], backends=["sim"], quick=True, budget=2.0)
        assert profile.sections == {}
        assert "the device hiccuped" in profile.facts["broken"]["sim:0"]


@pytest.mark.parametrize("value", [1.5, None, {"a": 1}, [1, "x"], [[1]]])
def test_a_damaged_choice_is_told(value):
    data = Profile({"cpu": Section({})}).as_dict()
    data["devices"]["cpu"]["tuning"] = {"fft.local": value}
    with pytest.raises(ProfileError, match="damaged"):
        Profile.from_dict(data)


def test_a_profile_of_before_tuning_still_loads():
    data = Profile({"cpu": Section({})}).as_dict()
    del data["devices"]["cpu"]["tuning"]
    assert Profile.from_dict(data).sections["cpu"].tuning == {}
