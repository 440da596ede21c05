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
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise

import numpy as np

from .. import nufft
from . import dirichlet, low
from .double_double import Pair, add, cycles
from .remainder import LOWEST, bound, remainder
from .theta import PI, TWO_PI, Development, develop, horner

EPS = 1e-13
FIT = 2e-14  # error of the polynomials on a piece, for values of magnitude one; 1.5e-14 was met
SMALL = 1 << 18  # multiplications of a matrix product
MARGIN = 16  # grid points beyond each end, which interpolation near the end needs
PIECES = 16  # of the range between two changes of N, on each of which bend and remainder are polynomials
DEGREE = 14  # of these: their errors are below 1e-13


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
    """Z on a window's grid.

    Attributes
    ----------
    base : int
    first : float
        Height of the window's beginning: ``base + first``.
    step : float
        Distance of the grid's points.
    values : ndarray of float64, shape (cells + 1 + 2 MARGIN,)
        Z. ``values[MARGIN + k]`` is at ``base + first + k step``; points beyond the ends continue its formula smoothly.
    error : float
        Bound for the error of each value within the window, at a height within two spacings of a float64 offset from
        the one named above; see ``budget``.
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

    The transform's error is taken as EPS times the sum of the coefficients' magnitudes, the phases' as 2^-53 turns in
    each place times the largest index; FIT is that of the polynomials that stand for bend and remainder. All are
    bounds that add up magnitudes; the error met is some hundred times less.
    """
    if not window.terms:
        return low.ERROR
    total = 2 * math.sqrt(window.terms)  # of n^-1/2
    phases = TWO_PI * (points / 2 * 2.0**-53 + 2.0**-50)
    return 2 * total * (EPS + FIT + phases) + bound(window.base + window.first) + 2e-13


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
    grain = 1 << max(cells.bit_length() - 6, 0)  # windows of nearly the same size share a plan
    cells = -(-cells // grain) * grain
    step = length / cells
    points = cells + 1 + 2 * MARGIN
    error = budget(window, points)
    if not window.terms:
        t = window.base + window.first + step * np.arange(-MARGIN, cells + 1 + MARGIN)
        return Samples(window.base, window.first, step, low.hardy(t), error)
    middle = points // 2  # the transform's own order of modes: its zero is here
    offset = window.first + (middle - MARGIN) * step
    shift = offset - round(offset)
    around = develop(window.base + round(offset), step * (middle + 1) + 1)
    slope, frequencies = around.frequency, dirichlet.frequencies(window.terms)
    relative = add(Pair(np.full(window.terms, slope.hi), np.full(window.terms, slope.lo)),
                   Pair(-frequencies.hi, -frequencies.lo))  # fmt: skip
    phase = around.rest - cycles(around.center, frequencies) + cycles(shift, relative)
    phase *= TWO_PI
    strength = np.empty(window.terms, complex)
    np.cos(phase, out=strength.real)
    np.sin(phase, out=strength.imag)
    strength *= dirichlet.coefficients(window.terms)
    sums = nufft.nufft1d1(TWO_PI * cycles(step, relative), strength, points, isign=1, eps=EPS)
    values = _turned(sums, window.terms, around, shift, step)
    # The interpolant's error goes with the largest sample near; no sample is larger than 4 sqrt(N).
    return Samples(window.base, window.first, step, values, error + 4e-12 * math.sqrt(window.terms))


def _turned(sums: np.ndarray, terms: int, around: Development, shift: float, step: float) -> np.ndarray:
    """Return Z from the transform: turned by what theta has beyond its slope, and with the remainder.

    Both are smooth, so that on each piece of the grid they are one matrix times their values at a few nodes.
    """
    points = len(sums)
    middle = points // 2
    count = min(math.ceil(PIECES * step * points / (2 * TWO_PI * terms)), math.ceil(points / 32))
    size = -(-points // count)
    nodes, matrix = _piece(size)
    s = (np.arange(count)[:, None] * size - middle + nodes) * step + shift
    bend = horner(around.curve, s)
    bend *= s
    bend *= s
    at_nodes = np.stack([2 * np.cos(bend), -2 * np.sin(bend), remainder(around.center + s, terms)])
    turn, side, values = _products(at_nodes, matrix).reshape(3, -1)[:, :points]
    turn *= sums.real
    side *= sums.imag
    values += turn
    values += side
    return values


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a @ b`` by products so small that BLAS works on them in the calling thread."""
    out = np.empty((*a.shape[:-1], b.shape[1]))
    width = max(SMALL // (a.shape[-2] * a.shape[-1]), 16)
    for at in range(0, b.shape[1], width):
        np.matmul(a, b[:, at : at + width], out=out[..., at : at + width])
    return out


@lru_cache(maxsize=64)
def _piece(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes of a piece of so many points, and the matrix from values there to values at all points."""
    nodes, to_series, _ = chebyshev_fit(DEGREE)
    half = max(size - 1, 1) / 2
    return (nodes + 1) * half, to_series.T @ np.polynomial.chebyshev.chebvander(np.arange(size) / half - 1, DEGREE).T


def correction_degree(reach: float, terms: float) -> int:
    """Return the degree of a polynomial in (t - middle) / reach that stands for the remainder within 1e-13."""
    return min(14 + round(22 * min(reach / (TWO_PI * terms), 1.3)), 40)  # a share of the range of p


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
        count = max(math.ceil((b - a) * density(base + b) / zeros), 1)
        ends = [a + (b - a) * i / count for i in range(count)] + [b]
        terms = 0 if base + a < LOWEST else math.isqrt(int((base + Decimal((a + b) / 2)) / (2 * PI)))
        found += [Window(base, x, y, terms) for x, y in pairwise(ends)]
    return found


def groups(windows: Sequence[Window], zeros: int, most: int) -> list[list[Window]]:
    """Put neighbouring windows together, up to so many zeros, about, and so many windows."""
    found: list[list[Window]] = []
    room = 0.0
    for window in windows:
        size = (window.last - window.first) * density(window.top)
        if not found or room < size or len(found[-1]) == most:
            found.append([])
            room = zeros
        found[-1].append(window)
        room -= size
    return found


def _change(n: int) -> Decimal:
    """Return the height at which N becomes n."""
    return 2 * PI * n * n
