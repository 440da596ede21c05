"""Compile the GLSL sources to SPIR-V: ``python adaptive_compute/shaders/compile.py [NAME ...]`` (needs glslc).

A source ``name.comp`` gives ``spirv/name.spv``. Where its head holds lines ``// variant: NAME -DX=1 -DY=2``, it gives
one file for each of these instead. ``manifest.json`` records for every binary the hash of everything it was made from
(source, included files, switches) and its own, so that a test can tell a stale or foreign one without the compiler.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
SPIRV, MANIFEST = FOLDER / "spirv", FOLDER / "manifest.json"
SWITCHES = ("--target-env=vulkan1.1", "-O")
_VARIANT = re.compile(r"^// variant: (\S+)((?: -[DO]\S+)*)\s*$", re.MULTILINE)
_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


class Target(NamedTuple):
    """One binary: its name, its source file and the macros it is compiled with."""

    name: str
    source: Path
    macros: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of everything that the binary is made from."""
        text = "\0".join((*SWITCHES, *self.macros, whole_text(self.source)))
        return hashlib.sha256(text.encode()).hexdigest()


def whole_text(source: Path) -> str:
    """Return a source followed by what it includes."""
    text = source.read_text(encoding="utf-8")
    return "\0".join([text, *(whole_text(FOLDER / name) for name in _INCLUDE.findall(text))])


def targets() -> Iterator[Target]:
    """Yield every binary that the sources stand for."""
    for source in sorted(FOLDER.glob("*.comp")):
        variants = _VARIANT.findall(source.read_text(encoding="utf-8"))
        for name, macros in variants or [(source.stem, "")]:
            yield Target(name, source, tuple(macros.split()))


def recorded() -> dict[str, list[str]]:
    """Return, for every binary, the hash of what it was made from and its own."""
    return json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}


def digest_of(file: Path) -> str | None:
    """Return the hash of a file, or None where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None


def binary(target: Target) -> bytes:
    """Compile one target and return its SPIR-V."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.spv"
        command = ["glslc", *SWITCHES, "-I", str(FOLDER), *target.macros, str(target.source), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{target.name}: {done.stderr}")
        return out.read_bytes()


def main(names: list[str]) -> None:
    """Compile what is named, or else all that is stale, and drop binaries without a source."""
    SPIRV.mkdir(exist_ok=True)
    manifest, wanted, made = recorded(), list(targets()), {}
    if names:
        stale = [t for t in wanted if t.name in names or t.source.stem in names]
    else:
        stale = [t for t in wanted if manifest.get(t.name) != [t.digest, digest_of(SPIRV / f"{t.name}.spv")]]
    with ThreadPoolExecutor(2) as pool:
        for target, code in zip(stale, pool.map(binary, stale)):
            (SPIRV / f"{target.name}.spv").write_bytes(code)
            made[target.name] = [target.digest, hashlib.sha256(code).hexdigest()]
            print(f"compiled {target.name} ({len(code)} bytes)")
    known = {t.name for t in wanted}
    for file in SPIRV.glob("*.spv"):
        if file.stem not in known:
            file.unlink()
            print(f"removed {file.stem}")
    manifest = {name: digests for name, digests in recorded().items() if name in known}  # another run may have ended
    manifest |= made
    lines = [f"{json.dumps(name)}: {json.dumps(digests)}" for name, digests in sorted(manifest.items())]
    MANIFEST.write_text("{\n" + ",\n".join(lines) + "\n}\n")  # a line an entry: differences stay readable


if __name__ == "__main__":
    main(sys.argv[1:])
