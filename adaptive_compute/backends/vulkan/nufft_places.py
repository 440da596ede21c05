"""Coordinates as fractions of a period in units of 2^-32: the parameters that ``shaders/nufft_places.glsl`` works by.

A position is ``x * k - zero`` modulo 1, rounded once. The factor ``k`` is kept to 192 bits, so that points are brought
into one period exactly, however far out they lie, and float32 points lose nothing on the way.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

WORDS = 9  # of a coordinate
_BITS = 192


def _arctan_of_one_over(n: int, bits: int) -> int:
    """Return atan(1/n) in units of 2^-bits, by its series."""
    power = (1 << bits) // n
    total, sign, k = power, 1, 1
    while power:
        power //= n * n
        k, sign = k + 2, -sign
        total += sign * (power // k)
    return total


# One turn of 2 pi, by Machin's formula: pi = 16 atan(1/5) - 4 atan(1/239).
_PRECISE = 320
PER_RADIAN = Fraction(
    1 << _PRECISE, 2 * (16 * _arctan_of_one_over(5, _PRECISE) - 4 * _arctan_of_one_over(239, _PRECISE))
)


def words(factor: Fraction, origin: Fraction = Fraction(0)) -> np.ndarray:
    """Return the parameters of a coordinate: positions are ``(x - origin) * factor`` modulo 1."""
    size = abs(factor)
    power = size.numerator.bit_length() - size.denominator.bit_length() + 1
    whole = round(size * Fraction(2) ** (_BITS - power))
    if whole >> _BITS:
        whole, power = whole >> 1, power + 1
    kept = Fraction(whole) * Fraction(2) ** (power - _BITS)
    zero = round(origin * (kept if factor >= 0 else -kept) * (1 << 32)) % (1 << 32)
    pieces = [whole >> (_BITS - 32 * (n + 1)) & 0xFFFFFFFF for n in range(_BITS // 32)]
    return np.array([*pieces, power & 0xFFFFFFFF, zero, int(factor < 0)], np.uint32)


def periodic(dim: int) -> np.ndarray:
    """Return the parameters of points that are angles."""
    return np.tile(words(PER_RADIAN), dim)
