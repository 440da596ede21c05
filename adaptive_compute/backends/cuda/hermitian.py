"""What the operand of a transform to real values stands for, made so in place by one small CUDA kernel.

By torch it takes some fifteen operations, each of which costs as much as this whole kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...core.operations.fft_rule import FFTParams
from .array import start
from .compiled import compiled
from .fused import Slots

THREADS = 256

_SOURCE = """\
struct alignas({bytes}) Complex {{ {real} x, y; }};
// One thread for each place of a plane; blockIdx.y the plane. A place and its mirror image are one thread's work.
extern "C" __global__ void compute(Complex* x, long long count, long long half{sizes}) {{
  long long rest = (long long)blockIdx.x * {threads} + threadIdx.x;
  if (rest >= count) return;
  long long here = blockIdx.y * half, there = here, k;
{steps}
  if (there < here) return;
{work}
}}
"""
_AVERAGE = """\
  const Complex u = x[here], v = x[there];
  const {real} re = ({real})0.5 * (u.x + v.x), im = ({real})0.5 * (u.y - v.y);
  x[here].x = re; x[here].y = im;
  if (here != there) {{ x[there].x = re; x[there].y = -im; }}"""
_ALONE = "  x[here].y = 0;"


class Side(NamedTuple):
    """Axes that are stepped through as one: their length and step, and whether a place has a mirror image there."""

    length: int
    step: int
    mirrored: bool


class Planes(NamedTuple):
    """The elements that are their own mirror images in the last axis: where they are in a contiguous array."""

    places: int  # of one plane
    half: int  # elements from the first plane to the second one
    planes: int
    sides: tuple[Side, ...]


def planes(shape: Sequence[int], p: FFTParams) -> Planes:
    """Return the planes of an operand, which has as many elements in each axis as the transform reads."""
    *others, last = p.axes
    n = p.lengths[-1]
    sides: list[Side] = []
    step = 1
    for axis in range(len(shape) - 1, -1, -1):
        length = shape[axis]
        if axis != last and length != 1:
            side = Side(length, step, axis in others)
            before = sides[-1] if sides else None
            if before is not None and not before.mirrored and not side.mirrored and step == before.length * before.step:
                sides[-1] = before._replace(length=before.length * length)
            else:
                sides.append(side)
        step *= length
    half = n // 2 * math.prod(shape[last + 1 :])
    return Planes(math.prod(s.length for s in sides), half, 2 if n % 2 == 0 else 1, tuple(sides))


@lru_cache(maxsize=64)
def source(mirrored: tuple[bool, ...], average: bool, double: bool) -> str:
    """Return the kernel for sides with and without mirror images, the innermost one first."""
    real = "double" if double else "float"
    steps = []
    for i, mirror in enumerate(mirrored):
        steps.append(f"  k = rest % n{i}; rest /= n{i}; here += k * s{i};")
        steps.append(f"  there += {f'(k ? n{i} - k : 0)' if mirror else 'k'} * s{i};")
    sizes = "".join(f", long long n{i}, long long s{i}" for i in range(len(mirrored)))
    work = _AVERAGE.format(real=real) if average else _ALONE
    return _SOURCE.format(
        bytes=16 if double else 8, real=real, sizes=sizes, threads=THREADS, steps="\n".join(steps), work=work
    )


class Hermitian:
    """Makes contiguous operands of one shape what they stand for, in place, on torch's current stream."""

    def __init__(self, shape: Sequence[int], p: FFTParams, double: bool, index: int) -> None:
        self._planes, self._average = planes(shape, p), len(p.axes) > 1
        self._double, self._index = double, index
        self._found: tuple[Any, Slots] | None = None

    def __call__(self, x: Any) -> Any:
        """Change a tensor, and return it."""
        own = self._planes
        if own.places:
            kernel, slots = self._found or self._prepare()
            grid = -(-own.places // THREADS), own.planes
            start(kernel, grid, THREADS, slots.filled(x.data_ptr(), ()), self._index)
        return x

    def _prepare(self) -> tuple[Any, Slots]:
        own = self._planes
        text = source(tuple(side.mirrored for side in own.sides), self._average, self._double)
        sizes = [number for side in own.sides for number in (side.length, side.step)]
        self._found = compiled(text, self._index), Slots([np.int64(n) for n in (own.places, own.half, *sizes)], ())
        return self._found
