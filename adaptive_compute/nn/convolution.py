"""Causal long convolution by FFT, alone and between gates: forward and backward go through a channel block at a time.

A causal convolution ``y[t] = sum_s h[s] u[t - s]`` of T positions is a circular one of at least 2T - 1, because then
what wraps around falls on positions that nobody asked for. Both functions here are nodes of torch's graph that keep
their operands only: backward computes the intermediate values again, block by block, so that a block's spectra stay in
the processor's cache and are never stored. On CUDA a fused kernel takes the gated form where it can.

Positions are the last axis, because that is where a transform wants them. The layers' projections write that layout
directly (a matrix product may write its result transposed at no cost).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

import adaptive_compute as ac

from ..core.errors import ArgumentTypeError, DtypeError, ShapeError
from .blocks import Block, Blocks, fast_length
from .layer import FLOATS, check_alike, working_dtype


def causal_convolution(u: Any, h: Any) -> Any:
    """Convolve each channel with its own kernel: ``y[t] = sum_s h[s] u[t - s]``, for s from 0 to t alone.

    Parameters
    ----------
    u : Tensor
        (..., dim, length), floating point.
    h : Tensor
        (dim, taps), on the same device. Taps beyond ``length`` have no effect. float16 and bfloat16 are computed in
        float32.

    Returns
    -------
    Tensor
        Like ``u``. Gradients of any order flow to both operands.

    Raises
    ------
    ArgumentTypeError, ShapeError, DtypeError, BackendUnavailable
        If an operand is no tensor, has the wrong shape, no floating-point dtype, or they are on two devices.

    Notes
    -----
    O(length log length) for each channel, with zeros to at least ``length + taps - 1`` points; the transforms are
    ``ac.rfft`` and ``ac.irfft`` in a pipeline, which are routed like every call.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute.nn import causal_convolution
    >>> u, h = torch.tensor([[1.0, 0, 1, 2]]), torch.tensor([[1.0, 10]])
    >>> causal_convolution(u, h).round().tolist()
    [[1.0, 10.0, 1.0, 12.0]]
    """
    _check(u, h, "u")
    if u.ndim < 2 or u.shape[-2] != h.shape[0]:
        raise ShapeError(f"u must be (..., {h.shape[0]}, length) to go with h, got shape {tuple(u.shape)}")
    h = h[:, : u.shape[-1]]
    if u.numel() == 0:
        return u * h[:, :1]
    if _is_transformed(u, h):
        return _plain_convolution(u, h)
    return _Convolution.apply(u.reshape(-1, *u.shape[-2:]), h).reshape(u.shape)


def _along_positions(u: Any) -> Any:
    """Return (batch, dim, length) so that neighbours in position are neighbours in memory.

    torch turns a matrix around five times quicker than it copies one of several at once.
    """
    if u.is_cuda or u.stride(2) == 1 or u.shape[2] == 1:
        return u
    out = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    for target, source in zip(out, u):
        target.copy_(source)
    return out


def gated_convolution(z: Any, short: Any, h: Any, skip: Any = None) -> Any:
    """Short convolution of every stream, then long ones between gates: the core of ``GatedConvolution``.

    With ``order`` long kernels less one, ``z`` holds the streams ``x_0 ... x_(order-1), v``, one after the other, and

        (x_0, ..., v)[t] = sum_j short[:, j] z[t - j]                  (each channel of each stream)
        y = x_0 (h_1 * (x_1 (h_2 * ( ... x_(order-1) v))))             (* convolves, causally)

    so that order 2 is ``x_0 (h_1 * (x_1 v))``. A skip connection, ``h * u + skip u``, is ``skip`` added to
    ``h[..., 0]``.

    Parameters
    ----------
    z : Tensor
        ((order + 1) dim, batch, length): contiguous along the positions.
    short : Tensor
        ((order + 1) dim, taps): the depthwise short kernels.
    h : Tensor
        (order - 1, dim, long taps): the long kernels.
    skip : Tensor, optional
        (order - 1, dim): what is added to ``h[..., 0]``.

    Returns
    -------
    Tensor
        (dim, batch, length), in the dtype of ``z``.

    Raises
    ------
    ArgumentTypeError, ShapeError, DtypeError, BackendUnavailable
        If an operand does not fit.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute.nn import gated_convolution
    >>> z = torch.tensor([[[1.0, 2, 3]], [[1, 1, 1]], [[1, 0, 0]]])  # x_0, x_1, v: one channel, a batch of one
    >>> gated_convolution(z, torch.ones(3, 1), torch.tensor([[[1.0, 10, 100]]])).round().tolist()
    [[[1.0, 20.0, 300.0]]]
    """
    _check(z, h, "z")
    for x, name in ((short, "short"), (skip, "skip")):
        if x is not None or name == "short":
            _check_tensor(x, name)
            check_alike(x, z, name, "z")
    if h.ndim != 3:
        raise ShapeError(f"h must be (order - 1, dim, taps), got shape {tuple(h.shape)}")
    streams = h.shape[0] + 2
    if z.ndim != 3 or z.shape[0] != streams * h.shape[1]:
        raise ShapeError(
            f"z must be ({streams} * {h.shape[1]}, batch, length) to go with h of shape {tuple(h.shape)}, "
            f"got shape {tuple(z.shape)}"
        )
    if short.ndim != 2 or short.shape[0] != z.shape[0] or short.shape[1] < 1:
        raise ShapeError(f"short must be ({z.shape[0]}, taps) to go with z, got shape {tuple(short.shape)}")
    if skip is not None and skip.shape != h.shape[:2]:
        raise ShapeError(f"skip must be {tuple(h.shape[:2])} to go with h, got shape {tuple(skip.shape)}")
    transformed = _is_transformed(z, short, h)
    if z.is_cuda and not transformed and z.numel() and _fused_supports(z, short, h):
        from .kernels.gated_convolution import fused_gated_convolution

        return fused_gated_convolution(z, short, h, skip)
    h = with_skip(h[..., : z.shape[-1]], skip)
    return (_plain_gated if z.numel() == 0 or transformed else _Gated.apply)(z, short, h)


def with_skip(h: Any, skip: Any) -> Any:
    """Return long kernels with a skip connection in their first values."""
    return h if skip is None else torch.cat([h[..., :1] + skip[..., None], h[..., 1:]], -1)


def _fused_supports(z: Any, short: Any, h: Any) -> bool:
    """Tell whether the fused CUDA kernel computes this call."""
    try:
        from .kernels.gated_convolution import supports
    except ImportError:  # no Triton
        return False
    return supports(z, short, h)


class _Convolution(torch.autograd.Function):  # type: ignore[misc]
    """``u`` (batch, dim, length) with ``h`` (dim, taps), a block at a time; keeps its operands alone."""

    @staticmethod
    def forward(ctx: Any, u: Any, h: Any) -> Any:
        ctx.save_for_backward(u, h)
        u = _along_positions(u)
        out = torch.empty_like(u)
        u, result = u.transpose(0, 1), out.transpose(0, 1)
        blocks = Blocks(u, h, 1)

        def task(block: Block) -> None:
            block.signal(0).copy_(u[block.place])
            result[block.place] = block.filtered(0)

        blocks.run(task)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, Any]:
        u, h = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            return _again(_plain_convolution, ctx, grad, u, h)
        u, grad = _along_positions(u), _along_positions(grad)
        grad_u = torch.empty_like(u)
        u, g, result = u.transpose(0, 1), grad.transpose(0, 1), grad_u.transpose(0, 1)
        of_h = torch.empty_like(h)
        blocks = Blocks(u, h, 2, of_h)

        def task(block: Block) -> None:
            block.signal(0).copy_(u[block.place])
            block.signal(1).copy_(g[block.place])
            result[block.place] = block.pulled_back(0, 1, again=False)

        blocks.run(task)
        return grad_u, of_h


class _Gated(torch.autograd.Function):  # type: ignore[misc]
    """``gated_convolution``, a block at a time; keeps its operands alone."""

    @staticmethod
    def forward(ctx: Any, z: Any, short: Any, h: Any) -> Any:
        ctx.save_for_backward(z, short, h)
        streams, blocks, taps = _streams(z, short, h, 1)
        out = z.new_empty(streams.shape[1:])

        def task(block: Block) -> None:
            place = block.place
            *gates, v = _shortened(streams[:, *place], taps[:, place[0]])
            for i in reversed(range(len(gates) - 1)):
                torch.mul(gates[i + 1], v, out=block.signal(0))
                v = block.filtered(0, i)
            _write(out[place], gates[0], v)

        blocks.run(task)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, Any, Any]:
        z, short, h = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(_plain_gated, ctx, grad, z, short, h)
        orders = range(h.shape[0])
        of_h = torch.empty_like(h)
        streams, blocks, taps = _streams(z, short, h, len(orders) + 1, of_h)
        of_streams, of_taps = torch.empty_like(streams), torch.zeros_like(taps)

        def task(block: Block) -> None:
            place = block.place
            given, short_taps = streams[:, *place], taps[:, place[0]]
            shortened = _shortened(given, short_taps)
            *gates, v = shortened
            inner = {len(orders): v}  # what stands to the right of gate i, for each i
            for i in reversed(orders):
                torch.mul(gates[i + 1], inner[i + 1], out=block.signal(i))
                inner[i] = block.filtered(i, i)
            g = grad[place].to(v.dtype)
            found = torch.empty_like(shortened)
            torch.mul(g, inner[0], out=found[0])
            for i in orders:
                torch.mul(g, gates[i], out=block.signal(-1))
                g = block.pulled_back(i, -1, i)
                torch.mul(g, inner[i + 1], out=found[i + 1])
            torch.mul(g, gates[-1], out=found[-1])
            _pull_short(found, given, short_taps, of_streams[:, *place], of_taps[:, place[0]])

        blocks.run(task)
        return of_streams.view_as(z), of_taps.view_as(short).to(short.dtype), of_h


def _streams(z: Any, short: Any, h: Any, buffers: int, of_h: Any = None) -> tuple[Any, Blocks, Any]:
    """Return z as (streams, dim, batch, length), its blocks, and the short kernels as (streams, dim, 1, taps)."""
    streams = z.reshape(-1, h.shape[1], *z.shape[1:])
    blocks = Blocks(streams, h, buffers, of_h)
    return streams, blocks, short.to(blocks.dtype).reshape(*streams.shape[:2], 1, -1)


def _shortened(streams: Any, taps: Any) -> Any:
    """Return the short causal convolution of (streams, dim, batch, length) with (streams, dim, 1, taps)."""
    out = streams * taps[..., :1]
    for j in range(1, min(taps.shape[-1], streams.shape[-1])):
        out[..., j:].addcmul_(streams[..., :-j], taps[..., j : j + 1])
    return out


def _write(out: Any, a: Any, b: Any) -> None:
    """Write a product into ``out``, which may be narrower."""
    if out.dtype == b.dtype:
        torch.mul(a, b, out=out)
    else:
        out.copy_(a * b)


def _pull_short(found: Any, streams: Any, taps: Any, of_streams: Any, of_taps: Any) -> None:
    """Write the gradient of ``_shortened`` for the streams, and add that of the taps."""
    pulled = of_streams if of_streams.dtype == found.dtype else torch.empty_like(found)
    torch.mul(found, taps[..., :1], out=pulled)
    of_taps[..., 0] += (found * streams).sum(-1).sum(-1, keepdim=True)
    for j in range(1, min(taps.shape[-1], streams.shape[-1])):
        later, earlier = found[..., j:], streams[..., :-j]
        pulled[..., :-j].addcmul_(later, taps[..., j : j + 1])
        of_taps[..., j] += (later * earlier).sum(-1).sum(-1, keepdim=True)
    if pulled is not of_streams:
        of_streams.copy_(pulled)


def _plain_convolution(u: Any, h: Any) -> Any:
    """Compute ``causal_convolution`` from calls that torch differentiates one by one."""
    n = fast_length(u.shape[-1] + h.shape[-1] - 1)
    dtype = working_dtype(torch.promote_types(u.dtype, h.dtype))
    spectrum = ac.rfft(u.to(dtype), n) * ac.rfft(h.to(dtype), n)
    return ac.irfft(spectrum, n)[..., : u.shape[-1]].to(u.dtype)


def _plain_gated(z: Any, short: Any, h: Any) -> Any:
    """Compute ``gated_convolution`` in the same way."""
    if z.numel() == 0:
        return z[: h.shape[1]] * h[0, :, None, :1] * short[: h.shape[1], None, :1]
    length, dtype = z.shape[-1], working_dtype(torch.promote_types(z.dtype, h.dtype))
    streams = torch.nn.functional.pad(z.to(dtype), (short.shape[1] - 1, 0))
    taps = short.to(dtype)[:, None]
    first = short.shape[1] - 1
    mixed = sum(streams[..., first - j : first - j + length] * taps[..., j : j + 1] for j in range(short.shape[1]))
    *gates, v = mixed.reshape(-1, h.shape[1], *z.shape[1:])
    for i in reversed(range(h.shape[0])):
        v = _plain_convolution((gates[i + 1] * v).transpose(0, 1), h[i]).transpose(0, 1)
    return (gates[0] * v).to(z.dtype)


def _again(function: Any, ctx: Any, grad: Any, *operands: Any) -> tuple[Any, ...]:
    """Return gradients that can be differentiated: those of the plain composition."""
    needed = [x for x, want in zip(operands, ctx.needs_input_grad) if want]
    found = iter(torch.autograd.grad(function(*operands), needed, grad, create_graph=True))
    return tuple(next(found) if want else None for want in ctx.needs_input_grad)


def _is_transformed(*operands: Any) -> bool:
    """Tell whether torch looks into the call (torch.func, forward mode, torch.compile), which a node would hide."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
        or any(x.device.type == "meta" for x in operands)
    )


def _check_tensor(x: Any, name: str) -> None:
    if not isinstance(x, torch.Tensor):
        raise ArgumentTypeError(f"{name} must be a torch tensor, got {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise DtypeError(f"{name} has dtype {x.dtype}; accepted: float16, bfloat16, float32 or float64")


def _check(u: Any, h: Any, name: str) -> None:
    for x, what in ((u, name), (h, "h")):
        _check_tensor(x, what)
    check_alike(h, u, "h", name)
    if h.ndim < 2 or h.shape[-1] < 1:
        raise ShapeError(f"h must be (dim, taps) with at least one tap, got shape {tuple(h.shape)}")
    if u.ndim < 1 or u.shape[-1] < 1:
        raise ShapeError(f"{name} must have at least one position, got shape {tuple(u.shape)}")
