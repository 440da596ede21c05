"""One Vulkan device at work: programs run on its memory or on host arrays, transfers, its own time.

A program is recorded once for the memory that it is run on (``recording.py``) and evaluated again and again: one
submission a call, with the upload before the dispatches and the download after them where operands and results are on
the host. Memory comes from a pool (``memory.py``); only ``kompute.py`` touches Kompute.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Sequence

import numpy as np

from ...core.errors import BackendUnavailable
from ...core.transfer import counters
from .kompute import Counts, Kompute, installed
from .limits import Limits, devices
from .memory import Memory, Pool, read, write
from .program import Program
from .recording import Recordings, State, is_strict, key_of, strict

__all__ = ["Memory", "Runtime", "State", "installed", "is_strict", "opened_runtimes", "runtime", "strict"]


class Runtime:
    """Memory and programs of one device. Thread-safe: one program runs at a time."""

    def __init__(self, index: int, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._kompute = Kompute(index, name)
        self.pool = Pool(self._kompute, devices()[index])
        self._recordings = Recordings(self._kompute, self.pool)

    @property
    def limits(self) -> Limits:
        """What the device can do."""
        return self.pool.limits

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return self._kompute.counts

    # Running

    def run_resident(
        self, program: Program, operands: Sequence[Memory | np.ndarray | None], state: State | None = None
    ) -> list[Memory]:
        """Run a program on memory of this device; returns its results' memory.

        An operand may be None (an array without elements) or a NumPy array (a number, say): that goes up in the same
        submission, into memory that the program keeps for it.
        """
        with self._lock:
            recordings = self._recordings
            up = tuple(i for i, o in enumerate(operands) if isinstance(o, np.ndarray))
            given = self._some(
                [recordings.kept(program, i, o) if isinstance(o, np.ndarray) else o for i, o in enumerate(operands)]
            )
            results = self._results(program, given, state, up)
            try:
                recordings.evaluate(recordings.binding(program, [*given, *results], state, up, down=False))
            except BaseException:
                for memory in results:
                    self.pool.give(memory)
                raise
            return results

    def run_host(
        self,
        program: Program,
        operands: Sequence[np.ndarray],
        results: Sequence[np.ndarray],
        state: State | None = None,
    ) -> None:
        """Run a program on host arrays, writing into ``results``: upload, dispatches and download in one submission."""
        with self._lock:
            memory = self.pool.take_all([b.nbytes for b in (*program.operands, *program.results)])
            try:
                start = time.perf_counter()
                for place, array in zip(memory, operands):
                    write(place, array)
                up = time.perf_counter()
                everything = tuple(range(len(program.operands)))
                self._recordings.evaluate(self._recordings.binding(program, memory, state, everything, down=True))
                down = time.perf_counter()
                for place, array in zip(memory[len(operands) :], results):
                    read(place, array)
                end = time.perf_counter()
            finally:
                for place in reversed(memory):  # so that the next call takes it in the same order, for the same binding
                    self.pool.give(place)
        counters.count_transfer("cpu", self.name, sum(a.nbytes for a in operands), up - start)
        counters.count_transfer(self.name, "cpu", sum(a.nbytes for a in results), end - down)

    def gpu_seconds(
        self, program: Program, operands: Sequence[Memory | None], state: State | None = None, repeats: int = 1
    ) -> list[float]:
        """Return the device's own time for a program, by timestamps around its dispatches, a value a repeat."""
        return [ticks[-1] - ticks[0] for ticks in self._timestamps(program, operands, state, repeats)]

    def gpu_step_seconds(
        self, program: Program, operands: Sequence[Memory | None], state: State | None = None, repeats: int = 1
    ) -> list[list[float]]:
        """Return the device's own time for each step of a program, a list a repeat; ordering belongs to no step."""
        ends, operation = [], 0
        for number, step in enumerate(program.steps):
            operation += 2 if step.waits and number else 1
            ends.append(operation)
        found = self._timestamps(program, operands, state, repeats)
        return [[ticks[end] - ticks[end - 1] for end in ends] for ticks in found]

    def _timestamps(
        self, program: Program, operands: Sequence[Memory | None], state: State | None, repeats: int
    ) -> list[list[float]]:
        """Run a program and return the seconds before its first operation and after each, a list a repeat."""
        with self._lock:
            results = self.pool.take_all([b.nbytes for b in program.results])
            try:
                memory = [*self._some(operands), *results]
                period = self.limits.timestamp_period * 1e-9
                found = self._recordings.timestamps(program, memory, state, repeats)
                return [[tick * period for tick in ticks] for ticks in found]
            finally:
                for place in results:
                    self.pool.give(place)

    def _results(
        self, program: Program, operands: list[Memory], state: State | None, up: tuple[int, ...]
    ) -> list[Memory]:
        """Take memory for the results: for a single one, that with which these operands have been recorded already."""
        if len(program.results) == 1:
            memory = self.pool.take_known(
                program.results[0].nbytes,
                lambda m: key_of(program, [*operands, m], state, up, down=False) in self._recordings.bindings,
            )
            if memory is not None:
                return [memory]
        return self.pool.take_all([b.nbytes for b in program.results])

    def _some(self, memory: Sequence[Memory | None]) -> list[Memory]:
        """Return memory for every binding: what shaders never read stands in for that of empty arrays."""
        return [self._recordings.tick if place is None else place for place in memory]

    def forget(self, program: Program) -> None:
        """Drop what was recorded of a program."""
        with self._lock:
            self._recordings.forget(program)

    # Memory

    def upload(self, array: np.ndarray) -> Memory:
        """Copy a host array to the device."""
        with self._lock:
            return self._recordings.upload(array)

    def download(self, memory: Memory, target: np.ndarray) -> None:
        """Copy device memory into a host array."""
        with self._lock:
            self._recordings.download(memory)
            read(memory, target)

    def too_large(self, nbytes: int) -> str | None:
        """Return why a buffer of this size cannot be had, or None."""
        return self.limits.too_large(nbytes)

    def take(self, nbytes: int, *, staged: bool = True) -> Memory:
        """Return memory of at least this size: from the pool, or new."""
        with self._lock:
            return self.pool.take(nbytes, staged=staged)

    def release(self, memory: Memory) -> None:
        """Give memory back; may be called from any thread and from the garbage collector."""
        self.pool.release(memory)

    def trim(self) -> None:
        """Free every allocation that no array and no plan's state holds."""
        with self._lock:
            self.pool.trim()

    def held_bytes(self) -> int:
        """Return the bytes that the pool keeps for later."""
        with self._lock:
            return self.pool.held_bytes()

    # Ending

    def disown(self) -> None:
        """Never touch the device again: this is the child of a fork, where the driver's threads do not exist."""
        self._lock = threading.RLock()  # whoever held it is not here
        self._kompute.disown(self)

    def close(self) -> None:
        """Destroy everything in the order that Vulkan wants: sequences, pipelines, memory, then the device."""
        with self._lock:
            if self._kompute.gone:
                return
            for key in list(self._recordings.bindings):
                self._recordings.unbind(key)
            self._kompute.close()


_opened: dict[str, Runtime] = {}
_opening = threading.Lock()


def runtime(device: str) -> Runtime:
    """Return the runtime of a device such as ``"vulkan:0"``, opening it at the first call."""
    opened = _opened.get(device)
    return _open(device) if opened is None else opened


def _open(device: str) -> Runtime:
    index = int(device.partition(":")[2] or 0)
    if index >= len(devices()):
        raise BackendUnavailable(f"no device {device!r}; Vulkan has {len(devices())}")
    with _opening:
        if device not in _opened:
            _opened[device] = opened = Runtime(index, device)
            atexit.register(opened.close)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=opened.disown)
        return _opened[device]


def opened_runtimes() -> list[Runtime]:
    """Return the runtimes of the devices that were opened in this process."""
    return list(_opened.values())
