"""Time and memory of the layers that claim to grow like N log N or less, from 1,024 to 65,536 positions.

    python -m benchmarks.nn_attention [--device cuda:0] [--dim 64] [--save] [--methods]

Forward and backward of one sequence; medians. The slope is that of a line through log time over log length, and for
memory through log peak bytes. On a processor the peak is what the process holds above what it held before, in a process
of its own for each length; on CUDA it is the allocator's. torch's fused causal attention stands beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import adaptive_compute as ac
from adaptive_compute import nn
from adaptive_compute.core.errors import AdaptiveError, NoProfileWarning
from adaptive_compute.nn.headed import Headed
from benchmarks.record import machine

LENGTHS = [1024 << n for n in range(7)]
LONGEST_OF_FUSED = 16384  # on a processor: quadratic, and there for comparison alone


class Fused(Headed):
    """torch's fused causal attention between the same projections."""

    causal = False  # nobody asked the certificate: a benchmark's

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.split(x)
        return self.join(torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


def layers(dim: int) -> dict[str, Callable[[], torch.nn.Module]]:
    longest = LENGTHS[-1]
    return {
        "SpectralAttention, 32 modes, products": lambda: nn.SpectralAttention(dim, method="direct"),
        "SpectralAttention, 256 modes, NUFFT": lambda: nn.SpectralAttention(dim, modes=256, method="nufft"),
        "CausalSpectralAttention, 32 modes": lambda: nn.CausalSpectralAttention(dim),
        "TopologyAttention, causal window of 256": lambda: nn.TopologyAttention(
            dim, ac.Window(256) & ac.Causal(), max_length=longest
        ),
        "FrequencyAttention, 256 bins": lambda: nn.FrequencyAttention(dim, bins=256),
        "torch, fused causal attention": lambda: Fused(dim),
    }


def once(layer: torch.nn.Module, x: torch.Tensor) -> float:
    """Return the seconds of one forward and backward."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    layer.zero_grad()
    wait()
    start = time.perf_counter()
    layer(x).sum().backward()
    wait()
    return time.perf_counter() - start


def resident(field: str) -> int:
    """Return bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def case(
    make: Callable[[], torch.nn.Module], length: int, options: argparse.Namespace, rounds: int
) -> dict[str, float]:
    """Time one layer at one length, and return its peak memory."""
    warnings.simplefilter("ignore", NoProfileWarning)
    torch.manual_seed(0)
    dtype, device = getattr(torch, options.dtype), torch.device(options.device)
    layer = make()
    dtype = torch.float32 if isinstance(layer, nn.FrequencyAttention) else dtype  # there is no complex half precision
    layer = layer.to(device, dtype)
    small = torch.randn(1, LENGTHS[0], options.dim, device=device, dtype=dtype, requires_grad=True)
    once(layer, small)  # libraries are loaded, threads started
    x = torch.randn(1, length, options.dim, device=device, dtype=dtype, requires_grad=True)
    if device.type == "cuda":
        once(layer, x)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        samples = [once(layer, x) for _ in range(rounds)]
        peak = torch.cuda.max_memory_allocated() - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = resident("VmRSS")
        once(layer, x)
        peak = resident("VmHWM") - before
        samples = [once(layer, x) for _ in range(rounds)]
    return {"seconds": statistics.median(samples), "bytes": peak}


def in_a_process(make: Callable[[], torch.nn.Module], length: int, options: argparse.Namespace, rounds: int) -> Any:
    """Run `case` in a fork, so that no length inherits another's memory."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(case(make, length, options, rounds)))
    child.start()
    send.close()
    try:
        found = receive.recv()
    except EOFError:
        found = None
    child.join()
    return found


def slope(lengths: list[int], values: list[float]) -> float:
    """Return the slope of the line through the logarithms."""
    return statistics.linear_regression([math.log(n) for n in lengths], [math.log(v) for v in values]).slope


def write(figures: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the record so far where the options say."""
    cuda = options.device != "cpu"
    record = {
        "benchmark": "nn_attention",
        "command": f"python -m benchmarks.nn_attention --device {options.device} --dim {options.dim} "
        f"--dtype {options.dtype} --rounds {options.rounds}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine() | ({"gpu": torch.cuda.get_device_name(0)} if cuda else {}),
        "figures": figures,
    }
    name = f"nn-attention-{'cuda' if cuda else f'{len(os.sched_getaffinity(0))}-core-cpu'}.json"
    target = Path(__file__).parent / "results" / name if options.save else options.output
    if target is not None:
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def methods(options: argparse.Namespace) -> None:
    """Print where NUFFTs and products cross, by modes and length."""
    for form in (nn.SpectralAttention, nn.CausalSpectralAttention):
        for length in (1024, 8192, 65536):
            for modes in (16, 32, 64, 128, 256, 512):
                found = {}
                for method in ("direct", "nufft") if form is nn.SpectralAttention else ("direct",):
                    made = case(lambda: form(options.dim, modes=modes, method=method), length, options, options.rounds)
                    found[method] = f"{1e3 * made['seconds']:.1f} ms {made['bytes'] / 2**20:.0f} MiB"
                print(form.__name__, length, modes, found, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="layers whose name has this in it")
    parser.add_argument("--output", type=Path, help="write the record here")
    parser.add_argument("--save", action="store_true", help="write the record to benchmarks/results/")
    parser.add_argument("--methods", action="store_true", help="compare the ways to spread and gather instead")
    options = parser.parse_args()
    if options.methods:
        return methods(options)
    cuda = options.device != "cpu"
    figures: dict[str, Any] = {}
    for name, make in layers(options.dim).items():
        if options.only not in name:
            continue
        rows: dict[int, Any] = {}
        for length in LENGTHS:
            if "fused" in name and not cuda and length > LONGEST_OF_FUSED:
                break
            try:
                rows[length] = (case if cuda else in_a_process)(make, length, options, options.rounds)
            except (RuntimeError, AdaptiveError) as error:
                print(f"{name} at {length}: {error}", flush=True)
                break
        if len(rows) < 2:
            continue
        lengths = list(rows)
        figures[name] = {
            "lengths": lengths, "seconds": [rows[n]["seconds"] for n in lengths],
            "bytes": [rows[n]["bytes"] for n in lengths],
            "slope of time": slope(lengths, [rows[n]["seconds"] for n in lengths]),
            "slope of memory": slope(lengths[2:], [max(rows[n]["bytes"], 1) for n in lengths[2:]]),
        }  # fmt: skip
        made = figures[name]
        times = " ".join(f"{1e3 * s:.1f}" for s in made["seconds"])
        sizes = " ".join(f"{s / 2**20:.0f}" for s in made["bytes"])
        print(
            f"{name}: ms {times}; slope {made['slope of time']:.2f}; MiB {sizes}; slope {made['slope of memory']:.2f} "
            f"(from {lengths[2] if len(lengths) > 2 else lengths[0]} on)",
            flush=True,
        )
        write(figures, options)


if __name__ == "__main__":
    main()
