"""``ac.pipeline``: a function recorded at its first call for each signature, placed as a whole, and run as placed."""

from __future__ import annotations

import inspect
import threading
import time
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, overload

from ..core import settings as _settings
from ..core.array import describe
from ..core.dispatcher import Explained, dispatcher
from ..core.errors import AdaptiveError, ArgumentError, DeviceError, SetAsideWarning, UntraceableWarning
from ..core.registry import registry
from ..core.settings import Settings
from .calls import Call, Recording, where_in_code
from .capture import Captured
from .costs import Decisions, Model
from .execute import Kept, NodeFailed, Program
from .explain import Placement
from .fuse import fused
from .graph import ARGUMENT, CAPTURED, Source
from .place import place, settled
from .stand_in import Recorder, StandIn, Unrecordable
from .tree import Flat, filled

MOST = 64  # recordings, and programs, that one pipeline keeps


class Pipeline:
    """A function whose operations are placed together; what ``pipeline`` returns. Called like the function.

    Attributes
    ----------
    function : callable
        As it was given.
    keep : bool
        Whether captured arrays are promised not to change in place.
    """

    def __init__(self, function: types.FunctionType, keep: bool) -> None:
        update_wrapper(self, function)
        self.function, self.keep = function, keep
        self.name = function.__name__
        self._lock = threading.RLock()
        self._captured: Captured | None = None
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._programs: OrderedDict[Any, Program] = OrderedDict()
        self._kept = Kept()
        self._told: set[str] = set()
        self._generation = _generation[0]
        _pipelines.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = _settings.current()
        if state.explaining:
            with _settings.explaining(False):
                raise Explained(self.explain(*args, **kwargs))
        call = Call(self, args, kwargs, state)
        if call.by_call is not None:
            return self.function(*args, **kwargs)
        recording = self._recording(call)
        program = recording.program
        if program is None or program.failed is not None:
            try:
                result = self.function(*args, **kwargs)
            except BaseException:
                self._recordings.pop(call.key, None)  # what stopped the recording may have been the same
                self._captured = None
                raise
            self._tell(recording)
            return result
        try:
            values = program.run(call.arguments, call.captured, recording.constants, recording.numbers)
        except NodeFailed as failed:
            cause = failed.__cause__
            program.failed = f"{failed} failed with {type(cause).__name__}: {cause}"
        else:
            return values[0] if type(recording.result) is StandIn else filled(recording.result, iter(values))
        warnings.warn(
            f"{program.failed}; the placement of pipeline {self.name} is set aside for these operands and its "
            "calls run one by one instead",
            SetAsideWarning,
            stacklevel=2,
        )
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else partial(self, instance)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"

    def explain(self, *args: Any, **kwargs: Any) -> Placement:
        """Tell where each operation of a call would run, with predicted times and transfers, without running any.

        Parameters
        ----------
        *args, **kwargs
            The arguments of the call. Only shapes, dtypes and devices matter.

        Returns
        -------
        Placement
            Prints as a list of steps; ``as_dict()`` gives plain data. Where the function cannot be recorded,
            ``reason`` says why and ``where`` gives file and line.

        Examples
        --------
        >>> import numpy as np, adaptive_compute as ac
        >>> smooth = ac.pipeline(lambda x: ac.irfft(ac.rfft(x) * 0.5))
        >>> len(smooth.explain(np.ones(8)).steps)
        3
        """
        call = Call(self, args, kwargs, _settings.current())
        if call.by_call is not None:
            return Placement(self.name, None, call.by_call, None, None)
        recording = self._recording(call)
        program = recording.program
        reason = recording.reason if program is None or program.failed is None else program.failed
        return Placement(self.name, program, reason, recording.where, recording.anew)

    def refresh(self) -> None:
        """Forget every recording, placement and kept copy: the next call starts anew.

        Needed after a captured array was changed in place where ``keep=True`` promised that none would be.

        Examples
        --------
        >>> import numpy as np, adaptive_compute as ac
        >>> weights = np.ones(8)
        >>> scale = ac.pipeline(lambda x: x * weights, keep=True)
        >>> float(scale(np.ones(8))[0])
        1.0
        >>> weights[:] = 2
        >>> scale.refresh()
        >>> float(scale(np.ones(8))[0])
        2.0
        """
        with self._lock:
            self._recordings.clear()
            self._programs.clear()
            self._kept.clear()
            self._captured = None

    def forget_captured(self) -> None:
        """Look anew at what the function reads, at the next call."""
        self._captured = None

    def captured(self) -> Captured:
        """Return what the function reads besides its arguments, found anew where its code or helpers changed."""
        found = self._captured
        if found is None or not found.is_current():
            found = self._captured = Captured(self.function)
        return found

    # Recording

    def _recording(self, call: Call) -> Recording:
        recording = self._recordings.get(call.key)
        if recording is not None and (recording.anew is None or recording.told) and self._is_current(recording):
            return recording
        with self._lock:
            if self._generation != _generation[0]:
                self._recordings.clear()
                self._programs.clear()
                self._generation = _generation[0]
            recording = self._record(call)
            self._recordings[call.key] = recording
            while len(self._recordings) > MOST:
                self._recordings.popitem(last=False)
        return recording

    def _is_current(self, recording: Recording) -> bool:
        """Tell whether what decided a placement still holds: backends, environment and profile."""
        if self._generation != _generation[0]:
            return False
        return recording.program is None or recording.program.profile is dispatcher.router.profile

    def _record(self, call: Call) -> Recording:
        recording, watched = Recording(), self.captured()
        start = time.perf_counter()
        recorder = Recorder(watched.trusted())
        try:
            if watched.refused is not None:
                raise Unrecordable(watched.refused)
            given = [
                recorder.stand_in(describe(array), Source(ARGUMENT, place))
                for place, array in enumerate(call.arguments)
            ]
            read = [
                recorder.stand_in(describe(array), Source(CAPTURED, place)) for place, array in enumerate(call.captured)
            ]
            recorder.graph.constant.update(s.number for s, fixed in zip(read, call.key[4] or ()) if fixed)
            function, stand_ins = watched.rebuilt(read), iter(given)
            recording.result = function(*filled(call.args, stand_ins), **filled(call.kwargs, stand_ins))
            outputs = Flat()
            outputs.add(recording.result)
            if outputs.opaque is not None:
                raise Unrecordable(f"it returns a {type(outputs.opaque).__name__}")
            recorder.graph.outputs = tuple(map(recorder.value, outputs.arrays))
            if not recorder.graph.nodes:
                raise Unrecordable("it calls no operation of this library")
        except Unrecordable as error:
            recording.reason, recording.where = str(error), where_in_code(error, self.function)
        except Exception as error:  # the function's own, which the call that runs it one by one raises again
            recording.reason, recording.where = f"{type(error).__name__}: {error}", where_in_code(error, self.function)
        finally:
            recorder.open = False
        if recording.reason is not None:
            return recording
        elapsed = time.perf_counter() - start
        recording.constants, recording.numbers = recorder.constants, recorder.numbers
        recording.anew = watched.opaque and f"it reads {watched.opaque}, whose changes cannot be seen"
        if recording.anew is None and call.opaque is not None:
            recording.anew = f"{call.opaque}, whose changes cannot be seen"
        if recording.anew is None and not recorder.watched:
            recording.anew = "it makes or reads arrays whose origin cannot be seen"
        try:
            recording.program = self._program(recorder, call.state)
        except (AdaptiveError, MemoryError, DeviceError) as error:
            recording.reason = f"{type(error).__name__}: {error}"
            return recording
        if recording.anew is not None and self._is_warm(call) and elapsed > recording.program.saves:
            recording.reason = f"{recording.anew}, and recording it in every call would take longer than it saves"
            recording.program, recording.told = None, True
        return recording

    def _is_warm(self, call: Call) -> bool:
        """Tell whether a call like this one was recorded before, so that the time it took now is what it takes."""
        return call.key in self._recordings

    def _program(self, recorder: Recorder, state: Settings) -> Program:
        key = recorder.graph.key(), id(dispatcher.profile)
        program = self._programs.get(key)
        if program is not None and program.profile is dispatcher.router.profile:
            return program
        decisions = Decisions(dispatcher)
        by_call = decisions.greedy_seconds(recorder.graph)
        model = Model(dispatcher, fused(recorder.graph.pruned(), decisions), decisions)
        placed = place(model)
        if placed is None:
            raise MemoryError("no placement fits the memory of the devices")
        program = Program(dispatcher, model, settled(model, placed), self._kept, state.transfers == "log")
        program.by_call = by_call
        self._programs[key] = program
        while len(self._programs) > MOST:
            self._programs.popitem(last=False)
        return program

    def _tell(self, recording: Recording) -> None:
        """Say once why a function is not recorded, and where."""
        if recording.reason is None or recording.told or recording.reason in self._told:
            return
        self._told.add(recording.reason)
        place = f" ({recording.where})" if recording.where else ""
        warnings.warn(
            f"pipeline {self.name} is not recorded: {recording.reason}{place}; its calls run one by one",
            UntraceableWarning,
            stacklevel=3,
        )


_generation = [0]  # counts what may change any placement
_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()


def _start_anew() -> None:
    _generation[0] += 1


def _release() -> None:
    for made in list(_pipelines):
        made.refresh()


registry.changed.append(_start_anew)
_settings.reloaded.append(_start_anew)
dispatcher.released.append(_release)


@overload
def pipeline(function: Callable[..., Any], *, keep: bool = False) -> Pipeline: ...
@overload
def pipeline(function: None = None, *, keep: bool = False) -> Callable[[Callable[..., Any]], Pipeline]: ...
def pipeline(function: Callable[..., Any] | None = None, *, keep: bool = False) -> Any:
    """Record the operations of a function once, and place them all together where they finish first.

    Call by call, each result goes back to where the first operand was, and each call is placed as if it were alone. A
    pipeline is placed as a whole: intermediates stay on the device that made them, element-wise neighbours become one
    expression, and what is moved is moved once. Results have the values, kind and device that the function gives
    without it.

    Parameters
    ----------
    function : callable
        A Python function that calls this library's functions, and operators, reshapes, transposes and basic indices of
        arrays. Arguments, results and captured variables may be arrays or tuples, lists and dicts of them.
    keep : bool, default False
        A promise that arrays which the function captures (globals, closures) do not change in place, so that devices
        may keep copies; after such a change, call ``refresh()``. Without it, only read-only arrays are kept, and others
        are moved in every call that needs them elsewhere. Another array in the same variable is always noticed.

    Returns
    -------
    Pipeline
        Called like the function. ``explain(...)`` shows the placement of a call, ``refresh()`` forgets everything.

    Raises
    ------
    ArgumentError
        If ``function`` is not a Python function, or is a generator or a coroutine.

    Warns
    -----
    UntraceableWarning
        Once for each reason, with file and line: the function cannot be recorded (a branch on an array's values, say)
        and runs call by call.
    SetAsideWarning
        If a kernel ran out of memory or lost its device; the calls then run one by one.

    Notes
    -----
    Python code runs at the first call for each signature (shapes, dtypes, devices, plain values, settings), and again
    whenever something that it reads has changed or cannot be watched. Arrays that require a gradient run call by call.
    docs/pipelines.md tells how placement works and what is exact.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> @ac.pipeline
    ... def convolve(x, kernel):
    ...     return ac.irfft(ac.rfft(x) * ac.rfft(kernel), n=len(x))
    >>> convolve(np.array([1.0, 2.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0])).round(6).tolist()
    [1.0, 3.0, 2.0, 0.0]
    """
    if function is None:
        return lambda given: pipeline(given, keep=keep)
    if not isinstance(function, types.FunctionType):
        raise ArgumentError(f"pipeline takes a Python function, got {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function) or (
        inspect.isasyncgenfunction(function)
    ):  # fmt: skip
        raise ArgumentError(f"{function.__name__} is a generator or a coroutine, which cannot be recorded")
    return Pipeline(function, keep)
