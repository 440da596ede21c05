"""What SciPy's way here costs besides a call of ours: scipy.fft.fft through this library against ac.fft, warm."""

from __future__ import annotations

import statistics
import time
import warnings

import numpy as np
import scipy.fft

import adaptive_compute as ac
from adaptive_compute.core.errors import NoProfileWarning
from benchmarks.record import publish

CALLS, ROUNDS, WARM = 500, 41, 5
LIMIT_US = 3.0
SHAPES = {"fft": (256,), "rfft": (256,), "irfft": (129,), "fft2": (16, 16)}


def microseconds(function, x):
    start = time.perf_counter()
    for _ in range(CALLS):
        function(x)
    return (time.perf_counter() - start) / CALLS * 1e6


def measure(name):
    """Return the medians of one call by way, and of the differences within a round, in microseconds."""
    x = np.random.default_rng(0).standard_normal(SHAPES[name])
    x = x if name == "rfft" else x.astype(complex)
    ours, scipys = getattr(ac, name), getattr(scipy.fft, name)

    def in_block(x):
        with scipy.fft.set_backend(ac.scipy_backend):
            return microseconds(scipys, x)

    def for_process(x):
        ac.register_with_scipy()
        try:
            return microseconds(scipys, x)
        finally:
            scipy.fft.set_global_backend("scipy")

    ways = {
        "ours": lambda x: microseconds(ours, x), "scipy": lambda x: microseconds(scipys, x),
        "block": in_block, "process": for_process,
    }  # fmt: skip
    rounds = [{way: call(x) for way, call in ways.items()} for _ in range(ROUNDS + WARM)][WARM:]
    found = {f"{way}_us": statistics.median(each[way] for each in rounds) for way in ways}
    for way in ("block", "process"):
        over = statistics.quantiles([each[way] - each["ours"] for each in rounds], n=4)
        found[f"{way}_over_ours_us"] = dict(zip(("lower_quartile", "median", "upper_quartile"), over))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore", NoProfileWarning)
    figures = {name: measure(name) for name in SHAPES}
    worst = max(each[f"{way}_over_ours_us"]["median"] for each in figures.values() for way in ("block", "process"))
    publish(
        "scipy_backend",
        {"limit_us": LIMIT_US, "worst_over_ours_us": worst, "calls": figures},
        "\n".join(
            f"{name:6}{each['ours_us']:7.2f} us ours, {each['scipy_us']:.2f} us SciPy's own, through this library "
            f"{each['block_over_ours_us']['median']:+.2f} us in a block, "
            f"{each['process_over_ours_us']['median']:+.2f} us for the process (medians of paired rounds)"
            for name, each in figures.items()
        ),
    )
