"""Zeros from samples: sign changes on the grid, close pairs between its points, and each zero's place.

Between two grid points Z is a polynomial of degree 11 whose coefficients are a fixed matrix times the samples around:
the matrix is the least-squares interpolant of everything whose frequency is at most that of Z, so its error (some
1e-12 of the largest sample near) is known from the frequencies alone. A zero is only ever reported between two points
at which Z has different signs, each by more than the error budget.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .spectral import MARGIN, Samples, chebyshev_fit

TAPS = 20  # samples that a cell's polynomial is made of
DEGREE = 11
PIECE = 1024  # columns of a product: BLAS does so few in the calling thread
CHUNK = 16384  # cells worked on at a time: fewer, and threads wait for each other's Python
OVERSAMPLING = 4.0
NARROWEST = 3.2  # oversampling that the interpolant is made for, so that the density's growth in a window is covered


@lru_cache(maxsize=1)
def interpolant() -> tuple[np.ndarray, float]:
    """Return the matrix (TAPS, DEGREE + 1) from samples to a cell's polynomial in x, -1..1, and its relative error.

    The error: the largest absolute error over all frequencies in the band, of a signal of magnitude one.
    """
    band = math.pi / NARROWEST
    w = band * np.cos(math.pi * (np.arange(96) + 0.5) / 96)
    taps = np.arange(TAPS) - (TAPS // 2 - 1)
    basis = np.exp(1j * np.outer(w, taps))
    nodes, to_series, to_power = chebyshev_fit(DEGREE)
    wanted = np.exp(1j * np.outer(w, (nodes + 1) / 2))
    weights = np.linalg.lstsq(
        np.vstack([basis.real, basis.imag]), np.vstack([wanted.real, wanted.imag]), rcond=1e-14
    )[0]  # fmt: skip
    matrix = (to_power @ (to_series @ weights.T)).T
    x = np.linspace(-1, 1, 41)
    powers = x ** np.arange(DEGREE + 1)[:, None]
    w = np.linspace(-band, band, 201)
    error = np.abs(np.exp(1j * np.outer(w, taps)) @ (matrix @ powers) - np.exp(1j * np.outer(w, (x + 1) / 2)))
    return matrix, float(error.max())


@dataclass(frozen=True)
class Found:
    """Zeros of one window.

    Attributes
    ----------
    offsets : ndarray of float64
        Heights over the window's base, in order.
    doubtful : tuple of float
        Offsets of the grid points whose sign could not be told within the error budget.
    """

    offsets: np.ndarray
    doubtful: tuple[float, ...]


def _polynomials(values: Any, cells: Any) -> Any:
    """Return the cells' polynomials, shape (DEGREE + 1, cells), from flat samples."""
    xp = module_of(values)
    if xp is not np:
        around = values[cells + xp.arange(1 - TAPS // 2, TAPS // 2 + 1)[:, None]]
        return xp.asarray(interpolant()[0].T) @ around
    views, matrix = np.lib.stride_tricks.sliding_window_view(values, TAPS), interpolant()[0].T
    p = np.empty((DEGREE + 1, len(cells)))
    for at in range(0, len(cells), PIECE):
        np.matmul(matrix, views[cells[at : at + PIECE] - (TAPS // 2 - 1)].T, out=p[:, at : at + PIECE])
    return p


def module_of(array: Any) -> Any:
    """Return the module of an array's kind: NumPy or CuPy."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def _evaluate(p: Any, x: Any) -> tuple[Any, Any]:
    """Return values and slopes of the polynomials."""
    value, slope = p[-1].copy(), p[-1].copy()
    value *= x
    value += p[-2]
    for row in p[-3::-1]:
        slope *= x
        slope += value
        value *= x
        value += row
    return value, slope


def _roots(p: Any, low: Any, high: Any, sign: Any) -> Any:
    """Return the roots between ``low``, where the values' sign is ``sign``, and ``high``, where it is the other one.

    Newton's steps, kept between the ends; an end moves to each point tried, so that the bracket always holds. Most
    cells need four steps; those that need more go on by themselves.
    """
    xp = module_of(p)
    a, b = _evaluate(p, low)[0], _evaluate(p, high)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (low * b - high * a) / (b - a)
    x = xp.where((x > low) & (x < high), x, (low + high) / 2)
    low, high = low.copy(), high.copy()
    left = xp.arange(len(x))
    roots = x.copy()
    noise = 1e-15 * xp.abs(p).max(0)
    for step in range(64):
        value, slope = _evaluate(p, x)
        same = (value > 0) == (sign > 0)
        xp.copyto(low, x, where=same)
        xp.copyto(high, x, where=~same)
        with np.errstate(divide="ignore", invalid="ignore"):
            tried = x - value / slope
        following = xp.where((tried > low) & (tried < high), tried, (low + high) / 2)
        xp.copyto(following, x, where=xp.abs(value) <= noise)
        moved = xp.abs(following - x)
        x = following
        if step >= 2:
            going = moved > 1e-11
            roots[left] = x
            if not going.any():
                break
            left, x, low, high, sign, p = left[going], x[going], low[going], high[going], sign[going], p[:, going]
            noise = noise[going]
    return roots


def zeros(samples: Samples, every: bool = False) -> Found:
    """Find a window's zeros.

    Parameters
    ----------
    samples : Samples
    every : bool
        Look for close pairs in every cell, instead of those alone in which Z seems to turn.

    Returns
    -------
    Found
    """
    v, xp = samples.values, module_of(samples.values)
    parts, points = v.shape
    cells = points - 1 - 2 * MARGIN
    inner = v[:, MARGIN : MARGIN + cells + 1]
    positive = inner > 0
    change = positive[:, 1:] != positive[:, :-1]
    doubtful = xp.flatnonzero(abs(inner) <= samples.error)
    turning = xp.flatnonzero(~change if every else _dips(v, cells) & ~change)
    flat, places = v.ravel(), []
    chunk = CHUNK if xp is np else parts * cells  # on a GPU everything at once
    for find, here in ((_simple, xp.flatnonzero(change)), (_pairs, turning)):
        for at in range(0, len(here), chunk):
            some = here[at : at + chunk]
            places.append(find(flat, some + some // cells * (points - cells) + MARGIN, some, samples.error))
    found = xp.sort(xp.concatenate(places)) if places else xp.empty(0)
    at = doubtful // (cells + 1) * cells + doubtful % (cells + 1)
    return Found(_host(samples.first + found * samples.step), tuple(_host(samples.first + at * samples.step).tolist()))


def _host(array: Any) -> np.ndarray:
    """Return an array in the host's memory."""
    return array if isinstance(array, np.ndarray) else array.get()


def _simple(flat: Any, cells: Any, place: Any, error: float) -> Any:
    """Return the zero of each cell at whose ends Z has different signs, in cells from the window's beginning."""
    ends = module_of(flat).ones(len(cells))
    roots = _roots(_polynomials(flat, cells), -ends, ends, module_of(flat).sign(flat[cells]))
    return place + (roots + 1) / 2


def _dips(v: Any, cells: int) -> Any:
    """Tell in which cells |Z| falls at the beginning and rises at the end; shape (parts, cells).

    The slopes are differences over five points, with some of the value allowed against them: what is told too often
    costs a little time, what is missed leaves the block's count short, and then every cell is looked at.
    """
    xp = module_of(v)

    def moved(by: int) -> Any:
        return v[:, MARGIN + by : MARGIN + by + cells + 1]

    slope = 8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))
    slope *= xp.sign(moved(0))  # above zero: away from zero
    size = 0.3 * abs(moved(0))
    return (slope[:, :-1] < size[:, :-1]) & (slope[:, 1:] > -size[:, 1:])


def _pairs(flat: Any, cells: Any, place: Any, error: float) -> Any:
    """Return the zeros, two each, of the cells in which Z dips through zero and back."""
    xp = module_of(flat)
    p, sign = _polynomials(flat, cells), xp.sign(flat[cells])
    # The lowest of the values along the cell, then Newton's steps on the slope around it.
    x = xp.linspace(-1, 1, 17)
    along = sign * (p.T @ x ** xp.arange(DEGREE + 1)[:, None]).T
    at = x[along.argmin(0)]
    slopes = p[1:] * xp.arange(1, DEGREE + 1)[:, None]
    for _ in range(6):
        value, slope = _evaluate(slopes, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = xp.nan_to_num(value / slope)
        at = xp.clip(at - xp.clip(step, -0.125, 0.125), -1, 1)
    deep = sign * _evaluate(p, at)[0] < -error
    if not bool(deep.any()):
        return xp.empty(0)
    p, at, sign, place = p[:, deep], at[deep], sign[deep], place[deep]
    ends = xp.ones(len(at))
    first, second = _roots(p, -ends, at, sign), _roots(p, at, ends, -sign)
    return xp.concatenate([place + (first + 1) / 2, place + (second + 1) / 2])


def values(samples: Samples, offsets: np.ndarray) -> np.ndarray:
    """Evaluate Z between the samples of a window of one part, in the host's memory.

    Parameters
    ----------
    samples : Samples
    offsets : ndarray of float64
        Heights over the samples' base, within the window.

    Returns
    -------
    ndarray of float64
        With the samples' error.
    """
    place = (offsets - samples.first) / samples.step
    cells = np.clip(np.floor(place).astype(int), 0, samples.values.shape[1] - 2 * MARGIN - 2)
    return _evaluate(_polynomials(samples.values[0], cells + MARGIN), 2 * (place - cells) - 1)[0]
