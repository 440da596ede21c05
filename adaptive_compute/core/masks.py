"""The masks of attention: rules (causal, window, prefix, blocks) and compiled boolean arrays."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from .errors import ArgumentError, DtypeError, ShapeError
from .topology import FULL, Mask, Spans, TileTopology, compile_tiles, span


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
        return span(0, i1 + shift, lk), span(0, i0 + shift + 1, lk)

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
        return span(i0 - self.n + 1, i1 - 1 + self.n, lk), span(i1 - self.n, i0 + self.n, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"n": np.array(self.n)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Window:
        return cls(arrays["n"].item())


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
        return span(0, self.n, lk), span(0, self.n, lk)

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"n": np.array(self.n)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Prefix:
        return cls(arrays["n"].item())


def _boolean(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != bool:
        raise DtypeError(f"{name} must be boolean (True = keep), it has dtype {array.dtype}")
    if array.ndim != 2:
        raise ShapeError(f"{name} must have two axes (queries, keys), it has shape {array.shape}")
    return np.ascontiguousarray(array)


def _runs(kept: Any) -> Spans:
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
        return cls(compile_tiles.__wrapped__(_Given(array), *array.shape, (side, side)))

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
                f"mask was compiled for {self.compiled.lq} queries and {self.compiled.lk} keys; "
                f"this call has {lq} and {lk}"
            )

    def tiles(self, lq: int, lk: int, tile: tuple[int, int] = (64, 64)) -> TileTopology:
        self.check(lq, lk)
        return self.compiled if tile == self.compiled.tile else compile_tiles(self, lq, lk, tile)

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
        (lq, lk), (rows, columns) = (tuple(map(operator.index, arrays[name].tolist())) for name in ("lengths", "tile"))
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
