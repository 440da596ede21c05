"""NUFFT arguments: FINUFFT's signatures, and an error or a warning that names what is wrong."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute import nufft
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import (
    AdaptiveError,
    NufftError,
    NufftTypeError,
    NufftWarning,
    TooLargeError,
)

NAMES = [f"nufft{dim}d{kind}" for dim in (1, 2, 3) for kind in (1, 2, 3)]
X = np.linspace(-3, 3, 5)
C = np.arange(5) + 1j
F = np.arange(4) - 2j


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def parameters(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_finuffts(name):
    finufft = pytest.importorskip("finufft")
    assert parameters(getattr(nufft, name)) == parameters(getattr(finufft, name))


@pytest.mark.parametrize("method", ["__init__", "setpts", "execute", "execute_adjoint"])
def test_plan_signatures_are_finuffts(method):
    finufft = pytest.importorskip("finufft")
    if not hasattr(finufft.Plan, method):
        pytest.skip("this FINUFFT has no such method")
    assert parameters(getattr(nufft.Plan, method)) == parameters(getattr(finufft.Plan, method))


@pytest.mark.parametrize(
    ("call", "named", "error"),
    [
        (lambda: nufft.nufft1d1(X, C, 0), "n_modes", NufftError),
        (lambda: nufft.nufft1d1(X, C, -3), "n_modes", NufftError),
        (lambda: nufft.nufft2d1(X, X, C, (4, 0)), "n_modes", NufftError),
        (lambda: nufft.nufft1d1(X, C, [4]), "n_modes", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4.0), "n_modes", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, (4.5,)), "n_modes", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, (4, 4)), "n_modes", NufftError),
        (lambda: nufft.nufft1d1(X, C), "n_modes", NufftError),
        (lambda: nufft.nufft1d1(X[:4], C, 4), "c", NufftError),
        (lambda: nufft.nufft1d1(X, np.ones((2, 3, 5), complex), 4), "c", NufftError),
        (lambda: nufft.nufft1d1(X, np.ones((0, 5), complex), 4), "c", NufftError),
        (lambda: nufft.nufft1d1(X, C.real, 4), "c", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C.astype("c8"), 4), "c", NufftTypeError),
        (lambda: nufft.nufft1d1(X, np.array(["a"] * 5), 4), "c", NufftTypeError),
        (lambda: nufft.nufft1d1(X, np.array([None] * 5), 4), "c", NufftTypeError),
        (lambda: nufft.nufft1d1(X, np.ma.masked_array(C), 4), "c", NufftError),
        (lambda: nufft.nufft1d1(X[:, None], C, 4), "x", NufftError),
        (lambda: nufft.nufft1d1(np.float64(1.0), C, 4), "x", NufftError),
        (lambda: nufft.nufft1d1(np.arange(5), C, 4), "x", NufftTypeError),
        (lambda: nufft.nufft1d1(X.astype("f2"), C, 4), "x", NufftTypeError),
        (lambda: nufft.nufft1d1(None, C, 4), "x", NufftError),
        (lambda: nufft.nufft2d1(X, X[:3], C, 4), "y", NufftError),
        (lambda: nufft.nufft2d1(X, X.astype("f4"), C, 4), "y", NufftTypeError),
        (lambda: nufft.nufft1d2(X, np.ones((2, 2, 4), complex)), "f", NufftError),
        (lambda: nufft.nufft1d2(X, np.ones(0, complex)), "f", NufftError),
        (lambda: nufft.nufft2d2(X, X, F), "f", NufftError),
        (lambda: nufft.nufft1d3(X, C, X[:, None]), "s", NufftError),
        (lambda: nufft.nufft2d3(X, X, C, X, X[:2]), "t", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, eps=np.nan), "eps", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, eps=np.inf), "eps", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, eps="tight"), "eps", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4, isign=1.5), "isign", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4, modeord=2), "modeord", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, modeord="fft"), "modeord", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4, fftw=10**12), "fftw", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, fftw=1 << 21), "fftw", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, fftw=-1), "fftw", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, nthreads=-1), "nthreads", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, nthreads=1 << 31), "nthreads", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, maxbatchsize=-1), "maxbatchsize", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, spread_max_sp_size=1 << 31), "spread_max_sp_size", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, upsampfac=1.0), "upsampfac", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, upsampfac="2"), "upsampfac", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, upsampfac=1e18), "upsampfac", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, fftw_lock_fun=1), "fftw_lock_fun", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4, out=np.zeros(5, complex)), "out", NufftError),
        (lambda: nufft.nufft1d1(X, C, 4, out=np.zeros(4)), "out", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4, out=np.zeros(8, complex)[::2]), "out", NufftTypeError),
        (lambda: nufft.nufft1d1(X, C, 4, out=[0j] * 4), "out", NufftTypeError),
        (lambda: nufft.nufft1d2(X, F, out=np.zeros(4, complex)), "out", NufftError),
        (lambda: nufft.nufft1d2(np.array([0.0, np.nan]), F), "x", NufftError),
        (lambda: nufft.nufft1d3(X, C, np.array([np.inf])), "s", NufftError),
        (lambda: nufft.Plan(4, (4,)), "nufft_type", NufftError),
        (lambda: nufft.Plan(1, (4,) * 4), "n_modes_or_dim", NufftError),
        (lambda: nufft.Plan(1, (0,)), "n_modes", NufftError),
        (lambda: nufft.Plan(3, 4), "n_modes_or_dim", NufftError),
        (lambda: nufft.Plan(1, (4,), 0), "n_trans", NufftError),
        (lambda: nufft.Plan(1, (4,), dtype="float64"), "dtype", NufftTypeError),
        (lambda: nufft.Plan(1, (4,), dtype="no dtype"), "dtype", NufftTypeError),
        (lambda: nufft.Plan(1, (4,)).execute(C), "setpts", NufftError),
        (lambda: nufft.Plan(1, (4,)).setpts(X, X), "y", NufftError),
        (lambda: nufft.Plan(1, (4, 4)).setpts(X), "y", NufftError),
        (lambda: nufft.Plan(1, (4,)).setpts(X.astype("f4")), "x", NufftTypeError),
        (lambda: nufft.Plan(1, (4,)).setpts(X * np.inf), "x", NufftError),
        (lambda: plan(1).execute(C[:4]), "data", NufftError),
        (lambda: plan(2).execute(np.ones((1, 5), complex)), "data", NufftError),
        (lambda: plan(1).execute_adjoint(C), "data", NufftError),
        (lambda: plan(1).execute(C, np.zeros(3, complex)), "out", NufftError),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(call, named, error):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=rf"\b{named}\b") as caught:
        call()
    assert isinstance(caught.value, (ValueError, RuntimeError))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, AdaptiveError)
    if error is NufftTypeError:
        assert isinstance(caught.value, TypeError)


def plan(nufft_type, **kwargs):
    made = nufft.Plan(nufft_type, (4,), **kwargs)
    made.setpts(X)
    return made


def test_sums_too_large_for_this_machine():
    count = 3000
    x, c = np.linspace(0, 1e7, count), np.ones(count, complex)
    with pytest.raises(TooLargeError, match="points times targets"):
        nufft.nufft1d3(x, c, x)
    with pytest.raises(TooLargeError, match="points times targets"):
        nufft.Plan(3, 1).setpts(x, s=x)
    with pytest.raises(TooLargeError, match="n_modes"):
        nufft.nufft3d1(x, x, x, c, 1 << 16)
    # Too wide for a grid, but few enough for the sum itself.
    points = np.array([0.0, 1e7])
    with ac.using(kernel="direct"):
        got = nufft.nufft1d3(points, np.array([1, 1j]), points)
    np.testing.assert_allclose(got, [1 + 1j, 1 + 1j * np.exp(1e14j)], atol=1e-9)
    assert np.isfinite(nufft.nufft1d3(points, np.array([1, 1j]), points)).all()


@pytest.mark.parametrize("scale", [1e9, 1e300])
def test_type_3_phases_that_leave_no_digit_are_refused(scale):
    with pytest.raises(TooLargeError, match="x times s reaches"):
        nufft.nufft1d3(X * scale, C, X * scale)
    with pytest.raises(TooLargeError, match="y times t reaches"):
        nufft.Plan(3, 2).setpts(X, X * scale, s=X, t=X * scale)


@pytest.mark.parametrize("kernel", [None, "direct", "finufft-1"])
def test_points_too_far_out_to_fold_are_told(kernel):
    if kernel == "finufft-1":
        pytest.importorskip("finufft")
    with ac.using(kernel=kernel):
        for scale in (1e300, 1e17):
            with pytest.raises(NufftError, match="x reaches"):
                nufft.nufft1d1(X * scale, C, 8)
        with pytest.warns(NufftWarning, match="x reaches .* more than eps"):
            nufft.nufft1d2(X * 1e11, F)
        far, turns = X + 2 * np.pi * 1e4, 2 * np.pi * 1e9
        np.testing.assert_allclose(nufft.nufft1d1(far, C, 8), nufft.nufft1d1(X, C, 8), atol=1e-5)
        nufft.nufft1d1(X + turns, C, 8, eps=1e-4)  # little is lost, and less than eps


def test_a_known_call_does_not_excuse_an_argument_of_another_type():
    nufft.nufft1d1(X, C, 4)
    with pytest.raises(NufftTypeError, match="isign"):
        nufft.nufft1d1(X, C, 4, isign=1.0)
    nufft.nufft1d1(X, C, (4,))
    with pytest.raises(NufftTypeError, match="n_modes"):
        nufft.nufft1d1(X, C, (4.0,))


@pytest.mark.parametrize(("dtype", "eps"), [("f4", 1e-8), ("f8", 1e-17), ("f4", 0), ("f8", -1)])
def test_eps_below_the_precision_warns_every_time(dtype, eps):
    x, c = X.astype(dtype), C.astype("c8" if dtype == "f4" else "c16")
    for _ in range(3):
        with pytest.warns(NufftWarning, match="eps") as given:
            nufft.nufft1d1(x, c, 4, eps=eps)
        assert given[0].filename == __file__
    with pytest.warns(NufftWarning, match="eps") as given:
        nufft.Plan(1, (4,), eps=eps, dtype=c.dtype)
    assert given[0].filename == __file__


def test_eps_that_finufft_cannot_reach_at_a_low_upsampling_warns():
    pytest.importorskip("finufft")
    with pytest.warns(NufftWarning, match="FINUFFT warns"):
        nufft.nufft1d1(X, C, 400, eps=1e-13, upsampfac=1.25)


def test_unknown_option_warns():
    with pytest.warns(NufftWarning, match="'flavour'") as given:
        got = nufft.nufft1d1(X, C, 4, flavour=1)
    assert given[0].filename == __file__
    np.testing.assert_allclose(got, nufft.nufft1d1(X, C, 4), atol=1e-5)


def test_engine_options_go_to_finufft():
    decision = ac.explain(nufft.nufft1d1, X, C, 4, spread_sort=0)
    assert "spread_sort" in dict((k.name, why) for k, why in decision.refused)["direct"]
    np.testing.assert_allclose(
        nufft.nufft1d1(X, C, 4, spread_sort=0, upsampfac=2, eps=1e-9), nufft.nufft1d1(X, C, 4, eps=1e-9), atol=1e-7
    )
    with pytest.raises(NufftError, match="spread_thread"):
        nufft.nufft1d1(X, C, 4, spread_thread=99)


def test_nthreads_is_the_calls_thread_count():
    for count in (1, 3):
        assert ac.explain(nufft.nufft1d1, X, C, 4, nthreads=count).request.threads == count
    assert (
        ac.explain(nufft.nufft1d1, X, C, 4, nthreads=0).request.threads
        == ac.explain(nufft.nufft1d1, X, C, 4).request.threads
    )


@pytest.mark.parametrize("name", NAMES)
def test_out_takes_the_result_and_is_returned(name):
    dim, kind = int(name[5]), int(name[7])
    function, points = getattr(nufft, name), [X] * dim
    data = (np.arange(4**dim) + 1j).reshape((4,) * dim) if kind == 2 else C
    args = (*points, data, *[X[:3]] * dim) if kind == 3 else (*points, data)
    more = {"n_modes": 4} if kind == 1 else {}
    expected = function(*args, **more)
    out = np.full(expected.shape, np.nan, complex)
    assert function(*args, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_a_single_transform_may_have_an_axis_of_one(shape):
    expected = nufft.nufft1d1(X, C, 4)
    np.testing.assert_array_equal(nufft.nufft1d1(X, C, out=np.empty(shape, complex)).ravel(), expected)
    np.testing.assert_array_equal(nufft.nufft1d1(X, C[None], out=np.empty(shape, complex)).ravel(), expected)
    assert nufft.nufft1d1(X, C[None], 4).shape == (1, 4)


def test_isign_by_sign_and_default():
    plus, minus = nufft.nufft1d1(X, C, 4, isign=1), nufft.nufft1d1(X, C, 4, isign=-1)
    assert not np.allclose(plus, minus)
    np.testing.assert_array_equal(nufft.nufft1d1(X, C, 4, isign=0), plus)
    np.testing.assert_array_equal(nufft.nufft1d1(X, C, 4, isign=-7), minus)
    np.testing.assert_array_equal(nufft.nufft1d1(X, C, 4, isign=None), plus)
    np.testing.assert_array_equal(nufft.nufft1d2(X, F, isign=None), nufft.nufft1d2(X, F, isign=-1))


def test_plan_attributes_and_order_of_modes():
    made = nufft.Plan(1, (4, 6), 3, dtype="complex64")
    assert (made.type, made.dim, made.n_modes, made.n_trans, made.dtype) == (1, 2, (4, 6), 3, np.dtype("complex64"))
    assert nufft.Plan(3, 2).n_modes == (1, 1)
    assert nufft.Plan(1, 7).n_modes == nufft.Plan(1, [7]).n_modes == nufft.Plan(1, np.array([7])).n_modes == (7,)
    made = nufft.Plan(1, (4, 6))
    back = X[::-1].copy()
    made.setpts(X, back)
    np.testing.assert_allclose(made.execute(C), nufft.nufft2d1(X, back, C, (4, 6)), atol=1e-5)


def test_plan_keeps_its_own_points():
    x = X.copy()
    made = nufft.Plan(1, (4,))
    made.setpts(x)
    expected = made.execute(C)
    x[:] = 0
    np.testing.assert_array_equal(made.execute(C), expected)
    with pytest.raises(NufftError):
        made.setpts(X * np.nan)
    np.testing.assert_array_equal(made.execute(C), expected)
    made.setpts(x)
    np.testing.assert_allclose(made.execute(C), nufft.nufft1d1(x, C, 4), atol=1e-5)


def test_plan_executes_into_out():
    made = plan(2)
    out = np.empty(5, complex)
    assert made.execute(F, out=out) is out
    np.testing.assert_array_equal(out, made.execute(F))
    back = np.empty(4, complex)
    assert made.execute_adjoint(C, out=back) is back
    np.testing.assert_allclose(back, nufft.nufft1d1(X, C, 4, isign=1), atol=1e-5)


def test_points_are_prepared_once(monkeypatch):
    from adaptive_compute.backends.cpu import nufft as room

    prepared = []
    original = room.PointsPlan._set
    monkeypatch.setattr(room.PointsPlan, "_set", lambda self, *args: (prepared.append(1), original(self, *args)))
    x = X.copy()
    for kernel in ("finufft-1", "direct"):
        with ac.using(kernel=kernel):
            prepared.clear()
            for _ in range(4):
                nufft.nufft1d1(x, C, 4)
                nufft.nufft1d1(x.copy(), 2 * C, 4)
            assert len(prepared) == 1
            other = x + 0.25  # two sets of points in turn: each keeps its place
            for _ in range(4):
                nufft.nufft1d1(x, C, 4)
                nufft.nufft1d1(other, C, 4)
            assert len(prepared) == 2


def test_a_refused_call_leaves_the_plan_usable():
    for kernel in ("finufft-1", "direct"):
        with ac.using(kernel=kernel):
            expected = nufft.nufft1d1(X, C, 4)
            for _ in range(6):
                with pytest.raises(NufftError):
                    nufft.nufft1d1(np.full(5, np.nan), C, 4)
            np.testing.assert_array_equal(nufft.nufft1d1(X, C, 4), expected)


def test_copies_are_counted_and_inputs_kept():
    ac.transfers(reset=True)
    data = np.repeat(C, 2)[::2]
    before = data.copy()
    made = plan(1)
    for call in (lambda: nufft.nufft1d1(X, data, 4), lambda: made.execute(data)):
        for _ in range(3):  # every time, and at the caller's line
            with pytest.warns(NufftWarning, match="is not contiguous") as given:
                call()
            assert given[0].filename == __file__
            call_with(made)
    for call in (lambda: nufft.nufft1d1(np.repeat(X, 2)[::2], C, 4), lambda: made.setpts(np.repeat(X, 2)[::2])):
        with pytest.warns(NufftWarning, match="x is not contiguous") as given:
            call()
        assert given[0].filename == __file__
    assert any("contiguous" in why for why in ac.transfers()["copies"])
    np.testing.assert_array_equal(data, before)


def call_with(made):
    """Contiguous data of the same shape between: neither call may take the other's place."""
    nufft.nufft1d1(X, C, 4)
    made.execute(C)


def test_lists_are_read_like_arrays():
    np.testing.assert_array_equal(nufft.nufft1d1(list(X), list(C), 4), nufft.nufft1d1(X, C, 4))


def test_out_is_refused_where_a_gradient_is_wanted():
    torch = pytest.importorskip("torch")
    x, c = torch.from_numpy(X), torch.from_numpy(C).requires_grad_()
    with pytest.raises(NufftError, match="out"):
        nufft.nufft1d1(x, c, 4, out=torch.empty(4, dtype=torch.complex128))


def test_gradient_reaches_points_through_a_plan():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.copy()).requires_grad_()
    made = nufft.Plan(1, (4,), eps=1e-10)
    made.setpts(x)
    (grad,) = torch.autograd.grad(made.execute(torch.from_numpy(C)).abs().square().sum(), x)
    step = 1e-5
    for index in range(5):
        moved = []
        for sign in (1, -1):
            shifted = X.copy()
            shifted[index] += sign * step
            moved.append(np.square(np.abs(nufft.nufft1d1(shifted, C, 4, eps=1e-10))).sum())
        assert abs(grad[index].item() - (moved[0] - moved[1]) / (2 * step)) < 1e-4


def test_a_small_eps_in_single_precision_is_not_refused():
    from adaptive_compute.core.measure import measure
    from adaptive_compute.core.operations.nufft_rule import NUFFT
    from adaptive_compute.core.registry import registry

    few = [r for r in NUFFT().samples(quick=True) if r.params.dim == 1 and r.params.type == 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NUFFT, "samples", lambda self, quick: few)
        profile = measure(registry, operations=["nufft"], quick=True, budget=1.0)
    dispatcher.use_profile(profile)
    x, c = np.linspace(-3, 3, 4000, dtype="f4"), np.ones(4000, "c8")
    for eps in (1e-12, 1e-7, 3e-5, 0.3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NufftWarning)
            decision = ac.explain(nufft.nufft1d1, x, c, 1000, eps=eps)
        assert not [why for kernel, why in decision.refused if kernel.name == "finufft-1"]
        assert decision.chosen.error <= decision.request.operation.tolerance(decision.request)
    several = ac.explain(nufft.nufft1d1, x, np.ones((4, 4000), "c8"), 1000)
    assert several.chosen.compute_s is not None


def test_what_runs_in_double_is_predicted_in_double():
    from adaptive_compute.core.curve import Curve, Measurement
    from adaptive_compute.core.operations.nufft_rule import sample
    from adaptive_compute.core.registry import registry

    (kernel,) = [k for k in registry.kernels("nufft") if k.name == "finufft-1"]
    curves = {}
    for real, modes, error in (("float32", 1 << 4, 1e-4), ("float64", 1 << 12, 1e-6)):
        features = kernel.features(sample(3, 1, real, 1e-6, 1, 1 << 12, modes))
        assert features.name == real
        curves[real] = Curve([Measurement(features.at, 1.0, 0.1, error)])
    wide = sample(3, 1, "float32", 1e-6, 1, 1 << 12, 1 << 16)  # which single precision would spoil
    estimate = kernel.estimate(wide, curves)
    assert kernel.features(wide).name == "float64"
    assert estimate.error < 1e-5 < wide.operation.tolerance(wide)
