from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_compute.core.curve import Curve, Measurement


def point(at, seconds, error=1e-7, spread=0.01):
    return Measurement(tuple(map(float, at)), seconds, spread, error)


def test_measured_points_are_returned_as_they_are():
    curve = Curve([point((3, 10), 1e-5), point((3, 12), 5e-5), point((6, 10), 8e-5)])
    for p in curve.points:
        estimate = curve.at(p.at)
        assert estimate.seconds == pytest.approx(p.seconds)
        assert not estimate.extrapolated


def test_between_points_a_power_law_is_exact():
    curve = Curve([point((x,), 3e-6 * 2 ** (1.5 * x)) for x in (2, 7, 11)])
    assert curve.at((5.0,)).seconds == pytest.approx(3e-6 * 2**7.5)


def test_two_coordinates_of_a_power_law_are_exact_on_a_ragged_grid():
    def law(b, n):
        return 1e-6 * 2 ** (0.9 * b + 1.2 * n)

    curve = Curve(
        [point((b, n), law(b, n)) for b, lengths in ((0, (3, 8, 15)), (4, (3, 8)), (9, (3,))) for n in lengths]
    )
    assert curve.at((2.0, 5.0)).seconds == pytest.approx(law(2, 5))


def test_outside_is_flagged_and_goes_on_with_the_last_slope():
    curve = Curve([point((x,), 1e-6 * 2.0**x) for x in (4, 6, 8)])
    beyond = curve.at((10.0,))
    assert beyond.extrapolated
    assert beyond.seconds == pytest.approx(1e-6 * 2**10)


def test_a_larger_request_is_never_predicted_faster_than_the_largest_measured():
    curve = Curve([point((4,), 2e-6), point((6,), 1e-6)])
    assert curve.at((20.0,)).seconds >= 1e-6


def test_one_point_grows_in_proportion():
    assert Curve([point((4,), 1e-6)]).at((6.0,)).seconds == pytest.approx(4e-6)


def test_the_error_between_points_is_the_worse_of_the_two():
    curve = Curve([point((0,), 1e-6, error=1e-7), point((4,), 1e-6, error=3e-7)])
    assert curve.at((1.0,)).error == 3e-7
    assert curve.at((0.0,)).error == 1e-7


def test_unchecked_points_take_the_worst_error_of_the_class():
    curve = Curve([point((0,), 1e-6, error=2e-7), point((4,), 1e-6, error=None), point((8,), 1e-6, error=None)])
    assert curve.at((7.0,)).error == 2e-7
    assert Curve([point((0,), 1e-6, error=None)]).at((0.0,)).error is None


@given(
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(1e-9, 10)), min_size=1, max_size=12),
    st.floats(-5, 40), st.floats(-5, 40),
)  # fmt: skip
def test_any_points_give_a_positive_finite_prediction(points, a, b):
    estimate = Curve([point((x, y), s) for x, y, s in points]).at((a, b))
    assert estimate.seconds > 0
    assert not math.isnan(estimate.seconds)
