"""Layers among frequency bins: attention, activation, normalisation, and a transformer layer made of them.

They take spectra (batch, bins, dim), complex, as `spectrum` makes them; `signal` goes back. Whatever passes a transform
over the whole sequence sees the whole sequence: none of this is causal, except in what works bin by bin, which would be
causal over positions as well.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import attention, irfft, rfft
from ..core.errors import ArgumentError, DtypeError, ShapeError
from .complex import ComplexLinear, as_complex, wide_only
from .layer import Layer, check_sequence, whole, working_dtype


def spectrum(x: torch.Tensor) -> torch.Tensor:
    """Return the spectrum along the sequence: (batch, length // 2 + 1, dim), complex, scaled to keep the energy.

    Parameters
    ----------
    x : Tensor
        (batch, length, dim), real. Half precision is computed in float32.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute.nn import signal, spectrum
    >>> x = torch.randn(2, 7, 3)
    >>> torch.allclose(signal(spectrum(x), 7), x, atol=1e-6)
    True
    """
    check_sequence(x, "x")
    if x.shape[0] == 0:  # which cuFFT refuses
        return x[:, : x.shape[1] // 2 + 1].to(working_dtype(x.dtype)) * (1 + 0j)
    return rfft(x.to(working_dtype(x.dtype)), axis=1, norm="ortho")


def signal(z: torch.Tensor, length: int) -> torch.Tensor:
    """Return the sequence of a spectrum: (batch, length, dim), real.

    Parameters
    ----------
    z : Tensor
        (batch, bins, dim), complex: the lowest bins of ``length // 2 + 1``, those beyond being zero. Imaginary parts at
        frequency zero, and at half the sampling rate for an even length, have no counterpart and are dropped.
    length : int
        Number of positions; cannot be told from the bins, because an odd one has as many as the even one below.
    """
    check_sequence(z, "z", complex_inputs=True)
    whole(length, "length")
    if not z.is_complex():
        raise DtypeError(f"z has dtype {z.dtype}; a spectrum is complex")
    if z.shape[1] > length // 2 + 1:
        raise ShapeError(f"z has {z.shape[1]} bins; a sequence of length {length} has {length // 2 + 1}")
    if z.shape[0] == 0:
        return torch.nn.functional.pad(z.real, (0, 0, 0, length - z.shape[1]))
    return irfft(z, n=length, axis=1, norm="ortho")


class FrequencyReLU(Layer):
    """Rectify the magnitude and keep the phase: ``relu(|z| + b) z / |z|``, and 0 at 0 (modReLU [1]_).

    Parameters
    ----------
    dim : int
        Width of inputs and outputs, each component with its own b.
    bias : float
        b at first. Below zero it is a threshold: what is smaller becomes zero.
    max_length, device, dtype
        As for `ComplexLinear`.

    References
    ----------
    .. [1] M. Arjovsky, A. Shah, Y. Bengio, "Unitary Evolution Recurrent Neural Networks", ICML 2016.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> nn.FrequencyReLU(2, bias=-1.0)(torch.tensor([[[3j, 0.5]]])).tolist()
    [[[2j, 0j]]]
    """

    causal = True
    complex_inputs = True

    def __init__(
        self, dim: int, bias: float = -0.1, *, max_length: int | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(dim, max_length=max_length)
        self.bias = torch.nn.Parameter(torch.full((self.dim,), float(bias), device=device, dtype=wide_only(dtype)))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return (batch, bins, dim), complex."""
        z = as_complex(self, z)
        # z / |z| by sgn, whose gradient at zero is zero and not NaN.
        return torch.relu(z.abs() + self.bias) * torch.sgn(z)


class FrequencyLayerNorm(Layer):
    """Layer normalisation of complex vectors by the magnitude of their deviations, over features alone.

    ``gain * (z - mean(z)) / sqrt(mean(|z - mean(z)|^2) + eps)``, the means taken over the last axis. Statistics along
    the sequence would let a position see later ones. There is no bias, so that turning a vector's phase turns the
    result's: ``f(e^{ia} z) = e^{ia} f(z)``.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    eps : float
        Added to the mean of squares.
    max_length, device, dtype
        As for `ComplexLinear`.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> z = nn.FrequencyLayerNorm(64)(torch.randn(1, 5, 64, dtype=torch.complex64))
    >>> z.abs().square().mean(-1).round(decimals=3).tolist()
    [[1.0, 1.0, 1.0, 1.0, 1.0]]
    """

    causal = True
    complex_inputs = True

    def __init__(
        self, dim: int, eps: float = 1e-5, *, max_length: int | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(dim, max_length=max_length)
        if not eps > 0:
            raise ArgumentError(f"eps must be positive, got {eps!r}")
        self.eps = float(eps)
        self.gain = torch.nn.Parameter(torch.ones(self.dim, device=device, dtype=wide_only(dtype)))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return (batch, bins, dim), complex."""
        z = as_complex(self, z)
        z = z - z.mean(-1, keepdim=True)
        power = torch.view_as_real(z).square().sum(-1).mean(-1, keepdim=True)
        return z * (self.gain * torch.rsqrt(power + self.eps))


class SpectrumAttention(Layer):
    """Softmax attention of bins to bins, complex throughout: scores are real parts of inner products.

    ``y_f = W_o sum_g softmax_g(Re(q_f . k_g*) / sqrt(d)) v_g`` for each head, with complex projections q, k, v of width
    d = dim / heads. O(bins^2).

    Parameters
    ----------
    dim : int
        Width of inputs and outputs, complex.
    heads : int
        Number of heads; divides ``dim``.
    max_length, device, dtype
        As for `ComplexLinear`; ``max_length`` counts bins.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> nn.SpectrumAttention(8, heads=2)(torch.randn(1, 33, 8, dtype=torch.complex64)).shape
    torch.Size([1, 33, 8])
    """

    causal = False
    complex_inputs = True

    def __init__(
        self, dim: int, heads: int = 4, *, max_length: int | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(dim, max_length=max_length)
        self.heads = whole(heads, "heads")
        if dim % self.heads:
            raise ArgumentError(f"heads must divide dim={dim}, got {heads}")
        self.project = ComplexLinear(dim, 3 * dim, bias=False, device=device, dtype=dtype)
        self.out = ComplexLinear(dim, bias=False, device=device, dtype=dtype)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return (batch, bins, dim), complex."""
        z = as_complex(self, z)
        parts = torch.view_as_real(self.project(z)).unflatten(2, (3, self.heads, -1))
        # Re(q . k*) is the inner product of the parts side by side, and parts are averaged as they are.
        q, k, v = parts.permute(2, 0, 3, 1, 4, 5).flatten(-2)
        with torch.autocast(z.device.type, enabled=False):  # there are no complex numbers of its precisions
            found = attention(q, k, v, scale=(self.heads / self.dim) ** 0.5)
        joined = found.unflatten(-1, (-1, 2)).transpose(1, 2).flatten(2, 3)
        return self.out(torch.view_as_complex(joined.contiguous()))


class FrequencyAttention(Layer):
    """Attention among the frequency bins of a sequence: `SpectrumAttention` between a transform and its inverse.

    Every output sees the whole sequence: not causal, and no mask could make it so.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    heads : int
        Number of heads; divides ``dim``.
    bins : int, optional
        Let the lowest so many bins attend to each other, and the output have no others: O(N log N + bins^2). By default
        all of them, which is O(N^2).
    max_length : int, optional
        Longest length that is accepted.
    device, dtype
        dtype of the real parameters: float32 or float64. Inputs in half precision are refused.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> nn.FrequencyAttention(8, heads=2, bins=16)(torch.randn(2, 101, 8)).shape
    torch.Size([2, 101, 8])
    """

    causal = False

    def __init__(
        self, dim: int, heads: int = 4, *, bins: int | None = None, max_length: int | None = None,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        self.bins = None if bins is None else whole(bins, "bins")
        self.among_bins = SpectrumAttention(dim, heads, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, length, dim), real, of ``x``'s dtype."""
        self.checked(x)
        z = spectrum(x)[:, : self.bins]
        return signal(self.among_bins(z), x.shape[1]).to(x.dtype)


class FrequencyTransformerLayer(Layer):
    """A transformer layer that never leaves the frequency domain: spectrum in, spectrum out.

        z = z + attention(norm(z)),    z = z + W_2 relu(W_1 norm(z))

    of `SpectrumAttention`, `FrequencyLayerNorm`, `ComplexLinear` and `FrequencyReLU`. Layers are stacked between one
    `spectrum` and one `signal`.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs, complex.
    heads : int
        Number of heads; divides ``dim``.
    hidden : int, optional
        Width between W_1 and W_2; by default 4 dim.
    max_length, device, dtype
        As for `ComplexLinear`; ``max_length`` counts bins.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layers = torch.nn.Sequential(nn.FrequencyTransformerLayer(8, 2), nn.FrequencyTransformerLayer(8, 2))
    >>> nn.signal(layers(nn.spectrum(torch.randn(2, 31, 8))), 31).shape
    torch.Size([2, 31, 8])
    """

    causal = False
    complex_inputs = True

    def __init__(
        self, dim: int, heads: int = 4, hidden: int | None = None, *, max_length: int | None = None,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        hidden = 4 * dim if hidden is None else whole(hidden, "hidden")
        where = {"device": device, "dtype": dtype}
        self.before_attention = FrequencyLayerNorm(dim, **where)
        self.among_bins = SpectrumAttention(dim, heads, **where)
        self.before_mlp = FrequencyLayerNorm(dim, **where)
        self.widen = ComplexLinear(dim, hidden, **where)
        self.rectify = FrequencyReLU(hidden, **where)
        self.narrow = ComplexLinear(hidden, dim, **where)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return (batch, bins, dim), complex."""
        z = as_complex(self, z)
        z = z + self.among_bins(self.before_attention(z))
        return z + self.narrow(self.rectify(self.widen(self.before_mlp(z))))
