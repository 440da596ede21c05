from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import adaptive_compute as ac
from adaptive_compute.core import array as array_module
from adaptive_compute.core.array import ArrayKind, as_array, describe, kind_named, kind_of, register_kind
from adaptive_compute.core.errors import ArgumentError, DtypeError


def test_descriptions_tell_shape_dtype_device_and_kind():
    assert describe(np.zeros((2, 3), "float32")) == ((2, 3), "float32", "cpu", "numpy")
    assert describe(torch.zeros(4, dtype=torch.bfloat16)) == ((4,), "bfloat16", "cpu", "torch")
    assert describe(torch.zeros(4, dtype=torch.bfloat16)).nbytes == 8


@pytest.mark.parametrize("value", [[1, 2.5], 3, 2.0, 1j, True, (1, 2), np.float32(2), range(3), [[1], [2]]])
def test_what_numpy_reads_as_numbers_becomes_an_array(value):
    array = as_array(value, "x")
    assert type(array) is np.ndarray
    assert np.array_equal(array, np.asarray(value))


@pytest.mark.parametrize(
    "value", ["text", None, [1, [2, 3]], [object()], np.array(["a"]), {"a": 1}, np.array([None]), b"x"]
)
def test_what_holds_no_numbers_is_refused_by_name(value):
    with pytest.raises(DtypeError, match="signal"):
        as_array(value, "signal")


def test_a_masked_array_is_refused_because_its_mask_would_be_lost():
    with pytest.raises(ArgumentError, match=r"filled"):
        as_array(np.ma.array([1.0, 2.0], mask=[0, 1]), "x")


def test_the_other_byte_order_is_copied_and_counted():
    ac.transfers(reset=True)
    x = np.arange(4.0).astype(">f8")
    assert np.array_equal(as_array(x, "x"), x)
    assert ac.transfers()["copies"] == {"array in the other byte order": 1}


def test_host_kinds_share_memory_both_ways():
    x = np.arange(6.0).reshape(2, 3)
    view = kind_named("torch").from_numpy(x)
    view[0, 0] = 9
    assert x[0, 0] == 9
    assert np.shares_memory(kind_named("torch").to_numpy(view), x)


def test_read_only_memory_is_viewed_without_a_copy_or_a_warning():
    x = np.arange(6.0)
    x.flags.writeable = False
    view = kind_named("torch").from_numpy(x)
    assert view.data_ptr() == x.ctypes.data
    del x
    assert view.sum() == 15  # the memory is kept alive by the view


def test_negative_strides_are_copied_for_torch_and_counted():
    ac.transfers(reset=True)
    x = np.arange(6.0)[::-1]
    assert torch.equal(kind_named("torch").from_numpy(x), torch.arange(5.0, -1, -1, dtype=torch.float64))
    assert sum(ac.transfers()["copies"].values()) == 1


def test_strides_that_are_no_multiple_of_an_element_are_copied_for_torch():
    x = np.zeros((4, 8), dtype=[("a", "f4"), ("b", "i1")])["a"]
    for call in (ac.fft, ac.sin, ac.sum):
        with ac.using(kernel={"fft": "torch", "sin": "torch-blocked", "sum": "torch"}[call.__name__]):
            assert np.all(call(x) == call(x.copy()))


def test_tensors_without_plain_memory_are_refused_clearly():
    for tensor in (torch.ones(4, 4).to_sparse(), torch.ones(4, 4).to_mkldnn()):
        with pytest.raises(DtypeError, match="dense"):
            ac.fft(tensor)


def test_a_lazily_conjugated_tensor_is_read_right_and_counted():
    ac.transfers(reset=True)
    x = torch.tensor([1 + 2j, 3 - 1j])
    assert np.array_equal(ac.fft(x.conj()).numpy(), np.fft.fft(np.conj(x.numpy())).astype("complex64"))
    with ac.using(kernel="pocketfft"):
        np.testing.assert_allclose(ac.fft(x.conj()).numpy(), np.fft.fft(np.conj(x.numpy())), rtol=1e-6)
    assert sum(ac.transfers()["copies"].values()) >= 1


def test_subclasses_are_of_their_base_kind():
    class Mine(np.ndarray):
        pass

    x = np.arange(4.0).view(Mine)
    assert kind_of(x) is kind_of(np.zeros(1))
    assert type(ac.fft(x)) is np.ndarray
    assert kind_of(torch.nn.Parameter(torch.ones(2))) is kind_named("torch")


def test_objects_of_unknown_libraries_are_not_a_kind():
    assert kind_of(sys) is None
    with pytest.raises(DtypeError, match="module"):
        describe(sys)


@pytest.mark.parametrize(
    ("device", "words"), [("cuda:0", "cuda:0"), ("gpu", "known backends"), (3, "name"), ("", "device")]
)
def test_moving_to_a_device_that_is_not_there_says_what_is(device, words):
    with pytest.raises((ValueError, RuntimeError), match=words):
        ac.to(np.ones(2), device)


def test_moving_to_where_it_is_gives_the_same_array():
    x = np.ones(3)
    assert ac.to(x, "cpu") is x
    t = torch.ones(3)
    assert ac.to(t, "cpu") is t


def test_an_array_of_a_library_that_no_backend_was_asked_about_is_looked_up_once_they_are(monkeypatch):
    class Foreign:
        def __dlpack__(self, **_):
            raise AssertionError("its data are not for NumPy")

    class ForeignKind(ArrayKind):
        name = "foreign"
        modules = (Foreign.__module__.partition(".")[0],)

        def matches(self, kind):
            return kind is Foreign

    asked = []
    monkeypatch.setattr(array_module, "loaders", [lambda: asked.append(1) or register_kind(ForeignKind())])
    monkeypatch.setattr(array_module, "_kinds", dict(array_module._kinds))
    value = Foreign()
    assert as_array(value, "x") is value
    assert as_array(value, "x") is value
    assert asked == [1]
    array_module._by_type.pop(Foreign)
