from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.errors import ArgumentError, BackendUnavailable, NoKernelError, SettingsWarning
from adaptive_compute.core.settings import current, from_environment


def test_using_is_scoped_and_nests():
    assert ac.settings.tol is None
    with ac.using(tol=1e-3):
        with ac.using("cpu"):
            assert (ac.settings.tol, ac.settings.backend) == (1e-3, "cpu")
        assert ac.settings.backend is None
    assert ac.settings.tol is None


def test_using_is_undone_by_an_exception():
    with pytest.raises(KeyError), ac.using(threads=1):
        raise KeyError
    assert ac.settings.threads is None


def test_the_same_using_object_can_be_entered_twice():
    choice = ac.using(threads=1)
    with choice, choice:
        assert ac.settings.threads == 1
    assert ac.settings.threads is None


def test_using_decorates_a_function():
    @ac.using(kernel="torch")
    def chosen(x):
        return ac.explain(ac.fft, x).chosen.name

    assert chosen(np.ones(8)) == "torch"
    assert ac.settings.kernel is None


def test_threads_do_not_see_each_others_choice():
    seen = {}
    inside, go = threading.Event(), threading.Event()

    def other():
        inside.wait()
        seen["other"] = ac.settings.kernel
        go.set()

    thread = threading.Thread(target=other)
    thread.start()
    with ac.using(kernel="torch"):
        inside.set()
        go.wait()
        seen["this"] = ac.settings.kernel
    thread.join()
    assert seen == {"other": None, "this": "torch"}


def test_asyncio_tasks_keep_their_own_choice():
    async def task(threads):
        with ac.using(threads=threads):
            await asyncio.sleep(0)
            before = ac.settings.threads
            await asyncio.sleep(0)
            return before, ac.settings.threads

    async def both():
        return await asyncio.gather(task(1), task(2), task(3))

    assert asyncio.run(both()) == [(1, 1), (2, 2), (3, 3)]


def test_equal_choices_find_the_same_cached_decisions():
    with ac.using(tol=1e-3):
        first = current()
    with ac.using(tol=1e-3):
        assert current() is first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tol", 0), ("tol", -1.0), ("tol", float("nan")), ("tol", "small"), ("tol", True), ("threads", 0),
        ("threads", -2), ("threads", 1.5), ("threads", True), ("transfers", "sometimes"), ("precision", "half"),
        ("backend", ""), ("backend", 3), ("kernel", ""), ("device", b"cpu"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_where_it_is_given(name, value):
    with pytest.raises(ArgumentError, match=name):
        ac.using(**{name: value})


def test_the_environment_gives_values_and_their_source():
    settings, sources = from_environment({"ADAPTIVE_BACKEND": "cpu", "ADAPTIVE_THREADS": "3", "ADAPTIVE_TRANSFERS": ""})
    assert (settings.backend, settings.threads, settings.transfers) == ("cpu", 3, "host")
    assert "ADAPTIVE_THREADS" in sources["threads"]
    assert sources["transfers"] == "default"


@pytest.mark.parametrize(
    ("name", "value"), [("ADAPTIVE_THREADS", "many"), ("ADAPTIVE_THREADS", "0"), ("ADAPTIVE_TRANSFERS", "yes")]
)
def test_a_bad_environment_value_names_the_variable(name, value):
    with pytest.raises(ArgumentError, match=name):
        from_environment({name: value})


def test_an_unknown_environment_name_warns():
    with pytest.warns(SettingsWarning, match="ADAPTIVE_BACKNED"):
        from_environment({"ADAPTIVE_BACKNED": "cpu"})


def test_an_unknown_backend_kernel_or_device_raises_and_names_what_there_is():
    x = np.ones(8)
    with ac.using("cdua"), pytest.raises(ArgumentError, match="cpu"):
        ac.fft(x)
    with ac.using(kernel="fftw"), pytest.raises(NoKernelError, match="pocketfft"):
        ac.fft(x)
    with ac.using(device="cuda:7"), pytest.raises(BackendUnavailable, match="cuda:7"):
        ac.fft(x)


def test_settings_tell_where_values_come_from():
    with ac.using(tol=1e-2):
        assert ac.settings.sources()["tol"] == "using"
    assert ac.settings.sources()["tol"] == "default"
    assert "explaining" not in ac.settings.as_dict()


def test_one_using_object_serves_tasks_that_overlap():
    choice = ac.using(threads=1)

    async def task(first, then):
        await asyncio.sleep(first)
        with choice:
            await asyncio.sleep(then)
            return ac.settings.threads

    async def both():
        return await asyncio.gather(task(0, 0.02), task(0.01, 0.03))

    assert asyncio.run(both()) == [1, 1]


def test_using_decorates_a_coroutine_function_and_refuses_a_generator():
    @ac.using(threads=1)
    async def chosen():
        await asyncio.sleep(0)
        return ac.settings.threads

    assert asyncio.run(chosen()) == 1

    def numbers():
        yield 1

    with pytest.raises(ArgumentError, match="generator"):
        ac.using(threads=1)(numbers)
