"""Compute shaders: GLSL sources, the SPIR-V compiled from them, and ``compile.py``, which does that."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def spirv(name: str) -> bytes:
    """Return the compiled shader of this name (a variant's, or the source file's without its ending)."""
    try:
        return (FOLDER / "spirv" / f"{name}.spv").read_bytes()
    except FileNotFoundError:
        raise LookupError(f"no compiled shader {name!r}; `make shaders` compiles the sources") from None
