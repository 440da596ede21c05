"""Fourier transforms as dispatches: what the FFT and the NUFFT kernels build their programs from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import fft_pair, fft_plan
from .fft_group import SHAPE, Shape, arrangement
from .fft_plan import Stages
from .limits import Limits
from .program import Buffer, Builder, spread_groups

COMPLEX, REAL, PACKED, MIRRORED, HALF = range(5)  # how points stand in memory; the shader's LOAD and STORE
CONJUGATE_IN, SWAP_IN, SWAP_OUT, CONJUGATE_OUT, FACTOR_IN, FACTOR_OUT, CONJUGATE_FACTOR = (1 << i for i in range(7))
AT_LOAD, AT_STORE = 1, 2
FACTORS, EXTRA = 3, 4  # bindings of the tables that only some passes have
STORAGE = {"complex64": 0, "float16": 1, "bfloat16": 2, "float32": 3}


@dataclass(frozen=True)
class Side:
    """How one side of a transform, source or target, lies in memory.

    ``pitch`` is the distance of two lines that differ in the axes before the transformed one, ``count`` how many points
    are there along it; both, as all distances, in complex numbers for complex points and in real ones for real points.
    """

    kind: int
    pitch: int
    count: int
    storage: int = 0


@dataclass
class Pass:
    """One dispatch of the shader ``fft``; fields as its constants, which its head describes."""

    stages: Stages
    lines: int
    across: tuple[int, int] = (0, 0)  # at load, at store
    lengths: tuple[int, int, int] = (1, 1, 1)
    source: tuple[int, int, int, int] = (0, 0, 0, 0)
    target: tuple[int, int, int, int] = (0, 0, 0, 0)
    step: tuple[int, int] = (1, 1)
    inside: tuple[int, int] = (1, 1)  # IN_DIV, IN_MOD
    outside: tuple[int, int] = (1, 1)
    between: tuple[int, int] = (1, 1)
    twiddle: int = 0
    load: int = COMPLEX
    store: int = COMPLEX
    valid: int = 0
    kept: int = 0
    length: int = 0
    storage: int = 0
    flags: int = 0
    scale: float = 1.0
    between_n: int = 1
    shader: str = "fft"
    tables: dict[int, Buffer] = field(default_factory=dict)

    def add(self, b: Builder, source: Buffer, target: Buffer, limits: Limits, shape: Shape) -> None:
        """Add the dispatch."""
        s = self.stages
        group = arrangement(s, any(self.across), self.lines, self.store == HALF, limits, shape)
        roots = b.table(fft_plan.stage_roots(s))
        buffers = [source, target, roots, *(self.tables.get(i, roots) for i in (FACTORS, EXTRA))]
        radices = (*s.radices, 1, 1, 1, 1)[:5]
        blocks = [1 if across else s.threads for across in self.across]
        constants = [
            group.lines * s.threads, self.lines, group.lines, s.n, s.threads, *radices, group.pitch, group.pad,
            group.words, int(group.together), group.rounds, *blocks, *self.lengths[:2], *self.source[:3],
            self.step[0], *self.inside, self.valid, self.load, self.storage, *self.target[:3], self.step[1],
            *self.outside, self.kept, self.store, *self.between, self.twiddle, self.flags, self.length,
            float(self.scale), self.lengths[2], self.source[3], self.target[3], self.between_n,
        ]  # fmt: skip
        count = len(s.radices)
        groups = spread_groups(-(-self.lines // group.lines))
        few = "_few" if self.shader == "fft" and set(s.radices) <= {1, *fft_plan.FEW} else ""
        shader = f"{self.shader}{few}_{count if count < 4 else 5}"
        b.dispatch(shader, buffers, writes=[target], groups=groups, constants=constants)


@dataclass(frozen=True)
class Axis:
    """A transform along one axis: ``before`` lines of ``n`` points whose neighbours are ``inner`` apart."""

    n: int
    before: int
    inner: int
    forward: bool
    scale: float
    source: Side
    target: Side
    conjugate: int = 0  # CONJUGATE_IN or CONJUGATE_OUT or nothing

    @property
    def lines(self) -> int:
        return self.before * self.inner


def complex_axis(n: int, before: int, inner: int, forward: bool, scale: float) -> Axis:
    """Return the plain transform of complex points in C order."""
    side = Side(COMPLEX, n * inner, n)
    return Axis(n, before, inner, forward, scale, side, side)


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
    order = sorted(axes, reverse=True) or [len(shape) - 1]
    for number, axis in enumerate(order):
        n = shape[axis] if axes else 1
        before, inner = math.prod(shape[:axis]) * (1 if axes else shape[axis]), math.prod(shape[axis + 1 :])
        last = scale if number == len(order) - 1 else 1.0
        along(b, source, target, complex_axis(n, before, inner, forward, last), limits)
        source = target


def along(b: Builder, source: Buffer, target: Buffer, axis: Axis, limits: Limits, shape: Shape = SHAPE) -> None:
    """Add the dispatches of one axis. Source and target may be the same buffer where both lie alike."""
    words, threads = limits.shared_memory // 4, limits.invocations
    cut = fft_plan.passes(axis.n, words, threads)
    pair = fft_pair.choose(axis.n, limits, shape) if _plain(axis) else None
    if pair is not None:
        _paired(b, source, target, axis, pair, limits, shape)
    elif cut is None:
        _bluestein(b, source, target, axis, limits, shape)
    elif axis.target.kind == HALF and (len(cut) > 1 or axis.n > words):
        # The bins that must be mixed lie in different workgroups.
        spectrum = b.scratch(8 * axis.n * axis.lines)
        plain = replace(axis, target=Side(COMPLEX, axis.n * axis.inner, axis.n), conjugate=0, scale=1.0)
        along(b, source, spectrum, plain, limits, shape)
        _separate(b, spectrum, target, axis)
    else:
        _passes(b, source, target, axis, cut, limits, shape)


def scratch_bytes(axis: Axis, limits: Limits) -> int:
    """Return the size of the largest buffer that an axis needs beside its source and target."""
    words, threads = limits.shared_memory // 4, limits.invocations
    n = axis.n
    cut = fft_plan.passes(n, words, threads)
    if cut is None:
        n = fft_plan.padded(n, words, threads)
        cut = fft_plan.passes(n, words, threads, most=2)
        assert cut is not None
    return 8 * n * axis.lines if len(cut) > 1 else 0


def _flags(axis: Axis) -> tuple[int, int]:
    """Return the flags of the first pass and those of the last."""
    swapped = not axis.forward
    return (
        (SWAP_IN if swapped else 0) | (axis.conjugate & CONJUGATE_IN),
        (SWAP_OUT if swapped else 0) | (axis.conjugate & CONJUGATE_OUT),
    )


def _plain(axis: Axis) -> bool:
    """Tell whether source and target are whole lines of complex points, one after the other."""
    sides = (axis.source, axis.target)
    return axis.inner == 1 and all(s == Side(COMPLEX, axis.n, axis.n) for s in sides)


def _paired(
    b: Builder, source: Buffer, target: Buffer, axis: Axis, pair: fft_pair.Pair, limits: Limits, shape: Shape
) -> None:
    """Add a transform whose last two passes are one dispatch, with a pass before them where the pair has one."""
    into, out = _flags(axis)
    if pair.first > 1:
        scratch = b.scratch(8 * axis.n * axis.lines)
        part = fft_plan.part(pair.first)
        assert part is not None
        _first(axis, part, {}).add(b, source, scratch, limits, shape)
        source, into = scratch, 0
    fft_pair.add(b, source, target, pair, axis.before * pair.first, into | out, axis.scale, limits, shape)


def _first(axis: Axis, s: Stages, tables: dict[int, Buffer]) -> Pass:
    """Return the first of several passes, into scratch."""
    n, inner, many, rest = axis.n, axis.inner, max(axis.before, 1), axis.n // s.n
    x = axis.source
    one = Pass(
        s, axis.lines * rest, (1, 1), (inner, rest, many), (1, 0, x.pitch, 0), (1, 0, n * inner, 0), (inner, inner),
        (inner, rest), (inner, rest), (inner, rest), AT_STORE, kept=n, flags=_flags(axis)[0], tables=tables,
        load=x.kind, valid=x.count, storage=x.storage, length=n,
    )  # fmt: skip
    return _with_twiddle(one, n, AT_STORE)


def _passes(
    b: Builder, source: Buffer, target: Buffer, axis: Axis, cut: tuple[int, ...], limits: Limits, shape: Shape
) -> None:
    """Add a transform of as many passes as ``cut`` is long (Bailey's four-step form, twice for three)."""
    into, out = _flags(axis)
    n, inner, x, y = axis.n, axis.inner, axis.source, axis.target
    ends: dict[str, Any] = {"load": x.kind, "valid": x.count, "storage": x.storage, "length": n}
    real = {EXTRA: b.table(fft_plan.real_roots(n))} if HALF in (x.kind, y.kind) else {}
    made = [fft_plan.stages(m) if len(cut) == 1 else fft_plan.part(m) for m in cut]
    parts = [s for s in made if s is not None]
    if len(parts) == 1:
        step = inner
        one = Pass(
            parts[0], axis.lines, (int(inner > 1),) * 2, (inner, max(axis.before, 1), 1), (1, x.pitch, 0, 0),
            (1, y.pitch, 0, 0), (step, step), store=y.kind, kept=y.count, flags=into | out,
            scale=axis.scale, tables=real, **ends,
        )  # fmt: skip
        one.add(b, source, target, limits, shape)
        return
    rest = n // cut[0]
    many = max(axis.before, 1)
    scratch = b.scratch(8 * n * axis.lines)
    _first(axis, parts[0], real).add(b, source, scratch, limits, shape)
    if len(parts) == 3:
        tail = cut[2]
        two = Pass(
            parts[1], axis.lines * cut[0] * tail, (1, 1), (inner, tail, many * cut[0]), (1, 0, rest * inner, 0),
            (1, 0, rest * inner, 0), (inner, inner), (inner, tail), (inner, tail), (inner, tail), AT_STORE,
            valid=rest, kept=rest, length=rest,
        )  # fmt: skip
        _with_twiddle(two, rest, AT_STORE).add(b, scratch, scratch, limits, shape)
        lengths = (inner, cut[0], cut[1])
        strides = (1, rest * inner, tail * inner, n * inner)
        ordered = cut[0] * cut[1]
        to = (1, 0, 0, y.pitch)
    else:
        lengths = (inner, cut[0], many)
        strides = (1, rest * inner, n * inner, 0)
        ordered = cut[0]
        to = (1, 0, y.pitch, 0)
    end = Pass(
        parts[-1], axis.lines * ordered, (int(inner > 1), 1), lengths, strides, to, (inner, inner),
        outside=(inner, ordered), valid=cut[-1], length=cut[-1], store=y.kind, kept=y.count, flags=out,
        scale=axis.scale,
    )  # fmt: skip
    end.add(b, scratch, target, limits, shape)


def _with_twiddle(one: Pass, n: int, when: int) -> Pass:
    """Return the pass with the roots between passes of an n-point transform."""
    one.twiddle, one.between_n = when, n
    return one


def _separate(b: Builder, spectrum: Buffer, target: Buffer, axis: Axis) -> None:
    """Add the step from the spectrum of n complex points to that of 2n real ones."""
    count = axis.lines * (axis.n // 2 + 1)
    table = b.table(fft_plan.real_roots(axis.n))
    b.dispatch(
        "fft_real", [spectrum, target, table], writes=[target], groups=spread_groups(-(-count // SHAPE.threads)),
        constants=[
            SHAPE.threads, count, axis.n, axis.inner, axis.target.pitch, int(axis.conjugate == CONJUGATE_OUT),
            float(axis.scale),
        ],
    )  # fmt: skip


def _bluestein(b: Builder, source: Buffer, target: Buffer, axis: Axis, limits: Limits, shape: Shape) -> None:
    """Add a transform of any length: a convolution with a chirp (Bluestein 1970), by transforms of a quick length."""
    words, threads = limits.shared_memory // 4, limits.invocations
    n = axis.n
    m = fft_plan.padded(n, words, threads)
    cut = fft_plan.passes(m, words, threads, most=2)
    assert cut is not None
    chirp = b.table(fft_plan.chirp(n))
    spectrum = fft_plan.chirp_spectrum(n, m)
    into, out = _flags(axis)
    x, y, inner = axis.source, axis.target, axis.inner
    out = (out ^ SWAP_OUT) | FACTOR_OUT | CONJUGATE_FACTOR  # the convolution leaves real and imaginary part exchanged
    ends: dict[str, Any] = {"load": x.kind, "valid": x.count, "storage": x.storage, "length": n}
    finish: dict[str, Any] = {"store": y.kind, "kept": y.count, "scale": axis.scale}
    parts = [s for s in (fft_plan.stages(cut[0]), fft_plan.stages(cut[-1], fft_plan.FEW)) if s is not None]
    many = max(axis.before, 1)
    if len(cut) == 1:
        one = Pass(
            parts[-1], axis.lines, (int(inner > 1),) * 2, (inner, many, 1), (1, x.pitch, 0, 0), (1, y.pitch, 0, 0),
            (inner, inner), flags=into | FACTOR_IN | out, shader="fft_convolve",
            tables={FACTORS: chirp, EXTRA: b.table(_pairs(spectrum))}, **ends, **finish,
        )  # fmt: skip
        one.add(b, source, target, limits, shape)
        return
    rows, columns = cut
    # Filter and back again while the rows are there, so that neither transform needs its result in order.
    filtered = b.table(_pairs(np.ascontiguousarray(spectrum.reshape(columns, rows).T)))
    scratch = b.scratch(8 * m * axis.lines)
    one = Pass(
        parts[0], axis.lines * columns, (1, 1), (inner, columns, many), (1, 0, x.pitch, 0), (1, 0, m * inner, 0),
        (inner, inner), (inner, columns), (inner, columns), (inner, columns), kept=m, flags=into | FACTOR_IN,
        tables={FACTORS: chirp}, **ends,
    )  # fmt: skip
    _with_twiddle(one, m, AT_STORE).add(b, source, scratch, limits, shape)
    middle = Pass(
        parts[1], axis.lines * rows, (int(inner > 1),) * 2, (inner, many * rows, 1), (1, columns * inner, 0, 0),
        (1, columns * inner, 0, 0), (inner, inner), between=(inner, rows), valid=columns, length=columns,
        kept=columns, shader="fft_convolve", tables={EXTRA: filtered},
    )  # fmt: skip
    middle.add(b, scratch, scratch, limits, shape)
    last = Pass(
        parts[0], axis.lines * columns, (1, 1), (inner, columns, many), (1, 0, m * inner, 0), (1, 0, y.pitch, 0),
        (inner, inner), (inner, columns), (inner, columns), (inner, columns), valid=m, length=m, flags=out,
        tables={FACTORS: chirp}, **finish,
    )  # fmt: skip
    _with_twiddle(last, m, AT_LOAD).add(b, scratch, target, limits, shape)


def _pairs(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag], -1).astype(np.float32)
