"""Every example runs, finds what it says, and writes its picture."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "radial_mri": ("matplotlib", "mrinufft"), "sparse_transformer": ("matplotlib", "torch", "transformers"),
    "phase_learning": ("matplotlib", "torch"), "relations": ("matplotlib", "torch"),
}  # fmt: skip
NAMES = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "picture")


def test_the_list_is_whole():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in listed for name in NAMES)
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name, tmp_path):
    for library in NEEDS.get(name, ("matplotlib",)):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}: see examples/README.md")
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--output", str(tmp_path / "picture.png")],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
        env={**os.environ, "ADAPTIVE_PROFILE": str(tmp_path / "profile.json")},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
