"""What can be recorded gives what it gives call by call; what cannot says where, once, and runs all the same."""

from __future__ import annotations

import random
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.errors import AdaptiveWarning, ArgumentError, UntraceableWarning
from adaptive_compute.pipelines.decorator import Pipeline

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 8)).astype(np.float32)
C = (RNG.standard_normal((6, 8)) + 1j * RNG.standard_normal((6, 8))).astype(np.complex64)
POINTS = RNG.uniform(-np.pi, np.pi, (2, 50)).astype(np.float32)


def convolve(x, k):
    return ac.irfft(ac.rfft(x) * ac.rfft(k), n=x.shape[-1])


def normal(modes):
    """E^H E with a density."""
    px, py = POINTS
    samples = ac.nufft.nufft2d2(px, py, modes, eps=1e-4)
    return ac.nufft.nufft2d1(px, py, samples * 0.5, modes.shape, eps=1e-4)


def attend(q, k, v):
    scores = ac.attention(q, k, v, mask=ac.Window(3))
    return ac.gelu(scores + q)


FUNCTIONS = {
    "convolve": (convolve, (X, X[::-1].copy())),
    "views": (lambda x: ac.fft(x.T[1:, ::2].reshape(-1, 3))[..., 0] * 2, (X,)),
    "numpy ufuncs": (lambda x: np.exp(-np.abs(x)) + np.sqrt(x * x), (X,)),
    "comparison": (lambda x: ac.where((x > 0) & ~(x > 1), x, 0.5), (X,)),
    "reduce": (lambda x: (x - x.mean(axis=1, keepdims=True)) / ac.norm(x), (X,)),
    "complex": (lambda c: c.conj() * c.real + 1j * c.imag, (C,)),
    "several outputs": (lambda x: {"a": (ac.fft(x), x + 1), "b": [x]}, (X,)),
    "several inputs": (lambda pair, scale=2.0: pair["x"] * scale - pair["rest"][0], ({"x": X, "rest": [X, 3]},)),
    "nufft": (normal, (C,)),
    "attention": (attend, (X[None], X[None] * 2, X[None] - 1)),
    "logsumexp and lse": (lambda q: ac.attention(q, q, q, return_lse=True), (X,)),
    "evaluate": (lambda a, b: ac.evaluate("a*b + sin(b)**2 - 0.5", a=a, b=b) / a, (X + 4, X)),
    "integers": (lambda x: x // 3 + x % 4 - x**2, (np.arange(12),)),
    "cast": (lambda x: ac.fft(x.astype(np.float64)), (X,)),
    "iteration": (lambda x: sum(row for row in x), (X,)),
    "several axes": (lambda x: ac.ifft2(ac.fft2(x) * ac.conj(ac.fft2(x))), (X,)),
    "nothing to transform": (lambda x: ac.fft2(x)[()] + 1, (X,)),
    "gather": (lambda x: ac.gather(x, INDEX) + 1, (X,)),
}
INDEX = ac.Topology.from_index(np.array([0, 2, 2]), 6)


def flattened(value):
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in flattened(part)]
    return [leaf for part in value for leaf in flattened(part)] if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_those_of_the_calls(name):
    function, arguments = FUNCTIONS[name]
    recorded = ac.pipeline(function)
    expected = function(*arguments)
    for _ in range(2):
        result = recorded(*arguments)
        assert type(result) is type(expected)
        assert len(flattened(result)) == len(flattened(expected))
        for a, b in zip(flattened(result), flattened(expected)):
            assert type(a) is type(b)
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert np.linalg.norm(a - b) <= 2e-6 * np.linalg.norm(b)
    assert recorded.explain(*arguments).reason is None


@pytest.mark.parametrize("name", ["convolve", "complex", "several outputs", "reduce", "attention", "views"])
def test_tensors_come_back_as_tensors(name):
    torch = pytest.importorskip("torch", reason="pip install torch to test its tensors")
    function, arguments = FUNCTIONS[name]
    if name == "reduce":
        function = lambda x: (x - ac.mean(x, axis=1, keepdims=True)) / ac.norm(x)  # noqa: E731
    if name == "views":
        function = lambda x: ac.fft(x.transpose(0, 1)[1:, ::2].reshape(-1, 3))[..., 0] * 2  # noqa: E731
    tensors = [torch.from_numpy(a) for a in arguments]
    recorded = ac.pipeline(function)
    expected, result = function(*tensors), recorded(*tensors)
    assert recorded.explain(*tensors).reason is None
    for a, b in zip(flattened(result), flattened(expected)):
        assert type(a) is torch.Tensor
        assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
        assert torch.linalg.norm(a - b) <= 2e-6 * torch.linalg.norm(b)


def test_gradients_flow_through_the_calls():
    torch = pytest.importorskip("torch", reason="pip install torch to test gradients")
    function = ac.pipeline(lambda x, k: (ac.irfft(ac.rfft(x) * k, n=8) ** 2).sum())
    k = torch.ones(5, dtype=torch.complex64)
    x = torch.from_numpy(X[0].copy()).requires_grad_()
    function(x, k).backward()
    assert torch.allclose(x.grad, 2 * x.detach(), atol=1e-5)
    assert "gradient" in function.explain(x, k).reason
    weight = torch.ones(8, requires_grad=True)
    scaled = ac.pipeline(lambda x: ac.multiply(ac.exp(x), weight))
    scaled(x.detach()).sum().backward()
    assert torch.allclose(weight.grad, torch.exp(x.detach()))
    held = types.SimpleNamespace(weight=torch.ones(8, requires_grad=True))  # where it is not looked for
    hidden = ac.pipeline(lambda x: ac.multiply(held.weight, ac.exp(x)))
    with pytest.warns(UntraceableWarning, match="requires a gradient"):
        hidden(x.detach()).sum().backward()
    assert torch.allclose(held.weight.grad, torch.exp(x.detach()))
    with torch.no_grad():
        assert torch.allclose(scaled(x), torch.exp(x))
        assert scaled.explain(x).reason is None


# What cannot be recorded


def branch(x):
    y = ac.exp(x)
    if ac.sum(y) > 0:  # the line that is told
        return y
    return -y


REFUSED = {
    "a branch": (branch, "a branch or a loop depends on the values"),
    "a number": (lambda x: x * float(ac.sum(x)), "a Python number of an array's value"),
    "numpy": (lambda x: ac.exp(np.cumsum(ac.exp(x))), "numpy.cumsum"),
    "an array of it": (lambda x: np.asarray(ac.exp(x)), "makes a NumPy array"),
    "in place": (lambda x: in_place(ac.exp(x)), "in place"),
    "an index": (lambda x: ac.exp(x)[np.array([1, 0])], "indexes an array by another one"),
    "a product": (lambda x: ac.exp(x) @ x.T, "multiplies matrices"),
    "an attribute": (lambda x: ac.exp(x).flat[0] + x, r"\.flat"),
    "no operation": (lambda x: x, "calls no operation"),
    "type 3": (lambda x: ac.nufft.nufft1d3(ac.exp(x[0]), C[0], POINTS[0][:5]), "depends on the values"),
}


def in_place(y):
    y += 1
    return y


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_values_runs_call_by_call_and_says_where_once(name):
    function, reason = REFUSED[name]
    recorded = ac.pipeline(function)
    expected = function(X)
    with pytest.warns(UntraceableWarning, match=reason) as told:
        result = recorded(X)
    np.testing.assert_array_equal(result, expected)
    assert len(told) == 1
    recorded(X)  # a second warning would be an error
    placement = recorded.explain(X)
    file, _, line = placement.where.rpartition(":")
    assert file == __file__
    assert placement.where in str(told[0].message)
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    if name == "a branch":
        assert "the line that is told" in lines[int(line) - 1]
    if name == "in place":
        assert lines[int(line) - 1] == "    y += 1"
    assert str(placement).endswith(f"({placement.where})")


def test_an_error_of_the_function_is_its_own():
    recorded = ac.pipeline(lambda x, n: ac.fft(x, n=n))
    with pytest.raises(ArgumentError, match="n must be at least 1"):
        recorded(X, 0)
    assert recorded(X, 4).shape == (6, 4)


@pytest.mark.parametrize("thing", [3, np.sin, "f"])
def test_only_functions_become_pipelines(thing):
    with pytest.raises(ArgumentError, match="takes a Python function"):
        ac.pipeline(thing)

    def generator(x):
        yield x

    with pytest.raises(ArgumentError, match="generator"):
        ac.pipeline(generator)


def test_explain_runs_nothing_and_is_one_for_ac_and_the_pipeline():
    recorded = ac.pipeline(convolve)
    told = ac.explain(recorded, X, X)
    assert str(told) == str(recorded.explain(X, X))
    assert [step["run"].split()[0] for step in told.steps] == ["fft", "fft", "(v2", "fft"]
    assert told.as_dict()["pipeline"] == "convolve"


# What a function reads besides its arguments

SCALE = 2.0
TABLE = {"k": np.ones(8, np.float32), "list": [1.0]}
PAIR = (0.5, [1.0], np.ones(8, np.float32))  # never another tuple, and not always of the same values


def helper(x):
    return x * SCALE + TABLE["k"] * TABLE["list"][0] + PAIR[2] * PAIR[0] * PAIR[1][0]


def uses_helper(x):
    return ac.exp(helper(x))


def test_everything_that_is_read_is_watched(monkeypatch):
    recorded = ac.pipeline(uses_helper)

    def check():
        np.testing.assert_allclose(recorded(X), uses_helper(X), rtol=1e-6)
        assert recorded.explain(X).anew is None

    check()
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    check()
    monkeypatch.setitem(TABLE, "k", np.full(8, 5, np.float32))
    check()
    TABLE["k"][:] = 7
    check()
    monkeypatch.setitem(TABLE, "list", [2.0])
    check()
    TABLE["list"][0] = 4.0
    check()
    PAIR[1][0] = -2.0
    check()
    PAIR[2][:] = 3.0
    check()
    monkeypatch.setitem(globals(), "PAIR", (0.25, *PAIR[1:]))
    check()
    monkeypatch.setitem(globals(), "helper", lambda x: x - SCALE)
    check()
    monkeypatch.setitem(globals(), "SCALE", -0.0)
    check()


class Model:
    offset = 1.0

    def __init__(self):
        self.weights = np.ones(8, np.float32)

    @ac.pipeline
    def forward(self, x):
        return ac.exp(x) * self.weights + self.offset


def test_what_cannot_be_watched_is_recorded_in_every_call():
    model, draw = Model(), random.Random(0)
    np.testing.assert_allclose(model.forward(X), np.exp(X) + 1, rtol=1e-6)
    model.weights = model.weights * 3
    model.offset = 2.0
    np.testing.assert_allclose(model.forward(X), np.exp(X) * 3 + 2, rtol=1e-6)
    assert "Model" in Model.forward.explain(model, X).anew
    noisy = ac.pipeline(lambda x: ac.exp(x) * draw.gauss(0, 1))
    assert not np.array_equal(noisy(X), noisy(X))
    assert "Random" in noisy.explain(X).anew
    count = 0

    def counting(x):
        return ac.exp(x) * window(len(x))

    def window(n):
        nonlocal count
        count += 1
        return np.full((n, 1), count, np.float32)

    made = ac.pipeline(counting)
    with pytest.warns(UntraceableWarning, match="assigns to count"):
        first = made(X)
    assert np.array_equal(made(X), first / first * np.exp(X) * 2) or np.allclose(made(X), np.exp(X) * 3)
    fresh = ac.pipeline(lambda x: ac.exp(x) * np.linspace(0, 1, 8))
    np.testing.assert_allclose(fresh(X), np.exp(X) * np.linspace(0, 1, 8), rtol=1e-6)
    assert "origin" in fresh.explain(X).anew
    assert len(fresh._programs) == 1


def test_a_nufft_plan_is_watched():
    plan = ac.nufft.Plan(2, (6, 8), dtype="complex64", eps=1e-4)
    plan.setpts(*POINTS)
    recorded = ac.pipeline(lambda c: plan.execute(c * 2))
    first = recorded(C)
    np.testing.assert_allclose(first, plan.execute(C * 2), rtol=1e-5)
    assert recorded.explain(C).anew is None
    plan.setpts(POINTS[1], POINTS[0])
    second = recorded(C)
    np.testing.assert_allclose(second, plan.execute(C * 2), rtol=1e-5)
    assert not np.allclose(first, second)


def test_recordings_are_bounded():
    recorded = ac.pipeline(lambda x, a: ac.exp(x) * a)
    for value in range(100):
        np.testing.assert_allclose(recorded(X, float(value)), np.exp(X) * value, rtol=1e-6)
    assert len(recorded._recordings) <= 64
    assert len(recorded._programs) == 1  # the number is given with the call


def test_a_pipeline_in_a_pipeline_is_part_of_it():
    inner = ac.pipeline(lambda x: ac.exp(x) * 2)
    outer = ac.pipeline(lambda x: inner(x) + 1)
    np.testing.assert_allclose(outer(X), np.exp(X) * 2 + 1, rtol=1e-6)
    assert len(outer.explain(X).steps) == 1


def test_neighbours_are_one_expression_and_others_are_not():
    recorded = ac.pipeline(lambda x, y: ac.fft(ac.sin(x) * y + ac.cos(y * 2.0)).real + 1)
    assert [s["kernel"] != "view" for s in recorded.explain(X, X).steps] == [True] * 3
    shared = ac.pipeline(lambda x: (ac.exp(x), ac.sin(ac.exp(x))))
    kept = ac.pipeline(lambda x: two(ac.exp(x)))
    assert len(shared.explain(X).steps) == 3 - 1
    assert len(kept.explain(X).steps) == 2
    halves = ac.pipeline(lambda x: ac.exp(x) * 3)
    assert len(halves.explain(X.astype(np.float16)).steps) == 2  # rounded in between


def two(y):
    return y, ac.sin(y)


def test_an_array_kept_from_a_recording_is_refused():
    kept = []
    holder = types.SimpleNamespace(keep=kept.append)
    recorded = ac.pipeline(lambda x: (holder.keep(x), ac.exp(x))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AdaptiveWarning)
        recorded(X)
    with pytest.raises(BaseException, match="earlier recording"):
        ac.exp(kept[0])


def test_the_decorator_keeps_name_and_docstring():
    @ac.pipeline(keep=True)
    def named(x):
        """What it does."""
        return ac.exp(x)

    assert isinstance(named, Pipeline)
    assert (named.__name__, named.__doc__, repr(named)) == ("named", "What it does.", "<pipeline named>")


def test_equal_calls_are_made_once_and_what_nothing_needs_not_at_all():
    def wasteful(x):
        ac.fft(x)
        return ac.fft(ac.exp(x)) * ac.fft(ac.exp(x)), ac.sum(ac.exp(x))

    placement = ac.pipeline(wasteful).explain(X)
    assert sorted(step["run"].split()[0] for step in placement.steps) == ["(v3", "exp(argument0)", "fft", "reduce"]
    twice = ac.pipeline(lambda x: (ac.exp(x), ac.exp(x)))
    a, b = twice(X)
    assert not np.shares_memory(a, b)
