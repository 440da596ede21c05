"""How regret is counted: by rounds, so that noise is none, and beside simple rules."""

from __future__ import annotations

import pytest

from adaptive_compute.core.policies import best_threshold
from adaptive_compute.core.regret import Outcome, RegretReport, _turns


def outcome(rounds, chosen="a", nbytes=100, cpu="a", gpu="b", predicted=None):
    return Outcome(
        "fft", "a request", "cpu", nbytes, chosen, rounds, predicted or dict.fromkeys(rounds), frozenset(),
        {"always cpu": cpu, "always gpu": gpu}, "explained",
    )  # fmt: skip


def test_the_fastest_has_no_regret_and_another_its_ratio():
    rounds = {"a": [1.0] * 5, "b": [2.0] * 5}
    assert outcome(rounds).regret == 1.0
    assert outcome(rounds, chosen="b").regret == 2.0


def test_one_disturbed_round_changes_nothing():
    assert outcome({"a": [1.0, 1.0, 9.0, 1.0, 1.0], "b": [2.0] * 5}).regret == 1.0
    assert outcome({"a": [1.0] * 5, "b": [2.0, 2.0, 2.0, 40.0, 2.0]}, chosen="b").regret == 2.0


def test_what_is_slower_in_some_rounds_only_is_as_fast():
    noisy = {"a": [1.0, 1.3, 1.0, 1.3, 1.1], "b": [1.1, 1.1, 1.3, 1.0, 1.3]}
    assert outcome(noisy).regret == outcome(noisy, chosen="b").regret == 1.0
    steady = {"a": [1.0, 1.0, 1.0, 1.0, 1.3], "b": [1.2, 1.2, 1.2, 1.2, 1.2]}
    assert outcome(steady, chosen="b").regret == pytest.approx(1.2)


def test_what_ran_in_two_rounds_only_is_compared_by_those():
    assert outcome({"a": [1.0] * 5, "b": [3.0, 3.0]}, chosen="b").regret == 3.0


def test_requests_without_two_candidates_apart_do_not_count():
    close, apart = outcome({"a": [1.0] * 3, "b": [1.1] * 3}), outcome({"a": [1.0] * 3, "b": [1.3] * 3}, chosen="b")
    figures = RegretReport((close, apart), 0).as_dict()
    assert (figures["count"], figures["undecided"]) == (1, 1)
    assert figures["mean"] == pytest.approx(1.3)
    assert figures["optimal"] == 0.0


def test_rules_are_judged_by_the_same_times_and_the_threshold_is_the_best_there_is():
    small = outcome({"a": [1.0] * 3, "b": [4.0] * 3}, nbytes=1 << 10)
    large = outcome({"a": [6.0] * 3, "b": [2.0] * 3}, nbytes=1 << 20, chosen="b")
    figures = RegretReport((small, large), 0).as_dict()
    assert figures["mean"] == 1.0
    assert figures["policies"]["always cpu"]["mean"] == 2.0
    assert figures["policies"]["always gpu"]["mean"] == 2.5
    (threshold,) = [row for name, row in figures["policies"].items() if name.startswith("gpu from")]
    assert threshold["mean"] == 1.0
    assert 1 << 10 < best_threshold([(1 << 10, 1.0, 4.0), (1 << 20, 3.0, 1.0)]) <= 1 << 20


def test_the_error_of_predictions_counts_inside_what_was_measured():
    inside = outcome({"a": [1.0] * 3, "b": [2.0] * 3}, predicted={"a": 1.1, "b": 4.0})
    assert RegretReport((inside,), 0).as_dict()["prediction_error_inside"] == pytest.approx(0.55)
    outside = Outcome(**{**inside.__dict__, "extrapolated": frozenset({"b"})})
    assert RegretReport((outside,), 0).as_dict()["prediction_error_inside"] == pytest.approx(0.1)


def test_every_operation_meets_every_place():
    turns = list(_turns(["x", "y"], ["cpu", "gpu:0", "mixed gpu:0"], 6))
    assert set(turns) == {(name, home) for name in "xy" for home in ("cpu", "gpu:0", "mixed gpu:0")}
