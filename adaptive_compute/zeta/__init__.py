"""The zeros of Riemann's zeta function on the critical line: streamed, counted by theory, kept in checkpoints.

    from adaptive_compute import zeta

    for block in zeta.zeros(1e6, 1.1e6):
        print(block.verified, block.base + block.offsets[:3])

``Z``, ``theta``, ``N`` and ``gram`` are Hardy's function, the Riemann-Siegel theta function, the number of zeros up
to a height and the Gram points. The tiles they are made of stand in a module each: theta, dirichlet, spectral,
remainder, sign, probe, and turing, which counts.
"""

from .blocks import Block, Height
from .checkpoint import Checkpoint, CheckpointError
from .hunt import Summary, zeros, zeros_array
from .probe import Z
from .theta import theta
from .turing import N, OpenCountError, gram

__all__ = [
    "Block", "Checkpoint", "CheckpointError", "Height", "N", "OpenCountError", "Summary", "Z", "gram", "theta", "zeros",
    "zeros_array",
]  # fmt: skip
