"""What every benchmark shares: paired timing of several calls, and a record that says where and how it was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adaptive_compute.backends.cpu.device import processor

LIBRARIES = ("numpy", "scipy", "torch", "finufft", "numexpr")


def paired(calls: Mapping[str, Callable[[], Any]], rounds: int = 9, warm: int = 2) -> dict[str, list[float]]:
    """Time calls in turn, round by round; the first rounds are dropped."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + warm):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm:
                samples[name].append(time.perf_counter() - start)
    return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Return median and quartiles in seconds."""
    low, median, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    return {"median": median, "lower_quartile": low, "upper_quartile": high}


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return the median and quartiles of ``slow / fast``, round by round."""
    return summary([a / b for a, b in zip(slow, fast)])


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return {
        "processor": processor(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "versions": found,
    }


def parser() -> argparse.ArgumentParser:
    """Return a parser of what :func:`publish` wants to know, for benchmarks with options of their own."""
    made = argparse.ArgumentParser()
    made.add_argument("--json", action="store_true", help="print the record instead of the table")
    made.add_argument("--save", action="store_true", help="write the record to benchmarks/results/")
    return made


def publish(name: str, figures: Mapping[str, Any], text: str, options: argparse.Namespace | None = None) -> None:
    """Print a table, or with ``--json`` the record; with ``--save`` write it to benchmarks/results/."""
    if options is None:
        options = parser().parse_args()
        given = []
    else:
        words = zip(["", *sys.argv[1:]], sys.argv[1:])  # each behind the one before it
        given = ["FOLDER" if before == "--data" else word for before, word in words if word not in ("--json", "--save")]
    made = {
        "benchmark": name,
        "command": " ".join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *given]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "figures": figures,
    }
    print(json.dumps(made, indent=1) if options.json else text)
    if options.save:
        target = Path(__file__).parent / "results" / f"{name}-{made['machine']['threads']}-core-cpu.json"
        target.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
