"""Expressions: what is accepted, what is refused, tracing, sharing, dtypes, blocks and the pool."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_compute as ac
from adaptive_compute.backends.cpu import blocks, pool
from adaptive_compute.core.errors import ArgumentError, ExpressionError, NoKernelError, ShapeError, UntraceableWarning
from adaptive_compute.core.expression import make, parse, reference, show, trace, variable
from adaptive_compute.core.program import program

A = np.array([0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("a + 1", lambda a: a + 1),
        ("-a * +a", lambda a: -a * +a),
        ("a ** 2 / 3 - 4 // 2 % 3", lambda a: a**2 / 3 - 4 // 2 % 3),
        ("a ** -2 ** 2", lambda a: a ** -(2**2)),
        ("a < 0.5", lambda a: a < 0.5),
        ("a == a", lambda a: a == np.array(a)),
        ("sin(a)", np.sin),
        ("where(a > 0.4, a, 2 * a)", lambda a: np.where(a > 0.4, a, 2 * a)),
        ("  a ", lambda a: a),
        ("arctan2(a, 2)", lambda a: np.arctan2(a, 2)),
        ("atan2(a, 2) + pow(a, 2)", lambda a: np.arctan2(a, 2) + a**2),
        ("maximum(a, pi) + e", lambda a: np.maximum(a, np.pi) + np.e),
        ("1e3 * a + 2j", lambda a: 1e3 * a + 2j),
        ("(\na\n+\na\n)", lambda a: a + a),
        ("abs(a) + round(a) + conj(a)", lambda a: np.abs(a) + np.round(a) + np.conj(a)),
    ],
)
def test_accepted_text_gives_what_numpy_gives(text, function):
    np.testing.assert_allclose(ac.evaluate(text, a=A), function(A), rtol=1e-14)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a.shape", "not allowed"),
        ("a[0]", "not allowed"),
        ("__import__('os')", "'__import__' is not allowed"),
        ("open(a)", "'open' is not allowed"),
        ("a if a else a", "not allowed"),
        ("[a]", "not allowed"),
        ("(a, a)", "not allowed"),
        ("lambda: a", "not allowed"),
        ("a and a", "not allowed"),
        ("not a", "not allowed"),
        ("a & 1", "not allowed"),
        ("~a", "not allowed"),
        ("'text'", "not allowed"),
        ("f'{a}'", "not allowed"),
        ("None", "not allowed"),
        ("True", "not allowed"),
        ("(a := 1)", "not allowed"),
        ("[x for x in a]", "not allowed"),
        ("a.__class__.__bases__", "not allowed"),
        ("a < 1 < 2", "chained"),
        ("b", "'b' is unknown"),
        ("sin", "is a function"),
        ("sin(a, a)", "takes 1"),
        ("sin(x=a)", "plain arguments"),
        ("sin(*a)", "plain arguments"),
        ("np.sin(a)", "not allowed"),
        ("a +", "not an expression"),
        ("", "not an expression"),
        ("a = 1", "not an expression"),
        ("import os", "not an expression"),
        ("a; a", "not an expression"),
        ("a\x00", "not an expression"),
        ("(" * 500 + "a" + ")" * 500, "not an expression|nested"),
        ("-" * 300 + "a", "nested"),
        ("+".join(["a"] * 5000), "nested"),
        ("a" * 30_000, "characters long"),
        ("sin(" * 150 + "a" + ")" * 150 + "+ +" * 150 + "a", "nested"),
        ("9" * 5000 + "*a", "not an expression|does not fit"),
    ],
)
def test_everything_else_is_refused(text, reason):
    with pytest.raises(ExpressionError, match=reason):
        ac.evaluate(text, a=A)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab0123456789.+-*/%()<>=!, sinexpwhr_jJ\n'[]{}:", max_size=40))
def test_no_text_gets_past_the_parser(text):
    """Random text is either an expression of the arrays or a clear error; never anything else."""
    with contextlib.suppress(ExpressionError):
        assert parse(text, ("a", "b")).op


def test_names_of_arrays():
    with pytest.raises(ExpressionError, match="does not use the array b"):
        ac.evaluate("a", a=A, b=A)
    with pytest.raises(ExpressionError, match="no array"):
        ac.evaluate("1 + 2")
    with pytest.raises(ArgumentError, match="expression must be a str"):
        ac.evaluate(3, a=A)
    np.testing.assert_array_equal(ac.evaluate("e + 0", e=A), A)  # an array goes before the constant of its name


def test_parsing_is_cached_and_constants_are_folded():
    assert parse("sin(a)*2", ("a",)) is parse("sin(a)*2", ("a",))
    assert parse("sin(a) * 2", ("a",)) is parse("sin(a)*2", ("a",))  # equal expressions are one object
    assert show(parse("a * (2 ** 3 + 1)", ("a",))) == "(x0 * 9)"
    assert show(parse("a + 5//0", ("a",))) == "(x0 + 0)"  # NumPy's, of integers
    assert parse("9**9**9**9 * a", ("a",)) is not None  # without computing a number of a billion digits
    assert parse("a + 1", ("a",)) is not parse("a + 1.0", ("a",))
    assert parse("a + 0.0", ("a",)) is not parse("a + (-0.0)", ("a",))


def test_equal_parts_are_computed_once():
    steps = program(parse("sin(a) + sin(a)*sin(a)", ("a",)), ("float32",))
    assert [value.op for value in steps.values].count("sin") == 1


def test_an_expression_that_doubles_in_size_stays_small():
    root = variable(0)
    for _ in range(60):
        root = make("add", root, root)
    assert len(program(root, ("float64",)).values) == 61
    assert "..." in repr(root)


@pytest.mark.parametrize(
    ("text", "dtypes", "result"),
    [
        ("a + 1.5", ("float32",), "float32"), ("a + 1j", ("float32",), "complex64"), ("a * 2", ("int8",), "int8"),
        ("a * 2.0", ("int8",), "float64"), ("sin(a)", ("int8",), "float16"), ("a / a", ("int8",), "float64"),
        ("a + b", ("float16", "bfloat16"), "float32"), ("a * 2.5", ("bfloat16",), "bfloat16"),
        ("a + b", ("bfloat16", "int32"), "float64"), ("a > b", ("bfloat16", "int32"), "bool"),
        ("where(a, b, 1)", ("float32", "bool"), "int64"), ("abs(a)", ("complex64",), "float32"),
        ("a**2.0", ("int32",), "float64"), ("floor(a)", ("int32",), "int32"), ("10**20 * a", ("float32",), "float32"),
    ],
)  # fmt: skip
def test_dtypes(text, dtypes, result):
    if np.lib.NumpyVersion(np.__version__) < "2.1.0" and text == "floor(a)":
        pytest.skip("NumPy before 2.1 gives floating point")
    assert program(parse(text, ("a", "b")[: len(dtypes)]), dtypes).dtype == result


def test_gradient_of_a_tensor_with_a_numpy_operand():
    torch = pytest.importorskip("torch")
    t = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    ac.evaluate("a*b", a=t, b=np.array([3.0, 4.0])).sum().backward()
    assert t.grad.tolist() == [3, 4]


def test_reference_is_wider_than_the_operands():
    value = reference(parse("exp(a)", ("a",)), [np.float64(1)])
    assert value.dtype == np.longdouble
    np.testing.assert_allclose(float(value), 2.718281828459045, rtol=1e-15)


# Tracing


def test_a_traced_function_is_the_same_expression():
    def function(x, y):
        return ac.where(x > 0.4, 2 / (1 + x**2), -abs(y)) // 0.1 + np.sin(y) - ac.gelu(x) % 2

    text = "where(a > 0.4, 2/(1 + a**2), -abs(b)) // 0.1 + sin(b) - gelu(a) % 2"
    assert trace(function, 2) is parse(text, ("a", "b"))
    np.testing.assert_array_equal(ac.elementwise(function)(A, 2.0), ac.evaluate(text, a=A, b=2.0))


def test_a_loop_of_known_length_is_traced():
    @ac.elementwise
    def horner(x):
        total = 0.0
        for coefficient in (3, 2, 1):
            total = total * x + coefficient
        return total

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(horner(A), 3 * A**2 + 2 * A + 1)
    assert horner.__name__ == "horner"
    with pytest.raises(ShapeError, match="argument 1"):
        ac.elementwise(lambda x, y: x + y)(np.ones(2), np.ones(3))


def test_mapped_functions_call_each_other():
    double = ac.elementwise(lambda x: 2 * x)
    np.testing.assert_array_equal(ac.elementwise(lambda x: double(x) + 1)(A), 2 * A + 1)


def test_a_function_of_torch_runs_under_vmap_and_says_so_once():
    torch = pytest.importorskip("torch")

    @ac.elementwise
    def function(x, y):
        return torch.special.i0(x) + y

    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(UntraceableWarning, match=r"function cannot be traced .*torch.vmap"):
        result = function(x, torch.ones(3, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = function(x.detach().numpy(), np.ones(3))
    torch.testing.assert_close(result.detach(), torch.special.i0(x.detach()) + torch.ones(3, dtype=torch.float64))
    assert isinstance(again, np.ndarray)
    np.testing.assert_array_equal(again, result.detach().numpy())
    result.sum().backward()
    torch.testing.assert_close(x.grad, 3 * torch.special.i1(x.detach()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert function(np.ones((0, 3)), np.ones(3)).shape == (0, 3)


def test_a_branch_on_a_value_gives_both_reasons():
    pytest.importorskip("torch")

    @ac.elementwise
    def function(x):
        return x if x > 0 else -x

    with (
        pytest.warns(UntraceableWarning),
        pytest.raises(ExpressionError, match=r"neither traced \(a branch depends.*vmap"),
    ):
        function(A)


def test_functions_that_are_no_expression():
    with pytest.raises(ArgumentError, match="takes a function"):
        ac.elementwise(3)
    with pytest.raises(ArgumentError, match="at least one array"):
        ac.elementwise(lambda: 1)()


# Blocks


@pytest.mark.parametrize(
    ("text", "temporaries"),
    [("a*b + sin(a)*exp(-b)", 1), ("a + b", 0), ("sin(exp(a + b))", 0), ("(a + b)*(a - b)", 1), ("(a+b > 1) + a", 1)],
)
def test_temporaries_are_few_and_the_result_is_used_as_one(text, temporaries):
    steps = program(parse(text, ("a", "b")), ("float32", "float32"))
    (stage,) = blocks.stages(steps, [(1000,), (1000,)], False, {})
    assert len([dtype for dtype in stage.temporaries if dtype == "float32"]) <= temporaries
    assert stage.steps[-1].out == len(stage.inputs)


def test_what_depends_on_small_operands_is_computed_once():
    steps = program(parse("exp(sin(a)) * b", ("a", "b")), ("float32", "float32"))
    small, large = blocks.stages(steps, [(1, 50), (1000, 50)], False, {})
    assert small.shape == (1, 50)
    assert [step.op for step in small.steps] == ["sin", "exp"]
    assert [step.op for step in large.steps] == ["multiply"]


def test_sums_of_products_are_one_step_where_the_library_has_it():
    steps = program(parse("a*b + sin(a)*exp(-b)", ("a", "b")), ("float32", "float32"))
    (stage,) = blocks.stages(steps, [(10,), (10,)], True, {})
    assert [step.op for step in stage.steps] == ["sin", "negative", "exp", "multiply", "add_product"]


def test_blocks_fit_the_cache():
    steps = program(parse("sin(a)*exp(b)", ("a", "b")), ("float64", "float64"))
    (stage,) = blocks.stages(steps, [(1 << 22,)] * 2, False, {})
    bound = blocks.BoundStage(stage, blocks_library(), 1)
    assert bound.block == blocks.SMALLEST_BLOCK or bound.block * stage.width <= pool.cache_bytes()


def blocks_library():
    from adaptive_compute.backends.cpu.elementwise import NUMPY

    return NUMPY


# The pool


def test_memory_returns_when_the_last_view_goes():
    memory = pool.MemoryPool(1 << 24)
    first = memory.empty((1 << 18,), "float32")
    address = first.__array_interface__["data"][0]
    view = first[10:]
    del first
    gc.collect()
    assert memory.idle_bytes == 0
    del view
    gc.collect()
    assert memory.idle_bytes == 1 << 20
    again = memory.empty((1 << 10, 1 << 8), "float32")
    assert again.__array_interface__["data"][0] == address
    assert again.flags.writeable
    assert again.flags.c_contiguous
    assert memory.idle_bytes == 0


def test_idle_memory_is_bounded():
    memory = pool.MemoryPool(3 << 20)
    arrays = [memory.empty((1 << 20,), np.uint8) for _ in range(6)]
    del arrays
    gc.collect()
    assert memory.idle_bytes == 3 << 20
    memory.empty((8 << 20,), np.uint8)
    gc.collect()
    assert memory.idle_bytes == 3 << 20  # larger than the limit: not kept
    memory.clear()
    assert memory.idle_bytes == 0


def test_the_pool_under_threads():
    memory = pool.MemoryPool(1 << 22)
    wrong = []

    def work(value):
        for _ in range(200):
            array = memory.empty((1 << 18,), np.uint8)
            array[::4096] = value
            if not (array[::4096] == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(v,)) for v in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 <= memory.idle_bytes <= 1 << 22


def test_workers_pass_an_error_on_and_go_on():
    def broken(number, own):
        if number == 3:
            raise ValueError("part 3")

    with pytest.raises(ValueError, match="part 3"):
        pool.share(8, broken, lambda: None, 2, torch=False)
    done = []
    pool.share(8, lambda number, own: done.append(number), lambda: None, 3, torch=False)
    assert sorted(done) == list(range(8))


def test_an_unknown_kernel_is_named():
    with ac.using(kernel="abacus"), pytest.raises(NoKernelError, match="no kernel 'abacus'"):
        ac.sin(A)


# The time model


def curves_of(kernel, seconds):
    """Return the curves that a profile would hold if a sample took ``seconds(name, size)``."""
    from adaptive_compute.core.curve import Curve, Measurement
    from adaptive_compute.core.operations.elementwise import FAMILY

    points: dict[str, list[Measurement]] = {}
    for request in FAMILY.samples(quick=True):
        features = kernel.features(request)
        name = features.name.partition("/")[0]
        points.setdefault(features.name, []).append(
            Measurement(features.at, seconds(name, request.first.size), 0.01, 4e-8)
        )
    return {name: Curve(measured) for name, measured in points.items()}


def test_the_time_of_an_expression_is_the_sum_of_its_steps():
    from adaptive_compute.core.operations.elementwise import FAMILY
    from adaptive_compute.core.registry import registry

    (kernel,) = (k for k in registry.kernels("elementwise") if k.name == "numpy-blocked")
    call, memory, cheap, costs = 5e-6, 1e-9, 0.2e-9, {"sin": 1e-9, "exp": 0.5e-9, "divide": 0.3e-9, "tanh": 2e-9}

    def seconds(name, size):
        steps = {"one": cheap, "two": cheap + 0.5e-9, "hidden": costs["sin"], "multiply": 8 * cheap}
        if name == "add_product":
            return call + (memory + 0.5e-9 + 24 * cheap) * size
        if name in costs:
            return call + (memory + (0.5e-9 if name == "divide" else 0) + 3 * costs[name] + 5 * cheap) * size
        return call + (memory + steps.get(name, 30 * cheap)) * size

    curves = curves_of(kernel, seconds)
    for size in (100, 3000, 100_000, 3_000_000):
        request = FAMILY.example((size,), "float32")
        found = kernel.estimate(request, curves)
        exact = call + (memory + 0.5e-9 + costs["sin"] + costs["exp"] + 4 * cheap) * size
        assert abs(found.seconds / exact - 1) < 0.15
        assert found.error == 4e-8
        assert found.extrapolated == (size > 1 << 21)
    double = kernel.estimate(FAMILY.example((100_000,), "float64"), curves)
    assert double.seconds > 1.5 * kernel.estimate(FAMILY.example((100_000,), "float32"), curves).seconds
    assert double.error is None  # what float32's error was says nothing about float64's
    assert kernel.estimate(FAMILY.example((100,), "float64"), {}) is None


def test_one_size_of_a_step_tells_what_it_costs_at_others():
    from adaptive_compute.core.curve import Curve
    from adaptive_compute.core.operations.elementwise import FAMILY
    from adaptive_compute.core.registry import registry

    (kernel,) = (k for k in registry.kernels("elementwise") if k.name == "numpy-blocked")

    def seconds(name, size):
        steps = {"one": 0.2e-9, "two": 0.7e-9, "multiply": 1.6e-9, "sin": 4e-9, "exp": 4e-9}
        return 5e-6 + (1e-9 + steps.get(name, 6e-9)) * size

    full = curves_of(kernel, seconds)
    basic = ("one", "two", "hidden", "multiply", "add_product")
    few = {n: c if n.partition("/")[0] in basic else Curve(c.points[1:2]) for n, c in full.items()}
    for size in (3000, 100_000, 1_000_000):
        request = FAMILY.example((size,), "float32")
        assert kernel.estimate(request, few).seconds == pytest.approx(kernel.estimate(request, full).seconds, rel=0.15)
