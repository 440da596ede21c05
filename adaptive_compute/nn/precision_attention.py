"""Softmax attention whose scores and values are in half precision, each path for itself, and what that costs."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, NamedTuple

import torch

from .. import attention
from ..core.errors import ArgumentError, ToleranceError
from .layer import one_of
from .topology_attention import TopologyAttention

PRECISIONS = ("bfloat16", "float16", "float32")


class PrecisionReport(NamedTuple):
    """Relative L2 errors of a layer's output against the same layer in float64.

    Attributes
    ----------
    total : float
        Of the layer as it is. Not finite where a value is too large for float16.
    scores, values : float
        Of a float64 layer in which queries and keys alone, or values alone, are rounded to their path's precision.
    rest : float
        Of the layer without any rounding to half precision: what its own dtype costs.
    """

    total: float
    scores: float
    values: float
    rest: float

    def __str__(self) -> str:
        return (
            f"relative error {self.total:.1e}; rounding of scores alone {self.scores:.1e}, of values alone "
            f"{self.values:.1e}, without either {self.rest:.1e}"
        )


class AdaptivePrecisionAttention(TopologyAttention):
    """Softmax attention with a precision for each path: queries and keys (scores), and values.

    Queries and keys are rounded to one precision, values to another; softmax and all sums are computed in float32
    (float64 in a float64 layer whose paths are not all the same half precision). Where both paths have the same half
    precision, a device's own units for it do the products; a processor computes them in float32, so that half precision
    there saves memory and no time. Where the paths differ, everything behind the rounding is float32.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    topology : mask, optional
        As for `TopologyAttention`; with one, ``max_length`` must be given.
    heads : int
        Number of heads; divides ``dim``.
    scores, values : {"bfloat16", "float16", "float32"} or None
        Precision of queries and keys, and of values. None leaves them as they are.
    max_length, device, dtype
        As for `TopologyAttention`.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer, x = nn.AdaptivePrecisionAttention(32), torch.randn(2, 100, 32)
    >>> 1e-4 < layer.error(x).total < 1e-2
    True
    >>> layer.adapt(x, tol=1e-3).total < 1e-3, layer.scores, layer.values
    (True, 'float16', 'float16')
    """

    def __init__(
        self, dim: int, topology: Any = None, heads: int = 4, *, scores: str | None = "bfloat16",
        values: str | None = "bfloat16", max_length: int | None = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, topology, heads, max_length=max_length, device=device, dtype=dtype)
        self.scores = None if scores is None else one_of(scores, "scores", PRECISIONS)
        self.values = None if values is None else one_of(values, "values", PRECISIONS)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any) -> torch.Tensor:
        """Return what the heads find, in the dtype of ``q``."""
        if self.scores == self.values and self.scores is not None:
            q, k, v = (x.to(getattr(torch, self.scores)) for x in (q, k, v))
            return attention(q, k, v, mask=mask)
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        q, k = (_rounded(x, self.scores).to(wide) for x in (q, k))
        return attention(q, k, _rounded(v, self.values).to(wide), mask=mask)

    def join(self, heads: torch.Tensor) -> torch.Tensor:
        """Return the output for what the heads found: (batch, length, dim)."""
        narrow = torch.is_autocast_enabled(heads.device.type)
        return super().join(heads if narrow else heads.to(self.out.weight.dtype))

    def error(self, x: torch.Tensor) -> PrecisionReport:
        """Compare the layer with the same layer in float64, on some input.

        Parameters
        ----------
        x : Tensor
            (batch, length, dim), as for ``forward``; not empty.

        Returns
        -------
        PrecisionReport

        Raises
        ------
        ArgumentError
            If ``x`` holds no sequence, so that there is nothing to compare.
        """
        self.checked(x)
        if x.shape[0] == 0:
            raise ArgumentError(f"x must hold at least one sequence, got shape {tuple(x.shape)}")
        with torch.no_grad():
            exact = self._double(None, None)(x.double())
            plain = copy.copy(self)
            plain.scores = plain.values = None
            scores, values = self._double(self.scores, None), self._double(None, self.values)
            found = self(x), scores(x.double()), values(x.double()), plain(x)
            size = exact.norm()
            apart = [(one.double() - exact).norm() / size if one.isfinite().all() else math.inf for one in found]
        return PrecisionReport(*map(float, apart))

    def _double(self, scores: str | None, values: str | None) -> AdaptivePrecisionAttention:
        other = copy.deepcopy(self).double()
        other.scores, other.values = scores, values
        return other

    def adapt(self, x: torch.Tensor, tol: float) -> PrecisionReport:
        """Choose the narrowest precisions whose error on some input is within a tolerance.

        Both paths in half precision come first, then one of them, then none; among equally narrow ones the most exact
        is taken. The layer computes with them from then on.

        Parameters
        ----------
        x : Tensor
            (batch, length, dim): a sample of what will come.
        tol : float
            Relative L2 error of the output against float64 that is accepted.

        Returns
        -------
        PrecisionReport
            Of the chosen precisions.

        Raises
        ------
        ToleranceError
            If even float32 is not as exact as asked; the precisions stay as they were.
        """
        before = self.scores, self.values
        halves = PRECISIONS[:2]
        pairs = [
            list(itertools.product(halves, halves)),
            [(half, "float32") for half in halves] + [("float32", half) for half in halves],
            [("float32", "float32")],
        ]
        best = math.inf
        for equals in pairs:
            found = []
            for pair in equals:
                self.scores, self.values = pair
                found.append((self.error(x), pair))
            report, (self.scores, self.values) = min(found, key=lambda one: one[0].total)
            best = min(best, report.total)
            if report.total <= tol:
                return report
        self.scores, self.values = before
        raise ToleranceError(
            f"tol={tol!r} is not reached: the most exact precisions have a relative error of {best:.1e}"
        )

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{super().extra_repr()}, scores={self.scores}, values={self.values}"


def _rounded(x: torch.Tensor, precision: str | None) -> torch.Tensor:
    return x if precision is None else x.to(getattr(torch, precision))
