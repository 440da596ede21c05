"""What the documentation shows is true: its examples run, its example backend is whole, its links lead somewhere."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.measure import measure
from adaptive_compute.core.registry import registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.fixture
def example(monkeypatch):
    """The example backend of docs/adding-a-backend.md, importable, and gone again afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import example_backend

    yield example_backend
    registry.unregister("sandbox")
    sys.modules.pop("example_backend", None)
    ac.transfers(reset=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_run(page, example):
    if page.name == "mri-nufft.md":
        pytest.importorskip("mrinufft", reason="pip install mri-nufft")
    ac.transfers(reset=True)
    failed, _ = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_page_shows_the_example_as_it_is():
    page = (ROOT / "docs" / "adding-a-backend.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "example_backend.py").read_text(encoding="utf-8") in page


def test_the_example_is_exact_and_can_be_profiled(example):
    registry.register(example.backend)
    x = np.random.default_rng(0).standard_normal((3, 20, 2)).view(complex)[..., 0]
    exact = np.exp(-2j * np.pi * np.outer(np.arange(20), np.arange(20)) / 20)
    with ac.using("sandbox"):
        assert np.allclose(ac.fft(x), x @ exact, atol=1e-12)
        assert np.allclose(ac.fft(x.T, axis=0), (x @ exact).T, atol=1e-12)
        assert ac.fft(x.astype(np.complex64)).dtype == np.complex64
    section = measure(registry, operations=["fft"], backends=["sandbox"], quick=True, budget=4.0).sections["sandbox:0"]
    assert section.kernels["fft"]["sandbox-fft"]
    assert section.rejected == {}
    assert section.up is not None
    assert section.down is not None
