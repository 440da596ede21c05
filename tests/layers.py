"""The layer check: who may import whom, enforced. ``python tests/layers.py [FOLDER]`` exits with 1 on a violation.

Reads the source, imports nothing. Relative imports are resolved; imports under ``if TYPE_CHECKING:`` are exempt; a
module imported by a constant name (``importlib.import_module("torch")``) counts like an import statement.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "adaptive_compute"
ANY = frozenset({"*"})
ERRORS = f"{PACKAGE}.core.errors"  # what users catch: whoever stands on the public face may raise it as well


class Rule(NamedTuple):
    """What a layer may import: other layers of the package, and libraries from outside (the standard one always)."""

    layers: frozenset[str]
    libraries: frozenset[str]


def _rule(*layers: str, libraries: frozenset[str] = ANY) -> Rule:
    return Rule(frozenset(layers), libraries)


NUMPY = frozenset({"numpy"})
RULES = {
    "core": _rule("core", libraries=NUMPY),
    "face": _rule("core", "face", libraries=NUMPY),  # __init__.py, nufft.py and cufinufft.py
    "backends": _rule("core", "backends", libraries=NUMPY),  # base.py: what every backend stands on
    "pipelines": _rule("core", "backends", "pipelines", libraries=NUMPY),  # backends: base.py, for the types alone
    "integrations": _rule("core", "face", "integrations"),
    "cli": _rule("core", "face", "report", "zeta", "cli"),
    "report": _rule("core", "face", "report"),  # what a profile says, as a page
    "shaders": _rule(libraries=frozenset()),
    "nn": _rule("face", "nn"),
    "lm": _rule("face", "nn", "lm"),
    "zeta": _rule("face", "zeta"),
    "distributed": _rule("face", "distributed"),
}
BACKEND = _rule("core", "backends", "shaders")  # any one backend; its own layer, backends.<name>, is added to this

# Known deviations, each with its reason: (file, what it imports). One that is no longer needed is a violation too.
ALLOWED = {
    ("core/array.py", "torch"): "a torch tensor can only be made by torch; inside the method that makes one",
    ("core/array.py", f"{PACKAGE}.integrations.torch"): "by name, when a tensor that requires a gradient is at hand",
    ("core/traced.py", f"{PACKAGE}.integrations.torch_compile"): "when torch.compile reads the code",
}


class Violation(NamedTuple):
    """One import that the layers forbid."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def violations(package: Path, allowed: dict[tuple[str, str], str] = ALLOWED) -> list[Violation]:
    """Return every violation in a package folder."""
    files = sorted(package.rglob("*.py"))
    modules = {_module(file, package) for file in files}
    found: list[Violation] = []
    used: set[tuple[str, str]] = set()
    for file in files:
        name = file.relative_to(package).as_posix()
        layer = layer_of(_module(file, package))
        rule = BACKEND._replace(layers=BACKEND.layers | {layer}) if "." in layer else RULES.get(layer)
        if rule is None:
            found.append(Violation(file, 1, f"no rule for the layer {layer!r}; add one to {Path(__file__).name}"))
            continue
        for line, target in imports(file, package, modules):
            complaint = _complaint(layer, rule, target)
            if complaint and (name, target) in allowed:
                used.add((name, target))
            elif complaint:
                found.append(Violation(file, line, complaint))
    for name, target in sorted(set(allowed) - used):
        found.append(Violation(package / name, 1, f"is allowed to import {target} and does not need to any more"))
    return found


def _complaint(layer: str, rule: Rule, target: str) -> str | None:
    top = target.partition(".")[0]
    if top == PACKAGE:
        wanted = "face" if target == ERRORS and "face" in rule.layers else layer_of(target)
        return None if wanted in rule.layers else f"{layer} must not import {wanted} ({target})"
    if top in sys.stdlib_module_names or "*" in rule.libraries or top in rule.libraries:
        return None
    return f"{layer} must not import the library {top}"


def layer_of(module: str) -> str:
    """Return the layer of a module of the package: its room; a backend by its own name; the public face."""
    parts = module.split(".")[1:]
    if not parts or parts in (["nufft"], ["cufinufft"]):
        return "face"
    if parts[0] == "backends" and len(parts) > 1 and parts[1] != "base":
        return ".".join(parts[:2])
    return parts[0]


def _module(file: Path, package: Path) -> str:
    parts = [PACKAGE, *file.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, package: Path, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of every module that a file imports when it runs."""
    here = _module(file, package).split(".")
    home = here if file.name == "__init__.py" else here[:-1]
    for node in _running(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = home[: len(home) - node.level + 1] if node.level else []
            base = ".".join([*source, *([node.module] if node.module else [])])
            # `from .. import cpu` imports the module `cpu` where there is one, and otherwise a name in the package.
            targets = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
            yield from ((node.lineno, target) for target in sorted(targets))
        elif isinstance(node, ast.Call) and (target := _imported_by_name(node)):
            yield node.lineno, target


def _imported_by_name(call: ast.Call) -> str | None:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name not in ("import_module", "__import__") or not call.args or not isinstance(call.args[0], ast.Constant):
        return None
    target = call.args[0].value
    return target if isinstance(target, str) and not target.startswith(".") else None


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what stands under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def main(arguments: list[str]) -> int:
    """Check a package folder, print each violation, and return the exit code."""
    package = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / PACKAGE
    found = violations(package)
    for violation in found:
        print(violation)
    print(f"{len(found)} violations in {package}" if found else f"layers hold in {package}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
