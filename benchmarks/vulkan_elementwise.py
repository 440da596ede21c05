"""Claim: fused expressions and reductions in Vulkan shaders run near the device's copy limit, beside CUDA's.

Resident float32 operands of ``--elements`` (2^26: 256 MiB each), GPU time by timestamps (Vulkan) and CUDA events over
several calls (torch), medians after warm-up. GB/s count what an expression must read and write; the copy is measured in
the same run, by this library's shader and by torch's device-to-device copy, and percentages are of the faster one.
Every result is checked first. Workgroup sizes, elements an invocation and the width of loads are varied as well.

    python -m benchmarks.vulkan_elementwise [--elements 67108864] [--budget 60] [--quick] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import elementwise as room
from adaptive_compute.backends.vulkan.array import upload
from adaptive_compute.backends.vulkan.runtime import runtime
from adaptive_compute.backends.vulkan.tuning import apply, tunables
from adaptive_compute.core.array import Operand
from adaptive_compute.core.expression import parse
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.elementwise_rule import FAMILY
from benchmarks.record import machine

CHECKED = 1 << 22  # elements compared with float64
# text, names, arrays that pass through memory, reference in float64
EXPRESSIONS: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    "positive(a)": (("a",), lambda a: a),
    "a*b + c": (("a", "b", "c"), lambda a, b, c: a * b + c),
    "a*b + sin(a)*exp(-b)": (("a", "b"), lambda a, b: a * b + np.sin(a) * np.exp(-b)),
    "a + b": (("a", "b"), lambda a, b: a + b),
    "a*b": (("a", "b"), lambda a, b: a * b),
    "sqrt(a*a + b*b)": (("a", "b"), lambda a, b: np.sqrt(a * a + b * b)),
    "tanh(a)*(1 - b)/3 + log(a*a + 1)": (("a", "b"), lambda a, b: np.tanh(a) * (1 - b) / 3 + np.log(a * a + 1)),
    "abs(a)**b": (("a", "b"), lambda a, b: np.abs(a) ** b),
    "gelu(a)": (("a",), lambda a: np.vectorize(_gelu)(a)),
}
ASKED = {"a*b + c": 0.95, "a*b + sin(a)*exp(-b)": 0.70}
VARIED = tuple(EXPRESSIONS)[:3]
# Text, dtype and layout: other ways to store operands, and operands that are repeated.
CASES = (
    ("a*b + c", "float16", "same"), ("a*b", "complex64", "same"), ("a + b", "int32", "same"),
    ("a > b", "float32", "same"), ("a*b + c", "float32", "row and column"),
    ("a*b + c", "float32", "odd row and column"), ("a*b + c", "float32", "blocks"),
)  # fmt: skip
REDUCTIONS = (
    ("sum", (1, 1), 1), ("max", (1, 1), 1), ("logsumexp", (1, 1), 1), ("norm", (1, 1), 1),
    ("sum", (8192, 1), 1), ("sum", (8192, 1), 0), ("logsumexp", (8192, 1), 1), ("norm", (1 << 20, 1), 1),
    ("sum", (1 << 20, 1), 1), ("sum", (1 << 20, 1), 0),
)  # fmt: skip


def _gelu(x: float) -> float:
    import math

    return x * (1 + math.erf(x / math.sqrt(2))) / 2


@contextmanager
def changed(device: str, local: int, each: int, words: bool) -> Iterator[None]:
    """Build programs with a workgroup size, quads an invocation, and single words instead of quads."""
    reading = room._reading

    def by_words(dispatch: Any, call: Any) -> Any:
        _, table = reading(dispatch, call)
        return 2, [(kind, room.GATHER if kind else 0, own) for kind, _, own in table]

    try:
        room._reading = by_words if words else reading
        apply(device, {"elementwise.local": local, "elementwise.each": each}, tunables([room]))
        yield
    finally:
        room._reading = reading
        apply(device, {}, {})


def variants() -> Iterator[tuple[str, tuple[int, int, bool]]]:
    for local in (64, 128, 256, 512):
        for each in (1, 2, 4):
            yield f"{local} x {each}", (local, each, False)
    yield "256 x 1, words", (256, 1, True)


class Bench:
    """Operands on both sides and the figures of one run."""

    def __init__(self, device: str, elements: int, rounds: int) -> None:
        self.device, self.elements, self.rounds = device, elements, rounds
        rng = np.random.default_rng(0)
        part = min(elements, (1 << 22) + 13)
        few = {name: rng.uniform(-3, 3, part).astype(np.float32) for name in ("a", "b", "c")}
        self.host = {name: np.resize(values, elements) for name, values in few.items()}
        self.there = {name: upload(values, device) for name, values in self.host.items()}
        self.torch = _torch()
        self.cuda = {} if self.torch is None else {n: self.torch.from_numpy(v).cuda() for n, v in self.host.items()}

    def request(self, text: str, names: tuple[str, ...]) -> Request:
        operands = tuple(Operand((self.elements,), "float32", self.device, "vulkan") for _ in names)
        return Request(FAMILY, operands, parse(text, names), None, 1)

    def expression(self, text: str, check: bool = True) -> dict[str, Any]:
        """Check and time one expression as things are set now."""
        names, exact = EXPRESSIONS[text]
        kernel = room.ElementwiseKernel(self.device)
        start = time.perf_counter()
        plan = kernel.plan(self.request(text, names))
        arrays = [self.there[name] for name in names]
        found: dict[str, Any] = {"shader": [step.shader for step in plan._program.steps]}
        if check:
            result = plan.run(*arrays)
            found["first_run"] = time.perf_counter() - start
            few = min(CHECKED if text != "gelu(a)" else 1 << 16, self.elements)
            got = result[self.elements - few :].numpy()
            wide = exact(*(self.host[name][self.elements - few :].astype(np.float64) for name in names))
            found["error"] = float(np.linalg.norm(got - wide) / np.linalg.norm(wide))
            del result
        seconds = plan.gpu_seconds(*arrays, repeats=self.rounds + 3)[3:]
        plan.close()
        nbytes = 4 * self.elements * (len(names) + 1)
        return found | {
            "gigabytes_per_second": 1e-9 * nbytes / statistics.median(seconds),
            "microseconds": 1e6 * statistics.median(seconds), "spread": max(seconds) / min(seconds),
        }  # fmt: skip

    def case(self, text: str, dtype: str, layout: str) -> dict[str, Any]:
        """Check and time an expression of another dtype or of repeated operands, on the bytes of the operands."""
        size = 4 * self.elements // np.dtype(dtype).itemsize
        if layout == "same":
            shapes: list[tuple[int, ...]] = [(size,)] * 3
        elif layout == "blocks":
            side = round(size ** (1 / 3)) & ~3
            shapes = [(side, side, side), (side, side), (side, 1, side)]
        else:
            side = int(size**0.5) & ~3
            side -= 1 if layout.startswith("odd") else 0
            shapes = [(side, side), (side,), (side, 1)]
        names = [name for name in ("a", "b", "c") if name in text]
        host = {}
        for name, shape in zip(names, shapes):
            count = int(np.prod(shape)) * (2 if dtype == "complex64" else 1)
            values = self.host[name][: min(count, self.elements)]
            values = values.view(dtype) if dtype == "complex64" else values.astype(dtype)
            host[name] = np.resize(values, shape)
        operands = tuple(Operand(x.shape, dtype, self.device, "vulkan") for x in host.values())
        request = Request(FAMILY, operands, parse(text, tuple(names)), None, 1)
        (result,) = FAMILY.result(request)
        plan = room.ElementwiseKernel(self.device).plan(request)
        arrays = [upload(x, self.device) for x in host.values()]
        made = plan.run(*arrays)
        error = FAMILY.error(request, tuple(host.values()), made.numpy())
        seconds = plan.gpu_seconds(*arrays, repeats=self.rounds + 3)[3:]
        plan.close()
        nbytes = sum(o.nbytes for o in (*operands, result))
        return {
            "expression": text, "dtype": dtype, "layout": layout, "error": error,
            "gigabytes_per_second": 1e-9 * nbytes / statistics.median(seconds),
        }  # fmt: skip

    def events(self, call: Callable[[], Any], repeats: int = 10) -> float:
        """Return the seconds of one call on CUDA, over several calls between two events; median of five."""
        times = []
        for _ in range(6):
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(repeats):
                call()
            end.record()
            self.torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3 / repeats)
        return statistics.median(times[1:])

    def copy(self) -> float | None:
        """Return GB/s of torch's device copy."""
        if self.torch is None:
            return None
        source, target = self.cuda["a"], self.torch.empty_like(self.cuda["a"])
        return 8e-9 * self.elements / self.events(lambda: target.copy_(source))

    def fused(self, text: str) -> float | None:
        """Return GB/s of this library's CUDA kernel for an expression."""
        if self.torch is None:
            return None
        names, _ = EXPRESSIONS[text]
        given = {name: self.cuda[name] for name in names}
        try:
            with ac.using(device="cuda:0"):
                seconds = self.events(lambda: ac.evaluate(text, **given))
        except Exception as error:  # CUDA's room may miss a library; the Vulkan figures stand alone then
            print(f"CUDA: {type(error).__name__}: {error}")
            return None
        return 4e-9 * self.elements * (len(names) + 1) / seconds

    def reduction(self, function: str, rows: int, axis: int, blocks: int | None = None) -> dict[str, Any]:
        """Check and time one reduction of a table, beside torch's; with other ``blocks`` only time it."""
        from adaptive_compute.backends.vulkan import reduce as reductions
        from adaptive_compute.core.operations.reduce_rule import FAMILY as REDUCE
        from adaptive_compute.core.operations.reduce_rule import ReduceParams

        shape = (rows, self.elements // rows)
        operand = Operand(shape, "float32", self.device, "vulkan")
        request = Request(REDUCE, (operand,), ReduceParams(function, (axis,), False), None, 1)
        array = self.there["a"]
        if blocks is not None:
            made = reductions.built(request, blocks)
            times = runtime(self.device).gpu_seconds(made, [array.memory], repeats=self.rounds + 3)[3:]
            return {"gigabytes_per_second": 4e-9 * self.elements / statistics.median(times)}
        plan = reductions.kernels(self.device)[0].plan(request)
        got = plan.run(array).numpy()
        error = REDUCE.error(request, (self.host["a"].reshape(shape),), got)
        seconds = plan.gpu_seconds(array, repeats=self.rounds + 3)[3:]
        plan.close()
        found = {
            "function": function, "shape": shape, "axis": axis, "error": error,
            "gigabytes_per_second": 4e-9 * self.elements / statistics.median(seconds),
            "microseconds": 1e6 * statistics.median(seconds), "spread": max(seconds) / min(seconds),
        }  # fmt: skip
        if self.torch is not None:
            x, torch = self.cuda["a"].reshape(shape), self.torch
            call = {
                "sum": lambda: torch.sum(x, axis), "max": lambda: torch.amax(x, axis),
                "logsumexp": lambda: torch.logsumexp(x, axis), "norm": lambda: torch.linalg.vector_norm(x, 2, axis),
            }[function]  # fmt: skip
            found["torch"] = 4e-9 * self.elements / self.events(call)
        return found


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=1 << 26)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds; variants stop there")
    parser.add_argument("--quick", action="store_true", help="2^20 elements, 3 rounds")
    parser.add_argument("--device", default="vulkan:0")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.elements, options.rounds = min(options.elements, 1 << 20), 3
    began = time.perf_counter()
    owner = runtime(options.device)
    bench = Bench(options.device, options.elements, options.rounds)
    record: dict[str, Any] = {
        "benchmark": "vulkan_elementwise", "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.vulkan_elementwise --elements {options.elements} --rounds {options.rounds} "
        f"--budget {options.budget:g}", "device": owner.limits.name,
        "driver": owner.limits.driver, "machine": machine(), "elements": options.elements, "torch_copy": bench.copy(),
        "expressions": {}, "variants": {}, "reductions": [],
    }  # fmt: skip

    def save() -> None:
        if options.output is not None:
            options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    copy = record["torch_copy"] or 0
    print(f"{owner.limits.name}: torch copy {copy:.0f} GB/s; set up in {time.perf_counter() - began:.1f} s", flush=True)
    failed = False
    for text in EXPRESSIONS:
        row = record["expressions"][text] = bench.expression(text)
        row["cuda"] = bench.fused(text)
        copy = max(copy, row["gigabytes_per_second"] if text == "positive(a)" else 0)
        row["of_copy"] = row["gigabytes_per_second"] / copy
        failed |= row["error"] > 1e-6
        asked = f" (asked {ASKED[text]:.0%})" if text in ASKED else ""
        print(
            f"{text:34s} {row['gigabytes_per_second']:7.1f} GB/s = {row['of_copy']:.1%} of the copy{asked}; CUDA "
            f"{row['cuda'] or 0:.0f}; error {row['error']:.1e}; first run {row['first_run'] * 1e3:.0f} ms; "
            f"x{row['spread']:.2f} {row['shader']}",
            flush=True,
        )
        save()
    record["cases"] = []
    for case in CASES:
        try:
            row = bench.case(*case)
        except Exception as error:  # what a device refuses is a finding, and the others go on
            print(f"{case}: {type(error).__name__}: {error}")
            continue
        record["cases"].append(row)
        print(
            f"{' '.join(case):40s} {row['gigabytes_per_second']:7.1f} GB/s = "
            f"{row['gigabytes_per_second'] / copy:.1%} of the copy; error {row['error']:.1e}",
            flush=True,
        )
        save()
    for function, (rows, _), axis in REDUCTIONS:
        if room.__spec__ is None or not _has_reductions():
            print("no reductions here")
            break
        try:
            row = bench.reduction(function, rows, axis)
        except Exception as error:  # what a device refuses is a finding, and the others go on
            print(f"{function} of {rows} rows over axis {axis}: {type(error).__name__}: {error}")
            continue
        failed |= row["error"] > 1e-6
        record["reductions"].append(row)
        print(
            f"{function} of {row['shape']} over axis {axis}: {row['gigabytes_per_second']:.0f} GB/s, torch "
            f"{row.get('torch') or 0:.0f}; error {row['error']:.1e}; x{row['spread']:.2f}",
            flush=True,
        )
        save()
    for text in VARIED:
        record["variants"][text] = {}
        for name, (local, each, words) in variants():
            if time.perf_counter() - began > options.budget:
                print("the time is spent; further variants are not measured")
                break
            if local > owner.limits.invocations:
                continue
            with changed(options.device, local, each, words):
                row = record["variants"][text][name] = bench.expression(text, check=False)
            print(f"{text:34s} {name:16s} {row['gigabytes_per_second']:7.1f} GB/s  x{row['spread']:.2f}", flush=True)
            save()
    for function, (rows, _), axis in REDUCTIONS:
        for blocks in (512, 1024, 4096, 8192):
            if time.perf_counter() - began < options.budget and _has_reductions():
                row = record["variants"][f"{function} {rows} {axis} {blocks}"] = bench.reduction(
                    function, rows, axis, blocks
                )
                print(f"{function} {rows} rows axis {axis} {blocks} blocks: {row['gigabytes_per_second']:.0f} GB/s")
    save()
    print(f"took {time.perf_counter() - began:.0f} s")
    return int(failed)


def _has_reductions() -> bool:
    from importlib.util import find_spec

    return find_spec("adaptive_compute.backends.vulkan.reduce") is not None


if __name__ == "__main__":
    sys.exit(main())
