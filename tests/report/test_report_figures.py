"""The figures of a report: what the router predicts, what was kept of a regret run, what is wrong with a profile."""

from __future__ import annotations

import json
import math

import pytest

from adaptive_compute.core.errors import ProfileError
from adaptive_compute.core.operations import operations
from adaptive_compute.core.profile import Profile
from adaptive_compute.core.registry import registry
from adaptive_compute.core.router import Router
from adaptive_compute.core.settings import Settings
from adaptive_compute.report.charts import histogram, runs
from adaptive_compute.report.collect import collect
from adaptive_compute.report.page import says
from adaptive_compute.report.scale import Axis, decades, power, size
from adaptive_compute.report.stored import keep, load, regret_path
from adaptive_compute.report.sweeps import SWEEPS


def test_the_figures_are_json(data):
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_every_measured_operation_has_its_charts(data):
    measured = {"fft", "nufft", "attention", "elementwise"}
    assert [c["title"] for c in data["crossovers"]] == [s.title for s in SWEEPS if s.operation in measured]
    assert {c["operation"] for c in data["paretos"]} == measured


def test_a_crossover_holds_what_the_router_predicts_and_chooses(data, profile):
    chart = data["crossovers"][0]
    router = Router(registry, profile)
    for n, chosen in list(zip(chart["sizes"], chart["chosen"]))[::5]:
        decision = router.decide(operations()["fft"].example((n,), "complex64"), Settings())
        assert (chosen["kernel"], chosen["device"]) == (decision.chosen.name, decision.chosen.device)
        told = {(s["kernel"], s["device"]): p for s in chart["series"] for p in s["points"] if p["n"] == n}
        known = [c for c in decision.candidates if c.total_s is not None]
        assert len(told) == len(known)
        for c in known:
            point = told[c.name, c.device]
            assert point["total_s"] == pytest.approx(point["transfer_s"] + point["compute_s"])
            assert point["total_s"] == c.total_s
    assert {c["device"] for c in chart["chosen"]} == {"cpu", "sim:0"}  # it does cross over
    assert all(p["transfer_s"] > 0 for s in chart["series"] if s["device"] == "sim:0" for p in s["points"])


def test_nothing_beats_what_is_on_the_front(data):
    for chart in data["paretos"]:
        front = [(p["total_s"], p["error"]) for p in chart["points"] if p["pareto"]]
        assert front == sorted(front)
        for p in chart["points"]:
            place = p["total_s"], p["error"]
            beaten = any(q["total_s"] <= place[0] and q["error"] <= place[1] and (q["total_s"], q["error"]) != place
                         for q in chart["points"])  # fmt: skip
            assert not (p["pareto"] and beaten)
            assert beaten or place in front
    assert {p["precision"] for p in data["paretos"][0]["points"]} == {"float32", "float64"}


def test_links_devices_and_health_are_told(data):
    assert [(row["from"], row["to"]) for row in data["links"]] == [("cpu", "sim:0"), ("sim:0", "cpu")]
    states = {device["device"]: device["state"] for device in data["devices"]}
    assert states["cpu"] == states["sim:0"] == "in use"
    assert states["gone:0"].startswith("set aside: driver was 1")
    assert data["health"]["wrong"][0]["kernel"] == "torch"
    assert data["profile"]["age_days"] > 0
    assert sum(device["points"] for device in data["devices"]) > 100


def test_a_regret_result_is_kept_beside_its_profile(tmp_path, data, regrets):
    assert data["regret"]["state"] == "current"
    assert data["regret"]["regrets"] == regrets
    path = tmp_path / "mine.json"
    assert regret_path(path) == tmp_path / "mine.regret.json"
    profile = Profile(facts={"measured": "then"})
    none = load(path, profile)
    assert none["state"] == "none"
    assert none["command"].startswith("adaptive bench regret")
    keep(path, profile, {"mean": 1.5, "count": 4})
    assert load(path, profile)["state"] == "current"
    assert load(path, profile)["count"] == 4
    assert load(path, Profile(facts={"measured": "later"}))["state"] == "earlier"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"figures": 3}', '{"figures": {"regrets": [0.5]}}', '{"figures": {"regrets": ["x"]}}',
     '{"figures": {"regrets": [NaN]}}', '{"figures": {"mean": "x"}}', '{"figures": {"policies": [1]}}'],
)  # fmt: skip
def test_a_damaged_regret_result_is_said_and_nothing_else_breaks(tmp_path, text):
    path = tmp_path / "profile.json"
    regret_path(path).write_text(text)
    told = load(path, Profile())
    assert told["state"] == "damaged"
    assert told["reason"]


def test_a_regret_result_that_cannot_be_written_raises(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ProfileError, match="cannot write"):
        keep(blocked / "profile.json", Profile(), {})


def test_an_empty_profile_gives_an_empty_report(tmp_path):
    told = collect(registry, Profile(), tmp_path / "profile.json")
    assert told["crossovers"] == told["paretos"] == told["links"] == []
    assert {device["state"] for device in told["devices"]} == {"not measured"}


# Scales


def test_an_axis_is_logarithmic_and_clips():
    axis = Axis(1.0, 100.0, 0.0, 10.0)
    assert [axis.at(v) for v in (0.1, 1, 10, 100, 1e9)] == [0.0, 0.0, 5.0, 10.0, 10.0]
    assert axis.decades() == [1.0, 10.0, 100.0]
    assert Axis(60.0, 5000.0, 0, 1).octaves() == [64.0 * 2**k for k in range(7)]
    assert Axis(1.0, 9.0, 0, 1).ticks() == [1.0, 2.0, 5.0]
    narrow = decades([3.0, 3.0], 0, 1)
    assert narrow.low < 3.0 < narrow.high
    assert all(math.isfinite(narrow.at(v)) for v in (1, 3, 9))


def test_numbers_are_short():
    assert [size(n) for n in (12, 512, 1024, 1536, 1 << 20)] == ["12", "512", "1k", "1.5k", "1M"]
    assert [power(v) for v in (1e-6, 2e-15, 1.0)] == ["1e-6", "2e-15", "1e0"]


def test_runs_and_the_words_for_them():
    chosen = [{"n": n, "kernel": k, "device": d} for n, k, d in
              ((1, "a", "cpu"), (2, "a", "cpu"), (4, "b", "gpu:0"), (8, "b", "gpu:0"), (16, "a", "cpu"))]  # fmt: skip
    assert runs(chosen) == [(1, 2, "a", "cpu"), (4, 8, "b", "gpu:0"), (16, 16, "a", "cpu")]
    assert says({"chosen": chosen}) == "a up to 2, b on gpu:0 from 4, a from 16."
    assert says({"chosen": chosen[:2]}) == "a at every size."


def test_a_histogram_counts_every_request(regrets):
    _, counts = histogram(regrets)
    assert sum(count for _, count in counts) == len(regrets)
    assert dict(counts)["exactly 1"] == 60
    assert dict(counts)["over 3"] == 1
