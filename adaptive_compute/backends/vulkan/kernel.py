"""What every Vulkan kernel shares: its device, the check of sizes, and plans that run a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.array import Operand
from ...core.operation import Request
from ..base import Kernel, Plan
from .array import VulkanArray
from .limits import Limits, devices
from .program import Program
from .recording import State
from .runtime import Runtime, runtime


class VulkanKernel(Kernel):
    """A kernel on one Vulkan device; a subclass sets ``operation`` and ``name``, gives ``refusal`` and ``program``."""

    native = "vulkan"
    fuses_transfers = True
    compiles = True

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def runtime(self) -> Runtime:
        """The device at work."""
        return runtime(self.device)

    @property
    def limits(self) -> Limits:
        """What the device can do; known without opening it."""
        return devices()[int(self.device.partition(":")[2])]

    def supports(self, request: Request) -> bool | str:
        reason = self.refusal(request)
        if reason is not None:
            return reason
        if any(o is not None and o.device not in ("cpu", self.device) for o in request.operands):
            return True  # it comes through the host first; the router decides whether it may
        too_large = self.too_large(request)
        if too_large is not None and not self.pieces(request):
            return too_large
        return True

    def refusal(self, request: Request) -> str | None:
        """Return why this kernel cannot compute the request, whatever its size, or None."""
        raise NotImplementedError

    def too_large(self, request: Request) -> str | None:
        """Return why an operand or result does not fit one buffer, or None."""
        operands = [o for o in request.operands if o is not None]
        for operand in (*operands, *request.operation.result(request)):
            reason = self.limits.too_large(operand.nbytes)
            if reason is not None:
                return reason
        return None

    def pieces(self, request: Request) -> Sequence[tuple[Request, tuple[Any, ...], Any]]:
        """Split a request on host arrays that exceeds the buffer limit; empty where it cannot be split.

        Each piece is a smaller request, the index of its part in each operand (None: all of it), and the index of its
        part in the result.
        """
        return ()

    def program(self, request: Request) -> Program:
        """Return the dispatches of a request."""
        raise NotImplementedError

    def plan(self, request: Request) -> Plan:
        results = request.operation.result(request)
        if any(result.size == 0 for result in results):
            return EmptyPlan(self.runtime, results)
        if self.too_large(request) is not None:
            return PiecesPlan(self, request, results)
        return VulkanPlan(self.runtime, self.program(request), results)


class VulkanPlan(Plan):
    """A program ready to run on arrays of the device (``run``) or of the host (``through_host``)."""

    def __init__(self, owner: Runtime, program: Program, results: Sequence[Operand]) -> None:
        self.runtime, self.results = owner, tuple(results)
        self._program = program
        self.nbytes = program.nbytes
        self.state: State | None = None

    def run(self, *arrays: Any) -> Any:
        memory = self._memory(arrays)
        made = self.runtime.run_resident(self._program, memory, self.state)
        return self._together([VulkanArray(m, r.shape, r.dtype, self.runtime) for m, r in zip(made, self.results)])

    def through_host(self, *arrays: Any) -> Any:
        """Compute on NumPy arrays (bfloat16 as its bits), in one submission."""
        results = [np.empty(r.shape, "uint16" if r.dtype == "bfloat16" else r.dtype) for r in self.results]
        self.runtime.run_host(self._program, [arrays[b.index] for b in self._program.operands], results, self.state)
        return self._together(results)

    def gpu_seconds(self, *arrays: Any, repeats: int = 1) -> list[float]:
        """Return the device's own time on resident arrays, by timestamps."""
        memory = self._memory(arrays)
        return self.runtime.gpu_seconds(self._program, memory, self.state, repeats)

    def _memory(self, arrays: Sequence[Any]) -> list[Any]:
        given = [arrays[b.index] for b in self._program.operands]
        return [a if isinstance(a, np.ndarray) else a.memory for a in given]

    def close(self) -> None:
        self.runtime.forget(self._program)
        if self.state is not None:
            self.state.close()

    @staticmethod
    def _together(results: list[Any]) -> Any:
        return results[0] if len(results) == 1 else tuple(results)


class EmptyPlan(Plan):
    """The plan of a request whose result has no elements."""

    def __init__(self, owner: Runtime, results: Sequence[Operand]) -> None:
        self.runtime, self.results = owner, tuple(results)

    def run(self, *arrays: Any) -> Any:
        made = []
        for r in self.results:
            zeros = np.zeros(r.shape, "uint16" if r.dtype == "bfloat16" else r.dtype)
            made.append(VulkanArray(self.runtime.upload(zeros) if r.size else None, r.shape, r.dtype, self.runtime))
        return VulkanPlan._together(made)

    def through_host(self, *arrays: Any) -> Any:
        return VulkanPlan._together(
            [np.zeros(r.shape, "uint16" if r.dtype == "bfloat16" else r.dtype) for r in self.results]
        )


class PiecesPlan(Plan):
    """A request on host arrays that exceeds one buffer, computed piece by piece."""

    def __init__(self, kernel: VulkanKernel, request: Request, results: Sequence[Operand]) -> None:
        self._pieces = kernel.pieces(request)
        self.results = tuple(results)
        self._plans: dict[Request, Plan] = {}
        for piece, _, _ in self._pieces:
            if piece not in self._plans:
                self._plans[piece] = kernel.plan(piece)

    def run(self, *arrays: Any) -> Any:
        raise AssertionError("an array on the device never exceeds one buffer")

    def through_host(self, *arrays: Any) -> Any:
        (r,) = self.results
        result = np.empty(r.shape, "uint16" if r.dtype == "bfloat16" else r.dtype)
        for piece, parts, place in self._pieces:
            given = [a if a is None or part is None else a[part] for a, part in zip(arrays, parts)]
            compute = self._plans[piece].through_host
            assert compute is not None
            result[place] = compute(*given)
        return result

    def close(self) -> None:
        for plan in self._plans.values():
            plan.close()
