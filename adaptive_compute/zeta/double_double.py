"""Pairs of float64 that together hold about 32 digits: enough for phases of 1e14 radians to 1e-17.

A number is ``hi + lo`` with ``|lo|`` at most half a unit in the last place of ``hi``. The error-free sums and products
are Knuth's and Dekker's [1]_; the functions work on arrays of any shape.

References
----------
.. [1] T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18 (1971).
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np

_SPLIT = 134217729.0  # 2^27 + 1
DIGITS = 60  # of the decimal numbers that scalars are worked out in


class Pair(NamedTuple):
    """An array of numbers, each the sum of its two parts."""

    hi: Any
    lo: Any


def two_sum(a: Any, b: Any) -> Pair:
    """Return ``a + b`` and its rounding error, exactly."""
    s = a + b
    v = s - a
    return Pair(s, (a - (s - v)) + (b - v))


def quick_two_sum(a: Any, b: Any) -> Pair:
    """Return ``a + b`` and its rounding error where ``|a| >= |b|``."""
    s = a + b
    return Pair(s, b - (s - a))


def _split(a: Any) -> tuple[Any, Any]:
    c = _SPLIT * a
    high = c - (c - a)
    return high, a - high


def two_prod(a: Any, b: Any) -> Pair:
    """Return ``a * b`` and its rounding error, exactly (operands below 2^996)."""
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return Pair(p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)


def add(a: Pair, b: Pair) -> Pair:
    """Return ``a + b`` with an error of some 1e-32 of the larger one."""
    s, e = two_sum(a.hi, b.hi)
    t, f = two_sum(a.lo, b.lo)
    s, e = quick_two_sum(s, e + t)
    return quick_two_sum(s, e + f)


def multiply(a: Pair, b: Pair) -> Pair:
    """Return ``a * b`` with a relative error of some 1e-32."""
    p, e = two_prod(a.hi, b.hi)
    return quick_two_sum(p, e + (a.hi * b.lo + a.lo * b.hi))


def divide(a: Any, b: Any) -> Pair:
    """Return ``a / b`` for arrays of float64, with a relative error of some 1e-32."""
    q = a / b
    p, e = two_prod(q, b)
    rest = (a - p) - e
    q2 = rest / b
    p, e = two_prod(q2, b)
    return quick_two_sum(q, q2 + ((rest - p) - e) / b)


def from_decimal(value: Decimal) -> Pair:
    """Return a decimal number as a pair."""
    hi = float(value)
    with localcontext() as context:
        context.prec = DIGITS
        return Pair(hi, float(value - Decimal(hi)))


def cycles(t: Any, frequency: Pair) -> np.ndarray:
    """Return ``t * frequency`` modulo 1, in [-1/2, 1/2], with an error of some ``1e-32 * t * frequency + 1e-17``."""
    t = np.float64(t)
    p, e = two_prod(t, frequency.hi)
    part = p - np.rint(p)
    return _centred(part, e + t * frequency.lo)


def _centred(part: Any, rest: Any) -> Any:
    total = part + rest
    return total - np.rint(total)
