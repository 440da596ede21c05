"""Element-wise expressions: every kernel against NumPy in extended precision."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import adaptive_compute as ac
from adaptive_compute.core.errors import DtypeError, ExpressionError, NoKernelError, ShapeError
from adaptive_compute.core.transfer import counters

OPERATION = "elementwise"
BOUND = {np.float16: 2e-3, np.float32: 1e-6, np.float64: 1e-14, np.complex64: 1e-6, np.complex128: 1e-14}
LARGE = 40_000  # enough for the kernels that share out

_erf = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# name -> (NumPy's function of extended precision, lower and upper end of a sensible domain, defined for complex values)
UNARY = {
    "negative": (np.negative, -2, 2, True), "positive": (np.positive, -2, 2, True),
    "reciprocal": (np.reciprocal, 0.5, 3, True), "absolute": (np.abs, -2, 2, True), "abs": (np.abs, -2, 2, True),
    "sign": (np.sign, -2, 2, False), "square": (np.square, -2, 2, True), "sqrt": (np.sqrt, 0.1, 4, True),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0.1, 4, True), "exp": (np.exp, -4, 4, True), "exp2": (np.exp2, -4, 4, False),
    "expm1": (np.expm1, -1, 1, True), "log": (np.log, 0.1, 9, True), "log2": (np.log2, 0.1, 9, False),
    "log10": (np.log10, 0.1, 9, True), "log1p": (np.log1p, -0.5, 3, True), "sin": (np.sin, -9, 9, True),
    "cos": (np.cos, -9, 9, True), "tan": (np.tan, -1.4, 1.4, True), "sinh": (np.sinh, -3, 3, True),
    "cosh": (np.cosh, -3, 3, True), "tanh": (np.tanh, -3, 3, True), "arcsin": (np.arcsin, -0.9, 0.9, False),
    "arccos": (np.arccos, -0.9, 0.9, False), "arctan": (np.arctan, -9, 9, False),
    "arcsinh": (np.arcsinh, -9, 9, False), "arccosh": (np.arccosh, 1.1, 9, False),
    "arctanh": (np.arctanh, -0.9, 0.9, False), "sigmoid": (_sigmoid, -9, 9, False),
    "relu": (lambda x: np.maximum(x, 0), -2, 2, False), "silu": (lambda x: x * _sigmoid(x), -9, 9, False),
    "gelu": (lambda x: x * (1 + _erf(x / np.sqrt(2))) / 2, -3, 3, False),
    "softplus": (lambda x: np.logaddexp(x, 0), -9, 9, False), "erf": (_erf, -3, 3, False),
    "floor": (np.floor, -9, 9, False), "ceil": (np.ceil, -9, 9, False), "round": (np.round, -9, 9, False),
    "conj": (np.conj, -2, 2, True), "real": (np.real, -2, 2, True), "imag": (np.imag, -2, 2, True),
    "angle": (np.angle, -2, 2, True),
}  # fmt: skip
BINARY = {
    "add": True, "subtract": True, "multiply": True, "divide": True, "power": True, "arctan2": False, "maximum": False,
    "minimum": False, "floor_divide": False, "remainder": False,
}  # fmt: skip
TRUTH = (
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "equal",
    "not_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
)


def run(kernel, function, *args, **kwargs):
    """Run on one kernel; where it refuses the request, check that it says why, and return None."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            return function(*args, **kwargs)
        except NoKernelError as refusal:
            reason = str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2]
    assert reason.strip()
    return None


def widest(kernel):
    """Return float64, or float32 where the kernel refuses it, and how close its results come to exact ones."""
    if run(kernel, ac.add, np.ones(2), 1) is not None:
        return np.float64, {"rtol": 1e-12, "atol": 1e-13}
    return np.float32, {"rtol": 1e-5, "atol": 1e-5}


def values(dtype, low, high, shape, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(low, high, shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.uniform(0.1, 1, shape)
    return x.astype(dtype)


def wide(x):
    x = np.asarray(x)
    return x.astype({"f": np.longdouble, "c": np.clongdouble}.get(x.dtype.kind, x.dtype))


def close(result, reference, bound):
    assert result.shape == reference.shape
    difference = np.linalg.norm((result - reference).astype(np.complex128))
    assert difference <= bound * np.linalg.norm(reference.astype(np.complex128))


@pytest.mark.parametrize("dtype", list(BOUND))
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_argument(kernel, name, dtype):
    exact, low, high, of_complex = UNARY[name]
    if np.dtype(dtype).kind == "c" and not of_complex:
        return
    for size in (501, LARGE):
        x = values(dtype, low, high, size)
        result = run(kernel, getattr(ac, name), x)
        if result is None:
            continue
        with np.errstate(all="ignore"):
            reference = exact(wide(x))
            kind = np.asarray(getattr(np, name, np.sin)(x)).dtype
        assert result.dtype == (kind if np.dtype(dtype).kind == "c" else dtype)
        close(result, reference, 1e-2 if dtype is np.float16 and name in ("tan", "log", "log2") else BOUND[dtype])


@pytest.mark.parametrize("dtype", list(BOUND))
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arguments(kernel, name, dtype):
    if np.dtype(dtype).kind == "c" and not BINARY[name]:
        return
    for size in (501, LARGE):
        x, y = values(dtype, 0.5, 3, size), values(dtype, 0.5, 3, size, seed=1)
        result = run(kernel, getattr(ac, name), x, y)
        if result is not None:
            assert result.dtype == dtype
            close(result, getattr(np, name)(wide(x), wide(y)), BOUND[dtype])


@pytest.mark.parametrize("name", TRUTH)
def test_truth_values(kernel, name):
    x, y = (np.random.default_rng(s).integers(0, 3, LARGE) for s in (0, 1))
    for dtype in (np.float32, np.int64, bool):
        result = run(kernel, getattr(ac, name), x.astype(dtype), y.astype(dtype))
        if result is not None:
            assert result.dtype == bool
            np.testing.assert_array_equal(result, getattr(np, name)(x.astype(dtype), y.astype(dtype)))


def test_tests_of_values(kernel):
    x = np.array([0.0, -1.0, np.nan, np.inf, -np.inf], np.float32)
    for name in ("isfinite", "isinf", "isnan", "logical_not"):
        result = run(kernel, getattr(ac, name), x)
        if result is not None:
            np.testing.assert_array_equal(result, getattr(np, name)(x))
            assert result.dtype == bool


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_choosing(kernel, dtype):
    x, y = values(dtype, -2, 2, LARGE), values(dtype, -2, 2, LARGE, seed=1)
    for function, args, expected in (
        (ac.where, (x > 0, x, y), np.where(x > 0, x, y)),
        (ac.where, (x > 0, 1, y), np.where(x > 0, dtype(1), y)),
        (ac.where, (x, x, 0.5), np.where(x, x, dtype(0.5))),
        (ac.clip, (x, -0.5, 1), np.clip(x, dtype(-0.5), dtype(1))),
        (ac.clip, (x, None, y), np.minimum(x, y)),
        (ac.clip, (x, 0.5), np.maximum(x, dtype(0.5))),
        (ac.round, (x, 2), np.round(x, 2)),
    ):
        result = run(kernel, function, *args)
        if result is not None:
            assert result.dtype == dtype
            np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_gelu_approximation(kernel):
    dtype, _ = widest(kernel)
    x = values(dtype, -3, 3, LARGE)
    result = run(kernel, ac.gelu, x, approximate="tanh")
    if result is not None:
        w = wide(x)
        close(result, w / 2 * (1 + np.tanh(np.sqrt(2 / np.longdouble(np.pi)) * (w + 0.044715 * w**3))), BOUND[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 1000, LARGE, 1_000_003])
def test_expression_of_many_operations(kernel, dtype, size):
    a, b = values(dtype, -2, 2, size), values(dtype, -2, 2, size, seed=1)
    x, y = wide(a), wide(b)
    for text, reference in (
        ("a*b + sin(a)*exp(-b)", x * y + np.sin(x) * np.exp(-y)),
        ("sqrt(a**2 + b**2) - tanh(a)*(1 - b)/3", np.sqrt(x**2 + y**2) - np.tanh(x) * (1 - y) / 3),
        (
            "where(a > b, a*b, a - 2*b) * pi + e",
            np.where(x > y, x * y, x - 2 * y) * np.longdouble(np.pi) + np.longdouble(np.e),
        ),
        ("(a*b - a)*(b*a - b) - a*b", (x * y - x) * (y * x - y) - x * y),
        (
            "where(where(a > 0, b, a) > 0, where(b > 0, a, b), a)",
            np.where(np.where(x > 0, y, x) > 0, np.where(y > 0, x, y), x),
        ),
    ):
        result = run(kernel, ac.evaluate, text, a=a, b=b)
        if result is not None:
            assert result.dtype == dtype
            close(result, reference, BOUND[dtype])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_broadcasting_and_strides(kernel, data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=7))
    dtype, bound = widest(kernel)
    operands = []
    for number, shape in enumerate(shapes.input_shapes):
        x = values(dtype, -2, 2, (*shape[:-1], shape[-1] * 2) if shape else (), seed=number)
        if shape:
            x = x[..., :: data.draw(st.sampled_from([2, -2]))] if data.draw(st.booleans()) else x[..., : shape[-1]]
            if data.draw(st.booleans()):
                x = x.copy(order="F")
        x.flags.writeable = data.draw(st.booleans())
        operands.append(x)
    before = [x.copy() for x in operands]
    a, b, c = operands
    result = run(kernel, ac.evaluate, "a*b + sin(c)*exp(-b) - where(c > b, a, 2*c)", a=a, b=b, c=c)
    if result is not None:
        np.testing.assert_allclose(result, a * b + np.sin(c) * np.exp(-b) - np.where(c > b, a, 2 * c), **bound)
        assert result.shape == shapes.result_shape
        for x, kept in zip(operands, before):
            np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("layout", ["F", "stripes", "reversed", "broadcast", "rows", "outer", "middle"])
def test_large_operands_of_any_layout(kernel, layout):
    rng = np.random.default_rng(0)
    dtype, bound = widest(kernel)
    a, b = rng.standard_normal((300, 700)), rng.standard_normal((300, 700))
    if layout == "F":
        a, b = np.asfortranarray(a), np.asfortranarray(b)
    elif layout == "stripes":
        a, b = rng.standard_normal((600, 700))[::2], rng.standard_normal((300, 1400))[:, ::2]
    elif layout == "reversed":
        a = a[::-1, ::-1]
    elif layout == "broadcast":
        b = np.broadcast_to(b[0], a.shape)
    elif layout == "rows":
        b = b[:1]
    elif layout == "outer":
        a, b = a[:, :1], b[:1]
    else:
        a, b = rng.standard_normal((30, 20, 70)).transpose(2, 0, 1), rng.standard_normal((70, 1, 20))
    a, b = (x if x.dtype == dtype else x.astype(dtype, order="K") for x in (a, b))
    result = run(kernel, ac.evaluate, "a*b + sin(a)*exp(-b)", a=a, b=b)
    if result is not None:
        np.testing.assert_allclose(result, a * b + np.sin(a) * np.exp(-b), **bound)
        if layout == "F" and kernel.device == "cpu":  # what comes back from a device is in C order
            assert result.flags.f_contiguous


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1)])
def test_no_axes_no_elements_one_element(kernel, shape):
    x = np.full(shape, 0.5, np.float32)
    result = run(kernel, ac.evaluate, "2*sin(x) - x", x=x)
    if result is not None:
        assert type(result) is np.ndarray
        assert result.shape == shape
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, 2 * np.sin(x) - x, rtol=1e-6)


@pytest.mark.parametrize("size", [6, LARGE])
def test_nan_and_infinity_pass_without_a_warning(kernel, size):
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 5e37], np.float32), size)  # 1/x is no subnormal number
    with np.errstate(all="ignore"):
        expected = {
            "1/x": 1 / x, "log(x)": np.log(x), "x*x - x*x": x * x - x * x, "exp(x)": np.exp(x), "sqrt(x)": np.sqrt(x),
            "maximum(x, 0)": np.maximum(x, 0), "minimum(0, x)": np.minimum(0, x), "x % 0": x % np.float32(0),
            "arcsin(x)": np.arcsin(x),
        }  # fmt: skip
    for text, reference in expected.items():
        result = run(kernel, ac.evaluate, text, x=x)
        if result is not None:
            np.testing.assert_array_equal(np.isnan(result), np.isnan(reference), err_msg=text)
            np.testing.assert_allclose(result, reference, rtol=1e-6, err_msg=text)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 13, 97, LARGE])
@pytest.mark.parametrize("text", ["a % b", "maximum(a, b)", "minimum(a, b)", "maximum(a, 0.0)", "minimum(-0.0, b)"])
def test_zeros_have_the_signs_of_numpy(kernel, text, size, dtype):
    a, b = np.resize(np.array([0.0, -0.0, 0.0, -0.0, 3.0, -3.0, 3.0], dtype), (2, size))
    b[::2] = np.resize(np.array([-0.0, 0.0, -1.0, 1.0], dtype), size)[::2]
    with np.errstate(all="ignore"):
        zero = dtype(0)
        expected = {
            "a % b": lambda: a % b,
            "maximum(a, b)": lambda: np.maximum(a, b), "minimum(a, b)": lambda: np.minimum(a, b),
            "maximum(a, 0.0)": lambda: np.maximum(a, zero), "minimum(-0.0, b)": lambda: np.minimum(-zero, b),
        }[text]()  # fmt: skip
    given_arrays = {name: x for name, x in {"a": a, "b": b}.items() if name in text.replace("maximum", "")}
    result = run(kernel, ac.evaluate, text, **given_arrays)
    if result is not None:
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(np.signbit(result)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("size", [2, LARGE])
def test_negative_integer_powers_are_refused_in_our_own_words(kernel, size):
    base, exponent = np.full(size, 3), np.resize([2, -1], size)
    if run(kernel, ac.power, base, np.abs(exponent)) is not None:  # else it computes no integer powers at all
        with pytest.raises(ExpressionError, match="negative integer powers"):
            run(kernel, ac.power, base, exponent)


@pytest.mark.parametrize(
    "x", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64", "complex64"]
)
@pytest.mark.parametrize("y", ["bool", "int16", "int64", "float16", "float32", "complex128", 2, 0.5, 1j, True])
def test_dtypes_are_those_of_numpy_2(kernel, x, y):
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("NumPy 1 promotes by value")
    a = np.array([1, 2, 3]).astype(x)
    b = np.array([1, 2, 1]).astype(y) if isinstance(y, str) else y
    for name in ("add", "multiply", "divide", "maximum", "equal"):
        if name == "maximum" and "complex" in (x + str(y)) + type(y).__name__:
            continue
        result = run(kernel, getattr(ac, name), a, b)
        if result is not None:
            expected = getattr(np, name)(a, b)
            assert result.dtype == expected.dtype
            np.testing.assert_allclose(result, expected, rtol=1e-3 if expected.dtype == np.float16 else 1e-6)


def test_integers_are_exact(kernel):
    a, b = (np.random.default_rng(s).integers(-1000, 1000, LARGE) | 1 for s in (0, 1))
    for text, expected in (
        ("a*b + a - 3*b", a * b + a - 3 * b), ("a // b", a // b), ("a % b", a % b), ("a**2", a**2), ("a**3", a**3),
        ("-a", -a), ("abs(a)", np.abs(a)), ("a > b", a > b), ("floor(a)", a), ("a // 0", a * 0),
    ):  # fmt: skip
        result = run(kernel, ac.evaluate, text, **({"a": a, "b": b} if "b" in text.replace("abs", "") else {"a": a}))
        if result is not None:
            np.testing.assert_array_equal(result, expected, err_msg=text)
            assert result.dtype in (np.int64, bool) or text == "floor(a)"


def test_sign_and_gelu_of_nan_and_infinity(kernel):
    for dtype in (np.float16, np.float32, np.float64):
        x = np.resize(np.array([np.nan, np.inf, 2.0, -3.0], dtype), 40)
        result = run(kernel, ac.evaluate, "sign(x) + 0", x=x)
        if result is not None:
            np.testing.assert_array_equal(result, np.sign(x))
        for text in ("gelu(x)", "gelu(x + 0)"):
            result = run(kernel, ac.evaluate, text, x=x)
            if result is not None:
                np.testing.assert_array_equal(result[:2], [np.nan, np.inf])


def test_functions_that_torch_lacks_for_a_dtype(kernel):
    for name, x in (("absolute", np.array([True, False])), ("rint", np.array([1.5 + 2.5j, -0.4j]))):
        result = run(kernel, ac.evaluate, f"{name}(x)", x=x)
        if result is not None:
            np.testing.assert_array_equal(result, getattr(np, name)(x))


def test_whole_numbers_are_exact_up_to_64_bits(kernel):
    signed, unsigned = np.array([1, -3], np.int64), np.array([1, 3], np.uint64)
    for text, numbers, expected in (
        ("a*2**40", {"a": signed}, signed * 2**40), ("a + 3**39", {"a": signed}, signed + 3**39),
        ("a + (2**62 + 2**61 + 1)", {"a": signed}, signed + (2**62 + 2**61 + 1)),
        ("a + b", {"a": unsigned, "b": 2**63}, unsigned + np.uint64(2**63)),
        ("a + 2**40*2**40", {"a": signed}, signed + 2.0**80),
    ):  # fmt: skip
        result = run(kernel, ac.evaluate, text, **numbers)
        if result is not None:
            assert result.dtype == expected.dtype, text
            np.testing.assert_array_equal(result, expected, err_msg=text)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_comparison_with_a_number_beyond_the_dtype(kernel, dtype):
    a = np.array([0, 1, 127]).astype(dtype)
    for name in TRUTH[:6]:
        for number in (300, -300, 1 << 63, 1 << 70):
            for x, y in ((a, number), (number, a)):
                result = run(kernel, getattr(ac, name), x, y)
                if result is not None:
                    exact = getattr(np, name)(*(np.asarray(v, object) for v in (x, y))).astype(bool)
                    np.testing.assert_array_equal(result, exact, err_msg=f"{name} {x} {y}")


def test_numbers_given_at_the_call_share_a_plan(kernel):
    x = np.arange(LARGE, dtype=np.float32)
    for factor in (0.5, 2.5, 1e300):
        result = run(kernel, ac.multiply, x, factor)
        if result is not None:
            assert result.dtype == np.float32
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(result, x * np.float32(factor))
    before = ac.dispatcher.cached[0]
    for factor in (7.5, 8.5, 9.5):
        run(kernel, ac.multiply, x, factor)
    assert ac.dispatcher.cached[0] == before


def test_results_are_independent_of_each_other(kernel):
    """Memory goes back to the pool only when no view of it is left."""
    a = np.arange(300_000, dtype=np.float32)
    first = run(kernel, ac.add, a, 1)
    if first is None:
        return
    view, first = first[5:10], None
    for _ in range(5):
        run(kernel, ac.multiply, a, 0)
    np.testing.assert_array_equal(view, a[5:10] + 1)


def test_no_hidden_copies(kernel):
    a = np.random.default_rng(0).standard_normal((300, 700))
    before = dict(counters.copies)
    run(kernel, ac.evaluate, "a*b + 1", a=a.T, b=a[:1].T)
    assert counters.copies == before


def test_eight_threads_on_one_plan(kernel):
    dtype, bound = widest(kernel)
    x = np.random.default_rng(0).standard_normal((8, 300_000)).astype(dtype)

    def call(row):
        return run(kernel, ac.evaluate, "a*b + sin(a)*exp(-b)", a=row, b=row)

    expected = [row * row + np.sin(row) * np.exp(-row) for row in x]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            for result, reference in zip(pool.map(call, x), expected):
                np.testing.assert_allclose(result, reference, **bound)


def test_torch_in_torch_out(kernel):
    torch = pytest.importorskip("torch")
    x = torch.rand(LARGE, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    result = run(kernel, ac.evaluate, "a*b + 1", a=x, b=x.numpy())
    assert isinstance(result, torch.Tensor)
    torch.testing.assert_close(result, x * x + 1)
    half = run(kernel, ac.evaluate, "gelu(x) * 2 + x", x=x.to(torch.bfloat16))
    if half is not None:
        assert half.dtype == torch.bfloat16
        b = x.to(torch.bfloat16).double()
        reference = torch.nn.functional.gelu(b) * 2 + b
        assert (half.double() - reference).norm() / reference.norm() < 4e-3
    conjugate = run(kernel, ac.multiply, torch.complex(x, x).conj(), 1j)
    torch.testing.assert_close(conjugate, torch.complex(x, x).conj() * 1j)
    assert torch.get_num_threads() == threads


REAL_GRADIENTS = [
    "a*b + sin(a)*exp(-b)",
    "a/b - sqrt(a)*b**3",
    "a**b + b**2.5",
    "maximum(a, b)*minimum(a, 0.7)",
    "where(a > b, a*b, b)",
    "gelu(a)*silu(b) + softplus(a - b)",
    "gelu_tanh(a) + sigmoid(b)*relu(a - 0.6)",
    "tanh(a) + sinh(b)*cosh(a) + tan(a)",
    "arcsin(a/2) + arccos(b/2) + arctan(a*b)",
    "arctan2(a, b)",
    "log(a) + log2(b) + log10(a) + log1p(b) + expm1(a) + exp2(b)",
    "arcsinh(a) + arccosh(1 + b) + arctanh(a/3)",
    "rsqrt(a) + reciprocal(b) - abs(a - b) + square(a)",
    "erf(a)*floor(3*b)",
    "clip(a, 0.3, b)",
    "a % b",
    "cos(a)*abs(-b)",
    "a + 0*b",
    "real(a)*conj(b)",
]


@pytest.mark.parametrize("text", REAL_GRADIENTS)
def test_gradients_of_real_functions(kernel, text):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(3)
    a = (torch.rand(2, 1, 3, dtype=torch.float64, generator=generator) * 0.9 + 0.1).requires_grad_()
    b = (torch.rand(2, 3, dtype=torch.float64, generator=generator) * 0.9 + 0.1).requires_grad_()

    def call(a, b):
        return ac.evaluate(text, a=a, b=b)

    if run(kernel, call, a, b) is None:
        return
    assert torch.autograd.gradcheck(call, (a, b))
    assert torch.autograd.gradgradcheck(call, (a, b), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("a*b + sin(a)*exp(-b)", lambda t, a, b: a * b + t.sin(a) * t.exp(-b)),
        ("a/b + sqrt(a) + log(b)", lambda t, a, b: a / b + t.sqrt(a) + t.log(b)),
        ("conj(a)*b", lambda t, a, b: a.conj() * b),
        ("abs(a)*b", lambda t, a, b: a.abs() * b),
        ("real(a)*imag(b) + angle(a)", lambda t, a, b: a.real * b.imag + t.angle(a)),
        ("a**2 + b**3 + a**(0.5)", lambda t, a, b: a**2 + b**3 + a**0.5),
    ],
)
def test_gradients_of_complex_functions_follow_torch(kernel, text, theirs):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(3)
    start = [torch.randn(3, 4, dtype=torch.complex128, generator=generator) for _ in range(2)]
    grads = []
    for function in (lambda a, b: ac.evaluate(text, a=a, b=b), lambda a, b: theirs(torch, a, b)):
        a, b = (x.clone().requires_grad_() for x in start)
        result = run(kernel, function, a, b)
        if result is None:
            return
        result.abs().square().sum().backward()
        grads.append((a.grad, b.grad))
    torch.testing.assert_close(grads[0], grads[1])


def test_gradient_of_a_real_operand_in_a_complex_product_is_real(kernel):
    torch = pytest.importorskip("torch")
    x = torch.rand(5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(5, dtype=torch.complex128)
    result = run(kernel, ac.multiply, x, z)
    if result is not None:
        result.real.sum().backward()
        torch.testing.assert_close(x.grad, z.real)


def test_gradient_of_large_operands_without_gradient_mode(kernel):
    """Workers keep their own gradient mode; an operand that requires grad must not disturb them."""
    torch = pytest.importorskip("torch")
    x = torch.rand(LARGE, requires_grad=True)
    with torch.no_grad():
        result = run(kernel, ac.evaluate, "x*2 + sin(x)", x=x)
    if result is not None:
        assert not result.requires_grad
    result = run(kernel, ac.evaluate, "x*2 + sin(x)", x=x)
    if result is not None:
        result.sum().backward()
        torch.testing.assert_close(x.grad, 2 + torch.cos(x.detach()))


def test_gradient_of_arctan2_at_the_origin_is_zero(kernel):
    torch = pytest.importorskip("torch")
    y, x = (torch.tensor([0.0, 3.0], requires_grad=True) for _ in range(2))
    result = run(kernel, ac.arctan2, y, x)
    if result is not None:
        result.sum().backward()
        np.testing.assert_allclose(y.grad, [0, 1 / 6], rtol=1e-6)
        np.testing.assert_allclose(x.grad, [0, -1 / 6], rtol=1e-6)


def test_gradient_that_is_not_defined_is_refused():
    torch = pytest.importorskip("torch")
    z = torch.ones(3, dtype=torch.complex128, requires_grad=True)
    with pytest.raises(DtypeError, match="complex"):
        ac.sign(z)


def test_error_finds_a_wrong_result(kernel):
    from adaptive_compute.core.operations.elementwise import FAMILY

    request = FAMILY.example((30, 50), "float32")
    a, b = FAMILY.arrays(request, np.random.default_rng(0))
    result = run(kernel, ac.evaluate, "a*b + sin(a)*exp(-b)", a=a, b=b)
    if result is not None:
        assert FAMILY.error(request, (a, b), result) < 1e-6
        result[7] *= 1.001
        assert FAMILY.error(request, (a, b), result) > 1e-6


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ac.add(np.ones(3), np.ones(4)), ShapeError, r"x1 \[3\], x2 \[4\]"),
        (lambda: ac.evaluate("a + b", a=np.ones(3), b=np.ones(4)), ShapeError, r"a \[3\], b \[4\]"),
        (lambda: ac.sin(np.array(["x"])), DtypeError, "x has dtype"),
        (lambda: ac.sin(np.ones(3, np.longdouble)), DtypeError, "x has dtype"),
        (lambda: ac.sin(np.array([object()])), DtypeError, "x has dtype"),
        (lambda: ac.maximum(np.ones(3, complex), 1), DtypeError, "no order"),
        (lambda: ac.erf(np.ones(3, complex)), DtypeError, "complex"),
        (lambda: ac.subtract(np.ones(3, bool), np.ones(3, bool)), DtypeError, "subtract is not defined for bool, bool"),
        (lambda: ac.add(np.ones(3, np.uint8), 300), ExpressionError, "300 does not fit uint8"),
        (lambda: ac.evaluate("a + 2**40", a=np.ones(3, np.int8)), ExpressionError, "1099511627776 does not fit int8"),
        (lambda: ac.evaluate("a + b", a=np.ones(3), b=10**5000), DtypeError, "^b is a whole number of 16610 bits"),
        (lambda: ac.evaluate("a + b", a=np.ones(3), b=-(10**400)), DtypeError, "^b is a whole number"),
        (lambda: ac.add(10**400, 1), DtypeError, "^x1 is a whole number"),
        (lambda: ac.evaluate("a + 0x" + "f" * 5000, a=np.ones(3)), ExpressionError, "20000 bits"),
        (lambda: ac.evaluate("a**-2", a=np.arange(3)), ExpressionError, "negative integer power"),
        (lambda: ac.add(np.ones(3), 1, tol=-1), ac.core.errors.ArgumentError, "tol"),
        (lambda: ac.gelu(np.ones(3), "exact"), ac.core.errors.ArgumentError, "approximate"),
        (lambda: ac.clip(np.ones(3)), ac.core.errors.ArgumentError, "min"),
        (lambda: ac.round(np.ones(3), 0.5), ac.core.errors.ArgumentError, "decimals"),
        (lambda: ac.add(np.ma.masked_array([1.0], [True]), 1), ac.core.errors.ArgumentError, "masked"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
