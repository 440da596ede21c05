"""Element-wise expressions on NVIDIA GPUs: one generated kernel for the whole expression, and torch step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from ...core.array import itemsize
from ...core.operation import Features, Request, log2
from ...core.operations.elementwise_rule import BASIC, sample_classes
from ...core.profile import Curve, Estimate
from ...core.program import Program, program
from ..base import Kernel, Plan
from . import memory, stream
from .device import DTYPES, dtype_of, index_of, needs
from .fused import FusedPlan
from .fused_source import unwritable


def kernels(device: str) -> Sequence[Kernel]:
    """Return this room's kernels for a device, the one to prefer where nothing was measured first."""
    return [Fused(device), TorchSteps(device), TorchVmap(device)]


def _program(request: Request, native: frozenset[str] = frozenset()) -> Program:
    return program(request.params, tuple(o.dtype for o in request.operands if o is not None), native)


def _cut(request: Request) -> tuple[bool, ...] | None:
    """Tell which operands have the result's leading axis: those are cut along it, others are repeated."""
    (result,) = request.operation.result(request)
    if None in request.operands or not result.shape:
        return None
    ndim, count = len(result.shape), result.shape[0]
    return tuple(o is not None and len(o.shape) == ndim and o.shape[0] == count for o in request.operands)


class _Elementwise(Kernel):
    """What the kernels of expressions share: a time model by the bytes that they move.

    A GPU computes an expression while it waits for memory, so that the time of a call follows its bytes; what was
    measured of the sum of two arrays stands for every other expression.
    """

    operation = "elementwise"
    native = "torch"
    takes_host_scalars = True

    def __init__(self, device: str) -> None:
        self.device = device

    def estimate(self, request: Request, curves: Mapping[str, Curve]) -> Estimate | None:
        features = self.features(request)
        exact = curves.get(features.name)
        if exact is not None:
            return exact.at(features.at)
        dtype = features.name.partition("/")[2]
        curve = next((c for c in map(curves.get, (f"two/{dtype}", "two/float32")) if c is not None), None)
        if curve is None:
            return None
        # The sample reads two arrays and writes one, so that it stands for a third of the bytes in elements.
        measured = "float32" if curve is curves.get("two/float32") else dtype
        moved, calls = self.moved(request), self.calls(request)
        found = curve.at((log2(moved / calls / (3 * itemsize(measured))),))
        return found._replace(seconds=found.seconds * calls)

    def moved(self, request: Request) -> float:
        """Return the bytes that go through memory."""
        return request.operation.work(request).bytes

    def calls(self, request: Request) -> int:
        """Return how many kernels run one after another."""
        return 1

    def features(self, request: Request) -> Features:
        return request.operation.features(request)

    def tells(self, request: Request) -> bool:
        # A GPU computes while it waits for memory: what a function costs is the same for all but the dearest.
        return sample_classes().get(request.params) in (*BASIC, "power", "gelu")

    def stages(self, request: Request) -> int:
        return stream.count(request, _cut(request))


class Fused(_Elementwise):
    """One CUDA kernel generated for the expression, compiled by NVRTC through CuPy and kept."""

    name = "fused"

    def supports(self, request: Request) -> bool | str:
        for operand in request.operands:
            if operand is not None and operand.dtype not in DTYPES:
                return f"a GPU computes no {operand.dtype}"
        return unwritable(_program(request)) or needs("cupy")

    def plan(self, request: Request) -> Plan:
        (result,) = request.operation.result(request)
        operands = [o for o in request.operands if o is not None]
        plan = FusedPlan(_program(request), operands, result.shape, index_of(self.device))
        return stream.streamed(plan, self, request, _cut(request))


# torch, step by step

_NAMES = {
    "subtract": "sub", "multiply": "mul", "divide": "true_divide", "power": "pow", "negative": "neg",
    "absolute": "abs", "conjugate": "conj_physical", "rint": "round", "arcsin": "asin", "arccos": "acos",
    "arctan": "atan", "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "greater": "gt",
    "greater_equal": "ge", "less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne",
}  # fmt: skip
_NATIVE = frozenset(("rsqrt", "sigmoid", "silu", "gelu", "gelu_tanh", "relu"))
_NOT_INTEGER = frozenset(("power", "floor_divide", "remainder", "reciprocal"))
_NOT_COMPLEX = frozenset(("rint", "expm1", "log1p", "sign", "floor", "ceil"))


@cache
def _function(op: str) -> Callable[..., Any]:
    import torch

    def sign(x: Any) -> Any:
        found = torch.sign(x)
        return torch.where(torch.isnan(x), x, found) if x.is_floating_point() else found

    def second(function: Callable[..., Any]) -> Callable[..., Any]:
        # Of two equal zeros NumPy takes the second; torch takes either.
        def larger_or_smaller(x: Any, y: Any) -> Any:
            found = function(x, y)
            return torch.where(torch.eq(x, y), y, found) if x.is_floating_point() else found

        return larger_or_smaller

    def remainder(x: Any, y: Any) -> Any:
        return torch.copysign(torch.remainder(x, y), y)  # as NumPy's; torch gives a zero the sign of x

    special: dict[str, Callable[..., Any]] = {
        "maximum": second(torch.maximum),
        "minimum": second(torch.minimum),
        "remainder": remainder,
        "positive": torch.clone,
        "real": lambda x: x.real.clone() if x.is_complex() else x,
        "imag": lambda x: x.imag.clone() if x.is_complex() else torch.zeros_like(x),
        "relu": lambda x: torch.clamp_min(x, 0),
        "silu": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "sign": sign,
    }
    return special[op] if op in special else getattr(torch, _NAMES.get(op, op))


class TorchSteps(_Elementwise):
    """Each step a call of torch over whole arrays. Needs no compiler and no CuPy."""

    name = "torch"

    def supports(self, request: Request) -> bool | str:
        for value in _program(request, _NATIVE).values:
            for dtype in (value.loop, value.dtype):
                if dtype not in DTYPES or dtype in ("uint16", "uint32", "uint64"):
                    return f"torch computes little in {dtype}"
            if value.op in _NOT_INTEGER and not value.loop.startswith(("float", "complex")):
                return f"torch's {value.op} of integers is not NumPy's"
            if value.op in _NOT_COMPLEX and value.loop.startswith("complex"):
                return f"torch has no {value.op} of complex values on a GPU"
        return True

    def moved(self, request: Request) -> float:
        (result,) = request.operation.result(request)
        steps = [value for value in _program(request, _NATIVE).values if value.args]
        return float(sum(result.size * (len(v.args) + 1) * itemsize(v.dtype) for v in steps))

    def calls(self, request: Request) -> int:
        return max(sum(bool(value.args) for value in _program(request, _NATIVE).values), 1)

    def plan(self, request: Request) -> Plan:
        (result,) = request.operation.result(request)
        plan = memory.GuardedPlan(_steps(_program(request, _NATIVE), result.shape, self.device))
        return stream.streamed(plan, self, request, _cut(request))


def _steps(steps: Program, shape: tuple[int, ...], device: str) -> Callable[..., Any]:
    import torch

    values = steps.values
    last_use = {arg: index for index, value in enumerate(values) for arg in value.args}
    constants = {
        index: torch.tensor(value.data, dtype=dtype_of(value.dtype), device=device)
        for index, value in enumerate(values)
        if value.op == "const"
    }

    def run(*arrays: Any) -> Any:
        found: dict[int, Any] = dict(constants)
        for index, value in enumerate(values):
            if value.op == "var":
                found[index] = _tensor(arrays[value.data], value.dtype, device)
            elif value.op == "scalar":
                number = number_of(arrays[value.data])
                found[index] = torch.full((), number, dtype=_holding(value.dtype), device=device).to(
                    dtype_of(value.dtype)
                )
            elif value.op == "cast":
                found[index] = found[value.args[0]].to(dtype_of(value.dtype))
            elif value.op != "const":
                result = _function(value.op)(*[found[arg] for arg in value.args])
                dtype = dtype_of(value.dtype)
                found[index] = result if result.dtype is dtype else result.to(dtype)
            for arg in value.args:
                if last_use[arg] == index and arg not in constants:
                    found.pop(arg, None)
        result = found[len(values) - 1]
        if result.shape != shape:
            result = result.expand(shape)
        # A result that shares memory (a cast that changed nothing, an expanded one) is none of the caller's own.
        shares = any(hasattr(a, "data_ptr") and a.data_ptr() == result.data_ptr() for a in arrays)
        return result.clone(memory_format=torch.contiguous_format) if shares or not result.is_contiguous() else result

    return run


def _holding(dtype: str) -> Any:
    """Return a dtype that any Python number of this kind fits; the conversion from it rounds too much to infinity."""
    if dtype.startswith(("float", "bfloat")):
        dtype = "float64"
    elif dtype.startswith("complex"):
        dtype = "complex128"
    return dtype_of(dtype)


def _tensor(array: Any, dtype: str, device: str) -> Any:
    """Return an operand as a tensor on the device; a number, which stayed on the host, by its bits."""
    if not isinstance(array, np.ndarray):
        return array
    import torch

    return torch.from_numpy(array.copy()).view(dtype_of(dtype)).to(device)


def number_of(array: Any) -> Any:
    """Return a scalar operand, which stayed on the host, as a Python number."""
    return array.item()


class TorchVmap(Kernel):
    """A Python function of scalars, mapped over its operands by torch.vmap."""

    name = "torch-vmap"
    operation = "vmap"
    native = "torch"

    def __init__(self, device: str) -> None:
        self.device = device

    def supports(self, request: Request) -> bool | str:
        for operand in request.operands:
            if operand is not None and operand.dtype not in DTYPES:
                return f"a GPU computes no {operand.dtype}"
        return True

    def plan(self, request: Request) -> Plan:
        import torch

        function, shape = request.params.function, request.operation.result(request)[0].shape

        def run(*arrays: Any) -> Any:
            flat = [array.expand(shape).reshape(-1) for array in arrays]
            return torch.vmap(function)(*flat).reshape(shape)

        return memory.GuardedPlan(run)
