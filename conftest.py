"""Options and fixtures for every test.

``pytest --backend cpu [--kernel NAME]`` limits the conformance suite to one backend or kernel; ``--strict-order`` lets
Vulkan submit dependent steps one by one (see docs/backends/vulkan.md). A conformance module names its operation
(``OPERATION = "fft"``); each test in it that takes ``kernel`` runs once for every kernel.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path

import pytest

from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.profile import Profile
from adaptive_compute.core.registry import registry
from adaptive_compute.core.transfer import counters

for _name in [name for name in os.environ if name.startswith("ADAPTIVE_")]:
    del os.environ[_name]  # the developer's own settings must not decide what a test sees

# Mesa's driver for the processor compiles every shader, which is most of the Vulkan tests' time; without LLVM's
# optimisation that takes up to half as long. What it made so is kept apart from what it makes for everybody else.
_cache = Path(__file__).parent / ".pytest_cache" / "mesa"
os.environ.setdefault("GALLIVM_PERF", "nopt")
if "MESA_SHADER_CACHE_DIR" not in os.environ:
    with suppress(OSError):
        _cache.mkdir(parents=True, exist_ok=True)
        os.environ["MESA_SHADER_CACHE_DIR"] = str(_cache)

# Modules whose whole content is written in an optional package's language; doctest collection would import them.
_OPTIONAL = {
    "backends/cuda/*_triton.py": "triton",
    "nn/kernels/*.py": "triton",
    "integrations/mri_nufft*.py": "mrinufft",
}
collect_ignore_glob = [
    f"adaptive_compute/{files}" for files, package in _OPTIONAL.items() if not importlib.util.find_spec(package)
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default=None, help="run conformance on this backend only")
    parser.addoption("--kernel", default=None, help="run conformance on this kernel only")
    parser.addoption("--strict-order", action="store_true", help="order Vulkan's dependent steps by submissions")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--strict-order"):
        os.environ["ADAPTIVE_VULKAN_STRICT"] = "1"  # after the loop above; processes started by tests have it too


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    operation = getattr(metafunc.module, "OPERATION", None)
    if operation is None or "kernel" not in metafunc.fixturenames:
        return
    backend, name = metafunc.config.getoption("backend"), metafunc.config.getoption("kernel")
    if backend is not None:
        registry.require(backend)
    kernels = [
        kernel
        for kernel in registry.kernels(operation)
        if backend in (None, registry.backend_of(kernel.device).name) and name in (None, kernel.name)
    ]
    metafunc.parametrize("kernel", kernels, ids=lambda kernel: f"{kernel.device}-{kernel.name}")


@pytest.fixture(autouse=True)
def clean_dispatcher():
    """Start every test without a profile, without set-aside kernels, with empty caches and with counters at zero."""
    dispatcher.use_profile(Profile())
    counters.reset()
    yield
    dispatcher.use_profile(Profile())
