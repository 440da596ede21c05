"""FFT: arguments that are not acceptable, SciPy's signatures, and the short way that repeated calls take."""

from __future__ import annotations

import inspect
import threading

import numpy as np
import pytest
import scipy.fft

import adaptive_compute as ac
from adaptive_compute.backends.base import Plan
from adaptive_compute.core import settings
from adaptive_compute.core.errors import AdaptiveError, NoKernelError, SetAsideWarning
from adaptive_compute.core.registry import registry

ONE_AXIS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL = [name + end for end in ("2", "n") for name in ONE_AXIS]
REAL = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
def test_positional_arguments_are_scipys(name):
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(module, name)).parameters.values()
         if p.kind is p.POSITIONAL_OR_KEYWORD]
        for module in (ac, scipy.fft)
    )  # fmt: skip
    assert ours == theirs


@pytest.mark.parametrize("name", ONE_AXIS)
def test_arguments_by_position(name):
    args = (5, 0, "ortho", True, 1)
    assert np.allclose(getattr(ac, name)(REAL, *args), getattr(scipy.fft, name)(REAL, *args))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_arguments_by_position(name):
    args = ((5, 3), (1, 0), "forward", True, 1)
    assert np.allclose(getattr(ac, name)(REAL, *args), getattr(scipy.fft, name)(REAL, *args))


ONE_AXIS_ERRORS = [
    ({"n": 0}, ValueError, r"\(0\) specified: n must be at least 1"),
    ({"n": -3}, ValueError, "n must be at least 1"),
    ({"n": 2.0}, TypeError, "n must be a whole number, got 2.0"),
    ({"n": "a"}, TypeError, "n must be a whole number"),
    ({"n": [3]}, TypeError, "n must be a whole number"),
    ({"axis": 2}, IndexError, "axis=2 does not exist in x, which has 2 axes"),
    ({"axis": -3}, ValueError, "axis=-3"),
    ({"axis": 1.0}, TypeError, "axis must be a whole number"),
    ({"axis": None}, TypeError, "axis must be a whole number"),
    ({"norm": "backwards"}, ValueError, "norm='backwards' is not accepted; use 'backward', 'ortho' or 'forward'"),
    ({"norm": []}, ValueError, "norm"),
    ({"workers": 0}, ValueError, "workers must not be zero"),
    ({"workers": -1000}, ValueError, "workers=-1000"),
    ({"workers": 1.5}, TypeError, "workers must be a whole number"),
    ({"tol": 0}, ValueError, "tol must be a positive"),
    ({"tol": "small"}, ValueError, "tol"),
    ({"tol": True}, ValueError, "tol"),
]


@pytest.mark.parametrize(("kwargs", "kind", "message"), ONE_AXIS_ERRORS)
@pytest.mark.parametrize("name", ONE_AXIS)
def test_a_bad_argument_is_named(name, kwargs, kind, message):
    function = getattr(ac, name)
    with pytest.raises(kind, match=message) as raised:
        function(REAL, **kwargs)
    assert isinstance(raised.value, AdaptiveError)
    # Also where a call that compares equal has been kept: 2.0 == 2, True == 1.
    function(REAL, n=2, axis=1, workers=1, tol=1)
    with pytest.raises(kind, match=message):
        function(REAL, **{"n": 2, "axis": 1, "workers": 1, "tol": 1, **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"s": (0, 3)}, ValueError, r"\(0\) specified: each length in s"),
        ({"s": (-2, 3)}, ValueError, "each length in s"),
        ({"s": (2.0, 3)}, TypeError, "s must be a sequence of whole numbers"),
        ({"s": (None, 3)}, TypeError, "s must be"),
        ({"s": "ab"}, TypeError, "s must be"),
        ({"s": (3, 3, 3), "axes": None}, ValueError, "more axes than are present: s="),
        ({"s": (3,), "axes": (0, 1)}, ValueError, "of the same length"),
        ({"axes": (0, 0)}, ValueError, "axes must be unique"),
        ({"axes": (1, -1)}, ValueError, "axes must be unique"),
        ({"axes": (2,)}, ValueError, "axes=2 does not exist"),
        ({"axes": (0.0, 1)}, TypeError, "axes must be"),
        ({"norm": "none"}, ValueError, "norm='none'"),
        ({"workers": 0}, ValueError, "workers"),
    ],
)
@pytest.mark.parametrize("name", SEVERAL)
def test_a_bad_argument_of_several_axes_is_named(name, kwargs, kind, message):
    with pytest.raises(kind, match=message) as raised:
        getattr(ac, name)(REAL, **kwargs)
    assert isinstance(raised.value, AdaptiveError)


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (5.0, ValueError, "x is 0-dimensional"),
        (np.array(5.0), IndexError, "x is 0-dimensional"),
        (["a"], TypeError, "x has dtype <U1"),
        ([object()], TypeError, "x has dtype object"),
        (None, TypeError, "x has dtype object"),
        ([[1, 2], [3]], TypeError, "x is not an array of numbers"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "x has dtype datetime64"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), ValueError, r"x.filled\("),
    ],
)
def test_what_is_no_array_of_numbers(name, x, kind, message):
    with pytest.raises(kind, match=message):
        getattr(ac, name)(x)


@pytest.mark.parametrize("name", ["rfft", "ihfft", "rfft2", "ihfft2", "rfftn", "ihfftn"])
def test_complex_values_have_no_real_transform(name):
    with pytest.raises(TypeError, match="x must be a real sequence for this transform, it has dtype complex128"):
        getattr(ac, name)(REAL + 1j)


def test_nothing_to_transform():
    for function in (ac.fft, ac.rfft, ac.irfft, ac.fftn, ac.rfftn):
        with pytest.raises(ValueError, match="at least 1"):
            function(np.zeros((3, 0)))
    for function in (ac.irfft, ac.irfft2, ac.hfft, ac.hfftn):  # one bin stands for a signal of no points
        with pytest.raises(ValueError, match="at least 1"):
            function(np.zeros((3, 1)))
    for function in (ac.rfftn, ac.irfftn, ac.hfftn, ac.ihfftn):
        with pytest.raises(ValueError, match="at least 1 axis"):
            function(REAL, axes=())
    for x in (REAL, REAL.astype(np.float32), np.arange(3)):
        result = ac.fftn(x, axes=())
        assert result.dtype == x.dtype
        assert np.array_equal(result, x)


def test_arrays_as_lengths_and_axes():
    assert np.allclose(ac.fftn(REAL, np.array([2, 5])), scipy.fft.fftn(REAL, [2, 5]))
    assert np.allclose(ac.fftn(REAL, axes=np.array([0])), scipy.fft.fftn(REAL, axes=[0]))
    assert np.allclose(ac.fftn(REAL, s=5, axes=1), scipy.fft.fftn(REAL, s=5, axes=1))
    assert np.allclose(ac.irfftn(REAL, s=(3, -1)), scipy.fft.irfftn(REAL, s=(3, -1)))
    assert np.allclose(ac.fft(REAL, np.int64(5), np.int8(0)), scipy.fft.fft(REAL, 5, 0))


def test_a_result_that_cannot_fit_raises_before_anything_is_allocated():
    for call in (lambda: ac.fft([1.0], 1 << 44), lambda: ac.rfftn(REAL, (1 << 24, 1 << 24))):
        with pytest.raises(MemoryError, match="GiB"):
            call()
        with pytest.raises(ValueError, match="GiB"):
            call()


# The short way


def by_hand(x):
    """Return the transform by its sum."""
    n = x.shape[-1]
    return x @ np.exp(-2j * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n)


def test_the_short_way_serves_every_layout():
    """The key is shape and dtype: an array of the same ones may lie in memory in any way."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 10))
    for kernel in registry.kernels("fft"):
        if kernel.device != "cpu":
            continue
        with ac.using(kernel=kernel.name):
            ac.fft(x)
            kept = len(ac.dispatcher.fast)
            assert kept
            big = rng.standard_normal((12, 20))
            read_only = x.copy()
            read_only.flags.writeable = False
            for y in (np.asfortranarray(x), x[::-1, ::-1], big[::2, ::2], read_only, np.broadcast_to(x[:1], x.shape)):
                assert np.allclose(ac.fft(y), by_hand(y))
            assert len(ac.dispatcher.fast) == kept


def test_what_the_short_way_is_not_for():
    class Sub(np.ndarray):
        pass

    x = np.arange(8.0)
    ac.fft(x)
    kept = len(ac.dispatcher.fast)
    assert type(ac.fft(x.view(Sub))) is np.ndarray
    assert np.allclose(ac.fft(x.view(Sub)), by_hand(x))
    with pytest.raises(ValueError, match="masked"):
        ac.fft(np.ma.masked_array(x, x > 3))
    swapped = x.astype(x.dtype.newbyteorder())
    assert np.allclose(ac.fft(swapped), by_hand(x))
    assert np.allclose(ac.fft(swapped), by_hand(x))
    assert np.allclose(ac.fft(x.tolist()), by_hand(x))
    assert len(ac.dispatcher.fast) == kept


def test_a_dtype_of_the_same_shape_has_its_own_way():
    x = np.arange(8.0)
    for dtype in (np.float64, np.float32, np.complex64, np.int16, np.bool_, np.float16):
        for _ in range(2):
            result = ac.fft(x.astype(dtype))
            assert result.dtype == scipy.fft.fft(x.astype(dtype)).dtype
            assert np.allclose(result, by_hand(x.astype(dtype)), atol=1e-2)


def test_choices_are_honoured_after_a_call_was_kept():
    x = np.ones((4, 2 * 29))
    ac.fft(x)
    with ac.using(kernel="torch"), pytest.raises(NoKernelError, match="prime factor"):
        ac.fft(x)
    with ac.using(kernel="no-such-kernel"), pytest.raises(NoKernelError, match="no-such-kernel"):
        ac.fft(x)
    assert ac.fft(x).shape == x.shape


def test_each_choice_has_its_own_plan(monkeypatch):
    ran = []
    for kernel in registry.kernels("fft"):
        plan = kernel.plan

        def noted(request, kernel=kernel, plan=plan):
            ran.append((kernel.name, request.threads))
            return plan(request)

        monkeypatch.setattr(kernel, "plan", noted)
    x = np.ones((4, 16))
    for _ in range(2):
        ac.fft(x)
        with ac.using(kernel="torch", threads=1):
            ac.fft(x)
        ac.fft(x, workers=1)
        with ac.using(threads=1):
            ac.fft(x, workers=2)
    usual = settings.threads(settings.current())
    assert sorted(ran) == sorted([("pocketfft", usual), ("torch", 1), ("pocketfft", 1), ("pocketfft", 2)])


def test_a_profile_that_changes_empties_the_short_way():
    ac.fft(np.ones(8))
    assert ac.dispatcher.fast
    ac.dispatcher.use_profile(ac.dispatcher.profile)
    assert not ac.dispatcher.fast


def test_want_of_memory_hands_over_to_the_next_kernel(monkeypatch):
    x = np.arange(32.0).reshape(4, 8)
    full = threading.Event()
    first = registry.kernels("fft")[0]
    plan = first.plan

    class Failing(Plan):
        def __init__(self, inner):
            self.inner = inner

        def run(self, array):
            if full.is_set():
                raise MemoryError("no room")
            return self.inner.run(array)

        def close(self):
            pass

    monkeypatch.setattr(first, "plan", lambda request: Failing(plan(request)))
    assert np.allclose(ac.fft(x), by_hand(x))
    assert np.allclose(ac.fft(x), by_hand(x))
    full.set()
    with pytest.warns(SetAsideWarning, match=f"{first.name} on cpu failed with MemoryError: no room"):
        assert np.allclose(ac.fft(x), by_hand(x))
    assert np.allclose(ac.fft(x), by_hand(x))  # and stays set aside, without a warning


def test_workers_limit_one_call_only():
    x = np.ones((4, 8))
    before = settings.current()
    ac.fft(x, workers=1)
    assert settings.current() is before
    assert np.allclose(ac.fft(x, workers=-1), by_hand(x))
