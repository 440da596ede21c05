"""What ``import adaptive_compute`` adds to ``import numpy``: paired fresh processes, in alternating order.

Run: python benchmarks/import_time.py [--pairs 21] [--compile] [--json]

Claim: at most 0.1 s, and no torch, SciPy or FINUFFT is imported. Byte code is cached, as pip caches it when it installs
a package; with --compile this package's sources are compiled in every process instead, which is the first import of a
checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version

LIMIT = 0.1
LIBRARIES = ("torch", "scipy", "finufft", "cupy", "kp", "typer", "rich", "importlib.metadata")
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


def measure(pairs: int, compiling: bool, cache: str) -> dict[str, object]:
    """Import both in fresh processes, pair by pair, and return the record; ``cache`` is a folder for byte code."""
    alone, together, brought = [], [], set()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    once("numpy" if compiling else "adaptive_compute", environment)  # fills the cache
    if compiling:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    for turn in range(pairs):
        for module in ("numpy", "adaptive_compute")[:: 1 if turn % 2 else -1]:
            seconds, libraries = once(module, environment)
            if module == "numpy":
                alone.append(seconds)
            else:
                together.append(seconds)
                brought.update(libraries)
    low, middle, high = statistics.quantiles([b - a for a, b in zip(alone, together)], n=4)
    return {
        "claim": "import adaptive_compute adds at most 0.1 s to import numpy",
        "pairs": pairs,
        "byte_code": "compiled in every process" if compiling else "cached",
        "numpy_s": statistics.median(alone),
        "adaptive_compute_s": statistics.median(together),
        "added_s": middle,
        "added_s_quartiles": [low, high],
        "imported_besides": sorted(brought),
        "holds": middle <= LIMIT and not brought,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "adaptive-compute": version("adaptive-compute"),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=21, help="pairs of processes (default 21, at least 3)")
    parser.add_argument("--compile", action="store_true", help="compile this package's sources in every process")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    arguments = parser.parse_args()
    if arguments.pairs < 3:
        parser.error("--pairs must be at least 3")
    with tempfile.TemporaryDirectory() as cache:
        record = measure(arguments.pairs, arguments.compile, cache)
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        low, high = record["added_s_quartiles"]
        print(f"import numpy             {record['numpy_s'] * 1e3:7.1f} ms (median of {record['pairs']})")
        print(f"import adaptive_compute  {record['adaptive_compute_s'] * 1e3:7.1f} ms")
        print(f"added                    {record['added_s'] * 1e3:7.1f} ms")
        print(f"half of the pairs within {low * 1e3:7.1f} .. {high * 1e3:.1f} ms; byte code {record['byte_code']}")
        print(f"imported besides: {', '.join(record['imported_besides']) or 'nothing'}")
        print("the claim holds" if record["holds"] else "THE CLAIM DOES NOT HOLD")
    return 0 if record["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
