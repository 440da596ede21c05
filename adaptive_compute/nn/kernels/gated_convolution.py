"""The gated convolution on CUDA: one kernel forward and one backward, short convolution and gates included.

Rows lie along time, so a block reads its rows in full lines, transforms them in shared memory, and writes the result:
nothing in between is ever stored, and backward computes it again. How the transforms do without zero padding is told in
``quarter_transform.cuh``. Sequences too long for that take ``gated_convolution_long``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch

from . import gated_convolution_long as by_steps
from .compiled import Launch, launcher, shared_memory

FILES = ("quarter_transform.cuh", "short_convolution.cuh", "gated_convolution.cu")
SHORTEST, WITHIN = 256, 8192  # points of a transform in shared memory; shorter sequences are filled up with zeros
LONGEST = max(by_steps.POINTS)
MOST_TAPS = 8  # of the short convolution
MOST_ITEMS = 65535  # of a batch: what a grid holds in its second direction
ELEMENTS = {torch.float32: 0, torch.bfloat16: 1}
SUM_BYTES = 128  # of a thread's sums in shared memory backward
BLOCKS = 1024  # of the backward kernel, about: each sums the filter's gradient over some items of the batch


def supports(z: Any, short: Any, h: Any) -> bool:
    """Tell whether ``fused_gated_convolution`` computes a call."""
    return supports_shape(z.device, z.dtype, z.shape[1], z.shape[2], short, h)


def supports_shape(device: Any, dtype: Any, batch: int, length: int, short: Any, h: Any) -> bool:
    """Tell whether the kernels compute a call on sequences of that dtype and shape."""
    return (
        device.type == "cuda"
        and dtype in ELEMENTS
        and h.shape[0] == 1
        and 1 <= length <= LONGEST
        and 1 <= batch <= MOST_ITEMS
        and short.shape[1] <= MOST_TAPS
        and torch.version.hip is None
        and find_spec("cupy") is not None
    )


def fused_gated_convolution(z: Any, short: Any, h: Any, skip: Any = None) -> Any:
    """Compute ``nn.gated_convolution`` of order 2 on a GPU, in float32 from operands as they are.

    Parameters
    ----------
    z : Tensor
        (3 dim, batch, length), bfloat16 or float32, contiguous along the positions (else it is copied).
    short : Tensor
        (3 dim, taps).
    h : Tensor
        (1, dim, long taps).
    skip : Tensor, optional
        (1, dim): what is added to ``h[..., 0]``.

    Returns
    -------
    Tensor
        (dim, batch, length), in the dtype of ``z``.
    """
    if h.shape[2] > z.shape[2]:
        h = h[..., : z.shape[2]]
    return _Fused.apply(z, short, h, skip)


class Plan:
    """The kernels of one length, and how each is started."""

    def __init__(self, points: int, element: int, taps: int, device: int, packed: bool) -> None:
        constants = {"LENGTH": points, "ELEMENT": element, "TAPS": taps, "PACKED": int(packed)}
        self.launch: Launch = launcher(FILES, constants, device)
        self.points, self._side = points, points // 16
        self._threads = max(self._side, 128)
        self._bytes = point_bytes(points)

    def width(self, dim: int) -> int:
        """Return how many blocks all channels take."""
        return -(-dim * self._side // self._threads)

    def start(self, name: str, dim: int, items: int, more: int, *arguments: Any) -> None:
        """Start a kernel over channels, ``items`` times, with ``more`` bytes of shared memory a thread."""
        size = self._bytes + more * self._threads
        self.launch(name, (self.width(dim), items), self._threads, size, arguments)

    def spectrum(self, h: Any, skip: Any) -> Any:
        """Return the filters' spectra (dim, points, 2)."""
        out = h.new_empty((h.shape[0], self.points, 2))
        self.start("spectrum", h.shape[0], 1, 0, out, h, skip, h.shape[0], h.shape[1])
        return out


def point_bytes(points: int) -> int:
    """Return the bytes of shared memory for a block's points, gaps included; steps of size 64 have their own places."""
    places = points + points // 16
    places += places + points // 64 if points == 1024 else 0
    return max(2048 // points, 1) * places * 8


@lru_cache(maxsize=64)
def plan_of(points: int, element: int, taps: int, device: int, packed: bool) -> Plan | by_steps.Plan:
    """Return the kernels for a number of points, an element type, a number of short taps, and packed rows or others."""
    within = points <= WITHIN and point_bytes(points) + SUM_BYTES * max(points // 16, 128) <= shared_memory(device)
    return (Plan if within else by_steps.Plan)(points, element, taps, device, packed)


def forward(plan: Plan, z: Any, weights: Any, h: Any, skip: Any) -> Any:
    """Return the gated convolution (dim, batch, length)."""
    dim, (batch, length) = h.shape[0], z.shape[1:]
    out = torch.empty((dim, batch, length), dtype=z.dtype, device=z.device)
    plan.start(
        "gated", dim, batch, 0, out, out.stride(0), out.stride(1), z, z.stride(0), z.stride(1), weights,
        plan.spectrum(h, skip), dim, length,
    )  # fmt: skip
    return out


def backward(plan: Plan, z: Any, weights: Any, h: Any, skip: Any, grad: Any) -> tuple[Any, Any, Any]:
    """Return the gradients of z, of the short convolution's weights (in parts, to be added up) and of h."""
    dim, (batch, length) = h.shape[0], z.shape[1:]
    groups = parts(batch, max(BLOCKS // plan.width(dim), 1))
    of_z = torch.empty((3 * dim, batch, length), dtype=z.dtype, device=z.device)
    partial, sums = h.new_empty((groups, dim, plan.points, 2)), h.new_empty((groups, *weights.shape))
    plan.start(
        "gated_gradient", dim, groups, SUM_BYTES, of_z, of_z.stride(0), of_z.stride(1), partial, sums, grad,
        grad.stride(0), grad.stride(1), z, z.stride(0), z.stride(1), weights, plan.spectrum(h, skip), dim, length,
        batch,
    )  # fmt: skip
    of_h = torch.empty_like(h)
    plan.start("filter_gradient", dim, 1, 0, of_h, partial, dim, h.shape[1], groups)
    return of_z, sums, of_h


def parts(items: int, most: int) -> int:
    """Return into how many parts of nearly equal size to divide items, ``most`` at most."""
    return -(-items // -(-items // most))


def plan_of_call(z: Any, short: Any, packed: bool) -> Any:
    """Return the kernels for a call; rows that are not ``packed`` are read element by element."""
    points = max(1 << (z.shape[2] - 1).bit_length(), SHORTEST)
    return plan_of(points, ELEMENTS[z.dtype], short.shape[1], z.device.index or 0, packed)


def _rows(x: Any) -> tuple[Any, bool]:
    """Return a tensor (rows, batch, length) that lies along time, and whether eight elements may be read at a time."""
    if x.stride(2) != 1 and x.shape[2] > 1:
        x = x.contiguous()
    strides = [x.stride(axis) for axis in (0, 1) if x.shape[axis] > 1]
    return x, x.data_ptr() % 16 == 0 and all(n % 8 == 0 for n in (*strides, x.shape[2]))


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    """Keeps its operands alone."""

    @staticmethod
    def forward(ctx: Any, z: Any, short: Any, h: Any, skip: Any) -> Any:
        ctx.save_for_backward(z, short, h, skip)
        return run_forward(z, short, h, skip)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, ...]:
        z, short, h, skip = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            return _again(ctx, grad, z, short, h, skip)
        return run_backward(z, short, h, skip, grad)


def run_forward(z: Any, short: Any, h: Any, skip: Any) -> Any:
    """Return the gated convolution, outside of torch's graph."""
    z, packed = _rows(z)
    plan = plan_of_call(z, short, packed)
    run = forward if isinstance(plan, Plan) else by_steps.forward
    return run(plan, z, *_narrow(short, h, skip))


def run_backward(z: Any, short: Any, h: Any, skip: Any, grad: Any) -> tuple[Any, Any, Any, Any]:
    """Return the gradients of the operands, each in its operand's dtype."""
    z, packed = _rows(z)
    grad, also = _rows(grad)
    plan = plan_of_call(z, short, packed and also)
    run = backward if isinstance(plan, Plan) else by_steps.backward
    of_z, sums, of_h = run(plan, z, *_narrow(short, h, skip), grad)
    of_skip = None if skip is None else of_h[None, :, 0].to(skip.dtype)
    return of_z, sums.sum(0).to(short.dtype), of_h[None].to(h.dtype), of_skip


def _narrow(short: Any, h: Any, skip: Any) -> tuple[Any, Any, Any]:
    """Return the filters as the kernels read them: (rows, taps), (dim, long taps) and (dim,) or a null pointer."""
    return (
        short.float().contiguous(), h[0].float().contiguous(), 0 if skip is None else skip[0].float().contiguous()
    )  # fmt: skip


def _again(ctx: Any, grad: Any, z: Any, short: Any, h: Any, skip: Any) -> tuple[Any, ...]:
    from ..convolution import _again, _plain_gated, with_skip

    def plain(z: Any, short: Any, h: Any, skip: Any) -> Any:
        return _plain_gated(z, short, with_skip(h, skip))

    return _again(plain, ctx, grad, z, short, h, skip)
