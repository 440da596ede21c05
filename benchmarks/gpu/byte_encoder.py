"""ByteEncoder's kernel on CUDA against a device copy of as many bytes as it writes, in the same run, round by round.

    python -m benchmarks.gpu.byte_encoder [--sweep] [--output FILE]

Bandwidth is what must move over the time: for the encoder the bytes read and the features written, for the copy each
byte twice. ``--sweep`` times other tiles besides. Times are by the device's own events, medians of rounds.
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

from adaptive_compute import nn
from benchmarks.record import machine

DEVICE = "cuda:0"
CASES = (  # features, bytes, dtype: 1 GiB of features each, and a training step's 64k bytes, which the cache can hold
    (256, 1 << 21, torch.bfloat16), (512, 1 << 20, torch.bfloat16), (1024, 1 << 19, torch.bfloat16),
    (768, 700_000, torch.bfloat16), (256, 1 << 20, torch.float32), (1024, 1 << 18, torch.float32),
    (256, 1 << 21, torch.float16), (256, 1 << 16, torch.bfloat16), (512, 1 << 16, torch.float32),
)  # fmt: skip
ROUNDS, REPEATS = 11, 10


def in_turn(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return each call's median seconds, calls in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(REPEATS):
                call()
            end.record()
            end.synchronize()
            if turn:
                samples[name].append(begin.elapsed_time(end) / 1e3 / REPEATS)
    return {name: statistics.median(found) for name, found in samples.items()}


def case(dim: int, rows: int, dtype: torch.dtype) -> dict[str, Any]:
    """Time the encoder, a copy of as many bytes, a fill of them, and the learned table."""
    x = torch.randint(0, 256, (1, rows), dtype=torch.uint8, device=DEVICE)
    encoder = nn.ByteEncoder(dim, dtype=dtype, device=DEVICE)
    table = nn.ByteEmbedding(dim, dtype=dtype, device=DEVICE)
    source = encoder(x)
    target = torch.empty_like(source)
    with torch.no_grad():
        seconds = in_turn({
            "encoder": lambda: encoder(x), "copy": lambda: target.copy_(source), "fill": lambda: target.zero_(),
            "learned table": lambda: table(x),
        })  # fmt: skip
    written = source.numel() * source.element_size()
    rate = {"encoder": (written + rows) / seconds["encoder"], "copy": 2 * written / seconds["copy"]}
    rate["fill"] = written / seconds["fill"]
    return {
        "features": dim, "bytes": rows, "dtype": str(dtype)[6:], "seconds": seconds,
        "GB/s": {name: found / 1e9 for name, found in rate.items()}, "of copy": rate["encoder"] / rate["copy"],
    }  # fmt: skip


def sweep() -> None:
    """Print the bandwidth of other tiles and numbers of warps."""
    import triton

    from adaptive_compute.nn.bytes import _steps
    from adaptive_compute.nn.kernels import byte_encoder

    for dim, rows, dtype in CASES[:6]:
        x = torch.randint(0, 256, (rows,), dtype=torch.uint8, device=DEVICE)
        steps = _steps(dim, x.device)
        out = torch.empty((rows, dim), dtype=dtype, device=DEVICE)
        other = torch.empty_like(out)
        calls: dict[str, Callable[[], Any]] = {"copy": lambda: other.copy_(out)}
        terms = 5 if dtype is torch.float32 else 4
        for elements in (1024, 2048, 4096, 8192, 16384):
            for most in (128, 256, 512, 1024):
                for warps in (2, 4, 8):
                    width = min(triton.next_power_of_2(dim), most)
                    many = elements // width
                    if many < 1 or (most > width and most > 128) or elements // warps > 4096:
                        continue
                    grid = (triton.cdiv(rows, many), triton.cdiv(dim, width))

                    def call(grid=grid, many=many, width=width, warps=warps) -> None:
                        byte_encoder.features[grid](
                            x, steps, out, rows, dim, *byte_encoder.coefficients(terms), ROWS=many, WIDTH=width,
                            WHOLE=dim % width == 0, TERMS=terms, num_warps=warps,
                        )  # fmt: skip

                    calls[f"{many} x {width}, {warps} warps"] = call
        seconds = in_turn(calls)
        written = out.numel() * out.element_size()
        copy = 2 * written / seconds.pop("copy")
        print(f"sweep: {dim} features, {dtype}: copy {copy / 1e9:.0f} GB/s", flush=True)
        for name, found in sorted(seconds.items(), key=lambda item: item[1])[:8]:
            print(f"  {name}: {written / found / 1e9:.0f} GB/s, {written / found / copy:.1%}", flush=True)
        kept = next(
            (n for n in seconds if n.startswith("{} x {},".format(*byte_encoder.tile(dim, dtype.itemsize)))), None
        )
        print(f"  the tile as it is: {kept}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweep", action="store_true", help="time other tiles besides")
    parser.add_argument("--output", type=Path, help="write the record to this file")
    options = parser.parse_args()
    figures = []
    for dim, rows, dtype in CASES:
        found = case(dim, rows, dtype)
        figures.append(found)
        rate = found["GB/s"]
        print(
            f"{dim} features of {rows} bytes, {dtype}: {rate['encoder']:.0f} GB/s, copy {rate['copy']:.0f}, "
            f"fill {rate['fill']:.0f}: {found['of copy']:.1%} of copy; learned table "
            f"{found['seconds']['learned table'] / found['seconds']['encoder']:.2f} times as long",
            flush=True,
        )
        if options.output:
            record = {
                "benchmark": "byte_encoder",
                "command": "python -m benchmarks.gpu.byte_encoder --output FILE",
                "date": datetime.now(UTC).date().isoformat(),
                "machine": {**machine(), "gpu": torch.cuda.get_device_name()},
                "figures": figures,
            }
            options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.sweep:
        sweep()


if __name__ == "__main__":
    main()
