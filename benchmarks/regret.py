"""How often the router is wrong on this machine: time of the chosen kernel over the fastest candidate's.

Needs a profile (``adaptive profile``). Sizes are not those that were profiled, every candidate is really run, and
simple rules are judged by the same times. A run may be cut into several, each with its own seed, and put together::

    python -m benchmarks.regret --seed 1 --seconds 80 --output a.json
    python -m benchmarks.regret --seed 2 --seconds 80 --output b.json
    python -m benchmarks.regret --combine a.json b.json --save regret-2-core-cpu
"""

from __future__ import annotations

import argparse
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import adaptive_compute as ac
from adaptive_compute import dispatcher
from adaptive_compute.core.regret import Outcome, RegretReport, regret
from benchmarks.record import machine

KEPT = ("operation", "request", "home", "nbytes", "chosen", "rounds", "predicted", "policies", "explained")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Run the requests and return what is needed to put several runs together."""
    with ac.using(options.backend) if options.backend else contextlib.nullcontext():
        report = regret(
            dispatcher, count=options.count, seed=options.seed, seconds=options.seconds, homes=options.home,
            operations=options.op,
        )  # fmt: skip
    outcomes = [
        {**{name: getattr(o, name) for name in KEPT}, "extrapolated": sorted(o.extrapolated)} for o in report.outcomes
    ]
    devices = {device: dispatcher.registry.backend_of(device).facts(device) for device in dispatcher.profile.sections}
    return {
        "benchmark": "regret", "date": datetime.now(UTC).date().isoformat(), "seed": options.seed,
        "backend": options.backend or "all", "machine": {**machine(), "devices": devices},
        "profile": dispatcher.profile.facts, "no_choice": report.no_choice, "outcomes": outcomes,
    }  # fmt: skip


def combined(runs: list[dict[str, Any]]) -> RegretReport:
    """Return one report of several runs."""
    outcomes = [
        Outcome(**{name: o[name] for name in KEPT}, extrapolated=frozenset(o["extrapolated"]))
        for run in runs
        for o in run["outcomes"]
    ]
    return RegretReport(tuple(outcomes), runs[0]["seed"], sum(run["no_choice"] for run in runs))


def main() -> None:
    """Measure, or put together what was measured; print the table, or the record with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="begin no request after this time")
    parser.add_argument("--backend", help="only this backend's kernels")
    parser.add_argument("--home", action="append", help="where operands are: a device, or 'mixed DEVICE'")
    parser.add_argument("--op", action="append", help="only this operation")
    parser.add_argument("--output", type=Path, help="keep the outcomes here")
    parser.add_argument("--combine", type=Path, nargs="+", help="kept outcomes to judge together, instead of measuring")
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    parser.add_argument("--save", help="write the record to benchmarks/results/ under this name")
    options = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in options.combine] if options.combine else [measured(options)]
    if options.output:
        options.output.write_text(json.dumps(runs[0]), encoding="utf-8")
    report = combined(runs)
    figures = report.as_dict()
    record = {
        **{name: runs[0][name] for name in ("benchmark", "date", "machine", "profile", "backend")},
        "command": f"python -m benchmarks.regret, {len(runs)} runs, seeds {', '.join(str(r['seed']) for r in runs)}",
        "figures": figures,
    }
    print(json.dumps(record, indent=1) if options.json else report)
    if options.save:
        target = Path(__file__).parent / "results" / f"{options.save}.json"
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
