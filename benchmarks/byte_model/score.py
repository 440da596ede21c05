"""Bits per byte of a text, and whether a score that saw the whole text is what the prefix alone would have given.

The rule, the same for every model: a window of ``length`` bytes moves on by ``stride``; in each, the model says how
likely every byte is after those before it, and the bytes that no window before has scored are scored. So each byte of
the text is scored once, with at least ``length - stride`` bytes before it where the text has so many. The first is
scored after a line end. The score is the mean of -log2 p over all bytes: the text's joint probability by the chain
rule, divided by its length, which is honest only if each factor rests on the prefix alone; ``prefix_only`` asks that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BEFORE_THE_FIRST = 10  # a line end


@torch.no_grad()
def bits_per_byte(model: nn.Module, text: Tensor, *, length: int = 1024, stride: int = 512, batch: int = 64) -> float:
    """Return the mean of -log2 p(byte | bytes before it) over a text."""
    model.eval()
    device = next(model.parameters()).device
    text = text.to(device)
    inputs = torch.cat([text.new_tensor([BEFORE_THE_FIRST]), text[:-1]])
    begin = list(range(0, max(1, len(text) - length + stride), stride))
    total = 0.0
    for first in range(0, len(begin), batch):
        windows = begin[first : first + batch]
        whole = [at for at in windows if at + length <= len(text)]
        groups = [whole] * bool(whole) + [[at] for at in windows if at + length > len(text)]
        for group in groups:
            place = torch.tensor(group, device=device)[:, None] + torch.arange(min(length, len(text)), device=device)
            place = place[:, : len(text) - group[-1]]
            lost = losses(model, inputs[place], text[place])
            for row, at in enumerate(group):
                total += float(lost[row, 0 if at == 0 else length - stride :].double().sum())
    return total / len(text) / math.log(2)


def losses(model: nn.Module, inputs: Tensor, following: Tensor) -> Tensor:
    """Return -log p of each following byte in nats: (batch, length)."""
    scores = model(inputs).float()
    return torch.nn.functional.cross_entropy(scores.transpose(1, 2), following.long(), reduction="none")


@torch.no_grad()
def prefix_only(model: nn.Module, text: Tensor, *, length: int = 1024, count: int = 64, seed: int = 0) -> dict:
    """Compare scores of a window seen whole with scores where the model was given nothing but the prefix.

    Returns the mean bits per byte either way over ``count`` bytes, and the largest difference in bits.
    """
    model.eval()
    device = next(model.parameters()).device
    text = text[: length + 1].to(device)
    inputs, following = text[None, :-1], text[None, 1:]
    whole = losses(model, inputs, following)[0]
    random = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(inputs.shape[1], generator=random)[:count].tolist()
    alone = torch.stack([losses(model, inputs[:, : t + 1], following[:, : t + 1])[0, -1] for t in chosen])
    together = whole[torch.tensor(chosen, device=device)]
    bits = math.log(2)
    return {
        "bytes": len(chosen),
        "whole": float(together.mean()) / bits,
        "prefix_only": float(alone.mean()) / bits,
        "largest_difference": float((alone - together).abs().max()) / bits,
    }
