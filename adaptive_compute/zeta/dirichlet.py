"""Coefficients and frequencies of the main sum: n^-1/2 and log n, worked out once and reused in every window.

The frequencies are pairs of float64 (32 digits), because a phase ``t log n`` at t = 1e13 must be known to 1e-11 of a
turn.
"""

from __future__ import annotations

import threading
from decimal import Decimal, localcontext

import numpy as np

from .double_double import DIGITS, Pair, add, divide, from_decimal, multiply
from .theta import PI

_HEAD = 256  # leading parts of n that have a logarithm of their own
_lock = threading.Lock()
_known: Pair | None = None


def frequencies(count: int) -> Pair:
    """Return ``log(n) / 2 pi`` for n = 1..count, in turns per unit of height, to a relative error of 1e-31.

    Parameters
    ----------
    count : int
        At least 1.

    Returns
    -------
    Pair of ndarray of float64, shape (count,)
        Not to be changed: it is shared.

    Examples
    --------
    >>> from adaptive_compute.zeta.dirichlet import frequencies
    >>> round(float(frequencies(2).hi[1]), 12)
    0.110317800076
    """
    global _known
    with _lock:
        if _known is None or len(_known.hi) < count:
            _known = _logarithms(max(count, 4096, 0 if _known is None else 2 * len(_known.hi)))
        return Pair(_known.hi[:count], _known.lo[:count])


def _logarithms(count: int) -> Pair:
    """Work out log(n) / 2 pi: of n's leading eight bits from a table, and of what is left by a short series.

    With ``a`` the leading bits, ``log(n/a) = 2 artanh(z)``, ``z = (n - a)/(n + a)``, at most 2^-8.
    """
    n = np.arange(1, count + 1, dtype=np.float64)
    exponent = np.maximum(np.frexp(n)[1] - 8, 0)
    head = np.floor(np.ldexp(n, -exponent))
    a = np.ldexp(head, exponent)
    z = divide(n - a, n + a)
    square = multiply(z, z)
    tail = np.zeros_like(n)
    for k in (17, 15, 13, 11, 9, 7):  # these matter to fewer digits than a float64 has
        tail = square.hi * (tail + 1.0 / k)
    series = Pair(tail, np.zeros_like(n))
    for k in (5, 3, 1):
        series = add(series, divide(np.ones_like(n), np.full_like(n, float(k))))
        series = multiply(series, square) if k > 1 else series
    series = multiply(series, z)
    with localcontext() as context:
        context.prec = DIGITS
        logarithms = [Decimal(max(k, 1)).ln() / (2 * PI) for k in range(_HEAD)]
        two = from_decimal(Decimal(2).ln() / (2 * PI))
        scale = from_decimal(1 / PI)
    table = np.array([from_decimal(value) for value in logarithms])
    power = exponent.astype(float)
    total = multiply(Pair(power, np.zeros_like(n)), Pair(np.full_like(n, two.hi), np.full_like(n, two.lo)))
    index = head.astype(np.intp)
    total = add(total, Pair(table[index, 0], table[index, 1]))
    total = add(total, multiply(series, Pair(np.full_like(n, scale.hi), np.full_like(n, scale.lo))))
    for part in total:
        part.flags.writeable = False
    return total


def coefficients(count: int) -> np.ndarray:
    """Return ``n^-1/2`` for n = 1..count.

    Parameters
    ----------
    count : int
        At least 0.

    Returns
    -------
    ndarray of float64, shape (count,)
    """
    return 1 / np.sqrt(np.arange(1.0, count + 1))
