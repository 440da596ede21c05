"""Counting zeros: Gram points, and N(t) closed by Turing's method.

The n-th Gram point g_n has ``theta(g_n) = n pi``; it is good where ``(-1)^n Z(g_n) > 0``. A Gram block of length k lies
between two good points g_n and g_(n+k) with bad ones between; it obeys Rosser's rule if it holds at least k zeros.

Turing's method in Lehman's and Brent's form [1]_ (theorem 3.2): let K Gram blocks in a row, from g_n to g_p, obey
Rosser's rule, with ``K >= 0.0061 log(g_p)^2 + 0.08 log(g_p)`` and g_n > 168 pi. Then ``N(g_n) <= n + 1`` and ``N(g_p)
>= p + 1``. So a good Gram point with K such blocks on either side has exactly n + 1 zeros of zeta below it, on the
line or off. The zeros within a block are sign changes of Z, in floating point, each larger than the error budget.
Below 168 pi the zeros from 14 on are counted, and the theorem bounds their number from above at a Gram point beyond.

References
----------
.. [1] R. P. Brent, "On the zeros of the Riemann zeta function in the critical strip", Math. Comp. 33 (1979) 1361-1372.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np

from . import sign, spectral
from .double_double import DIGITS
from .probe import HIGHEST
from .theta import PI, TWO_PI, exact, theta, theta_turns

LEHMAN = 168 * math.pi  # from here on Turing's method applies
FIRST = 14  # below lies no zero
_GRAM_LOWEST = -1


def gram_exact(n: int) -> Decimal:
    """Return the n-th Gram point to some 40 digits.

    Parameters
    ----------
    n : int
        At least -1.
    """
    if n < _GRAM_LOWEST:
        raise ValueError(f"n must be at least {_GRAM_LOWEST}, got {n}")
    with localcontext() as context:
        context.prec = DIGITS
        t = Decimal(_guess(n))
        for _ in range(8):
            step = (exact(t) * 2 - n) * PI / ((t / (2 * PI)).ln() / 2)
            t -= step
            if abs(step) < Decimal(10) ** -35:
                break
        return +t


def _guess(n: int) -> float:
    t = 20.0 + 2 * n / max(math.log(n + 3), 1)
    for _ in range(60):
        slope = math.log(t / TWO_PI) / 2
        step = (t / 2 * (math.log(t / TWO_PI) - 1) - math.pi / 8 - n * math.pi) / slope
        t = max(t - step, 8.0)
        if abs(step) < 1e-9 * t:
            break
    return t


def gram(n: int) -> float:
    """Return the n-th Gram point, where theta is n pi.

    Parameters
    ----------
    n : int
        At least -1.

    Returns
    -------
    float
        Rounded to float64.

    Examples
    --------
    >>> from adaptive_compute import zeta
    >>> round(zeta.gram(0), 8)
    17.84559954
    """
    return float(gram_exact(n))


class OpenCountError(ArithmeticError):
    """N(t) could not be closed: no Gram point near has enough Gram blocks that obey Rosser's rule."""


class Closing(NamedTuple):
    """N at a height, and what closed it."""

    zeros: int
    point: int  # n of the Gram point at which Turing's method closed
    blocks: int  # Gram blocks on either side that the theorem needs


def close(base: int, offset: float) -> Closing:
    """Close N(t) at ``t = base + offset``.

    Parameters
    ----------
    base : int
    offset : float
        The height, 14 to 1e13.

    Returns
    -------
    Closing

    Raises
    ------
    OpenCountError
        If no Gram point near can be closed.
    """
    t = base + offset
    if t < LEHMAN + 200:
        return _close_low(t)
    turns, rest = theta_turns(Decimal(base) + Decimal(offset))
    middle = 2 * turns + math.floor(2 * rest)  # g_middle <= t
    for reach in (40, 120, 400):
        found = _near(base, offset, middle - reach, middle + reach)
        if found is not None:
            return found
    raise OpenCountError(f"N(t) at t = {base} + {offset}: no Gram point within 400 has enough Gram blocks beside it")


class _Neighbourhood(NamedTuple):
    base: int
    zeros: np.ndarray  # offsets
    points: np.ndarray  # offsets of the Gram points first, first + 1, ...
    first: int
    good: np.ndarray


def _neighbourhood(first: int, last: int) -> _Neighbourhood:
    """Find the zeros and judge the Gram points from g_first to g_last."""
    ends = [gram_exact(first), gram_exact(last)]
    base = int(ends[0])
    low, high = (float(t - base) for t in ends)
    n = np.arange(first, last + 1)
    points = _gram_offsets(base, low, high, n)
    zeros, values = [], np.empty(len(points))
    for window in spectral.windows(base, low - 1e-3, high + 1e-3):
        for attempt in range(3):  # a grid that meets a zero is moved
            samples = spectral.sample(window, sign.OVERSAMPLING * (1 + attempt / 17))
            (found,) = sign.zeros([samples])
            if not found.doubtful:
                break
        else:
            raise OpenCountError(f"the sign of Z at {base} + {found.doubtful[0]!r} could not be told")
        zeros.append(found.offsets)
        here = (points >= window.first) & (points <= window.last)
        values[here] = sign.values(samples, points[here])
    good = values * np.where(n % 2 == 0, 1, -1) > 1e-7
    return _Neighbourhood(base, np.concatenate(zeros), points, first, good)


def _gram_offsets(base: int, low: float, high: float, n: np.ndarray) -> np.ndarray:
    """Return the Gram points between two known ones, by Newton's steps, to some 1e-9."""
    if base < 100_000:  # theta itself is exact enough
        points = np.array([_guess(k) for k in n.tolist()])
        for _ in range(3):
            points = points - (theta(points) - n * math.pi) / (np.log(points / TWO_PI) / 2)
        return points - base
    points = np.linspace(low, high, len(n))
    height = base + low
    for _ in range(6):  # what theta gains on its value at the first one
        s = points - low
        gained = (s * math.log(height / TWO_PI) + (height + s) * np.log1p(s / height) - s) / TWO_PI
        points = points - (gained - (n - n[0])) * TWO_PI / np.log((height + s) / TWO_PI)
    return points


def _needed(t: float) -> int:
    """Return how many Gram blocks the theorem needs up to a height."""
    return math.ceil(0.0061 * math.log(t) ** 2 + 0.08 * math.log(t))


def _rosser(near: _Neighbourhood) -> tuple[np.ndarray, np.ndarray]:
    """Return the good Gram points' places and, for the block after each but the last, whether it obeys the rule."""
    good = np.flatnonzero(near.good)
    inside = np.searchsorted(near.zeros, near.points[good])
    return good, np.diff(inside) >= np.diff(good)


def _near(base: int, offset: float, first: int, last: int) -> Closing | None:
    near = _neighbourhood(first, last)
    good, obeys = _rosser(near)
    needed = _needed(near.base + near.points[-1])
    here = offset + (base - near.base)
    for at in np.argsort(np.abs(near.points[good] - here)):
        if at >= needed and at + needed <= len(obeys) and obeys[at - needed : at + needed].all():
            n = near.first + int(good[at])
            at_point, at_height = np.searchsorted(near.zeros, [near.points[good[at]], here])
            return Closing(n + 1 + int(at_height) - int(at_point), n, needed)
    return None


def _close_low(t: float) -> Closing:
    """Count from the first zero, with the theorem's upper bound at a Gram point beyond 168 pi."""
    near = _neighbourhood(_GRAM_LOWEST, 700)
    lower = np.concatenate([
        sign.zeros([spectral.sample(window, sign.OVERSAMPLING)])[0].offsets + window.base
        for window in spectral.windows(0, float(FIRST), float(near.base + near.points[0]))
    ]) if near.base + near.points[0] > FIRST else np.empty(0)  # fmt: skip
    zeros = np.concatenate([lower, near.zeros + near.base])
    zeros = zeros[np.concatenate([[True], np.diff(zeros) > 1e-6])]
    good, obeys = _rosser(near)
    needed = _needed(near.base + near.points[-1])
    for at, place in enumerate(good):
        height = near.base + near.points[place]
        if height > LEHMAN and obeys[at : at + needed].all() and at + needed <= len(obeys):
            n = near.first + int(place)
            if np.searchsorted(zeros, height) != n + 1:
                raise OpenCountError(f"{np.searchsorted(zeros, height)} zeros were found below g_{n}, not {n + 1}")
            return Closing(int(np.searchsorted(zeros, t)), n, needed)
    raise OpenCountError("no Gram point beyond 168 pi could be closed")


def numbered(n: int) -> tuple[int, float, float]:
    """Return the n-th zero and a height between it and the next one.

    Parameters
    ----------
    n : int
        From 1 on.

    Returns
    -------
    base : int
    zero : float
        The zero is at ``base + zero``, the height at ``base + after``.
    after : float
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    middle = n - 2  # g_(n-2) and the n-th zero lie near each other
    first = max(middle - 60, _GRAM_LOWEST)
    near = _neighbourhood(first, middle + 60)
    here = float(near.points[len(near.points) // 2])
    below = close(near.base, here).zeros
    at = n - 1 - below + int(np.searchsorted(near.zeros, here))
    if first == _GRAM_LOWEST:  # all from the first zero on
        at = n - 1
    return near.base, float(near.zeros[at]), float(near.zeros[at] + near.zeros[at + 1]) / 2


def N(t: Any, offset: float = 0.0) -> int:  # noqa: N802 - its name in the field
    """Count the zeros of zeta in the critical strip with imaginary part in (0, t], by Turing's method.

    Parameters
    ----------
    t : float or int
        Height, at most 1e13.
    offset : float, optional
        Added to ``t`` without rounding.

    Returns
    -------
    int
        At a zero itself, within some 1e-9, the count before it or after it.

    Raises
    ------
    ValueError
        If the height is out of range.
    OpenCountError
        If the count cannot be closed, which says where.

    Examples
    --------
    >>> from adaptive_compute import zeta
    >>> zeta.N(100)
    29
    """
    total = float(t) + offset
    if not 0 <= total <= HIGHEST:
        raise ValueError(f"t must be from 0 to {HIGHEST:g}, got {total}")
    if total < FIRST:
        return 0
    base = math.floor(t)
    return close(base, float(Decimal(float(t)) - base) + offset).zeros
