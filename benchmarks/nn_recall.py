"""Can it look things up? Sixteen pairs of a key and a value in random order, then a key: which value stood with it?

    python -m benchmarks.nn_recall [--seeds 3] [--steps 600]

One layer between an embedding and a linear map, 600 steps of 64 sequences; the share of values found among fresh ones.
Softmax attention is made for this; what attends by one angle a head has to lay sixteen keys out on a circle.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch

from adaptive_compute import nn
from adaptive_compute.core.errors import NoProfileWarning

KEYS, VALUES, DIM = 16, 16, 32
LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "CausalSpectralAttention, 4 heads, 16 modes": lambda: nn.CausalSpectralAttention(DIM, heads=4, modes=16),
    "softmax attention, 4 heads": lambda: nn.TopologyAttention(DIM, heads=4),
}


class Recall(torch.nn.Module):
    def __init__(self, mixer: torch.nn.Module) -> None:
        super().__init__()
        self.keys, self.values = torch.nn.Embedding(KEYS, DIM), torch.nn.Embedding(VALUES + 1, DIM)
        self.mixer, self.out = mixer, torch.nn.Linear(DIM, VALUES)

    def forward(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return self.out(self.mixer(self.keys(keys) + self.values(values))[:, -1])


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return keys, values (the last of which is none) and what stood with the last key."""
    keys = torch.rand(size, KEYS).argsort(1)
    values, at, rows = torch.randint(VALUES, (size, KEYS)), torch.randint(KEYS, (size,)), torch.arange(size)
    asked, none = keys[rows, at][:, None], torch.full((size, 1), VALUES)
    return torch.cat([keys, asked], 1), torch.cat([values, none], 1), values[rows, at]


def learned(make: Callable[[], torch.nn.Module], steps: int, seed: int) -> float:
    """Return the share of values found after training."""
    torch.manual_seed(seed)
    net = Recall(make())
    descent = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        keys, values, wanted = batch(64)
        descent.zero_grad()
        torch.nn.functional.cross_entropy(net(keys, values), wanted).backward()
        descent.step()
    with torch.no_grad():
        keys, values, wanted = batch(2000)
        return float((net(keys, values).argmax(1) == wanted).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    warnings.simplefilter("ignore", NoProfileWarning)
    torch.set_num_threads(1)  # small: threads would wait for each other
    for name, make in LAYERS.items():
        found = [learned(make, options.steps, seed) for seed in range(options.seeds)]
        print(f"{name}: " + ", ".join(f"{share:.1%}" for share in found), flush=True)


if __name__ == "__main__":
    main()
