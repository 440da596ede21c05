"""ac.evaluate on 16 Mi float32 against NumPy, numexpr, torch eager, torch.compile and NumPy with out=, same threads.

Each result is checked against float64 first. Results are dropped after each call, as in ``z = f(a, b)`` in a loop.
``python -m benchmarks.evaluate [--json] [--save]``; torch.compile needs a C++ compiler: without one its row says so.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import adaptive_compute as ac
from adaptive_compute.core.errors import NoProfileWarning
from adaptive_compute.core.settings import available_threads
from benchmarks.record import paired, publish, ratio, summary

EXPRESSION = "a*b + sin(a)*exp(-b)"
SIZE = 16 << 20
ROUNDS = 21


def contenders(a: np.ndarray, b: np.ndarray, threads: int) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the calls to time, and why others are missing."""
    calls: dict[str, Callable[[], Any]] = {
        "adaptive_compute": lambda: ac.evaluate(EXPRESSION, a=a, b=b),
        "numpy": lambda: a * b + np.sin(a) * np.exp(-b),
    }
    result, first, second = np.ones_like(a), np.ones_like(a), np.ones_like(a)

    def numpy_out() -> np.ndarray:
        np.multiply(a, b, out=result)
        np.sin(a, out=first)
        np.negative(b, out=second)
        np.exp(second, out=second)
        np.multiply(first, second, out=first)
        return np.add(result, first, out=result)

    calls["numpy out="] = numpy_out
    absent: dict[str, str] = {}
    if importlib.util.find_spec("numexpr"):
        import numexpr

        numexpr.set_num_threads(threads)
        calls["numexpr"] = lambda: numexpr.evaluate(EXPRESSION, {"a": a, "b": b})
    else:
        absent["numexpr"] = "not installed"
    if not importlib.util.find_spec("torch"):
        return calls, {**absent, "torch eager": "not installed", "torch.compile": "not installed"}
    import torch

    torch.set_num_threads(threads)
    x, y = torch.from_numpy(a), torch.from_numpy(b)

    def eager(x: Any, y: Any) -> Any:
        return x * y + torch.sin(x) * torch.exp(-y)

    calls["torch eager"] = lambda: eager(x, y)
    try:
        compiled = torch.compile(eager)
        compiled(x, y)
        calls["torch.compile"] = lambda: compiled(x, y)
    except Exception as error:  # no C++ compiler, most often; which error that is depends on torch's version
        absent["torch.compile"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return calls, absent


def errors(calls: dict[str, Callable[[], Any]], a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return each contender's relative L2 error against float64, over a sample of the elements."""
    few = slice(None, None, 101)
    x, y = a[few].astype(np.float64), b[few].astype(np.float64)
    exact = x * y + np.sin(x) * np.exp(-y)
    return {
        name: float(np.linalg.norm(np.asarray(call())[few] - exact) / np.linalg.norm(exact))
        for name, call in calls.items()
    }


def main() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(SIZE, dtype=np.float32) for _ in range(2))
    threads = available_threads()
    calls, absent = contenders(a, b, threads)
    wrong = errors(calls, a, b)
    kernel = ac.explain(calls["adaptive_compute"]).chosen.name
    samples = paired(calls, rounds=ROUNDS)
    ours = samples["adaptive_compute"]
    rows = {
        name: {**summary(times), "over_ours": ratio(times, ours), "error": wrong[name]}
        for name, times in samples.items()
    }
    fastest = min((n for n in rows if n != "adaptive_compute"), key=lambda name: rows[name]["median"])
    figures = {
        "expression": EXPRESSION, "size": SIZE, "dtype": "float32", "threads": threads, "kernel": kernel,
        "rounds": ROUNDS, "rows": rows, "absent": absent, "fastest_other": fastest,
        "speedup_over_numpy": rows["numpy"]["over_ours"], "speedup_over_fastest": rows[fastest]["over_ours"],
    }  # fmt: skip
    lines = [
        f"{EXPRESSION}, {SIZE} float32, {threads} threads, kernel {kernel}",
        f"{'':18s} {'median ms':>10s} {'quartiles':>17s} {'x ours':>8s} {'quartiles':>14s} {'error':>9s}",
    ]
    for name, row in rows.items():
        times, over = (
            f"{r['median'] * f:{w}.2f} {r['lower_quartile'] * f:7.2f} .. {r['upper_quartile'] * f:6.2f}"
            for r, f, w in ((row, 1e3, 10), (row["over_ours"], 1, 8))
        )
        lines.append(f"{name:18s} {times} {over} {row['error']:9.1e}")
    lines += [f"{name:18s} absent: {reason}" for name, reason in absent.items()]
    publish("evaluate", figures, "\n".join(lines))


if __name__ == "__main__":
    # Whatever torch.compile warns about while it compiles is not the benchmark's.
    warnings.simplefilter("ignore", NoProfileWarning)
    main()
