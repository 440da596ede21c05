"""Triton kernels of ``ImplicitFilter``: a small network of the position, whose layers never leave the processor's core.

By torch's own calls the network is some fifty launches forward and backward, and its last layer goes through memory
ten times. Here forward is one kernel, backward two and a sum.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: N803  # pointers and constants are in capitals

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

POSITIONS, CHANNELS = 32, 64  # of a tile: with more, registers do not suffice for products in three parts
LAST_POSITIONS = 64  # of the last layer's tile backward
PRECISION = "tf32x3"  # of products: three of them on tensor cores, which is as good as float32
PROGRAMS = 128  # that share the positions backward; each adds up the gradients of its own
WIDTHS = (16, 32, 64)  # of the hidden layers
MOST_FEATURES = 64
MOST_MADE = 256  # kernels that are kept ready, each for one kind of call


def supports(features: Any, width: int, depth: int) -> bool:
    """Tell whether ``implicit_filter`` computes a network."""
    return (
        features.is_cuda
        and features.dtype == torch.float32
        and depth == 2
        and width in WIDTHS
        and features.shape[1] <= MOST_FEATURES
    )


@triton.jit
def hidden(X, W1, B1, W2, B2, TURNS, t, length, features, PADDED: tl.constexpr, WIDTH: tl.constexpr,
           PRECISION: tl.constexpr):  # fmt: skip
    """Return the features of some positions and, of both hidden layers, what the sine is taken of, and its factor."""
    w, f = tl.arange(0, WIDTH), tl.arange(0, PADDED)
    there = f[None, :] < features
    x = tl.load(X + t[:, None] * features + f[None, :], mask=there & (t[:, None] < length), other=0.0)
    w1 = tl.load(W1 + w[:, None] * features + f[None, :], mask=there, other=0.0)
    turns1, turns2 = tl.load(TURNS + w)[None, :], tl.load(TURNS + WIDTH + w)[None, :]
    a1 = tl.dot(x, tl.trans(w1), input_precision=PRECISION) + tl.load(B1 + w)[None, :]
    w2 = tl.load(W2 + w[:, None] * WIDTH + w[None, :])
    a2 = tl.dot(tl.sin(turns1 * a1), tl.trans(w2), input_precision=PRECISION) + tl.load(B2 + w)[None, :]
    return x, a1, turns1, w2, a2, turns2


@triton.jit
def forward_kernel(
    OUT, INNER, X, W1, B1, W2, B2, TURNS, LAST, RATES, FACTORS, length, features, channels,
    PADDED: tl.constexpr, WIDTH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store filters (channels, length), and the inner layer (length, WIDTH) behind its sine."""
    t, w = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS), tl.arange(0, WIDTH)
    _x, _a1, _turns1, _w2, a2, turns2 = hidden(X, W1, B1, W2, B2, TURNS, t, length, features, PADDED, WIDTH, PRECISION)
    inner = tl.sin(turns2 * a2)
    tl.store(INNER + t[:, None] * WIDTH + w[None, :], inner, mask=t[:, None] < length)
    for start in range(0, channels, CHANNELS):
        d = start + tl.arange(0, CHANNELS)
        kept = d < channels
        last = tl.load(LAST + d[:, None] * WIDTH + w[None, :], mask=kept[:, None], other=0.0)
        decay = tl.load(RATES + d, mask=kept, other=0.0) * tl.exp(tl.load(FACTORS + d, mask=kept, other=0.0))
        window = tl.exp(-decay[:, None] * t[None, :].to(tl.float32))
        values = tl.dot(last, tl.trans(inner), input_precision=PRECISION) * window
        place = OUT + d[:, None].to(tl.int64) * length + t[None, :]
        tl.store(place, values, mask=kept[:, None] & (t[None, :] < length))


@triton.jit
def last_kernel(
    PARTS, INNER_GRAD, GRAD, OUT, INNER, LAST, RATES, FACTORS, length, channels, tiles, size,
    WIDTH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store, for some channels, the gradients of LAST and FACTORS, and what the inner layer receives."""
    d, w = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, WIDTH)
    kept = d < channels
    last = tl.load(LAST + d[:, None] * WIDTH + w[None, :], mask=kept[:, None], other=0.0)
    decay = tl.load(RATES + d, mask=kept, other=0.0) * tl.exp(tl.load(FACTORS + d, mask=kept, other=0.0))
    of_last, of_factors = tl.zeros([CHANNELS, WIDTH], tl.float32), tl.zeros([CHANNELS], tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        t = tile * POSITIONS + tl.arange(0, POSITIONS)
        inner = tl.load(INNER + t[:, None] * WIDTH + w[None, :], mask=t[:, None] < length, other=0.0)
        place, inside = d[:, None].to(tl.int64) * length + t[None, :], kept[:, None] & (t[None, :] < length)
        grad = tl.load(GRAD + place, mask=inside, other=0.0)
        values = tl.load(OUT + place, mask=inside, other=0.0)
        steps = decay[:, None] * t[None, :].to(tl.float32)
        of_factors -= tl.sum(grad * values * steps, 1)
        grad *= tl.exp(-steps)
        of_last += tl.dot(grad, inner, input_precision=PRECISION)
        back = tl.dot(tl.trans(grad), last, input_precision=PRECISION)
        row = tl.program_id(1).to(tl.int64) * length + t[:, None]
        tl.store(INNER_GRAD + row * WIDTH + w[None, :], back, mask=t[:, None] < length)
    own = PARTS + tl.program_id(0) * size
    tl.store(own + d[:, None] * WIDTH + w[None, :], of_last, mask=kept[:, None])
    tl.store(own + channels * WIDTH + d, of_factors, mask=kept)


@triton.jit
def hidden_kernel(
    PARTS, INNER_GRAD, X, W1, B1, W2, B2, TURNS, length, features, channels, tiles, stacks, size,
    PADDED: tl.constexpr, WIDTH: tl.constexpr, POSITIONS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Store the gradients of TURNS, B1, B2, W2 and W1, one behind the other, of some positions."""
    w, f = tl.arange(0, WIDTH), tl.arange(0, PADDED)
    of_turns1, of_turns2 = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    of_b1, of_b2 = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    of_w2, of_w1 = tl.zeros([WIDTH, WIDTH], tl.float32), tl.zeros([WIDTH, PADDED], tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        t = tile * POSITIONS + tl.arange(0, POSITIONS)
        x, a1, turns1, w2, a2, turns2 = hidden(X, W1, B1, W2, B2, TURNS, t, length, features, PADDED, WIDTH, PRECISION)
        grad = tl.zeros([POSITIONS, WIDTH], tl.float32)
        for stack in range(0, stacks):
            row = stack * length + t[:, None]
            grad += tl.load(INNER_GRAD + row.to(tl.int64) * WIDTH + w[None, :], mask=t[:, None] < length, other=0.0)
        grad *= tl.cos(turns2 * a2)
        of_turns2 += tl.sum(grad * a2, 0)
        grad *= turns2
        of_b2 += tl.sum(grad, 0)
        of_w2 += tl.dot(tl.trans(grad), tl.sin(turns1 * a1), input_precision=PRECISION)
        grad = tl.dot(grad, w2, input_precision=PRECISION) * tl.cos(turns1 * a1)
        of_turns1 += tl.sum(grad * a1, 0)
        grad *= turns1
        of_b1 += tl.sum(grad, 0)
        of_w1 += tl.dot(tl.trans(grad), x, input_precision=PRECISION)
    own = PARTS + tl.program_id(0) * size + channels * (WIDTH + 1)
    tl.store(own + w, of_turns1)
    tl.store(own + WIDTH + w, of_turns2)
    tl.store(own + 2 * WIDTH + w, of_b1)
    tl.store(own + 3 * WIDTH + w, of_b2)
    tl.store(own + 4 * WIDTH + w[:, None] * WIDTH + w[None, :], of_w2)
    inside = f[None, :] < features
    tl.store(own + (4 + WIDTH) * WIDTH + w[:, None] * features + f[None, :], of_w1, mask=inside)


def implicit_filter(
    features: Any, w1: Any, b1: Any, w2: Any, b2: Any, turns: Any, last: Any, rates: Any, factors: Any
) -> Any:
    """Return ``(last sin(t2 (w2 sin(t1 (w1 features + b1)) + b2))) exp(-rates exp(factors) position)``.

    Parameters
    ----------
    features : Tensor
        (length, features), float32 on CUDA, like everything here; no gradient flows to it.
    w1, b1, w2, b2, turns : Tensor
        Weights and biases of the two hidden layers, (width, features), (width,), (width, width), (width,), and the
        factors (2, width) of what their sines are taken of.
    last, rates, factors : Tensor
        (channels, width), (channels, 1), (channels, 1); no gradient flows to ``rates``.

    Returns
    -------
    Tensor
        (channels, length).
    """
    return _Filter.apply(features, w1, b1, w2, b2, turns, last, rates, factors)


class _Filter(torch.autograd.Function):  # type: ignore[misc]
    """Keeps its operands, the inner layer, and the result, which whoever uses it keeps as well."""

    @staticmethod
    def forward(ctx: Any, features: Any, *parameters: Any) -> Any:
        parameters = tuple(x.contiguous() for x in parameters)
        *network, last, rates, factors = parameters
        (length, count), (channels, width) = features.shape, last.shape
        out, inner = features.new_empty((channels, length)), features.new_empty((length, width))
        _start(
            forward_kernel, (triton.cdiv(length, POSITIONS), 1), 4,
            (out, inner, features, *network, last, rates, factors, length, count, channels),
            (_padded(count), width, POSITIONS, CHANNELS, PRECISION),
        )  # fmt: skip
        ctx.save_for_backward(features, out, inner, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Any, ...]:
        features, out, inner, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            return _again(ctx, grad, features, *parameters)
        *network, last, rates, factors = parameters
        (length, count), (channels, width) = features.shape, last.shape
        tiles, stacks = triton.cdiv(length, POSITIONS), triton.cdiv(channels, CHANNELS)
        programs = min(tiles, PROGRAMS)
        sizes = [channels * width, channels, 2 * width, width, width, width * width, width * count]
        size = sum(sizes)
        parts = features.new_empty((programs, size))
        inner_grad = features.new_empty((stacks, length, width))
        _start(
            last_kernel, (programs, stacks), 8,
            (parts, inner_grad, grad.contiguous(), out, inner, last, rates, factors, length, channels,
             triton.cdiv(length, LAST_POSITIONS), size),
            (width, LAST_POSITIONS, CHANNELS, PRECISION),
        )  # fmt: skip
        _start(
            hidden_kernel, (programs, 1), 8,
            (parts, inner_grad, features, *network, length, count, channels, tiles, stacks, size),
            (_padded(count), width, POSITIONS, PRECISION),
        )  # fmt: skip
        of_last, of_factors, of_turns, of_b1, of_b2, of_w2, of_w1 = parts.sum(0).split(sizes)
        return (
            None, of_w1.view(width, count), of_b1, of_w2.view(width, width), of_b2, of_turns.view(2, width),
            of_last.view(channels, width), None, of_factors.view(factors.shape),
        )  # fmt: skip


def plain_filter(
    features: Any, w1: Any, b1: Any, w2: Any, b2: Any, turns: Any, last: Any, rates: Any, factors: Any
) -> Any:
    """Compute ``implicit_filter`` from calls that torch differentiates one by one."""
    inner = torch.sin(turns[0] * torch.nn.functional.linear(features, w1, b1))
    inner = torch.sin(turns[1] * torch.nn.functional.linear(inner, w2, b2))
    places = torch.arange(len(features), dtype=features.dtype, device=features.device)
    return (last @ inner.T) * torch.exp(-rates * factors.exp() * places)


def _again(ctx: Any, grad: Any, *operands: Any) -> tuple[Any, ...]:
    needed = [x for x, want in zip(operands, ctx.needs_input_grad) if want]
    found = iter(torch.autograd.grad(plain_filter(*operands), needed, grad, create_graph=True))
    return tuple(next(found) if want else None for want in ctx.needs_input_grad)


_made: dict[tuple[Any, ...], Any] = {}


def _start(
    kernel: Any, grid: tuple[int, int], warps: int, arguments: tuple[Any, ...], constants: tuple[Any, ...]
) -> None:
    """Start a kernel; one that was made for such arguments before without Triton's looking at each of them again."""
    device = arguments[0].device
    if device.type == "cuda" and device.index != torch.cuda.current_device():  # Triton starts kernels on that one
        with torch.cuda.device(device):
            return _start(kernel, grid, warps, arguments, constants)
    kinds = (x if isinstance(x, int) else x.data_ptr() % 16 for x in arguments)
    key = (kernel.__name__, device, *kinds, *constants)
    made = _made.get(key)
    if made is None:
        made = kernel[grid](*arguments, *constants, num_warps=warps, num_stages=1)
        if made is not None:  # the interpreter makes nothing
            if len(_made) >= MOST_MADE:
                _made.clear()
            _made[key] = made
    else:
        made[(*grid, 1)](*arguments, *constants)


def _padded(count: int) -> int:
    return max(triton.next_power_of_2(count), 16)
