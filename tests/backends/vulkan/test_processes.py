"""Vulkan in processes of their own: what is missing, two devices, ending and forking while a device is in use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from adaptive_compute.backends.vulkan import limits

HEAD = """
import warnings
import numpy as np
import adaptive_compute as ac
from adaptive_compute.core import errors
from adaptive_compute.core.registry import registry
warnings.simplefilter("ignore", errors.NoProfileWarning)
X = (np.arange(256) % 7 + 1j * (np.arange(256) % 5)).astype("complex64")
right = lambda y: np.allclose(y, np.fft.fft(X), atol=1e-3)
"""


def run(code: str, timeout: float = 60, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed; fails where it printed an error or ended badly."""
    drop = ("ADAPTIVE_", "VK_DRIVER_FILES" if environment else "ADAPTIVE_")  # the test's own choice of drivers holds
    keep = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    environment = {**keep, "ADAPTIVE_PROFILE": os.devnull + "/none", **environment}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)],
        env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stderr == ""
    return done.stdout


# What is missing

ASK = """
print(registry.backends()["vulkan"].available())
print(registry.backends()["vulkan"].remedy())
assert right(ac.fft(X)), "everything else works"
try:
    ac.to(X, "vulkan")
except errors.BackendUnavailable as error:
    print(error)
"""


@pytest.mark.without_vulkan
def test_without_kompute():
    reason, remedy, error = run("import sys; sys.modules['kp'] = None" + ASK).splitlines()
    assert reason.startswith("Kompute's Python package (kp) cannot be imported")
    assert remedy.startswith("bash ")
    assert os.path.exists(remedy.split()[1])
    assert remedy.endswith(sys.executable)
    assert reason in error
    assert remedy in error


def test_without_a_driver():
    reason, _, error = run(ASK, VK_ICD_FILENAMES="/nowhere/icd.json").splitlines()
    assert reason.startswith("no Vulkan driver is installed, and VK_ICD_FILENAMES=/nowhere/icd.json is")
    assert reason in error


def test_without_the_loader():
    hide = """
    from adaptive_compute.backends.vulkan import limits
    limits.library = lambda: None
    """
    reason, _, error = run(textwrap.dedent(hide) + ASK).splitlines()
    assert reason == "Vulkan's loader (libvulkan) is not installed"
    assert reason in error


def test_an_empty_list_of_devices():
    empty = """
    from adaptive_compute.backends.vulkan import kompute
    kompute.devices = lambda: ()
    """
    reason, _, error = run(textwrap.dedent(empty) + ASK).splitlines()
    assert reason == "Vulkan's loader finds no device: no driver is installed"
    assert reason in error


# Two devices


@pytest.fixture
def twice(tmp_path):
    """The environment of a machine with two devices: Mesa's driver for the processor, installed twice."""
    driver = next(
        (f"{folder}/libvulkan_lvp.so" for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
         "/usr/lib64", "/usr/lib") if os.path.exists(f"{folder}/libvulkan_lvp.so")), None,
    )  # fmt: skip
    if driver is None:
        pytest.skip("Mesa's driver for the processor (libvulkan_lvp.so) is not installed")
    manifests = []
    for number in (0, 1):
        copy = shutil.copy(driver, tmp_path / f"driver{number}.so")
        manifests.append(tmp_path / f"icd{number}.json")
        entry = {"library_path": str(copy), "api_version": "1.3.230"}
        manifests[-1].write_text(json.dumps({"file_format_version": "1.0.0", "ICD": entry}))
    return {"VK_ICD_FILENAMES": ":".join(map(str, manifests))}


def test_two_devices(twice):
    code = """
    from adaptive_compute.backends.vulkan.limits import devices
    assert len(devices()) == 2
    print([d for d in registry.devices() if d.startswith("vulkan")])
    first, second = ac.to(X, "vulkan:0"), ac.to(X, "vulkan:1")
    for x in (first, second):
        y = ac.fft(x)
        assert y.device == x.device
        assert right(y.numpy())
    with ac.using(device="vulkan:1"):
        assert ac.explain(ac.fft, X).chosen.device == "vulkan:1"
        assert right(ac.fft(X))
    ac.transfers(reset=True)
    moved = ac.to(first, "vulkan:1")
    assert moved.device == "vulkan:1"
    print(list(ac.transfers()["transfers"]))
    assert np.array_equal(moved.numpy(), X)
    try:
        first + second
    except errors.TransferDenied as error:
        print("denied")
    try:
        ac.to(X, "vulkan:2")
    except errors.BackendUnavailable as error:
        print(error)
    """
    devices, moved, denied, error = run(code, **twice).splitlines()
    assert devices == "['vulkan:0', 'vulkan:1']"
    assert "'vulkan:0 -> vulkan:1'" in moved
    assert denied == "denied"
    assert error == "no device 'vulkan:2' here; there are: cpu, vulkan:0, vulkan:1"


# Opening, ending, forking


def test_a_call_that_stays_on_the_processor_loads_no_driver():
    run("""
    import sys
    assert right(ac.fft(X))
    assert "kp" not in sys.modules
    assert not any("libvulkan" in line for line in open("/proc/self/maps"))
    """)


def test_asking_what_is_there_opens_no_device():
    run("""
    from adaptive_compute.backends.vulkan import runtime
    backend = registry.backends()["vulkan"]
    assert backend.facts("vulkan:0") and backend.memory("vulkan:0") and backend.validators("vulkan:0")
    assert any(c.device == "vulkan:0" for c in ac.explain(ac.fft, X).candidates)
    ac.release()
    assert runtime.opened_runtimes() == []
    """)


def test_the_end_of_a_process_that_holds_arrays_and_plans():
    run("""
    x = ac.to(X, "vulkan")
    y = ac.fft(x)
    with ac.using("vulkan"):
        assert right(ac.fft(X))
    kept = [x, y, x[3:], registry.backends()]
    kept.append(kept)  # garbage that only the end collects
    """)


def test_the_end_of_a_process_while_threads_compute():
    run("""
    import threading
    def work():
        with ac.using("vulkan"):
            while True:
                try:
                    ac.fft(X)
                except (errors.DeviceLost, errors.NoKernelError, RuntimeError):
                    return  # the end has come
    started = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    with ac.using("vulkan"):
        assert right(ac.fft(X))
    for thread in started:
        thread.start()
    for _ in range(20):
        with ac.using("vulkan"):
            assert right(ac.fft(X))
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_is_told_and_the_parent_goes_on():
    printed = run("""
    import os, sys
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of fork beside threads
    x = ac.to(X, "vulkan")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            ac.to(X, "vulkan")
        except errors.DeviceLost as error:
            print(error)
        assert right(ac.fft(X)), "the processor still computes"
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert right(ac.fft(x).numpy())
    """)
    assert "forked; use the 'spawn' start method" in printed


def test_a_spawned_process_has_the_device_too(tmp_path):
    (tmp_path / "program.py").write_text(
        HEAD + "from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing\n"
        "def work(n):\n"
        "    with ac.using('vulkan'):\n"
        "        return bool(right(ac.fft(X)))\n"
        "if __name__ == '__main__':\n"
        "    assert work(0)\n"
        "    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:\n"
        "        print(list(pool.map(work, range(2))))\n"
    )
    environment = {**os.environ, "ADAPTIVE_PROFILE": os.devnull + "/none"}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[True, True]\n", "")


@pytest.mark.without_vulkan
def test_the_remedy_can_be_printed_without_running_anything():
    script = limits.__file__.replace("limits.py", "build-kp.sh")
    done = subprocess.run(
        ["bash", script, "--print", sys.executable], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for line in done.stdout.splitlines():
        assert line.split()[0] in ("apt-get", "sudo", "env", "echo", sys.executable), line
