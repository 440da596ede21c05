"""A linear layer whose weight is a sparse spectrum, made from a trained one, with what that costs said beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..core.errors import ArgumentTypeError, ShapeError
from .layer import working_dtype
from .quantize import QuantizedTensor
from .sparse import SparseSpectralTensor
from .spectral_index import PANEL, SpectralIndex
from .streaming_matmul import block_streaming_matmul

# Integers as wide as the numbers they hold, for what a module must keep as it is when its dtype is changed.
_HOLDS = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
_INDEX = ("counts", "codes", "sizes")


@dataclass(frozen=True)
class SpectralReport:
    """What became of a weight.

    Attributes
    ----------
    retained_energy : float
        Share of the weight's energy in the coefficients that were kept, before any rounding of them.
    error : float
        Relative RMS error of the weight as it is now, rounding included.
    nbytes, dense_nbytes : int
        Bytes of the weight, indices and all side information included; and before.
    bits_per_weight : float
        ``8 * nbytes`` over the number of weights.
    output_error : float or None
        Relative RMS error of the layer's output on the sample that was given, bias included.
    """

    retained_energy: float
    error: float
    nbytes: int
    dense_nbytes: int
    bits_per_weight: float
    output_error: float | None = None

    def __str__(self) -> str:
        said = (
            f"{self.retained_energy:.2%} of the energy kept, weight error {self.error:.2%}, {self.nbytes} bytes of "
            f"{self.dense_nbytes} ({self.bits_per_weight:.2f} bits per weight)"
        )
        return said + ("" if self.output_error is None else f", output error {self.output_error:.2%}")


class SpectralLinear(torch.nn.Module):  # type: ignore[misc]
    """``x @ w + bias`` for a weight (in_features, out_features) that is a sparse spectrum; the weight is never made.

    The coefficients are parameters and can be trained on, where they are not quantised; which ones are kept is fixed.

    Parameters
    ----------
    weight : SparseSpectralTensor
        Real, (in_features, out_features).
    bias : Tensor, optional
        (out_features,).
    report : SpectralReport, optional
        What `spectralize` found.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer = nn.spectralize(torch.nn.Linear(64, 96), keep=0.25)
    >>> layer(torch.randn(2, 10, 64)).shape
    torch.Size([2, 10, 96])
    """

    causal: ClassVar[bool] = True

    def __init__(
        self, weight: SparseSpectralTensor, bias: torch.Tensor | None = None, report: SpectralReport | None = None
    ) -> None:
        super().__init__()
        if not isinstance(weight, SparseSpectralTensor):
            raise ArgumentTypeError(f"weight must be a SparseSpectralTensor, got {type(weight).__name__}")
        if len(weight.shape) != 2 or weight.dtype.is_complex:
            raise ShapeError(f"weight must be a real matrix (in, out), got {weight.dtype} of shape {weight.shape}")
        self.in_features, self.out_features = weight.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ShapeError(f"bias must be ({self.out_features},), got shape {tuple(bias.shape)}")
        self.report = report
        self._index: SpectralIndex | None = weight.index
        self._fixed = (weight.index.shape, weight.index.panel, weight.index.bitmap)
        for name in _INDEX:
            self.register_buffer(name, getattr(weight.index, name))
        self._quantized: QuantizedTensor | None = None
        if isinstance(weight.values, QuantizedTensor):
            self._quantized = weight.values
            self._dtypes = {name: part.dtype for name, part in weight.values.parts.items()}
            for name, part in weight.values.parts.items():
                self.register_buffer(f"values_{name}", part.view(_HOLDS.get(part.dtype, part.dtype)))
        else:
            # As pairs of real numbers, which follow the module's dtype; complex ones would lose their second half.
            self.values = torch.nn.Parameter(torch.view_as_real(weight.values.detach().resolve_conj()).clone())
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach().clone())

    @property
    def weight(self) -> SparseSpectralTensor:
        """The weight (in_features, out_features), in the layer's dtype and on its device."""
        index = self._index
        if index is None or index.codes is not self.codes:
            shape, panel, bitmap = self._fixed
            index = self._index = SpectralIndex(shape, panel, self.counts, self.codes, self.sizes, bitmap)
        values: Any
        if self._quantized is None:
            wide = working_dtype(self.values.dtype)
            values = torch.view_as_complex(self.values.to(wide))
        else:
            old = self._quantized
            parts = {name: getattr(self, f"values_{name}").view(dtype) for name, dtype in self._dtypes.items()}
            values = QuantizedTensor(old.shape, old.dtype, old.scheme, old.settings, parts)
            wide = old.dtype.to_real()
        energy = None if self.report is None else self.report.retained_energy
        return SparseSpectralTensor((self.in_features, self.out_features), wide, index, values, energy)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features) for x (..., in_features); errors as `block_streaming_matmul`'s."""
        y = block_streaming_matmul(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{self.in_features}, {self.out_features}, kept={int(self.counts.sum())}, bias={self.bias is not None}"

    def _load_from_state_dict(self, *arguments: Any, **others: Any) -> None:
        super()._load_from_state_dict(*arguments, **others)
        self._index = None  # its places were decoded from what was there before


def spectralize(
    linear: torch.nn.Linear, keep: float, *, quantizer: Any = None, sample: torch.Tensor | None = None,
    panel: int = PANEL,
) -> SpectralLinear:  # fmt: skip
    """Return a layer like a trained one, its weight reduced to the largest coefficients of its spectrum.

    Parameters
    ----------
    linear : torch.nn.Linear
        The layer; left as it is.
    keep : float
        Share of the weight's Fourier coefficients, above 0 and at most 1.
    quantizer : PolarQuantizer or Int8Quantizer, optional
        Puts the kept coefficients in few bits. ``PolarQuantizer(8, levels="fitted")`` suits them: the largest
        coefficients have no Rayleigh magnitudes.
    sample : Tensor, optional
        (..., in_features): inputs on which the output's error is measured.
    panel : int
        See `block_streaming_matmul`.

    Returns
    -------
    SpectralLinear
        With a `SpectralReport` as its ``report``: retained energy, error, true bytes. Coefficients of a weight in half
        precision are kept in float32.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If ``linear`` is no ``torch.nn.Linear``, or ``keep`` is 0 or beyond 1.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> _ = torch.manual_seed(0)
    >>> layer = nn.spectralize(torch.nn.Linear(256, 256), keep=0.01)
    >>> 0.05 < layer.report.retained_energy < 0.06, layer.report.error > 0.96
    (True, True)
    """
    if not isinstance(linear, torch.nn.Linear):
        raise ArgumentTypeError(f"linear must be a torch.nn.Linear, got {type(linear).__name__}")
    dense = linear.weight.detach().mT
    weight = SparseSpectralTensor.from_dense(dense, keep, panel=panel)
    if quantizer is not None:
        weight = weight.quantize(quantizer)
    wide = dense.to(weight.dtype)
    size = torch.linalg.vector_norm(wide)
    error = float(torch.linalg.vector_norm(weight.dense() - wide) / size) if size > 0 else 0.0
    report = SpectralReport(
        retained_energy=float(weight.retained_energy or 0.0),
        error=error,
        nbytes=weight.nbytes,
        dense_nbytes=linear.weight.nbytes,
        bits_per_weight=8 * weight.nbytes / dense.numel(),
    )
    layer = SpectralLinear(weight, linear.bias, report)
    if sample is not None:
        with torch.no_grad():
            before, after = linear(sample).double(), layer(sample).double()
        report = SpectralReport(**{**vars(report), "output_error": float((after - before).norm() / before.norm())})
        layer.report = report
    return layer
