"""Two GPUs: whether the library uses each, and what the links between them give.

python -m benchmarks.gpu.two_gpus [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import AdaptiveWarning
from adaptive_compute.core.registry import registry
from benchmarks.record import machine

NBYTES = 1 << 28


def rate(call: Any) -> float:
    """Return bytes a second of a call that moves NBYTES between moments when every GPU is idle, after a few of them."""
    seconds = []
    for _ in range(11):
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)
        start = time.perf_counter()
        kept = call()
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)
        seconds.append(time.perf_counter() - start)
        del kept
    return NBYTES / statistics.median(seconds[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", AdaptiveWarning)
    backend = registry.require("cuda")
    devices = list(backend.devices())
    rates: dict[str, float] = {}
    host = np.random.default_rng(0).integers(0, 255, NBYTES, np.uint8)
    for device in devices:
        there = ac.to(torch.from_numpy(host), device)
        rates[f"cpu -> {device}"] = rate(lambda d=device: backend.upload(host, d))
        rates[f"{device} -> cpu"] = rate(lambda t=there: backend.download(t))
        for other in devices:
            if other == device:
                continue
            moved = ac.to(there, other)
            assert str(moved.device) == other
            assert np.array_equal(backend.download(moved), host)
            rates[f"{device} -> {other}"] = rate(lambda t=there, o=other: ac.to(t, o))
            plain = torch.empty_like(moved)
            rates[f"{device} -> {other} by torch"] = rate(lambda t=there, p=plain: p.copy_(t))
    for link, found in rates.items():
        print(f"{link}: {found / 1e9:.1f} GB/s", flush=True)
    x = np.random.default_rng(1).standard_normal((4096, 1024, 2), np.float32).view(np.complex64)[..., 0]
    both = {}
    for device in devices:
        with ac.using(device=device):
            y = ac.fft(x)
        both[device] = float(np.linalg.norm(y[::64] - np.fft.fft(x[::64])) / np.linalg.norm(y[::64]))
        shown = [str(c.device) for c in ac.explain(ac.fft, x).candidates]
        assert device in shown, shown
    print(f"error of a streamed FFT on each: {both}; {ac.transfers()['transfers']}", flush=True)
    if options.output:
        record = {
            "benchmark": "cuda-two-gpus", "command": "python -m benchmarks.gpu.two_gpus", "bytes": NBYTES,
            "bytes per second": rates, "errors": both, "date": datetime.now(UTC).date().isoformat(),
            "machine": {**machine(), "gpus": [backend.facts(device) for device in devices]},
        }  # fmt: skip
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
