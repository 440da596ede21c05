"""Resident arrays: what they are, operators, slices, and that nothing leaves the device unless it may."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan.array import DTYPES, VulkanArray
from adaptive_compute.core.errors import (
    ArgumentError,
    ArgumentTypeError,
    AxisError,
    DtypeError,
    ShapeError,
    TransferDenied,
)

DEVICE = "vulkan:0"
RNG = np.random.default_rng(5)


def values(shape, dtype) -> np.ndarray:
    if dtype == "bool":
        return RNG.random(shape) < 0.5
    if np.dtype(dtype).kind in "iu":
        return RNG.integers(0, 100, shape).astype(dtype)
    made = RNG.standard_normal(shape)
    return (made + 1j * RNG.standard_normal(shape) if dtype.startswith("complex") else made).astype(dtype)


NUMPY = [dtype for dtype in DTYPES if dtype != "bfloat16"]


# Being there


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7), (2, 3, 4), (0,), (3, 0, 2)])
def test_there_and_back_gives_the_same_bits(dtype, shape):
    x = values(shape, dtype)
    there = ac.to(x, "vulkan")
    assert isinstance(there, VulkanArray)
    assert (there.shape, there.dtype, there.device, there.ndim) == (shape, dtype, DEVICE, len(shape))
    assert (there.size, there.nbytes) == (x.size, x.nbytes)
    for back in (there.numpy(), ac.to(there, "cpu")):
        assert back.dtype == x.dtype
        assert back.shape == shape
        assert back.tobytes() == x.tobytes()
    assert ac.to(there, DEVICE) is there


def test_any_memory_layout_goes_there():
    x = values((6, 8, 10), "float32")
    for view in (x.T, x[::2, ::-1], x[:, 3], np.broadcast_to(x[0], (4, 8, 10)), np.asfortranarray(x)):
        assert ac.to(view, DEVICE).numpy().tobytes() == view.tobytes()


def test_a_copy_is_a_copy():
    x = values((4,), "float32")
    there = ac.to(x, DEVICE)
    kept = x.copy()
    x[:] = 0
    assert np.array_equal(there.numpy(), kept)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64", "int64", "bool"])
def test_torch_tensors_go_there(dtype):
    torch = pytest.importorskip("torch")
    x = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    there = ac.to(x, "vulkan")
    assert (there.dtype, there.shape) == (dtype, (3, 4))
    if dtype == "bfloat16":
        assert np.array_equal(there.numpy(), x.view(torch.uint16).numpy())
    else:
        assert np.array_equal(there.numpy(), x.numpy())


def test_dtypes_that_cannot_be_there_are_named():
    for x in (np.zeros(3, "U4"), np.zeros(3, "datetime64[s]"), np.zeros(3, object)):
        with pytest.raises((DtypeError, ArgumentTypeError)):
            ac.to(x, DEVICE)


def test_it_says_what_it_is():
    x = ac.to(np.zeros((3, 4), "float32"), DEVICE)
    assert repr(x) == "<VulkanArray 3x4 float32 on vulkan:0>"
    assert len(x) == 3
    with pytest.raises(TypeError, match="without axes"):
        len(ac.to(np.float32(1), DEVICE))
    with pytest.raises(TypeError, match="not known on the host"):
        bool(x)
    with pytest.raises(TypeError):
        hash(x)


# Leaving


def test_nothing_leaves_unless_it_may():
    x = ac.to(np.arange(4, dtype="float32"), DEVICE)
    for leave in (np.asarray, np.from_dlpack, lambda x: np.zeros(4) + np.asarray(x)):
        with pytest.raises(TransferDenied, match=r"transfers='host'; call \.numpy\(\)"):
            leave(x)
    with ac.using(transfers="deny"), pytest.raises(TransferDenied, match="transfers='deny'"):
        np.asarray(x)
    assert x.numpy().tolist() == [0, 1, 2, 3], "numpy() says it aloud"


def test_what_may_leave_is_counted():
    x = ac.to(np.arange(4, dtype="float32"), DEVICE)
    ac.transfers(reset=True)
    with ac.using(transfers="allow"):
        assert np.asarray(x).tolist() == [0, 1, 2, 3]
        assert np.asarray(x, "float64").dtype == "float64"
        assert np.from_dlpack(x).tolist() == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="without a copy"):
            x.__array__(copy=False)
        with pytest.raises(BufferError, match="without a copy"):
            x.__dlpack__(copy=False)
    down = ac.transfers()["transfers"]["vulkan:0 -> cpu"]
    assert (down["count"], down["bytes"]) == (3, 48)


def test_torch_takes_it_by_dlpack():
    torch = pytest.importorskip("torch")
    x = ac.to(np.arange(4, dtype="float32"), DEVICE)
    with ac.using(transfers="allow"):
        assert torch.from_dlpack(x).tolist() == [0, 1, 2, 3]


def test_an_export_is_of_host_memory_alone():
    x = ac.to(np.arange(4, dtype="float32"), DEVICE)
    with ac.using(transfers="allow"):
        assert x.__dlpack_device__() == (1, 0)
        for options in ({"dl_device": (1, 0)}, {"copy": True}, {"max_version": (1, 0)}, {"stream": None}):
            assert "dltensor" in repr(x.__dlpack__(**options))
        with pytest.raises(BufferError, match=r"dl_device=\(2, 0\).*\(1, 0\), only"):
            x.__dlpack__(dl_device=(2, 0))
        with pytest.raises(BufferError, match="stream=1"):
            x.__dlpack__(stream=1)


def test_bits_of_bfloat16_never_pass_for_numbers():
    torch = pytest.importorskip("torch")
    x = ac.to(torch.tensor([1.0, -2.0]).bfloat16(), DEVICE)
    assert x.numpy().tolist() == [0x3F80, 0xC000]
    with ac.using(transfers="allow"):
        with pytest.raises(DtypeError, match="no bfloat16"):
            np.asarray(x)
        with pytest.raises(BufferError, match="no bfloat16"):
            np.from_dlpack(x)


def test_copies_have_memory_of_their_own():
    x = ac.to(np.arange(4, dtype="float32"), DEVICE)
    copies = [copy.copy(x), copy.deepcopy(x), copy.deepcopy({"x": x})["x"]]
    del x
    gc.collect()
    ac.to(np.zeros(4, "float32"), DEVICE)  # where x was
    assert all(made.numpy().tolist() == [0, 1, 2, 3] for made in copies)
    with pytest.raises(TypeError, match=r"bound to this process; send \.numpy\(\)"):
        pickle.dumps(copies[0])


# Parts


X = np.arange(4 * 5 * 6, dtype="float32").reshape(4, 5, 6)
KEYS = [
    0, -1, slice(1, 3), slice(None, None, 2), slice(None, None, -1), (1, 2), (1, 2, 3), (slice(None), 2),
    (..., 3), (0, ..., slice(4, 1, -2)), (None, 1), (slice(1, 2), None, slice(2, None)), slice(3, 1), ...,
    (np.int64(2), slice(-2, None)), (slice(None), slice(None), slice(1, 6, 3)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bool", "int16", "complex64", "complex128"])
def test_slices_are_numpys(key, dtype):
    x = (X % 2).astype(dtype) if dtype == "bool" else X.astype(dtype)
    there = ac.to(x, DEVICE)
    ac.transfers(reset=True)
    part = there[key]
    assert ac.transfers()["transfers"] == {}
    assert part.shape == x[key].shape
    assert np.array_equal(part.numpy(), x[key])


def test_a_slice_is_a_copy_that_outlives_its_array():
    there = ac.to(X, DEVICE)
    part = there[1:, 0]
    del there
    gc.collect()
    ac.to(np.full_like(X, 9), DEVICE)  # takes the memory that was given back
    assert np.array_equal(part.numpy(), X[1:, 0])


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (4, AxisError), (-5, AxisError), ((0, 0, 0, 0), AxisError), ((..., ...), AxisError), (1.5, ArgumentError),
        (np.array([0, 1]), ArgumentError), ("a", ArgumentError), ([0, 1], ArgumentError),
    ],
    ids=str,
)  # fmt: skip
def test_bad_indices_are_refused_in_words(key, error):
    with pytest.raises(error, match="ind"):
        ac.to(X, DEVICE)[key]


def test_reshape():
    there = ac.to(X, DEVICE)
    for shape in ((20, 6), (-1,), (5, -1, 4), (120,)):
        assert np.array_equal(there.reshape(shape).numpy(), X.reshape(shape))
        assert np.array_equal(there.reshape(*shape).numpy(), X.reshape(shape))
    for shape in ((7, -1), (-1, -1), (3, 5), (-2, 60)):
        with pytest.raises(ShapeError):
            there.reshape(shape)


def test_padding_and_cutting_by_a_transform_stay_there():
    x = values((3, 10), "complex64")
    there = ac.to(x, DEVICE)
    ac.transfers(reset=True)
    for n in (7, 10, 16):
        assert np.allclose(ac.fft(there, n=n).numpy(), np.fft.fft(x, n=n), atol=1e-4)
    assert list(ac.transfers()["transfers"]) == ["vulkan:0 -> cpu"], "numpy() alone moved something"


# Arithmetic


def test_operators_are_numpys_and_stay_there():
    x = values((4, 6), "float32")
    y = np.abs(values((4, 6), "float32")) + 0.5
    a, b = ac.to(x, DEVICE), ac.to(y, DEVICE)
    a + b  # the first call of a process may upload constants
    ac.transfers(reset=True)
    made = {
        "a+b": (a + b, x + y), "a-b": (a - b, x - y), "a*b": (a * b, x * y), "a/b": (a / b, x / y),
        "a//b": (a // b, x // y), "a%b": (a % b, x % y), "b**a": (b**a, y**x), "2-a": (2 - a, 2 - x),
        "a+1.5": (a + 1.5, x + np.float32(1.5)), "1/b": (1 / b, 1 / y), "2*a": (2 * a, 2 * x), "-a": (-a, -x),
        "abs": (abs(a), abs(x)), "+a": (+a, x), "a<b": (a < b, x < y), "a<=b": (a <= b, x <= y),
        "a>b": (a > b, x > y), "a>=b": (a >= b, x >= y), "a==b": (a == b, x == y), "a!=b": (a != b, x != y),
    }  # fmt: skip
    assert ac.transfers()["transfers"] == {}
    for name, (found, right) in made.items():
        assert isinstance(found, VulkanArray), name
        assert found.dtype == right.dtype.name, name
        assert np.allclose(found.numpy(), right, rtol=1e-5, atol=1e-6), name


def test_a_chain_of_all_families_makes_no_transfer():
    x = values((8, 64), "complex64")
    there = ac.to(x, DEVICE)

    def chain():
        spectrum = ac.fft(there)
        shifted = spectrum[:, 1:] * 2.0
        return ac.abs(shifted)

    chain()
    ac.transfers(reset=True)
    found = chain()
    assert ac.transfers()["transfers"] == {}
    assert np.allclose(found.numpy(), np.abs(np.fft.fft(x)[:, 1:] * 2), rtol=1e-4, atol=1e-4)


def test_a_host_array_is_no_operand_beside_a_resident_one():
    a = ac.to(values((4,), "float32"), DEVICE)
    for call in (lambda: a + np.ones(4, "float32"), lambda: np.ones(4, "float32") * a):
        with pytest.raises((ArgumentTypeError, TypeError)):
            call()
