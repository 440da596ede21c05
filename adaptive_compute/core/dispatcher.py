"""The front door: arrays -> request -> decision -> plan -> result."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import settings as _settings
from .advice import advise
from .array import ArrayKind, Operand, as_array, describe, kind_named, kind_of
from .errors import (
    AdaptiveError,
    ArgumentError,
    DeviceError,
    DeviceLost,
    MissingProfileError,
    NoProfileWarning,
    ProfileError,
    SetAsideWarning,
    TooLargeError,
    TransferWarning,
)
from .host_memory import results
from .narrow import runner
from .operation import Operation, Request
from .profile import Profile, profile_path
from .registry import Registry, registry
from .router import Decision, Router
from .settings import Settings
from .transfer import move

if TYPE_CHECKING:
    from ..backends.base import Kernel, Plan

PLAN_BUDGET = 1 << 30  # bytes that the cached plans of a device may hold together, or
PLAN_SHARE = 8  # this part of the device's memory, where that is more
ENTRY_LIMIT = 4096  # decisions kept, whatever their plans hold
FAST_LIMIT = 4096  # calls that user functions keep under keys of their own


class Explained(BaseException):
    """Raised instead of running while ``explain`` asks for the decision."""

    def __init__(self, decision: Any) -> None:
        super().__init__("explained")
        self.decision = decision


class Entry:
    """A cached decision with its plan. ``call`` takes the caller's arrays and returns the caller's kind."""

    __slots__ = ("call", "decision", "nbytes", "plan", "used")

    def __init__(self, decision: Decision, plan: Plan, call: Callable[..., Any]) -> None:
        self.decision = decision
        self.plan = plan
        self.nbytes = plan.nbytes  # as it was counted: a plan may grow later
        self.call = call
        self.used = True


class Dispatcher:
    """Runs each call where the router says, and keeps decisions and plans for the next one.

    Attributes
    ----------
    router : Router
        Decides; ``router.profile`` is the profile in use.
    fast : dict
        Calls that user functions have bound to an entry by a key of their own, so that a repeated call builds no
        request. Cleared whenever a decision may change.
    """

    def __init__(self, registry: Registry, *, plan_budget: int = PLAN_BUDGET) -> None:
        self.registry = registry
        self.router = Router(registry)
        self.fast: dict[Any, Callable[..., Any]] = {}
        self.plan_budget = plan_budget
        self._entries: dict[tuple[Request, Settings], Entry] = {}
        self._failed: dict[Request, list[tuple[Kernel, str]]] = {}
        self._held: dict[str, list[int]] = {}  # by device: number of cached plans and their bytes
        self._lock = threading.RLock()
        self._profile_known = False
        self._from_file = True  # until use_profile gives one
        self._tuned: set[str] = set()  # devices whose backend was given a profile's choices
        self.released: list[Callable[[], None]] = []  # called when all memory kept for later calls is given back
        registry.changed.append(self._forget)
        _settings.reloaded.append(self._forget)

    # Running

    def run(self, operation: Operation, params: Any, *arrays: Any, tol: float | None = None) -> Any:
        """Run one call of an operation; ``arrays`` are checked operands (or None where one was not given)."""
        for array in arrays:
            kind = None if array is None else kind_of(array)
            if kind is not None and kind.differentiable and kind.needs_gradient(array):
                return kind.differentiate(partial(self.compute, tol=tol), operation, params, arrays)
        return self.compute(operation, params, *arrays, tol=tol)

    def compute(self, operation: Operation, params: Any, *arrays: Any, tol: float | None = None) -> Any:
        """Run a call whose operands nothing records: no gradient, no transform of functions, no graph."""
        if operation.defers:
            params, arrays = operation.completed(params, arrays)
        state = _settings.current()
        request = self.request(operation, params, arrays, state, tol)
        entry = self.entry(request, state)
        try:
            return entry.call(*arrays)
        except (MemoryError, DeviceError) as error:
            return self._hand_over(request, state, entry, error, arrays)

    def request(
        self, operation: Operation, params: Any, arrays: tuple[Any, ...], state: Settings, tol: float | None = None
    ) -> Request:
        """Build the request of a call from its arrays' metadata."""
        operands = tuple(None if array is None else describe(array) for array in arrays)
        asked = None if operation.own_tolerance else tol or state.tol
        return Request(operation, operands, params, asked, _settings.threads(state))

    def entry(self, request: Request, state: Settings) -> Entry:
        """Return the cached decision and plan of a request, making them where there are none."""
        entry = self._entries.get((request, state))
        if entry is not None:
            entry.used = True
            return entry
        if state.explaining:
            raise Explained(self.decide(request, state))
        with self._lock:
            entry = self._entries.get((request, state))
            if entry is None:
                self._check_size(request)
                decision = self.decide(request, state)
                try:
                    entry = self._prepare(request, decision, state)
                except (MemoryError, DeviceError) as error:
                    entry = self._prepare_next(request, state, decision, error)
                self._keep((request, state), entry)
        return entry

    def bind(self, key: Any, operation: Operation, params: Any, arrays: tuple[Any, ...], tol: float | None) -> None:
        """Keep the call that was just made under a user function's own key, so that its next one builds no request."""
        state = _settings.current()
        self.bind_request(key, self.request(operation, params, arrays, state, tol), state)

    def bind_request(self, key: Any, request: Request, state: Settings) -> None:
        """Keep the call of a request that has an entry under a key, for as long as what decided it holds."""
        with self._lock:
            entry = self._entries.get((request, state))
            if entry is not None:
                if len(self.fast) >= FAST_LIMIT:
                    self.fast.clear()
                self.fast[key] = entry.call

    def decide(self, request: Request, state: Settings) -> Decision:
        """Ask the router, without planning or running anything."""
        if not self._profile_known:
            self._find_profile(state)
        # A kernel asked for by name is tried again: what it failed for may be over, and nothing else may run.
        failed = self._failed.get(request, ()) if state.kernel is None else ()
        return self.router.decide(request, state, failed)

    def _prepare(self, request: Request, decision: Decision, state: Settings) -> Entry:
        kernel, narrow = decision.chosen.kernel, decision.chosen.narrow
        if narrow is None:
            plan = kernel.plan(request)
            call = self._bind(kernel, plan, request, state)
            if state.learn:
                call = self.router.learning.watched(call, request, decision, partial(self._again, request, state))
            return Entry(decision, plan, call)
        plan = kernel.plan(narrow.request)
        call = self._bind(kernel, plan, narrow.request, state)
        own = _settings.changed(state, precision=None)
        error = (decision.chosen.error or 0.0) - narrow.added
        return Entry(decision, plan, runner(call, request, narrow, error, lambda: self.entry(request, own).call))

    def _bind(self, kernel: Kernel, plan: Plan, request: Request, state: Settings) -> Callable[..., Any]:
        """Wrap a plan so that it takes and returns arrays of the caller's kinds and devices."""
        if plan.through_host is not None and all(o is None or o.device == "cpu" for o in request.operands):
            return self._bind_through_host(plan.through_host, kernel, request, state)
        kind = request.first.kind
        if kind != kernel.native and all(
            o is None or (o.kind, o.device) == (kind, kernel.device) for o in request.operands
        ):
            own = plan.run_as(kind)
            if own is not None:
                return own
        bring = [self._bringer(operand, kernel, state) for operand in request.operands]
        take = self._taker(request.first, kernel, state)
        if take is None and all(step is None for step in bring):
            return plan.run

        def call(*arrays: Any) -> Any:
            result = plan.run(*[a if step is None else step(a) for a, step in zip(arrays, bring)])
            if take is None:
                return result
            return tuple(take(part) for part in result) if isinstance(result, tuple) else take(result)

        return call

    def _bind_through_host(
        self, run: Callable[..., Any], kernel: Kernel, request: Request, state: Settings
    ) -> Callable[..., Any]:
        """Wrap a plan that moves host operands and results itself, so that it takes and returns the caller's kinds."""
        views = [None if o is None or o.kind == "numpy" else kind_named(o.kind).to_bits for o in request.operands]
        kind, results = kind_named(request.first.kind), request.operation.result(request)
        plain = request.first.kind == "numpy"
        if plain and all(view is None for view in views) and state.transfers != "log":
            return run
        moved = sum(o.nbytes for o in (*request.operands, *results) if o is not None)

        def call(*arrays: Any) -> Any:
            result = run(*[a if view is None or a is None else view(a) for a, view in zip(arrays, views)])
            if state.transfers == "log":
                message = f"transfer of {moved} bytes between cpu and {kernel.device}"
                warnings.warn(message, TransferWarning, stacklevel=5)
            if plain:
                return result
            parts = result if isinstance(result, tuple) else (result,)
            taken = tuple(kind.from_bits(part, r.dtype) for part, r in zip(parts, results))
            return taken if isinstance(result, tuple) else taken[0]

        return call

    def _bringer(self, operand: Operand | None, kernel: Kernel, state: Settings) -> Callable[[Any], Any] | None:
        """Return what turns a caller's operand into the kernel's native array, or None where it already is one."""
        if operand is None or (operand.kind == kernel.native and operand.device == kernel.device):
            return None
        kind = kind_named(operand.kind)
        if operand.device == "cpu" and kernel.device == "cpu":
            native = kind_named(kernel.native)
            return _as_kind(kind, native, operand.dtype)
        if operand.device == "cpu" and not operand.shape and kernel.takes_host_scalars:
            return kind.to_bits
        source = None if operand.device == "cpu" else self.registry.backend_of(operand.device)
        target = None if kernel.device == "cpu" else self.registry.backend_of(kernel.device)
        if target is not None and operand.device == kernel.device:
            view = target.view
            return lambda array: view(array, kernel.native)
        log = state.transfers == "log"
        convert = source is None and target is not None and operand.kind not in target.accepts

        def bring(array: Any) -> Any:
            if convert:
                array = kind.to_numpy(array)
            moved = move(array, source, target, kernel.device, operand.nbytes, origin=operand.device, log=log)
            return kind_named(kernel.native).from_numpy(moved) if target is None else target.view(moved, kernel.native)

        return bring

    def _taker(self, first: Operand, kernel: Kernel, state: Settings) -> Callable[[Any], Any] | None:
        """Return what turns a kernel's result into the first operand's kind and device, or None."""
        if first.kind == kernel.native and first.device == kernel.device:
            return None
        kind = kind_named(first.kind)
        native = kind_named(kernel.native)
        if first.device == "cpu" and kernel.device == "cpu":
            if first.dtype != "bfloat16":
                return lambda array: kind.from_numpy(native.to_numpy(array))
            return lambda array: _as_kind(native, kind, describe(array).dtype)(array)
        source = None if kernel.device == "cpu" else self.registry.backend_of(kernel.device)
        target = None if first.device == "cpu" else self.registry.backend_of(first.device)
        if target is not None and first.device == kernel.device:
            view = target.view
            return lambda array: view(array, first.kind)
        log = state.transfers == "log"
        convert = source is None and target is not None and kernel.native not in target.accepts

        def take(array: Any) -> Any:
            nbytes = describe(array).nbytes
            if convert:
                array = native.to_numpy(array)
            moved = move(array, source, target, first.device, nbytes, origin=kernel.device, log=log)
            if target is not None:
                return target.view(moved, first.kind)
            return moved if kind_of(moved) is kind else kind.from_numpy(moved)

        return take

    # Failing

    def _hand_over(
        self, request: Request, state: Settings, entry: Entry, error: Exception, arrays: tuple[Any, ...]
    ) -> Any:
        """Run the next candidate after the chosen kernel failed for want of memory or lost its device."""
        while True:
            with self._lock:
                entry = self._prepare_next(request, state, entry.decision, error)
                self._keep((request, state), entry)
            try:
                return entry.call(*arrays)
            except (MemoryError, DeviceError) as next_error:
                error = next_error

    def _prepare_next(self, request: Request, state: Settings, decision: Decision, error: Exception) -> Entry:
        while True:
            kernel = decision.chosen.kernel
            reason = f"failed with {type(error).__name__}: {error}"
            if isinstance(error, DeviceLost):
                self.router.set_aside["", "", kernel.device] = reason
                self.invalidate()
            if state.kernel is not None:
                raise error
            if len(self._failed) >= ENTRY_LIMIT:
                self._failed.clear()
            self._failed.setdefault(request, []).append((kernel, reason))
            try:
                decision = self.decide(request, state)
            except AdaptiveError:
                self._failed.pop(request, None)  # nothing is left: the next call may try everything again
                raise error from None
            warnings.warn(
                f"kernel {kernel.name} on {kernel.device} {reason}; it is set aside for this request "
                f"and {decision.chosen.name} on {decision.chosen.device} runs instead",
                SetAsideWarning,
                stacklevel=5,
            )
            try:
                return self._prepare(request, decision, state)
            except (MemoryError, DeviceError) as next_error:
                error = next_error

    def _check_size(self, request: Request) -> None:
        """Raise before anything is allocated where the result could not fit the memory that is there at all."""
        needed = sum(result.nbytes for result in request.operation.result(request))
        if needed < 1 << 28:
            return
        memory = physical_memory()
        if memory is not None and needed > memory:
            raise TooLargeError(
                f"{request!r} gives {needed / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f} GiB of memory"
            )

    # Caches

    def _keep(self, key: tuple[Request, Settings], entry: Entry) -> None:
        old = self._entries.pop(key, None)
        if old is not None:
            self.fast.clear()
            self._drop(old)
        device = entry.decision.chosen.device
        held = self._held.setdefault(device, [0, 0])
        held[0] += 1
        held[1] += entry.nbytes
        self._entries[key] = entry
        budget = self._budget(device)
        # Second chance: entries used since the last sweep go to the back once, so what is in use stays.
        while (held[0] > 1 and held[1] > budget) or len(self._entries) > ENTRY_LIMIT:
            oldest = next(iter(self._entries))
            candidate = self._entries.pop(oldest)
            elsewhere = candidate.decision.chosen.device != device and len(self._entries) < ENTRY_LIMIT
            if candidate is entry or elsewhere or candidate.used:
                candidate.used = candidate.used and elsewhere
                self._entries[oldest] = candidate
                continue
            self.fast.clear()
            self._drop(candidate)

    def _budget(self, device: str) -> int:
        """Return the bytes that the cached plans of a device may hold together."""
        memory = None if device == "cpu" else self.registry.backend_of(device).memory(device)
        return max(self.plan_budget, (memory or 0) // PLAN_SHARE)

    def _drop(self, entry: Entry) -> None:
        held = self._held[entry.decision.chosen.device]
        held[0] -= 1
        held[1] -= entry.nbytes
        entry.plan.close()

    def _again(self, request: Request, state: Settings) -> None:
        """Decide a request anew at its next call."""
        with self._lock:
            entry = self._entries.pop((request, state), None)
            if entry is not None:
                self.fast.clear()
                self._drop(entry)

    def invalidate(self) -> None:
        """Forget every decision and plan, because something that decided them has changed."""
        with self._lock:
            self.fast.clear()
            for entry in list(self._entries.values()):
                self._drop(entry)
            self._entries.clear()

    def _forget(self) -> None:
        """Start again after the backends or the environment have changed."""
        with self._lock:
            self._failed.clear()
            self.router.set_aside.clear()
            if self._from_file:
                self._profile_known = False
            self.invalidate()

    @property
    def cached(self) -> tuple[int, int]:
        """Number of cached plans and the bytes that they hold."""
        return len(self._entries), sum(nbytes for _, nbytes in self._held.values())

    def release(self) -> None:
        """Give back all memory that is kept for later calls; see ``adaptive_compute.release``."""
        self.invalidate()
        for listener in self.released:
            listener()
        results.clear()
        for backend in self.registry.loaded().values():
            if backend.available() is True:
                backend.release()

    # The profile

    @property
    def profile(self) -> Profile:
        """The profile in use."""
        if not self._profile_known:
            self._find_profile(_settings.current())
        return self.router.profile

    def use_profile(self, profile: Profile | None) -> None:
        """Route by this profile from now on; None goes back to the file."""
        with self._lock:
            self._failed.clear()
            self.router.set_aside.clear()
            self._profile_known = profile is not None
            self._from_file = profile is None
            self.router.profile = profile or Profile()
            self._apply_tuning()
            self.invalidate()

    def _apply_tuning(self) -> None:
        """Hand the profile's choices to their backends, and the defaults to those that an earlier profile tuned."""
        chosen = {device: section.tuning for device, section in self.router.profile.sections.items() if section.tuning}
        for device in {*chosen, *self._tuned}:
            if device in self.registry.devices():
                self.registry.backend_of(device).apply(device, chosen.get(device, {}))
        self._tuned = set(chosen)

    def profile_path(self) -> Path:
        """Return the file that the profile is read from and written to."""
        return profile_path(_settings.current().profile)

    def _find_profile(self, state: Settings) -> None:
        with self._lock:
            if self._profile_known:
                return
            notes: list[str] = []
            profile = Profile()
            try:
                profile = Profile.load(profile_path(state.profile))
            except MissingProfileError:
                notes.append(
                    "this machine has no profile, so calls stay where their data is; `adaptive profile` measures one"
                )
            except ProfileError as error:
                notes.append(f"{error}; routing without a profile")
            here = self.registry.devices() if set(profile.sections) - {"cpu"} else ["cpu"]
            profile.validate({d: self.registry.backend_of(d).validators(d) for d in here if d in profile.sections})
            notes += [
                f"the profile of {device} is set aside ({reason}); `adaptive profile` measures it again"
                for device, reason in profile.stale.items()
            ]
            self.router.profile = profile
            self._apply_tuning()
            self._profile_known = True
        for note in notes:  # last, because a warning may be an error
            warnings.warn(note, NoProfileWarning, stacklevel=6)

    # Explaining

    def explain(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Decision:
        """Return the decision that a call would get; computes nothing."""
        with _settings.explaining():
            try:
                function(*args, **kwargs)
            except Explained as explained:
                if not isinstance(explained.decision, Decision):  # a pipeline tells how all of it is placed
                    return explained.decision
                state = _settings.current()
                return replace(explained.decision, advice=advise(self.router, explained.decision, state))
        name = getattr(function, "__name__", repr(function))
        raise ArgumentError(
            f"{name} finished without calling an operation of this library; there is nothing to explain"
        )

    def to(self, array: Any, device: str) -> Any:
        """Move an array to a device; see ``adaptive_compute.to``."""
        array = as_array(array, "array")
        operand = describe(array)
        if not isinstance(device, str):
            raise ArgumentError(f"device must be a name such as 'cpu' or 'cuda:0', got {device!r}")
        target = device if ":" in device or device == "cpu" else f"{device}:0"
        if ":" not in device:
            if device not in self.registry.backends():
                known = ", ".join(self.registry.backends())
                raise ArgumentError(f"device={device!r} is not known; known backends: {known}")
            self.registry.require(device)
        backend = self.registry.backend_of(target)
        if operand.device == target:
            return array
        source = None if operand.device == "cpu" else self.registry.backend_of(operand.device)
        convert = source is None and operand.kind not in backend.accepts
        host = kind_named(operand.kind).to_numpy(array) if convert else array
        return move(host, source, None if target == "cpu" else backend, target, operand.nbytes, origin=operand.device)


def _as_kind(source: ArrayKind, target: ArrayKind, dtype: str) -> Callable[[Any], Any]:
    """Return what views a host array of one kind as another; bfloat16, which NumPy does not have, by its bits."""
    if dtype == "bfloat16":
        return lambda array: target.from_bits(source.to_bits(array), dtype)
    return lambda array: target.from_numpy(source.to_numpy(array))


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


dispatcher = Dispatcher(registry)


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Decision:
    """Tell where a call would run and why, without running it.

    Parameters
    ----------
    function : callable
        A function of this library, for example ``ac.fft``; of a function that makes several calls, the first is told.
    *args, **kwargs
        The arguments of the call. Only shapes, dtypes and devices matter.

    Returns
    -------
    Decision
        ``chosen``, ``candidates`` with predicted ``transfer_s``, ``compute_s`` and ``error``, ``refused`` with reasons,
        ``reason``, and ``advice``: bytes moved and what that costs, kernels set aside, what would make the call faster
        and by how much. Prints as a table, and ``as_dict()`` gives plain data.

    Raises
    ------
    ArgumentError
        If the function makes no call of this library. The call's own errors are raised as they are.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.explain(ac.fft, np.ones(8)).request.operation.name
    'fft'
    """
    return dispatcher.explain(function, *args, **kwargs)


def release() -> None:
    """Give back all memory that is kept for later calls: plans, pools on the devices, pinned and pooled host memory.

    Arrays in use are not touched. The next calls plan again and are slower once.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> y = ac.fft(np.ones(8))
    >>> ac.release()
    >>> ac.dispatcher.cached
    (0, 0)
    """
    dispatcher.release()


@contextmanager
def releasing() -> Iterator[None]:
    """Run a block of calls and give back all memory that they kept, also where the block raises.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> with ac.releasing():
    ...     y = ac.fft(np.ones(8))
    >>> ac.dispatcher.cached
    (0, 0)
    """
    try:
        yield
    finally:
        dispatcher.release()


def to(array: Any, device: str) -> Any:
    """Move an array to a device.

    Parameters
    ----------
    array : array_like
        Any array that the library knows, or what NumPy can read.
    device : str
        ``"cpu"``, or a backend's name (its first device) or device, for example ``"cuda:1"``.

    Returns
    -------
    array
        The same array where it is there already; else one in the device's own kind (NumPy for the CPU), so that
        calls on it stay on that device.

    Raises
    ------
    BackendUnavailable
        If the machine has no such device; the message gives the reason.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.to([1.0, 2.0], "cpu")
    array([1., 2.])
    """
    return dispatcher.to(array, device)
