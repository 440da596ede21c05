"""Why 1.02 "perplexity" was wrong: small byte models, three of which see the future, scored twice and certified.

    python -m benchmarks.causality [--data FOLDER] [--steps N] [--json] [--save]

Each model is trained alike and scored on text that it has not seen: once on whole windows, as everybody does, and once
where it is given nothing but the bytes before the one it must predict. A language model's two scores are equal. The
text is this package's own source unless a folder with train.txt and test.txt is named.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import adaptive_compute as ac
from adaptive_compute import nn as spectral

from .byte_model.data import starts
from .byte_model.model import ByteModel
from .byte_model.score import bits_per_byte, losses
from .record import parser, publish

DIM, LAYERS, LENGTH, BATCH, HIDDEN = 64, 2, 128, 16, 128


class Mixed(nn.Module):
    """A mixer over the sequence and a matrix over the channels."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer, self.out = mixer, nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mixer(x))


class Filtered(nn.Module):
    """A learned complex filter over the lower half of a circular FFT's bins, as the research line published it."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.view_as_real(torch.randn(LENGTH // 4, DIM, dtype=torch.complex64)))
        self.out = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        spectrum, filter_ = ac.rfft(x, axis=1), torch.view_as_complex(self.filter)
        kept = spectrum[:, : len(filter_)]
        return self.out(ac.irfft(kept * filter_[: kept.shape[1]], n=x.shape[1], axis=1))


class Normed(nn.Module):
    """A causal short convolution, then statistics along the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.taps, self.norm = nn.Parameter(torch.randn(DIM, 1, 4) / 2), spectral.leaks.SequenceNorm(DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(functional.conv1d(functional.pad(x.mT, (3, 0)), self.taps, groups=DIM).mT)


MIXERS = {
    "masked bins of a circular FFT": Filtered,
    "causal kernel, FFT of T points": lambda: Mixed(spectral.leaks.UnpaddedConvolution(DIM, LENGTH)),
    "statistics along the sequence": lambda: Mixed(Normed()),
    "GatedConvolution": lambda: spectral.GatedConvolution(DIM, max_length=LENGTH),
}


def trained_on(model: ByteModel, text: Tensor, steps: int, seed: int, length: int, batch: int) -> ByteModel:
    """Train a model for some steps, and return it ready for being scored."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.1)
    for begin in starts(len(text), length, batch, steps, seed):
        piece = text[begin[:, None] + torch.arange(length + 1)]
        optimiser.zero_grad()
        losses(model, piece[:, :-1], piece[:, 1:]).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def from_the_prefix(model: ByteModel, text: Tensor, length: int = LENGTH, count: int = 8) -> tuple[float, float]:
    """Return bits per byte over some windows of a text: the whole window seen at once, and only the bytes before.

    The same bytes are scored either way, those of the second half of each window.
    """
    first = torch.linspace(0, len(text) - length - 2, count).long()
    piece = text[first[:, None] + torch.arange(length + 1)]
    inputs, following = piece[:, :-1], piece[:, 1:]
    half = range(length // 2, length, length // 32)
    whole = losses(model, inputs, following)[:, list(half)].mean()
    alone = torch.stack([losses(model, inputs[:, : t + 1], following[:, : t + 1])[:, -1].mean() for t in half]).mean()
    return float(whole) / math.log(2), float(alone) / math.log(2)


def texts(folder: str | None) -> tuple[Tensor, Tensor]:
    """Return the bytes to train on and those to be scored."""
    if folder is not None:
        parts = [(Path(folder) / f"{name}.txt").read_bytes() for name in ("train", "test")]
    else:
        files = sorted((Path(__file__).parent.parent / "adaptive_compute").rglob("*.py"))
        held_out = files[::10]
        parts = [b"".join(f.read_bytes() for f in group) for group in (sorted({*files} - {*held_out}), held_out)]
    train, test = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    return train, test[:20_000]


def main() -> None:
    accepted = parser()
    accepted.add_argument("--data", help="a folder with train.txt and test.txt")
    accepted.add_argument("--steps", type=int, default=400)
    options = accepted.parse_args()
    torch.set_num_threads(1)  # calls are short, and threads would wait for each other
    train, test = texts(options.data)
    rows, figures = [], {}
    for name in MIXERS:
        began = time.perf_counter()
        torch.manual_seed(0)
        model = ByteModel([MIXERS[name]() for _ in range(LAYERS)], DIM, HIDDEN, 0.0)
        trained_on(model, train, options.steps, 0, LENGTH, BATCH)
        scored = bits_per_byte(model, test, length=LENGTH, stride=LENGTH // 2)
        whole, alone = from_the_prefix(model, test)
        report = spectral.certify_causal(model, (2, 65), vocabulary=256)
        seconds = time.perf_counter() - began
        figures[name] = {
            "bits_per_byte": scored,
            "perplexity_of_bytes": 2**scored,
            "same_bytes_whole_window": whole,
            "same_bytes_prefix_only": alone,
            "certificate": report.as_dict(),
            "seconds": seconds,
        }
        verdict = "causal" if report.causal else "NOT causal"
        rows.append(
            f"{name:32} {scored:8.2f} {2**scored:10.2f} {whole:14.2f} {alone:14.2f} "
            f"{report.future_gradient_share:10.1e}  {verdict}"
        )
        print(rows[-1], f"({seconds:.0f} s)", flush=True)
    head = f"{'mixer':32} {'bits':>8} {'perplexity':>10} {'whole window':>14} {'prefix alone':>14} {'future':>10}"
    found = {"train_bytes": len(train), "test_bytes": len(test), "steps": options.steps, "models": figures}
    publish("causality", found, "\n".join([head, *rows]), options)


if __name__ == "__main__":
    with ac.using(threads=1):
        main()
