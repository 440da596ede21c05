"""The CUDA source of an expression's kernel: one pass over memory, made of this module's own templates and of numbers.

Nothing of a caller's text gets into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...core.program import Program, Value

C_TYPES = {
    "bool": "bool", "int8": "signed char", "int16": "short", "int32": "int", "int64": "long long",
    "uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int", "uint64": "unsigned long long",
    "float16": "Half", "bfloat16": "Brain", "float32": "float", "float64": "double", "complex64": "complex<float>",
    "complex128": "complex<double>",
}  # fmt: skip
THREADS, UNROLL = 256, 2  # of a block; packs that each of its threads computes

_PRELUDE = r"""
#include <cupy/complex.cuh>
template <class T, int N> struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Pack { T v[N]; };
struct Half { unsigned short bits; };
struct Brain { unsigned short bits; };
template <class T> struct Real { typedef T type; };
template <class T> struct Real<complex<T>> { typedef T type; };
template <class To, class From> struct Cast { static __device__ To of(From x) { return (To)x; } };
template <class From> struct Cast<bool, From> { static __device__ bool of(From x) { return x != From(0); } };
template <class To, class T> struct Cast<To, complex<T>> {
  static __device__ To of(complex<T> x) { return (To)x.real(); } };
template <class T> struct Cast<bool, complex<T>> {
  static __device__ bool of(complex<T> x) { return x.real() != T(0) || x.imag() != T(0); } };
template <class T, class F> struct Cast<complex<T>, complex<F>> {
  static __device__ complex<T> of(complex<F> x) { return complex<T>((T)x.real(), (T)x.imag()); } };
template <class T, class From> struct Cast<complex<T>, From> {
  static __device__ complex<T> of(From x) { return complex<T>((T)x, T(0)); } };
template <> struct Cast<float, Half> { static __device__ float of(Half x) {
  float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; } };
template <> struct Cast<Half, float> { static __device__ Half of(float x) {
  Half y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; } };
template <> struct Cast<float, Brain> { static __device__ float of(Brain x) {
  return __uint_as_float((unsigned)x.bits << 16); } };
template <> struct Cast<Brain, float> { static __device__ Brain of(float x) {
  unsigned u = __float_as_uint(x);
  Brain y; y.bits = x != x ? 0x7fc0 : (unsigned short)((u + 0x7fff + ((u >> 16) & 1)) >> 16); return y; } };
template <> struct Cast<bool, Half> { static __device__ bool of(Half x) { return x.bits & 0x7fff; } };
template <> struct Cast<bool, Brain> { static __device__ bool of(Brain x) { return x.bits & 0x7fff; } };
template <class T> __device__ inline T nan_first(T a, T b, bool left) { return (left || a != a) ? a : b; }
template <class T> __device__ inline T maximum_(T a, T b) { return nan_first(a, b, a > b); }
template <class T> __device__ inline T minimum_(T a, T b) { return nan_first(a, b, a < b); }
template <class T> __device__ inline T sign_(T x) {
  return x > T(0) ? T(1) : (x < T(0) ? T(-1) : (x == T(0) ? T(0) : x)); }
template <class T> __device__ inline T int_divide(T a, T b) {
  if (b == T(0)) return T(0);
  if (b == T(-1) && T(-1) < T(0)) return T(0 - (unsigned long long)a);
  T q = a / b; return ((a % b != T(0)) && ((a < T(0)) != (b < T(0)))) ? T(q - 1) : q; }
template <class T> __device__ inline T int_remainder(T a, T b) {
  if (b == T(0) || (b == T(-1) && T(-1) < T(0))) return T(0);
  T r = a % b; return (r != T(0) && ((r < T(0)) != (b < T(0)))) ? T(r + b) : r; }
template <class T> __device__ inline T int_power(T a, T b) {
  if (b < T(0)) return a == T(1) ? T(1) : (a == T(-1) && T(-1) < T(0)) ? ((b & T(1)) ? T(-1) : T(1)) : T(0);
  T result = 1;
  while (b) { if (b & T(1)) result = T(result * a); a = T(a * a); b = T(b >> 1); }
  return result; }
template <class T> __device__ inline T real_remainder(T a, T b) {
  T r = fmod(a, b);
  if (b == T(0)) return r;
  if (r != T(0)) { if ((b < T(0)) != (r < T(0))) r += b; return r; }
  return copysign(T(0), b); }
template <class T> __device__ inline T real_divide(T a, T b) {
  if (b == T(0)) return a / b;
  T r = fmod(a, b), q = (a - r) / b;
  if (r != T(0) && ((b < T(0)) != (r < T(0)))) q -= T(1);
  if (q != T(0)) { T f = floor(q); return q - f > T(0.5) ? f + T(1) : f; }
  return copysign(T(0), a / b); }
template <class T> __device__ inline complex<T> expm1_(complex<T> z) {
  T s = sin(z.imag() / T(2)), e = expm1(z.real());
  return complex<T>(e * cos(z.imag()) - T(2) * s * s, (e + T(1)) * sin(z.imag())); }
template <class T> __device__ inline complex<T> log1p_(complex<T> z) {
  T x = z.real(), y = z.imag();
  T size = hypot(T(1) + x, y);
  T real = (size > T(0.5) && size < T(2)) ? T(0.5) * log1p(x * (T(2) + x) + y * y) : log(size);
  return complex<T>(real, atan2(y, T(1) + x)); }
template <class T> __device__ inline complex<T> rint_(complex<T> z) {
  return complex<T>(rint(z.real()), rint(z.imag())); }
template <class T> __device__ inline bool finite_(complex<T> z) { return isfinite(z.real()) && isfinite(z.imag()); }
template <class T> __device__ inline bool infinite_(complex<T> z) { return isinf(z.real()) || isinf(z.imag()); }
template <class T> __device__ inline bool nan_(complex<T> z) { return isnan(z.real()) || isnan(z.imag()); }
"""

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "greater": ">", "greater_equal": ">=", "less": "<",
    "less_equal": "<=",    "equal": "==", "not_equal": "!=",
}  # fmt: skip
_LOGICAL = {"logical_and": "&&", "logical_or": "||", "logical_xor": "!="}
# Functions of one argument by the name that CUDA has for doubles; with an f at the end for floats.
_MATH = {
    "sqrt": "sqrt", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "log": "log", "log2": "log2", "log10": "log10",
    "log1p": "log1p", "sin": "sin", "cos": "cos", "tan": "tan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "floor": "floor", "ceil": "ceil", "rint": "rint", "erf": "erf",
}  # fmt: skip
_COMPLEX_MATH = {
    **{name: _MATH[name] for name in ("sqrt", "exp", "log", "log10", "sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "expm1": "expm1_", "log1p": "log1p_", "rint": "rint_",
}  # fmt: skip


def _term(value: Value, args: Sequence[str]) -> str | None:
    """Return the C++ expression of one step, or None where there is none."""
    op, loop = value.op, value.loop
    cplx, real = loop.startswith("complex"), loop.startswith("float")
    kind, first = C_TYPES[value.dtype], args[0]
    if op in _INFIX:
        if loop == "bool" and op in ("add", "multiply"):
            return f"({first} {'||' if op == 'add' else '&&'} {args[1]})"
        return f"({kind})({first} {_INFIX[op]} {args[1]})"
    if op in ("logical_and", "logical_or", "logical_xor"):
        source = C_TYPES[loop]
        left, right = (f"Cast<bool, {source}>::of({a})" for a in args)
        return f"({left} {_LOGICAL[op]} {right})"
    if op == "logical_not":
        return f"(!Cast<bool, {C_TYPES[loop]}>::of({first}))"
    if op == "where":
        return f"({first} ? {args[1]} : {args[2]})"
    if op == "cast":
        return f"Cast<{kind}, {C_TYPES[loop]}>::of({first})"
    if op == "divide":
        return f"({first} / {args[1]})"
    if op in ("maximum", "minimum"):
        return None if cplx else f"{op}_({first}, {args[1]})"
    if op in ("floor_divide", "remainder", "power"):
        if cplx:
            return f"pow({first}, {args[1]})" if op == "power" else None
        if loop == "bool":
            return None
        if op == "power" and real:
            return f"{'powf' if loop == 'float32' else 'pow'}({first}, {args[1]})"
        stem = {"floor_divide": "divide"}.get(op, op)
        return f"{'real' if real else 'int'}_{stem}<{kind}>({first}, {args[1]})"
    if op == "arctan2":
        return f"{'atan2f' if loop == 'float32' else 'atan2'}({first}, {args[1]})"
    if op == "negative":
        return f"({kind})(-{first})"
    if op == "positive":
        return first
    if op == "reciprocal":
        return f"({C_TYPES[loop]}(1) / {first})" if cplx or real else f"int_divide<{kind}>(1, {first})"
    if op == "square":
        return f"({first} && {first})" if loop == "bool" else f"({kind})({first} * {first})"
    if op == "absolute":
        if cplx:
            return f"abs({first})"
        if loop.startswith("uint") or loop == "bool":
            return first
        return (
            f"{'fabsf' if loop == 'float32' else 'fabs'}({first})"
            if real
            else f"({kind})({first} < 0 ? -{first} : {first})"
        )
    if op == "sign":
        return f"sign_<{kind}>({first})"
    if op == "conjugate":
        return f"conj({first})" if cplx else first
    if op in ("real", "imag"):
        return f"{first}.{op}()" if cplx else first if op == "real" else f"({kind})0"
    if op in ("isfinite", "isinf", "isnan"):
        if cplx:
            return f"{dict(isfinite='finite_', isinf='infinite_', isnan='nan_')[op]}({first})"
        return f"(bool){op}({first})" if real else {"isfinite": "true"}.get(op, "false")
    if cplx:
        return f"{_COMPLEX_MATH[op]}({first})" if op in _COMPLEX_MATH else None
    if op in _MATH and real:
        return f"{_MATH[op]}{'f' if loop == 'float32' else ''}({first})"
    return None


def _literal(value: Any, dtype: str) -> str:
    """Return a number as C++ that stands for exactly it."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype.startswith("complex"):
        number, part = complex(value), "float" if dtype == "complex64" else "double"
        return f"{C_TYPES[dtype]}(({part}){_double(number.real)}, ({part}){_double(number.imag)})"
    if dtype.startswith("float"):
        return f"({C_TYPES[dtype]}){_double(float(value))}"
    if dtype.startswith("uint"):
        return f"({C_TYPES[dtype]}){int(value)}ULL"
    return f"({C_TYPES[dtype]})({int(value) + 1}LL - 1)" if value < 0 else f"({C_TYPES[dtype]}){int(value)}LL"


def _double(value: float) -> str:
    if math.isnan(value):
        return "__longlong_as_double(0x7ff8000000000000LL)"
    if math.isinf(value):
        return ("-" if value < 0 else "") + "__longlong_as_double(0x7ff0000000000000LL)"
    return f"({value!r})"


def unwritable(steps: Program) -> str | None:
    """Return which step has no CUDA expression, or None where the whole program has one."""
    for value in steps.values:
        if value.args and _term(value, ["x"] * len(value.args)) is None:
            return f"there is no {value.op} of {value.loop} in the generated kernels"
        if value.op == "power" and value.loop.startswith("int") and steps.values[value.args[1]].op != "const":
            return "an integer power may have a negative exponent, and a GPU cannot refuse it without a wait"
    return None


class Layout(NamedTuple):
    """What of the operands' shapes and memory the source depends on.

    ``places`` says for each operand how it is read: "full" (a pack like the result), "one" (its only element), "value"
    (a number from the host), "row" (a pack, by strides over the outer axes), "same" (one element for a whole pack, by
    strides) or "step" (elements by strides over all axes).
    ``axes`` is the number of outer axes, ``width`` the elements of a pack, ``wide`` whether
    64-bit indices are needed.
    """

    places: tuple[str, ...]
    axes: int
    width: int
    wide: bool


def source(steps: Program, layout: Layout) -> str:
    """Return the CUDA source of a program's kernel, ``compute``.

    Not kept by its arguments: a program with 0.0 equals one with -0.0. Compiled kernels are kept by their text.
    """
    variables = sorted({(v.data, v.dtype) for v in steps.values if v.op == "var"})
    scalars = sorted({(v.data, v.dtype) for v in steps.values if v.op == "scalar"})
    index = "long long" if layout.wide else "unsigned int"
    out, width = C_TYPES[steps.dtype], layout.width
    head = [f"{out}* __restrict__ out", f"const {index} count"]
    head += [f"const {index} d{axis}" for axis in range(layout.axes)]
    for (number, dtype), place in zip(variables, layout.places):
        head.append(f"const {C_TYPES[dtype]}{' one' if place == 'value' else '* __restrict__ p'}{number}")
        if place in ("row", "same", "step"):
            head += [f"const long long s{number}_{axis}" for axis in range(layout.axes)]
            if place == "step":
                head.append(f"const long long s{number}_inner")
    head += [f"const {C_TYPES[dtype]} n{number}_{_tag(dtype)}" for number, dtype in scalars]
    body = [_PRELUDE, 'extern "C" __global__ void __launch_bounds__(256) compute(', ", ".join(head), ") {"]
    body.append(f"  typedef {index} Index;")
    for (number, dtype), place in zip(variables, layout.places):
        if place == "one":
            body.append(f"  const {C_TYPES[dtype]} one{number} = *p{number};")
    body.append(f"  const Index first = (Index)blockIdx.x * {THREADS * UNROLL} + threadIdx.x;")
    for (number, dtype), place in zip(variables, layout.places):
        if place not in ("one", "value"):
            body.append(f"  Pack<{C_TYPES[dtype]}, {1 if place == 'same' else width}> a{number}[{UNROLL}];")
    body += [f"#pragma unroll\n  for (int u = 0; u < {UNROLL}; ++u) {{", f"    const Index at = first + u * {THREADS};"]
    body.append("    if (at >= count) continue;")
    strided = [number for (number, _), place in zip(variables, layout.places) if place in ("row", "same", "step")]
    if strided:
        body.append("    Index rest = at;")
        for number in strided:
            body.append(f"    long long o{number} = 0;")
        for axis in range(layout.axes - 1, -1, -1):
            body.append(
                f"    {{ const Index i = rest % d{axis}; rest /= d{axis};" if axis else "    { const Index i = rest;"
            )
            body.append(
                "     " + "".join(f" o{number} += (long long)i * s{number}_{axis};" for number in strided) + " }"
            )
    for (number, dtype), place in zip(variables, layout.places):
        pack = f"Pack<{C_TYPES[dtype]}, {width}>"
        if place == "full":
            body.append(f"    a{number}[u] = reinterpret_cast<const {pack}*>(p{number})[at];")
        elif place == "row":
            body.append(f"    a{number}[u] = *reinterpret_cast<const {pack}*>(p{number} + o{number});")
        elif place == "same":
            body.append(f"    a{number}[u].v[0] = p{number}[o{number}];")
        elif place == "step":
            body.append(
                f"    for (int k = 0; k < {width}; ++k) a{number}[u].v[k] = p{number}[o{number} + k * s{number}_inner];"
            )
    body += ["  }", f"#pragma unroll\n  for (int u = 0; u < {UNROLL}; ++u) {{"]
    body += [f"    const Index at = first + u * {THREADS};", "    if (at >= count) continue;"]
    body += [f"    Pack<{out}, {width}> r;", f"#pragma unroll\n    for (int k = 0; k < {width}; ++k) {{"]
    place_of = {number: place for (number, _), place in zip(variables, layout.places)}
    for number_, value in enumerate(steps.values):
        kind = C_TYPES[value.dtype]
        if value.op == "var":
            place = place_of[value.data]
            text = (
                f"one{value.data}"
                if place in ("one", "value")
                else f"a{value.data}[u].v[{0 if place == 'same' else 'k'}]"
            )
        elif value.op == "scalar":
            text = f"n{value.data}_{_tag(value.dtype)}"
        elif value.op == "const":
            text = _literal(value.data, value.dtype)
        else:
            term = _term(value, [f"v{arg}" for arg in value.args])
            assert term is not None
            text = term
        body.append(f"      const {kind} v{number_} = {text};")
    body.append(f"      r.v[k] = v{len(steps.values) - 1};")
    body += ["    }", f"    reinterpret_cast<Pack<{out}, {width}>*>(out)[at] = r;", "  }", "}"]
    return "\n".join(body)


def _tag(dtype: str) -> str:
    return dtype
