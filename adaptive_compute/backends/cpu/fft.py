"""FFT on the CPU: SciPy's pocketfft with one thread or all, and torch's (MKL where torch was built with it)."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...core.operation import Features, Request, log2
from ...core.operations.fft_rule import FULL, NONE, WORKING, FFTParams, fit, largest_prime, place, prime_factors, sizes
from ...core.precision import COMPLEX_OF, REAL_OF
from ..base import Kernel, Plan
from .device import needs, torch_threads


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [PocketFFT("pocketfft", threaded=False), PocketFFT("pocketfft-threads", threaded=True), TorchFFT()]


PAGE = 4096  # bytes


@lru_cache(maxsize=4096)
def _steps(n: int) -> float:
    """Return what pocketfft takes for each point of a transform, in additions or so, by its own way of guessing that.

    A factor of more than 5 costs somewhat more than its size; and where that is less, a length is padded to about
    twice as many points, whose factors are small, for three transforms in all (Bluestein).
    """
    factors = prime_factors(n)
    plain = sum(f if f <= 5 else 1.1 * f for f in factors)
    if n < 50 or factors[-1] ** 2 <= n:
        return max(plain, 1.0)
    return min(plain, 6 * 2.3 * math.log2(2 * n))


def _shared(request: Request) -> int:
    """Return how many threads pocketfft takes for a request at most, by its own rule.

    Each pass over an axis is shared out by whole transforms, as many of them at once as a vector holds values; complex
    values are not put into vectors by this count.
    """
    p: FFTParams = request.params
    shape = list(request.first.shape)
    real = WORKING.get(request.first.dtype, "float64")
    most = 1
    for axis in p.axes:
        of_reals = p.kind != "c2c" and axis == p.axes[-1]
        lanes = {"float32": 4, "float64": 2}.get(real, 1) if of_reals else 1
        parallel = math.prod(shape) // max(shape[axis] * lanes, 1)
        most = max(most, parallel // 4 if shape[axis] < 1000 else parallel)
    return min(most, request.threads)


class FunctionPlan(Plan):
    """A plan that is one function, kept as the attribute ``run`` so that a call is a call of that function."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self.run = run  # type: ignore[method-assign]


def _engine() -> Any:
    """Return pocketfft's own module inside SciPy, or None where SciPy keeps it elsewhere.

    ``scipy.fft.fft`` spends more time on its dispatch than pocketfft on a short transform; the plan has answered
    already what that dispatch asks.
    """
    try:
        from scipy.fft._pocketfft import pypocketfft

        pypocketfft.c2c(np.zeros(2, complex), (0,), True, 0, None, 1)
    except (ImportError, AttributeError, TypeError):
        return None
    return pypocketfft


class PocketFFT(Kernel):
    """SciPy's C++ pocketfft."""

    operation = "fft"
    libraries = ("scipy",)

    def __init__(self, name: str, threaded: bool) -> None:
        self.name = name
        self.threaded = threaded

    def supports(self, request: Request) -> bool | str:
        if request.first.dtype == "bfloat16":
            return "SciPy has no bfloat16"
        if self.threaded and request.threads < 2:
            return "the call may use one thread only"
        shape, axes = request.first.shape, request.params.axes
        if self.threaded and len(axes) == 1 and request.first.size == max(shape):
            return "pocketfft shares out whole transforms, and this is one transform"
        return needs("scipy")

    def features(self, request: Request) -> Features:
        points, _, _ = sizes(request)
        each = sum(_steps(n) for n in request.params.lengths)
        if not self.threaded:
            return place(request, points * each, 2 * log2(each))
        threads = _shared(request)
        found = place(request, points * each, 2 * log2(each), log2(threads))
        return found._replace(name=f"{found.name}/{'alone' if threads < 2 else 'shared'}")

    def plan(self, request: Request) -> Plan:
        p: FFTParams = request.params
        threads = request.threads if self.threaded else 1
        engine = _engine()
        transform = _scipy_public(p, threads) if engine is None else _engine_call(engine, p, threads)
        return FunctionPlan(_prepared(transform, request))


def _engine_call(engine: Any, p: FFTParams, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    axes, forward, scale = p.axes, p.forward, p.scale
    if p.kind == "c2r":
        c2r, length = engine.c2r, p.lengths[-1]
        return lambda x: c2r(x, axes, length, forward, scale, None, threads)
    transform = engine.c2c if p.kind == "c2c" else engine.r2c
    return lambda x: transform(x, axes, forward, scale, None, threads)


def _scipy_public(p: FFTParams, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    from scipy import fft

    name, norm = _numpy_name(p), _norm(p)
    function = getattr(fft, name)

    def transform(x: np.ndarray) -> np.ndarray:
        with fft.set_backend("scipy", only=True):  # this library may be SciPy's backend itself
            return function(x, p.lengths, p.axes, norm, workers=threads)

    return transform


def _prepared(transform: Callable[[np.ndarray], np.ndarray], request: Request) -> Callable[[np.ndarray], np.ndarray]:
    """Put what must happen to the operand (dtype, cutting, padding) before a transform, and nothing that need not."""
    x, p = request.first, request.params
    wanted = WORKING.get(x.dtype, "float64")
    if x.dtype.startswith("complex") or p.kind == "c2r":
        wanted = COMPLEX_OF[wanted]
    lengths = [x.shape[axis] for axis in p.axes]
    needed = list(p.lengths)
    if p.kind == "c2r":
        needed[-1] = needed[-1] // 2 + 1
    convert, refit = wanted != x.dtype, lengths != needed
    if not convert and not refit:
        return transform

    def run(array: np.ndarray) -> np.ndarray:
        if refit:
            array = fit(array, p)
        return transform(array.astype(wanted) if convert else array)

    return run


def _numpy_name(p: FFTParams) -> str:
    return {
        ("c2c", True): "fftn", ("c2c", False): "ifftn", ("r2c", True): "rfftn",
        ("r2c", False): "ihfftn", ("c2r", False): "irfftn", ("c2r", True): "hfftn",
    }[p.kind, p.forward]  # fmt: skip


def _norm(p: FFTParams) -> str:
    if p.scale not in (NONE, FULL):
        return "ortho"
    return "backward" if (p.scale == NONE) == p.forward else "forward"


def mkl_misses(request: Request) -> str | None:
    """Return why MKL is not exact enough for this request, or None.

    Measured with torch 2.13 against extended precision, for every length to 3000 and for random ones to 2^21. What is
    not listed here stays below 5e-7 in float32 and 2e-15 in float64, prime lengths included.

    - A composite length with a prime factor of 17 or more: in float64 2e-15 to 3e-14 for factors to 149, and for any
      such factor from a length of 6000 on, up to 5e-12; in float32 from a length of 6000 on, up to 4e-5. A real
      transform of even length is a complex one of half that length; one of odd length is exact.
    - Several real transforms of 2^20, 2^21 or 2^22 points in float32: 4e-6.
    - One transform to real values of 2^17 points or more in float64: up to 3e-15.

    A caller whose ``tol`` is above the error that was found may have MKL all the same.
    """
    p: FFTParams = request.params
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None  # there is no MKL there
    double = WORKING.get(request.first.dtype, "float64") == "float64"
    tol = request.tol or 0.0
    *lengths, last = p.lengths
    if p.kind == "c2c":
        lengths.append(last)
    elif last % 2 == 0:
        lengths.append(last // 2)
    worst = 5e-12 if double else 5e-5
    for n in lengths if tol < worst else ():
        prime = largest_prime(n)
        if 17 <= prime < n and (n >= 4096 or (double and prime <= 149)):
            return f"MKL's error at lengths with a prime factor such as {prime} is measured as up to {worst:.0e}"
    several = request.first.size > request.first.shape[p.axes[-1]]
    if p.kind != "c2c" and not double and several and last >= 1 << 20 and last & (last - 1) == 0 and tol < 5e-6:
        return f"MKL's error in several float32 transforms of {last} real points is measured as up to 4e-06"
    if p.kind == "c2r" and double and not several and last >= 1 << 17 and tol < 3e-15:
        return f"MKL's error in one float64 transform to {last} real points is measured as up to 3e-15"
    return None


def _alone(request: Request) -> bool:
    """Tell whether MKL leaves its threads asleep, whose waking takes ten times as long as a short transform.

    Measured with torch 2.13: for one transform of one axis, and for several complex ones side by side in a page.
    """
    p: FFTParams = request.params
    if len(p.axes) > 1:
        return False
    shape = request.first.shape
    return request.first.size == shape[p.axes[0]] or (
        p.kind == "c2c" and request.first.nbytes <= PAGE and math.prod(shape[p.axes[0] + 1 :]) == 1
    )


class TorchFFT(Kernel):
    """torch.fft: MKL in the usual builds, pocketfft in others."""

    name = "torch"
    operation = "fft"
    native = "torch"
    libraries = ("torch",)

    def supports(self, request: Request) -> bool | str:
        if REAL_OF.get(request.first.dtype, request.first.dtype) in ("float128", "float96"):
            return "torch has no extended precision"
        if request.first.size == 0:
            return "torch refuses empty batches"
        return mkl_misses(request) or needs("torch")

    def features(self, request: Request) -> Features:
        found = super().features(request)
        return found._replace(name=f"{found.name}/{'alone' if _alone(request) else 'shared'}")

    def plan(self, request: Request) -> Plan:
        import torch

        p: FFTParams = request.params
        x, threads = request.first, request.threads
        working = WORKING.get(x.dtype, "float64")
        dtype = getattr(torch, COMPLEX_OF[working] if x.dtype.startswith("complex") or p.kind == "c2r" else working)
        function = getattr(torch.fft, _numpy_name(p))
        norm = _norm(p)
        conjugated = p.kind == "r2c" and not p.forward  # torch leaves it to be done later, which is no result yet

        def run(array: Any) -> Any:
            if array.dtype is not dtype:
                array = array.to(dtype)
            if torch.get_num_threads() == threads and not conjugated:
                return function(array, p.lengths, p.axes, norm)
            with torch_threads(threads):
                return function(array, p.lengths, p.axes, norm).resolve_conj()

        return FunctionPlan(run)
