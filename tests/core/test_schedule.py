"""The order of a profile's points, and who waits: every kernel has coarse points before any has fine ones."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_compute.core import schedule as module
from adaptive_compute.core.operations import operations
from adaptive_compute.core.schedule import COARSE, FIRST, Ledger, ordered
from tests.simulated import SimFFT


@pytest.fixture
def groups():
    return ordered(list(operations().values()), True, np.random.default_rng(0))


def test_every_operation_gives_a_few_points_before_any_gives_more(groups):
    first = groups[: len(operations())]
    assert {group.operation.name for group in first} == set(operations())
    assert {len(group.requests) for group in first} == {FIRST}


def test_every_point_is_there_once(groups):
    for name, operation in operations().items():
        found = [request for group in groups if group.operation.name == name for request in group.requests]
        assert sorted(map(repr, found)) == sorted(map(repr, operation.samples(True)))


def test_each_class_of_an_operation_comes_before_a_second_point_of_any():
    (operation,) = [o for o in operations().values() if o.name == "reduce"]
    requests = [r for group in ordered([operation], True, np.random.default_rng(1)) for r in group.requests]
    names = [operation.features(request).name for request in requests]
    assert len(set(names[: len(set(names))])) == len(set(names))


def test_a_kernel_that_costs_far_more_than_its_share_waits_once_it_has_some_points():
    cheap, dear = SimFFT("cheap"), SimFFT("dear")
    ledger = Ledger({"sim:0": 10.0}, 1000)  # 10 ms a point
    for _ in range(COARSE):
        assert not ledger.costly(dear)
        ledger.prepared("sim:0", 0.005, cheap)
        ledger.prepared("sim:0", 0.5, dear)
    assert ledger.costly(dear)
    assert not ledger.costly(cheap)


def test_loading_a_library_once_makes_no_kernel_wait():
    kernel = SimFFT("one")
    ledger = Ledger({"sim:0": 10.0}, 1000)
    ledger.prepared("sim:0", 5.0, kernel)
    for _ in range(COARSE):
        ledger.prepared("sim:0", 0.005, kernel)
    assert not ledger.costly(kernel)


def test_a_device_ends_by_its_own_budget_and_all_end_by_the_whole(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    ledger = Ledger({"cpu": 10.0, "sim:0": 2.0}, 100)
    ledger.seen = 1
    ledger.prepared("sim:0", 3.0)
    assert ledger.over("sim:0")
    assert not ledger.over("cpu")
    ledger.settle(4.0)
    assert ledger.spent["cpu"] == 4.0
    now[0] += 12.0 * module.IN_ALL + 0.1
    assert ledger.over("cpu")


def test_what_is_kept_for_later_leaves_less_for_each_point_now():
    ledger = Ledger({"cpu": 10.0}, 100)
    before = ledger.share("cpu", 50, 2)
    ledger.late["cpu"] = 50
    assert before == pytest.approx(0.1)
    assert ledger.share("cpu", 50, 2) == pytest.approx(before / 2)
