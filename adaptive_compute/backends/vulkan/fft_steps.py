"""Complex Fourier transforms as dispatches: what the FFT and the NUFFT kernels build their programs from."""

from __future__ import annotations

import math

import numpy as np

from .limits import Limits
from .program import Buffer, Builder, spread_groups

_LOCAL = 64


def transform(
    b: Builder,
    source: Buffer,
    target: Buffer,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    forward: bool,
    scale: float,
    limits: Limits,
) -> None:
    """Add the dispatches of an unnormalised complex transform over some axes, times ``scale``.

    Parameters
    ----------
    b : Builder
        The program to add to.
    source, target : Buffer
        complex64 pairs in C order. They may be the same buffer; otherwise the source stays as it is.
    shape : tuple of int
        Lengths of all axes, each at least 1.
    axes : tuple of int
        Axes to transform, each at most once, none negative.
    forward : bool
        Exponent -2 pi i jk/n where True, +2 pi i jk/n where False.
    scale : float
        Factor of the result.
    limits : Limits
        The device's.
    """
    del limits
    count = math.prod(shape)
    steps = [(shape[axis], math.prod(shape[axis + 1 :])) for axis in axes] or [(1, 1)]
    if len(steps) == 1 and source == target:
        steps.append((1, 1))
    for number, (n, stride) in enumerate(steps):
        last = number == len(steps) - 1
        to = target if last else b.scratch(8 * count)
        angles = 2 * np.pi * np.arange(n) / n
        table = b.table(np.stack([np.cos(angles), -np.sin(angles)], -1).astype(np.float32))
        constants = [_LOCAL, count, n, stride, int(not forward), scale if last else 1.0]
        groups = spread_groups(-(-count // _LOCAL))
        b.dispatch("fft", [source, to, table], writes=[to], groups=groups, constants=constants)
        source = to
