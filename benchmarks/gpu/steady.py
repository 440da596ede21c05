"""Ten thousand mixed calls: whether memory of the host and of the GPU stays flat.

    python -m benchmarks.gpu.steady [--calls 10000] [--output FILE]

Calls of every family on host and device data, in mixed sizes, some of them in pieces. Memory is looked at after
every thousand calls. It is flat where the second half of the calls adds no more than a hundredth, or a few MiB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import AdaptiveWarning
from adaptive_compute.core.registry import registry
from benchmarks.record import machine

DEVICE = "cuda:0"
SLACK = 8 << 20  # bytes that the second half may add to what was there: what allocators keep varies so much


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def look() -> dict[str, int]:
    """Return what is in use on both sides."""
    torch.cuda.synchronize()
    gc.collect()
    free, total = torch.cuda.mem_get_info()
    return {
        "host resident": resident(), "GPU in use": total - free, "GPU allocated": torch.cuda.memory_allocated(),
        "GPU reserved": torch.cuda.memory_reserved(), "plans": ac.dispatcher.cached[0],
    }  # fmt: skip


def calls() -> list[Callable[[int], Any]]:
    """Return functions of a small number, each one call or two."""
    rng = np.random.default_rng(0)
    x = torch.randn(64, 512, dtype=torch.complex64, device=DEVICE)
    a = torch.rand(3, 4096, device=DEVICE)
    q = torch.randn(2, 4, 128, 64, dtype=torch.float16, device=DEVICE)
    host = rng.standard_normal((64, 4096)).astype(np.float32)
    batch = rng.standard_normal((1024, 1024, 2), np.float32).view(np.complex64)[..., 0]
    points = [(torch.rand(2000, device=DEVICE) - 0.5) * 6 for _ in range(2)]
    strengths = torch.randn(2000, dtype=torch.complex64, device=DEVICE)
    topology = ac.Topology.from_index(rng.integers(0, 50, 4096), 50)

    def on_gpu(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with ac.using("cuda"):
            return function(*args, **kwargs)

    return [
        lambda n: ac.fft(x[:n]),
        lambda n: ac.rfft(x.real[:, : 8 * n]),
        lambda n: ac.evaluate("a*b + sin(c)", a=a[0, : 8 * n], b=a[1, : 8 * n], c=a[2, : 8 * n]),
        lambda n: ac.norm(a[:, :n], axis=1),
        lambda n: ac.attention(q[..., :n, :], q, q),
        lambda n: ac.attention(q, q, q, mask=ac.Window(n)),
        lambda n: ac.to(ac.to(host[:n], "cuda"), "cpu"),
        lambda n: ac.scatter_add(a[0], topology),
        lambda n: ac.gather(a[:, n : n + 50], topology, axis=1),
        lambda n: ac.nufft.nufft2d1(*points, strengths, (n, 16), eps=1e-4),
        lambda n: on_gpu(ac.fft, host[:n]),
        lambda n: on_gpu(ac.fft, batch) if n % 64 == 0 else on_gpu(ac.sum, host[:n]),
        lambda n: on_gpu(ac.evaluate, "2*x + 1", x=batch) if n % 64 == 0 else None,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", AdaptiveWarning)
    rng, every, seen = np.random.default_rng(1), calls(), []
    start = time.perf_counter()
    for number in range(options.calls + 1):
        if number % (options.calls // 10) == 0:
            seen.append({"calls": number, **look()})
            print(f"[{time.perf_counter() - start:5.1f}]", seen[-1], flush=True)
        every[number % len(every)](int(rng.integers(1, 9)) * 8)
    half, last = seen[len(seen) // 2], seen[-1]
    grown = {name: last[name] - half[name] for name in last if name != "calls"}
    flat = all(grown[name] <= max(half[name] // 100, SLACK) for name in grown)
    print(f"the second half added {grown}: {'flat' if flat else 'NOT FLAT'}", flush=True)
    if options.output:
        record = {
            "benchmark": "cuda-steady", "command": "python -m benchmarks.gpu.steady", "flat": flat, "samples": seen,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {**machine(), "gpu": registry.require("cuda").facts(DEVICE)},
        }  # fmt: skip
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if flat else 1)


if __name__ == "__main__":
    main()
