"""Tests in this folder need a Vulkan device. Without one they are skipped with the reason; in CI that is a failure."""

from __future__ import annotations

import os

import pytest

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
