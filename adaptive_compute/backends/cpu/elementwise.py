"""Element-wise expressions on the CPU, by NumPy and by torch, in cache-sized blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from ...core.errors import ExpressionError
from ...core.expression import UFUNCS
from ...core.operation import Request
from ...core.profile import Curve, Estimate
from ...core.program import Program, program
from ..base import Kernel, Plan
from . import pool
from .blocks import BoundStage, Library, Stage, run_all, stages
from .device import needs, torch_threads
from .elementwise_model import estimate


def kernels() -> Sequence[Kernel]:
    """Return this room's kernels, the one to prefer where nothing was measured first."""
    return [
        NumpyBlocked("numpy-blocked-threads", threaded=True),
        NumpyBlocked("numpy-blocked", threaded=False),
        TorchBlocked("torch-blocked-threads", threaded=True),
        TorchBlocked("torch-blocked", threaded=False),
        TorchVmap(),
    ]


# Elements below which handing parts over to other threads costs more than it saves, whatever is computed.
FEWEST_SHARED = 1 << 14


class NumpyPlan(Plan):
    """Stages for NumPy, whose warnings about NaN and infinity are not wanted."""

    def __init__(self, bound: list[BoundStage]) -> None:
        self.bound = bound

    def run(self, *arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return run_all(self.bound, arrays)


class TorchPlan(Plan):
    """Stages for torch, with the threads that the call may use."""

    def __init__(self, bound: list[BoundStage], threads: int) -> None:
        import torch

        self.bound, self.threads = bound, threads
        self.current_threads = torch.get_num_threads

    def run(self, *arrays: Any) -> Any:
        if self.current_threads() == self.threads:
            return run_all(self.bound, arrays)
        with torch_threads(self.threads):
            return run_all(self.bound, arrays)


# NumPy


def _numpy_where(condition: Any, yes: Any, no: Any, out: Any) -> None:
    np.copyto(out, no)
    np.copyto(out, yes, where=condition)


def _numpy_imag(x: Any, out: Any) -> None:
    np.copyto(out, np.imag(x))


def _numpy_real(x: Any, out: Any) -> None:
    np.copyto(out, np.real(x))


def _numpy_cast(x: Any, out: Any) -> None:
    np.copyto(out, x, casting="unsafe")


def _numpy_integer_power(x: Any, y: Any, out: Any) -> None:
    try:
        np.power(x, y, out=out)
    except ValueError:
        raise ExpressionError(
            "integers cannot be raised to negative integer powers, and an element of the exponent is negative; give a "
            "floating-point base or exponent"
        ) from None


_NUMPY_OWN: dict[str, Callable[..., Any]] = {
    "where": _numpy_where,
    "imag": _numpy_imag,
    "real": _numpy_real,
    "cast": _numpy_cast,
}


class NumpyLibrary(Library):
    """NumPy's ufuncs, and SciPy's where NumPy has none."""

    in_place = MappingProxyType({"where": (2,)})

    def function(self, op: str, loop: str) -> Callable[..., Any]:
        if op == "power" and loop.startswith("int"):
            return _numpy_integer_power
        if op in UFUNCS:
            return getattr(np, op)
        if op == "erf":
            from scipy.special import erf

            return erf
        return _NUMPY_OWN[op]

    def constant(self, value: Any, dtype: str) -> Any:
        return np.asarray(value, dtype)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return pool.results.empty(shape, dtype)

    def cast(self, array: Any, dtype: str) -> Any:
        return array.astype(dtype)

    def contiguous(self, array: Any) -> bool:
        return array.flags.c_contiguous

    def strides(self, array: Any) -> tuple[int, ...]:
        return array.strides

    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to(array, shape)

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        return array.transpose(axes)


NUMPY = NumpyLibrary()


class _Elementwise(Kernel):
    """What the kernels of expressions share: the time model."""

    operation = "elementwise"

    def __init__(self, name: str, threaded: bool) -> None:
        self.name, self.threaded = name, threaded

    def estimate(self, request: Request, curves: Mapping[str, Curve]) -> Estimate | None:
        return estimate(self._stages(request), curves) if curves else None

    def _stages(self, request: Request) -> list[Stage]:
        """Return the request's steps, in the order and with the fusions of this kernel's library."""
        raise NotImplementedError

    def _too_small(self, request: Request) -> str | None:
        if request.threads < 2:
            return "the call may use one thread only"
        if math.prod(request.operation.result(request)[0].shape) < FEWEST_SHARED:
            return "there is too little to share out"
        return None


class NumpyBlocked(_Elementwise):
    """NumPy in blocks, on the caller's thread or shared out."""

    def supports(self, request: Request) -> bool | str:
        if any(operand is not None and operand.dtype == "bfloat16" for operand in request.operands):
            return "NumPy has no bfloat16"
        return (self.threaded and self._too_small(request)) or True

    def plan(self, request: Request) -> Plan:
        workers = request.threads if self.threaded else 1
        return NumpyPlan([BoundStage(s, NUMPY, workers) for s in self._stages(request)])

    def _stages(self, request: Request) -> list[Stage]:
        return _numpy_stages(request)


def _stages_of(
    request: Request, native: frozenset[str], fuse: bool, in_place: Mapping[str, tuple[int, ...]]
) -> list[Stage]:
    shapes = [operand.shape for operand in request.operands if operand is not None]
    return stages(_program(request, native), shapes, fuse, in_place)


# A decision asks the kernel with threads and the one without for the same, and then plans one of them.
@lru_cache(maxsize=64)
def _numpy_stages(request: Request) -> list[Stage]:
    return _stages_of(request, frozenset(), False, NUMPY.in_place)


@lru_cache(maxsize=64)
def _torch_stages(request: Request) -> list[Stage]:
    return _stages_of(request, TORCH_NATIVE, True, TORCH.in_place)


def _program(request: Request, native: frozenset[str]) -> Program:
    return program(request.params, tuple(operand.dtype for operand in request.operands if operand is not None), native)


# torch


TORCH_NAMES = {
    "subtract": "sub", "multiply": "mul", "divide": "true_divide", "power": "pow", "positive": "positive",
    "negative": "neg", "absolute": "abs", "conjugate": "conj_physical", "rint": "round", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne",
}  # fmt: skip
TORCH_NATIVE = frozenset(("rsqrt", "sigmoid", "silu", "gelu", "gelu_tanh", "relu"))
_NOT_INTEGER = frozenset(("power", "floor_divide", "remainder", "reciprocal"))


@cache
def _torch_function(op: str, complex_: bool) -> Callable[..., Any]:
    import torch

    aten = torch.ops.aten

    # ``out`` may be ``x`` itself, so what is to be mended is found first.
    def sign(x: Any, out: Any) -> None:
        unordered = torch.isnan(x) if x.is_floating_point() else None
        torch.sign(x, out=out)
        if unordered is not None:  # torch gives 0
            out.masked_fill_(unordered, math.nan)

    few = torch.zeros(64, dtype=torch.float64)

    def gelu(x: Any, out: Any) -> None:
        if x.dtype == torch.float64:
            # Where AVX-512 code of others, NumPy's for one, has left the upper halves of registers in use, torch 2.13
            # takes 20 ns an element here instead of 2. Its addition leaves them clean.
            torch.add(few, few)
        infinite = x == math.inf if x.dtype == torch.float32 else None
        aten.gelu.out(x, out=out)
        if infinite is not None:  # torch's vectorised float32 gives NaN
            out.masked_fill_(infinite, math.inf)

    def remainder(x: Any, y: Any, out: Any) -> None:
        torch.copysign(torch.remainder(x, y), y, out=out)  # as NumPy's; torch gives a zero the sign of x

    # Of two equal zeros NumPy takes the second; torch takes either, depending on where in a block they lie.
    def second(function: Callable[..., Any]) -> Callable[..., Any]:
        def larger_or_smaller(x: Any, y: Any, out: Any) -> None:
            if not x.is_floating_point() or (not y.ndim and y != 0):
                function(x, y, out=out)
            else:
                torch.where(torch.eq(x, y), y, function(x, y), out=out)

        return larger_or_smaller

    special: dict[str, Callable[..., Any]] = {
        "remainder": remainder,
        "maximum": second(torch.maximum),
        "minimum": second(torch.minimum),
        "cast": lambda x, out: out.copy_(x),
        "positive": lambda x, out: out.copy_(x),
        "real": lambda x, out: out.copy_(x.real),
        "imag": lambda x, out: out.copy_(x.imag) if x.is_complex() else out.zero_(),
        "isfinite": lambda x, out: out.copy_(torch.isfinite(x)),
        "isinf": lambda x, out: out.copy_(torch.isinf(x)),
        "isnan": lambda x, out: torch.ne(x, x, out=out),
        "add_product": torch.addcmul,
        "subtract_product": lambda x, y, z, out: torch.addcmul(x, y, z, value=-1, out=out),
        "relu": lambda x, out: torch.clamp_min(x, 0, out=out),
        "silu": aten.silu.out,
        "sign": sign,
        "gelu": gelu,
        "gelu_tanh": lambda x, out: aten.gelu.out(x, approximate="tanh", out=out),
    }
    return special[op] if op in special else getattr(torch, TORCH_NAMES.get(op, op))


class TorchLibrary(Library):
    """torch's functions with ``out=``."""

    fuses = True
    torch = True

    def function(self, op: str, loop: str) -> Callable[..., Any]:
        return _torch_function(op, loop.startswith("complex"))

    def constant(self, value: Any, dtype: str) -> Any:
        import torch

        return torch.tensor(value, dtype=getattr(torch, dtype))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        import torch

        kind = getattr(torch, dtype)
        if math.prod(shape) * kind.itemsize < pool.SMALLEST:
            return torch.empty(shape, dtype=kind)
        if dtype == "bfloat16":
            return torch.from_numpy(pool.results.empty(shape, "int16")).view(kind)
        return torch.from_numpy(pool.results.empty(shape, dtype))

    def temporaries(self, length: int, dtypes: Sequence[str]) -> list[Any]:
        import torch

        return [torch.from_numpy(array) for array in super().temporaries(length, dtypes)]

    def cast(self, array: Any, dtype: str) -> Any:
        import torch

        return array.to(getattr(torch, dtype))

    def contiguous(self, array: Any) -> bool:
        return array.is_contiguous()

    def strides(self, array: Any) -> tuple[int, ...]:
        return array.stride()

    def broadcast(self, array: Any, shape: tuple[int, ...]) -> Any:
        return array.expand(shape)

    def permute(self, array: Any, axes: Sequence[int]) -> Any:
        return array.permute(*axes) if axes else array


TORCH = TorchLibrary()


class TorchBlocked(_Elementwise):
    """torch in blocks: each step over all of torch's threads, or blocks shared out and each step on one thread."""

    native = "torch"

    def supports(self, request: Request) -> bool | str:
        steps = _program(request, TORCH_NATIVE)
        for value in steps.values:
            for dtype in (value.loop, value.dtype):
                if dtype in ("uint16", "uint32", "uint64"):
                    return f"torch computes little in {dtype}"
            if value.op in _NOT_INTEGER and not value.loop.startswith(("float", "complex")):
                return f"torch's {value.op} of integers is not NumPy's"
            if value.op == "rint" and value.loop.startswith("complex"):
                return "torch does not round complex values"
        reason = self.threaded and self._too_small(request)
        return reason or needs("torch")

    def plan(self, request: Request) -> Plan:
        parts = self._stages(request)
        if self.threaded:
            return TorchPlan([BoundStage(s, TORCH, request.threads) for s in parts], request.threads)
        return TorchPlan([BoundStage(s, TORCH, 1, request.threads) for s in parts], request.threads)

    def _stages(self, request: Request) -> list[Stage]:
        return _torch_stages(request)


# Functions that could not be traced


class TorchVmap(Kernel):
    """A Python function of scalars, mapped over its operands by torch.vmap."""

    name = "torch-vmap"
    operation = "vmap"
    native = "torch"

    def supports(self, request: Request) -> bool | str:
        return needs("torch")

    def plan(self, request: Request) -> Plan:
        return VmapPlan(request.params.function, request.operation.result(request)[0].shape, request.threads)


class VmapPlan(Plan):
    """A function mapped over the elements of its broadcast operands."""

    def __init__(self, function: Callable[..., Any], shape: tuple[int, ...], threads: int) -> None:
        self.function, self.shape, self.threads = function, shape, threads

    def run(self, *arrays: Any) -> Any:
        with torch_threads(self.threads) as torch:
            flat = [array.expand(self.shape).reshape(-1) for array in arrays]
            return torch.vmap(self.function)(*flat).reshape(self.shape)
