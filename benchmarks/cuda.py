"""The CUDA backend against the libraries beneath it, each figure with its rival in the same run, round by round.

    python -m benchmarks.cuda [--quick] [--only transfers,fft,...] [--output FILE]

Transfers and calls on host data are timed by the wall clock, with the device idle before and after; work on resident
data by the device's own events. A figure is the median over rounds, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adaptive_compute as ac
from adaptive_compute.backends.cuda import link
from adaptive_compute.core.errors import AdaptiveError, AdaptiveWarning
from adaptive_compute.core.masks import Causal, Window
from adaptive_compute.core.registry import registry
from adaptive_compute.core.staging import Stager
from benchmarks.record import machine, ratio, summary

DEVICE = "cuda:0"
RIVALS = ("library", "hand-written", "index_", "dense", "plain", "device copy")
table: list[str] = []


def say(text: str) -> None:
    """Keep a line for the table and print it at once."""
    table.append(text)
    print(text, flush=True)


def on_host(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time calls in turn by the wall clock, each from an idle device until the device is idle again."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            kept = call()
            torch.cuda.synchronize()
            if turn > 1:
                samples[name].append(time.perf_counter() - start)
            del kept
    return samples


def on_device(calls: Mapping[str, Callable[[], Any]], rounds: int, least: float = 2e-3) -> dict[str, list[float]]:
    """Time calls in turn by events, several at a time, so that the queue is never empty."""
    repeats = {}
    for name, call in calls.items():
        call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        repeats[name] = min(max(math.ceil(least / (time.perf_counter() - start)), 1), 200)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(4_000_000)  # two milliseconds in which the host gets ahead of the device
            first.record()
            for _ in range(repeats[name]):
                call()
            last.record()
            torch.cuda.synchronize()
            if turn:
                samples[name].append(first.elapsed_time(last) * 1e-3 / repeats[name])
    return samples


def overheads(
    calls: Mapping[str, Callable[[], Any]], kernels: Sequence[str] = (), rounds: int = 15, repeats: int = 200
) -> dict[str, list[float]]:
    """Time how long calls keep the host, in turn, with work so small that the device keeps up.

    A call whose name is among ``kernels`` runs on that kernel, which is asked for once and not in every call.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            with ac.using(kernel=name, device=DEVICE) if name in kernels else nullcontext():
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(repeats):
                    call()
                torch.cuda.synchronize()
                if turn > 1:
                    samples[name].append((time.perf_counter() - start) / repeats)
    return samples


def figures_of(samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return medians and quartiles in seconds, and what each library took over what each call of ours took.

    The ratios are taken round by round; above 1 ours is faster.
    """
    found: dict[str, Any] = {name: summary(times) for name, times in samples.items()}
    rivals = [name for name in samples if name.startswith(RIVALS)]
    found["ratios"] = {
        f"{rival} / {name}": ratio(samples[rival], times)
        for name, times in samples.items()
        for rival in rivals
        if name not in rivals
    }
    return found


def overheads_of(samples: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return the same, and the seconds that each call of ours takes beyond the first of the calls, the library's."""
    library, *ours = samples
    over = {name: summary([a - b for a, b in zip(samples[name], samples[library])]) for name in ours}
    return {**figures_of(samples), f"beyond {library}": over}


def middle(times: list[float]) -> float:
    return statistics.median(times)


def forced(kernel: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs on one kernel of the GPU."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with ac.using(kernel=kernel, device=DEVICE):
            return function(*args, **kwargs)

    return call


def transfers(quick: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    backend = registry.require("cuda")
    for nbytes in (1 << 12, 1 << 20, 1 << 23, 1 << 25, 1 << 28):
        host = torch.randint(0, 255, (nbytes,), dtype=torch.uint8)
        array = host.numpy()  # torch's memory is never locked: it goes through buffers each time
        owned = array.copy()  # of NumPy's, which is locked once it was moved often enough
        there = host.cuda()
        plain = torch.zeros_like(host)
        reused, reused_owned = plain.numpy(), np.zeros_like(array)
        pinned = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        pinned.copy_(host)
        target = torch.empty_like(there)
        rounds = 9 if nbytes > 1 << 25 else 50
        up = on_host(
            {
                "torch": host.cuda,
                "ours": lambda: backend.upload(array, DEVICE),
                "ours from an array moved before": lambda: backend.upload(owned, DEVICE),
                "pinned link": lambda: target.copy_(pinned, non_blocking=True),
            },
            rounds,
        )
        down = on_host(
            {
                "torch": there.cpu,
                "torch into a reused buffer": lambda: plain.copy_(there),
                "ours into a reused buffer": lambda: link.download(there, reused),
                "ours into an array moved before": lambda: link.download(there, reused_owned),
                "ours": lambda: backend.download(there),
                "pinned link": lambda: pinned.copy_(there, non_blocking=True),
            },
            rounds,
        )
        assert np.array_equal(reused, array)
        assert np.array_equal(reused_owned, array)
        found[str(nbytes)] = {"up": figures_of(up), "down": figures_of(down)}
        for way, samples in (("up", up), ("down", down)):
            shown = ", ".join(
                f"{k} {middle(t) * 1e6:.0f} us {nbytes / middle(t) / 1e9:.1f} GB/s" for k, t in samples.items()
            )
            reuse = " into a reused buffer" if way == "down" else ""
            ours, rival = middle(samples["ours" + reuse]), middle(samples["torch" + reuse])
            link_ = middle(samples["pinned link"])
            say(
                f"transfer {way} {nbytes >> 10} KiB: {shown}; {rival / ours:.2f}x torch, {link_ / ours:.2f} of the link"
            )
    found["sweep"] = sweep(quick)
    return found


def sweep(quick: bool) -> list[dict[str, Any]]:
    """Time the engine with other chunks, numbers of lanes and threads."""
    nbytes = 1 << 28
    array = np.random.default_rng(0).integers(0, 255, nbytes, np.uint8)
    there = torch.empty(nbytes, dtype=torch.uint8, device=DEVICE)
    rows = []
    for chunk, lanes, threads in ((4, 4, 16), (8, 1, 16), (8, 2, 16), (8, 4, 8), (8, 4, 16), (8, 8, 16), (16, 4, 16)):
        engine = Stager(link.CudaLink(0), chunk=chunk << 20, buffers=2 * lanes)
        address = there.data_ptr()
        samples = on_host(
            {
                "up": lambda e=engine, n=threads, k=lanes: e.up(array, address, n, k),
                "down": lambda e=engine, n=threads, k=lanes: e.down(address, array, n, k),
            },
            5,
        )
        rates = {way: nbytes / middle(times) / 1e9 for way, times in samples.items()}
        rows.append({"chunk MiB": chunk, "lanes": lanes, "threads": threads, **rates})
        shown = f"up {rates['up']:.1f}, down {rates['down']:.1f} GB/s"
        say(f"engine {chunk} MiB, {lanes} lanes of {threads} threads: {shown}")
        engine.release()
    runtime = torch.cuda.cudart()
    for size in (1 << 24, 1 << 28):
        part = array[:size]
        start = time.perf_counter()
        code = runtime.cudaHostRegister(part.ctypes.data, size, 0)
        middle_of = time.perf_counter()
        pinned = torch.from_numpy(part)
        rate = middle(on_host({"copy": lambda: there[:size].copy_(pinned, non_blocking=True)}, 5)["copy"])
        start_again = time.perf_counter()
        runtime.cudaHostUnregister(part.ctypes.data)
        end = time.perf_counter()
        say(
            f"register {size >> 20} MiB: {code}, {1e3 * (middle_of - start):.2f} ms, unregister "
            f"{1e3 * (end - start_again):.2f} ms, copy {size / rate / 1e9:.1f} GB/s"
        )
    return rows


def host_fft(quick: bool) -> dict[str, Any]:
    found = {}
    for n in (256, 1024, 4096):
        batch = (1 << 22) // n
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, n, 2), np.float32).view(np.complex64)[..., 0]
        tensor = torch.from_numpy(x)
        samples = on_host(
            {
                "plain": lambda: torch.fft.fft(tensor.cuda()).cpu().numpy(),
                "ours": lambda: forced("torch", ac.fft)(x),
                "cpu": lambda: using_cpu(ac.fft, x),
            },
            9,
        )
        found[str(n)] = figures_of(samples)
        shown = ", ".join(f"{name} {middle(times) * 1e3:.2f} ms" for name, times in samples.items())
        say(
            f"host fft {batch}x{n} complex64 (32 MiB): {shown}; "
            f"{middle(samples['plain']) / middle(samples['ours']):.2f}x plain"
        )
    return found


def using_cpu(function: Callable[..., Any], *args: Any) -> Any:
    with ac.using("cpu"):
        return function(*args)


def fft(quick: bool) -> dict[str, Any]:
    found = {}
    for n in (64, 256, 1024, 4096, 1 << 14, 1 << 16, 1 << 20, 1 << 24, 1000, 3125, 10007):
        batch = max((1 << 26) // n, 1)
        x = torch.randn(batch, n, dtype=torch.complex64, device=DEVICE)
        calls = {"library": lambda x=x: torch.fft.fft(x)}
        calls |= {kernel: lambda k=kernel, x=x: forced(k, ac.fft)(x) for kernel in ("torch", "cupy")}
        samples = on_device(calls, 7)
        best = min(middle(samples[kernel]) for kernel in ("torch", "cupy"))
        found[str(n)] = figures_of(samples)
        shown = ", ".join(f"{k} {2 * x.nbytes / middle(t) / 1e9:.0f}" for k, t in samples.items())
        say(f"fft {batch}x{n}: GB/s {shown}; {middle(samples['library']) / best:.3f} of the library")
    for shape, axes in (((4096, 16384), (0,)), ((64, 1024, 1024), (1, 2)), ((512, 512, 256), (0, 1, 2))):
        x = torch.randn(shape, dtype=torch.complex64, device=DEVICE)
        calls = {"library": lambda x=x, a=axes: torch.fft.fftn(x, dim=a)}
        calls |= {kernel: lambda k=kernel, x=x, a=axes: forced(k, ac.fftn)(x, axes=a) for kernel in ("torch", "cupy")}
        samples = on_device(calls, 7)
        found[f"{shape} over {axes}"] = figures_of(samples)
        shown = ", ".join(f"{k} {2 * x.nbytes / middle(t) / 1e9:.0f}" for k, t in samples.items())
        say(f"fft {shape} over {axes}: GB/s {shown}")
    x = torch.randn(256, dtype=torch.complex64, device=DEVICE)
    samples = overheads(
        {
            "library": lambda: torch.fft.fft(x), "ac.fft": lambda: ac.fft(x),
            "torch": lambda: ac.fft(x), "cupy": lambda: ac.fft(x),
        },
        ("torch", "cupy"),
    )  # fmt: skip
    found["overhead"] = overheads_of(samples)
    say("overhead fft: " + ", ".join(f"{k} {1e6 * middle(t):.1f} us" for k, t in samples.items()))
    return found


def evaluate(quick: bool) -> dict[str, Any]:
    import cupy

    found = {}
    n = 1 << 26
    a, b, c = (torch.rand(n, device=DEVICE) for _ in range(3))
    ca, cb, cc = (cupy.from_dlpack(t) for t in (a, b, c))
    plain = cupy.ElementwiseKernel("T a, T b, T c", "T d", "d = a*b + sin(c)", "hand_written")
    text = "a*b + sin(c)"
    samples = on_device(
        {
            "hand-written CuPy": lambda: plain(ca, cb, cc), "torch": lambda: a * b + torch.sin(c),
            "fused": lambda: forced("fused", ac.evaluate)(text, a=a, b=b, c=c),
        },
        9,
    )  # fmt: skip
    found[text] = figures_of(samples)
    say(
        f"evaluate {text} 2^26 float32: GB/s "
        + ", ".join(f"{k} {16 * n / middle(t) / 1e9:.0f}" for k, t in samples.items())
    )
    copy = on_device({"copy": lambda: a.clone()}, 9)
    say(f"device copy {8 * n / middle(copy['copy']) / 1e9:.0f} GB/s")
    m, row, column = (
        torch.rand(8192, 8192, device=DEVICE),
        torch.rand(8192, device=DEVICE),
        torch.rand(8192, 1, device=DEVICE),
    )
    cm, cr, cl = (cupy.from_dlpack(t) for t in (m, row, column))
    other = cupy.ElementwiseKernel("T m, T r, T c", "T d", "d = m*r + c", "hand_written_rows")
    samples = on_device(
        {
            "hand-written CuPy": lambda: other(cm, cr, cl),
            "fused": lambda: forced("fused", ac.evaluate)("m*r + c", m=m, r=row, c=column),
        },
        9,
    )
    found["broadcast"] = figures_of(samples)
    say(
        "evaluate m*r + c broadcast: GB/s "
        + ", ".join(f"{k} {8 * m.numel() / middle(t) / 1e9:.0f}" for k, t in samples.items())
    )
    h = [torch.rand(n, device=DEVICE).to(torch.bfloat16) for _ in range(2)]
    samples = on_device(
        {"torch": lambda: h[0] * h[1], "fused": lambda: forced("fused", ac.evaluate)("a*b", a=h[0], b=h[1])}, 9
    )
    found["bfloat16"] = figures_of(samples)
    say("evaluate a*b bfloat16: GB/s " + ", ".join(f"{k} {6 * n / middle(t) / 1e9:.0f}" for k, t in samples.items()))
    s = [t[:1024] for t in (a, b, c)]
    cs = [t[:1024] for t in (ca, cb, cc)]
    samples = overheads(
        {
            "hand-written CuPy": lambda: plain(*cs), "torch": lambda: s[0] * s[1] + torch.sin(s[2]),
            "ac.evaluate": lambda: ac.evaluate(text, a=s[0], b=s[1], c=s[2]),
            "fused": lambda: ac.evaluate(text, a=s[0], b=s[1], c=s[2]),
        },
        ("fused",),
    )  # fmt: skip
    found["overhead"] = overheads_of(samples)
    say("overhead evaluate: " + ", ".join(f"{k} {1e6 * middle(t):.1f} us" for k, t in samples.items()))
    samples = overheads(
        {
            "hand-written CuPy": lambda: plain(*cs),
            "ac.evaluate of CuPy arrays": lambda: ac.evaluate(text, a=cs[0], b=cs[1], c=cs[2]),
        }
    )
    found["overhead of CuPy arrays"] = overheads_of(samples)
    say("overhead evaluate: " + ", ".join(f"{k} {1e6 * middle(t):.1f} us" for k, t in samples.items()))
    return found


def reduce(quick: bool) -> dict[str, Any]:
    found = {}
    x = torch.rand(1 << 13, 1 << 14, device=DEVICE)
    for name, library in (
        ("sum", lambda axis: x.sum(axis)), ("max", lambda axis: x.amax(axis)),
        ("norm", lambda axis: torch.linalg.vector_norm(x, dim=axis)),
        ("logsumexp", lambda axis: x.logsumexp(axis)),
    ):  # fmt: skip
        for axis in (0, 1):
            samples = on_device(
                {
                    "library": lambda lib=library, a=axis: lib(a),
                    "ours": lambda n=name, a=axis: getattr(ac, n)(x, axis=a),
                },
                7,
            )
            found[f"{name} over {axis}"] = figures_of(samples)
            say(
                f"{name} over axis {axis}: GB/s "
                + ", ".join(f"{k} {x.nbytes / middle(t) / 1e9:.0f}" for k, t in samples.items())
                + f"; {middle(samples['library']) / middle(samples['ours']):.3f} of the library"
            )
    m = torch.rand(64, 256, device=DEVICE)
    for name, call in (
        ("norm", lambda: torch.linalg.vector_norm(m, dim=1)), ("sum", lambda: m.sum(1)), ("max", lambda: m.amax(1)),
        ("logsumexp", lambda: m.logsumexp(1)),
    ):  # fmt: skip
        samples = overheads({"library": call, f"ac.{name}": lambda n=name: getattr(ac, n)(m, axis=1)})
        found[f"overhead {name}"] = overheads_of(samples)
        say(f"overhead {name}: " + ", ".join(f"{k} {1e6 * middle(t):.1f} us" for k, t in samples.items()))
    return found


def gather(quick: bool) -> dict[str, Any]:
    found = {}
    rng = np.random.default_rng(0)
    entries, slots = 1 << 21, 1 << 17
    index = rng.integers(0, slots, entries)
    values = torch.randn(entries, 32, device=DEVICE)
    table_ = torch.randn(slots, 32, device=DEVICE)
    for name, order in (("sorted", np.sort(index)), ("random", index)):
        topology = ac.Topology.from_index(order, slots)
        there = torch.from_numpy(topology.index.copy()).cuda()
        samples = on_device(
            {
                "index_add (order of additions left open)": lambda: torch.zeros(slots, 32, device=DEVICE).index_add_(
                    0, there, values
                ),
                "ours": lambda: ac.scatter_add(values, topology),
            },
            7,
        )
        found[f"scatter {name}"] = figures_of(samples)
        say(f"scatter_add {name}: " + ", ".join(f"{k} {1e3 * middle(t):.3f} ms" for k, t in samples.items()))
        samples = on_device(
            {"index_select": lambda: torch.index_select(table_, 0, there), "ours": lambda: ac.gather(table_, topology)},
            7,
        )
        found[f"gather {name}"] = figures_of(samples)
        say(f"gather {name}: " + ", ".join(f"{k} {1e3 * middle(t):.3f} ms" for k, t in samples.items()))
    small = torch.rand(64, 256, device=DEVICE)
    topology, there = ac.Topology.from_index(np.arange(64), 64), torch.arange(64, device=DEVICE)
    samples = overheads(
        {
            "index_select": lambda: torch.index_select(small, 0, there),
            "ac.gather": lambda: ac.gather(small, topology),
        }
    )
    found["overhead"] = overheads_of(samples)
    say("overhead gather: " + ", ".join(f"{k} {1e6 * middle(t):.1f} us" for k, t in samples.items()))
    return found


def attention(quick: bool) -> dict[str, Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    found = {}
    sdpa = torch.nn.functional.scaled_dot_product_attention
    for shape, causal in (((4, 16, 4096, 128), False), ((4, 16, 4096, 128), True), ((8, 16, 1024, 64), False)):
        q, k, v = (torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
        calls: dict[str, Callable[[], Any]] = {}
        for name, way in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):

            def library(way=way, q=q, k=k, v=v, causal=causal):
                with sdpa_kernel(way):
                    return sdpa(q, k, v, is_causal=causal)

            calls[f"library {name}"] = library
            calls[name] = lambda n=name, q=q, k=k, v=v, c=causal: forced(n, ac.attention)(
                q, k, v, mask=Causal() if c else None
            )
        samples = on_device(calls, 7)
        b, h, length, d = shape
        flops = 4 * b * h * length * length * d * (0.5 if causal else 1)
        found[f"{shape} causal={causal}"] = figures_of(samples)
        say(
            f"attention {shape} causal={causal}: TFLOP/s "
            + ", ".join(f"{n} {flops / middle(t) / 1e12:.0f}" for n, t in samples.items())
        )
    q, k, v = (torch.randn((1, 8, 128, 64), device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    ways = dict.fromkeys(("cudnn", "flash", "ac.attention"), lambda: ac.attention(q, k, v))
    samples = overheads({"library": lambda: sdpa(q, k, v), **ways}, ("cudnn", "flash"))
    found["overhead"] = overheads_of(samples)
    say("overhead attention: " + ", ".join(f"{k} {1e6 * middle(t):.1f} us" for k, t in samples.items()))
    return found


def window(quick: bool) -> dict[str, Any]:
    """Window 512 over 65,536 tokens against dense flash attention, forward and with the gradient."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    found = {}
    length = 1 << 16
    heads = 4
    q, k, v = (
        torch.randn((1, heads, length, 64), device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    grad = torch.randn((1, heads, length, 64), device=DEVICE, dtype=torch.bfloat16)
    mask = Window(512)
    kept = mask.tiles(length, length, (64, 64)).visited / (length // 64) ** 2
    names = [
        kernel.name
        for kernel in registry.kernels("attention")
        if kernel.device == DEVICE and kernel.name in ("flash", "tiles")
    ]

    def dense() -> Any:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def backward(call: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(call(), (q, k, v), grad)

    def ours(name: str) -> Callable[[], Any]:
        def call() -> Any:
            with ac.using(device=DEVICE):
                return forced(name, ac.attention)(q, k, v, mask=mask)

        return call

    def ours_backward(name: str) -> Callable[[], Any]:
        def call() -> Any:
            with ac.using(kernel=name, device=DEVICE):  # the gradient's own kernel is the router's choice
                out = ac.attention(q, k, v, mask=mask)
            return torch.autograd.grad(out, (q, k, v), grad)

        return call

    with torch.no_grad():
        forward = on_device({"dense": dense, **{name: ours(name) for name in names}}, 3)
    both = on_device({"dense": backward(dense), **{name: ours_backward(name) for name in names}}, 3)
    for label, samples in (("forward", forward), ("with gradient", both)):
        bound = kept * middle(samples["dense"])
        shares = {name: middle(samples[name]) / bound for name in names}
        found[label] = {**figures_of(samples), "kept tiles / all": kept, "times the share of dense": shares}
        for name in names:
            say(
                f"window 512 of 65,536 {label}, {name}: {1e3 * middle(samples[name]):.3f} ms, dense "
                f"{1e3 * middle(samples['dense']):.2f} ms, kept {kept:.4f}: "
                f"{shares[name]:.2f}x the share"
            )
    return found


def nufft(quick: bool) -> dict[str, Any]:
    """Transforms of 10^7 points: each method of cuFINUFFT through its own package and through ours.

    With known points, its plan executes; with new ones, its plan takes the points first, and so does ours.
    """
    import cufinufft

    found = {}
    count = 10_000_000
    for kind, dim, modes, eps in (
        (1, 1, (10_000_000,), 1e-6), (1, 2, (1024, 1024), 1e-4), (1, 2, (1024, 1024), 1e-6), (2, 2, (1024, 1024), 1e-6),
        (1, 3, (200, 200, 200), 1e-4), (1, 3, (200, 200, 200), 1e-6), (2, 3, (200, 200, 200), 1e-6),
    ):  # fmt: skip
        points = [(torch.rand(count, device=DEVICE) * 2 - 1) * math.pi for _ in range(dim)]
        data = torch.randn(count if kind == 1 else modes, dtype=torch.complex64, device=DEVICE)
        function = getattr(ac.nufft, f"nufft{dim}d{kind}")
        arguments = (*points, data, modes) if kind == 1 else (*points, data)
        known: dict[str, Callable[[], Any]] = {}
        new: dict[str, Callable[[], Any]] = {}
        sign = 1 if kind == 1 else -1
        results = {}
        for method, name in ((1, "points"), (2, "tiles"), (3, "output")):
            try:
                plan = cufinufft.Plan(kind, modes, 1, eps, sign, "complex64", gpu_method=method)
                plan.setpts(*points)
                results[f"library {name}"] = plan.execute(data)
            except RuntimeError as error:
                say(f"nufft {dim}d{kind} library {name}: {error}")
                continue
            known[f"library {name}"] = lambda p=plan: p.execute(data)
            new[f"library {name}"] = lambda p=plan: (p.setpts(*points), p.execute(data))
        for kernel in registry.kernels("nufft"):
            if kernel.device != DEVICE:
                continue
            try:
                results[kernel.name] = forced(kernel.name, function)(*arguments, eps=eps)
            except (AdaptiveError, RuntimeError) as error:
                say(f"nufft {dim}d{kind} {kernel.name}: {str(error)[:150]}")
                continue
            known[kernel.name] = lambda k=kernel.name: forced(k, function)(*arguments, eps=eps)

            def moved(k: str = kernel.name) -> Any:
                points[0][:1].neg_()  # the least that makes points new
                return forced(k, function)(*arguments, eps=eps)

            new[kernel.name] = moved
        errors = off(kind, modes, sign, points, data, results)
        say(f"nufft {dim}d{kind} {modes} eps {eps:g}: errors " + ", ".join(f"{k} {e:.1e}" for k, e in errors.items()))
        label = f"{dim}d{kind} {modes} {eps:g}"
        found[label] = {"errors": errors}
        for what, calls in (("known points", known), ("new points", new)):
            samples = on_device(calls, 3, least=5e-3) if what == "known points" else on_host(calls, 2)
            found[label][what] = figures_of(samples)
            rates = {k: count / middle(t) / 1e6 for k, t in samples.items()}
            best = [max(v for k, v in rates.items() if k.startswith("library") == of) for of in (True, False)]
            shown = ", ".join(f"{k} {v:.0f}" for k, v in rates.items())
            say(
                f"nufft {dim}d{kind} {modes} eps {eps:g} {what}: Mpts/s {shown}; {best[1] / best[0]:.3f} of the library"
            )
        del known, new, plan, results
    return found


def off(kind: int, modes: Any, sign: int, points: Any, data: Any, results: Mapping[str, Any]) -> dict[str, float]:
    """Return the relative errors of results at a few outputs, against the sum in double precision."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, math.prod(modes) if kind == 1 else points[0].numel(), 24)
    wide = [p.double() for p in points]
    exact, places = [], []
    ks = [torch.arange(-(n // 2), (n + 1) // 2, device=DEVICE, dtype=torch.float64) for n in modes]
    for pick in picks.tolist():
        if kind == 1:
            index = np.unravel_index(pick, modes)
            phase = sum(float(k[i]) * p for k, i, p in zip(ks, index, wide))
            exact.append(torch.sum(data * torch.exp(1j * sign * phase)))
        else:
            waves = [torch.exp(1j * sign * k * p[pick]) for k, p in zip(ks, wide)]
            part = data.to(torch.complex128)
            for wave in reversed(waves):
                part = part @ wave
            exact.append(part)
        places.append(pick)
    truth = torch.stack(exact)
    return {
        name: float(torch.linalg.norm(result.reshape(-1)[places] - truth) / torch.linalg.norm(truth))
        for name, result in results.items()
    }


PARTS = {
    "transfers": transfers, "host_fft": host_fft, "fft": fft, "evaluate": evaluate, "reduce": reduce, "gather": gather,
    "attention": attention, "window": window, "nufft": nufft,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", AdaptiveWarning)
    backend = registry.require("cuda")
    figures: dict[str, Any] = {}
    command = ["python", "-m", "benchmarks.cuda", *(["--quick"] if options.quick else [])]
    if options.only != ",".join(PARTS):
        command += ["--only", options.only]
    for name in options.only.split(","):
        start = time.perf_counter()
        try:
            figures[name] = PARTS[name](options.quick)
        except Exception as error:
            say(f"{name} FAILED {type(error).__name__}: {error}")
            print(traceback.format_exc(limit=-4), flush=True)
            figures[name] = {"failed": f"{type(error).__name__}: {error}"}
        torch.cuda.empty_cache()
        print(f"({name}: {time.perf_counter() - start:.1f} s)", flush=True)
        if options.output:  # after every part: what was measured is kept where a later one does not end
            record = {
                "benchmark": "cuda", "command": shlex.join(command), "date": datetime.now(UTC).date().isoformat(),
                "machine": {**machine(), "gpu": backend.facts(DEVICE)}, "figures": figures, "table": table,
            }  # fmt: skip
            options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
