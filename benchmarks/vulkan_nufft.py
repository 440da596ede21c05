"""Claim: NUFFTs in Vulkan shaders are as fast as cuFINUFFT's, with the same bits every run.

Random points, single precision, points known and on the device (what cuFINUFFT calls execute); GPU time by timestamps
(Vulkan, also by stage) and CUDA events (cuFINUFFT's fastest method, where it is installed), medians after warm-up.
Every result is checked first: relative L2 of some outputs against the direct sum in float64. ``--search`` times other
tiles, depths and bins.

    python -m benchmarks.vulkan_nufft [--points 10000000] [--search] [--quick] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_compute.backends.vulkan import nufft_grid, nufft_steps
from adaptive_compute.backends.vulkan.array import upload
from adaptive_compute.backends.vulkan.nufft import NufftPlan, VulkanNUFFT
from adaptive_compute.backends.vulkan.nufft_places import periodic
from adaptive_compute.backends.vulkan.nufft_programs import grids_of, width_of
from adaptive_compute.backends.vulkan.program import Builder
from adaptive_compute.backends.vulkan.runtime import State, runtime
from adaptive_compute.core.array import Operand
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.nufft_rule import FAMILY, NufftParams, points_of
from benchmarks.record import machine

DEVICE = "vulkan:0"
CHECKED = 12  # outputs
CASES = [  # dimension, type, eps
    (2, 1, 1e-4), (2, 1, 1e-6), (3, 1, 1e-4), (2, 2, 1e-4), (2, 2, 1e-6), (3, 2, 1e-4), (3, 2, 1e-6), (3, 1, 1e-6),
    (1, 1, 1e-6), (1, 2, 1e-6),
]  # fmt: skip
TILES = {
    1: [(32, 1, 1), (64, 1, 1)],
    2: [(8, 4, 4), (16, 2, 4), (4, 8, 4)],
    3: [(8, 4, 8), (4, 8, 8), (8, 8, 8)],
}
BINS = {
    1: [(3,), (2,), (4,), (5,)],
    2: [(2, 2), (1, 1), (1, 2), (3, 2)],
    3: [(2, 2, 2), (1, 2, 2), (1, 1, 2), (1, 1, 1)],
}
LANES = {1: [1, 2, 8], 2: [1, 2, 4, 8], 3: [1, 2, 4, 8]}
# cuFINUFFT's own choices beside its defaults; what a version does not take is left out.
RIVAL_BINS = {
    1: [(1024,), (256,)],
    2: [(16, 16), (32, 32), (64, 32)],
    3: [(8, 8, 4), (16, 16, 2), (8, 8, 8), (16, 16, 4)],
}
Variant = dict[str, Any]


def modes_of(dim: int, points: int) -> tuple[int, ...]:
    """As many modes as points in one dimension, a tenth in two, four fifths in three."""
    if dim == 1:
        return (points,)
    return (
        (max(round((points * 0.105) ** 0.5), 2),) * 2 if dim == 2 else (max(round((points * 0.8) ** (1 / 3)), 2),) * 3
    )


def problem(dim: int, kind: int, eps: float, count: int) -> tuple[Request, list[np.ndarray]]:
    """Return a request and its operands on the host."""
    rng = np.random.default_rng(dim)
    modes = {10**7: {1: (10**7,), 2: (1024, 1024), 3: (200, 200, 200)}}.get(count, {}).get(dim) or modes_of(dim, count)
    points = [((rng.random(count, np.float32) * 2 - 1) * np.float32(3.1415925)).astype(np.float32) for _ in range(dim)]
    shape = modes if kind == 2 else (count,)
    values = (rng.random((*shape, 2), np.float32) - np.float32(0.5)).view(np.complex64)[..., 0]
    operands = (Operand(shape, "complex64", DEVICE, "vulkan"), *[Operand((count,), "float32", DEVICE, "vulkan")] * dim)
    params = NufftParams(kind, dim, modes, 1, 1 if kind == 1 else -1, 0, eps)
    return Request(FAMILY, operands, params, None, 1), [values, *points]


def error(request: Request, arrays: list[np.ndarray], result: np.ndarray) -> float:
    """Return the relative L2 error of some outputs against the direct sum in float64."""
    p: NufftParams = request.params
    data, points = arrays[0], arrays[1:]
    rng = np.random.default_rng(1)
    axes = [np.arange(-(n // 2), (n + 1) // 2) for n in p.n_modes]
    exact = []
    if p.type == 1:
        keep = [tuple(int(rng.integers(n)) for n in p.n_modes) for _ in range(CHECKED)]
        exact = [_sum(data, points, [axis[i] for axis, i in zip(axes, index)], p.isign) for index in keep]
        found = np.array([result[index] for index in keep])
    else:
        chosen = rng.integers(len(points[0]), size=CHECKED)
        for j in chosen:
            waves = [np.exp(1j * p.isign * float(x[j]) * axis) for x, axis in zip(points, axes)]
            total = data.astype(np.complex128)
            for wave in waves[::-1]:
                total = total @ wave
            exact.append(complex(total))
        found = result[chosen]
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _sum(data: np.ndarray, points: list[np.ndarray], k: list[int], sign: int) -> complex:
    try:
        import torch

        if torch.cuda.is_available():
            phase = sum(sign * float(n) * torch.from_numpy(x).cuda().double() for n, x in zip(k, points))
            return complex((torch.polar(torch.ones_like(phase), phase) * torch.from_numpy(data).cuda()).sum())
    except ImportError:
        pass
    phase = sum(sign * float(n) * x.astype(np.float64) for n, x in zip(k, points))
    return complex(np.dot(np.exp(1j * np.asarray(phase)), data))


@contextmanager
def changed(dim: int, width: int, variant: Variant) -> Iterator[None]:
    """Build programs with other tiles, bins or lanes inside the block."""
    tables = {
        "tile": (nufft_grid.TILES, dim), "bins": (nufft_grid.BINS, (dim, width)), "lanes": (nufft_steps.LANES, dim),
        "batches": (nufft_steps.BATCHES, dim),
    }  # fmt: skip
    kept = {name: tables[name][0][tables[name][1]] for name in variant}
    for name, value in variant.items():
        tables[name][0][tables[name][1]] = value
    try:
        yield
    finally:
        for name, value in kept.items():
            tables[name][0][tables[name][1]] = value


def stages(plan: NufftPlan, memory: list[Any], again: bool, repeats: int) -> dict[str, float]:
    """Return median milliseconds by shader, and of the whole, known points or new ones."""
    program = plan.programs.again if again else plan.programs.fresh
    used = memory[:1] if again else memory
    plan.runtime.gpu_step_seconds(program, used, plan.state, 2)
    runs = plan.runtime.gpu_step_seconds(program, used, plan.state, repeats)
    totals = plan.runtime.gpu_seconds(program, used, plan.state, repeats)
    found: dict[str, float] = {}
    for number, step in enumerate(program.steps):
        name = step.shader.split("_")[0] if step.shader.startswith(("fft", "sort")) else step.shader.split("_")[1]
        found[name] = found.get(name, 0.0) + 1e3 * statistics.median(run[number] for run in runs)
    return {"total": 1e3 * statistics.median(totals), "steps": float(len(program.steps)), **found}


def clustered(plan: NufftPlan, arrays: list[Any], repeats: int) -> float:
    """Return median milliseconds with all points in one place, known."""
    close = [arrays[0], *[upload(np.full(a.shape, 0.7, np.float32), DEVICE) for a in arrays[1:]]]
    return 1e3 * statistics.median(plan.gpu_seconds(*close, repeats=repeats))


def main_step(request: Request, memory: list[Any], repeats: int) -> tuple[float, np.ndarray]:
    """Return median milliseconds of spreading, or of interpolation from a grid of ones, and a part of its result."""
    owner, p = runtime(DEVICE), request.params
    (grid,) = grids_of(p)
    count = points_of(request)
    made = []
    for fresh in (True, False):
        b = Builder()
        data = b.operand(0, request.first.nbytes)
        points = nufft_steps.points_of(b, grid, count, 0, spreads=p.type == 1)
        if fresh:
            coordinates = [b.operand(1 + n, 4 * count) for n in range(p.dim)]
            nufft_steps.make_ready(b, grid, points, coordinates, b.table(periodic(p.dim)), turns=False)
        if p.type == 1:
            target = b.result(0, 8 * grid.total)
            nufft_steps.spread(b, grid, points, data, target, range(1), 1, turns=False)
        else:
            fine, target = b.scratch(8 * grid.total), b.result(0, 8 * count)
            nufft_steps.modes(b, grid, data, fine, p.n_modes, range(1), to_grid=True, order=0)
            nufft_steps.interpolate(b, grid, points, fine, target, range(1), 1, nufft_steps.LANES[p.dim], turns=False)
        made.append(b.program())
    state = State(owner)
    (result,) = owner.run_resident(made[0], memory, state)
    values = np.empty(made[0].results[0].nbytes // 4, np.float32)
    owner.download(result, values)
    owner.release(result)
    owner.gpu_step_seconds(made[1], memory[:1], state, 2)
    times = owner.gpu_step_seconds(made[1], memory[:1], state, repeats)
    state.close()
    for program in made:
        owner.forget(program)
    timed = [step.shader.startswith(("nufft_spread", "nufft_interpolate")) for step in made[1].steps]
    return 1e3 * statistics.median(sum(np.compress(timed, run)) for run in times), values[: 1 << 20]


def variants(dim: int, kind: int, width: int) -> Iterator[Variant]:
    """Yield what to try beside the defaults."""
    if kind == 2:
        yield from ({"lanes": lanes} for lanes in LANES[dim] if lanes != nufft_steps.LANES[dim])
    else:
        yield {"batches": 2}
        yield from ({"tile": tile} for tile in TILES[dim] if tile != nufft_grid.TILES[dim])
    yield from ({"bins": bins} for bins in BINS[dim] if bins != nufft_grid.BINS[dim, width])


def measure(dim: int, kind: int, eps: float, count: int, options: argparse.Namespace, until: float) -> dict[str, Any]:
    """Check and time one transform."""
    request, host = problem(dim, kind, eps, count)
    arrays = [upload(a, DEVICE) for a in host]
    memory = [a.memory for a in arrays]
    kernel = VulkanNUFFT(DEVICE)
    row: dict[str, Any] = {"transform": f"{dim}d{kind}", "eps": eps, "modes": list(request.params.n_modes)}
    plan = kernel.plan(request)
    assert isinstance(plan, NufftPlan)
    result = plan.run(*arrays).numpy()
    row["same_bits"] = bool(np.array_equal(result, plan.run(*arrays).numpy()))
    row["error"] = error(request, host, result)
    row["known"] = stages(plan, memory, True, options.repeats)
    row["new"] = stages(plan, memory, False, options.repeats)
    row["mpts"] = count / row["known"]["total"] / 1e3
    if kind == 1:
        row["one_place"] = clustered(plan, arrays, options.repeats)
    plan.close()
    row["variants"] = []
    first = None
    for variant in [{}, *variants(dim, kind, width_of(eps, dim))] if options.search else ():
        if time.perf_counter() > until:
            break
        with changed(dim, width_of(eps, dim), variant):
            milliseconds, values = main_step(request, memory, options.repeats)
        first = values if first is None else first
        off = float(np.linalg.norm(values - first) / np.linalg.norm(first))
        row["variants"].append({**variant, "milliseconds": milliseconds, "differs": off})
    row["cufinufft"] = rival(request, host, options.repeats)
    return row


def rival(request: Request, host: list[np.ndarray], repeats: int) -> dict[str, float]:
    """Return cuFINUFFT's median milliseconds of execute by method, where it can be used."""
    try:
        import cufinufft
        import torch
    except (ImportError, OSError):
        return {}
    if not torch.cuda.is_available():
        return {}
    p: NufftParams = request.params
    found = {}
    tensors = [torch.from_numpy(a).cuda() for a in host]
    shape = tuple(p.n_modes) if p.type == 1 else (len(host[1]),)
    out = torch.empty(shape, dtype=torch.complex64, device="cuda")

    def time(name: str, **options: int) -> None:
        try:
            plan = cufinufft.Plan(p.type, tuple(p.n_modes), 1, p.eps, p.isign, "complex64", **options)
            plan.setpts(*tensors[1:])
            times = _events(torch, lambda: plan.execute(tensors[0], out=out), repeats)
        except Exception as problem:  # a method that this version or dimension does not have
            print(f"# cufinufft {name}: {problem}")
            return
        found[name] = 1e3 * statistics.median(times)

    for method in (1, 2, 3) if p.type == 1 else (1, 2):
        time(f"method {method}", gpu_method=method)
    best = min(found, key=found.__getitem__, default="")
    for sizes in RIVAL_BINS[p.dim] if best else ():
        named = {f"gpu_binsize{axis}": size for axis, size in zip("xyz", sizes)}
        time(f"{best} bins {sizes}", gpu_method=int(best[-1]), **named)
    return found


def _events(torch: Any, call: Callable[[], Any], repeats: int) -> list[float]:
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return times


def table(rows: list[dict[str, Any]], count: int) -> str:
    """Return the figures as text."""
    lines = [f"{count} points; milliseconds of GPU time (medians); Mpts/s with known points"]
    for row in rows:
        known, new, other = row["known"], row["new"], row["cufinufft"]
        best = min(other.values()) if other else math.nan
        lines.append(
            f"{row['transform']} eps {row['eps']:.0e} {'x'.join(map(str, row['modes']))}: {known['total']:.3f} ms "
            f"{row['mpts']:.0f} Mpts/s, new points {new['total']:.3f} ms, cuFINUFFT {best:.3f} ms, "
            f"ratio {best / known['total']:.2f}, error {row['error']:.1e}, same bits {row['same_bits']}"
        )
        lines.append("    known " + _parts(known))
        lines.append("    new   " + _parts(new))
        if "one_place" in row:
            lines.append(f"    all points in one place {row['one_place']:.3f}")
        if other:
            lines.append("    cuFINUFFT " + ", ".join(f"{k} {v:.3f}" for k, v in other.items()))
        for variant in row["variants"]:
            name = ", ".join(f"{k} {v}" for k, v in variant.items() if k not in ("milliseconds", "differs"))
            lines.append(
                f"    {name or 'defaults'}: {variant['milliseconds']:.3f} ms, differs {variant['differs']:.0e}"
            )
    return "\n".join(lines)


def _parts(found: dict[str, float]) -> str:
    return " ".join(
        f"{name} {value:.3f}" if name != "steps" else f"({value:.0f} steps)" for name, value in found.items()
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=10**7)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--search", action="store_true", help="time variants as well")
    parser.add_argument("--quick", action="store_true", help="three transforms only")
    parser.add_argument("--seconds", type=float, default=55.0, help="begin nothing new after this long")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start, rows = time.perf_counter(), []
    cases = CASES[:3] if options.quick else CASES
    for number, (dim, kind, eps) in enumerate(cases):
        now = time.perf_counter()
        if now - start > options.seconds:
            print(f"# no time left for {dim}d{kind} at {eps}")
            continue
        share = now + 0.8 * (start + options.seconds - now) / (len(cases) - number)
        rows.append(measure(dim, kind, eps, options.points, options, share))
        runtime(DEVICE).trim()
        print(f"# {dim}d{kind} {eps}: {time.perf_counter() - now:.1f} s", flush=True)
        print(table(rows[-1:], options.points), flush=True)
    limits = runtime(DEVICE).limits
    record = {
        "benchmark": "vulkan_nufft", "command": f"python -m benchmarks.vulkan_nufft --points {options.points}",
        "date": datetime.now(UTC).date().isoformat(), "device": limits.name, "driver": limits.driver,
        "rival": f"cuFINUFFT {_version('cufinufft')}", "machine": machine(), "points": options.points, "rows": rows,
    }  # fmt: skip
    if options.output:
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{limits.name}, {limits.driver}")


if __name__ == "__main__":
    main()
