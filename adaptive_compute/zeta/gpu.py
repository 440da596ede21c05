"""The zeros of many windows at once on an NVIDIA GPU: the main sums as one batch of nonuniform FFTs, then every cell's
zeros, of which alone something comes back.

The transform is spectral's: type 1, from the terms' places to the grid. It is spread here rather than by ``ac.nufft``
because each row has places of its own, which are known to be in order: no sorting, no plan for each number of terms,
and sums in a fixed order. Its error stays within the same ``spectral.EPS`` times the sum of magnitudes.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from . import blocks, dirichlet, sign, spectral
from .kernels import BETA, CURVE, FIELDS, WIDTH, source
from .remainder import remainder
from .spectral import MARGIN, Window
from .theta import develop

GRID = 1 << 18  # points of a row's fine grid
ROWS = 32  # windows worked on at once
CELLS = GRID // 2 - 1 - 2 * MARGIN  # of a row, at most: the fine grid has twice as many points as are asked
LEAST_TERMS = 256  # with fewer, theta bends too much within a window for the few coefficients that a row has
THREADS = 128  # of a block
KERNELS = ("phases", "spread", "values", "cells", "gather")


class Grid(NamedTuple):
    """What the kernels need of a batch of windows.

    Attributes
    ----------
    rows : ndarray of float64, shape (windows, len(FIELDS) + CURVE)
    correction : ndarray of float64, shape (windows, degree + 1)
        The remainder as polynomials in ``k / middle``.
    cells, points, most, reach, likely : int
        Cells of a row, points of its grid, terms of the longest row, points of the fine grid that are reached, and how
        many zeros are likely to be found.
    """

    rows: np.ndarray
    correction: np.ndarray
    cells: int
    points: int
    most: int
    reach: int
    likely: int


def prepare(windows: Sequence[Window], oversampling: float) -> Grid:
    """Work out a batch of windows' numbers.

    Parameters
    ----------
    windows : sequence of Window
        Each with at least ``LEAST_TERMS`` terms.
    oversampling : float
        Points per mean distance of zeros, at least.
    """
    cells = max(math.ceil((w.last - w.first) * spectral.density(w.top) * oversampling) for w in windows)
    cells = min(cells + cells % 2, CELLS)  # a window of 2^15 zeros passes it by a few
    points = cells + 1 + 2 * MARGIN
    middle = points // 2
    rows = np.zeros((len(windows), len(FIELDS) + CURVE))
    furthest, likely = 0.0, 0
    for row, window in zip(rows, windows):
        step = (window.last - window.first) / cells
        offset = window.first + (middle - MARGIN) * step
        near = round(offset)
        around = develop(window.base + near, step * (middle + 1) + 1)
        # The largest sample near stands for the interpolant's error; 4 sqrt(N) bounds all samples.
        error = spectral.budget(window, points) + sign.interpolant()[1] * 4 * math.sqrt(window.terms)
        row[: len(FIELDS)] = (
            around.center, offset - near, around.rest, *around.frequency, step, window.terms, window.first, error,
        )  # fmt: skip
        row[len(FIELDS) : len(FIELDS) + len(around.curve)] = around.curve
        furthest = max(furthest, step * around.frequency.hi)
        likely += math.ceil((window.last - window.first) * spectral.density(window.top)) + 16
    center, shift, half, terms = rows[:, 0], rows[:, 1], middle * rows[:, 5], rows[:, 6]
    degree = max(spectral.correction_degree(r, n) for r, n in zip(half.tolist(), terms.tolist()))
    nodes, to_series, to_power = spectral.chebyshev_fit(degree)
    found = remainder(center[:, None] + (shift[:, None] + half[:, None] * nodes), terms[:, None])
    correction = (to_power @ (to_series @ found.T)).T
    touched = min(math.ceil(furthest * GRID) + 2 * WIDTH, GRID)
    return Grid(rows, np.ascontiguousarray(correction), cells, points, int(terms.max()), touched, likely)


@lru_cache(maxsize=1)
def undo() -> np.ndarray:
    """Return one over the spreading kernel's Fourier transform, for each frequency from 0 on."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    kernel = weights * np.exp(BETA * (np.sqrt(1 - nodes**2) - 1)) * (WIDTH / 2)
    k = np.arange(GRID // 4 + 1)
    found = np.zeros(len(k))
    for z, w in zip(nodes, kernel):
        found += w * np.cos(math.pi * WIDTH / GRID * z * k)
    return 1 / found


def constants() -> dict[str, float]:
    """Return what the kernels' text takes from the other tiles."""
    names = ("TAPS", "DEGREE", "ALLOWED", "STEEP")
    return {"MARGIN": MARGIN} | {name: getattr(sign, name) for name in names}


class Device:
    """Kernels, tables and this room's memory on one GPU.

    Parameters
    ----------
    number : int
        The GPU's.
    """

    def __init__(self, number: int) -> None:
        self.cupy, self.number = importlib.import_module("cupy"), number
        with self.cupy.cuda.Device(number):
            module = self.cupy.RawModule(code=source(**constants()), options=("--std=c++14",))
            self.kernel = {name: module.get_function(name) for name in KERNELS}
            self.make_tables()

    def make_tables(self) -> None:
        """Bring to the GPU what every batch needs."""
        self.undo = self.cupy.asarray(undo())
        self.matrix = self.cupy.asarray(np.ascontiguousarray(sign.interpolant()[0]))
        self._frequencies: tuple[Any, ...] = ((), ())
        self._mine, self._lock = threading.local(), threading.Lock()
        self._wait()

    def use(self) -> None:
        """Make the calling thread work on this GPU, on a stream of its own."""
        self.cupy.cuda.Device(self.number).use()
        self._mine.stream = self.cupy.cuda.Stream(non_blocking=True)
        self._mine.stream.use()

    @property
    def finder(self) -> blocks.Finder:
        """How a hunt works on windows here."""
        return blocks.Finder(self.find, ROWS << 15, ROWS)

    def find(self, windows: Sequence[Window], oversampling: float, every: bool) -> list[blocks.Part]:
        """Find several windows' zeros; see ``blocks.find``.

        Windows of few terms, and those on whose grid a sign could not be told, are worked on by the CPU.
        """
        if min(w.terms for w in windows) < LEAST_TERMS:
            return blocks.find(windows, oversampling, every)
        times = math.ceil(oversampling / sign.OVERSAMPLING)  # a row has room for its own number of points
        split = [piece for window in windows for piece in _pieces(window, times)]
        parts: list[blocks.Part] = []
        for k in range(0, len(split), ROWS):
            parts += self._find(split[k : k + ROWS], oversampling, every)
        return [_whole(parts[k : k + times]) for k in range(0, len(parts), times)]

    def _find(self, windows: Sequence[Window], oversampling: float, every: bool) -> list[blocks.Part]:
        grid, z = self.samples(windows, oversampling)
        parts, doubtful = self.roots(grid, z, every)
        for i in np.flatnonzero(doubtful).tolist():
            parts[i : i + 1] = blocks.find([windows[i]], oversampling, every)
        return parts

    def samples(self, windows: Sequence[Window], oversampling: float) -> tuple[Grid, Any]:
        """Evaluate Z on the windows' grids.

        Parameters
        ----------
        windows : sequence of Window
            At most ``ROWS``, each with at least ``LEAST_TERMS`` terms.
        oversampling : float
            Points per mean distance of zeros, at least.

        Returns
        -------
        grid : Grid
        z : array of float64, shape (windows, points)
            On the GPU.
        """
        cp, count = self.cupy, len(windows)
        g = prepare(windows, oversampling)
        hi, lo = self._table(g.most)
        rows, correction = cp.asarray(g.rows), cp.asarray(g.correction)
        strength, place = cp.empty((count, g.most), complex), cp.empty((count, g.most))
        self._launch("phases", g.most, count, rows, hi, lo, g.most, float(GRID), strength, place)
        fine = cp.zeros((count, GRID), complex)
        self._launch("spread", g.reach, count, rows, strength, place, g.most, GRID, g.reach, fine)
        fine = cp.fft.ifft(fine, norm="forward")
        z, degree = cp.empty((count, g.points)), g.correction.shape[1] - 1
        self._launch("values", g.points, count, rows, correction, degree, fine, GRID, self.undo, g.points, z)
        return g, z

    def roots(self, g: Grid, z: Any, every: bool) -> tuple[list[blocks.Part], np.ndarray]:
        """Find the zeros of all rows.

        Returns
        -------
        parts : list of Part
            One a row.
        doubtful : ndarray of bool
            Whether a sign on the row's grid could not be told.
        """
        cp, count = self.cupy, len(g.rows)
        rows = cp.asarray(g.rows)
        found, roots = cp.empty((count, g.cells), np.uint8), cp.empty((count, g.cells, 2))
        doubtful = cp.zeros(count, np.int32)
        self._launch("cells", g.cells, count, rows, z, g.points, self.matrix, int(every), found, roots, doubtful)
        until = cp.cumsum(found, dtype=np.int32)
        room = count * g.cells // 2 + 64
        out = cp.empty(2 * count + room)
        zeros = out[2 * count :]
        self._launch("gather", g.cells, count, rows, found, until, roots, doubtful, g.cells, room, out, zeros)
        host = self._fetch(out, 2 * count, g.likely)
        ends = host[:count].astype(np.int64)
        if ends[-1] > room:
            raise RuntimeError(f"{ends[-1]} sign changes in {count * g.cells} cells: the samples make no sense")
        offsets = host[2 * count : 2 * count + int(ends[-1])].copy()
        errors = g.rows[:, FIELDS.index("error")].tolist()
        return [blocks.Part(*part) for part in zip(np.split(offsets, ends[:-1]), errors)], host[count : 2 * count] > 0

    def _table(self, terms: int) -> tuple[Any, ...]:
        with self._lock:
            if len(self._frequencies[0]) < terms:
                self._frequencies = tuple(self.cupy.asarray(part) for part in dirichlet.frequencies(2 * terms))
                self._wait()
            return self._frequencies

    def _wait(self) -> None:
        self.cupy.cuda.get_current_stream().synchronize()  # streams of other threads will read what was copied

    def _launch(self, name: str, wide: int, count: int, *arguments: Any) -> None:
        typed = tuple(np.int32(a) if type(a) is int else np.float64(a) if type(a) is float else a for a in arguments)
        self.kernel[name]((-(-wide // THREADS), count), (THREADS,), typed)

    def _fetch(self, out: Any, head: int, likely: int) -> np.ndarray:
        """Copy what was found to the host, through pinned memory: as much as is likely to be there, or all."""
        size = min(head + likely, len(out))
        kept = getattr(self._mine, "kept", None)
        if kept is None or len(kept) < size:
            kept = self._mine.kept = self._pinned(size + size // 4)
        out[:size].get(out=kept[:size])
        return kept if head + kept[head // 2 - 1] <= size else out.get()

    def _pinned(self, size: int) -> np.ndarray:
        return np.frombuffer(self.cupy.cuda.alloc_pinned_memory(8 * size), np.float64, size)


def _pieces(window: Window, count: int) -> list[Window]:
    """Cut a window into pieces of the same length."""
    length = window.last - window.first
    ends = [window.first + length * i / count for i in range(count)] + [window.last]
    return [replace(window, first=a, last=b) for a, b in pairwise(ends)]


def _whole(pieces: Sequence[blocks.Part]) -> blocks.Part:
    """Put neighbouring pieces together."""
    if len(pieces) == 1:
        return pieces[0]
    return blocks.Part(
        np.concatenate([p.offsets for p in pieces]), max(p.error for p in pieces),
        tuple(at for p in pieces for at in p.undecided),
    )  # fmt: skip


_devices: dict[int, Device] = {}
_making = threading.Lock()


def device(number: int) -> Device:
    """Return a GPU, made ready once."""
    with _making:
        if number not in _devices:
            _devices[number] = Device(number)
        return _devices[number]
