"""Tests in this folder need a Vulkan device. Without one they are skipped with the reason; in CI that is a failure."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

import adaptive_compute as ac
from adaptive_compute.core.registry import registry


def missing_vulkan() -> str | None:
    """Return why Vulkan cannot be used here, with the remedy, or None."""
    vulkan = registry.backends()["vulkan"]
    reason = vulkan.available()
    return None if reason is True else f"{reason}. To mend it: {vulkan.remedy()}"


@pytest.fixture(autouse=True)
def _needs_vulkan(request):
    reason = missing_vulkan()
    if reason is None or request.node.get_closest_marker("without_vulkan"):
        return
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI must have a Vulkan driver: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def shrink(monkeypatch):
    """Give a function that makes the first device say that a buffer holds so many bytes."""
    from adaptive_compute.backends.vulkan import kernel
    from adaptive_compute.backends.vulkan.runtime import runtime

    def to(nbytes):
        shrunk = tuple(replace(found, buffer=nbytes) for found in kernel.devices())
        monkeypatch.setattr(kernel, "devices", lambda: shrunk)
        monkeypatch.setattr(runtime("vulkan:0").pool, "limits", shrunk[0])
        ac.release()

    yield to
    ac.release()
