"""Every public name exists, is told to type checkers, and has a docstring with a runnable example."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import adaptive_compute as ac

STUB = Path(ac.__file__).with_name("__init__.pyi")


def test_the_stub_and_the_package_offer_the_same_names_from_the_same_rooms():
    told = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            told |= {alias.name: node.module or "" for alias in node.names}
    assert sorted(told) == ac.__all__
    for name, room in told.items():
        module = getattr(ac, name).__module__ if inspect.isfunction(getattr(ac, name)) else None
        assert name not in ac._ROOM_OF or ac._ROOM_OF[name] == room
        assert module is None or "adaptive_compute" in module or "numpy" in module


@pytest.mark.parametrize("name", [name for name in ac.__all__ if callable(getattr(ac, name))])
def test_every_public_function_is_documented_with_an_example(name):
    thing = getattr(ac, name)
    doc = inspect.getdoc(thing)
    assert doc is not None
    assert ">>>" in doc
    if inspect.isfunction(thing) and thing.__module__.startswith("adaptive_compute"):
        hints = inspect.signature(thing)
        assert hints.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not inspect.Parameter.empty for p in hints.parameters.values())


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="fftt"):
        ac.fftt  # noqa: B018


def test_dir_lists_the_public_names():
    assert {"fft", "nufft", "attention", "evaluate", "using"} <= set(dir(ac))


def test_the_array_api_standards_names_are_there():
    """Each is NumPy's function of another name; NumPy from 2.0 has both."""
    names = {"acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan"}
    names |= {"atanh": "arctanh", "atan2": "arctan2", "pow": "power"}
    for name, same in names.items():
        assert getattr(ac, name) is getattr(ac, same)
