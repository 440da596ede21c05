"""The command as a whole: help, version, exit codes, warnings, what it imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

import adaptive_compute as ac


def test_version(adaptive):
    assert adaptive("--version").stdout.strip() == f"adaptive-compute {ac.__version__}"


def test_help_names_every_command(adaptive):
    text = adaptive("--help").stdout
    for command in ("profile", "doctor", "explain", "bench", "settings"):
        assert command in text


@pytest.mark.parametrize("module", ["adaptive_compute", "adaptive_compute.cli"])
def test_help_imports_no_library_that_it_does_not_need(module):
    code = f"""
import sys
sys.argv = ["adaptive", "--help"]
import {module}
if "cli" in {module!r}:
    try:
        adaptive_compute.cli.main()
    except SystemExit:
        pass
print("loaded:", *sorted({{"torch", "scipy", "finufft", "numexpr"}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize("arguments", [["nonsense"], ["profile", "--nonsense"], ["bench", "nonsense"], ["explain"]])
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(adaptive, arguments):
    result = adaptive(*arguments, code=2)
    assert result.stdout == ""
    assert result.stderr.strip()


@pytest.mark.parametrize(
    ("command", "variable", "value", "named"),
    [
        (["settings"], "ADAPTIVE_TRANSFERS", "maybe", "host, allow, log, deny"),
        (["doctor"], "ADAPTIVE_THREADS", "many", "at least 1"),
        (["explain", "fft", "--shape", "8", "--dtype", "float32"], "ADAPTIVE_THREADS", "0", "at least 1"),
    ],
)
def test_a_bad_environment_variable_exits_with_2_and_names_what_is_accepted(adaptive, command, variable, value, named):
    result = adaptive(*command, code=2, **{variable: value})
    (line,) = result.stderr.splitlines()
    assert variable in line
    assert value in line
    assert named in line
    assert result.stdout == ""


def test_an_unknown_environment_variable_warns_in_one_line(adaptive):
    result = adaptive("settings", "--json", ADAPTIVE_TREADS="2")
    (line,) = result.stderr.splitlines()
    assert line.startswith("adaptive: warning: ADAPTIVE_TREADS is not read")


def test_an_unknown_backend_in_the_environment_is_wrong_usage(adaptive):
    command = ("explain", "fft", "--shape", "8", "--dtype", "float32")
    result = adaptive(*command, code=2, ADAPTIVE_BACKEND="abacus")
    assert "known backends: cpu" in result.stderr
