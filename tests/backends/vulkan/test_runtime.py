"""The runtime of one device: one submission a call, memory that is used again, failures, threads, ending."""

from __future__ import annotations

import gc
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import runtime as module
from adaptive_compute.backends.vulkan.memory import size_class
from adaptive_compute.backends.vulkan.program import Builder, spread_groups
from adaptive_compute.backends.vulkan.recording import BINDINGS, STRICT, is_strict, strict
from adaptive_compute.backends.vulkan.runtime import Runtime, runtime
from adaptive_compute.core.errors import (
    BackendUnavailable,
    DeviceLost,
    DeviceOutOfMemory,
    NoKernelError,
    SetAsideWarning,
)
from adaptive_compute.core.profile import Profile, Section
from adaptive_compute.core.router import Router

DEVICE = "vulkan:0"
RNG = np.random.default_rng(11)
X = (RNG.standard_normal((4, 256)) + 1j * RNG.standard_normal((4, 256))).astype("complex64")


POINTS = RNG.uniform(-np.pi, np.pi, (2, 256)).astype("float32")


@pytest.fixture
def fresh():
    """A runtime of its own, whose failures hurt no other test."""
    made = Runtime(0, DEVICE)
    yield made
    made.close()


@pytest.fixture
def opened(fresh, monkeypatch):
    """Let every call of the test run on ``fresh``."""
    ac.release()
    monkeypatch.setattr(module, "_opened", {DEVICE: fresh})
    yield fresh
    ac.release()
    gc.collect()


def copier(n: int, times: int = 1):
    """Return a program that copies n words, so many times one after another."""
    b = Builder()
    buffers = [b.operand(0, 4 * n), *(b.scratch(4 * n) for _ in range(times - 1)), b.result(0, 4 * n)]
    axes = [n, *[1] * 7, 1, *[0] * 7, n, *[1] * 7]
    for source, target in pairwise(buffers):
        b.dispatch(
            "strided_copy", [source, target], writes=[target], groups=spread_groups(-(-n // 64)),
            constants=[64, n, 1, 8, 0, *axes],
        )  # fmt: skip
    return b.program()


# One submission a call


def submits(function) -> int:
    counts = runtime(DEVICE).counts
    before = counts.submits
    function()
    return counts.submits - before


CALLS = [
    pytest.param(lambda: ac.fft(X), id="fft"),
    pytest.param(lambda: ac.fft(X[:, :251]), id="fft-prime"),
    pytest.param(lambda: ac.rfft(X.real), id="rfft"),
    pytest.param(lambda: ac.fftn(X.reshape(4, 16, 16)), id="fftn"),
    pytest.param(lambda: ac.gather(X.real, np.arange(3)), id="gather"),
    pytest.param(lambda: ac.scatter_add(X.real[:3], np.array([0, 1, 0]), 4), id="scatter-add"),
    pytest.param(lambda: ac.evaluate("a*b + sin(a)", a=X.real, b=X.imag), id="evaluate"),
    pytest.param(lambda: ac.sum(X.real, axis=0), id="sum"),
    pytest.param(lambda: ac.logsumexp(X.real), id="logsumexp"),
    pytest.param(lambda: ac.attention(*[X.real.reshape(1, 2, 32, 16)] * 3, mask=ac.Causal()), id="attention"),
    pytest.param(lambda: ac.nufft.nufft2d1(*POINTS, X[0], (16, 16), eps=1e-4), id="nufft-type-1"),
    pytest.param(lambda: ac.nufft.nufft2d2(*POINTS, X.reshape(32, 32), eps=1e-4), id="nufft-type-2"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_host_arrays_is_one_submission(call):
    with ac.using("vulkan"):
        call()  # plans, tables and memory come into being
        assert submits(call) == 1


def test_a_call_on_resident_arrays_is_one_submission_and_no_transfer():
    x = ac.to(X, DEVICE)
    ac.fft(x)
    ac.transfers(reset=True)
    assert submits(lambda: ac.fft(x)) == 1
    assert submits(lambda: ac.ifft(ac.fft(x))) == 2
    assert ac.transfers()["transfers"] == {}


def test_strict_submits_every_dependent_step_on_its_own_and_gives_the_same_bits(fresh):
    program = copier(1000, times=5)
    host = np.arange(1000, dtype=np.uint32)
    ordered, strictly = np.zeros_like(host), np.zeros_like(host)
    fresh.run_host(program, [host], [ordered])
    assert fresh.counts.submits == 1
    with strict():
        assert is_strict()
        fresh.run_host(program, [host], [strictly])
    assert fresh.counts.submits == 1 + 5
    assert not is_strict()
    assert ordered.tolist() == strictly.tolist() == host.tolist()


def test_the_environment_asks_for_strict_mode(monkeypatch):
    for value, expected in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv(STRICT, value)
        assert is_strict() is expected
    with strict(False):
        monkeypatch.setenv(STRICT, "1")
        assert not is_strict()


def test_a_program_is_recorded_once(fresh):
    program, host, out = copier(64), np.arange(64, dtype=np.uint32), np.zeros(64, np.uint32)
    for n in range(4):
        fresh.run_host(program, [host + n], [out])
        assert out.tolist() == (host + n).tolist()
    assert fresh.counts.recorded == 1
    fresh.forget(program)
    fresh.run_host(program, [host], [out])
    assert fresh.counts.recorded == 2


def test_device_time_by_timestamps(fresh):
    program = copier(1 << 16, times=3)
    memory = fresh.upload(np.zeros(1 << 16, np.uint32))
    whole = fresh.gpu_seconds(program, [memory], repeats=3)
    assert len(whole) == 3
    assert all(1e-6 < seconds < 1.0 for seconds in whole)
    for steps in fresh.gpu_step_seconds(program, [memory], repeats=2):
        assert len(steps) == 3
        assert all(seconds > 0 for seconds in steps)
    fresh.release(memory)


# Memory


@pytest.mark.parametrize("nbytes", [1, 4, 255, 256, 257, 1000, 4096, 4097, 10**6, 2**20 + 4, 123456789])
def test_a_size_class_holds_the_size_and_wastes_at_most_an_eighth(nbytes):
    capacity = size_class(nbytes)
    assert capacity >= nbytes
    assert capacity % 4 == 0
    assert capacity <= max(256, nbytes * 1.125 + 64)
    assert size_class(capacity) == capacity


def test_a_size_class_never_exceeds_the_largest_buffer():
    largest = (1 << 27) - 100
    assert size_class(largest - 10, largest) <= largest


def test_memory_given_back_is_used_again(fresh):
    first = fresh.take(5000)
    fresh.release(first)
    allocated = fresh.counts.allocated
    assert fresh.take(5100) is first, "5000 and 5100 bytes are of one size class"
    assert fresh.counts.allocated == allocated
    other = fresh.take(5100, staged=False)
    assert other is not first
    assert other.staging is None


def test_the_pool_keeps_to_its_budget_and_drops_the_largest_first(fresh):
    fresh.pool.budget = 1 << 20
    small, large = fresh.take(1 << 16), fresh.take(3 << 19)  # with its staging twin, 3 MiB
    fresh.release(small)
    assert fresh.held_bytes() == 2 * small.capacity
    fresh.release(large)
    assert fresh.held_bytes() == 2 * small.capacity
    fresh.trim()
    assert fresh.held_bytes() == 0


def adder(tables: list[np.ndarray]):
    """Return a program with constant tables, each copied into a result of its own."""
    b = Builder()
    for number, values in enumerate(tables):
        table, target = b.table(values), b.result(number, values.nbytes)
        axes = [values.size, *[1] * 7, 1, *[0] * 7, values.size, *[1] * 7]
        b.dispatch(
            "strided_copy", [table, target], writes=[target], groups=spread_groups(-(-values.size // 64)),
            constants=[64, values.size, 1, 8, 0, *axes],
        )  # fmt: skip
    return b.program()


def test_tables_beyond_their_budget_go_but_never_those_of_the_program_itself(fresh):
    tables = [np.full(1024, n, np.uint32) for n in range(6)]
    made = [np.zeros(1024, np.uint32) for _ in tables]
    fresh.pool.table_budget = 3 * 4096
    for program in (adder(tables[:2]), adder(tables[2:])):
        results = made[: len(program.results)]
        for _ in range(2):
            fresh.run_host(program, [], results)
            assert [int(r[0]) for r in results] == [int(t[0]) for t in program.tables]
            assert all((r == r[0]).all() for r in results)
        fresh.forget(program)
    assert len(fresh.pool.tables) == 4, "those of the last program, though they exceed the budget"
    fresh.run_host(adder(tables[:1]), [], made[:1])
    assert len(fresh.pool.tables) <= 3


def test_what_was_recorded_on_memory_goes_with_it(fresh):
    program, out = copier(64), np.zeros(64, np.uint32)
    fresh.run_host(program, [out], [out])
    assert len(fresh._recordings.bindings) == 1
    fresh.trim()
    assert not fresh._recordings.bindings
    fresh.run_host(program, [np.arange(64, dtype=np.uint32)], [out])
    assert out.tolist() == list(range(64))


def test_arrays_that_are_gone_leave_their_memory_to_the_next(opened):
    x = ac.to(X, DEVICE)
    for _ in range(3):
        y = ac.fft(x)
        del y
    allocated = opened.counts.allocated
    for _ in range(50):
        y = ac.fft(x)
        del y
    assert opened.counts.allocated == allocated


def test_release_gives_everything_back_but_arrays_in_use(opened):
    x = ac.to(X, DEVICE)
    ac.ifft(ac.fft(x))
    gc.collect()
    assert opened.held_bytes() > 0
    ac.release()
    assert opened.held_bytes() == 0
    assert np.allclose(ac.fft(x).numpy(), np.fft.fft(X), atol=1e-4)


# Threads


def test_a_thousand_mixed_calls_in_four_threads_do_not_grow(opened):
    index = np.arange(0, 200, 3)
    rows = RNG.standard_normal((200, 8)).astype("float32")
    resident = ac.to(X, DEVICE)

    def work(seed):
        mine = np.roll(X, seed, axis=1)
        with ac.using("vulkan"):
            yield lambda: np.allclose(ac.fft(mine), np.fft.fft(mine), atol=1e-3)
            yield lambda: np.allclose(ac.irfft(ac.rfft(mine.real)), mine.real, atol=1e-4)
            yield lambda: np.array_equal(ac.gather(rows, index), rows[index])
            yield lambda: np.allclose(ac.ifft(ac.fft(resident)).numpy(), X, atol=1e-4)
            yield lambda: np.array_equal(resident[1:3].numpy(), X[1:3])
            yield lambda: np.allclose(ac.evaluate("a*b + a", a=mine.real, b=rows[0, 0]), mine.real * (rows[0, 0] + 1))
            yield lambda: np.allclose(ac.sum(mine.real, axis=1), mine.real.sum(axis=1), atol=1e-3)

    def turns(seed, count):
        for _ in range(count):
            for check in work(seed):
                assert check()

    def all_threads(count):
        barrier = threading.Barrier(4)

        def one(seed):
            barrier.wait()
            turns(seed, count)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(one, seed) for seed in range(4)]:
                done.result()

    turns(0, 1)
    all_threads(5)
    gc.collect()
    counts, held, bindings = opened.counts, opened.held_bytes(), len(opened._recordings.bindings)
    before = counts.allocated
    all_threads(36)  # 4 threads, 36 turns, 7 checks: 1,008
    gc.collect()
    # Which arrays are alive at once depends on the threads' turns: a few allocations may come, none a call.
    assert counts.allocated - before <= 8
    assert opened.held_bytes() <= held + 8 * 2 * size_class(X.nbytes)
    assert len(opened._recordings.bindings) <= max(bindings * 4, BINDINGS)


# Failures


class Failing:
    """A manager whose calls of one name raise what the driver would, so many times."""

    def __init__(self, manager, name, error, times):
        self.manager, self.name, self.error, self.times = manager, name, error, times

    def __getattr__(self, name):
        found = getattr(self.manager, name)
        if name != self.name:
            return found

        def call(*arguments):
            if self.times:
                self.times -= 1
                raise self.error
            return found(*arguments)

        return call


class Lost:
    """A recorded sequence on a device that has stopped answering."""

    def eval(self):
        raise RuntimeError("vk::Queue::submit: ErrorDeviceLost")

    def destroy(self):
        pass


def lose(owner: Runtime) -> None:
    for binding in owner._recordings.bindings.values():
        for sequence in binding.sequences:
            sequence.destroy()
        binding.sequences = [Lost()]


def test_a_lost_device_is_said_and_not_touched_again(fresh):
    program, host = copier(64), np.zeros(64, np.uint32)
    fresh.run_host(program, [host], [host])
    lose(fresh)
    with pytest.raises(DeviceLost, match=r"vulkan:0 was lost while running: .*ErrorDeviceLost"):
        fresh.run_host(program, [host], [host])
    submits = fresh.counts.submits
    with pytest.raises(DeviceLost, match="was lost earlier"):
        fresh.run_host(copier(32), [host[:32]], [host[:32]])
    assert fresh.counts.submits == submits


def test_a_lost_device_is_set_aside(opened):
    with ac.using("vulkan"):
        ac.fft(X)
    lose(opened)
    with ac.using("vulkan"), pytest.raises(DeviceLost, match="ErrorDeviceLost"):
        ac.fft(X)
    with ac.using("vulkan"), pytest.raises(NoKernelError, match=r"set aside: .*ErrorDeviceLost"):
        ac.fft(X)
    with pytest.raises(DeviceLost, match="was lost earlier"):
        ac.to(X, DEVICE)
    assert np.allclose(ac.fft(X), np.fft.fft(X), atol=1e-4), "everything else goes on"


def test_a_call_goes_on_elsewhere_when_the_device_is_lost(opened, vulkan_preferred):
    assert ac.explain(ac.fft, X).chosen.device == DEVICE
    ac.fft(X)
    lose(opened)
    with pytest.warns(SetAsideWarning, match="ErrorDeviceLost"):
        y = ac.fft(X)
    assert np.allclose(y, np.fft.fft(X), atol=1e-4)
    assert ac.explain(ac.fft, X[:2]).chosen.device == "cpu"


def test_a_call_goes_on_elsewhere_where_the_device_has_no_room(opened, vulkan_preferred):
    manager = opened._kompute.manager
    opened._kompute.manager = Failing(
        manager, "tensor_t", RuntimeError("allocateMemory: ErrorOutOfDeviceMemory"), times=99
    )
    with pytest.warns(SetAsideWarning, match="no room"):
        y = ac.fft(X)
    opened._kompute.manager = manager
    assert np.allclose(y, np.fft.fft(X), atol=1e-4)
    assert ac.explain(ac.fft, X[:2]).chosen.device == DEVICE, "only this request was too much"


@pytest.fixture
def vulkan_preferred(monkeypatch):
    """Route as on a machine whose GPU was measured fastest."""
    candidate = Router._candidate

    def quick(self, kernel, request):
        return replace(
            candidate(self, kernel, request), transfer_s=0.0, compute_s=1e-6 if kernel.device == DEVICE else 1.0
        )

    monkeypatch.setattr(Router, "_candidate", quick)
    ac.dispatcher.use_profile(Profile({DEVICE: Section({})}))


def test_out_of_memory_empties_the_pool_and_is_tried_once_more(fresh):
    fresh.release(fresh.take(4096))
    error = RuntimeError("vk::Device::allocateMemory: ErrorOutOfDeviceMemory")
    fresh._kompute.manager = Failing(fresh._kompute.manager, "tensor_t", error, times=1)
    assert fresh.take(1 << 16).capacity == 1 << 16
    assert fresh.held_bytes() == 0


def test_out_of_memory_frees_scratch_memory_and_tables_too(fresh):
    out = np.zeros(64, np.uint32)
    fresh.run_host(copier(64, times=3), [out], [out])
    fresh.run_host(adder([out]), [], [out])
    assert fresh.pool.scratch
    assert fresh.pool.tables
    error = RuntimeError("vk::Device::allocateMemory: ErrorOutOfDeviceMemory")
    manager = fresh._kompute.manager
    fresh._kompute.manager = Failing(manager, "tensor_t", error, times=1)
    fresh.take(1 << 16)
    fresh._kompute.manager = manager
    assert not fresh.pool.scratch
    assert not fresh.pool.tables
    host = np.arange(64, dtype=np.uint32)
    fresh.run_host(copier(64, times=3), [host], [out])
    assert out.tolist() == host.tolist()


def test_out_of_memory_while_a_program_is_recorded_leaves_its_own_memory(fresh):
    out, host = np.zeros(64, np.uint32), np.arange(64, dtype=np.uint32)
    fresh.run_host(copier(64, times=3), [host], [out])
    program = copier(1 << 12, times=3)  # its scratch memory is new
    big, large = np.arange(1 << 12, dtype=np.uint32), np.zeros(1 << 12, np.uint32)
    for place in fresh.pool.take_all([1 << 14, 1 << 14]):
        fresh.pool.give(place)
    error = RuntimeError("vk::Device::allocateMemory: ErrorOutOfDeviceMemory")
    manager = fresh._kompute.manager
    fresh._kompute.manager = Failing(manager, "tensor_t", error, times=1)
    fresh.run_host(program, [big], [large])
    fresh._kompute.manager = manager
    assert large.tolist() == big.tolist()


@pytest.mark.parametrize("kind", ["ErrorOutOfDeviceMemory", "ErrorOutOfHostMemory"])
def test_out_of_memory_twice_is_said_and_the_device_stays_usable(fresh, kind):
    manager = fresh._kompute.manager
    fresh._kompute.manager = Failing(manager, "tensor_t", RuntimeError(f"vk::Device::allocateMemory: {kind}"), times=2)
    with pytest.raises(DeviceOutOfMemory, match=f"vulkan:0 has no room while allocating 65536 bytes: .*{kind}"):
        fresh.take(1 << 16)
    assert fresh.take(1 << 16).capacity == 1 << 16
    fresh._kompute.manager = manager


def test_memory_that_the_host_cannot_give_is_out_of_memory_too(fresh):
    manager = fresh._kompute.manager
    fresh._kompute.manager = Failing(manager, "tensor_t", MemoryError("std::bad_alloc"), times=2)
    with pytest.raises(DeviceOutOfMemory, match="bad_alloc"):
        fresh.take(1 << 16)
    fresh._kompute.manager = manager


def test_a_failed_run_gives_its_memory_back(fresh):
    program, host = copier(64, times=2), np.zeros(64, np.uint32)
    manager = fresh._kompute.manager
    fresh._kompute.manager = Failing(
        manager, "algorithm", RuntimeError("vk::Device::createComputePipeline: no"), times=1
    )
    with pytest.raises(RuntimeError, match="createComputePipeline"):
        fresh.run_host(program, [host], [host])
    fresh._kompute.manager = manager
    allocated = fresh.counts.allocated
    fresh.run_host(program, [host], [host])
    assert fresh.counts.allocated == allocated


def test_a_device_that_is_not_there():
    with pytest.raises(BackendUnavailable, match="vulkan:7"):
        ac.to(X, "vulkan:7")
    with (
        ac.using(device="vulkan:7"),
        pytest.raises(BackendUnavailable, match="no device 'vulkan:7' here; there are: cpu"),
    ):
        ac.fft(X)
    with pytest.raises(BackendUnavailable, match="no device 'vulkan:7'; Vulkan has"):
        runtime("vulkan:7")


def test_kompute_is_touched_in_one_file_only():
    package = Path(module.__file__).parents[2]
    touching = [
        f.name for f in package.rglob("*.py") if re.search(r"^\s*(import|from) kp\b", f.read_text(), re.MULTILINE)
    ]
    assert touching == ["kompute.py"]
