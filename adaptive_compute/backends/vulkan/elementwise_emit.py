"""The steps of an element-wise program on registers of 32 bits: what the shader has, and how steps are collected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# The operations of shaders/elementwise_steps.glsl and their numbers there.
_SIMPLE = (
    "add", "sub", "mul", "div", "sqrt", "floor", "ceil", "rint", "max", "min", "lt", "le", "eq", "select", "and", "or",
    "xor", "iadd", "isub", "imul", "idiv", "udiv", "ilt", "ult", "ieq", "extend8", "extend16", "from_int", "from_uint",
    "to_half", "to_bfloat",
)  # fmt: skip
FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin",
    "arccos", "arctan2", "erf", "power", "fmod", "ipower",
)  # fmt: skip
FIRST_FUNCTION = 64
OPS = {name: number for number, name in enumerate(_SIMPLE, 1)} | {
    name: number for number, name in enumerate(FUNCTIONS, FIRST_FUNCTION)
}

SIGN, MAGNITUDE, INFINITY, NAN = 0x80000000, 0x7FFFFFFF, 0x7F800000, 0x7FC00000

# ("load", Source), ("imaginary", Source), ("number", bits) or ("step", its number)
Register = tuple[str, Any]


class Source(NamedTuple):
    """An operand as a program reads it: an array in its own dtype, or a number given at the call in some dtype."""

    operand: int
    dtype: str
    number: bool


class RefusedError(Exception):
    """The shader cannot compute this; the message is the reason."""


class Emitter:
    """Collects the steps of one program; equal steps are one. A method named like a step emits it."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, tuple[Register, ...]]] = []
        self._known: dict[Any, Register] = {}

    def emit(self, op: str, *args: Register) -> Register:
        """Return the register of a step, adding it where it is new."""
        if op == "sub" and args[0] == args[1]:  # drivers may take it for 0, and infinity - infinity is none
            return self.emit("add", args[0], self.negative(args[0]))
        key = (OPS[op], args)
        if key not in self._known:
            self._known[key] = ("step", len(self.steps))
            self.steps.append(key)
        return self._known[key]

    def __getattr__(self, op: str) -> Callable[..., Register]:
        if op.rstrip("_") in OPS:
            return lambda *args: self.emit(op.rstrip("_"), *args)
        raise AttributeError(op)

    @staticmethod
    def bits(bits: int) -> Register:
        """Return a register that holds these bits."""
        return ("number", bits & 0xFFFFFFFF)

    def number(self, value: float) -> Register:
        """Return a register that holds a float32."""
        with np.errstate(all="ignore"):
            return self.bits(int(np.float32(value).view(np.uint32)))

    def negative(self, x: Register) -> Register:
        """Return -x of a float."""
        return self.emit("xor", x, self.bits(SIGN))

    def magnitude(self, x: Register) -> Register:
        """Return |x| of a float."""
        return self.emit("and", x, self.bits(MAGNITUDE))

    def copy_sign(self, x: Register, sign: Register) -> Register:
        """Return a magnitude with another float's sign."""
        return self.emit("or", self.magnitude(x), self.emit("and", sign, self.bits(SIGN)))

    def is_nan(self, x: Register) -> Register:
        """Tell by its bits whether a float is NaN: drivers may assume that none is."""
        return self.emit("ult", self.bits(INFINITY), self.magnitude(x))

    def not_(self, truth: Register) -> Register:
        """Return the contrary of a truth value."""
        return self.emit("xor", truth, self.bits(1))

    def truth(self, x: tuple[Register, ...], dtype: str) -> Register:
        """Return whether a value is not zero."""
        if dtype == "bool":
            return x[0]
        zero = [
            self.emit("eq" if dtype.startswith(("float", "bfloat", "complex")) else "ieq", part, self.bits(0))
            for part in x
        ]
        return self.not_(zero[0] if len(zero) == 1 else self.and_(*zero))

    def wrapped(self, x: Register, dtype: str) -> Register:
        """Return a 32-bit integer cut to a shorter dtype."""
        if dtype in ("int8", "int16"):
            return self.emit("extend8" if dtype == "int8" else "extend16", x)
        if dtype in ("uint8", "uint16"):
            return self.emit("and", x, self.bits(0xFF if dtype == "uint8" else 0xFFFF))
        return x
