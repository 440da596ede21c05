"""One call of a pipeline, looked at before it runs, and what is known of calls like it."""

from __future__ import annotations

import sysconfig
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.array import call_key, describe, kind_of
from ..core.settings import Settings
from ..core.transfer import is_constant
from .execute import Program
from .stand_in import StandIn
from .tree import Flat

if TYPE_CHECKING:
    from .decorator import Pipeline

_ARRAYS = frozenset((np.ndarray,))
_PACKAGE = str(Path(__file__).resolve().parent.parent)
_STANDARD = sysconfig.get_path("stdlib")


class Recording:
    """What is known of one signature: a program and what it is given besides the caller's arrays, or why there is none.

    ``anew`` says why the function must be recorded in every call, or is None. Where that takes longer than the
    placement saves, ``told`` is set and the calls run one by one without being recorded.
    """

    __slots__ = ("anew", "constants", "numbers", "program", "reason", "result", "told", "where")

    def __init__(self) -> None:
        self.program: Program | None = None
        self.constants: list[Any] = []
        self.numbers: list[Any] = []
        self.result: Any = None  # what the function returned, with stand-ins
        self.anew: str | None = None
        self.reason: str | None = None
        self.where: str | None = None
        self.told = False  # what there is to say is no reason for a warning


class Call:
    """One call, looked at: the arrays that it is given and that the function reads, and the key of all the rest."""

    by_call: str | None
    opaque: str | None
    __slots__ = ("args", "arguments", "by_call", "captured", "key", "kwargs", "opaque", "state")

    def __init__(self, pipeline: Pipeline, args: tuple[Any, ...], kwargs: dict[str, Any], state: Settings) -> None:
        self.args, self.kwargs, self.state = args, kwargs, state
        self.by_call = self.opaque = None
        self.arguments: Sequence[Any]
        form: Any
        if not kwargs and _ARRAYS.issuperset(map(type, args)):
            form, self.arguments = len(args), args
        else:
            flat = Flat()
            form, self.arguments = (flat.add(args), flat.add(kwargs)), flat.arrays
            if flat.opaque is not None or flat.functions:
                what = "function" if flat.opaque is None else type(flat.opaque).__name__
                self.opaque = f"an argument is a {what}"
        read = Flat()
        seen = pipeline.captured().read(read)
        if read.opaque is not None:  # where there was a plain value, there is something else now
            pipeline.forget_captured()
            read = Flat()
            seen = pipeline.captured().read(read)
        self.captured = read.arrays
        metas: Any = tuple([call_key(array) for array in self.arguments])
        fixed: Any = None
        if read.arrays:
            metas += tuple([call_key(array) for array in read.arrays])
            fixed = tuple([pipeline.keep or unchanging(array) for array in read.arrays])
        if None in metas:
            metas = tuple([self._meta(array) for array in (*self.arguments, *self.captured)])
        self.key = state, form, seen, metas, fixed

    def _meta(self, array: Any) -> Any:
        known = call_key(array)
        if known is not None:
            return known
        kind = kind_of(array)
        assert kind is not None
        if isinstance(array, StandIn):
            self.by_call = "it is part of another recording"
        elif kind.differentiable and kind.needs_gradient(array):
            self.by_call = "an array requires a gradient"
        elif kind.name in ("numpy", "torch") and type(array).__name__ not in ("Tensor", "Parameter"):
            self.by_call = f"an array is a {type(array).__name__}"
        return None if self.by_call else describe(array)


def unchanging(array: Any) -> bool:
    """Tell whether nothing can change an array's values in place: it is read-only, and so is all that it views."""
    if type(array) is not np.ndarray:
        return False
    part: Any = array
    while isinstance(part, np.ndarray):
        if part.flags.writeable:
            return is_constant(array)
        part = part.base
    return part is None or isinstance(part, bytes)


def where_in_code(error: BaseException, function: types.FunctionType) -> str:
    """Return file and line of the last place in the user's code that an error passed."""
    own = Path(function.__code__.co_filename)
    place = f"{own}:{function.__code__.co_firstlineno}"
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if (
            not file.startswith((_PACKAGE, _STANDARD))
            and "site-packages" not in file
            and not file.startswith("<frozen")
        ):
            place = f"{file}:{line}"
    return place
