"""What a warm call through Vulkan costs besides the shader: ac.fft of 256 complex points, on the first Vulkan device.

The shader's own time comes from timestamps on the device, in turn with the calls, as is what an empty submission costs:
Kompute's and the driver's part, which no plan can go below. ``--device vulkan:1`` is another one.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import adaptive_compute as ac
from adaptive_compute.backends.vulkan.limits import devices
from adaptive_compute.backends.vulkan.runtime import runtime
from adaptive_compute.core.errors import NoProfileWarning
from adaptive_compute.core.registry import registry
from benchmarks.record import publish, summary

POINTS, ROUNDS, CALLS, SEED = 256, 60, 50, 0


def measure(device: str) -> dict[str, Any]:
    """Return the figures of one device, in microseconds; added times are the medians over rounds."""
    rng = np.random.default_rng(SEED)
    x = (rng.standard_normal(POINTS) + 1j * rng.standard_normal(POINTS)).astype("complex64")
    owner, there = runtime(device), ac.to(x, device)
    with ac.using(device=device):
        request = ac.explain(ac.fft, there).request
        (kernel,) = [k for k in registry.kernels("fft") if k.device == device]
        plan = kernel.plan(request)
        host, resident = (lambda: ac.fft(x)), (lambda: ac.fft(there))
        for _ in range(200):
            host(), resident(), plan.run(there)
        before = owner.counts.submits
        host()
        submits = owner.counts.submits - before
        nothing = owner._kompute.sequence()
        rounds = []
        for _ in range(ROUNDS):
            own = statistics.median(plan.gpu_seconds(there, repeats=CALLS))
            rounds.append((_each(host), _each(resident), own, _each(nothing.eval)))
        nothing.destroy()
    shader = [own for _, _, own, _ in rounds]
    return {
        "device": device, "name": devices()[int(device.partition(":")[2])].name, "points": POINTS, "rounds": ROUNDS,
        "calls": CALLS, "seed": SEED, "submits_a_call": submits, "limit_added_us": 150.0,
        "shader_us": _micro(shader),
        "host_call_us": _micro([a for a, *_ in rounds]), "resident_call_us": _micro([b for _, b, *_ in rounds]),
        "host_added_us": _micro([a - own for a, _, own, _ in rounds]),
        "resident_added_us": _micro([b - own for _, b, own, _ in rounds]),
        "empty_submission_us": _micro([empty for *_, empty in rounds]),
        "host_besides_us": _micro([a - own - empty for a, _, own, empty in rounds]),
        "resident_besides_us": _micro([b - own - empty for _, b, own, empty in rounds]),
        "first_call_s": first_call(device),
    }  # fmt: skip


def first_call(device: str) -> dict[str, float]:
    """Return what opening Vulkan costs once a process, in a process of its own: seconds by stage."""
    code = (
        "import time, warnings; warnings.simplefilter('ignore'); import numpy as np; import adaptive_compute as ac\n"
        "x = np.ones(256, 'complex64'); start = time.perf_counter(); ac.fft(x); cpu = time.perf_counter()\n"
        f"ac.to(x, {device!r}); there = time.perf_counter()\n"
        f"with ac.using(device={device!r}): ac.fft(x)\n"
        "print(cpu - start, there - cpu, time.perf_counter() - there)"
    )
    samples = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        samples.append([float(part) for part in done.stdout.split()])
    stages = ("first_call_on_the_processor", "opening_the_device", "first_transform_there")
    return {stage: statistics.median(column) for stage, column in zip(stages, zip(*samples))}


def _each(call: Callable[[], Any]) -> float:
    """Return the median seconds of a call."""
    samples = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def _micro(samples: list[float]) -> dict[str, float]:
    return {name: seconds * 1e6 for name, seconds in summary(samples).items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore", NoProfileWarning)
    chosen = "vulkan:0"
    if "--device" in sys.argv:
        at = sys.argv.index("--device")
        chosen = sys.argv[at + 1]
        del sys.argv[at : at + 2]
    found = measure(chosen)
    publish(
        "vulkan-overhead",
        found,
        f"{found['name']}: ac.fft of {POINTS} points on a host array {found['host_call_us']['median']:.1f} us, on a "
        f"resident one {found['resident_call_us']['median']:.1f} us; the shader {found['shader_us']['median']:.1f} us; "
        f"added {found['host_added_us']['median']:.1f} and {found['resident_added_us']['median']:.1f} us "
        f"(asked: at most {found['limit_added_us']:.0f}); {found['submits_a_call']} submission a call; "
        f"once a process: {found['first_call_s']}",
    )
