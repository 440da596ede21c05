"""FINUFFT's own Python tests, run through this library.

They are in FINUFFT's repository and in none of its packages: ``FINUFFT_TESTS`` names the folder python/finufft/test
of a checkout. Without it, tests/integrations/test_finufft_dropin.py checks the same against the installed FINUFFT.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LEFT_OUT = HERE / "finufft_left_out.txt"
CHECKOUT = os.environ.get("FINUFFT_TESTS", "")


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="set FINUFFT_TESTS to python/finufft/test of a checkout of FINUFFT")
def test_finuffts_tests_of_its_interface():
    pytest.importorskip("finufft", reason="pip install finufft")
    dropped = [line.partition("#")[0].strip() for line in LEFT_OUT.read_text(encoding="utf-8").splitlines()]
    ignored = [f"--ignore={Path(CHECKOUT) / name}" for name in dropped if name]
    command = [*(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"), *ignored]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "ADAPTIVE_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    done = subprocess.run(
        [*command, "-p", "finufft_plugin", CHECKOUT], capture_output=True, text=True, env=environment, timeout=300
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    assert done.returncode == 0
    assert counts["passed"] >= 600
    assert int(re.search(r"served (\d+)", done.stdout)[1]) >= 600  # by this library


def test_what_is_left_out_has_a_reason():
    for line in LEFT_OUT.read_text(encoding="utf-8").splitlines():
        name, _, reason = line.partition("#")
        assert reason.strip()
        assert not name or name.strip().endswith(".py")
