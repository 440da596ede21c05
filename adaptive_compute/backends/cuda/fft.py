"""FFT on NVIDIA GPUs by cuFFT: through torch, and through CuPy's plans, which transform strided axes in place."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...core.operation import Features, Request
from ...core.operations.fft_rule import FULL, NONE, WORKING, FFTParams
from ...core.precision import COMPLEX_OF
from ...core.transfer import counters
from ..base import Kernel
from . import memory, stream
from .array import cupy_follows, stream_pointer
from .device import DTYPES, dtype_of, index_of, needs
from .hermitian import Hermitian

# CUFFT's numbers for the kinds of transform, by (kind, working precision).
_TYPES = {
    ("c2c", "float32"): 0x29, ("r2c", "float32"): 0x2A, ("c2r", "float32"): 0x2C,
    ("c2c", "float64"): 0x69, ("r2c", "float64"): 0x6A, ("c2r", "float64"): 0x6C,
}  # fmt: skip
MOST_HANDLES = 4  # streams for which one plan keeps a handle with its work area
LARGEST = 2**31 - 1  # cuFFT's plain plans count in ints


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [TorchFFT(device), CupyFFT(device)]


def _placed(request: Request) -> Features:
    """Return a place in the time model: to real values, and over several axes, a call costs several times more."""
    found, p = request.operation.features(request), request.params
    return found._replace(name=f"{found.name}/{'c2r' if p.kind == 'c2r' else 'c'}{min(len(p.axes), 2)}")


def _known(request: Request) -> bool | str:
    dtype = request.first.dtype
    if dtype not in DTYPES:
        return f"a GPU computes no {dtype}"
    if request.first.size == 0:
        return "cuFFT refuses empty batches"
    return True


def _cut(request: Request) -> tuple[bool, ...] | None:
    """Tell that a batch may be cut along its leading axis."""
    return None if 0 in request.params.axes else (True,)


def _name(p: FFTParams) -> str:
    return {
        ("c2c", True): "fftn", ("c2c", False): "ifftn", ("r2c", True): "rfftn",
        ("r2c", False): "ihfftn", ("c2r", False): "irfftn", ("c2r", True): "hfftn",
    }[p.kind, p.forward]  # fmt: skip


def _norm(p: FFTParams) -> str:
    if p.scale not in (NONE, FULL):
        return "ortho"
    return "backward" if (p.scale == NONE) == p.forward else "forward"


def _wanted(request: Request) -> Any:
    """Return the dtype that a transform's operand must have."""
    x, p = request.first, request.params
    working = WORKING.get(x.dtype, "float64")
    return dtype_of(COMPLEX_OF[working] if x.dtype.startswith("complex") or p.kind == "c2r" else working)


class TorchFFT(Kernel):
    """torch.fft."""

    name = "torch"
    operation = "fft"
    native = "torch"

    def __init__(self, device: str) -> None:
        self.device = device

    def supports(self, request: Request) -> bool | str:
        return _known(request)

    def features(self, request: Request) -> Features:
        return _placed(request)

    def stages(self, request: Request) -> int:
        return stream.count(request, _cut(request))

    def plan(self, request: Request) -> Any:
        import torch

        p: FFTParams = request.params
        dtype, norm = _wanted(request), _norm(p)
        lengths: Any = p.lengths
        axes: Any = p.axes
        function = getattr(torch.fft, _name(p))
        if len(axes) == 1:  # the short functions do less before they begin
            function, lengths, axes = getattr(torch.fft, _name(p)[:-1]), lengths[0], axes[0]
        lazy = p.kind == "r2c" and not p.forward  # torch leaves the conjugate to be taken later, which is no result yet
        real = p.kind == "c2r" and self.device != "cpu"
        fit = fits(p, request.first.shape)
        mend = _mender(request, p, index_of(self.device)) if real else None

        def run(x: Any) -> Any:
            if x.dtype is not dtype:
                x = x.to(dtype)
            if mend is not None:
                for axis, n in fit:
                    x = _fitted(x, axis, n)
                x = mend(x.resolve_conj().clone(memory_format=torch.contiguous_format))
            result = function(x, lengths, axes, norm)
            return result.resolve_conj() if lazy else result

        return stream.streamed(memory.GuardedPlan(run), self, request, _cut(request))


class CupyFFT(Kernel):
    """cuFFT's plans as CuPy keeps them: one or up to three neighbouring axes, wherever they stand."""

    name = "cupy"
    operation = "fft"
    native = "torch"

    def __init__(self, device: str) -> None:
        self.device = device

    def features(self, request: Request) -> Features:
        return _placed(request)

    def stages(self, request: Request) -> int:
        return stream.count(request, _cut(request))

    def supports(self, request: Request) -> bool | str:
        known = _known(request)
        if known is not True:
            return known
        x, p = request.first, request.params
        if len(p.axes) > 3 or tuple(p.axes) != tuple(range(p.axes[0], p.axes[0] + len(p.axes))):
            return "cuFFT's plans transform at most three neighbouring axes, in order"
        before, after = math.prod(x.shape[: p.axes[0]]), math.prod(x.shape[p.axes[-1] + 1 :])
        if before > 1 and after > 1:
            return "one cuFFT plan has no stride for batches on both sides of the transformed axes"
        if max(x.size, math.prod(p.lengths) * before * after) > LARGEST:
            return f"more than {LARGEST} elements"
        return needs("cupy")

    def plan(self, request: Request) -> Any:
        return stream.streamed(CufftPlan(request, index_of(self.device)), self, request, _cut(request))


class _Pointer:
    """What CuPy's plans ask of an array: where its data begin."""

    __slots__ = ("data", "ptr")

    def __init__(self, pointer: int) -> None:
        self.ptr = pointer
        self.data = self


class CufftPlan(memory.GuardedPlan):
    """One transform with a cuFFT handle for each stream that used it, because a handle has one work area."""

    def __init__(self, request: Request, index: int) -> None:
        super().__init__(self._transform)
        p: FFTParams = request.params
        self.index, self.params = index, p
        working = WORKING.get(request.first.dtype, "float64")
        self.dtype = dtype_of(working if p.kind == "r2c" else COMPLEX_OF[working])
        (result,) = request.operation.result(request)
        self.shape, self.result_dtype = result.shape, dtype_of(result.dtype)
        self._type = _TYPES[p.kind, working]
        self._fit = fits(p, request.first.shape)
        source = list(request.first.shape)
        for axis, n in self._fit:
            source[axis] = n
        self._mend = _mender(request, p, index)
        self._layout = _layout(tuple(source), self.shape, p)
        total = math.prod(p.lengths)
        self._factor = {NONE: None, FULL: 1 / total}.get(p.scale, total**-0.5)
        self._handles: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._direction = -1 if p.forward else 1

    def _transform(self, x: Any) -> Any:
        import torch

        if x.dtype is not self.dtype:
            x = x.to(self.dtype)
        for axis, n in self._fit:
            x = _fitted(x, axis, n)
        if x.is_conj() or not x.is_contiguous():
            counters.count_copy("an operand of cuFFT that is not contiguous")
            x = x.resolve_conj().contiguous()
        # cuFFT may overwrite the operand of a transform to real values. It knows one sign of each real kind; the other
        # one is that of conjugated values.
        p = self.params
        if p.kind == "c2r":
            x = self._mend(x.conj_physical() if p.forward else x.clone())
        result = torch.empty(self.shape, dtype=self.result_dtype, device=x.device)
        with self._lock, cupy_follows(self.index):
            self._handle().fft(_Pointer(x.data_ptr()), _Pointer(result.data_ptr()), self._direction)
        if p.kind == "r2c" and not p.forward:
            result.conj_physical_()
        return result if self._factor is None else result.mul_(self._factor)

    def _handle(self) -> Any:
        stream = stream_pointer(self.index)
        handle = self._handles.get(stream)
        if handle is None:
            from cupy.cuda import cufft

            with memory.from_torch():
                handle = cufft.PlanNd(*self._layout, self._type, *self._batch, "C", len(self.shape) - 1, None)
            while len(self._handles) >= MOST_HANDLES:
                del self._handles[next(iter(self._handles))]
            self._handles[stream] = handle
            area = getattr(handle, "work_area", None)
            self.nbytes = max(self.nbytes, int(getattr(getattr(area, "mem", None), "size", 0)))
        return handle

    @property
    def _batch(self) -> tuple[int]:
        lengths = math.prod(n for axis, n in enumerate(self.shape) if axis not in self.params.axes)
        return (max(lengths, 1),)

    def close(self) -> None:
        super().close()
        with self._lock:
            self._handles.clear()


def _layout(source: tuple[int, ...], result: tuple[int, ...], p: FFTParams) -> tuple[Any, ...]:
    """Return lengths, and for both sides the embedding, the step between elements and the step between transforms."""
    sides = []
    for shape in (source, result):
        own = [shape[axis] for axis in p.axes]
        after = math.prod(shape[p.axes[-1] + 1 :])
        # With the batch behind the axes, elements of one transform lie ``after`` apart and transforms lie side by side.
        sides.append((own, after, 1) if after > 1 else (own, 1, math.prod(own)))
    return (list(p.lengths), *sides[0], *sides[1])


def fits(p: FFTParams, shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the axes that must be cut or padded, with the lengths that a transform reads of them."""
    needed = list(p.lengths)
    if p.kind == "c2r":
        needed[-1] = needed[-1] // 2 + 1
    return [(axis, n) for axis, n in zip(p.axes, needed) if shape[axis] != n]


def _mender(request: Request, p: FFTParams, index: int) -> Callable[[Any], Any]:
    """Return what makes contiguous operands what they stand for, by one kernel where there is a compiler for it."""
    if p.kind != "c2r" or needs("cupy") is not True:
        return partial(hermitian_, p=p)
    shape = list(request.first.shape)
    for axis, n in fits(p, shape):
        shape[axis] = n
    return Hermitian(shape, p, WORKING.get(request.first.dtype, "float64") == "float64", index)


def hermitian_(x: Any, p: FFTParams) -> Any:
    """Make the operand of a transform to real values, in place, what it stands for.

    The first element of the last axis, and the last one where the length is even, are their own mirror images: only
    their part that is the conjugate of itself, mirrored in the other axes, has a share in a real result. NumPy drops
    the rest; cuFFT lets it into the result at some lengths.
    """
    *others, last = p.axes
    n = p.lengths[-1]
    for place in {0, n // 2} if n % 2 == 0 else {0}:
        plane = x.narrow(last, place, 1)
        if others:
            mirrored = plane.flip(others).roll([1] * len(others), others)
            plane.add_(mirrored.conj()).mul_(0.5)
        else:
            plane.imag.zero_()
    return x


def _fitted(x: Any, axis: int, length: int) -> Any:
    """Cut, or pad with zeros at the end."""
    import torch

    have = x.shape[axis]
    if have > length:
        return x.narrow(axis, 0, length)
    return torch.cat([x, x.new_zeros((*x.shape[:axis], length - have, *x.shape[axis + 1 :]))], axis)
