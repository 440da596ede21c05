"""What ``explain`` answers to "why is my call slow?", on a machine made up for the purpose."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.advice import show_bytes
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import DeviceOutOfMemory, SetAsideWarning
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations import operations
from adaptive_compute.core.profile import Link
from adaptive_compute.core.settings import available_threads, explaining
from tests.profiles import Took, made_up
from tests.simulated import SimBackend, SimFFT, installed

X = np.arange(256.0) + 0j
FAMILY = operations()["fft"]
REQUEST = FAMILY.example((256,), "complex128")


@pytest.fixture(autouse=True)
def sim():
    with installed(SimBackend(SimFFT())) as backend:
        yield backend
    dispatcher.use_profile(None)


def use(*rows, link=None, facts=None):
    dispatcher.use_profile(made_up(rows, {"sim:0": link} if link else None, facts))


def advice(function=ac.fft, *args, **kwargs):
    return ac.explain(function, *(args or (X,)), **kwargs).advice


def on_sim(request, seconds):
    return Took(request, seconds, device="sim:0")


def test_bytes_moved_and_the_time_lost_to_them_are_told():
    link = Link(1e-6, 1e9)
    use(Took(REQUEST, 1e-3), on_sim(REQUEST, 1e-5), link=link)
    told = advice()
    assert told.moved_bytes == 2 * X.nbytes
    assert told.transfer_s == pytest.approx(2 * (1e-6 + X.nbytes / 1e9))
    assert told.total_s == pytest.approx(told.transfer_s + 1e-5)
    assert told.lines()[0] == "8.19 kB move between devices in each call: 10.2 us of 20.2 us (50%)"
    with ac.using("cpu"):
        here = advice()
    assert (here.moved_bytes, here.transfer_s) == (0, 0)
    assert here.lines()[0] == "nothing is moved between devices"


def test_resident_operands_are_suggested_with_what_they_save():
    use(Took(REQUEST, 1e-3), on_sim(REQUEST, 1e-5), link=Link(1e-6, 1e9))
    decision = ac.explain(ac.fft, X)
    text, saves = decision.advice.suggestions[0]
    assert "keep x on sim:0, ac.to(x, 'sim:0')" in text
    assert "saves 10.2 us a call (2.0x faster)" in text
    resident = ac.explain(ac.fft, ac.to(X, "sim:0")).chosen.total_s
    assert decision.chosen.total_s - saves == pytest.approx(resident)
    assert f"to be faster: {text}" in str(decision)


def test_a_device_that_transfers_keep_from_winning_is_suggested_too():
    use(Took(REQUEST, 1e-4), on_sim(REQUEST, 1e-6), link=Link(1e-3, 1e9))
    decision = ac.explain(ac.fft, X)
    assert decision.chosen.device == "cpu"
    assert "ac.to(x, 'sim:0')" in decision.advice.suggestions[0].text
    assert "100.0x faster" in decision.advice.suggestions[0].text


@pytest.mark.parametrize("seed", range(200))
def test_what_is_promised_is_what_the_router_predicts_then(seed):
    rng = np.random.default_rng(seed)
    link = Link(10 ** rng.uniform(-7, -3), 10 ** rng.uniform(8, 11))
    host, there = 10 ** rng.uniform(-6, -2, 2)
    use(Took(REQUEST, host), on_sim(REQUEST, there), link=link)
    decision = ac.explain(ac.fft, X)
    resident = ac.explain(ac.fft, ac.to(X, "sim:0")).chosen.total_s
    kept = [s for s in decision.advice.suggestions if "ac.to" in s.text]
    if resident * 1.1 < decision.chosen.total_s:
        assert kept[0].saves_s == pytest.approx(decision.chosen.total_s - resident, rel=1e-6)
    else:
        assert not kept
    saved = [s.saves_s for s in decision.advice.suggestions if s.saves_s is not None]
    assert saved == sorted(saved, reverse=True)
    assert all(0 < s < decision.chosen.total_s for s in saved)


def test_a_prime_length_leads_to_one_that_is_padded():
    prime, padded = (FAMILY.example((n,), "complex128") for n in (10007, 10080))
    use(Took(prime, 9e-4), Took(padded, 1e-4))
    decision, easy = (ac.explain(ac.fft, np.ones(n, complex)) for n in (10007, 10080))
    text, saves = decision.advice.suggestions[0]
    assert text.startswith("length 10007 is prime: pad to 10080")
    assert saves == pytest.approx(decision.chosen.total_s - easy.chosen.total_s)
    assert f"({decision.chosen.total_s / easy.chosen.total_s:.1f}x faster)" in text
    use(Took(prime, 1e-4), Took(padded, 9e-4))
    assert not any("pad" in s.text for s in advice(ac.fft, np.ones(10007, complex)).suggestions)
    rough = FAMILY.example((2 * 5003,), "complex128")
    use(Took(rough, 9e-4), Took(padded, 1e-4))
    assert advice(ac.fft, np.ones(10006, complex)).suggestions[0].text.startswith("length 10006 has the factor 5003")


def test_many_small_calls_lead_to_one_batch():
    many = FAMILY.example((16, 256), "complex128")
    use(Took(REQUEST, 1e-4), Took(many, 2e-4))
    one, batch = ac.explain(ac.fft, X), ac.explain(ac.fft, np.ones((16, 256), complex))
    text, saves = one.advice.suggestions[0]
    assert text.startswith("16 such calls as one, with a leading axis: saves ")
    assert saves == pytest.approx(one.chosen.total_s - batch.chosen.total_s / 16)
    use(Took(REQUEST, 1e-5), Took(many, 16e-5))
    assert not any("as one" in s.text for s in advice().suggestions)


def test_a_lower_precision_is_suggested_with_its_error():
    use(Took(REQUEST, 1e-4), Took(FAMILY.example((256,), "complex64"), 1e-5, 3e-7))
    text = advice().suggestions[0].text
    saved = re.match(r"operands in complex64 at error 3e-07: saves ([\d.]+) us a call \(([\d.]+)x faster\)", text)
    assert [float(number) for number in saved.groups()] == [pytest.approx(90, rel=0.05), pytest.approx(10, rel=0.05)]
    assert not any("complex64" in s.text for s in advice(ac.fft, X.astype(np.complex64)).suggestions)


def test_a_looser_tol_is_suggested_that_really_lets_the_kernel_run():
    use(Took(REQUEST, 1e-4, 3e-16, ("pocketfft",)), Took(REQUEST, 1e-5, 2e-12, ("torch",)))
    decision = ac.explain(ac.fft, X)
    (text,) = (s.text for s in decision.advice.suggestions if s.text.startswith("tol="))
    assert text.startswith("tol=3e-12 lets torch run on cpu, at error 2e-12")
    assert ac.explain(ac.fft, X, tol=float(text[4:9])).chosen.name == "torch"


def test_what_the_settings_keep_from_running_is_suggested():
    use(Took(REQUEST, 1e-3), on_sim(REQUEST, 1e-5), link=Link(0.0, 1e12))
    with ac.using("cpu"):
        text = advice().suggestions[0].text
    assert text.startswith("without backend='cpu', simfft on sim:0 runs: saves 990 us a call")
    with ac.using(transfers="deny"):
        assert advice().suggestions[0].text.startswith("ac.using(transfers='allow') lets simfft run on sim:0")
    use(Took(REQUEST, 1e-6), on_sim(REQUEST, 1e-3), link=Link(0.0, 1e12))
    assert "transfers='allow'" in advice(ac.fft, ac.to(X, "sim:0")).suggestions[0].text


@pytest.mark.skipif(available_threads() < 2, reason="this machine has one processor")
def test_more_threads_are_suggested_where_they_were_kept_back():
    many = FAMILY.example((64, 256), "complex128")
    rows = [Took(many, 1e-3, kernels=("pocketfft",)), Took(many, 1e-4, kernels=("pocketfft-threads",))]
    use(*rows)
    with ac.using(threads=1):
        text = advice(ac.fft, np.ones((64, 256), complex)).suggestions[0].text
    assert text.startswith(f"allow {available_threads()} threads instead of 1")


def test_without_measurements_the_suggestion_is_to_measure():
    dispatcher.use_profile(made_up([]))
    dispatcher.profile.sections.clear()
    assert advice().suggestions[0].text.startswith("run `adaptive profile`: this machine was not measured")
    use(Took(operations()["reduce"].example((8,), "float64"), 1e-6))
    assert "fft was not measured" in advice().suggestions[0].text
    use(Took(REQUEST, 1e-6), facts={"quick": True})
    told = advice(ac.fft, np.ones(1 << 18, complex))
    assert "--quick" in told.suggestions[-1].text
    assert told.extrapolated in told.lines()
    assert advice().extrapolated is None


def test_where_nothing_is_faster_that_is_said():
    many = FAMILY.example((16, 256), "complex128")
    low = FAMILY.example((256,), "complex64")
    use(
        Took(REQUEST, 1e-6), Took(many, 16e-6), Took(low, 1e-6), on_sim(REQUEST, 1e-3), on_sim(many, 1e-3),
        link=Link(1e-3, 1e9),
    )  # fmt: skip
    told = advice()
    rest = [s for s in told.suggestions if s.saves_s is not None]
    assert rest == []
    with ac.using("cpu"):
        assert not [s for s in advice().suggestions if s.saves_s is not None]


def test_kernels_that_are_set_aside_are_named_with_the_reason(sim):
    use(Took(REQUEST, 1e-3), on_sim(REQUEST, 1e-9), link=Link(0.0, 1e12))
    dispatcher.profile.sections["cpu"].rejected["fft"] = {"torch": "off by 1"}
    dispatcher.profile.stale["gone:0"] = "device gone:0 is not here"
    sim.kernels()[0].fail = DeviceOutOfMemory("3 GiB wanted")
    with pytest.warns(SetAsideWarning):
        ac.fft(X)
    told = "\n".join(advice().lines())
    assert "not in use: torch on cpu (found wrong when it was profiled: off by 1)" in told
    assert "not in use: simfft on sim:0 (failed with DeviceOutOfMemory: 3 GiB wanted)" in told
    assert "not in use: the profile of gone:0 (device gone:0 is not here)" in told


def test_advice_is_plain_data_too():
    use(Took(REQUEST, 1e-3), on_sim(REQUEST, 1e-5), link=Link(1e-6, 1e9))
    data = ac.explain(ac.fft, X).as_dict()["advice"]
    assert data["moved_bytes"] == 2 * X.nbytes
    assert data["suggestion"] == data["suggestions"][0]
    assert data["suggestion"]["saves_s"] > 0


def test_sizes_have_a_unit_that_fits():
    assert [show_bytes(n) for n in (17, 8192, 3.5e6, 2e9)] == ["17 bytes", "8.19 kB", "3.5 MB", "2 GB"]


def test_every_variant_is_a_request_of_its_operation():
    shapes = {"fft": (10007,), "nufft": (64,), "attention": (2, 64, 32), "elementwise": (64,)}
    for name, shape in shapes.items():
        request = operations()[name].example(shape, "complex64" if name in ("fft", "nufft") else "float32")
        variants = list(operations()[name].variants(request))
        assert variants
        for variant in variants:
            work = request.operation.work(variant.request).flops
            assert work == pytest.approx(variant.calls * request.operation.work(request).flops, rel=0.02)
            arrays = request.operation.arrays(variant.request, np.random.default_rng(0))
            kernel = next(k for k in dispatcher.registry.kernels(name) if k.supports(variant.request) is True)
            result = kernel.plan(variant.request).run(*arrays) if kernel.native == "numpy" else None
            if result is not None:
                assert request.operation.error(variant.request, arrays, result) < 1e-4


@pytest.mark.parametrize("call", ["fft", "attention", "evaluate", "nufft"])
def test_explaining_takes_less_than_two_milliseconds(call):
    q = np.ones((8, 64, 64))
    calls = {
        "fft": lambda: ac.explain(ac.fft, np.ones(10007, complex)),
        "attention": lambda: ac.explain(ac.attention, q, q, q),
        "evaluate": lambda: ac.explain(ac.evaluate, "a*b + sin(c)", a=X, b=X, c=X),
        "nufft": lambda: ac.explain(ac.nufft.nufft1d1, np.ones(1000), np.ones(1000, complex), 100),
    }
    request = calls[call]().request
    with explaining(False):
        use(
            Took(request, 1e-4),
            *(Took(v.request, 1e-4) for v in request.operation.variants(request)),
            Took(Request(request.operation, request.operands, request.params, 0.1, request.threads), 1e-4),
        )
    taken = []
    for _ in range(30):
        start = time.perf_counter()
        calls[call]()
        taken.append(time.perf_counter() - start)
    assert min(taken) < 2e-3
