"""Layers that look causal and are not: what the certificate must catch, and what to try a certificate of your own on.

Each has been published, or written down, as part of a causal model. Nothing here is for use in one.

>>> import torch
>>> from adaptive_compute import nn
>>> [nn.certify_causal(leak(8, 16), (2, 16, 8)).causal for leak in nn.leaks.LEAKS]
[False, False, False]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import adaptive_compute as ac

from .layer import Layer


class MaskedBins(Layer):
    """Bins of a circular FFT multiplied by a mask: "only low frequencies pass, so nothing of the future does".

    y = irfft(m * rfft(x)), m_k = 1 for k < keep * (T/2 + 1), 0 above. In time that is a convolution with a Dirichlet
    kernel, which reaches as far to the right as to the left: y_t holds x_(t+1) with nearly the weight of x_t, and a
    mixer made so reads off the byte it should predict.

    Parameters
    ----------
    dim, max_length : int
        As for every layer; both are only checked.
    keep : float
        Share of the bins that pass.
    weight : float
        Of what the masked transform adds to x; a small one leaks as surely as a large one.
    """

    causal = False

    def __init__(self, dim: int, max_length: int | None = None, *, keep: float = 0.5, weight: float = 1.0) -> None:
        super().__init__(dim, max_length=max_length)
        self.keep, self.weight = keep, weight

    def forward(self, x: Tensor) -> Tensor:
        """Return x + weight * (x without its upper bins)."""
        spectrum = ac.rfft(self.checked(x), axis=1)
        bins = torch.arange(spectrum.shape[1], device=x.device)
        passes = (bins < self.keep * spectrum.shape[1]).to(x.dtype)
        return x + self.weight * ac.irfft(spectrum * passes[:, None], n=x.shape[1], axis=1)


class SequenceNorm(Layer):
    """Statistics taken along the sequence: "only a normalisation".

    y_t = (x_t - mean_s x_s) / std_s x_s over all positions s, for each channel. Mean and deviation are functions of the
    whole sequence, and layers above subtract what they know of the past from them.

    Parameters
    ----------
    dim, max_length : int
        As for every layer.
    eps : float
        Added to the variance.
    """

    causal = False

    def __init__(self, dim: int, max_length: int | None = None, *, eps: float = 1e-5) -> None:
        super().__init__(dim, max_length=max_length)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x with mean 0 and variance 1 along the sequence."""
        centred = self.checked(x) - x.mean(1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)


class UnpaddedConvolution(Layer):
    """A causal kernel, but a transform of T points instead of 2T: "the kernel is zero for negative lags".

    y_t = sum_j h_j x_((t - j) mod T): what should fall off the end comes in again at the start, so that y_0 holds
    h_1 x_(T-1), the end of the text.

    Parameters
    ----------
    dim, max_length : int
        As for every layer; the filter has ``max_length`` taps (64 if None).
    """

    causal = False

    def __init__(self, dim: int, max_length: int | None = None) -> None:
        super().__init__(dim, max_length=max_length)
        taps = 64 if max_length is None else max_length
        decay = torch.exp(-torch.arange(taps) / (0.3 * taps))
        self.filter = torch.nn.Parameter(torch.randn(taps, dim) * decay[:, None] / taps**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the circular convolution of x with the filter."""
        length = self.checked(x).shape[1]
        spectrum = ac.rfft(x, axis=1) * ac.rfft(self.filter[:length], n=length, axis=0)
        return ac.irfft(spectrum, n=length, axis=1)


LEAKS: tuple[Any, ...] = (MaskedBins, SequenceNorm, UnpaddedConvolution)
