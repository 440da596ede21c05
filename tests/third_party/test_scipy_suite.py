"""SciPy's own tests of ``scipy.fft``, as they are installed with it, run through this library."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import scipy

HERE = Path(__file__).parent
INSTALLED = Path(scipy.__file__).parent / "fft"


def run(*files, options=()):
    """Run test files of SciPy's in a fresh process; return its exit code, and the counts by their names."""
    if not all((INSTALLED / file).exists() for file in files):
        pytest.skip("this SciPy was installed without its tests")
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "scipy_plugin"),
        *(str(INSTALLED / file) for file in files),
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ADAPTIVE_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    print(done.stdout[-6000:], done.stderr[-2000:])
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|error|skipped|deselected)", done.stdout)}
    counts |= {name: int(n) for name, n in re.findall(r"(served|declined) (\d+)", done.stdout)}
    return done.returncode, counts


def test_scipys_tests_of_fourier_transforms():
    code, counts = run("tests/test_basic.py", options=("-k", "not multiprocess"))  # which start processes
    assert code == 0
    assert counts["passed"] >= 150
    assert counts["served"] >= 800  # by this library, or the run would prove nothing


@pytest.mark.slow
def test_all_of_scipys_tests():
    code, counts = run("tests", "_pocketfft/tests")
    assert code == 0
    assert counts["passed"] >= 5500
    assert counts["served"] >= 3000
    assert counts["declined"] >= 7000  # cosine transforms and the like, which reach SciPy


def test_what_is_left_out_has_a_reason():
    sys.path.insert(0, str(HERE))
    try:
        from scipy_plugin import LEFT_OUT, left_out
    finally:
        sys.path.remove(str(HERE))
    assert all(reason for reason in left_out(LEFT_OUT.read_text(encoding="utf-8")).values())
    assert left_out("# a comment\na.py::test_b  # why\n") == {"a.py::test_b": "why"}
