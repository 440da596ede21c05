"""A copy of a module that answers the same input with the same output, however often it is asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..core.errors import ArgumentError, ArgumentTypeError, ShapeError

_COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
_REAL = {one: other for other, one in _COMPLEX.items()}


class Subject:
    """A module's copy in another precision, whose buffers and random numbers are as at first before each call.

    A module that keeps a state elsewhere is copied anew for each call. ``shake`` moves every parameter by about a
    hundredth of its size, and those at zero off it.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, mode: str, *, shake: bool, seed: int) -> None:
        self.dtype, self.seed = dtype, seed
        real = _REAL.get(dtype, dtype)
        module = copy.deepcopy(module).train(mode == "train").requires_grad_(False)
        module._apply(lambda x: _converted(x, real))
        if shake:
            _shake(module, seed)
        tensors = [*module.parameters(), *module.buffers()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self._first, self._module, self._anew = module, copy.deepcopy(module), False
        self._buffers = [
            (part, name, value.clone())
            for part in self._module.modules()
            for name, value in part._buffers.items()
            if value is not None
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs for some inputs, checked: (batch, length, ...)."""
        with torch.no_grad():
            return self._checked(self._run(x), x)

    def settled(self, x: Tensor, other: Tensor, allowed: Callable[[float], float]) -> Tensor:
        """Return the outputs for x, and see to it that no call before changes them by more than rounding."""
        for anew in (False, True):
            self._anew = anew
            first = self(x)
            self(other)
            again = self(x)
            if float((again - first).abs().max()) <= allowed(float(first.abs().max())):
                return first
        raise ArgumentError(
            "module: the same input gives different outputs from call to call, which nothing here can hold still; "
            "accepted: a module whose random numbers are torch's"
        )

    def gradients(self, x: Tensor, positions: Sequence[int], random: torch.Generator) -> Iterator[tuple[int, Tensor]]:
        """Yield positions with the sizes of the gradient of their outputs, in a random direction: (batch, length).

        Yields nothing where no gradient reaches the inputs.
        """
        leaves: list[Tensor] = []

        def embedded(part: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
            if given[0].shape != x.shape or not bool((given[0] == x).all()):
                return result  # of positions, say: no input of the module
            leaves.append(result.detach().requires_grad_())
            return leaves[-1]

        with torch.enable_grad():
            hooks = []
            if x.is_floating_point() or x.is_complex():
                leaves.append(x := x.detach().clone().requires_grad_())
                output = self._run(x)
            else:
                module = self._fresh()
                hooks = [p.register_forward_hook(embedded) for p in module.modules() if isinstance(p, nn.Embedding)]
                output = self._run(x, module)
        for hook in hooks:
            hook.remove()
        output = self._checked(output, x)
        if not leaves or not output.requires_grad:
            return
        for t in positions:
            sign = torch.randint(0, 2, output[:, t].shape, generator=random).to(output.device) * 2 - 1
            with torch.enable_grad():  # the caller may be under torch.no_grad
                aim = (output[:, t] * sign).sum()
                aim = aim.real + aim.imag if aim.is_complex() else aim
            parts = torch.autograd.grad(aim, leaves, retain_graph=True, allow_unused=True)
            sizes = [
                part.abs().flatten(2).sum(2) if part.ndim > 2 else part.abs() for part in parts if part is not None
            ]
            if sizes:
                yield t, torch.stack(sizes).sum(0)

    def _fresh(self) -> nn.Module:
        if self._anew:
            return copy.deepcopy(self._first)
        for part, name, value in self._buffers:
            part._buffers[name] = value.clone()
        return self._module

    def _run(self, x: Tensor, module: nn.Module | None = None) -> Tensor:
        module = self._fresh() if module is None else module
        devices = [x.device.index or 0] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            result = module(x)
        return result[0] if isinstance(result, tuple) else result

    def _checked(self, output: Tensor, x: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise ArgumentTypeError(
                f"module: it returned {type(output).__name__}; accepted: a tensor, or a tuple that begins with one"
            )
        if output.ndim < 2 or output.shape[:2] != x.shape[:2]:
            raise ShapeError(
                f"module: outputs {tuple(output.shape)} for inputs {tuple(x.shape)}; accepted: the same batch, length"
            )
        if not bool(torch.isfinite(output).all()):
            raise ArgumentError("module: its outputs are not all finite, and what is not finite cannot be compared")
        if not (output.is_floating_point() or output.is_complex()):
            output = output.double()
        return output if output.ndim > 2 else output[..., None]


def _converted(x: Tensor, real: torch.dtype) -> Tensor:
    if x.is_complex():
        return x.to(_COMPLEX.get(real, torch.complex64))
    return x.to(real) if x.is_floating_point() else x


def _shake(module: nn.Module, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        if value.numel() and (value.is_floating_point() or value.is_complex()):
            wide = torch.complex128 if value.is_complex() else torch.float64
            noise = torch.randn(value.shape, dtype=wide, generator=random)
            size = 0.01 * (float(value.abs().double().square().mean()) ** 0.5 + 0.1)
            value.data += (size * noise).to(value.device, value.dtype)
