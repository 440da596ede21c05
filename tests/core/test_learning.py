"""Learning from real calls: off by default, winners can lose, losers come back, and what is kept is bounded."""

from __future__ import annotations

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core import learning as module
from adaptive_compute.core.curve import Measurement
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import ArgumentError
from adaptive_compute.core.learning import WINDOW
from adaptive_compute.core.operations.fft_rule import FAMILY
from adaptive_compute.core.profile import Link, Profile, Section
from tests.simulated import SimBackend, SimFFT, installed

X = np.arange(256.0) + 0j
QUICK, SLOW = 2e-4, 1e-3


@pytest.fixture
def pair():
    """Two kernels on the host, "one" predicted a little quicker, and nothing else measured."""
    one, two = SimFFT("one", "cpu"), SimFFT("two", "cpu")
    with installed(SimBackend(one, two, devices=())):
        made = {}
        for kernel, seconds in ((one, QUICK), (two, 1.5 * QUICK)):
            features = kernel.features(FAMILY.example((256,), "complex128"))
            made[kernel.name] = {features.name: [Measurement(features.at, seconds, 0.01, 1e-16)]}
        dispatcher.use_profile(Profile({"cpu": Section({}, {"fft": made})}))
        dispatcher.router.learning.clear()
        yield one, two
    dispatcher.router.learning.clear()


def chosen():
    return ac.explain(ac.fft, X).chosen.name


def calls(count):
    for _ in range(count):
        np.testing.assert_allclose(ac.fft(X), np.fft.fft(X))


def test_nothing_is_learned_unless_it_is_asked_for(pair):
    pair[0].delay = SLOW
    calls(3 * WINDOW)
    assert len(dispatcher.router.learning) == 0
    assert chosen() == "one"


def test_a_winner_that_turns_out_slow_loses(pair):
    pair[0].delay = SLOW
    with ac.using(learn=True):
        assert chosen() == "one"
        calls(WINDOW + 1)
        assert chosen() == "two"
        before = pair[0].planned
        calls(WINDOW)
        assert pair[0].planned == before
    assert chosen() == "one"  # where learning is off, what was learned counts for nothing


def test_a_winner_that_is_as_quick_as_predicted_stays_and_is_planned_once(pair):
    with ac.using(learn=True):
        calls(3 * WINDOW)
        assert chosen() == "one"
    assert pair[0].planned == 1


def test_a_loser_comes_back_when_the_other_is_slower_still(pair):
    pair[0].delay, pair[1].delay = SLOW, 5 * SLOW
    with ac.using(learn=True):
        calls(2 * WINDOW + 2)  # both have had their turn
        assert chosen() == "one"
        planned = pair[1].planned
        calls(3 * WINDOW)
        assert pair[1].planned == planned  # and they do not change places for ever


def test_what_was_learned_long_ago_is_not_believed(pair, monkeypatch):
    monkeypatch.setattr(module, "TRUSTED", 2)
    pair[0].delay, pair[1].delay = SLOW, 2 * QUICK  # slower than "one" is predicted
    with ac.using(learn=True):
        calls(WINDOW + 1)
        assert chosen() == "two"
        pair[0].delay = 0.0  # whatever disturbed it is over
        calls(4 * WINDOW)
        assert chosen() == "one"


def test_what_is_kept_is_bounded(pair, monkeypatch):
    monkeypatch.setattr(module, "MOST", 4)
    with ac.using(learn=True):
        for size in range(2, 12):
            for _ in range(WINDOW):
                ac.fft(X[:size])
    assert len(dispatcher.router.learning) == 4


def test_a_call_that_returns_before_its_device_is_done_is_not_timed():
    with installed(SimBackend(SimFFT("one"), SimFFT("two"))):
        link = Link(1e-6, 1e9)
        dispatcher.use_profile(Profile({"cpu": Section({}), "sim:0": Section({}, {}, {}, link, link)}))
        dispatcher.router.learning.clear()
        resident = ac.to(X, "sim")
        with ac.using(learn=True):
            for _ in range(2 * WINDOW):
                ac.fft(resident)
        assert len(dispatcher.router.learning) == 0


@pytest.mark.parametrize("value", ["perhaps", 2, None.__class__])
def test_a_value_that_is_no_switch_is_refused(value):
    with pytest.raises(ArgumentError, match="learn must be True or False"):
        ac.using(learn=value)
