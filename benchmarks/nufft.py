"""NUFFT: ac.nufft against finufft's own functions, same arguments, in turn within one run.

Each row is one transform. ``first`` times calls whose points were never seen before (both sides set their points);
``again`` calls with the same points, where finufft's functions set them once more and a kept plan need not; ``plan`` is
finufft's own plan, executed with its points already set: the least that a repeated call can cost.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import finufft
import numpy as np

import adaptive_compute as ac
from adaptive_compute.core.errors import NoProfileWarning
from benchmarks.record import paired, publish, ratio, summary

EPS = 1e-6
SIZES = [(1, 100_000, (100_000,)), (1, 1_000_000, (1_000_000,)), (2, 100_000, (300, 300)), (2, 1_000_000, (1000, 1000)),
         (3, 100_000, (48, 48, 48)), (3, 1_000_000, (100, 100, 100))]  # fmt: skip
ROUNDS = 7


def problem(dim: int, count: int, modes: tuple[int, ...], kind: int, dtype: str, seed: int) -> tuple[Any, ...]:
    """Random operands in the order of the functions' arguments."""
    rng = np.random.default_rng(seed)
    real = np.float32 if dtype == "complex64" else np.float64
    points = [rng.uniform(-np.pi, np.pi, count).astype(real) for _ in range(dim)]
    shape = modes if kind == 2 else (count,)
    data = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    if kind == 3:
        return (*points, data, *[rng.uniform(-n / 2, n / 2, count).astype(real) for n in modes])
    return (*points, data)


def fresh(function: Callable[..., Any], problems: list[tuple[Any, ...]], options: dict[str, Any]) -> Callable[[], Any]:
    """Return a call that takes the next problem each time, so that its points are always new."""
    turn = iter(range(1 << 30))
    return lambda: function(*problems[next(turn) % len(problems)], **options)


def rows(sizes: list[tuple[int, int, tuple[int, ...]]]) -> Iterator[dict[str, Any]]:
    for dim, count, modes in sizes:
        for kind in (1, 2, 3):
            for dtype in ("complex128", "complex64"):
                if kind == 3 and count > 100_000 and dim == 3:
                    continue  # half a minute a round
                yield measure(dim, count, modes, kind, dtype)


def measure(dim: int, count: int, modes: tuple[int, ...], kind: int, dtype: str) -> dict[str, Any]:
    name = f"nufft{dim}d{kind}"
    ours, theirs = getattr(ac.nufft, name), getattr(finufft, name)
    options: dict[str, Any] = {"eps": EPS, **({"n_modes": modes} if kind == 1 else {})}
    problems = [problem(dim, count, modes, kind, dtype, seed) for seed in range(6)]
    one = problems[0]
    plan = finufft.Plan(kind, dim if kind == 3 else modes, 1, EPS, dtype=dtype)
    plan.setpts(*one[:dim], *[None] * (3 - dim), *one[dim + 1 :])
    first = paired(
        {"ours": fresh(ours, problems, options), "finufft": fresh(theirs, problems, options)}, rounds=ROUNDS, warm=2
    )
    again = paired(
        {
            "ours": lambda: ours(*one, **options),
            "finufft": lambda: theirs(*one, **options),
            "plan": lambda: plan.execute(one[dim]),
        },
        rounds=ROUNDS,
    )
    return {
        "transform": name, "dtype": dtype, "points": count, "modes": list(modes), "eps": EPS,
        "kernel": ac.explain(ours, *one, **options).chosen.name,
        "first": {k: summary(v) for k, v in first.items()},
        "again": {k: summary(v) for k, v in again.items()},
        "speedup_first": ratio(first["finufft"], first["ours"]),
        "speedup_again": ratio(again["finufft"], again["ours"]),
        "over_plan": ratio(again["ours"], again["plan"]),
    }  # fmt: skip


def table(figures: list[dict[str, Any]]) -> str:
    lines = [
        f"{'transform':10s} {'dtype':10s} {'points':>8s} {'modes':>12s}  {'finufft':>9s} {'ours':>9s} {'again':>9s}"
        "   first   again  /plan  kernel"
    ]
    for row in figures:
        modes = "x".join(map(str, row["modes"]))
        times = [row["first"]["finufft"], row["first"]["ours"], row["again"]["ours"]]
        cells = " ".join(f"{1e3 * t['median']:7.1f}ms" for t in times)
        ratios = " ".join(f"{row[k]['median']:6.2f}x" for k in ("speedup_first", "speedup_again", "over_plan"))
        what = f"{row['transform']:10s} {row['dtype']:10s} {row['points']:8d} {modes:>12s}"
        lines.append(f"{what}  {cells} {ratios}  {row['kernel']}")
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore", NoProfileWarning)
    small = "--small" in sys.argv
    if small:
        sys.argv.remove("--small")
    found = list(rows([size for size in SIZES if not small or size[1] <= 100_000]))
    publish("nufft", {"rounds": ROUNDS, "rows": found}, table(found))
