"""Convolution by FFT, a block of channels at a time: what the forward and backward passes of ``convolution`` share.

A block on the processor is small enough for its cache, and torch's own transform computes it in place there; where the
router sends the whole elsewhere (Vulkan), a block is large and goes as one pipeline, so that it crosses the link once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

import adaptive_compute as ac

from .layer import working_dtype

# Bytes of one block's padded signal. On a processor a block should stay in its cache; elsewhere fewer calls count.
CACHED_BLOCK, LARGE_BLOCK = 1 << 20, 1 << 28


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


class Blocks:
    """The kernels' spectra, and padded buffers for one block, made once for all blocks of a call.

    Parameters
    ----------
    u : Tensor
        (..., dim, batch, length): what the signals are shaped like.
    h : Tensor
        (..., dim, taps).
    buffers : int
        How many padded signals of a block are needed side by side.
    """

    def __init__(self, u: Any, h: Any, buffers: int) -> None:
        self.dim, self.batch, self.length = u.shape[-3:]
        self.taps, self.h_dtype = h.shape[-1], h.dtype
        self.n = fast_length(self.length + self.taps - 1)
        self.dtype = working_dtype(torch.promote_types(u.dtype, h.dtype))
        self.far = False
        self._choice: AbstractContextManager[Any] = nullcontext()
        if u.device.type == "cpu":
            self.far = self._goes_far()
            if not self.far and ac.settings.kernel is None:
                self._choice = ac.using(kernel="torch")  # in place, in cache, on the tensors themselves
        with self._choice:
            self.spectrum = ac.rfft(h.to(self.dtype), self.n)
            self._turned = self.spectrum.conj().resolve_conj()  # once, rather than for every block
        limit = CACHED_BLOCK if u.device.type == "cpu" and not self.far else LARGE_BLOCK
        rows = max(limit // (self.n * self.dtype.itemsize), 1)
        self._size = (min(max(rows // self.batch, 1), self.dim), min(rows, self.batch))
        self._signals = torch.zeros((buffers, *self._size, self.n), dtype=self.dtype, device=u.device)
        self._spectra: list[Any] = [None] * buffers
        self._place = (slice(0), slice(0))

    def _goes_far(self) -> bool:
        """Tell whether the router sends the call to another device; nothing is computed, and no memory is touched."""
        whole = torch.empty((self.dim, self.batch, self.n), dtype=self.dtype)
        kernel = torch.empty((self.dim, 1, self.n // 2 + 1), dtype=self.dtype.to_complex())
        return any(step.get("device", "cpu") != "cpu" for step in _filtered.explain(whole, kernel, self.n).steps)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Yield the places of the blocks: channels, then elements of the batch."""
        channels, elements = self._size
        with self._choice:
            for c in range(0, self.dim, channels):
                for b in range(0, self.batch, elements):
                    self._place = (slice(c, min(c + channels, self.dim)), slice(b, min(b + elements, self.batch)))
                    yield self._place

    def signal(self, number: int) -> Any:
        """Return the part of a buffer that the block's signal is written to."""
        return self._padded(number)[..., : self.length]

    def _padded(self, number: int) -> Any:
        channels, elements = self._place
        return self._signals[number, : channels.stop - channels.start, : elements.stop - elements.start]

    def filtered(self, number: int, order: Any = ...) -> Any:
        """Return a signal's convolution with the block's kernels."""
        padded, spectrum = self._padded(number), self.spectrum[order][self._place[0], None]
        if self.far:
            return _filtered(padded, spectrum, self.n)[..., : self.length]
        self._spectra[number] = ac.rfft(padded)
        return ac.irfft(self._spectra[number] * spectrum, self.n)[..., : self.length]

    def pulled_back(self, number: int, gradient: int, of_spectrum: Any, order: Any = ..., again: bool = True) -> Any:
        """Return a signal's gradient for that of its convolution, and add to the gradient of the kernels' spectra.

        ``again`` says that the signal's own spectrum is still the one that ``filtered`` made.
        """
        place, u, g = self._place[0], self._padded(number), self._padded(gradient)
        if self.far:
            back, part = _pulled_back(u, g, self.spectrum[order][place, None], self.n)
        else:
            spectrum = self._spectra[number] if again else ac.rfft(u)
            turned = ac.rfft(g)
            part = torch.linalg.vecdot(spectrum, turned, dim=1)
            back = ac.irfft(turned.mul_(self._turned[order][place, None]), self.n)
        of_spectrum[order][place] += part
        return back[..., : self.length]

    def kernel_gradient(self, of_spectrum: Any) -> Any:
        """Return the kernels' gradient from that of their spectra."""
        with self._choice:
            return ac.irfft(of_spectrum, self.n)[..., : self.taps].to(self.h_dtype)
