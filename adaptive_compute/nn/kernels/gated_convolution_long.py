"""The gated convolution on CUDA for sequences too long for a block's shared memory: transforms in steps through memory.

Forward needs one complex number for every element of the sequences and of the filter, backward two for the sequences'.
"""

from __future__ import annotations

from typing import Any

import torch

from .compiled import Launch, launcher

FILES = ("quarter_transform.cuh", "short_convolution.cuh", "gated_convolution_long.cu")
SPAN = 4096  # as in the source
POINTS = {
    1 << 12: (64, 64), 1 << 13: (64, 128), 1 << 14: (128, 128), 1 << 15: (128, 256), 1 << 16: (256, 256),
    1 << 17: (256, 512), 1 << 18: (512, 512),
}  # fmt: skip


class Plan:
    """The kernels of one length, and how each is started."""

    def __init__(self, points: int, element: int, taps: int, device: int, packed: bool) -> None:
        rows, columns = POINTS[points]
        constants = {"ROWS": rows, "COLUMNS": columns, "ELEMENT": element, "TAPS": taps, "PACKED": int(packed)}
        self.launch: Launch = launcher(FILES, constants, device)
        self.points = points
        width = 16 if rows > 256 else 32
        self._tiles, self._column_threads, self._column_bytes = columns // width, width * rows // 16, width * rows * 8
        self._stacks, self._row_bytes = rows * columns // 2048, 128 * 17 * 8

    def columns(self, name: str, matrices: int, *arguments: Any) -> None:
        """Start a kernel over the columns of matrices."""
        self.launch(name, (matrices * self._tiles, 1), self._column_threads, self._column_bytes, arguments)

    def rows(self, name: str, matrices: int, more: int, *arguments: Any) -> None:
        """Start a kernel over the rows of matrices, with ``more`` bytes of shared memory."""
        self.launch(name, (matrices * self._stacks, 1), 128, self._row_bytes + more, arguments)

    def spans(self, name: str, sequences: int, length: int, *arguments: Any) -> None:
        """Start a kernel over spans of sequences."""
        self.launch(name, (sequences * -(-length // SPAN), 1), 128, 512, arguments)


def forward(plan: Plan, z: Any, weights: Any, h: Any, skip: Any) -> Any:
    """Return the gated convolution (dim, batch, length)."""
    dim, (batch, length) = h.shape[0], z.shape[1:]
    out = torch.empty((dim, batch, length), dtype=z.dtype, device=z.device)
    filters, matrices = h.new_empty((dim, plan.points, 2)), h.new_empty((batch, dim, plan.points, 2))
    place = (z, z.stride(0), z.stride(1), weights, dim, length)
    plan.columns("filter_in", dim, filters, h, skip, h.shape[1])
    plan.columns("gated_in", batch * dim, matrices, 0, 0, 0, 0, *place)
    plan.rows("rows", batch * dim, 0, matrices, filters, dim)
    plan.columns("gated_back", batch * dim, out, out.stride(0), out.stride(1), matrices, *place)
    return out


def backward(plan: Plan, z: Any, weights: Any, h: Any, skip: Any, grad: Any) -> tuple[Any, Any, Any]:
    """Return the gradients of z, of the short convolution's weights (in parts, to be added up) and of h."""
    dim, (batch, length) = h.shape[0], z.shape[1:]
    filters, of_h = h.new_empty((dim, plan.points, 2)), torch.empty_like(h)
    us, gs = h.new_empty((2, batch, dim, plan.points, 2))
    place = (z, z.stride(0), z.stride(1), weights, dim, length)
    plan.columns("filter_in", dim, filters, h, skip, h.shape[1])
    plan.columns("gated_in", batch * dim, us, gs, grad, grad.stride(0), grad.stride(1), *place)
    plan.rows("gradient_rows", dim, 128 * 128, us, gs, filters, dim, batch)
    plan.columns("filter_back", dim, of_h, filters, h.shape[1])
    ys, dus = h.new_empty((2, batch, dim, plan.points))
    plan.columns("sequences", batch * dim, ys, us)
    plan.columns("sequences", batch * dim, dus, gs)
    of_z = torch.empty((3 * dim, batch, length), dtype=z.dtype, device=z.device)
    sums = h.new_empty((batch * -(-length // SPAN), *weights.shape))
    plan.spans(
        "gated_gradient", batch * dim, length, of_z, of_z.stride(0), of_z.stride(1), sums, ys, dus, grad,
        grad.stride(0), grad.stride(1), *place,
    )  # fmt: skip
    return of_z, sums, of_h
