"""A profile of just what benchmarks/pipeline.py uses, at sizes spread over its range, within some seconds.

A whole profile takes minutes on a machine with a GPU, and its largest samples are smaller than the images here. Results
are not checked here; the kernels have their conformance suite.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from adaptive_compute.core.errors import AdaptiveError
from adaptive_compute.core.links import Views, links
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations import elementwise_rule, fft_rule, nufft_rule, reduce_rule
from adaptive_compute.core.profile import Measurement, Profile, Section
from adaptive_compute.core.registry import Registry
from adaptive_compute.core.runner import FAILURES, Runner, relocated
from adaptive_compute.core.timing import typical

EACH = 0.008  # seconds for the samples of one kernel at one point
ALONE = 16 << 20  # bytes up to which kernels of one thread are measured
SLOWEST = 0.4  # a kernel that takes so long is measured by its first runs


def images() -> Iterator[Request]:
    for side in (700, 1500, 4500):
        for kind in ("r2c", "c2r"):
            yield fft_rule._sample(kind, "float32", (side, side), (0, 1))


def transforms() -> Iterator[Request]:
    for total in (10, 14, 18, 22):
        for length in (6, 9, 12):
            for real in ("float32", "float64"):
                for kind in ("r2c", "c2c", "c2r"):
                    if length <= total and (total < 22 or real == "float32"):
                        yield fft_rule._sample(kind, real, (1 << (total - length), (1 << length) - 7), (1,))


FIRST = ("one", "two", "hidden", "multiply")  # what every expression is made of


def expressions(wanted: tuple[str, ...]) -> Iterator[Request]:
    for size in (1 << 10, 1 << 14, 1 << 18, 1 << 22):
        for dtype in ("float32", "float64", "complex64"):
            for root, name in elementwise_rule.sample_classes().items():
                if name in wanted and not (dtype == "complex64" and name == "tanh"):
                    shapes = [(size,)] * elementwise_rule.operand_count(root)
                    yield elementwise_rule._request(root, shapes, dtype)


def steps() -> Iterator[Request]:
    return expressions(("add_product", "divide", "exp", "tanh", "absolute"))


def sums() -> Iterator[Request]:
    for total in (10, 14, 18, 22):
        for function in ("sum", "norm"):
            for dtype in ("float32", "float64"):
                for length in (6, 11, total):
                    if length <= total:
                        yield reduce_rule._sample(function, dtype, "last", 1 << length, 1 << (total - length))


def nonuniform() -> Iterator[Request]:
    for points, side in ((50_000, 100), (200_000, 200), (700_000, 400), (1_500_000, 600)):
        for kind in (1, 2):
            yield nufft_rule.sample(kind, 2, "float32", 1e-5, 1, points, side * side)


def measured(registry: Registry, backends: list[str], seconds: float) -> Profile:
    """Measure the kernels of some backends at these points; a share of the time for each operation, largest first."""
    start = time.perf_counter()
    devices = [d for d in registry.devices() if registry.backend_of(d).name in backends]
    devices = [d for d in devices if not registry.backend_of(d).software(d)]
    profile = Profile({d: Section(dict(registry.backend_of(d).validators(d))) for d in devices})
    for device in devices:
        if device != "cpu":
            section, backend = profile.sections[device], registry.backend_of(device)
            links(backend, device)  # the first pins the memory that the rest goes through
            section.up, section.down = links(backend, device)
    views = Views(registry, ["elementwise", "reduce", "fft", "nufft"])
    for _ in range(5):
        views.sample()
    rng = np.random.default_rng(11)
    left_out = 0
    begin = time.perf_counter()
    shares = (
        (nonuniform, 0.25), (images, 0.37), (lambda: expressions(FIRST), 0.57), (transforms, 0.75), (sums, 0.85),
        (steps, 1.0),
    )  # fmt: skip
    for requests, until in shares:
        points = list(requests())
        rng.shuffle(points)  # type: ignore[arg-type]
        for number, request in enumerate(points):
            if time.perf_counter() - begin > until * seconds:
                left_out += len(points) - number
                break
            _point(registry, profile, request, rng)
    profile.views = views.seconds()
    profile.facts = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 1),
        "left_out": left_out,
    }
    return profile


def _needed(name: str) -> bool:
    """Tell whether a GPU's time model asks for a class: of expressions one or two, each compiled for a while."""
    return name.partition("/")[0] not in ("hidden", "multiply", "add_product", "divide", "exp", "tanh", "absolute")


def _point(registry: Registry, profile: Profile, request: Request, rng: np.random.Generator) -> None:
    arrays = request.operation.arrays(request, rng)
    copies = [a if a is None else a.copy() for a in arrays]
    for kernel in registry.kernels(request.operation.name):
        section = profile.sections.get(kernel.device)
        if section is None or kernel.supports(relocated(request, kernel)) is not True:
            continue
        if kernel.device != "cpu" and not _needed(kernel.features(request).name):
            continue
        alone = kernel.name in ("finufft-1", "pocketfft", "numpy", "numpy-blocked", "torch-blocked")
        if alone and request.operation.work(request).bytes > ALONE and kernel.device == "cpu":
            continue  # one thread: known to lose there, and slow to show it
        try:
            runner = Runner(kernel, request, arrays, copies, registry)
            times = [runner.seconds(1), runner.seconds(1)]
            if times[1] < SLOWEST:
                repeats = max(1, int(EACH / 4 / max(times[1], 1e-7)))
                times = [runner.seconds(min(repeats, 400)) for _ in range(4)]
        except (AdaptiveError, MemoryError, *FAILURES):
            continue
        features = kernel.features(runner.request)
        point = Measurement(features.at, *typical(times), None)
        classes = section.kernels.setdefault(request.operation.name, {}).setdefault(kernel.name, {})
        classes.setdefault(features.name, []).append(point)
        runner.plan.close()
