"""Arrays of libraries that are known by their protocols alone: JAX and the array API's strict reference."""

import importlib.metadata

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute import nufft
from adaptive_compute.core.array import as_array, describe
from adaptive_compute.core.errors import DtypeError


def _jax():
    pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
    import jax.numpy

    return jax.numpy


def _strict():
    return pytest.importorskip("array_api_strict", reason="not installed: pip install array-api-strict")


@pytest.fixture(params=[_strict, _jax], ids=["strict", "jax"])
def xp(request):
    return request.param()


def made(xp, values):
    return xp.asarray(values.tolist(), dtype=getattr(xp, values.dtype.name)) if values.size else xp.zeros(values.shape)


def read(array):
    return np.asarray(np.from_dlpack(array))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_the_same_kind_comes_out_of_an_fft(xp, rng):
    x = rng.standard_normal((3, 50)).astype(np.float32)
    y = ac.fft(made(xp, x))
    assert type(y) is type(made(xp, x))
    assert str(y.dtype).endswith("complex64")
    np.testing.assert_allclose(read(y), np.fft.fft(x.astype(float)), rtol=0, atol=1e-5)


def test_operands_of_several_dimensions_and_a_longer_transform(xp, rng):
    x = rng.standard_normal((4, 30)).astype(np.float32)
    for n in (20, 30, 64):
        y = ac.rfft(made(xp, x), n=n)
        assert type(y) is type(made(xp, x))
        np.testing.assert_allclose(read(y), np.fft.rfft(x.astype(float), n), rtol=0, atol=2e-5)
    y = ac.fft2(made(xp, x), norm="ortho")
    np.testing.assert_allclose(read(y), np.fft.fft2(x.astype(float), norm="ortho"), rtol=0, atol=2e-5)


def test_expressions_reductions_gathers_and_nufft(xp, rng):
    a, b = rng.standard_normal((2, 1000)).astype(np.float32)
    z = ac.evaluate("a*b + sin(a)", a=made(xp, a), b=made(xp, b))
    assert type(z) is type(made(xp, a))
    np.testing.assert_allclose(read(z), a.astype(float) * b + np.sin(a.astype(float)), atol=1e-5)
    total = ac.sum(made(xp, a))
    np.testing.assert_allclose(np.asarray(read(total)), a.astype(float).sum(), rtol=1e-4)
    index = rng.integers(0, 1000, 77)
    np.testing.assert_array_equal(read(ac.gather(made(xp, a), index)), a[index])
    points = rng.uniform(-3, 3, 500).astype(np.float32)
    values = (rng.standard_normal(500) + 1j * rng.standard_normal(500)).astype(np.complex64)
    modes = nufft.nufft1d1(made(xp, points), made(xp, values), 32, eps=1e-5)
    assert type(modes) is type(made(xp, points))
    k = np.arange(-16, 16)
    direct = np.exp(1j * np.outer(k, points.astype(float))) @ values
    assert np.linalg.norm(read(modes) - direct) < 1e-4 * np.linalg.norm(direct)


def test_attention(xp, rng):
    q, k, v = rng.standard_normal((3, 1, 2, 33, 16)).astype(np.float32)
    out = ac.attention(*(made(xp, x) for x in (q, k, v)), mask=ac.Causal())
    assert type(out) is type(made(xp, q))
    scores = np.einsum("bhid,bhjd->bhij", q, k, dtype=float) / 4
    scores = np.where(np.tril(np.ones((33, 33), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(read(out), weights @ v, atol=1e-5)


def test_the_operand_is_read_in_place_and_left_as_it_was(xp, rng):
    x = rng.standard_normal(64).astype(np.float32)
    given = made(xp, x)
    operand = describe(as_array(given, "x"))
    assert (operand.kind, operand.device, operand.dtype) == (xp.__name__, "cpu", "float32")
    ac.fft(given)
    np.testing.assert_array_equal(read(given), x)


def test_an_empty_array_and_a_scalar(xp):
    assert ac.evaluate("2*a", a=xp.zeros((0, 3))).shape == (0, 3)
    assert float(ac.evaluate("2*a", a=xp.asarray(1.5))) == 3.0


def test_a_device_of_the_host_gives_the_array_itself(xp):
    given = xp.zeros(3)
    assert ac.to(given, "cpu") is given
    assert ac.device_of(given) == "cpu"


def test_a_second_call_with_other_arrays_is_right_too(xp, rng):
    for _ in range(3):
        x = rng.standard_normal(40).astype(np.float32)
        np.testing.assert_allclose(read(ac.fft(made(xp, x))), np.fft.fft(x.astype(float)), atol=1e-5)


def test_a_function_that_jax_traces_is_refused_in_words():
    jnp = _jax()
    import jax

    with pytest.raises(DtypeError, match="gives no data through DLPack"):
        jax.jit(ac.fft)(jnp.ones(8))


def test_bfloat16_of_jax():
    jnp = _jax()
    pytest.importorskip("torch", reason="bfloat16 is read through torch: pip install torch")
    x = np.array([1.0, 2.5, -3.0, 0.5])
    z = ac.evaluate("a + a", a=jnp.asarray(x, dtype=jnp.bfloat16))
    assert str(z.dtype) == "bfloat16"
    np.testing.assert_array_equal(np.asarray(z, dtype=np.float32), 2 * x)


class Bare:
    """Gives its memory and nothing else: no namespace, no ``__array__``."""

    def __init__(self, values, place=None):
        self.values, self.place = values, place

    def __dlpack__(self, **options):
        return self.values.__dlpack__()

    def __dlpack_device__(self):
        return self.place or self.values.__dlpack_device__()


def test_an_array_without_a_namespace_gives_a_numpy_array():
    x = np.arange(8.0)
    y = ac.fft(Bare(x))
    assert type(y) is np.ndarray
    np.testing.assert_allclose(y, np.fft.fft(x), atol=1e-12)


def test_a_bare_array_of_a_dtype_that_numpy_has_not_is_refused():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    with pytest.raises(DtypeError, match="x is not an array of numbers"):
        ac.exp(Bare(torch.ones(4, dtype=torch.bfloat16)))


def test_no_nufft_is_written_into_an_array_known_by_protocol_alone():
    strict = _strict()
    x, c, out = strict.ones(3), strict.ones(3, dtype=strict.complex128), strict.zeros(4, dtype=strict.complex128)
    with pytest.raises(TypeError, match="out cannot be a array_api_strict array"):
        ac.nufft.nufft1d1(x, c, 4, out=out)


class Elsewhere(Bare):
    """An array of a library with a namespace, on a device that nothing here can reach."""

    def __array_namespace__(self, api_version=None):
        return _strict()

    dtype, shape = "float32", (8,)


def test_a_device_that_is_not_known_is_refused():
    with pytest.raises(DtypeError, match="host and CUDA are accepted"):
        ac.fft(Elsewhere(np.arange(8, dtype=np.float32), place=(8, 0)))


def test_the_libraries_under_test_are_named():
    """A test run says which versions it met, so that a change there can be seen."""
    for name in ("array-api-strict",):
        assert importlib.metadata.version(name)


def test_a_result_with_gaps_is_copied_and_counted(xp):
    from adaptive_compute.core.array import kind_of

    given = xp.zeros(3)
    as_array(given, "x")
    before = dict(ac.transfers()["copies"])
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(read(kind_of(given).from_numpy(whole[:, ::2])), whole[:, ::2])
    assert ac.transfers()["copies"] != before
    whole.flags.writeable = False
    np.testing.assert_array_equal(read(kind_of(given).from_numpy(whole)), whole)
