"""Compiled sparsity patterns: what they share (a name, a file), and the masks of attention.

A mask is a rule for which query row sees which key, independent of how long the sequences are; it is a hashable value.
``Mask.tiles`` compiles it for given lengths: which tile of queries visits which tiles of keys, and in which of those the
rule must still be asked key by key. Compiling asks the rule for intervals of keys, tile row by tile row, so that its
cost follows the tiles that are kept and not the product of the lengths.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .errors import ArgumentError, DtypeError, ShapeError

VERSION = 1  # of the file format
_ELSEWHERE = {"index": "adaptive_compute.core.index_topology"}  # kinds whose module is loaded when one is asked for
_kinds: dict[str, type[Topology]] = {}


class Topology:
    """A sparsity pattern that is built once and reused: a mask of attention, or a map of indices.

    A subclass sets ``kind``, the tag its files carry, and gives its data as named arrays.
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
        return ArrayMask.compile(mask, tile)

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
        """
        module = importlib.import_module(_ELSEWHERE["index"])
        return module.IndexTopology.from_index(index, size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file, atomically and without pickle.

        Parameters
        ----------
        path : path-like
            File to write, used exactly as given.
        """
        target = Path(path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, kind=np.array(self.kind), version=np.array(VERSION), **self.to_arrays())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

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
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            kind, version = str(arrays.pop("kind")), int(arrays.pop("version"))
        except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ArgumentError(f"path={os.fspath(path)!r} is not a topology: {error}") from None
        if version != VERSION:
            raise ArgumentError(f"path={os.fspath(path)!r} has version {version}, this library reads {VERSION}")
        if kind in _ELSEWHERE:
            importlib.import_module(_ELSEWHERE[kind])
        if kind not in _kinds:
            raise ArgumentError(f"path={os.fspath(path)!r} holds a topology of kind {kind!r}; known: {', '.join(_kinds)}")
        try:
            return _kinds[kind].from_arrays(arrays)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ArgumentError(f"path={os.fspath(path)!r} is damaged: {error}") from None


Spans = list[tuple[int, int]]  # disjoint intervals [start, stop) of keys, in order


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


FULL = -1


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
        return _compiled(self, lq, lk, tile)

    def __and__(self, other: Mask) -> Mask:
        return Both(self, other) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: Mask) -> Mask:
        return Either(self, other) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        return Inverse(self)


@lru_cache(maxsize=64)
def _compiled(mask: Mask, lq: int, lk: int, tile: tuple[int, int]) -> TileTopology:
    mask.check(lq, lk)
    rows, columns = tile
    start, keys, patterns = [0], [], []
    known: dict[bytes, int] = {}
    for i0 in range(0, lq, rows):
        i1 = min(i0 + rows, lq)
        some, every = mask.spans(i0, i1, lq, lk)
        for c in _tiles_of(some, columns):
            j0, j1 = c * columns, min((c + 1) * columns, lk)
            pattern = FULL
            if not any(a <= j0 and j1 <= b for a, b in every):
                kept = np.zeros((rows, columns), bool)
                kept[: i1 - i0, : j1 - j0] = mask.keep(np.arange(i0, i1)[:, None], np.arange(j0, j1), lq, lk)
                count = np.count_nonzero(kept)
                if not count:
                    continue
                if count < (i1 - i0) * (j1 - j0):
                    pattern = known.setdefault(np.packbits(kept, axis=-1).tobytes(), len(known))
            keys.append(c)
            patterns.append(pattern)
        start.append(len(keys))
    bits = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), rows, -(-columns // 8))
    return TileTopology(lq, lk, tile, *(np.array(part, np.int32) for part in (start, keys, patterns)), bits)


def _tiles_of(spans: Spans, columns: int) -> Iterable[int]:
    done = -1
    for a, b in spans:
        for c in range(max(a // columns, done + 1), -(-b // columns)):
            yield c
            done = c


def _span(a: int, b: int, lk: int) -> Spans:
    a, b = max(a, 0), min(b, lk)
    return [(a, b)] if a < b else []


def _union(left: Spans, right: Spans) -> Spans:
    merged: Spans = []
    for a, b in sorted([*left, *right]):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def _complement(spans: Spans, lk: int) -> Spans:
    edges = [0, *(edge for span in spans for edge in span), lk]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if a < b]


def _intersection(left: Spans, right: Spans, lk: int) -> Spans:
    return _complement(_union(_complement(left, lk), _complement(right, lk)), lk)


def _whole(value: Any, name: str, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ArgumentError(f"{name} must be at least {least}, got {number}")
    return number


@dataclass(frozen=True)
class Causal(Mask):
    """Each query sees the keys up to its own position.

    Parameters
    ----------
    align : {"top-left", "bottom-right"}, default "top-left"
        With fewer queries than keys, whether query 0 stands at key 0 (as torch's ``is_causal``) or the last query at
        the last key (decoding with a cache).

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.Causal(align="bottom-right").keep(np.arange(2)[:, None], np.arange(3), 2, 3).astype(int).tolist()
    [[1, 1, 0], [1, 1, 1]]
    """

    align: str = "top-left"
    kind = "causal"

    def __post_init__(self) -> None:
        if self.align not in ("top-left", "bottom-right"):
            raise ArgumentError(f"align={self.align!r} is not accepted; use 'top-left' or 'bottom-right'")

    def _shift(self, lq: int, lk: int) -> int:
        return lk - lq if self.align == "bottom-right" else 0

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return j <= i + self._shift(lq, lk)

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        shift = self._shift(lq, lk)
        return _span(0, i1 + shift, lk), _span(0, i0 + shift + 1, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"align": np.array(self.align)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Causal:
        return cls(str(arrays["align"]))


@dataclass(frozen=True)
class Window(Mask):
    """Each query i sees the keys j with ``|i - j| < n``.

    Parameters
    ----------
    n : int
        Half width, at least 1 (which keeps the diagonal alone).

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.Window(2).keep(1, np.arange(4), 4, 4).tolist()
    [True, True, True, False]
    """

    n: int
    kind = "window"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _whole(self.n, "n", 1))

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return abs(i - j) < self.n

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        return _span(i0 - self.n + 1, i1 - 1 + self.n, lk), _span(i1 - self.n, i0 + self.n, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"n": np.array(self.n)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Window:
        return cls(int(arrays["n"]))


@dataclass(frozen=True)
class Prefix(Mask):
    """Every query sees the first n keys; with ``Causal()`` by ``|``, a prefix language model.

    Parameters
    ----------
    n : int
        Number of keys, at least 0.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> (ac.Prefix(2) | ac.Causal()).keep(0, np.arange(4), 4, 4).tolist()
    [True, True, False, False]
    """

    n: int
    kind = "prefix"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", _whole(self.n, "n", 0))

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return (j < self.n) & (i >= 0)

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        return _span(0, self.n, lk), _span(0, self.n, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"n": np.array(self.n)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Prefix:
        return cls(int(arrays["n"]))


def _boolean(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != bool:
        raise DtypeError(f"{name} must be boolean (True = keep), it has dtype {array.dtype}")
    if array.ndim != 2:
        raise ShapeError(f"{name} must have two axes (queries, keys), it has shape {array.shape}")
    return np.ascontiguousarray(array)


def _runs(kept: np.ndarray) -> Spans:
    """Return the intervals over which a boolean vector is True."""
    edges = np.flatnonzero(np.diff(kept, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


class Blocks(Mask):
    """Block-sparse: query block r sees key block c where ``layout[r, c]``.

    Parameters
    ----------
    layout : array_like of bool, shape (ceil(Lq / block), ceil(Lk / block))
        True = keep.
    block : int or (int, int)
        Queries and keys of one block.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.Blocks(np.eye(2, dtype=bool), 64).keep(70, np.array([3, 70]), 128, 128).tolist()
    [False, True]
    """

    kind = "blocks"

    def __init__(self, layout: Any, block: Any) -> None:
        self.layout = _boolean(layout, "layout").copy()
        self.layout.flags.writeable = False
        sides = block if isinstance(block, (tuple, list)) else (block, block)
        if len(sides) != 2:
            raise ArgumentError(f"block must be a whole number or two of them, got {block!r}")
        self.block = (_whole(sides[0], "block", 1), _whole(sides[1], "block", 1))
        self._key = (self.block, self.layout.shape, self.layout.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocks) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        rows, columns = self.layout.shape
        return f"Blocks({np.count_nonzero(self.layout)} of {rows}x{columns} blocks of {self.block[0]}x{self.block[1]})"

    def check(self, lq: int, lk: int) -> None:
        needed = (-(-lq // self.block[0]), -(-lk // self.block[1]))
        if self.layout.shape != needed:
            raise ShapeError(
                f"mask: the layout has shape {self.layout.shape}; {lq} queries and {lk} keys in blocks of "
                f"{self.block[0]}x{self.block[1]} need {needed}"
            )

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return self.layout[np.asarray(i) // self.block[0], np.asarray(j) // self.block[1]]

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        rows, side = self.layout[i0 // self.block[0] : -(-i1 // self.block[0])], self.block[1]
        some, every = (
            [(a * side, min(b * side, lk)) for a, b in _runs(reduced)] for reduced in (rows.any(0), rows.all(0))
        )
        return some, every

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"layout": self.layout, "block": np.array(self.block)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Blocks:
        return cls(arrays["layout"], tuple(arrays["block"].tolist()))


class ArrayMask(Mask):
    """A boolean array, compiled: what ``Topology.from_mask`` returns. Holds the kept tiles alone."""

    kind = "array"

    def __init__(self, compiled: TileTopology) -> None:
        self.compiled = compiled
        columns = -(-compiled.lk // compiled.tile[1])
        self._codes = np.repeat(np.arange(len(compiled.start) - 1), np.diff(compiled.start)) * columns + compiled.keys
        digest = blake2b(repr((compiled.lq, compiled.lk, compiled.tile)).encode())
        for part in (compiled.start, compiled.keys, compiled.pattern, compiled.bits):
            digest.update(np.ascontiguousarray(part).tobytes())
        self._key = digest.digest()

    @classmethod
    def compile(cls, mask: Any, tile: int) -> ArrayMask:
        """Compile a boolean array; see ``Topology.from_mask``."""
        side = _whole(tile, "tile", 8)
        if side % 8:
            raise ArgumentError(f"tile must be a multiple of 8, got {side}")
        array = _boolean(mask, "mask")
        return cls(_compiled.__wrapped__(_Given(array), *array.shape, (side, side)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayMask) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        c = self.compiled
        return f"Topology({c.lq}x{c.lk}, {c.visited} tiles of {c.tile[0]}x{c.tile[1]})"

    def check(self, lq: int, lk: int) -> None:
        if (lq, lk) != (self.compiled.lq, self.compiled.lk):
            raise ShapeError(
                f"mask was compiled for {self.compiled.lq} queries and {self.compiled.lk} keys; this call has {lq} and {lk}"
            )

    def tiles(self, lq: int, lk: int, tile: tuple[int, int] = (64, 64)) -> TileTopology:
        self.check(lq, lk)
        return self.compiled if tile == self.compiled.tile else _compiled(self, lq, lk, tile)

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        c = self.compiled
        (rows, columns), (i, j) = c.tile, np.broadcast_arrays(i, j)
        codes = i // rows * -(-c.lk // columns) + j // columns
        at = np.minimum(np.searchsorted(self._codes, codes), max(len(self._codes) - 1, 0))
        if not len(self._codes):
            return np.zeros(i.shape, bool)
        pattern = c.pattern[at]
        kept = (self._codes[at] == codes) & (pattern == FULL)
        partial = (self._codes[at] == codes) & (pattern != FULL)
        a, b = i[partial] % rows, j[partial] % columns
        kept[partial] = c.bits[pattern[partial], a, b // 8] >> (7 - b % 8) & 1
        return kept

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        c = self.compiled
        (rows, columns), count = c.tile, -(-c.lk // c.tile[1])
        some, every = np.zeros(count, bool), np.ones(count, bool)
        for r in range(i0 // rows, -(-i1 // rows)):
            part = slice(c.start[r], c.start[r + 1])
            some[c.keys[part]] = True
            full = np.zeros(count, bool)
            full[c.keys[part][c.pattern[part] == FULL]] = True
            every &= full
        widen = [[(a * columns, min(b * columns, lk)) for a, b in _runs(flags)] for flags in (some, every)]
        return widen[0], widen[1]

    def to_arrays(self) -> dict[str, np.ndarray]:
        c = self.compiled
        return {
            "lengths": np.array([c.lq, c.lk]), "tile": np.array(c.tile),
            "start": c.start, "keys": c.keys, "pattern": c.pattern, "bits": c.bits,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ArrayMask:
        (lq, lk), (rows, columns) = (tuple(int(n) for n in arrays[name]) for name in ("lengths", "tile"))
        start, keys, pattern = (np.asarray(arrays[name], np.int32) for name in ("start", "keys", "pattern"))
        bits = np.asarray(arrays["bits"], np.uint8)
        order = np.diff(keys) > 0
        order[[at - 1 for at in start[1:-1] if 0 < at < len(keys)]] = True  # a new row starts again
        sound = (
            min(lq, lk) >= 0 and min(rows, columns) >= 8 and columns % 8 == 0
            and start.shape == (-(-lq // rows) + 1,) and start[0] == 0 and start[-1] == len(keys) == len(pattern)
            and bool(np.all(np.diff(start) >= 0)) and bool(np.all(order))
            and bits.ndim == 3 and bits.shape[1:] == (rows, columns // 8)
            and (not len(keys) or (keys.min() >= 0 and keys.max() < -(-lk // columns)
                                   and pattern.min() >= FULL and pattern.max() < len(bits)))
        )  # fmt: skip
        if not sound:
            raise ValueError("its tiles contradict each other")
        return cls(TileTopology(lq, lk, (rows, columns), start, keys, pattern, bits))


class _Given(Mask):
    """A boolean array as it is, on its way to being compiled."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def keep(self, i: Any, j: Any, lq: int, lk: int) -> np.ndarray:
        return self.array[i, j]

    def spans(self, i0: int, i1: int, lq: int, lk: int) -> tuple[Spans, Spans]:
        rows = self.array[i0:i1]
        return _runs(rows.any(0)), _runs(rows.all(0))


def _packed(parts: Mapping[str, Mask]) -> dict[str, np.ndarray]:
    """Return the arrays of masks inside a mask, each under its own prefix."""
    arrays = {}
    for prefix, mask in parts.items():
        arrays[f"{prefix}.kind"] = np.array(mask.kind)
        arrays.update({f"{prefix}.{name}": array for name, array in mask.to_arrays().items()})
    return arrays


def _unpacked(arrays: Mapping[str, np.ndarray], prefix: str) -> Mask:
    inner = {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(prefix + ".")}
    mask = _kinds[str(inner.pop("kind"))].from_arrays(inner)
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
        return _intersection(left[0], right[0], lk), _intersection(left[1], right[1], lk)

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
        return _union(left[0], right[0]), _union(left[1], right[1])


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
        return _complement(every, lk), _complement(some, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return _packed({"mask": self.mask})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Inverse:
        return cls(_unpacked(arrays, "mask"))
