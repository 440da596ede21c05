"""``import adaptive_compute.nufft as finufft``: the installed FINUFFT and this library, called alike, do alike.

Every call is made on both modules. What they give must agree in values, dtype and shape; what they raise in kind; and
where one warns the other must. The calls on which they are meant to differ stand in two lists of their own, which are
checked as well: a difference that is none any more has to leave its list.
"""

from __future__ import annotations

import ctypes
import inspect
import warnings

import numpy as np
import pytest

from adaptive_compute import cufinufft, nufft
from adaptive_compute.core.errors import AdaptiveError, NoProfileWarning
from adaptive_compute.core.waits import short_waits

with short_waits():  # of FINUFFT's threads, which spin where nothing is said
    finufft = pytest.importorskip("finufft", reason="pip install finufft")

RNG = np.random.default_rng(8)
M = 7
X, Y, Z = RNG.uniform(-np.pi, np.pi, (3, M))
S, T, U = RNG.uniform(-4, 4, (3, 5))
C = RNG.standard_normal(M) + 1j * RNG.standard_normal(M)
CC = np.stack([C, 1j * C[::-1], C.real + 0j])
F1, F2, F3 = (RNG.standard_normal(n) + 1j * RNG.standard_normal(n) for n in [(6,), (4, 5), (3, 4, 2)])
FF2 = np.stack([F2, 2j * F2])


def single(*arrays):
    return [a.astype(np.complex64 if a.dtype.kind == "c" else np.float32) for a in arrays]


def strided(a):
    return np.repeat(a, 2, axis=-1)[..., ::2]


def executed(m, plan, points, data, out=None, adjoint=False):
    made = m.Plan(*plan[0], **plan[1])
    made.setpts(*points)
    return (made.execute_adjoint if adjoint else made.execute)(data, out)


def plan(*args, **kwargs):
    return args, kwargs


def empty(*shape, dtype="c16", order="C"):
    return np.zeros(shape, dtype, order)


def frozen(*shape):
    array = empty(*shape)
    array.flags.writeable = False
    return array


# Name: call. `m` is the module.
SAME = {
    "1d1": lambda m: m.nufft1d1(X, C, 6),
    "1d1 tuple": lambda m: m.nufft1d1(X, C, (6,)),
    "1d1 odd": lambda m: m.nufft1d1(X, C, 9),
    "1d1 numpy integer": lambda m: m.nufft1d1(X, C, np.int32(6)),
    "1d1 by position": lambda m: m.nufft1d1(X, C, 6, None, 1e-9, -1),
    "1d1 by name": lambda m: m.nufft1d1(x=X, c=C, n_modes=6, out=None, eps=1e-9, isign=-1),
    "1d1 out": lambda m: m.nufft1d1(X, C, 6, empty(6)),
    "1d1 out alone": lambda m: m.nufft1d1(X, C, out=empty(6)),
    "1d1 out with an axis of one": lambda m: m.nufft1d1(X, C, 6, empty(1, 6)),
    "1d1 many": lambda m: m.nufft1d1(X, CC, 6),
    "1d1 many out": lambda m: m.nufft1d1(X, CC, 6, empty(3, 6)),
    "1d1 one of many": lambda m: m.nufft1d1(X, C[None], 6),
    "1d1 single": lambda m: m.nufft1d1(*single(X, C), 6, eps=1e-4),
    "1d1 FFT order": lambda m: m.nufft1d1(X, C, 6, modeord=1),
    "1d1 far points": lambda m: m.nufft1d1(X + 20 * np.pi, C, 6, eps=1e-9),
    "1d1 isign of zero": lambda m: m.nufft1d1(X, C, 6, isign=0),
    "1d1 isign of many": lambda m: m.nufft1d1(X, C, 6, isign=np.int64(-3)),
    "1d1 eps numpy": lambda m: m.nufft1d1(X, C, 6, eps=np.float32(1e-3)),
    "1d1 eps of two": lambda m: m.nufft1d1(X, C, 6, eps=2).shape,
    "1d2": lambda m: m.nufft1d2(X, F1),
    "1d2 by position": lambda m: m.nufft1d2(X, F1, None, 1e-9, 1),
    "1d2 out": lambda m: m.nufft1d2(X, F1, empty(M)),
    "1d2 no points": lambda m: m.nufft1d2(X[:0], F1),
    "1d2 single": lambda m: m.nufft1d2(*single(X, F1), eps=1e-4),
    "1d3": lambda m: m.nufft1d3(X, C, S),
    "1d3 by position": lambda m: m.nufft1d3(X, C, S, None, 1e-9, -1),
    "1d3 out": lambda m: m.nufft1d3(X, C, S, empty(5)),
    "1d3 many": lambda m: m.nufft1d3(X, CC, S),
    "1d3 no targets": lambda m: m.nufft1d3(X, C, S[:0]),
    "2d1": lambda m: m.nufft2d1(X, Y, C, (4, 5)),
    "2d1 square": lambda m: m.nufft2d1(X, Y, C, 4),
    "2d1 many FFT order": lambda m: m.nufft2d1(X, Y, CC, (4, 5), modeord=1),
    "2d2": lambda m: m.nufft2d2(X, Y, F2),
    "2d2 many": lambda m: m.nufft2d2(X, Y, FF2),
    "2d2 FFT order": lambda m: m.nufft2d2(X, Y, F2, modeord=1),
    "2d3": lambda m: m.nufft2d3(X, Y, C, S, T),
    "3d1": lambda m: m.nufft3d1(X, Y, Z, C, (3, 4, 2)),
    "3d2": lambda m: m.nufft3d2(X, Y, Z, F3),
    "3d3": lambda m: m.nufft3d3(X, Y, Z, C, S, T, U),
    "3d3 by name": lambda m: m.nufft3d3(x=X, y=Y, z=Z, c=C, s=S, t=T, u=U, eps=1e-9),
    "eps below double": lambda m: m.nufft1d1(X, C, 6, eps=1e-20),
    "eps of zero": lambda m: m.nufft1d1(X, C, 6, eps=0),
    "eps negative": lambda m: m.nufft1d1(X, C, 6, eps=-1.0),
    "eps below single": lambda m: m.nufft1d1(*single(X, C), 6, eps=1e-9),
    "eps text": lambda m: m.nufft1d1(X, C, 6, eps="1e-6"),
    "eps None": lambda m: m.nufft1d1(X, C, 6, eps=None),
    "isign text": lambda m: m.nufft1d1(X, C, 6, isign="+"),
    "isign 1.5": lambda m: m.nufft1d1(X, C, 6, isign=1.5),
    "strengths strided": lambda m: m.nufft1d1(X, strided(C), 6),
    "points strided": lambda m: m.nufft1d1(strided(X), C, 6),
    "targets strided": lambda m: m.nufft1d3(X, C, strided(S)),
    "modes by columns": lambda m: m.nufft2d2(X, Y, np.asfortranarray(F2)),
    "option unknown": lambda m: m.nufft1d1(X, C, 6, flavour=1),
    "option lock": lambda m: m.nufft1d1(X, C, 6, fftw_lock_fun=1),
    "option text": lambda m: m.nufft1d1(X, C, 6, modeord="1"),
    "option fraction": lambda m: m.nufft1d1(X, C, 6, nthreads=1.5),
    "nthreads": lambda m: m.nufft1d1(X, C, 6, nthreads=1),
    "upsampfac": lambda m: m.nufft1d1(X, C, 6, upsampfac=1.25),
    "upsampfac of one": lambda m: m.nufft1d1(X, C, 6, upsampfac=1.0),
    "upsampfac negative": lambda m: m.nufft1d1(X, C, 6, upsampfac=-2),
    "upsampfac text": lambda m: m.nufft1d1(X, C, 6, upsampfac="2"),
    "debug off": lambda m: m.nufft1d1(X, C, 6, debug=0, spread_debug=0),
    "showwarn off": lambda m: m.nufft1d1(X, C, 6, showwarn=0),
    "spread options": lambda m: m.nufft1d1(X, C, 6, spread_sort=0, spread_kerevalmeth=0, spread_kerpad=0, eps=1e-9),
    "spread_thread": lambda m: m.nufft1d1(X, CC, 6, spread_thread=1, maxbatchsize=2, eps=1e-9),
    "spread_thread wrong": lambda m: m.nufft1d1(X, C, 6, spread_thread=99),
    "maxbatchsize negative": lambda m: m.nufft1d1(X, C, 6, maxbatchsize=-1),
    "spread_kerformula text": lambda m: m.nufft1d1(X, C, 6, spread_kerformula="x"),
    "spread only": lambda m: m.nufft1d1(X, C, 40, spreadinterponly=1, upsampfac=2.0),
    "interpolate only": lambda m: m.nufft2d2(X, Y, np.ones((30, 30), complex), spreadinterponly=1, upsampfac=2.0),
    "modes a list": lambda m: m.nufft1d1(X, C, [6]),
    "modes an array": lambda m: m.nufft1d1(X, C, np.array([6])),
    "modes a fraction": lambda m: m.nufft1d1(X, C, 6.0),
    "modes text": lambda m: m.nufft1d1(X, C, ""),
    "modes of fractions": lambda m: m.nufft1d1(X, C, (6.5,)),
    "modes negative": lambda m: m.nufft1d1(X, C, -1),
    "modes too many": lambda m: m.nufft1d1(X, C, (6, 6)),
    "modes missing": lambda m: m.nufft1d1(X, C),
    "points whole": lambda m: m.nufft1d1(np.arange(M), C, 6),
    "points complex": lambda m: m.nufft1d1(C, C, 6),
    "points half": lambda m: m.nufft1d1(X.astype("f2"), C, 6),
    "points a column": lambda m: m.nufft1d1(X[:, None], C, 6),
    "y too short": lambda m: m.nufft2d1(X, Y[:3], C, 6),
    "y a row": lambda m: m.nufft2d1(X, Y[None], C, 6),
    "y single": lambda m: m.nufft2d1(X, *single(Y), C, 6),
    "y missing": lambda m: m.nufft2d1(X, None, C, 6),
    "t too short": lambda m: m.nufft2d3(X, Y, C, S, T[:2]),
    "s a column": lambda m: m.nufft1d3(X, C, S[:, None]),
    "strengths real": lambda m: m.nufft1d1(X, C.real.copy(), 6),
    "strengths single": lambda m: m.nufft1d1(X, *single(C), 6),
    "strengths too many": lambda m: m.nufft1d1(X, np.append(C, 1), 6),
    "strengths in a row": lambda m: m.nufft1d1(X, CC.ravel(), 6),
    "strengths in a cube": lambda m: m.nufft1d1(X, C[None, None], 6),
    "modes in a cube": lambda m: m.nufft1d2(X, np.ones((2, 2, 4), complex)),
    "modes of type 2 flat": lambda m: m.nufft2d2(X, Y, F1),
    "out short": lambda m: m.nufft1d1(X, C, 6, empty(5)),
    "out of other n_trans": lambda m: m.nufft1d1(X, CC, 6, empty(2, 6)),
    "out single": lambda m: m.nufft1d1(X, C, 6, empty(6, dtype="c8")),
    "out real": lambda m: m.nufft1d1(X, C, 6, empty(6, dtype="f8")),
    "out strided": lambda m: m.nufft1d1(X, C, 6, empty(12)[::2]),
    "out by columns": lambda m: m.nufft2d1(X, Y, C, (4, 5), empty(4, 5, order="F")),
    "out frozen": lambda m: m.nufft1d1(X, C, 6, frozen(6)),
    "out of type 2 short": lambda m: m.nufft1d2(X, F1, empty(M - 1)),
    "out of type 3 long": lambda m: m.nufft1d3(X, C, S, empty(6)),
    "far too many modes": lambda m: m.nufft1d1(X, C, 10**13),
    "plan 1": lambda m: executed(m, plan(1, (4, 5)), (X, Y), C),
    "plan 1 list": lambda m: executed(m, plan(1, [4, 5]), (X, Y), C),
    "plan 1 array": lambda m: executed(m, plan(1, np.array([4, 5])), (X, Y), C),
    "plan 1 out": lambda m: executed(m, plan(1, (4, 5)), (X, Y), C, empty(4, 5)),
    "plan 1 many by position": lambda m: executed(m, plan(1, (4, 5), 3, 1e-9, -1, "complex128"), (X, Y), CC),
    "plan 1 adjoint": lambda m: executed(m, plan(1, (4, 5)), (X, Y), F2, adjoint=True),
    "plan 2": lambda m: executed(m, plan(2, (4, 5)), (X, Y), F2),
    "plan 2 single": lambda m: executed(m, plan(2, (4, 5), eps=1e-4, dtype="complex64"), single(X, Y), *single(F2)),
    "plan 2 adjoint": lambda m: executed(m, plan(2, (4, 5)), (X, Y), C, adjoint=True),
    "plan 2 adjoint out": lambda m: executed(m, plan(2, (4, 5)), (X, Y), C, empty(4, 5), adjoint=True),
    "plan 3": lambda m: executed(m, plan(3, 2), (X, Y, None, S, T), C),
    "plan 3 dimension 2.0": lambda m: executed(m, plan(3, 2.0), (X, Y, None, S, T), C),
    "plan 3 adjoint": lambda m: executed(m, plan(3, 2), (X, Y, None, S, T), T + 1j * S, adjoint=True),
    "plan 3 in three": lambda m: executed(m, plan(3, 3), (X, Y, Z, S, T, U), C),
    "plan type 4": lambda m: m.Plan(4, (4,)),
    "plan type 0": lambda m: m.Plan(0, (4,)),
    "plan type 1.0": lambda m: m.Plan(1.0, (4,)),
    "plan in four": lambda m: m.Plan(1, (4,) * 4),
    "plan in none": lambda m: m.Plan(1, ()),
    "plan 3 in four": lambda m: m.Plan(3, 4),
    "plan 3 of modes": lambda m: m.Plan(3, (4, 5)),
    "plan n_trans 0": lambda m: m.Plan(1, (4,), 0),
    "plan n_trans 1.5": lambda m: m.Plan(1, (4,), 1.5),
    "plan dtype real": lambda m: m.Plan(1, (4,), dtype="float64"),
    "plan dtype unknown": lambda m: m.Plan(1, (4,), dtype="no"),
    "plan eps": lambda m: m.Plan(1, (4,), eps=1e-30) and None,
    "plan option unknown": lambda m: m.Plan(1, (4,), flavour=1) and None,
    "plan points of other dtype": lambda m: executed(m, plan(1, (4,), dtype="complex64"), (X,), C),
    "plan points strided": lambda m: executed(m, plan(1, (4,)), (strided(X),), C),
    "plan y missing": lambda m: executed(m, plan(1, (4, 5)), (X,), C),
    "plan data short": lambda m: executed(m, plan(1, (4,)), (X,), C[:-1]),
    "plan data real": lambda m: executed(m, plan(1, (4,)), (X,), C.real.copy()),
    "plan data strided": lambda m: executed(m, plan(1, (4,)), (X,), strided(C)),
    "plan one for many": lambda m: executed(m, plan(1, (4,), 3), (X,), C),
    "plan modes of another": lambda m: executed(m, plan(2, (4, 5)), (X, Y), F2.T.copy()),
    "plan out of another": lambda m: executed(m, plan(2, (4, 5)), (X, Y), F2, empty(M + 1)),
    "plan out frozen": lambda m: executed(m, plan(2, (4, 5)), (X, Y), F2, frozen(M)),
}
# FINUFFT stumbles with an error of Python's own; this library gives the result, or says what is wrong.
WIDER = {
    "lists": lambda m: m.nufft1d1(list(X), list(C), 6),
    "strengths a list": lambda m: m.nufft1d1(X, list(C), 6),
    "points missing": lambda m: m.nufft1d1(None, C, 6),
    "no points": lambda m: m.nufft1d1(X[:0], C[:0], 6),
    "no points of type 3": lambda m: m.nufft1d3(X[:0], C[:0], S),
    "out a list": lambda m: m.nufft1d1(X, C, 6, [0j] * 6),
    "plan of a number": lambda m: executed(m, plan(1, 6), (X,), C),
    "plan without points": lambda m: m.Plan(1, (6,)).execute(C),
    "points of the other byte order": lambda m: m.nufft1d1(X.astype(">f8"), C, 6),
}
# FINUFFT takes these and gives what means nothing, or nothing; this library refuses, by name.
NARROWER = {
    "eps nan": (lambda m: m.nufft1d1(X, C, 6, eps=np.nan), "eps"),
    "modeord 2": (lambda m: m.nufft1d1(X, C, 6, modeord=2), "modeord"),
    "nthreads negative": (lambda m: m.nufft1d1(X, C, 6, nthreads=-1), "nthreads"),
    "spread_sort 5": (lambda m: m.nufft1d1(X, C, 6, spread_sort=5), "spread_sort"),
    "modes a truth value": (lambda m: m.nufft1d1(X, C, True), "n_modes"),
    "no modes": (lambda m: m.nufft1d1(X, C, 0), "n_modes"),
    "no modes of type 2": (lambda m: m.nufft1d2(X, F1[:0]), "f"),
    "points nan": (lambda m: m.nufft1d2(X * np.nan, F1), "x"),
    "a mask that would be lost": (lambda m: m.nufft1d1(X, np.ma.masked_array(C), 6), "c"),
    "a coordinate too many": (lambda m: executed(m, plan(1, (6,)), (X, Y), C), "y"),
    "plan of no modes": (lambda m: m.Plan(1, (4, 0)), "n_modes"),
    "plan of a fraction": (lambda m: m.Plan(1, (4.5,)), "n_modes"),
}
STUMBLES = (AttributeError, IndexError, ZeroDivisionError, RuntimeError)


def outcome(module, call):
    """Return what a call gives (an array, a plan, an exception), and the warnings on the way."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", NoProfileWarning)
        try:
            result = call(module)
        except Exception as error:
            result = error
    return result, [str(w.message) for w in given]


def family(error):
    """The kinds of error that users of FINUFFT catch; ctypes has one of its own for arguments of a wrong type."""
    kinds = (TypeError, ValueError, RuntimeError)
    if isinstance(error, ctypes.ArgumentError):
        return TypeError
    return next(kind for kind in kinds if isinstance(error, kind))


def test_there_are_more_than_a_hundred_calls():
    assert len(SAME) > 100
    assert not (SAME.keys() & WIDER.keys() | SAME.keys() & NARROWER.keys())


@pytest.mark.parametrize("name", SAME)
def test_the_same_call_does_the_same(name, capfd):
    theirs, their_warnings = outcome(finufft, SAME[name])
    ours, our_warnings = outcome(nufft, SAME[name])
    if isinstance(theirs, Exception):
        if isinstance(ours, MemoryError):  # of this machine, which FINUFFT does not ask about
            assert isinstance(ours, ValueError)
            assert "malloc" in str(theirs)
            return
        assert isinstance(ours, family(theirs)), ours
        assert isinstance(ours, AdaptiveError)
        return
    assert not isinstance(ours, Exception), ours
    assert bool(our_warnings) == bool(their_warnings), (our_warnings, their_warnings)
    if isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        wide = 1e-4 if theirs.dtype == np.complex64 else 2e-5
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=wide * max(abs(theirs).max(initial=0), 1))
    else:
        assert type(ours) is type(theirs)


@pytest.mark.parametrize("name", WIDER)
def test_where_finufft_stumbles(name):
    theirs, _ = outcome(finufft, WIDER[name])
    assert isinstance(theirs, STUMBLES)
    ours, _ = outcome(nufft, WIDER[name])
    assert isinstance(ours, (np.ndarray, AdaptiveError)), ours


@pytest.mark.parametrize("name", NARROWER)
def test_what_means_nothing_is_refused(name):
    call, named = NARROWER[name]
    theirs, _ = outcome(finufft, call)
    assert not isinstance(theirs, Exception)
    ours, _ = outcome(nufft, call)
    assert isinstance(ours, (ValueError, RuntimeError))
    assert isinstance(ours, AdaptiveError)
    assert named in str(ours)


def test_out_is_what_comes_back():
    for m in (finufft, nufft):
        out = empty(6)
        assert m.nufft1d1(X, C, 6, out) is out
        made = m.Plan(2, (6,))
        made.setpts(X)
        out = empty(M)
        assert made.execute(F1, out) is out


def test_the_module_has_finuffts_names():
    assert set(finufft.__all__) <= set(nufft.__all__)
    for name in finufft.__all__:
        theirs, ours = getattr(finufft, name), getattr(nufft, name)
        if inspect.isfunction(theirs):
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    public = {name for name in vars(finufft.Plan) if not name.startswith("_")}
    assert public <= set(dir(nufft.Plan))


def test_cufinuffts_options_are_taken_and_change_no_result():
    expected = nufft.nufft2d1(X, Y, C, (4, 5), eps=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = nufft.nufft2d1(
            X, Y, C, (4, 5), eps=1e-9, gpu_method=2, gpu_sort=1, gpu_kerevalmeth=1, gpu_maxsubprobsize=512,
            gpu_binsizex=16, gpu_binsizey=16, gpu_binsizez=2, gpu_maxbatchsize=4, gpu_device_id=0, gpu_stream=0,
            gpu_spreadinterponly=0,
        )  # fmt: skip
    np.testing.assert_allclose(got, expected, atol=1e-8)
    spread = nufft.nufft1d1(X, C, 40, gpu_spreadinterponly=1, upsampfac=2.0)
    np.testing.assert_allclose(spread, finufft.nufft1d1(X, C, 40, spreadinterponly=1, upsampfac=2.0))
    with pytest.raises(TypeError, match="gpu_method"):
        nufft.nufft1d1(X, C, 6, gpu_method="fast")


class TestCufinufft:
    """``import adaptive_compute.cufinufft as cufinufft``: cuFINUFFT's names, defaults and kinds of error."""

    def test_functions_by_cufinuffts_names(self):
        for name, data, points in (("1d1", C, (X,)), ("2d1", C, (X, Y)), ("3d1", C, (X, Y, Z))):
            got = getattr(cufinufft, f"nufft{name}")(*points, data=data, n_modes=4, eps=1e-9, gpu_sort=1)
            np.testing.assert_allclose(got, getattr(nufft, f"nufft{name}")(*points, data, 4, eps=1e-9), atol=1e-7)
        for name, data, points in (("1d2", F1, (X,)), ("2d2", F2, (X, Y)), ("3d2", F3, (X, Y, Z))):
            out = empty(M)
            assert getattr(cufinufft, f"nufft{name}")(*points, data=data, out=out, eps=1e-9, isign=1) is out
            expected = getattr(nufft, f"nufft{name}")(*points, data, eps=1e-9, isign=1)
            np.testing.assert_allclose(out, expected, atol=1e-7)

    def test_plans_are_single_where_nothing_is_said(self):
        made = cufinufft.Plan(1, n_modes=(4, 5), n_trans=1, eps=1e-4, gpu_method=1, gpu_device_id=0)
        assert made.dtype == np.complex64
        assert made.n_modes == (4, 5)
        made.setpts(*single(X, Y))
        np.testing.assert_allclose(made.execute(*single(C)), nufft.nufft2d1(X, Y, C, (4, 5)), atol=1e-2)
        assert cufinufft.Plan(2, 4, dtype="complex128").dtype == np.complex128

    @pytest.mark.parametrize(
        ("call", "said"),
        [
            (lambda: cufinufft.Plan(1, (8, 8), foo=1), "Invalid option 'foo'"),
            (lambda: cufinufft.nufft1d1(X, C, 6, foo=1), "Invalid option 'foo'"),
            (lambda: cufinufft.Plan(1, (8, 8), dtype="uint8"), "complex64 or complex128"),
            (lambda: cufinufft.Plan(3, (8, 8)), "number of dimensions"),
            (lambda: cufinufft.Plan(1, (4,) * 4), "1, 2 or 3"),
            (lambda: cufinufft.Plan(1, (4,)).setpts(X), "x has dtype float64"),
            (lambda: cufinufft.Plan(1, (4, 4)).setpts(*single(X, Y[:3])), "y must have same length"),
            (lambda: cufinufft.Plan(1, (4,)).setpts(*single(X, Y)), "y is not a coordinate"),
            (lambda: cufinufft.nufft1d1(X, C[:3], 6), "data|c must have shape"),
        ],
    )
    def test_errors_are_of_its_kind(self, call, said):
        with pytest.raises(TypeError, match=said) as raised:
            call()
        assert isinstance(raised.value, (ValueError, RuntimeError))


def test_an_option_that_is_the_default_leaves_every_kernel_in_the_running():
    import adaptive_compute as ac

    names = {candidate.name for candidate in ac.explain(nufft.nufft1d1, X, C, 6).candidates}
    given = ac.explain(nufft.nufft1d1, X, C, 6, debug=0, upsampfac=0, spread_sort=2, showwarn=1, maxbatchsize=0)
    assert {candidate.name for candidate in given.candidates} == names > {"direct"}
