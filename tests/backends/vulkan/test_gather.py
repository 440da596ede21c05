"""Gather and scatter-add on a Vulkan device: every dtype, resident arrays, the two ways of ordering dispatches."""

from __future__ import annotations

import math

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import gather as room
from adaptive_compute.backends.vulkan.array import DTYPES, download, upload
from adaptive_compute.backends.vulkan.runtime import strict
from adaptive_compute.core.errors import NoKernelError

DEVICE = "vulkan:0"


def on_device(function, *args, **kwargs):
    with ac.using(device=DEVICE):
        return function(*args, **kwargs)


def values_of(dtype, shape, rng):
    if dtype == "bool":
        return rng.random(shape) < 0.5
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype.kind == "c" else values).astype(dtype)


def exact_sum(values, index, size, axis):
    """Return the sums by a loop over the entries, in a dtype that holds them."""
    values = np.moveaxis(values, axis, 0)
    wide = values.dtype if values.dtype.kind in "iu" else np.result_type(values.dtype, np.longdouble)
    result = np.zeros((size, *values.shape[1:]), wide)
    for value, slot in zip(values, index):
        result[slot] += value
    return np.moveaxis(result, 0, axis)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "bfloat16"])
@pytest.mark.parametrize(("shape", "axis"), [((9,), 0), ((9, 1), 0), ((9, 4), 0), ((3, 9), 1), ((2, 9, 3), 1)])
def test_gather_moves_every_dtype(dtype, shape, axis):
    rng = np.random.default_rng(0)
    x, index = values_of(dtype, shape, rng), rng.integers(0, 9, 13)
    assert np.array_equal(on_device(ac.gather, x, index, axis), np.take(x, index, axis))


@pytest.mark.parametrize("dtype", [*room.SUMS, "refused"])
@pytest.mark.parametrize("size", [1, 5, 700])
@pytest.mark.parametrize("columns", [1, 3, 70])
def test_sums_of_every_dtype(dtype, size, columns):
    rng = np.random.default_rng(size + columns)
    index = rng.integers(0, size, 900)
    if dtype == "refused":
        for wide in ("float64", "complex128"):
            with pytest.raises(NoKernelError, match="compute in float32"):
                on_device(ac.scatter_add, np.ones((900, columns), wide), index, size)
        return
    if dtype == "bfloat16":
        torch = pytest.importorskip("torch")
        x = torch.from_numpy(rng.standard_normal((900, columns))).bfloat16()
        found, x, bound = on_device(ac.scatter_add, x, index, size).double().numpy(), x.double().numpy(), 2.0**-8
    else:
        x = values_of(dtype, (900, columns), rng)
        found, bound = on_device(ac.scatter_add, x, index, size), 2.0**-11 if dtype == "float16" else 2e-6
        assert found.dtype == dtype
    exact = exact_sum(x, index, size, 0)
    if np.dtype(x.dtype).kind in "iu":
        assert np.array_equal(found, exact)
    else:
        assert np.linalg.norm(found - exact) <= bound * np.linalg.norm(exact)


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("size", [2, 256, 257, 70_000])
def test_many_entries_of_skewed_slots(size, is_sorted):
    """Several blocks and passes of the sort, and slots of very different lengths, one cut into parts."""
    rng = np.random.default_rng(1)
    index = (size * rng.random(100_003) ** 4).astype(np.int64)
    index = np.sort(index) if is_sorted else index
    x = rng.standard_normal(len(index)).astype(np.float32) + np.float32(3)
    found = on_device(ac.segment_sum, x, index, size)
    exact = np.bincount(index, x.astype(np.float64), size)
    assert np.linalg.norm(found - exact) <= 6e-8 * np.linalg.norm(exact)


def test_equal_values_do_not_drift():
    x = np.full(1_000_000, 0.1, np.float32)
    found = on_device(ac.segment_sum, x, np.zeros(len(x), int))
    assert abs(found[0] - math.fsum(x.tolist())) <= 6e-8 * found[0]


def test_resident_arrays_stay_on_the_device():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((500, 12)).astype(np.float32)
    index = rng.integers(0, 60, 500)
    there = upload(x, DEVICE)
    ac.transfers(reset=True)
    sums = ac.scatter_add(there, index, 60)
    back = ac.gather(sums, index)
    moved = ac.transfers(reset=True)
    assert (sums.device, back.device) == (DEVICE, DEVICE)
    assert sum(t["bytes"] for t in moved["transfers"].values()) == 2 * index.nbytes  # an index comes from the host
    exact = exact_sum(x, index, 60, 0)[index]
    assert np.linalg.norm(download(back) - exact) <= 2e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize("entries", [0, 1])
def test_slots_without_entries_are_zero(entries):
    x = np.ones((entries, 3), np.float32)
    for given in (x, upload(x, DEVICE)):
        found = on_device(ac.scatter_add, given, np.full(entries, 2), 4)
        found = found if isinstance(found, np.ndarray) else download(found)
        assert found.sum() == 3 * entries


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_same_bits_however_dispatches_are_ordered(dtype):
    rng = np.random.default_rng(3)
    x, index = values_of(dtype, (30_000, 2), rng), rng.integers(0, 1000, 30_000)
    results = [on_device(ac.scatter_add, x, index, 1000) for _ in range(3)]
    with strict():
        results.append(on_device(ac.scatter_add, x, index, 1000))
    assert all(np.array_equal(r, results[0]) for r in results)
