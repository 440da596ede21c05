"""``adaptive zeta``: zeros of Riemann's zeta function, hunted, kept, checked again, put together and drawn."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import AdaptiveError, ArgumentError
from .output import AsJson, note, print_json

if TYPE_CHECKING:
    from ..zeta import Block

app = typer.Typer(no_args_is_help=True, help="Zeros of Riemann's zeta function on the critical line.")
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Checkpoints of a run.")]


class ZetaError(AdaptiveError):
    """What the hunt could not do."""


def _wanted(function: Any, *arguments: Any, **keywords: Any) -> Any:
    """Call, and tell a fault as the command line does: what was asked wrongly (2) apart from what went wrong (1)."""
    from ..zeta import CheckpointError

    try:
        return function(*arguments, **keywords)
    except CheckpointError as error:
        raise ZetaError(str(error)) from None
    except ValueError as error:
        raise ArgumentError(str(error)) from None
    except ArithmeticError as error:
        raise ZetaError(str(error)) from None
    except OSError as error:
        raise ZetaError(f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")) from None


@app.command("hunt")
def hunt_command(
    begin: Annotated[str, typer.Option("--from", metavar="T", help="Height to begin at, 14 to 1e13.")],
    end: Annotated[str | None, typer.Option("--to", metavar="T2", help="Height to end at.")] = None,
    count: Annotated[int | None, typer.Option("--count", metavar="N", help="Or: how many zeros to find.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="DIR", help="Keep each block here; go on where it stopped.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write all zeros to FILE.npz or FILE.parquet.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", help="Default: all.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu or cuda:0; default: where the router goes.")
    ] = None,
    block: Annotated[
        int | None, typer.Option("--block", metavar="N", help="Zeros of a block, about; default 2^18, on a GPU 2^21.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find every zero between two heights and verify that none is missing.

    Under torch.distributed's launcher (RANK and WORLD_SIZE are set) each process takes its share of the range and
    keeps it in DIR/part-RANK; `adaptive zeta merge` puts the parts together.
    """
    from ..zeta import Summary, zeros
    from ..zeta.archive import check_output, end_of, save, share
    from ..zeta.blocks import ZEROS

    if (end is None) == (count is None):
        raise ArgumentError("give one of --to and --count")
    if output is not None:
        _wanted(check_output, output)
    end = _wanted(end_of, begin, count) if end is None else end
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is not None and world is not None and int(world) > 1:
        if checkpoint is None:
            raise ArgumentError("--checkpoint is needed where several processes share a range")
        if output is not None:  # each would write its own share there
            raise ArgumentError("--output is not for processes that share a range: `adaptive zeta merge` writes it")
        begin, end = _wanted(share, begin, end, int(rank), int(world), ZEROS if block is None else block)
        checkpoint = checkpoint / f"part-{int(rank):04d}"
    found = _wanted(zeros, begin, end, checkpoint=checkpoint, threads=threads, device=device, block=block)
    summary, kept, start = Summary(), [], time.perf_counter()
    try:
        for each in _watched(found, begin, end):
            summary.add(each)
            if output is not None:
                kept.append(each)
    except KeyboardInterrupt:
        way = (
            "nothing is kept without --checkpoint" if checkpoint is None else f"run it again to go on from {checkpoint}"
        )
        note(f"interrupted; {way}; until here: {summary}")
        sys.exit(130)
    seconds = time.perf_counter() - start
    if output is not None:
        _wanted(save, output, kept)
    told = {
        "zeros": summary.zeros, "verified": summary.verified, "t0": summary.t0, "t1": summary.t1,
        "open_blocks": summary.open_blocks or [], "blocks": summary.blocks, "error_budget": summary.error,
        "seconds": seconds, "zeros_per_second": summary.zeros / seconds, "summary": str(summary),
    }  # fmt: skip
    if as_json:
        print_json(told)
    else:
        print(f"{summary}\n{summary.zeros / seconds:,.0f} zeros a second")
    if not summary.verified:
        sys.exit(1)


def _watched(found: Iterator[Block], begin: str, end: str) -> Iterator[Block]:
    """Pass blocks on, with a progress line on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    low, high = float(begin), float(end)
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    count, start = 0, time.perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=high - low)
        while (block := _wanted(next, found, None)) is not None:
            count += len(block.offsets)
            rate = count / max(time.perf_counter() - start, 1e-9)
            state = f"verified to {block.last}" if block.verified else f"OPEN at {block.first}"
            progress.update(task, completed=float(block.last) - low, description=f"{rate:,.0f} zeros/s, {state}")
            yield block


@app.command("verify")
def verify_command(
    folder: Folder,
    sample: Annotated[int, typer.Option("--sample", metavar="N", min=1, help="Zeros and seams computed again.")] = 20,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the choice.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check a finished run again: its hashes, and a random sample computed anew."""
    from ..zeta.archive import verify

    result = _wanted(verify, folder, sample, seed)
    if as_json:
        print_json(result)
    else:
        print(result["summary"])
        print(f"hashes hold; {result['sampled']} zeros computed again: {len(result['failures'])} failures")
        for failure in result["failures"]:
            note(failure)
    if not result["verified"]:
        sys.exit(1)


@app.command("merge")
def merge_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Runs of neighbouring ranges, or their parent.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write all zeros to FILE.npz or FILE.parquet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put runs of neighbouring ranges together and close the seams between them."""
    from ..zeta.archive import check_output, merge, save

    if output is not None:
        _wanted(check_output, output)
    parts = [p for f in folders for p in (sorted(f.glob("part-*")) or [f])]
    summary, found = _wanted(merge, parts)
    if output is not None:
        _wanted(save, output, found)
    if as_json:
        print_json({
            "zeros": summary.zeros, "verified": summary.verified, "t0": summary.t0, "t1": summary.t1,
            "open_blocks": summary.open_blocks or [], "summary": str(summary),
        })  # fmt: skip
    else:
        print(summary)
    if not summary.verified:
        sys.exit(1)


@app.command("plot")
def plot_command(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="Picture to write: .png, .svg or .pdf.")],
) -> None:
    """Draw Z(t), the gaps beside the Gaussian unitary ensemble's, S(t), and the smallest and largest gaps."""
    try:
        from ..zeta.plot import plot
    except ImportError:
        raise ZetaError("plots need matplotlib: pip install 'adaptive-compute[zeta]'") from None
    _wanted(plot, folder, output)
    note(f"written to {output}")
