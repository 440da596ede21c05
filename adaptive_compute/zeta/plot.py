"""Pictures of a run: Z(t), gaps beside random matrices', S(t), and the records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from . import probe
from .blocks import Block, gram_coordinate
from .checkpoint import Checkpoint, CheckpointError

GUE = "32/π² s² exp(-4s²/π)"


def plot(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Draw a run's zeros.

    Parameters
    ----------
    folder : path-like
        Checkpoints of a run with at least 10 zeros.
    output : path-like
        ``.png``, ``.svg`` or ``.pdf``.

    Raises
    ------
    ValueError
        If the format is not one of these.
    CheckpointError
        If there are too few zeros.
    """
    output = Path(output)
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"output must end in .png, .svg or .pdf, got {str(output)!r}")
    blocks = [b for b in Checkpoint(folder).blocks() if len(b.offsets) > 1 and b.below >= 0]
    if sum(len(b.offsets) for b in blocks) < 10:
        raise CheckpointError(f"{folder} holds too few zeros to draw")
    matplotlib.rcParams["svg.hashsalt"] = "adaptive-compute"
    figure = Figure(figsize=(11, 8), layout="constrained")
    wave, gaps, s, records = figure.subplots(2, 2).flat
    _wave(wave, blocks[0])
    _gaps(gaps, blocks)
    _s(s, blocks)
    _records(records, blocks)
    count = sum(len(b.offsets) for b in blocks)
    figure.suptitle(f"{count:,} zeros from {blocks[0].first} to {blocks[-1].last}")
    figure.savefig(output, dpi=110)


def _wave(axes: Any, block: Block) -> None:
    last = float(block.offsets[min(24, len(block.offsets) - 1)])
    first = float(block.offsets[0])
    margin = (last - first) / 40
    t = np.linspace(max(first - margin, 1 - block.base), last + margin, 1200)
    axes.plot(t, probe.Z(block.base, t), lw=1)
    axes.axhline(0, color="0.6", lw=0.6)
    here = block.offsets[block.offsets <= last]
    axes.plot(here, np.zeros_like(here), "o", ms=3, color="C1")
    axes.set(title="Z(t) and its first zeros", xlabel=f"t - {block.base}", ylabel="Z")


def _gaps(axes: Any, blocks: list[Block]) -> None:
    gaps = np.concatenate([np.diff(gram_coordinate(b.first, b.offsets)[1]) for b in blocks])
    axes.hist(gaps, bins=np.linspace(0, 3.5, 71), density=True, color="0.75", label="zeros")
    x = np.linspace(0, 3.5, 300)
    axes.plot(x, 32 / np.pi**2 * x**2 * np.exp(-4 * x**2 / np.pi), color="C1", label=GUE)
    axes.set(title="Gaps, in mean distances", xlabel="gap", ylabel="density")
    axes.legend()


def _s(axes: Any, blocks: list[Block]) -> None:
    values = []
    for b in blocks:
        whole, rest = gram_coordinate(b.first, b.offsets)
        after = (b.below - whole - 1) + np.arange(1, len(rest) + 1) - rest
        values += [after, after - 1]
    every = np.concatenate(values)
    axes.hist(every, bins=80, density=True, color="0.75")
    title = f"S(t) at the zeros: {every.min():.3f} to {every.max():.3f}"
    axes.set(title=title, xlabel="S", ylabel="density", yscale="log")


def _records(axes: Any, blocks: list[Block]) -> None:
    at = [float(b.first) for b in blocks]
    for name, style in (("largest_gap", "C0o"), ("smallest_gap", "C1s"), ("largest_s", "C2^"), ("smallest_s", "C3v")):
        axes.plot(at, [b.statistics[name] for b in blocks], style, ms=4, label=name.replace("_", " "))
    axes.set(title="Records of each block", xlabel="t")
    axes.legend()
