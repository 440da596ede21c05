"""Places that fill a space of several coordinates evenly, however many of them are taken.

Each is the one before plus a fixed step, modulo 1 (M. Roberts, The Unreasonable Effectiveness of Quasirandom Sequences,
2018): no two share a coordinate, as points of a grid do, so that each tells something new about every coordinate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def scattered(count: int, coordinates: int) -> Iterator[tuple[float, ...]]:
    """Yield so many places, each coordinate between 0 and 1."""
    ratio = 2.0
    for _ in range(60):  # the one root above 1 of x ** (coordinates + 1) = x + 1
        ratio = (1.0 + ratio) ** (1.0 / (coordinates + 1))
    steps = [ratio ** -(i + 1) for i in range(coordinates)]
    for number in range(1, count + 1):
        yield tuple((0.5 + number * step) % 1.0 for step in steps)


def between(share: float, low: float, high: float) -> float:
    """Return the power of two whose exponent lies so far between two others."""
    return 2.0 ** (low + share * (high - low))


def pick(share: float, choices: Sequence[T]) -> T:
    """Return the choice that a coordinate between 0 and 1 falls on."""
    return choices[min(int(share * len(choices)), len(choices) - 1)]
