"""Nonuniform FFTs under FINUFFT's names: ``ac.nufft.nufft1d1`` to ``nufft3d3``, and ``ac.nufft.Plan``.

A program for FINUFFT or cuFINUFFT runs here after one change, of its import. What differs, docs/coming-from-finufft.md
says.

>>> import numpy as np
>>> import adaptive_compute.nufft as finufft
>>> finufft.nufft1d1(np.array([0.0, 3.0]), np.array([1.0, 1j]), (6,), eps=1e-9, isign=-1).shape
(6,)
"""

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

__version__ = "2.5.1"  # of FINUFFT's Python interface, which this one follows

__all__ = [
    "Plan", "nufft1d1", "nufft1d2", "nufft1d3", "nufft2d1", "nufft2d2", "nufft2d3", "nufft3d1", "nufft3d2", "nufft3d3",
]  # fmt: skip
