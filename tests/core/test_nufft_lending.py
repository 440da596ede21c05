"""An engine that is ready for the points of a call runs it, whichever plan it belongs to; and only such a one."""

import sys
import threading

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute import nufft
from adaptive_compute.backends.cpu import nufft as nufft_kernels
from adaptive_compute.backends.cpu import nufft_points

SIDE = 480  # a grid that is large enough for a stack to be transformed one by one


@pytest.fixture
def prepared(monkeypatch):
    """Count how often an engine is made ready for points, from a state in which none is."""
    ac.release()
    found = []
    original = nufft_points.PointsPlan._set

    def counted(self, *args):
        found.append(1)
        return original(self, *args)

    monkeypatch.setattr(nufft_points.PointsPlan, "_set", counted)
    yield found
    ac.release()


@pytest.fixture
def case():
    rng = np.random.default_rng(11)
    points = rng.uniform(-np.pi, np.pi, (2, 400))
    strengths = rng.standard_normal((3, 400)) + 1j * rng.standard_normal((3, 400))
    modes = rng.standard_normal((3, SIDE, SIDE)) + 1j * rng.standard_normal((3, SIDE, SIDE))
    return points, strengths, modes


def waves(points, sign):
    k = np.arange(-(SIDE // 2), (SIDE + 1) // 2)
    return [np.exp(1j * sign * np.outer(k, x)) for x in points]


def to_points(points, modes, sign):
    first, second = waves(points, sign)
    return np.einsum("jp,jp->p", first, modes @ second)


def to_modes(points, strengths, sign):
    first, second = waves(points, sign)
    return np.einsum("jp,kp,p->jk", first, second, strengths)


def near(found, expected, tol=2e-9):
    assert np.linalg.norm(found - expected) <= tol * np.linalg.norm(expected)


def test_a_gradient_needs_the_points_of_the_forward_call_only(prepared, case):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    (x, y), strengths, _ = case
    operands = [torch.tensor(a, requires_grad=True) for a in (x, y, strengths[0])]
    with ac.using("cpu", threads=1):  # so that both directions have FINUFFT with one thread
        result = nufft.nufft2d1(*operands, (SIDE, SIDE), eps=1e-10)
        torch.autograd.backward(result, result.detach())
    assert len(prepared) == 1
    g = to_modes((x, y), strengths[0], 1)
    near(operands[2].grad.numpy(), to_points((x, y), g, -1))
    k = np.arange(-(SIDE // 2), (SIDE + 1) // 2)
    slope = to_points((x, y), k[:, None] * g, -1)
    near(operands[0].grad.numpy(), (strengths[0].conj() * slope).imag, 1e-8)


def test_a_stack_in_each_direction(prepared, case):
    points, strengths, modes = case
    with ac.using(kernel="finufft-1"):
        nufft.nufft2d1(*points, strengths[0], (SIDE, SIDE), eps=1e-10)
        back = nufft.nufft2d2(*points, modes, eps=1e-10)  # isign -1 is what type 2 has by default
        same = nufft.nufft2d1(*points, strengths, (SIDE, SIDE), eps=1e-10)
    assert len(prepared) == 1
    for i in range(3):
        near(back[i], to_points(points, modes[i], -1))
        near(same[i], to_modes(points, strengths[i], 1))


@pytest.mark.parametrize(
    "other", [{"eps": 1e-7}, {"isign": 1}, {"modeord": 1}], ids=["tolerance", "sign", "order of modes"]
)
def test_what_differs_is_not_lent(prepared, case, other):
    points, strengths, modes = case
    options = {"eps": 1e-10, **other}
    with ac.using(kernel="finufft-1"):
        nufft.nufft2d1(*points, strengths[0], (SIDE, SIDE), eps=1e-10)
        found = nufft.nufft2d2(*points, modes[0], **options)
    assert len(prepared) == 2
    given = np.fft.fftshift(modes[0]) if "modeord" in other else modes[0]
    near(found, to_points(points, given, options.get("isign", -1)), 1e-6)


def test_other_points_are_never_taken_for_the_same(prepared, case):
    """The mark compares a few points only; one that it does not see decides all the same."""
    points, strengths, modes = case
    moved = points.copy()
    moved[0, 7] += 1.0
    with ac.using(kernel="finufft-1"):
        nufft.nufft2d1(*points, strengths[0], (SIDE, SIDE), eps=1e-10)
        found = nufft.nufft2d2(*moved, modes[0], eps=1e-10)
    assert len(prepared) == 2
    near(found, to_points(moved, modes[0], -1))


def test_threads_share_engines_one_at_a_time(case):
    points, strengths, modes = case
    wanted = to_modes(points, strengths[0], 1), to_points(points, modes[0], -1)
    wrong = []

    def work(turn):
        with ac.using(kernel="finufft-1"):
            for i in range(6):
                if (turn + i) % 2:
                    found, expected = nufft.nufft2d1(*points, strengths[0], (SIDE, SIDE), eps=1e-10), wanted[0]
                else:
                    found, expected = nufft.nufft2d2(*points, modes[0], eps=1e-10), wanted[1]
                if np.linalg.norm(found - expected) > 2e-9 * np.linalg.norm(expected):
                    wrong.append((turn, i))

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_lender_may_come_while_another_thread_looks_for_one(monkeypatch):
    """The set of lenders is walked and grown at once; threads that swap after every step met that often."""
    monkeypatch.setattr(nufft_kernels, "_finufft_plan", lambda *_: None)
    monkeypatch.setattr(nufft_kernels, "_lenders", {})
    request = ac.explain(nufft.nufft2d1, np.zeros(4), np.zeros(4), np.ones(4, complex), (SIDE, SIDE)).request
    kernel, wrong = nufft_kernels.Finufft("finufft-1", threaded=False), []
    kept = [kernel.plan(request)]
    (key,) = nufft_kernels._lenders
    (outcome,) = request.operation.result(request)

    def come():
        for _ in range(1500):
            kept.append(kernel.plan(request))
            del kept[:-40]

    def look():
        try:
            while coming.is_alive():
                nufft_kernels._partners(key, outcome)
        except RuntimeError as error:
            wrong.append(error)

    coming = threading.Thread(target=come)
    threads = [coming, threading.Thread(target=look), threading.Thread(target=look)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
