"""Functions of complex values, which are two registers, made of real ones."""

from __future__ import annotations

import math
from typing import Any

from .elementwise_emit import INFINITY, NAN, RefusedError, Register
from .elementwise_real import RealSteps


class ComplexSteps(RealSteps):
    """Emits functions of complex64."""

    def _complex(self, op: str, args: list[tuple[Register, ...]]) -> tuple[Register, ...]:
        own = getattr(self, f"_complex_{op}", None)
        if own is None:
            raise RefusedError(f"the shader has no {op} of complex values")
        return own(*args)

    def _complex_add(self, x: Any, y: Any) -> Any:
        return self.add(x[0], y[0]), self.add(x[1], y[1])

    def _complex_subtract(self, x: Any, y: Any) -> Any:
        return self.sub(x[0], y[0]), self.sub(x[1], y[1])

    def _complex_multiply(self, x: Any, y: Any) -> Any:
        (a, b), (c, d) = x, y
        return self.sub(self.mul(a, c), self.mul(b, d)), self.add(self.mul(a, d), self.mul(b, c))

    def _complex_square(self, x: Any) -> Any:
        return self._complex_multiply(x, x)

    def _complex_divide(self, x: Any, y: Any) -> Any:
        """Smith's method: divide by the larger part of the divisor first, so that nothing overflows."""
        (a, b), (c, d) = x, y
        first = self.le(self.magnitude(d), self.magnitude(c))
        large, small = self.select(first, c, d), self.select(first, d, c)
        ratio = self.select(self.eq(large, self.number(0.0)), self.number(0.0), self.div(small, large))
        whole = self.add(large, self.mul(small, ratio))
        p, q = self.select(first, a, b), self.select(first, b, a)
        imaginary = self.div(self.sub(q, self.mul(p, ratio)), whole)
        return (
            self.div(self.add(p, self.mul(q, ratio)), whole),
            self.select(first, imaginary, self.negative(imaginary)),
        )

    def _complex_reciprocal(self, x: Any) -> Any:
        return self._complex_divide((self.number(1.0), self.number(0.0)), x)

    def _complex_negative(self, x: Any) -> Any:
        return self.negative(x[0]), self.negative(x[1])

    def _complex_positive(self, x: Any) -> Any:
        return x

    def _complex_conjugate(self, x: Any) -> Any:
        return x[0], self.negative(x[1])

    def _complex_real(self, x: Any) -> Any:
        return (x[0],)

    def _complex_imag(self, x: Any) -> Any:
        return (x[1],)

    def _modulus(self, x: Any) -> Register:
        a, b = self.magnitude(x[0]), self.magnitude(x[1])
        less = self.lt(a, b)
        large, small = self.select(less, b, a), self.select(less, a, b)
        ratio = self.div(small, large)
        length = self.mul(large, self.sqrt(self.add(self.number(1.0), self.mul(ratio, ratio))))
        length = self.select(self.eq(large, self.number(0.0)), large, length)
        infinity = self.bits(INFINITY)
        infinite = self.or_(self.ieq(a, infinity), self.ieq(b, infinity))
        return self.select(infinite, infinity, length)

    def _complex_absolute(self, x: Any) -> Any:
        return (self._modulus(x),)

    def _complex_sqrt(self, x: Any) -> Any:
        a, b = x
        zero, half = self.number(0.0), self.number(0.5)
        root = self.sqrt(self.mul(half, self.add(self.magnitude(a), self._modulus(x))))
        other = self.select(self.eq(root, zero), zero, self.div(self.mul(half, self.magnitude(b)), root))
        right = self.le(zero, a)
        return self.select(right, root, other), self.copy_sign(self.select(right, other, root), b)

    def _complex_exp(self, x: Any) -> Any:
        size = self.exp(x[0])
        real = self.eq(x[1], self.number(0.0))
        return self.mul(size, self.cos(x[1])), self.select(real, x[1], self.mul(size, self.sin(x[1])))

    def _complex_exp2(self, x: Any) -> Any:
        factor = self.number(math.log(2))
        return self._complex_exp((self.mul(x[0], factor), self.mul(x[1], factor)))

    def _complex_expm1(self, x: Any) -> Any:
        a, b = x
        half = self.sin(self.mul(self.number(0.5), b))
        real = self.sub(self.mul(self.expm1(a), self.cos(b)), self.mul(self.number(2.0), self.mul(half, half)))
        return real, self.mul(self.exp(a), self.sin(b))

    def _complex_log(self, x: Any) -> Any:
        a, b = self.magnitude(x[0]), self.magnitude(x[1])
        less = self.lt(a, b)
        large, small = self.select(less, b, a), self.select(less, a, b)
        over = self.sub(large, self.number(1.0))
        return self._log_of_modulus(x, over, small), self.arctan2(x[1], x[0])

    def _log_of_modulus(self, x: Any, over: Register, small: Register) -> Register:
        """Return log |x|; near 1 from the part by which the larger component exceeds 1, which loses no digits."""
        size, two = self._modulus(x), self.number(2.0)
        square = self.add(self.mul(over, self.add(two, over)), self.mul(small, small))
        near = self.and_(self.lt(self.number(0.5), size), self.lt(size, two))
        return self.select(near, self.mul(self.number(0.5), self.log1p(square)), self.log(size))

    def _complex_log2(self, x: Any) -> Any:
        return self._logarithm(x, 1 / math.log(2))

    def _complex_log10(self, x: Any) -> Any:
        return self._logarithm(x, 1 / math.log(10))

    def _logarithm(self, x: Any, factor: float) -> Any:
        return tuple(self.mul(part, self.number(factor)) for part in self._complex_log(x))

    def _complex_log1p(self, x: Any) -> Any:
        moved = (self.add(x[0], self.number(1.0)), x[1])
        return self._log_of_modulus(moved, x[0], x[1]), self.arctan2(moved[1], moved[0])

    def _complex_sin(self, x: Any) -> Any:
        a, b = x
        return self.mul(self.sin(a), self.cosh(b)), self.mul(self.cos(a), self.sinh(b))

    def _complex_cos(self, x: Any) -> Any:
        a, b = x
        return self.mul(self.cos(a), self.cosh(b)), self.negative(self.mul(self.sin(a), self.sinh(b)))

    def _complex_sinh(self, x: Any) -> Any:
        a, b = x
        return self.mul(self.sinh(a), self.cos(b)), self.mul(self.cosh(a), self.sin(b))

    def _complex_cosh(self, x: Any) -> Any:
        a, b = x
        return self.mul(self.cosh(a), self.cos(b)), self.mul(self.sinh(a), self.sin(b))

    def _complex_tanh(self, x: Any) -> Any:
        """Kahan's formula; beyond |x| = 11 the result is 1 and a tiny imaginary part."""
        a, b = x
        one = self.number(1.0)
        t, s = self.tan(b), self.sinh(self.max(self.min(a, self.number(11.0)), self.number(-11.0)))
        beta = self.add(one, self.mul(t, t))
        rho = self.sqrt(self.add(one, self.mul(s, s)))
        scaled = self.mul(beta, s)
        below = self.add(one, self.mul(scaled, s))
        return self.div(self.mul(scaled, rho), below), self.div(t, below)

    def _complex_tan(self, x: Any) -> Any:
        a, b = x  # tan(z) = -i tanh(iz)
        real, imaginary = self._complex_tanh((self.negative(b), a))
        return imaginary, self.negative(real)

    def _complex_power(self, x: Any, y: Any) -> Any:
        zero, one = self.number(0.0), self.number(1.0)
        (a, b), (c, d) = x, y
        raised = self._complex_exp(self._complex_multiply(y, self._complex_log(x)))
        none = self.and_(self.eq(a, zero), self.eq(b, zero))
        of_zero = self.select(self.lt(zero, c), zero, self.bits(NAN))
        trivial = self.and_(self.eq(c, zero), self.eq(d, zero))
        real = self.select(trivial, one, self.select(none, of_zero, raised[0]))
        return real, self.select(trivial, zero, self.select(none, of_zero, raised[1]))

    def _complex_equal(self, x: Any, y: Any) -> Any:
        return (self.and_(self.eq(x[0], y[0]), self.eq(x[1], y[1])),)

    def _complex_not_equal(self, x: Any, y: Any) -> Any:
        return (self.not_(self._complex_equal(x, y)[0]),)

    def _complex_rint(self, x: Any) -> Any:
        return self.rint(x[0]), self.rint(x[1])

    def _complex_logical_not(self, x: Any) -> Any:
        return (self.not_(self.truth(x, "complex64")),)

    def _complex_logical_and(self, x: Any, y: Any) -> Any:
        return (self.and_(self.truth(x, "complex64"), self.truth(y, "complex64")),)

    def _complex_logical_or(self, x: Any, y: Any) -> Any:
        return (self.or_(self.truth(x, "complex64"), self.truth(y, "complex64")),)

    def _complex_logical_xor(self, x: Any, y: Any) -> Any:
        return (self.xor(self.truth(x, "complex64"), self.truth(y, "complex64")),)

    def _complex_isnan(self, x: Any) -> Any:
        return (self.or_(self.is_nan(x[0]), self.is_nan(x[1])),)

    def _complex_isinf(self, x: Any) -> Any:
        return (self.or_(self._float_isinf(x[0]), self._float_isinf(x[1])),)

    def _complex_isfinite(self, x: Any) -> Any:
        return (self.and_(self._float_isfinite(x[0]), self._float_isfinite(x[1])),)
