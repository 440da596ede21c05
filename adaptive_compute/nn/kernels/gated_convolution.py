"""The gated convolution on CUDA: one kernel forward and one backward, short convolution and gates included.

Rows lie along time, so a block reads its rows in full lines, transforms them in shared memory, and writes the result:
nothing in between is ever stored, and backward computes it again. How the transforms do without zero padding is told in
``gated_convolution.cu``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from .compiled import Launch, launcher

FILE = "gated_convolution.cu"
SHORTEST, LONGEST = 256, 8192  # points of a transform; shorter sequences are filled up with zeros
MOST_TAPS = 8  # of the short convolution
MOST_ITEMS = 65535  # of a batch: what a grid holds in its second direction
ELEMENTS = {torch.float32: 0, torch.bfloat16: 1}
CONSTANTS = {"TOTAL_SHARED": 1}  # how the kernels are made; what they compute depends on none of these
BLOCKS = 2048  # of the backward kernel, about: each sums the filter's gradient over some items of the batch


def supports(z: Any, short: Any, h: Any) -> bool:
    """Tell whether ``fused_gated_convolution`` computes a call."""
    return (
        z.is_cuda
        and z.dtype in ELEMENTS
        and h.shape[0] == 1
        and 1 <= z.shape[2] <= LONGEST
        and 1 <= z.shape[1] <= MOST_ITEMS
        and short.shape[1] <= MOST_TAPS
        and find_spec("cupy") is not None
    )


def fused_gated_convolution(z: Any, short: Any, h: Any) -> Any:
    """Compute ``nn.gated_convolution`` of order 2 on a GPU, in float32 from operands as they are.

    Parameters
    ----------
    z : Tensor
        (3 dim, batch, length), bfloat16 or float32, contiguous along the positions (else it is copied).
    short : Tensor
        (3 dim, taps).
    h : Tensor
        (1, dim, long taps).

    Returns
    -------
    Tensor
        (dim, batch, length), in the dtype of ``z``.
    """
    return _Fused.apply(z, short, h)


class _Shape(NamedTuple):
    """What a call's kernels depend on."""

    dim: int
    batch: int
    length: int
    taps: int
    points: int  # of the transform
    element: int
    device: int

    @property
    def threads(self) -> int:
        return max(self.points // 16, 128)

    @property
    def width(self) -> int:
        """Blocks that all channels take."""
        return -(-self.dim * (self.points // 16) // self.threads)

    @property
    def shared(self) -> int:
        """Bytes of shared memory for a block's points, with a gap behind every 16."""
        return self.threads * 17 * 8

    @property
    def groups(self) -> int:
        """Parts of the batch that the backward kernel sums by themselves."""
        most = max(BLOCKS // self.width, 1)
        return -(-self.batch // -(-self.batch // most)) if self.batch > most else self.batch

    def launch(self) -> Launch:
        return kernels(self.points, self.element, self.taps, self.device)


@lru_cache(maxsize=64)
def kernels(points: int, element: int, taps: int, device: int) -> Launch:
    """Return what starts the kernels for a number of points, an element type and a number of short taps."""
    return launcher(FILE, {"LENGTH": points, "ELEMENT": element, "TAPS": taps, **CONSTANTS}, device)


def _shape(z: Any, short: Any, h: Any) -> _Shape:
    points = max(1 << (z.shape[2] - 1).bit_length(), SHORTEST)
    return _Shape(h.shape[1], z.shape[1], z.shape[2], short.shape[1], points, ELEMENTS[z.dtype], z.device.index or 0)


def _rows(x: Any, pack: int) -> tuple[Any, int]:
    """Return a tensor (rows, batch, length) that lies along time, and whether it may be read 16 bytes at a time."""
    if x.stride(2) != 1 and x.shape[2] > 1:
        x = x.contiguous()
    strides = [x.stride(axis) for axis in (0, 1) if x.shape[axis] > 1]
    return x, x.data_ptr() % 16 == 0 and all(stride % pack == 0 for stride in strides)


def _spectrum(shape: _Shape, launch: Launch, h: Any) -> Any:
    out = h.new_empty((shape.dim, shape.points, 2))
    launch("spectrum", (shape.width, 1), shape.threads, shape.shared, (out, h, shape.dim, h.shape[1]))
    return out


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    """Keeps its operands alone."""

    @staticmethod
    def forward(ctx: Any, z: Any, short: Any, h: Any) -> Any:
        shape = _shape(z, short, h)
        launch = shape.launch()
        ctx.save_for_backward(z, short, h)
        z, packed = _rows(z, 16 // z.itemsize)
        out = torch.empty((shape.dim, shape.batch, shape.length), dtype=z.dtype, device=z.device)
        packed &= shape.length % (16 // z.itemsize) == 0
        spectrum = _spectrum(shape, launch, h[0].float().contiguous())
        launch(
            "gated", (shape.width, shape.batch), shape.threads, shape.shared,
            (out, out.stride(0), out.stride(1), z, z.stride(0), z.stride(1), short.float().contiguous(), spectrum,
             shape.dim, shape.length, int(packed)),
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, Any, Any]:
        z, short, h = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            from ..convolution import _again, _plain_gated

            return _again(_plain_gated, ctx, grad, z, short, h)
        shape = _shape(z, short, h)
        launch, groups = shape.launch(), shape.groups
        taps, weights = h[0].float().contiguous(), short.float().contiguous()
        spectrum = _spectrum(shape, launch, taps)
        z, packed = _rows(z, 16 // z.itemsize)
        grad, also = _rows(grad, 16 // z.itemsize)
        packed = packed and also and shape.length % (16 // z.itemsize) == 0
        of_z = torch.empty((3 * shape.dim, shape.batch, shape.length), dtype=z.dtype, device=z.device)
        partial = taps.new_empty((groups, shape.dim, shape.points, 2))
        sums = taps.new_empty((groups, *short.shape))
        launch(
            "gated_gradient", (shape.width, groups), shape.threads,
            shape.shared + 128 * shape.threads,
            (of_z, of_z.stride(0), of_z.stride(1), partial, sums, grad, grad.stride(0), grad.stride(1), z,
             z.stride(0), z.stride(1), weights, spectrum, shape.dim, shape.length, shape.batch, int(packed)),
        )  # fmt: skip
        of_h = torch.empty_like(taps)
        launch(
            "filter_gradient", (shape.width, 1), shape.threads, shape.shared,
            (of_h, partial, shape.dim, taps.shape[1], groups),
        )  # fmt: skip
        return of_z, sums.sum(0).to(short.dtype), of_h[None].to(h.dtype)
