"""The link that is fitted to measured transfers."""

from __future__ import annotations

import pytest

from adaptive_compute.core import links as module
from adaptive_compute.core.links import _fit_link, links
from tests.simulated import SimBackend


@pytest.mark.parametrize(("latency", "bandwidth"), [(1e-5, 5e10), (2e-4, 3e8), (0.0, 1e12)])
def test_latency_and_bandwidth_are_found_in_times_made_of_them(latency, bandwidth):
    times = {nbytes: latency + nbytes / bandwidth for nbytes in (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 26)}
    link = _fit_link(times)
    assert link.bandwidth == pytest.approx(bandwidth)
    assert link.latency == pytest.approx(latency, abs=1e-9)
    assert link.seconds(1 << 28) == pytest.approx(latency + (1 << 28) / bandwidth, rel=1e-3)


def test_a_link_beside_busy_memory_tells_how_much_longer_it_takes(monkeypatch):
    busy = []

    class Slowed(SimBackend):
        def upload(self, host, device):
            if busy and host.nbytes == module.LOADED_SIZE:
                module.time.sleep(0.02)
            return super().upload(host, device)

    @module.contextmanager
    def load():
        busy.append(True)
        yield
        busy.pop()

    monkeypatch.setattr(module, "_busy_memory", load)
    up, down = links(Slowed(), "sim:0")
    assert up.loaded > 3
    assert 1.0 <= down.loaded < up.loaded


def test_results_come_back_as_fast_as_they_do_after_the_first_few():
    came = []

    class Warming(SimBackend):
        def download(self, array):
            host = super().download(array)
            came.append(host.nbytes)
            if came.count(host.nbytes) <= 4:
                module.time.sleep(0.01)
            return host

    _, down = links(Warming(), "sim:0")
    assert down.seconds(1 << 12) < 0.005


def test_memory_is_busy_in_the_block_and_no_longer():
    before = module.threading.active_count()
    with module._busy_memory():
        assert module.threading.active_count() == before + 1
    assert module.threading.active_count() == before
