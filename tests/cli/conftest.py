"""Run the real command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


class Adaptive:
    """``adaptive ...`` with a profile file of its own; keeps every result to one promise: no traceback, ever."""

    def __init__(self, profile):
        self.profile = profile

    def __call__(self, *arguments, code=0, **environment):
        keep = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTIVE_")}
        result = subprocess.run(
            [sys.executable, "-m", "adaptive_compute.cli", *map(str, arguments)],
            env={**keep, "ADAPTIVE_PROFILE": str(self.profile), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in result.stderr + result.stdout, result.stderr
        assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
        return result


@pytest.fixture
def adaptive(tmp_path):
    return Adaptive(tmp_path / "profile.json")


@pytest.fixture(scope="session")
def profiled(tmp_path_factory):
    """The command, with a profile of some FFT sizes; tests read it and leave it as it is."""
    command = Adaptive(tmp_path_factory.mktemp("profiled") / "profile.json")
    command.first = command("profile", "--quick", "--op", "fft", "--budget", "6")
    return command
