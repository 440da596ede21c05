"""Long kernels: learned point by point, of low rank, given by a small network, or finer near by than far away.

A filter is a module whose ``kernel()`` is (channels, max_length), real, for the lags 0, 1, 2, ... It does not depend on
the length of a call, so that a prefix is filtered as the whole is. ``Shaped`` changes another filter's spectrum.
"""

from __future__ import annotations

import inspect
import math
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch

import adaptive_compute as ac

from ..core.errors import ArgumentError, ArgumentTypeError
from .blocks import fast_length
from .convolution import _is_transformed
from .layer import one_of, whole, working_dtype

FILTERS = ("full", "low-rank", "implicit", "multi-scale")


def make_filter(kind: str, channels: int, max_length: int, **options: Any) -> Any:
    """Return a filter by its name: 'full', 'low-rank', 'implicit' or 'multi-scale'; ``options`` go to its class.

    Examples
    --------
    >>> from adaptive_compute.nn.filters import make_filter
    >>> make_filter("low-rank", 4, 100, rank=2).kernel().shape
    torch.Size([4, 100])
    """
    classes = (FullFilter, LowRankFilter, ImplicitFilter, MultiScaleFilter)
    made = dict(zip(FILTERS, classes))[one_of(kind, "filter", FILTERS)]
    known = list(inspect.signature(made).parameters)[2:]
    for name in options:
        if name not in known:
            raise ArgumentTypeError(f"filter {kind!r} has no option {name!r}; it has {', '.join(known) or 'none'}")
    return made(whole(channels, "channels"), whole(max_length, "max_length"), **options)


def _windows(channels: int, max_length: int, shortest: float | None, longest: float | None) -> torch.Tensor:
    """Return decay rates, (channels, 1): windows fall to 1 % within ``shortest`` to ``longest`` positions."""
    last = 1.5 * max_length if longest is None else float(longest)
    first = min(max(0.05 * max_length, 4.0), last) if shortest is None else float(shortest)
    for name, value in (("shortest", first), ("longest", last)):
        if not 0 < value < math.inf:
            raise ArgumentError(f"{name} must be a positive number of positions, got {value!r}")
    reach = torch.logspace(math.log10(first), math.log10(last), channels, dtype=torch.float64)
    return (math.log(100) / reach)[:, None]


def _unit(kernel: torch.Tensor) -> torch.Tensor:
    """Return a kernel scaled so that each channel keeps the variance of white noise."""
    return kernel / kernel.norm(dim=1, keepdim=True).clamp_min(1e-12)


class FullFilter(torch.nn.Module):  # type: ignore[misc]
    """Every value of every kernel is a parameter; they begin as noise under exponential windows.

    Examples
    --------
    >>> from adaptive_compute.nn.filters import FullFilter
    >>> FullFilter(4, 100).kernel().shape
    torch.Size([4, 100])
    """

    def __init__(self, channels: int, max_length: int) -> None:
        super().__init__()
        window = torch.exp(-_windows(channels, max_length, None, None) * torch.arange(max_length)).float()
        self.weight = torch.nn.Parameter(_unit(torch.randn(channels, max_length) * window))

    def kernel(self) -> Any:
        """Return the kernels (channels, max_length)."""
        return self.weight


class LowRankFilter(torch.nn.Module):  # type: ignore[misc]
    """Each kernel is a mixture of ``rank`` common ones.

    Examples
    --------
    >>> from adaptive_compute.nn.filters import LowRankFilter
    >>> sum(p.numel() for p in LowRankFilter(256, 1024, rank=8).parameters())
    10240
    """

    def __init__(self, channels: int, max_length: int, rank: int = 16) -> None:
        super().__init__()
        whole(rank, "rank")
        window = torch.exp(-_windows(rank, max_length, None, None) * torch.arange(max_length)).float()
        self.shapes = torch.nn.Parameter(_unit(torch.randn(rank, max_length) * window))
        self.shares = torch.nn.Parameter(torch.randn(channels, rank) / math.sqrt(rank))

    def kernel(self) -> Any:
        """Return the kernels (channels, max_length)."""
        return self.shares @ self.shapes


class _Tabled(torch.nn.Module):  # type: ignore[misc]
    """A module with tables that its arguments alone decide: made anew wherever, and in whatever dtype, it is moved to.

    So a module that was made on ``torch.device("meta")`` has them after ``to_empty``, and one that was in half
    precision for a while has lost nothing of them. They are no part of the state.
    """

    def tables(self) -> dict[str, torch.Tensor]:
        """Return the tables by name, on the CPU, real ones in float64."""
        raise NotImplementedError

    def _place_tables(self, like: torch.Tensor | None = None) -> None:
        for name, table in self.tables().items():
            if table.is_floating_point():
                table = table.to(torch.float32 if like is None else like.dtype)
            device = torch.get_default_device() if like is None else like.device
            self.register_buffer(name, table.to(device), persistent=False)

    def _apply(self, *args: Any, **options: Any) -> Any:
        super()._apply(*args, **options)
        self._place_tables(next(self.parameters()))
        return self


class ImplicitFilter(_Tabled):
    """A small network of the position gives every kernel's values, under exponential windows [1]_.

    Parameters
    ----------
    channels, max_length : int
        What ``kernel()`` is shaped like.
    width, depth : int
        Width of the network, and how many hidden layers it has; their activation is the sine.
    bands : int
        The position enters as itself and as the cosine and sine of ``1 ... bands`` turns over ``max_length``.
    shortest, longest : float, optional
        Positions within which the fastest and the slowest window fall to 1 %; between them the channels' windows are
        spaced evenly in the logarithm. Default: a twentieth of ``max_length``, and one and a half times as much. The
        windows are learned, as factors that begin at 1.

    References
    ----------
    .. [1] M. Poli et al., "Hyena Hierarchy: Towards Larger Convolutional Language Models", 2023, arXiv:2302.10866

    Examples
    --------
    >>> from adaptive_compute.nn.filters import ImplicitFilter
    >>> ImplicitFilter(4, 100).kernel().shape
    torch.Size([4, 100])
    """

    def __init__(
        self, channels: int, max_length: int, width: int = 64, depth: int = 2, bands: int = 16,
        shortest: float | None = None, longest: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, value in (("width", width), ("depth", depth), ("bands", bands)):
            whole(value, name)
        self._size = (channels, max_length, bands, shortest, longest)
        self._place_tables()
        self.log_factors = torch.nn.Parameter(torch.zeros(channels, 1))
        sizes = [2 * bands + 1, *[width] * depth]
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in pairwise(sizes))
        # The first layer's sines should turn several times over the length, or the kernels begin as straight lines.
        self.frequency = torch.nn.Parameter(torch.full((depth, width), 4.0))
        self.last = torch.nn.Linear(width, channels, bias=False)
        with torch.no_grad():
            self.last.weight /= self.kernel().norm(dim=1, keepdim=True).clamp_min(1e-12)

    def tables(self) -> dict[str, torch.Tensor]:
        """Return the network's input and the windows' rates."""
        channels, max_length, bands, shortest, longest = self._size
        with torch.device("cpu"):
            place = torch.arange(max_length, dtype=torch.float64)[:, None] / max_length
            turns = 2 * math.pi * place * torch.arange(1, bands + 1)
            features = torch.cat([place, turns.cos(), turns.sin()], 1)
            return {"features": features, "rates": _windows(channels, max_length, shortest, longest)}

    def kernel(self) -> Any:
        """Return the kernels (channels, max_length)."""
        x = self.features
        if x.is_cuda and find_spec("triton") is not None and not _is_transformed(x):
            from .kernels.implicit_filter import implicit_filter, supports

            if supports(x, *self.frequency.shape[::-1]):
                first, second = self.hidden
                return implicit_filter(
                    x, first.weight, first.bias, second.weight, second.bias, self.frequency, self.last.weight,
                    self.rates, self.log_factors,
                )  # fmt: skip
        for layer, frequency in zip(self.hidden, self.frequency):
            x = torch.sin(frequency * layer(x))
        places = torch.arange(len(x), dtype=working_dtype(x.dtype), device=x.device)  # float16 ends at 65504
        return (self.last.weight @ x.T) * torch.exp(-self.rates * self.log_factors.exp() * places).to(x.dtype)


class MultiScaleFilter(_Tabled):
    """Fine near by, coarse far away: every octave of lags has equally many values, between which lines are drawn [1]_.

    Band 0 are the first ``points`` lags, band b > 0 the lags from ``points 2^(b-1)`` to ``points 2^b``. The bands'
    values begin smaller by ``decay`` from each to the next, and a kernel has about ``points log2(max_length / points)``
    parameters.

    References
    ----------
    .. [1] Y. Li et al., "What Makes Convolutional Models Great on Long Sequence Modeling?", 2022, arXiv:2210.09298

    Examples
    --------
    >>> from adaptive_compute.nn.filters import MultiScaleFilter
    >>> kernels = MultiScaleFilter(4, 1000, points=16)
    >>> kernels.kernel().shape, kernels.weight.shape
    (torch.Size([4, 1000]), torch.Size([4, 113]))
    """

    def __init__(self, channels: int, max_length: int, points: int = 16, decay: float = 0.5) -> None:
        super().__init__()
        whole(points, "points")
        self._size = (max_length, points)
        self._place_tables()
        count = len(self._knots())
        scale = decay ** (torch.arange(count) // points).float()
        self.weight = torch.nn.Parameter(torch.randn(channels, count) * scale)
        with torch.no_grad():
            self.weight /= self.kernel().norm(dim=1, keepdim=True)

    def _knots(self) -> torch.Tensor:
        max_length, points = self._size
        octaves = max(math.ceil(math.log2(max_length / points)), 0)
        starts = [0, *(points << b for b in range(octaves))]
        with torch.device("cpu"):
            return torch.cat(
                [start + torch.arange(points, dtype=torch.float64) * max(start, points) / points for start in starts]
                + [torch.tensor([float(points << octaves)], dtype=torch.float64)]
            )

    def tables(self) -> dict[str, torch.Tensor]:
        """Return for each lag the knot after it, and the share of that one's value."""
        knots = self._knots()
        with torch.device("cpu"):
            lags = torch.arange(self._size[0], dtype=torch.float64)
            right = torch.searchsorted(knots, lags, right=True).clamp_max(len(knots) - 1)
            return {"right": right, "share": (lags - knots[right - 1]) / (knots[right] - knots[right - 1])}

    def kernel(self) -> Any:
        """Return the kernels (channels, max_length)."""
        return torch.lerp(self.weight[:, self.right - 1], self.weight[:, self.right], self.share)


class Shaped(_Tabled):
    """Another filter with its spectrum changed: turned by rotary phases, or scaled and turned band by band.

    The kernel is transformed over ``n >= 2 max_length`` points, multiplied, transformed back, and cut to the lags
    0 ... max_length - 1 again: what a phase moves to before lag zero is dropped, so that the kernel stays causal.

    Parameters
    ----------
    inner : Module
        Filter whose ``kernel()`` is changed.
    channels, max_length : int
        What that is shaped like.
    rotary : bool
        Turn bin k by ``exp(-2 pi i k delay / n)``, with a learned delay for each channel (in positions, not
        necessarily whole).
    phase : bool
        Multiply with ``exp(gain + i phase)``, learned for each channel at ``points`` frequencies from 0 to one half,
        with straight lines between: magnitude and phase apart.
    points : int
        See above.

    Examples
    --------
    >>> from adaptive_compute.nn.filters import FullFilter, Shaped
    >>> Shaped(FullFilter(4, 100), 4, 100, rotary=True).kernel().shape
    torch.Size([4, 100])
    """

    def __init__(
        self, inner: Any, channels: int, max_length: int, rotary: bool = False, phase: bool = False, points: int = 9
    ) -> None:
        super().__init__()
        self.inner = inner
        self.n = fast_length(2 * max_length)
        self._points = whole(points, "points", 2)
        self._place_tables()
        start = torch.logspace(0, -4, channels, base=10.0)[:, None] if rotary else None
        self.delay = None if start is None else torch.nn.Parameter(start)
        self.gain = torch.nn.Parameter(torch.zeros(channels, points)) if phase else None
        self.phase = torch.nn.Parameter(torch.zeros(channels, points)) if phase else None

    def tables(self) -> dict[str, torch.Tensor]:
        """Return for each bin the point below it, and how far it is towards the next."""
        with torch.device("cpu"):
            place = torch.linspace(0, self._points - 1, self.n // 2 + 1, dtype=torch.float64)
            below = place.long().clamp_max(self._points - 2)
            return {"below": below, "share": place - below}

    def kernel(self) -> Any:
        """Return the kernels (channels, max_length)."""
        plain = self.inner.kernel()
        work = plain.to(working_dtype(plain.dtype))
        spectrum = ac.rfft(work, self.n)
        if self.delay is not None:
            bins = torch.arange(self.n // 2 + 1, dtype=work.dtype, device=work.device)
            angle = (-2 * math.pi / self.n) * self.delay.to(work.dtype) * bins
            spectrum = spectrum * torch.polar(torch.ones_like(angle), angle)
        if self.gain is not None and self.phase is not None:
            gain, phase = (self._between(p.to(work.dtype)) for p in (self.gain, self.phase))
            spectrum = spectrum * torch.polar(gain.exp(), phase)
        return ac.irfft(spectrum, self.n)[:, : plain.shape[1]].to(plain.dtype)

    def _between(self, values: Any) -> Any:
        return torch.lerp(values[:, self.below], values[:, self.below + 1], self.share.to(values.dtype))
