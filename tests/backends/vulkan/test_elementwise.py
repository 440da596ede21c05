"""Element-wise expressions on a Vulkan device: the shader's parts, long programs, storage, layouts, resident arrays."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import elementwise as room
from adaptive_compute.backends.vulkan import elementwise_schedule
from adaptive_compute.backends.vulkan.array import download, upload
from adaptive_compute.backends.vulkan.elementwise_emit import OPS
from adaptive_compute.backends.vulkan.elementwise_model import estimated
from adaptive_compute.backends.vulkan.runtime import runtime, strict
from adaptive_compute.core.array import Operand
from adaptive_compute.core.curve import Curve, Measurement
from adaptive_compute.core.errors import NoKernelError
from adaptive_compute.core.expression import parse
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.elementwise_rule import FAMILY
from adaptive_compute.core.program import program
from adaptive_compute.core.transfer import counters
from adaptive_compute.shaders import FOLDER

DEVICE = "vulkan:0"


def evaluate(text, **arrays):
    with ac.using(device=DEVICE):
        return ac.evaluate(text, **arrays)


def request(text, **arrays):
    operands = tuple(Operand(a.shape, a.dtype.name, "cpu", "numpy") for a in arrays.values())
    return Request(FAMILY, operands, parse(text, tuple(arrays)), None, 1)


def steps_of(text, **arrays):
    """Return the shaders of an expression's dispatches."""
    return [step.shader for step in room.built(request(text, **arrays), 64, 1).steps]


def normal(*shape, seed=0, dtype=np.float32):
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x + 1j * np.random.default_rng(seed + 100).standard_normal(shape) if dtype is np.complex64 else x).astype(
        dtype
    )


# The shader and what Python knows of it


def test_operations_have_the_numbers_of_the_shader():
    text = (FOLDER / "elementwise_steps.glsl").read_text()
    numbers = {name.lower(): int(number) for name, number in re.findall(r"#define OP_(\w+) (\d+)u", text)}
    assert numbers == OPS


def test_shapes_are_those_of_the_shader():
    text = (FOLDER / "elementwise.comp").read_text().replace("\\\n", " ")
    slots = re.findall(r"#define SLOTS\(S, C\) (.*)", text)
    shapes = {}
    for name, found in zip(("simple8", "simple32", "1", "2", "4"), slots, strict=True):
        shapes[name] = "".join(kind for kind, _ in re.findall(r"([SC])\((\d+)\)", found))
        assert [int(n) for _, n in re.findall(r"([SC])\((\d+)\)", found)] == list(range(len(shapes[name])))
    for name, variant in elementwise_schedule.VARIANTS.items():
        short = name.removeprefix("elementwise_")
        assert variant.slots == shapes[short if short.startswith("simple") else short[-1]]


# Functions over the whole range of float32

WIDE = {
    "exp": (-104, 90), "exp2": (-150, 130), "expm1": (-20, 90), "log": None, "log2": None, "log10": None,
    "log1p": (-0.99, 1e4), "sin": None, "cos": None, "tan": (-100, 100), "sinh": (-90, 90), "cosh": (-90, 90),
    "tanh": (-12, 12), "arcsin": (-1, 1), "arccos": (-1, 1), "arctan": None, "arcsinh": None, "arccosh": (1, 1e9),
    "arctanh": (-1, 1), "sqrt": None, "erf": (-5, 5),
}  # fmt: skip
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, 2.0, 1e-30], np.float32)


@pytest.mark.parametrize("name", WIDE)
def test_functions_over_their_whole_range(name):
    rng = np.random.default_rng(0)
    ends = WIDE[name]
    if ends is None:
        x = (2.0 ** rng.uniform(-120, 127, 4000) * rng.choice([-1, 1], 4000)).astype(np.float32)
    else:
        x = rng.uniform(*ends, 4000).astype(np.float32)
    x = np.concatenate([SPECIAL, x])
    result = evaluate(f"{name}(x)", x=x).astype(np.longdouble)
    with np.errstate(all="ignore"):
        if name == "erf":
            scipy = pytest.importorskip("scipy.special")
            exact = scipy.erf(x.astype(np.float64)).astype(np.longdouble)
        else:
            exact = getattr(np, name)(x.astype(np.longdouble))
        rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(rounded))
    normal_size = (np.abs(exact) > 1.2e-38) & np.isfinite(rounded)  # what is smaller may count as zero
    np.testing.assert_array_equal(result[np.isinf(rounded)], rounded[np.isinf(rounded)])
    slack = 1.5e-11 if name in ("sin", "cos", "tan") else 0  # near their zeros the error is absolute
    off = np.abs(result[normal_size] - exact[normal_size]) - slack
    units = off / np.spacing(np.abs(rounded[normal_size]))
    assert units.max() <= 6
    zero = exact == 0
    np.testing.assert_array_equal(np.signbit(result[zero]), np.signbit(exact[zero]))


def test_powers_over_their_whole_range():
    rng = np.random.default_rng(1)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 2.5, -1.5], np.float32)
    a, b = (part.ravel() for part in np.meshgrid(special, special))
    base = (2.0 ** rng.uniform(-20, 20, 4000)).astype(np.float32)
    exponent = (rng.uniform(-120, 120, 4000) / np.maximum(np.abs(np.log2(base)), 1)).astype(np.float32)
    a, b = np.concatenate([a, base]), np.concatenate([b, exponent])
    result = evaluate("a**b", a=a, b=b)
    with np.errstate(all="ignore"):
        exact = a.astype(np.longdouble) ** b.astype(np.longdouble)
        expected = a**b
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    signed = np.flatnonzero(~np.isnan(expected))
    np.testing.assert_array_equal(np.signbit(result[signed]), np.signbit(expected[signed]))
    some = np.isfinite(expected) & (np.abs(exact) > 1.2e-38)
    np.testing.assert_allclose(result[some], exact[some].astype(np.float64), rtol=1e-6)
    np.testing.assert_array_equal(result[np.isinf(expected)], expected[np.isinf(expected)])


@pytest.mark.parametrize("name", ["log", "log1p"])
def test_complex_logarithms_near_one_keep_their_digits(name):
    size = 2.0 ** np.arange(-20, 0.0)
    turn = np.exp(1j * np.linspace(0, 6, 7))[:, None]
    x = ((size * turn).ravel() + (1 if name == "log" else 0)).astype(np.complex64)
    x = x[x != 1]
    result = evaluate(f"{name}(x)", x=x)
    exact = np.log1p(x.astype(np.clongdouble) - (1 if name == "log" else 0))
    assert (np.abs(result - exact) / np.abs(exact)).max() < 1e-6


@pytest.mark.parametrize("text", ["a % b", "a // b"])
def test_remainders_are_exact(text):
    rng = np.random.default_rng(2)
    a, b = ((2.0 ** rng.uniform(-30, 30, 3000) * rng.choice([-1, 1], 3000)).astype(np.float32) for _ in range(2))
    a[:40], b[:40] = np.repeat(np.arange(-4, 4), 5), np.tile([1, -1, 3, 0.5, -0.25], 8)
    result = evaluate(text, a=a, b=b)
    exact = np.remainder(a, b) if text == "a % b" else np.floor_divide(a, b)
    near = np.abs(np.float64(a) / b) < 2**23  # beyond it a quotient has no fraction to be floor of
    np.testing.assert_array_equal(result[near], exact[near])


# Whole numbers, truth values, halves


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_whole_numbers_wrap_as_numpy_s(dtype):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(3)
    edge = np.array([limits.min, limits.min + 1, 0, 1, 2, limits.max - 1, limits.max], dtype)
    a, b = (part.ravel() for part in np.meshgrid(edge, edge))
    a = np.concatenate([a, rng.integers(limits.min, limits.max, 400, dtype, endpoint=True)])
    b = np.concatenate([b, rng.integers(limits.min, limits.max, 400, dtype, endpoint=True)])
    with np.errstate(all="ignore"):
        expected = {
            "a + b": a + b, "a - b": a - b, "a * b": a * b, "a // b": a // b, "a % b": a % b, "-a": -a,
            "abs(a)": np.abs(a), "maximum(a, b)": np.maximum(a, b), "minimum(a, b)": np.minimum(a, b),
            "a < b": a < b, "a >= b": a >= b, "sign(a)": np.sign(a), "where(a > b, a, b) + 1": np.maximum(a, b) + 1,
            "square(a)": a * a,
        }  # fmt: skip
    for text, exact in expected.items():
        result = evaluate(text, **({"a": a, "b": b} if "b" in text.replace("abs", "") else {"a": a}))
        assert result.dtype == exact.dtype
        np.testing.assert_array_equal(result, exact, err_msg=text)


def test_truth_values():
    a, b = (np.random.default_rng(s).random(77) < 0.5 for s in (0, 1))
    for text, exact in (
        ("a + b", a | b), ("a * b", a & b), ("logical_xor(a, b)", a ^ b), ("a == b", a == b), ("a < b", a < b),
    ):  # fmt: skip
        np.testing.assert_array_equal(evaluate(text, a=a, b=b), exact, err_msg=text)


def test_numbers_are_true_where_they_are_not_zero():
    x = normal(9)
    for text, exact in (("where(0.3, x, -x)", x), ("where(0.0, x, -x)", -x), ("logical_and(x, 0.3)", x != 0)):
        np.testing.assert_array_equal(evaluate(text, x=x), exact, err_msg=text)


def test_every_half_is_read_and_written():
    bits = np.arange(65536, dtype=np.uint16)
    x = bits.view(np.float16)
    result = evaluate("x * one", x=x, one=np.ones(1, np.float16))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(x))
    np.testing.assert_array_equal(result[~np.isnan(x)].view(np.uint16), bits[~np.isnan(x)])


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-7])
def test_halves_are_rounded_once(scale):
    a, b = (normal(5000, seed=s) * np.float32(scale) for s in (0, 1))
    a, b = a.astype(np.float16), b.astype(np.float16)
    with np.errstate(all="ignore"):
        expected = (a.astype(np.float32) * b.astype(np.float32) + a).astype(np.float16)
    np.testing.assert_array_equal(evaluate("a*b + a", a=a, b=b), expected)
    torch = pytest.importorskip("torch")
    x, y = (torch.from_numpy(v.astype(np.float32)).bfloat16() for v in (a, b))
    assert torch.equal(evaluate("a*b + a", a=x, b=y), (x.float() * y.float() + x.float()).bfloat16())


# Layouts: each way of reading, for each way of storing


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.float16, np.int8, np.int16])
@pytest.mark.parametrize(
    "shapes",
    [((5, 7), (5, 7)), ((5, 8), (1, 8)), ((6, 1), (1, 8)), ((3, 1, 5), (2, 1)), ((2, 3, 4, 5), (3, 1, 5)),
     ((2, 1, 3, 1, 2, 3), (1, 2, 1, 2, 1, 1)), ((4, 3), ()), ((1, 1), (1,))],
)  # fmt: skip
def test_operands_are_repeated(shapes, dtype):
    a, b = (normal(*shape, seed=s, dtype=np.complex64) * 4 for s, shape in enumerate(shapes))
    a, b = (np.asarray(x if dtype is np.complex64 else x.real).astype(dtype) for x in (a, b))
    result = evaluate("a - b", a=a, b=b)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, a - b)


def test_axes_that_alternate_too_often_are_refused():
    shape = (2,) * 8
    with pytest.raises(NoKernelError, match="8 groups of axes, the shader has 6"):
        evaluate("a + b", a=np.ones([n if i % 2 else 1 for i, n in enumerate(shape)], np.float32),
                 b=np.ones(shape, np.float32))  # fmt: skip


# Long programs


def long_expression(terms):
    parts = [f"sin(a*{0.1 * k + 0.3:.1f})*exp(b*{0.05 * k - 0.4:.2f})" for k in range(terms)]
    return " + ".join(parts)


@pytest.mark.parametrize("shape", [(1001,), (3, 8)])
def test_a_long_expression_takes_several_dispatches(shape):
    a, b = normal(*shape), normal(*shape[-1:], seed=1)
    text = long_expression(9)
    assert len(steps_of(text, a=a, b=b)) > 1
    results = []
    for on in (False, True, False):
        with strict(on):
            results.append(evaluate(text, a=a, b=b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    exact = sum(np.sin(x * (0.1 * k + 0.3)) * np.exp(y * (0.05 * k - 0.4)) for k in range(9))
    assert np.linalg.norm(results[0] - exact) <= 1e-6 * np.linalg.norm(exact)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_many_operands_are_read_in_turns():
    arrays = {f"x{k}": normal(50, seed=k) for k in range(20)}
    result = evaluate(" + ".join(f"{name}*{name}" for name in arrays), **arrays)
    exact = sum(x.astype(np.float64) ** 2 for x in arrays.values())
    assert np.linalg.norm(result - exact) <= 1e-6 * np.linalg.norm(exact)


def test_an_expression_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(elementwise_schedule, "MOST_DISPATCHES", 1)
    room._scheduled.cache_clear()
    elementwise_schedule.schedule.cache_clear()
    with pytest.raises(NoKernelError, match="steps, more than 1 dispatches hold"):
        evaluate(long_expression(11), a=normal(5), b=normal(5))


@pytest.mark.parametrize(
    ("text", "arrays", "reason"),
    [
        ("a + b", {"a": np.ones(2), "b": np.ones(2)}, "float32; float64 values need another device"),
        ("a + 1", {"a": np.ones(2, np.int64)}, "no 64-bit integers"),
        ("a + b", {"a": np.ones(2, np.float32), "b": np.ones(2, np.int32)}, "float64"),
        ("a ** b", {"a": np.ones(2, np.int32), "b": np.ones(2, np.int32)}, "exponent that may be negative"),
    ],
)
def test_refusals_say_why(text, arrays, reason):
    with pytest.raises(NoKernelError, match=reason):
        evaluate(text, **arrays)


# Numbers and zeros that compare equal


def test_zeros_of_either_sign_are_different_programs():
    x = np.array([1.0, -1.0], np.float32)
    for zero in ("0.0", "-0.0", "0.0"):
        result = evaluate(f"where(x > 0, {zero}, x)", x=x)
        assert np.signbit(result[0]) == zero.startswith("-")


@pytest.mark.parametrize(
    "text", ["0.0/x", "x/0.0", "x*0.0", "x - x", "x == x", "x/x", "x - -0.0", "x + 0.0", "0.0 - x"]
)
def test_nothing_is_taken_for_granted_of_zeros_and_nan(text):
    x = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.0])
    zero, minus = np.float32(0), np.float32(-0.0)
    with np.errstate(all="ignore"):
        exact = {
            "0.0/x": zero / x, "x/0.0": x / zero, "x*0.0": x * zero, "x - x": x - x, "x == x": x == x, "x/x": x / x,
            "x - -0.0": x - minus, "x + 0.0": x + zero, "0.0 - x": zero - x,
        }[text]  # fmt: skip
    result = evaluate(text, x=x)
    np.testing.assert_array_equal(result, exact)
    signed = ~np.isnan(exact)
    np.testing.assert_array_equal(np.signbit(result[signed] * 1.0), np.signbit(exact[signed] * 1.0))


def test_quotients_keep_the_sign_of_zero():
    a, b = (part.ravel() for part in np.meshgrid(np.float32([0.0, -0.0]), np.float32([1, -1, 3, np.inf, -np.inf])))
    np.testing.assert_array_equal(np.signbit(evaluate("a / b", a=a, b=b)), np.signbit(a / b))


def test_numbers_do_not_make_new_programs():
    x = normal(300)
    owner = runtime(DEVICE)
    with ac.using(device=DEVICE):
        ac.multiply(x, 1.5)
        before = owner.counts.recorded
        for factor in (2.5, -0.5, 1e300, np.nan):
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(ac.multiply(x, factor), x * np.float32(factor))
        np.testing.assert_array_equal(ac.add(x.astype(np.complex64), 2 - 1j), x + np.complex64(2 - 1j))
    assert owner.counts.recorded == before + 1


def test_a_number_goes_up_with_the_call():
    x = upload(normal(300), DEVICE)
    owner = runtime(DEVICE)
    host = download(x)
    results = [ac.multiply(x, 0.5)]
    submits, recorded = owner.counts.submits, owner.counts.recorded
    for factor in (1.5, -2.5, 7.0, 1.5):
        del results[:]  # so that the result's memory is the same again
        results.append(ac.multiply(x, factor))
        assert owner.counts.submits == submits + 1
        np.testing.assert_array_equal(download(results[0]), host * np.float32(factor))
        submits = owner.counts.submits
    assert owner.counts.recorded == recorded
    zero = np.array(2.5, np.float32)  # an array without axes
    np.testing.assert_array_equal(download(ac.add(x, zero)), host + zero)


# Arrays on the device


def moved():
    return {way: direction.count for way, direction in counters.directions.items()}


def test_a_chain_on_the_device_moves_nothing():
    a, b = upload(normal(3, 40), DEVICE), upload(normal(40, seed=1), DEVICE)
    counted = moved()
    result = ac.evaluate("a*b + sin(a)", a=a, b=b) * 2.5 - a
    result = abs(result) + ac.where(a > b, a, 1.5)
    assert moved() == counted
    x, y = download(a).astype(np.float64), download(b).astype(np.float64)
    exact = np.abs((x * y + np.sin(x)) * 2.5 - x) + np.where(x > y, x, 1.5)
    assert np.linalg.norm(download(result) - exact) <= 1e-6 * np.linalg.norm(exact)


def test_one_submission_a_call():
    a = normal(500)
    evaluate("a*a + 1", a=a)
    owner = runtime(DEVICE)
    before = owner.counts.submits
    evaluate("a*a + 1", a=a)
    assert owner.counts.submits == before + 1


def test_known_memory_is_taken_again_whatever_else_is_free():
    """Pipelines belong to memory: a call that could take what it was recorded on must not build another one."""
    x = upload(normal(5000), DEVICE)
    owner = runtime(DEVICE)
    first = ac.multiply(x, x)
    kept = [ac.add(first, x) for _ in range(3)]
    del first
    ac.multiply(x, x)
    before = owner.counts.recorded
    for _ in range(3):
        kept.pop()  # its memory is the first that is free now
        ac.multiply(x, x)
    assert owner.counts.recorded == before


def test_an_array_beyond_the_largest_buffer_is_cut(monkeypatch):
    kernel = room.ElementwiseKernel(DEVICE)
    small = dataclasses.replace(kernel.limits, buffer=1 << 12)
    monkeypatch.setattr(room.ElementwiseKernel, "limits", small)
    a, b, c = normal(1, 70, 33), normal(33, seed=1), normal(70, 1, seed=2)
    asked = request("a*b + sin(c)", a=a, b=b, c=c)
    assert kernel.too_large(asked) is not None
    assert kernel.supports(asked) is True
    plan = kernel.plan(asked)
    exact = a.astype(np.float64) * b + np.sin(c.astype(np.float64))
    result = plan.through_host(a, b, c)
    assert np.linalg.norm(result - exact) <= 1e-6 * np.linalg.norm(exact)
    plan.close()
    wide = Operand((1 << 12,), "float32", "cpu", "numpy")
    one = dataclasses.replace(small, buffer=3)
    monkeypatch.setattr(room.ElementwiseKernel, "limits", one)
    assert "exceeds" in kernel.supports(Request(FAMILY, (wide,), parse("sin(a)", ("a",)), None, 1))


# The time model


def test_functions_cost_what_the_profile_says():
    def curve(seconds):
        return Curve([Measurement((float(k),), seconds * 2.0**k / 2**20, 0.01, 1e-8) for k in (10, 14, 20)])

    curves = {"two/float32": curve(1.0), "one/float32": curve(0.5), "sin/float32": curve(3.5)}

    def seconds(text):
        steps = program(parse(text, ("a", "b")), ("float32", "float32"))
        return estimated(steps, 1 << 20, 12.0 * (1 << 20), curves).seconds

    assert seconds("a + b") == pytest.approx(1.0, rel=0.02)
    assert seconds("sin(a) + b") == pytest.approx(2.0, rel=0.02)
    assert seconds("sin(a) + cos(b)") == pytest.approx(3.0, rel=0.02)
    assert estimated(program(parse("a", ("a",)), ("float32",)), 8, 8.0, {}) is None


# Lengths of axes, innermost first, and each operand's strides. NVIDIA's compiler (580.159.04) died of the first seven
# while the shader found places by chains of remainders, and not of the others.
LAYOUTS = [
    ((7, 2, 3, 7), ((1, 7, 14, 0), (0, 1, 0, 0), (1, 0, 0, 7))),
    ((6, 7, 5), ((1, 6, 0), (0, 0, 0), (1, 0, 6))),
    ((6, 6, 6), ((1, 6, 0), (0, 1, 6), (1, 0, 0))),
    ((3, 2, 6, 7), ((0, 0, 0, 0), (1, 0, 3, 18), (1, 3, 6, 0))),
    ((4, 6, 6), ((0, 1, 0), (1, 4, 0), (1, 4, 24))),
    ((7, 5, 6), ((1, 0, 7), (1, 0, 0), (1, 7, 0))),
    ((6, 6, 5), ((0, 0, 0), (0, 1, 6), (1, 6, 0))),
    ((7, 2, 8), ((0, 0, 0), (0, 1, 0), (1, 7, 14))),
    ((6, 3, 7), ((0, 0, 0), (1, 0, 6), (0, 1, 3))),
    ((6, 6, 6), ((0, 1, 0), (0, 1, 6), (1, 0, 0))),
    ((7, 7, 12), ((0, 1, 0), (0, 1, 0), (1, 7, 49))),
    ((8, 3, 2, 2, 3, 4), ((1, 8, 0, 24, 48, 0), (0, 1, 3, 0, 6, 18), (1, 0, 8, 0, 16, 0))),
]


@pytest.mark.parametrize(("lengths", "strides"), LAYOUTS)
def test_operands_that_repeat_blocks_of_axes(lengths, strides):
    shapes = [tuple(n if step else 1 for n, step in zip(lengths, own))[::-1] for own in strides]
    assert room._joined(lengths[::-1], tuple(shapes)) == room._Axes(lengths, strides)
    a, b, c = (normal(*shape, seed=seed) for seed, shape in enumerate(shapes))
    exact = a * b + np.sin(c.astype("f8")) * np.exp(-b.astype("f8")) - np.where(c > b, a, 2 * c)
    with ac.using("vulkan"):
        found = ac.evaluate("a*b + sin(c)*exp(-b) - where(c > b, a, 2*c)", a=a, b=b, c=c)
    assert np.linalg.norm(found - exact) <= 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize(("lengths", "strides"), LAYOUTS)
def test_places_come_from_quotients(lengths, strides):
    element = np.arange(np.prod(lengths))
    index = np.unravel_index(element, lengths, order="F")
    for own in strides:
        steps = room._of_quotients(own, lengths)
        assert all(0 <= step < 1 << 32 for step in steps)
        found = sum(element // passed * step for passed, step in zip(room._full(lengths), steps)) % (1 << 32)
        assert found.tolist() == sum(i * step for i, step in zip(index, own)).tolist()
