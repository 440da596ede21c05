"""Nonuniform FFTs under FINUFFT's names: ``ac.nufft.nufft1d1`` to ``nufft3d3``, and ``ac.nufft.Plan``."""

from .core.operations.nufft import (
    nufft1d1,
    nufft1d2,
    nufft1d3,
    nufft2d1,
    nufft2d2,
    nufft2d3,
    nufft3d1,
    nufft3d2,
    nufft3d3,
)  # fmt: skip
from .core.operations.nufft_plan import Plan

__all__ = [
    "Plan", "nufft1d1", "nufft1d2", "nufft1d3", "nufft2d1", "nufft2d2", "nufft2d3", "nufft3d1", "nufft3d2", "nufft3d3",
]  # fmt: skip
