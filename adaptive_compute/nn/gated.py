"""The gated convolution: projections, a short convolution, and long ones between gates; causal."""

from __future__ import annotations

from typing import Any

import torch

from ..core.errors import ArgumentError
from .convolution import _is_transformed, gated_convolution, with_skip
from .filters import make_filter
from .layer import Layer, whole
from .streaming import State, checked_state, convolve_step, initial_convolution, initial_shift, shift_step


class GatedConvolution(Layer):
    """A causal mixer in place of attention: ``out(x_0 (h * (x_1 v)))``, in O(length log length) [1]_.

    ``x_0, x_1, v`` are projections of the input, each after a short depthwise convolution; ``h`` is a long kernel for
    each channel, ``skip`` times its input added. With ``order`` n there are n gates and n - 1 long kernels.

    Parameters
    ----------
    dim : int
        Width of input and output.
    max_length : int
        Longest input, and how far back a kernel reaches.
    order : int
        Number of gates, at least 2.
    taps : int
        Length of the short convolutions.
    filter : {"implicit", "full", "low-rank", "multi-scale"}
        How the long kernels are parametrised; see ``nn.filters``.
    bias : bool
        Whether projections have biases.
    **filter_options
        For the filter's class: ``width``, ``shortest``, ``longest`` and so on.

    Raises
    ------
    ArgumentError
        If an argument is out of range; the message names it.

    Notes
    -----
    Forward and backward keep the projections alone and compute everything after them again, a block of channels at a
    time (``nn.gated_convolution``); on CUDA one kernel each does so. ``step`` streams.

    References
    ----------
    .. [1] M. Poli et al., "Hyena Hierarchy: Towards Larger Convolutional Language Models", 2023, arXiv:2302.10866

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer, x = nn.GatedConvolution(8, max_length=100), torch.randn(2, 100, 8)
    >>> y = layer(x)
    >>> state = layer.initial_state(batch=2)
    >>> first, state = layer.step(x[:, :60], state)
    >>> then, state = layer.step(x[:, 60:], state)
    >>> torch.allclose(torch.cat([first, then], 1), y, atol=1e-5)
    True
    """

    causal = True

    def __init__(
        self, dim: int, *, max_length: int, order: int = 2, taps: int = 3, filter: str = "implicit",
        bias: bool = False, **filter_options: Any,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        self.order, taps = whole(order, "order", 2), whole(taps, "taps")
        if taps > max_length:
            raise ArgumentError(f"taps must be at most max_length={max_length}, got {taps}")
        self.project = torch.nn.Linear(dim, (order + 1) * dim, bias=bias)
        self.out = torch.nn.Linear(dim, dim, bias=bias)
        self.short = torch.nn.Parameter(torch.empty((order + 1) * dim, taps).uniform_(-1, 1) * taps**-0.5)
        self.filter = make_filter(filter, (order - 1) * dim, max_length, **filter_options)
        self.skip = torch.nn.Parameter(torch.ones(order - 1, dim))

    def forward(self, x: Any) -> Any:
        """Return (batch, length, dim) for (batch, length, dim)."""
        self.checked(x)
        _, length, dim = x.shape
        h = self._filters()
        if x.is_cuda and self.project.bias is None and not _is_transformed(x):
            from .kernels.gated_layer import fused_layer, supports

            if supports(x, self.short, h):
                return fused_layer(x, self.project.weight, self.short, h, self.skip, self.out.weight)
        h = h if length == h.shape[2] else h[..., :length]
        y = gated_convolution(self._streams(x), self.short, h, self.skip)
        return torch.nn.functional.linear(y.reshape(dim, -1).T, self.out.weight, self.out.bias).reshape(x.shape)

    def kernels(self) -> Any:
        """Return the long kernels (order - 1, dim, max_length), the skip connections in their first values."""
        return with_skip(self._filters(), self.skip)

    def _filters(self) -> Any:
        with torch.autocast(self.skip.device.type, enabled=False):
            return self.filter.kernel().reshape(self.order - 1, self.dim, -1)

    def _streams(self, x: Any) -> Any:
        """Return the projections ((order + 1) dim, batch, length): one matrix product that writes them transposed."""
        z = self.project.weight @ x.reshape(-1, self.dim).T
        z = z if self.project.bias is None else z + self.project.bias[:, None].to(z.dtype)
        return z.reshape(len(z), *x.shape[:2])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initial_state(self, batch: int = 1) -> State:
        """Return the state of ``batch`` streams that have seen nothing: a dict of tensors, kernels included.

        It is made for the parameters as they are; make a new one after training.
        """
        whole(batch, "batch", 0)
        state = initial_shift(len(self.short), self.short.shape[1], batch, self.short)
        for i, h in enumerate(self.kernels()):
            state |= initial_convolution(h, batch, f"{i}.")
        return state

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, chunk: Any, state: State) -> tuple[Any, State]:
        """Return the outputs of the next positions, and the state after them.

        Parameters
        ----------
        chunk : Tensor
            (batch, positions, dim), any number of positions. A stream may go on beyond ``max_length``: the kernels
            then reach back that far.
        state : dict
            From ``initial_state`` or the step before; it is changed in place (``clone`` its tensors to branch off).

        Returns
        -------
        out : Tensor
            Like ``chunk``; no gradients flow.
        state : dict
            The same dict.
        """
        self.checked(chunk, "chunk", limited=False)
        checked_state(state, "0.past", chunk)
        mixed = shift_step(self._streams(chunk), self.short, state)
        *gates, v = mixed.reshape(self.order + 1, self.dim, *chunk.shape[:2])
        for i in reversed(range(self.order - 1)):
            v = convolve_step(gates[i + 1] * v, state, f"{i}.")
        y = (gates[0] * v).reshape(self.dim, -1).to(chunk.dtype)
        return torch.nn.functional.linear(y.T, self.out.weight, self.out.bias).reshape(chunk.shape), state
