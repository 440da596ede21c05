"""Which backends exist, loaded when first asked for: our own by name, third parties' by entry point."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .array import loaders
from .errors import ArgumentError, BackendUnavailable

if TYPE_CHECKING:
    from ..backends.base import Backend, Kernel

ENTRY_POINTS = "adaptive_compute.backends"

# Loaded by name: the core imports no backend, and a backend that nobody asks for costs nothing.
BUILT_IN = {name: f"adaptive_compute.backends.{name}" for name in ("cpu", "cuda", "vulkan")}
HOST = "cpu"
_PROMISED = ("available", "devices", "kernels", "validators", "upload", "download", "synchronize")


class Registry:
    """The backends of this process and their kernels.

    A backend is asked what it offers when that can matter: the host's at once, another one when an operand lives
    there, the profile measured it or the caller asks for it. Until then its drivers and libraries are not loaded.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._backends: dict[str, Backend] | None = None
        self._failed: dict[str, str] = {}
        self._offers: dict[str, tuple[list[str], list[Kernel]]] = {}  # of the backends that were asked
        self._kernels: dict[str, list[Kernel]] = {}
        self._devices: dict[str, Backend] = {}
        self.changed: list[Callable[[], None]] = []  # called when a backend comes or goes

    def backends(self) -> dict[str, Backend]:
        """Return every known backend by name, available or not."""
        if self._backends is None:
            with self._lock:
                if self._backends is None:
                    self._backends = self._discover()
                    self._ask([HOST])
        return self._backends

    def loaded(self) -> dict[str, Backend]:
        """Return the backends that were loaded so far; loads none."""
        return dict(self._backends or {})

    def _discover(self) -> dict[str, Backend]:
        found: dict[str, Backend] = {}
        for name, module in BUILT_IN.items():
            found[name] = importlib.import_module(module).backend
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINTS):
            if point.name in found:
                self._failed[f"{point.name} ({point.value})"] = "a backend of this name exists already"
                continue
            try:
                backend = point.load()
            except Exception as error:  # a broken third-party backend must not break the library; doctor shows it
                self._failed[point.name] = f"{type(error).__name__}: {error}"
                continue
            complaint = _complaint(point.name, backend)
            if complaint is None:
                found[point.name] = backend
            else:
                self._failed[point.name] = f"{point.value} {complaint}"
        return found

    def _ask(self, names: Iterable[str] | None = None) -> None:
        """Ask backends (by default all) that were not asked yet for their devices and kernels."""
        backends = self._backends if self._backends is not None else self.backends()
        if all(name in self._offers for name in (backends if names is None else names) if name in backends):
            return
        with self._lock:
            for name in list(backends if names is None else names):
                if name not in backends or name in self._offers:
                    continue
                backend = backends[name]
                try:
                    able = backend.available() is True
                    offer = (list(backend.devices()), list(backend.kernels())) if able else ([], [])
                    self._check_offer(name, *offer)
                    self._offers[name] = offer
                except Exception as error:  # as above: what one backend gets wrong must not stop the others
                    if name in BUILT_IN:
                        raise
                    self._failed[name] = f"{type(error).__name__}: {error}"
                    del backends[name]
            self._index()

    def _check_offer(self, name: str, devices: list[str], kernels: list[Kernel]) -> None:
        """Raise where a backend's devices are named like another one's, or its kernels run on somebody else's."""
        for device in devices:
            if _owner(device) != name:
                raise ArgumentError(f"a device of backend {name!r} must be called {name}:0 and so on, not {device!r}")
        for kernel in kernels:
            if not kernel.name or not kernel.operation:
                raise ArgumentError(f"{kernel!r} must have a name and an operation")
            if kernel.device not in (HOST, *devices):
                raise ArgumentError(f"{kernel!r} must run on one of the backend's devices, or on the host")

    def _index(self) -> None:
        assert self._backends is not None
        kernels: dict[str, list[Kernel]] = {}
        devices: dict[str, Backend] = {}
        for name, backend in self._backends.items():
            found, offered = self._offers.get(name, ((), ()))
            devices.update(dict.fromkeys(found, backend))
            for kernel in offered:
                kernels.setdefault(kernel.operation, []).append(kernel)
        self._kernels, self._devices = kernels, devices

    def failed(self) -> dict[str, str]:
        """Return the entry points that could not be loaded, with the reason."""
        self._ask()
        return dict(self._failed)

    def register(self, backend: Backend) -> None:
        """Add a backend to this process (tests and notebooks; packages use the entry point)."""
        with self._lock:
            self.backends()[backend.name] = backend
            self._offers.pop(backend.name, None)
            self._ask([backend.name])
            if backend.name not in self.backends():
                raise ArgumentError(f"backend {backend.name!r} is not accepted: {self._failed.pop(backend.name)}")
        self._tell()

    def unregister(self, name: str) -> None:
        """Remove a backend from this process."""
        with self._lock:
            self.backends().pop(name, None)
            self._offers.pop(name, None)
            self._index()
        self._tell()

    def _tell(self) -> None:
        for listener in self.changed:
            listener()

    def kernels(self, operation: str, devices: Iterable[str] | None = None) -> Sequence[Kernel]:
        """Return the kernels of an operation, over every available device.

        Where ``devices`` are given, kernels of backends that none of them belongs to may be missing.
        """
        self._ask(None if devices is None else {_owner(device) for device in devices})
        return self._kernels.get(operation, ())

    def complete(self) -> bool:
        """Tell whether every backend was asked what it offers."""
        return all(name in self._offers for name in self.backends())

    def operations(self) -> list[str]:
        """Return the names of operations that have at least one kernel."""
        self._ask()
        return list(self._kernels)

    def devices(self) -> list[str]:
        """Return the devices of every available backend."""
        self._ask()
        return list(self._devices)

    def backend_of(self, device: str) -> Backend:
        """Return the backend that a device belongs to."""
        if device not in self._devices:
            self._ask([_owner(device)])
        if device not in self._devices:
            self._ask()
        if device not in self._devices:
            raise BackendUnavailable(f"no device {device!r} here; there are: {', '.join(self._devices)}")
        return self._devices[device]

    def require(self, name: str) -> Backend:
        """Return a backend by name, or raise with the reason and the remedy."""
        backends = self.backends()
        if name not in backends:
            raise ArgumentError(f"backend={name!r} is not known; known backends: {', '.join(backends)}")
        reason: Any = backends[name].available()
        if reason is not True:
            remedy = backends[name].remedy()
            raise BackendUnavailable(f"backend {name!r}: {reason}" + (f". To mend it: {remedy}" if remedy else ""))
        return backends[name]


def _complaint(name: str, backend: Any) -> str | None:
    """Return in words why what an entry point names is no backend, or None."""
    if isinstance(backend, type):
        return "is a class; the entry point must name an object of it"
    missing = [part for part in _PROMISED if not callable(getattr(backend, part, None))]
    if missing:
        return f"is no backend: it has no {', '.join(missing)}; subclass adaptive_compute.backends.base.Backend"
    if backend.name != name:
        return f"calls itself {backend.name!r}; a backend's name must be its entry point's"
    return None


def _owner(device: str) -> str:
    """Return the name of the backend that a device's name points at."""
    return device.partition(":")[0]


registry = Registry()
loaders.append(registry.devices)
