"""A program: the dispatches of one request in order, over named buffers. Plain data; nothing here touches a device.

A family's kernel writes its request down as a program with a ``Builder``; the runtime records it and runs it::

    b = Builder()
    x, y = b.operand(0, nbytes), b.result(0, nbytes)
    twiddles = b.table(array)
    b.dispatch("fft_pass", [x, twiddles, y], writes=[y], groups=(batch, 1, 1), constants=[256, n])
    program = b.program()

A dispatch that depends on an earlier one (it reads what that wrote, or overwrites what that read) is ordered behind it
automatically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

LARGEST_GROUPS = 65535  # what every driver grants in each direction


@dataclass(frozen=True)
class Buffer:
    """One buffer of a program.

    ``role`` is ``"operand"`` or ``"result"`` (the arrays of the call), ``"scratch"`` (contents are lost between runs),
    ``"table"`` (constant) or ``"state"`` (kept between runs of every program that names the same state).
    """

    role: str
    index: int
    nbytes: int


@dataclass(frozen=True)
class Step:
    """One dispatch: a shader over buffers in the order of their bindings.

    ``constants`` are the specialization constants 0, 1, ...: whole numbers as they are, floats as their bits.
    ``waits`` is True where it must be ordered behind the steps before it. ``sizes`` are the push constants, as words.
    """

    shader: str
    buffers: tuple[Buffer, ...]
    groups: tuple[int, int, int]
    constants: tuple[int, ...]
    waits: bool
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """The steps of one request. Compared by identity: whoever wants to run one again keeps it."""

    steps: tuple[Step, ...]
    operands: tuple[Buffer, ...]
    results: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...]
    tables: tuple[np.ndarray, ...]
    table_keys: tuple[bytes, ...]
    states: tuple[Buffer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that a run needs beside its operands and results."""
        return sum(b.nbytes for b in (*self.scratch, *self.states)) + sum(t.nbytes for t in self.tables)


class Builder:
    """Collects the buffers and dispatches of a program."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._operands: dict[int, Buffer] = {}
        self._results: dict[int, Buffer] = {}
        self._scratch: list[Buffer] = []
        self._tables: dict[bytes, tuple[Buffer, np.ndarray]] = {}
        self._states: dict[int, Buffer] = {}
        self._written: set[Buffer] = set()  # since the last step that waited
        self._read: set[Buffer] = set()

    def operand(self, index: int, nbytes: int) -> Buffer:
        """Return the buffer of the request's operand number ``index``."""
        return self._operands.setdefault(index, Buffer("operand", index, nbytes))

    def result(self, index: int, nbytes: int) -> Buffer:
        """Return the buffer of the request's result number ``index``."""
        return self._results.setdefault(index, Buffer("result", index, nbytes))

    def scratch(self, nbytes: int) -> Buffer:
        """Return a new buffer whose contents matter within one run only."""
        buffer = Buffer("scratch", len(self._scratch), max(nbytes, 4))
        self._scratch.append(buffer)
        return buffer

    def table(self, values: np.ndarray) -> Buffer:
        """Return a buffer that holds these constants; equal tables of any programs share one."""
        values = np.ascontiguousarray(values)
        if values.nbytes % 4:
            values = np.concatenate([values.reshape(-1).view(np.uint8), np.zeros(-values.nbytes % 4, np.uint8)])
        key = blake2b(values.tobytes(), digest_size=16, person=str(values.nbytes).encode()[:16]).digest()
        if key not in self._tables:
            self._tables[key] = Buffer("table", len(self._tables), values.nbytes), values
        return self._tables[key][0]

    def state(self, index: int, nbytes: int) -> Buffer:
        """Return a buffer that lasts as long as the plan; programs of one plan share states by their number."""
        return self._states.setdefault(index, Buffer("state", index, max(nbytes, 4)))

    def dispatch(
        self,
        shader: str,
        buffers: Sequence[Buffer],
        *,
        writes: Sequence[Buffer],
        groups: tuple[int, int, int],
        constants: Sequence[int | float] = (),
        sizes: Sequence[int | float] = (),
    ) -> None:
        """Add one dispatch of a shader.

        Parameters
        ----------
        shader : str
            Name of the shader (the file in ``shaders/`` without its ending).
        buffers : sequence of Buffer
            In the order of the shader's bindings.
        writes : sequence of Buffer
            Those of them that it writes.
        groups : (int, int, int)
            Workgroups in each direction, each at most 65,535.
        constants : sequence of int or float
            Specialization constants 0, 1, ...; a Python float is passed as the bits of a float32.
        sizes : sequence of int or float
            Push constants, for what should not have a driver compile the shader again; at most 32.
        """
        if not all(1 <= n <= LARGEST_GROUPS for n in groups):
            raise ValueError(f"groups={groups} of {shader}: each must lie between 1 and {LARGEST_GROUPS}")
        reads = {b for b in buffers if b not in writes}
        waits = bool(self._written & {*reads, *writes} or self._read & {*writes})
        if waits:
            self._written, self._read = set(), set()
        self._written.update(writes)
        self._read |= reads
        bits = tuple(_bits(c) for c in constants)
        pushed = tuple(_bits(c) for c in sizes)
        self._steps.append(Step(shader, tuple(buffers), groups, bits, waits, pushed))

    def program(self) -> Program:
        """Return what was collected."""
        operands = tuple(self._operands[i] for i in sorted(self._operands))
        results = tuple(self._results[i] for i in sorted(self._results))
        tables = tuple(self._tables.items())
        return Program(
            tuple(self._steps), operands, results, tuple(self._scratch), tuple(values for _, (_, values) in tables),
            tuple(key for key, _ in tables), tuple(self._states[i] for i in sorted(self._states)),
        )  # fmt: skip


def _bits(constant: int | float) -> int:
    if isinstance(constant, float):
        return int(np.float32(constant).view(np.uint32))
    return int(constant) & 0xFFFFFFFF


def spread_groups(count: int) -> tuple[int, int, int]:
    """Return at least ``count`` workgroups as a grid that every driver grants.

    The shader recovers its number as ``gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x`` and stops where that
    is ``count`` or more.
    """
    count = max(count, 1)
    if count <= LARGEST_GROUPS:
        return count, 1, 1
    rows = -(-count // LARGEST_GROUPS)
    return -(-count // rows), rows, 1
