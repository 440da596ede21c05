"""The Riemann-Siegel theta function: the phase that makes zeta real on the critical line, and what counts its turns.

    theta(t) = Im log Gamma(1/4 + i t/2) - t/2 log pi
             ~ t/2 log(t / 2 pi e) - pi/8 + 1/(48 t) + 7/(5760 t^3) + 31/(80640 t^5) + 127/(430080 t^7) + ...

The asymptotic series [1]_ is cut after t^-7; from t = 14 on the first term left out is below 3e-14.
Phases reach 1e14 radians, so they are worked out in 60 decimal digits at one point of a window and developed around it.

References
----------
.. [1] H. M. Edwards, Riemann's Zeta Function, Academic Press (1974), section 6.5.
"""

from __future__ import annotations

import importlib
import math
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np

from .double_double import DIGITS, Pair, from_decimal

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")
CORRECTIONS = ((1, 48), (7, 5760), (31, 80640), (127, 430080))  # of t^-1, t^-3, t^-5, t^-7
TWO_PI = 2 * math.pi
SERIES_FROM = 20.0  # below, the logarithm of Gamma itself is asked


def exact(t: Any) -> Decimal:
    """Return theta(t) / 2 pi, in turns, to some 45 digits but for the cut of the series.

    Parameters
    ----------
    t : float or Decimal
        At least 1.
    """
    with localcontext() as context:
        context.prec = DIGITS
        t = Decimal(t)
        return _exact(t, (t / (2 * PI)).ln())


def _exact(t: Decimal, logarithm: Decimal) -> Decimal:
    value = t / 2 * (logarithm - 1) - PI / 8
    for power, (above, below) in enumerate(CORRECTIONS):
        value += Decimal(above) / (below * t ** (2 * power + 1))
    return value / (2 * PI)


def theta(t: Any) -> Any:
    """Evaluate the Riemann-Siegel theta function.

    Parameters
    ----------
    t : float or array_like of float
        Heights, at least 1.

    Returns
    -------
    float or ndarray
        Radians, rounded to float64: at 1e12 its own spacing is 2e-3. For phases there use ``theta_turns``.

    Raises
    ------
    ValueError
        If a height is below 1 or not finite.

    Examples
    --------
    >>> from adaptive_compute import zeta
    >>> abs(zeta.theta(17.8455995405)) < 1e-9  # the first Gram point
    True
    """
    t = np.asarray(t, dtype=float)
    if not np.all((t >= 1) & (t < np.inf)):
        raise ValueError(f"t must be finite and at least 1, got {t[~((t >= 1) & (t < np.inf))].flat[0]}")
    value = t / 2 * (np.log(t / TWO_PI) - 1) - math.pi / 8
    for power, (above, below) in enumerate(CORRECTIONS):
        value = value + above / (below * t ** (2 * power + 1))
    if np.any(t < SERIES_FROM):
        loggamma = importlib.import_module("scipy.special").loggamma
        value = np.where(t < SERIES_FROM, loggamma(0.25 + 0.5j * t).imag - t / 2 * math.log(math.pi), value)
    return float(value) if value.ndim == 0 else value


def theta_turns(t: Any) -> tuple[int, float]:
    """Return theta(t) / 2 pi as a whole number of turns and the rest, in [-1/2, 1/2], exact to 1e-16.

    Parameters
    ----------
    t : float or Decimal
        At least 1.

    Examples
    --------
    >>> from adaptive_compute.zeta.theta import theta_turns
    >>> turns, rest = theta_turns(1e12)
    >>> turns, round(rest, 12)
    (1972975715135, 0.133592122409)
    """
    return _parts(exact(t))


def _parts(value: Decimal) -> tuple[int, float]:
    with localcontext() as context:
        context.prec = DIGITS
        whole = value.to_integral_value()
        return int(whole), float(value - whole)


class Development(NamedTuple):
    """Theta around a point: ``turns + rest + frequency * s + 1/(2 pi) * sum(curve[j] * s^(j+2))``, in turns."""

    center: int
    turns: int
    rest: float
    frequency: Pair  # turns per unit of height
    curve: np.ndarray  # radians


def develop(center: int, reach: float) -> Development:
    """Develop theta around a point in powers of the offset.

    Parameters
    ----------
    center : int
        The point.
    reach : float
        Largest offset, below half the point's height. The first term left out is below 1e-14 radians there.

    Returns
    -------
    Development
    """
    with localcontext() as context:
        context.prec = DIGITS
        t = Decimal(center)
        logarithm = (t / (2 * PI)).ln()
        slope = logarithm / 2
        for power, (above, below) in enumerate(CORRECTIONS):
            slope -= Decimal(above) * (2 * power + 1) / (below * t ** (2 * power + 2))
        frequency = from_decimal(slope / (2 * PI))
        turns, rest = _parts(_exact(t, logarithm))
    curve: list[float] = []
    ratio, j = reach / center, 2
    while True:
        # theta^(j) / j!: of t/2 log t, and of c t^-m, whose development is c t^-m binomial(-m, j) t^-j.
        value = 0.5 * (-1) ** j / (j * (j - 1)) * float(center) ** (1 - j)
        for power, (above, below) in enumerate(CORRECTIONS):
            m = 2 * power + 1
            value += above / below * (-1) ** j * math.comb(m + j - 1, j) * float(center) ** (-m - j)
        curve.append(value)
        if center * ratio**j < 1e-15 or j > 60:
            break
        j += 1
    return Development(center, turns, rest, frequency, np.array(curve))


def horner(coefficients: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Evaluate ``sum(coefficients[j] * s^j)`` at each offset."""
    value = np.full_like(s, coefficients[-1])
    for c in coefficients[-2::-1]:
        value *= s
        value += c
    return value
