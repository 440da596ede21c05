"""Tensors as their largest Fourier coefficients, with the energy these hold and the bytes they take, indices included.

For trained-sparse weights and differences of weights. The largest 1 % of the coefficients of random weights hold 5.6 %
of their energy, which is why `SparseSpectralTensor.retained_energy` is there to be read.
"""

from __future__ import annotations

import math
from typing import Any

import torch

import adaptive_compute as ac

from ..core.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from .layer import FLOATS, whole, working_dtype
from .quantize import COMPLEX, QuantizedTensor
from .spectral_index import PANEL, SpectralIndex, canonical


class SparseSpectralTensor:
    """A tensor whose discrete Fourier transform over all axes is kept in part.

    Made by `from_dense` or `from_spectrum`. A real tensor's spectrum is kept for half of the last axis' frequencies;
    where that half holds both a coefficient and its mirror (last frequency 0, or half of an even length), only one of
    the two is kept, doubled, and the inverse transform to real numbers does the rest.

    Attributes
    ----------
    shape, dtype : tuple of int, torch.dtype
        Of the dense tensor.
    index : SpectralIndex
        Where the kept coefficients are.
    values : Tensor or QuantizedTensor
        (kept,): what they are, complex.
    retained_energy : float or None
        Share of the dense tensor's energy (sum of squares) that the kept coefficients held before any rounding of them;
        None where there was no dense tensor.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> w = torch.cos(torch.arange(256.0) / 256 * 2 * torch.pi * 3).repeat(128, 1)
    >>> small = nn.SparseSpectralTensor.from_dense(w, keep=0.001)
    >>> round(small.retained_energy, 6), small.nbytes < w.nbytes / 100
    (1.0, True)
    >>> bool((small.dense() - w).abs().max() < 1e-5)
    True
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, index: SpectralIndex, values: torch.Tensor | QuantizedTensor,
        retained_energy: float | None = None,
    ) -> None:  # fmt: skip
        if tuple(values.shape) != (len(index),) or not values.dtype.is_complex:
            raise ShapeError(f"values must be complex ({len(index)},), got {values.dtype} {tuple(values.shape)}")
        if index.shape != spectrum_shape(shape, dtype):
            raise ShapeError(f"index is of a spectrum {index.shape}, a tensor {shape} of {dtype} has another")
        self.shape, self.dtype, self.index, self.values = tuple(shape), dtype, index, values
        self.retained_energy = retained_energy

    @classmethod
    def from_dense(cls, w: torch.Tensor, keep: float = 0.01, *, panel: int = PANEL) -> SparseSpectralTensor:
        """Keep the largest coefficients of a tensor.

        Parameters
        ----------
        w : Tensor
            At least one axis and one element; real (half precision is transformed in float32) or complex.
        keep : float
            Share of the coefficients of the whole spectrum, above 0 and at most 1; at least one is kept. A coefficient
            of a real tensor and its mirror count as two and are kept together.
        panel : int
            Leading frequencies that are decoded together, see `block_streaming_matmul`.

        Raises
        ------
        ArgumentTypeError, DtypeError, ShapeError, ArgumentError
            If ``w`` is no tensor, has another dtype, no elements, an infinity or NaN, or if ``keep`` is 0 or beyond 1.
        """
        _check_dense(w)
        share = _share(keep)
        wide = w.detach().to(_stored(w.dtype))
        if not bool(torch.isfinite(torch.view_as_real(wide) if wide.is_complex() else wide).all()):
            raise ArgumentError("w must be finite, it holds an infinity or NaN")
        spectrum = ac.fftn(wide) if wide.is_complex() else ac.rfftn(wide)
        flat = spectrum.reshape(spectrum_shape(w.shape, wide.dtype))
        size = flat.abs()
        twice = torch.ones_like(size) if wide.is_complex() else _multiplicity(w.shape, size)
        size[twice == 0] = -1.0  # mirrors of others: never kept for their own sake
        budget = max(share * w.numel(), 1.0)
        kept = min(math.ceil(budget), int((twice > 0).sum()))
        found = torch.topk(size.reshape(-1), kept)
        weight = twice.reshape(-1)[found.indices].double()
        fits = torch.cumsum(weight, 0) <= budget + 0.5
        fits[0] = True
        places = found.indices[fits]
        energy = float((weight[fits] * found.values[fits].double() ** 2).sum())
        whole_energy = float(torch.linalg.vector_norm(wide, dtype=_energy_dtype(wide.dtype))) ** 2 * w.numel()
        index, order = SpectralIndex.of(tuple(flat.shape), places, whole(panel, "panel"))
        values = flat.reshape(-1)[places[order]]
        if not wide.is_complex():
            values = values * _folded(w.shape, index.places(), flat.shape[1]).to(values.real.dtype)
        retained = min(energy / whole_energy, 1.0) if whole_energy else 1.0
        return cls(tuple(w.shape), wide.dtype, index, values, retained)

    @classmethod
    def from_spectrum(
        cls, shape: tuple[int, ...], places: torch.Tensor, values: torch.Tensor, dtype: Any = torch.float32, *,
        panel: int = PANEL,
    ) -> SparseSpectralTensor:  # fmt: skip
        """Make a tensor from coefficients of its spectrum.

        Parameters
        ----------
        shape : tuple of int
            Of the dense tensor.
        places : Tensor
            (kept,), int64, all different: where the coefficients are in the flattened spectrum as ``ac.fftn``, or for a
            real tensor ``ac.rfftn``, returns it.
        values : Tensor
            (kept,), complex: the coefficients. Of a real tensor's mirrored ones (last frequency 0 or half of an even
            length) one of the two is given, and counts for both.
        dtype : torch.dtype
            float32, float64, complex64 or complex128.
        panel : int
            See `from_dense`.

        Raises
        ------
        DtypeError, ShapeError, ArgumentError
            If dtypes, shapes or places are others.
        """
        if dtype not in (torch.float32, torch.float64, *COMPLEX):
            raise DtypeError(f"dtype must be float32, float64, complex64 or complex128, got {dtype}")
        if places.ndim != 1 or places.shape != values.shape or not values.is_complex():
            raise ShapeError(
                f"places and values must be (kept,), values complex; got {tuple(places.shape)} and "
                f"{values.dtype} {tuple(values.shape)}"
            )
        size = spectrum_shape(shape, dtype)
        index, order = SpectralIndex.of(size, places.to(torch.int64), whole(panel, "panel"))
        values = values[order].to(dtype.to_complex())
        if not dtype.is_complex:
            values = values * _folded(shape, places[order], size[1]).to(values.real.dtype)
        return cls(shape, dtype, index, values)

    @property
    def device(self) -> Any:
        """The device of places and values."""
        return self.index.codes.device

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is stored: places, values and what their coding needs."""
        return self.index.nbytes + self.values.nbytes

    @property
    def kept(self) -> float:
        """Stored coefficients over the places for them: of a real tensor, its half spectrum with the mirrors in it."""
        full = self.index.shape[0] * self.index.shape[1]
        return len(self.index) / full

    def coefficients(self, begin: int, end: int, dtype: Any) -> torch.Tensor:
        """Return stored values ``begin`` to ``end`` in a complex dtype, decoding no others."""
        if isinstance(self.values, QuantizedTensor):
            return self.values.elements(begin, end).to(dtype)
        return self.values[begin:end].to(dtype)

    def dense(self) -> torch.Tensor:
        """Return the dense tensor; a gradient reaches ``values``."""
        last = self.index.shape[1]
        values = self.coefficients(0, len(self.index), self.dtype.to_complex())
        flat = values.new_zeros(self.index.shape[0] * last).index_put((self.index.places(),), values)
        spectrum = flat.reshape(*self.shape[:-1], last)
        if self.dtype.is_complex:
            return ac.ifftn(spectrum)
        if len(self.shape) > 1:
            spectrum = ac.ifftn(spectrum, axes=tuple(range(len(self.shape) - 1)))
        return ac.irfft(spectrum, self.shape[-1])

    def quantize(self, quantizer: Any) -> SparseSpectralTensor:
        """Return the same tensor with its values in few bits, by a `PolarQuantizer` or `Int8Quantizer`."""
        if isinstance(self.values, QuantizedTensor):
            raise ArgumentTypeError("the values are quantised already")
        return SparseSpectralTensor(
            self.shape, self.dtype, self.index, quantizer.quantize(self.values), self.retained_energy
        )

    def to(self, device: Any) -> SparseSpectralTensor:
        """Return the same tensor on another device."""
        return SparseSpectralTensor(
            self.shape, self.dtype, self.index.to(device), self.values.to(device), self.retained_energy
        )

    def __repr__(self) -> str:
        return (
            f"SparseSpectralTensor(shape={self.shape}, dtype={self.dtype}, kept={self.kept:.4g}, "
            f"retained_energy={self.retained_energy}, nbytes={self.nbytes})"
        )


def spectrum_shape(shape: tuple[int, ...], dtype: Any) -> tuple[int, int]:
    """Return the spectrum's leading and last frequencies."""
    return math.prod(shape[:-1]), shape[-1] if dtype.is_complex else shape[-1] // 2 + 1


def _multiplicity(shape: tuple[int, ...], size: torch.Tensor) -> torch.Tensor:
    """Return for how many coefficients of the whole spectrum each of the half stands: 2, 1, or 0 for a mirror."""
    found = torch.full(size.shape, 2, dtype=torch.int8, device=size.device)
    leading, mirrored = canonical(tuple(shape), size.device)
    for last in _edges(shape):
        found[:, last] = torch.where(mirrored, 1, torch.where(leading, 2, 0)).to(torch.int8)
    return found


def _folded(shape: tuple[int, ...], places: torch.Tensor, last: int) -> torch.Tensor:
    """Return 2 for the places that carry their mirror's coefficient besides their own, else 1."""
    row, column = places // last, places % last
    edge = torch.zeros_like(column, dtype=torch.bool)
    for one in _edges(shape):
        edge |= column == one
    leading, mirrored = canonical(tuple(shape), places.device)
    if bool((edge & ~leading[row]).any()):
        raise ArgumentError(
            "places must name the first of two mirrored coefficients: where the last frequency is 0 or half of an even "
            "length, the one whose leading frequencies come first"
        )
    return 1 + (edge & ~mirrored[row]).to(torch.int8)


def _edges(shape: tuple[int, ...]) -> set[int]:
    """Return the last frequencies whose mirror is of the same last frequency."""
    return {0, shape[-1] // 2} if shape[-1] % 2 == 0 else {0}


def _stored(dtype: Any) -> Any:
    return dtype if dtype.is_complex else working_dtype(dtype)


def _energy_dtype(dtype: Any) -> Any:
    return torch.complex128 if dtype.is_complex else torch.float64


def _check_dense(w: Any) -> None:
    if not isinstance(w, torch.Tensor):
        raise ArgumentTypeError(f"w must be a torch tensor, got {type(w).__name__}")
    if w.dtype not in (*FLOATS, *COMPLEX):
        raise DtypeError(f"w has dtype {w.dtype}; accepted: real and complex floating point")
    if not w.ndim or not w.numel():
        raise ShapeError(f"w must have at least one axis and one element, got shape {tuple(w.shape)}")


def _share(keep: Any) -> float:
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise ArgumentError(f"keep must be a share of the coefficients, above 0 and at most 1, got {keep!r}")
    return float(keep)
