"""What the examples share: the --output option and a figure that needs no display."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def output(description: str | None, default: str) -> Path:
    """Return where the picture goes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=Path(default), help=f"picture to write (default: {default})")
    return parser.parse_args().output


def axes(columns: int, width: float = 11, height: float = 3.6) -> tuple[Figure, list[Any]]:
    """Return a figure with axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])
