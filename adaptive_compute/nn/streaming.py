"""Convolution while its input arrives: chunks of any size, O(log^2) work for a position, exactly the full result.

What is known of the future is worked out as soon as whole blocks of the past are there (relaxed multiplication [1]_).
After n positions, with L the largest power of two that divides n, the last L inputs are convolved with the lags 1 ...
2L - 1 and added to the next L outputs. Each pair of an earlier input and a later output meets in exactly one such tile:
at the boundary above which their binary positions agree. A chunk is taken in aligned pieces whose sizes are powers of
two; within a piece, outputs come from one transform, as all that is earlier has been added already. A kernel of K
taps needs no tile larger than the power of two P >= K, so that a stream may go on without end in memory for 2P values.

A state is a dict of tensors. ``step`` brings it up to date in place, and returns it.

References
----------
.. [1] J. van der Hoeven, "Relax, but don't be too lazy", J. Symb. Comp. 34 (2002), section 4
"""

from __future__ import annotations

from typing import Any

import torch

import adaptive_compute as ac

from ..core.errors import ArgumentTypeError, BackendUnavailable, ShapeError
from .convolution import causal_convolution
from .layer import working_dtype

DIRECT = 32  # tiles up to this size are products with a matrix

State = dict[str, Any]


def initial_convolution(h: Any, batch: int, name: str = "") -> State:
    """Return the state of a causal convolution that has seen nothing.

    Parameters
    ----------
    h : Tensor
        (dim, taps).
    batch : int
        Sequences that are streamed side by side.
    name : str
        Put before each key, so that several states fit in one dict.

    Returns
    -------
    dict of Tensor
        "position" (a whole number), "past" and "coming" (dim, batch, P), "kernel" (dim, 2P), "within" for short pieces,
        and "tile<L>" for each size of tile: what they are multiplied with.
    """
    h = h.detach().to(working_dtype(h.dtype))
    size = 1 << (h.shape[1] - 1).bit_length()
    kernel = torch.nn.functional.pad(h, (0, 2 * size - h.shape[1]))
    state = {
        f"{name}position": torch.zeros((), dtype=torch.int64),
        f"{name}past": h.new_zeros((h.shape[0], batch, size)),
        f"{name}coming": h.new_zeros((h.shape[0], batch, size)),
        f"{name}kernel": kernel,
    }
    places = torch.arange(min(DIRECT, size), device=h.device)
    lags = places - places[:, None]  # from a row (input) to a column (output)
    state[f"{name}within"] = kernel[:, lags.clamp_min(0)] * (lags >= 0)
    tile = 1
    while tile <= size:
        if tile <= DIRECT:
            state[f"{name}tile{tile}"] = kernel[:, tile + lags[:tile, :tile]]
        else:
            state[f"{name}tile{tile}"] = ac.rfft(kernel[:, : 2 * tile])[:, None]
        tile *= 2
    return state


def convolve_step(u: Any, state: State, name: str = "") -> Any:
    """Return a chunk's part of the causal convolution, and bring the state up to date.

    Parameters
    ----------
    u : Tensor
        (dim, batch, positions): the positions that follow those seen so far.
    state : dict
        From ``initial_convolution``; changed in place.
    name : str
        As it was given there.

    Returns
    -------
    Tensor
        Like ``u``.
    """
    past, coming, kernel = state[f"{name}past"], state[f"{name}coming"], state[f"{name}kernel"]
    size = past.shape[2]
    out = torch.empty_like(u)
    start, done, end = int(state[f"{name}position"]), 0, u.shape[2]
    while done < end:
        here = start + done
        piece = min(here & -here or size, size, 1 << (end - done).bit_length() - 1)
        at, fresh = here % size, u[..., done : done + piece].to(past.dtype)
        past[..., at : at + piece] = fresh
        within = coming[..., at : at + piece]
        out[..., done : done + piece] = within + _within(fresh, kernel, state[f"{name}within"])
        within.zero_()
        done += piece
        after = start + done
        tile = min(after & -after, size)
        at, source = after % size, (after - tile) % size
        coming[..., at : at + tile] += _across(past[..., source : source + tile], state[f"{name}tile{tile}"], tile)
    state[f"{name}position"].add_(end)
    return out


def _within(piece: Any, kernel: Any, matrix: Any) -> Any:
    """Return what a piece adds to its own outputs."""
    size = piece.shape[2]
    if size <= matrix.shape[1]:
        return piece @ matrix[:, :size, :size]
    return causal_convolution(piece.transpose(0, 1), kernel[:, :size]).transpose(0, 1)


def _across(block: Any, tile: Any, size: int) -> Any:
    """Return what a block adds to the block of outputs after it."""
    if size <= DIRECT:
        return block @ tile
    # Circular over 2 L points: what wraps around falls on the first half, which is not asked for.
    return ac.irfft(ac.rfft(block, 2 * size) * tile, 2 * size)[..., size:]


def initial_shift(channels: int, taps: int, batch: int, like: Any, name: str = "") -> State:
    """Return the state of a short convolution of ``taps`` taps that has seen nothing."""
    return {f"{name}latest": like.new_zeros((channels, batch, taps - 1), dtype=working_dtype(like.dtype))}


def shift_step(u: Any, taps: Any, state: State, name: str = "") -> Any:
    """Return a chunk's part of the short causal convolution of (channels, batch, positions) with (channels, taps).

    It is in the state's dtype, which is that of sums.
    """
    latest, count = state[f"{name}latest"], u.shape[2]
    whole, taps = torch.cat([latest, u.to(latest.dtype)], 2), taps.to(latest.dtype)
    first = latest.shape[2]
    out = whole[..., first:] * taps[:, None, :1]
    for j in range(1, taps.shape[1]):
        out.addcmul_(whole[..., first - j : first - j + count], taps[:, None, j : j + 1])
    latest.copy_(whole[..., count:])
    return out


def checked_state(state: Any, key: str, x: Any) -> State:
    """Return a state that goes with a chunk (batch, positions, dim), or say what is wrong with it."""
    if not isinstance(state, dict) or key not in state:
        raise ArgumentTypeError("state must be what initial_state or an earlier step of this layer returned")
    if state[key].shape[1] != x.shape[0]:
        raise ShapeError(f"chunk has a batch of {x.shape[0]}, state one of {state[key].shape[1]}")
    if state[key].device != x.device:
        raise BackendUnavailable(f"chunk is on {x.device}, state on {state[key].device}; move one of them")
    return state
