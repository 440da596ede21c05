"""The two models: blocks of a mixer and a feed-forward part, alike but for the mixer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptive_compute import nn as spectral

VALUES = 256


class Attention(nn.Module):
    """Causal self-attention with rotary positions, by torch's fused kernel."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        rate = 10000.0 ** -torch.linspace(0, 1, dim // heads // 2 + 1)[:-1]
        self.register_buffer("rate", rate, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        q, k, v = self.project(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        turn = torch.arange(length, device=x.device, dtype=self.rate.dtype)[:, None] * self.rate
        cos, sin = turn.cos().to(q.dtype), turn.sin().to(q.dtype)
        mixed = functional.scaled_dot_product_attention(rotated(q, cos, sin), rotated(k, cos, sin), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, dim))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return pairs of channels turned by their position's angles."""
    one, other = x.chunk(2, -1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


class Norm(nn.RMSNorm):
    """Each position divided by its size; narrow where autocast would make it so in the next step."""

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        normed = super().forward(x)
        return normed.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else normed


class Join(nn.Module):
    """x + dropout(y)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + self.dropout(y)


class Mix(nn.Module):
    """x + mixer(norm(x))."""

    def __init__(self, dim: int, mixer: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm, self.mixer, self.join = Norm(dim, eps=1e-6), mixer, Join(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.mixer(self.norm(x)))


class Feed(nn.Module):
    """x + down(gelu(up(norm(x)))): each position by itself."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.join = Norm(dim, eps=1e-6), Join(dropout)
        self.up, self.down = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.down(functional.gelu(self.up(self.norm(x)), approximate="tanh")))


class Loss(nn.Module):
    """Mean of -log p of the next bytes, in nats."""

    def forward(self, scores: Tensor, following: Tensor) -> Tensor:
        return functional.cross_entropy(scores.flatten(0, 1).float(), following.flatten().long())


class ByteModel(nn.Module):
    """Bytes in, scores of the next byte out: (batch, length) -> (batch, length, 256)."""

    def __init__(self, mixers: list[nn.Module], dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(VALUES, dim), nn.Dropout(dropout)
        self.blocks = nn.ModuleList()
        for mixer in mixers:
            self.blocks += [Mix(dim, mixer, dropout), Feed(dim, hidden, dropout)]
        self.norm, self.out = Norm(dim, eps=1e-6), nn.Linear(dim, VALUES, bias=False)
        self._initialise(mixers)

    def _initialise(self, mixers: list[nn.Module]) -> None:
        """Normal weights of 0.02; what ends in the sum of all blocks smaller, so that the sum begins at a size of one.

        A spectral layer stays as it makes itself, but for its last matrix.
        """
        known = {id(part) for mixer in mixers if not isinstance(mixer, Attention) for part in mixer.modules()}
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding) and id(part) not in known:
                nn.init.normal_(part.weight, std=0.02)
        for block in self.blocks:
            last = block.down if isinstance(block, Feed) else block.mixer.out
            nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * len(mixers)))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.embedding(tokens.int()))
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x))


def made(
    kind: str, *, dim: int = 256, layers: int = 6, length: int = 1024, heads: int = 4, hidden: int = 0,
    dropout: float = 0.0, seed: int = 0, options: dict | None = None,
) -> ByteModel:  # fmt: skip
    """Return a model by its name, "spectral" or "transformer", from fixed random numbers.

    Without ``hidden`` the feed-forward parts are four times as wide as the model, and a Transformer's so much wider
    that both have equally many parameters, to within one of 16 rows.
    """
    torch.manual_seed(seed)
    if kind == "spectral":
        mixers = [spectral.GatedConvolution(dim, max_length=length, **(options or {})) for _ in range(layers)]
    elif kind == "transformer":
        mixers = [Attention(dim, heads, **(options or {})) for _ in range(layers)]
    else:
        raise SystemExit(f"--model {kind}: spectral or transformer")
    if not hidden:
        hidden = 4 * dim
        if kind == "transformer":
            with torch.random.fork_rng():
                other = spectral.GatedConvolution(dim, max_length=length)
            more = sum(p.numel() for p in other.parameters()) - sum(p.numel() for p in mixers[0].parameters())
            hidden += max(0, round(more / (2 * dim) / 16) * 16)
    return ByteModel(mixers, dim, hidden, dropout)
