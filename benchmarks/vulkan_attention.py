"""Attention's shaders on a Vulkan device, variant by variant, beside torch's SDPA on the same GPU where it is there.

``python -m benchmarks.vulkan_attention [--quick] [--masks none causal] [--output FILE.json]``. The device's own time by
timestamps, median of ten after a warm-up; torch by CUDA events. Each result is first compared with the float64
definition on random rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import tuning
from adaptive_compute.backends.vulkan.array import upload
from adaptive_compute.backends.vulkan.attention import kernels
from adaptive_compute.backends.vulkan.attention_tiles import FORWARD
from adaptive_compute.backends.vulkan.limits import devices
from adaptive_compute.core.measure import relocated
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.attention_rule import BACKWARD, FAMILY

from .record import machine

DEVICE = "vulkan:0"
REPEATS = 10
SHAPES = {"d128": (4, 16, 4096, 128), "d64": (1, 8, 4096, 64)}
QUICK = {"d64": (1, 2, 256, 64), "d128": (1, 2, 256, 128)}
MASKS = {"none": None, "causal": ac.Causal(), "window": ac.Window(256)}


def request_for(operation: Any, shape: tuple[int, ...], mask: Any) -> Request:
    """Return the request of one call on host arrays."""
    plain = operation.example(shape, "float32")
    return Request(operation, plain.operands, plain.params._replace(mask=mask), None, plain.threads)


def measured(operation: Any, shape: tuple[int, ...], mask: Any, variant: tuple[str, str] | None) -> dict[str, float]:
    """Return the median seconds on the device, the error, and the seconds that the first run took to prepare."""
    tuning.apply(DEVICE, dict([variant]) if variant else {}, tuning.tunables([_room()]))
    (kernel,) = (k for k in kernels(DEVICE) if k.operation == operation.name)
    request = relocated(request_for(operation, shape, mask), kernel)
    reason = kernel.supports(request)
    if reason is not True:
        raise ValueError(reason)
    given = operands(operation, shape, mask)
    plan = kernel.plan(request)
    start = time.perf_counter()
    made = plan.run(*given[1])
    prepared = time.perf_counter() - start
    parts = made if isinstance(made, tuple) else (made,)
    found = tuple(part.numpy() for part in parts)
    error = given[2](found if len(found) > 1 else found[0])
    seconds = plan.gpu_seconds(*given[1], repeats=REPEATS + 3)[3:]
    plan.close()
    return {"seconds": statistics.median(seconds), "error": error, "prepared": prepared}


_kept: dict[Any, Any] = {}


def operands(operation: Any, shape: tuple[int, ...], mask: Any) -> tuple[Any, Any, Callable[[Any], float]]:
    """Return operands on the host and on the device, and what tells the error of a result; kept for one case."""
    key = (operation.name, shape, mask)
    if key not in _kept:
        _kept.clear()
        request = request_for(operation, shape, mask)
        host = list(request.operation.arrays(request, np.random.default_rng(0)))
        device = [None if a is None else upload(a, DEVICE) for a in host]
        _kept[key] = host, device, lambda result: operation.error(request, tuple(host), result)
    return _kept[key]


def _room() -> Any:
    from adaptive_compute.backends.vulkan import attention

    return attention


def variants(width: int) -> Iterator[tuple[str, str]]:
    """Yield every variant of the forward shader that the device can run, for results of so many columns."""
    limits = devices()[int(DEVICE.partition(":")[2])]
    for name, shape in FORWARD[width].items():
        if shape.runs(limits) and shape.shuffles:
            yield f"attention.{width}", name


def flops(shape: tuple[int, ...], gemms: int) -> float:
    """Return the floating-point operations of a call without a mask."""
    b, h, length, d = shape
    return 2.0 * gemms * b * h * length * length * d


def torch_seconds(shape: tuple[int, ...], causal: bool) -> dict[str, float]:
    """Return what torch's float32 SDPA takes, for each of its backends that accepts the call."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    torch.backends.cuda.matmul.allow_tf32 = False
    q, k, v = (torch.randn(shape, device="cuda") for _ in range(3))
    found = {}
    for backend in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH, SDPBackend.CUDNN_ATTENTION):
        times = []
        try:
            with sdpa_kernel(backend):
                for _ in range(REPEATS + 2):
                    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    start.record()
                    sdpa(q, k, v, is_causal=causal)
                    end.record()
                    torch.cuda.synchronize()
                    times.append(start.elapsed_time(end) * 1e-3)
        except (RuntimeError, torch.cuda.OutOfMemoryError):
            continue
        found[f"torch {backend.name.lower()}"] = statistics.median(times[2:])
    del q, k, v
    torch.cuda.empty_cache()
    return found


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--masks", nargs="*", choices=MASKS, default=[*MASKS])
    parser.add_argument("--seconds", type=float, default=55.0, help="begin nothing new after this long")
    options = parser.parse_args()
    shapes = QUICK if options.quick else SHAPES
    record: list[dict[str, Any]] = []
    end = time.perf_counter() + options.seconds

    def note(label: str, name: str, what: str, gemms: int, shape: tuple[int, ...], found: dict[str, float]) -> None:
        record.append({"shape": shape, "mask": name, "what": what, **found})
        rate = flops(shape, gemms) / found["seconds"] / 1e12
        more = f"  error {found['error']:.1e}  first run {found['prepared']:.2f} s" if "error" in found else ""
        print(f"{label:5} {name:7} {what:28} {found['seconds'] * 1e3:9.3f} ms {rate:7.2f} TFLOP/s{more}", flush=True)

    print("TFLOP/s count every pair, kept or not")
    for label, shape in shapes.items():
        for name, mask in ((n, MASKS[n]) for n in options.masks):
            for variant in variants(shape[-1]):
                if time.perf_counter() > end:
                    print(f"{label} {name} {variant[1]}: out of time")
                    continue
                try:
                    note(label, name, variant[1], 2, shape, measured(FAMILY, shape, mask, variant))
                except Exception as error:  # a variant that a driver refuses must not hide the others
                    print(f"{label} {name} {variant[1]}: {type(error).__name__}: {error}")
            if name != "window":
                for rival, seconds in torch_seconds(shape, name == "causal").items():
                    note(label, name, rival, 2, shape, {"seconds": seconds})
    has_backward = any(k.operation == BACKWARD.name for k in kernels(DEVICE))
    for label, shape in shapes.items() if has_backward else ():
        if time.perf_counter() < end:
            one = (1, *shape[1:])
            note(label, "none", "backward", 5, one, measured(BACKWARD, one, None, None))
    if options.output:
        limits = devices()[int(DEVICE.partition(":")[2])]
        made = {
            "benchmark": "vulkan_attention",
            "command": f"python -m benchmarks.vulkan_attention --masks {' '.join(options.masks)}",
            "date": datetime.now(UTC).date().isoformat(),
            "device": limits.name,
            "driver": limits.driver,
            "machine": machine(),
            "figures": record,
        }
        options.output.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
