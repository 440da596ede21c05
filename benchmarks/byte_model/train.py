"""Training: AdamW, warm-up and cosine, clipped gradients, bfloat16 on a GPU; the same for every model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import starts
from .model import Attention, Feed, Loss, Mix

EAGER_STEPS = 3  # before a CUDA graph is recorded


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; both models have the same one unless a record says otherwise."""

    steps: int = 4000
    batch: int = 64
    length: int = 1024
    rate: float = 3e-3
    warm_up: int = 200
    last_rate: float = 0.02  # of the highest one
    decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    dropout: float = 0.1
    compiled: str = "parts"  # by torch.compile: "none"; "parts", all but a mixer of ours; "blocks"
    graph: bool = True  # a step is one CUDA graph

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * (self.last_rate + (1 - self.last_rate) * 0.5 * (1 + math.cos(math.pi * done)))


class Trainer:
    """A model, its optimiser and its data, one step at a time."""

    def __init__(self, model: nn.Module, text: Tensor, recipe: Recipe, seed: int, device: str) -> None:
        self.model, self.recipe, self.device = model.to(device).train(), recipe, device
        self.on_gpu = device.startswith("cuda")
        self.text = text.to(device)
        self.starts = starts(len(text), recipe.length, recipe.batch, recipe.steps, seed).to(device)
        self.offsets = torch.arange(recipe.length + 1, device=device)
        self.rate = torch.zeros((), device=device)
        self.optimiser = torch.optim.AdamW(
            _groups(model, recipe.decay), lr=self.rate, betas=recipe.betas, fused=True, capturable=self.on_gpu
        )
        self.piece = torch.zeros(recipe.batch, recipe.length + 1, dtype=torch.int32, device=device)
        self.loss_of = Loss()
        self.loss = torch.zeros((), device=device)
        self.recorded: torch.cuda.CUDAGraph | None = None
        if recipe.compiled != "none":
            compile_parts(model, recipe.compiled == "blocks")
            self.loss_of = torch.compile(self.loss_of)

    def forward(self) -> Tensor:
        """Return the loss of the piece at hand."""
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.on_gpu, cache_enabled=False):
            return self.loss_of(self.model(self.piece[:, :-1]), self.piece[:, 1:])

    def update(self) -> None:
        """Do what follows the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip, foreach=True)
        self.optimiser.step()

    def _whole(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.forward()
        loss.backward()
        self.update()
        self.loss.copy_(loss.detach())

    def read(self, step: int) -> None:
        """Fetch a step's bytes."""
        self.piece.copy_(self.text[self.starts[step][:, None] + self.offsets])

    def step(self, step: int) -> Tensor:
        """Train on one batch and return the loss, in nats, without waiting for it."""
        self.read(step)
        self.rate.fill_(self.recipe.rate_at(step))
        if not (self.on_gpu and self.recipe.graph):
            self._whole()
        elif self.recorded is not None:
            self.recorded.replay()
        elif step < EAGER_STEPS:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._whole()
            torch.cuda.current_stream().wait_stream(side)
        else:
            self.recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.recorded):
                self._whole()
            self.recorded.replay()
        return self.loss

    def run(self, say: Callable[[str], None], until: float = math.inf, every: int = 200) -> dict:
        """Take all steps, or those that fit before ``until`` (``time.perf_counter``), and return the curve."""
        curve: list[tuple[int, float]] = []
        kept = torch.zeros(self.recipe.steps, device=self.device)
        began, steady = time.perf_counter(), 0.0
        done = 0
        for step in range(self.recipe.steps):
            kept[step] = self.step(step)
            done = step + 1
            if done == 2 * EAGER_STEPS:
                self._wait()
                steady = time.perf_counter()
            if done % every == 0 or done == self.recipe.steps:
                curve.append((done, float(kept[max(0, done - every) : done].mean()) / math.log(2)))
                now = time.perf_counter()
                each = 1e3 * (now - steady) / max(1, done - 2 * EAGER_STEPS)
                say(f"step {done}: {curve[-1][1]:.4f} bits per byte in training, {each:.2f} ms a step")
                if now > until:
                    break
        self._wait()
        ended = time.perf_counter()
        return {
            "steps": done,
            "seconds": ended - began,
            "milliseconds_a_step": 1e3 * (ended - steady) / max(1, done - 2 * EAGER_STEPS),
            "curve": curve,
        }

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def compile_parts(model: nn.Module, blocks: bool) -> None:
    """Let torch.compile fuse what is not a mixer of ours, or whole blocks, which it breaks at what it cannot trace."""
    model.norm.compile()
    for part in model.modules():
        if isinstance(part, Feed) or (isinstance(part, Mix) and (blocks or isinstance(part.mixer, Attention))):
            part.compile()
        elif isinstance(part, Mix):
            part.norm.compile()
            part.join.compile()


def _groups(model: nn.Module, decay: float) -> list[dict]:
    """Return the parameters in two groups: matrices over the channels, which decay, and the rest."""
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    matrices = [part.weight for name, part in linear if "filter" not in name]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
