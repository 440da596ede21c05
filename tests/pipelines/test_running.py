"""Placed functions really run: values, kinds, transfers as predicted, failures, threads, settings."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.array import describe
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import DeviceOutOfMemory, SetAsideWarning
from adaptive_compute.core.profile import Profile
from tests.pipelines.machine import ToyParams, machine, played, random_recipe, toy
from tests.simulated import SimArray

FAR = ToyParams(0.5, (1.0, 1e-6, 1.0))  # fast on sim:0 alone
NEAR = ToyParams(0.25, (1e-6, 1.0, 1.0))  # fast on the host alone


def moved() -> dict[str, int]:
    return {name: row["count"] for name, row in ac.transfers(reset=True)["transfers"].items()}


def exact(params: ToyParams, *arrays: np.ndarray) -> np.ndarray:
    return params.factor * sum(arrays) + 1


@pytest.mark.parametrize("seed", range(25))
def test_random_functions_give_what_they_give_call_by_call(seed):
    rng = np.random.default_rng(seed)
    recipe = random_recipe(rng, int(rng.integers(1, 12)))
    peer = 1e-10 if seed % 2 else None
    arrays = [rng.standard_normal(64) for _ in range(recipe.inputs)]
    values = list(arrays)
    for params, operands in recipe.steps:
        values.append(exact(params, *(values[i] for i in operands)))

    @ac.pipeline
    def function(*arrays):
        return played(recipe, *arrays)

    with machine(1e-8, 1e-8, 1e-5, peer):
        for _ in range(2):
            results = function(*arrays)
            assert isinstance(results, tuple)
            for result, i in zip(results, recipe.outputs):
                np.testing.assert_allclose(result, values[i], rtol=1e-12)
        ac.transfers(reset=True)
        function(*arrays)
        placement = function.explain(*arrays)
        told: dict[str, int] = {}
        for step in placement.steps:
            if "move" in step:
                name = f"{step['from']} -> {step['to']}"
                told[name] = told.get(name, 0) + 1
        assert moved() == told
        total = sum(step["seconds"] for step in placement.steps)
        assert total == pytest.approx(placement.seconds)


def test_intermediates_stay_where_they_are_made():
    @ac.pipeline
    def function(x):
        for _ in range(5):
            x = toy(FAR, x)
        return x

    with machine():
        x = np.ones(1000)
        function(x)
        moved()
        result = function(x)
        assert moved() == {"cpu -> sim:0": 1, "sim:0 -> cpu": 1}
        assert type(result) is np.ndarray


def test_device_arrays_stay_on_their_device_and_keep_their_kind():
    @ac.pipeline
    def function(x):
        return toy(NEAR, toy(FAR, x))

    with machine():
        x = SimArray(np.ones(10))
        result = function(x)
        assert describe(result) == describe(x)
        assert moved() == {}
        with ac.using(transfers="allow"):  # now the host may run the second step
            assert function(x).data.tolist() == result.data.tolist()
            assert moved() == {"sim:0 -> cpu": 1, "cpu -> sim:0": 1}
        with ac.using(transfers="deny"):
            function(np.ones(10))
            assert moved() == {}


def test_a_forced_device_is_the_only_one():
    @ac.pipeline
    def function(x):
        return toy(FAR, toy(NEAR, x))

    with machine() as m:
        with ac.using(device="cpu"):
            function(np.ones(10))
        assert (m.kernel("cpu").ran, m.kernel("sim:0").ran) == (2, 0)
        with ac.using(device="sim:0"):
            function(np.ones(10))
        assert (m.kernel("cpu").ran, m.kernel("sim:0").ran) == (2, 2)
        function(np.ones(10))
        assert (m.kernel("cpu").ran, m.kernel("sim:0").ran) == (3, 3)


def test_using_inside_the_function_is_respected():
    @ac.pipeline
    def function(x):
        with ac.using(device="sim:1"):
            x = toy(FAR, x)
        return toy(FAR, x)

    with machine() as m:
        function(np.ones(10))
        assert (m.kernel("sim:1").ran, m.kernel("sim:0").ran) == (1, 1)


def test_every_transfer_is_told_where_that_was_asked():
    @ac.pipeline
    def function(x):
        return toy(FAR, x)

    with machine(), ac.using(transfers="log"), pytest.warns(UserWarning, match="transfer of 80 bytes") as told:
        function(np.ones(10))
    assert len(told) == 2


@pytest.mark.parametrize("error", [MemoryError("full"), DeviceOutOfMemory("full")])
def test_a_kernel_without_memory_lets_the_calls_run_one_by_one(error):
    @ac.pipeline
    def function(x):
        return toy(NEAR, toy(FAR, x))

    x = np.ones(10)
    with machine() as m:
        m.kernel("sim:0").fail = error
        with pytest.warns(SetAsideWarning) as told:
            result = function(x)
        np.testing.assert_allclose(result, exact(NEAR, exact(FAR, x)))
        messages = [str(w.message) for w in told]
        assert any("pipeline function" in m and "toy-sim0 on sim:0" in m and "full" in m for m in messages)
        assert any("runs instead" in m for m in messages)  # the dispatcher's own, of the call by itself
        m.kernel("sim:0").fail = None
        function(x)
        assert "full" in function.explain(x).reason
        function.refresh()
        assert function.explain(x).reason is None


def test_values_that_do_not_fit_a_device_are_not_placed_there():
    @ac.pipeline
    def function(x):
        return toy(FAR, x)

    with machine(room=10_000):
        assert [s["device"] for s in function.explain(np.ones(100)).steps if "run" in s] == ["sim:0"]
        assert [s["device"] for s in function.explain(np.ones(1000)).steps if "run" in s] == ["cpu"]


def test_a_lost_profile_places_anew():
    @ac.pipeline
    def function(x):
        return toy(FAR, x)

    with machine() as m:
        function(np.ones(10))
        assert m.kernel("sim:0").ran == 1
        dispatcher.use_profile(Profile())
        function(np.ones(10))
        assert (m.kernel("sim:0").ran, m.kernel("cpu").ran) == (1, 1)


def test_plans_that_left_the_cache_are_made_again():
    @ac.pipeline
    def function(x):
        return toy(NEAR, toy(FAR, x))

    with machine() as m:
        x = np.ones(10)
        function(x)
        for forget in (dispatcher.invalidate, dispatcher.fast.clear, ac.release):
            forget()
            np.testing.assert_allclose(function(x), exact(NEAR, exact(FAR, x)))
        assert m.kernel("sim:0").ran == 4


def test_a_backend_that_goes_takes_its_placements_along():
    @ac.pipeline
    def function(x):
        return toy(FAR, x)

    for _ in range(2):
        with machine() as m:
            function(np.ones(10))
            assert m.kernel("sim:0").ran == 1


def test_threads_share_a_pipeline():
    recipe = random_recipe(np.random.default_rng(5), 8)

    @ac.pipeline
    def function(*arrays):
        return played(recipe, *arrays)

    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for size in (8, 16, 24) * 4:
            arrays = [rng.standard_normal(size) for _ in range(recipe.inputs)]
            values = list(arrays)
            for params, operands in recipe.steps:
                values.append(exact(params, *(values[i] for i in operands)))
            try:
                for result, i in zip(function(*arrays), recipe.outputs):
                    np.testing.assert_allclose(result, values[i], rtol=1e-12)
            except BaseException as error:
                wrong.append(error)

    with machine(), warnings.catch_warnings():
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# Captured arrays


def test_a_captured_array_is_an_operand_and_another_one_is_noticed():
    weights = np.ones(10)

    @ac.pipeline
    def function(x):
        return toy(FAR, x, weights)

    with machine():
        x = np.zeros(10)
        assert function(x)[0] == 1.5
        weights = np.full(10, 2.0)
        assert function(x)[0] == 2.0
        weights[:] = 4  # in place: it is moved in every call
        assert function(x)[0] == 3.0
        moved()
        function(x)
        assert moved() == {"cpu -> sim:0": 2, "sim:0 -> cpu": 1}


def test_a_read_only_captured_array_is_kept_on_the_device():
    weights = np.ones(10)
    weights.flags.writeable = False

    @ac.pipeline
    def function(x):
        return toy(FAR, x, weights)

    with machine():
        x = np.zeros(10)
        function(x)
        moved()
        assert function(x)[0] == 1.5
        assert moved() == {"cpu -> sim:0": 1, "sim:0 -> cpu": 1}
        weights = np.full(10, 2.0)
        weights.flags.writeable = False
        assert function(x)[0] == 2.0
        assert moved() == {"cpu -> sim:0": 2, "sim:0 -> cpu": 1}
        ac.release()
        assert function(x)[0] == 2.0
        assert moved() == {"cpu -> sim:0": 2, "sim:0 -> cpu": 1}


def test_a_read_only_view_of_a_writeable_array_is_not_kept():
    base = np.ones(10)
    weights = base[:]
    weights.flags.writeable = False

    @ac.pipeline
    def function(x):
        return toy(FAR, x, weights)

    with machine():
        x = np.zeros(10)
        assert function(x)[0] == 1.5
        base[:] = 2
        assert function(x)[0] == 2.0


def test_keep_is_a_promise_that_refresh_ends():
    weights = np.ones(10)
    function = ac.pipeline(lambda x: toy(FAR, x, weights), keep=True)
    with machine():
        x = np.zeros(10)
        assert function(x)[0] == 1.5
        moved()
        function(x)
        assert moved() == {"cpu -> sim:0": 1, "sim:0 -> cpu": 1}
        weights[:] = 2
        function.refresh()
        assert function(x)[0] == 2.0


def test_a_number_on_the_host_is_taken_from_there():
    @ac.pipeline
    def function(x, number):
        return toy(FAR, x, number)

    with machine() as m:
        m.kernel("sim:0").takes_host_scalars = True
        function(np.ones(10), np.array(2.0))
        assert moved() == {"cpu -> sim:0": 1, "sim:0 -> cpu": 1}
        m.kernel("sim:0").takes_host_scalars = False
        function.refresh()
        dispatcher.invalidate()
        function(np.ones(10), np.array(2.0))
        assert moved() == {"cpu -> sim:0": 2, "sim:0 -> cpu": 1}
