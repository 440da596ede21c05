"""What layers of softmax attention share: projections to queries, keys and values of several heads, and back."""

from __future__ import annotations

from typing import Any

import torch

from ..core.errors import ArgumentError
from .layer import Layer, whole


class Headed(Layer):
    """Projections around attention of several heads; what happens between them is the subclass's.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    heads : int
        Number of heads; divides ``dim``.
    max_length : int, optional
        Longest length that is accepted.
    device, dtype
        As for torch's layers.

    Attributes
    ----------
    project : torch.nn.Linear
        To queries, keys and values, one after the other.
    out : torch.nn.Linear
    """

    causal = False

    def __init__(
        self, dim: int, heads: int = 4, *, max_length: int | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(dim, max_length=max_length)
        self.heads = whole(heads, "heads")
        if dim % self.heads:
            raise ArgumentError(f"heads must divide dim={dim}, got {heads}")
        self.project = torch.nn.Linear(dim, 3 * dim, bias=False, device=device, dtype=dtype)
        self.out = torch.nn.Linear(dim, dim, bias=False, device=device, dtype=dtype)

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return queries, keys and values: (batch, heads, length, dim / heads) each."""
        q, k, v = self.project(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def join(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the output for what the heads found: (batch, length, dim)."""
        return self.out(heads.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{super().extra_repr()}, heads={self.heads}"
