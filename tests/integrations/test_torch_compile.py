"""torch.compile, torch.export and torch.library: every family in one graph, without a break, training included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch to test torch.compile")
from torch.func import grad, jvp, vmap  # noqa: E402

import adaptive_compute as ac  # noqa: E402
from adaptive_compute.core.errors import AdaptiveError, UntraceableWarning  # noqa: E402
from adaptive_compute.core.operations import attention_rule, fft_rule, gather_rule, nufft_rule  # noqa: E402
from adaptive_compute.integrations import torch_library  # noqa: E402
from tests.integrations.gradient_cases import parts  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, in what its compiler imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning"),
]
# The compiler's front and middle, which meet the library, without its code generator, which takes seconds a graph.
BACKEND = "aot_eager"
FEW = {
    "fft ", "2d1", "2d2 of a stack", "1d3", "window and prefix", "grouped, bias", "expression", "function", "max all",
    "gather, last axis",
}  # fmt: skip
# ~ on a mask is nothing that the compiler reads.
PARTS = parts(every=6, quick=FEW, without={"inverse", "3d3", "3d3 of a stack"})


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function, backend=BACKEND):
    return torch.compile(function, fullgraph=True, backend=backend)


@pytest.mark.parametrize("case", PARTS)
def test_one_graph_with_the_same_result_and_gradients(case):
    plain, traced = ([o.requires_grad_() for o in case.operands()] for _ in range(2))
    with ac.using(threads=1):
        expected = case.function(*plain)
        found = compiled(lambda *x: case.function(*x))(*traced)
        assert torch.equal(found, expected)
        for result in (expected, found):
            (result.abs() ** 2).sum().backward()
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-12, atol=1e-14) for a, b in zip(plain, traced))


class Model(torch.nn.Module):
    """All four families in one forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.points = torch.nn.Parameter(torch.linspace(-3, 3, 8))
        self.qkv = torch.nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        x = ac.attention(q, k, v, is_causal=True, mask=ac.Window(4)) + ac.gelu(x)
        spectrum = ac.rfft(x, norm="ortho")
        x = x + ac.irfft(spectrum * 0.5, 16, norm="ortho") + ac.logsumexp(x, axis=-1, keepdims=True)
        samples = ac.nufft.nufft1d2(self.points, spectrum[0])
        return ac.multiply(x, 2.0).square().mean() + samples.abs().square().mean()


@pytest.mark.parametrize("backend", [BACKEND, pytest.param("inductor", marks=pytest.mark.slow)])
def test_training_steps(backend):
    losses = []
    for wrap in (lambda function: function, lambda function: compiled(function, backend)):
        torch.manual_seed(0)
        model = Model()
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
        step = wrap(model)
        x = torch.randn(8, 16)
        losses.append([])
        for _ in range(4):
            optimiser.zero_grad()
            value = step(x)
            value.backward()
            optimiser.step()
            losses[-1].append(value.item())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_an_index_may_be_a_tensor():
    values, index = torch.randn(4, 2, requires_grad=True), torch.tensor([1, 0, 1, 3])
    found = compiled(lambda v, i: ac.segment_sum(ac.gather(v, i), i, 4))
    expected = torch.zeros(4, 2).index_add(0, index, values[index])
    torch.testing.assert_close(found(values, index), expected)
    with pytest.raises((ValueError, RuntimeError), match=r"index\[2\] = 9"):
        found(values, torch.tensor([1, 0, 9, 3]))
    needed = "num_segments is needed where segment_ids has no values yet"
    with pytest.warns(UntraceableWarning, match=needed), pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(lambda v, i: ac.segment_sum(v, i))(values, index)


def test_arguments_are_checked_while_the_graph_is_made():
    said = pytest.warns(UntraceableWarning, match="torch.compile stops at .*: AxisError: axis=5 does not exist in x")
    with said, pytest.raises((IndexError, torch._dynamo.exc.Unsupported)):
        compiled(lambda x: ac.fft(x, axis=5))(torch.ones(3))
    broken = torch.compile(lambda x: ac.fft(x, axis=5), backend=BACKEND)  # with breaks allowed, the error itself
    with (
        pytest.warns(UntraceableWarning, match="axis=5"),
        pytest.raises(IndexError, match="axis=5 does not exist in x"),
    ):
        broken(torch.ones(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ac.rfft(x) * 2,
        lambda x: ac.evaluate("sin(x) * x + 1", x=x),
        lambda x: ac.attention(x, x, x),
        lambda x: ac.sum(x, axis=1),
    ],
)
def test_one_graph_serves_every_batch(function):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    run = torch.compile(function, fullgraph=True, backend=count, dynamic=True)
    for batch in (2, 3, 5):
        x = torch.randn(batch, 4, 6)
        torch.testing.assert_close(run(x), function(x))
    assert len(graphs) == 1


def test_transforms_of_functions_inside_a_graph():
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.allclose(compiled(lambda x: vmap(lambda row: ac.rfft(row).abs())(x))(x), ac.rfft(x).abs())
    assert torch.allclose(compiled(lambda x: vmap(grad(lambda row: ac.sum(ac.sin(row))))(x))(x), x.cos())
    assert torch.allclose(compiled(lambda x: jvp(ac.sin, (x,), (x,))[1])(x), x.cos() * x)


def test_numbers_and_numpy_arrays_in_a_graph():
    weights = np.arange(3.0)
    function = compiled(lambda x: ac.multiply(ac.add(x, 1.5), weights))
    assert torch.equal(function(torch.ones(3, dtype=torch.float64)), torch.tensor([0.0, 2.5, 5.0], dtype=torch.float64))


def test_the_settings_around_a_graph_hold_inside():
    function = compiled(lambda x: ac.fft(x))
    x = torch.ones(8)
    expected = function(x)
    with ac.using(kernel="torch"):
        assert torch.allclose(function(x), expected)
    with ac.using(kernel="no such kernel"), pytest.raises(AdaptiveError, match="no such kernel"):
        function(x)


def test_export():
    class Filter(torch.nn.Module):
        def forward(self, x):
            return ac.irfft(ac.rfft(x) * 2, 6)

    x = torch.randn(3, 6, dtype=torch.float64)
    program = torch.export.export(Filter(), (x,))
    assert any(node.target is torch.ops.adaptive_compute.run.default for node in program.graph.nodes)
    again = x.clone().requires_grad_()
    result = program.module()(again)
    assert torch.allclose(result, 2 * x)
    result.sum().backward()
    assert torch.allclose(again.grad, torch.full_like(x, 2.0))


# The operator


def real(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


OPERATOR = {
    "fft": (fft_rule.FAMILY, fft_rule.FFTParams("r2c", True, (6,), (1,), 0), (real(4, 6),)),
    "attention": (
        attention_rule.FAMILY, attention_rule.AttentionParams(ac.Window(2), 0.5, True, None),
        (real(2, 5, 4), real(2, 5, 4), real(2, 5, 4), None, real(2, 5, 5)),
    ),
    "nufft": (
        nufft_rule.FAMILY, nufft_rule.NufftParams(2, 1, (5,), 1, 1, 0, 1e-9),
        (torch.randn(5, dtype=torch.complex128, requires_grad=True), real(7)),
    ),
    "gather": (
        gather_rule.GATHER, gather_rule.IndexParams(0, 4, False, 0), (real(4, 2), torch.tensor([0, 1, 1]), None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATOR)
def test_torchs_own_checks_of_the_operator(name):
    operation, params, arrays = OPERATOR[name]
    call = torch_library._name(operation, params, arrays, None)
    found = torch.library.opcheck(
        torch.ops.adaptive_compute.run.default, (call, [a for a in arrays if isinstance(a, torch.Tensor)])
    )
    assert set(found.values()) == {"SUCCESS"}


def test_the_operator_under_vmap():
    operation, params, _ = OPERATOR["fft"]
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    (call,) = {torch_library._name(operation, params, (x[0],), None)}
    found = vmap(lambda x: torch.ops.adaptive_compute.run(call, [x])[0])(x)
    assert torch.allclose(found, torch.fft.rfft(x))


def test_tensors_without_data():
    q = torch.empty(2, 3, 4, device="meta", requires_grad=True)
    out, lse = ac.attention(q, q, q, return_lse=True)
    assert (out.shape, lse.shape, out.device.type) == ((2, 3, 4), (2, 3), "meta")
    assert ac.rfft2(q).dtype is torch.complex64
    assert ac.nufft.nufft1d3(q[0, 0], q[0, 0].to(torch.complex64), q[0, 1]).shape == (4,)


def test_a_call_of_another_process_is_refused():
    with pytest.raises(AdaptiveError, match="belongs to another process"):
        torch.ops.adaptive_compute.run("fft of yesterday", [torch.ones(2)])


def test_names_that_do_not_say_everything_hold_the_process():
    text = "from tests.integrations.test_torch_compile import names\nprint(*names(), sep='\\n')"
    command = [sys.executable, "-W", "ignore", "-c", text]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert names()[0] == there[0]
    assert names()[1] != there[1]


def test_the_first_call_of_all_may_be_one_in_a_graph():
    """In a process of its own, because what an earlier call loads would hide that this one does not."""
    code = (
        "import torch, adaptive_compute as ac\n"
        "@ac.elementwise\n"
        "def lorentz(x, width): return 1 / (1 + (x / width) ** 2)\n"
        "x = torch.linspace(-1, 1, 7)\n"
        "y = torch.compile(lambda x: lorentz(x, 2.0), fullgraph=True, backend='eager')(x)\n"
        "assert torch.allclose(y, 1 / (1 + (x / 2) ** 2))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


def names():
    x = torch.ones(2, 2)
    params = attention_rule.AttentionParams(ac.Causal(), 1.0, False, None)
    return [
        torch_library._name(fft_rule.FAMILY, fft_rule.FFTParams("c2c", True, (2,), (1,), 0), (x,), None),
        torch_library._name(attention_rule.FAMILY, params, (x, x, x, None, None), None),
    ]
