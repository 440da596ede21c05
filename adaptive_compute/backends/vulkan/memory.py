"""Memory of a Vulkan device: a pool by size class with a byte budget, scratch memory, and staging's two ends."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from ...core.errors import DeviceOutOfMemory, TooLargeError
from ...core.transfer import copy_host
from .kompute import Kompute
from .limits import LARGEST, Limits
from .program import Buffer, Program

KNOWN = 16  # free allocations that are looked at for one that a program has been recorded on
TABLE_BYTES = 256 << 20  # constant tables kept after the plans that used them are gone


class Memory:
    """One allocation on the device, with a staging twin on the host unless it is scratch. Owned by a runtime's pool."""

    __slots__ = ("capacity", "staging", "tensor", "users")

    def __init__(self, tensor: Any, capacity: int, staging: np.ndarray | None) -> None:
        self.tensor, self.capacity, self.staging = tensor, capacity, staging
        # What was recorded on it, by key, and what drops that: it must go before the memory does.
        self.users: dict[Any, Callable[[Any], None]] = {}

    @property
    def recorded(self) -> bool:
        """True where a program was recorded on it, and not only a transfer."""
        return any(key[0] not in ("up", "down") for key in self.users)

    @property
    def footprint(self) -> int:
        """Bytes that it takes, staging included."""
        return self.capacity * (2 if self.staging is not None else 1)


class Pool:
    """All memory of a device that no array holds. Its owner sees to it that one thread at a time is here."""

    def __init__(self, kompute: Kompute, limits: Limits) -> None:
        self._kompute = kompute
        self.limits = limits
        # Bytes of free memory that the pool may keep; a software device's memory is the host's, and others need it too.
        self.budget = max(limits.memory // (16 if limits.software else 4), 1 << 28)
        self.table_budget = TABLE_BYTES
        self.building = False  # scratch memory and tables are in use by what is being recorded
        self.scratch: dict[int, list[Memory]] = {}
        self.tables: OrderedDict[bytes, Memory] = OrderedDict()
        self._free: dict[tuple[bool, int], list[Memory]] = {}
        self._free_bytes = 0
        self._returned: deque[Memory] = deque()  # given back by whoever collected an array, in any thread

    def take(self, nbytes: int, *, staged: bool = True) -> Memory:
        """Return memory of at least this size: from the pool, or new."""
        self._collect()
        capacity = size_class(nbytes, self.limits.largest)
        free = self._free.get((staged, capacity))
        if free:
            memory = free.pop()
            self._free_bytes -= memory.footprint
            return memory
        too_large = self.limits.too_large(nbytes)
        if too_large is not None:
            raise TooLargeError(too_large)
        return self.new(capacity, staged)

    def take_all(self, sizes: Sequence[int]) -> list[Memory]:
        """Return memory of all these sizes, or none of it where one cannot be had."""
        taken: list[Memory] = []
        try:
            for nbytes in sizes:
                taken.append(self.take(nbytes))  # noqa: PERF401 - what was taken must be known when one fails
        except BaseException:
            for memory in taken:
                self.give(memory)
            raise
        return taken

    def take_known(self, nbytes: int, known: Callable[[Memory], bool]) -> Memory | None:
        """Take free memory of this size for which ``known`` holds, of the last few given back, if there is any."""
        self._collect()
        free = self._free.get((True, size_class(nbytes, self.limits.largest)), [])
        for place in range(len(free) - 1, max(len(free) - 1 - KNOWN, -1), -1):
            if known(free[place]):
                memory = free.pop(place)
                self._free_bytes -= memory.footprint
                return memory
        return None

    def release(self, memory: Memory) -> None:
        """Give memory back; may be called from any thread and from the garbage collector."""
        self._returned.append(memory)

    def give(self, memory: Memory) -> None:
        """Give memory back, here and now; beyond the budget the largest goes."""
        self._free.setdefault((memory.staging is not None, memory.capacity), []).append(memory)
        self._free_bytes += memory.footprint
        while self._free_bytes > self.budget:
            largest = max((key for key, free in self._free.items() if free), key=lambda key: key[1])
            victim = self._free[largest].pop(0)
            self._free_bytes -= victim.footprint
            _destroy(victim)

    def trim(self) -> None:
        """Free every allocation that no array and no plan's state holds."""
        self.empty()
        for scratch in self.scratch.values():
            while scratch:
                _destroy(scratch.pop())
        self.scratch.clear()
        while self.tables:
            _destroy(self.tables.popitem()[1])

    def empty(self) -> None:
        """Free what was given back."""
        self._collect()
        for free in self._free.values():
            while free:
                _destroy(free.pop())
        self._free.clear()
        self._free_bytes = 0

    def held_bytes(self) -> int:
        """Return the bytes that are kept for later."""
        self._collect()
        return self._free_bytes

    def new(self, capacity: int, staged: bool) -> Memory:
        """Allocate; where there is no room, once more after what can be spared has been freed."""
        try:
            tensor = self._kompute.tensor(capacity, staged)
        except DeviceOutOfMemory:
            if self.building:
                self.empty()
            else:
                self.trim()
            tensor = self._kompute.tensor(capacity, staged)
        self._kompute.counts.allocated += 1
        return Memory(tensor, capacity, tensor.data().view(np.uint8) if staged else None)

    def scratch_for(self, program: Program) -> dict[Buffer, Memory]:
        """Return scratch memory: shared by all programs, because only one runs at a time."""
        used: dict[int, int] = {}
        places = {}
        for buffer in program.scratch:
            capacity = size_class(buffer.nbytes, self.limits.largest)
            held = self.scratch.setdefault(capacity, [])
            number = used.get(capacity, 0)
            used[capacity] = number + 1
            if number == len(held):
                held.append(self.new(capacity, staged=False))
            places[buffer] = held[number]
        return places

    def drop_tables(self, needed: Collection[bytes]) -> None:
        """Give back constant tables beyond their budget, the oldest first, but none that is needed or recorded."""
        total = sum(memory.capacity for memory in self.tables.values())
        for old in list(self.tables):
            if total <= self.table_budget:
                break
            if old not in needed and not self.tables[old].recorded:
                total -= self.tables[old].capacity
                self.give(self.tables.pop(old))

    def _collect(self) -> None:
        while self._returned:
            self.give(self._returned.popleft())


def _destroy(memory: Memory) -> None:
    for key, drop in list(memory.users.items()):
        drop(key)
    memory.staging = None
    memory.tensor.destroy()


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
