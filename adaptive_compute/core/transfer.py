"""Moving data between devices, and counting every transfer and every hidden copy."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import TransferWarning
from .host_copy import copy_host

__all__ = ["Counters", "copy_host", "counters", "is_constant", "mark_constant", "move", "transfers"]


@dataclass
class Direction:
    """What went over one link in one direction."""

    count: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Counters:
    """Counts of transfers by direction, and of copies that a kernel needed to read its operands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Set every count to zero."""
        with self._lock:
            self.directions: dict[tuple[str, str], Direction] = {}
            self.copies: dict[str, int] = {}

    def count_copy(self, why: str) -> None:
        """Record one copy of an operand on its own device."""
        with self._lock:
            self.copies[why] = self.copies.get(why, 0) + 1

    def count_transfer(self, source: str, target: str, nbytes: int, seconds: float) -> None:
        """Record one transfer between devices."""
        with self._lock:
            direction = self.directions.setdefault((source, target), Direction())
            direction.count += 1
            direction.bytes += nbytes
            direction.seconds += seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        with self._lock:
            return {
                "transfers": {
                    f"{source} -> {target}": {"count": d.count, "bytes": d.bytes, "seconds": d.seconds}
                    for (source, target), d in self.directions.items()
                },
                "copies": dict(self.copies),
            }


counters = Counters()


def transfers(*, reset: bool = False) -> dict[str, Any]:
    """Return what was moved between devices since the start (or the last reset), and what was copied.

    Parameters
    ----------
    reset : bool, default False
        Set every count to zero after reading it.

    Returns
    -------
    dict
        ``transfers``: per direction such as ``"cpu -> cuda:0"`` the count, bytes and seconds. ``copies``: how often an
        operand was copied on its own device because a kernel could not read it in place, by reason.

    Examples
    --------
    >>> import adaptive_compute as ac
    >>> ac.transfers(reset=True)["transfers"]
    {}
    """
    counted = counters.as_dict()
    if reset:
        counters.reset()
    return counted


_constants: dict[int, weakref.ref[np.ndarray]] = {}


def mark_constant(array: np.ndarray) -> None:
    """Promise that an array's values stay as they are for as long as it exists, so that a device may keep a copy."""
    key = id(array)
    _constants[key] = weakref.ref(array, lambda gone: _constants.pop(key, None))


def is_constant(array: object) -> bool:
    """Tell whether an array was marked as constant."""
    found = _constants.get(id(array))
    return found is not None and found() is array


def move(array: Any, source: Any, target: Any, device: str, nbytes: int, *, origin: str, log: bool = False) -> Any:
    """Move an array from one device to another through the host, and count it.

    Parameters
    ----------
    array : array
        The data, of the source backend's native kind.
    source, target : Backend or None
        Backends of the two ends; None stands for the host itself.
    device, origin : str
        Names of the target and the source device.
    nbytes : int
        Size of the data, for the counters.
    log : bool
        Give a TransferWarning as well.
    """
    if (
        source is None
        and target is not None
        and is_constant(array)
        and (kept := target.kept(array, device)) is not None
    ):
        return kept
    start = time.perf_counter()
    if source is not None and source is target:
        moved = source.across(array, device)
    else:
        host = array if source is None else source.download(array)
        moved = host if target is None else target.upload(host, device)
    counters.count_transfer(origin, device, nbytes, time.perf_counter() - start)
    if log:
        warnings.warn(f"transfer of {nbytes} bytes from {origin} to {device}", TransferWarning, stacklevel=4)
    return moved
