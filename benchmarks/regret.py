"""How often the router is wrong on this machine: time of the chosen kernel over the fastest candidate's, on the CPU.

Needs a profile (``adaptive profile``). Sizes are not those that were profiled, and every candidate is really run.
"""

from __future__ import annotations

import adaptive_compute as ac
from adaptive_compute import dispatcher
from adaptive_compute.core.regret import regret
from benchmarks.record import publish

COUNT, SEED = 160, 0

if __name__ == "__main__":
    with ac.using("cpu"):
        report = regret(dispatcher, count=COUNT, seed=SEED, homes=["cpu"])
    publish("regret", {"requests": COUNT, **report.as_dict()}, str(report))
