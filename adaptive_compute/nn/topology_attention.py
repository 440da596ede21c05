"""Softmax attention along a compiled topology: one that is given, or one learned from where attention's mass falls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import Blocks, Topology, attention
from ..core.errors import ArgumentError, ArgumentTypeError, ShapeError
from .headed import Headed
from .layer import whole

ROWS = 64  # queries that are looked at together


@dataclass(frozen=True)
class RoutingReport:
    """What `TopologyAttention.learn` found and kept.

    Attributes
    ----------
    mass : ndarray, shape (tiles, tiles)
        Share of a tile of queries' attention that falls on each tile of keys, a mean over samples, heads and queries;
        each row sums to one.
    layout : ndarray of bool, shape (tiles, tiles)
        The tiles that were kept.
    block : int
        Side of a tile.
    length : int
        Of the samples.
    dropped : float
        Share of all attention that falls on tiles that were not kept.
    dropped_by_row : ndarray, shape (tiles,)
        The same of each tile of queries.
    kept_tiles, given_tiles : int
        Tiles that are kept, and those that the given topology visits.
    """

    mass: np.ndarray
    layout: np.ndarray
    block: int
    length: int
    dropped: float
    dropped_by_row: np.ndarray
    kept_tiles: int
    given_tiles: int

    def __str__(self) -> str:
        return (
            f"{self.kept_tiles} of {self.given_tiles} tiles of {self.block} kept; {self.dropped:.2%} of attention's "
            f"mass dropped, {float(self.dropped_by_row.max()):.2%} in the worst row of tiles"
        )


class TopologyAttention(Headed):
    """Softmax attention over the pairs that a topology keeps: the pattern is compiled once, and routes every call.

    ``softmax over the kept j of (q_i . k_j / sqrt(d)) @ v``, which is `ac.attention` between learned projections. The
    work follows the tiles that are kept.

    Parameters
    ----------
    dim : int
        Width of inputs and outputs.
    topology : mask, optional
        ``ac.Window(n)``, ``ac.Causal()``, ``ac.Blocks(...)``, ``ac.Prefix(n)``, ``ac.Topology.from_mask(...)`` or a
        combination by ``&``, ``|`` and ``~``. Without one every pair is kept. Blocks are cut for shorter inputs.
    heads : int
        Number of heads; divides ``dim``.
    max_length : int, optional
        Longest length that is accepted; must be given with a topology, which is checked for causality up to it.
    device, dtype
        As for torch's layers.

    Attributes
    ----------
    causal : bool
        Of an instance: whether its topology keeps no pair with a key after its query, at any length up to
        ``max_length``. A learned topology is causal if the one it started from is.
    topology : mask or None

    Examples
    --------
    >>> import torch, adaptive_compute as ac
    >>> from adaptive_compute import nn
    >>> layer = nn.TopologyAttention(32, ac.Window(64) & ac.Causal(), max_length=256)
    >>> layer(torch.randn(2, 200, 32)).shape, layer.causal
    (torch.Size([2, 200, 32]), True)
    """

    def __init__(
        self, dim: int, topology: Any = None, heads: int = 4, *, max_length: int | None = None,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, heads, max_length=max_length, device=device, dtype=dtype)
        if topology is not None and (not isinstance(topology, Topology) or not hasattr(topology, "spans")):
            raise ArgumentTypeError(
                f"topology must be a mask (ac.Window, ac.Causal, ac.Blocks, ac.Topology.from_mask, ...) or None, "
                f"got {type(topology).__name__}"
            )
        if topology is not None and self.max_length is None:
            raise ArgumentError("max_length must be given with a topology, which is checked up to it")
        self.given = topology
        self._learned: tuple[np.ndarray, int, int] | None = None
        self._use(topology)

    def _use(self, topology: Any) -> None:
        self.topology = topology
        self._fitting: dict[int, Any] = {}
        # The class says False, for what it cannot promise; an instance knows its topology.
        self.causal = topology is not None and not sees_ahead(topology, self.max_length or 1)  # type: ignore[misc]

    def mask_for(self, length: int) -> Any:
        """Return the topology for inputs of some length."""
        if length not in self._fitting:
            self._fitting[length] = None if self.topology is None else _fitted(self.topology, length)
        return self._fitting[length]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        x : Tensor
            (batch, length, dim); the batch may be empty.

        Returns
        -------
        Tensor
            Of the same shape and dtype (under ``torch.autocast``, of its dtype).

        Raises
        ------
        ShapeError
            Besides what every layer refuses: a length that the topology is not for (``Topology.from_mask`` is for one).
        """
        self.checked(x)
        return self.join(self.attend(*self.split(x), self.mask_for(x.shape[1])))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any) -> torch.Tensor:
        """Return what the heads find: all of shape (batch, heads, length, dim / heads)."""
        return attention(q, k, v, mask=mask)

    def learn(
        self, samples: torch.Tensor | Iterable[torch.Tensor], *, block: int = 64, keep: int | None = None,
        mass: float | None = None,
    ) -> RoutingReport:  # fmt: skip
        """Record where attention falls on samples, and route along the tiles that hold most of it from then on.

        Every pair that the topology given at first keeps is looked at, whatever was learned before: O(length^2) time,
        and memory for 64 queries' scores. The tile on the diagonal is always kept, so that no query is left without a
        key. ``max_length`` becomes the samples' length, because nothing is known beyond it. ``state_dict`` holds what
        was learned, but not the topology given at first.

        Parameters
        ----------
        samples : Tensor or iterable of Tensor
            Inputs (batch, length, dim), all of one length.
        block : int
            Side of a tile.
        keep : int, optional
            Tiles of keys to keep for each tile of queries, those with most mass.
        mass : float, optional
            In place of ``keep``: share of the mass to keep in each row of tiles, by as few tiles as hold it.

        Returns
        -------
        RoutingReport
            The recorded mass, what was kept, and the share that was dropped.

        Raises
        ------
        ArgumentError, ShapeError
            Unless exactly one of ``keep`` and ``mass`` comes, and the samples have one length and are not empty.

        Examples
        --------
        >>> import torch, adaptive_compute as ac
        >>> from adaptive_compute import nn
        >>> layer = nn.TopologyAttention(16, ac.Causal(), max_length=256)
        >>> report = layer.learn(torch.randn(2, 256, 16), block=32, keep=3)
        >>> report.kept_tiles, report.given_tiles, layer.causal
        (21, 36, True)
        """
        if (keep is None) == (mass is None):
            raise ArgumentError(f"give one of keep and mass, got keep={keep!r} and mass={mass!r}")
        count = None if keep is None else whole(keep, "keep")
        if mass is not None and not 0 < mass <= 1:
            raise ArgumentError(f"mass must be more than 0 and at most 1, got {mass!r}")
        side = whole(block, "block")
        with torch.no_grad():
            found, length = self._record([samples] if isinstance(samples, torch.Tensor) else samples, side)
        order = np.argsort(-found, axis=1, kind="stable")
        sums = np.cumsum(np.take_along_axis(found, order, 1), 1)
        diagonal = np.eye(len(found), dtype=bool)
        if mass is not None:
            # A tile is wanted where those before it do not hold enough; one that holds nothing never is.
            wanted = np.concatenate([np.zeros((len(found), 1)), sums[:, :-1]], 1) < mass - 1e-6
            wanted &= np.take_along_axis(found, order, 1) > 0
            layout = np.zeros_like(diagonal)
            np.put_along_axis(layout, order, wanted, 1)
        else:
            # The diagonal first, and then the others in their order.
            order = np.argsort(-np.where(diagonal, np.inf, found), axis=1, kind="stable")
            layout = np.zeros_like(diagonal)
            np.put_along_axis(layout, order[:, :count], True, 1)
            layout &= found > 0
        layout |= diagonal
        lost = np.where(layout, 0, found).sum(1)
        sizes = np.minimum(side, length - side * np.arange(len(found)))
        self._route(layout, side, length)
        return RoutingReport(
            found, layout, side, length, float(lost @ sizes / length), lost, int(layout.sum()), int((found > 0).sum())
        )

    def _route(self, layout: np.ndarray, side: int, length: int) -> None:
        learned = Blocks(layout, side)
        self.max_length, self._learned = length, (layout, side, length)
        self._use(learned if self.given is None else learned & _fitted(self.given, length))

    def get_extra_state(self) -> torch.Tensor:
        """Return what was learned, for ``state_dict``: length, side and tiles as whole numbers; empty for nothing."""
        if self._learned is None:
            return torch.empty(0, dtype=torch.int64)
        layout, side, length = self._learned
        return torch.tensor([length, side, *layout.ravel().tolist()], dtype=torch.int64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Route as another layer learned to, which was given the same topology."""
        if state.numel() == 0:
            self._learned = None
            self._use(self.given)
            return
        length, side, *tiles = state.tolist()
        count = -(-length // max(side, 1))
        if min(length, side) < 1 or len(tiles) != count**2:
            raise ArgumentError(f"state_dict: {len(tiles)} tiles of {side} do not cover {length} positions")
        self._route(np.array(tiles, bool).reshape(count, count), side, length)

    def _record(self, samples: Iterable[torch.Tensor], side: int) -> tuple[np.ndarray, int]:
        total, rows, length = None, 0, 0
        for x in samples:
            self.checked(x, "samples")
            length = length or x.shape[1]
            if x.shape[1] != length:
                raise ShapeError(f"samples have lengths {length} and {x.shape[1]}; give samples of one length")
            q, k, _ = self.split(x)
            mask = None if self.given is None else _fitted(self.given, length)
            made = torch.stack([part.sum((0, 1)) for part in masses(q, k, mask, side)]).double()
            total = made if total is None else total + made
            rows += q.shape[0] * q.shape[1]
        if total is None or rows == 0:
            raise ShapeError("samples must hold at least one sequence")
        summed = total.cpu().numpy()
        return summed / np.maximum(summed.sum(1, keepdims=True), np.finfo(float).tiny), length


def masses(q: torch.Tensor, k: torch.Tensor, mask: Any, side: int) -> Iterable[torch.Tensor]:
    """Yield for each tile of queries the attention that falls on each tile of keys: (batch, heads, tiles), summed."""
    length = q.shape[-2]
    tiles = -(-length // side)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    of = torch.arange(length, device=q.device) // side
    for first in range(0, length, side):
        found = q.new_zeros((*q.shape[:2], tiles), dtype=wide)
        for start in range(first, min(first + side, length), ROWS):
            stop = min(start + ROWS, first + side, length)
            scores = (q[..., start:stop, :].to(wide) @ k.to(wide).mT) / q.shape[-1] ** 0.5
            if mask is not None:
                kept = mask.keep(np.arange(start, stop)[:, None], np.arange(length), length, length)
                kept = torch.from_numpy(np.broadcast_to(kept, (stop - start, length)).copy())
                scores = scores.masked_fill(~kept.to(q.device), -torch.inf)
            weights = torch.softmax(scores, -1).nan_to_num(0.0)  # a query that keeps nothing attends to nothing
            found.index_add_(-1, of, weights.sum(-2))
        yield found


def sees_ahead(mask: Any, length: int) -> bool:
    """Tell whether a mask for sequences of one length keeps a key that comes after its query."""
    mask = _fitted(mask, length)
    for first in range(0, length, ROWS):
        last = min(first + ROWS, length)
        some, _ = mask.spans(first, last, length, length)
        for a, b in some:
            a = max(a, first + 1)
            for start in range(a, b, 4096):  # what the spans only suspect is asked pair by pair
                i, j = np.arange(first, last)[:, None], np.arange(start, min(start + 4096, b))
                if bool(np.any(mask.keep(i, j, length, length) & (j > i))):
                    return True
    return False


def _fitted(mask: Any, length: int) -> Any:
    """Return a mask for a length: blocks are cut to it, and the parts of a combination each on their own."""
    if isinstance(mask, Blocks):
        rows, columns = (-(-length // side) for side in mask.block)
        if mask.layout.shape[0] >= rows and mask.layout.shape[1] >= columns:
            mask = Blocks(mask.layout[:rows, :columns], mask.block)
    elif hasattr(mask, "left"):
        mask = type(mask)(_fitted(mask.left, length), _fitted(mask.right, length))
    elif hasattr(mask, "mask"):
        mask = ~_fitted(mask.mask, length)
    mask.check(length, length)
    return mask
