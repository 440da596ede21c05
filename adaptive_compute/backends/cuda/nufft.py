"""NUFFT on NVIDIA GPUs by cuFINUFFT, each of its spreading methods a candidate of its own.

A plan keeps a few *settings*: a cuFINUFFT plan on one stream with the points that it was made ready for. A call takes
a free setting whose points are its own: the same tensors, not written to since, which costs nothing to see; or equal
ones, which the device compares. Otherwise the points are checked there, brought into one period and set.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import DeviceOutOfMemory, NufftError
from ...core.operation import Request
from ...core.operations.fft_rule import prime_factors
from ...core.operations.nufft_period import TURN, TURN_REST, check_reach
from ...core.operations.nufft_rule import (
    FLOOR,
    ROUNDING,
    NufftParams,
    coordinate_names,
    grid_bytes,
    outputs_of,
    points_of,
)  # fmt: skip
from ...core.precision import REAL_OF
from ...core.transfer import counters
from ..base import Kernel, Plan
from . import driver, memory
from .array import stream_pointer
from .device import dtype_of, index_of, needs

MOST_SETTINGS = 4
SETTINGS_BYTES = 4 << 30  # what the settings of one plan may hold together, if more than one
MOST_BATCH = 8  # transforms that share one pass over the fine grid
# cuFINUFFT's ways to spread: the points of a tile gathered in shared memory; a thread for each point; a block of
# threads for each tile of the grid, which reads the points that reach it. Its own choice is one of the first two.
METHODS = {"cufinufft-tiles": 2, "cufinufft-points": 1, "cufinufft-output": 3}
_ACCEPTED = ("upsampfac",)
_TILE_BYTES = 48 << 10
_UPSAMPLING = 2.0  # cuFINUFFT's own choice for types 1 and 2
# Type 3 in single precision rounds points and targets to a grid: measured errors are below this, by modes and at all,
# by dimension (4.8e-5 were measured in three, with 13 modes each).
_TYPE_3_ROUNDING, _TYPE_3_LEAST = 6e-7, {1: 1e-5, 2: 1e-5, 3: 6e-5}
# Type 3 passes two kernels of the narrow grid, and misses eps by up to 4.7 times at 1e-3; one point more of the kernel
# is enough.
_TYPE_3_EPS = 0.5


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device."""
    return [Cufinufft(device, name) for name in METHODS]


class Cufinufft(Kernel):
    """cuFINUFFT with one of its spreading methods."""

    operation = "nufft"
    native = "torch"

    def __init__(self, device: str, name: str) -> None:
        self.device, self.name, self.method = device, name, METHODS[name]

    def supports(self, request: Request) -> bool | str:
        p: NufftParams = request.params
        others = [name for name, _ in p.options if name not in _ACCEPTED]
        if others:
            return f"FINUFFT's options were given, which are the CPU's: {', '.join(others)}"
        if request.first.dtype not in ("complex64", "complex128"):
            return f"it computes no {request.first.dtype}"
        if self.method == 3 and p.type == 2:
            return "this method spreads, and a transform of type 2 only interpolates"
        if self.method == 2 and p.type == 2 and p.dim == 1:
            return "cuFINUFFT interpolates in one dimension by a thread for each point alone"
        room = driver.found().gpus[index_of(self.device)].memory if driver.found().gpus else 0
        needed = grid_bytes(p, request.first.dtype)
        if room and needed > room:
            return f"its grid would take {needed / 2**30:.3g} GiB, and the GPU has {room / 2**30:.1f} GiB"
        return needs("cufinufft")

    def plan(self, request: Request) -> Plan:
        if points_of(request) == 0 or outputs_of(request) == 0:
            return EmptyPlan(request)
        return PointsPlan(request, self.method, index_of(self.device))


def tile_options(p: NufftParams, dtype: str) -> dict[str, int]:
    """Return the sizes with which tiles were measured to be faster than with cuFINUFFT's own.

    On an H100 (single precision, eps 1e-6, 10^7 points): more points for a block that interpolates, up to 1.1 times;
    and in three dimensions tiles of 48 KiB with their margins instead of nearly all of the shared memory, so that
    several blocks run at once: 2.2 times in type 1, 1.7 times in type 2. In double precision they would be too small.
    """
    options = {"gpu_maxsubprobsize": 4096} if p.type == 2 else {}
    width = math.ceil(math.log10(10 / min(p.eps, 0.1)) - 1e-6)
    side = int((_TILE_BYTES / 8) ** (1 / 3)) - 2 * ((width + 1) // 2)
    if p.dim == 3 and p.type != 3 and dtype == "complex64" and side >= 8 and not p.options:
        options |= dict.fromkeys(("gpu_binsizex", "gpu_binsizey", "gpu_binsizez"), side)
    return options


class EmptyPlan(Plan):
    """The plan of a transform over no points, or to no targets: zeros, or nothing."""

    def __init__(self, request: Request) -> None:
        (result,) = request.operation.result(request)
        self._shape, self._dtype, self._params = result.shape, dtype_of(result.dtype), request.params

    def run(self, data: Any, *points: Any) -> Any:
        import torch

        check_ranges(points, coordinate_names(self._params))
        return torch.zeros(self._shape, dtype=self._dtype, device=data.device)


class _Known(NamedTuple):
    """Points that a setting is ready for, and how often each had been written to then."""

    tensors: tuple[Any, ...]
    versions: tuple[int, ...]
    copies: tuple[Any, ...]


class _Setting:
    """A cuFINUFFT plan on one stream, its points, and what of them it reads in place."""

    __slots__ = ("engine", "kept", "known", "stream")

    def __init__(self, engine: Any, stream: int) -> None:
        self.engine, self.stream = engine, stream
        self.known: _Known | None = None
        self.kept: list[Any] = []


class PointsPlan(memory.GuardedPlan):
    """A transform whose settings remember their points."""

    def __init__(self, request: Request, method: int, index: int) -> None:
        super().__init__(self._transform)
        p: NufftParams = request.params
        self.params, self.index, self.names = p, index, coordinate_names(p)
        given = request.first.dtype
        self.double = given == "complex64" and _needs_double(p, REAL_OF[given])
        dtype = "complex128" if self.double else given
        self.given, self.dtype, self.real = dtype_of(given), dtype_of(dtype), dtype_of(REAL_OF[dtype])
        (result,) = request.operation.result(request)
        self.shape = result.shape
        batch = min(p.n_trans, MOST_BATCH)
        self.options: dict[str, Any] = {
            "gpu_method": method, "gpu_device_id": index, "modeord": p.modeord, "gpu_maxbatchsize": batch,
            **(tile_options(p, dtype) if method == METHODS["cufinufft-tiles"] else {}), **dict(p.options),
        }  # fmt: skip
        self.eps = max(p.eps * (_TYPE_3_EPS if p.type == 3 else 1), 1.01 * float(np.finfo(dtype).eps))
        self.name = dtype
        each = int(1.6**p.dim * grid_bytes(p, dtype) * batch) + 16 * points_of(request) * p.dim
        self.most = max(1, min(MOST_SETTINGS, SETTINGS_BYTES // max(each, 1)))
        self.nbytes = each  # most plans see one set of points
        self._free: list[_Setting] = []
        self._count = 0
        self._change = threading.Condition()

    def _transform(self, data: Any, *points: Any) -> Any:
        import torch

        if data.is_conj() or data.dtype is not self.dtype or not data.is_contiguous():
            counters.count_copy("strengths or modes that cuFINUFFT cannot read in place")
            data = data.resolve_conj().to(self.dtype).contiguous()
        stream = stream_pointer(self.index)
        setting, ready = self._take(points, stream)
        try:
            if not ready:
                self._set(setting, points)
            out = torch.empty(self.shape, dtype=self.dtype, device=data.device)
            with torch.cuda.device(self.index):
                setting.engine.execute(data, out)
        finally:
            self._give(setting)
        return out.to(self.given) if self.double else out

    def _set(self, setting: _Setting, points: tuple[Any, ...]) -> None:
        import torch

        p = self.params
        setting.known = None  # an engine that fails half-way has no points
        ranges = check_ranges(points, self.names)
        copies = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in points)
        ready = [x.to(self.real) for x in copies]
        if p.type != 3:
            factor = float(self.options.get("upsampfac") or _UPSAMPLING)
            ready = [
                placed(x, *r, name, n, p.eps, factor) for x, r, name, n in zip(ready, ranges, self.names, p.n_modes)
            ]
        gap = [None] * (3 - p.dim)
        with torch.cuda.device(self.index):
            try:
                setting.engine.setpts(*ready[: p.dim], *gap, *ready[p.dim :])
            except RuntimeError as error:
                raise _refusal(error) from error
        setting.kept = ready
        setting.known = _Known(points, _versions(points), copies)

    def _take(self, points: tuple[Any, ...], stream: int) -> tuple[_Setting, bool]:
        """Return a free setting of this stream, and whether it has these points.

        That is one that has them, a new one, or the one used longest ago.
        """
        with self._change:
            while True:
                mine = [setting for setting in self._free if setting.stream == stream]
                for same in (_surely_same, _same):
                    for setting in reversed(mine):
                        if same(setting.known, points):
                            self._free.remove(setting)
                            if same is _same and setting.known is not None:  # these are known from now on
                                setting.known = setting.known._replace(tensors=points, versions=_versions(points))
                            return setting, True
                if self._count < self.most and not any(setting.known is None for setting in mine):
                    self._count += 1
                    break
                if mine:
                    self._free.remove(mine[0])
                    return mine[0], False
                if self._free:
                    self._free.pop(0)  # of another stream: its place is needed here
                    self._count -= 1
                    continue
                self._change.wait()
        try:
            return _Setting(self._make(stream), stream), False
        except BaseException:
            with self._change:
                self._count -= 1
                self._change.notify()
            raise

    def _make(self, stream: int) -> Any:
        import cufinufft
        import torch

        p = self.params
        sizes: Any = p.dim if p.type == 3 else p.n_modes
        with torch.cuda.device(self.index), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return cufinufft.Plan(
                    p.type, sizes, p.n_trans, self.eps, p.isign, self.name, gpu_stream=stream, **self.options
                )
            except RuntimeError as error:
                raise _refusal(error) from error

    def _give(self, setting: _Setting) -> None:
        with self._change:
            self._free.append(setting)
            self._change.notify()

    def close(self) -> None:
        with self._change:
            self._count -= len(self._free)
            self._free.clear()
            self._change.notify_all()


def _refusal(error: RuntimeError) -> DeviceOutOfMemory:
    """Return cuFINUFFT's refusal as the lack of memory that it stands for.

    Its error codes do not reach Python. What it refuses with arguments that were checked is a fine grid or tiles that
    do not fit, and then another method is to run.
    """
    return DeviceOutOfMemory(f"cuFINUFFT has no room on the GPU, or its tiles none in shared memory: {error}")


def _needs_double(p: NufftParams, real: str) -> bool:
    if p.type != 3 or real != "float32":
        return False
    n = max(p.n_modes)
    return _TYPE_3_ROUNDING * n + _TYPE_3_LEAST[p.dim] > max(4 * p.eps + ROUNDING[real] * n, FLOOR[real])


def _versions(points: Sequence[Any]) -> tuple[int, ...]:
    return tuple(-1 if x.is_inference() else x._version for x in points)


def _surely_same(known: _Known | None, points: tuple[Any, ...]) -> bool:
    """Tell, from the host alone, whether these are the very tensors that were set, not written to since."""
    if known is None or any(a is not b for a, b in zip(known.tensors, points)):
        return False
    versions = _versions(points)
    return -1 not in versions and versions == known.versions


def _same(known: _Known | None, points: tuple[Any, ...]) -> bool:
    """Tell whether points equal those that were set; other tensors are compared on the device."""
    if known is None:
        return False
    if _surely_same(known, points):
        return True
    import torch

    return all(torch.equal(a, b) for a, b in zip(known.copies, points))


def check_ranges(points: Sequence[Any], names: str) -> list[tuple[float, float]]:
    """Return each coordinate's smallest and largest value, in one wait for the device; refuse what is not finite."""
    import torch

    if not points or not points[0].numel():
        return [(0.0, 0.0) for _ in points]
    pairs = [torch.stack(torch.aminmax(x.detach())).to(torch.float64) for x in points if x.numel()]
    ranges = [(float(low), float(high)) for low, high in torch.stack(pairs).tolist()]
    for x, name, (low, high) in zip(points, names, ranges):
        if not (np.isfinite(low) and np.isfinite(high)):
            where = int(torch.isfinite(x).to(torch.int8).argmin())
            raise NufftError(f"{name}[{where}] is {x[where].item()}; nonuniform points must be finite numbers")
    return ranges


_SINGLE_TURNS = float(np.float32(0.5 / np.pi))  # what cuFINUFFT multiplies single-precision points by


def placed(x: Any, low: float, high: float, name: str, n: int, eps: float, factor: float) -> Any:
    """Return points as cuFINUFFT is to have them: within one period, which it would find in the points' precision."""
    import torch

    reach = max(-low, high)
    check_reach(reach, name, n, eps)
    wide = x
    if reach > np.pi:
        wide = x.to(torch.float64)
        turns = torch.round(wide * (0.5 / np.pi))
        wide = wide - turns * TURN - turns * TURN_REST
    if x.dtype is torch.float32:
        return _on_grid(wide.to(torch.float64), fine_grid(n, factor)).to(torch.float32)
    return wide


def fine_grid(n: int, factor: float) -> int:
    """Return the length of cuFINUFFT's grid for n modes: the next even number with no prime factor above 5."""
    size = max(int(factor * n), 2)
    size += size % 2
    while prime_factors(size)[-1] > 5:
        size += 2
    return size


def _on_grid(x: Any, size: int) -> Any:
    """Return float64 points within one period, moved by what single precision loses of their places on the grid.

    cuFINUFFT turns a point into a place on the grid by a constant that is rounded itself, and rounds the product with
    the grid's length towards zero: places are low by half a unit of their last digit on average. Both together are most
    of its error with many modes, 6.4e-8 for each mode of a dimension, and 3.6e-8 without them.
    """
    import torch

    turns = x * (0.5 / np.pi) + 0.5
    turns = turns - torch.floor(turns)
    if size & (size - 1):  # products with a power of two are exact
        turns = turns + torch.exp2(torch.floor(torch.log2(turns * size)) - 24) / size
    return (turns - 0.5) / _SINGLE_TURNS
