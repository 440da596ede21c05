"""Whole pipelines against the same functions routed call by call, host data in and out, round by round.

    python -m benchmarks.pipeline [--profile FILE] [--budget SECONDS] [--count N] [--only PARTS] [--output FILE]

Parts: ``convolution`` and ``gradients`` (ten steps of conjugate gradients on E^H E of a nonuniform FFT) against the
best of routing call by call and of either device alone; ``random`` (50 functions made at random) against routing;
``overhead`` (small arrays, hand-written calls) and ``fusing`` (element-wise neighbours) on the processor. Each result
is compared with the one call by call, which its own conformance suite compares with float64 references.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_compute as ac
from adaptive_compute import dispatcher
from adaptive_compute.core.errors import AdaptiveWarning, ProfileError
from adaptive_compute.core.profile import Profile
from benchmarks.pipeline_profile import measured
from benchmarks.record import machine

OPERATIONS = ("elementwise", "reduce", "fft", "nufft")
RNG = np.random.default_rng(0)
started = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - started:5.1f}] {text}", flush=True)


def in_turn(calls: Mapping[str, Callable[[], Any]], seconds: float, least: int = 5, most: int = 201) -> dict[str, Any]:
    """Time calls in turn, the first round dropped, for about so long and at least three rounds; return every sample."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for turn in range(most + 1):
        for name in list(calls)[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            kept = calls[name]()
            if turn:
                samples[name].append(time.perf_counter() - start)
            del kept
        if turn == 0 and time.perf_counter() - begin > seconds / least:
            least = 3
        if time.perf_counter() - begin > seconds and turn >= least:
            break
    return samples


def ratio(samples: dict[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    """Return the median and quartiles of one call's time over another's, round by round."""
    pairs = [a / b for a, b in zip(samples[slow], samples[fast])]
    low, median, high = statistics.quantiles(pairs, n=4)
    return {"median": median, "lower_quartile": low, "upper_quartile": high}


def difference(a: Any, b: Any) -> float:
    """Return the largest relative L2 difference between two results."""
    parts = zip(a, b) if isinstance(a, tuple) else ((a, b),)
    return max(float(np.linalg.norm(x - y) / (np.linalg.norm(y) or 1.0)) for x, y in parts)


def rows(pipeline: Any, *arguments: Any) -> list[str]:
    placement = pipeline.explain(*arguments)
    return str(placement).splitlines()


def against_calls(function: Any, arguments: tuple[Any, ...], seconds: float, keep: bool = False) -> dict[str, Any]:
    """Time a function placed as a whole, routed call by call, and on each device alone."""
    recorded = ac.pipeline(function, keep=keep)
    result, expected = recorded(*arguments), function(*arguments)
    calls: dict[str, Callable[[], Any]] = {
        "pipeline": lambda: recorded(*arguments), "routed": lambda: function(*arguments)
    }  # fmt: skip
    for device in dispatcher.profile.sections:
        if dispatcher.registry.backend_of(device).software(device):
            continue

        def alone(device: str = device) -> Any:
            with ac.using(device=device):
                return function(*arguments)

        calls[device] = alone
    samples = in_turn(calls, seconds)
    typical = {name: statistics.median(times) for name, times in samples.items()}
    best = min((name for name in typical if name != "pipeline"), key=lambda name: typical[name])
    return {
        "seconds": typical, "best_call_by_call": best, "rounds": len(samples["pipeline"]),
        "over_best": ratio(samples, best, "pipeline"), "over_routed": ratio(samples, "routed", "pipeline"),
        "predicted": recorded.explain(*arguments).seconds, "difference": difference(result, expected),
        "placement": rows(recorded, *arguments),
    }  # fmt: skip


def shown(name: str, figures: dict[str, Any]) -> None:
    times = ", ".join(f"{n} {1e3 * s:.3g} ms" for n, s in figures["seconds"].items())
    say(
        f"{name}: {times}; {figures['over_best']['median']:.2f}x the best call by call "
        f"({figures['best_call_by_call']}), {figures['over_routed']['median']:.2f}x routed; "
        f"predicted {1e3 * (figures['predicted'] or 0):.3g} ms; difference {figures['difference']:.1e}"
    )


# FFT convolution


def convolve(x: Any, spectrum: Any) -> Any:
    """Filter an image by a transfer function."""
    return ac.irfft2(ac.multiply(ac.rfft2(x), spectrum))


def convolve_both(x: Any, kernel: Any) -> Any:
    """Convolve two images periodically."""
    return ac.irfft2(ac.multiply(ac.rfft2(x), ac.rfft2(kernel)))


def convolution(seconds: float) -> dict[str, Any]:
    found = {}
    for side in (1024, 2048, 4096):
        x = RNG.standard_normal((side, side), np.float32)
        kernel = RNG.standard_normal((side, side), np.float32) / side
        spectrum = ac.rfft2(kernel)
        kept = spectrum.copy()
        kept.flags.writeable = False
        cases: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "two images": (convolve_both, (x, kernel)),
            "spectrum given": (convolve, (x, spectrum)),
            "spectrum captured, read-only": (captured_filter(kept), (x,)),
        }
        for name, (function, arguments) in cases.items():
            figures = against_calls(function, arguments, seconds / 9)
            found[f"{name}, {side} x {side} float32"] = figures
            shown(f"convolution, {name}, {side}", figures)
    return found


def captured_filter(spectrum: np.ndarray) -> Any:
    def filtered(x: Any) -> Any:
        return ac.irfft2(ac.multiply(ac.rfft2(x), spectrum))

    return filtered


# Conjugate gradients


def solver(eps: float, steps: int) -> Any:
    """Return ten steps of conjugate gradients for E^H W E x = b, E a nonuniform FFT of type 2."""

    def normal(px: Any, py: Any, weights: Any, p: Any) -> Any:
        samples = ac.nufft.nufft2d2(px, py, p, eps=eps, isign=-1)
        return ac.nufft.nufft2d1(px, py, ac.multiply(samples, weights), p.shape, eps=eps, isign=1)

    def solve(px: Any, py: Any, weights: Any, b: Any) -> Any:
        x = ac.multiply(b, 0)
        r = p = b
        old = ac.sum(ac.square(ac.absolute(r)))
        for _ in range(steps):
            q = normal(px, py, weights, p)
            step = ac.divide(old, ac.sum(ac.real(ac.multiply(ac.conj(p), q))))
            x = ac.evaluate("x + s*p", x=x, s=step, p=p)
            r = ac.evaluate("r - s*q", r=r, s=step, q=q)
            new = ac.sum(ac.square(ac.absolute(r)))
            p = ac.evaluate("r + n/o*p", r=r, n=new, o=old, p=p)
            old = new
        return x

    return solve


def gradients(seconds: float) -> dict[str, Any]:
    found = {}
    for points, side in ((100_000, 128), (300_000, 256), (1_000_000, 512)):
        px, py = RNG.uniform(-np.pi, np.pi, (2, points)).astype(np.float32)
        weights = RNG.uniform(0.5, 1.5, points).astype(np.float32) / points
        b = (RNG.standard_normal((side, side)) + 1j * RNG.standard_normal((side, side))).astype(np.complex64)
        figures = against_calls(solver(1e-5, 10), (px, py, weights, b), seconds / 3)
        figures["placement"] = figures["placement"][:14]
        found[f"{points} points, {side} x {side} modes, eps 1e-5, complex64"] = figures
        shown(f"conjugate gradients, {points} points, {side} x {side}", figures)
    return found


# Random functions


def spectral(x: Any, y: Any) -> Any:
    return ac.irfft(ac.multiply(ac.rfft(x), ac.rfft(y)), n=x.shape[-1])


def joined(x: Any, y: Any) -> Any:
    return ac.tanh(ac.add(ac.multiply(x, y), x))


def normalised(x: Any, y: Any) -> Any:
    return ac.divide(x, ac.add(ac.norm(x, axis=-1, keepdims=True), 1.0))


def smooth(x: Any, y: Any) -> Any:
    return ac.multiply(ac.real(ac.ifft(ac.fft(x))), ac.exp(ac.negative(ac.square(y))))


def centred(x: Any, y: Any) -> Any:
    return ac.subtract(x, ac.mean(y))


PARTS = (spectral, joined, normalised, smooth, centred)


def random_function(rng: np.random.Generator) -> Any:
    """Return a function of two arrays made of two to seven parts, each on the latest value and any other one."""
    count = int(rng.integers(2, 8))
    chosen = tuple(int(i) for i in rng.integers(0, len(PARTS), count))
    reads = tuple((0 if k == 0 else k + 1, int(rng.integers(0, k + 2))) for k in range(count))

    def function(x: Any, y: Any) -> Any:
        values = [x, y]
        for index, (a, b) in zip(chosen, reads):
            values.append(PARTS[index](values[a], values[b]))
        return values[-1]

    return function, [PARTS[i].__name__ for i in chosen]


def randoms(count: int, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    outcomes = []
    for number in range(count):
        function, parts = random_function(rng)
        size = 2.0 ** rng.uniform(10, 22.5)
        last = int(2.0 ** rng.uniform(5, 12))
        shape = (max(int(size / last), 1), last)
        dtype = str(rng.choice(["float32", "float64"], p=[0.7, 0.3]))
        x, y = (rng.uniform(0.1, 1.0, shape).astype(dtype) for _ in range(2))
        recorded = ac.pipeline(function)
        result, expected = recorded(x, y), function(x, y)
        calls = {"pipeline": lambda: recorded(x, y), "routed": lambda: function(x, y)}
        samples = in_turn(calls, seconds / count, 7)
        again = ratio(samples, "routed", "pipeline")["median"] < 1 / 1.03
        if again:  # longer, to tell a slow placement from a disturbance; what comes of that counts
            samples = in_turn(calls, max(0.6, 5 * seconds / count), 15)
        placement = recorded.explain(x, y)
        outcome = {
            "parts": parts, "shape": list(shape), "dtype": dtype,
            "seconds": {name: statistics.median(times) for name, times in samples.items()},
            "rounds": len(samples["pipeline"]), "over_routed": ratio(samples, "routed", "pipeline"),
            "predicted": {"pipeline": placement.seconds, "routed": placement.greedy_seconds},
            "devices": sorted({step["device"] for step in placement.steps if "run" in step}),
            "difference": difference(result, expected), "timed_again": again,
        }  # fmt: skip
        outcomes.append(outcome)
        gain = outcome["over_routed"]["median"]
        say(
            f"random {number:2d} {dtype}{list(shape)} {'+'.join(parts)}: routed "
            f"{1e3 * outcome['seconds']['routed']:.3g} ms (predicted {1e3 * (placement.greedy_seconds or 0):.3g}), "
            f"pipeline {1e3 * outcome['seconds']['pipeline']:.3g} ms ({1e3 * (placement.seconds or 0):.3g}) on "
            f"{','.join(outcome['devices'])}: {gain:.2f}x, difference {outcome['difference']:.0e}"
        )
        if gain < 0.97:
            print("\n".join(rows(recorded, x, y)), flush=True)
    gains = sorted(o["over_routed"]["median"] for o in outcomes)
    figures = {
        "count": len(gains), "slowest": gains[0], "median": statistics.median(gains), "fastest": gains[-1],
        "slower_by_more_than_3_percent": sum(gain < 1 / 1.03 for gain in gains), "outcomes": outcomes,
    }  # fmt: skip
    say(
        f"random: {figures['count']} functions, routed / pipeline: slowest {gains[0]:.3f}, median "
        f"{figures['median']:.2f}, fastest {gains[-1]:.2f}; slower by more than 3 %: "
        f"{figures['slower_by_more_than_3_percent']}"
    )
    return figures


# On the processor alone


def overhead() -> dict[str, Any]:
    """Time small functions: what a pipeline costs a call, beside the same calls by hand."""
    x, y = RNG.standard_normal((2, 256)).astype(np.float32)
    spectrum = ac.rfft(y)

    def one(x: Any) -> Any:
        return ac.rfft(x)

    def three(x: Any, spectrum: Any) -> Any:
        return ac.irfft(ac.multiply(ac.rfft(x), spectrum))

    def nine(x: Any, spectrum: Any) -> Any:
        for _ in range(3):
            x = ac.irfft(ac.multiply(ac.rfft(x), spectrum))
        return x

    found: dict[str, Any] = {}
    with ac.using("cpu"):
        for name, function, arguments in (
            ("1 operation", one, (x,)), ("3 operations", three, (x, spectrum)), ("9 operations", nine, (x, spectrum)),
        ):  # fmt: skip
            recorded = ac.pipeline(function)
            samples = in_turn(
                {
                    "pipeline": lambda f=recorded, a=arguments: [f(*a) for _ in range(20)],
                    "by hand": lambda f=function, a=arguments: [f(*a) for _ in range(20)],
                },
                1.0, 50, 400,
            )  # fmt: skip
            each = {n: statistics.median(t) / 20 for n, t in samples.items()}
            found[name] = {"seconds": each, "difference_us": 1e6 * (each["pipeline"] - each["by hand"])}
            say(
                f"overhead, {name}: by hand {1e6 * each['by hand']:.2f} us, pipeline {1e6 * each['pipeline']:.2f} us, "
                f"difference {found[name]['difference_us']:+.2f} us"
            )
    return found


def chain(a: Any, b: Any) -> Any:
    """Six element-wise calls."""
    return ac.add(ac.multiply(a, b), ac.multiply(ac.sin(a), ac.exp(ac.negative(b))))


def fusing() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size in (1 << 12, 1 << 16, 1 << 20, 1 << 24):
        a, b = RNG.uniform(0.1, 0.9, (2, size)).astype(np.float32)
        recorded = ac.pipeline(chain)
        with ac.using("cpu"):
            calls = {
                "pipeline": lambda: recorded(a, b), "by hand": lambda: chain(a, b),
                "evaluate": lambda: ac.evaluate("a*b + sin(a)*exp(-b)", a=a, b=b),
            }  # fmt: skip
            samples = in_turn(calls, 1.5, 5)
        name = f"{size} float32"
        found[name] = {
            "seconds": {n: statistics.median(t) for n, t in samples.items()},
            "gain": ratio(samples, "by hand", "pipeline"),
            "of_evaluate": ratio(samples, "pipeline", "evaluate"),
        }
        say(
            f"fusing, {name}: six calls {1e3 * found[name]['seconds']['by hand']:.3g} ms, pipeline "
            f"{1e3 * found[name]['seconds']['pipeline']:.3g} ms: {found[name]['gain']['median']:.2f}x; "
            f"{found[name]['of_evaluate']['median']:.2f}x the time of evaluate"
        )
    return found


def _measured(profile: Profile, device: str, operation: str) -> bool:
    return device in profile.sections and bool(profile.sections[device].kernels.get(operation))


def profiled(path: str | None, budget: float, backends: str) -> dict[str, Any]:
    """Use the profile of a file where it holds for this machine, else measure what is needed."""
    profile = None
    registry = dispatcher.registry
    wanted = [d for d in registry.devices() if not backends or d.partition(":")[0] in backends.split(",")]
    if path:
        try:
            profile = Profile.load(Path(path))
            here = {d: registry.backend_of(d).validators(d) for d in registry.devices() if d in profile.sections}
            profile.validate(here)
            lacking = [f"{o} on {d}" for d in wanted for o in OPERATIONS if not _measured(profile, d, o)]
            if lacking:
                say(f"the profile in {path} does not hold or lacks {', '.join(lacking)}: {profile.stale}")
                profile = None
        except ProfileError as error:
            say(str(error))
    source = path if profile else f"measured within {budget} s"
    if profile is None:
        names = backends.split(",") if backends else list(registry.backends())
        profile = measured(registry, names, budget)
    dispatcher.use_profile(profile)
    say(f"profile: {source}: {list(profile.sections)}, {profile.facts}")
    for device, section in profile.sections.items():
        counts = {o: {k: sum(map(len, c.values())) for k, c in ks.items()} for o, ks in section.kernels.items()}
        say(f"  {device}: {counts}")
    return {"source": source, "devices": list(profile.sections), **profile.facts}


def gpu_name() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", help="file of a profile to use")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for a profile where none is given")
    parser.add_argument("--backends", default="", help="backends to profile, by default all")
    parser.add_argument("--count", type=int, default=50, help="random functions")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each part, about")
    parser.add_argument("--only", default="convolution,gradients,random", help="parts to run")
    parser.add_argument("--output", help="file of the record, written after each part")
    options = parser.parse_args()
    warnings.simplefilter("ignore", AdaptiveWarning)
    record: dict[str, Any] = {
        "benchmark": "pipeline",
        "command": shlex.join(["python", "-m", "benchmarks.pipeline", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "figures": {},
    }
    only = options.only.split(",")
    if {"convolution", "gradients", "random"} & set(only):
        record["profile"] = profiled(options.profile, options.budget, options.backends)
    record["machine"]["gpu"] = gpu_name()
    parts: dict[str, Callable[[], Any]] = {
        "convolution": lambda: convolution(options.seconds), "gradients": lambda: gradients(options.seconds),
        "random": lambda: randoms(options.count, options.seconds), "overhead": overhead, "fusing": fusing,
    }  # fmt: skip
    for name in parts:
        if name in only:
            record["figures"][name] = parts[name]()
            if options.output:
                Path(options.output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
