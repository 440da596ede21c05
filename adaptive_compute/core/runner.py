"""One kernel on one request, made ready to be checked and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .array import Operand, describe, kind_named
from .errors import AdaptiveError
from .operation import Request
from .registry import Registry

if TYPE_CHECKING:
    from ..backends.base import Kernel

FAILURES = (AdaptiveError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, OSError)


class FailedError(Exception):
    """A kernel failed while it was timed; the cause is the error it raised."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner.kernel.name)
        self.runner = runner


class Runner:
    """A kernel ready to be timed on one request, with operands where the kernel wants them."""

    def __init__(
        self, kernel: Kernel, request: Request, arrays: Sequence[Any], copies: Sequence[Any], registry: Registry
    ) -> None:
        self.kernel = kernel
        self.request = relocated(request, kernel)
        self.backend = registry.backend_of(kernel.device)
        self.threads = kernel.device == "cpu" or self.backend.software(kernel.device)
        self.plan = kernel.plan(self.request)
        self.sets = [self._native(arrays), self._native(copies)]
        self.turn = 0
        self.first = 0.0  # seconds of the first run
        self.used = 0.0  # seconds of all timed and warming runs
        self.error: float | None = None

    def _native(self, arrays: Sequence[Any]) -> list[Any]:
        native = kind_named(self.kernel.native)
        if self.kernel.device == "cpu":
            return [None if a is None else native.from_numpy(a) for a in arrays]
        return [None if a is None else self.backend.upload(a, self.kernel.device) for a in arrays]

    def once(self) -> Any:
        """Run once and return the result, as it comes."""
        self.turn += 1
        return self.plan.run(*self.sets[self.turn % 2])

    def host(self, result: Any) -> Any:
        """Return a result as NumPy arrays."""
        if isinstance(result, tuple):
            return tuple(self.host(part) for part in result)
        if self.kernel.device != "cpu":
            result = self.backend.download(result)
        return kind_named(describe(result).kind).to_numpy(result)

    def seconds(self, repeats: int) -> float:
        """Return the mean time of some runs in a row."""
        start = time.perf_counter()
        try:
            for _ in range(repeats):
                self.once()
            self.backend.synchronize(self.kernel.device)
        except (*FAILURES, MemoryError) as error:
            raise FailedError(self) from error
        elapsed = time.perf_counter() - start
        self.used += elapsed
        return elapsed / repeats


def relocated(request: Request, kernel: Kernel) -> Request:
    """Return the request with every operand in the kernel's own kind, on its device."""
    operands = tuple(
        None if o is None else Operand(o.shape, o.dtype, kernel.device, kernel.native) for o in request.operands
    )
    return Request(request.operation, operands, request.params, request.tol, request.threads)
