"""An expression's program in terms of the few operations that the element-wise shader has, on 32-bit registers.

A complex value is two registers, and the functions of complex values are made of real ones here. So are the
functions that a few cheap steps give.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.program import Program, Value
from .elementwise_complex import ComplexSteps
from .elementwise_emit import RefusedError, Register, Source
from .elementwise_whole import WholeSteps

INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32")
ACCEPTED = frozenset((*INTEGERS, "float16", "bfloat16", "float32", "complex64"))


class Lowered(NamedTuple):
    """Steps (operation and the registers it reads), and the registers of the result (two where it is complex)."""

    steps: tuple[tuple[int, tuple[Register, ...]], ...]
    result: tuple[Register, ...]


def lower(program: Program) -> Lowered:
    """Return the shader's steps for a program; RefusedError where it has something that they cannot do."""
    lowering = _Lowering()
    for value in program.values:
        lowering.value(value)
    return Lowered(tuple(lowering.steps), lowering.values[-1])


def refusal_of_dtype(dtype: str) -> str | None:
    """Return why values of a dtype cannot be computed, or None."""
    if dtype in ACCEPTED:
        return None
    if dtype in ("float64", "complex128"):
        return f"Vulkan shaders here compute in float32; {dtype} values need another device"
    return f"Vulkan shaders have no 64-bit integers everywhere; {dtype} values need another device"


class _Lowering(ComplexSteps, WholeSteps):
    """Walks through the values of a program."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[Register, ...]] = []

    def value(self, value: Value) -> None:
        """Add the steps of one value of the program."""
        for dtype in (value.loop, value.dtype):
            reason = refusal_of_dtype(dtype)
            if reason is not None:
                raise RefusedError(reason)
        self.values.append(self._value(value))

    def _value(self, v: Value) -> tuple[Register, ...]:
        if v.op in ("var", "scalar"):
            source = Source(v.data, v.dtype, v.op == "scalar")
            parts: tuple[Register, ...] = (("load", source), ("imaginary", source))
            return parts if v.dtype == "complex64" else parts[:1]
        if v.op == "const":
            return self._constant(v)
        args = [self.values[arg] for arg in v.args]
        if v.op == "cast":
            return self._cast(args[0], v.loop, v.dtype)
        if v.op == "where":
            (condition,), yes, no = args
            return tuple(self.select(condition, y, n) for y, n in zip(yes, no))
        if v.loop == "complex64":
            return self._complex(v.op, args)
        real = [arg[0] for arg in args]
        found = self._float(v.op, real) if v.loop.startswith("float") else self._integer(v.op, real, v.loop, v.dtype)
        return (found,)

    def _constant(self, v: Value) -> tuple[Register, ...]:
        if v.dtype == "complex64":
            return self.number(complex(v.data).real), self.number(complex(v.data).imag)
        if v.dtype.startswith(("float", "bfloat")):
            return (self.number(float(v.data)),)
        return (self.bits(int(bool(v.data)) if v.dtype == "bool" else int(v.data)),)

    def _cast(self, x: tuple[Register, ...], source: str, target: str) -> tuple[Register, ...]:
        if target == "bool" and source != "bool":
            return (self.truth(x, source),)
        if target == "complex64":
            return x if source == target else (*self._cast(x, source, "float32"), self.number(0.0))
        if target == source or (source in ("float16", "bfloat16") and target == "float32"):
            return x  # halves are widened when they are loaded
        if source == "float32" and target in ("float16", "bfloat16"):
            return (self.emit("to_half" if target == "float16" else "to_bfloat", x[0]),)
        if source in INTEGERS and target in INTEGERS:
            return (self.wrapped(x[0], target),)
        if source in INTEGERS and target.startswith(("float", "bfloat")):
            wide = self.emit("from_uint" if source in ("uint32", "bool") else "from_int", x[0])
            return self._cast((wide,), "float32", target)
        raise RefusedError(f"the shader does not turn {source} into {target}")
