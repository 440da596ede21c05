"""A run on disk: one file a block, each chained to the one before by its hash.

A run's folder holds ``run.json`` (range, block plan, settings, format) and ``00000000.block``, ``00000001.block``,
... A block file is one line of JSON (with the SHA-256 of all that follows and of the previous block's line) and the
zeros' offsets as little-endian float64. Files are written beside their name and renamed, so that a run killed at any
moment leaves whole blocks only; a file that was changed is refused by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import Block, Height

FORMAT = 1
RUN = "run.json"
PART = ".part"  # of a file that is being written
DEAD = 600.0  # seconds after which such a file is what a killed run left behind


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Any]:
    """Give a file to write beside a path, which becomes it at the end: the name never stands for less than all of it.

    Its permissions are those that the process gives to any file.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PART}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a disk that is full does not say for which file
        raise


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with whole(path) as file:
        file.write(data)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


class Checkpoint:
    """A folder of blocks.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    settings : dict, optional
        What the run is: JSON-ready. A folder that holds another run is refused. None: read the folder's own.

    Raises
    ------
    CheckpointError
        If the folder holds another run, or none where one must be.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: dict[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        path = self.folder / RUN
        if path.exists():
            try:
                found = json.loads(path.read_bytes())
            except ValueError:
                raise CheckpointError(f"{path} is damaged: it is no JSON") from None
            if not isinstance(found, dict) or found.get("format") != FORMAT:
                raise CheckpointError(f"{path} has another format than {FORMAT}, which this version reads")
            if settings is not None and (wanted := {"format": FORMAT, **settings}) != found:
                differing = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
                told = ", ".join(f"{k} {found.get(k)!r} there, {wanted.get(k)!r} asked" for k in differing)
                raise CheckpointError(f"{self.folder} holds another run: {told}")
            self.settings = found
        elif settings is None:
            raise CheckpointError(f"{self.folder} holds no run: {RUN} is not there")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.settings = {"format": FORMAT, **settings}
            write(path, _line(self.settings) + b"\n")
        self._last = hashlib.sha256(_line(self.settings)).hexdigest()

    def clear(self) -> None:
        """Remove what killed runs left half written, unless it is so young that another process may be at it."""
        for path in self.folder.glob(f"*{PART}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > DEAD:
                    path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.block"

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks that are there, from the first on, each checked against its hash and its place in the chain.

        Raises
        ------
        CheckpointError
            At a file that was changed, which it names.
        """
        self._last = hashlib.sha256(_line(self.settings)).hexdigest()
        number = 0
        while (path := self._path(number)).exists():
            yield self._read(path, number)
            number += 1

    def _read(self, path: Path, number: int) -> Block:
        head, _, data = path.read_bytes().partition(b"\n")
        try:
            content = json.loads(head)
            stated = content.pop("sha256")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise CheckpointError(f"block {number} ({path}) is damaged: its head cannot be read") from None
        actual = hashlib.sha256(_line(content) + b"\n" + data).hexdigest()
        if _line({**content, "sha256": stated}) != head:  # the same numbers in other characters
            raise CheckpointError(f"block {number} ({path}) was changed: its head is not as it was written")
        if actual != stated:
            raise CheckpointError(f"block {number} ({path}) was changed: its hash is {actual}, it says {stated}")
        if content["previous"] != self._last or content["number"] != number:
            before = "the block before it" if number else f"{RUN}: one of the two was changed"
            raise CheckpointError(f"block {number} ({path}) does not follow {before}")
        self._last = actual
        first, last = (Height(int(b), float.fromhex(o)) for b, o in (content["first"], content["last"]))
        return Block(
            number, first, last, np.frombuffer(data, "<f8"), content["below"], content["expected"], content["open"],
            content["error"], content["statistics"],
        )  # fmt: skip

    def append(self, block: Block) -> None:
        """Write the block that follows the ones read or written so far."""
        content = {
            "number": block.number, "previous": self._last,
            "first": [str(block.first.base), block.first.offset.hex()],
            "last": [str(block.last.base), block.last.offset.hex()],
            "below": block.below, "expected": block.expected, "open": block.open, "error": block.error,
            "count": len(block.offsets), "statistics": block.statistics,
        }  # fmt: skip
        data = np.ascontiguousarray(block.offsets, "<f8").tobytes()
        actual = hashlib.sha256(_line(content) + b"\n" + data).hexdigest()
        write(self._path(block.number), _line({**content, "sha256": actual}) + b"\n" + data)
        self._last = actual
