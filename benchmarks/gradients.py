"""What gradients cost: a NUFFT forward and backward against one transform, and a small call with and without recording.

The points are new in every round, as they are where they have a gradient and move: each transform sorts them again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch

import adaptive_compute as ac
from adaptive_compute.core.errors import NoProfileWarning
from adaptive_compute.integrations import torch_library
from benchmarks.record import paired, publish, ratio, summary

POINTS = 1_000_000
SMALL = 256
CALLS = 200


def nufft(kind: int, side: int, dtype: torch.dtype) -> dict[str, Any]:
    """Time one transform in two dimensions, and a forward and backward with respect to values and points."""
    modes = (side, side)
    generator = torch.Generator().manual_seed(0)
    points = [(torch.rand(POINTS, dtype=dtype, generator=generator) * 2 - 1) * math.pi for _ in range(2)]
    shape = (POINTS,) if kind == 1 else modes
    data = torch.randn(shape, dtype=torch.complex64 if dtype is torch.float32 else torch.complex128)
    turn = [0]

    def new() -> list[torch.Tensor]:
        turn[0] += 1
        return [x.roll(turn[0]) for x in points]

    def transform(x: Any, y: Any, values: Any) -> Any:
        if kind == 1:
            return ac.nufft.nufft2d1(x, y, values, modes)
        return ac.nufft.nufft2d2(x, y, values)

    prepared: dict[str, list[torch.Tensor]] = {}

    def forward() -> None:
        transform(*prepared["plain"], data)

    def both() -> None:
        operands = [operand.requires_grad_() for operand in (*prepared["moving"], data.clone())]
        result = transform(*operands)
        torch.autograd.backward(result, result.detach())

    samples: dict[str, list[float]] = {"transform": [], "forward and backward": []}
    for turn_number in range(7):
        prepared.update(plain=new(), moving=new())
        timed = paired({"transform": forward, "forward and backward": both}, rounds=1, warm=0)
        for name, found in timed.items():
            if turn_number:
                samples[name] += found
    return {
        **{name: summary(found) for name, found in samples.items()},
        "ratio": ratio(samples["forward and backward"], samples["transform"]),
    }


def small() -> dict[str, Any]:
    """Time ``ac.fft`` of a small tensor: with nothing recorded, recorded for a gradient, and by torch's operator."""
    from adaptive_compute.core.operations.fft_rule import FAMILY, NONE, FFTParams

    x = torch.randn(SMALL, dtype=torch.complex64)
    recorded = x.clone().requires_grad_()
    params = FFTParams("c2c", True, (SMALL,), (0,), NONE)

    def repeat(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(CALLS):
                call()

        return run

    calls = {
        "nothing recorded": repeat(lambda: ac.fft(x)),
        "by the operator": repeat(lambda: torch_library.run(FAMILY, params, x)),
        "recorded": repeat(lambda: ac.fft(recorded)),
        "torch.fft.fft": repeat(lambda: torch.fft.fft(x)),
        "torch.fft.fft, recorded": repeat(lambda: torch.fft.fft(recorded)),
    }
    return {name: summary([t / CALLS for t in found]) for name, found in paired(calls, rounds=15).items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore", NoProfileWarning)
    with ac.using(threads=2):
        figures: dict[str, Any] = {"small": small()}
        for side in (512, 1000):
            for dtype in (torch.float32, torch.float64):
                for kind in (1, 2):
                    name = f"2D type {kind}, {side} x {side} modes, {POINTS} points, {str(dtype)[6:]}"
                    figures[name] = nufft(kind, side, dtype)
    lines = [f"{name}: {found['median'] * 1e6:.2f} us" for name, found in figures["small"].items()]
    lines += [
        f"{name}: {found['ratio']['median']:.2f} transforms"
        f" ({found['ratio']['lower_quartile']:.2f} to {found['ratio']['upper_quartile']:.2f})"
        for name, found in figures.items()
        if name != "small"
    ]
    publish("gradients", figures, "\n".join(lines))
