"""torch.autograd over this library: the bridge itself, and the gradients of the FFT family."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import adaptive_compute as ac  # noqa: E402
from adaptive_compute.core.array import Operand  # noqa: E402
from adaptive_compute.core.dispatcher import dispatcher  # noqa: E402
from adaptive_compute.core.measure import relocated  # noqa: E402
from adaptive_compute.core.operation import Operation  # noqa: E402
from adaptive_compute.core.operations import operations  # noqa: E402
from adaptive_compute.core.registry import registry  # noqa: E402

TO_COMPLEX = ("rfft", "ihfft")


def takes_doubles(kernel):
    samples = [relocated(request, kernel) for request in operations()["fft"].samples(quick=True)]
    return any(kernel.supports(request) is True for request in samples if request.first.dtype == "complex128")


DOUBLES = {kernel.name: takes_doubles(kernel) for kernel in registry.kernels("fft")}


def operand(name, *shape, doubles=True):
    generator = torch.Generator().manual_seed(sum(shape))
    dtype = torch.float64 if name.startswith(TO_COMPLEX) else torch.complex128
    if not doubles:
        dtype = torch.float32 if name.startswith(TO_COMPLEX) else torch.complex64
    return torch.randn(*shape, dtype=dtype, generator=generator, requires_grad=True)


# FFT


# Finite differences need double precision.
@pytest.mark.parametrize("kernel", [name for name, doubles in DOUBLES.items() if doubles])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_gradients_of_one_axis(name, kernel):
    cases = [(3, None, -1, None), (4, 3, -1, "ortho"), (3, 5, 0, "forward"), (5, 4, 0, None), (2, 6, -1, "backward")]
    for length, n, axis, norm in cases:
        x = operand(name, *((length, 2) if axis == 0 else (2, length)))

        def function(x, n=n, axis=axis, norm=norm):
            return getattr(ac, name)(x, n, axis, norm)

        with ac.using(kernel=kernel, threads=2 if kernel == "pocketfft-threads" else 1):
            assert gradcheck(function, (x,))
            assert gradgradcheck(function, (x,))


@pytest.mark.parametrize("end", ["2", "n"])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_gradients_of_several_axes(name, end):
    for s, axes, norm in ((None, (0, 1), None), ((3, 4), (1, 0), "ortho"), ((2, 5), (0, 1), "forward")):
        x = operand(name, 2, 3)

        def function(x, s=s, axes=axes, norm=norm):
            return getattr(ac, name + end)(x, s, axes, norm)

        with ac.using(threads=1):
            assert gradcheck(function, (x,))
            assert gradgradcheck(function, (x,))


@pytest.mark.parametrize("kernel", DOUBLES)
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "rfftn", "irfft2", "ihfftn"])
def test_gradients_agree_with_torch_fft(name, kernel):
    several = name[-1] in "2n"
    close = {} if DOUBLES[kernel] else {"rtol": 1e-4, "atol": 1e-5}
    for shape in ((3, 8, 9), (2, 5, 6)):
        x = operand(name, *shape, doubles=DOUBLES[kernel])
        for arguments in (
            (),
            ((4, 7) if several else 7,),
            ((6, 8) if several else 8, (0, 1) if several else 1, "ortho"),
        ):
            with ac.using(kernel=kernel):
                ours = getattr(ac, name)(x, *arguments)
                weights = torch.randn_like(ours)
                (found,) = torch.autograd.grad(ours, x, weights)
            theirs = getattr(torch.fft, name)(x, *arguments)
            (expected,) = torch.autograd.grad(theirs, x, weights)
            assert torch.allclose(ours, theirs, **close)
            assert torch.allclose(found, expected, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64, torch.float16])
def test_the_gradient_has_the_operands_dtype(dtype):
    x = torch.ones(2, 6, dtype=dtype, requires_grad=True)
    y = ac.fft(x)
    y.abs().sum().backward()
    assert x.grad.dtype == dtype
    assert x.grad.shape == x.shape


def test_the_axes_may_be_none_at_all():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: ac.fftn(x, axes=()), (x,))


def test_second_derivatives_of_attention_to_no_keys():
    shapes = ((2, 3, 4), (2, 0, 4), (2, 0, 4))
    operands = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert gradcheck(ac.attention, operands)
    assert gradgradcheck(ac.attention, operands)


def test_functional_gradients():
    x = torch.arange(5.0, dtype=torch.float64)
    found = torch.func.grad(lambda x: ac.fft(x).abs().square().sum())(x)
    assert torch.allclose(found, 10 * x)


# What is recorded


def test_nothing_is_recorded_that_nobody_asked_for():
    x = torch.ones(4, requires_grad=True)
    assert ac.fft(x).requires_grad
    assert not ac.fft(x.detach()).requires_grad
    with torch.no_grad():
        assert not ac.fft(x).requires_grad
    with torch.inference_mode():
        assert not ac.fft(torch.ones(4)).requires_grad


def test_a_chain_of_calls_and_of_torch():
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    y = ac.irfft(ac.rfft(x) * 2.0, 8)
    assert torch.allclose(y, 2 * x)
    y.sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, 2.0))


def test_an_operand_changed_in_place_is_noticed():
    x = torch.ones(4, requires_grad=True)
    z = x * 1.0
    y = ac.fft(z)
    z.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.abs().sum().backward()


def test_threads_do_not_mix():
    from concurrent.futures import ThreadPoolExecutor

    def job(seed):
        x = torch.randn(16, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        ac.fft(x).abs().square().sum().backward()
        return torch.allclose(x.grad, 64 * x.detach())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(job, range(64)))


# The bridge, with an operation made for it


class Scale(Operation):
    """Results (a * b, a ** 2, number of elements); b may be missing or no tensor; saves a * a."""

    name = "scale"

    def __init__(self, saved_known=False):
        self.differentiates_saved = saved_known
        self.seen = []

    def result(self, request):
        return (request.first,)

    def forward_for_gradient(self, params, arrays, run):
        a, b, _ = arrays
        self.seen.append(("forward", [getattr(x, "requires_grad", None) for x in arrays], dict(run.keywords)))
        square = a * a
        return (a * torch.as_tensor(1.0 if b is None else b), square, torch.tensor(a.numel())), (a**3, "a word")

    def gradient(self, params, arrays, saved, grads, wanted):
        a, b, _ = arrays
        cube, word = saved
        assert word == "a word"
        self.seen.append(("backward", torch.is_grad_enabled(), ac.settings.tol, len(grads)))
        assert grads[2] is None
        factor = torch.as_tensor(1.0 if b is None else b)
        grad_a = grads[0] * factor + 2 * a * grads[1] + 0 * cube
        if len(grads) > 3 and grads[3] is not None:
            grad_a = grad_a + 3 * a * a * grads[3]
        return grad_a, (a * grads[0]).to(torch.complex128) if isinstance(b, torch.Tensor) else None, None


def call(operation, *arrays, tol=None):
    return dispatcher.run(operation, (), *arrays, tol=tol)


def test_several_results_and_what_is_no_tensor():
    a = torch.tensor([2.0, 3.0], requires_grad=True)
    operation = Scale()
    product, square, count = call(operation, a, np.array([10.0, 20.0], np.float32), None)
    assert product.requires_grad
    assert square.requires_grad
    assert not count.requires_grad
    (grad,) = torch.autograd.grad(square.sum(), a)  # the other result's gradient arrives as zeros
    assert grad.tolist() == [4.0, 6.0]
    assert operation.seen == [("forward", [False, False, None], {"tol": None}), ("backward", False, None, 3)]


def test_gradients_are_cast_to_their_operands():
    a = torch.tensor([2.0, 3.0], requires_grad=True)
    b = torch.tensor([1.0, 5.0], dtype=torch.float64, requires_grad=True)
    product, _, _ = call(Scale(), a, b, torch.tensor([1, 2]))
    product.sum().backward()
    assert (a.grad.dtype, b.grad.dtype) == (torch.float32, torch.float64)
    assert b.grad.tolist() == [2.0, 3.0]


def test_only_what_needs_a_gradient_gets_one():
    a = torch.tensor([2.0, 3.0])
    b = torch.tensor([1.0, 5.0], requires_grad=True)
    product, _, _ = call(Scale(), a, b, None)
    product.sum().backward()
    assert a.grad is None
    assert b.grad.tolist() == [2.0, 3.0]


def test_the_tolerance_reaches_both_directions():
    a = torch.tensor([2.0], requires_grad=True)
    operation = Scale()
    product, _, _ = call(operation, a, None, None, tol=1e-3)
    product.sum().backward()
    assert operation.seen == [("forward", [False, None, None], {"tol": 1e-3}), ("backward", False, 1e-3, 3)]


def test_a_tolerance_that_no_kernel_meets_is_refused_while_recording():
    x = torch.ones(4, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"tol=1\.0e-30"):
        ac.fft(x, tol=1e-30)


def test_second_derivatives_flow_through_what_was_saved():
    """The gradient uses the saved cube; its own derivative must arrive, or be refused, and never be left out."""

    class Saving(Scale):
        def forward_for_gradient(self, params, arrays, run):
            return arrays[0] ** 4, (arrays[0] ** 3,)

        def gradient(self, params, arrays, saved, grads, wanted):
            grad = 4 * saved[0] * grads[0]
            if len(grads) > 1 and grads[1] is not None:
                grad = grad + 3 * arrays[0] ** 2 * grads[1]
            return (grad,)

    a = torch.tensor([1.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a: call(Saving(True), a), (a,))
    assert gradgradcheck(lambda a: call(Saving(True), a), (a,))
    (first,) = torch.autograd.grad(call(Saving(False), a).sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match="scale has no rule for this higher derivative"):
        first.sum().backward()


def test_a_result_that_would_lose_its_gradient_is_refused():
    b = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match=r"scale: an operand requires grad, but the first one is a ndarray"):
        call(Scale(), np.ones(2), b, None)


def test_an_operation_without_a_rule_says_so():
    class Without(Scale):
        def forward_for_gradient(self, params, arrays, run):
            return arrays[0] * 1, ()

        def gradient(self, *args):
            return Operation.gradient(self, *args)

    with pytest.raises(NotImplementedError, match="scale has no gradient rule yet; detach its operands"):
        call(Without(), torch.ones(2, requires_grad=True)).sum().backward()


def test_operands_are_described_without_being_touched():
    x = torch.ones(2, 3, requires_grad=True)
    assert ac.dispatcher.request(Scale(), (), (x,), ac.core.settings.current()).first == Operand(
        (2, 3), "float32", "cpu", "torch"
    )


# What must not be lost without a word


def test_numpy_operands_beside_a_tensor_are_constants_of_the_gradient():
    t = torch.ones(4, requires_grad=True)
    ac.evaluate("a*b", a=t, b=np.arange(4.0)).sum().backward()
    assert t.grad.tolist() == [0.0, 1.0, 2.0, 3.0]
    q = torch.randn(4, 4, requires_grad=True)
    ac.attention(q, q, q, bias=np.zeros((4, 4), np.float32)).sum().backward()
    assert torch.isfinite(q.grad).all()


def test_a_kernel_forced_for_the_call_does_not_bind_its_gradient():
    t = torch.ones(3, requires_grad=True)
    with ac.using(kernel="scipy"):
        ac.segment_sum(t, np.array([0, 1, 1])).sum().backward()
    assert t.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, on its first use
def test_forward_mode():
    import torch.autograd.forward_ad as forward

    with forward.dual_level():
        change = forward.unpack_dual(ac.sin(forward.make_dual(torch.zeros(3), torch.full((3,), 2.0)))).tangent
    assert change.tolist() == [2.0, 2.0, 2.0]
