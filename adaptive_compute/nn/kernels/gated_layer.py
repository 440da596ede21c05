"""The whole layer ``nn.GatedConvolution`` as one node of torch's graph: two matrix products around the fused kernels.

As single calls the layer is some thirty launches and nodes, whose time on the host is more than the GPU needs for them.
"""

from __future__ import annotations

from typing import Any

import torch

from . import gated_convolution as kernels


def supports(x: Any, short: Any, h: Any) -> bool:
    """Tell whether ``fused_layer`` computes a call: it does what ``gated_convolution`` does, in its dtypes."""
    batch, length, _ = x.shape
    return x.numel() > 0 and kernels.supports_shape(x.device, _dtype(x), batch, length, short, h)


def fused_layer(x: Any, project: Any, short: Any, h: Any, skip: Any, out: Any) -> Any:
    """Return ``out (x_0 (h * (x_1 v)))``, where ``x_0, x_1, v`` are the short convolution of ``project x``.

    Parameters
    ----------
    x : Tensor
        (batch, length, dim), on CUDA. Under ``torch.autocast`` the products are in its dtype, otherwise in that of x.
    project, out : Tensor
        (3 dim, dim) and (dim, dim).
    short, h, skip : Tensor
        As ``fused_gated_convolution`` takes them.

    Returns
    -------
    Tensor
        (batch, length, dim).
    """
    if h.shape[2] > x.shape[1]:
        h = h[..., : x.shape[1]]
    return _Layer.apply(x, project, short, h, skip, out, _dtype(x))


def _dtype(x: Any) -> Any:
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype


class _Layer(torch.autograd.Function):  # type: ignore[misc]
    """Keeps its operands, the projections, and what the last product takes."""

    @staticmethod
    def forward(ctx: Any, x: Any, project: Any, short: Any, h: Any, skip: Any, out: Any, dtype: Any) -> Any:
        (batch, length, dim) = x.shape
        rows, inner, outer = x.reshape(-1, dim).to(dtype), project.to(dtype), out.to(dtype)
        z = torch.mm(inner, rows.t()).view(-1, batch, length)
        y = kernels.run_forward(z, short, h, skip)
        ctx.save_for_backward(x, project, short, h, skip, out, z, y)
        ctx.dtype = dtype
        return torch.mm(y.view(dim, -1).t(), outer.t()).view(batch, length, dim)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, ...]:
        x, project, short, h, skip, out, z, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            return _again(ctx, grad, x, project, short, h, skip, out)
        dim, dtype = x.shape[2], ctx.dtype
        rows, grad = x.reshape(-1, dim).to(dtype), grad.reshape(-1, dim).to(dtype)
        of_out = torch.mm(grad.t(), y.view(dim, -1).t())
        of_y = torch.mm(out.to(dtype).t(), grad.t()).view_as(y)
        of_z, of_short, of_h, of_skip = kernels.run_backward(z, short, h, skip, of_y)
        of_z = of_z.view(3 * dim, -1)
        of_project = torch.mm(of_z, rows)
        of_x = torch.mm(of_z.t(), project.to(dtype)).view(x.shape) if ctx.needs_input_grad[0] else None
        return (
            None if of_x is None else of_x.to(x.dtype), of_project.to(project.dtype), of_short, of_h, of_skip,
            of_out.to(out.dtype), None,
        )  # fmt: skip


def _again(ctx: Any, grad: Any, *operands: Any) -> tuple[Any, ...]:
    from ..convolution import _again, _plain_gated, with_skip

    def plain(x: Any, project: Any, short: Any, h: Any, skip: Any, out: Any) -> Any:
        x, project, out = (value.to(ctx.dtype) for value in (x, project, out))
        z = (project @ x.reshape(-1, x.shape[2]).T).view(-1, *x.shape[:2])
        y = _plain_gated(z, short, with_skip(h, skip))
        return torch.nn.functional.linear(y.flatten(1).T, out).view(x.shape)

    return *_again(plain, ctx, grad, *operands), None
