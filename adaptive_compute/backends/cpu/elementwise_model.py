"""How long an expression takes on a kernel: the call and memory, plus each step, from what the profile measured.

A step's cost at a size is the difference between a sample that takes it several times and one that takes it once.
What a kernel's call and its way through memory cost is what is left of the cheapest sample.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

from ...core.array import itemsize
from ...core.operation import log2
from ...core.operations.elementwise_rule import COPIES, MEASURED
from ...core.profile import Curve, Curves, Estimate
from .blocks import Stage

# What stands in for a step that is not measured itself: a step that is, and how much longer it takes.
_LIKE: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("add", "subtract", "negative", "square", "real", "imag", "conjugate", "sign"), ("multiply", 1.0)),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor", "logical_not"), ("multiply", 1.0)),
    **dict.fromkeys(("isnan", "isinf", "isfinite"), ("multiply", 1.0)),
    **dict.fromkeys(("less", "less_equal", "greater_equal", "equal", "not_equal"), ("greater", 1.0)),
    **dict.fromkeys(("ceil", "rint"), ("floor", 1.0)),
    "subtract_product": ("add_product", 1.0), "minimum": ("maximum", 1.0), "relu": ("maximum", 1.0),
    "reciprocal": ("divide", 1.0), "rsqrt": ("sqrt", 1.5), "cos": ("sin", 1.0), "exp2": ("exp", 1.0),
    "log2": ("log", 1.0), "log10": ("log", 1.0), "cosh": ("sinh", 1.0), "arccos": ("arcsin", 1.0),
    "arcsinh": ("log1p", 2.0), "arccosh": ("log1p", 2.0), "arctanh": ("log1p", 2.0), "silu": ("sigmoid", 1.0),
    "gelu_tanh": ("tanh", 1.5), "floor_divide": ("remainder", 1.0),
}  # fmt: skip
_FAMILY = {
    "float16": "float32", "bfloat16": "float32", "bool": "int64", "int8": "int64", "int16": "int64", "int32": "int64",
    "uint8": "int64", "uint16": "int64", "uint32": "int64", "uint64": "int64", "complex128": "complex64",
}  # fmt: skip


class _Line:
    """A sample's time over size: a call's fixed cost plus a cost an element, so a straight line between points."""

    def __init__(self, curve: Curve) -> None:
        best: dict[float, float] = {}
        for point in curve.points:
            best[2.0 ** point.at[0]] = min(point.seconds, best.get(2.0 ** point.at[0], math.inf))
        self.sizes = sorted(best)
        self.times = [best[size] for size in self.sizes]
        self.spread = max(point.spread for point in curve.points)
        self.error = max((point.error for point in curve.points if point.error is not None), default=None)

    def seconds_at(self, size: float) -> float:
        sizes, times = self.sizes, self.times
        if len(sizes) == 1 or size <= sizes[0]:
            return times[0]
        right = min(max(bisect_right(sizes, size), 1), len(sizes) - 1)
        slope = (times[right] - times[right - 1]) / (sizes[right] - sizes[right - 1])
        return times[right] + max(slope, 0.0) * (size - sizes[right]) if size > sizes[right] else (
            times[right] - slope * (sizes[right] - size)
        )  # fmt: skip


@lru_cache(maxsize=4096)
def _line(curve: Curve) -> _Line:
    return _Line(curve)


class _Table:
    """One kernel's measurements, asked for steps at sizes."""

    def __init__(self, curves: Mapping[str, Curve]) -> None:
        self.curves = curves
        # What steps add to a product at the sizes that they were measured at, which is the same for all requests.
        self.added: dict[tuple[str, str, float], float] = curves.notes if isinstance(curves, Curves) else {}
        self.error: float | None = None
        self.spread = 0.0
        self.extrapolated = False
        self._samples: dict[tuple[str, str, float], tuple[float, str] | None] = {}
        self._steps: dict[tuple[str, str, float], float] = {}

    def sample(self, name: str, dtype: str, at: float) -> tuple[float, str] | None:
        """Return a sample's time, and the dtype that it was measured in: the asked one, or one that stands in."""
        key = (name, dtype, at)
        if key not in self._samples:
            self._samples[key] = self._sample(name, dtype, at)
        return self._samples[key]

    def measured(self, name: str, dtype: str) -> tuple[Curve | None, str]:
        """Return a sample's curve, and the dtype that it was measured in: the asked one, or one that stands in."""
        for stand_in in (dtype, _FAMILY.get(dtype, ""), "float64" if itemsize(dtype) > 4 else "float32", "float32"):
            curve = self.curves.get(f"{name}/{stand_in}")
            if curve is not None:
                return curve, stand_in
        return None, dtype

    def _sample(self, name: str, dtype: str, at: float) -> tuple[float, str] | None:
        curve, stand_in = self.measured(name, dtype)
        if curve is None:
            return None
        line = _line(curve)
        if stand_in == dtype and line.error is not None:  # how exact it is, another dtype does not tell
            self.error = max(self.error or 0.0, line.error)
        self.spread = max(self.spread, line.spread)
        self.extrapolated = self.extrapolated or not line.sizes[0] <= 2.0**at <= line.sizes[-1]
        larger = itemsize(dtype) / itemsize(stand_in)
        return line.seconds_at(2.0**at) * (max(larger, 1.0) if at > 11 else 1.0), stand_in

    def multiply(self, dtype: str, at: float) -> float:
        """Return what one more product costs."""
        one, chain = self.sample("one", dtype, at), self.sample("multiply", dtype, at)
        if one is None or chain is None:
            return math.nan
        return max((chain[0] - one[0]) / 7, chain[0] / 40)

    def step(self, op: str, dtype: str, at: float) -> float:
        """Return what one more step costs; NaN where nothing was measured."""
        key = (op, dtype, at)
        if key not in self._steps:
            self._steps[key] = self._step(op, dtype, at)
        return self._steps[key]

    def _step(self, op: str, dtype: str, at: float) -> float:
        cheap = self.multiply(dtype, at)
        name, factor = _LIKE.get(op, (op, 1.0))
        if name == "multiply":
            return cheap
        curve, known = self.measured(name, dtype)
        if curve is None:
            dear = (
                1.5
                if name == "add_product"
                else 1.0
                if name in ("cast", "floor", "maximum", "greater", "where")
                else 4.0
            )
            return cheap * dear * factor
        self.sample(name, dtype, at)  # for the error, and whether this goes beyond the sizes that were measured
        kept = self.error, self.extrapolated
        sizes = _line(curve).sizes
        size, place = 2.0**at, bisect_right(sizes, 2.0**at)
        # Between two sizes it goes in a straight line; beyond them, or where there is one alone, by the element.
        near = sizes[max(place - 1, 0)]
        added = self._added(name, known, math.log2(near)) * (size / near if place in (0, len(sizes)) else 1.0)
        if 0 < place < len(sizes):
            after = self._added(name, known, math.log2(sizes[place]))
            added += (size - near) / (sizes[place] - near) * (after - added)
        self.error, self.extrapolated = kept
        larger = max(itemsize(dtype) / itemsize(known), 1.0)
        return max(cheap + added * larger, cheap / 4) * factor

    def _added(self, name: str, dtype: str, at: float) -> float:
        """Return what a step takes beyond a product, at a size that it was measured at."""
        key = (name, dtype, at)
        if key not in self.added:
            self.added[key] = self._beyond(name, dtype, at)
        return self.added[key]

    def _beyond(self, name: str, dtype: str, at: float) -> float:
        cheap = self.multiply(dtype, at)
        found = self.sample(name, dtype, at)
        assert found is not None
        if name == "add_product":
            two = self.sample("two", dtype, at)
            return cheap / 2 if two is None else max((found[0] - two[0]) / 8 - cheap, cheap / 2) - cheap
        pairs = name in ("arctan2", "maximum", "power", "divide", "remainder", "greater", "where")
        start = self.sample("two" if pairs else "one", dtype, at)
        if start is None:
            return 0.0
        rest = found[0] - start[0] + cheap - (2 * COPIES - 1) * cheap
        if name in ("where", "cast"):
            rest -= COPIES * (self.step("greater", dtype, at) if "greater" in MEASURED else cheap)
        if name == "cast":
            rest -= COPIES * cheap
        return rest / COPIES - cheap


def estimate(stages: Sequence[Stage], curves: Mapping[str, Curve]) -> Estimate | None:
    """Add up what the stages of an expression cost."""
    table = _Table(curves)
    seconds = 0.0
    for stage in stages:
        cost = _stage(table, stage)
        if cost is None:
            return None
        seconds += cost
    return Estimate(seconds, table.spread, table.error, table.extrapolated)


def _stage(table: _Table, stage: Stage) -> float | None:
    at = log2(math.prod(stage.shape))
    main = stage.steps[-1].loop
    one, two = table.sample("one", main, at), table.sample("two", main, at)
    if one is None:
        return None
    cheap = table.multiply(main, at)
    memory = one[0] - cheap
    arrays = sum(math.prod(source.shape) * 2 > math.prod(stage.shape) for source in stage.inputs if source.shape)
    more = max(two[0] - one[0], 0.0) * (arrays - 1) if two is not None else 0.0
    steps = [table.step(step.op, step.loop, at) for step in stage.steps]
    # The first step's computing hides some of the way through memory, as the measured sine's does.
    hidden = table.sample("hidden", main, at)
    if hidden is not None:
        sine = table.step("sin", main, at)
        share = min(max((memory + sine - hidden[0]) / max(min(sine, memory), 1e-12), 0.0), 1.0)
        memory -= share * min(steps[0], memory)
    return memory + more + sum(steps)
