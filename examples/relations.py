"""Relations on a ring of entities: rotations of complex vectors against real embeddings that take as much memory.

Entities stand on a ring of 32. "next" is cyclic (32 of them lead back), "before" is its inverse, "opposite" is
symmetric, "seventh" is antisymmetric. A quarter of all triples is kept back; asked is which entity a triple's tail is.
The real models are TransE (a relation is a shift) and DistMult (a factor for each component).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from picture import axes, output

from adaptive_compute import nn

RING, DIM, STEPS, RATE = 32, 8, 150, 0.05
SHIFTS = {"next": 1, "before": -1, "opposite": RING // 2, "seventh": 7}
SEEDS, PENALTIES = (0, 1), (0.0, 0.1)  # of sum |component|^3 of an entity
# Real numbers that the complex model holds; the real ones get the width that comes nearest without more.
MEMORY = RING * 2 * DIM + len(SHIFTS) * DIM
WIDTH = MEMORY // (RING + len(SHIFTS))


class Rotations(torch.nn.Module):
    """ComplexEmbedding: the score is -sum |h e^{i theta} - t|."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.ComplexEmbedding(DIM, RING, len(SHIFTS))

    def forward(self, heads: torch.Tensor, relations: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
        return self.vectors.score(heads, relations, tails)

    def size(self) -> torch.Tensor:
        return self.vectors(torch.arange(RING)[None]).abs().pow(3).sum(2).mean()


class Real(torch.nn.Module):
    """TransE or DistMult over real vectors."""

    def __init__(self, score: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.entities = torch.nn.Parameter(torch.randn(RING, WIDTH) / 2**0.5)
        self.relations = torch.nn.Parameter(torch.randn(len(SHIFTS), WIDTH) / 2**0.5)
        self.score = score

    def forward(self, heads: torch.Tensor, relations: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
        return self.score(self.entities[heads], self.relations[relations], self.entities[tails])

    def size(self) -> torch.Tensor:
        return self.entities.abs().pow(3).sum(1).mean()


MODELS = {
    "rotations (complex)": Rotations,
    "TransE (real)": lambda: Real(lambda h, r, t: -(h + r - t).abs().sum(-1)),
    "DistMult (real)": lambda: Real(lambda h, r, t: (h * r * t).sum(-1)),
}


def triples(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the triples to learn from and those kept back: rows of head, relation, tail."""
    rows = torch.tensor([(h, r, (h + shift) % RING) for r, shift in enumerate(SHIFTS.values()) for h in range(RING)])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    held = len(rows) // 4
    return rows[held:], rows[:held]


def train(make: Callable[[], torch.nn.Module], penalty: float, seed: int) -> tuple[list[float], list[float]]:
    """Return the losses, and for each relation the share of triples kept back whose tail comes first."""
    torch.manual_seed(seed)
    known, unknown = triples(seed)
    h, r, t = known.T
    model, losses, every = make(), [], torch.arange(RING)
    descent = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        to_tail = torch.nn.functional.cross_entropy(model(h[:, None], r[:, None], every), t)
        to_head = torch.nn.functional.cross_entropy(model(every, r[:, None], t[:, None]), h)
        descent.zero_grad()
        (to_tail + to_head + penalty * model.size()).backward()
        descent.step()
        losses.append(float((to_tail + to_head).detach()))
    h, r, t = unknown.T
    with torch.no_grad():
        right = model(h[:, None], r[:, None], every).argmax(1) == t
    return losses, [float(right[r == relation].float().mean()) for relation in range(len(SHIFTS))]


def main() -> None:
    path = output(__doc__, "relations.png")
    torch.set_num_threads(1)  # small: threads would wait for each other
    figure, (left, right) = axes(2, 11)
    for place, (name, make) in enumerate(MODELS.items()):
        size = sum(p.numel() for p in make().parameters())
        assert size <= MEMORY
        # Each model with the penalty, or without, as it got more right.
        tried = [[train(make, penalty, seed) for seed in SEEDS] for penalty in PENALTIES]
        runs = max(tried, key=lambda runs: sum(sum(hits) for _, hits in runs))
        hits = [statistics.mean(found) for found in zip(*(hits for _, hits in runs))]
        print(f"{name}, {size} numbers: " + ", ".join(f"{word} {hit:.0%}" for word, hit in zip(SHIFTS, hits)))
        left.semilogy(runs[0][0], label=name)
        right.bar([x + 0.27 * (place - 1) for x in range(len(SHIFTS))], hits, width=0.25, label=name)
        if make is Rotations:
            assert min(hits) > 0.9
    left.set(title="cross entropy of the triples learned from", xlabel="step")
    right.set(title="tails kept back that come first", ylabel="share", ylim=(0, 1.05))
    right.set_xticks(range(len(SHIFTS)), list(SHIFTS))
    right.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
