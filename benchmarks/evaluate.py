"""An expression of float32 arrays: this library against NumPy, numexpr, torch and torch.compile, in one run.

    python benchmarks/evaluate.py [--expression TEXT] [--size N] [--rounds N] [--threads N] [--json FILE]

Every round times each contender once, in an order that rotates, so that a machine whose speed drifts favours none of
them; ratios are taken within a round, and their median and quartiles are reported. Each result is checked against
float64 first. Names of the expression are random arrays of a normal distribution, and the output is dropped after each
call, as in ``z = f(a, b)`` in a loop.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import adaptive_compute as ac
from adaptive_compute.backends.cpu.device import processor
from adaptive_compute.core.operations.elementwise import evaluate

EXPRESSION = "a*b + sin(a)*exp(-b)"


def contenders(a: np.ndarray, b: np.ndarray, threads: int) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the functions to time, and why others are missing."""
    ready: dict[str, Callable[[], Any]] = {"adaptive_compute": lambda: evaluate(EXPRESSION, a=a, b=b)}
    missing: dict[str, str] = {}
    ready["numpy"] = lambda: a * b + np.sin(a) * np.exp(-b)
    result, first, second = np.empty_like(a), np.empty_like(a), np.empty_like(a)

    def numpy_out() -> np.ndarray:
        np.multiply(a, b, out=result)
        np.sin(a, out=first)
        np.negative(b, out=second)
        np.exp(second, out=second)
        np.multiply(first, second, out=first)
        return np.add(result, first, out=result)

    ready["numpy out="] = numpy_out
    if importlib.util.find_spec("numexpr"):
        import numexpr

        numexpr.set_num_threads(threads)
        ready["numexpr"] = lambda: numexpr.evaluate(EXPRESSION, {"a": a, "b": b})
    else:
        missing["numexpr"] = "not installed"
    if not importlib.util.find_spec("torch"):
        missing["torch eager"] = missing["torch.compile"] = "not installed"
        return ready, missing
    import torch

    torch.set_num_threads(threads)
    x, y = torch.from_numpy(a), torch.from_numpy(b)

    def eager(x: Any, y: Any) -> Any:
        return x * y + torch.sin(x) * torch.exp(-y)

    ready["torch eager"] = lambda: eager(x, y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = torch.compile(eager)
            compiled(x, y)
        ready["torch.compile"] = lambda: compiled(x, y)
    except Exception as error:  # no C++ compiler, most often
        missing["torch.compile"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ready, missing


def check(ready: dict[str, Callable[[], Any]], a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return each contender's relative L2 error against float64, over a sample of the elements."""
    few = slice(None, None, max(a.size // 100_000, 1))
    wide_a, wide_b = a[few].astype(np.float64), b[few].astype(np.float64)
    exact = wide_a * wide_b + np.sin(wide_a) * np.exp(-wide_b)
    errors = {}
    for name, function in ready.items():
        got = np.asarray(function())[few]
        errors[name] = float(np.linalg.norm(got - exact) / np.linalg.norm(exact))
    return errors


def measure(ready: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time each contender once a round."""
    times: dict[str, list[float]] = {name: [] for name in ready}
    names = list(ready)
    for turn in range(rounds + 1):
        for place in range(len(names)):
            name = names[(place + turn) % len(names)]
            start = time.perf_counter()
            ready[name]()
            if turn:  # the first round warms caches
                times[name].append(time.perf_counter() - start)
    return times


def quartiles(values: list[float]) -> list[float]:
    """Return the three quartiles."""
    return [float(v) for v in np.percentile(values, [25, 50, 75])]


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    found = {"python": platform.python_version(), "adaptive-compute": ac.__version__}
    for library in ("numpy", "scipy", "torch", "numexpr"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16 << 20, help="elements of each array")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kernel", help="force one kernel instead of the routed one")
    parser.add_argument("--json", metavar="FILE", help="write a record")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(options.size, dtype=np.float32) for _ in range(2))
    with ac.using(threads=options.threads), ac.using(**({"kernel": options.kernel} if options.kernel else {})):
        ready, missing = contenders(a, b, options.threads)
        errors = check(ready, a, b)
        kernel = ac.explain(evaluate, EXPRESSION, a=a, b=b).chosen.name
        times = measure(ready, options.rounds)
    own = times["adaptive_compute"]
    rows = {
        name: {
            "ms": [round(1e3 * t, 2) for t in quartiles(times[name])],
            "ratio": [round(r, 3) for r in quartiles([t / o for t, o in zip(times[name], own)])],
            "error": errors[name],
        }
        for name in ready
    }
    print(f"{EXPRESSION}, {options.size} float32, {options.threads} threads, kernel {kernel}")
    print(f"{'':18s} {'median ms':>10s} {'quartiles':>18s} {'x ours':>8s} {'quartiles':>16s} {'error':>9s}")
    for name, row in rows.items():
        (low, middle, high), (few, ratio, many) = row["ms"], row["ratio"]
        times_shown = f"{middle:10.2f} {low:8.2f} .. {high:6.2f}"
        print(f"{name:18s} {times_shown} {ratio:8.2f} {few:6.2f} .. {many:6.2f} {row['error']:9.1e}")
    for name, reason in missing.items():
        print(f"{name:18s} absent: {reason}")
    others = [statistics.median(times[name]) for name in times if name != "adaptive_compute"]
    record = {
        "benchmark": "evaluate", "expression": EXPRESSION, "size": options.size, "dtype": "float32",
        "threads": options.threads, "rounds": options.rounds, "kernel": kernel, "rows": rows, "absent": missing,
        "speedup_over_numpy": rows["numpy"]["ratio"][1],
        "speedup_over_fastest": round(min(others) / statistics.median(own), 3),
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "system": platform.platform()},
        "versions": versions(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
    }  # fmt: skip
    print(f"{record['speedup_over_numpy']}x NumPy, {record['speedup_over_fastest']}x the fastest of the others")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
