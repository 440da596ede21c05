"""A profile that stays true: what is measured again, and kernels made slow on purpose."""

from __future__ import annotations

import copy

import pytest

from adaptive_compute.core import measure as m
from adaptive_compute.core.compare import compared, lagging
from adaptive_compute.core.operations.fft_rule import FAMILY
from adaptive_compute.core.profile import Link, Profile
from adaptive_compute.core.refresh import outdated, refresh
from adaptive_compute.core.registry import registry
from tests.simulated import SimBackend, SimFFT, installed


@pytest.fixture
def few(monkeypatch):
    every = list(FAMILY.samples(quick=True))
    some = [r for r in every if r.params.kind == "c2c" and r.first.dtype == "complex128" and r.first.size <= 4096][:10]
    monkeypatch.setattr(FAMILY, "samples", lambda quick: some)
    return some


@pytest.fixture
def sim(few):
    with installed(SimBackend(SimFFT("one"), SimFFT("two"))) as backend:
        yield backend


def measured(**kwargs):
    return m.measure(registry, operations=["fft"], backends=["sim"], quick=True, budget=2.0, **kwargs)


def names(old):
    return {(k.operation, k.name) for k in old if k.device == "sim:0"}


def test_a_profile_that_holds_asks_for_nothing(sim):
    assert names(outdated(measured(), registry)) == set()


def test_a_new_driver_makes_every_kernel_of_its_device_old(sim):
    profile = measured()
    sim.version = "2"
    old = outdated(profile, registry)
    assert names(old) == {("fft", "one"), ("fft", "two")}
    assert {why for k, why in old.items() if k.device == "sim:0"} == {"driver was 1, is 2"}


def test_a_new_library_makes_only_those_old_that_depend_on_it(sim, monkeypatch):
    sim.kernels()[0].libraries = ("fast",)
    sim.kernels()[1].libraries = ("other",)
    now = {"driver": "1", "fast": "1.0", "other": "1.0"}
    monkeypatch.setattr(sim, "validators", lambda device: dict(now))
    profile = measured()
    now["fast"] = "2.0"
    assert names(outdated(profile, registry)) == {("fft", "one")}


def test_a_kernel_that_is_new_is_the_only_one_measured(sim, monkeypatch):
    profile = measured()
    before = copy.deepcopy(profile.sections["sim:0"].kernels["fft"]["one"])
    registry.unregister("sim")
    with installed(SimBackend(SimFFT("one"), SimFFT("two"), SimFFT("three"))) as backend:
        everything = outdated(profile, registry)
        monkeypatch.setattr("adaptive_compute.core.refresh.outdated",
                            lambda p, r: {k: w for k, w in everything.items() if k.device == "sim:0"})  # fmt: skip
        done = refresh(profile, registry, quick=True, budget=1.0)
        assert names(done) == {("fft", "three")}
        assert backend.kernels()[0].planned == 0
    kernels = profile.sections["sim:0"].kernels["fft"]
    assert set(kernels) == {"one", "two", "three"}
    assert kernels["one"] == before


def test_refreshing_takes_over_the_new_validators_and_keeps_what_holds(sim, monkeypatch):
    sim.kernels()[0].libraries = ()
    sim.kernels()[1].libraries = ("fast",)
    now = {"driver": "1", "fast": "1.0"}
    monkeypatch.setattr(sim, "validators", lambda device: dict(now))
    profile = measured()
    profile.sections["sim:0"].rejected = {"fft": {"gone": "off by 1"}}
    before = copy.deepcopy(profile.sections["sim:0"].kernels["fft"])
    now["fast"] = "2.0"
    everything = outdated(profile, registry)
    monkeypatch.setattr("adaptive_compute.core.refresh.outdated",
                        lambda p, r: {k: w for k, w in everything.items() if k.device == "sim:0"})  # fmt: skip
    refresh(profile, registry, quick=True, budget=1.0)
    section = profile.sections["sim:0"]
    assert section.validators == now
    assert section.kernels["fft"]["one"] == before["one"]
    assert section.kernels["fft"]["two"] != before["two"]
    assert section.rejected["fft"] == {"gone": "off by 1"}
    profile.validate({"sim:0": now})
    assert "sim:0" in profile.sections


def test_a_kernel_made_slow_is_found_beside_an_earlier_profile(sim):
    earlier = measured()
    sim.kernels()[1].delay = 0.0005
    found = compared(measured(), earlier)
    assert [(c.operation, c.kernel, c.device) for c in found.slower] == [("fft", "two", "sim:0")]
    assert found.slower[0].ratio > 1.5


def test_a_machine_that_is_slower_as_a_whole_has_no_slow_kernel(sim):
    earlier = measured()
    later = Profile.from_dict(earlier.as_dict())
    for classes in later.sections["sim:0"].kernels["fft"].values():
        for name, points in classes.items():
            classes[name] = [p._replace(seconds=3 * p.seconds) for p in points]
    found = compared(later, earlier)
    assert found.slower == []
    assert found.drift["sim:0"] == pytest.approx(3.0, rel=0.1)


def test_a_kernel_made_slow_is_found_beside_its_sibling_without_an_earlier_profile(sim):
    assert not [lag for lag in lagging(measured(), registry) if lag.device == "sim:0"]
    sim.kernels()[1].delay = 0.002
    (lag,) = [lag for lag in lagging(measured(), registry) if lag.device == "sim:0"]
    assert (lag.kernel, lag.sibling) == ("two", "one")
    assert lag.ratio >= 3


def test_a_kernel_made_wrong_is_found_by_measuring_again(sim):
    earlier = measured()
    sim.kernels()[0].change = lambda y: y * 1.001
    found = compared(measured(), earlier)
    assert [(operation, kernel, device) for operation, kernel, device, _ in found.wrong] == [("fft", "one", "sim:0")]


def test_links_and_what_only_one_profile_has_are_told(sim):
    earlier = measured()
    later = Profile.from_dict(earlier.as_dict())
    section = later.sections["sim:0"]
    section.up = Link(section.up.latency * 2, section.up.bandwidth / 2, tuple((n, 2 * s) for n, s in section.up.points))
    del section.kernels["fft"]["two"]
    section.validators["driver"] = "2"
    found = compared(later, earlier)
    assert found.links["sim:0 up"] == pytest.approx(2.0, rel=1e-3)
    assert found.links["sim:0 down"] == pytest.approx(1.0, rel=1e-3)
    assert found.only == {"newer": [], "older": ["fft/two on sim:0"]}
    assert found.validators == {"sim:0": ["driver was 1, is 2"]}
