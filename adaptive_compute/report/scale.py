"""Logarithmic axes: where a value stands, and which ticks help to read it."""

from __future__ import annotations

import math
from typing import NamedTuple


class Axis(NamedTuple):
    """A logarithmic axis from ``low`` to ``high``, drawn from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value stands; outside the axis, at its end."""
        part = math.log(min(max(value, self.low), self.high) / self.low) / math.log(self.high / self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def decades(self, most: int = 6) -> list[float]:
        """Return powers of ten on the axis, at most about ``most``."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / most))
        return [10.0**n for n in range(first, last + 1, step)]

    def ticks(self) -> list[float]:
        """Return powers of ten, or one, two and five times them where that gives no more than six."""
        fine = [d * m for d in (10.0**n for n in range(-20, 12)) for m in (1, 2, 5) if self.low <= d * m <= self.high]
        return fine if len(fine) <= 6 else self.decades()

    def octaves(self, most: int = 7) -> list[float]:
        """Return powers of two on the axis, at most about ``most``."""
        first, last = math.ceil(math.log2(self.low) - 1e-9), math.floor(math.log2(self.high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / most))
        return [2.0**n for n in range(first, last + 1, step)]


def decades(values: list[float], start: float, end: float) -> Axis:
    """Return an axis over positive values that begins and ends a little outside them."""
    low, high = min(values), max(values)
    if high / low < 3:
        low, high = low / 1.7, high * 1.7
    return Axis(low / 1.25, high * 1.25, start, end)


def size(n: float) -> str:
    """Return a size in few characters: 512, 4k, 1M (powers of 1024)."""
    for unit, factor in (("M", 1 << 20), ("k", 1 << 10)):
        if n >= factor:
            return f"{n / factor:.3g}{unit}"
    return f"{n:g}"


def power(value: float) -> str:
    """Return a round number as 1e-6."""
    digits, exponent = f"{value:.0e}".split("e")
    return f"{digits}e{int(exponent)}"
