"""Measure what moving and viewing operands costs: links between devices, and views of one array kind as another."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .array import kind_named
from .profile import Link
from .registry import Registry
from .timing import typical

if TYPE_CHECKING:
    from ..backends.base import Backend

LINK_SIZES = (1 << 12, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 25)
LOADED_SIZE = 1 << 22  # of the transfers beside which the host's memory is busy
WARM = 5  # downloads before those that count
BUSY_BYTES = 1 << 25  # more than the caches hold


def links(backend: Backend, device: str) -> tuple[Link, Link]:
    """Measure the link to a device, both directions: idle, and with the host's memory busy."""
    times: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for nbytes in LINK_SIZES:
        times[True][nbytes], times[False][nbytes] = _both_ways(backend, device, nbytes)
    with _busy_memory():
        up, down = _both_ways(backend, device, LOADED_SIZE)
    return (
        _fit_link(times[True])._replace(loaded=max(up / times[True][LOADED_SIZE], 1.0)),
        _fit_link(times[False])._replace(loaded=max(down / times[False][LOADED_SIZE], 1.0)),
    )


def _both_ways(backend: Backend, device: str, nbytes: int) -> tuple[float, float]:
    """Return the median seconds of bringing so many bytes to a device, and of bringing them back."""
    host = np.ones(nbytes // 4, np.float32)
    host.flags.writeable = False  # then it is moved every time as if it came for the first time, and not locked
    up, down = [], []
    array = backend.upload(host, device)
    for _ in range(WARM):  # results come back to memory of earlier results, which a device may reach by itself by then
        backend.download(array)
    for _ in range(6):
        start = time.perf_counter()
        array = backend.upload(host, device)
        backend.synchronize(device)
        middle_of = time.perf_counter()
        backend.download(array)
        up.append(middle_of - start)
        down.append(time.perf_counter() - middle_of)
    return statistics.median(up[1:]), statistics.median(down[1:])


@contextmanager
def _busy_memory() -> Iterator[None]:
    """Copy host memory in another thread for the length of a block, as a program does that works while it transfers."""
    done = threading.Event()
    source = np.ones(BUSY_BYTES // 4, np.float32)
    target = np.empty_like(source)

    def copy() -> None:
        while not done.is_set():
            np.copyto(target, source)  # without the interpreter's lock

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def peer(backend: Backend, source: str, target: str) -> Link:
    """Measure the link from one device of a backend to another."""
    times: dict[int, float] = {}
    for nbytes in LINK_SIZES:
        array = backend.upload(np.ones(nbytes // 4, np.float32), source)
        samples = []
        for _ in range(6):
            backend.synchronize(source)
            start = time.perf_counter()
            backend.across(array, target)
            backend.synchronize(target)
            samples.append(time.perf_counter() - start)
        times[nbytes] = statistics.median(samples[1:])
    return _fit_link(times)


def _fit_link(times: dict[int, float]) -> Link:
    """Return a link that predicts what was measured: bandwidth from the largest sizes, latency from the smallest."""
    smallest, *_, second, largest = sorted(times)
    bandwidth = (largest - second) / max(times[largest] - times[second], 1e-12)
    points = tuple((nbytes, max(times[nbytes], 1e-9)) for nbytes in sorted(times))
    return Link(max(times[smallest] - smallest / bandwidth, 0.0), bandwidth, points)


class Views:
    """What viewing a host array as another kind costs, measured several times: a machine's speed drifts.

    Making one also loads the libraries of those kinds.
    """

    def __init__(self, registry: Registry, chosen: Collection[str]) -> None:
        self._calls: dict[str, tuple[Callable[[Any], Any], Any]] = {}
        self._samples: dict[str, list[float]] = {}
        base = np.ones(4)
        for name in {k.native for operation in chosen for k in registry.kernels(operation) if k.device == "cpu"}:
            if name == "numpy":
                continue
            kind = kind_named(name)
            try:
                other = kind.from_numpy(base)
            except ImportError:
                continue  # its kernels say so themselves when they are asked whether they support a request
            self._calls[f"numpy->{name}"] = kind.from_numpy, base
            self._calls[f"{name}->numpy"] = kind.to_numpy, other

    def sample(self) -> None:
        """Time each view once more."""
        for label, (function, value) in self._calls.items():
            start = time.perf_counter()
            for _ in range(100):
                function(value)
            self._samples.setdefault(label, []).append((time.perf_counter() - start) / 100)

    def seconds(self) -> dict[str, float]:
        """Return what each view takes."""
        return {label: typical(samples)[0] for label, samples in self._samples.items()}
