"""One Vulkan device at work: memory, recorded programs, transfers. The only file that touches Kompute (``kp``).

Everything of a device hangs on one ``Runtime``. A program is recorded once for the memory that it is run on (a
*binding*) and evaluated again and again: one submission a call, with the upload before the dispatches and the download
after them where operands and results are on the host.

Kompute orders dispatches only behind transfers. So between dependent dispatches a copy of one element is recorded: its
barriers (compute to transfer, transfer to compute) put the second dispatch behind the first. Strictly, Vulkan promises
memory visibility for that one buffer only; every driver known flushes whole caches. ``strict`` submits dependent steps
one by one instead, which is what the tests compare with.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import numpy as np

from ...core.errors import BackendUnavailable, DeviceLost, DeviceOutOfMemory, TooLargeError
from ...core.transfer import copy_host, counters
from ...shaders import spirv
from .limits import LARGEST, Limits, devices
from .program import Buffer, Program, Step
from .room import Room

BINDINGS = 512  # recorded programs kept a device
KNOWN = 16  # free allocations that are looked at for one that a program has been recorded on
TABLE_BYTES = 256 << 20  # constant tables kept after the plans that used them are gone
STRICT = "ADAPTIVE_VULKAN_STRICT"

_strict: ContextVar[bool | None] = ContextVar("strict", default=None)


@contextmanager
def strict(on: bool = True) -> Iterator[None]:
    """Order dependent dispatches by separate submissions inside the block (the environment's STRICT does it always)."""
    token = _strict.set(on)
    try:
        yield
    finally:
        _strict.reset(token)


def is_strict() -> bool:
    """Tell how dependent dispatches are ordered here."""
    asked = _strict.get()
    return os.environ.get(STRICT, "") not in ("", "0") if asked is None else asked


def installed() -> bool | str:
    """Return True, or the reason why no Vulkan device can be used."""
    try:
        import kp  # noqa: F401
    except ImportError as error:
        return f"Kompute's Python package (kp) cannot be imported: {error}"
    try:
        return True if devices() else "Vulkan's loader finds no device: no driver is installed"
    except OSError as error:
        return str(error)


class Memory:
    """One allocation on the device, with a staging twin on the host unless it is scratch. Owned by a runtime's pool."""

    __slots__ = ("capacity", "staging", "tensor", "users")

    def __init__(self, tensor: Any, capacity: int, staging: np.ndarray | None) -> None:
        self.tensor, self.capacity, self.staging = tensor, capacity, staging
        self.users: set[Any] = set()  # keys of the bindings that were recorded on it

    @property
    def recorded(self) -> bool:
        """True where a program was recorded on it, and not only a transfer."""
        return any(key[0] not in ("up", "down") for key in self.users)


class _Binding:
    """A program recorded for given memory: what must be alive, and the sequences to evaluate in order."""

    __slots__ = ("algorithms", "memory", "program", "sequences", "state")

    def __init__(
        self, program: Program, memory: Sequence[Memory], algorithms: list[Any], sequences: list[Any], state: Any = None
    ) -> None:
        self.program, self.memory, self.algorithms, self.sequences = program, memory, algorithms, sequences
        self.state = state

    def destroy(self) -> None:
        for sequence in self.sequences:
            sequence.destroy()
        for algorithm in self.algorithms:
            algorithm.destroy()


class State:
    """Device memory that lasts as long as a plan: what its programs keep between runs."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.memory: dict[int, Memory] = {}

    def close(self) -> None:
        """Give the memory back."""
        for memory in self.memory.values():
            self.runtime.release(memory)
        self.memory = {}


class Counts:
    """What a runtime has done; ``submits`` is the figure that one call must raise by one."""

    def __init__(self) -> None:
        self.submits = self.recorded = self.allocated = 0


class Runtime:
    """Memory and programs of one device. Thread-safe: one program runs at a time."""

    def __init__(self, index: int, name: str) -> None:
        import kp

        self._kp = kp
        self.name = name
        self.limits: Limits = devices()[index]
        self.counts = Counts()
        self.largest = self.limits.largest
        self._lock = threading.RLock()
        self._lost: str | None = None
        self._disowned = False
        self._building = False  # scratch memory and tables are in use by what is being recorded
        self._free: dict[tuple[bool, int], list[Memory]] = {}
        self._free_bytes = 0
        # Bytes of free memory that the pool may keep; a software device's memory is the host's, and others need it too.
        self.budget = max(self.limits.memory // (16 if self.limits.software else 4), 1 << 28)
        self.table_budget = TABLE_BYTES
        self._returned: deque[Memory] = deque()  # given back by whoever collected an array, in any thread
        self._scratch: dict[int, list[Memory]] = {}
        self._tables: OrderedDict[bytes, Memory] = OrderedDict()
        self._bindings: OrderedDict[Any, _Binding] = OrderedDict()
        self._small: dict[int, tuple[Program, dict[int, Memory]]] = {}  # what programs keep for numbers from the host
        with self._translated("opening the device"):
            self._room = Room(index)
            self._manager = kp.Manager(index)
            self._tick = self._new(4, staged=True)

    # Running

    def run_resident(
        self, program: Program, operands: Sequence[Memory | np.ndarray | None], state: State | None = None
    ) -> list[Memory]:
        """Run a program on memory of this device; returns its results' memory.

        An operand may be None (an array without elements) or a NumPy array (a number, say): that goes up in the same
        submission, into memory that the program keeps for it.
        """
        with self._lock:
            brought = [(i, o) for i, o in enumerate(operands) if isinstance(o, np.ndarray)]
            placed = [self._kept(program, i, o) if isinstance(o, np.ndarray) else o for i, o in enumerate(operands)]
            given, up = self._some(placed), tuple(i for i, _ in brought)
            results = self._known_result(program, given, state, up) or self._take_all(
                [b.nbytes for b in program.results]
            )
            try:
                self._evaluate(self._binding(program, [*given, *results], state, up, down=False))
            except BaseException:
                for memory in results:
                    self._give(memory)
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
            memory = self._take_all([b.nbytes for b in (*program.operands, *program.results)])
            try:
                start = time.perf_counter()
                for place, array in zip(memory, operands):
                    write(place, array)
                up = time.perf_counter()
                everything = tuple(range(len(program.operands)))
                self._evaluate(self._binding(program, memory, state, everything, down=True))
                down = time.perf_counter()
                for place, array in zip(memory[len(operands) :], results):
                    read(place, array)
                end = time.perf_counter()
            finally:
                for place in reversed(memory):  # so that the next call takes it in the same order, for the same binding
                    self._give(place)
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
            results = self._take_all([b.nbytes for b in program.results])
            try:
                memory = [*self._some(operands), *results]
                algorithms, _ = self._algorithms(program, memory, state)
                sequence = self._manager.sequence(0, 4 * len(program.steps) + 4)
                self._record(sequence, program.steps, algorithms)
                found = []
                for _ in range(repeats):
                    sequence.eval()
                    period = self.limits.timestamp_period * 1e-9
                    found.append([tick * period for tick in sequence.get_timestamps()])
                sequence.destroy()
                for algorithm in algorithms:
                    algorithm.destroy()
                return found
            finally:
                for place in results:
                    self._give(place)

    def _known_result(
        self, program: Program, operands: list[Memory], state: State | None, up: tuple[int, ...]
    ) -> list[Memory] | None:
        """Take free memory for the one result with which these operands have been recorded already, if there is any."""
        if len(program.results) != 1:
            return None
        self._collect()
        free = self._free.get((True, size_class(program.results[0].nbytes, self.largest)), [])
        for place in range(len(free) - 1, max(len(free) - 1 - KNOWN, -1), -1):
            memory = free[place]
            if _key(program, [*operands, memory], state, up, down=False) in self._bindings:
                del free[place]
                self._free_bytes -= _footprint(memory)
                return [memory]
        return None

    def _kept(self, program: Program, index: int, array: np.ndarray) -> Memory:
        """Write a host array into the memory that a program keeps for it, so that recordings stay good."""
        held = self._small.setdefault(id(program), (program, {}))[1]
        if index not in held:
            held[index] = self.take(array.nbytes)
        write(held[index], array)
        return held[index]

    def _some(self, memory: Sequence[Memory | None]) -> list[Memory]:
        """Return memory for every binding: what shaders never read stands in for that of empty arrays."""
        return [self._tick if place is None else place for place in memory]

    def upload(self, array: np.ndarray) -> Memory:
        """Copy a host array to the device."""
        with self._lock:
            memory = self.take(max(array.nbytes, 4))
            try:
                write(memory, array)
                self._once(self._kp.OpTensorSyncDevice([memory.tensor]), ("up", id(memory)), memory)
            except BaseException:
                self._give(memory)
                raise
            return memory

    def download(self, memory: Memory, target: np.ndarray) -> None:
        """Copy device memory into a host array."""
        with self._lock:
            self._once(self._kp.OpTensorSyncLocal([memory.tensor]), ("down", id(memory)), memory)
            read(memory, target)

    def _once(self, operation: Any, key: Any, memory: Memory) -> None:
        """Evaluate one transfer, recorded once for this memory."""
        binding = self._bindings.get(key)
        if binding is None:
            with self._translated("recording a transfer"):
                sequence = self._manager.sequence()
                sequence.record(operation)
            binding = self._keep(key, _Binding(Program((), (), (), (), (), (), ()), [memory], [], [sequence]))
        self._evaluate(binding)

    def _evaluate(self, binding: _Binding) -> None:
        with self._translated("running"):
            for sequence in binding.sequences:
                sequence.eval()
                self.counts.submits += 1

    def _binding(
        self, program: Program, memory: list[Memory], state: State | None, up: tuple[int, ...], down: bool
    ) -> _Binding:
        """Return what was recorded of a program on given memory; the operands ``up`` are uploaded before it."""
        ordered = not is_strict()
        key = _key(program, memory, state, up, down)
        binding = self._bindings.get(key)
        if binding is not None:
            self._bindings.move_to_end(key)
            return binding
        algorithms, held = self._algorithms(program, memory, state)
        kp = self._kp
        operands = [memory[i].tensor for i in up]
        results = [m.tensor for m in memory[len(program.operands) :]]
        with self._translated("recording"):
            sequences: list[Any] = []
            for steps, made in _parts(program.steps, algorithms, whole=ordered):
                sequence = self._manager.sequence()
                if not sequences and operands:
                    sequence.record(kp.OpTensorSyncDevice(operands))
                self._record(sequence, steps, made)
                sequences.append(sequence)
            if down:
                if not sequences:
                    sequences.append(self._manager.sequence())
                sequences[-1].record(kp.OpTensorSyncLocal(results))
        self.counts.recorded += 1
        return self._keep(key, _Binding(program, held, algorithms, sequences, state))

    def _record(self, sequence: Any, steps: Sequence[Step], algorithms: Sequence[Any]) -> None:
        kp = self._kp
        for number, (step, algorithm) in enumerate(zip(steps, algorithms)):
            if step.waits and number:
                sequence.record(kp.OpTensorSyncLocal([self._tick.tensor]))
            sequence.record(kp.OpAlgoDispatch(algorithm))

    def _algorithms(
        self, program: Program, memory: list[Memory], state: State | None
    ) -> tuple[list[Any], Sequence[Memory]]:
        """Build a pipeline for each step, bound to the memory of its buffers; returns them and all that memory."""
        for buffer in (*program.operands, *program.results, *program.scratch, *program.states):
            if buffer.nbytes > self.largest:
                raise TooLargeError(self.too_large(buffer.nbytes))
        self._building = True
        try:
            places = self._places(program, memory, state)
        finally:
            self._building = False
        made = []
        with self._translated("building a pipeline"):
            try:
                self._need(0, 0)
            except MemoryError:
                self._empty_pool()
                self._need(0, 0)
            for step in program.steps:
                tensors = [places[b].tensor for b in step.buffers]
                constants = np.array(step.constants, np.uint32)
                sizes = np.array(step.sizes, np.uint32)
                made.append(self._manager.algorithm(tensors, spirv(step.shader), step.groups, constants, sizes))
        return made, list(places.values())

    def _places(self, program: Program, memory: list[Memory], state: State | None) -> dict[Buffer, Memory]:
        """Return the memory of every buffer of a program."""
        places: dict[Buffer, Memory] = dict(zip((*program.operands, *program.results), memory))
        places.update(self._scratch_for(program))
        for index, (key, values) in enumerate(zip(program.table_keys, program.tables)):
            places[Buffer("table", index, values.nbytes)] = self._table(key, values, program.table_keys)
        for buffer in program.states:
            assert state is not None, "a program with states needs the plan's State"
            held = state.memory.get(buffer.index)
            if held is None:
                held = state.memory[buffer.index] = self.take(buffer.nbytes, staged=False)
            places[buffer] = held
        return places

    def _keep(self, key: Any, binding: _Binding) -> _Binding:
        self._bindings[key] = binding
        for memory in binding.memory:
            memory.users.add(key)
        while len(self._bindings) > BINDINGS:
            self._unbind(next(iter(self._bindings)))
        return binding

    def _unbind(self, key: Any) -> None:
        binding = self._bindings.pop(key, None)
        if binding is not None:
            for memory in binding.memory:
                memory.users.discard(key)
            binding.destroy()

    def forget(self, program: Program) -> None:
        """Drop what was recorded of a program."""
        with self._lock:
            for key in [key for key, binding in self._bindings.items() if binding.program is program]:
                self._unbind(key)
            for memory in self._small.pop(id(program), (program, {}))[1].values():
                self._give(memory)

    # Memory

    def too_large(self, nbytes: int) -> str | None:
        """Return why a buffer of this size cannot be had, or None."""
        return self.limits.too_large(nbytes)

    def take(self, nbytes: int, *, staged: bool = True) -> Memory:
        """Return memory of at least this size: from the pool, or new."""
        with self._lock:
            self._collect()
            capacity = size_class(nbytes, self.largest)
            free = self._free.get((staged, capacity))
            if free:
                memory = free.pop()
                self._free_bytes -= _footprint(memory)
                return memory
            if nbytes > self.largest:
                raise TooLargeError(self.too_large(nbytes))
            return self._new(capacity, staged)

    def _take_all(self, sizes: Sequence[int]) -> list[Memory]:
        taken: list[Memory] = []
        try:
            for nbytes in sizes:
                taken.append(self.take(nbytes))  # noqa: PERF401 - what was taken must be known when one fails
        except BaseException:
            for memory in taken:
                self._give(memory)
            raise
        return taken

    def release(self, memory: Memory) -> None:
        """Give memory back; may be called from any thread and from the garbage collector."""
        self._returned.append(memory)

    def trim(self) -> None:
        """Free every allocation that no array and no plan's state holds."""
        with self._lock:
            self._empty_pool()
            for scratch in self._scratch.values():
                while scratch:
                    self._destroy(scratch.pop())
            self._scratch.clear()
            while self._tables:
                self._destroy(self._tables.popitem()[1])

    def _empty_pool(self) -> None:
        self._collect()
        for free in self._free.values():
            while free:
                self._destroy(free.pop())
        self._free.clear()
        self._free_bytes = 0

    def held_bytes(self) -> int:
        """Return the bytes that the pool keeps for later."""
        with self._lock:
            self._collect()
            return self._free_bytes

    def _new(self, capacity: int, staged: bool) -> Memory:
        kinds = self._kp.TensorTypes
        kind = kinds.device if staged else kinds.storage
        for attempt in (0, 1):
            try:
                with self._translated(f"allocating {capacity} bytes"):
                    self._need(capacity, capacity if staged else 0)
                    tensor = self._manager.tensor_t(np.zeros(capacity // 4, np.uint32), kind)
                break
            except DeviceOutOfMemory:
                if attempt:
                    raise
                if self._building:
                    self._empty_pool()
                else:
                    self.trim()
        self.counts.allocated += 1
        return Memory(tensor, capacity, tensor.data().view(np.uint8) if staged else None)

    def _need(self, device: int, staging: int) -> None:
        """Raise MemoryError where the driver has no room for so many bytes: Kompute would crash, not raise."""
        left = self._room.left()
        lacking = None if left is None else left.lacks(device, staging)
        if lacking is not None:
            raise MemoryError(lacking)

    def _give(self, memory: Memory) -> None:
        self._free.setdefault((memory.staging is not None, memory.capacity), []).append(memory)
        self._free_bytes += _footprint(memory)
        while self._free_bytes > self.budget:
            largest = max((key for key, free in self._free.items() if free), key=lambda key: key[1])
            victim = self._free[largest].pop(0)
            self._free_bytes -= _footprint(victim)
            self._destroy(victim)

    def _collect(self) -> None:
        while self._returned:
            self._give(self._returned.popleft())

    def _destroy(self, memory: Memory) -> None:
        for key in list(memory.users):
            self._unbind(key)
        memory.staging = None
        memory.tensor.destroy()

    def _scratch_for(self, program: Program) -> dict[Buffer, Memory]:
        """Return scratch memory: shared by all programs, because only one runs at a time."""
        used: dict[int, int] = {}
        places = {}
        for buffer in program.scratch:
            capacity = size_class(buffer.nbytes, self.largest)
            held = self._scratch.setdefault(capacity, [])
            number = used.get(capacity, 0)
            used[capacity] = number + 1
            if number == len(held):
                held.append(self._new(capacity, staged=False))
            places[buffer] = held[number]
        return places

    def _table(self, key: bytes, values: np.ndarray, needed: Collection[bytes]) -> Memory:
        """Return the memory of a constant table; others, not ``needed``, are dropped where there are too many."""
        memory = self._tables.get(key)
        if memory is None:
            memory = self._tables[key] = self.upload(values)
            total = sum(m.capacity for m in self._tables.values())
            for old in list(self._tables):
                if total <= self.table_budget:
                    break
                if old not in needed and not self._tables[old].recorded:
                    total -= self._tables[old].capacity
                    self._give(self._tables.pop(old))
        self._tables.move_to_end(key)
        return memory

    # Failing and ending

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn Vulkan's errors into the ones that the dispatcher acts on."""
        if self._lost is not None:
            raise DeviceLost(f"{self.name} was lost earlier ({self._lost})")
        try:
            yield
        except MemoryError as error:  # the driver's, or the host's: Kompute's copies of what it uploads
            raise DeviceOutOfMemory(f"{self.name} has no room while {what}: {error or 'no host memory'}") from error
        except RuntimeError as error:
            text = str(error)
            if "DeviceLost" in text:
                self._lost = text
                raise DeviceLost(f"{self.name} was lost while {what}: {text}") from error
            if "OutOf" in text and "Memory" in text:
                raise DeviceOutOfMemory(f"{self.name} has no room while {what}: {text}") from error
            raise

    def disown(self) -> None:
        """Never touch the device again: this is the child of a fork, where the driver's threads do not exist."""
        self._lock = threading.RLock()  # whoever held it is not here
        self._lost = "the process was forked; use the 'spawn' start method"
        self._disowned = True
        # The end of the process would destroy the device, which waits for the threads that are not here.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        _skip_exit_handlers()

    def close(self) -> None:
        """Destroy everything in the order that Vulkan wants: sequences, pipelines, memory, then the device."""
        with self._lock:
            if self._disowned or self._lost == "closed":
                return
            for key in list(self._bindings):
                self._unbind(key)
            self._lost = "closed"
            self._manager.destroy()
            self._room.close()


def _parts(
    steps: Sequence[Step], algorithms: Sequence[Any], *, whole: bool
) -> Iterator[tuple[Sequence[Step], Sequence[Any]]]:
    """Yield what is submitted together: everything, or (strict) the steps up to each that must wait."""
    if not steps:
        return
    starts = [0, *(i for i, step in enumerate(steps) if i and step.waits and not whole), len(steps)]
    for first, last in pairwise(starts):
        yield steps[first:last], algorithms[first:last]


def _skip_exit_handlers() -> None:
    """Let this process end without the driver's handlers of C's ``exit``: Mesa's wait for threads that are not here."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "on_exit"):
        return  # not glibc
    address = ctypes.cast(libc._exit, ctypes.c_void_p)
    libc.on_exit(address, None)  # handlers run last in, first out, so this one hides those from before the fork
    libc.__cxa_atexit(ctypes.cast(libc.fflush, ctypes.c_void_p), None, None)  # and what C programs print is not lost


def _key(
    program: Program, memory: Sequence[Memory], state: State | None, up: tuple[int, ...], down: bool
) -> tuple[Any, ...]:
    """Return what a recording depends on."""
    return (id(program), up, down, not is_strict(), id(state), *map(id, memory))


def _footprint(memory: Memory) -> int:
    return memory.capacity * (2 if memory.staging is not None else 1)


def size_class(nbytes: int, largest: int = LARGEST) -> int:
    """Return the capacity to allocate for a size: eight steps an octave, so that at most an eighth is wasted."""
    size = max(nbytes, 256)
    step = 1 << max((size - 1).bit_length() - 4, 6)
    return min(-(-size // step) * step, max(largest & ~3, -(-nbytes // 4) * 4))


def write(memory: Memory, array: np.ndarray) -> None:
    """Copy a host array, of any layout, into the staging memory in C order."""
    assert memory.staging is not None
    if array.nbytes:
        view = memory.staging[: array.nbytes]
        copy_host(view.view(array.dtype).reshape(array.shape), array)


def read(memory: Memory, array: np.ndarray) -> None:
    """Copy the staging memory into a contiguous host array."""
    assert memory.staging is not None
    if array.nbytes:
        copy_host(array, memory.staging[: array.nbytes].view(array.dtype).reshape(array.shape))


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
