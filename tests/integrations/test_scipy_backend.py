"""This library as SciPy's backend: the same results, nothing lost on the way, and what is declined reaches SciPy."""

from __future__ import annotations

import inspect
import threading

import numpy as np
import pytest
import scipy.fft

import adaptive_compute as ac
from adaptive_compute.backends.base import Backend, Kernel, Plan
from adaptive_compute.core.errors import DtypeError
from adaptive_compute.core.profile import TIMING_METHOD
from adaptive_compute.core.registry import registry
from adaptive_compute.integrations import scipy as room

NAMES = sorted(name for name in scipy.fft.__all__ if name.endswith(("fft", "fft2", "fftn")))
RNG = np.random.default_rng(3)
REAL = RNG.standard_normal((4, 6))
COMPLEX = REAL + 1j * RNG.standard_normal((4, 6))


@pytest.fixture(autouse=True)
def scipys_own():
    room.declined(reset=True)
    yield
    scipy.fft.set_global_backend("scipy")


@pytest.fixture(params=["block", "process"])
def through_us(request, monkeypatch):
    """The backend for a block or for the process; the list holds the names of the functions of ours that ran."""
    ran = []

    def watched(function):
        return lambda *args, **kwargs: (ran.append(function.__name__), function(*args, **kwargs))[1]

    monkeypatch.setattr(room, "_FUNCTIONS", {method: watched(ours) for method, ours in room._FUNCTIONS.items()})
    if request.param == "process":
        ac.register_with_scipy()
        yield ran
    else:
        with scipy.fft.set_backend(ac.scipy_backend):
            yield ran


def scipys(name, *args, **kwargs):
    with scipy.fft.set_backend("scipy", only=True):
        return getattr(scipy.fft, name)(*args, **kwargs)


def operand(name):
    return (REAL if name.startswith(("rfft", "ihfft")) else COMPLEX).copy()


def test_all_of_scipys_fourier_transforms_are_here():
    assert len(NAMES) == 18
    assert {method.__name__ for method in room._FUNCTIONS} == set(NAMES)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("name", NAMES)
def test_every_transform_of_every_dtype(name, kind, through_us):
    if kind == "complex" and operand(name).dtype == float:  # SciPy takes real sequences only
        with pytest.raises(TypeError):
            getattr(scipy.fft, name)(COMPLEX)
        return
    for dtype in ("f4", "f8", "f2", "i4", "?", "g") if kind == "real" else ("c8", "c16", "G"):
        through_us.clear()
        check_dtype(name, (COMPLEX if kind == "complex" else REAL).astype(dtype), through_us)


def check_dtype(name, x, through_us):
    got, expected = getattr(scipy.fft, name)(x), scipys(name, x)
    assert through_us == [name]
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    single = expected.dtype in (np.float32, np.complex64)
    np.testing.assert_allclose(got, expected, rtol=0, atol=(1e-5 if single else 1e-13) * abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_position", [True, False])
def test_every_argument_by_position_and_by_name(name, by_position, through_us):
    several = name.endswith(("2", "n"))
    given = [(5, 3), (1, 0), "forward", True, 2] if several else [5, 0, "ortho", True, 2]
    names = list(inspect.signature(getattr(ac, name)).parameters)[1:6]
    assert names == (["s", "axes"] if several else ["n", "axis"]) + ["norm", "overwrite_x", "workers"]
    x = operand(name)
    args, kwargs = (given, {}) if by_position else ([], dict(zip(names, given), x=x))
    got = getattr(scipy.fft, name)(*([x] if by_position else []), *args, **kwargs)
    assert through_us == [name]
    np.testing.assert_allclose(got, scipys(name, operand(name), *given), atol=1e-12)
    np.testing.assert_array_equal(x, operand(name))  # overwrite_x permits, and we do not


def test_the_same_function_through_other_parts_of_scipy(through_us):
    scipy_signal = pytest.importorskip("scipy.signal")
    a, b = REAL[0], REAL[1]
    np.testing.assert_allclose(scipy_signal.fftconvolve(a, b), np.convolve(a, b), atol=1e-13)
    assert sorted(through_us) == ["irfftn", "rfftn", "rfftn"]


@pytest.mark.parametrize(
    ("name", "args", "why"),
    [
        ("dct", (REAL,), "dct: not a transform of this library"),
        ("idstn", (REAL,), "idstn: not a transform of this library"),
        ("fht", (REAL[0], 0.1, 0.5), "fht: not a transform of this library"),
        ("fft", (REAL.astype(object),), "fft: an operand of dtype object"),
        ("fft2", (np.ma.masked_array(COMPLEX),), "fft2: a masked array"),
        ("ifftn", ([[None, 2.0]],), "ifftn: a list that holds no numbers"),
    ],
)
def test_what_is_declined_reaches_scipy_and_is_counted(name, args, why, through_us):
    for _ in range(2):
        np.testing.assert_array_equal(getattr(scipy.fft, name)(*args), scipys(name, *args))
    assert room.declined() == {why: 2}
    assert room.declined(reset=True) == {why: 2}
    assert room.declined() == {}


def test_a_plan_of_somebody_elses_is_declined(through_us):
    with pytest.raises(NotImplementedError, match="plan"):
        scipy.fft.fft(REAL, plan=object())
    assert through_us == []
    assert room.declined() == {"fft: a plan of somebody else's": 1}
    scipy.fft.fft(REAL, plan=None)
    assert through_us == ["fft"]


def test_a_complex_sequence_is_no_real_one(through_us):
    with pytest.raises(TypeError, match="real sequence"):
        scipy.fft.rfft(COMPLEX)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"n": 0}, ValueError),
        ({"axis": 7}, IndexError),
        ({"norm": "unitary"}, ValueError),
        ({"workers": 0}, ValueError),
        ({"workers": 1.5}, TypeError),
        ({"n": 2.5}, TypeError),
    ],
)
def test_wrong_arguments_raise_scipys_kind_of_error_here(kwargs, error, through_us):
    with pytest.raises(error):
        scipys("fft", REAL, **kwargs)
    with pytest.raises(error):
        scipy.fft.fft(REAL, **kwargs)
    assert through_us == ["fft"]
    assert room.declined() == {}


def test_workers_of_a_block_are_the_calls_threads(monkeypatch):
    asked = []
    original = room._FUNCTIONS[scipy.fft.fft]
    spy = {
        **room._FUNCTIONS,
        scipy.fft.fft: lambda *a, **k: (asked.append(k.get("workers", a[5:6])), original(*a, **k)),
    }
    monkeypatch.setattr(room, "_FUNCTIONS", spy)
    with scipy.fft.set_backend(ac.scipy_backend), scipy.fft.set_workers(2):
        scipy.fft.fft(REAL)
        scipy.fft.fft(REAL, workers=1)
        scipy.fft.fft(REAL, None, -1, None, False, 1)
    assert asked == [2, 1, (1,)]
    with scipy.fft.set_backend(ac.scipy_backend), scipy.fft.set_workers(2):
        assert ac.explain(scipy.fft.fft, REAL).request.threads == 2
        assert ac.explain(scipy.fft.fft, REAL, workers=1).request.threads == 1


def test_the_process_backend_is_seen_by_every_thread(monkeypatch):
    ac.register_with_scipy()
    ac.register_with_scipy()  # again changes nothing
    kernels = []

    def work():
        kernels.append(ac.explain(scipy.fft.fft, REAL).request.operation.name)
        np.testing.assert_allclose(scipy.fft.fft(REAL), scipys("fft", REAL), atol=1e-13)
        np.testing.assert_allclose(scipy.fft.dct(REAL), scipys("dct", REAL), atol=1e-13)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernels == ["fft"] * 4
    assert room.declined() == {"dct: not a transform of this library": 4}


def test_without_scipy_behind_it_what_is_declined_raises():
    """What ``set_global_backend`` alone does, and why ``register_with_scipy`` is there: only in a fresh process."""
    import subprocess
    import sys

    code = (
        "import numpy, scipy.fft, adaptive_compute as ac\n"
        "scipy.fft.set_global_backend(ac.scipy_backend)\n"
        "try: scipy.fft.dct(numpy.ones(4))\n"
        "except Exception as error: print(type(error).__name__)\n"
        "ac.register_with_scipy()\n"
        "print(scipy.fft.dct(numpy.ones(2)).tolist())"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["BackendNotImplementedError", "[4.0, 0.0]"]


def test_our_kernels_do_not_come_back_through_scipy(through_us, monkeypatch):
    from adaptive_compute.backends.cpu import fft as kernels

    monkeypatch.setattr(kernels, "_engine", lambda: None)  # as if SciPy had moved its own module
    with ac.using(kernel="pocketfft"):
        np.testing.assert_allclose(ac.fft(REAL), scipys("fft", REAL), atol=1e-13)
        np.testing.assert_allclose(scipy.fft.rfft2(REAL), scipys("rfft2", REAL), atol=1e-13)
    assert through_us == ["rfft2"]
    assert room.declined() == {}


class Detour(Kernel):
    """A kernel of somebody else's that calls SciPy's public function."""

    name, operation, device = "detour", "fft", "detour:0"

    def supports(self, request):
        return True if request.params.kind == "c2c" and request.params.forward else "only fft"

    def plan(self, request):
        plan = Plan()
        plan.run = scipy.fft.fft
        return plan


class DetourBackend(Backend):
    name = "detour"

    def devices(self):
        return ["detour:0"]

    def kernels(self):
        return [Detour()]

    def validators(self, device):
        return {"timing": TIMING_METHOD}

    def upload(self, host, device):
        return host

    def download(self, array):
        return array


def test_a_kernel_that_calls_scipy_gets_scipys_own(through_us):
    registry.register(DetourBackend())
    try:
        with ac.using("detour"):
            np.testing.assert_allclose(scipy.fft.fft(REAL), scipys("fft", REAL), atol=1e-13)
    finally:
        registry.unregister("detour")
    assert through_us == ["fft"]
    assert room.declined() == {"fft: called by a kernel of this library": 1}


def test_settings_and_tensors_go_through():
    torch = pytest.importorskip("torch", reason="pip install torch")
    x = torch.tensor(COMPLEX, requires_grad=True)
    with scipy.fft.set_backend(ac.scipy_backend):
        y = scipy.fft.fft(x)
        assert isinstance(y, torch.Tensor)
        y.abs().square().sum().backward()
        with ac.using(kernel="pocketfft"):
            assert ac.explain(scipy.fft.fft, REAL).chosen.kernel.name == "pocketfft"
        # SciPy would read the values of what we refuse, and lose the gradient without a word.
        with pytest.raises(DtypeError):
            scipy.fft.rfft(x)
    torch.testing.assert_close(x.grad, 2 * COMPLEX.shape[1] * x.detach())
    assert room.declined() == {}
