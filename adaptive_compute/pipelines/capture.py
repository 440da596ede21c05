"""What a function reads besides its arguments: globals, closures and defaults, its own and its helpers'.

A recording holds for as long as all of that is as it was. Arrays among it become operands: each call reads them anew,
so that another array takes the place of the first. Plain values are compared. Where something cannot be watched (an
object's attributes, the clock, random numbers), ``opaque`` says what, and the function is recorded in every call.
"""

from __future__ import annotations

import builtins
import dis
import operator
import types
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ..core.operations.nufft_plan import Plan
from .tree import IMPURE, PURE, Flat, Same, filled, is_lasting, is_pure, plain_function

DEEPEST = 8  # helpers that call helpers


class Captured:
    """Everything that a function reads, found once from its code.

    Attributes
    ----------
    opaque : str or None
        What cannot be watched, in words.
    refused : str or None
        Why a recording could not stand for the function.
    """

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function
        self.opaque: str | None = None
        self.refused: str | None = None
        # Where code and modules are found, and what was there: a scope and a name in it, or a cell.
        self._named: list[tuple[dict[str, Any], str, Any]] = []
        self._celled: list[tuple[types.CellType, Any]] = []
        self._trees: list[Callable[[], Any]] = []
        self._forms: list[tuple[Any, Any] | None] = []  # of each tree: a value that never changes, and its form
        # By function: where its globals and its cells are found, a number among the trees or another function.
        self._helpers: dict[int, tuple[types.FunctionType, dict[str, Any], dict[str, Any]]] = {}
        self.plans: list[Plan] = []
        self._visit(function, 0)

    def is_current(self) -> bool:
        """Tell whether what was found to be code and modules still is the same."""
        try:
            for scope, name, thing in self._named:
                if scope[name] is not thing:
                    return False
            for cell, thing in self._celled:
                if cell.cell_contents is not thing:
                    return False
        except (KeyError, ValueError):
            return False
        return True

    def read(self, flat: Flat) -> Any:
        """Read every array and plain value, and return the form of them all."""
        form: tuple[Any, ...] = ()
        if self._trees:
            if len(self._forms) != len(self._trees):
                self._forms = [None] * len(self._trees)
            form = tuple([self._form(place, read(), flat) for place, read in enumerate(self._trees)])
            if flat.functions and any(id(function) not in self._helpers for function in flat.functions):
                flat.opaque = flat.functions
                self._forms.clear()
        return (*form, *(Same(plan._directions) for plan in self.plans)) if self.plans else form

    def _form(self, place: int, value: Any, flat: Flat) -> Any:
        """Return the form of one tree's value, from the last call where that is the same thing and never changes."""
        known = self._forms[place]
        if known is not None and known[0] is value:
            return known[1]
        form = flat.add(value)
        self._forms[place] = (value, form) if flat.opaque is None and is_lasting(value) else None
        return form

    def trusted(self) -> set[int]:
        """Return the identities of arrays that captured plans hold, which are private copies."""
        held = [x for plan in self.plans for direction in plan._directions.values() for x in direction.coordinates]
        return set(map(id, held))

    def rebuilt(self, arrays: Iterable[Any]) -> Callable[..., Any]:
        """Return the function with other arrays in the places of those that it reads."""
        made: dict[int, types.FunctionType] = {}
        values: list[Any] = []

        def build(function: types.FunctionType) -> types.FunctionType:
            found = made.get(id(function))
            if found is not None:
                return found
            _, names, cells = self._helpers[id(function)]
            code = function.__code__
            scope = dict(function.__globals__)
            closure = tuple(types.CellType() for _ in code.co_freevars)
            new = types.FunctionType(code, scope, function.__name__, function.__defaults__, closure or None)
            new.__kwdefaults__ = function.__kwdefaults__
            made[id(function)] = new
            for name, place in names.items():
                scope[name] = values[place] if isinstance(place, int) else build(place)
            for name, cell, old in zip(code.co_freevars, closure, function.__closure__ or ()):
                place = cells.get(name)
                if isinstance(place, int):
                    cell.cell_contents = values[place]
                elif place is not None:
                    cell.cell_contents = build(place)
                else:
                    try:
                        cell.cell_contents = old.cell_contents
                    except ValueError:  # not assigned yet: neither here
                        continue
            return new

        # Functions in tuples, lists and dicts may read other trees, so all trees are there before any is rebuilt.
        given = list(arrays)
        rest = iter(given)
        values += [filled(read(), rest) for read in self._trees]
        rest = iter(given)
        for place, read in enumerate(self._trees):
            values[place] = filled(read(), rest, build)
        made.clear()
        return build(self.function)

    def _visit(self, function: types.FunctionType, depth: int) -> None:
        if id(function) in self._helpers:
            return
        if depth >= DEEPEST:
            self._open(f"{function.__name__}, called too deep")
        names: dict[str, Any] = {}
        cells: dict[str, Any] = {}
        self._helpers[id(function)] = function, names, cells
        assigned = _assigned(function.__code__)
        if assigned is not None:
            self.refused = f"{function.__name__} assigns to {assigned}, which is not its own"
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            flat = Flat()
            flat.add(default)
            if flat.arrays or flat.functions or flat.opaque is not None:
                self._open(f"the default values of {function.__name__}")
        used = _names_of(function.__code__)
        for name in sorted(used):
            if name in function.__globals__:
                scope = function.__globals__
                self._take(name, partial(operator.getitem, scope, name), (scope, name), names, used, depth)
            elif name in IMPURE and hasattr(builtins, name):
                self._open(f"{name}()")
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                cell.cell_contents  # noqa: B018 - raises where there is nothing
            except ValueError:
                self._open(f"{name}, which is not assigned yet")
                continue
            self._take(name, partial(getattr, cell, "cell_contents"), cell, cells, used, depth)

    def _take(
        self, name: str, read: Callable[[], Any], place: Any, places: dict[str, Any], used: frozenset[str], depth: int
    ) -> None:
        """Watch one name, by what it stands for now."""
        value = read()
        if isinstance(value, types.ModuleType):
            self._watch(place, value)
            self._take_module(value, used)
        elif isinstance(value, Plan):
            self._watch(place, value)
            self.plans.append(value)
        elif is_pure(value):
            self._watch(place, value)
        elif isinstance(value, type):
            self._watch(place, value)
            self._open(f"{name}, a class")
        elif (inner := plain_function(value)) is not None:
            self._watch(place, value)
            places[name] = inner
            self._visit(inner, depth + 1)
        else:
            flat = Flat()
            flat.add(value)
            if flat.opaque is not None:
                self._open(f"{name}, a {type(flat.opaque).__name__}")
                return
            places[name] = len(self._trees)
            self._trees.append(read)
            for function in flat.functions:
                self._visit(function, depth + 1)

    def _watch(self, place: Any, value: Any) -> None:
        if isinstance(place, tuple):
            self._named.append((*place, value))
        else:
            self._celled.append((place, value))

    def _take_module(self, module: types.ModuleType, used: frozenset[str]) -> None:
        root = module.__name__.partition(".")[0]
        if root in PURE:
            impure = sorted(used & IMPURE)
            if impure and root in ("numpy", "torch", "scipy"):
                self._open(f"{module.__name__}'s {impure[0]}")
            return
        for name in sorted(used & set(vars(module))):
            flat = Flat()
            value = getattr(module, name)
            flat.add(value)
            if flat.opaque is not None or flat.arrays or flat.functions:
                self._open(f"{module.__name__}.{name}")
            else:
                self._trees.append(lambda name=name: getattr(module, name))  # type: ignore[misc]

    def _open(self, what: str) -> None:
        self.opaque = self.opaque or what


def _assigned(code: types.CodeType) -> str | None:
    """Return a name that is not the function's own and that it assigns to: a recording would do that once."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            instruction.opname == "STORE_DEREF" and instruction.argval in code.co_freevars
        ):
            return instruction.argval
    return None


def _names_of(code: types.CodeType) -> frozenset[str]:
    """Return every name that a function and the functions inside it use, attributes included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_of(constant)
    return frozenset(names)
