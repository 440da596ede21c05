"""FFT on a Vulkan device: complex, real and Hermitian transforms over any axes, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...core.array import Operand
from ...core.operation import Request
from ...core.operations.fft_rule import FAMILY, FULL, NONE, FFTParams
from ..base import Kernel
from . import fft_plan
from .fft_group import SHAPE, Shape
from .fft_steps import (
    COMPLEX,
    CONJUGATE_IN,
    CONJUGATE_OUT,
    HALF,
    MIRRORED,
    PACKED,
    REAL,
    STORAGE,
    Axis,
    Side,
    along,
    scratch_bytes,
)  # fmt: skip
from .kernel import VulkanKernel
from .limits import Limits
from .program import Builder, Program
from .tuning import tuned


def _sample(n: int) -> Request:
    params = FFTParams("c2c", True, (n,), (1,), NONE)
    return Request(FAMILY, (Operand(((1 << 22) // n, n), "complex64", "cpu", "numpy"),), params, None, 1)


TUNING = {
    "fft.threads": (SHAPE.threads, (128, 512), lambda: _sample(1024)),
    "fft.widest": (SHAPE.widest, (8, 32), lambda: _sample(1 << 16)),
    "fft.together": (SHAPE.together, (0, 48 << 10), lambda: _sample(256)),
    "fft.ahead": (SHAPE.ahead, (0,), lambda: _sample(1 << 16)),
}


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [VulkanFFT(device)]


class VulkanFFT(VulkanKernel):
    """Stockham passes in shared memory, four-step for long transforms, Bluestein for large prime factors."""

    operation = "fft"
    name = "vulkan-fft"

    def refusal(self, request: Request) -> str | None:
        dtype = request.first.dtype
        if dtype not in STORAGE:
            return f"Vulkan shaders here compute in float32; {dtype} is computed in more"
        return None

    def too_large(self, request: Request) -> str | None:
        if not request.first.size:
            return None
        # How a length is padded and cut takes milliseconds to find out, which matters near the limit alone.
        if self.limits.too_large(_at_most(request, self.limits)) is None:
            return None
        return super().too_large(request) or self.limits.too_large(_largest(request, self.limits))

    def pieces(self, request: Request) -> Sequence[tuple[Request, tuple[Any, ...], Any]]:
        x, p = request.first, request.params
        free = [axis for axis in range(len(x.shape)) if axis not in p.axes]
        if not free or not x.size:
            return ()
        axis = max(free, key=lambda a: x.shape[a])
        rows = int(self.limits.largest * x.shape[axis] // _largest(request, self.limits))
        if rows == 0:
            return ()
        made = []
        for start in range(0, x.shape[axis], rows):
            stop = min(start + rows, x.shape[axis])
            part = (*[slice(None)] * axis, slice(start, stop))
            shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
            operand = Operand(shape, x.dtype, x.device, x.kind)
            made.append((Request(request.operation, (operand,), p, request.tol, request.threads), (part,), part))
        return made

    def program(self, request: Request) -> Program:
        x = request.first
        (result,) = request.operation.result(request)
        shape = Shape(*(tuned(self.device, name, default) for name, (default, *_) in TUNING.items()))
        b = Builder()
        source, target = b.operand(0, x.nbytes), b.result(0, result.nbytes)
        final = math.prod(result.shape) * (4 if request.params.kind == "c2r" else 8)
        steps = _steps(x.shape, x.dtype, request.params, self.limits)
        for number, (axis, nbytes) in enumerate(steps):
            # An intermediate of the result's size and sort can stand where the result will; the rest follows in place.
            direct = number == len(steps) - 1 or (nbytes == final and request.params.kind != "c2r")
            to = target if direct else b.scratch(nbytes)
            along(b, source, to, axis, self.limits, shape)
            source = to
        return b.program()


def _at_most(request: Request, limits: Limits) -> int:
    """Return bytes that no buffer of a request exceeds: a line is padded to less than 5/2 of its points."""
    x = request.first
    steps = _steps(x.shape, x.dtype, request.params, limits)
    (result,) = request.operation.result(request)
    scratch = (max(nbytes, 8 * (5 * axis.n // 2 + 8) * axis.lines) for axis, nbytes in steps)
    return max(x.nbytes, result.nbytes, *scratch)


def _largest(request: Request, limits: Limits) -> int:
    """Return the bytes of the largest buffer that a request needs."""
    x = request.first
    steps = _steps(x.shape, x.dtype, request.params, limits)
    return max(x.nbytes, *(max(nbytes, scratch_bytes(axis, limits)) for axis, nbytes in steps))


@lru_cache(maxsize=256)
def _steps(shape: tuple[int, ...], dtype: str, p: FFTParams, limits: Limits) -> tuple[tuple[Axis, int], ...]:
    """Return the axes in the order in which they are transformed, each with the bytes of what it gives."""
    total = math.prod(p.lengths)
    scale = {NONE: 1.0, FULL: 1.0 / total}.get(p.scale, 1.0 / math.sqrt(total))
    # Axes that are cut come before those that are padded, so that less is computed.
    pairs = sorted(zip(p.axes, p.lengths), key=lambda pair: (pair[1] / max(shape[pair[0]], 1), -pair[0]))
    real = (p.axes[-1], p.lengths[-1])
    if p.kind != "c2c":
        pairs.remove(real)
        pairs = [real, *pairs] if p.kind == "r2c" else [*pairs, real]
    made = []
    now, storage = list(shape), STORAGE[dtype]
    for number, (at, n) in enumerate(pairs):
        before, inner = math.prod(now[:at]), math.prod(now[at + 1 :])
        factor = scale if number == len(pairs) - 1 else 1.0
        if (at, n) == real and p.kind == "r2c":
            axis = _from_real(n, now[at], before, inner, storage, factor, p.forward, limits)
            now[at] = n // 2 + 1
        elif (at, n) == real and p.kind == "c2r":
            axis = _to_real(n, now[at], before, inner, storage, factor, p.forward, limits)
            now[at] = n
        else:
            kind = COMPLEX if storage == 0 else REAL
            source = Side(kind, now[at] * inner, min(now[at], n), storage)
            axis = Axis(n, before, inner, p.forward, factor, source, Side(COMPLEX, n * inner, n))
            now[at] = n
        storage = 0
        made.append((axis, math.prod(now) * (4 if p.kind == "c2r" and number == len(pairs) - 1 else 8)))
    return tuple(made)


def _halves(n: int, limits: Limits) -> bool:
    """Tell whether n real points are transformed as half as many complex ones."""
    return n % 2 == 0 and fft_plan.passes(n // 2, limits.shared_memory // 4, limits.invocations) is not None


def _from_real(
    n: int, given: int, before: int, inner: int, storage: int, scale: float, forward: bool, limits: Limits
) -> Axis:
    """Return the transform of real points to half of their spectrum; the backward one is the conjugate of it."""
    conjugate = 0 if forward else CONJUGATE_OUT
    count = min(given, n)
    if not _halves(n, limits):
        target = Side(COMPLEX, (n // 2 + 1) * inner, n // 2 + 1)
        source = Side(REAL, given * inner, count, storage)
        return Axis(n, before, inner, True, scale, source, target, conjugate)
    aligned = inner == 1 and storage == STORAGE["float32"] and count % 2 == 0 and (given % 2 == 0 or before == 1)
    source = Side(COMPLEX, given // 2, count // 2) if aligned else Side(PACKED, given * inner, count, storage)
    return Axis(n // 2, before, inner, True, scale, source, Side(HALF, (n // 2 + 1) * inner, n // 2), conjugate)


def _to_real(
    n: int, given: int, before: int, inner: int, storage: int, scale: float, forward: bool, limits: Limits
) -> Axis:
    """Return the transform of half a spectrum to real points; the forward one starts from its conjugate."""
    conjugate = CONJUGATE_IN if forward else 0
    count = min(given, n // 2 + 1)
    if not _halves(n, limits):
        source, target = Side(MIRRORED, given * inner, count, storage), Side(REAL, n * inner, n)
        return Axis(n, before, inner, False, scale, source, target, conjugate)
    target = Side(COMPLEX, n // 2, n // 2) if inner == 1 else Side(PACKED, n * inner, n // 2)
    return Axis(n // 2, before, inner, False, scale, Side(HALF, given * inner, count, storage), target, conjugate)
