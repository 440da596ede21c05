"""Where a training step's time goes: ``python -m benchmarks.byte_model.steps`` on a GPU, several ways of running it."""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .data import load
from .model import made
from .train import Recipe, Trainer

WAYS = {  # name: what the recipe says
    "eager": {"compiled": "none", "graph": False},
    "parts": {"compiled": "parts", "graph": False},
    "parts, graph": {"compiled": "parts", "graph": True},
    "blocks, graph": {"compiled": "blocks", "graph": True},
    "graph": {"compiled": "none", "graph": True},
}


def milliseconds(call: Callable[[], object], rounds: int = 8) -> float:
    """Return the mean time of a call on the GPU, the first two dropped."""
    call(), call()
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    first.record()
    for _ in range(rounds):
        call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / rounds


def parts(trainer: Trainer) -> dict[str, float]:
    """Return milliseconds of a step's parts, each timed by itself, and of the whole."""
    loss = [trainer.forward()]

    def forward() -> None:
        loss[0] = trainer.forward()

    def both() -> None:
        trainer.optimiser.zero_grad(set_to_none=True)
        trainer.forward().backward()

    both()
    found = {"data": milliseconds(lambda: trainer.read(0)), "forward": milliseconds(forward)}
    found["forward and backward"] = milliseconds(both)
    found["optimiser"] = milliseconds(trainer.update)
    return found


def kernels(trainer: Trainer, most: int = 14) -> list[tuple[str, float, int]]:
    """Return the kernels that take longest in one step: name, milliseconds, calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        trainer.step(1)
        torch.cuda.synchronize()
    rows = [(e.key[:90], e.self_device_time_total / 1e3, e.count) for e in profile.key_averages()]
    return sorted(rows, key=lambda row: -row[1])[:most]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.byte_model.steps")
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", nargs="+", default=["spectral", "transformer"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--out")
    options = parser.parse_args()
    text = load(options.data)["train"]
    began, found = time.perf_counter(), {}
    for way in options.ways:
        for kind in options.model:
            recipe = Recipe(steps=64, dropout=options.dropout, **WAYS[way])
            try:
                trainer = Trainer(made(kind, dropout=options.dropout), text, recipe, 0, "cuda:0")
                for step in range(5):
                    trainer.step(step)
                torch.cuda.synchronize()
                ready = time.perf_counter() - began
                row = {"step": milliseconds(partial(trainer.step, 7), 20)}
                if not recipe.graph:
                    row |= parts(trainer)
                row["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
                found[f"{kind}, {way}"] = row
                print(f"[{ready:5.1f}] {kind}, {way}:", {k: round(v, 2) for k, v in row.items()}, flush=True)
                if way in ("parts", "eager"):
                    for name, spent, calls in kernels(trainer):
                        print(f"      {spent:7.3f} ms {calls:4} x {name}", flush=True)
                del trainer
            except Exception:  # one way that does not work must not keep the others from being measured
                traceback.print_exc()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            if options.out:
                Path(options.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
