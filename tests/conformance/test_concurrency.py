"""Eight threads, mixed operations, the same plans: every thread gets its own right result."""

from __future__ import annotations

import threading

import numpy as np

import adaptive_compute as ac
from adaptive_compute.core.dispatcher import dispatcher

THREADS, TURNS = 8, 12


def calls(rng):
    """Yield calls of every family with their expected results, computed by NumPy in float64."""
    n = 384
    x = rng.standard_normal(n) + 1j * rng.standard_normal(n)
    yield "fft", lambda: ac.fft(x), np.fft.fft(x)
    yield "irfft", lambda: ac.irfft(x), np.fft.irfft(x)
    a, b = rng.standard_normal((2, 5000))
    yield "evaluate", lambda: ac.evaluate("a*b + sin(a)", a=a, b=b), a * b + np.sin(a)
    yield "sum", lambda: ac.sum(a.reshape(50, 100), axis=1), a.reshape(50, 100).sum(1)
    points = rng.uniform(-np.pi, np.pi, 200)
    strengths = x[:200]
    k = np.arange(-16, 16)
    yield (
        "nufft",
        lambda: ac.nufft.nufft1d1(points, strengths, 32, eps=1e-9),
        np.exp(1j * np.outer(k, points)) @ strengths,
    )
    q = rng.standard_normal((2, 40, 8))
    scores = np.where(np.tri(40, dtype=bool), q @ q.transpose(0, 2, 1) / np.sqrt(8), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ q
    yield "attention", lambda: ac.attention(q, q, q, mask=ac.Causal()), expected
    index = rng.integers(0, 9, 300)
    totals = np.array([a[:300][index == slot].sum() for slot in range(9)])
    yield "scatter", lambda: ac.scatter_add(a[:300], index, 9), totals


def test_threads_share_plans_and_never_results():
    failures: list[str] = []
    gate = threading.Barrier(THREADS)

    def work(seed):
        rng = np.random.default_rng(seed)
        gate.wait()
        for _ in range(TURNS):
            for name, call, expected in calls(rng):
                got = call()
                if got.shape != expected.shape or not np.allclose(got, expected, rtol=1e-7, atol=1e-7):
                    failures.append(f"{name} in thread {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_forgetting_every_plan_while_calls_run_disturbs_none_of_them():
    stop = threading.Event()
    failures: list[str] = []

    def work(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            for name, call, expected in calls(rng):
                if not np.allclose(call(), expected, rtol=1e-7, atol=1e-7):
                    failures.append(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        dispatcher.invalidate()
        stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_choice_in_one_thread_does_not_reach_another():
    seen: list[str] = []
    gate = threading.Barrier(2)

    def forced():
        with ac.using(kernel="torch"):
            gate.wait()
            seen.append(ac.explain(ac.fft, np.ones(8)).chosen.name)
            gate.wait()

    thread = threading.Thread(target=forced)
    thread.start()
    gate.wait()
    here = ac.explain(ac.fft, np.ones(8))
    gate.wait()
    thread.join()
    assert seen == ["torch"]
    assert len(here.candidates) > 1
