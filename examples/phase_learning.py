"""One phase, learned from 0 towards 7.87 radians: what a loss can know of it, and how it gets past a turn.

A weight e^{i phase} is the same for phase and phase + 2 pi, and 7.87 is 1.587 and a turn. So a loss that sees the
weight alone leads to 1.587, and no training can do better: the two are one weight. The phase as a number gets to 7.87
where the loss tells turns apart, because it sees parts of the phase as well (a delay turns a low frequency less), or
where the target itself gets there by small steps, which the phase follows turn by turn: unwrapping.
"""

from __future__ import annotations

import math

import torch
from picture import axes, output

from adaptive_compute import nn

TARGET, STEPS = 7.87, 400
PARTS = torch.tensor([1 / 8, 1 / 4, 1 / 2, 1.0])  # the phase as seen by octaves of frequency: unique below 16 pi


def weight_alone(phase: torch.Tensor, step: int, target: float = TARGET) -> torch.Tensor:
    """Return |e^{i phase} - e^{i target}|^2."""
    return (torch.exp(1j * phase) - torch.exp(1j * torch.tensor(target))).abs().square().sum()


def octaves(phase: torch.Tensor, step: int) -> torch.Tensor:
    """Return the same for parts of the phase; lower ones, which turn less, count more."""
    return sum(weight_alone(part * phase, step, float(part) * TARGET) / part**2 for part in PARTS)


def moving(phase: torch.Tensor, step: int) -> torch.Tensor:
    """Return the loss of the weight alone while the target turns from 0 to where it stays."""
    return weight_alone(phase, step, TARGET * min(1.0, 1.25 * step / STEPS))


def train(loss) -> list[float]:
    """Return the phase of a polar weight of size one, step by step."""
    layer = nn.ComplexLinear(1, bias=False, parametrisation="polar")
    with torch.no_grad():
        layer.magnitude.fill_(1.0)
        layer.phase.zero_()
    path = []
    for step in range(STEPS):
        path.append(float(layer.phase.detach()))
        (slope,) = torch.autograd.grad(loss(layer.phase, step), layer.phase)
        with torch.no_grad():
            layer.phase -= 0.05 * slope
    return [*path, float(layer.phase.detach())]


def main() -> None:
    path = output(__doc__, "phase_learning.png")
    paths = {"the weight alone": train(weight_alone), "octaves of it": train(octaves), "a moving target": train(moving)}
    for name, phases in paths.items():
        turns = (TARGET - phases[-1]) / (2 * math.pi)
        apart = abs(complex(math.cos(phases[-1]), math.sin(phases[-1])) - complex(math.cos(TARGET), math.sin(TARGET)))
        print(f"{name}: from 0 to {phases[-1]:.4f} rad, {turns:.3f} turns from {TARGET}; weights differ by {apart:.1e}")
        assert apart < 1e-2
    assert abs(paths["the weight alone"][-1] - (TARGET - 2 * math.pi)) < 1e-2
    assert abs(paths["octaves of it"][-1] - TARGET) < 1e-2
    assert abs(paths["a moving target"][-1] - TARGET) < 1e-2

    figure, (left, middle, right) = axes(3, 13)
    for name, phases in paths.items():
        left.plot(phases, label=name)
    for level in (TARGET, TARGET - 2 * math.pi):
        left.axhline(level, color="grey", linewidth=0.6)
        left.annotate(f"{level:.2f}", (STEPS, level), va="bottom", ha="right")
    left.set(title="the phase while it learns", xlabel="step", ylabel="rad")
    left.legend(loc="center right")
    angles = torch.linspace(-1, 10, 400)
    for name, loss in (("the weight alone", weight_alone), ("octaves of it", octaves)):
        values = torch.stack([loss(angle, STEPS) for angle in angles])
        middle.plot(angles, values / values.max(), label=name)
    middle.axvline(TARGET, color="grey", linewidth=0.6)
    middle.set(title="loss, as a share of its largest value", xlabel="phase, rad")
    middle.legend()
    for name, phases in paths.items():
        turning = torch.tensor(phases)
        radius = 1 + turning / 40  # drawn outwards, so that turns do not hide each other
        right.plot(radius * torch.cos(turning), radius * torch.sin(turning), label=name)
    right.set(title="e^{i phase}, each turn further out", aspect="equal")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
