"""Profiling finds a copy of a real kernel that was made wrong, and one that was made slow, on every device here."""

from __future__ import annotations

import copy
import time

import pytest

from adaptive_compute.backends.base import Plan
from adaptive_compute.core.compare import compared, lagging
from adaptive_compute.core.measure import measure
from adaptive_compute.core.operations.fft_rule import FAMILY
from adaptive_compute.core.registry import registry

DEVICES = [
    pytest.param(d, marks=pytest.mark.slow) if registry.backend_of(d).software(d) else d
    for d in registry.devices()
    if any(k.device == d for k in registry.kernels("fft"))
]


class Altered(Plan):
    """Another plan, whose results are scaled and which takes longer."""

    def __init__(self, plan, scale, delay):
        self.plan, self.scale, self.delay, self.nbytes = plan, scale, delay, plan.nbytes

    def run(self, *arrays):
        time.sleep(self.delay)
        if self.scale == 1.0:
            return self.plan.run(*arrays)
        return self.plan.run(*(scaled(a, self.scale) for a in arrays))

    def close(self):
        self.plan.close()


def scaled(array, factor):
    """Multiply an array of any kind."""
    try:
        return array * factor
    except TypeError:  # an array of a backend that has no arithmetic of its own
        backend = registry.backend_of(array.device)
        return backend.upload(backend.download(array) * factor, array.device)


@pytest.fixture(params=DEVICES)
def altered(request, monkeypatch):
    """A copy of a device's first FFT kernel that can be made wrong or slow, offered by its backend."""
    device = request.param
    base = next(k for k in registry.kernels("fft") if k.device == device)
    twin = copy.copy(base)
    twin.name, twin.scale, twin.delay = f"{base.name}-twin", 1.0, 0.0
    twin.plan = lambda r: Altered(base.plan(r), twin.scale, twin.delay)
    backend = registry.backend_of(device)
    kernels = list(backend.kernels())
    monkeypatch.setattr(backend, "kernels", lambda: [*kernels, twin])
    registry.register(backend)
    some = [FAMILY.example((batch, n), "complex64") for batch in (1, 4) for n in (64, 128, 256, 512, 1024)]
    monkeypatch.setattr(FAMILY, "samples", lambda quick: some)
    yield base, twin, backend
    monkeypatch.undo()
    registry.register(backend)


def profiled(backend):
    return measure(registry, operations=["fft"], backends=[backend.name], budget=3.0)


def test_a_copy_made_wrong_never_enters_the_profile(altered):
    base, twin, backend = altered
    twin.scale = 1.001
    profile = profiled(backend)
    assert "relative error" in profile.rejection(twin.device, "fft", twin.name)
    assert twin.name not in profile.sections[twin.device].kernels["fft"]
    assert base.name in profile.sections[base.device].kernels["fft"]


def test_a_copy_made_slow_is_named_beside_an_earlier_profile_and_beside_its_sibling(altered):
    base, twin, backend = altered
    earlier = profiled(backend)
    twin.delay = 0.01
    later = profiled(backend)
    assert [(c.kernel, c.device) for c in compared(later, earlier).slower] == [(twin.name, twin.device)]
    lags = {lag.kernel: lag for lag in lagging(later, registry) if lag.device == twin.device}
    assert lags[twin.name].ratio >= 3
    assert base.name not in lags
