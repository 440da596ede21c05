"""What each switch of the spectral mixers is worth: small byte models, one change at a time, seeds paired.

    python -m benchmarks.nn_ablation [--data FOLDER] [--steps N] [--seeds N] [--json] [--save]

Every variant is trained on the same bytes in the same order, once for each seed, and scored in bits per byte on text it
has not seen. The difference from the variant it belongs to is taken seed by seed; beside it stands the standard error
of its mean. One below about two standard errors says nothing. The text is this package's own source unless a folder
with train.txt and test.txt is named; small models on little text rank switches for themselves, not for large ones.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import adaptive_compute as ac
from adaptive_compute import nn as spectral

from .byte_model.model import ByteModel
from .byte_model.score import bits_per_byte
from .causality import from_the_prefix, texts, trained_on
from .record import parser, publish

DIM, LAYERS, LENGTH, HIDDEN, BATCH = 64, 2, 128, 128, 8


class Projected(nn.Module):
    """A mixer without matrices over the channels, and one after it."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer, self.out = mixer, nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Any) -> Any:
        return self.out(self.mixer(x))


def gated(**options: Any) -> Callable[[], nn.Module]:
    return lambda: spectral.GatedConvolution(DIM, max_length=LENGTH, **options)


def mixing(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Projected(spectral.SpectralMixing(DIM, max_length=LENGTH, **options))


# name: (how its mixer is made, what it is compared with)
VARIANTS: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "gated": (gated(), None),
    "gated, order 3": (gated(order=3), "gated"),
    "gated, no short convolution": (gated(taps=1), "gated"),
    "gated, full filter": (gated(filter="full"), "gated"),
    "gated, low-rank filter": (gated(filter="low-rank"), "gated"),
    "gated, multi-scale bands": (gated(filter="multi-scale"), "gated"),
    "mixing": (mixing(), None),
    "mixing, GLU": (mixing(glu=True), "mixing"),
    "mixing, rotary phases": (mixing(rotary=True), "mixing"),
    "mixing, magnitude and phase": (mixing(phase=True), "mixing"),
    "mixing, multi-scale bands": (mixing(filter="multi-scale"), "mixing"),
    "mixing, kernel to both sides": (mixing(causal=False), "mixing"),
}


def score(name: str, seed: int, steps: int, train: torch.Tensor, test: torch.Tensor) -> dict[str, float]:
    """Train and score one variant."""
    torch.manual_seed(seed)
    mixers = [VARIANTS[name][0]() for _ in range(LAYERS)]
    model = ByteModel(mixers, DIM, HIDDEN, 0.0)
    began = time.perf_counter()
    trained_on(model, train, steps, seed, LENGTH, BATCH)
    found = {
        "seconds": time.perf_counter() - began,
        "bits_per_byte": bits_per_byte(model, test, length=LENGTH, stride=LENGTH // 2),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if not getattr(mixers[0], "mixer", mixers[0]).causal:  # the score above has seen the future
        found["prefix_only"] = from_the_prefix(model, test, LENGTH)[1]
    return found


def compared(name: str, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return a variant's mean score, and its difference from what it belongs to, seed by seed."""
    mine, other = runs[name], VARIANTS[name][1]
    found: dict[str, Any] = {
        "bits_per_byte": statistics.mean(run["bits_per_byte"] for run in mine),
        "seconds": statistics.mean(run["seconds"] for run in mine),
        "parameters": mine[0]["parameters"],
        "runs": mine,
    }
    if "prefix_only" in mine[0]:
        found["prefix_only"] = statistics.mean(run["prefix_only"] for run in mine)
    if other is not None:
        differences = [a["bits_per_byte"] - b["bits_per_byte"] for a, b in zip(mine, runs[other])]
        found |= {"compared_with": other, "difference": statistics.mean(differences)}
        if len(differences) > 1:
            found["standard_error"] = statistics.stdev(differences) / len(differences) ** 0.5
    return found


def row(name: str, found: dict[str, Any]) -> str:
    """Return one line of the table."""
    text = f"{name:30} {found['parameters']:8,} {found['bits_per_byte']:8.3f}"
    if "difference" in found:
        text += f" {found['difference']:+8.3f} +- {found.get('standard_error', float('nan')):.3f}"
    if "prefix_only" in found:
        text += f"  (given the prefix alone: {found['prefix_only']:.3f})"
    return text


def main() -> None:
    accepted = parser()
    accepted.add_argument("--data", help="a folder with train.txt and test.txt")
    accepted.add_argument("--steps", type=int, default=250)
    accepted.add_argument("--seeds", type=int, default=3)
    options = accepted.parse_args()
    torch.set_num_threads(1)  # calls are short, and threads would wait for each other
    train, test = texts(options.data)
    runs: dict[str, list[dict[str, float]]] = {}
    figures: dict[str, Any] = {}
    for name in VARIANTS:
        runs[name] = [score(name, seed, options.steps, train, test) for seed in range(options.seeds)]
        figures[name] = compared(name, runs)
        print(row(name, figures[name]), flush=True)
    found = {"train_bytes": len(train), "test_bytes": len(test), "steps": options.steps, "variants": figures}
    head = f"{'mixer':30} {'weights':>8} {'bits':>8} {'difference':>8}"
    publish("nn-ablation", found, "\n".join([head, *(row(name, figures[name]) for name in VARIANTS)]), options)


if __name__ == "__main__":
    with ac.using(threads=1):
        main()
