"""Zeros of zeta: verified zeros a second beside FLINT's, and their places against FLINT's enclosures.

    python -m benchmarks.zeta [--heights 1e6 1e9 1e12] [--seconds 8] [--sample 20] [--device cpu] [--output FILE]
    python -m benchmarks.zeta --enclose 200 [--heights ...] [--sample 3] [--output FILE]

A run is what `adaptive zeta hunt` does: windows, closings, statistics, everything but printing. FLINT's rate is that of
``acb.zeta_zeros`` (its way to isolate zeros in order; rigorous enclosures, which ours are not) in the same run; its own
Platt routine is not reachable from python-flint. The places of a random sample are compared in extended precision.

``--enclose`` times nothing: for each zero of a random sample FLINT's ball arithmetic evaluates Z beside the place
found, nearer and nearer; the nearest distance on whose two sides it proves different signs bounds the error, because a
zero lies between, and the counts agree. At 1e12 that is ten times quicker than ``acb.zeta_zero``, with which a few
zeros are compared as well.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import random
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptive_compute import zeta

from .record import machine

ROUNDS = 5


def rate(t: int, seconds: float, device: str | None) -> dict[str, Any]:
    """Time hunts of one length, after one that warms up and others that tell the length."""
    length = 20_000.0
    list(zeta.zeros(t, t + length, device=device))  # what a process does once: tables, plans, libraries
    while True:
        start = time.perf_counter()
        count = sum(len(block.offsets) for block in zeta.zeros(t, t + length, device=device))
        took = time.perf_counter() - start
        if took > seconds / ROUNDS / 3:
            break
        length *= 3
    length *= seconds / ROUNDS / took
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = list(zeta.zeros(t, t + length, device=device))
        took = time.perf_counter() - start
        if not all(block.verified for block in found):
            raise SystemExit(f"not verified at {t}: {[block.open for block in found if block.open]}")
        count = sum(len(block.offsets) for block in found)
        rates.append(count / took)
    return {
        "t": t, "zeros": count, "zeros_per_second": statistics.median(rates), "slowest": min(rates),
        "fastest": max(rates), "error_budget": max(block.error for block in found),
    }  # fmt: skip


def places(t: int, sample: int, seed: int = 0) -> dict[str, Any]:
    """Compare places with FLINT's; and time FLINT."""
    import flint

    flint.ctx.prec = 160
    block = next(zeta.zeros(t, t + 8_000))
    picked = random.Random(seed).sample(range(len(block.offsets)), sample)
    errors, start = [], time.perf_counter()
    for i in picked:
        exact = flint.acb.zeta_zero(block.below + i + 1).imag - block.base
        errors.append(abs(float(exact - flint.arb(float(block.offsets[i])))))
    seconds = time.perf_counter() - start
    flint.ctx.prec = 53
    begun = time.perf_counter()
    flint.acb.zeta_zeros(block.below + 1, sample)
    in_order = time.perf_counter() - begun
    flint_count = int(float(flint.arb(t + 8_000).zeta_nzeros() - flint.arb(t).zeta_nzeros()))
    return {
        "sample": sample, "worst_error": max(errors), "median_error": statistics.median(errors),
        "flint_zeros_per_second_single": sample / seconds, "flint_zeros_per_second": sample / in_order,
        "count": len(block.offsets), "flint_count": flint_count,
    }  # fmt: skip


def enclose(t: int, sample: int, direct: int, seed: int = 0) -> dict[str, Any]:
    """Bound the errors of a random sample's places by signs that FLINT proves."""
    import flint

    flint.ctx.prec = 160
    arb, acb = flint.arb, flint.acb
    found = list(zeta.zeros(t, t + max(8_000, 2 * sample)))
    block, start = found[0], time.perf_counter()

    def sign(height: Any) -> int:
        theta = acb(arb(1) / 4, height / 2).lgamma().imag - height / 2 * arb.pi().log()
        value = (acb(0, theta).exp() * acb(arb(1) / 2, height).zeta()).real
        return 1 if value > 0 else -1 if value < 0 else 0

    bounds = []
    for i in random.Random(seed).sample(range(len(block.offsets)), sample):
        at = arb(block.base) + arb(float(block.offsets[i]))
        bound = math.inf
        for digits in range(7, 14):
            reach = arb(10) ** -digits
            if sign(at - reach) * sign(at + reach) >= 0:
                break
            bound = 10.0**-digits
        bounds.append(bound)
    seconds = time.perf_counter() - start
    errors = []
    for i in random.Random(seed + 1).sample(range(len(block.offsets)), direct):
        exact = acb.zeta_zero(block.below + i + 1).imag - block.base
        errors.append(abs(float(exact - arb(float(block.offsets[i])))))
    counted = sum(len(b.offsets) for b in found)
    end = found[-1].last
    flint_count = int(float((arb(end.base) + arb(end.offset)).zeta_nzeros() - arb(t).zeta_nzeros()))
    return {
        "t": t, "sample": sample, "within": {f"{b:.0e}": bounds.count(b) for b in sorted(set(bounds))},
        "worst_bound": max(bounds), "seconds": seconds, "direct": direct, "worst_direct": max(errors, default=None),
        "count": counted, "flint_count": flint_count,
    }  # fmt: skip


def flint_version() -> dict[str, str]:
    try:
        import flint
    except ImportError:
        return {}
    return {"python-flint": flint.__version__, "flint": flint.__FLINT_VERSION__}


def gpu(device: str | None) -> dict[str, str]:
    if not (device or "").startswith("cuda"):
        return {}
    cupy = importlib.import_module("cupy")
    return {"gpu": cupy.cuda.runtime.getDeviceProperties(int(device.partition(":")[2]))["name"].decode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heights", nargs="+", default=["1e6", "1e9", "1e12"])
    parser.add_argument("--seconds", type=float, default=8.0, help="for the rounds at a height")
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--enclose", type=int, default=0, help="zeros of a height whose places FLINT bounds")
    parser.add_argument("--device", default=None)
    parser.add_argument("--output", default=None)
    arguments = parser.parse_args()
    results = []
    for text in arguments.heights:
        t = int(float(text))
        if arguments.enclose:
            results.append(enclose(t, arguments.enclose, arguments.sample))
            print(results[-1], flush=True)
            continue
        result = rate(t, arguments.seconds, arguments.device) | (
            places(t, arguments.sample) if arguments.sample else {}
        )
        if arguments.sample:
            result["ratio_to_flint"] = result["zeros_per_second"] / result["flint_zeros_per_second"]
        results.append(result)
        print(result, flush=True)
    if arguments.output:
        made = {
            "benchmark": "zeta", "command": "python -m benchmarks.zeta " + " ".join(sys.argv[1:]),
            "date": datetime.now(UTC).date().isoformat(), "figures": results,
            "machine": machine() | flint_version() | gpu(arguments.device),
        }  # fmt: skip
        Path(arguments.output).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
