"""Attention whose weights are a learned kernel of learned positions, so that it costs O(N log N) and less."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core.errors import ArgumentError
from .layer import Layer, one_of, whole, working_dtype
from .spectral_kernel import CHUNK, spectral_kernel_attention, spectrum_of


class SpectralAttention(Layer):
    r"""Attention by a band-limited kernel on a circle: queries and keys are angles, compared by NUFFT.

    For each head, with angles that are linear in the input and turn with the position at a learned rate r,

        a_i = w_q . x_i + r i,    b_j = w_k . x_j + r j

        y_i = sum_j K(a_i - b_j) v_j / sum_j K(a_i - b_j),    K(t) = floor + |sum_{k=0..F} g_k e^{ikt}|^2 / |g|^2

    It is exactly this, up to the rounding of its transforms; it is no approximation of softmax attention. In softmax's
    place stands a kernel that is never below ``floor``, whose F + 1 complex coefficients g are learned, and that tells
    angles apart which differ by about 2 pi / F. Values are spread to the modes -F..F at the angles b, multiplied by the
    kernel's spectrum (the autocorrelation of g) and gathered at the angles a. This form sees every position;
    `CausalSpectralAttention` sums over j <= i.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    heads : int
        Number of heads; divides ``dim``.
    modes : int
        F, the finest frequency of the kernel.
    floor : float
        Least value of the kernel, whose mean is ``1 + floor``: it keeps the normaliser positive, and what a query gets
        that no key is near to. Much smaller ones make rounding seen.
    method : {"nufft", "direct"}, optional
        Nonuniform FFTs, O(N + F log F), or products with the matrix e^{ikb}, O(N F). The results agree within rounding.
        By default products up to 64 modes (on CUDA 512) and NUFFTs above.
    max_length : int, optional
        Longest length that is accepted.
    device, dtype
        As for torch's layers. Angles are computed in float64; in half precisions, kernel and sums in float32.

    Attributes
    ----------
    angles : Parameter, (2, heads, dim)
        w_q and w_k.
    rate : Parameter, (heads,)
        r, in radians a position: at first zero in half of the heads, and from a turn in 16 positions to one in 4096.
    kernel : Parameter, (heads, modes + 1, 2)
        Real and imaginary parts of g.
    value, out : torch.nn.Linear

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer = nn.SpectralAttention(32, heads=4, modes=16)
    >>> layer(torch.randn(2, 1001, 32)).shape
    torch.Size([2, 1001, 32])
    """

    causal = False
    chunk = CHUNK

    def __init__(
        self, dim: int, heads: int = 4, modes: int = 32, *, floor: float = 0.01, method: str | None = None,
        max_length: int | None = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        self.heads, self.modes = whole(heads, "heads"), whole(modes, "modes")
        if dim % self.heads:
            raise ArgumentError(f"heads must divide dim={dim}, got {heads}")
        if not 0 < floor < math.inf:
            raise ArgumentError(f"floor must be a positive number, got {floor!r}")
        self.floor = float(floor)
        self.method = None if method is None else one_of(method, "method", ("nufft", "direct"))
        where = {"device": device, "dtype": dtype}
        self.angles = torch.nn.Parameter(torch.empty(2, self.heads, dim, **where))
        self.rate = torch.nn.Parameter(torch.empty(self.heads, **where))
        self.kernel = torch.nn.Parameter(torch.empty(self.heads, self.modes + 1, 2, **where))
        self.value = torch.nn.Linear(dim, dim, bias=False, **where)
        self.out = torch.nn.Linear(dim, dim, bias=False, **where)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew: angles of about one radian, a smooth kernel, rates on a logarithmic scale.

        Queries and keys start with the same angles, so that at first like finds like; half of the heads start without
        turning, and compare contents alone. Started otherwise, recall of an earlier pair is learned far later.
        """
        torch.nn.init.normal_(self.angles[0], std=1 / math.sqrt(self.dim))
        self.value.reset_parameters()
        self.out.reset_parameters()
        with torch.no_grad():
            self.angles[1] = self.angles[0]
            periods = torch.logspace(4, 12, self.heads // 2, base=2.0, dtype=torch.float64)
            self.rate.zero_()
            self.rate[self.heads - len(periods) :] = 2 * math.pi / periods
            decay = torch.exp(-2 * (torch.arange(self.modes + 1, dtype=torch.float64) / (self.modes + 1)) ** 2)
            self.kernel.copy_(torch.stack([decay, torch.zeros_like(decay)], -1).expand_as(self.kernel))

    def positions(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the angles a and b, (batch, heads, length) each: in float64, because errors count ``modes``-fold."""
        turned = torch.arange(x.shape[1], device=x.device, dtype=torch.float64) * self.rate.double()[:, None]
        with torch.autocast(x.device.type, enabled=False):
            content = torch.einsum("btd,shd->sbht", x.double(), self.angles.double())
        return content[0] + turned, content[1] + turned

    def spectrum(self, dtype: Any = torch.float32) -> torch.Tensor:
        """Return the modes 0..F of each head's kernel: (heads, modes + 1), complex."""
        return spectrum_of(torch.view_as_complex(self.kernel.to(dtype)), self.floor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        x : Tensor
            (batch, length, dim); any length, an empty batch too.

        Returns
        -------
        Tensor
            Of the same shape and dtype (under ``torch.autocast``, of its dtype).
        """
        self.checked(x)
        batch = x.shape[0]
        work = working_dtype(x.dtype)
        values = self.value(x)
        with torch.autocast(x.device.type, enabled=False):
            a, b = self.positions(x)
            split = values.to(work).unflatten(2, (self.heads, -1)).transpose(1, 2)
            spectrum = self.spectrum(work).expand(batch, -1, -1)
            found = spectral_kernel_attention(
                *(z.flatten(0, 1) for z in (a, b, split, spectrum)),
                causal=self.causal, chunk=self.chunk, method=self.method,
            )  # fmt: skip
            found = found.unflatten(0, (batch, self.heads)).transpose(1, 2).flatten(2)
        return self.out(found.to(values.dtype))

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{super().extra_repr()}, heads={self.heads}, modes={self.modes}, method={self.method}"


class CausalSpectralAttention(SpectralAttention):
    """`SpectralAttention` whose sums are over j <= i: O(N F), exact, and not one bit of the future.

    The length is cut into chunks of 64. A query takes the modes of all earlier chunks, a running sum, and within its
    own chunk the kernel itself under a triangular mask. With ``method="nufft"`` the chunks' modes are spread and
    gathered by NUFFT, one for each chunk and head: worth it for many modes only, so that products are the default
    whatever the number of modes.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer, x = nn.CausalSpectralAttention(8, heads=2), torch.randn(1, 100, 8)
    >>> torch.allclose(layer(x)[:, :70], layer(x[:, :70]), atol=1e-5)
    True
    """

    causal = True
