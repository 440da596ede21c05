"""Compiled sparsity patterns: what they share (a name, a file), and how a mask of attention is compiled.

A mask is a rule for which query row sees which key, independent of how long the sequences are; it is a hashable value.
``Mask.tiles`` compiles it for given lengths: which tile of queries visits which tiles of keys, and in which of those
the rule must still be asked key by key. Compiling asks the rule for intervals of keys, tile row by tile row, so that
its cost follows the tiles that are kept and not the product of the lengths.
"""

from __future__ import annotations

import importlib
import operator
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .errors import ArgumentError
from .files import write_atomically

VERSION = 1  # of the file format
# Modules that are loaded when one of their kinds is asked for.
_ELSEWHERE = {"index": "index_topology"} | dict.fromkeys(("causal", "window", "prefix", "blocks", "array"), "masks")
_kinds: dict[str, type[Topology]] = {}


class Topology:
    """A sparsity pattern that is built once and reused: a mask of attention, or a map of indices.

    Made by ``from_mask`` or ``from_index``, or read from a file by ``load``. A subclass sets ``kind``, the tag its
    files carry, and gives its data as named arrays.

    Attributes
    ----------
    kind : str
        What is compiled, as files name it.

    Examples
    --------
    >>> import adaptive_compute as ac
    >>> topology = ac.Topology.from_index([2, 0, 2], size=4)
    >>> isinstance(topology, ac.Topology), topology.kind
    (True, 'index')
    """

    kind: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if cls.kind:
            _kinds[cls.kind] = cls

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the data by name: what ``save`` writes. No object arrays."""
        raise NotImplementedError

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Topology:
        """Build from what ``to_arrays`` returned; the arrays come from a file and must be checked."""
        raise NotImplementedError

    @staticmethod
    def from_mask(mask: Any, tile: int = 64) -> Mask:
        """Compile a boolean array, so that attention visits only the tiles in which it keeps something.

        Parameters
        ----------
        mask : array_like of bool, shape (Lq, Lk)
            True = keep.
        tile : int, default 64
            Side of the tiles, a multiple of 8.

        Returns
        -------
        Mask
            For sequences of exactly these lengths; combines with other masks by ``&``, ``|`` and ``~``.

        Raises
        ------
        DtypeError, ShapeError, ArgumentError
            If ``mask`` is not boolean or not two-dimensional, or ``tile`` is not acceptable.

        Examples
        --------
        >>> import numpy as np, adaptive_compute as ac
        >>> mask = np.zeros((256, 256), bool)
        >>> mask[:64, :64] = True
        >>> ac.Topology.from_mask(mask).tiles(256, 256, (64, 64)).visited
        1
        """
        return _module("masks").ArrayMask.compile(mask, tile)

    @staticmethod
    def from_index(index: Any, size: int) -> Any:
        """Compile an index map for ``ac.gather``, ``ac.scatter_add`` and ``ac.segment_sum``.

        Parameters
        ----------
        index : array_like of int
            For each element of the long side, the place on the short side that it belongs to.
        size : int
            Number of places.

        Returns
        -------
        IndexTopology

        Examples
        --------
        >>> import adaptive_compute as ac
        >>> ac.Topology.from_index([2, 0, 2], size=4).counts.tolist()
        [1, 0, 2, 0]
        """
        return _module("index_topology").IndexTopology.from_index(index, size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file, atomically and without pickle.

        Parameters
        ----------
        path : path-like
            File to write, used exactly as given.
        """
        arrays: dict[str, Any] = {"kind": self.kind, "version": VERSION, **self.to_arrays()}
        write_atomically(Path(path), lambda file: np.savez(file, **arrays))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Any:
        """Read a topology that ``save`` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        Topology
            Of the class that was saved.

        Raises
        ------
        ArgumentError
            If the file is damaged, is not a topology or has another version; a file that cannot be read raises OSError.
        """
        try:
            # Opened here, because np.load leaves a damaged file open.
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            kind, version = str(arrays.pop("kind")), operator.index(arrays.pop("version").item())
        except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ArgumentError(f"path={os.fspath(path)!r} is not a topology: {error}") from None
        if version != VERSION:
            raise ArgumentError(f"path={os.fspath(path)!r} has version {version}, this library reads {VERSION}")
        try:
            return _class_of(kind).from_arrays(arrays)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ArgumentError(f"path={os.fspath(path)!r} is damaged: {error}") from None


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


def _class_of(kind: str) -> type[Topology]:
    """Return the class whose files carry a tag."""
    if kind not in _kinds and kind in _ELSEWHERE:
        _module(_ELSEWHERE[kind])
    if kind not in _kinds:
        raise ValueError(f"there is no kind of topology {kind!r}")
    return _kinds[kind]


Spans = list[tuple[int, int]]  # disjoint intervals [start, stop) of keys, in order


FULL = -1  # pattern of a tile in which every pair is kept
_EMPTY = -2  # of one in which none is, while a mask is compiled


class TileTopology(NamedTuple):
    """A mask compiled for given lengths: compressed sparse rows of tiles.

    Query tile r (rows ``r * tile[0]`` and on) visits the key tiles ``keys[start[r]:start[r + 1]]``. ``pattern`` is FULL
    (-1) where every pair of the tile is kept, else the index of the tile's bits in ``bits``, one packed row a query.
    Equal patterns are stored once.
    """

    lq: int
    lk: int
    tile: tuple[int, int]
    start: np.ndarray
    keys: np.ndarray
    pattern: np.ndarray
    bits: np.ndarray

    @property
    def visited(self) -> int:
        """Number of tiles that are visited."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(a.nbytes for a in (self.start, self.keys, self.pattern, self.bits))

    def keep(self, pattern: int) -> np.ndarray:
        """Return the boolean tile of a pattern index."""
        return np.unpackbits(self.bits[pattern], axis=-1, count=self.tile[1]).view(bool)


class Mask(Topology):
    """Which query row sees which key. True = keep; combines by ``&``, ``|`` and ``~``."""

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        """Tell, for query rows ``i`` and keys ``j`` (broadcast together), which pairs are kept."""
        raise NotImplementedError

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        """Return the keys that some row of [i0, i1) may see, and the keys that every one of them surely sees."""
        raise NotImplementedError

    def check(self, lq: int, lk: int) -> None:
        """Raise ShapeError where the mask is not for sequences of these lengths."""

    def tiles(self, lq: int, lk: int, tile: tuple[int, int] = (64, 64)) -> TileTopology:
        """Compile for lengths and a tile shape (whose second side is a multiple of 8); cached."""
        return compile_tiles(self, lq, lk, tile)

    def __and__(self, other: Mask) -> Mask:
        return Both(self, other) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: Mask) -> Mask:
        return Either(self, other) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        return Inverse(self)


@lru_cache(maxsize=64)
def compile_tiles(mask: Mask, lq: int, lk: int, tile: tuple[int, int]) -> TileTopology:
    """Return the tiles that a mask keeps; a tile that its intervals leave open is asked pair by pair."""
    mask.check(lq, lk)
    rows, columns = tile
    start, keys, patterns = [0], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    known: dict[bytes, int] = {}
    for i0 in range(0, lq, rows):
        i1 = min(i0 + rows, lq)
        some, every = mask.spans(i0, i1, lq, lk)
        tiles = _tiles_of(some, columns)
        first = tiles * columns
        last = np.minimum(first + columns, lk)
        begins, ends = np.array([(0, 0), *every]).T  # with an empty interval, so that each tile has one before it
        pattern = np.where(ends[np.searchsorted(begins, first, "right") - 1] >= last, FULL, _EMPTY)
        for at in np.flatnonzero(pattern != FULL).tolist():
            j0, j1 = int(first[at]), int(last[at])
            kept = np.zeros((rows, columns), bool)
            kept[: i1 - i0, : j1 - j0] = mask.keep(np.arange(i0, i1)[:, None], np.arange(j0, j1), lq, lk)
            count = np.count_nonzero(kept)
            if count == (i1 - i0) * (j1 - j0):
                pattern[at] = FULL
            elif count:
                pattern[at] = known.setdefault(np.packbits(kept, axis=-1).tobytes(), len(known))
        held = pattern != _EMPTY
        keys.append(tiles[held])
        patterns.append(pattern[held])
        start.append(start[-1] + len(keys[-1]))
    bits = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), rows, -(-columns // 8))
    columns_of, pattern_of = (np.concatenate(part).astype(np.int32) for part in (keys, patterns))
    return TileTopology(lq, lk, tile, np.array(start, np.int32), columns_of, pattern_of, bits)


def _tiles_of(spans: Spans, columns: int) -> np.ndarray:
    """Return the tiles that intervals touch, in order; two intervals may touch the same one."""
    touched = [np.arange(a // columns, -(-b // columns)) for a, b in spans]
    return touched[0] if len(touched) == 1 else np.unique(np.concatenate([np.empty(0, np.int64), *touched]))


def span(a: int, b: int, lk: int) -> Spans:
    """Return the interval [a, b), cut to the keys that there are."""
    a, b = max(a, 0), min(b, lk)
    return [(a, b)] if a < b else []


def union(left: Spans, right: Spans) -> Spans:
    """Return the keys in one or the other."""
    merged: Spans = []
    for a, b in sorted([*left, *right]):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def complement(spans: Spans, lk: int) -> Spans:
    """Return the keys that are not in the intervals."""
    edges = [0, *(edge for span in spans for edge in span), lk]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]


def intersection(left: Spans, right: Spans, lk: int) -> Spans:
    """Return the keys in both."""
    return complement(union(complement(left, lk), complement(right, lk)), lk)


def _packed(parts: Mapping[str, Mask]) -> dict[str, np.ndarray]:
    """Return the arrays of masks inside a mask, each under its own prefix."""
    arrays = {}
    for prefix, mask in parts.items():
        arrays[f"{prefix}.kind"] = np.array(mask.kind)
        arrays.update({f"{prefix}.{name}": array for name, array in mask.to_arrays().items()})
    return arrays


def _unpacked(arrays: Mapping[str, np.ndarray], prefix: str) -> Mask:
    inner = {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(prefix + ".")}
    mask = _class_of(str(inner.pop("kind"))).from_arrays(inner)
    if not isinstance(mask, Mask):
        raise ValueError(f"{prefix} is not a mask")
    return mask


@dataclass(frozen=True)
class Both(Mask):
    """``left & right``."""

    left: Mask
    right: Mask
    kind = "and"

    def check(self, lq: int, lk: int) -> None:
        self.left.check(lq, lk)
        self.right.check(lq, lk)

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return self.left.keep(i, j, lq, lk) & self.right.keep(i, j, lq, lk)

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        left, right = self.left.spans(i0, i1, lq, lk), self.right.spans(i0, i1, lq, lk)
        return intersection(left[0], right[0], lk), intersection(left[1], right[1], lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return _packed({"left": self.left, "right": self.right})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Mask:
        return cls(_unpacked(arrays, "left"), _unpacked(arrays, "right"))


@dataclass(frozen=True)
class Either(Both):
    """``left | right``."""

    kind = "or"

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return self.left.keep(i, j, lq, lk) | self.right.keep(i, j, lq, lk)

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        left, right = self.left.spans(i0, i1, lq, lk), self.right.spans(i0, i1, lq, lk)
        return union(left[0], right[0]), union(left[1], right[1])


@dataclass(frozen=True)
class Inverse(Mask):
    """``~mask``."""

    mask: Mask
    kind = "not"

    def check(self, lq: int, lk: int) -> None:
        self.mask.check(lq, lk)

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return ~self.mask.keep(i, j, lq, lk)

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        some, every = self.mask.spans(i0, i1, lq, lk)
        return complement(every, lk), complement(some, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return _packed({"mask": self.mask})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Inverse:
        return cls(_unpacked(arrays, "mask"))
