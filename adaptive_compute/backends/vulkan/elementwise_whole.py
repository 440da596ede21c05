"""Functions of whole numbers and of truth values in the shader's steps."""

from __future__ import annotations

from collections.abc import Callable

from .elementwise_emit import SIGN, Emitter, RefusedError, Register


class WholeSteps(Emitter):
    """Emits functions of integers up to 32 bits, the shorter ones kept extended to 32, and of booleans."""

    def _integer(self, op: str, args: list[Register], loop: str, dtype: str) -> Register:
        signed = not loop.startswith(("uint", "bool"))
        less = "ilt" if signed else "ult"
        x, y = args[0], args[-1]
        zero, one = self.bits(0), self.bits(1)
        if op in _COMPARING:
            return _COMPARING[op](self, less, x, y)
        if op.startswith("logical_"):
            truths = [self.truth((arg,), loop) for arg in args]
            return self.not_(truths[0]) if op == "logical_not" else self.emit(op[8:], *truths)
        if op in ("isfinite", "isinf", "isnan"):
            return self.bits(1 if op == "isfinite" else 0)
        if op in ("imag", "real", "conjugate"):
            return zero if op == "imag" else x
        if loop == "bool":
            if op in ("add", "maximum"):
                return self.or_(x, y)
            if op in ("multiply", "minimum", "square"):
                return self.and_(x, y)
            raise RefusedError(f"the shader has no {op} of bool")
        if op in ("maximum", "minimum"):
            first, second = (x, y) if op == "minimum" else (y, x)
            return self.select(self.emit(less, first, second), x, y)
        if op == "sign":
            positive = self.emit(less, zero, x)
            return positive if not signed else self.isub(positive, self.ilt(x, zero))
        if op == "absolute":
            return x if not signed else self.wrapped(self.select(self.ilt(x, zero), self.isub(zero, x), x), loop)
        if op == "power":
            if signed and not (y[0] == "number" and y[1] < SIGN):
                raise RefusedError("an integer power with an exponent that may be negative must be checked on the host")
            return self.wrapped(self.ipower(x, y), loop)
        if op in ("floor_divide", "remainder"):
            return self.wrapped(self._divided(op, x, y, signed), loop)
        if op in ("reciprocal",):
            return self.wrapped(self._divided("floor_divide", one, x, False) if not signed else self.idiv(one, x), loop)
        basic = {"add": "iadd", "subtract": "isub", "multiply": "imul"}
        if op in basic:
            return self.wrapped(self.emit(basic[op], x, y), loop)
        if op == "square":
            return self.wrapped(self.imul(x, x), loop)
        if op == "negative":
            return self.wrapped(self.isub(zero, x), loop)
        raise RefusedError(f"the shader has no {op} of {loop}")

    def _divided(self, op: str, x: Register, y: Register, signed: bool) -> Register:
        zero = self.bits(0)
        quotient = self.emit("idiv" if signed else "udiv", x, y)
        rest = self.isub(x, self.imul(quotient, y))
        none = self.ieq(y, zero)
        if not signed:
            return quotient if op == "floor_divide" else self.select(none, zero, rest)
        differs = self.and_(self.ilt(self.xor(rest, y), zero), self.truth((rest,), "int32"))
        if op == "floor_divide":
            return self.select(none, zero, self.isub(quotient, differs))
        return self.select(none, zero, self.select(differs, self.iadd(rest, y), rest))


_COMPARING: dict[str, Callable[[WholeSteps, str, Register, Register], Register]] = {
    "less": lambda of, less, x, y: of.emit(less, x, y),
    "greater": lambda of, less, x, y: of.emit(less, y, x),
    "less_equal": lambda of, less, x, y: of.not_(of.emit(less, y, x)),
    "greater_equal": lambda of, less, x, y: of.not_(of.emit(less, x, y)),
    "equal": lambda of, less, x, y: of.ieq(x, y),
    "not_equal": lambda of, less, x, y: of.not_(of.ieq(x, y)),
}
