"""Real numbers in equal steps, each coded in as many bits as its frequency calls for by the library constriction [1]_.

References
----------
.. [1] R. Bamler, "Understanding entropy coding with asymmetric numeral systems (ANS): a statistician's perspective",
   2022, https://arxiv.org/abs/2201.01741
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import BackendUnavailable

SEGMENT = 1 << 17  # numbers that are coded together, and decoded together
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


def code(x: np.ndarray, bits: float) -> dict[str, np.ndarray]:
    """Return numbers coded in steps as small as their bits allow.

    Parameters
    ----------
    x : ndarray
        (count,), float32 or float64.
    bits : float
        For each number, side information included. Very few numbers can take more, since that has a least size.

    Returns
    -------
    dict of ndarray
        codes (words,), int32; lengths (segments,), int32: words of each segment; symbols and frequencies (distinct,):
        which numbers of steps there are, and how often each is met; step (1,), float64: what a step stands for.
    """
    size = float(np.abs(x).max(initial=0.0))
    least, most = size * 2.0**-22, 4 * size  # finer steps would number what float32 does not hold apart
    rms = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if len(x) else 0.0
    step = max(rms * math.sqrt(2 * math.pi * math.e) * 2.0**-bits, least) or 1.0
    fine, coarse = 0.0, math.inf  # steps that took more bits than there are, and no more
    for _ in range(12 if len(x) > SEGMENT else 40):  # the bits of a number change by 1 as the step halves, very nearly
        over = _foreseen(_steps(x, step)) / max(len(x), 1) - bits
        if -1e-4 < over <= 0 or (over < 0 and step <= least) or fine >= coarse:
            break
        fine, coarse = (step, coarse) if over > 0 else (fine, step)
        step = min(max(step * 2.0 ** min(max(over + 5e-5, -8.0), 8.0), least), most) or 1.0
        if not fine < step < coarse and 0 < fine < coarse < math.inf:  # of few numbers, tables take most
            step = math.sqrt(fine * coarse)
    for _ in range(8):  # what was foreseen leaves out how the coder begins and ends
        coded = _coded(x, step)
        over = 8 * sum(part.nbytes for part in coded.values()) / max(len(x), 1) - bits
        if over <= 0:
            break
        step = min(step * 2.0 ** min(over + 1e-5, 1.0), most) or 1.0
    return coded


def decode(parts: Mapping[str, np.ndarray], start: int, stop: int) -> np.ndarray:
    """Return numbers ``start`` to ``stop`` of a code, float64, decoding the segments they are in."""
    coder, lengths = Coder(parts["frequencies"].view(np.uint16)), parts["lengths"].astype(np.int64)
    ends, words = np.cumsum(lengths), parts["codes"].view(np.uint32)
    found = [np.empty(0, parts["symbols"].dtype)]
    for segment in range(start // SEGMENT, -(-stop // SEGMENT)):
        first = segment * SEGMENT
        index = coder.decode(words[ends[segment] - lengths[segment] : ends[segment]], min(stop - first, SEGMENT))
        found.append(parts["symbols"][index[max(start - first, 0) :]])
    return np.concatenate(found) * parts["step"].item()


def _steps(x: np.ndarray, step: float) -> np.ndarray:
    return np.rint(x / x.dtype.type(step)).astype(np.int32)


def _foreseen(steps: np.ndarray) -> float:
    """Return how many bits numbers of steps will take, side information included."""
    if not len(steps):
        return 0.0
    low = int(steps.min())
    counts = np.bincount(steps - low)
    distinct = np.count_nonzero(counts)
    side = 8 * (8 + distinct * (4 if max(-low, low + len(counts)) < 2**15 else 6))
    return bits_of(counts[counts > 0]) + side + 64 * -(-len(steps) // SEGMENT)


def _coded(x: np.ndarray, step: float) -> dict[str, np.ndarray]:
    """Code numbers in steps of a given size."""
    steps = _steps(x, step)
    distinct, index, counts = np.unique(steps, return_inverse=True, return_counts=True)
    table = frequencies(counts) if len(counts) else np.empty(0, np.uint16)
    coder = Coder(table)
    words = [coder.encode(index[at : at + SEGMENT]) for at in range(0, len(x), SEGMENT)]
    # What a step stands for: its least-squares size, since values within a step are denser on the side of zero.
    energy = float(np.square(steps, dtype=np.float64).sum())
    stands = float(np.dot(x.astype(np.float64), steps)) / energy if energy else step
    narrow = np.int16 if np.abs(distinct).max(initial=0) < 2**15 else np.int32
    return {
        "codes": np.concatenate([np.empty(0, np.uint32), *words]).view(np.int32),
        "lengths": np.array([len(one) for one in words], np.int32), "symbols": distinct.astype(narrow),
        "frequencies": table.view(np.int16), "step": np.array([stands]),
    }  # fmt: skip


def _constriction() -> Any:
    try:
        return importlib.import_module("constriction")
    except ImportError:
        raise BackendUnavailable(
            "entropy coding needs the library constriction: pip install 'adaptive-compute[nn]'"
        ) from None
