"""The text: three files of bytes, as they are or packed by xz, and the order in which training reads them."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import numpy as np
import torch

PARTS = ("train", "valid", "test")


def load(folder: str | Path) -> dict[str, torch.Tensor]:
    """Return train, valid and test as uint8 tensors, from ``NAME.txt`` or ``NAME.txt.xz``."""
    texts = {}
    for part in PARTS:
        plain, packed = Path(folder) / f"{part}.txt", Path(folder) / f"{part}.txt.xz"
        if not plain.exists() and not packed.exists():
            raise SystemExit(f"--data {folder}: neither {plain.name} nor {packed.name} is there")
        content = plain.read_bytes() if plain.exists() else lzma.decompress(packed.read_bytes())
        texts[part] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return texts


def described(texts: dict[str, torch.Tensor]) -> dict[str, dict[str, str | int]]:
    """Return the size and the SHA-256 of each part, for the record."""
    return {
        part: {"bytes": len(text), "sha256": hashlib.sha256(text.numpy().tobytes()).hexdigest()}
        for part, text in texts.items()
    }


def starts(size: int, length: int, batch: int, steps: int, seed: int) -> torch.Tensor:
    """Return where each sequence of each step begins: (steps, batch).

    The text is cut into pieces of ``length`` bytes, which are read in random order without repetition; each time
    through, the cuts lie elsewhere.
    """
    random = np.random.default_rng(seed)
    pieces = (size - 1 - length) // length
    if pieces < 1:
        raise SystemExit(f"a text of {size} bytes has no sequence of {length + 1}")
    rounds = -(-steps * batch // pieces)
    found = [random.integers(0, length) + length * random.permutation(pieces) for _ in range(rounds)]
    return torch.from_numpy(np.concatenate(found)[: steps * batch].reshape(steps, batch))
