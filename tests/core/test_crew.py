"""Threads that share out numbered work."""

from __future__ import annotations

import os
import threading
import time

import pytest

from adaptive_compute.core.crew import Crew, crew


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_every_number_is_taken_once(count, threads):
    taken = []

    def lane(numbers):
        for number in numbers:
            taken.append(number)
            time.sleep(1e-4)

    crew.share(count, lane, threads)
    assert sorted(taken) == list(range(count))


def test_others_join_and_have_ended_when_the_call_returns():
    seen, running, most = set(), 0, 0
    lock = threading.Lock()

    def lane(numbers):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        for _ in numbers:
            seen.add(threading.get_ident())
            time.sleep(0.005)
        with lock:
            running -= 1

    crew.share(40, lane, 4)
    assert running == 0
    assert 2 <= most <= 4
    assert len(seen) == most


def test_the_caller_does_not_wait_for_threads_that_have_not_begun():
    team = Crew()
    held, done = threading.Event(), threading.Event()

    def slow(numbers):
        for _ in numbers:
            held.wait(10)

    blocked = threading.Thread(target=lambda: (team.share(2, slow, 2), done.set()))
    blocked.start()
    time.sleep(0.05)  # the team's one thread is busy now
    team.share(3, lambda numbers: list(numbers), 2)
    assert not done.is_set()
    held.set()
    blocked.join(10)
    assert done.is_set()


@pytest.mark.parametrize("where", ["caller", "other"])
def test_an_error_ends_the_work_and_is_raised(where):
    caller = threading.get_ident()
    taken = []

    def lane(numbers):
        for number in numbers:
            taken.append(number)
            time.sleep(0.002)
            if (threading.get_ident() == caller) == (where == "caller"):
                raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        crew.share(1000, lane, 3)
    assert len(taken) < 100
    crew.share(5, lambda numbers: list(numbers), 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    crew.share(8, lambda numbers: [time.sleep(1e-3) for _ in numbers], 3)
    child = os.fork()
    if child == 0:
        seen = set()
        crew.share(20, lambda numbers: [(seen.add(threading.get_ident()), time.sleep(0.005)) for _ in numbers], 3)
        os._exit(0 if len(seen) > 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
