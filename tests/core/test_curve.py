from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_compute.core.curve import Curve, Curves, Measurement
from adaptive_compute.core.operation import Features
from adaptive_compute.core.scattered import scattered


def point(at, seconds, error=1e-7, spread=0.01):
    return Measurement(tuple(map(float, at)), seconds, spread, error)


def law(work, knee=12, cost=1e-9):
    return cost * (2.0**knee + 2.0**work)


def test_measured_points_are_returned_about_as_they_are():
    curve = Curve([point((3, 10), 1e-5), point((3, 12), 5e-5), point((6, 10), 8e-5)])
    for p in curve.points:
        estimate = curve.at(p.at)
        assert estimate.seconds == pytest.approx(p.seconds, rel=0.05)
        assert not estimate.extrapolated


def test_a_fixed_cost_and_a_cost_by_work_are_told_apart_from_few_points():
    curve = Curve([point((x,), law(x)) for x in (4, 9, 13, 20)])
    for x in (6, 11, 12, 15, 18, 24):
        assert curve.at((x,)).seconds == pytest.approx(law(x), rel=0.1)


def test_what_differs_from_the_law_is_taken_from_the_points_nearby():
    places = [(x, y) for x in range(6, 22, 3) for y in range(0, 9, 2)]
    curve = Curve([point(at, law(at[0]) * (1 + at[1])) for at in places])  # dearer with the second coordinate
    for x, y in ((8, 1), (13, 5), (20, 7)):
        assert curve.at((x, y)).seconds == pytest.approx(law(x) * (1 + y), rel=0.15)


def test_points_need_not_form_a_grid():
    places = list(scattered(60, 3))
    curve = Curve([point((4 + 16 * a, 8 * b, 6 * c), law(4 + 16 * a) * 2 ** (b - c)) for a, b, c in places])
    for a, b, c in list(scattered(90, 3))[70:]:
        expected = law(4 + 16 * a) * 2 ** (b - c)
        assert curve.at((4 + 16 * a, 8 * b, 6 * c)).seconds == pytest.approx(expected, rel=0.2)


def test_one_slow_point_does_not_move_the_others():
    good = [point((x,), law(x)) for x in range(4, 22)]
    curve = Curve([*good, point((12.5,), 100 * law(12.5))])
    assert curve.at((6.0,)).seconds == pytest.approx(law(6), rel=0.25)
    assert curve.at((20.0,)).seconds == pytest.approx(law(20), rel=0.25)


def test_outside_is_flagged_and_goes_on_by_the_law():
    curve = Curve([point((x,), 1e-6 * 2.0**x) for x in (4, 6, 8)])
    beyond = curve.at((10.0,))
    assert beyond.extrapolated
    assert beyond.seconds == pytest.approx(1e-6 * 2**10, rel=0.05)


def test_a_larger_request_is_never_predicted_faster_than_the_largest_measured():
    curve = Curve([point((4,), 2e-6), point((6,), 1e-6)])
    assert curve.at((20.0,)).seconds >= 1e-6


def test_of_one_size_half_is_taken_for_what_every_call_costs():
    curve = Curve([point((4,), 1e-6)])
    assert curve.at((4.0,)).seconds == pytest.approx(1e-6)
    assert curve.at((6.0,)).seconds == pytest.approx(2.5e-6)
    assert 0.5e-6 <= curve.at((0.0,)).seconds < 0.6e-6


def test_the_error_is_the_worst_of_the_checked_points_nearby():
    errors = (1e-7, 3e-7, 2e-7, 9e-7)
    curve = Curve([point((4 * i,), 1e-6, error=error) for i, error in enumerate(errors)])
    assert curve.at((1.0,)).error == 3e-7
    assert curve.at((0.0,)).error == 1e-7  # checked at this very place


def test_points_that_were_not_checked_tell_nothing_about_the_error():
    curve = Curve([point((0,), 1e-6, error=2e-7), point((4,), 1e-6, error=None), point((8,), 1e-6, error=None)])
    assert curve.at((7.0,)).error == 2e-7
    assert Curve([point((0,), 1e-6, error=None)]).at((0.0,)).error is None


def several(**classes):
    return Curves({name: [point((x,), cost * law(x)) for x in places] for name, (cost, places) in classes.items()})


def test_a_class_with_one_point_is_told_about_by_the_others():
    curves = several(full=(1.0, range(4, 24, 2)), few=(3.0, (6,)))
    for x in (4, 10, 16, 22):
        assert curves.at(Features("few", (float(x),))).seconds == pytest.approx(2.5 * law(x), rel=0.4)
    alone = Curve([point((6,), 3 * law(6))])
    assert alone.at((22.0,)).seconds > 10 * 3 * law(22)  # of one size alone nothing is known


def test_a_class_without_points_is_predicted_from_the_others_and_says_so():
    curves = several(single=(1.0, range(4, 24, 2)), double=(1.5, range(4, 24, 2)))
    estimate = curves.at(Features("half", (13.0,)))
    assert law(13) * 0.9 < estimate.seconds < 1.6 * law(13)
    assert (estimate.extrapolated, estimate.error) == (True, None)
    assert curves.at(Features("half", (13.0, 2.0))) is None  # nothing has as many coordinates
    assert Curves({}).at(Features("half", (13.0,))) is None


def test_classes_with_many_points_keep_what_is_their_own():
    curves = several(single=(1.0, range(4, 24)), double=(5.0, range(4, 24)))
    for name, cost in (("single", 1.0), ("double", 5.0)):
        for x in (7.5, 15.5, 20.5):
            assert curves[name].at((x,)).seconds == pytest.approx(cost * law(x), rel=0.1)


def test_a_disturbed_point_counts_less_than_a_steady_one():
    steady = [point((x,), law(x)) for x in range(4, 22, 2)]
    curves = [Curve([*steady, point((13,), 1.25 * law(13), spread=spread)]) for spread in (0.01, 1.0)]
    believed, doubted = (curve.at((13.0,)).seconds / law(13) for curve in curves)
    assert doubted < 1.08 < 1.15 < believed


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(1e-9, 10)), min_size=1, max_size=12),
    st.floats(-5, 40), st.floats(-5, 40),
)  # fmt: skip
def test_any_points_give_a_positive_finite_prediction(points, a, b):
    estimate = Curve([point((x, y), s) for x, y, s in points]).at((a, b))
    assert estimate.seconds > 0
    assert not math.isnan(estimate.seconds)
