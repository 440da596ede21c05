"""The tiles of the hunt, each against FLINT's interval arithmetic or its own definition."""

import math
from itertools import pairwise

import numpy as np
import pytest

flint = pytest.importorskip("flint", reason="needs python-flint: pip install 'adaptive-compute[zeta]'")

from adaptive_compute import zeta  # noqa: E402
from adaptive_compute.zeta import dirichlet, double_double, low, probe, remainder, sign, spectral  # noqa: E402
from adaptive_compute.zeta.theta import develop, theta_turns  # noqa: E402

arb, acb = flint.arb, flint.acb
HEIGHTS = (14.1, 50.25, 200.5, 999.9, 1000.1, 7005.06, 123456.789, 1e6 + 0.77, 1e8 + 0.3, 1e9 + 0.1)


@pytest.fixture(autouse=True)
def _digits():
    before, flint.ctx.prec = flint.ctx.prec, 240
    yield
    flint.ctx.prec = before


def _theta(t):
    return acb(arb(1) / 4, arb(t) / 2).lgamma().imag - arb(t) / 2 * arb.pi().log()


def _hardy(t):
    return float((acb(0, _theta(t)).exp() * acb(arb(1) / 2, arb(t)).zeta()).real)


@pytest.mark.parametrize("t", [*HEIGHTS, 1e12, 1e13])
def test_theta_in_turns(t):
    turns, rest = theta_turns(t)
    assert abs(float(_theta(t) / (2 * arb.pi()) - turns - arb(rest))) < 1e-14
    assert abs(rest) <= 0.5


def test_theta_refuses_low_heights():
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        zeta.theta([3.0, 0.5])
    assert zeta.theta(np.array([20.0, 30.0])).shape == (2,)


@pytest.mark.parametrize(("center", "reach"), [(1100, 90.0), (10**6, 2500.0), (10**9, 40000.0), (10**12, 30000.0)])
def test_theta_developed_around_a_point(center, reach):
    around = develop(center, reach)
    for s in (-reach, -reach / 3, 0.0, 0.7 * reach, reach):
        bend = sum(c * s ** (j + 2) for j, c in enumerate(around.curve)) / (2 * math.pi)
        slope = (arb(around.frequency.hi) + arb(around.frequency.lo)) * arb(s)
        wanted = _theta(arb(center) + arb(s)) / (2 * arb.pi()) - around.turns
        assert abs(float(wanted - arb(around.rest) - slope - arb(bend))) < 1e-13


def test_logarithms_of_whole_numbers_in_turns():
    f = dirichlet.frequencies(70_000)
    for n in (1, 2, 3, 7, 255, 256, 257, 1023, 12345, 65537, 70_000):
        wanted = arb(n).log() / (2 * arb.pi())
        assert abs(float(wanted - arb(f.hi[n - 1]) - arb(f.lo[n - 1]))) <= 1e-30
    with pytest.raises(ValueError, match="read-only"):
        f.hi[0] = 1.0


def test_phases_modulo_a_turn():
    f = dirichlet.frequencies(400_000)
    t = 9_999_999_999_999.25
    found = double_double.cycles(t, f)
    for n in (2, 3, 997, 399_999):
        exact = arb(t) * arb(n).log() / (2 * arb.pi())
        off = exact - arb(float(found[n - 1]))
        assert abs(float(off - arb(round(float(off.mid()))))) < 1e-16 * 4


def test_pairs_of_floats_multiply_divide_and_add():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 50)) * 10.0 ** rng.integers(-8, 8, (2, 50))
    pair = double_double.divide(a, b)
    back = double_double.multiply(pair, double_double.Pair(b, np.zeros(50)))
    rest = double_double.add(back, double_double.Pair(-a, np.zeros(50)))
    assert np.all(np.abs(rest.hi + rest.lo) <= 1e-30 * np.abs(a))
    assert np.abs(pair.lo).max() > 0


@pytest.mark.parametrize("t", HEIGHTS)
def test_z_at_a_point(t):
    assert abs(probe.Z(t) - _hardy(t)) <= max(probe.budget(t), 1e-13)


def test_z_takes_offsets_without_rounding():
    base, offset = 10**9, 0.123456789012345
    wanted = float((acb(0, _theta(arb(base) + arb(offset))).exp()
                    * acb(arb(1) / 2, arb(base) + arb(offset)).zeta()).real)  # fmt: skip
    assert abs(probe.Z(base, offset) - wanted) < 1e-11
    assert probe.Z([20.0, 30.0]).shape == (2,)
    with pytest.raises(ValueError, match="from 1 to 1e"):
        probe.Z(1e14)


def test_euler_maclaurin_stays_within_its_bound():
    t = np.linspace(1.5, 1100, 40)
    assert max(abs(low.hardy(t) - [_hardy(x) for x in t])) < low.ERROR


@pytest.mark.parametrize("t", [200.5, 333.3, 600.0, 1000.0, 3000.0, 10_000.5])
def test_the_remainder_obeys_gabckes_bound(t):
    terms = math.isqrt(int(t / (2 * math.pi)))
    main = 2 * sum((_theta(t) - arb(t) * arb(n).log()).cos() / arb(n).sqrt() for n in range(1, terms + 1))
    wanted = (acb(0, _theta(t)).exp() * acb(arb(1) / 2, arb(t)).zeta()).real - main
    assert abs(float(wanted) - float(remainder.remainder(t))) <= remainder.bound(t) + 2e-15


@pytest.mark.parametrize("base", [14, 990, 1300, 10**6, 10**9])
def test_samples_are_z_on_a_grid(base):
    first = 0.3
    window = spectral.windows(base, first, first + 40.0, zeros=30)[-1]
    samples = spectral.sample(window, 4.0)
    cells = len(samples.values) - 1 - 2 * spectral.MARGIN
    for k in (0, cells // 3, cells // 2, cells):
        at = samples.first + k * samples.step
        assert abs(samples.values[spectral.MARGIN + k] - probe.Z(base, at)) <= samples.error
    assert abs(samples.first + cells * samples.step - window.last) < 1e-9


def test_windows_end_where_the_number_of_terms_changes():
    found = spectral.windows(950, 0.0, 9_050.0)
    for a, b in pairwise(found):
        assert a.last == b.first
    for window in found:
        low_end, high_end = window.base + window.first, window.base + window.last
        if window.terms:
            assert low_end >= 2 * math.pi * window.terms**2 - 1e-9
            assert high_end <= 2 * math.pi * (window.terms + 1) ** 2 + 1e-9
        else:
            assert high_end <= 1000


def test_the_interpolant_is_as_exact_as_it_says():
    matrix, error = sign.interpolant()
    assert error < 1e-12
    phase, frequency = 0.7, math.pi / sign.OVERSAMPLING * 0.99
    taps = np.arange(sign.TAPS) - (sign.TAPS // 2 - 1)
    p = np.cos(frequency * taps + phase) @ matrix
    for x in (0.0, 0.31, 1.0):
        assert abs(np.polyval(p[::-1], 2 * x - 1) - math.cos(frequency * x + phase)) <= 2 * error


def _zeros(values):
    return sign.zeros([spectral.Samples(0, 0.0, 1.0, values, 1e-12)])[0].offsets


def test_zeros_of_a_known_signal_and_a_close_pair():
    """cos has evenly spaced zeros; 1.0001 - cos none; 0.9999 - cos a pair within one cell, 0.028 cells from its top."""
    k = np.arange(-spectral.MARGIN, 200 + 1 + spectral.MARGIN)
    w = math.pi / 4.3
    one = _zeros(np.cos(w * (k - 0.4)))
    wanted = 0.4 + (np.arange(200) + 0.5) * math.pi / w
    assert np.allclose(one, wanted[wanted < 200], rtol=0, atol=1e-10)
    assert not len(_zeros(1.0001 - np.cos(w * (k - 0.4))))
    pair = _zeros(0.9999 - np.cos(w * (k - 0.4)))
    half = math.acos(0.9999) / w
    turns = 0.4 + np.arange(0, 200) * 2 * math.pi / w
    both = np.sort(np.concatenate([turns - half, turns + half]))
    assert np.allclose(pair, both[(both > 0) & (both < 200)], rtol=0, atol=1e-7)


def test_a_sample_within_the_budget_is_doubtful():
    k = np.arange(-spectral.MARGIN, 50 + 1 + spectral.MARGIN)
    (found,) = sign.zeros([spectral.Samples(7, 2.0, 0.5, np.sin(0.6 * (k - 20.0)), 1e-9)])
    assert found.doubtful == (12.0,)


@pytest.mark.parametrize(
    "t", [14.2, 30.0, 279.3, 527.0, 528.5, 727.9, 999.5, 7005.08, 1e5, 6_820_800.5, 1e8, 1e9 + 0.25]
)
def test_n_is_flints(t):
    assert zeta.N(t) == int(float(arb(t).zeta_nzeros()))


def test_n_at_random_heights():
    rng = np.random.default_rng(5)
    for t in 10 ** rng.uniform(1.2, 8, 25):
        assert zeta.N(t) == int(float(arb(t).zeta_nzeros())), t
    assert zeta.N(10) == 0
    with pytest.raises(ValueError, match="from 0 to"):
        zeta.N(-1)


@pytest.mark.parametrize("n", [-1, 0, 1, 126, 10_000, 10**9])
def test_gram_points(n):
    if n >= 0:
        assert abs(float(arb.gram_point(n) - arb(zeta.gram(n)))) <= 1e-15 * zeta.gram(n)
    assert abs(zeta.theta(zeta.gram(n)) - n * math.pi) <= 2e-14 * max(abs(n), 1) + (1e-11 if n < 0 else 0)
    with pytest.raises(ValueError, match="at least -1"):
        zeta.gram(-2)


@pytest.mark.parametrize("first", [288_886.49, 288_886.57, 288_887.25])
def test_a_cell_in_which_z_turns_twice_is_looked_into(first):
    """Three zeros within 1.2 cells near 1e9 + 288889.45: |Z| rises at both ends of a cell that holds two of them."""
    (samples,) = [spectral.sample(w, 4.0) for w in spectral.windows(10**9, first, first + 6)]
    (quick,), (every,) = sign.zeros([samples]), sign.zeros([samples], every=True)
    assert np.array_equal(quick.offsets, every.offsets)
    assert np.diff(every.offsets).min() < samples.step


@pytest.mark.parametrize("base", [1_010, 3_000, 10**6])
def test_pieces_stand_for_bend_and_remainder_within_their_error(base):
    """On a whole range of one N, to the ends of the grid: sums of 1 and of i show what they are turned by."""
    (window,) = [w for w in spectral.windows(base, 0.0, 15_000.0) if w.last - w.first > 12 * math.sqrt(base / 6.3)][:1]
    points = 2_001
    step = (window.last - window.first) / (points - 1)
    around = develop(base + round((window.first + window.last) / 2), step * points / 2 + 1)
    s = (np.arange(points) - points // 2) * step + 0.25
    bend = s**2 * np.polyval(around.curve[::-1], s)
    rest = remainder.remainder(around.center + s, window.terms)
    for sums, turned in ((np.ones(points, complex), np.cos(bend)), (np.full(points, 1j), -np.sin(bend))):
        found = spectral._turned(sums, window.terms, around, 0.25, step)
        assert np.abs(found - 2 * turned - rest).max() < 2 * spectral.FIT
