"""A simulated machine: devices of given speeds, latencies and noise, and the router on it, without any hardware.

Nothing runs. A kernel takes ``(overhead + flops / speed)``, its profile holds that time at a few sizes, each off by a
known noise, and so the true time of every decision is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptive_compute.backends.base import Backend, Kernel
from adaptive_compute.core.array import Operand
from adaptive_compute.core.curve import Measurement
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.fft_rule import FAMILY, FFTParams
from adaptive_compute.core.profile import Link, Profile, Section
from adaptive_compute.core.registry import Registry
from adaptive_compute.core.router import Router
from adaptive_compute.core.settings import Settings

SIZES = tuple(1 << n for n in range(4, 25, 4))  # lengths of the profiled transforms


@dataclass(frozen=True)
class Speed:
    """How fast a kernel is: seconds a call, flops a second, and how far off its measurements are (0.1: by 10 %)."""

    overhead: float
    flops: float
    noise: float = 0.0

    def seconds(self, request: Request) -> float:
        """Return the true time."""
        return self.overhead + FAMILY.work(request).flops / self.flops


class TimedKernel(Kernel):
    """A kernel that is as fast as it is said to be, and never runs."""

    operation = "fft"

    def __init__(self, name: str, device: str, speed: Speed) -> None:
        self.name, self.device, self.speed = name, device, speed

    def supports(self, request: Request) -> bool | str:
        return True


class TimedBackend(Backend):
    """A backend of one simulated device."""

    def __init__(self, name: str, device: str, kernels: list[Kernel]) -> None:
        self.name, self._device, self._kernels = name, device, kernels

    def devices(self) -> tuple[str, ...]:
        return (self._device,)

    def kernels(self) -> list[Kernel]:
        return self._kernels


class Machine:
    """Kernels by device, the host's under ``"cpu"``, and a link for each other device."""

    def __init__(self, speeds: dict[str, list[Speed]], links: dict[str, Link], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.links = links
        self.kernels = {
            device: [TimedKernel(f"k{i}", device, speed) for i, speed in enumerate(own)]
            for device, own in speeds.items()
        }
        sections = {}
        for device, kernels in self.kernels.items():
            measured = {k.name: _measured(k, rng) for k in kernels}
            link = links.get(device)
            sections[device] = Section({}, {"fft": measured}, {}, link, link)
        self.registry = Registry()
        self.registry._backends = {}
        for device, kernels in self.kernels.items():
            name = device.partition(":")[0]
            self.registry._backends[name] = TimedBackend(name, device, list(kernels))
        self.registry._ask()
        self.router = Router(self.registry, Profile(sections))

    def decide(self, request: Request, **state: Any) -> Any:
        """Return the router's decision."""
        return self.router.decide(request, Settings(**state))

    def true_seconds(self, request: Request, kernel: TimedKernel) -> float:
        """Return what a kernel really takes for a request, transfers included."""
        total = kernel.speed.seconds(request)
        for operand in (request.first, *FAMILY.result(request)):
            for device in {request.home, kernel.device} - {"cpu"}:
                if request.home != kernel.device:
                    total += self.links[device].seconds(operand.nbytes)
        return total

    def least(self, request: Request, devices: set[str] | None = None) -> float:
        """Return the true time of the fastest kernel, on some devices or on all."""
        return min(
            self.true_seconds(request, kernel)
            for device, kernels in self.kernels.items()
            if devices is None or device in devices
            for kernel in kernels
        )


def _measured(kernel: TimedKernel, rng: np.random.Generator) -> dict[str, list[Measurement]]:
    classes: dict[str, list[Measurement]] = {}
    for size in SIZES:
        request = transform(size)
        features = kernel.features(request)
        factor = math.exp(rng.uniform(-1, 1) * math.log1p(kernel.speed.noise))
        point = Measurement(features.at, kernel.speed.seconds(request) * factor, kernel.speed.noise, 1e-16)
        classes.setdefault(features.name, []).append(point)
    return classes


def transform(size: int, device: str = "cpu") -> Request:
    """Return a transform of ``size`` complex numbers that are on a device."""
    operand = Operand((size,), "complex128", device, "numpy")
    return Request(FAMILY, (operand,), FFTParams("c2c", True, (size,), (0,), 0), None, 2)
