"""Attention on NVIDIA GPUs: torch's implementations, each a candidate of its own, and tiles that a mask keeps."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Kernel
from .attention_sdpa import WAYS, SdpaKernel
from .attention_tiles import TilesKernel


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    found: list[Kernel] = []
    for operation in ("attention", "attention_backward"):
        found += [SdpaKernel(operation, way, device) for way in WAYS[:-1]]
        found += [TilesKernel(operation, device), SdpaKernel(operation, WAYS[-1], device)]
    return found
