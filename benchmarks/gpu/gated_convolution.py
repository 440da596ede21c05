"""Time of a gated convolution layer on an NVIDIA GPU, beside flash attention's and torch.fft's: forward and backward.

``python -m benchmarks.gpu.gated_convolution --output FILE`` times whole layers (projections, short convolution and
filter included) of equal width, 65,536 tokens each, and each of the layer's parts by itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from adaptive_compute import nn
from adaptive_compute.nn.filters import ImplicitFilter
from adaptive_compute.nn.kernels.gated_convolution import fused_gated_convolution

TOKENS, DIM, HEAD = 65536, 256, 64
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)


class Attention(torch.nn.Module):
    """Causal attention between projections; the backend of torch's fused attention is chosen."""

    def __init__(self, dim: int, backend: SDPBackend) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(dim, 3 * dim, bias=False), torch.nn.Linear(dim, dim, bias=False)
        self.backend = backend

    def narrow(self) -> Any:
        return self.to("cuda", torch.bfloat16)

    def forward(self, x: Any) -> Any:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, d // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.backend):
            y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Plain(torch.nn.Module):
    """The gated convolution by torch's own calls: conv1d for the short one, rfft and irfft of 2 T points in float32."""

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.project, self.out = torch.nn.Linear(dim, 3 * dim, bias=False), torch.nn.Linear(dim, dim, bias=False)
        self.short = torch.nn.Conv1d(3 * dim, 3 * dim, 3, padding=2, groups=3 * dim, bias=False)
        self.filter = ImplicitFilter(dim, length)
        self.skip = torch.nn.Parameter(torch.ones(dim))

    def narrow(self) -> Any:
        """Return the layer on the GPU in bfloat16, but for the filter's network."""
        self.to("cuda")
        for part in (self.project, self.short, self.out):
            part.to(torch.bfloat16)
        return self

    def forward(self, x: Any) -> Any:
        t = x.shape[1]
        z = self.short(self.project(x).transpose(1, 2))[..., :t]
        gate, key, v = z.chunk(3, dim=1)
        u = key * v
        n = 2 * t
        spectrum = torch.fft.rfft(self.filter.kernel(), n) / n
        y = torch.fft.irfft(torch.fft.rfft(u.float(), n) * spectrum, n, norm="forward")[..., :t]
        y = (y + u * self.skip[:, None]).to(gate.dtype)
        return self.out((gate * y).transpose(1, 2))


class Rows(torch.autograd.Function):
    """``w x^T``: a projection whose result lies along time."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return w @ x.t()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, w = ctx.saved_tensors
        return grad.t() @ w, grad @ x


class Columns(torch.autograd.Function):
    """``y^T w^T``: a projection of what lies along time."""

    @staticmethod
    def forward(ctx: Any, y: Any, w: Any) -> Any:
        ctx.save_for_backward(y, w)
        return y.t() @ w.t()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        y, w = ctx.saved_tensors
        return w.t() @ grad.t(), grad.t() @ y.t()


class Fused(Plain):
    """The same layer by the fused kernels."""

    def forward(self, x: Any) -> Any:
        b, t, d = x.shape
        z = Rows.apply(x.reshape(-1, d), self.project.weight).view(-1, b, t)
        h = self.filter.kernel()
        y = fused_gated_convolution(z, self.short.weight[:, 0].flip(1), h[None], self.skip[None])
        return Columns.apply(y.reshape(d, -1), self.out.weight).view(b, t, d)


class Own(torch.nn.Module):
    """``nn.GatedConvolution`` as it is, under autocast."""

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.layer = nn.GatedConvolution(dim, max_length=length)

    def narrow(self) -> Any:
        return self.to("cuda")

    def forward(self, x: Any) -> Any:
        with torch.autocast("cuda", torch.bfloat16):
            return self.layer(x)


def timed(call: Callable[[], Any], rounds: int = 20, warm: int = 4, most: float = 1.0) -> float:
    """Return a call's median time on the GPU in milliseconds, by events; fewer rounds where a call takes long."""
    for _ in range(warm):
        call()
    torch.cuda.synchronize()
    spent, times = 0.0, []
    while len(times) < rounds and (spent < most * 1e3 or len(times) < 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
        spent += times[-1]
    return statistics.median(times)


def step(layer: Any, x: Any, grad: Any) -> Callable[[], None]:
    """Return forward and backward of a layer, its input's gradient included."""
    wanted = [x, *layer.parameters()]

    def call() -> None:
        torch.autograd.grad(layer(x), wanted, grad)

    return call


def graphed(call: Callable[[], None]) -> Callable[[], None]:
    """Return a call as a CUDA graph, so that the host's time does not count."""
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


def layers(length: int) -> dict[str, Any]:
    """Return the layers of one length."""
    return {
        "layer": Own(DIM, length),
        "fused": Fused(DIM, length),
        "torch.fft": Plain(DIM, length),
        "flash": Attention(DIM, SDPBackend.FLASH_ATTENTION),
        "cudnn": Attention(DIM, SDPBackend.CUDNN_ATTENTION),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "ms": {}}
    for length in arguments.lengths:
        row: dict[str, Any] = {}
        for name, layer in layers(length).items():
            layer = layer.narrow()
            x = torch.randn(TOKENS // length, length, DIM, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            call = step(layer, x, torch.randn_like(x))
            for kind, made in (("eager", lambda c: c), ("graph", graphed)):
                try:
                    torch.cuda.reset_peak_memory_stats()
                    row[f"{name} {kind}"] = timed(made(call))
                    row[f"{name} MiB"] = torch.cuda.max_memory_allocated() / 2**20
                except Exception as error:
                    row[f"{name} {kind}"] = repr(error)[:300]
        found["ms"][length] = row
        print(length, {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        arguments.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
