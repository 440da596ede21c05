"""What is kept of compiled kernels, against a CuPy that compiles nothing."""

from __future__ import annotations

import contextlib
import sys
import types

import pytest

from adaptive_compute.backends.cuda import compiled as module


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    """A CuPy whose compiler gives back what it was asked; ``asked`` lists that."""
    fake, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    fake.asked = []

    class Device(contextlib.nullcontext):
        compute_capability = "90"

        def __init__(self, index):
            super().__init__()

    class Module:
        def load(self, binary):
            self.binary = binary

        def get_function(self, name):
            return name, self.binary

    def compile_(text, options, architecture):
        fake.asked.append((text, options, architecture))
        return text.encode(), None

    cuda.Device, cuda.function = Device, types.SimpleNamespace(Module=Module)
    cuda.compiler = types.SimpleNamespace(compile_using_nvrtc=compile_)
    cuda.nvrtc = types.SimpleNamespace(getVersion=lambda: (13, 0))
    fake.cuda, fake.__file__ = cuda, str(tmp_path / "cupy" / "__init__.py")
    (tmp_path / "cupy" / "_core" / "include").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    monkeypatch.setattr(module, "default_path", lambda: tmp_path / "cache" / "profile.json")
    for function in (module.compiled, module._headers):
        function.cache_clear()
    yield fake
    for function in (module.compiled, module._headers):
        function.cache_clear()


def test_a_kernel_is_compiled_once_and_read_by_the_next_process(cupy):
    assert module.compiled("a", 0) == ("compute", b"a")
    module.compiled.cache_clear()
    assert module.compiled("a", 0) == ("compute", b"a")
    assert len(cupy.asked) == 1
    assert module.compiled("b", 0) == ("compute", b"b")
    cupy.cuda.nvrtc.getVersion = lambda: (13, 1)
    module.compiled.cache_clear()
    module.compiled("a", 0)
    assert [text for text, *_ in cupy.asked] == ["a", "b", "a"]


def test_numbers_keep_their_last_bits(cupy):
    module.compiled("a", 0)
    (_, options, architecture) = cupy.asked[0]
    assert "--fmad=false" in options
    assert "--ftz=false" in options
    assert any(option.startswith("-I") for option in options)
    assert architecture == "90"


def test_few_files_are_kept(cupy, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(7):
        module.compiled(f"kernel {number}", 0)
    assert len(list((tmp_path / "cache" / "kernels").iterdir())) == 3


def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(cupy, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    assert module.compiled("a", 0) == ("compute", b"a")
