"""Which transforms wake a library's threads, as the time model has it."""

from __future__ import annotations

import pytest

from adaptive_compute.backends.cpu.fft import _alone, _shared
from adaptive_compute.core.array import Operand
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.fft_rule import FAMILY, FFTParams


def request(shape, axes, kind="c2c", dtype="complex128", threads=8, lengths=None):
    lengths = lengths or tuple(shape[axis] for axis in axes)
    return Request(
        FAMILY, (Operand(shape, dtype, "cpu", "numpy"),), FFTParams(kind, True, lengths, axes, 0), None, threads
    )


# By pocketfft's util::thread_count: transforms over the vector's length, a quarter of that below 1000 points.
@pytest.mark.parametrize(
    ("shape", "axes", "kind", "dtype", "threads"),
    [
        ((7, 9), (1,), "c2c", "complex128", 1), ((8, 49), (1,), "c2c", "complex64", 2),
        ((100, 49), (1,), "c2c", "complex64", 8), ((3, 1000), (1,), "c2c", "complex128", 3),
        ((14, 49), (1,), "r2c", "float32", 1), ((16, 49), (1,), "r2c", "float64", 2),
        ((22, 3), (0,), "c2c", "complex64", 1), ((6, 40), (0, 1), "c2c", "complex64", 8),
    ],
)  # fmt: skip
def test_pocketfft_takes_as_many_threads_as_its_rule_says(shape, axes, kind, dtype, threads):
    assert _shared(request(shape, axes, kind, dtype)) == threads
    assert _shared(request(shape, axes, kind, dtype, threads=1)) == 1


@pytest.mark.parametrize(
    ("shape", "axes", "kind", "dtype", "alone"),
    [
        ((1, 4096), (1,), "c2c", "complex64", True), ((1, 4096), (1,), "r2c", "float32", True),
        ((2, 6), (1,), "r2c", "float64", False), ((8, 49), (1,), "c2c", "complex64", True),
        ((16, 64), (1,), "c2c", "complex64", False), ((9, 12), (0,), "c2c", "complex64", False),
        ((3, 7), (0, 1), "c2c", "complex64", False),
    ],
)  # fmt: skip
def test_mkl_leaves_its_threads_asleep_for_one_transform_or_a_page_of_complex_ones(shape, axes, kind, dtype, alone):
    assert _alone(request(shape, axes, kind, dtype)) == alone
