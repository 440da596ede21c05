"""Choices that a caller may make, one place for all of them.

A value comes from, in this order: the innermost ``ac.using(...)`` of the running thread or task, the environment
(``ADAPTIVE_BACKEND`` and so on), the default. ``using`` is scoped by a ContextVar: a thread or an asyncio task sees
only its own, so that one caller's choice never leaks into another's calls.
"""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any

from .errors import ArgumentError, SettingsWarning

TRANSFERS = ("host", "allow", "log", "deny")
PRECISIONS = ("float32", "float64", "adaptive")


@dataclass(frozen=True, eq=False, slots=True)
class Settings:
    """One consistent set of choices. Compared and hashed by identity, which makes it a cheap cache key."""

    backend: str | None = None
    device: str | None = None
    kernel: str | None = None
    tol: float | None = None
    precision: str | None = None
    transfers: str = "host"
    threads: int | None = None
    profile: str | None = None
    learn: bool = False
    explaining: bool = False


def _one_of(name: str, value: Any, accepted: tuple[str, ...]) -> str:
    if value not in accepted:
        raise ArgumentError(f"{name}={value!r} is not accepted; use one of {', '.join(accepted)}")
    return value


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"{name} must be a name such as 'cpu', got {value!r}")
    return value.strip()


def check_tol(name: str, value: Any) -> float:
    """Return a tolerance as a float, or raise an error that names the argument."""
    if isinstance(value, bool) or (not isinstance(value, (int, float)) and not hasattr(value, "__float__")):
        raise ArgumentError(f"{name} must be a positive number (a relative L2 error), got {value!r}")
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"{name} must be a positive finite number (a relative L2 error), got {value!r}")
    return number


def check_threads(name: str, value: Any) -> int:
    """Return a thread count as an int, or raise an error that names the argument."""
    try:
        number = (
            value.__index__() if not isinstance(value, (str, bool)) else int(value) if isinstance(value, str) else 0
        )
    except (AttributeError, TypeError, ValueError):
        number = 0
    if number < 1:
        raise ArgumentError(f"{name} must be a whole number of threads, at least 1, got {value!r}")
    return number


def _switch(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("0", "1", "false", "true"):
        return value.lower() in ("1", "true")
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False (1 or 0 in the environment), got {value!r}")
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "backend": _name,
    "device": _name,
    "kernel": _name,
    "tol": check_tol,
    "precision": lambda name, value: _one_of(name, value, PRECISIONS),
    "transfers": lambda name, value: _one_of(name, value, TRANSFERS),
    "threads": check_threads,
    "profile": _name,
    "learn": _switch,
}
_ENVIRONMENT = {
    "backend": "ADAPTIVE_BACKEND",
    "profile": "ADAPTIVE_PROFILE",
    "transfers": "ADAPTIVE_TRANSFERS",
    "threads": "ADAPTIVE_THREADS",
    "learn": "ADAPTIVE_LEARN",
}
# Read by one backend for itself, and so no unknown names here.
_OF_BACKENDS = ("ADAPTIVE_VULKAN_STRICT", "ADAPTIVE_VULKAN_DEVICES")


def from_environment(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings that an environment asks for, and each value's source.

    An empty variable counts as unset. A bad value raises; an unknown ``ADAPTIVE_`` name warns.
    """
    values: dict[str, Any] = {}
    sources = {field.name: "default" for field in fields(Settings) if field.name != "explaining"}
    for field, variable in _ENVIRONMENT.items():
        text = environ.get(variable, "")
        if text:
            values[field] = _CHECKS[field](variable, text)
            sources[field] = f"environment ({variable})"
    for variable in sorted(environ):
        if variable.startswith("ADAPTIVE_") and variable not in (*_ENVIRONMENT.values(), *_OF_BACKENDS):
            accepted = ", ".join(sorted(_ENVIRONMENT.values()))
            warnings.warn(
                f"{variable} is not read by adaptive-compute; it reads {accepted}", SettingsWarning, stacklevel=3
            )
    return Settings(**values), sources


_interned: dict[tuple[Any, ...], Settings] = {}
_derived: dict[tuple[Any, ...], Settings] = {}  # what a change of which settings gave


def changed(state: Settings, **changes: Any) -> Settings:
    """Return a copy of the settings with some values replaced.

    Equal values give the same object, so that a ``with ac.using(...)`` in a loop finds its cached decisions again.
    """
    key = (state, *changes.items())
    found = _derived.get(key)
    if found is None:
        new = replace(state, **changes)
        if len(_interned) > 1024:
            _interned.clear()
            _derived.clear()
        found = _interned.setdefault(tuple(getattr(new, field.name) for field in fields(new)), new)
        _derived[key] = found
    return found


_scoped: ContextVar[Settings | None] = ContextVar("adaptive_compute_settings", default=None)
_outer: ContextVar[tuple[Settings | None, ...]] = ContextVar("adaptive_compute_outer", default=())
_base: Settings | None = None
_base_sources: dict[str, str] = {}


def base() -> Settings:
    """Return the settings outside any ``using``: environment over defaults, read once."""
    global _base, _base_sources
    if _base is None:
        _base, _base_sources = from_environment(os.environ)
    return _base


def current() -> Settings:
    """Return the settings in force in this thread or task."""
    return _scoped.get() or _base or base()


def available_threads() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


_processors = available_threads()


def threads(state: Settings) -> int:
    """Return the thread count that a call under these settings may use."""
    return state.threads or _processors


class using:
    """Make choices for every call inside a ``with`` block (or a decorated function).

    Parameters
    ----------
    backend : str, optional
        Run on this backend only (``"cpu"``, ``"cuda"``, ``"vulkan"``); a call that cannot raises.
    device : str, optional
        Run on this device only, for example ``"cpu"`` or ``"cuda:0"``.
    kernel : str, optional
        Run this kernel only, for example ``"pocketfft"``. ``ac.explain`` lists them.
    tol : float, optional
        Relative L2 error that a kernel's measured error must not exceed. Default: the dtype's own tolerance.
    precision : {"float32", "float64", "adaptive"}, optional
        Precision of the bulk work, where an operation offers a choice. "adaptive": the lowest with which a call still
        meets ``tol`` (for a NUFFT, ``eps``), where that is predicted to be faster; results keep their dtype.
    transfers : {"host", "allow", "log", "deny"}, optional
        Which operands may move between devices: host operands only (default), any, any with a warning each, or none.
    threads : int, optional
        Number of CPU threads that a call may use.
    learn : bool, optional
        Time calls and let a kernel that turns out slower than another one lose (default False); what was learned ends
        with the process.

    Raises
    ------
    ArgumentError
        If a value is not accepted; raised here and not at the first call inside.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> with ac.using("cpu", threads=1):
    ...     y = ac.fft(np.ones(4))
    >>> y.real.tolist()
    [4.0, 0.0, 0.0, 0.0]
    """

    __slots__ = ("_changes",)

    def __init__(
        self,
        backend: str | None = None,
        *,
        device: str | None = None,
        kernel: str | None = None,
        tol: float | None = None,
        precision: str | None = None,
        transfers: str | None = None,
        threads: int | None = None,
        learn: bool | None = None,
    ) -> None:
        asked = {
            "backend": backend, "device": device, "kernel": kernel, "tol": tol,
            "precision": precision, "transfers": transfers, "threads": threads,
            "learn": learn,
        }  # fmt: skip
        self._changes = {name: _CHECKS[name](name, value) for name, value in asked.items() if value is not None}

    def __enter__(self) -> using:
        # What to go back to is kept in the context too, so that one object may be entered by several tasks at once.
        _outer.set((*_outer.get(), _scoped.get()))
        _scoped.set(changed(current(), **self._changes))
        return self

    def __exit__(self, *exception: object) -> None:
        *before, last = _outer.get()
        _outer.set(tuple(before))
        _scoped.set(last)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function so that each of its calls runs under these choices."""
        changes = self._changes
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ArgumentError(f"{function.__name__} is a generator; write `with ac.using(...)` inside it instead")
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with using(**changes):
                    return await function(*args, **kwargs)

            return awaited

        @wraps(function)
        def scoped(*args: Any, **kwargs: Any) -> Any:
            token = _scoped.set(changed(current(), **changes))
            try:
                return function(*args, **kwargs)
            finally:
                _scoped.reset(token)

        return scoped


@contextmanager
def without_kernel() -> Iterator[None]:
    """Let go of a forced kernel inside the block."""
    token = _scoped.set(changed(current(), kernel=None))
    try:
        yield
    finally:
        _scoped.reset(token)


class explaining:
    """Turn calls inside the block into decisions: the dispatcher raises ``Explained`` instead of running."""

    def __init__(self, on: bool = True) -> None:
        self._on = on

    def __enter__(self) -> None:
        self._token = _scoped.set(changed(current(), explaining=self._on))

    def __exit__(self, *exception: object) -> None:
        _scoped.reset(self._token)


class SettingsView:
    """Read-only view of the settings in force: ``ac.settings.backend``, ``ac.settings.sources()``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "explaining":
            raise AttributeError(name)
        return getattr(current(), name)

    def sources(self) -> dict[str, str]:
        """Return where each value came from: ``using``, the environment, or the default."""
        outer = base()
        here = current()
        return {
            name: source if getattr(here, name) == getattr(outer, name) else "using"
            for name, source in _base_sources.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Return every value in force by name."""
        here = current()
        return {name: getattr(here, name) for name in self.sources()}

    def reload(self) -> None:
        """Read the environment again (it is read once, at the first call)."""
        global _base
        _base = None
        base()
        for listener in reloaded:
            listener()

    def __repr__(self) -> str:
        return "settings(" + ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items()) + ")"


reloaded: list[Callable[[], None]] = []  # called when the environment was read again
settings = SettingsView()
