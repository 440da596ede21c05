"""The Riemann-Siegel correction: what the main sum of ``N = floor(sqrt(t / 2 pi))`` terms leaves out.

    R(t) = (-1)^(N-1) tau^(-1/4) * (C0(p) + C1(p) tau^(-1/2) + ... + C4(p) tau^-2) + error,     tau = t / 2 pi

with ``p`` the fractional part of sqrt(tau), ``C0(p) = Psi(p) = cos(2 pi (p^2 - p - 1/16)) / cos(2 pi p)`` and the
others sums of its derivatives [1]_. Gabcke [2]_ bounds the error, for t >= 200, by ``0.017 t^(-11/4)``: 1e-10 at t =
1000. The power series of Psi around p = 1/2 is worked out in decimal numbers, once; nothing is copied from a table.

References
----------
.. [1] H. M. Edwards, Riemann's Zeta Function, Academic Press (1974), section 7.
.. [2] W. Gabcke, Neue Herleitung und explizite Restabschaetzung der Riemann-Siegel-Formel, Goettingen (1979).
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np

from .theta import PI, TWO_PI

LOWEST = 1000.0  # below, Euler-Maclaurin is used
_TERMS = 96


def bound(t: float) -> float:
    """Return Gabcke's bound for the error that is left at a height of at least 200."""
    return 0.017 * t**-2.75


@lru_cache(maxsize=1)
def _series() -> tuple[np.ndarray, ...]:
    """Return the power series of C0..C4 in ``x = p - 1/2``, as float64 coefficients."""
    with localcontext() as context:
        context.prec = 120
        # Psi = -cos(2 pi x^2 - 5 pi / 8) / cos(2 pi x); both are entire, and their quotient is too.
        half, root = _cos_sin(5 * PI / 8)
        above = [Decimal(0)] * _TERMS
        below = [Decimal(0)] * _TERMS
        term = Decimal(1)  # (2 pi x^2)^k / k!
        for k in range(_TERMS // 2):
            above[2 * k] = -term * (half if k % 2 == 0 else root) * (1 if k % 4 in (0, 1) else -1)
            term *= 2 * PI / (k + 1)
        term = Decimal(1)
        for k in range(0, _TERMS, 2):
            below[k] = term * (1 if k % 4 == 0 else -1)
            term *= (2 * PI) ** 2 / ((k + 1) * (k + 2))
        psi: list[Decimal] = []
        for k in range(_TERMS):
            psi.append(above[k] - sum((below[j] * psi[k - j] for j in range(1, k + 1)), Decimal(0)))

        def derivative(order: int) -> list[Decimal]:
            return [psi[k + order] * math.factorial(k + order) / math.factorial(k) for k in range(_TERMS - 12)]

        def combine(*parts: tuple[int, int, int, int]) -> np.ndarray:
            total = [Decimal(0)] * (_TERMS - 12)
            for numerator, denominator, power, order in parts:
                factor = Decimal(numerator) / (denominator * PI**power)
                total = [a + factor * b for a, b in zip(total, derivative(order))]
            values = np.array([float(v) for v in total])
            used = np.flatnonzero(np.abs(values) * 0.6 ** np.arange(len(values)) > 1e-18)
            return values[: used[-1] + 1]

        return (
            combine((1, 1, 0, 0)),
            combine((-1, 96, 2, 3)),
            combine((1, 64, 2, 2), (1, 18432, 4, 6)),
            combine((-1, 64, 2, 1), (-1, 3840, 4, 5), (-1, 5308416, 6, 9)),
            combine((1, 128, 2, 0), (19, 24576, 4, 4), (11, 5898240, 6, 8), (1, 2038431744, 8, 12)),
        )


def _cos_sin(x: Decimal) -> tuple[Decimal, Decimal]:
    cos, sin, term, k = Decimal(0), Decimal(0), Decimal(1), 0
    while abs(term) > Decimal(10) ** -130:
        cos, sin = (cos + (term if k % 4 == 0 else -term), sin) if k % 2 == 0 else (
            cos, sin + (term if k % 4 == 1 else -term))  # fmt: skip
        k += 1
        term = term * x / k
    return cos, sin


def remainder(t: Any, terms: Any = None) -> np.ndarray:
    """Evaluate the correction.

    Parameters
    ----------
    t : array_like of float
        Heights, at least 200.
    terms : int or array of int, optional
        N, the number of terms of the main sum that this corrects; default ``floor(sqrt(t / 2 pi))``. Near the ends of
        N's range the result goes on smoothly past it.

    Returns
    -------
    ndarray of float64
    """
    t = np.asarray(t, dtype=float)
    root = np.sqrt(t / TWO_PI)
    n = np.floor(root) if terms is None else np.asarray(terms, float)
    x = np.broadcast_to((root - n - 0.5).ravel(), (len(_matrix()[0]), root.size)).copy()
    x[0] = 1
    np.multiply.accumulate(x, out=x)  # the powers
    value, *further = (_matrix() @ x).reshape(5, *root.shape)[::-1]
    for series in further:
        value = value / root + series
    return np.where(n % 2 == 1, 1.0, -1.0) * value / np.sqrt(root)


@lru_cache(maxsize=1)
def _matrix() -> np.ndarray:
    """Return the series' coefficients, shape (5, powers)."""
    series = _series()
    matrix = np.zeros((len(series), max(map(len, series))))
    for row, found in zip(matrix, series):
        row[: len(found)] = found
    return matrix
