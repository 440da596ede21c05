"""What is computed, wherever it runs: the operation, and the request that describes one call of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .array import Operand
from .precision import conformance

if TYPE_CHECKING:
    from .narrow import Narrow


class Work(NamedTuple):
    """What a request costs in principle: floating-point operations, and bytes that must be read or written once."""

    flops: float
    bytes: float


class Features(NamedTuple):
    """Where a request stands in a kernel's time model.

    ``name`` is the parameter class: requests of one class differ in size alone. ``at`` are the coordinates inside the
    class, each the base-2 logarithm of a size; the model interpolates log time between measured points.
    """

    name: str
    at: tuple[float, ...]


def log2(size: float) -> float:
    """Return the base-2 logarithm of a size, counting an empty one as 1."""
    return math.log2(size) if size > 1 else 0.0


class Request:
    """One call without its data: hashable, comparable, cheap.

    Attributes
    ----------
    operation : Operation
    operands : tuple of (Operand or None)
        Shape, dtype, device and kind of each operand, in the operation's order; None for one that was not given.
    params : hashable
        The operation's own parameters.
    tol : float or None
        Relative L2 error asked for; None means the dtype's conformance tolerance.
    threads : int
        CPU threads that the call may use.
    """

    __slots__ = ("_hash", "operands", "operation", "params", "threads", "tol")

    def __init__(
        self, operation: Operation, operands: tuple[Operand | None, ...], params: Any, tol: float | None, threads: int
    ) -> None:
        self.operation = operation
        self.operands = operands
        self.params = params
        self.tol = tol
        self.threads = threads
        self._hash = hash((operation.name, operands, params, tol, threads))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Request)
            and self._hash == other._hash
            and self.operation is other.operation
            and self.operands == other.operands
            and self.params == other.params
            and self.tol == other.tol
            and self.threads == other.threads
        )

    def __repr__(self) -> str:
        shown = ", ".join(
            "None" if o is None else f"{o.dtype}{list(o.shape)}" + ("" if o.device == "cpu" else f" on {o.device}")
            for o in self.operands
        )
        return f"{self.operation.name}({shown}; {self.params})"

    @property
    def first(self) -> Operand:
        """The first operand, which decides kind, device and dtype of the result."""
        operand = self.operands[0]
        assert operand is not None
        return operand

    @property
    def home(self) -> str:
        """Device where the operands live: the first one that is not the host, else the host."""
        for operand in self.operands:
            if operand is not None and operand.device != "cpu":
                return operand.device
        return "cpu"

    @property
    def mixed(self) -> bool:
        """True when operands are of more than one array kind, so that a kernel must view some of them."""
        return len({operand.kind for operand in self.operands if operand is not None}) > 1


class Variant(NamedTuple):
    """A request that could take the place of another, or of several calls of it, and what to do, in words."""

    text: str
    request: Request
    calls: int = 1


class Operation:
    """An operation: its name, checks, work, gradient rule, and a float64 reference that is slow and obviously right.

    One instance a family stands in ``core/operations``; the user functions beside it check arguments, build
    ``params`` and hand over to the dispatcher.
    """

    name: str = ""
    # True where a parameter of its own says how exact a result must be: `using(tol=...)` reaches it through that.
    own_tolerance: bool = False
    # True where `gradient` also takes gradients of what `forward_for_gradient` saved, after those of the results;
    # they arrive in second derivatives only.
    differentiates_saved: bool = False
    # True where `forward_for_gradient` saves something besides the operands that no derivative goes through: the rules
    # derive its share from the operands, whose function it is.
    saves: bool = False
    # True where the result is linear in the first operand and no other one can be varied.
    linear: bool = False
    # True where parameters may be left open until operands have values (`completed` fills them in).
    defers: bool = False

    def result(self, request: Request) -> tuple[Operand, ...]:
        """Return the shape, dtype, device and kind of each array that the request gives back."""
        raise NotImplementedError

    def work(self, request: Request) -> Work:
        """Return the floating-point operations and bytes of a request."""
        raise NotImplementedError

    def features(self, request: Request) -> Features:
        """Return the parameter class of a request and its coordinates in it."""
        raise NotImplementedError

    def tolerance(self, request: Request) -> float:
        """Return the relative L2 error that conformance allows when the caller gives no ``tol``."""
        return conformance(self.result(request)[0].dtype)

    def narrowed(self, request: Request) -> Sequence[Narrow]:
        """Return requests in lower precision that may stand in for one, where its tolerance could allow that."""
        return ()

    def variants(self, request: Request) -> Iterable[Variant]:
        """Yield other requests that could serve a caller as well and may be faster; ``explain`` asks for them."""
        return ()

    def samples(self, quick: bool) -> Iterable[Request]:
        """Yield the requests that ``adaptive profile`` measures."""
        raise NotImplementedError

    def urgency(self, request: Request) -> float:
        """Return how many times earlier than others of its class a sample is measured, because more depends on it."""
        return 1.0

    def held_out(self, rng: np.random.Generator) -> Request:
        """Return a random request of sizes that ``samples`` does not hold, to judge the router by."""
        raise NotImplementedError

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        """Return the plain request of this operation whose first operand has this shape and dtype."""
        raise NotImplementedError

    def describe(self, request: Request) -> str:
        """Return what the request is, in a few words for a table."""
        o = request.first
        return f"{'x'.join(map(str, o.shape)) or 'scalar'} {o.dtype}"

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        """Return random NumPy operands for a request."""
        raise NotImplementedError

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        """Return the relative L2 error of a result against the float64 reference.

        For large requests a random part of the outputs is enough, so that checking costs less than a second.
        """
        raise NotImplementedError

    def forward_for_gradient(self, params: Any, arrays: tuple[Any, ...], run: Any) -> tuple[Any, tuple[Any, ...]]:
        """Run the operation and return its result with the arrays that ``gradient`` will want besides the operands."""
        return run(self, params, *arrays), ()

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        """Return the gradient for each operand, by operations of this library.

        None stands where there is none; it may stand where ``wanted`` says that nobody asks.
        """
        raise NotImplementedError(f"{self.name} has no gradient rule yet; detach its operands")

    def tangent(
        self, params: Any, arrays: tuple[Any, ...], tangents: tuple[Any, ...], result: Any
    ) -> tuple[Any, ...] | None:
        """Return how the results change with the operands (forward mode), or None: by two gradients, then.

        ``tangents`` has None for an operand that does not change.
        """
        return None

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], Callable[[list[Any]], list[Any]] | None] | None:
        """Return one call that stands for ``size`` calls, or None where they must be made one by one.

        Operands that are ``stacked`` have a leading axis over the calls; so must the results, once the function that is
        returned third (None: as they are) has been given them.
        """
        return None

    def completed(self, params: Any, arrays: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Return parameters and operands with nothing left open, now that the operands have values."""
        return params, arrays


def relative_error(result: Any, reference: Any) -> float:
    """Return ``||result - reference|| / ||reference||``; infinite where only one is finite."""
    result, reference = np.asarray(result), np.asarray(reference)
    if result.shape != reference.shape:
        return math.inf
    wide = np.result_type(reference.dtype, np.float64)
    result, reference = result.astype(wide), reference.astype(wide)
    finite = np.isfinite(reference)
    if not np.array_equal(np.isnan(result), np.isnan(reference)):
        return math.inf
    if not np.array_equal(result[np.isinf(reference)], reference[np.isinf(reference)]):
        return math.inf
    if not np.all(np.isfinite(result[finite])):
        return math.inf
    norm = float(np.linalg.norm(reference[finite]))
    difference = float(np.linalg.norm(result[finite] - reference[finite]))
    return difference / norm if norm else difference
