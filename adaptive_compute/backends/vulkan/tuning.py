"""Workgroup sizes and tile shapes: chosen per device by a measured search, kept in the profile.

A room names what can be chosen in a module dictionary and reads it where it builds a program::

    TUNING = {"fft.local": (64, (64, 128, 256), sample)}
    local = tuned(device, "fft.local", 64)

An entry holds the default, the candidates, and a function that returns the request to time them on. An entry without
such a function is never searched. The values take part in programs, so a cache of programs must have them in its key.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import AdaptiveError
from ...core.operation import Request
from ..base import Kernel, Plan
from .array import VulkanArray, download, upload

# A candidate must be faster than the default by more than what timings scatter by.
WORTH = 0.97
SAMPLES = 15
# Rounding may differ between shapes; more than this, relative L2, is another result.
SAME = 1e-5
FAILURES = (AdaptiveError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError)

_lock = threading.Lock()
_chosen: dict[str, dict[str, Any]] = {}


class Tunable(NamedTuple):
    """What can be chosen: the value without a profile, the accepted values, and the request to time them on."""

    default: Any
    candidates: tuple[Any, ...]
    request: Callable[[], Request] | None


def tuned(device: str, name: str, default: Any) -> Any:
    """Return what the profile found best on a device, or the default."""
    return _chosen.get(device, {}).get(name, default)


def apply(device: str, values: Mapping[str, Any], known: Mapping[str, Tunable]) -> None:
    """Use these values on a device from now on; those that nothing known accepts are left out."""
    kept = {}
    for name, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        if name in known and value in (known[name].default, *known[name].candidates):
            kept[name] = value
    _use(device, kept)


def tunables(rooms: Sequence[Any]) -> dict[str, Tunable]:
    """Return what can be chosen in some rooms."""
    found = {}
    for room in rooms:
        for name, (default, candidates, *request) in getattr(room, "TUNING", {}).items():
            found[name] = Tunable(default, tuple(candidates), request[0] if request else None)
    return found


def search(device: str, kernels: Sequence[Kernel], known: Mapping[str, Tunable], budget: float) -> dict[str, Any]:
    """Time the candidates of every tunable in turn and return those values that beat their default.

    Each is searched with the others at their best so far. What does not run, or gives another result than the default,
    is no candidate.

    Parameters
    ----------
    device : str
    kernels : sequence of Kernel
        The first that supports a tunable's request runs it; a tunable that none of them supports is left alone.
    known : mapping of str to Tunable
    budget : float
        Seconds to stay within, approximately.
    """
    operations = {kernel.operation for kernel in kernels}
    names = [n for n, t in known.items() if t.request is not None and t.request().operation.name in operations]
    before = dict(_chosen.get(device, {}))
    best: dict[str, Any] = {}
    end = time.perf_counter() + budget
    try:
        for done, name in enumerate(names):
            share = (end - time.perf_counter()) / (len(names) - done)
            if share <= 0:
                break
            value = _search_one(device, kernels, name, known[name], best, share)
            if value != known[name].default:
                best[name] = value
    finally:
        _use(device, before)
    return best


class _Trial:
    """A candidate's plan on operands that all candidates share."""

    def __init__(self, value: Any, plan: Plan, arrays: list[VulkanArray | None]) -> None:
        self.value, self.plan, self.arrays = value, plan, arrays
        self.times: list[float] = []

    def once(self) -> None:
        """Run once and keep the time: the device's own where the plan tells it."""
        own = getattr(self.plan, "gpu_seconds", None)
        if own is not None:
            self.times += own(*self.arrays, repeats=1)
            return
        start = time.perf_counter()
        self.plan.run(*self.arrays)
        self.times.append(time.perf_counter() - start)

    def result(self) -> list[np.ndarray]:
        """Run once and return the results as NumPy arrays."""
        made = self.plan.run(*self.arrays)
        return [download(part) for part in (made if isinstance(made, tuple) else (made,))]


def _search_one(
    device: str, kernels: Sequence[Kernel], name: str, tunable: Tunable, others: Mapping[str, Any], budget: float
) -> Any:
    assert tunable.request is not None
    end = time.perf_counter() + budget
    trials: list[_Trial] = []
    try:
        kernel, request = _placed(device, kernels, tunable.request())
        given = request.operation.arrays(request, np.random.default_rng(0))
        arrays = [None if a is None else upload(a, device) for a in given]
        expected: list[np.ndarray] = []
        for value in dict.fromkeys((tunable.default, *tunable.candidates)):
            if trials and time.perf_counter() > end:
                break
            _use(device, {**others, name: value})
            try:
                trial = _Trial(value, kernel.plan(request), arrays)
                result = trial.result()
                expected = expected or result
                if _same(result, expected):
                    trials.append(trial)
                else:
                    trial.plan.close()
            except FAILURES:
                if not trials:
                    raise  # without the default there is nothing to compare with
        for turn in range(SAMPLES):
            for trial in trials:
                trial.once()
            if turn and time.perf_counter() > end:
                break
    except FAILURES:
        return tunable.default
    finally:
        for trial in trials:
            trial.plan.close()
    medians = {trial.value: statistics.median(trial.times) for trial in trials}
    fastest = min(medians, key=medians.__getitem__)
    return fastest if medians[fastest] < WORTH * medians[tunable.default] else tunable.default


def _placed(device: str, kernels: Sequence[Kernel], request: Request) -> tuple[Kernel, Request]:
    """Return the first kernel of the device that runs a request, and the request with its operands there."""
    from ...core.measure import relocated  # when a search runs, not when a shader reads its workgroup size

    for kernel in kernels:
        if kernel.device == device and kernel.operation == request.operation.name:
            there = relocated(request, kernel)
            if kernel.supports(there) is True:
                return kernel, there
    raise LookupError(f"no kernel on {device} runs {request!r}")


def _use(device: str, values: dict[str, Any]) -> None:
    with _lock:
        _chosen[device] = values


def _same(results: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    for result, right in zip(results, expected):
        if right.dtype.kind not in "fc":
            if not np.array_equal(result, right):
                return False
            continue
        finite = np.isfinite(right)
        if not np.array_equal(finite, np.isfinite(result)):
            return False
        wide = right[finite].astype(np.complex128)
        if np.linalg.norm(result[finite] - wide) > SAME * np.linalg.norm(wide):
            return False
    return True
