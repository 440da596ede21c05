"""Zeros from samples: sign changes on the grid, close pairs between its points, and each zero's place.

Between two grid points Z is a polynomial of degree 11 whose coefficients are a fixed matrix times the samples around:
the matrix is the least-squares interpolant of everything whose frequency is at most that of Z, so its error (some
1e-12 of the largest sample near) is known from the frequencies alone. A zero is only ever reported between two points
at which Z has different signs, each by more than the error budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .spectral import MARGIN, Samples, chebyshev_fit

TAPS = 20  # samples that a cell's polynomial is made of
DEGREE = 11
PIECE = 1024  # columns of a product: BLAS does so few in the calling thread
CHUNK = 8192  # cells worked on at a time: with fewer, Python takes longer; with more, the cache is left
OVERSAMPLING = 4.0
ALLOWED = 0.3  # of the value, against a slope over twelve cells
STEEP = 18.0  # slope over twelve cells, as a multiple of the value, with which a tangent crosses zero within a cell
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


def _polynomials(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the cells' polynomials, shape (DEGREE + 1, cells), from flat samples."""
    views, matrix = np.lib.stride_tricks.sliding_window_view(values, TAPS), interpolant()[0].T
    p = np.empty((DEGREE + 1, len(cells)))
    for at in range(0, len(cells), PIECE):
        np.matmul(matrix, views[cells[at : at + PIECE] - (TAPS // 2 - 1)].T, out=p[:, at : at + PIECE])
    return p


def _evaluate(p: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values and slopes of the polynomials."""
    slope = p[-1].copy()
    value = slope * x
    value += p[-2]
    for row in p[-3::-1]:
        slope *= x
        slope += value
        value *= x
        value += row
    return value, slope


class _Sought(NamedTuple):
    """Zeros that are looked for: each in a cell's polynomial ``p``, between ``low``, where the values are ``a``, and
    ``high``, where they are ``b``, of other sign; ``x`` is the best place so far."""

    p: np.ndarray
    low: np.ndarray
    high: np.ndarray
    a: np.ndarray
    b: np.ndarray
    x: np.ndarray

    def some(self, which: np.ndarray) -> _Sought:
        return _Sought(self.p[:, which], *(part[which] for part in self[1:]))


def _newton(sought: _Sought) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the zeros after a few of Newton's steps, and the numbers of those not certain by then."""
    p, low, high, a, b, x = sought
    with np.errstate(all="ignore"):
        np.multiply(low, b, out=x)
        x -= high * a
        x /= b - a
        for _ in range(2):
            value, slope = _evaluate(p[:5], x)  # a cell holds an eighth of a turn: the rest is below 1e-3
            value /= slope
            x -= value
            np.clip(x, low, high, out=x)
        value, slope = _evaluate(p, x)
        first = value / slope
        x -= first
        value, slope = _evaluate(p, x)
        second = value / slope
        x -= second
        # Each step's error is its square times the same factor, which the two steps tell.
        done = abs(second) ** 3 <= 1e-12 * first**2
        done |= abs(second) < 1e-14
        done &= (x > low) & (x < high)
    return x, np.flatnonzero(~done)


def _bracketed(sought: _Sought) -> np.ndarray:
    """Return the zeros by Newton's steps kept between the ends; an end moves to each point tried."""
    p, low, high, a, b, x = sought
    low, high = low.copy(), high.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        secant = (low * b - high * a) / (b - a)
    secant = np.where((secant > low) & (secant < high), secant, (low + high) / 2)
    x = np.where((x > low) & (x < high), x, secant)
    positive = a > 0
    left = np.arange(len(x))
    roots = x.copy()
    noise = 1e-15 * abs(p).max(0)
    for _ in range(64):
        value, slope = _evaluate(p, x)
        same = (value > 0) == positive
        np.copyto(low, x, where=same)
        np.copyto(high, x, where=~same)
        with np.errstate(divide="ignore", invalid="ignore"):
            tried = x - value / slope
        following = np.where((tried > low) & (tried < high), tried, (low + high) / 2)
        np.copyto(following, x, where=abs(value) <= noise)
        going = abs(following - x) > 1e-11
        x = following
        roots[left] = x
        if not going.any():
            break
        left, x, low, high, positive, p = left[going], x[going], low[going], high[going], positive[going], p[:, going]
        noise = noise[going]
    return roots


def zeros(samples: Sequence[Samples], every: bool = False) -> list[Found]:
    """Find several windows' zeros: in one go, because each step costs Python the same for few cells as for many.

    Parameters
    ----------
    samples : sequence of Samples
    every : bool
        Look for close pairs in every cell, instead of those alone in which Z seems to turn.

    Returns
    -------
    list of Found
        One a window.
    """
    flat = np.concatenate([s.values for s in samples]) if len(samples) > 1 else samples[0].values
    changes, turns, doubtful = [], [], []
    begin = 0
    for s in samples:
        inner = s.values[MARGIN:-MARGIN]
        positive = inner > 0
        change = positive[1:] != positive[:-1]
        turning = np.flatnonzero(~change if every else _dips(s.values) & ~change)
        changes.append(np.flatnonzero(change) + (begin + MARGIN))
        turns.append(turning + (begin + MARGIN))
        at = np.flatnonzero(abs(inner) <= s.error)
        doubtful.append(tuple((s.first + at * s.step).tolist()))
        begin += len(s.values)
    errors = np.repeat([s.error for s in samples], [len(t) for t in turns])
    simple, turning = np.concatenate(changes), np.concatenate(turns)
    pieces, cells = [], []
    for k in range(0, len(simple), CHUNK):
        cells.append(simple[k : k + CHUNK])
        pieces.append(_simple(flat, cells[-1]))
    for k in range(0, len(turning), CHUNK):
        some, piece = _pairs(flat, turning[k : k + CHUNK], errors[k : k + CHUNK])
        cells.append(some)
        pieces.append(piece)
    places, cell = _solved(pieces), np.concatenate(cells or [turning])
    if len(cell) > len(simple):  # both zeros of a pair go where its cell belongs
        more, where = cell[len(simple) :], np.searchsorted(simple, cell[len(simple) :])
        order = np.argsort(more, kind="stable")
        places = np.insert(places[: len(simple)], where[order], places[len(simple) :][order])
        cell = np.insert(simple, where[order], more[order])
    found = []
    begin = 0
    for s, doubt in zip(samples, doubtful):
        low, high = np.searchsorted(cell, (begin, begin + len(s.values)))
        offsets = places[low:high]
        offsets += 1
        offsets /= 2
        offsets += cell[low:high] - (begin + MARGIN)
        offsets *= s.step
        offsets += s.first
        found.append(Found(offsets.copy(), doubt))
        begin += len(s.values)
    return found


def _simple(flat: np.ndarray, cells: np.ndarray) -> _Sought:
    """Return what is sought in the cells at whose ends Z has different signs."""
    ends = np.ones(len(cells))
    return _Sought(_polynomials(flat, cells), -ends, ends, flat[cells], flat[cells + 1], np.empty(len(cells)))


def _solved(pieces: Iterable[_Sought]) -> np.ndarray:
    """Return the zeros of all pieces; what a few steps leave uncertain is worked on together."""
    done, rest, where = [np.empty(0)], [], []
    begin = 0
    for piece in pieces:
        x, left = _newton(piece)
        rest.append(piece.some(left))
        where.append(begin + left)
        done.append(x)
        begin += len(x)
    places = np.concatenate(done)
    if any(map(len, where)):
        p, *others = (np.concatenate(parts, axis=-1) for parts in zip(*rest))
        places[np.concatenate(where)] = _bracketed(_Sought(p, *others))
    return places


def _dips(v: np.ndarray) -> np.ndarray:
    """Tell in which cells Z may reach zero between ends of the same sign; shape (cells,).

    Either |Z| falls at the beginning and rises at the end; or a tangent at an end crosses zero well within the cell, as
    where Z turns twice. The slopes are differences over five points, with some of the value allowed against them: what
    is told too often costs a little time, what is missed leaves the block's count short, and then every cell is looked
    at.
    """
    inner = slice(MARGIN, -MARGIN)
    slope = v[MARGIN + 1 : 1 - MARGIN] - v[MARGIN - 1 : -1 - MARGIN]
    slope *= 8
    slope -= v[MARGIN + 2 : 2 - MARGIN] - v[MARGIN - 2 : -2 - MARGIN]  # of twelve cells
    slope = np.copysign(slope, slope * v[inner])  # above zero: away from zero
    size = abs(v[inner])
    size *= ALLOWED
    found = slope[:-1] < size[:-1]
    found &= slope[1:] > -size[1:]
    size *= STEEP / ALLOWED
    found |= slope[1:] > size[1:]
    found |= slope[:-1] < -size[:-1]
    return found


def _pairs(flat: np.ndarray, cells: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, _Sought]:
    """Return the cells in which Z dips through zero and back, each twice, and what is sought in them.

    First come the zeros before the lowest point, then those after it.
    """
    p, ends = _polynomials(flat, cells), flat[cells]
    sign = np.sign(ends)
    # The lowest of the values along the cell, then Newton's steps on the slope around it.
    x = np.linspace(-1, 1, 17)
    along = sign * (p.T @ x ** np.arange(DEGREE + 1)[:, None]).T
    at = x[along.argmin(0)]
    slopes = p[1:] * np.arange(1, DEGREE + 1)[:, None]
    for _ in range(6):
        value, slope = _evaluate(slopes, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.nan_to_num(value / slope)
        at = np.clip(at - np.clip(step, -0.125, 0.125), -1, 1)
    lowest = _evaluate(p, at)[0]
    deep = np.flatnonzero(sign * lowest < -error)
    p, at, lowest, cells = p[:, deep], at[deep], lowest[deep], cells[deep]
    one = np.ones(len(at))
    sought = _Sought(
        np.concatenate([p, p], 1), np.concatenate([-one, at]), np.concatenate([at, one]),
        np.concatenate([flat[cells], lowest]), np.concatenate([lowest, flat[cells + 1]]), np.empty(2 * len(at)),
    )  # fmt: skip
    return np.concatenate([cells, cells]), sought


def values(samples: Samples, offsets: np.ndarray) -> np.ndarray:
    """Evaluate Z between a window's samples.

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
    cells = np.clip(np.floor(place).astype(int), 0, len(samples.values) - 2 * MARGIN - 2)
    return _evaluate(_polynomials(samples.values, cells + MARGIN), 2 * (place - cells) - 1)[0]
