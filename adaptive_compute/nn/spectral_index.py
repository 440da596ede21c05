"""Which coefficients of a spectrum are kept, in about a byte for each.

A spectrum (leading, last), its leading axes taken as one, is cut into panels of neighbouring leading frequencies. In a
panel the kept places are numbered along the last axis first, panel row by panel row within it, so that a panel can be
multiplied while its rows of the other operand stay in the processor's cache. A panel's places are stored as the gaps
between them, a byte each and one more for every 255 passed over; or as one bit for every place there is, where that is
less.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from ..core.errors import ArgumentError, ShapeError

PANEL = 1024  # leading frequencies; 64 vectors of as many complex64 fill half a MiB of cache
ESCAPE = 255
CACHED = 1 << 20  # kept coefficients up to which the decoded places stay in memory, 4 bytes each


class Panel(NamedTuple):
    """The kept places of one panel, as compressed rows: by last frequency, then by leading frequency."""

    first: int  # leading frequency where the panel begins
    size: int  # how many it has
    begin: int  # its first value among all kept ones
    starts: torch.Tensor  # (last + 1,), int32: where each last frequency's places begin
    leading: torch.Tensor  # (kept,), int32: leading frequencies, counted from the panel's first


class SpectralIndex:
    """The places of kept coefficients in a spectrum, stored in few bytes and decoded panel by panel.

    Parameters
    ----------
    shape : (int, int)
        Of the spectrum: leading and last frequencies.
    panel : int
        Leading frequencies in a panel.
    counts : Tensor
        (panels,), int32: how many places each panel keeps.
    codes : Tensor
        uint8: the panels' codes, one after another.
    sizes : Tensor
        (panels,), int32: how many bytes of them each panel has.
    bitmap : bool
        Whether the codes are bits for all places, or gaps between kept ones.
    """

    def __init__(
        self, shape: tuple[int, int], panel: int, counts: torch.Tensor, codes: torch.Tensor, sizes: torch.Tensor,
        bitmap: bool,
    ) -> None:  # fmt: skip
        self.shape, self.panel, self.bitmap = shape, panel, bitmap
        self.counts, self.codes, self.sizes = counts, codes, sizes
        panels = -(-shape[0] // panel) if panel > 0 else -1
        if not len(counts) == len(sizes) == panels or int(sizes.sum()) != len(codes):
            raise ShapeError(f"counts, sizes and codes do not fit {panels} panels of a spectrum {shape}")
        self._begins = [0, *torch.cumsum(counts.cpu(), 0).tolist()]
        self._bytes = [0, *torch.cumsum(sizes.cpu(), 0).tolist()]
        self._decoded: dict[int, Panel] = {}

    @classmethod
    def of(cls, shape: tuple[int, int], places: torch.Tensor, panel: int = PANEL) -> tuple[SpectralIndex, torch.Tensor]:
        """Return the index of places (kept,), int64, in a flattened spectrum, and the order in which it keeps them."""
        leading, last = shape
        panel = min(panel, leading)
        if places.numel() and (int(places.min()) < 0 or int(places.max()) >= leading * last):
            raise ArgumentError(f"places must be at least 0 and below {leading * last}")
        row, column = places // last, places % last
        first = row - row % panel
        width = torch.clamp(leading - first, max=panel)
        within = column * width + row % panel
        ordered, order = torch.sort(first * last + within)
        if bool((ordered.diff() == 0).any()):
            raise ArgumentError("places must differ from one another")
        bounds = torch.arange(0, leading + panel, panel, device=places.device).clamp(max=leading) * last
        counts = torch.searchsorted(ordered, bounds).diff().to(torch.int32)
        del row, column, first, width, within
        gaps = ordered.diff(prepend=ordered.new_full((1,), -1)) - 1
        heads = (torch.cumsum(counts, 0) - counts)[counts > 0]
        gaps[heads] = ordered[heads] - bounds[:-1][counts > 0]
        length = gaps // ESCAPE + 1
        ends = torch.cumsum(length, 0)
        edges = torch.cumsum(counts, 0)
        before = torch.cat([ends.new_zeros(1), ends])  # bytes of the first places, of none to all
        bytes_at = torch.cat([ends.new_zeros(1), before[edges]])
        total = int(bytes_at[-1])
        if 8 * total <= leading * last:
            codes = torch.full((total,), ESCAPE, dtype=torch.uint8, device=places.device)
            codes[ends - 1] = (gaps % ESCAPE).to(torch.uint8)
            return cls(shape, panel, counts, codes, bytes_at.diff().to(torch.int32), False), order
        pieces = []
        for number, size in enumerate(bounds.diff().tolist()):
            kept = ordered[int(edges[number] - counts[number]) : int(edges[number])] - bounds[number]
            bits = torch.zeros(-(-size // 8) * 8, dtype=torch.uint8, device=places.device)
            bits[kept] = 1
            weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=places.device)
            pieces.append((bits.reshape(-1, 8) * weights).sum(1, dtype=torch.uint8))
        sizes = torch.tensor([len(piece) for piece in pieces], dtype=torch.int32, device=places.device)
        return cls(shape, panel, counts, torch.cat(pieces), sizes, True), order

    def __len__(self) -> int:
        """Return how many coefficients are kept."""
        return self._begins[-1]

    @property
    def panels(self) -> int:
        """How many panels there are."""
        return len(self._begins) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the stored places."""
        return self.codes.numel() + 4 * (self.counts.numel() + self.sizes.numel())

    def within(self, number: int) -> torch.Tensor:
        """Return a panel's kept places, ascending, numbered within the panel; int32 where that holds their numbers."""
        codes = self.codes[self._bytes[number] : self._bytes[number + 1]]
        if self.bitmap:
            bits = codes[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=codes.device) & 1
            return bits.reshape(-1).nonzero().reshape(-1)
        narrow = torch.int32 if self.panel * self.shape[1] + ESCAPE * 8 < 2**31 else torch.int64
        passed = torch.cumsum(codes, 0, dtype=narrow)[codes < ESCAPE]
        return passed + torch.arange(len(passed), dtype=narrow, device=codes.device)

    def decode(self, number: int) -> Panel:
        """Return one panel."""
        if number in self._decoded:
            return self._decoded[number]
        leading, last = self.shape
        first = number * self.panel
        size = min(self.panel, leading - first)
        within = self.within(number)
        if len(within) != self._begins[number + 1] - self._begins[number] or (
            len(within) and (int(within.max()) >= size * last or int(within.min()) < 0)
        ):
            raise ShapeError(f"codes of panel {number} are damaged: they do not name as many places as it keeps")
        column = within // size
        row = (within - column * size).to(torch.int32)
        bounds = torch.arange(last + 1, dtype=column.dtype, device=column.device)
        starts = torch.searchsorted(column, bounds, out_int32=True)
        found = Panel(first, size, self._begins[number], starts, row)
        if len(self) <= CACHED:
            self._decoded[number] = found
        return found

    def places(self) -> torch.Tensor:
        """Return all kept places in the flattened spectrum, int64, in the order in which their values are stored."""
        last = self.shape[1]
        found = []
        for number in range(self.panels):
            panel = self.decode(number)
            columns = torch.arange(last, device=panel.starts.device).repeat_interleave(panel.starts.diff())
            found.append((panel.leading.to(torch.int64) + panel.first) * last + columns)
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)

    def to(self, device: Any) -> SpectralIndex:
        """Return the same index on another device."""
        counts, codes, sizes = (part.to(device) for part in (self.counts, self.codes, self.sizes))
        return SpectralIndex(self.shape, self.panel, counts, codes, sizes, self.bitmap)


def canonical(shape: tuple[int, ...], device: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which places of a real tensor's half spectrum say something of their own, and which are their own mirror.

    Parameters
    ----------
    shape : tuple of int
        Of the real tensor.

    Returns
    -------
    leading : Tensor
        (leading,), bool: which leading frequencies count where the last frequency is 0 or (of an even length) half the
        length. There every other leading frequency is a mirror's: its coefficient is the conjugate of another's.
    mirrored : Tensor
        (leading,), bool: which leading frequencies are their own mirror.
    """
    mirror = torch.zeros((), dtype=torch.int64, device=device)
    for n in shape[:-1]:
        mirror = (mirror * n)[..., None] + -torch.arange(n, device=device) % n
    mirror = mirror.reshape(-1)
    own = torch.arange(math.prod(shape[:-1]), device=device)
    return own <= mirror, own == mirror
