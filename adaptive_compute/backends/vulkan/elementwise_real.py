"""Functions of real floating-point values in the shader's steps."""

from __future__ import annotations

import math

from .elementwise_emit import FUNCTIONS, INFINITY, SIGN, Emitter, RefusedError, Register

# Operations on real floating-point values that are one step each.
_DIRECT = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "sqrt": "sqrt", "floor": "floor",
    "ceil": "ceil", "rint": "rint", "maximum": "max", "minimum": "min", "less": "lt", "less_equal": "le",
    "equal": "eq", **{name: name for name in FUNCTIONS if name not in ("fmod", "ipower")},
}  # fmt: skip


class RealSteps(Emitter):
    """Emits functions of float32; each is named like the function."""

    def _float(self, op: str, args: list[Register]) -> Register:
        direct = _DIRECT.get(op)
        if direct is not None:
            return self.emit(direct, *args)
        own = getattr(self, f"_float_{op}", None)
        if own is None:
            raise RefusedError(f"the shader has no {op} of float32")
        return own(*args)

    def _float_negative(self, x: Register) -> Register:
        return self.negative(x)

    def _float_absolute(self, x: Register) -> Register:
        return self.magnitude(x)

    def _float_reciprocal(self, x: Register) -> Register:
        return self.div(self.number(1.0), x)

    def _float_square(self, x: Register) -> Register:
        return self.mul(x, x)

    def _float_sign(self, x: Register) -> Register:
        one = self.emit("or", self.number(1.0), self.emit("and", x, self.bits(SIGN)))
        some = self.select(self.eq(x, self.number(0.0)), self.number(0.0), one)
        return self.select(self.is_nan(x), x, some)

    def _float_greater(self, x: Register, y: Register) -> Register:
        return self.lt(y, x)

    def _float_greater_equal(self, x: Register, y: Register) -> Register:
        return self.le(y, x)

    def _float_not_equal(self, x: Register, y: Register) -> Register:
        return self.not_(self.eq(x, y))

    def _float_logical_not(self, x: Register) -> Register:
        return self.eq(x, self.number(0.0))

    def _float_logical_and(self, x: Register, y: Register) -> Register:
        return self.and_(self.truth((x,), "float32"), self.truth((y,), "float32"))

    def _float_logical_or(self, x: Register, y: Register) -> Register:
        return self.or_(self.truth((x,), "float32"), self.truth((y,), "float32"))

    def _float_logical_xor(self, x: Register, y: Register) -> Register:
        return self.xor(self.truth((x,), "float32"), self.truth((y,), "float32"))

    def _float_isnan(self, x: Register) -> Register:
        return self.is_nan(x)

    def _float_isinf(self, x: Register) -> Register:
        return self.ieq(self.magnitude(x), self.bits(INFINITY))

    def _float_isfinite(self, x: Register) -> Register:
        return self.ult(self.magnitude(x), self.bits(INFINITY))

    def _float_arctan(self, x: Register) -> Register:
        return self.arctan2(x, self.number(1.0))

    def _float_imag(self, x: Register) -> Register:
        return self.number(0.0)

    def _float_real(self, x: Register) -> Register:
        return x

    def _float_conjugate(self, x: Register) -> Register:
        return x

    def _float_arcsinh(self, x: Register) -> Register:
        # sign(x) log1p(a + a^2 / (1 + sqrt(1 + a^2))); for large a log(2a), as log1p(2a).
        a, one = self.magnitude(x), self.number(1.0)
        square = self.mul(a, a)
        inner = self.add(a, self.div(square, self.add(one, self.sqrt(self.add(one, square)))))
        large = self.lt(self.number(1e9), a)
        grown = self.log1p(self.select(large, a, inner))
        return self.copy_sign(self.add(grown, self._log_2_where(large)), x)

    def _log_2_where(self, truth: Register) -> Register:
        return self.select(truth, self.number(math.log(2)), self.number(0.0))

    def _float_arccosh(self, x: Register) -> Register:
        t = self.sub(x, self.number(1.0))
        inner = self.add(t, self.sqrt(self.add(self.add(t, t), self.mul(t, t))))
        large = self.lt(self.number(1e9), x)
        return self.add(self.log1p(self.select(large, x, inner)), self._log_2_where(large))

    def _float_arctanh(self, x: Register) -> Register:
        a = self.magnitude(x)
        grown = self.log1p(self.div(self.add(a, a), self.sub(self.number(1.0), a)))
        result = self.mul(self.number(0.5), grown)
        return self.or_(result, self.emit("and", x, self.bits(SIGN)))

    def _float_remainder(self, x: Register, y: Register) -> Register:
        rest = self.fmod(x, y)
        zero = self.number(0.0)
        differs = self.xor(self.lt(rest, zero), self.lt(y, zero))
        moved = self.select(differs, self.add(rest, y), rest)
        return self.select(self.eq(rest, zero), self.emit("and", y, self.bits(SIGN)), moved)

    def _float_floor_divide(self, x: Register, y: Register) -> Register:
        rest = self.fmod(x, y)
        zero = self.number(0.0)
        differs = self.and_(self.xor(self.lt(rest, zero), self.lt(y, zero)), self.truth((rest,), "float32"))
        one = self.number(1.0)
        whole = self.sub(self.div(self.sub(x, rest), y), self.select(differs, one, zero))
        floored = self.floor(whole)  # as NumPy rounds it
        floored = self.add(floored, self.select(self.lt(self.number(0.5), self.sub(whole, floored)), one, zero))
        quotient = self.div(x, y)
        signed = self.select(self.eq(floored, zero), self.emit("and", quotient, self.bits(SIGN)), floored)
        return self.select(self.eq(y, zero), quotient, signed)
