"""FFT on the CPU: SciPy's pocketfft with one thread or all, and torch's (MKL where torch was built with it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.operation import Request
from ...core.operations.fft_rule import FULL, NONE, WORKING, FFTParams, fit, largest_prime
from ...core.precision import COMPLEX_OF, REAL_OF
from ..base import Kernel, Plan
from .device import needs, torch_threads

MKL_WORST = 4e-14  # relative L2 error, for the lengths that TorchFFT refuses


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels."""
    return [PocketFFT("pocketfft", threaded=False), PocketFFT("pocketfft-threads", threaded=True), TorchFFT()]


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
    return lambda x: function(x, p.lengths, p.axes, norm, workers=threads)


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


class TorchFFT(Kernel):
    """torch.fft: MKL in the usual builds, pocketfft in others."""

    name = "torch"
    operation = "fft"
    native = "torch"

    def supports(self, request: Request) -> bool | str:
        if REAL_OF.get(request.first.dtype, request.first.dtype) in ("float128", "float96"):
            return "torch has no extended precision"
        if request.first.size == 0:
            return "torch refuses empty batches"
        return self._inexact(request) or needs("torch")

    def _inexact(self, request: Request) -> str | None:
        """Return why MKL is not exact enough for some length, or None.

        Measured with torch 2.13 against extended precision for every length to 3000: in float64, a composite length
        whose largest prime factor lies between 17 and 149 has errors of 2e-15 to 3.3e-14 (more for a larger factor);
        all others, prime lengths included, stay below 8e-16, and float32 below 4e-7. A real transform of even length is
        a complex one of half that length, and one of odd length is exact.
        """
        p: FFTParams = request.params
        if WORKING.get(request.first.dtype, "float64") != "float64" or (request.tol or 0.0) >= MKL_WORST:
            return None
        complex_lengths = list(p.lengths)
        if p.kind != "c2c":
            last = complex_lengths.pop()
            if last % 2 == 0:
                complex_lengths.append(last // 2)
        for n in complex_lengths:
            prime = largest_prime(n)
            if prime < n and 17 <= prime <= 149:
                return f"MKL's float64 error at lengths with prime factor {prime} is measured as up to {MKL_WORST:.0e}"
        return None

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
