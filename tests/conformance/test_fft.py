"""FFT: every kernel against extended precision, over lengths, kinds, norms, axes, dtypes and memory layouts."""

from __future__ import annotations

import platform
import warnings

import numpy as np
import pytest
import scipy.fft
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import adaptive_compute as ac
from adaptive_compute.core.errors import NoKernelError

OPERATION = "fft"
EXTENDED = np.finfo(np.longdouble).eps < 1e-18
BOUND = {"float32": 5e-7, "float64": 2e-15}
needs_extended = pytest.mark.skipif(not EXTENDED, reason="this platform has no extended precision to compare with")
PRECISIONS = ["float32", pytest.param("float64", marks=needs_extended)]

ONE_AXIS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL = [name + end for end in ("2", "n") for name in ONE_AXIS]
FROM_REAL = ("rfft", "ihfft")
TO_REAL = ("irfft", "hfft")
LENGTHS = [*range(1, 65), 100, 101, 243, 257, 509, 600, 1009, 1024, 2187, 4099, 4096, 10007]


def run(kernel, function, *args, **kwargs):
    """Run on one kernel; where it refuses the request, check that it says why, and return None."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            return function(*args, **kwargs)
        except NoKernelError as error:
            refusal = str(error)
    assert refusal.partition(f"{kernel.name} on {kernel.device}: ")[2].strip()
    return None


def wide(x):
    """Return an array in extended precision."""
    return x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)


def operand(name, shape, precision, seed=0):
    """Return random values that a transform takes."""
    rng = np.random.default_rng(seed)
    if name.startswith(FROM_REAL):
        return rng.standard_normal(shape).astype(precision)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(
        {"float32": np.complex64, "float64": np.complex128}[precision]
    )


def error(result, exact):
    """Return the relative L2 error."""
    assert result.shape == exact.shape
    norm = np.linalg.norm(exact.ravel())
    difference = np.linalg.norm((wide(result) - exact).ravel())
    return float(difference / norm) if norm else float(difference)


def one_length(name, n, batch, precision):
    """Return an operand whose transform has n points, and the keyword that says so."""
    if name in TO_REAL:
        return operand(name, (*batch, n // 2 + 1), precision, n), {"n": n}
    return operand(name, (*batch, n), precision, n), {}


# The reference itself


def by_definition(x, n, forward):
    """Return the DFT by its sum; the phase is reduced in integers, so that it is exact."""
    steps = np.outer(np.arange(n), np.arange(n)) % n
    angles = steps.astype(np.longdouble) * (8 * np.arctan(np.longdouble(1))) / n
    return (np.cos(angles) + (-1j if forward else 1j) * np.sin(angles)) @ x


@needs_extended
@pytest.mark.parametrize("n", [*range(1, 65), 101, 257, 600])
def test_the_reference_is_the_definition(n):
    x = wide(operand("fft", n, "float64", n))
    assert error(scipy.fft.fft(x), by_definition(x, n, True)) < 3e-18
    assert error(scipy.fft.ifft(x), by_definition(x, n, False) / n) < 3e-18
    assert error(scipy.fft.rfft(x.real), by_definition(x.real, n, True)[: n // 2 + 1]) < 3e-18
    half = x[: n // 2 + 1].copy()
    half[0] = half[0].real
    if n % 2 == 0:
        half[-1] = half[-1].real
    full = np.concatenate([half, half[1 : (n + 1) // 2][::-1].conj()])
    inverse = by_definition(full, n, False).real
    assert error(scipy.fft.irfft(x[: n // 2 + 1], n) * n, inverse) < 3e-18
    assert error(scipy.fft.hfft(x[: n // 2 + 1], n), by_definition(full, n, True).real) < 3e-18
    assert error(scipy.fft.ihfft(x.real), by_definition(x.real, n, False)[: n // 2 + 1] / n) < 3e-18


# Accuracy


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ONE_AXIS)
def test_error_by_length(kernel, name, precision):
    # A software driver compiles a shader for a second; the test after this one takes every length there too.
    compiles = kernel.device.startswith("vulkan")
    check_lengths(kernel, name, precision, LENGTHS[5::7] if compiles else LENGTHS, ((3,),) if compiles else ((), (3,)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_AXIS)
def test_error_by_every_length(kernel, name):
    check_lengths(kernel, name, "float32", LENGTHS, ((3,),) if kernel.device.startswith("vulkan") else ((), (3,)))


def check_lengths(kernel, name, precision, lengths, batches):
    """Compare with extended precision; at least half of the lengths must run, unless the whole precision is refused."""
    ran = 0
    for n in lengths:
        for batch in batches:
            x, length = one_length(name, n, batch, precision)
            result = run(kernel, getattr(ac, name), x, **length)
            if result is not None:
                ran += 1
                exact = getattr(scipy.fft, name)(wide(x), **length)
                assert error(result, exact) <= BOUND[precision], f"n={n}, batch={batch}"
    assert ran == 0 if float32_alone(kernel, precision) else ran >= len(lengths) // 2


def float32_alone(kernel, precision):
    """Tell whether a kernel refuses this precision as a whole."""
    return kernel.name == "vulkan-fft" and precision == "float64"


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "step"), [("fft", 1), ("rfft", 9), ("irfft", 9)])
def test_error_over_all_primes_and_a_million_points(kernel, name, step, precision):
    sieve = np.ones(10008, bool)
    sieve[:2] = False
    for factor in range(2, 101):
        sieve[factor * factor :: factor] = False
    primes = np.flatnonzero(sieve).tolist()
    assert primes[-1] == 10007
    if kernel.device.startswith("vulkan"):
        step *= 40 if step == 1 else 4  # every length is a shader to compile, which takes a software driver seconds
    for n in [*primes[::-1][::step], 1 << 20]:
        x, length = one_length(name, n, (2,), precision)
        result = run(kernel, getattr(ac, name), x, **length)
        if result is None:
            assert (kernel.name, n) == ("torch", 1 << 20) or float32_alone(kernel, precision)
            continue
        assert error(result, getattr(scipy.fft, name)(wide(x), **length)) <= BOUND[precision], f"n={n}"


@pytest.mark.parametrize("name", ["fft", "rfft", "irfft"])
def test_a_single_transform_of_a_million_points(kernel, name):
    for precision in ("float32", "float64") if EXTENDED else ("float32",):
        x, length = one_length(name, 1 << 20, (), precision)
        result = run(kernel, getattr(ac, name), x, **length)
        if result is None:
            expected = kernel.name == "pocketfft-threads" or float32_alone(kernel, precision)
            assert expected or (kernel.name, name, precision) == ("torch", "irfft", "float64")
        else:
            assert error(result, getattr(scipy.fft, name)(wide(x), **length)) <= BOUND[precision]


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["fft", "rfft", "irfft"])
def test_error_at_random_lengths(kernel, name, precision):
    """Long lengths with every sort of factor, where libraries switch algorithms."""
    rng = np.random.default_rng(3)
    for _ in range(6 if kernel.device.startswith("vulkan") else 12):  # a length of its own is a shader of its own
        n = int(2.0 ** rng.uniform(11.5, 19))
        if rng.random() < 0.5:
            shift = int(rng.integers(3, 9))
            n = max(n >> shift, 1) << shift
        for batch in ((), (2,)):
            x, length = one_length(name, n, batch, precision)
            result = run(kernel, getattr(ac, name), x, **length)
            if result is not None:
                assert error(result, getattr(scipy.fft, name)(wide(x), **length)) <= BOUND[precision], f"{n}, {batch}"


def test_what_is_refused(kernel):
    """Each refusal, so that none covers more than its reason."""
    single, pair = operand("fft", 30, "float64"), operand("fft", (2, 30), "float64")
    refused = {"single": run(kernel, ac.fft, single) is None, "pair": run(kernel, ac.fft, pair) is None}
    refused["factor"] = run(kernel, ac.fft, operand("fft", (2, 2 * 29), "float64")) is None
    refused["factor, float32"] = run(kernel, ac.fft, operand("fft", (2, 2 * 29), "float32")) is None
    refused["factor, loose"] = run(kernel, ac.fft, operand("fft", (2, 2 * 29), "float64"), tol=1e-11) is None
    refused["factor of half"] = run(kernel, ac.rfft, operand("rfft", (2, 4 * 29), "float64")) is None
    refused["factor, odd"] = run(kernel, ac.rfft, operand("rfft", (2, 3 * 29), "float64")) is None
    refused["prime"] = run(kernel, ac.fft, operand("fft", (2, 29), "float64")) is None
    refused["large factor"] = run(kernel, ac.fft, operand("fft", (2, 2 * 151), "float64")) is None
    refused["long, large factor"] = run(kernel, ac.fft, operand("fft", (2, 8 * 2909), "float32")) is None
    refused["long, large factor, loose"] = (
        run(kernel, ac.fft, operand("fft", (2, 8 * 2909), "float32"), tol=1e-4) is None
    )
    refused["million real"] = run(kernel, ac.rfft, operand("rfft", (2, 1 << 20), "float32")) is None
    refused["one long inverse"] = run(kernel, ac.irfft, operand("irfft", (1, (1 << 17) + 1), "float64")) is None
    refused["two long inverses"] = run(kernel, ac.irfft, operand("irfft", (2, (1 << 17) + 1), "float64")) is None
    refused["empty"] = run(kernel, ac.fft, np.zeros((0, 4))) is None
    refused["extended"] = run(kernel, ac.fft, np.zeros((2, 4), np.longdouble)) is None
    expected = {
        "pocketfft": set(),
        "pocketfft-threads": {"single", "one long inverse"},
        "torch": {"factor", "factor of half", "long, large factor", "million real", "one long inverse", "empty",
                  "extended"},
    }  # fmt: skip
    found = {what for what, was in refused.items() if was}
    if kernel.device == "cpu" and kernel.name in expected and platform.machine() in ("x86_64", "AMD64"):
        assert found == expected[kernel.name]
    if kernel.device.startswith("cuda"):
        assert found == {"empty", "extended"}


# Arguments of every kind, together, against SciPy's meaning of them

DTYPES = ["bool", "int8", "uint16", "int32", "int64", "float16", "float32", "float64", "longdouble", "complex64",
          "complex128", "clongdouble"]  # fmt: skip
RESULT = {"float16": "float32", "float32": "float32", "complex64": "float32", "longdouble": "longdouble",
          "clongdouble": "longdouble"}  # fmt: skip
COMPLEX = {"float32": np.complex64, "float64": np.complex128, "longdouble": np.clongdouble}


@st.composite
def layouts(draw, x):
    """Return the array, or one of the same dtype that lies in memory in another way."""
    how = draw(st.sampled_from(["plain", "fortran", "reversed", "strided", "read-only", "broadcast", "offset"]))
    if how == "fortran":
        return np.asfortranarray(x)
    if how == "reversed":
        return x[tuple(slice(None, None, -1) for _ in x.shape)]
    if how == "strided":
        return np.repeat(x, 2, axis=-1)[..., ::2]
    if how == "read-only":
        x = x.copy()
        x.flags.writeable = False
    if how == "broadcast" and len(x):
        return np.broadcast_to(x[:1], (3, *x.shape[1:]))
    if how == "offset":
        return np.concatenate([x, x], axis=0)[len(x) :]
    return x


@st.composite
def calls(draw):
    """Return a function's name, an operand and arguments, not all of them acceptable."""
    name = draw(st.sampled_from(ONE_AXIS + SEVERAL))
    shape = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 4, 5, 7, 8, 11]), min_size=1, max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = 8 * rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 8j * rng.standard_normal(shape)
    elif np.dtype(dtype).kind == "u":
        values = abs(values)
    x = draw(layouts(values.astype(dtype)))
    norm = draw(st.sampled_from([None, "backward", "ortho", "forward"]))
    lengths = st.integers(1, 12)
    if name in ONE_AXIS:
        return name, x, {
            "n": draw(st.none() | lengths), "axis": draw(st.integers(-x.ndim, x.ndim - 1)), "norm": norm,
        }  # fmt: skip
    axes = draw(st.none() | st.lists(st.integers(-x.ndim, x.ndim - 1), min_size=1, max_size=x.ndim))
    count = len(axes) if axes is not None else draw(st.integers(1, x.ndim))
    s = draw(st.none() | st.lists(lengths | st.just(-1), min_size=count, max_size=count))
    chosen = {"s": s, "norm": norm}
    if axes is not None or name.endswith("n"):
        chosen["axes"] = axes
    return name, x, chosen


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=calls())
def test_any_call_means_what_it_means_to_scipy(kernel, call):
    name, x, kwargs = call
    if name in SEVERAL and name.startswith(TO_REAL) and kwargs["s"] is None:
        # One point stands for a real signal of no points; SciPy raises in irfft and gives one point in irfft2.
        assume(x.shape[(kwargs.get("axes") or [-1])[-1]] != 1)
    before = x.copy()
    try:
        exact = getattr(scipy.fft, name)(wide(x) if x.dtype.kind == "c" else x.astype(np.longdouble), **kwargs)
    except (ValueError, TypeError, IndexError):
        with ac.using(kernel=kernel.name), pytest.raises((ValueError, TypeError)):
            getattr(ac, name)(x, **kwargs)
        return
    result = run(kernel, getattr(ac, name), x, **kwargs)
    assert np.array_equal(x, before)
    if result is None:
        return
    real = RESULT.get(
        str(np.dtype(x.dtype).name).replace("float128", "longdouble").replace("complex256", "clongdouble")
    )
    real = real or "float64"
    assert type(result) is np.ndarray
    assert result.dtype == (real if name.startswith(TO_REAL) else COMPLEX[real])
    assert result.flags.writeable
    bound = BOUND.get(real, 4 * float(np.finfo(np.longdouble).eps))
    assert error(result, exact) <= (bound if EXTENDED else max(bound, 4e-15))


@pytest.mark.parametrize("name", ONE_AXIS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [4, 15, 67])
def test_a_bad_value_spoils_its_own_transform_only(kernel, name, bad, n):
    x = operand(name, (3, n), "float32")
    x[1, n // 2] = bad if name.startswith(FROM_REAL) else complex(bad, bad)
    result = run(kernel, getattr(ac, name), x)
    assert not np.isfinite(result[1]).any()
    clean = np.delete(x, 1, axis=0)
    assert error(np.delete(result, 1, axis=0), getattr(scipy.fft, name)(wide(clean))) <= BOUND["float32"]


@pytest.mark.parametrize("name", TO_REAL)
@pytest.mark.parametrize("n", [2, 6, 8, 30, 256])
@pytest.mark.parametrize("short", [1, 2])
def test_bins_that_are_not_given_are_zero(kernel, name, n, short):
    """Also where the next line begins in their place."""
    bins = max(n // 2 + 1 - short, 1)
    x = operand(name, (4, bins), "float32")
    result = run(kernel, getattr(ac, name), x, n=n)
    if result is None:
        assert (kernel.name, bins) == ("pocketfft-threads", 1)
        return
    assert error(result, getattr(scipy.fft, name)(wide(x), n=n)) <= BOUND["float32"]


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
def test_empty_batches_and_single_points(kernel, name):
    several = name in SEVERAL
    for shape in ((0, 4, 6), (1, 1, 4), (4, 1, 3), (1, 4, 1)):
        x = operand(name, shape, "float64")
        kwargs = {"s": (4, 6)} if several and name.startswith(TO_REAL) else {"n": 6} if name in TO_REAL else {}
        result = run(kernel, getattr(ac, name), x, **kwargs, **({"axes": (1, 2)} if several else {}))
        expected = getattr(scipy.fft, name)(x, **kwargs, **({"axes": (1, 2)} if several else {}))
        if result is not None:
            assert result.shape == expected.shape
            assert result.dtype == expected.dtype
            assert np.allclose(result, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
def test_inputs_stay_as_they_are(kernel, name):
    x = operand(name, (6, 8), "float64")
    before = x.copy()
    result = run(kernel, getattr(ac, name), x, overwrite_x=True)
    assert np.array_equal(x, before)
    assert not np.shares_memory(result, x)


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_tensors_give_tensors(kernel, name, precision):
    torch = pytest.importorskip("torch")
    x = operand(name, (4, 6, 10), precision)
    exact = getattr(scipy.fft, name)(wide(x))
    for tensor in (torch.from_numpy(x), torch.from_numpy(x.transpose(2, 0, 1).copy()).permute(1, 2, 0)):
        result = run(kernel, getattr(ac, name), tensor)
        if float32_alone(kernel, precision):
            assert result is None
            continue
        assert isinstance(result, torch.Tensor)
        assert error(result.numpy(), exact) <= max(BOUND[precision], 0 if EXTENDED else 4e-15)
    if not name.startswith(FROM_REAL):
        lazy = torch.from_numpy(x.conj()).conj()
        assert lazy.is_conj()
        result = run(kernel, getattr(ac, name), lazy)
        if result is None:
            assert float32_alone(kernel, precision)
        else:
            assert error(result.resolve_conj().numpy(), exact) <= 4e-7


def test_workers_and_threads_change_nothing_but_time(kernel):
    x = operand("fft", (5, 96), "float64")
    exact = scipy.fft.fft(wide(x))
    for workers in (1, 2, -1):
        result = run(kernel, ac.fft, x, workers=workers)
        if result is not None:
            assert error(result, exact) <= BOUND["float64"] * (1 if EXTENDED else 4)


def test_torch_keeps_its_thread_count(kernel):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with ac.using(threads=1), warnings.catch_warnings():
        run(kernel, ac.fft, np.ones((4, 16)))
    assert torch.get_num_threads() == before
