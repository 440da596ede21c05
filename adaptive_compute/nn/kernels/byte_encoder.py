"""A Triton kernel for the spectral features of bytes: every output element is computed where it is stored.

Nothing is looked up but the frequencies: a program reads a few bytes and writes a tile of features, so the kernel's
time is that of writing its result. The cosine is a polynomial rather than the processor's own instruction, so that the
interpreter and the GPU compute the same thing.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: N803  # pointers and constants are in capitals

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

ELEMENTS, WARPS = {2: 2048, 4: 4096}, {2: 2, 4: 4}  # of a tile, by bytes of an element; as measured on an H100
LEAST, COLUMNS = 128, 1024  # neighbouring features that a program computes
ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds a float32 of less than 2^22 to an integer


@triton.jit
def features(
    BYTES, STEPS, OUT, rows, dim, c0, c1, c2, c3, c4,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, WHOLE: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """Store ``OUT[row, column] = sqrt(2) cos(2 pi (BYTES[row] STEPS[0, column] + STEPS[1, column]))``."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    value = tl.load(BYTES + row, mask=row < rows, other=0).to(tl.float32)
    if WHOLE:
        step = tl.load(STEPS + column)
        shift = tl.load(STEPS + dim + column)
    else:
        step = tl.load(STEPS + column, mask=column < dim, other=0.0)
        shift = tl.load(STEPS + dim + column, mask=column < dim, other=0.0)
    turns = value[:, None] * step[None, :] + shift[None, :]
    turns -= (turns + ROUNDER) - ROUNDER
    a = 0.25 - tl.abs(turns)  # cos(2 pi turns) = sin(2 pi a), and |a| <= 1/4
    s = a * a
    wave = c3
    if TERMS == 5:
        wave = c4 * s + c3
    wave = ((wave * s + c2) * s + c1) * s + c0
    inside = (row < rows)[:, None]
    if not WHOLE:
        inside = inside & (column < dim)[None, :]
    place = OUT + row[:, None] * dim + column[None, :]
    tl.store(place, (wave * a).to(OUT.dtype.element_ty), mask=inside)


@lru_cache(maxsize=2)
def coefficients(terms: int) -> tuple[float, ...]:
    """Return the polynomial in a^2 of ``sqrt(2) sin(2 pi a) / a``, ``|a| <= 1/4``, interpolated at Chebyshev points."""

    def wave(s: np.ndarray) -> np.ndarray:
        return 2 * np.pi * np.sqrt(2) * np.sinc(2 * np.sqrt(s))

    fit = np.polynomial.Chebyshev.interpolate(wave, terms - 1, domain=[0, 1 / 16])
    found = fit.convert(kind=np.polynomial.Polynomial).coef
    return (*found.tolist(), *[0.0] * (5 - terms))


def tile(dim: int, size: int) -> tuple[int, int]:
    """Return how many bytes and how many features of each a program handles; a feature has ``size`` bytes."""
    width = min(dim & -dim, COLUMNS)  # of 768 features, 256: no thread is idle, no column need be masked
    if width < LEAST:
        width = min(triton.next_power_of_2(dim), COLUMNS)
    return max(ELEMENTS[size] // width, 1), width


def encode(values: Any, steps: Any, dtype: Any) -> Any:
    """Return the features (rows, dim) of bytes (rows,).

    ``steps`` (2, dim), float32, holds the turns of a feature for each unit of a byte's value, and at value zero.
    """
    rows, dim = values.numel(), steps.shape[1]
    out = torch.empty((rows, dim), dtype=dtype, device=values.device)
    if out.numel():
        many, width = tile(dim, dtype.itemsize)
        # Terms: one more would be below what the result's dtype can hold.
        terms = 5 if dtype is torch.float32 else 4
        features[(triton.cdiv(rows, many), triton.cdiv(dim, width))](
            values, steps, out, rows, dim, *coefficients(terms),
            ROWS=many, WIDTH=width, WHOLE=dim % width == 0, TERMS=terms, num_warps=WARPS[dtype.itemsize],
        )  # fmt: skip
    return out
