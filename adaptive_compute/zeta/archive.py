"""Zeros in files of common formats, finished runs checked again, and parts of a range put together."""

from __future__ import annotations

import importlib
import os
import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import probe, turing
from .blocks import Block, closing
from .checkpoint import Checkpoint, CheckpointError, whole
from .hunt import Summary, zeros_array
from .theta import theta_turns

FORMATS = (".npz", ".parquet")


def check_output(path: str | os.PathLike[str]) -> Path:
    """Return a path for zeros, or raise where its format is not known, its library missing or its folder closed."""
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"output must end in {' or '.join(FORMATS)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"output's folder {str(path.parent)!r} is not there")
    if path.is_dir():
        raise ValueError(f"output must be a file, {str(path)!r} is a folder")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"output's folder {str(path.parent)!r} cannot be written to: {error.strerror}") from None
    if path.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ValueError("output in .parquet needs pyarrow: pip install pyarrow; or use .npz") from None
    return path


def save(path: str | os.PathLike[str], found: Iterable[Block]) -> int:
    """Write zeros to a file: whole parts ``base`` (int64) and rests ``offset`` (float64), nothing rounded.

    Parameters
    ----------
    path : path-like
        ``.npz`` (read by ``numpy.load``), or ``.parquet`` where pyarrow is installed.
    found : iterable of Block

    Returns
    -------
    int
        How many were written.
    """
    path = check_output(path)
    base, offset = zeros_array(found)
    with whole(path) as file:
        if path.suffix == ".npz":
            np.savez(file, base=base, offset=offset)
        else:
            arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
            parquet.write_table(arrow.table({"base": base, "offset": offset}), file)
    return len(base)


def verify(folder: str | os.PathLike[str], sample: int = 20, seed: int = 0) -> dict[str, Any]:
    """Check a finished run again: its hashes, its seams, and a random sample computed anew by other means.

    Parameters
    ----------
    folder : path-like
        Checkpoints of a run.
    sample : int
        Zeros that are looked at again, each by the Riemann-Siegel formula at two points beside it; and N is closed
        again at as many seams, at most.
    seed : int
        Of the choice.

    Returns
    -------
    dict
        ``zeros``, ``verified``, ``summary``, ``sampled`` and ``failures`` (a list of texts).

    Raises
    ------
    CheckpointError
        If a block was changed, which it names, or the run is not complete.
    """
    store, rng = Checkpoint(folder), random.Random(seed)
    summary, failures, kept = Summary(), [], []
    previous: Block | None = None
    for block in store.blocks():
        summary.add(block)
        if previous is not None and previous.last != block.first:
            failures.append(f"block {block.number} begins at {block.first}, the one before ends at {previous.last}")
        if len(block.offsets) and not bool(np.all(np.diff(block.offsets) > 0)):
            failures.append(f"block {block.number}: the zeros are not in order")
        if block.verified and not len(block.offsets) == block.expected >= 0:
            failures.append(f"block {block.number}: {len(block.offsets)} zeros are kept, {block.expected} are there")
        if block.verified and previous is not None and previous.verified and block.below != (
            counted := previous.below + len(previous.offsets)
        ):  # fmt: skip
            failures.append(f"block {block.number} counts {block.below} zeros below, the one before {counted}")
        kept.append((block.first, block.last, block.below, block.base, _pick(block.offsets, sample, rng)))
        previous = block
    if previous is None or str(previous.last) != store.settings["t1"]:
        end = store.settings["t0"] if previous is None else str(previous.last)
        raise CheckpointError(f"{folder}: the run is not complete, it ends at {end} of {store.settings['t1']}")
    points = [(base, float(at)) for *_, base, offsets in kept for at in offsets]
    for base, at in rng.sample(points, min(sample, len(points))):
        if not crosses(base, at):
            failures.append(f"Z has the same sign on both sides of the zero at {base} + {at!r}")
    for first, _, below, *_ in rng.sample(kept, min(sample, len(kept))):
        again = closing(first)
        if isinstance(again, Exception) or again.zeros != below:
            failures.append(f"N at {first} is {again}, the run says {below}")
    told = f"{summary.zeros} zeros kept from {summary.t0} to {summary.t1}, NOT verified: {len(failures)} checks failed"
    return {
        "zeros": summary.zeros, "verified": summary.verified and not failures,
        "summary": told if failures else str(summary),
        "sampled": min(sample, len(points)), "failures": failures, "open_blocks": summary.open_blocks or [],
        "t0": summary.t0, "t1": summary.t1,
    }  # fmt: skip


def _pick(offsets: np.ndarray, count: int, rng: random.Random) -> np.ndarray:
    return offsets[sorted(rng.sample(range(len(offsets)), min(count, len(offsets))))]


def crosses(base: int, offset: float) -> bool:
    """Tell whether Z changes its sign within some 1e-6 of a height, by values that stand clear of their error."""
    error = probe.budget(base + offset)
    for reach in (1e-8, 1e-7, 1e-6):
        low, high = probe.Z(base, offset - reach), probe.Z(base, offset + reach)
        if min(abs(low), abs(high)) > error:
            return (low > 0) != (high > 0)
    return False


def merge(folders: Sequence[str | os.PathLike[str]]) -> tuple[Summary, list[Block]]:
    """Put runs of neighbouring ranges together, and close the seams between them.

    Parameters
    ----------
    folders : sequence of path-like
        Checkpoints of runs that cover a range without gap or overlap, in any order.

    Returns
    -------
    summary : Summary
        Of the whole range.
    blocks : list of Block
        In order of height.

    Raises
    ------
    CheckpointError
        If a run is damaged or not complete, the ranges do not meet, or the counts at a seam differ.
    """
    runs = []
    for folder in folders:
        store = Checkpoint(folder)
        found = list(store.blocks())
        if not found or str(found[-1].last) != store.settings["t1"]:
            raise CheckpointError(f"{folder}: the run is not complete; `adaptive zeta hunt` goes on with it")
        runs.append((found, folder))
    runs.sort(key=lambda run: (run[0][0].first.base, run[0][0].first.offset))
    summary, blocks = Summary(), list[Block]()
    for found, folder in runs:
        if blocks and blocks[-1].last != found[0].first:
            raise CheckpointError(
                f"{folder} begins at {found[0].first}, but the range before ends at {blocks[-1].last}"
            )
        if blocks and blocks[-1].verified and found[0].verified:
            counted = blocks[-1].below + len(blocks[-1].offsets)
            if counted != found[0].below:
                raise CheckpointError(
                    f"at {found[0].first}, {folder} counts {found[0].below} zeros below, not {counted}"
                )
        for block in found:
            summary.add(block)
            blocks.append(block)
    return summary, blocks


def share(t0: Any, t1: Any, rank: int, world: int, block: int) -> tuple[str, str]:
    """Return the part of a range that one of several processes works on; cut where its blocks are.

    Parameters
    ----------
    t0, t1 : str, float, int or Decimal
    rank, world : int
        Which of how many, as torch.distributed's launcher numbers them.
    block : int
        Zeros of a block.

    Raises
    ------
    ValueError
        If there are fewer blocks than processes.
    """
    from .blocks import plan
    from .hunt import height

    blocks = list(plan(height(t0, "t0"), height(t1, "t1"), block))
    if len(blocks) < world:
        raise ValueError(
            f"the range has {len(blocks)} blocks, which {world} processes cannot share; use a smaller block"
        )
    first, last = len(blocks) * rank // world, len(blocks) * (rank + 1) // world
    return str(blocks[first][0]), str(blocks[last - 1][1])


def end_of(t0: Any, count: int) -> str:
    """Return a height up to which there are exactly ``count`` zeros from ``t0`` on."""
    from decimal import Decimal

    from .hunt import height

    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number from 1 on, got {count!r}")
    first = height(t0, "t0")
    at = closing(first)
    if isinstance(at, Exception):
        raise at
    most = 2 * theta_turns(probe.HIGHEST)[0] - at.zeros  # to within S(t), which is a few
    if count > most:
        raise ValueError(f"count must be at most {most}, which lie up to {probe.HIGHEST:g}, got {count}")
    base, _, after = turing.numbered(at.zeros + count)
    return str(base + Decimal(after))
