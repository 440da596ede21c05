"""The layer check holds on this package, and finds every kind of violation that is planted."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "layers.py"
_spec = importlib.util.spec_from_file_location("layers", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
layers = importlib.util.module_from_spec(_spec)
sys.modules["layers"] = layers
_spec.loader.exec_module(layers)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def package(tmp_path):
    """A small package with every layer, that keeps every rule."""
    files = {
        "__init__.py": "from . import nufft\nfrom .core.front import door\n",
        "nufft.py": "from .core import front\n",
        "core/__init__.py": "",
        "core/front.py": "import os\nimport numpy as np\nfrom . import back\nfrom .back import thing\ndoor = 1\n",
        "core/back.py": "thing = 1\n",
        "core/errors.py": "AnyError = ValueError\n",
        "backends/__init__.py": "",
        "backends/base.py": "from ..core import front\n",
        "backends/cpu/__init__.py": "from .device import one\n",
        "backends/cpu/device.py": "import torch\nfrom ...core.front import door\nfrom ..base import front\none = 1\n",
        "backends/cuda/__init__.py": "import cupy\n",
        "integrations/__init__.py": "",
        "integrations/torch.py": "import torch\nfrom ..core import front\n",
        "cli/__init__.py": "import typer\nfrom .. import door\nfrom ..core.front import door as d\n",
        "shaders/__init__.py": "import subprocess\n",
        "nn/__init__.py": "import torch\nfrom adaptive_compute import door\nfrom ..core.errors import AnyError\n",
    }
    root = tmp_path / "adaptive_compute"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def found(package: Path) -> list[tuple[str, int, str]]:
    return [(v.file.relative_to(package).as_posix(), v.line, v.message) for v in layers.violations(package, {})]


def test_this_package_keeps_its_layers():
    result = run()
    assert result.returncode == 0, result.stdout


def test_a_package_that_keeps_the_rules_passes(package):
    assert found(package) == []


@pytest.mark.parametrize(
    ("file", "line", "layer", "what"),
    [
        ("core/front.py", "import torch", "core", "library torch"),
        ("core/front.py", "from scipy import fft", "core", "library scipy"),
        ("core/front.py", "def f():\n    import finufft", "core", "library finufft"),
        ("core/front.py", "import importlib\nimportlib.import_module('torch.fft')", "core", "library torch"),
        ("core/front.py", "from ..backends import cpu", "core", "backends.cpu"),
        ("core/front.py", "from ..backends.cpu.device import one", "core", "backends.cpu"),
        ("core/front.py", "import adaptive_compute.backends.base", "core", "backends"),
        ("core/front.py", "from .. import cli", "core", "cli"),
        ("core/front.py", "from adaptive_compute.integrations import torch", "core", "integrations"),
        ("core/front.py", "from .. import door", "core", "face"),
        ("core/front.py", "from ..nn import layer", "core", "nn"),
        ("backends/base.py", "from .cpu import device", "backends", "backends.cpu"),
        ("backends/base.py", "import torch", "backends", "library torch"),
        ("backends/cpu/device.py", "from ..cuda import x", "backends.cpu", "backends.cuda"),
        ("backends/cpu/device.py", "from .. import cuda", "backends.cpu", "backends.cuda"),
        ("backends/cpu/device.py", "from ...integrations import torch as t", "backends.cpu", "integrations"),
        ("backends/cuda/__init__.py", "from ...cli import main", "backends.cuda", "cli"),
        ("shaders/__init__.py", "from ..core import front", "shaders", "core"),
        ("shaders/__init__.py", "import numpy", "shaders", "library numpy"),
        ("cli/__init__.py", "from ..backends import cpu", "cli", "backends.cpu"),
        ("integrations/torch.py", "from ..backends.cpu import device", "integrations", "backends.cpu"),
        ("nn/__init__.py", "from ..core import front", "nn", "core"),
        ("shaders/__init__.py", "from ..core.errors import AnyError", "shaders", "core"),
        ("nufft.py", "import finufft", "face", "library finufft"),
    ],
)
def test_a_planted_violation_is_found_at_its_line(package, file, line, layer, what):
    path = package / file
    path.write_text(path.read_text() + line + "\n")
    (where, number, message), *others = found(package)
    assert others == []
    assert where == file
    assert "import" in path.read_text().splitlines()[number - 1]
    assert message.startswith(f"{layer} must not import")
    assert what in message


def test_the_script_fails_and_names_file_and_line(package):
    (package / "core/back.py").write_text("thing = 1\nimport torch\n")
    result = run(str(package))
    assert result.returncode == 1
    assert f"{package / 'core/back.py'}:2: core must not import the library torch" in result.stdout


def test_imports_for_type_checkers_are_exempt_but_not_what_stands_beside_them(package):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import scipy\n"
    (package / "core/back.py").write_text(text)
    assert found(package) == [("core/back.py", 5, "core must not import the library scipy")]


def test_a_room_without_a_rule_is_a_violation(package):
    (package / "attic").mkdir()
    (package / "attic/__init__.py").write_text("")
    assert "no rule for the layer 'attic'" in found(package)[0][2]


def test_a_deviation_that_is_not_needed_any_more_is_a_violation(package):
    allowed = {("core/back.py", "torch"): "reason"}
    assert "does not need to any more" in layers.violations(package, allowed)[0].message
    (package / "core/back.py").write_text("import torch\n")
    assert layers.violations(package, allowed) == []
