"""The compiled shaders are those of the sources: told by hashes, and by compiling again where glslc is there."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

import pytest

from adaptive_compute.shaders import FOLDER, spirv
from adaptive_compute.shaders import compile as shaders

pytestmark = pytest.mark.without_vulkan

TARGETS = list(shaders.targets())
MAGIC = 0x07230203


def test_every_source_has_its_binaries_and_no_binary_is_without_a_source():
    assert len({target.name for target in TARGETS}) == len(TARGETS), "two sources give a binary of the same name"
    assert {target.name for target in TARGETS} == {file.stem for file in shaders.SPIRV.glob("*.spv")}
    assert {target.name for target in TARGETS} == set(shaders.recorded())


def test_no_binary_is_older_than_its_source_or_was_changed_by_hand():
    recorded = shaders.recorded()
    for target in TARGETS:
        made_from, made = recorded[target.name]
        assert made_from == target.digest, f"{target.name} is stale; `make shaders` compiles it"
        assert made == shaders.digest_of(shaders.SPIRV / f"{target.name}.spv"), f"{target.name} was changed by hand"


def test_a_changed_source_include_or_switch_changes_the_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(shaders, "FOLDER", tmp_path)
    (tmp_path / "part.glsl").write_text("float part;\n")
    source = tmp_path / "whole.comp"
    source.write_text('// variant: whole_2 -DN=2\n// variant: whole_3 -DN=3 -O0\n#include "part.glsl"\n')
    first, second = shaders.targets()
    assert (first.name, first.macros) == ("whole_2", ("-DN=2",))
    assert second.macros == ("-DN=3", "-O0")
    digests = {first.digest, second.digest}
    (tmp_path / "part.glsl").write_text("float part2;\n")
    digests |= {first.digest, second.digest}
    source.write_text(source.read_text() + "// more\n")
    digests |= {first.digest, second.digest}
    assert len(digests) == 6


def test_every_binary_is_a_module_for_vulkan_1_1():
    for target in TARGETS:
        magic, version = struct.unpack_from("<2I", spirv(target.name))
        assert magic == MAGIC, target.name
        assert version <= 0x00010300, f"{target.name}: SPIR-V 1.3 is the newest that Vulkan 1.1 takes"


def test_every_source_says_what_it_is():
    for source in FOLDER.glob("*.comp"):
        head = re.match(r"(?:#[^\n]*\n)*((?://[^\n]*\n)+)", source.read_text())
        assert head, f"{source.name} does not begin with a comment"
        assert len(head[1]) > 150, f"{source.name}: its head must say what it computes, bindings, constants, method"


def test_a_missing_binary_names_the_command():
    with pytest.raises(LookupError, match="make shaders"):
        spirv("no_such_shader")


def _without_glslc() -> str | None:
    """Return why nothing can be compiled here, or None."""
    if shutil.which("glslc") is None:
        return "glslc is not installed (apt-get install glslc)"
    done = subprocess.run(["glslc", "--version"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"glslc cannot run: {done.stderr.strip()}"


WITHOUT_GLSLC = _without_glslc()


def _compiled_again(target: shaders.Target) -> None:
    made = shaders.binary(target)
    kept = spirv(target.name)
    if made[8:12] == kept[8:12]:  # the compiler's mark: another release may well give other code
        assert made == kept, f"{target.name} is not what its source gives"
    assert struct.unpack_from("<I", made)[0] == MAGIC


@pytest.mark.skipif(WITHOUT_GLSLC is not None, reason=str(WITHOUT_GLSLC))
@pytest.mark.parametrize("source", sorted({target.source for target in TARGETS}), ids=lambda source: source.stem)
def test_a_source_compiles_to_its_binary(source):
    smallest = min((t for t in TARGETS if t.source == source), key=lambda t: len(spirv(t.name)))
    _compiled_again(smallest)


@pytest.mark.slow
@pytest.mark.skipif(WITHOUT_GLSLC is not None, reason=str(WITHOUT_GLSLC))
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_variant_compiles_to_its_binary(target):
    _compiled_again(target)
