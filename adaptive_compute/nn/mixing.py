"""Mixing positions by a filter: causal or two-sided in time, circular over a fixed length, or by the transform itself.

What a layer is, its type says: ``CircularMixing`` and ``FNetMixing`` are never causal, because every frequency of a
circular transform holds the whole sequence.
"""

from __future__ import annotations

import math
from typing import Any

import torch

import adaptive_compute as ac

from ..core.errors import ArgumentError, ArgumentTypeError
from .convolution import causal_convolution
from .filters import Shaped, make_filter
from .layer import Layer, one_of, whole, working_dtype
from .streaming import State, checked_state, convolve_step, initial_convolution

NORMS = ("ortho", "backward", "forward")


class SpectralMixing(Layer):
    """Convolve each channel over the positions with a learned kernel, whose spectrum is a learned complex filter.

        y[t] = sum_s h[s] x[t - s] + skip x[t],     s = 0 ... max_length - 1

    Parameters
    ----------
    dim : int
        Width.
    max_length : int
        Longest input, and length of the kernel.
    filter : {"full", "low-rank", "implicit", "multi-scale"}
        How the kernel is parametrised: value by value, as a mixture of ``rank`` common ones, by a small network of the
        position, or in bands of an octave of lags each, fine near by and coarse far away.
    causal : bool
        False: lags to both sides, of a kernel each; the layer then says ``causal = False``.
    rotary : bool
        Turn the filter's phase in proportion to the frequency, by a learned delay for each channel.
    phase : bool
        Learn magnitude and phase of the filter apart, as factors at some frequencies with straight lines between.
    glu : bool
        End with ``a(y) sigmoid(b(y))``, a and b linear: the only part that mixes channels.
    **filter_options
        For the filter's class in ``nn.filters``, for example ``rank=8``.

    Raises
    ------
    ArgumentError
        If an argument is not accepted; the message names it.

    Notes
    -----
    Zeros to at least twice the length keep a circular transform from wrapping the end around to the start, and a
    kernel that is zero for negative lags keeps the future out; masking bins of a circular transform does neither.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer = nn.SpectralMixing(8, max_length=100, filter="low-rank", rank=4, glu=True)
    >>> layer(torch.randn(2, 60, 8)).shape, layer.causal
    (torch.Size([2, 60, 8]), True)
    >>> nn.SpectralMixing(8, max_length=100, causal=False).causal
    False
    """

    causal = True

    def __init__(
        self, dim: int, *, max_length: int, filter: str = "full", causal: bool = True, rotary: bool = False,
        phase: bool = False, glu: bool = False, **filter_options: Any,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        for name, value in (("causal", causal), ("rotary", rotary), ("phase", phase), ("glu", glu)):
            if not isinstance(value, bool):
                raise ArgumentTypeError(f"{name} must be True or False, got {value!r}")
        if not causal:
            self.causal = False  # type: ignore[misc]
        channels = dim if causal else 2 * dim
        self.filter = make_filter(filter, channels, max_length, **filter_options)
        if rotary or phase:
            self.filter = Shaped(self.filter, channels, max_length, rotary, phase)
        self.skip = torch.nn.Parameter(torch.ones(dim))
        self.gate = torch.nn.Linear(dim, 2 * dim) if glu else None

    def forward(self, x: Any) -> Any:
        """Return (batch, length, dim) for (batch, length, dim)."""
        self.checked(x)
        u, h = x.transpose(1, 2), self.kernels()
        y = causal_convolution(u, h[: self.dim])
        if not self.causal:  # lag 0 belongs to the first kernel
            later = torch.nn.functional.pad(h[self.dim :, 1:], (1, 0))
            y = y + causal_convolution(u.flip(2), later).flip(2)
        return self._gated(y.transpose(1, 2))

    def kernels(self) -> Any:
        """Return the kernels (dim, max_length) with the skip connection in their first values.

        Two-sided layers have 2 dim: those that reach back, then those that reach ahead (whose first values are unused).
        """
        with torch.autocast(self.skip.device.type, enabled=False):
            h = self.filter.kernel()
            skip = torch.nn.functional.pad(self.skip, (0, len(h) - self.dim))
            return torch.cat([h[:, :1] + skip[:, None], h[:, 1:]], 1)

    def _gated(self, y: Any) -> Any:
        return y if self.gate is None else torch.nn.functional.glu(self.gate(y), -1)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initial_state(self, batch: int = 1) -> State:
        """Return the state of ``batch`` streams that have seen nothing, for the parameters as they are now."""
        if not self.causal:
            raise ArgumentError("causal=False: a layer that looks ahead cannot stream")
        return initial_convolution(self.kernels(), whole(batch, "batch", 0))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, chunk: Any, state: State) -> tuple[Any, State]:
        """Return the outputs of the next positions (batch, positions, dim), and the state, changed in place.

        A stream may go on beyond ``max_length``; no gradients flow.
        """
        self.checked(chunk, "chunk", limited=False)
        y = convolve_step(chunk.permute(2, 0, 1), checked_state(state, "past", chunk))
        return self._gated(y.permute(1, 2, 0)), state


class CircularMixing(Layer):
    """Multiply the spectrum over ``max_length`` positions with a learned complex filter: not causal, and wraps around.

        y = irfft(weight rfft(x, max_length), max_length)[:length]

    Parameters
    ----------
    dim : int
        Width.
    max_length : int
        Period; shorter inputs are continued with zeros.
    rank : int, optional
        The filter is a mixture of so many common ones. Default: every value is a parameter.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer = nn.CircularMixing(8, max_length=100)
    >>> layer(torch.randn(2, 60, 8)).shape, layer.causal
    (torch.Size([2, 60, 8]), False)
    """

    causal = False

    def __init__(self, dim: int, *, max_length: int, rank: int | None = None) -> None:
        super().__init__(dim, max_length=max_length)
        rows = dim if rank is None else whole(rank, "rank")
        # As real pairs, so that ``layer.to(dtype)`` and optimisers treat them like any parameter.
        weight = torch.randn(rows, max_length // 2 + 1, 2) * 0.02
        weight[..., 0] += 1
        self.weight = torch.nn.Parameter(weight)
        self.shares = None if rank is None else torch.nn.Parameter(torch.randn(dim, rows) / math.sqrt(rows))

    def forward(self, x: Any) -> Any:
        """Return (batch, length, dim) for (batch, length, dim)."""
        self.checked(x)
        dtype = working_dtype(x.dtype)
        weight = self.weight.to(dtype)
        if self.shares is not None:
            weight = torch.einsum("cr,rkp->ckp", self.shares.to(dtype), weight)
        if x.numel() == 0:
            return x * self.weight.sum()
        spectrum = ac.rfft(x.to(dtype).transpose(1, 2), self.max_length) * torch.view_as_complex(weight.contiguous())
        return ac.irfft(spectrum, self.max_length)[..., : x.shape[1]].transpose(1, 2).to(x.dtype)


class FNetMixing(Layer):
    """The real part of the Fourier transform over positions and channels [1]_: no parameters, not causal.

    Parameters
    ----------
    dim : int
        Width.
    norm : {"ortho", "backward", "forward"}
        "ortho" keeps the variance; "backward" does not scale, as in the paper.

    References
    ----------
    .. [1] J. Lee-Thorp et al., "FNet: Mixing Tokens with Fourier Transforms", 2021, arXiv:2105.03824

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> nn.FNetMixing(2, norm="backward")(torch.tensor([[[1.0, 2], [3, 4]]])).tolist()
    [[[10.0, -2.0], [-4.0, 0.0]]]
    """

    causal = False

    def __init__(self, dim: int, *, norm: str = "ortho") -> None:
        super().__init__(dim)
        self.norm = one_of(norm, "norm", NORMS)

    def forward(self, x: Any) -> Any:
        """Return (batch, length, dim) for (batch, length, dim)."""
        self.checked(x)
        if x.numel() == 0:
            return x.clone()
        return ac.fft2(x.to(working_dtype(x.dtype)), axes=(1, 2), norm=self.norm).real.to(x.dtype)
