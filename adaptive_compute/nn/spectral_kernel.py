"""Sums over a band-limited periodic kernel of learned positions, in time and memory that grow with the length.

    y[i] = sum_j K(a[i] - b[j]) v[j] / sum_j K(a[i] - b[j]),    K(t) = floor + |sum_{k=0..F} g[k] e^{ikt}|^2 / |g|^2

over all j, or over j <= i. K is real, at least ``floor``, and has the modes -F..F alone: its spectrum s is the
autocorrelation of g. So the sum over j factors through frequency: values are spread from b to modes, multiplied by s
and gathered at a. Two ways to spread and gather are the same sum: nonuniform FFTs, whose cost is O(N + F log F), and
products with the matrix e^{ikb}, whose cost is O(N F) with a much smaller constant.

The causal form is exact. Positions are cut into chunks; a query takes the modes of all chunks before its own (a running
sum) and, within its own chunk, K itself under a triangular mask. No value crosses to an earlier position, not even in
its rounding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from .. import fft, ifft, nufft
from ..core.errors import ArgumentError, ShapeError
from .convolution import _is_transformed

CHUNK = 64  # of the causal form: its direct part costs N * CHUNK, its states N / CHUNK
CPU_BYTES, GPU_BYTES = 1 << 23, 1 << 28  # of the waves that are worked on together
DIRECT_UP_TO, ON_GPU_UP_TO = 64, 512  # modes; measured by benchmarks/nn_attention.py --methods


class _Phases(torch.autograd.Function):  # type: ignore[misc]
    """e^{ikt} for k = 0..modes: two short tables in float64, and one product of each pair."""

    @staticmethod
    def forward(ctx: Any, t: Any, modes: int, real: Any) -> Any:
        ctx.dtype = t.dtype
        step = max(math.isqrt(modes + 1), 1)
        turns = torch.remainder(t.double(), 2 * math.pi)[..., None]
        fine = torch.arange(step, device=t.device) * turns
        coarse = torch.arange(0, modes + 1, step, device=t.device) * turns
        fine, coarse = (torch.complex(x.cos().to(real), x.sin().to(real)) for x in (fine, coarse))
        found = (coarse[..., :, None] * fine[..., None, :]).flatten(-2)[..., : modes + 1].contiguous()
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (found,) = ctx.saved_tensors
        k = torch.arange(found.shape[-1], device=found.device, dtype=found.real.dtype)
        # d/dt e^{ikt} = ik e^{ikt}; the gradient of a real t is the real part.
        both = torch.view_as_real(gradients[0].conj() * found)[..., 1]
        return -(both @ k).to(ctx.dtype), None, None


def phases(t: torch.Tensor, modes: int, dtype: Any = torch.float32) -> torch.Tensor:
    """Return e^{ikt} for k = 0..modes as a last axis, with parts in some dtype; the angles are taken in float64."""
    if _is_transformed(t):  # torch.func and forward mode look into what they are to transform
        angles = torch.remainder(t.double(), 2 * math.pi)[..., None] * torch.arange(modes + 1, device=t.device)
        return torch.complex(angles.cos().to(dtype), angles.sin().to(dtype))
    return _Phases.apply(t, modes, dtype)


def spectrum_of(g: torch.Tensor, floor: float) -> torch.Tensor:
    """Return the modes s[0..F] of the kernel that g defines: complex, (..., F + 1); s[-k] is the conjugate of s[k].

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute.nn.spectral_kernel import spectrum_of
    >>> spectrum_of(torch.tensor([1.0, 1.0]) + 0j, 0.25).tolist()
    [(1.25+0j), (0.5+0j)]
    """
    size = 2 * g.shape[-1]
    power = fft(g, size).abs().square()
    s = ifft(power)[..., : g.shape[-1]] / g.abs().square().sum(-1, keepdim=True)
    uniform = torch.zeros(s.shape[-1], dtype=s.dtype, device=s.device)
    uniform[0] = floor
    return s + uniform


def spectral_kernel_attention(
    a: torch.Tensor, b: torch.Tensor, values: torch.Tensor, spectrum: torch.Tensor, *, causal: bool = False,
    chunk: int = CHUNK, method: str | None = None, eps: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """Average values under a periodic kernel of the distance of positions.

    Parameters
    ----------
    a, b : Tensor, shape (groups, length)
        Positions of queries and keys in radians; periodic, so that any number will do. An error of their rounding
        counts F-fold, so that float64 is worth it where F is large. The NUFFTs compute in their dtype.
    values : Tensor, shape (groups, length, width)
        float32 or float64.
    spectrum : Tensor, shape (groups, F + 1)
        The kernel's modes 0..F, complex: what `spectrum_of` returns.
    causal : bool
        Let query i see the keys j <= i alone.
    chunk : int
        Positions of a chunk in the causal form.
    method : {"nufft", "direct"}, optional
        How to spread and gather; by default "direct" in the causal form and up to 64 modes (on CUDA 512), else "nufft".
    eps : float, optional
        Relative error asked of the NUFFTs: by default 1e-6 for float32 values, 1e-12 for float64.

    Returns
    -------
    Tensor, shape (groups, length, width)
        ``sum_j K(a_i - b_j) values_j / sum_j K(a_i - b_j)``.

    Raises
    ------
    ShapeError, ArgumentError
        If shapes disagree, or there is no such method.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute.nn.spectral_kernel import spectral_kernel_attention, spectrum_of
    >>> a = torch.tensor([[0.0, 3.0]])
    >>> s = spectrum_of(torch.ones(1, 8) + 0j, 1e-3)
    >>> spectral_kernel_attention(a, a, torch.tensor([[[1.0], [5.0]]]), s).round().flatten().tolist()
    [1.0, 5.0]
    """
    groups, length, _ = values.shape
    if a.shape != (groups, length) or b.shape != (groups, length) or spectrum.shape[:-1] != (groups,):
        raise ShapeError(
            f"a {tuple(a.shape)}, b {tuple(b.shape)} and spectrum {tuple(spectrum.shape)} must be (groups, length), "
            f"(groups, length) and (groups, modes + 1) for values {tuple(values.shape)}"
        )
    if method not in (None, "nufft", "direct"):
        raise ArgumentError(f"method={method!r} is not accepted; use 'nufft', 'direct' or None")
    if groups == 0:
        return values * a[..., None]
    modes = spectrum.shape[-1] - 1
    eps = eps or (1e-6 if values.dtype == torch.float32 else 1e-12)
    few = ON_GPU_UP_TO if values.is_cuda else DIRECT_UP_TO
    method = method or ("direct" if causal or modes <= few else "nufft")
    values = torch.cat([values, values.new_ones(groups, length, 1)], -1)  # the normaliser is one more value
    both = _causal(a, b, values, spectrum, chunk, method, eps) if causal else _all(a, b, values, spectrum, method, eps)
    return both[..., :-1] / both[..., -1:]


def _all(a: Any, b: Any, values: Any, spectrum: Any, method: str, eps: float) -> torch.Tensor:
    if method == "nufft":
        return _gather(a, _spread(b, values, spectrum.shape[-1] - 1, eps), spectrum, values.shape[-1], eps)
    size = _block(values, spectrum)
    alone = size >= a.shape[1]
    parts = [_run(alone, _state, *part, spectrum) for part in zip(b.split(size, 1), values.split(size, 1))]
    state = torch.stack(parts).sum(0)
    return torch.cat([_run(alone, _answer, part, state, spectrum) for part in a.split(size, 1)], 1)


def _state(b: Any, values: Any, spectrum: Any) -> torch.Tensor:
    return _keys(b, spectrum).mT @ values


def _answer(a: Any, state: Any, spectrum: Any) -> torch.Tensor:
    return _queries(a, spectrum) @ state


def _causal(a: Any, b: Any, values: Any, s: Any, chunk: int, method: str, eps: float) -> torch.Tensor:
    length = values.shape[1]
    chunk = min(chunk, length)
    pad = -length % chunk
    a, b = (torch.nn.functional.pad(x, (0, pad)).unflatten(1, (-1, chunk)) for x in (a, b))
    values = torch.nn.functional.pad(values, (0, 0, 0, pad)).unflatten(1, (-1, chunk))
    if method == "nufft":
        return _causal_by_nufft(a, b, values, s[:, None], eps).flatten(1, 2)[:, :length]
    state = values.new_zeros(len(values), 2 * s.shape[-1], values.shape[-1])
    found, size = [], max(_block(values.flatten(1, 2), s) // chunk, 1)
    for part in zip(*(x.split(size, 1) for x in (a, b, values))):
        answers, state = _run(size >= a.shape[1], _causal_part, *part, s[:, None], state)
        found.append(answers)
    return torch.cat(found, 1).flatten(1, 2)[:, :length]


def _causal_part(a: Any, b: Any, values: Any, s: Any, state: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer the queries of some chunks, given the modes of all before them; return also the modes with theirs."""
    queries, keys = _queries(a, s), _keys(b, s)
    within = (queries @ keys.mT).tril() @ values
    states = torch.cat([state[:, None], keys.mT @ values], 1).cumsum(1)
    return within + queries @ states[:, :-1], states[:, -1]


def _causal_by_nufft(a: Any, b: Any, values: Any, s: Any, eps: float) -> torch.Tensor:
    groups, count, _, width = values.shape
    found = (_queries(a, s) @ _keys(b, s).mT).tril() @ values
    if count == 1:
        return found
    states = _spread(b[:, :-1].flatten(0, 1), values[:, :-1].flatten(0, 1), s.shape[-1] - 1, eps)
    before = states.unflatten(0, (groups, count - 1)).cumsum(1).flatten(0, 1)
    later = _gather(a[:, 1:].flatten(0, 1), before, s.expand(-1, count - 1, -1).flatten(0, 1), width, eps)
    return torch.cat([found[:, :1], found[:, 1:] + later.unflatten(0, (groups, count - 1))], 1)


def _block(values: torch.Tensor, spectrum: torch.Tensor) -> int:
    """Return how many positions are worked on together: few enough that their waves take little memory."""
    position = len(values) * spectrum.shape[-1] * 2 * values.element_size()
    return max((GPU_BYTES if values.is_cuda else CPU_BYTES) // position, CHUNK)


def _run(alone: bool, function: Any, *given: Any) -> Any:
    """Run a block: where it is one of several, its waves are computed again for its gradient and not held till then."""
    return function(*given) if alone else checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False)


def _keys(b: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """Return cos(kb) and sin(kb), interleaved: with `_queries` the two factors of K(a - b)."""
    return torch.view_as_real(phases(b, spectrum.shape[-1] - 1, spectrum.real.dtype)).flatten(-2)


def _queries(a: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    # Modes k and -k together: s_k e^{ik(a - b)} plus its conjugate.
    real = spectrum.real.dtype
    twice = torch.full((spectrum.shape[-1],), 2.0, dtype=real, device=a.device)
    twice[0] = 1.0
    turning = phases(a, spectrum.shape[-1] - 1, real)
    return torch.view_as_real(turning * (spectrum * twice)[..., None, :]).flatten(-2)


def _spread(b: torch.Tensor, values: torch.Tensor, modes: int, eps: float) -> torch.Tensor:
    """Return sum_j values_j e^{-ik b_j} for k = -modes..modes; two real columns share a complex one."""
    values = torch.nn.functional.pad(values, (0, values.shape[-1] % 2))
    columns = torch.view_as_complex(values.to(b.dtype).unflatten(-1, (-1, 2)).contiguous()).mT.contiguous()
    made = [nufft.nufft1d1(x, c, 2 * modes + 1, eps=eps, isign=-1) for x, c in zip(_within(b), columns)]
    return torch.stack([m if m.ndim > 1 else m[None] for m in made])


def _gather(a: torch.Tensor, states: torch.Tensor, spectrum: torch.Tensor, width: int, eps: float) -> Any:
    """Return sum_k s_k states_k e^{ik a_i}: real columns, because K is real."""
    whole = torch.cat([spectrum[:, 1:].flip(-1).conj(), spectrum], -1)
    weighted = states * whole[:, None]
    made = [nufft.nufft1d2(x, m, eps=eps, isign=1) for x, m in zip(_within(a), weighted)]
    columns = torch.stack([c if c.ndim > 1 else c[None] for c in made])
    return torch.view_as_real(columns.mT).flatten(-2)[..., :width].to(spectrum.real.dtype)


def _within(t: torch.Tensor) -> torch.Tensor:
    """Return positions in [-pi, pi), where a dtype holds them best; turns are taken off in float64."""
    return (torch.remainder(t.double() + math.pi, 2 * math.pi) - math.pi).to(t.dtype)
