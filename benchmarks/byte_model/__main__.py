"""Train and score: ``python -m benchmarks.byte_model --help``."""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from adaptive_compute import nn as spectral

from ..record import machine
from .data import described, load
from .model import made
from .score import bits_per_byte, prefix_only
from .train import Recipe, Trainer


class Session:
    """The texts, the record, and how long there still is."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.began = options, time.perf_counter()
        self.until = self.began + options.time_limit
        self.device = options.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        self.texts = load(options.data)
        self.recipe = Recipe(**{f.name: getattr(options, f.name) for f in fields(Recipe)})
        on_gpu = self.device.startswith("cuda")
        self.record: dict[str, Any] = {
            "benchmark": "byte-model",
            "command": command(sys.argv[1:]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {**machine(), "device": torch.cuda.get_device_name() if on_gpu else "cpu"},
            "data": described(self.texts),
            "recipe": asdict(self.recipe),
            "scoring": {"window": self.recipe.length, "stride": options.stride, "precision": "float32"},
            "runs": [],
        }

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.began:6.1f}] {text}", flush=True)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.perf_counter()

    def model(self, kind: str) -> None:
        """Train one kind of model: the first seed by every recipe to be tried, the rest by the best of them.

        The best is the one with the lowest score on the validation text; the test text has no say.
        """
        seeds, tries, longest = self.options.seeds, self.options.try_ or [""], 0.0
        best: tuple[float, str] | None = None
        for place, changes in enumerate(tries):
            if place and self.left() < longest * len(seeds):
                self.say(f"{kind}: no time to try {changes or 'the recipe as it is'}")
                continue
            run = self.train(kind, seeds[0], changes)
            longest = max(longest, run["seconds"] + run["seconds_after"])
            best = min(best or (math.inf, ""), (run["valid"], changes))
        chosen = best[1] if best else ""
        for run in self.record["runs"]:
            if run["model"] == kind:
                run["chosen"] = run["changes"] == chosen
        for seed in seeds[1:]:
            if self.left() < longest:
                self.say(f"{kind}: no time for seed {seed}")
                continue
            run = self.train(kind, seed, chosen)
            longest = run["seconds"] + run["seconds_after"]  # without what the first had to compile

    def train(self, kind: str, seed: int, changes: str = "") -> dict[str, Any]:
        """Train and score one model, and write the record."""
        options, recipe = self.options, changed(self.recipe, changes)
        name = f"{kind}, seed {seed}" + (f", {changes}" if changes else "")
        shape = {name: getattr(options, name) for name in ("dim", "layers", "hidden")}
        model = made(kind, **shape, length=recipe.length, dropout=recipe.dropout, seed=seed)
        count = sum(p.numel() for p in model.parameters())
        self.say(f"{name}: {count:,} parameters")
        trainer = Trainer(model, self.texts["train"], recipe, seed, self.device)
        run = {"model": kind, "seed": seed, "changes": changes, "chosen": True, "parameters": count}
        run |= trainer.run(lambda text: self.say(f"{name}: {text}"), self.until)
        del trainer
        model = copy.deepcopy(model).float()  # without what torch.compile made for one shape
        scored = time.perf_counter()
        for part in ("test", "valid"):
            run[part] = bits_per_byte(model, self.texts[part], length=recipe.length, stride=options.stride)
        self.say(f"{name}: test {run['test']:.4f}, valid {run['valid']:.4f}, {run['seconds']:.1f} s")
        run["prefix"] = prefix_only(model, self.texts["test"], length=recipe.length)
        if not options.without_certificate:
            report = spectral.certify_causal(model, (2, options.certificate_length), vocabulary=256, seed=seed)
            run["certificate"] = report.as_dict()
            self.say(f"{name}: {report}; {run['prefix']}")
        run["seconds_after"] = time.perf_counter() - scored
        self.record["runs"].append(run)
        self.record["summary"] = summary(self.record["runs"])
        if options.out:
            Path(options.out).write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        return run


def main() -> None:
    session = Session(arguments())
    for kind in session.options.model:
        session.model(kind)
    print(json.dumps(session.record.get("summary", {}), indent=1))


def command(words: list[str]) -> str:
    """Return the command line, folders and files of this machine left out."""
    paths = ("--data", "--out")
    kept = [word for at, word in enumerate(words) if word not in paths and (at == 0 or words[at - 1] not in paths)]
    return " ".join(["python -m benchmarks.byte_model --data FOLDER", *kept])


def changed(recipe: Recipe, changes: str) -> Recipe:
    """Return a recipe with changes like ``rate=3e-3,dropout=0.2``."""
    found = dict(change.split("=") for change in changes.split(",") if change)
    kinds = {f.name: type(f.default) for f in fields(Recipe)}
    return replace(recipe, **{name: kinds[name](value) for name, value in found.items()})


def summary(runs: list[dict]) -> dict:
    """Return each model's scores over the seeds."""
    found = {}
    for kind in sorted({run["model"] for run in runs}):
        mine = [run for run in runs if run["model"] == kind and run["chosen"]]
        found[kind] = {
            "seeds": [run["seed"] for run in mine],
            "test_bits_per_byte": statistics.mean(run["test"] for run in mine),
            "worst_seed": max(run["test"] for run in mine),
            "best_seed": min(run["test"] for run in mine),
            "valid_bits_per_byte": statistics.mean(run["valid"] for run in mine),
            "seconds": statistics.mean(run["seconds"] for run in mine),
            "milliseconds_a_step": statistics.mean(run["milliseconds_a_step"] for run in mine),
            "causal": all(run["certificate"]["causal"] for run in mine if "certificate" in run),
        }
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.byte_model")
    parser.add_argument("--data", required=True, help="folder with {train,valid,test}.txt or .txt.xz")
    parser.add_argument("--model", nargs="+", default=["spectral", "transformer"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--try", dest="try_", nargs="+", help="changes to the recipe, the best on valid wins: dropout=0.2"
    )
    parser.add_argument("--time-limit", type=float, default=1e9, help="seconds after which nothing new is begun")
    parser.add_argument("--out", help="file for the record, written after every seed")
    parser.add_argument("--device", help="cuda:0 or cpu")
    parser.add_argument("--stride", type=int, default=512)
    parser.add_argument("--certificate-length", type=int, default=257)
    parser.add_argument("--without-certificate", action="store_true")
    for name, value in (("dim", 256), ("layers", 6), ("hidden", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for field in fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default)
        elif isinstance(field.default, tuple):
            parser.add_argument(flag, nargs=2, type=float, default=field.default)
        else:
            parser.add_argument(flag, type=type(field.default), default=field.default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
