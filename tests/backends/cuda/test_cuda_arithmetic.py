"""The torch kernels of the CUDA backend on host tensors: torch computes the same there, and continuous integration can.

What needs a GPU (CuPy, cuFFT, cuFINUFFT, the fused attention) is checked by ``make test-cuda``.
"""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_compute.core.array import Operand, kind_named
from adaptive_compute.core.masks import Causal, Prefix, Window
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations import operations
from adaptive_compute.core.operations.attention_rule import BACKWARD, FAMILY
from adaptive_compute.core.operations.fft_rule import NONE, FFTParams
from adaptive_compute.core.transfer import counters

torch = pytest.importorskip("torch")

from adaptive_compute.backends.cpu.fft import mkl_misses  # noqa: E402
from adaptive_compute.backends.cuda import attention_sdpa, elementwise, fft, gather, link, reduce  # noqa: E402


def on_host(request):
    """Return a request whose operands are torch tensors on the host."""
    operands = tuple(None if o is None else Operand(o.shape, o.dtype, "cpu", "torch") for o in request.operands)
    return Request(request.operation, operands, request.params, request.tol, request.threads)


def error_of(kernel, request, arrays):
    """Return the error of a kernel on NumPy arrays."""
    to_torch = kind_named("torch").from_numpy
    before = [None if a is None else a.copy() for a in arrays]
    result = kernel.plan(on_host(request)).run(*[None if a is None else to_torch(a) for a in arrays])
    for array, copy in zip(arrays, before):
        assert array is None or np.array_equal(array, copy, equal_nan=True), "an operand was modified"
    parts = result if isinstance(result, tuple) else (result,)
    for part, expected in zip(parts, request.operation.result(request)):
        assert tuple(part.shape) == expected.shape
        assert str(part.dtype) == f"torch.{expected.dtype}"
    found = tuple(part.numpy() for part in parts)
    return request.operation.error(request, arrays, found if isinstance(result, tuple) else found[0])


CASES = {
    "fft": [fft.TorchFFT("cpu")],
    "reduce": [reduce.TorchReduce("cpu")],
    "gather": [gather.TorchGather("cpu")],
    "scatter_add": [gather.TorchScatter("cpu")],
    "elementwise": [elementwise.TorchSteps("cpu")],
}


@pytest.mark.parametrize("operation", CASES)
def test_random_requests_keep_the_tolerance(operation):
    family = operations()[operation]
    rng = np.random.default_rng(1)
    ran = 0
    for _ in range(60):
        request = family.held_out(rng)
        if request.operation.work(request).bytes > 1 << 23:
            continue
        arrays = family.arrays(request, rng)
        for kernel in CASES[operation]:
            if operation == "fft" and mkl_misses(request):
                continue  # here torch computes by MKL, on a GPU by cuFFT
            if kernel.supports(on_host(request)) is True:
                ran += 1
                # The host's FFT is another library than the GPU's, and some builds of torch have a less exact one.
                bound = family.tolerance(request) * (4 if operation == "fft" else 1)
                assert error_of(kernel, request, arrays) <= bound, f"{request!r}"
    assert ran > 20


def attention_requests():
    for operation in (FAMILY, BACKWARD):
        for mask in (None, Causal(), Window(9), Prefix(0), "array"):
            for dtype in ("float32", "float64", "float16"):
                yield operation.sample(3, 40, 40, 16, dtype, mask)


@pytest.mark.parametrize("request_", list(attention_requests()), ids=repr)
def test_dense_attention(request_):
    kernel = attention_sdpa.SdpaKernel(request_.operation.name, "dense", "cpu")
    arrays = request_.operation.arrays(request_, np.random.default_rng(3))
    assert kernel.supports(on_host(request_)) is True
    assert error_of(kernel, request_, arrays) <= request_.operation.tolerance(request_)


def test_sums_have_the_same_bits_in_every_run_and_follow_the_entries():
    rng = np.random.default_rng(5)
    family = operations()["scatter_add"]
    request = family.example((5000, 3), "float32")
    arrays = family.arrays(request, rng)
    plan = gather.TorchScatter("cpu").plan(on_host(request))
    tensors = [None if a is None else torch.from_numpy(a) for a in arrays]
    first = plan.run(*tensors)
    assert all(torch.equal(plan.run(*tensors), first) for _ in range(3))


def test_an_index_is_sorted_once_as_long_as_it_lives(monkeypatch):
    sort, sorted_ = torch.sort, []
    monkeypatch.setattr(torch, "sort", lambda *args, **kwargs: sorted_.append(1) or sort(*args, **kwargs))
    orders = gather.Orders(5)
    for number in range(3):
        index = torch.tensor([4, 0, number, 0])
        for _ in range(2):
            order, starts = orders.of(index)
            assert index[order].tolist() == sorted(index.tolist())
            assert starts.tolist() == np.searchsorted(sorted(index.tolist()), range(6)).tolist()
        del index
    assert len(sorted_) == 3
    many = [torch.tensor([n]) for n in range(5)]
    for index in many:
        orders.of(index)
    assert len(orders._found) <= orders.KEPT


def test_flash_windows_are_the_masks():
    for lq, lk in ((40, 40), (24, 40), (40, 24)):
        i, j = np.arange(lq)[:, None], np.arange(lk)[None, :]
        for mask in (None, Causal(), Causal("bottom-right"), Window(7), Causal() & Window(7), Window(3) & Window(9)):
            window = attention_sdpa.window_of(mask, lq, lk)
            if window is None:
                assert lq != lk
                continue
            left, right = window
            shifted = i + lk - lq
            kept = ((left < 0) | (j >= shifted - left)) & ((right < 0) | (j <= shifted + right))
            expected = np.ones((lq, lk), bool) if mask is None else np.broadcast_to(mask.keep(i, j, lq, lk), (lq, lk))
            assert np.array_equal(np.broadcast_to(kept, (lq, lk)), expected), (mask, lq, lk)
    assert attention_sdpa.window_of(Prefix(3), 8, 8) is None
    assert attention_sdpa.window_of(Causal() | Window(2), 8, 8) is None


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 0), (1,)), ((0, 5), (0,)), ((3, 4, 0), (1, 2)), ((2, 3, 5, 0), (1, 2, 3))]
)
def test_an_operand_of_a_transform_to_real_values_is_a_spectrum_of_real_values(shape, axes, n):
    half = tuple(side or n // 2 + 1 for side in shape)
    lengths = (*[half[axis] for axis in axes[:-1]], n)
    rng = np.random.default_rng(n)
    x = rng.standard_normal(half) + 1j * rng.standard_normal(half)
    made = fft.hermitian_(torch.from_numpy(x.copy()), FFTParams("c2r", False, lengths, axes, NONE)).numpy()
    real = np.fft.irfftn(x, lengths, axes)
    np.testing.assert_allclose(np.fft.irfftn(made, lengths, axes), real, atol=1e-14)
    np.testing.assert_allclose(np.fft.rfftn(real, lengths, axes), made, atol=1e-13)  # nothing is left to interpret


def layouts():
    a = np.arange(24.0).reshape(4, 6)
    read_only = a.copy()
    read_only.flags.writeable = False
    unaligned = np.empty(24 * 8 + 1, np.uint8)[1:].view(np.float64)
    unaligned[:] = a.reshape(-1)
    fields = np.zeros(5, [("x", "f8"), ("y", "i4")])
    return {
        "plain": (a, 0), "read-only": (read_only, 0), "columns": (a[:, ::2], 0), "transposed": (a.T, 0),
        "repeated": (np.broadcast_to(a[0], (3, 6)), 0), "empty": (a[:0], 0), "number": (np.array(3.0), 0),
        "backwards": (a[::-1], 1), "one, backwards": (a.reshape(-1)[:1][::-1], 1),
        "one row, backwards": (a[:1][::-1], 1), "other byte order": (a.astype(">f8"), 1), "unaligned": (unaligned, 1),
        "field": (fields["x"], 1), "one field": (fields["x"][:1], 1), "flags": (np.array([True])[::-1], 1),
    }  # fmt: skip


@pytest.mark.parametrize("name", layouts())
def test_arrays_of_every_layout_become_tensors_with_one_counted_copy_at_most(name):
    array, copies = layouts()[name]
    before = sum(counters.as_dict()["copies"].values())
    tensor = link.tensor_of(array)
    assert sum(counters.as_dict()["copies"].values()) - before == copies
    assert np.array_equal(tensor.numpy(), array)
    assert np.shares_memory(tensor.numpy(), array) is (copies == 0 and array.size > 0)


def test_gradients_with_scores_added_or_parts_of_tiles_are_not_left_to_the_operator_in_half_precision():
    for operation, mask, side, computed in (
        (BACKWARD, Window(9), 64, torch.float32), (BACKWARD, "array", 64, torch.float32),
        (BACKWARD, Causal(), 64, torch.float16), (BACKWARD, Causal(), 40, torch.float32),
        (BACKWARD, None, 64, torch.float16), (BACKWARD, None, 40, torch.float32),
        (FAMILY, Window(9), 40, torch.float16),
    ):  # fmt: skip
        request = operation.sample(2, side, side, 16, "float16", mask)
        kernel = attention_sdpa.SdpaKernel(request.operation.name, "efficient", "cpu")
        assert kernel.plan(on_host(request)).dtype is computed
