"""Z at any points, one by one, by the Riemann-Siegel formula itself: slower than a window, and as exact as float64
sums.

Each phase ``t log n`` is taken modulo one turn in pairs of float64; what is left is the rounding of N cosines and of
their sum, about 1e-16 sqrt(N) in the mean and at most ``budget``.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from . import dirichlet, low
from .double_double import DIGITS, cycles
from .remainder import LOWEST, bound, remainder
from .theta import TWO_PI, theta_turns

HIGHEST = 1e13


def budget(t: float) -> float:
    """Bound the error of ``Z`` at a height."""
    if t < LOWEST:
        return low.ERROR
    terms = math.sqrt(t / TWO_PI)
    return 4 * math.sqrt(terms) * TWO_PI * 2.0**-51 + bound(t) + 1e-14


def Z(t: Any, offset: Any = None) -> Any:  # noqa: N802 - its name in the field
    """Evaluate Hardy's function Z(t) = exp(i theta(t)) zeta(1/2 + it), real where t is.

    Parameters
    ----------
    t : float, int or array_like
        Heights from 1 to 1e13.
    offset : float or array_like, optional
        Added to ``t`` without rounding: at 1e12 float64 alone spaces heights 1e-4 apart.

    Returns
    -------
    float or ndarray of float64

    Raises
    ------
    ValueError
        If a height is out of range or not finite.

    Examples
    --------
    >>> from adaptive_compute import zeta
    >>> abs(zeta.Z(14.134725141734694)) < 1e-12
    True
    """
    heights, offsets = np.broadcast_arrays(np.asarray(t, float), 0.0 if offset is None else np.asarray(offset, float))
    out = np.empty(heights.shape)
    for place in np.ndindex(heights.shape):
        out[place] = _one(float(heights[place]), float(offsets[place]))
    return float(out) if out.ndim == 0 else out


def _one(t: float, offset: float) -> float:
    total = t + offset
    if not 1 <= total <= HIGHEST:
        raise ValueError(f"t must be from 1 to {HIGHEST:g}, got {total}")
    if total < LOWEST:
        return float(low.hardy([total])[0])
    terms = math.isqrt(int(total / TWO_PI))
    frequencies = dirichlet.frequencies(terms)
    with localcontext() as context:
        context.prec = DIGITS
        _, rest = theta_turns(Decimal(t) + Decimal(offset))
    phase = rest - cycles(t, frequencies) - cycles(offset, frequencies)
    main = 2 * float(np.sum(np.cos(TWO_PI * phase) * dirichlet.coefficients(terms)))
    return main + float(remainder(total, terms))
