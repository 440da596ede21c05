"""A backend in a package of its own: installed, found by its entry point, and held to the conformance suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from adaptive_compute.backends.base import Backend, Kernel
from adaptive_compute.core.errors import ArgumentError
from adaptive_compute.core.registry import Registry

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = Path(__file__).parent / "example_backend"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the example was installed into, by pip, from a copy of its sources."""
    import shutil

    pytest.importorskip("setuptools", reason="pip install setuptools: the example is built with it")
    sources = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("sources") / "example")
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*command, "--target", str(target), str(sources)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert [f.name for f in target.glob("*.dist-info")] == ["adaptive_compute_example-0.1.0.dist-info"]
    return target


def python(installed, *arguments):
    """Run Python with the example installed, and nothing said about it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ADAPTIVE_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(installed), str(ROOT)])
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=280)


USE = """
import numpy as np, adaptive_compute as ac
x = np.exp(2j * np.pi * np.arange(8) / 8)
with ac.using("example"):
    print((ac.fft(x).real.round(6) + 0).tolist())
resident = ac.to(x, "example")
print(ac.device_of(resident), ac.device_of(ac.fft(resident)), type(resident).__module__)
print(sorted(ac.transfers()["transfers"]))
from adaptive_compute.core.registry import registry
print(registry.failed())
"""


def test_it_is_found_and_used_by_name(installed):
    done = python(installed, "-W", "ignore", "-c", USE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]",
        "example:0 example:0 adaptive_example.array",
        "['cpu -> example:0', 'example:0 -> cpu']",
        "{}",
    ]


@pytest.mark.slow
def test_it_is_held_to_conformance(installed):
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "--backend", "example"]
    done = python(installed, "-m", "pytest", *options, "tests/conformance/test_fft.py")
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert counts["passed"] > 200


def test_a_kernel_that_is_wrong_fails_conformance(installed, tmp_path):
    """The suite is what finds a wrong backend, so it has to."""
    import shutil

    wrong = shutil.copytree(installed, tmp_path / "wrong")
    kernels = wrong / "adaptive_example" / "kernels.py"
    text = kernels.read_text(encoding="utf-8")
    assert "self.conjugate and p.kind" in text
    kernels.write_text(text.replace("self.conjugate and p.kind", "False and p.kind"), encoding="utf-8")
    selected = ["tests/conformance/test_fft.py", "-k", "test_one_axis_lengths or hfft", "-x"]
    done = python(
        wrong, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--backend", "example", *selected
    )
    assert done.returncode == 1, done.stdout[-3000:]


class Good(Backend):
    name = "good"

    def devices(self):
        return ["good:0"]

    def kernels(self):
        return []

    def validators(self, device):
        return {"numpy": np.__version__}


class Point:
    """An entry point that gives an object."""

    def __init__(self, name, loaded):
        self.name, self.loaded = name, loaded
        self.value = f"somewhere:{name}"

    def load(self):
        return self.loaded


def offering(name, devices, kernels=()):
    made = Good()
    made.name = name
    made.devices = lambda: devices
    made.kernels = lambda: list(kernels)
    return made


def kernel(name="k", operation="fft", device="cpu"):
    made = Kernel()
    made.name, made.operation, made.device = name, operation, device
    return made


@pytest.mark.parametrize(
    ("name", "loaded", "why"),
    [
        ("good", Good, "is a class"),
        ("good", object(), "it has no available, devices, kernels"),
        ("other", Good(), "calls itself 'good'"),
        ("thief", offering("thief", ["cpu"]), "must be called thief:0"),
        ("thief", offering("thief", ["cuda:0"]), "must be called thief:0"),
        ("lost", offering("lost", ["lost:0"], [kernel(device="lost:1")]), "must run on one of the backend's devices"),
        ("lost", offering("lost", ["lost:0"], [kernel(name="")]), "must have a name"),
    ],
)
def test_a_backend_that_breaks_the_contract_is_left_out_with_a_reason(name, loaded, why, monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Point(name, loaded), Point("good", Good())])
    registry = Registry()
    failed = registry.failed()
    assert why in failed[name] if name != "good" else why in " ".join(failed.values())
    assert "cpu" in registry.devices()
    if name != "good":
        assert "good" in registry.backends()  # the others are not touched
        assert name not in registry.backends()


def test_one_that_keeps_it_is_taken(monkeypatch):
    point = Point("good", offering("good", ["good:0"], [kernel(device="good:0"), kernel("on-host")]))
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    registry = Registry()
    assert registry.failed() == {}
    assert {k.name for k in registry.kernels("fft", ["good:0"])} >= {"k", "on-host"}


def test_registering_by_hand_raises_at_once():
    registry = Registry()
    with pytest.raises(ArgumentError, match="must be called thief:0"):
        registry.register(offering("thief", ["cpu"]))
    assert "thief" not in registry.backends()
