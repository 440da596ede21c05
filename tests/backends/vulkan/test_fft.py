"""The Vulkan FFT's forms that its defaults reach on some devices only, and what a warm call costs."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import fft, fft_group, fft_pair, fft_plan, fft_steps, tuning
from adaptive_compute.backends.vulkan.array import VulkanArray, upload
from adaptive_compute.backends.vulkan.limits import devices
from adaptive_compute.backends.vulkan.program import Builder
from adaptive_compute.backends.vulkan.runtime import runtime

DEVICE = "vulkan:0"
BOUND = 5e-7
WORDS, THREADS = 12288, 1024  # of a group on a card


@contextmanager
def planned(monkeypatch, passes, stages=()):
    """Build programs with these passes and stages."""
    caches = (fft_plan.stages, fft_plan.passes, fft_plan._pass_price, fft_plan.padded)
    with monkeypatch.context() as patch:
        patch.setattr(fft_plan, "MEASURED_PASSES", dict(passes))
        patch.setattr(fft_plan, "MEASURED_STAGES", dict(stages))
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()


def transformed(x, shaders, forward=True, shape=fft_group.SHAPE, **limits):
    """Transform the last axis of an array by a program of these shaders; ``limits``: what to suppose of the device."""
    owner, (batch, n) = runtime(DEVICE), x.shape
    b = Builder()
    axis = fft_steps.complex_axis(n, batch, 1, forward, 1.0)
    fft_steps.along(b, b.operand(0, x.nbytes), b.result(0, x.nbytes), axis, replace(owner.limits, **limits), shape)
    program = b.program()
    assert [step.shader for step in program.steps] == shaders
    (memory,) = owner.run_resident(program, [upload(x, DEVICE).memory])
    return VulkanArray(memory, x.shape, "complex64", owner).numpy()


def values(batch, n):
    rng = np.random.default_rng(n)
    return (rng.standard_normal((batch, n)) + 1j * rng.standard_normal((batch, n))).astype(np.complex64)


def error(result, exact):
    return np.linalg.norm(result - exact) / np.linalg.norm(exact)


# More points than the shared memory holds at once


def _in_rounds():
    """Return a length of twice the shared memory, for which the tests below have radices."""
    words = devices()[0].shared_memory // 4
    if words != 1 << 13:
        pytest.skip(f"the radices are for 32 KiB of shared memory; here are {4 * words} bytes; run it on lavapipe")
    return 2 * words


def test_a_line_longer_than_shared_memory_is_exchanged_in_rounds(monkeypatch):
    n = _in_rounds()
    x = values(3, n)
    with planned(monkeypatch, {n: (n,)}, {n: ((16, 16, 16, 4), 1024)}):
        forward = transformed(x, ["fft_few_5"])
        backward = transformed(x, ["fft_few_5"], forward=False)
    assert error(forward, np.fft.fft(x)) < BOUND
    assert error(backward, np.fft.ifft(x) * n) < BOUND


def test_a_real_transform_in_rounds_separates_its_spectrum_afterwards(monkeypatch):
    n = _in_rounds()
    x = np.random.default_rng(0).standard_normal((2, 2 * n)).astype(np.float32)
    with planned(monkeypatch, {n: (n,)}, {n: ((16, 16, 16, 4), 1024)}), ac.using(device=DEVICE):
        spectrum = ac.rfft(x)
        back = ac.irfft(spectrum)
    assert error(spectrum, np.fft.rfft(x)) < BOUND
    assert error(back, x) < BOUND


def test_how_many_rounds():
    even = fft_plan.Stages(4096, (16, 16, 16), 256)
    assert fft_plan.rounds(even, 4 * 4096, WORDS) == 2
    assert fft_plan.rounds(even, 3 * 4096, WORDS) == 1
    assert fft_plan.rounds(even, 8 * 4096, WORDS) is None
    odd = fft_plan.Stages(4050, (18, 15, 15), 270)
    assert fft_plan.rounds(odd, 4 * 4050, WORDS) is None  # a half of 15 is no whole number of points


@pytest.mark.parametrize("n", [*fft_plan.MEASURED_STAGES, *fft_plan.MEASURED_PARTS])
def test_stages_that_were_measured_make_up_their_length(monkeypatch, n):
    """A device with less shared memory than the card they were measured on may go through it in rounds."""
    radices, threads = {**fft_plan.MEASURED_PARTS, **fft_plan.MEASURED_STAGES}[n]
    assert math.prod(radices) == n
    x = values(2, n)
    with planned(monkeypatch, {n: (n,)}, {n: (radices, threads)}), ac.using(device=DEVICE):
        assert error(ac.fft(x), np.fft.fft(x)) < BOUND


# Two passes in one dispatch


@pytest.mark.parametrize(
    ("cut", "batch", "ahead", "forward", "shaders"),
    [
        ((1, 32, 64), 7, 1, True, ["fft_pair_2"]),  # one row ahead: workgroups wait for each other
        ((1, 49, 256), 3, 1 << 20, False, ["fft_pair_2"]),  # all of them; workgroups with threads left over
        ((1, 512, 64), 5, 3 << 18, True, ["fft_pair_3"]),  # three ahead; three stages and two
        ((32, 32, 64), 2, 1, False, ["fft_few_2", "fft_pair_2"]),  # a pass before; sixteen rows a unit
        ((6, 32, 32), 3, 1, True, ["fft_1", "fft_pair_2"]),
    ],
)
def test_two_passes_in_one_dispatch(monkeypatch, cut, batch, ahead, forward, shaders):
    n = cut[0] * cut[1] * cut[2]
    monkeypatch.setattr(fft_pair, "MEASURED", {n: cut})
    x, shape = values(batch, n), fft_group.SHAPE._replace(ahead=ahead)
    first, second = (transformed(x, shaders, forward, shape, waits=True) for _ in range(2))
    assert error(first, np.fft.fft(x) if forward else np.fft.ifft(x) * n) < BOUND
    assert np.array_equal(first, second)  # the counters are as they were


def test_passes_wait_for_each_other_only_on_devices_known_for_it(monkeypatch):
    monkeypatch.setattr(fft_pair, "MEASURED", {1 << 16: (1, 256, 256)})
    shape = fft_group.SHAPE._replace(ahead=1 << 20)
    unknown = replace(devices()[0], driver="another", waits=False)
    assert fft_pair.choose(1 << 16, unknown, shape) is None
    assert fft_pair.choose(1 << 16, replace(unknown, driver="NVIDIA 580.159.04"), shape) is not None


# What a warm call costs


def test_a_warm_call_is_one_submission_and_adds_little_to_the_shader():
    owner, x = runtime(DEVICE), values(1, 256)[0]
    with ac.using(device=DEVICE):
        for _ in range(100):
            ac.fft(x)
        before, taken = owner.counts.submits, []
        for _ in range(1000):
            start = time.perf_counter()
            ac.fft(x)
            taken.append(time.perf_counter() - start)
    assert owner.counts.submits - before == 1000
    b = Builder()
    fft_steps.along(
        b, b.operand(0, x.nbytes), b.result(0, x.nbytes), fft_steps.complex_axis(256, 1, 1, True, 1.0), owner.limits
    )
    own = owner.gpu_seconds(b.program(), [upload(x, DEVICE).memory], repeats=500)
    # The least of many: what other work on the machine takes is nobody's here.
    assert min(taken) - min(own) < 150e-6


# What a profile may choose


def test_a_profile_chooses_the_shape_of_workgroups():
    (kernel,) = fft.kernels(DEVICE)
    request = fft.TUNING["fft.threads"][2]()
    x = values(*request.first.shape)
    known = tuning.tunables([fft])
    threads, results = [], []
    try:
        for chosen in ({}, {"fft.threads": 128}):
            tuning.apply(DEVICE, chosen, known)
            program = kernel.program(request)
            threads.append(program.steps[0].constants[0])
            (memory,) = runtime(DEVICE).run_resident(program, [upload(x, DEVICE).memory])
            results.append(VulkanArray(memory, x.shape, "complex64", runtime(DEVICE)).numpy())
    finally:
        tuning.apply(DEVICE, {}, known)
    assert threads == [256, 128]
    assert np.array_equal(*results)
    assert error(results[0][:3], np.fft.fft(x[:3])) < BOUND
