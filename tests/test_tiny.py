"""The whole public path in a few seconds: import, compute, explain, choose. ``make tiny`` runs this file alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.errors import ArgumentError, NoKernelError

IMPORT = """
import importlib.metadata, sys

def scan(*args, **kwargs):
    raise AssertionError("importing the package scanned the entry points")

importlib.metadata.entry_points = scan
import adaptive_compute
slow = {"torch", "scipy", "finufft", "numexpr", "cupy", "kp", "typer", "rich"}
print("loaded:", *sorted(slow & set(sys.modules)))
print("backends:", *sorted(name for name in sys.modules if name.startswith("adaptive_compute.backends.")))
"""


def test_importing_loads_no_library_but_numpy_and_looks_for_no_backend():
    result = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["loaded:", "backends:"]


def test_fft_there_and_back():
    x = np.random.default_rng(0).standard_normal((4, 60)).astype(np.float32)
    kept = x.copy()
    y = ac.fft(x)
    direct = x.astype(complex) @ np.exp(-2j * np.pi * np.outer(np.arange(60), np.arange(60)) / 60)
    assert y.dtype == np.complex64
    assert np.linalg.norm(y - direct) < 1e-6 * np.linalg.norm(direct)
    assert np.allclose(ac.ifft(y), x, atol=1e-6)
    assert np.array_equal(x, kept)


def test_evaluate():
    a, b = np.linspace(0, 1, 100), np.linspace(1, 2, 100)
    assert np.allclose(ac.evaluate("a*b + sin(a)*exp(-b)", a=a, b=b), a * b + np.sin(a) * np.exp(-b), rtol=1e-14)


def test_explain_runs_nothing_and_names_every_candidate():
    decision = ac.explain(ac.fft, np.ones((8, 64)))
    names = [candidate.name for candidate in decision.candidates]
    assert decision.chosen.name in names
    assert "pocketfft" in names
    assert decision.reason in str(decision)
    assert decision.as_dict()["chosen"] == decision.chosen.name


def test_using_chooses_and_lets_go():
    x = np.ones((8, 64))
    with ac.using("cpu", kernel="pocketfft", threads=1):
        assert ac.settings.threads == 1
        assert [c.name for c in ac.explain(ac.fft, x).candidates] == ["pocketfft"]
        assert np.allclose(ac.fft(x)[:, 0], 64)
    assert ac.settings.kernel is None
    with pytest.raises(ArgumentError, match="known backends: cpu"), ac.using("abacus"):
        ac.fft(x)
    with pytest.raises(NoKernelError, match="pocketfft"), ac.using(kernel="abacus"):
        ac.fft(x)
