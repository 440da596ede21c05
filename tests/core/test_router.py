"""The router against profiles made up for the purpose, and the dispatcher on a simulated slow device."""

from __future__ import annotations

import math

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core import errors as ac_errors
from adaptive_compute.core.array import Operand
from adaptive_compute.core.curve import Measurement
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import (
    ArgumentError,
    BackendUnavailable,
    DeviceLost,
    DeviceOutOfMemory,
    NoKernelError,
    SetAsideWarning,
    TransferDenied,
    TransferWarning,
)
from adaptive_compute.core.operations.fft_rule import FAMILY
from adaptive_compute.core.profile import Link, Profile, Section
from adaptive_compute.core.registry import registry
from adaptive_compute.core.router import Router
from tests.simulated import SimArray, SimBackend, SimFFT, installed

X = np.arange(256.0) + 0j


def curve(seconds, error=1e-16, spread=0.01):
    """Return what makes a kernel's measurements: ``seconds`` for 256 points."""

    def points(kernel):
        features = kernel.features(FAMILY.example((256,), "complex128"))
        return {features.name: [Measurement(features.at, seconds, spread, error)]}

    return points


def use(cpu=None, sim=None, link=None, rejected=None):
    def measured(device, made):
        named = {k.name: k for k in registry.kernels("fft") if k.device == device}
        return {"fft": {name: points(named[name]) for name, points in (made or {}).items()}}

    sections = {"cpu": Section({}, measured("cpu", cpu), rejected or {})}
    if sim is not None:
        sections["sim:0"] = Section({}, measured("sim:0", sim), {}, link, link)
    dispatcher.use_profile(Profile(sections))


@pytest.fixture
def sim():
    with installed(SimBackend(SimFFT())) as backend:
        ac.transfers(reset=True)
        yield backend


def test_the_kernel_predicted_to_finish_first_is_chosen():
    use({"pocketfft": curve(5e-6), "torch": curve(4e-6)})
    assert ac.explain(ac.fft, X).chosen.name == "torch"
    use({"pocketfft": curve(4e-6), "torch": curve(5e-6)})
    decision = ac.explain(ac.fft, X)
    assert decision.chosen.name == "pocketfft"
    assert "1.25x" in decision.reason


def test_what_was_not_measured_never_beats_what_was():
    use({"torch": curve(1.0)})
    assert ac.explain(ac.fft, X).chosen.name == "torch"


def test_a_far_device_wins_only_when_its_lead_pays_for_the_transfers(sim):
    link = Link(1e-6, 1e9)  # 256 complex values: 1 + 4.1 us each way
    use({"pocketfft": curve(30e-6)}, {"simfft": curve(10e-6)}, link)
    decision = ac.explain(ac.fft, X)
    assert decision.chosen.device == "sim:0"
    assert decision.chosen.transfer_s == pytest.approx(2 * (1e-6 + X.nbytes / 1e9))
    use({"pocketfft": curve(18e-6)}, {"simfft": curve(10e-6)}, link)
    assert ac.explain(ac.fft, X).chosen.device == "cpu"


def test_what_moves_both_ways_at_once_is_predicted_by_its_slower_direction(sim, monkeypatch):
    use({"pocketfft": curve(100e-6)}, {"simfft": curve(1e-6)}, Link(1e-6, 1e9))
    one_way = 1e-6 + X.nbytes / 1e9
    for stages, ways in ((1, 2.0), (2, 1.5), (4, 1.25)):
        monkeypatch.setattr(SimFFT, "stages", lambda self, request, n=stages: n)
        dispatcher.invalidate()
        found = [c for c in ac.explain(ac.fft, X).candidates if c.device == "sim:0"]
        assert found[0].transfer_s == pytest.approx(ways * one_way)


def test_within_the_noise_the_data_stays_where_it_is(sim):
    link = Link(0.0, math.inf)
    use({"pocketfft": curve(10.2e-6, spread=0.04)}, {"simfft": curve(10e-6)}, link)
    decision = ac.explain(ac.fft, X)
    assert decision.chosen.device == "cpu"
    assert "noise" in decision.reason
    use({"pocketfft": curve(10.2e-6, spread=0.001)}, {"simfft": curve(10e-6, spread=0.001)}, link)
    assert ac.explain(ac.fft, X).chosen.device == "sim:0"


def test_noise_never_counts_for_more_than_five_percent(sim):
    use({"pocketfft": curve(10.8e-6, spread=0.5)}, {"simfft": curve(10e-6, spread=0.5)}, Link(0.0, math.inf))
    assert ac.explain(ac.fft, X).chosen.device == "sim:0"


def test_a_device_whose_link_was_not_measured_is_not_chosen(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, None)
    assert ac.explain(ac.fft, X).chosen.device == "cpu"


def test_a_software_device_is_believed_only_where_it_was_measured(sim):
    use({"pocketfft": curve(1e-3)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    larger = np.tile(X, 64)
    assert ac.explain(ac.fft, larger).chosen.device == "sim:0"
    sim.software = lambda device: True
    dispatcher.invalidate()
    assert ac.explain(ac.fft, larger).chosen.device == "cpu"
    assert ac.explain(ac.fft, X).chosen.device == "sim:0"


def test_a_call_on_the_far_device_is_right_and_its_transfers_are_counted(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    y = ac.fft(X)
    assert type(y) is np.ndarray
    np.testing.assert_allclose(y, np.fft.fft(X))
    counted = ac.transfers()["transfers"]
    assert counted["cpu -> sim:0"]["bytes"] == counted["sim:0 -> cpu"]["bytes"] == X.nbytes


def test_resident_arrays_stay_and_nothing_is_transferred(sim):
    use({"pocketfft": curve(1e-9)}, {"simfft": curve(1.0)}, Link(0.0, 1e12))
    resident = ac.to(X, "sim")
    assert ac.device_of(resident) == "sim:0"
    ac.transfers(reset=True)
    y = ac.fft(ac.fft(resident))
    assert isinstance(y, SimArray)
    assert ac.transfers()["transfers"] == {}
    np.testing.assert_allclose(ac.to(y, "cpu"), np.fft.fft(np.fft.fft(X)))


def test_a_device_operand_leaves_only_when_that_is_allowed(sim):
    use({"pocketfft": curve(1e-9)}, {"simfft": curve(1.0)}, Link(0.0, 1e12))
    resident = ac.to(X, "sim:0")
    with ac.using("cpu"), pytest.raises(TransferDenied, match=r"ac\.to"):
        ac.fft(resident)
    with ac.using(transfers="allow"):
        assert ac.explain(ac.fft, resident).chosen.device == "cpu"
        assert isinstance(ac.fft(resident), SimArray)
    with ac.using("cpu", transfers="log"), pytest.warns(TransferWarning, match="sim:0"):
        ac.fft(resident)


def test_deny_keeps_host_operands_on_the_host(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    with ac.using(transfers="deny"):
        assert ac.explain(ac.fft, X).chosen.device == "cpu"
        with ac.using("sim"), pytest.raises(TransferDenied):
            ac.fft(X)


def test_forcing_a_backend_raises_where_it_cannot(sim):
    with ac.using("sim"):
        assert ac.explain(ac.fft, X).chosen.name == "simfft"
        with pytest.raises(NoKernelError, match="plain forward"):
            ac.ifft(X)


def test_an_unavailable_backend_says_why_and_what_mends_it():
    with installed(SimBackend(SimFFT(), reason="no cable")), ac.using("sim"):
        with pytest.raises(BackendUnavailable, match=r"no cable.*plug it in"):
            ac.fft(X)
        with pytest.raises(BackendUnavailable, match="no cable"):
            ac.to(X, "sim")


def test_tol_opens_and_closes_candidates_by_their_measured_error():
    use({"pocketfft": curve(5e-6, error=3e-16), "torch": curve(1e-6, error=1e-12)})
    assert ac.explain(ac.fft, X).chosen.name == "pocketfft"
    with ac.using(tol=1e-10):
        assert ac.explain(ac.fft, X).chosen.name == "torch"
    assert ac.explain(ac.fft, X, tol=1e-10).chosen.name == "torch"
    with pytest.raises(NoKernelError, match="exceeds tol"):
        ac.fft(X, tol=1e-17)


def test_a_tighter_tol_than_conformance_needs_a_measurement():
    with pytest.raises(NoKernelError, match="not measured"):
        ac.fft(X, tol=1e-17)


def test_a_kernel_found_wrong_is_never_chosen_not_even_by_force():
    use({"pocketfft": curve(5e-6)}, rejected={"fft": {"torch": "off by 1"}})
    decision = ac.explain(ac.fft, X)
    assert ("torch", "found wrong when it was profiled: off by 1") in [(k.name, r) for k, r in decision.refused]
    with ac.using(kernel="torch"), pytest.raises(NoKernelError, match="off by 1"):
        ac.fft(X)


def test_extrapolation_is_flagged():
    use({"pocketfft": curve(1e-6), "torch": curve(1.0)})
    assert ac.explain(ac.fft, np.ones(1 << 21, complex)).chosen.extrapolated
    assert not ac.explain(ac.fft, np.ones(256, complex)).chosen.extrapolated


def test_viewing_as_another_kind_is_part_of_the_prediction():
    import torch

    use({"pocketfft": curve(5e-6), "torch": curve(4.5e-6)})
    dispatcher.profile.views.update({"numpy->torch": 1e-6, "torch->numpy": 1e-6})
    assert ac.explain(ac.fft, X).chosen.name == "pocketfft"
    assert ac.explain(ac.fft, torch.from_numpy(X)).chosen.name == "torch"


# Failing


def test_a_kernel_without_memory_is_set_aside_and_the_next_candidate_runs(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    (kernel,) = sim.kernels()
    kernel.fail = DeviceOutOfMemory("3 GiB wanted, 1 GiB free")
    with pytest.warns(SetAsideWarning, match=r"simfft on sim:0 .*3 GiB wanted.*pocketfft"):
        np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))
    np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))  # no second warning: it stays set aside for this request
    assert any("set aside" in r or "failed with" in r for _, r in ac.explain(ac.fft, X).refused)
    assert ac.explain(ac.fft, X[:128]).chosen.device == "sim:0"


def test_failing_while_planning_hands_over_as_well(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    sim.kernels()[0].fail_planning = DeviceOutOfMemory("no room for the plan")
    with pytest.warns(SetAsideWarning, match="no room"):
        np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))


def test_a_lost_device_is_set_aside_for_every_request(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    sim.kernels()[0].fail = DeviceLost("it fell off the bus")
    with pytest.warns(SetAsideWarning, match="bus"):
        ac.fft(X)
    decision = ac.explain(ac.fft, X[:64])
    assert decision.chosen.device == "cpu"
    assert "bus" in dict((k.name, r) for k, r in decision.refused)["simfft"]


def test_when_every_candidate_fails_the_first_cause_is_raised_and_the_next_call_tries_again(sim):
    use({}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    kernel = sim.kernels()[0]
    kernel.fail = DeviceOutOfMemory("full")
    with ac.using("sim"):
        with pytest.raises(DeviceOutOfMemory, match="full"):
            ac.fft(X)
        kernel.fail = None
        np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))


def test_other_errors_of_a_kernel_never_fall_back(sim):
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    sim.kernels()[0].fail = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        ac.fft(X)


# Caches


def test_a_repeated_call_plans_once(sim):
    with ac.using("sim"):
        for _ in range(3):
            ac.fft(X)
            ac.fftn(X)
    assert sim.kernels()[0].planned == 1


def test_plans_leave_when_their_bytes_exceed_the_budget(sim):
    kernel = sim.kernels()[0]
    kernel.nbytes = 100
    budget, dispatcher.plan_budget = dispatcher.plan_budget, 350
    try:
        with ac.using("sim"):
            for n in range(2, 12):
                ac.fft(X[:n])
            assert dispatcher.cached[1] <= 350
            ac.fft(X[:11])
            assert kernel.planned == 10
            ac.fft(X[:2])
            assert kernel.planned == 11
    finally:
        dispatcher.plan_budget = budget


def test_a_new_profile_changes_the_next_call_at_once():
    use({"pocketfft": curve(1e-6), "torch": curve(1.0)})
    ac.fft(X)
    assert dispatcher.fast
    use({"pocketfft": curve(1.0), "torch": curve(1e-6)})
    assert not dispatcher.fast
    assert ac.explain(ac.fft, X).chosen.name == "torch"


# Explaining


def test_explain_runs_nothing(sim):
    with ac.using("sim"):
        ac.explain(ac.fft, X)
    assert sim.kernels()[0].planned == 0
    assert ac.transfers()["transfers"] == {}


def test_explain_gives_plain_data_and_a_table():
    use({"pocketfft": curve(5e-6), "torch": curve(4e-6)})
    decision = ac.explain(ac.fft, X)
    data = decision.as_dict()
    assert {c["kernel"] for c in data["candidates"]} == {"pocketfft", "torch"}
    assert data["chosen"] == "torch"
    assert data["candidates"][0]["compute_s"] == pytest.approx(4e-6)
    assert "pocketfft-threads" in str(decision)


def test_explain_passes_on_the_errors_of_the_call():
    with pytest.raises(ArgumentError, match="n must be at least 1"):
        ac.explain(ac.fft, X, -1)
    with pytest.raises(ArgumentError, match="nothing to explain"):
        ac.explain(len, X)


def test_requests_tell_apart_what_differs():
    def request(x, **kwargs):
        return ac.explain(ac.fft, x, **kwargs).request

    assert request(X) == request(X.copy())
    assert hash(request(X)) == hash(request(X.copy()))
    for other in (request(X[:-1]), request(X.astype("complex64")), request(X, norm="ortho"), request(X, tol=1e-3)):
        assert other != request(X)
    assert request(X).operands == (Operand((256,), "complex128", "cpu", "numpy"),)


def test_a_result_that_cannot_fit_raises_before_anything_is_allocated():
    with pytest.raises(MemoryError, match="GiB"):
        ac.fft(np.ones(4), 10**13)


def test_two_backends_of_one_name_and_broken_ones_are_reported(monkeypatch):
    from importlib import metadata

    from adaptive_compute.core.registry import Registry

    class Point:
        def __init__(self, name):
            self.name, self.value = name, f"somewhere:{name}"

        def load(self):
            raise ImportError("no such library")

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Point("cpu"), Point("broken")])
    failed = Registry().failed()
    assert "exists already" in failed["cpu (somewhere:cpu)"]
    assert "no such library" in failed["broken"]


def test_a_backend_that_comes_or_goes_changes_the_next_call_at_once():
    ac.fft(X)
    with installed(SimBackend(SimFFT("mine", "cpu"), devices=())), ac.using(kernel="mine"):
        ac.fft(X)
    with ac.using(kernel="mine"), pytest.raises(NoKernelError, match="mine"):
        ac.fft(X)


def test_a_forced_kernel_is_tried_again_after_it_ran_out_of_memory(sim):
    kernel = sim.kernels()[0]
    kernel.fail = DeviceOutOfMemory("full")
    use({"pocketfft": curve(1.0)}, {"simfft": curve(1e-9)}, Link(0.0, 1e12))
    with pytest.warns(SetAsideWarning):
        ac.fft(X)
    kernel.fail = None
    with ac.using(kernel="simfft"):
        np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))


def test_explaining_a_function_that_cannot_be_traced_explains_the_call_itself():
    @ac.elementwise
    def positive(a):
        import torch

        return torch.where(a > 0, a, -a)

    with pytest.warns(ac_errors.UntraceableWarning):
        decision = ac.explain(positive, np.ones(7))
    assert decision.request.first.shape == (7,)


def test_a_call_without_tol_never_fails_for_accuracy():
    use({"pocketfft": curve(5e-6, error=3e-14), "torch": curve(1e-6, error=1e-12)})
    decision = ac.explain(ac.fft, X)
    assert decision.chosen.name == "pocketfft"
    assert "exceeds" in dict((k.name, r) for k, r in decision.refused)["torch"]
    np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))


def test_a_measured_link_between_two_devices_stands_for_the_way_over_the_host():
    slow = Link(1.0, 1e9)
    profile = Profile({"a:0": Section({}, up=slow, down=slow), "a:1": Section({}, up=slow, down=slow)})
    router = Router(registry, profile)
    assert router.legs("a:0", "a:1", 8) == [pytest.approx(1.0), pytest.approx(1.0)]
    profile.sections["a:1"].peers["a:0"] = Link(1e-5, 1e11)
    assert router.legs("a:0", "a:1", 8) == [pytest.approx(1e-5, rel=0.01)]
