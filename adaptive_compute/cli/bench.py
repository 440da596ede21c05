"""``adaptive bench``: how often the router is wrong, and what a call costs besides its work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .output import AsJson, note, print_json, print_table
from .profile import progress

app = typer.Typer(no_args_is_help=True, help="Check this library's own claims on this machine.")
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the random sizes or data.")]

POINTS = 256
ROUNDS, CALLS = 200, 50


@app.command("regret")
def regret_command(
    seed: Seed = 0,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="Requests to judge.")] = 100,
    home: Annotated[
        list[str] | None,
        typer.Option("--home", metavar="PLACE", help="Where operands are: a device, or 'mixed DEVICE'. Repeatable."),
    ] = None,
    op: Annotated[
        list[str] | None, typer.Option("--op", metavar="NAME", help="Only this operation; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time every candidate on sizes that were not profiled: time of the chosen kernel / time of the fastest one.

    Beside it the same for simple rules: always the CPU, always the GPU, and the best size threshold there is.
    """
    from ..core.dispatcher import dispatcher
    from ..core.errors import ProfileError
    from ..core.regret import regret
    from ..report.stored import keep

    if not dispatcher.profile.sections:
        raise ProfileError("there is no valid profile to judge; `adaptive profile` measures one")
    with progress() as report:
        result = regret(dispatcher, count=count, seed=seed, operations=op or None, homes=home or None, report=report)
    if as_json:
        print_json(result.as_dict())
    else:
        print(result)
    if not (op or home):  # part of the operations or places is no judgement of the profile
        note(f"kept in {keep(dispatcher.profile_path(), dispatcher.profile, result.as_dict())} for `adaptive report`")


@app.command("overhead")
def overhead_command(seed: Seed = 0, as_json: AsJson = False) -> None:
    """Time a warm ac.fft of 256 complex points against scipy.fft.fft and against the chosen kernel called directly."""
    result = overhead(seed)
    if as_json:
        print_json(result)
        return
    print(f"fft of {result['points']} complex128 points, {result['rounds']} rounds of {result['calls']} calls each")
    print_table(
        ("call", "median"),
        [
            ("ac.fft", f"{result['ours_us']:.2f} us"),
            ("scipy.fft.fft", f"{result['scipy_us']:.2f} us"),
            (f"{result['kernel']}, called directly", f"{result['kernel_us']:.2f} us"),
        ],
        right=("median",),
    )
    for name, text in (("over_scipy", "scipy.fft.fft"), ("over_kernel", "the kernel itself")):
        low, high = result[f"{name}_us_quartiles"]
        print(f"ac.fft - {text}: {result[f'{name}_us']:+.2f} us (half of the rounds within {low:+.2f} .. {high:+.2f})")


def overhead(seed: int = 0) -> dict[str, Any]:
    """Measure what a warm call costs besides its work.

    The three calls are timed in turn within each round, and differences are taken within a round, so that a machine
    whose speed drifts does not favour one of them. Times are microseconds a call.
    """
    import numpy as np
    import scipy.fft

    from ..core import settings as _settings
    from ..core.dispatcher import dispatcher
    from ..core.operations.fft import fft

    parts = np.random.default_rng(seed).standard_normal((POINTS, 2))
    x = parts.view(complex)[:, 0].copy()
    decision = dispatcher.explain(fft, x)
    engine = dispatcher.entry(decision.request, _settings.current()).call
    calls = {"ours": fft, "scipy": scipy.fft.fft, "kernel": engine}
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(-10, ROUNDS):  # the first rounds only warm up
        for name in names[turn % 3 :] + names[: turn % 3]:
            seconds = _seconds(calls[name], x)
            if turn >= 0:
                times[name].append(seconds * 1e6)
    result: dict[str, Any] = {
        "points": POINTS, "rounds": ROUNDS, "calls": CALLS, "seed": seed, "kernel": decision.chosen.name,
    }  # fmt: skip
    result |= {f"{name}_us": statistics.median(samples) for name, samples in times.items()}
    for other in ("scipy", "kernel"):
        differences = [ours - theirs for ours, theirs in zip(times["ours"], times[other])]
        low, middle, high = statistics.quantiles(differences, n=4)
        result |= {f"over_{other}_us": middle, f"over_{other}_us_quartiles": [low, high]}
    return result


def _seconds(call: Callable[[Any], Any], x: Any) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call(x)
    return (time.perf_counter() - start) / CALLS
