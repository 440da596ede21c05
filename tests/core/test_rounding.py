from __future__ import annotations

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core import rounding
from adaptive_compute.core.rounding import as_dtype, rounded_if_ordinary

PAIRS = [("float64", "float32"), ("complex128", "complex64"), ("float32", "float64"), ("complex64", "complex128")]


@pytest.mark.parametrize(("before", "after"), PAIRS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (rounding.BLOCK * 9 + 1,), (7, 40000)])
@pytest.mark.parametrize("threads", [1, 3])
def test_values_are_those_of_numpy_whatever_the_threads(before, after, shape, threads):
    rng = np.random.default_rng(0)
    values = np.asarray(rng.standard_normal(shape) * 1e3).astype(before)
    if before.startswith("complex"):
        values = values * (1 + 2j)
    values = np.asarray(values, before)
    with ac.using(threads=threads):
        result = as_dtype(values, after)
        checked = rounded_if_ordinary(values, after)
    assert result.dtype == after
    assert result.shape == shape
    np.testing.assert_array_equal(result, values.astype(after))
    np.testing.assert_array_equal(checked, result)


def test_any_layout_is_read_and_none_is_written_to():
    base = np.arange(240000.0).reshape(400, 600)
    for view in (base.T, base[::-2, 3:], base[:, ::3], np.broadcast_to(base[0], (300, 600))):
        before = view.copy()
        np.testing.assert_array_equal(as_dtype(view, "float32"), view.astype("float32"))
        np.testing.assert_array_equal(view, before)
    frozen = base.copy()
    frozen.flags.writeable = False
    assert as_dtype(frozen, "float32").flags.writeable


@pytest.mark.parametrize("bad", [1e200, -1e200, 1e26, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, rounding.BLOCK * 3 + 7, -1])
@pytest.mark.parametrize("threads", [1, 3])
def test_one_value_beyond_the_range_is_found_wherever_it_stands(bad, place, threads):
    values = np.ones(rounding.BLOCK * 8)
    values[place] = bad
    both = np.ones(values.size, complex)
    both.imag[place] = bad
    with ac.using(threads=threads):
        assert "beyond what float32 holds" in rounded_if_ordinary(values, "float32")
        assert "beyond what float32 holds" in rounded_if_ordinary(both, "complex64")


def test_small_values_are_ordinary_beside_large_ones_and_not_by_themselves():
    values = np.full(1000, 1e-200)
    assert isinstance(rounded_if_ordinary(values, "float32"), str)
    values[5] = 1.0
    np.testing.assert_array_equal(rounded_if_ordinary(values, "float32"), values.astype("float32"))
    np.testing.assert_array_equal(rounded_if_ordinary(np.zeros(9), "float32"), np.zeros(9, "float32"))


def test_torch_tensors_stay_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    values = torch.randn(3, 70000, dtype=torch.float64)
    for array, dtype in (
        (values, "float32"), (values.T, "float32"), (values.to(torch.float32), "bfloat16"),
        (torch.complex(values, values).conj(), "complex64"),
    ):  # fmt: skip
        result = rounded_if_ordinary(array, dtype)
        assert result.dtype is getattr(torch, dtype)
        assert torch.equal(result.to(array.dtype), array.to(getattr(torch, dtype)).to(array.dtype))
    assert isinstance(rounded_if_ordinary((values * 1e30).to(torch.float32), "bfloat16"), str)
    back = as_dtype(values.to(torch.bfloat16), "float32")
    assert torch.equal(back, values.to(torch.bfloat16).float())
