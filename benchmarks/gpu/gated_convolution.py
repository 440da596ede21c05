"""Time of ``nn.GatedConvolution`` on an NVIDIA GPU, beside attention's and torch.fft's: forward and backward.

``python -m benchmarks.gpu.gated_convolution [--output FILE]`` times whole layers of equal width, projections, short
convolution and the filter's network included, 65,536 tokens each, under bfloat16 autocast with float32 parameters: as
they are, and as a CUDA graph, which leaves the host's time out. Then each of the layer's own kernels by itself, and
errors against float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from adaptive_compute import nn
from adaptive_compute.core.registry import registry
from adaptive_compute.nn.filters import ImplicitFilter
from adaptive_compute.nn.kernels import gated_convolution as kernels
from benchmarks.record import machine

TOKENS, DIM, HEAD = 65536, 256, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
DEVICE = torch.device("cuda:0")


class Attention(torch.nn.Module):
    """Causal attention between projections, by one backend of torch's fused attention."""

    def __init__(self, backend: SDPBackend) -> None:
        super().__init__()
        self.project, self.out = torch.nn.Linear(DIM, 3 * DIM, bias=False), torch.nn.Linear(DIM, DIM, bias=False)
        self.backend = backend

    def forward(self, x: Any) -> Any:
        q, k, v = self.project(x).view(*x.shape[:2], 3, DIM // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.backend):
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Plain(torch.nn.Module):
    """The gated convolution by torch's own calls: conv1d for the short one, rfft and irfft of 2 T points in float32."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.project, self.out = torch.nn.Linear(DIM, 3 * DIM, bias=False), torch.nn.Linear(DIM, DIM, bias=False)
        self.short = torch.nn.Conv1d(3 * DIM, 3 * DIM, 3, padding=2, groups=3 * DIM, bias=False)
        self.filter = PlainFilter(DIM, length)
        self.skip = torch.nn.Parameter(torch.ones(DIM))

    def forward(self, x: Any) -> Any:
        t = x.shape[1]
        gate, key, v = self.short(self.project(x).transpose(1, 2))[..., :t].chunk(3, dim=1)
        u = key * v
        with torch.autocast("cuda", enabled=False):
            h = self.filter.kernel()
        spectrum = torch.fft.rfft(h, 2 * t) / (2 * t)
        y = torch.fft.irfft(torch.fft.rfft(u.float(), 2 * t) * spectrum, 2 * t, norm="forward")[..., :t]
        y = (y + u * self.skip[:, None]).to(gate.dtype)
        return self.out((gate * y).transpose(1, 2))


class PlainFilter(ImplicitFilter):
    """The filter's network by torch's own calls."""

    def kernel(self) -> Any:
        x = self.features
        for layer, frequency in zip(self.hidden, self.frequency):
            x = torch.sin(frequency * layer(x))
        places = torch.arange(len(x), dtype=x.dtype, device=x.device)
        return (self.last.weight @ x.T) * torch.exp(-self.rates * self.log_factors.exp() * places)


def timed(call: Callable[[], Any], rounds: int = 20, warm: int = 4, most: float = 0.5, calls: int = 5) -> float:
    """Return a call's median time on the GPU in milliseconds, by events around ``calls``, one behind the other.

    As in training, the host may run ahead within a round. There are fewer rounds where a call takes long.
    """
    for _ in range(warm):
        call()
    torch.cuda.synchronize()
    spent, times = 0.0, []
    while len(times) < rounds and (spent < most * 1e3 or len(times) < 5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
        spent += times[-1] * calls
    return statistics.median(times)


def step(layer: Any, x: Any, grad: Any) -> Callable[[], Any]:
    """Return forward and backward of a layer, its input's gradient included."""
    wanted = [x, *layer.parameters()]

    def call() -> Any:
        with torch.autocast("cuda", torch.bfloat16):
            y = layer(x)
        return torch.autograd.grad(y, wanted, grad)

    return call


def graphed(call: Callable[[], Any]) -> Callable[[], None]:
    """Return a call as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def layers(length: int) -> dict[str, Callable[[], Any]]:
    """Return what makes the layers of one length."""
    return {
        "ours": lambda: nn.GatedConvolution(DIM, max_length=length),
        "torch.fft": lambda: Plain(length),
        "attention, flash": lambda: Attention(SDPBackend.FLASH_ATTENTION),
        "attention, cuDNN": lambda: Attention(SDPBackend.CUDNN_ATTENTION),
    }


def layer_times(length: int) -> dict[str, Any]:
    """Return milliseconds and the memory that forward and backward need, of every layer."""
    found: dict[str, Any] = {}
    for name, make in layers(length).items():
        layer = make().to(DEVICE)
        x = torch.randn(TOKENS // length, length, DIM, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
        call = step(layer, x, torch.randn_like(x))
        call()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        mib = (torch.cuda.max_memory_allocated() - before) / 2**20
        found[name] = {"eager": timed(call), "graph": timed(graphed(call)), "MiB": mib}
    return found


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Return how many times as long as our layer the others take: the quicker of the two attentions."""
    made = {}
    for how in ("eager", "graph"):
        ours = row["ours"][how]
        made[f"torch.fft, {how}"] = row["torch.fft"][how] / ours
        made[f"attention, {how}"] = min(row[f"attention, {kind}"][how] for kind in ("flash", "cuDNN")) / ours
    return made


def kernel_times(length: int) -> dict[str, float]:
    """Return microseconds of each kernel of the gated convolution, forward and backward."""
    z = torch.randn(3 * DIM, TOKENS // length, length, device=DEVICE, dtype=torch.bfloat16)
    short, h = torch.randn(3 * DIM, 3, device=DEVICE), torch.randn(1, DIM, length, device=DEVICE)
    leaves = [x.requires_grad_() for x in (z, short, h)]
    plan = kernels.plan_of_call(z, short, packed=True)
    start, found = plan.launch, {}

    def launch(name: str, *arguments: Any) -> None:
        place = name if name not in found else f"{name}, backward"
        found[place] = 1e3 * timed(lambda: start(name, *arguments), rounds=10)
        start(name, *arguments)

    plan.launch = launch
    try:
        out = kernels.fused_gated_convolution(*leaves)
        torch.autograd.grad(out, leaves, torch.randn_like(out))
    finally:
        plan.launch = start
    return found


def errors(length: int, dtype: torch.dtype) -> dict[str, float]:
    """Return relative errors of the result and the gradients against float64, four channels, in the L2 norm."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, device=DEVICE, generator=generator).to(dtype)

    batch = max(TOKENS // length, 1)
    leaves = [random(12, batch, length, dtype=dtype), random(12, 3), random(1, 4, length) / length**0.5]
    grad = random(4, batch, length, dtype=dtype)
    found, wanted = (
        (out.detach(), *torch.autograd.grad(out, operands, grad.to(out.dtype)))
        for function, kind in ((kernels.fused_gated_convolution, None), (definition, torch.float64))
        for operands in [[x.detach().to(kind or x.dtype).requires_grad_() for x in leaves]]
        for out in [function(*operands)]
    )
    names = ("result", "gradient of z", "of short", "of h")
    return {n: float((a.double() - b).norm() / b.norm()) for n, a, b in zip(names, found, wanted)}


def definition(z: Any, short: Any, h: Any) -> Any:
    """Return the gated convolution by FFTs of 2 T points."""
    length, taps = z.shape[2], short.shape[1]
    earlier = torch.nn.functional.pad(z, (taps - 1, 0))
    mixed = sum(short[:, None, j, None] * earlier[..., taps - 1 - j :][..., :length] for j in range(taps))
    gate, key, v = mixed.view(3, -1, *z.shape[1:])
    spectrum = torch.fft.rfft(h[0], 2 * length)[:, None]
    return gate * torch.fft.irfft(torch.fft.rfft(key * v, 2 * length) * spectrum, 2 * length)[..., :length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    options = parser.parse_args()
    figures: dict[str, Any] = {"milliseconds": {}, "ratios": {}, "kernels, microseconds": {}, "errors": {}}
    record = {
        "benchmark": "nn-gated-convolution", "command": "python -m benchmarks.gpu.gated_convolution",
        "tokens": TOKENS, "dim": DIM, "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "gpu": registry.require("cuda").facts("cuda:0")}, "figures": figures,
    }  # fmt: skip
    parts: list[tuple[str, Callable[[int], Any]]] = [
        ("milliseconds", layer_times),
        ("ratios", lambda n: ratios(figures["milliseconds"][n])),
        ("kernels, microseconds", kernel_times),
        ("errors", lambda n: {str(dtype): errors(n, dtype) for dtype in (torch.bfloat16, torch.float32)}),
    ]
    for length in options.lengths:
        for name, measure in parts:
            figures[name][length] = measure(length)
            print(length, name, figures[name][length], flush=True)
            if options.output:
                options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
