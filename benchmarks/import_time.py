"""What ``import adaptive_compute`` adds to ``import numpy``: paired fresh processes, in alternating order.

Byte code is cached, as pip caches it when it installs a package. ``compiled`` shows the other case, the first import of
a checkout: this package's sources are compiled in every process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.record import publish, summary

PAIRS = 21
LIMIT_S = 0.1
LIBRARIES = ("torch", "scipy", "finufft", "numexpr", "cupy", "kp", "typer", "rich")
CHILD = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start, *[name for name in {libraries} if name in sys.modules])
"""


def once(module: str, environment: dict[str, str]) -> tuple[float, list[str]]:
    """Return the seconds that an import takes in a fresh process, and which of the libraries it brought along."""
    command = [sys.executable, "-c", CHILD.format(module=module, libraries=LIBRARIES)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    seconds, *brought = output.split()
    return float(seconds), brought


def measure(compiling: bool, cache: str) -> dict[str, Any]:
    """Import both in fresh processes, pair by pair; ``cache`` is a folder for byte code."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    once("numpy" if compiling else "adaptive_compute", environment)  # fills the cache
    if compiling:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    times: dict[str, list[float]] = {"numpy": [], "adaptive_compute": []}
    brought: set[str] = set()
    for turn in range(PAIRS):
        for module in list(times)[:: 1 if turn % 2 else -1]:
            seconds, libraries = once(module, environment)
            times[module].append(seconds)
            brought.update(libraries)
    added = [ours - alone for alone, ours in zip(*times.values())]
    medians = {f"{module}_s": statistics.median(samples) for module, samples in times.items()}
    return {**medians, "added_s": summary(added), "brought": sorted(brought)}


def told(name: str, figures: dict[str, Any]) -> str:
    """Return one line of the table."""
    added = {key: f"{value * 1e3:.1f}" for key, value in figures["added_s"].items()}
    return (
        f"{name}: import numpy {figures['numpy_s'] * 1e3:.1f} ms, import adaptive_compute "
        f"{figures['adaptive_compute_s'] * 1e3:.1f} ms; added {added['median']} ms (half of the pairs "
        f"{added['lower_quartile']} .. {added['upper_quartile']}); imported besides: {figures['brought'] or 'nothing'}"
    )


if __name__ == "__main__":
    record: dict[str, Any] = {"pairs": PAIRS, "limit_s": LIMIT_S}
    for case in ("cached", "compiled"):
        with tempfile.TemporaryDirectory() as folder:
            record[case] = measure(case == "compiled", folder)
    publish("import_time", record, "\n".join(told(case, record[case]) for case in ("cached", "compiled")))
