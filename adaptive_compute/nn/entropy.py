"""Whole numbers coded in as many bits as their frequencies call for, by the library constriction (asymmetric numerals).

References
----------
.. [1] R. Bamler, "Understanding entropy coding with asymmetric numeral systems (ANS): a statistician's perspective",
   2022, https://arxiv.org/abs/2201.01741
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..core.errors import BackendUnavailable

MOST = 65535  # the frequency that the most frequent symbol is given; the others in proportion, and 1 at least


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Return counts as they are kept, uint16: rounded, so that the decoder has the very same ones."""
    return np.maximum(np.round(counts * (MOST / counts.max())), 1).astype(np.uint16)


def bits_of(counts: np.ndarray) -> float:
    """Return how many bits symbols with these counts take when coded with their rounded frequencies."""
    kept = frequencies(counts).astype(np.float64)
    return float(-(counts * np.log2(kept / kept.sum())).sum())


class Coder:
    """Codes indices into a table of frequencies (symbols,), uint16."""

    def __init__(self, table: np.ndarray) -> None:
        self._stream: Any = _constriction().stream
        kept = table.astype(np.float64)
        # Whole numbers over their sum: IEEE arithmetic alone, so that every machine decodes what another has coded.
        self._model = None if len(table) < 2 else self._stream.model.Categorical(kept / kept.sum(), perfect=False)

    def encode(self, indices: np.ndarray) -> np.ndarray:
        """Return the code of indices (count,) as words of 32 bits."""
        if self._model is None or not len(indices):
            return np.empty(0, np.uint32)
        coder = self._stream.stack.AnsCoder()
        coder.encode_reverse(np.ascontiguousarray(indices, np.int32), self._model)
        return coder.get_compressed()

    def decode(self, words: np.ndarray, count: int) -> np.ndarray:
        """Return the first ``count`` indices of a code."""
        if self._model is None or not count:
            return np.zeros(count, np.int32)
        return self._stream.stack.AnsCoder(np.ascontiguousarray(words)).decode(self._model, count)


def _constriction() -> Any:
    try:
        return importlib.import_module("constriction")
    except ImportError:
        raise BackendUnavailable(
            "entropy coding needs the library constriction: pip install 'adaptive-compute[nn]'"
        ) from None
