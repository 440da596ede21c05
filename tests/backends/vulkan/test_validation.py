"""Khronos's validation layer watches a selection of the Vulkan tests; ``make test-vulkan-validation`` installs it.

The layer prints what it finds, so the tests run in a process of their own whose output is read.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adaptive_compute.backends.vulkan.limits import library

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
LAYER = "VK_LAYER_KHRONOS_validation"
REMEDY = "make test-vulkan-validation, or apt-get install vulkan-validationlayers"
MESSAGE = re.compile(r"^((?:VUID|UNASSIGNED|SYNC)-[\w-]+)\(", re.MULTILINE)

# What is known, with its reason.
EXPLAINED = {
    # Kompute writes timestamps into a query pool that it never resets and gives no way to. Only measuring
    # (Runtime.gpu_seconds) uses timestamps; calls do not.
    "UNASSIGNED-CoreValidation-DrawState-QueryNotReset",
}

SELECTION = {
    "runtime and memory": ["tests/backends/vulkan/test_runtime.py", "tests/backends/vulkan/test_array.py"],
    "fft": ["tests/backends/vulkan/test_fft.py", "tests/backends/vulkan/test_limits.py"],
    "nufft": ["tests/backends/vulkan/test_nufft.py"],
    "gather": ["tests/backends/vulkan/test_gather.py"],
    "attention": ["tests/backends/vulkan/test_attention.py", "-k", "64 or same or refus or stay"],
    "elementwise": ["tests/conformance/test_elementwise.py", "--backend", "vulkan"],
    "reduce": ["tests/conformance/test_reduce.py", "--backend", "vulkan"],
    "strict order": ["tests/backends/vulkan/test_gather.py", "tests/backends/vulkan/test_nufft.py", "--strict-order"],
}

# A workgroup of 4096 x 1 x 1 invocations is more than the device takes.
WRONG = """
import numpy as np
from adaptive_compute.backends.vulkan.program import Builder
from adaptive_compute.backends.vulkan.runtime import runtime
b = Builder()
source, target = b.operand(0, 256), b.result(0, 256)
axes = [64, *[1] * 7, 1, *[0] * 7, 64, *[1] * 7]
b.dispatch("strided_copy", [source, target], writes=[target], groups=(1, 1, 1), constants=[1 << 24, 64, 1, 8, 0, *axes])
try:
    runtime("vulkan:0").run_host(b.program(), [np.zeros(64, np.uint32)], [np.zeros(64, np.uint32)])
except RuntimeError:
    pass
"""


def layers() -> list[str]:
    """Return the names of the layers that the loader finds."""
    vk = ctypes.CDLL(library())
    count = ctypes.c_uint32()
    vk.vkEnumerateInstanceLayerProperties(ctypes.byref(count), None)
    size = 520  # VkLayerProperties: a name and a description of 256 bytes each, and two versions
    raw = ctypes.create_string_buffer(size * max(count.value, 1))
    vk.vkEnumerateInstanceLayerProperties(ctypes.byref(count), raw)
    return [raw[i * size : i * size + 256].split(b"\0")[0].decode() for i in range(count.value)]


@pytest.fixture(autouse=True)
def _needs_the_layer():
    if LAYER in layers():
        return
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI must have the validation layer: {REMEDY}", pytrace=False)
    pytest.skip(f"{LAYER} is not installed ({REMEDY})")


def watched(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python under the layer."""
    environment = {**os.environ, "VK_INSTANCE_LAYERS": LAYER}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_the_layer_sees_what_is_wrong():
    found = watched("-c", WRONG)
    assert "VUID-RuntimeSpirv-x-06429" in MESSAGE.findall(found.stdout), found.stdout + found.stderr


@pytest.mark.parametrize("selected", SELECTION.values(), ids=SELECTION)
def test_nothing_is_wrong_that_is_not_explained(selected):
    done = watched("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-m", "not slow", *selected)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    messages = set(MESSAGE.findall(done.stdout)) - EXPLAINED
    first = next((line for line in done.stdout.splitlines() if any(line.startswith(m) for m in messages)), "")
    assert not messages, f"{sorted(messages)}, first: {first[:1500]}"
