"""How a Fourier transform is cut into passes and stages, and its tables. Numbers only; no device, no dispatch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

RADICES = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 25, 27, 32)
FEW = (2, 3, 4, 5, 7, 8, 16)  # of the binaries that a driver compiles soonest
MOST_STAGES = 5
MOST_ROUNDS = 2
MOST_POINTS = 32  # in the registers of one thread
SMALLEST_LOCAL = 1 << 13  # with 32 KiB, the real parts of so many points fit the shared memory of a workgroup


class Stages(NamedTuple):
    """A transform within a workgroup: its radices in order, and the threads that hold one line."""

    n: int
    radices: tuple[int, ...]
    threads: int

    def rounds(self, radix: int) -> int:
        """Return how many transforms of this radix a thread makes in its stage."""
        return -(-self.n // radix // self.threads)

    @property
    def points(self) -> int:
        """Points that a thread holds at most."""
        return max(self.rounds(r) * r for r in self.radices)


# What was measured to be quicker than what the costs below choose, on an H100: radices and threads of a length that is
# transformed at once and of one that is a pass of a longer one; lengths of the passes.
MEASURED_STAGES: dict[int, tuple[tuple[int, ...], int]] = {
    64: ((8, 8), 8),
    5000: ((5, 10, 10, 10), 500),
    6000: ((6, 10, 10, 10), 600),
    1 << 14: ((32, 16, 32), 512),
}
MEASURED_PARTS: dict[int, tuple[tuple[int, ...], int]] = {1024: ((32, 32), 32)}
MEASURED_PASSES: dict[int, tuple[int, ...]] = {1 << 14: (1 << 14,), 1 << 18: (512, 512), 1 << 22: (2048, 2048)}


@lru_cache(maxsize=4096)
def stages(n: int, offered: tuple[int, ...] = RADICES) -> Stages | None:
    """Return the cheapest stages for a length, or None where the radices offered do not make it up."""
    if n == 1:
        return Stages(1, (1,), 1)
    if n in MEASURED_STAGES and set(MEASURED_STAGES[n][0]) <= set(offered):
        return Stages(n, *MEASURED_STAGES[n])
    best, least = None, math.inf
    for radices in _factorings(n, offered, MOST_STAGES):
        for threads in sorted({-(-n // r // m) for r in radices for m in range(1, MOST_POINTS // r + 1)}):
            made = Stages(n, radices, threads)
            cost = _cost(made)
            if made.points <= MOST_POINTS and threads <= 1024 and cost < least:
                best, least = made, cost
    return best


def part(n: int) -> Stages | None:
    """Return the stages of a length that is a pass of a longer one."""
    return Stages(n, *MEASURED_PARTS[n]) if n in MEASURED_PARTS else stages(n)


def _factorings(n: int, offered: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    """Yield every product of the radices that is n, largest first."""
    if n == 1:
        yield ()
    elif most:
        for number, radix in reversed(tuple(enumerate(offered))):
            if n % radix == 0:
                for rest in _factorings(n // radix, offered[: number + 1], most - 1):
                    yield (radix, *rest)


# What a transform of R points costs, a point, beside an exchange through shared memory (4).
_WORK = {
    2: 1.0, 3: 1.3, 4: 1.0, 5: 1.6, 6: 1.6, 7: 2.0, 8: 1.5, 9: 2.0, 10: 2.0, 11: 3.2, 12: 1.8, 13: 3.6, 14: 2.4,
    15: 2.4, 16: 2.0, 25: 3.2, 27: 3.0, 32: 3.0,
}  # fmt: skip


def _cost(made: Stages) -> float:
    slots = [made.rounds(r) * r * made.threads / made.n for r in made.radices]
    cost = sum(s * (4.0 + _WORK[r]) for s, r in zip(slots, made.radices))
    crowded = max(made.points - 16, 0) * 0.06  # more registers, fewer threads at a time
    return cost * (1.0 + crowded) + max(made.threads - 512, 0) / 256


@lru_cache(maxsize=256)
def stage_roots(made: Stages) -> np.ndarray:
    """Return exp(-2 pi i r j / (p R)) for every stage but the first, r = 1..R-1 by j < p, as float32 pairs."""
    parts = []
    p = made.radices[0]
    for radix in made.radices[1:]:
        parts.append(roots(np.outer(np.arange(1, radix), np.arange(p)), p * radix).reshape(-1, 2))
        p *= radix
    return np.concatenate(parts) if parts else np.ones((1, 2), np.float32)


def roots(steps: np.ndarray, n: int) -> np.ndarray:
    """Return exp(-2 pi i step / n) as float32 pairs: reduced in integers, computed in float64."""
    angles = (steps % n) * (2.0 * np.pi / n)
    return np.stack([np.cos(angles), -np.sin(angles)], -1).astype(np.float32)


def real_roots(half: int) -> np.ndarray:
    """Return exp(-2 pi i k / (2 half)), k < half, as float32 pairs."""
    return roots(np.arange(half), 2 * half)


@lru_cache(maxsize=64)
def chirp(n: int) -> np.ndarray:
    """Return exp(-pi i j^2 / n), j < n, as float32 pairs (Bluestein 1970)."""
    j = np.arange(n, dtype=np.int64)
    return roots(j * j, 2 * n)


def chirp_spectrum(n: int, m: int) -> np.ndarray:
    """Return the transform of m points of the conjugate chirp, laid round a circle, over m; complex128."""
    j = np.arange(n, dtype=np.int64)
    angles = (j * j % (2 * n)) * (np.pi / n)
    values = np.zeros(m, np.complex128)
    values[:n] = np.cos(angles) + 1j * np.sin(angles)
    values[m - n + 1 :] = values[n - 1 : 0 : -1]
    return np.fft.fft(values) / m


@lru_cache(maxsize=4096)
def passes(n: int, words: int, threads: int, most: int = 3) -> tuple[int, ...] | None:
    """Return the lengths whose product is n, one a pass, that cost least; None where n has a prime factor above 13.

    Parameters
    ----------
    n : int
        Length of the transform.
    words, threads : int
        Shared memory in 32-bit words and threads of a workgroup.
    most : int
        Passes at most, 2 or 3.
    """
    measured = MEASURED_PASSES.get(n)
    if measured is not None and len(measured) <= most:
        if len(measured) > 1 and all(fits(part(m), words, threads) for m in measured):
            return measured
        if len(measured) == 1 and most > 2 and fits(stages(n), MOST_ROUNDS * words, threads):
            return measured
    if n <= words and fits(stages(n), words, threads):
        return (n,)
    if n == 1 or largest_prime(n) > 13:
        return None
    best: tuple[int, ...] | None = None
    least = math.inf
    for first, second in _splits(n):
        price = _pass_price(first, words, threads) + _pass_price(second, words, threads)
        if price < least:
            best, least = (first, second), price
    for first, rest in _splits(n) if n > 1 << 18 and most > 2 else ():
        if first > 1024 or _pass_price(first, words, threads) >= least:
            continue
        for second, third in _splits(rest):
            price = sum(_pass_price(m, words, threads) for m in (first, second, third))
            if price < least:
                best, least = (first, second, third), price
    return best


def rounds(made: Stages, points: int, words: int) -> int | None:
    """Return in how many rounds some lines of so many points together go through shared memory, or None.

    A round hands on one equal part of every line, so that the later radices must be divisible by their number.
    """
    for count in range(1, MOST_ROUNDS + 1):
        if points <= count * words and made.n % count == 0 and all(r % count == 0 for r in made.radices[1:]):
            return count
    return None


def fits(made: Stages | None, words: int, threads: int) -> bool:
    """Tell whether one line fits a workgroup."""
    return made is not None and made.threads <= threads and (len(made.radices) == 1 or made.n <= words)


@lru_cache(maxsize=4096)
def _pass_price(n: int, words: int, threads: int) -> float:
    made = part(n)
    if made is None or not fits(made, words, threads):
        return math.inf
    lines = min(words // n, max(threads // 2, 256) // made.threads)
    # Fewer lines together mean shorter pieces of memory at a time: 16 lines are 128 bytes.
    return {0: math.inf, 1: 5.0, 2: 2.8, 3: 2.2}.get(lines, 1.65 if lines < 8 else 1.15 if lines < 16 else 1.0) * (
        1.0 + 0.02 * len(made.radices)
    )


@lru_cache(maxsize=512)
def _splits(n: int) -> tuple[tuple[int, int], ...]:
    """Return the ways to write n as a product of two numbers above 1, both of at most 8192."""
    limit = SMALLEST_LOCAL
    return tuple((a, n // a) for a in range(2, min(limit, n // 2) + 1) if n % a == 0)


def largest_prime(n: int) -> int:
    """Return the largest prime factor of a number above 1."""
    largest, factor = 1, 2
    while factor * factor <= n:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor += 1
    return max(largest, n) if n > 1 else largest


@lru_cache(maxsize=4096)
def padded(n: int, words: int, threads: int) -> int:
    """Return a length of at least 2n - 1 whose transform is quick."""
    least, best, price = 2 * n - 1, 0, math.inf
    for m in _smooth(least, least + least // 4 + 8):
        cut = passes(m, words, threads, most=2)
        if cut is None or not fits(stages(cut[-1], FEW), words, threads):
            continue
        made = [*(stages(part) for part in cut[:-1]), stages(cut[-1], FEW)]
        total = m * sum(len(s.radices) + 3.0 for s in made if s is not None)
        if total < price:
            best, price = m, total
    return best


def _smooth(low: int, high: int) -> list[int]:
    """Return every number from low to high without a prime factor above 7, multiples of 4 where there is a choice."""
    found = [1]
    for prime in (2, 3, 5, 7):
        more = found
        while more:
            more = [m * prime for m in more if m * prime <= high]
            found = found + more
    return sorted(m for m in found if m >= low and (m % 4 == 0 or m < 64))
