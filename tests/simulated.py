"""A simulated accelerator: its own array kind behind a link, with kernels that are wrong or fail on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from adaptive_compute.backends.base import Backend, Kernel, Plan
from adaptive_compute.core.array import ArrayKind, Operand, register_kind
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.registry import registry


class SimArray:
    """An array that lives on a simulated device; NumPy cannot read it."""

    def __init__(self, data: np.ndarray, device: str = "sim:0") -> None:
        self.data, self.device = data, device
        self.ndim, self.shape = data.ndim, data.shape


class SimKind(ArrayKind):
    name = "sim"
    modules = ("tests",)

    def matches(self, kind: type) -> bool:
        return issubclass(kind, SimArray)

    def describe(self, array: Any) -> Operand:
        return Operand(array.data.shape, array.data.dtype.name, array.device, "sim")

    def to_numpy(self, array: Any) -> np.ndarray:
        raise AssertionError("a device array was read as if it were on the host")


class SimPlan(Plan):
    def __init__(self, run: Callable[..., Any], nbytes: int = 0) -> None:
        self.function, self.nbytes, self.closed = run, nbytes, False

    def run(self, *arrays: Any) -> Any:
        return self.function(*arrays)

    def close(self) -> None:
        self.closed = True


class SimFFT(Kernel):
    """NumPy's FFT, on the simulated device or, with native="numpy", on the host."""

    operation = "fft"

    def __init__(self, name: str = "simfft", device: str = "sim:0", change: Callable[[Any], Any] | None = None) -> None:
        self.name, self.device = name, device
        self.native = "sim" if device.startswith("sim") else "numpy"
        self.change = change
        self.fail: Exception | None = None
        self.fail_planning: Exception | None = None
        self.delay = 0.0
        self.planned = 0
        self.nbytes = 0

    def supports(self, request: Any) -> bool | str:
        p = request.params
        return (
            True
            if p.kind == "c2c" and p.forward and p.scale == 0
            else "the simulation only does plain forward transforms"
        )

    def plan(self, request: Any) -> Plan:
        self.planned += 1
        if self.fail_planning is not None:
            raise self.fail_planning
        p = request.params

        def run(x: Any) -> Any:
            if self.fail is not None:
                raise self.fail
            if self.delay:
                time.sleep(self.delay)
            on_device = isinstance(x, SimArray)
            assert on_device == (self.native == "sim")
            data = x.data if on_device else x
            y = np.fft.fftn(data, p.lengths, p.axes).astype(request.operation.result(request)[0].dtype)
            if self.change is not None:
                y = self.change(y)
            return SimArray(y, self.device) if on_device else y

        return SimPlan(run, self.nbytes)


class SimBackend(Backend):
    name = "sim"

    def __init__(self, *kernels: Kernel, devices: tuple[str, ...] = ("sim:0",), reason: str | None = None) -> None:
        self._kernels, self._devices, self.reason = list(kernels), devices, reason
        self.seconds_per_byte = 0.0
        self.version = "1"

    def available(self) -> bool | str:
        return True if self.reason is None else self.reason

    def remedy(self) -> str | None:
        return "plug it in"

    def devices(self) -> tuple[str, ...]:
        return self._devices

    def kernels(self) -> list[Kernel]:
        return self._kernels

    def validators(self, device: str) -> dict[str, str]:
        return {"driver": self.version}

    def upload(self, host: np.ndarray, device: str) -> Any:
        if self.seconds_per_byte:
            time.sleep(host.nbytes * self.seconds_per_byte)
        return SimArray(host.copy(), device)

    def download(self, array: Any) -> np.ndarray:
        if self.seconds_per_byte:
            time.sleep(array.data.nbytes * self.seconds_per_byte)
        return array.data.copy()


@contextmanager
def installed(backend: SimBackend) -> Iterator[SimBackend]:
    """Register a simulated backend for the length of a block."""
    register_kind(SimKind())
    registry.register(backend)
    dispatcher.invalidate()
    try:
        yield backend
    finally:
        registry.unregister(backend.name)
        dispatcher.invalidate()
