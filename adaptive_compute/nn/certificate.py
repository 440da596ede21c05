"""Does a module see the future? Two questions put to a float64 copy of it: one with values, one with gradients.

Values: inputs at positions >= t are changed; outputs at positions < t must stay as they were. Gradients: of an output
at t with respect to the inputs, what falls on positions > t. The first needs no derivative and finds leaks through
comparisons and ranks; the second looks at every pair of positions at once.

"As they were" means bit for bit where nothing is rounded differently, which holds for direct sums but for no FFT: there
every output is rounded together with the future's values. So a change counts as a leak by this model of rounding, with
eps the precision, T the length and peak the largest value seen:

- up to ``4 eps`` of the largest output: rounding;
- above ``64 eps log2(2T)`` of the peak, more than a few dozen transforms in a row lose: a leak;
- in between the module is asked. The changed future is changed again by a thousandth. A leak then shrinks by a
  thousand; rounding stays as large as it was. Sixteen times what this second change did is the limit.

What would stay hidden behind parameters that start at zero is brought out by a second pass over a copy whose
parameters were shaken, in training mode, where statistics of the batch are taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from .subject import Subject

LOUD = 32.0  # the second change's size: what only large values bring about
SMALL = 2.0**-10  # the change by which rounding and leaks are told apart
DRAWS = 3  # small changes, the largest effect of which is taken
MARGIN = 16.0  # over the largest effect of the small changes
SURELY_ROUNDING, SURELY_LEAK = 4.0, 64.0  # in eps of the largest output; in eps log2(2T) of the largest value
MOST = 32  # positions that are looked at unless told


class Leak(NamedTuple):
    """The earliest output that saw what it must not see.

    Attributes
    ----------
    output : int
        Position of the output; for ``found_by="batch"`` the sequence's place in the batch.
    input : int
        Earliest position among the inputs that it saw (or the place of the other sequence).
    size : float
        How much the output changed, relative to the largest value; for a gradient, relative to the largest one.
    found_by : str
        "perturbation", "gradient" or "batch".
    mode : str
        "eval" (parameters as they are) or "train" (parameters shaken).
    """

    output: int
    input: int
    size: float
    found_by: str
    mode: str


@dataclass(frozen=True)
class CausalityReport:
    """What :func:`certify_causal` found.

    Attributes
    ----------
    causal : bool
        True where no output depends on a later input or on another sequence of the batch.
    first_leak : Leak or None
        The earliest output that did.
    future_gradient_share : float or None
        Sum of \\|d out_t / d in_s\\| over s > t, divided by the sum over all s; outputs are taken in random directions.
        Rounding alone gives about 1e-17 to 1e-15. None where the module passes no gradient to its inputs.
    largest_change : float
        Largest change of an output before the changed inputs, relative to the largest value.
    threshold : float
        Largest change, likewise relative, that was put down to rounding: a leak smaller than this would not be seen.
    exact : bool
        True where not one bit of an earlier output changed.
    positions : tuple of int
        Each t at which inputs from t on were changed.
    shape, dtype : tuple of int, str
        What was fed.
    """

    causal: bool
    first_leak: Leak | None
    future_gradient_share: float | None
    largest_change: float
    threshold: float
    exact: bool
    positions: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        plain = asdict(self)
        if self.first_leak is not None:
            plain["first_leak"] = self.first_leak._asdict()
        return plain

    def __str__(self) -> str:
        share = "none passed" if self.future_gradient_share is None else f"{self.future_gradient_share:.1e}"
        what = f"{len(self.positions)} positions of {self.shape[1]}, {self.dtype}; future gradient share {share}"
        if self.first_leak is None:
            change = "bit for bit" if self.exact else f"to {self.largest_change:.1e}, rounding to {self.threshold:.1e}"
            return f"causal ({what}; earlier outputs stay {change})"
        leak = self.first_leak
        kind = "sequence" if leak.found_by == "batch" else "position"
        return (
            f"NOT causal ({what}): output {kind} {leak.output} sees input {kind} {leak.input}, "
            f"size {leak.size:.1e}, by {leak.found_by} in {leak.mode} mode"
        )


def certify_causal(
    module: nn.Module,
    shape: Sequence[int],
    *,
    vocabulary: int | None = None,
    tokens: torch.dtype = torch.int64,
    dtype: torch.dtype = torch.float64,
    positions: Sequence[int] | None = None,
    seed: int = 0,
) -> CausalityReport:
    """Find out whether outputs of a module depend on later inputs.

    Parameters
    ----------
    module : torch.nn.Module
        Called with one tensor; returns one with the same batch and length, or a tuple that begins with it. It is copied
        and never changed.
    shape : sequence of int
        (batch, length, ...) of the input. With a batch of at least 2 it is also found out whether sequences see each
        other. Odd lengths show what even ones hide.
    vocabulary : int, optional
        For modules that take integers: these are drawn from 0 to ``vocabulary - 1``, and gradients are taken with
        respect to what ``torch.nn.Embedding`` makes of them.
    tokens : torch.dtype, optional
        Of these integers: uint8 for layers over bytes.
    dtype : torch.dtype, optional
        Of the copy's parameters and of inputs that are not integers. float64 sees leaks down to about 1e-13; complex128
        feeds complex values; the lower ones are for kernels that run in no other.
    positions : sequence of int, optional
        Each t (1 to length - 1) from which on inputs are changed. Default: all of a short sequence, otherwise 32: both
        ends, the middle, powers of two and their neighbours, and random ones.
    seed : int, optional
        Of the inputs, of the module's own random numbers (dropout) and of the chosen positions.

    Returns
    -------
    CausalityReport
        ``causal``, ``first_leak``, ``future_gradient_share`` and what they rest on.

    Raises
    ------
    ArgumentError
        Where the certificate would say nothing: outputs that are not finite, depend on no input, or differ from call to
        call for the same input.
    ShapeError
        Where the shape has no length above 1, or the outputs' length is not the inputs'.

    Notes
    -----
    Both passes restore the module's buffers and random numbers before each call, so that dropout and modules with a
    state give comparable answers. A certificate is for the shape it was asked for: a module that leaks only at other
    lengths must be asked there.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> class Mean(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x - x.mean(1, keepdim=True)
    >>> report = nn.certify_causal(Mean(), (2, 9, 4))
    >>> report.causal, report.first_leak.output, round(report.future_gradient_share, 2)
    (False, 0, 0.25)
    >>> nn.certify_causal(torch.nn.Linear(4, 4), (2, 9, 4)).causal
    True
    """
    size = _checked(module, shape, vocabulary, tokens, dtype)
    drawn = (vocabulary, tokens) if vocabulary else None
    chosen = _positions(size[1], positions, seed)
    passes = [
        _Pass(Subject(module, dtype, mode, shake=mode == "train", seed=seed), size, drawn, mode, seed)
        for mode in ("eval", "train")
    ]
    for each in passes:
        each.change_the_future(chosen)
        each.change_a_sequence()
        each.follow_gradients(chosen)
    if not any(each.responds for each in passes):
        raise ArgumentError(
            "module: its outputs depend on none of its inputs, so that a certificate would say nothing; accepted: a "
            "module with parameters that let something through"
        )
    leaks = [leak for each in passes for leak in each.leaks]
    shares = [each.share for each in passes if each.share is not None]
    largest = max(each.largest for each in passes)
    return CausalityReport(
        causal=not leaks,
        first_leak=min(leaks, key=lambda leak: (leak.found_by == "batch", leak.output, leak.input), default=None),
        future_gradient_share=max(shares, default=None),
        largest_change=largest,
        threshold=max(each.allowed for each in passes),
        exact=largest == 0.0,
        positions=chosen,
        shape=size,
        dtype=str(dtype).removeprefix("torch."),
    )


class _Pass:
    """One copy of the module, in one mode, and what was found out about it."""

    def __init__(self, subject: Subject, shape: tuple[int, ...], tokens: Any, mode: str, seed: int) -> None:
        self.subject, self.shape, self.tokens, self.mode = subject, shape, tokens, mode
        self.random = torch.Generator().manual_seed(seed)
        self.leaks: list[Leak] = []
        self.share: float | None = None
        self.largest = self.allowed = 0.0
        self.rounding = {1.0: 0.0, LOUD: 0.0}  # by loudness: what may be rounding, relative to the largest value
        self.responds = False
        self.eps = torch.finfo(subject.dtype).eps
        self.input = self._draw()
        self.output = subject.settled(self.input, self._draw(), self._surely_leak)

    def change_the_future(self, positions: Sequence[int]) -> None:
        """Change the inputs from each position on, and look at the outputs before it."""
        first: Leak | None = None
        for t in positions:
            for loudness in (1.0, LOUD)[: 1 if self.tokens else 2]:
                changed = self._with(slice(t, None), loudness)
                output = self.subject(changed)
                self.responds |= bool((output[:, t:] != self.output[:, t:]).any())
                change = _difference(output, self.output)[:, :t].amax(0)
                limit, scale = self._limit(changed, output, t, loudness, float(change.max()))
                if scale:
                    self.largest = max(self.largest, float(change.max()) / scale)
                    self.allowed = max(self.allowed, limit / scale)
                seen = (change > limit).nonzero()
                if len(seen) and (first is None or int(seen[0]) < first.output):
                    first = Leak(int(seen[0]), t, float(change.max()) / scale, "perturbation", self.mode)
        self.leaks += [first] if first else []

    def change_a_sequence(self) -> None:
        """Change each sequence of the batch, from the last one on, and look at the others."""
        if self.shape[0] < 2:
            return
        for place in reversed(range(self.shape[0])):
            changed = self.input.clone()
            changed[place] = self._draw()[place]
            output = self.subject(changed)
            change = _difference(output, self.output).amax(1)
            change[place] = 0
            scale = max(_peak(output), _peak(self.output))
            limit = self._surely_leak(scale)
            if bool((change > limit).any()):
                row = int((change > limit).nonzero()[0])
                self.leaks.append(Leak(row, place, float(change.max()) / scale, "batch", self.mode))
                return

    def follow_gradients(self, positions: Sequence[int]) -> None:
        """Take gradients of outputs, and look at what falls on later inputs."""
        wanted = sorted({0, *(t - 1 for t in positions), *positions})
        rows = self.subject.gradients(self.input, wanted, self.random)
        future = total = largest = 0.0
        found: list[tuple[float, int, int]] = []
        for t, row in rows:
            later = row[:, t + 1 :].amax(0) if row.ndim > 1 else row[t + 1 :]
            future, total = future + float(row[:, t + 1 :].sum()), total + float(row.sum())
            largest = max(largest, float(row.max()))
            if later.numel() and float(later.max()) > 0:
                # The first that is more than a thousandth of the largest: what is rounded does not name the place.
                place = int((later > SMALL * later.max()).nonzero()[0])
                found.append((float(later.max()), t, t + 1 + place))
        if not total:
            return
        self.share = future / total
        limit = self._surely_leak(largest)
        for size, t, s in found:
            if size > limit:
                self.leaks.append(Leak(t, s, size / largest, "gradient", self.mode))
                return

    def _limit(self, changed: Tensor, output: Tensor, t: int, loudness: float, change: float) -> tuple[float, float]:
        """Return the largest change of an earlier output that may be rounding, and the largest value seen."""
        outputs = max(_peak(output), _peak(self.output))
        if self.tokens:
            return self._surely_leak(outputs), outputs
        peak = max(outputs, _peak(changed), _peak(self.input))
        low, high = SURELY_ROUNDING * self.eps * outputs, self._surely_leak(peak)
        if not max(low, self.rounding[loudness] * peak) < change <= high:
            return min(max(low, self.rounding[loudness] * peak), high), peak
        for _ in range(DRAWS):
            nudged = changed.clone()
            nudged[:, t:] *= (1 + SMALL * self._draw()[:, t:]).to(nudged.dtype)
            again = float(_difference(self.subject(nudged), output)[:, :t].max())
            self.rounding[loudness] = max(self.rounding[loudness], MARGIN * again / peak)
        return min(max(low, self.rounding[loudness] * peak), high), peak

    def _surely_leak(self, peak: float) -> float:
        return min(SURELY_LEAK * self.eps * math.log2(2 * self.shape[1]), 2.0**-4) * peak

    def _draw(self) -> Tensor:
        if self.tokens:
            vocabulary, dtype = self.tokens
            drawn = torch.randint(vocabulary, self.shape, generator=self.random).to(dtype)
        else:
            wide = torch.complex128 if self.subject.dtype.is_complex else torch.float64
            drawn = torch.randn(self.shape, dtype=wide, generator=self.random).to(self.subject.dtype)
        return drawn.to(self.subject.device)

    def _with(self, future: slice, loudness: float) -> Tensor:
        changed = self.input.clone()
        changed[:, future] = self._draw()[:, future] if self.tokens else self._draw()[:, future] * loudness
        return changed


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the largest difference of each position: (batch, length)."""
    return (one - other).abs().flatten(2).amax(2)


def _peak(x: Tensor) -> float:
    return float(x.abs().max())


def _positions(length: int, asked: Sequence[int] | None, seed: int) -> tuple[int, ...]:
    if asked is not None:
        wrong = [t for t in asked if not 0 < t < length]
        if wrong or not asked:
            raise ArgumentError(f"positions: {wrong or 'none'}; accepted: one or more of 1 to {length - 1}")
        return tuple(sorted(set(asked)))
    if length <= MOST + 1:
        return tuple(range(1, length))
    chosen = {1, 2, 3, length // 2, length // 2 + 1, length - 2, length - 1}
    chosen |= {t for power in _powers(length) for t in (power - 1, power, power + 1) if t < length}
    if len(chosen) > MOST:  # neighbours of the smallest powers go first
        chosen = {*sorted(chosen)[-(MOST - 4) :], 1, 2, 3, 5}
    others = torch.randperm(length - 1, generator=torch.Generator().manual_seed(seed)).tolist()
    for t in others:
        if len(chosen) >= MOST:
            break
        chosen.add(t + 1)
    return tuple(sorted(chosen))


def _powers(length: int) -> Iterator[int]:
    power = 8
    while power <= length:
        yield power
        power *= 2


def _checked(
    module: nn.Module, shape: Sequence[int], vocabulary: int | None, tokens: torch.dtype, dtype: torch.dtype
) -> tuple[int, ...]:
    if not isinstance(module, nn.Module):
        raise ArgumentTypeError(f"module: {type(module).__name__}; accepted: a torch.nn.Module")
    size = tuple(int(n) for n in shape)
    if len(size) < 2 or size[1] < 2 or min(size) < 1:
        raise ShapeError(f"shape: {size}; accepted: (batch, length, ...) with a length of 2 or more and nothing empty")
    if vocabulary is not None and vocabulary < 2:
        raise ArgumentError(f"vocabulary: {vocabulary}; accepted: 2 or more")
    if tokens.is_floating_point or tokens.is_complex or tokens is torch.bool:
        raise DtypeError(f"tokens: {tokens}; accepted: a dtype of integers")
    if vocabulary is not None and vocabulary - 1 > torch.iinfo(tokens).max:
        raise ArgumentError(f"vocabulary: {vocabulary}; accepted: at most {torch.iinfo(tokens).max + 1} in {tokens}")
    if not (dtype.is_floating_point or dtype.is_complex):
        raise DtypeError(f"dtype: {dtype}; accepted: a floating or complex one")
    return size
