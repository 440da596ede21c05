from __future__ import annotations

import json
import statistics

from adaptive_compute.cli import bench


def test_regret_needs_a_profile(adaptive):
    assert "adaptive profile" in adaptive("bench", "regret", code=1).stderr


def test_regret_figures(profiled):
    command = ("bench", "regret", "--op", "fft", "--count", "2", "--seed", "3")
    figures = json.loads(profiled(*command, "--json").stdout)
    assert {"median", "mean", "p90", "p99", "worst", "count", "undecided", "seed"} <= set(figures)
    assert figures["seed"] == 3
    assert 0 <= figures["count"] + figures["undecided"] <= 2
    assert figures["median"] is None or 1 <= figures["median"] <= figures["worst"]


def test_regret_of_an_unknown_operation_is_wrong_usage(profiled):
    assert "fft" in profiled("bench", "regret", "--op", "abacus", code=2).stderr


def test_overhead_figures(monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 9)
    monkeypatch.setattr(bench, "CALLS", 5)
    figures = bench.overhead(seed=1)
    assert figures["points"] == 256
    assert min(figures["ours_us"], figures["scipy_us"], figures["kernel_us"]) > 0
    low, high = figures["over_scipy_us_quartiles"]
    assert low <= figures["over_scipy_us"] <= high


def test_overhead_times_a_call_by_the_clock(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(now))
    assert bench._seconds(lambda x: next(now), None) == (bench.CALLS + 1) / bench.CALLS


def test_overhead_json(adaptive):
    figures = json.loads(adaptive("bench", "overhead", "--json").stdout)
    assert {"ours_us", "scipy_us", "kernel_us", "over_scipy_us", "over_kernel_us", "rounds", "calls"} <= set(figures)
    assert statistics.median([figures["ours_us"], figures["scipy_us"], figures["kernel_us"]]) < 1e4
