"""A machine made up for the report: a host, a device behind a link, and texts that would break a careless page."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_compute.core.array import Operand
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations import operations
from adaptive_compute.core.operations.elementwise_rule import operand_count, sample_classes
from adaptive_compute.core.profile import Link
from adaptive_compute.core.registry import registry
from adaptive_compute.report.collect import collect
from adaptive_compute.report.stored import keep
from adaptive_compute.report.sweeps import causal
from tests.profiles import Took, made_up
from tests.simulated import SimBackend, SimFFT, installed

EVIL = "<img src=x onerror=alert(1)>&\"'</script>"


def rows():
    fft, nufft, attention, elementwise = (operations()[n] for n in ("fft", "nufft", "attention", "elementwise"))
    for power in range(4, 23):
        for dtype, cost in (("complex64", 1e-8), ("complex128", 2e-8)):
            request = fft.example((1 << power,), dtype)
            error = 2e-7 if dtype == "complex64" else 3e-16
            yield Took(request, 1e-6 + cost * 2**power, error)
            if power < 20:
                yield Took(fft.example((64, 1 << power), dtype), 1e-6 + 64 * cost * 2**power, error)
            yield Took(request, 5e-6 + 1e-11 * 2**power, error, device="sim:0")
    for n in (8, 64, 256, 1024):
        for dtype in ("complex64", "complex128"):
            for eps in (1e-2, 1e-6, 1e-12):
                plain = nufft.example((n, n), dtype)
                request = Request(nufft, plain.operands, plain.params._replace(eps=eps), None, plain.threads)
                yield Took(request, 1e-5 + 1e-8 * n * n * -np.log10(eps), eps)
    for length in (16, 512, 4096):
        for dtype, cost in (("float32", 1e-11), ("float64", 3e-11)):
            request = attention.example((1, 8, length, 64), dtype)
            for same in (request, causal(request)):
                yield Took(same, 1e-5 + cost * length**2 * 64, 4e-7 if dtype == "float32" else 1e-15)
    for root in sample_classes():
        for dtype, cost in (("float32", 1e-10), ("float64", 3e-10)):
            for size in (64, 1 << 24):
                operands = (Operand((size,), dtype, "cpu", "numpy"),) * operand_count(root)
                request = Request(elementwise, operands, root, None, 2)
                seconds = 1e-6 + cost * elementwise.work(request).flops
                yield Took(request, seconds, 1e-7 if dtype == "float32" else 1e-16)


@pytest.fixture(scope="session")
def regrets():
    return [1.0] * 60 + [1.005] * 10 + [1.04] * 8 + [1.15] * 12 + [1.4] * 9 + [7.0]


@pytest.fixture(scope="session")
def profile():
    with installed(SimBackend(SimFFT(EVIL))):
        points = tuple((size, 1e-6 + size / 1e10) for size in (4096, 65536, 1 << 20, 1 << 25))
        link = Link(1e-6, 1e10, points)
        made = made_up(
            rows(), {"sim:0": link}, {"measured": "2026-01-02T03:04:05+00:00", "seconds": 12.5, "quick": False}
        )
        yield made


@pytest.fixture(scope="session")
def data(profile, regrets, tmp_path_factory):
    """The figures of a report on that machine, with a regret result beside its profile."""
    path = tmp_path_factory.mktemp("report") / "profile.json"
    profile.stale["gone:0"] = f"driver was 1, is {EVIL}"
    profile.sections["cpu"].rejected["fft"] = {"torch": EVIL}
    figures = {
        "mean": 1.11, "median": 1.0, "p90": 1.2, "p99": 1.4, "worst": 7.0, "optimal": 0.6, "undecided": 3,
        "regrets": regrets, "policies": {"always cpu": {"mean": 2.5}, EVIL: {"mean": 9.0}},
        "per_operation": {"fft": {"count": 100, "mean": 1.11, "p90": 1.2, "worst": 7.0}},
    }  # fmt: skip
    keep(path, profile, figures)
    return collect(registry, profile, path)
