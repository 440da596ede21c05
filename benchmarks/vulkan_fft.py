"""Claim: FFTs in Vulkan shaders run near the device's copy limit, beside cuFFT (where torch has CUDA) and VkFFT.

Complex64 transforms of the last axis, batches that fill ``--points`` points (2^26: 0.5 GB), resident operands, GPU time
by timestamps (Vulkan) and CUDA events around several calls (cuFFT), medians after warm-up. GB/s count one read and one
write of the batch a transform; a transform of two passes can reach half of the copy. Every result is checked first,
some lines against NumPy in float64. Variants (radices, threads, lines together, cuts of long transforms) are timed as
well unless ``--no-search`` is given. Each length is set beside cuFFT in the same run and beside VkFFT's figure, which
was taken before, on another card, so that both are given as they are and as shares of their card's copy.

    python -m benchmarks.vulkan_fft [--points 67108864] [--no-search] [--quick] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_compute.backends.vulkan import fft_group, fft_pair, fft_plan, fft_steps
from adaptive_compute.backends.vulkan.array import VulkanArray, upload
from adaptive_compute.backends.vulkan.program import Builder, Program
from adaptive_compute.backends.vulkan.runtime import runtime
from benchmarks.record import machine

LENGTHS = (
    64, 128, 256, 512, 1024, 2048, 4096, 8192, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24,
    729, 2187, 625, 3125, 343, 2401, 1000, 1536, 3600, 4000, 4116, 5000, 6000, 7200, 44100, 10007, 100003,
)  # fmt: skip
# Not measured by this program: its own plans at default settings, resident batches of 512 MiB, GPU time by timestamps.
VKFFT_COPY = 4250.0
VKFFT = {"version": "1.3.4", "backend": "Vulkan", "card": "NVIDIA H200", "copy": VKFFT_COPY, "batch_bytes": 512 << 20}
VKFFT_H200 = {
    64: 1300, 256: 1300, 1024: 1204, 4096: 2004, 1 << 14: 1467, 1 << 16: 876, 1 << 18: 771, 1 << 20: 640, 1 << 22: 703,
    1 << 24: 586, 729: 1329, 1000: 2704, 3125: 1757, 6000: 1367, 44100: 531, 10007: 254, 100003: 250,
}  # fmt: skip
Variant = dict[str, Any]


def variants(n: int) -> Iterator[tuple[str, Variant]]:
    """Yield what to try at a length: a name and what it changes."""
    for cut, changes in PAIRS.get(n, ()):
        for change in changes:
            yield f"pair {'x'.join(map(str, cut))} {_named(change)}", {"pairs": {n: cut}, **change}
    for cut, changes in CUTS.get(n, ()):
        for change in changes:
            yield f"cut {'x'.join(map(str, cut))} {_named(change)}", {"passes": {n: cut}, **change}
    for radices, threads in STAGES.get(n, ()):
        yield f"{'x'.join(map(str, radices))} on {threads}", {"stages": {n: (radices, threads)}}


def _named(change: Variant) -> str:
    parts = []
    for key, value in change.items():
        if key == "stages":
            parts += [f"{m}={'x'.join(map(str, radices))} on {threads}" for m, (radices, threads) in value.items()]
        else:
            parts.append(f"{key.lower()} {value}")
    return ", ".join(parts)


# Lengths of the pass before and of the two that are one dispatch.
_MIB = 1 << 20
PAIRS: dict[int, tuple[tuple[tuple[int, int, int], tuple[Variant, ...]], ...]] = {
    1 << 24: (
        ((256, 256, 256), ({"AHEAD": 8 * _MIB}, {"AHEAD": 8 * _MIB, "WIDEST": 8}, {"AHEAD": 12 * _MIB, "WIDEST": 8})),
        ((1024, 128, 128), ({"AHEAD": 8 * _MIB}, {"AHEAD": 6 * _MIB})),
    ),
    1 << 22: (
        ((256, 128, 128), ({"AHEAD": 8 * _MIB},)), ((64, 256, 256), ({"AHEAD": 8 * _MIB, "WIDEST": 8},)),
    ),
    1 << 14: (((1, 128, 128), ({"AHEAD": 8 * _MIB}, {"AHEAD": 6 * _MIB})),),
    1 << 16: (((1, 256, 256), ({"AHEAD": 6 * _MIB}, {"AHEAD": 7 * _MIB}, {"AHEAD": 9 * _MIB}, {"AHEAD": 10 * _MIB})),),
    1 << 18: (((1, 512, 512), ({"AHEAD": 8 * _MIB, "WIDEST": 8}, {"AHEAD": 10 * _MIB, "WIDEST": 8})),),
    1 << 20: (((1, 1024, 1024), ({"AHEAD": 8 * _MIB, "WIDEST": 8}, {"AHEAD": 16 * _MIB, "WIDEST": 8})),),
}  # fmt: skip
STAGES: dict[int, tuple[tuple[tuple[int, ...], int], ...]] = {
    4000: (((10, 10, 10, 4), 400), ((10, 10, 8, 5), 400), ((16, 10, 25), 250), ((8, 10, 10, 5), 500)),
    5000: (((10, 10, 10, 5), 500), ((25, 25, 8), 200), ((8, 5, 5, 5, 5), 625), ((5, 10, 10, 10), 500)),
    3600: (((15, 16, 15), 240), ((15, 15, 16), 225), ((10, 10, 6, 6), 360), ((10, 9, 8, 5), 450)),
    4116: (((14, 14, 7, 3), 294), ((12, 7, 7, 7), 343), ((7, 7, 7, 12), 588), ((12, 7, 7, 7), 588)),
    7200: (((10, 10, 9, 8), 720), ((10, 10, 8, 9), 900), ((12, 10, 10, 6), 720), ((12, 12, 10, 5), 720)),
    6000: (
        ((6, 10, 10, 10), 600), ((10, 10, 10, 6), 300), ((15, 10, 8, 5), 600), ((10, 10, 12, 5), 600),
        ((5, 6, 5, 8, 5), 750), ((12, 10, 10, 5), 600), ((8, 6, 5, 5, 5), 750), ((16, 15, 25), 400),
    ),
    8192: (((16, 16, 8, 4), 512), ((16, 8, 8, 8), 512), ((8, 8, 8, 16), 512), ((32, 16, 16), 512)),
    3125: (((25, 25, 5), 125), ((5, 5, 5, 5, 5), 625)),
    1 << 14: (((32, 16, 32), 512), ((32, 32, 16), 1024)),
}  # fmt: skip
_WIDTHS: tuple[Variant, ...] = ({"WIDEST": 16}, {"WIDEST": 32})
_A1024 = ((32, 32), 32)
CUTS: dict[int, tuple[tuple[tuple[int, ...], tuple[Variant, ...]], ...]] = {
    1 << 14: (((128, 128), _WIDTHS),),
    1 << 16: (((256, 256), ({}, {"WIDEST": 32})),),
    1 << 18: (((512, 512), ({"WIDEST": 8},)), ((256, 1024), ({},))),
    1 << 20: (((1024, 1024), ({"stages": {1024: _A1024}, "WIDEST": 4}, {"stages": {1024: ((16, 16, 4), 64)}})),),
    1 << 22: (
        ((2048, 2048), ({"stages": {2048: ((16, 16, 8), 128)}}, {"stages": {2048: ((16, 8, 16), 128)}})),
        ((4096, 1024), ({"WIDEST": 4},)),
    ),
    1 << 24: (((128, 512, 256), ({},)),),
    44100: (((210, 210), ({"WIDEST": 8}, {"WIDEST": 32})),),
}  # fmt: skip


@contextmanager
def changed(variant: Variant) -> Iterator[fft_group.Shape]:
    """Plan as a variant says; yields the shape of its workgroups."""
    caches = (fft_plan.stages, fft_plan.passes, fft_plan._pass_price, fft_plan.padded)
    tables: tuple[dict[int, Any], ...] = (
        fft_plan.MEASURED_STAGES, fft_plan.MEASURED_PARTS, fft_plan.MEASURED_PASSES, fft_pair.MEASURED,
    )  # fmt: skip
    kept = [dict(table) for table in tables]
    try:
        fft_plan.MEASURED_STAGES.update(variant.get("stages", {}))
        fft_plan.MEASURED_PARTS.update(variant.get("stages", {}))
        fft_plan.MEASURED_PASSES.update(variant.get("passes", {}))
        fft_pair.MEASURED.update(variant.get("pairs", {}))
        for cache in caches:
            cache.cache_clear()
        changes = {
            name.lower(): variant[name] for name in ("THREADS", "WIDEST", "TOGETHER", "AHEAD") if name in variant
        }
        if "passes" in variant:
            changes["ahead"] = 0
        yield fft_group.SHAPE._replace(**changes)
    finally:
        for table, before in zip(tables, kept):
            table.clear()
            table.update(before)
        for cache in caches:
            cache.cache_clear()


def program(owner: Any, n: int, batch: int, shape: fft_group.Shape = fft_group.SHAPE) -> Program:
    """Return the program of a batch of forward transforms."""
    b = Builder()
    source, target = b.operand(0, 8 * n * batch), b.result(0, 8 * n * batch)
    fft_steps.along(b, source, target, fft_steps.complex_axis(n, batch, 1, True, 1.0), owner.limits, shape)
    return b.program()


def measured(
    owner: Any, data: VulkanArray, host: np.ndarray, n: int, rounds: int, shape: fft_group.Shape = fft_group.SHAPE
) -> dict[str, Any]:
    """Check and time the program of one length as things are set now."""
    batch = data.size // n
    start = time.perf_counter()
    made = program(owner, n, batch, shape)
    planned = time.perf_counter() - start
    start = time.perf_counter()
    (memory,) = owner.run_resident(made, [data.memory])
    first = time.perf_counter() - start
    result = VulkanArray(memory, (batch, n), "complex64", owner)
    lines = sorted({0, batch // 2, batch - 1} if n < 1 << 20 else {batch - 1})
    got = np.stack([result[line].numpy() for line in lines])
    del result
    exact = np.fft.fft(np.stack([host[np.arange(line * n, (line + 1) * n) % len(host)] for line in lines]))
    error = float(np.linalg.norm(got - exact) / np.linalg.norm(exact))
    seconds = owner.gpu_seconds(made, [data.memory], repeats=rounds + 3)[3:]
    steps = owner.gpu_step_seconds(made, [data.memory], repeats=rounds + 3)[3:] if len(made.steps) > 1 else []
    owner.forget(made)
    return {
        "gigabytes_per_second": 16e-9 * n * batch / statistics.median(seconds), "error": error,
        "microseconds": 1e6 * statistics.median(seconds), "spread": max(seconds) / min(seconds),
        "steps": [[s.shader, *s.groups[:2], *s.constants[:10], *s.constants[10:17]] for s in made.steps],
        "planned": planned, "first_run": first,
        "step_microseconds": [round(1e6 * statistics.median(one), 1) for one in zip(*steps)],
    }  # fmt: skip


def rival(host: np.ndarray, points: int, rounds: int) -> Callable[[int], float] | None:
    """Return a function that times cuFFT at a length in GB/s (0: a copy), or None without CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    flat = torch.from_numpy(np.resize(host, points)).cuda()
    room = torch.empty_like(flat)

    def gigabytes_per_second(n: int) -> float:
        batch = points // (n or 1)
        x = flat[: batch * (n or 1)].view(batch, -1)
        call = (lambda: torch.fft.fft(x)) if n else (lambda: room.copy_(flat))
        # Several calls between two events, so that neither a launch nor the start of the device takes part.
        calls = max(5, int(2e-3 / (16e-9 * points / 1000)))
        times = []
        for turn in range(rounds // 2 + 1):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(calls):
                call()
            end.record()
            torch.cuda.synchronize()
            if turn:
                times.append(begin.elapsed_time(end) * 1e-3 / calls)
        return 16e-9 * x.numel() / statistics.median(times)

    return gigabytes_per_second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1 << 26)
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds; variants stop there")
    parser.add_argument("--search", action=argparse.BooleanOptionalAction, default=True, help="time variants as well")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--without", help="variants whose name does not contain this")
    parser.add_argument("--quick", action="store_true", help="2^20 points, 3 rounds: tries the program, tells nothing")
    parser.add_argument("--device", default="vulkan:0")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.points, options.rounds = min(options.points, 1 << 20), 3
        options.budget = min(options.budget, 30.0)
    began = time.perf_counter()
    owner = runtime(options.device)
    rng = np.random.default_rng(0)
    host = rng.standard_normal((min(options.points, (1 << 22) + 13), 2), np.float32).view(np.complex64)[:, 0]
    data = upload(np.resize(host, options.points), options.device)
    against = rival(host, options.points, options.rounds)
    rows: list[dict[str, Any]] = []
    copy = against(0) if against is not None else None
    print(f"{owner.limits.name}: copy {copy or 0:.0f} GB/s; set up in {time.perf_counter() - began:.1f} s", flush=True)
    lengths = [n for n in options.lengths if n <= options.points]
    for n in lengths:
        row: dict[str, Any] = {"n": n, "cufft": against(n) if against is not None else None}
        row["vkfft_h200"] = VKFFT_H200.get(n)
        row["default"] = measured(owner, data, host, n, options.rounds)
        row |= beside(row["default"]["gigabytes_per_second"], copy, row["cufft"], row["vkfft_h200"])
        rows.append(row)
        show(n, "default", row["default"], row["cufft"])
    write(options, owner, copy, rows)
    order = [*dict.fromkeys((*PAIRS, *STAGES, *CUTS))]
    for row in sorted((row for row in rows if row["n"] in order), key=lambda row: order.index(row["n"])):
        if not options.search:
            break
        row["variants"] = {}
        for name, variant in variants(row["n"]):
            if options.only not in name or (options.without and options.without in name):
                continue
            if time.perf_counter() - began > options.budget:
                print(f"{row['n']:9d} {name}: not measured, the time is spent")
                continue
            try:
                with changed(variant) as shape:
                    row["variants"][name] = measured(owner, data, host, row["n"], options.rounds, shape)
            except Exception as error:  # a variant that a device refuses is a finding, and the others go on
                print(f"{row['n']:9d} {name}: {type(error).__name__}: {error}")
                continue
            show(row["n"], name, row["variants"][name], row["cufft"])
        write(options, owner, copy, rows)
    print(
        f"\n{'N':>9s} {'GB/s':>6s} {'cuFFT':>6s} {'share':>6s} {'of copy':>7s} {'VkFFT*':>6s} {'ratio':>6s} "
        f"{'by copy':>7s} {'error':>8s}  best variant"
    )
    for row in rows:
        own, them = row["default"]["gigabytes_per_second"], row["cufft"]
        best = max(row.get("variants", {}).items(), key=lambda v: v[1]["gigabytes_per_second"], default=None)
        print(
            f"{row['n']:9d} {own:6.0f} {them or 0:6.0f} {_percent(row['share_of_cufft'])} "
            f"{_percent(own / copy if copy else None):>7s} {row['vkfft_h200'] or 0:6.0f} "
            f"{_times(row['ratio_to_vkfft'])} {_times(row['ratio_to_vkfft_by_copy']):>7s} "
            f"{row['default']['error']:8.1e}  " + (f"{best[0]} {best[1]['gigabytes_per_second']:.0f}" if best else "")
        )
    print(
        f"* VkFFT {VKFFT['version']}, {VKFFT['backend']}, on an {VKFFT['card']} (copy {VKFFT['copy']:.0f} GB/s), before"
    )
    print(f"took {time.perf_counter() - began:.0f} s")
    return 0 if all(row["default"]["error"] <= 6e-7 for row in rows) else 1


def beside(own: float, copy: float | None, cufft: float | None, vkfft: float | None) -> dict[str, float | None]:
    """Return a figure's share of cuFFT's, its ratio to VkFFT's, and that of both as shares of their card's copy."""
    return {
        "share_of_cufft": own / cufft if cufft else None,
        "ratio_to_vkfft": own / vkfft if vkfft else None,
        "ratio_to_vkfft_by_copy": own / copy / (vkfft / VKFFT_COPY) if vkfft and copy else None,
    }


def write(options: argparse.Namespace, owner: Any, copy: float | None, rows: list[dict[str, Any]]) -> None:
    """Write what was measured so far."""
    if options.output is None:
        return
    record = {
        "benchmark": "vulkan_fft", "command": f"python -m benchmarks.vulkan_fft {' '.join(sys.argv[1:])}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "device": owner.limits.name,
        "driver": owner.limits.driver, "machine": machine(), "copy": copy, "points": options.points, "vkfft": VKFFT,
        "rows": rows,
    }  # fmt: skip
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _percent(share: float | None) -> str:
    return f"{100 * share:5.0f}%" if share else "     -"


def _times(ratio: float | None) -> str:
    return f"{ratio:6.2f}" if ratio else "     -"


def show(n: int, name: str, figures: dict[str, Any], cufft: float | None) -> None:
    print(
        f"{n:9d} {name:32s} {figures['gigabytes_per_second']:7.0f} GB/s  cuFFT {cufft or 0:5.0f}  "
        f"error {figures['error']:.1e}  plan {figures['planned'] * 1e3:5.0f} ms  first "
        f"{figures['first_run'] * 1e3:5.0f} ms  x{figures['spread']:.2f}  {figures['step_microseconds'] or ''}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
