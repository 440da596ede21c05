"""Gather, scatter-add and segment sums: every kernel against loops written from the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adaptive_compute as ac
from adaptive_compute.core.errors import DtypeError, NoKernelError, TooLargeError
from adaptive_compute.core.index_topology import IndexTopology
from adaptive_compute.core.operations.gather import gather, scatter_add, segment_sum
from adaptive_compute.core.operations.gather_rule import GATHER, SCATTER

OPERATION = "scatter_add"  # its kernels' names; those of gather are asked for by name below
GATHER_KERNELS = ("numpy", "torch")
DTYPES = ["int8", "uint8", "int32", "uint32", "int64", "float16", "float32", "float64", "longdouble", "complex64",
          "complex128"]  # fmt: skip
# Data come slowly where the machine is busy with other work.
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
BOUND = {"float16": 1e-3, "float32": 2e-6, "complex64": 2e-6}


def run(name, device, function, *args, **kwargs):
    """Run on one kernel; where it refuses the request, check that it says why, and return None."""
    with ac.using(kernel=name, device=device):
        try:
            return function(*args, **kwargs)
        except NoKernelError as error:
            refusal = str(error)
    assert refusal.partition(f"{name} on {device}: ")[2].strip()
    return None


def accepted(kernel, dtype):
    """Return a dtype, or the half as wide one where the kernel refuses it."""
    taken = run(kernel.name, kernel.device, scatter_add, np.ones(2, dtype), [0, 1]) is not None
    return dtype if taken else {"float64": "float32", "complex128": "complex64"}[dtype]


def summed(values, index, size, axis):
    """Return the sums by a loop over the entries, in the widest dtype there is."""
    values = np.moveaxis(values, axis, 0)
    wide = np.result_type(values.dtype, np.longdouble) if values.dtype.kind in "fc" else values.dtype
    result = np.zeros((size, *values.shape[1:]), wide)
    with np.errstate(over="ignore"):
        for value, slot in zip(values, index):
            result[slot] += value
    return np.moveaxis(result, 0, axis)


def error(result, exact):
    """Return the relative L2 error."""
    assert result.shape == exact.shape
    wide = np.result_type(exact.dtype, np.longdouble)
    norm = np.linalg.norm(exact.astype(wide).ravel())
    difference = np.linalg.norm((result.astype(wide) - exact.astype(wide)).ravel())
    return float(difference / norm) if norm else float(difference)


def bound(dtype):
    return 0.0 if np.dtype(dtype).kind in "iu" else BOUND.get(str(np.dtype(dtype)), 1e-14)


def random_values(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


@st.composite
def calls(draw, entries_side):
    """Return an array whose axis is indexed, an index, the number of slots and the axis."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 40]), min_size=1, max_size=3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    if entries_side:
        entries, size = shape[axis], draw(st.sampled_from([1, 2, 7, 50]))
    else:
        size, entries = shape[axis], draw(st.sampled_from([0, 1, 3, 60])) if shape[axis] else 0
    index = rng.integers(0, max(size, 1), entries)
    if draw(st.booleans()):
        index = np.sort(index)
    values = random_values(rng, shape, draw(st.sampled_from(DTYPES)))
    how = draw(st.sampled_from(["plain", "fortran", "reversed", "read-only", "broadcast", "strided"]))
    if how == "fortran":
        values = np.asfortranarray(values)
    elif how == "reversed":
        values = values[tuple(slice(None, None, -1) for _ in shape)]
    elif how == "read-only":
        values.flags.writeable = False
    elif how == "broadcast" and shape[0]:
        values = np.broadcast_to(values[:1], values.shape)
    elif how == "strided":
        values = np.repeat(values, 2, axis=-1)[..., ::2]
    return values, index.astype(draw(st.sampled_from(["int64", "int32", "uint8"]))), size, axis


@settings(max_examples=120, deadline=None, suppress_health_check=SUPPRESSED)
@given(call=calls(entries_side=True))
def test_scatter_add_is_the_sum_over_entries(kernel, call):
    values, index, size, axis = call
    before = values.copy(), index.copy()
    exact = summed(values, index, size, axis)
    for given_index in (index, IndexTopology.from_index(index, size)):
        result = run(kernel.name, kernel.device, scatter_add, values, given_index, size, axis)
        if result is not None:
            assert type(result) is np.ndarray
            assert result.dtype == values.dtype
            assert error(result, exact) <= bound(values.dtype)
    assert np.array_equal(values, before[0])
    assert np.array_equal(index, before[1])


@pytest.mark.parametrize("name", GATHER_KERNELS)
@settings(max_examples=120, deadline=None, suppress_health_check=SUPPRESSED)
@given(call=calls(entries_side=False))
def test_gather_reads_each_entry(name, call):
    x, index, size, axis = call
    moved = np.moveaxis(x, axis, 0)
    exact = np.empty((len(index), *moved.shape[1:]), x.dtype)
    for entry, slot in enumerate(index):
        exact[entry] = moved[slot]
    exact = np.moveaxis(exact, 0, axis)
    for given_index in (index, IndexTopology.from_index(index, size)):
        result = run(name, "cpu", gather, x, given_index, axis)
        if result is None:
            assert name == "torch"
            assert str(x.dtype) in ("uint32", str(np.dtype(np.longdouble)))
        else:
            assert result.dtype == x.dtype
            assert np.array_equal(result, exact)
            assert not np.shares_memory(result, x)


def test_what_is_refused(kernel):
    """Each refusal, so that none covers more than its reason."""
    expected = {
        "scipy": set(),
        "numpy": {"rows", "int64", "longdouble", "rows, sorted"},
        "torch": {"longdouble"},
    }
    index = np.array([1, 0, 1])
    refused = {
        dtype for dtype in DTYPES[4:]
        if run(kernel.name, kernel.device, scatter_add, np.ones(3, dtype), index) is None
    }  # fmt: skip
    if run(kernel.name, kernel.device, scatter_add, np.ones((3, 2)), index) is None:
        refused.add("rows")
    if run(kernel.name, kernel.device, scatter_add, np.ones((3, 2)), np.sort(index)) is None:
        refused.add("rows, sorted")
    if run(kernel.name, kernel.device, scatter_add, np.ones(3, int), np.sort(index)) is None:
        refused.add("sorted int64")
    if kernel.name in expected:
        assert refused == expected[kernel.name]


@pytest.mark.parametrize("name", GATHER_KERNELS)
def test_gather_takes_booleans(name):
    assert run(name, "cpu", gather, np.array([True, False]), [1, 0, 0]).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("what", ["equal", "random", "cancelling"])
@pytest.mark.parametrize("entries", [33, 1000, 100_000])
def test_long_segments_stay_exact(kernel, entries, what, dtype):
    """Sums of up to 1e5 entries within 2e-6 of the float64 sum; equal values drift the most in float32."""
    rng = np.random.default_rng(entries)
    values = {"equal": np.full(entries, 0.1), "random": rng.random(entries), "cancelling": rng.standard_normal(entries)}
    x = values[what].astype(dtype)
    exact = math.fsum(x.real.tolist())
    for index in (np.zeros(entries, int), np.arange(entries) % 2 * 0 + 1):
        result = run(kernel.name, kernel.device, scatter_add, x, index)
        assert abs(result[index[0]] - exact) <= 2e-6 * abs(exact)
    rows = run(kernel.name, kernel.device, scatter_add, np.stack([x, x], axis=1), np.zeros(entries, int))
    if rows is not None:
        assert np.all(abs(rows - exact) <= 2e-6 * abs(exact))


def test_short_segments_of_equal_values(kernel):
    """Up to 32 entries are added in float32, which the bound allows."""
    for longest in (2, 31, 32):
        x = np.full(longest, np.float32(1.0001))
        result = run(kernel.name, kernel.device, scatter_add, x, np.zeros(longest, int))
        assert abs(float(result[0]) - math.fsum(x.tolist())) <= 2e-6 * longest


@pytest.mark.parametrize("shape", [(50_000,), (5_000, 7)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_the_same_bits_in_every_run(kernel, shape, dtype):
    rng = np.random.default_rng(0)
    x = random_values(rng, shape, dtype)
    topology = IndexTopology.from_index(rng.integers(0, 97, shape[0]), 97)
    runs = []
    for threads in (1, 2, 2):
        with ac.using(threads=threads):
            result = run(kernel.name, kernel.device, scatter_add, x, topology)
        runs.append(None if result is None else result.tobytes())
    assert len(set(runs)) == 1


def test_non_finite_values_spoil_their_own_slot_only(kernel):
    x = np.array([1.0, np.inf, 2.0, np.nan, 3.0, -np.inf, np.inf], accepted(kernel, "float64"))
    result = run(kernel.name, kernel.device, scatter_add, x, [0, 1, 0, 2, 3, 4, 4])
    assert np.array_equal(result, [3.0, np.inf, np.nan, 3.0, np.nan], equal_nan=True)
    pairs = run(kernel.name, kernel.device, scatter_add, np.array([np.inf + 1j, 2 + 2j], f"c{2 * x.itemsize}"), [0, 1])
    assert pairs.tolist() == [complex(np.inf, 1), 2 + 2j]


def test_integers_wrap_around(kernel):
    result = run(kernel.name, kernel.device, scatter_add, np.array([100, 100, 1], np.int8), [0, 0, 1])
    assert result.tolist() == [-56, 1]
    large = np.array([2**62 + 1, 2**61], np.int64)
    assert run(kernel.name, kernel.device, scatter_add, large, [0, 0]).tolist() == [2**62 + 2**61 + 1]


def test_tensors_give_tensors(kernel):
    torch = pytest.importorskip("torch")
    x = torch.arange(12.0).reshape(4, 3).t()
    result = run(kernel.name, kernel.device, scatter_add, x, torch.tensor([1, 1, 0, 3]), 5, 1)
    if result is not None:
        assert isinstance(result, torch.Tensor)
        assert torch.equal(result, torch.zeros(3, 5).index_add(1, torch.tensor([1, 1, 0, 3]), x))
    half = torch.ones(100, dtype=torch.bfloat16)
    result = run(kernel.name, kernel.device, segment_sum, half, torch.zeros(100, dtype=torch.int32))
    assert (result is None) == (kernel.name in ("numpy", "scipy"))  # NumPy has no bfloat16
    assert result is None or (result.dtype == torch.bfloat16 and result.item() == 100)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_each_is_the_gradient_of_the_other(kernel, dtype, axis):
    torch = pytest.importorskip("torch")
    exact = accepted(kernel, dtype) == dtype
    dtype = getattr(torch, accepted(kernel, dtype))
    x = torch.randn(6, 6, dtype=dtype, requires_grad=True)
    index = np.array([4, 0, 4, 1, 4, 0])
    with ac.using(device=kernel.device):
        for function in (lambda v: scatter_add(v, index, 5, axis), lambda v: gather(v, index, axis)):
            if exact:
                assert torch.autograd.gradcheck(function, (x,))
                assert torch.autograd.gradgradcheck(function, (x,))
            else:  # too few digits for differences, but the functions are linear: <f(x), y> = <x, f'(y)>
                y = torch.randn_like(function(x), requires_grad=True)
                (found,) = torch.autograd.grad(function(x), x, y, create_graph=True)
                assert torch.allclose((function(x) * y.conj()).sum(), (x * found.conj()).sum(), rtol=1e-5, atol=1e-5)
                (again,) = torch.autograd.grad(found, y, x.detach())
                assert torch.allclose(again, function(x.detach()), rtol=1e-5)
    flat = torch.randn(6, dtype=dtype, requires_grad=True)
    with ac.using(kernel=kernel.name if kernel.name in GATHER_KERNELS else None):
        (found,) = torch.autograd.grad(gather(flat, index), flat, torch.ones(6, dtype=flat.dtype))
    assert found.tolist() == [2, 1, 0, 0, 3, 0]


def test_the_graph_keeps_its_own_index():
    torch = pytest.importorskip("torch")
    x = torch.zeros(3, requires_grad=True)
    index = np.array([0, 0, 1])
    y = gather(x, index)
    index[:] = 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 1, 0]


def test_the_public_product_does_what_the_inner_loop_does(monkeypatch):
    """SciPy may move the loop that the kernel calls; the public product must then give the same."""
    import sys

    rng = np.random.default_rng(1)
    x, index = rng.standard_normal((300, 3)), rng.integers(0, 9, 300)
    usual = run("scipy", "cpu", scatter_add, x, index, 9)
    flat = run("scipy", "cpu", scatter_add, x[:, 0].copy(), index, 9)
    monkeypatch.setitem(sys.modules, "scipy.sparse._sparsetools", None)
    ac.dispatcher.invalidate()
    assert np.array_equal(run("scipy", "cpu", scatter_add, x, index, 9), usual)
    assert np.array_equal(run("scipy", "cpu", scatter_add, x[:, 0].copy(), index, 9), flat)


def test_a_hidden_copy_is_counted():
    ac.transfers(reset=True)
    run("scipy", "cpu", scatter_add, np.ones((4, 3)), [0, 1, 0], 2, 1)
    assert sum(ac.transfers(reset=True)["copies"].values()) == 1


# The index


def test_a_topology_is_computed_once_and_compared_by_content(tmp_path):
    index = np.array([3, 1, 3, 0, 1])
    topology = ac.Topology.from_index(index, 5) if hasattr(ac, "Topology") else IndexTopology.from_index(index, 5)
    index[0] = 0
    assert topology.index.tolist() == [3, 1, 3, 0, 1]
    assert not topology.index.flags.writeable
    assert topology.order.tolist() == [3, 1, 4, 0, 2]
    assert topology.starts.tolist() == [0, 1, 3, 3, 5, 5]
    assert (topology.longest, topology.is_sorted, topology.entries) == (2, False, 5)
    assert topology.order is topology.order
    same, other = IndexTopology.from_index([3, 1, 3, 0, 1], 5), IndexTopology.from_index([3, 1, 3, 0, 1], 6)
    assert topology == same
    assert hash(topology) == hash(same)
    assert topology != other
    topology.save(tmp_path / "t.npz")
    assert IndexTopology.load(tmp_path / "t.npz") == topology


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "t.npz"
    IndexTopology.from_index([0, 1], 2).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "size": np.array(1)})
    with pytest.raises(ValueError, match=r"index\[1\] = 1"):
        IndexTopology.load(path)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: gather([1.0, 2.0], [0, 2]), ValueError, r"index\[1\] = 2 is not below the size 2"),
        (lambda: gather([1.0, 2.0], [0, -1]), ValueError, r"index\[1\] = -1 is negative"),
        (lambda: scatter_add([1.0, 2.0], [0, 7], 3), ValueError, r"index\[1\] = 7"),
        (lambda: segment_sum([1.0, 2.0], [-3, 7]), ValueError, r"segment_ids\[0\] = -3"),
        (lambda: gather([], [0]), ValueError, r"index\[0\] = 0 is not below the size 0"),
        (lambda: gather([1.0], [0.0]), TypeError, "index has dtype float64"),
        (lambda: gather([1.0], [True]), TypeError, "flatnonzero"),
        (lambda: gather([1.0], [[0]]), ValueError, r"index must have one axis, got shape \(1, 1\)"),
        (lambda: gather(1.0, [0]), ValueError, "x is 0-dimensional"),
        (lambda: gather([1.0], [0], 1), IndexError, "axis=1"),
        (lambda: gather([1.0], [0], "a"), TypeError, "axis"),
        (lambda: gather(["a"], [0]), TypeError, "x has dtype"),
        (lambda: gather([1.0], IndexTopology.from_index([0], 2)), ValueError, r"x\.shape\[0\] is 1 .* 2 slots"),
        (lambda: scatter_add([1.0], [0, 1]), ValueError, "values has 1 entries along axis 0 and index has 2"),
        (lambda: scatter_add([1.0], [0], -1), ValueError, "size must be from 0"),
        (lambda: scatter_add([1.0], [0], "a"), TypeError, "size"),
        (lambda: scatter_add([True], [0]), TypeError, "values has dtype bool"),
        (lambda: scatter_add([1.0], IndexTopology.from_index([0], 2), 3), ValueError, "size is 3"),
        (lambda: scatter_add([1.0], [0], tol=-1), ValueError, "tol"),
        (lambda: segment_sum([1.0], [0], 2.5), TypeError, "size"),
        (lambda: IndexTopology.from_index([2**63]), ValueError, r"index\[0\] = 9223372036854775808"),
        (lambda: IndexTopology.from_index([0], 2**63), ValueError, "size must be from 0 to"),
    ],
)
def test_bad_arguments_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_sizes_that_cannot_fit_raise_before_allocating():
    with pytest.raises(MemoryError):
        scatter_add(np.ones((1, 1 << 20)), [0], 1 << 40)
    with pytest.raises(MemoryError):
        scatter_add(np.ones(1), [0], 1 << 45)
    assert gather(np.broadcast_to(1.0, 1 << 45), [1, 1 << 44]).tolist() == [1, 1]


def test_an_index_that_cannot_fit_is_refused_before_it_is_read():
    endless = np.broadcast_to(np.int64(0), (1 << 43,))
    for call in (
        lambda: gather(np.ones(1), endless),
        lambda: scatter_add(np.ones(1), endless),
        lambda: segment_sum(np.broadcast_to(1.0, endless.shape), endless),
        lambda: gather(np.broadcast_to(1.0, (1, 1 << 40)), endless[: 1 << 25]),
    ):
        with pytest.raises(TooLargeError, match="this machine has"):
            call()


def test_an_example_of_a_dtype_without_a_sum_is_refused():
    for dtype in ("bool", "no dtype"):
        with pytest.raises(DtypeError, match="scatter_add computes in"):
            SCATTER.example((8, 8), dtype)
    assert GATHER.example((8, 8), "bool").first.dtype == "bool"


def test_size_follows_the_index_where_it_is_not_given():
    assert segment_sum(np.ones(3), [4, 0, 4]).tolist() == [1, 0, 0, 0, 2]
    assert segment_sum(np.ones((0, 2)), []).shape == (0, 2)
    assert scatter_add(np.ones(0), [], 3).tolist() == [0, 0, 0]
