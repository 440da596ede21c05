"""Element-wise expressions as an operation: result, work, gradient rule, reference; and functions that are none."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import Operand, describe
from ..derivative import gradients, tangent
from ..dispatcher import dispatcher
from ..errors import DtypeError
from ..expression import Node, const, make, ordered, reference, replaced, variable
from ..narrow import Narrow, as_operands, rounded
from ..operation import Features, Operation, Request, Variant, Work, log2, relative_error
from ..precision import UNIT_ROUNDOFF, conformance
from ..program import ACCEPTED, program, shapes

# Outputs that ``error`` compares: enough to find a wrong kernel, few enough for extended precision.
CHECKED = 4096
BATCH = 16  # calls that `explain` considers to make as one
LOOKED_AT = 512  # and that a result in lower precision is believed by


class Elementwise(Operation):
    """The family's operation; its parameters are the expression, its operands the variables."""

    name = "elementwise"

    def result(self, request: Request) -> tuple[Operand, ...]:
        operands = _present(request)
        shape = broadcast_shapes(*(operand.shape for operand in operands))
        dtype = program(request.params, tuple(operand.dtype for operand in operands)).dtype
        return (Operand(shape, dtype, request.first.device, request.first.kind),)

    def work(self, request: Request) -> Work:
        operands = _present(request)
        steps = program(request.params, tuple(operand.dtype for operand in operands))
        flops = sum(
            math.prod(shape)
            for value, shape in zip(steps.values, shapes(steps, tuple(operand.shape for operand in operands)))
            if value.args and value.op != "cast"
        )
        return Work(float(flops), float(sum(o.nbytes for o in (*operands, *self.result(request)))))

    def features(self, request: Request) -> Features:
        result = self.result(request)[0]
        dtype = _working_dtype(request)
        return Features(f"{sample_classes().get(request.params, 'expression')}/{dtype}", (log2(result.size),))

    def tolerance(self, request: Request) -> float:
        dtype = self.result(request)[0].dtype
        # A result that is exact may still come from rounded values: an integer or a truth value differs where they do.
        return conformance(dtype) or conformance(_working_dtype(request))

    def variants(self, request: Request) -> Iterable[Variant]:
        many = tuple(o and (o._replace(shape=(BATCH, *o.shape)) if o.shape else o) for o in request.operands)
        if len({o.shape for o in many if o is not None and o.shape}) == 1:
            text = f"{BATCH} such calls as one, on arrays with a leading axis"
            yield Variant(text, Request(self, many, request.params, request.tol, request.threads), BATCH)

    def narrowed(self, request: Request) -> Sequence[Narrow]:
        operands = rounded(request)
        dtypes = {o.dtype for o in (*_present(request), *self.result(request))}
        if request.tol is None or operands is None or not dtypes <= {"float64", "complex128"} or request.home != "cpu":
            return ()
        narrow = Request(self, operands, request.params, request.tol, request.threads)
        tol = request.tol

        def given(arrays: Sequence[Any], error: float) -> list[Any] | str:
            return as_operands(arrays, narrow)

        def found(arrays: Sequence[Any], result: Any) -> bool | str:
            return _right(request, arrays, result, tol)

        # How far rounding is multiplied depends on the data (a difference of near equals, the sine of a large number):
        # it is told for ordinary data, and looked at in each result.
        return (Narrow(narrow, "float32", 4 * UNIT_ROUNDOFF["float32"], tol, given, found),)

    def samples(self, quick: bool) -> Iterable[Request]:
        for dtype in ("float32",) if quick else ("float32", "float64", "complex64", "int64"):
            for root, name in sample_classes().items():
                if dtype == "complex64" and name not in (*BASIC, "divide", "exp", "sin", "sqrt", "absolute"):
                    continue
                if dtype == "int64" and name not in ("one", "two", "multiply", "greater", "remainder"):
                    continue
                if dtype == "float64" and name not in (*BASIC, *_MEASURED_TWICE):
                    continue
                if quick and name not in (*BASIC, *_MEASURED_QUICK):
                    continue
                plain = dtype.startswith("float") and name in BASIC and not quick
                for size in _SIZES if plain else _FEW_SIZES:
                    yield _request(root, [(size,)] * operand_count(root), dtype)

    def urgency(self, request: Request) -> float:
        # What a step costs is the difference to one of these, so that their sizes come before other steps'; of those a
        # middle size tells most.
        if sample_classes().get(request.params) in BASIC:
            return 60.0
        return 8.0 if request.first.shape[0] == _FEW_SIZES[1] else 1.0

    def held_out(self, rng: np.random.Generator) -> Request:
        root: Node | None = None
        while root is None or operand_count(root) > 3 or len(ordered(root)) < 3:
            root = _random_expression(rng, int(rng.integers(1, 5)))
            used = sorted({node.args[0] for node in ordered(root) if node.op == "var"})
            if not used:
                root = None
                continue
            place = {old: number for number, old in enumerate(used)}
            root = renumbered(root, place)
        size = int(2.0 ** rng.uniform(8, 21.5))
        dtype = str(rng.choice(["float32", "float64"], p=[0.7, 0.3]))
        return _request(root, [(size,)] * operand_count(root), dtype)

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        if dtype not in ACCEPTED:
            raise DtypeError(f"dtype {dtype!r} is not one of those computed in: {', '.join(ACCEPTED)}")
        return _request(EXAMPLE, (shape, shape), dtype)

    def describe(self, request: Request) -> str:
        return f"{request.params} of {super().describe(request)}"

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        return tuple(None if o is None else _random(o, rng) for o in request.operands)

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        result = np.asarray(result)
        if result.shape != self.result(request)[0].shape:
            return math.inf
        picked = slice(None) if result.size <= CHECKED else np.random.default_rng(0).integers(0, result.size, CHECKED)
        places = np.unravel_index(np.arange(result.size)[picked], result.shape) if result.ndim else ()
        few = [np.broadcast_to(array, result.shape)[places] for array in arrays if array is not None]
        exact = np.broadcast_to(reference(request.params, few), result[places].shape)
        return relative_error(result[places], exact)

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        (grad,) = grads
        dtypes = tuple(describe(array).dtype for array in arrays)
        number = len(arrays)
        parts = gradients(params, dtypes, number, describe(grad).dtype)
        return tuple(
            None if part is None or not want else _like(compute(part, (*arrays, grad)), array)
            for part, array, want in zip(parts, arrays, wanted)
        )

    def tangent(
        self, params: Any, arrays: tuple[Any, ...], tangents: tuple[Any, ...], result: Any
    ) -> tuple[Any, ...] | None:
        dtypes = tuple(describe(array).dtype for array in arrays)
        moving = tuple(None if change is None else describe(change).dtype for change in tangents)
        root = tangent(params, dtypes, describe(result).dtype, moving)
        return (None if root is None else compute(root, (*arrays, *tangents)).expand(result.shape),)

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], None]:
        return params, _aligned(arrays, stacked), None


FAMILY = Elementwise()


def _aligned(arrays: Sequence[Any], stacked: Sequence[bool]) -> tuple[Any, ...]:
    """Return operands of which some have a leading axis over calls, so that they broadcast as each call's would."""
    axes = max(array.ndim - has for array, has in zip(arrays, stacked))
    return tuple(
        array.reshape(array.shape[0], *[1] * (axes + 1 - array.ndim), *array.shape[1:]) if has else array
        for array, has in zip(arrays, stacked)
    )


def _right(request: Request, arrays: Sequence[Any], result: Any, tol: float) -> bool | str:
    """Look at a part of a result, spread over all of it; what is not finite anywhere in it is not believed."""
    values = np.asarray(result)
    with np.errstate(all="ignore"):
        if not np.isfinite(values.sum()):
            return "some of the result is not finite"
    step = max(values.size // LOOKED_AT, 1) | 1  # odd, so that it meets every place of a row of even length
    flat = np.arange(0, values.size, step)
    places = np.unravel_index(flat, values.shape) if values.ndim else ()
    few = [np.broadcast_to(np.asarray(array), values.shape)[places] for array in arrays if array is not None]
    exact = np.broadcast_to(reference(request.params, few), values[places].shape)
    error = relative_error(values[places], exact)
    return True if error <= tol else f"the error is {error:.1e}"


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that shapes broadcast to, or raise ValueError.

    As ``np.broadcast_shapes``, also of lengths that are symbols, as they are in a graph for many sizes.
    """
    if all(type(length) is int for shape in shapes for length in shape):
        return np.broadcast_shapes(*shapes)
    axes = max(map(len, shapes))
    found: list[int] = [1] * axes
    for shape in shapes:
        for axis, length in enumerate(shape, axes - len(shape)):
            if length == 1 or found[axis] == length:
                continue
            if found[axis] != 1:
                raise ValueError(f"lengths {found[axis]} and {length} cannot be broadcast together")
            found[axis] = length
    return tuple(found)


def compute(root: Node, operands: Sequence[Any]) -> Any:
    """Compute an expression by its variables' operands, leaving out those that it does not use."""
    used = sorted({node.args[0] for node in ordered(root) if node.op in ("var", "scalar")})
    if root.op == "var":
        return operands[root.args[0]]
    root = renumbered(root, {old: place for place, old in enumerate(used)})
    return dispatcher.run(FAMILY, root, *(operands[index] for index in used))


def renumbered(root: Node, places: dict[int, int]) -> Node:
    """Return an expression whose variables have other numbers."""
    return replaced(root, lambda leaf: variable(places[leaf.args[0]]) if leaf.op == "var" else leaf)


def _like(gradient: Any, operand: Any) -> Any:
    """Return a gradient with the shape and dtype of its operand: summed over the axes that were broadcast."""
    from .reduce_rule import total

    extra = gradient.ndim - operand.ndim
    axes = [
        *range(extra),
        *(i + extra for i, n in enumerate(operand.shape) if n == 1 and gradient.shape[i + extra] != 1),
    ]
    if axes:
        gradient = total(gradient, tuple(axes)).reshape(tuple(operand.shape))
    return gradient if gradient.dtype == operand.dtype else gradient.to(operand.dtype)


def _present(request: Request) -> list[Operand]:
    return [operand for operand in request.operands if operand is not None]


def _working_dtype(request: Request) -> str:
    return program(request.params, tuple(operand.dtype for operand in _present(request))).values[-1].loop


def _random(operand: Operand, rng: np.random.Generator) -> np.ndarray:
    """Return values that lie in the domain of every function: between 0.1 and 0.9, or small positive integers."""
    if operand.dtype == "bool":
        return rng.integers(0, 2, operand.shape).astype(bool)
    if operand.dtype.startswith(("int", "uint")):
        return rng.integers(1, 9, operand.shape).astype(operand.dtype)
    values = rng.random(operand.shape, dtype=np.float32) * np.float32(0.8) + np.float32(0.1)
    return values.astype("float32" if operand.dtype == "bfloat16" else operand.dtype)


def _request(root: Node, operand_shapes: Sequence[tuple[int, ...]], dtype: str) -> Request:
    operands = tuple(Operand(shape, dtype, "cpu", "numpy") for shape in operand_shapes)
    return Request(FAMILY, operands, root, None, _settings.threads(_settings.current()))


A, B, C = variable(0), variable(1), variable(2)
EXAMPLE = make("add", make("multiply", A, B), make("multiply", make("sin", A), make("exp", make("negative", B))))


# What ``adaptive profile`` measures. The time of any expression is put together from these: the difference of two of
# them is what one more step costs, apart from the call and from memory.
_SIZES = (1 << 6, 1 << 11, 1 << 14, 1 << 16, 1 << 18, 1 << 21)
_FEW_SIZES = (1 << 6, 1 << 14, 1 << 19)
COPIES = 3  # how often a sample computes its function
BASIC = ("one", "two", "hidden", "multiply", "add_product")
MEASURED = (
    "divide", "sqrt", "exp", "expm1", "log", "log1p", "sin", "tan", "tanh", "sinh", "arcsin", "arctan", "arctan2",
    "power", "erf", "sigmoid", "gelu", "floor", "remainder", "maximum", "greater", "where", "absolute", "cast",
)  # fmt: skip
# Of these, what is measured in float64 too, and what a quick run measures.
_MEASURED_TWICE = ("divide", "sqrt", "exp", "log1p", "sin", "tanh", "gelu", "sigmoid", "power", "maximum", "where")
_MEASURED_QUICK = ("divide", "exp", "sin", "tanh", "gelu")


def _scaled(number: int) -> Node:
    return make("multiply", A, const(1 + number / 100))


def _sample_of(op: str) -> Node:
    """Return the sum of some calls of a function with different arguments, so that none is computed only once."""
    if op == "cast":
        parts = [make("add", make("greater", _scaled(i), const(0.5)), _scaled(i)) for i in range(1, COPIES + 1)]
    elif op in ("arctan2", "maximum", "power", "divide", "remainder"):
        parts = [make(op, _scaled(i), B) for i in range(1, COPIES + 1)]
    elif op == "greater":
        parts = [make("greater", _scaled(i), B) for i in range(1, COPIES + 1)]
    elif op == "where":
        parts = [make("where", make("greater", _scaled(i), B), A, B) for i in range(1, COPIES + 1)]
    else:
        parts = [make(op, _scaled(i)) for i in range(1, COPIES + 1)]
    total = parts[0]
    for part in parts[1:]:
        total = make("logical_or" if op == "greater" else "add", total, part)
    return total


def _chain(op: str) -> Node:
    """Return a chain of cheap steps: products, or products that are added to."""
    root = A
    for number in range(1, 9):
        root = make("multiply", root, const(1 + number / 100))
        if op == "add_product":
            root = make("add", make("multiply", root, B), A)
    return root


_RANDOM = ("add", "multiply", "divide", "maximum", "sin", "exp", "sqrt", "tanh", "log1p", "sigmoid", "gelu", "square")


def _random_expression(rng: np.random.Generator, depth: int) -> Node:
    """Return a random expression whose values stay in the domain of its functions."""
    if depth == 0 or rng.random() < 0.15:
        return (
            variable(int(rng.integers(0, 3))) if rng.random() < 0.85 else const(round(float(rng.uniform(0.1, 0.9)), 2))
        )
    op = str(rng.choice(_RANDOM))
    first = _random_expression(rng, depth - 1)
    if op in ("add", "multiply", "divide", "maximum"):
        return make(op, first, _random_expression(rng, depth - 1))
    return make(op, first if op != "exp" else make("negative", first))


@cache
def sample_classes() -> dict[Node, str]:
    """Return the expressions that are measured, with the name of what they tell."""
    found = {
        make("negative", A): "one", make("add", A, B): "two", make("sin", A): "hidden",
        _chain("multiply"): "multiply", _chain("add_product"): "add_product",
    }  # fmt: skip
    return found | {_sample_of(op): op for op in MEASURED}


def operand_count(root: Node) -> int:
    """Return the number of operands of an expression."""
    return 1 + max(node.args[0] for node in ordered(root) if node.op in ("var", "scalar"))


# Functions that could not be traced


class VmapParams(NamedTuple):
    """A Python function of scalars, and the dtype that it was found to give."""

    function: Callable[..., Any]
    dtype: str


class Vmap(Operation):
    """A Python function mapped over its operands element by element, by torch.vmap."""

    name = "vmap"

    def result(self, request: Request) -> tuple[Operand, ...]:
        shape = broadcast_shapes(*(operand.shape for operand in _present(request)))
        return (Operand(shape, request.params.dtype, request.first.device, request.first.kind),)

    def work(self, request: Request) -> Work:
        result = self.result(request)[0]
        return Work(float(result.size), float(sum(o.nbytes for o in (*_present(request), result))))

    def features(self, request: Request) -> Features:
        return Features("function", (log2(self.result(request)[0].size),))

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        torch = sys.modules["torch"]  # the operands are its tensors, so it is loaded

        def mapped(*operands: Any) -> Any:
            together = torch.broadcast_tensors(*operands)
            flat = [operand.reshape(-1) for operand in together]
            return torch.vmap(params.function)(*flat).reshape(together[0].shape)

        _, pull = torch.func.vjp(mapped, *arrays)
        return tuple(pull(grads[0]))

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], None]:
        return params, _aligned(arrays, stacked), None


VMAP = Vmap()
