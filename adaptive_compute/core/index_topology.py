"""Index maps: which slot each entry reads from or is added to, checked and measured once and reused on any backend."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np

from .array import as_array, describe, kind_of
from .dispatcher import physical_memory
from .errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, TooLargeError
from .topology import Topology
from .transfer import mark_constant

LARGEST = 1 << 48  # slots: more than any machine can hold, and far from where 64-bit arithmetic ends


class IndexTopology(Topology):
    """A compiled index: entry e belongs to slot ``index[e]`` of ``size`` slots.

    Compared and hashed by content. What kernels ask about the index is computed once and kept.

    Attributes
    ----------
    index : ndarray of int64, shape (entries,), read-only
        The slot of each entry.
    size : int
        Number of slots.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> topology = ac.Topology.from_index([2, 0, 2], size=4)
    >>> topology.counts.tolist(), topology.order.tolist(), topology.starts.tolist()
    ([1, 0, 2, 0], [1, 0, 2], [0, 1, 1, 3, 3])
    """

    kind: ClassVar[str] = "index"

    def __init__(self, index: np.ndarray, size: int) -> None:
        """Take an index that was checked; ``from_index`` checks."""
        self.index = index
        self.size = size

    @classmethod
    def from_index(cls, index: Any, size: Any = None, *, copy: bool = True, name: str = "index") -> IndexTopology:
        """Check an index and keep a copy of it.

        Parameters
        ----------
        index : array_like of int, shape (entries,)
            The slot of each entry, from 0 to ``size - 1``.
        size : int, optional
            Number of slots; by default one more than the largest index.
        copy : bool, default True
            False keeps the caller's own memory where that is possible, for use inside one call.
        name : str
            What errors call the index.

        Raises
        ------
        DtypeError, ShapeError, ArgumentError
            If the index is not of integers, not one-dimensional, or has a value that is negative or not below ``size``;
            the message names the first such position.
        """
        given = as_array(index, name)
        operand = describe(given)
        if operand.device != "cpu":
            raise ArgumentError(f"{name} is on {operand.device}; an index is compiled on the host: pass {name}.cpu()")
        check_fits(8 * operand.size, f"{name} as int64")
        kind = kind_of(given)
        assert kind is not None
        array = kind.to_numpy(given)
        if array.ndim != 1:
            raise ShapeError(f"{name} must have one axis, got shape {array.shape}")
        if array.dtype.kind not in "iu" and array.size:
            hint = f"; np.flatnonzero({name}) gives the places of a boolean one" if array.dtype.kind == "b" else ""
            raise DtypeError(f"{name} has dtype {array.dtype}; integers are accepted{hint}")
        slots = None if size is None else check_size(size)
        lowest, highest = (int(array.min()), int(array.max())) if array.size else (0, -1)
        slots = min(highest + 1, LARGEST) if slots is None else slots
        if lowest < 0 or highest >= slots:
            position = int(np.argmax((array < 0) | (array >= slots)))
            value = int(array[position])
            wrong = "is negative" if value < 0 else f"is not below the size {slots}"
            raise ArgumentError(f"{name}[{position}] = {value} {wrong}; values from 0 to {slots - 1} are accepted")
        array = np.array(array, np.int64, copy=True) if copy else np.ascontiguousarray(array, np.int64)
        if copy:
            array.flags.writeable = False
            mark_constant(array)
        return cls(array, slots)

    @property
    def entries(self) -> int:
        """Number of entries."""
        return len(self.index)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of entries of each slot."""
        return np.bincount(self.index, minlength=self.size)

    @cached_property
    def longest(self) -> int:
        """Most entries that one slot has."""
        counts = self.counts if self.is_dense else np.unique(self.index, return_counts=True)[1]
        return int(counts.max(initial=0))

    @property
    def is_dense(self) -> bool:
        """True where going through all slots costs no more than going through the entries a few times."""
        return self.size <= 8 * self.entries

    @cached_property
    def is_sorted(self) -> bool:
        """True where the index never decreases, so that the entries of a slot lie side by side."""
        return bool(np.all(self.index[1:] >= self.index[:-1]))

    @cached_property
    def order(self) -> np.ndarray:
        """Entries in the order of their slots; those of one slot keep their order."""
        return np.argsort(self.index, kind="stable")

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each slot begins in ``order``, and at the end the number of entries: ``size + 1`` values."""
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])
        starts.flags.writeable = False
        mark_constant(starts)
        return starts

    @cached_property
    def digest(self) -> bytes:
        """A hash of the content."""
        return blake2b(self.index.tobytes() + self.size.to_bytes(8, "little"), digest_size=16).digest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, IndexTopology) and self.digest == other.digest)

    def __repr__(self) -> str:
        return f"IndexTopology({self.entries} entries, {self.size} slots)"

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the data by name: what ``save`` writes."""
        return {"index": self.index, "size": np.array(self.size)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> IndexTopology:
        """Build from what ``to_arrays`` returned; everything is checked again, because it comes from a file."""
        return cls.from_index(arrays["index"], arrays["size"].item())


def check_fits(nbytes: int, what: str) -> None:
    """Raise where something could not fit the memory that is there at all; a broadcast index may be any length."""
    memory = physical_memory() if nbytes >= 1 << 28 else None
    if memory is not None and nbytes > memory:
        raise TooLargeError(f"{what} takes {nbytes / 2**30:.1f} GiB; this machine has {memory / 2**30:.1f} GiB")


def check_size(size: Any) -> int:
    """Return a number of slots as an int."""
    try:
        number = operator.index(size)
    except TypeError:
        raise ArgumentTypeError(f"size must be a whole number, got {size!r}") from None
    if not 0 <= number <= LARGEST:
        raise ArgumentError(f"size must be from 0 to {LARGEST}, got {number}")
    return number
