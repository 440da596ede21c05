"""Train and score: ``python -m benchmarks.byte_model --help``."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from adaptive_compute import nn as spectral

from ..record import machine
from .data import described, load
from .model import made
from .score import bits_per_byte, prefix_only
from .train import Recipe, Trainer


def main() -> None:
    options = arguments()
    torch.set_float32_matmul_precision("high")
    began = time.perf_counter()
    until = began + options.time_limit
    device = options.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    texts = load(options.data)
    recipe = Recipe(**{f.name: getattr(options, f.name) for f in fields(Recipe)})
    shape = {name: getattr(options, name) for name in ("dim", "layers", "hidden")}
    record = {
        "benchmark": "byte-model",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"},
        "data": described(texts),
        "recipe": asdict(recipe),
        "scoring": {"window": recipe.length, "stride": options.stride, "precision": "float32"},
        "runs": [],
    }

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - began:6.1f}] {text}", flush=True)

    for seed in options.seeds:
        for kind in options.model:
            if time.perf_counter() > until:
                say(f"no time left for {kind}, seed {seed}")
                continue
            name = f"{kind}, seed {seed}"
            model = made(kind, **shape, length=recipe.length, dropout=recipe.dropout, seed=seed)
            count = sum(p.numel() for p in model.parameters())
            say(f"{name}: {count:,} parameters")
            trainer = Trainer(model, texts["train"], recipe, seed, device)
            result = trainer.run(lambda text: say(f"{name}: {text}"), until)
            del trainer
            run = {"model": kind, "seed": seed, "parameters": count, **result}
            scored = time.perf_counter()
            for part in ("test", "valid"):
                run[part] = bits_per_byte(model, texts[part], length=recipe.length, stride=options.stride)
            run["seconds_of_scoring"] = time.perf_counter() - scored
            run["prefix"] = prefix_only(model, texts["test"], length=recipe.length)
            if not options.without_certificate:
                report = spectral.certify_causal(model, (2, options.certificate_length), vocabulary=256, seed=seed)
                run["certificate"] = report.as_dict()
                say(f"{name}: {report}")
            record["runs"].append(run)
            record["summary"] = summary(record["runs"])
            say(f"{name}: test {run['test']:.4f}, valid {run['valid']:.4f}, {run['seconds']:.1f} s; {run['prefix']}")
            if options.out:
                Path(options.out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record.get("summary", {}), indent=1))


def summary(runs: list[dict]) -> dict:
    """Return each model's scores over the seeds."""
    found = {}
    for kind in sorted({run["model"] for run in runs}):
        mine = [run for run in runs if run["model"] == kind]
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
