"""Profiling: what is measured, and that a kernel made wrong or slow on purpose is found."""

from __future__ import annotations

import time

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core import measure as m
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import ArgumentError, DeviceLost
from adaptive_compute.core.operations.attention_rule import BACKWARD
from adaptive_compute.core.operations.fft_rule import FAMILY
from adaptive_compute.core.profile import Profile
from adaptive_compute.core.registry import registry
from adaptive_compute.core.regret import regret
from tests.simulated import SimBackend, SimFFT, installed


@pytest.fixture
def few(monkeypatch):
    """Profile a handful of FFT sizes only."""
    every = list(FAMILY.samples(quick=True))
    some = [r for r in every if r.params.kind == "c2c" and r.first.dtype == "complex128" and r.first.size <= 4096]
    monkeypatch.setattr(FAMILY, "samples", lambda quick: some[:12])
    return some[:12]


def measured(**kwargs):
    return m.measure(registry, operations=["fft"], quick=True, budget=2.0, **kwargs)


def test_every_kernel_is_measured_with_its_error(few):
    profile = measured()
    kernels = profile.sections["cpu"].kernels["fft"]
    assert {"pocketfft", "torch"} <= set(kernels)
    points = [p for classes in kernels.values() for points in classes.values() for p in points]
    assert all(p.seconds > 0 for p in points)
    assert all(any(p.error is not None for p in points) for classes in kernels.values() for points in classes.values())
    assert all(p.error < 2e-15 for p in points if p.error is not None)
    assert profile.sections["cpu"].validators == registry.backend_of("cpu").validators("cpu")
    assert profile.views["numpy->torch"] > 0


def test_a_wrong_kernel_never_enters_the_profile(few):
    wrong = SimFFT("wrong", "cpu", change=lambda y: y * 1.001)
    with installed(SimBackend(wrong, devices=())):
        profile = measured()
        assert "wrong" not in profile.sections["cpu"].kernels["fft"]
        assert "relative error" in profile.rejection("cpu", "fft", "wrong")
        dispatcher.use_profile(profile)
        refused = {k.name: why for k, why in ac.explain(ac.fft, np.ones(512, complex)).refused}
        assert "found wrong" in refused["wrong"]


@pytest.mark.parametrize("change", [lambda y: y * np.nan, lambda y: y[..., :-1], lambda y: np.zeros_like(y)])
def test_nan_short_and_empty_handed_results_are_wrong_too(few, change):
    with installed(SimBackend(SimFFT("wrong", "cpu", change=change), devices=())):
        assert measured().rejection("cpu", "fft", "wrong")


def test_a_kernel_that_raises_is_named_and_the_rest_is_measured(few):
    broken = SimFFT("broken", "cpu")
    broken.fail = RuntimeError("it broke")
    with installed(SimBackend(broken, devices=())):
        profile = measured()
    assert "it broke" in profile.rejection("cpu", "fft", "broken")
    assert profile.sections["cpu"].kernels["fft"]["pocketfft"]


def test_a_slow_kernel_is_measured_slow_and_not_chosen(few):
    slow = SimFFT("slow", "cpu")
    slow.delay = 0.002
    with installed(SimBackend(slow, devices=())):
        profile = measured()
        dispatcher.use_profile(profile)
        decision = ac.explain(ac.fft, np.ones(512, complex))
    times = {c.name: c.compute_s for c in decision.candidates}
    assert times["slow"] >= 0.0015  # a sleep of 2 ms, predicted
    assert decision.chosen.name != "slow"


def test_links_of_a_slow_device_are_measured_in_both_directions(few):
    backend = SimBackend(SimFFT())
    backend.seconds_per_byte = 1 / 2e9
    with installed(backend):
        section = measured().sections["sim:0"]
    for link in (section.up, section.down):
        assert 0.3e9 < link.bandwidth < 2.2e9
        assert link.latency < 0.01


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(ArgumentError, match="fft"):
        m.measure(registry, operations=["ftt"])
    with pytest.raises(ArgumentError, match="cpu"):
        m.measure(registry, backends=["gpu"])


def test_progress_is_reported_and_a_spent_budget_leaves_points_out(few):
    seen = []
    profile = m.measure(registry, operations=["fft"], quick=True, budget=1e-9, report=seen.append)
    assert profile.facts["left_out"] == len(few) - 1  # the first was measured before the time was spent
    assert seen[-1].done == seen[-1].total == len(few)


def test_regret_is_one_when_the_choice_is_the_fastest_and_is_seen_when_it_is_not(few):
    slow = SimFFT("slow", "cpu")
    with installed(SimBackend(slow, devices=())):
        profile = measured()
        classes = profile.sections["cpu"].kernels["fft"]["slow"]
        for name, points in classes.items():  # a profile that lies: it says the slow kernel takes no time
            classes[name] = [p._replace(seconds=1e-12) for p in points]
        slow.delay = 0.003
        request = few[-1]
        held_out, FAMILY.held_out = FAMILY.held_out, lambda rng: request  # type: ignore[method-assign]
        try:
            dispatcher.use_profile(Profile.from_dict(profile.as_dict()))
            lied = regret(dispatcher, count=2, operations=["fft"], homes=["cpu"]).as_dict()
            for name, points in classes.items():
                classes[name] = [p._replace(seconds=1.0) for p in points]
            dispatcher.use_profile(Profile.from_dict(profile.as_dict()))
            honest = regret(dispatcher, count=2, operations=["fft"], homes=["cpu"]).as_dict()
        finally:
            FAMILY.held_out = held_out  # type: ignore[method-assign]
    assert lied["worst"] > 5
    assert lied["worst_explain"]["chosen"] == "slow"
    assert honest["worst_explain"]["chosen"] != "slow"
    assert honest["count"] + honest["undecided"] == 2


def test_regret_takes_operands_from_each_device_in_turn(few):
    homes = []
    here = SimFFT("here", "sim:0")
    with installed(SimBackend(here, SimFFT("there", "sim:0"), devices=("sim:0",))):
        dispatcher.use_profile(measured())
        outcomes = regret(dispatcher, count=24, operations=["fft"], homes=["cpu", "sim:0"]).outcomes
        homes = [outcome.home for outcome in outcomes]
        for outcome in outcomes:
            if outcome.home == "sim:0":
                assert set(outcome.seconds) == {"here@sim:0", "there@sim:0"}
    assert {"cpu", "sim:0"} <= set(homes)


def test_kernels_of_one_name_on_two_devices_are_judged_apart(few):
    wrong, right = SimFFT("same", "sim:0", change=lambda y: y * 2), SimFFT("same", "sim:1")
    with installed(SimBackend(wrong, right, devices=("sim:0", "sim:1"))):
        profile = measured()
    assert profile.rejection("sim:0", "fft", "same")
    assert sum(map(len, profile.sections["sim:1"].kernels["fft"]["same"].values())) == len(few)


def test_a_kernel_that_dies_while_it_is_timed_costs_no_other_its_measurement(few):
    dying = SimFFT("dying", "cpu")
    runs = []

    def die_later(y):
        runs.append(1)
        if len(runs) > 3:
            raise DeviceLost("gone")
        return y

    dying.change = die_later
    with installed(SimBackend(dying, devices=())):
        profile = measured()
    assert "gone" in profile.rejection("cpu", "fft", "dying")
    assert profile.sections["cpu"].kernels["fft"]["pocketfft"]


def test_a_device_whose_link_fails_is_left_out_and_named(few):
    backend = SimBackend(SimFFT())

    def fails(host, device):
        raise DeviceLost("no answer")

    backend.upload = fails
    with installed(backend):
        profile = measured()
    assert "sim:0" not in profile.sections
    assert "no answer" in profile.facts["broken"]["sim:0"]
    assert profile.sections["cpu"].kernels["fft"]


def test_a_software_device_gets_little_time_and_in_a_quick_run_none_unless_it_is_named(few):
    backend = SimBackend(SimFFT())
    backend.software = lambda device: True  # type: ignore[method-assign]
    with installed(backend):
        quick, named = measured(), measured(backends=["sim"])
        full = m.measure(registry, operations=["fft"], backends=None, budget=2.0)
    assert "sim:0" in quick.facts["skipped"]
    assert "sim:0" not in quick.sections
    assert "simfft" in named.sections["sim:0"].kernels["fft"]
    assert "simfft" in full.sections["sim:0"].kernels["fft"]
    assert named.facts["skipped"] == full.facts["skipped"] == []


def test_the_gradient_of_attention_is_checked_against_the_request_at_hand():
    arrays = BACKWARD.arrays(BACKWARD.sample(1, 8, 8, 4, "float64", None), np.random.default_rng(0))
    errors = []
    for mask in (None, ac.Window(2), None):
        request = BACKWARD.sample(1, 8, 8, 4, "float64", mask)
        exact = BACKWARD._reference(request, arrays, 0, 1)
        errors.append(BACKWARD.error(request, arrays, [part[None, None] for part in exact]))
    assert errors == [0.0, 0.0, 0.0]


def test_a_kernel_that_compiles_is_measured_after_the_others_and_has_some_points(few, monkeypatch):
    slow, quick = SimFFT("compiled"), SimFFT("ready")
    slow.compiles, slow.planning_s = True, 0.4
    order = []
    plan = SimFFT.plan

    def planned(self, request):
        order.append(self.name)
        if self.compiles:
            time.sleep(self.planning_s)
        return plan(self, request)

    monkeypatch.setattr(SimFFT, "plan", planned)
    with installed(SimBackend(slow, quick)):
        kernels = measured().sections["sim:0"].kernels["fft"]
    assert order.index("compiled") > len(order) - 1 - order[::-1].index(
        "ready"
    )  # when the other one had all its points
    counts = {name: sum(map(len, classes.values())) for name, classes in kernels.items()}
    assert 2 <= counts["compiled"] < counts["ready"] == len(few)


def test_samples_that_tell_a_kernel_nothing_are_not_measured_for_it(few, monkeypatch):
    kernel = SimFFT("picky")
    monkeypatch.setattr(kernel, "tells", lambda request: request.first.shape[0] > 1, raising=False)
    with installed(SimBackend(kernel)):
        classes = measured().sections["sim:0"].kernels["fft"]["picky"]
    asked = sum(request.first.shape[0] > 1 for request in few)
    assert 0 < sum(map(len, classes.values())) == asked < len(few)


def test_a_gpu_adds_to_the_time_and_all_devices_share_it(few):
    seen = {}
    ledger = m.Ledger

    def kept(budgets, points):
        seen.update(budgets)
        return ledger(budgets, points)

    with pytest.MonkeyPatch.context() as patch, installed(SimBackend(SimFFT())):
        patch.setattr(m, "Ledger", kept)
        m.measure(registry, operations=["fft"], quick=True)
        alone = dict(seen)
        m.measure(registry, operations=["fft"], quick=True, budget=3.0)
    assert sum(alone.values()) == pytest.approx(m.QUICK_SECONDS + m.MORE_QUICK_SECONDS)
    assert sum(seen.values()) == pytest.approx(3.0)
    assert alone["cpu"] > alone["sim:0"]
