"""Convolution by FFT, a block of channels at a time: what the forward and backward passes of ``convolution`` share.

A block on the processor is small enough for its cache, and torch's own transform computes it in place there; where the
router sends the whole elsewhere (Vulkan), a block is large and goes as one pipeline, so that it crosses the link once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch

import adaptive_compute as ac

from ..core.errors import NoKernelError
from .layer import working_dtype
from .workers import share

# Bytes of one block's padded signal. On a processor a block should stay in its cache; elsewhere fewer calls count.
CACHED_BLOCK, LARGE_BLOCK = 1 << 20, 1 << 28
# torch makes a transform's twiddles anew in each call, which 16 long rows make up for.
FEWEST_ROWS, LONG_BLOCK = 16, 1 << 24


def fast_length(least: int) -> int:
    """Return a length of at least ``least`` whose transform is quick: a power of two times 1, 3, 5, 9 or 15.

    Examples
    --------
    >>> from adaptive_compute.nn.blocks import fast_length
    >>> fast_length(4095), fast_length(4097)
    (4096, 4608)
    """
    return min(m << (-(-least // m) - 1).bit_length() for m in (1, 3, 5, 9, 15))


@ac.pipeline
def _filtered(u: Any, spectrum: Any, n: int) -> Any:
    """Return the circular convolution of n points with a kernel whose spectrum is known."""
    return ac.irfft(ac.rfft(u) * spectrum, n)


@ac.pipeline
def _pulled_back(u: Any, g: Any, spectrum: Any, n: int) -> Any:
    """Return the gradients that ``_filtered`` hands on for ``g``: of u, and of the spectrum, over the batch."""
    back = ac.rfft(g)
    return ac.irfft(back * ac.conj(spectrum), n), ac.sum(back * ac.conj(ac.rfft(u)), axis=1)


@lru_cache(maxsize=256)
def _torch_transforms(n: int, dtype: Any) -> bool:
    """Tell whether torch's transform is exact enough for one row, and for several, of n points there and back."""
    with ac.using(kernel="torch"):
        try:
            for rows in (1, 2):
                ac.explain(ac.rfft, torch.empty((rows, n), dtype=dtype))
                ac.explain(ac.irfft, torch.empty((rows, n // 2 + 1), dtype=dtype.to_complex()), n)
        except NoKernelError:
            return False
    return True


class Blocks:
    """How a call is divided into blocks, whose kernels' spectra are made when their channels' turn comes.

    Parameters
    ----------
    u : Tensor
        (..., dim, batch, length): what the signals are shaped like.
    h : Tensor
        (..., dim, taps).
    buffers : int
        How many padded signals of a block are needed side by side.
    of_h : Tensor, optional
        Where the kernels' gradient is to be written.
    """

    def __init__(self, u: Any, h: Any, buffers: int, of_h: Any = None) -> None:
        self.dim, self.batch, self.length = u.shape[-3:]
        self.h, self.of_h = h, of_h
        self.n = fast_length(self.length + h.shape[-1] - 1)
        self.dtype = working_dtype(torch.promote_types(u.dtype, h.dtype))
        self.far = u.device.type == "cpu" and self._goes_far()
        self.near = u.device.type == "cpu" and not self.far
        self._in_place = self.near and ac.settings.kernel is None and _torch_transforms(self.n, self.dtype)
        row = self.n * self.dtype.itemsize
        rows = (
            max(CACHED_BLOCK // row, min(FEWEST_ROWS, LONG_BLOCK // row), 1) if self.near else LARGE_BLOCK // row or 1
        )
        self.channels, self.elements = min(max(rows // self.batch, 1), self.dim), min(rows, self.batch)
        self.signals = (buffers, self.channels, self.elements, self.n)
        self.device = u.device

    def _goes_far(self) -> bool:
        """Tell whether the router sends the call to another device; nothing is computed, and no memory is touched."""
        whole = torch.empty((self.dim, self.batch, self.n), dtype=self.dtype)
        kernel = torch.empty((self.dim, 1, self.n // 2 + 1), dtype=self.dtype.to_complex())
        return any(step.get("device", "cpu") != "cpu" for step in _filtered.explain(whole, kernel, self.n).steps)

    def _chosen(self) -> AbstractContextManager[Any]:
        """Return the settings of the transforms: torch's own work in cache, on the tensors themselves."""
        return ac.using(kernel="torch") if self._in_place else nullcontext()

    def run(self, task: Callable[[Block], None]) -> None:
        """Call ``task`` for every block: in threads on the processor, where those of a channel stay with one thread."""

        def lane(numbers: Iterator[int]) -> None:
            with self._chosen():
                block = Block(self)
                for number in numbers:
                    first = number * self.channels
                    channels = slice(first, min(first + self.channels, self.dim))
                    block.begin(channels)
                    for b in range(0, self.batch, self.elements):
                        block.place = channels, slice(b, min(b + self.elements, self.batch))
                        task(block)
                    block.end(channels)

        count = -(-self.dim // self.channels)
        if self.near:
            share(count, lane)
        else:
            lane(iter(range(count)))


class Block:
    """One thread's padded buffers, and the place among all channels and all elements of the batch that it is at."""

    def __init__(self, whole: Blocks) -> None:
        self.whole = whole
        self.place = (slice(0), slice(0))
        self._signals = torch.zeros(whole.signals, dtype=whole.dtype, device=whole.device)
        self._spectra: list[Any] = [None] * len(self._signals)
        self._kernels: Any = None  # their spectra
        self._of_kernels: Any = None

    def begin(self, channels: slice) -> None:
        """Make the spectra of some channels' kernels."""
        self._kernels = ac.rfft(self.whole.h[..., channels, :].to(self.whole.dtype), self.whole.n)
        self._of_kernels = None if self.whole.of_h is None else torch.zeros_like(self._kernels)

    def end(self, channels: slice) -> None:
        """Write the gradient of some channels' kernels, if it was asked for."""
        if self.whole.of_h is not None:
            found = ac.irfft(self._of_kernels, self.whole.n)
            self.whole.of_h[..., channels, :] = found[..., : self.whole.h.shape[-1]]

    def signal(self, number: int) -> Any:
        """Return the part of a buffer that the block's signal is written to."""
        return self._padded(number)[..., : self.whole.length]

    def _padded(self, number: int) -> Any:
        channels, elements = self.place
        return self._signals[number, : channels.stop - channels.start, : elements.stop - elements.start]

    def filtered(self, number: int, order: Any = ...) -> Any:
        """Return a signal's convolution with the block's kernels."""
        whole, padded = self.whole, self._padded(number)
        spectrum = self._kernels[order][:, None]
        if whole.far:
            return _filtered(padded, spectrum, whole.n)[..., : whole.length]
        self._spectra[number] = ac.rfft(padded)
        return ac.irfft(self._spectra[number] * spectrum, whole.n)[..., : whole.length]

    def pulled_back(self, number: int, gradient: int, order: Any = ..., again: bool = True) -> Any:
        """Return a signal's gradient for that of its convolution, and add to the kernels' gradient.

        ``again`` says that the signal's own spectrum is still the one that ``filtered`` made.
        """
        whole, u, g, kernels = self.whole, self._padded(number), self._padded(gradient), self._kernels[order][:, None]
        if whole.far:
            back, part = _pulled_back(u, g, kernels, whole.n)
        else:
            spectrum = self._spectra[number] if again else ac.rfft(u)
            turned = ac.rfft(g)
            part = (spectrum.conj() * turned)[:, 0] if u.shape[1] == 1 else torch.linalg.vecdot(spectrum, turned, dim=1)
            back = ac.irfft(turned.mul_(kernels.conj()), whole.n)
        self._of_kernels[order] += part
        return back[..., : whole.length]
