"""Levels of a quantiser of magnitudes, and how bits are best split between magnitude and phase: all computed.

References
----------
.. [1] S. P. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28, 1982; J. Max, "Quantizing for
   minimum distortion", IRE Trans. Inf. Theory 6, 1960.
.. [2] P. F. Panter and W. Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels",
   Proc. IRE 39, 1951: the density of many levels goes with the cube root of what they quantise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import erf

ROUNDS = 400  # of Lloyd's iteration; from where it begins, more change the error by less than 1e-4 of itself
FAR = 8.0  # a Rayleigh magnitude of mean square 1 is larger with a probability below 1e-27
GRID = 1 << 16

Cumulative = Callable[[np.ndarray], np.ndarray]


def lloyd_max(mass: Cumulative, moment: Cumulative, levels: np.ndarray) -> np.ndarray:
    """Return levels each of which is the mean of what is nearest to it [1]_.

    Parameters
    ----------
    mass, moment : callable
        The probability of a magnitude below a bound, and the mean of the magnitude over that part; both take bounds
        from 0 to infinity.
    levels : ndarray
        (levels,), ascending: where the iteration begins.
    """
    for _ in range(ROUNDS):
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        inside, sums = np.diff(mass(edges)), np.diff(moment(edges))
        levels = np.where(inside > 0, sums / np.where(inside > 0, inside, 1.0), levels)
    return levels


def _mass(bounds: np.ndarray) -> np.ndarray:
    return -np.expm1(-(bounds**2))


def _moment(bounds: np.ndarray) -> np.ndarray:
    near = np.minimum(bounds, 2 * FAR)
    return np.sqrt(np.pi) / 2 * erf(near) - near * np.exp(-(near**2))


@lru_cache(maxsize=32)
def rayleigh_levels(bits: int) -> np.ndarray:
    """Return the best 2^bits levels for the magnitudes of complex Gaussian values of mean square 1."""
    at = np.linspace(0.0, FAR, GRID)
    spread = np.cumsum(np.cbrt(at * np.exp(-(at**2))))  # [2]_
    begin = np.interp((np.arange(1 << bits) + 0.5) / (1 << bits), spread / spread[-1], at)
    return lloyd_max(_mass, _moment, begin)


def fitted_levels(magnitudes: np.ndarray, bits: int) -> np.ndarray:
    """Return the best 2^bits levels that Lloyd's iteration finds for given magnitudes (count,)."""
    ordered = np.sort(magnitudes.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)]) / max(len(ordered), 1)

    def below(bounds: np.ndarray) -> np.ndarray:
        return np.searchsorted(ordered, bounds)

    # The cube root of the density is what the distances between neighbouring quantiles leave, to the power 2/3.
    quantiles = np.interp(np.linspace(0, 1, 1025), np.linspace(0, 1, max(len(ordered), 1)), ordered)
    spread = np.concatenate([[0.0], np.cumsum(np.diff(quantiles) ** (2 / 3))])
    if spread[-1] == 0.0:
        return np.full(1 << bits, ordered[0])
    begin = np.interp((np.arange(1 << bits) + 0.5) / (1 << bits), spread / spread[-1], quantiles)
    return lloyd_max(lambda at: below(at) / len(ordered), lambda at: sums[below(at)], begin)


def shrink(phase_bits: int) -> float:
    """Return the mean cosine of the angle between a value and the middle of its cell of the phase."""
    return float(np.sinc(0.5**phase_bits))


def polar_error(magnitude_bits: int, phase_bits: int) -> float:
    """Return the relative RMS error of complex Gaussian values so quantised, by the formula.

    With p_i and c_i the probabilities and means of the magnitude's cells, and s the mean cosine within a cell of the
    phase, it is ``sqrt(1 - s^2 sum p_i c_i^2)``.
    """
    levels = rayleigh_levels(magnitude_bits)
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    inside, sums = np.diff(_mass(edges)), np.diff(_moment(edges))
    return float(np.sqrt(1 - shrink(phase_bits) ** 2 * np.sum(sums**2 / np.where(inside > 0, inside, 1.0))))


@lru_cache(maxsize=32)
def best_split(bits: int) -> tuple[int, int]:
    """Return the bits of magnitude and of phase whose error on complex Gaussian values is least."""
    near = range(max(bits // 2 - 3, 0), bits // 2 + 1)  # a phase needs as many bits as its magnitude, or a few more
    return min(((m, bits - m) for m in near), key=lambda split: polar_error(*split))
