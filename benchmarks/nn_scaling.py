"""The claim: a spectral layer's time grows with the length to the power of at most 1.15, and its memory linearly; on a
processor with two cores a gated convolution of 2048 positions is at least 1.5 times faster than attention.

Times are of forward and backward, gradients of the input and of all parameters included.

    python -m benchmarks.nn_scaling --save                             # on the processor
    python -m benchmarks.nn_scaling --device cuda:0 --output FILE      # the lengths alone, on a GPU
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adaptive_compute import nn

from .record import paired, publish, ratio, summary

DIM, HEADS = 256, 4
LENGTHS = tuple(1 << k for k in range(10, 17))
BATCH = {"cpu": 1, "cuda": 8}  # the same for every length
TOKENS, LENGTH = 1 << 16, 2048  # of the comparison with attention
LAYERS: dict[str, Callable[[int], Any]] = {
    "GatedConvolution": lambda length: nn.GatedConvolution(DIM, max_length=length),
    "GatedConvolution order 3": lambda length: nn.GatedConvolution(DIM, max_length=length, order=3),
    "SpectralMixing full": lambda length: nn.SpectralMixing(DIM, max_length=length),
    "SpectralMixing low-rank": lambda length: nn.SpectralMixing(DIM, max_length=length, filter="low-rank"),
    "SpectralMixing implicit": lambda length: nn.SpectralMixing(DIM, max_length=length, filter="implicit"),
    "SpectralMixing multi-scale": lambda length: nn.SpectralMixing(DIM, max_length=length, filter="multi-scale"),
    "SpectralMixing all switches": lambda length: nn.SpectralMixing(
        DIM, max_length=length, rotary=True, phase=True, glu=True
    ),
    "FNetMixing": lambda length: nn.FNetMixing(DIM),
}


class Attention(torch.nn.Module):
    """torch's fused attention between projections, causal."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = torch.nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(o.transpose(1, 2).flatten(2))


def step(layer: Any, x: torch.Tensor) -> Callable[[], None]:
    """Return forward and backward of a layer."""
    grad, wanted = torch.randn_like(x), [x, *layer.parameters()]

    def call() -> None:
        torch.autograd.grad(layer(x), wanted, grad)
        if x.is_cuda:
            torch.cuda.synchronize()

    return call


def made(name: str, length: int, device: str, dtype: torch.dtype, batch: int) -> Callable[[], None]:
    """Return a layer's step for one length."""
    torch.manual_seed(0)
    layer = LAYERS[name](length).to(device, dtype)
    return step(layer, torch.randn(batch, length, DIM, device=device, dtype=dtype, requires_grad=True))


def seconds(call: Callable[[], None], least: int = 5, limit: float = 0.5) -> float:
    """Return the median time of a call, after one that does not count."""
    call()
    found: list[float] = []
    while len(found) < least or (sum(found) < limit and len(found) < 100):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def slope(values: dict[int, float]) -> float:
    """Return the slope of the least-squares line through log(value) against log(length)."""
    return statistics.linear_regression([math.log(n) for n in values], [math.log(v) for v in values.values()]).slope


def host_bytes(name: str, length: int) -> int:
    """Return what a step adds to the peak memory of a process of its own."""
    code = f"import benchmarks.nn_scaling as b; print(b.peak({name!r}, {length}))"
    return int(subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True).stdout)


def peak(name: str, length: int) -> int:
    """Return the bytes by which one step raises this process's peak memory, above that of the shortest length."""
    made(name, 64, "cpu", torch.float32, 1)()
    before = high_water()
    made(name, length, "cpu", torch.float32, BATCH["cpu"])()
    return high_water() - before


def high_water() -> int:
    """Return this process's peak memory; Linux's rusage would count what the parent process had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def device_bytes(call: Callable[[], None]) -> int:
    """Return the peak of a step's memory on the GPU, parameters and input included."""
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated()


def scaling(device: str, dtype: torch.dtype, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return times and memory against the length, and their slopes, for every layer."""
    rows: dict[str, Any] = {}
    for name in LAYERS:
        rows[name] = times(name, device, dtype) | memory(name, device, dtype)
        print(name, {n: round(1e3 * t, 2) for n, t in rows[name]["seconds"].items()}, "ms; slopes",
              round(rows[name]["time_slope"], 3), round(rows[name]["memory_slope"], 3), flush=True,
              file=sys.stderr)  # fmt: skip
        keep(rows)
    return rows


def times(name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return a layer's times and their slope."""
    kind = device.partition(":")[0]
    least, limit = (3, 0.3) if kind == "cpu" else (5, 0.1)
    found = {n: seconds(made(name, n, device, dtype, BATCH[kind]), least, limit) for n in LENGTHS}
    return {"batch": BATCH[kind], "seconds": found, "time_slope": slope(found)}


def memory(name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return what a layer's step takes, and its slope from 8192 on, where what does not grow no longer counts."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        found = {n: host_bytes(name, n) for n in LENGTHS}
    else:
        found = {n: device_bytes(made(name, n, device, dtype, BATCH[kind])) for n in LENGTHS}
    return {"bytes": found, "memory_slope": slope({n: m for n, m in found.items() if n >= 1 << 13})}


def against_attention() -> dict[str, Any]:
    """Return the times of a gated convolution and of attention, in turn, and their ratio."""
    torch.manual_seed(0)
    x = torch.randn(TOKENS // LENGTH, LENGTH, DIM, requires_grad=True)
    calls = {
        "GatedConvolution": step(nn.GatedConvolution(DIM, max_length=LENGTH), x),
        "attention": step(Attention(), x),
    }
    samples = paired(calls, rounds=5, warm=1)
    return {
        "tokens": TOKENS, "length": LENGTH, "dim": DIM, "heads": HEADS, "dtype": "float32",
        "seconds": {name: summary(times) for name, times in samples.items()},
        "attention / GatedConvolution": ratio(samples["attention"], samples["GatedConvolution"]),
    }  # fmt: skip


def on_gpu(device: str, output: Path) -> None:
    """Write the GPU's record, dtype by dtype."""
    found: dict[str, Any] = {
        "benchmark": "nn-scaling", "command": "python -m benchmarks.nn_scaling " + " ".join(sys.argv[1:]),
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip

    def keep(rows: dict[str, Any]) -> None:
        found[str(dtype).removeprefix("torch.")] = rows
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for dtype in (torch.bfloat16, torch.float32):
        scaling(device, dtype, keep)


def main() -> None:
    if "--device" in sys.argv:
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        on_gpu(options["--device"], Path(options["--output"]))
        return
    figures = {"against attention": against_attention(), "scaling": scaling("cpu", torch.float32, lambda rows: None)}
    compared = figures["against attention"]
    times = {name: f"{1e3 * t['median']:.0f} ms" for name, t in compared["seconds"].items()}
    quotient = compared["attention / GatedConvolution"]["median"]
    lines = [f"{TOKENS} tokens, length {LENGTH}, dim {DIM}: {times}, attention / gated {quotient:.2f}"]
    for name, row in figures["scaling"].items():
        lines.append(f"{name:30} time ~ length^{row['time_slope']:.2f}, memory ~ length^{row['memory_slope']:.2f}")
    publish("nn", figures, "\n".join(lines))


if __name__ == "__main__":
    main()
