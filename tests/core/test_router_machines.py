"""The router on thousands of simulated machines: what holds whatever the speeds, links and noise are."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_compute.core.profile import Link
from adaptive_compute.core.router import NOISE_CEILING
from tests.machine import Machine, Speed, transform

# Between the profiled sizes a curve is not exact: what it may be off by where every measurement is.
BETWEEN = 0.08
FAST = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
exponents = st.floats(0.0, 1.0)
sizes = st.integers(4, 24).map(lambda n: 1 << n)


def speeds(noise):
    """Calls of 1 us to 1 ms, 100 MFLOP/s to 10 TFLOP/s."""
    return st.builds(lambda call, rate: Speed(1e-6 * 1e3**call, 1e8 * 1e5**rate, noise), exponents, exponents)


links = st.builds(lambda latency, rate: Link(1e-7 * 1e4**latency, 1e8 * 1e3**rate), exponents, exponents)


def machines(noise=0.0):
    own = st.lists(speeds(noise), min_size=1, max_size=3)
    return st.builds(
        lambda cpu, one, two, first, second, seed: Machine(
            {"cpu": cpu, "a:0": one, "b:0": two}, {"a:0": first, "b:0": second}, seed
        ),
        own, own, own, links, links, st.integers(0, 2**31),
    )  # fmt: skip


def chosen_seconds(machine, request, **state):
    return machine.true_seconds(request, machine.decide(request, **state).chosen.kernel)


@FAST
@given(machines(), st.lists(sizes, min_size=1, max_size=6, unique=True))
def test_exact_measurements_give_the_fastest_within_what_a_curve_is_off_by(machine, several):
    for size in several:
        request = transform(size)
        limit = machine.least(request) * (1 + NOISE_CEILING) * (1 + BETWEEN) ** 2
        assert chosen_seconds(machine, request) <= limit


@FAST
@given(machines(0.1), st.lists(sizes, min_size=1, max_size=6, unique=True))
def test_leaving_home_never_costs_more_than_the_noise(machine, several):
    for size in several:
        for home in ("cpu", "a:0"):
            request = transform(size, home)
            stay = machine.least(request, {home})
            took = chosen_seconds(machine, request, transfers="allow")
            # Both predictions may be off by the noise, in opposite directions, and by what a curve is off by.
            assert took <= stay * (1 + NOISE_CEILING) * (1.1 * (1 + BETWEEN)) ** 2


@FAST
@given(machines(), sizes, st.floats(1.0, 1000.0))
def test_a_faster_link_never_makes_a_device_less_attractive(machine, size, factor):
    request = transform(size)
    before = machine.decide(request)
    for device in ("a:0", "b:0"):
        section = machine.router.profile.sections[device]
        link = section.up
        quicker = Link(link.latency / factor, link.bandwidth * factor)
        section.up = section.down = quicker
        after = machine.decide(request)
        section.up = section.down = link
        # Where something moved there, it stays there; where it did not, nothing but that device comes instead.
        assert after.chosen.device == device or after.chosen.kernel is before.chosen.kernel
        if before.chosen.device == device:
            assert after.chosen.kernel is before.chosen.kernel


@FAST
@given(machines(0.0), sizes, st.integers(0, 2**31))
def test_a_clear_lead_survives_ten_percent_of_noise(machine, size, seed):
    request = transform(size)
    decision = machine.decide(request)
    totals = sorted(c.total_s for c in decision.candidates)
    noisy = Machine(
        {device: [Speed(k.speed.overhead, k.speed.flops, 0.1) for k in own] for device, own in machine.kernels.items()},
        machine.links, seed,
    )  # fmt: skip
    again = noisy.decide(request)
    if len(totals) == 1 or totals[1] > totals[0] * 1.1**2 * (1 + BETWEEN) ** 2 * (1 + NOISE_CEILING):
        assert (again.chosen.name, again.chosen.device) == (decision.chosen.name, decision.chosen.device)
    # And where the lead is not clear, what is lost is within the noise.
    lost = noisy.true_seconds(request, again.chosen.kernel) / machine.least(request)
    assert lost <= (1 + NOISE_CEILING) * (1.1 * (1 + BETWEEN)) ** 2


@FAST
@given(machines(), sizes)
def test_what_may_not_move_does_not(machine, size):
    assert machine.decide(transform(size), transfers="deny").chosen.device == "cpu"
    assert machine.decide(transform(size, "a:0")).chosen.device == "a:0"


@FAST
@given(machines(), sizes)
def test_without_a_link_nothing_goes_there(machine, size):
    for device in ("a:0", "b:0"):
        machine.router.profile.sections[device].up = None
    assert machine.decide(transform(size)).chosen.device == "cpu"


def test_a_machine_whose_device_is_made_slow_is_seen_to_be():
    """The properties can fail: a router that lies about a device breaks them."""
    quick, slow = Speed(1e-6, 1e10), Speed(1e-3, 1e8)
    machine = Machine({"cpu": [quick], "a:0": [slow]}, {"a:0": Link(1e-7, 1e11)})
    points = machine.router.profile.sections["a:0"].kernels["fft"]["k0"]
    for name, own in points.items():
        points[name] = [point._replace(seconds=1e-9) for point in own]
    request = transform(1 << 12)
    assert chosen_seconds(machine, request) > 10 * machine.least(request, {"cpu"})


@pytest.mark.parametrize("home", ["cpu", "a:0"])
def test_true_times_count_each_operand_once(home):
    machine = Machine({"cpu": [Speed(0.0, math.inf)], "a:0": [Speed(0.0, math.inf)]}, {"a:0": Link(1.0, math.inf)})
    request = transform(16, home)
    for device in ("cpu", "a:0"):
        assert machine.true_seconds(request, machine.kernels[device][0]) == (0.0 if device == home else 2.0)
