"""Points far outside of one period: how far folding them back is exact, and what is lost beyond."""

from __future__ import annotations

import warnings

import numpy as np

from ..errors import NufftError, NufftWarning
from .nufft_rule import LARGEST_PHASE

# 2 pi as a sum, so that what is taken from a point is exact: multiples of the first part need no rounding.
TURN = float(np.float32(2 * np.pi))
TURN_REST = float(8 * np.arctan(np.longdouble(1)) - np.longdouble(TURN))
_EXACT = 2.0**29 * TURN  # 24 bits of the first part, and 29 of turns


def check_reach(reach: float, name: str, n: int, eps: float) -> None:
    """Warn, or raise NufftError, where points reach so far that folding them back is not exact.

    There the highest of the ``n`` frequencies turns a point's rounding into an error.
    """
    if reach <= _EXACT:
        return
    error = n / 2 * reach / LARGEST_PHASE
    said = f"{name} reaches {reach:.3g}, too far from [-pi, pi]: its rounding gives {n} modes an error of about"
    if error >= 1:
        raise NufftError(f"{said} {error:.1g}, which is no correct digit")
    if error > eps:
        warnings.warn(f"{said} {error:.1g}, more than eps={eps:.1g}", NufftWarning, stacklevel=3)
