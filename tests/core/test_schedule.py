"""The order of a profile's points, and who waits: every kernel has coarse points before any has fine ones."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_compute.core import schedule as module
from adaptive_compute.core.operations import operations
from adaptive_compute.core.operations.elementwise_rule import BASIC
from adaptive_compute.core.schedule import FIRST, Ledger, ordered
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


def test_the_first_points_of_a_class_are_a_small_and_a_large_one():
    (operation,) = [o for o in operations().values() if o.name == "reduce"]
    requests = [r for group in ordered([operation], True, np.random.default_rng(1)) for r in group.requests]
    classes = {}
    for request in requests:
        classes.setdefault(operation.features(request).name, []).append(operation.work(request).flops)
    for sizes in classes.values():
        assert max(sizes[:2]) > 4 * min(sizes[:2])
    larger = [sizes[0] > sizes[1] for sizes in classes.values()]
    assert 0.3 * len(larger) < sum(larger) < 0.7 * len(larger)  # some classes begin with the one, some with the other
    early = requests[: len(requests) // 2]  # every class has some of its points early
    assert {operation.features(request).name for request in early} == set(classes)


def test_a_kernel_waits_while_it_is_far_ahead_of_its_part_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    cheap, dear = SimFFT("cheap"), SimFFT("dear")
    ledger = Ledger({"sim:0": 10.0}, 1000)  # 10 ms a point
    for _ in range(3):
        ledger.prepared("sim:0", 0.005, cheap)
        ledger.prepared("sim:0", 1.0, dear)
        now[0] += 0.5
    assert ledger.costly(dear)
    assert not ledger.costly(cheap)
    now[0] = 10.0 * module.IN_ALL  # and takes up its points when others have had their part
    assert not ledger.costly(dear)


def test_loading_a_library_once_makes_no_kernel_wait_and_costs_its_device_nothing():
    kernel = SimFFT("one")
    ledger = Ledger({"sim:0": 10.0}, 1000)
    ledger.prepared("sim:0", 5.0, kernel)
    for _ in range(6):
        ledger.prepared("sim:0", 0.005, kernel)
    assert not ledger.costly(kernel)
    assert ledger.spent["sim:0"] == pytest.approx(0.03)


def test_a_device_ends_by_its_own_budget_and_all_end_by_the_whole(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    ledger = Ledger({"cpu": 10.0, "sim:0": 2.0}, 100)
    ledger.seen = 1
    start = ledger.begin()
    ledger.prepared("sim:0", 3.0)
    assert ledger.over("sim:0")
    assert not ledger.over("cpu")
    now[0] += 7.0
    ledger.settle(start)
    assert ledger.spent["cpu"] == pytest.approx(4.0)
    now[0] += 12.0 * module.IN_ALL
    assert ledger.over("cpu")


def test_the_last_part_of_the_time_is_kept_for_what_waits(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    ledger = Ledger({"cpu": 10.0}, 100)
    ledger.seen = 1
    ledger.keep(0.25)
    now[0] += 0.74 * 10 * module.IN_ALL
    assert not ledger.over("cpu")
    now[0] += 0.02 * 10 * module.IN_ALL
    assert ledger.over("cpu")
    ledger.until = ledger.end
    assert not ledger.over("cpu")


def test_what_other_expressions_are_put_together_from_is_measured_first():
    elementwise = operations()["elementwise"]
    requests = [r for group in ordered([elementwise], False, np.random.default_rng(1)) for r in group.requests]
    names = [elementwise.features(r).name for r in requests]
    assert all(name.partition("/")[0] in BASIC for name in names[:40])
    sizes = {r.first.shape[0] for r, name in zip(requests[:40], names) if name == "two/float32"}
    assert len(sizes) > 2


def test_what_is_kept_for_later_leaves_less_for_each_point_now():
    ledger = Ledger({"cpu": 10.0}, 100)
    before = ledger.share("cpu", 50, 2)
    ledger.late["cpu"] = 50
    assert before == pytest.approx(0.1)
    assert ledger.share("cpu", 50, 2) == pytest.approx(before / 2)
