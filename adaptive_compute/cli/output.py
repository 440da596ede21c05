"""How the commands print: JSON that every parser reads, and tables."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


def print_json(data: Any) -> None:
    """Print data as JSON. NaN and infinities, which JSON has no word for, become null."""
    print(json.dumps(_plain(data), indent=1, allow_nan=False))


def _plain(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    return [_plain(value) for value in data] if isinstance(data, (list, tuple)) else data


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Print rows under headings; ``right`` names the columns that are aligned at their right edge."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    # A pipe has no width of its own, and lines that a script or a log reads must be whole. In a narrow terminal a
    # line that runs on is easier to read than one that is folded within every cell.
    console.width = max(console.width, 100) if sys.stdout.isatty() else 160
    console.print(table)


def note(text: str) -> None:
    """Print one line for a person on stderr, out of the way of results."""
    print(text, file=sys.stderr)
