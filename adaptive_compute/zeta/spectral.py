"""The main sum over a window of heights, as one nonuniform FFT.

With ``t = c + s``, ``c`` a whole number near the window's middle, theta(t) developed around it and ``s = d + k h`` on a
grid, and with angles in turns,

    Z(t) = 2 Re[ e^(i g(s)) * sum(a_n e^(2 pi i k x_n), n <= N) ] + R(t),
    a_n = n^-1/2 e^(2 pi i (theta(c) - c log n + d f_n)),     x_n = h f_n modulo 1,     f_n = theta'(c) - log n

where ``g`` is what theta has beyond its slope. The sum is a type-1 transform of N points at the places ``x_n``, so
that a window costs as much as the FFT of its grid. All phases of ``a_n`` and ``x_n`` are taken modulo one turn in
pairs of float64. N is the same throughout a window; where floor(sqrt(t / 2 pi)) changes, a new window begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from .. import nufft
from . import dirichlet, low
from .double_double import Pair, add, cycles
from .remainder import LOWEST, bound, remainder
from .theta import PI, TWO_PI, develop

EPS = 1e-13
MARGIN = 16  # grid points beyond each end, which interpolation near the end needs


@dataclass(frozen=True)
class Window:
    """Heights ``base + first <= t <= base + last`` on which N does not change; N = 0: low heights.

    A window of several parts is evaluated part by part, each around a centre of its own, with one transform for all:
    the grids' steps are the same, and so are the places ``x_n``.
    """

    base: int
    first: float
    last: float
    terms: int
    parts: int = 1

    @property
    def top(self) -> float:
        """The end's height, rounded."""
        return self.base + self.last


@dataclass(frozen=True)
class Samples:
    """Z on a window's grid.

    Attributes
    ----------
    base : int
    first : float
        Height of the window's beginning: ``base + first``.
    step : float
        Distance of the grid's points.
    values : array of float64, shape (parts, cells + 1 + 2 MARGIN)
        Z, of NumPy or CuPy. ``values[i, MARGIN + k]`` is at ``base + first + (i cells + k) step``; points beyond a
        part's ends continue its formula smoothly.
    error : float
        Bound for the error of each value within the window, at a height within two spacings of a float64 offset from
        the one named above; see ``budget``.
    """

    base: int
    first: float
    step: float
    values: Any
    error: float


def density(t: float) -> float:
    """Return the mean number of zeros per unit of height at a height: log(t / 2 pi) / 2 pi."""
    return math.log(t / TWO_PI) / TWO_PI


def budget(window: Window, points: int) -> float:
    """Bound the error of Z on a window: transform, rounding of phases, correction terms, arithmetic.

    The transform's error is taken as EPS times the sum of the coefficients' magnitudes, the phases' as 2^-53 turns in
    each place times the largest index. Both are bounds that add up magnitudes; the error met is some hundred times
    less.
    """
    if not window.terms:
        return low.ERROR
    total = 2 * math.sqrt(window.terms)  # of n^-1/2
    phases = TWO_PI * (points / 2 * 2.0**-53 + 2.0**-50)
    return 2 * total * (EPS + phases) + bound(window.base + window.first) + 1e-14


def sample(window: Window, oversampling: float, xp: Any = np) -> Samples:
    """Evaluate Z on a window.

    Parameters
    ----------
    window : Window
    oversampling : float
        Points per mean distance of zeros, at least 2.
    xp : module
        NumPy, or CuPy to work on the current GPU.

    Returns
    -------
    Samples
    """
    length, parts = window.last - window.first, window.parts
    cells = max(math.ceil(length / parts * density(window.top) * oversampling), 1)
    if not window.terms:  # the points beyond the beginning stay above a height of 2
        cells = max(cells, math.ceil(length * MARGIN / (window.base + window.first - 2)))
    grain = 1 << max(cells.bit_length() - 6, 0)  # windows of nearly the same size share a plan
    cells = -(-cells // grain) * grain
    step = length / (cells * parts)
    points = cells + 1 + 2 * MARGIN
    error = budget(window, points)
    if not window.terms:
        t = window.base + window.first + step * np.arange(-MARGIN, cells + 1 + MARGIN)
        return Samples(window.base, window.first, step, xp.asarray(low.hardy(t)[None]), error)
    middle = points // 2  # the transform's own order of modes: its zero is here
    offsets = [window.first + (part * cells + middle - MARGIN) * step for part in range(parts)]
    shifts = [offset - round(offset) for offset in offsets]
    around = [develop(window.base + round(offset), step * (middle + 1) + 1) for offset in offsets]
    slope = around[parts // 2].frequency  # the same for all parts; what the others' differ by is left to the bend
    frequencies = dirichlet.frequencies(window.terms)
    relative = add(Pair(np.full(window.terms, slope.hi), np.full(window.terms, slope.lo)),
                   Pair(-frequencies.hi, -frequencies.lo))  # fmt: skip
    strength = np.empty((parts, window.terms), complex)
    for part, (shift, at) in enumerate(zip(shifts, around)):
        phase = at.rest - cycles(at.center, frequencies) + cycles(shift, relative)
        phase *= TWO_PI
        np.cos(phase, out=strength[part].real)
        np.sin(phase, out=strength[part].imag)
    strength *= dirichlet.coefficients(window.terms)
    places = TWO_PI * cycles(step, relative)
    sums = nufft.nufft1d1(
        xp.asarray(places), xp.asarray(strength if parts > 1 else strength[0]), points, isign=1, eps=EPS
    ).reshape(parts, points)
    k = xp.arange(-middle, points - middle, dtype=float)
    s = k * step + xp.asarray(shifts)[:, None]
    curves = np.zeros((max(len(at.curve) for at in around) + 1, parts, 1))
    for part, at in enumerate(around):
        curves[0, part] = TWO_PI * ((at.frequency.hi - slope.hi) + (at.frequency.lo - slope.lo))
        curves[1 : len(at.curve) + 1, part, 0] = at.curve
    bend = _polynomial(xp.asarray(curves), s)
    bend *= s
    values = sums.real * xp.cos(bend)
    values -= sums.imag * xp.sin(bend)
    values *= 2
    middles = [(at.center, shift) for at, shift in zip(around, shifts)]
    correction = _smooth_remainder(window.terms, middles, middle * step, points - 1)
    values += _polynomial(xp.asarray(correction), k / middle)
    return Samples(window.base, window.first, step, values, error + 1e-12 * float(abs(values).max()))


def _polynomial(coefficients: Any, s: Any) -> Any:
    """Evaluate polynomials, coefficients of shape (degrees, parts, 1), at places of shape (parts or none, points)."""
    value = coefficients[-1] * s
    for c in coefficients[-2:0:-1]:
        value += c
        value *= s
    value += coefficients[0]
    return value


def _smooth_remainder(terms: int, middles: list[tuple[int, float]], reach: float, most: int) -> np.ndarray:
    """Return the correction as polynomials in (t - middle) / reach: it turns but once where N changes by one."""
    share = reach / (TWO_PI * terms)  # of the range of p
    degree = min(14 + round(22 * min(share, 1.3)), most, 40)
    nodes, to_series, to_power = chebyshev_fit(degree)
    found = np.empty((degree + 1, len(middles), 1))
    for part, (center, shift) in enumerate(middles):
        # Two steps: the series falls off fast, and so do the cancelling parts of its powers.
        series = to_series @ remainder(center + (shift + reach * nodes), terms)
        found[:, part, 0] = to_power @ series
    return found


@lru_cache(maxsize=64)
def chebyshev_fit(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Chebyshev's nodes, the matrix from values there to a Chebyshev series, and from that to powers."""
    nodes = np.cos(math.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    series = np.polynomial.chebyshev.chebvander(nodes, degree).T * (2 / (degree + 1))
    series[0] /= 2  # the nodes' discrete orthogonality
    power = np.zeros((degree + 1, degree + 1))
    for column, unit in enumerate(np.eye(degree + 1)):
        found = np.polynomial.chebyshev.cheb2poly(unit)
        power[: len(found), column] = found
    return nodes, series, power


def windows(base: int, first: float, last: float, zeros: int = 32768, parts: int = 1) -> list[Window]:
    """Cut a range of heights into windows: at each change of N, and into parts of about as many zeros as told.

    Parameters
    ----------
    base : int
    first, last : float
        The range is ``base + first`` to ``base + last``; not empty.
    zeros : int
        The number of zeros a part of a window has at most, about.
    parts : int
        The number of parts a window has at most.

    Returns
    -------
    list of Window
        In order; each begins where the one before ends.
    """
    cuts = [first]
    if base + first < LOWEST < base + last:
        cuts.append(LOWEST - base)
    n = math.isqrt(int(max(base + first, LOWEST) / TWO_PI))
    while (cut := _change(n) - base) < last:
        if cut > cuts[-1]:
            cuts.append(float(cut))
        n += 1
    cuts.append(last)
    found: list[Window] = []
    for a, b in pairwise(cuts):
        count = max(math.ceil((b - a) * density(base + b) / zeros), 1)
        cut_at = [*range(0, count, parts), count]
        ends = [a + (b - a) * i / count for i in cut_at[:-1]] + [b]
        terms = 0 if base + a < LOWEST else math.isqrt(int((base + Decimal((a + b) / 2)) / (2 * PI)))
        found += [
            Window(base, x, y, terms, j - i if terms else 1) for (x, y), (i, j) in zip(pairwise(ends), pairwise(cut_at))
        ]
    return found


def _change(n: int) -> Decimal:
    """Return the height at which N becomes n."""
    return 2 * PI * n * n
