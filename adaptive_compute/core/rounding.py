"""Values in another floating dtype, where they live: on the host block by block, by several threads, in pooled memory.

A block is read once: its largest value is found while it is in the cache, and tells whether the array may be rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import settings as _settings
from .array import kind_named, kind_of
from .crew import crew
from .host_memory import results

BLOCK = 1 << 15  # values, which stay in a core's own cache
FEWEST_SHARED = 1 << 20  # bytes below which a second thread costs more than it saves
# Peaks between which no number that counts leaves float32's range, whatever a transform adds up.
SMALLEST_PEAK, LARGEST_PEAK = 1e-25, 1e25


def as_dtype(array: Any, dtype: str) -> Any:
    """Return an array of the same kind with its values in another dtype."""
    return _cast(array, dtype, None)


def rounded_if_ordinary(array: Any, dtype: str) -> Any | str:
    """Return an array in a lower precision, or the reason in words why its values would not survive there."""
    peaks: list[float] = []
    result = _cast(array, dtype, peaks)
    peak = max(peaks, default=0.0) if all(p == p for p in peaks) else math.nan
    if peak == 0.0 or SMALLEST_PEAK < peak < LARGEST_PEAK:
        return result
    return f"its values (largest {peak:.1e}) are beyond what float32 holds"


def _cast(array: Any, dtype: str, peaks: list[float] | None) -> Any:
    kind = kind_of(array)
    if kind is not None and kind.name == "torch":
        on_host = array.device.type == "cpu" and "bfloat16" not in (dtype, str(array.dtype)[6:])
        if not on_host:
            return _torch_cast(array, dtype, peaks)
        return kind.from_numpy(_host_cast(kind.to_numpy(array), dtype, peaks))
    if isinstance(array, np.ndarray):
        return _host_cast(array, dtype, peaks)
    if peaks is not None and array.size:
        peaks.append(float(abs(array).max()))
    return array.astype(dtype)


def _torch_cast(array: Any, dtype: str, peaks: list[float] | None) -> Any:
    torch = kind_named("torch").module()
    array = array.detach()
    if peaks is not None and array.numel():
        low, high = torch.aminmax(torch.view_as_real(array.resolve_conj()) if array.is_complex() else array)
        peaks += [abs(float(low)), abs(float(high))]
    return array.to(getattr(torch, dtype))


def _host_cast(array: np.ndarray, dtype: str, peaks: list[float] | None) -> np.ndarray:
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    result = results.empty(array.shape, dtype)
    source, target = array.reshape(-1), result.reshape(-1)
    real = source.view(source.real.dtype)  # two numbers for each complex one
    wide = real.size // max(source.size, 1)
    count = -(-source.size // BLOCK)

    def lane(numbers: Iterator[int]) -> None:
        with np.errstate(all="ignore"):  # of this thread
            for number in numbers:
                first, last = number * BLOCK, (number + 1) * BLOCK
                if peaks is not None:
                    part = real[first * wide : last * wide]
                    peaks.extend((abs(float(part.max())), abs(float(part.min()))))
                np.copyto(target[first:last], source[first:last], casting="same_kind")

    threads = _settings.threads(_settings.current()) if array.nbytes >= FEWEST_SHARED else 1
    if threads > 1 and count > 1:
        crew.share(count, lane, threads)
    else:
        lane(iter(range(count)))
    return result
