"""NUFFT in compute shaders: sorted points, a prolate kernel on a grid twice as fine, and a Fourier transform between.

A plan keeps what it knows of its points on the device: a call with the points of the call before uses it again. Points
on the host are compared with a copy, points on the device by identity, because arrays there never change.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...core.curve import Curve, Estimate
from ...core.operation import Request
from ...core.operations.nufft_rule import (
    NufftParams,
    check_finite,
    coordinate_names,
    outputs_of,
    points_of,
    sample,
)  # fmt: skip
from ..base import Kernel, Plan
from .array import VulkanArray
from .kernel import EmptyPlan, VulkanKernel
from .nufft_extent import extents
from .nufft_grid import SMALLEST_EPS, width_of
from .nufft_kernel import expected_error
from .nufft_pieces import NufftPieces, pieces_of
from .nufft_programs import Programs, scales
from .nufft_steps import LANES
from .runtime import State
from .tuning import tuned


def _sample(dim: int) -> Request:
    """Return a request of type 2 to choose by."""
    points, modes = {1: (1 << 17, 1 << 17), 2: (1 << 17, 1 << 16), 3: (1 << 16, 1 << 15)}[dim]
    return sample(2, dim, "float32", 1e-5, 1, points, modes)


# Invocations that share points in interpolation.
TUNING = {f"nufft.lanes.{dim}": (LANES[dim], (1, 2, 4, 8), partial(_sample, dim)) for dim in (1, 2, 3)}


def kernels(device: str) -> list[Kernel]:
    """Return this room's kernels."""
    return [VulkanNUFFT(device)]


def predicted_error(params: NufftParams) -> float:
    """Return about the relative error of a transform, its rounding included.

    It is known from the kernel's width and the number of modes; a curve through measured points would not follow its
    steps. In type 3 points and targets are both rounded to a grid, once more than in the other types.
    """
    error = expected_error(width_of(params.eps, params.dim), params.dim, max(params.n_modes))
    return 2 * error if params.type == 3 else error


class VulkanNUFFT(VulkanKernel):
    """All types in one to three dimensions, in single precision."""

    operation = "nufft"
    name = "vulkan-nufft"

    def refusal(self, request: Request) -> str | None:
        p: NufftParams = request.params
        if request.first.dtype != "complex64":
            return f"Vulkan shaders here compute in float32; {request.first.dtype} needs more"
        if p.options:
            return f"FINUFFT's options were given: {', '.join(name for name, _ in p.options)}"
        if p.eps < 0.999 * SMALLEST_EPS:
            return f"eps={p.eps:.1e} is below {SMALLEST_EPS:.0e}, which its widest kernel gives in float32"
        return None

    def too_large(self, request: Request) -> str | None:
        return super().too_large(request) or self.limits.too_large(Programs.largest(request))

    def pieces(self, request: Request) -> list[Any]:
        if self.limits.too_large(Programs.largest(request)) is not None:
            return []  # the grid or the points of one transform
        return [(piece, (some,), some) for piece, some in pieces_of(request, self.limits.largest)]

    def estimate(self, request: Request, curves: Mapping[str, Curve]) -> Estimate | None:
        found = super().estimate(request, curves)
        return None if found is None else found._replace(error=predicted_error(request.params))

    def plan(self, request: Request) -> Plan:
        results = request.operation.result(request)
        if points_of(request) == 0 or outputs_of(request) == 0:
            return EmptyPlan(self.runtime, results)
        if self.too_large(request) is not None:
            return NufftPieces(request, self.limits.largest, lambda piece: NufftPlan(self, piece))
        return NufftPlan(self, request)


class NufftPlan(Plan):
    """Programs for new points and for known ones, and the device memory that holds what is known."""

    def __init__(self, kernel: VulkanNUFFT, request: Request) -> None:
        self.runtime = kernel.runtime
        self.params: NufftParams = request.params
        (self.result,) = request.operation.result(request)
        lanes = tuned(kernel.device, f"nufft.lanes.{self.params.dim}", LANES[self.params.dim])
        self.programs = Programs.of(request, kernel.limits, kernel.limits.largest, lanes)
        self.nbytes = self.programs.fresh.nbytes
        self.state = State(self.runtime)
        self._lock = threading.Lock()
        self._known: list[np.ndarray] | None = None
        self._resident: list[weakref.ref] | None = None

    def run(self, *arrays: VulkanArray) -> VulkanArray:
        data, *coordinates = arrays
        with self._lock:
            if self._resident is not None and all(known() is x for known, x in zip(self._resident, coordinates)):
                (made,) = self.runtime.run_resident(self.programs.again, [data.memory], self.state)
            else:
                self._known = self._resident = None
                (made,) = self._run_fresh(data, coordinates)
                self._resident = [weakref.ref(x) for x in coordinates]
        return VulkanArray(made, self.result.shape, self.result.dtype, self.runtime)

    def _run_fresh(self, data: VulkanArray, coordinates: Sequence[VulkanArray]) -> list[Any]:
        ranges = extents(self.runtime, coordinates, coordinate_names(self.params))
        memory = [x.memory for x in (data, *coordinates)]
        extra = [self.runtime.upload(values) for values in self._scales(ranges)]
        try:
            return self.runtime.run_resident(self.programs.fresh, [*memory, *extra], self.state)
        finally:
            for place in extra:
                self.runtime.release(place)

    def through_host(self, data: np.ndarray, *coordinates: np.ndarray) -> np.ndarray:
        """Compute on NumPy arrays, in one submission."""
        result = np.empty(self.result.shape, self.result.dtype)
        with self._lock:
            known = self._known
            if known is not None and all(map(np.array_equal, known, coordinates)):
                self.runtime.run_host(self.programs.again, [data], [result], self.state)
                return result
            self._known = self._resident = None
            check_finite(coordinates, coordinate_names(self.params))
            copies = [np.array(x, order="C") for x in coordinates]
            ranges = [(float(x.min()), float(x.max())) for x in copies] if self.params.type == 3 else []
            operands = [data, *copies, *self._scales(ranges)]
            self.runtime.run_host(self.programs.fresh, operands, [result], self.state)
            self._known = copies
        return result

    def _scales(self, ranges: Sequence[tuple[float, float]]) -> tuple[np.ndarray, ...]:
        return scales(self.programs.grids[0], ranges) if self.params.type == 3 else ()

    def gpu_seconds(self, *arrays: VulkanArray, repeats: int = 1) -> list[float]:
        """Return the device's own time with known points, by timestamps."""
        self.run(*arrays)
        return self.runtime.gpu_seconds(self.programs.again, [arrays[0].memory], self.state, repeats)

    def close(self) -> None:
        for program in (self.programs.fresh, self.programs.again):
            self.runtime.forget(program)
        self.state.close()
