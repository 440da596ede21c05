"""The link that is fitted to measured transfers."""

from __future__ import annotations

import pytest

from adaptive_compute.core.links import _fit_link


@pytest.mark.parametrize(("latency", "bandwidth"), [(1e-5, 5e10), (2e-4, 3e8), (0.0, 1e12)])
def test_latency_and_bandwidth_are_found_in_times_made_of_them(latency, bandwidth):
    times = {nbytes: latency + nbytes / bandwidth for nbytes in (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 26)}
    link = _fit_link(times)
    assert link.bandwidth == pytest.approx(bandwidth)
    assert link.latency == pytest.approx(latency, abs=1e-9)
    assert link.seconds(1 << 28) == pytest.approx(latency + (1 << 28) / bandwidth, rel=1e-3)
