"""Accuracy as a criterion: ``tol`` on every call, refusals that name the best, lower precision where it will do."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.array import Operand
from adaptive_compute.core.curve import Estimate
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import ArgumentError, NoKernelError, PrecisionWarning, ToleranceError
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations import operations
from adaptive_compute.core.operations.elementwise_rule import operand_count, sample_classes
from tests.profiles import Took, made_up

FUNCTIONS = [
    name
    for name in ac.__all__
    if name != "elementwise"  # a decorator: what it makes takes tol
    and inspect.isfunction(function := getattr(ac, name))
    and ".operations." in function.__module__
]
FLOAT32, BFLOAT16 = 4e-7, 3e-3  # about what kernels are off by in these
SLOW, FAST = 1e-2, 1e-3


@pytest.fixture(autouse=True)
def plain():
    yield
    dispatcher.use_profile(None)


def request_of(function, *args, **kwargs):
    return ac.explain(function, *args, **kwargs).request


def quick_in_float32(request):
    """Use a profile in which every kernel is ten times faster in float32, and rounding costs nothing."""
    loose = Request(request.operation, request.operands, request.params, 0.5, request.threads)
    rows = []
    if request.operation.name != "elementwise":
        rows.append(Took(loose, SLOW, 2e-15))
        for step, narrow in enumerate(loose.operation.narrowed(loose)):
            rows.append(Took(narrow.request, FAST / (step + 1), BFLOAT16 if narrow.dtype == "bfloat16" else FLOAT32))
    family = operations()["elementwise"]
    for root in sample_classes():
        for dtype, rate in (("float32", 1e-13), ("float64", 1e-8)):
            for size in (1, 1 << 24):
                operands = (Operand((size,), dtype, "cpu", "numpy"),) * operand_count(root)
                sample = Request(family, operands, root, None, 2)
                rows.append(Took(sample, rate * family.work(sample).flops, FLOAT32 if dtype == "float32" else 1e-16))
    dispatcher.use_profile(made_up(rows))


def off(result, exact):
    return float(np.linalg.norm(np.asarray(result) - exact) / np.linalg.norm(exact))


# tol on every call


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_tol_by_name_only(name):
    function = getattr(ac, name)
    parameter = inspect.signature(function).parameters["tol"]
    assert parameter.kind is parameter.KEYWORD_ONLY
    assert parameter.default is None
    assert "tol" in function.__doc__


CALLS = {
    "fft": lambda **k: ac.fft(np.ones(8), **k),
    "irfft2": lambda **k: ac.irfft2(np.ones((8, 5)), **k),
    "exp": lambda **k: ac.exp(np.ones(8), **k),
    "add": lambda **k: ac.add(np.ones(8), np.ones(8), **k),
    "where": lambda **k: ac.where(np.ones(8, bool), np.ones(8), np.zeros(8), **k),
    "clip": lambda **k: ac.clip(np.ones(8), 0.0, 1.0, **k),
    "evaluate": lambda **k: ac.evaluate("a * 2", a=np.ones(8), **k),
    "elementwise": lambda **k: ac.elementwise(lambda a: a * 2)(np.ones(8), **k),
    "sum": lambda **k: ac.sum(np.ones(8), **k),
    "logsumexp": lambda **k: ac.logsumexp(np.ones(8), **k),
    "scatter_add": lambda **k: ac.scatter_add(np.ones(3), np.array([0, 1, 0]), 2, **k),
    "segment_sum": lambda **k: ac.segment_sum(np.ones(3), np.array([0, 1, 0]), 2, **k),
    "attention": lambda **k: ac.attention(*[np.ones((2, 4, 8))] * 3, **k),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_tol_that_is_none_is_named_and_one_that_is_met_changes_nothing(name):
    call = CALLS[name]
    for bad in (0, -1e-3, np.nan, np.inf, "tight", True):
        with pytest.raises(ArgumentError, match="tol must be a positive"):
            call(tol=bad)
    np.testing.assert_array_equal(call(tol=1e-3), call())
    with ac.using(tol=1e-3):
        np.testing.assert_array_equal(call(), call(tol=1e-3))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("where", "clip")])
def test_a_tol_that_nothing_was_measured_for_is_refused_with_what_all_kernels_keep(name):
    dispatcher.use_profile(made_up([]))
    with pytest.raises(ToleranceError, match=r"not measured.*`adaptive profile`"):
        CALLS[name](tol=1e-30)
    with ac.using(tol=1e-30), pytest.raises(ToleranceError, match="not measured"):
        CALLS[name]()


def test_a_refusal_names_the_best_that_there_is_and_the_others():
    x = np.arange(64) + 0j
    request = request_of(ac.fft, x)
    dispatcher.use_profile(
        made_up([Took(request, 1e-5, 3e-16, ("pocketfft",)), Took(request, 1e-6, 1e-12, ("torch",))])
    )
    with pytest.raises(ToleranceError, match=r"tol=1.0e-17.*most exact is pocketfft on cpu.*3.0e-16.*torch.*1.0e-12"):
        ac.fft(x, tol=1e-17)
    assert issubclass(ToleranceError, NoKernelError)
    assert ac.explain(ac.fft, x, tol=1e-9).chosen.name == "torch"
    tight = ac.explain(ac.fft, x, tol=1e-14)
    assert tight.chosen.name == "pocketfft"
    assert [c.name for c in tight.inexact] == ["torch"]


def test_the_pareto_list_holds_what_nothing_beats_in_both():
    x = np.arange(64) + 0j
    request = request_of(ac.fft, x)
    dispatcher.use_profile(
        made_up([Took(request, 5e-6, 3e-16, ("pocketfft",)), Took(request, 1e-6, 1e-12, ("torch",))])
    )
    decision = ac.explain(ac.fft, x, tol=1e-3)
    assert [c.name for c in decision.pareto] == ["torch", "pocketfft"]
    on_host = [c for c in decision.as_dict()["candidates"] if c["device"] == "cpu"]
    assert {c["kernel"]: c["pareto"] for c in on_host} == {"torch": True, "pocketfft": True}
    dispatcher.use_profile(
        made_up([Took(request, 1e-6, 3e-16, ("pocketfft",)), Took(request, 5e-6, 1e-12, ("torch",))])
    )
    decision = ac.explain(ac.fft, x, tol=1e-3)
    assert [c.name for c in decision.pareto] == ["pocketfft"]
    assert str(decision).count("Pareto") == 1


# NUFFT: eps


def test_eps_is_the_tolerance_of_a_nufft_and_a_tol_around_it_tightens_it():
    rng = np.random.default_rng(0)
    x, c = rng.uniform(-3, 3, 200), rng.standard_normal(200) + 0j
    exact = np.exp(1j * np.outer(np.arange(-16, 16), x)) @ c
    for tol in (1e-2, 1e-5, 1e-8, 1e-11):
        with ac.using(tol=tol):
            decision = ac.explain(ac.nufft.nufft1d1, x, c, 32, eps=1e-3)
            result = ac.nufft.nufft1d1(x, c, 32, eps=1e-3)
            planned = ac.nufft.Plan(1, (32,), eps=1e-3)
            planned.setpts(x)
            assert off(planned.execute(c), exact) <= tol
        assert decision.request.params.eps == min(1e-3, tol / 4)
        assert off(result, exact) <= tol
    assert request_of(ac.nufft.nufft1d1, x, c, 32, eps=1e-3).params.eps == 1e-3


# precision="adaptive"


def fft_case(rng, size):
    x = rng.standard_normal((3, size)) + 1j * rng.standard_normal((3, size))
    k = np.arange(size)
    turns = np.exp(-2j * np.pi * (np.outer(k, k) % size) / size)
    return ac.fft, (x,), {}, x @ turns


def rfft_case(rng, size):
    x = rng.standard_normal((size, 2))
    k = np.arange(size)
    turns = np.exp(-2j * np.pi * (np.outer(k[: size // 2 + 1], k) % size) / size)
    return ac.rfft, (x,), {"axis": 0}, turns @ x


def attention_case(rng, size):
    q, k, v = (rng.standard_normal((1, 2, size, 32)) for _ in range(3))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(32)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return ac.attention, (q, k, v), {}, weights / weights.sum(-1, keepdims=True) @ v


def expression_case(rng, size):
    a, b = rng.random(size), rng.random(size) + 0.5
    return ac.evaluate, ("exp(a) * sqrt(b) + a / b",), {"a": a, "b": b}, np.exp(a) * np.sqrt(b) + a / b


CASES = (fft_case, rfft_case, attention_case, expression_case)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [24, 120])
def test_a_result_is_as_exact_as_was_asked_and_as_fast_as_that_allows(case, size):
    function, args, kwargs, exact = case(np.random.default_rng(size), size)
    quick_in_float32(request_of(function, *args, **kwargs))
    found = {}
    for digits in range(1, 14):
        tol = 10.0**-digits
        with ac.using(precision="adaptive"):
            chosen = ac.explain(function, *args, **kwargs, tol=tol).chosen
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PrecisionWarning)
                result = function(*args, **kwargs, tol=tol)
        assert off(result, exact) <= tol
        assert np.asarray(result).dtype == exact.dtype
        found[digits] = chosen.narrow.dtype if chosen.narrow else "own"
        own = ac.explain(function, *args, **kwargs, tol=tol).chosen
        assert own.narrow is None  # never by default
    assert found[9] == "own"
    assert found[5] == "float32"
    if function is ac.attention:
        assert found[1] == "bfloat16"


@pytest.mark.parametrize(("nufft_type", "size"), [(1, 40), (2, 40), (1, 500), (2, 500)])
def test_a_nufft_in_float32_keeps_what_its_eps_promises(nufft_type, size):
    rng = np.random.default_rng(size)
    x = rng.uniform(-50, 50, 300)  # far outside one period: folded in float64
    waves = np.exp(1j * np.outer(np.arange(-(size // 2), (size + 1) // 2), x))
    if nufft_type == 1:
        data = rng.standard_normal(300) + 1j * rng.standard_normal(300)
        function, args, exact = ac.nufft.nufft1d1, (x, data, size), waves @ data
    else:
        data = rng.standard_normal(size) + 1j * rng.standard_normal(size)
        function, args, exact = ac.nufft.nufft1d2, (x, data), waves.conj().T @ data
    found = {}
    for digits in range(2, 13):
        eps = 10.0**-digits
        quick_in_float32(request_of(function, *args, eps=eps))
        with ac.using(precision="adaptive"):
            chosen = ac.explain(function, *args, eps=eps).chosen
            result = function(*args, eps=eps)
        found[digits] = chosen.narrow is not None
        assert off(result, exact) <= 4 * eps + 1e-15 * size
        assert result.dtype == np.complex128
    assert found[2]
    assert not found[6]


def test_what_rounding_would_spoil_runs_in_its_own_precision_and_says_so():
    rng = np.random.default_rng(5)
    cases = [
        (*fft_case(rng, 24)[:3], 1e200, 1e-4),
        (*fft_case(rng, 24)[:3], 1e-200, 1e-4),
        (*attention_case(rng, 48)[:3], 30.0, 3e-2),
    ]
    for function, args, kwargs, factor, tol in cases:
        args = tuple(array * factor for array in args)
        quick_in_float32(request_of(function, *args, **kwargs))
        own = function(*args, **kwargs)
        with ac.using(precision="adaptive"):
            assert ac.explain(function, *args, **kwargs, tol=tol).chosen.narrow is not None
            with pytest.warns(PrecisionWarning, match="on this data"):
                result = function(*args, **kwargs, tol=tol)
        np.testing.assert_array_equal(result, own)


@pytest.mark.parametrize(
    ("expression", "a", "b"),
    [
        ("a - b", np.linspace(1, 2, 1000), np.linspace(1, 2, 1000) + 1e-9),
        ("sin(a)", np.linspace(1e8, 2e8, 1000), None),
        ("exp(a)", np.linspace(100, 200, 1000), None),
        ("a * b", np.full(1000, 1e30), np.full(1000, 1e30)),
    ],
)
def test_an_expression_that_multiplies_rounding_is_found_out(expression, a, b):
    arrays = {"a": a} if b is None else {"a": a, "b": b}
    quick_in_float32(request_of(ac.evaluate, expression, **arrays))
    exact = eval(expression, {"sin": np.sin, "exp": np.exp}, arrays)
    with ac.using(precision="adaptive"):
        assert ac.explain(ac.evaluate, expression, **arrays, tol=1e-4).chosen.narrow is not None
        with pytest.warns(PrecisionWarning, match="on this data"):
            result = ac.evaluate(expression, **arrays, tol=1e-4)
    assert off(result, exact) < 1e-12


def test_what_is_not_finite_comes_back_as_it_is():
    x = np.array([1.0, np.nan, 2.0, np.inf] * 8) + 0j
    quick_in_float32(request_of(ac.fft, x))
    own = ac.fft(x)
    with ac.using(precision="adaptive"), pytest.warns(PrecisionWarning):
        np.testing.assert_array_equal(ac.fft(x, tol=1e-3), own)


def test_torch_tensors_keep_kind_dtype_and_gradient():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    x = torch.randn(4, 64, dtype=torch.float64, requires_grad=True)
    quick_in_float32(request_of(ac.fft, x.detach()))
    weights = torch.randn(4, 64, dtype=torch.float64)
    with ac.using(precision="adaptive", tol=1e-4):
        y = ac.fft(x)
        assert y.dtype is torch.complex128
        (y.real * weights).sum().backward()
    exact = torch.fft.fft(weights.to(torch.complex128)).real
    assert x.grad.dtype is torch.float64
    assert off(x.grad.numpy(), exact.numpy()) < 1e-4


def test_attention_takes_adaptive_as_its_own_argument():
    function, args, _, exact = attention_case(np.random.default_rng(0), 64)
    quick_in_float32(request_of(function, *args))
    decision = ac.explain(function, *args, precision="adaptive", tol=1e-4)
    assert decision.chosen.narrow.dtype == "float32"
    assert "in float32" in str(decision)
    result = function(*args, precision="adaptive", tol=1e-4)
    assert 1e-9 < off(result, exact) < 1e-4


def test_rounding_is_part_of_the_predicted_time():
    x = np.arange(4096.0) + 0j
    request = request_of(ac.fft, x)
    quick_in_float32(request)
    section = dispatcher.profile.sections["cpu"]
    with ac.using(precision="adaptive", tol=1e-4):
        free = ac.explain(ac.fft, x).chosen.compute_s
        for classes in section.kernels["elementwise"].values():
            for name, points in classes.items():
                if name.endswith("float32"):
                    classes[name] = [m._replace(seconds=m.seconds * 1e5) for m in points]
        dispatcher.use_profile(dispatcher.profile)
        dispatcher.profile._curves.clear()
        dear = ac.explain(ac.fft, x).chosen.compute_s
        assert dear == pytest.approx(free + 2e-4, rel=0.2)
        del section.kernels["elementwise"]
        dispatcher.profile._curves.clear()
        dispatcher.invalidate()
        assert ac.explain(ac.fft, x).chosen.narrow is None  # what rounding takes is not known


def test_a_lower_precision_must_be_clearly_ahead():
    x = np.arange(4096.0) + 0j
    request = request_of(ac.fft, x)
    quick_in_float32(request)
    classes = dispatcher.profile.sections["cpu"].kernels["fft"]
    for seconds, dtype in ((SLOW / 1.1, None), (SLOW / 1.5, "float32")):
        for kernel in classes.values():
            for name in kernel:
                if name.startswith("float32"):
                    kernel[name] = [m._replace(seconds=seconds) for m in kernel[name]]
        dispatcher.profile._curves.clear()
        dispatcher.invalidate()
        with ac.using(precision="adaptive", tol=1e-4):
            chosen = ac.explain(ac.fft, x).chosen
        assert (chosen.narrow and chosen.narrow.dtype) == dtype


def test_precision_names_what_is_accepted():
    with pytest.raises(ArgumentError, match="adaptive"):
        ac.using(precision="half")
    with pytest.raises(ArgumentError, match="adaptive"):
        ac.attention(*[np.ones((2, 4, 8))] * 3, precision="half")


def test_a_prediction_that_is_no_number_is_none(monkeypatch):
    kernel = next(k for k in dispatcher.registry.kernels("elementwise") if k.device == "cpu")
    x = np.ones(8)
    estimate = Estimate(float("nan"), 0.01, 1e-16, False)
    monkeypatch.setattr(type(kernel), "estimate", lambda self, request, curves: estimate)
    decision = ac.explain(ac.add, x, x)
    assert all(c.compute_s is None for c in decision.candidates if isinstance(c.kernel, type(kernel)))
