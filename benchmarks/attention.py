"""Window attention over 8192 tokens against SDPA given the same mask, and peak memory against the length.

8 heads of 64, float32, a window of 256: forward, and forward with the gradients of query, key and value. Results are
checked against float64 first. Memory is measured in a fresh process for each length, beyond the operands.

    python -m benchmarks.attention [--json] [--save]
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import NoProfileWarning
from adaptive_compute.core.masks import Window
from adaptive_compute.core.operations.attention import attention
from adaptive_compute.core.settings import available_threads
from benchmarks.record import paired, publish, ratio, summary

HEADS, LENGTH, SIZE, WINDOW = 8, 8192, 64, 256
LENGTHS = (4096, 8192, 16384, 32768)
ROUNDS = 7
LIMITS = {"forward": 14.0, "forward+backward": 8.0}


def operands(length: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, HEADS, length, SIZE, generator=generator) for _ in range(3)]


def ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return attention(q, k, v, mask=Window(WINDOW))


def with_gradients(function: Any, tensors: list[torch.Tensor], grad: torch.Tensor) -> list[torch.Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = function(*leaves)
    out.backward(grad)
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the last 64 queries of each head by the definition, in float64."""
    rows = torch.arange(LENGTH - 64, LENGTH)
    q, k, v = q[..., rows, :].double(), k.double(), v.double()
    scores = q @ k.mT / SIZE**0.5
    kept = (rows[:, None] - torch.arange(LENGTH)[None]).abs() < WINDOW
    return scores.masked_fill(~kept, -torch.inf).softmax(-1) @ v


def timed() -> dict[str, Any]:
    torch.set_num_threads(available_threads())
    tensors = operands(LENGTH)
    grad = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    position = torch.arange(LENGTH)
    mask = (position[:, None] - position[None]).abs() < WINDOW

    def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    expected = exact(*tensors)
    functions = {"adaptive_compute": ours, "sdpa": sdpa}
    errors = {
        name: float((f(*tensors)[..., -64:, :] - expected).norm() / expected.norm()) for name, f in functions.items()
    }
    figures: dict[str, Any] = {"error": errors}
    for name, calls in {
        "forward": {n: lambda f=f: f(*tensors) for n, f in functions.items()},
        "forward+backward": {n: lambda f=f: with_gradients(f, tensors, grad) for n, f in functions.items()},
    }.items():
        samples = paired(calls, rounds=ROUNDS if name == "forward" else ROUNDS - 2, warm=1)
        figures[name] = {
            **{contender: summary(times) for contender, times in samples.items()},
            "speedup": ratio(samples["sdpa"], samples["adaptive_compute"]),
            "limit": LIMITS[name],
        }
    return figures


def peak() -> int:
    """Return the largest memory that this process has held so far, in bytes; on Linux since the last ``forget``."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget() -> None:
    """Let the peak start from what is held now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_of_one(length: int, gradients: bool) -> int:
    """Return the bytes that a call needs beyond its operands; run in a process of its own."""
    small, large = operands(256), operands(length)
    grad = torch.ones_like(large[0])
    call = (lambda t: with_gradients(ours, t, torch.ones_like(t[0]))) if gradients else (lambda t: ours(*t))
    call(small)
    forget()
    before = peak()
    if gradients:
        with_gradients(ours, large, grad)
    else:
        ours(*large)
    return peak() - before


def memory() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name in ("forward", "forward+backward"):
        found[name] = {}
        for length in LENGTHS:
            command = [sys.executable, "-m", "benchmarks.attention", "memory", str(length), name]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[name][str(length)] = int(output)
    return found


def main() -> None:
    figures = {
        "heads": HEADS, "length": LENGTH, "head_size": SIZE, "window": WINDOW, "dtype": "float32",
        "threads": available_threads(), "rounds": ROUNDS, "kernel": ac.explain(ours, *operands(LENGTH)).chosen.name,
        **timed(), "peak_bytes": memory(),
    }  # fmt: skip
    lines = [f"window {WINDOW} over {LENGTH} tokens, {HEADS} heads of {SIZE}, float32, {figures['threads']} threads"]
    for name in LIMITS:
        row = figures[name]
        for contender in ("adaptive_compute", "sdpa"):
            low, median, high = (row[contender][key] * 1e3 for key in ("lower_quartile", "median", "upper_quartile"))
            lines.append(f"{name:18s} {contender:18s} {median:8.1f} ms   quartiles {low:.1f} .. {high:.1f}")
        low, median, high = (row["speedup"][key] for key in ("lower_quartile", "median", "upper_quartile"))
        lines.append(f"{name:18s} {median:.1f}x, quartiles {low:.1f} .. {high:.1f} (claimed: {row['limit']:.0f}x)")
    lines.append("relative L2 error  " + ", ".join(f"{n} {e:.1e}" for n, e in figures["error"].items()))
    for name, peaks in figures["peak_bytes"].items():
        each = ", ".join(f"{n}: {b / 2**20:.1f} MiB ({b / int(n):.0f} bytes a token)" for n, b in peaks.items())
        lines.append(f"peak beyond the operands, {name}: {each}")
    publish("attention", figures, "\n".join(lines))


if __name__ == "__main__":
    warnings.simplefilter("ignore", NoProfileWarning)
    if sys.argv[1:2] == ["memory"]:
        print(memory_of_one(int(sys.argv[2]), sys.argv[3] != "forward"))
    else:
        main()
