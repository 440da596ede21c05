"""Time of an expression from what the profile measured: its bytes as those of a sum, and what its functions add.

Each sample of a function calls it three times, so that a third of what it takes beyond a plain pass over memory is the
price of one call. On a GPU that waits for memory the prices are next to nothing; on a software driver they are most.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.curve import Curve, Estimate
from ...core.operation import log2
from ...core.operations.elementwise_rule import COPIES
from ...core.program import Program

CHAIN = 8  # steps of the chain that tells the price of a simple step
# Which sample stands for functions that are not measured themselves.
LIKE = {
    "log2": "log", "log10": "log", "cos": "sin", "cosh": "sinh", "arccos": "arcsin", "arctan": "arctan2",
    "arcsinh": "log1p", "arccosh": "log1p", "arctanh": "log1p", "exp2": "exp", "floor_divide": "remainder",
}  # fmt: skip
PRICED = frozenset((*LIKE, *LIKE.values(), "expm1", "tan", "tanh", "erf", "power"))
OF_TWO = frozenset(("arctan2", "power", "remainder"))
COMPLEX_STEPS = 4  # real functions in one of complex values, about


def estimated(steps: Program, size: int, nbytes: float, curves: Mapping[str, Curve]) -> Estimate | None:
    """Return the time of a program that gives ``size`` elements and moves ``nbytes``; None where nothing is known."""
    plain = curves.get("two/float32")
    if plain is None:
        return None
    base = plain.at((log2(nbytes / 12),))
    at = (log2(size),)
    prices: dict[str, float] = {}
    errors = [base.error or 0.0]
    for name in (*PRICED, "multiply"):
        curve = curves.get(f"{name}/float32")
        if curve is not None:
            found = curve.at(at)
            rest = curves.get("one/float32", plain) if name not in OF_TWO else plain
            prices[name] = max(found.seconds - rest.at(at).seconds, 0.0) / (CHAIN if name == "multiply" else COPIES)
            errors.append(found.error or 0.0)
    simple = prices.pop("multiply", 0.0)
    dearest = max(prices.values(), default=0.0)
    seconds = base.seconds
    for value in steps.values:
        if value.args and value.op != "cast":
            times = COMPLEX_STEPS if value.loop.startswith("complex") else 1
            dear = value.op in PRICED
            seconds += times * (prices.get(LIKE.get(value.op, value.op), dearest) if dear else simple)
    return Estimate(seconds, base.spread, max(errors) or None, base.extrapolated)
