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
from itertools import pairwise

import numpy as np

from .. import nufft
from . import dirichlet, low
from .double_double import Pair, add, cycles
from .remainder import LOWEST, bound, remainder
from .theta import PI, TWO_PI, develop, horner

EPS = 1e-13
MARGIN = 16  # grid points beyond each end, which interpolation near the end needs


@dataclass(frozen=True)
class Window:
    """Heights ``base + first <= t <= base + last`` on which N does not change; N = 0: low heights."""

    base: int
    first: float
    last: float
    terms: int

    @property
    def top(self) -> float:
        """The end's height, rounded."""
        return self.base + self.last


@dataclass(frozen=True)
class Samples:
    """Z on a window's grid: ``values[MARGIN]`` is at ``first``, ``values[-1 - MARGIN]`` at ``last``.

    Attributes
    ----------
    base : int
    first : float
        Height of the window's beginning: ``base + first``.
    step : float
        Distance of the grid's points.
    values : ndarray of float64
        Z; beyond the ends, what continues the window's formula smoothly.
    error : float
        Bound for the error of each value within the window; see ``budget``.
    """

    base: int
    first: float
    step: float
    values: np.ndarray
    error: float


def density(t: float) -> float:
    """Return the mean number of zeros per unit of height at a height: log(t / 2 pi) / 2 pi."""
    return math.log(t / TWO_PI) / TWO_PI


def budget(window: Window, points: int) -> float:
    """Bound the error of Z on a window: transform, rounding of phases, correction terms, arithmetic.

    The transform's error is taken as EPS times the sum of the coefficients' magnitudes, the phases' as 2^-51 turns in
    each place times the largest index. Both are bounds that add up magnitudes; the error met is some hundred times
    less.
    """
    if not window.terms:
        return low.ERROR
    total = 2 * math.sqrt(window.terms)  # of n^-1/2
    phases = TWO_PI * (points / 2 * 2.0**-54 + 2.0**-50)
    return 2 * total * (EPS + phases) + bound(window.base + window.first) + 1e-14


def sample(window: Window, oversampling: float) -> Samples:
    """Evaluate Z on a window.

    Parameters
    ----------
    window : Window
    oversampling : float
        Points per mean distance of zeros, at least 2.

    Returns
    -------
    Samples
    """
    length = window.last - window.first
    cells = max(math.ceil(length * density(window.top) * oversampling), 1)
    if not window.terms:  # the points beyond the beginning stay above a height of 2
        cells = max(cells, math.ceil(length * MARGIN / (window.base + window.first - 2)))
    step = length / cells
    points = cells + 1 + 2 * MARGIN
    error = budget(window, points)
    if not window.terms:
        t = window.base + window.first + step * np.arange(-MARGIN, cells + 1 + MARGIN)
        return Samples(window.base, window.first, step, low.hardy(t), error)
    middle = points // 2  # the transform's own order of modes: its zero is here
    offset = window.first + (middle - MARGIN) * step
    center = window.base + round(offset)
    shift = offset - round(offset)
    around = develop(center, step * (middle + 1) + 1)
    frequencies = dirichlet.frequencies(window.terms)
    slope = around.frequency
    relative = add(Pair(np.full(window.terms, slope.hi), np.full(window.terms, slope.lo)),
                   Pair(-frequencies.hi, -frequencies.lo))  # fmt: skip
    phase = around.rest - cycles(center, frequencies) + cycles(shift, relative)
    strength = dirichlet.coefficients(window.terms) * np.exp(2j * math.pi * phase)
    sums = nufft.nufft1d1(TWO_PI * cycles(step, relative), strength, points, isign=1, eps=EPS)
    s = np.arange(-middle, points - middle) * step + shift
    bend = horner(around.curve, s)
    bend *= s
    bend *= s
    values = 2 * (sums.real * np.cos(bend) - sums.imag * np.sin(bend))
    values += _smooth_remainder(window, center, s)
    return Samples(window.base, window.first, step, values, error)


def _smooth_remainder(window: Window, center: int, s: np.ndarray) -> np.ndarray:
    """Evaluate the correction on a grid by its Chebyshev interpolant: it turns but once where N changes by one."""
    low_, high = s[0], s[-1]
    share = (high - low_) / (2 * TWO_PI * window.terms)  # of the range of p
    degree = min(14 + round(22 * min(share, 1.3)), len(s) - 1, 40)
    nodes = np.cos(math.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    at = remainder(center + (low_ + high) / 2 + (high - low_) / 2 * nodes, window.terms)
    series = np.polynomial.chebyshev.chebfit(nodes, at, degree)
    y = (2 * s - (low_ + high)) / (high - low_)
    return horner(np.polynomial.chebyshev.cheb2poly(series), y)


def windows(base: int, first: float, last: float, zeros: int = 32768) -> list[Window]:
    """Cut a range of heights into windows: at each change of N, and into parts of about as many zeros as told.

    Parameters
    ----------
    base : int
    first, last : float
        The range is ``base + first`` to ``base + last``; not empty.
    zeros : int
        The number of zeros a window has at most, about.

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
        parts = max(math.ceil((b - a) * density(base + b) / zeros), 1)
        ends = [a + (b - a) * i / parts for i in range(parts)] + [b]
        terms = 0 if base + a < LOWEST else math.isqrt(int((base + Decimal((a + b) / 2)) / (2 * PI)))
        found += [Window(base, x, y, terms) for x, y in pairwise(ends)]
    return found


def _change(n: int) -> Decimal:
    """Return the height at which N becomes n."""
    return 2 * PI * n * n
