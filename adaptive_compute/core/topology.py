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
from collections.abc import Callable, Iterable, Mapping, Sequence
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


class Mask(Topology):
    """Placeholder: masks follow."""
