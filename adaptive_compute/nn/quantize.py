"""Weights in few bits: polar and int8 codes of a fixed length, and scalar codes whose length follows their entropy.

What is quantised is complex. A real tensor's neighbours (in the order of its elements) are taken for real and imaginary
parts: of independent Gaussian values that makes complex Gaussian ones, and costs half the bits for each real value.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from . import entropy
from .layer import FLOATS, one_of, whole, working_dtype
from .levels import best_split, fitted_levels, rayleigh_levels, shrink

COMPLEX = (torch.complex64, torch.complex128)
CHUNK = 1 << 16  # values at a time; whole bytes whatever the number of bits
LEAST_BLOCK, USUAL_BLOCK = 256, 1024
LEAST_BITS, MOST_BITS = 2, 24
SMALLEST = 2.0**-120  # a scale's least value, well inside bfloat16's range


class QuantizedTensor:
    """A tensor in few bits, made by a quantizer's ``quantize``, or by ``nn.load``.

    Attributes
    ----------
    shape, dtype : tuple of int, torch.dtype
        Of the tensor that was quantised, and of what `dequantize` returns.
    scheme : str
        "polar", "int8" or "entropy".
    settings : dict
        Numbers that the decoder needs besides: bits of magnitude and phase, values in a block.
    parts : dict of Tensor
        Everything that is stored: codes, scales, levels or frequencies where the scheme has them.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, scheme: str, settings: dict[str, int], parts: dict[str, Any]
    ) -> None:
        self.shape, self.dtype, self.scheme = tuple(shape), dtype, one_of(scheme, "scheme", tuple(_DECODERS))
        self.settings, self.parts = settings, parts
        expected = _expected(self)
        found = {name: tuple(part.shape) for name, part in parts.items()}
        if any(found.get(name) != size for name, size in expected.items()):
            raise ShapeError(f"parts of a {scheme} tensor {self.shape} must have shapes {expected}, got {found}")

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is stored, side information included."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    @property
    def bits_per_value(self) -> float:
        """Bits stored for each element of the tensor, side information included; a real element is half a pair."""
        return 8 * self.nbytes / max(math.prod(self.shape), 1)

    @property
    def device(self) -> Any:
        """The device of what is stored, and of what `dequantize` returns."""
        return self.parts["codes"].device

    def to(self, device: Any) -> QuantizedTensor:
        """Return the same tensor on another device; what is entropy-coded stays on the CPU and is decoded there."""
        if self.scheme == "entropy" and torch.device(device).type != "cpu":
            raise ArgumentError(f"device must be the CPU for an entropy-coded tensor, got {device}")
        parts = {name: part.to(device) for name, part in self.parts.items()}
        return QuantizedTensor(self.shape, self.dtype, self.scheme, self.settings, parts)

    def dequantize(self) -> torch.Tensor:
        """Return the tensor (shape, dtype) that the codes stand for."""
        return self.elements(0, math.prod(self.shape)).reshape(self.shape)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop`` of a matrix, decoding no others (and at most a segment around them)."""
        if len(self.shape) != 2:
            raise ShapeError(f"rows() is for matrices, this tensor has shape {self.shape}")
        columns = self.shape[1]
        return self.elements(start * columns, stop * columns).reshape(-1, columns)

    def elements(self, start: int, stop: int) -> torch.Tensor:
        """Return elements ``start`` to ``stop`` of the flattened tensor."""
        if not 0 <= start <= stop <= math.prod(self.shape):
            raise ShapeError(f"elements {start} to {stop} are not all among the {math.prod(self.shape)} there are")
        if self.dtype.is_complex:
            return self._values(start, stop).to(self.dtype)
        pairs = torch.view_as_real(self._values(start // 2, -(-stop // 2))).reshape(-1)
        return pairs[start % 2 : start % 2 + stop - start].to(self.dtype)

    def _values(self, start: int, stop: int) -> torch.Tensor:
        """Return complex values, decoded a chunk at a time."""
        wide = torch.complex128 if working_dtype(self.dtype) is torch.float64 else torch.complex64
        out = torch.empty(stop - start, dtype=wide, device=self.device)
        at = start
        while at < stop:
            end = min(stop, at - at % CHUNK + CHUNK)
            out[at - start : end - start] = _DECODERS[self.scheme](self, at, end, wide)
            at = end
        return out

    def __repr__(self) -> str:
        return (
            f"QuantizedTensor(shape={self.shape}, dtype={self.dtype}, scheme={self.scheme!r}, "
            f"bits_per_value={self.bits_per_value:.3f})"
        )


class PolarQuantizer:
    """Quantises complex values by magnitude and phase; or, entropy-coded, by equal steps of both their parts.

    Parameters
    ----------
    bits : int
        For each complex value, 2 to 24.
    split : tuple of int, optional
        Bits of magnitude and of phase, such as (3, 5); by default those with the least error on complex Gaussians.
    entropy_coded : bool
        Code both parts in equal steps instead, each symbol in as many bits as its frequency calls for; the step is the
        smallest whose code, side information included, takes no more than ``bits`` bits on average. Needs the library
        constriction. On many Gaussian values the error is then within 25 % of the least that is possible. Of fewer than
        a thousand or so, tables take much of the bits and a fixed length is better; a few dozen may all become zero.
    block : int, optional
        How many consecutive complex values share a scale (their root mean square, in bfloat16); by default a row's
        where it has 256 or more, else 1024. An entropy-coded tensor has one step and no scales.
    levels : {"rayleigh", "fitted"}
        Where the magnitudes' levels are: best for Gaussian values, which needs nothing to be stored; or fitted to the
        tensor at hand and stored with it, which suits values of any distribution (a sparse spectrum's, for one).

    Notes
    -----
    Errors (relative RMS) on complex Gaussian values by the formula of ``nn.levels.polar_error``: 9.74 % with 3 + 5
    bits, 2.53 % with 5 + 7, 0.757 % with 8 + 8 and 0.638 % with 7 + 9.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> w = torch.randn(64, 512, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> small = nn.PolarQuantizer(8).quantize(w)
    >>> small.bits_per_value
    8.03125
    >>> bool((small.dequantize() - w).norm() < 0.099 * w.norm())
    True
    """

    def __init__(
        self, bits: int, *, split: tuple[int, int] | None = None, entropy_coded: bool = False, block: int | None = None,
        levels: str = "rayleigh",
    ) -> None:  # fmt: skip
        self.bits = whole(bits, "bits", LEAST_BITS)
        if self.bits > MOST_BITS:
            raise ArgumentError(f"bits must be {LEAST_BITS} to {MOST_BITS}, got {bits}")
        self.entropy_coded = bool(entropy_coded)
        if entropy_coded and (split is not None or block is not None or levels != "rayleigh"):
            raise ArgumentError("split, block and levels belong to codes of a fixed length, not to entropy_coded=True")
        self.split = best_split(self.bits) if split is None else _split(split, self.bits)
        self.block = None if block is None else whole(block, "block")
        self.levels = one_of(levels, "levels", ("rayleigh", "fitted"))

    def quantize(self, w: torch.Tensor) -> QuantizedTensor:
        """Return a tensor in few bits.

        Parameters
        ----------
        w : Tensor
            Any shape; complex64, complex128, float16, bfloat16, float32 or float64. Real elements are taken in pairs.

        Raises
        ------
        ArgumentTypeError, DtypeError
            If ``w`` is no tensor or of another dtype.
        ArgumentError
            If it holds an infinity or NaN, or values too small or large for a scale in bfloat16.
        BackendUnavailable
            If ``entropy_coded=True`` and constriction is not installed.
        """
        values = _paired(w)
        if self.entropy_coded:
            numbers = torch.view_as_real(values).reshape(-1).cpu().numpy()
            coded = {name: torch.from_numpy(part) for name, part in entropy.code(numbers, self.bits / 2).items()}
            return QuantizedTensor(tuple(w.shape), w.dtype, "entropy", {}, coded)
        block, scales = _scales(w, values, self.block)
        magnitude, phase = self.split
        parts: dict[str, Any] = {"scales": scales}
        if self.levels == "fitted":
            sizes = (values.abs() / _each(scales, block, 0, len(values)).to(values.real.dtype)).cpu().numpy()
            found = fitted_levels(sizes, magnitude) if len(sizes) else rayleigh_levels(magnitude)
            parts["levels"] = torch.from_numpy(found).to(w.device, torch.float32)
        levels = _levels(parts, magnitude, values.real.dtype, w.device)
        edges = (levels[1:] + levels[:-1]) / 2
        codes = torch.empty(-(-len(values) * self.bits // 8), dtype=torch.uint8, device=w.device)
        for at in range(0, len(values), CHUNK):
            z = values[at : at + CHUNK]
            scale = _each(scales, block, at, at + len(z)).to(z.real.dtype)
            rings = torch.bucketize(z.abs() / scale, edges)
            turns = torch.round(z.angle() * (2**phase / (2 * math.pi))).to(torch.int64) % 2**phase
            begin = at * self.bits // 8
            packed = _pack(rings << phase | turns, self.bits)
            codes[begin : begin + len(packed)] = packed
        settings = {"magnitude": magnitude, "phase": phase, "block": block}
        return QuantizedTensor(tuple(w.shape), w.dtype, "polar", settings, {"codes": codes, **parts})


class Int8Quantizer:
    """Both parts as int8, scaled by the largest of a block: 16 bits a complex value, for any distribution.

    Parameters
    ----------
    block : int, optional
        How many consecutive complex values share a scale; see `PolarQuantizer`.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> small = nn.Int8Quantizer().quantize(torch.tensor([3.0, 4.0, 0.0, 127.0]))
    >>> small.dequantize(), small.nbytes
    (tensor([  3.,   4.,   0., 127.]), 6)
    """

    def __init__(self, *, block: int | None = None) -> None:
        self.block = None if block is None else whole(block, "block")

    def quantize(self, w: torch.Tensor) -> QuantizedTensor:
        """Return a tensor in int8; arguments and errors as `PolarQuantizer.quantize`'s."""
        values = _paired(w)
        block, scales = _scales(w, values, self.block, largest=True)
        codes = torch.empty(len(values), 2, dtype=torch.int8, device=w.device)
        for at in range(0, len(values), CHUNK):
            z = torch.view_as_real(values[at : at + CHUNK])
            scale = _each(scales, block, at, at + len(z)).to(z.dtype)
            codes[at : at + len(z)] = torch.clamp(torch.round(z / scale[:, None]), -127, 127).to(torch.int8)
        return QuantizedTensor(tuple(w.shape), w.dtype, "int8", {"block": block}, {"codes": codes, "scales": scales})


def _decode_polar(one: QuantizedTensor, start: int, stop: int, wide: Any) -> torch.Tensor:
    magnitude, phase = one.settings["magnitude"], one.settings["phase"]
    codes = _unpack(one.parts["codes"], magnitude + phase, start, stop)
    real = wide.to_real()
    levels = _levels(one.parts, magnitude, real, one.device) * shrink(phase)
    scale = _each(one.parts["scales"], one.settings["block"], start, stop, decode=True).to(real)
    return torch.polar(levels[codes >> phase] * scale, (codes & (2**phase - 1)).to(real) * (2 * math.pi / 2**phase))


def _decode_int8(one: QuantizedTensor, start: int, stop: int, wide: Any) -> torch.Tensor:
    real = wide.to_real()
    scale = _each(one.parts["scales"], one.settings["block"], start, stop).to(real)
    return torch.view_as_complex(one.parts["codes"][start:stop].to(real) * scale[:, None])


def _decode_entropy(one: QuantizedTensor, start: int, stop: int, wide: Any) -> torch.Tensor:
    parts = {name: part.numpy() for name, part in one.parts.items()}
    found = torch.from_numpy(entropy.decode(parts, 2 * start, 2 * stop))
    return torch.view_as_complex(found.to(wide.to_real()).reshape(-1, 2))


def _expected(one: QuantizedTensor) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a quantised tensor's parts must have for its decoder to stay within them."""
    elements = math.prod(one.shape)
    values = elements if one.dtype.is_complex else -(-elements // 2)
    if one.scheme == "entropy":
        lengths = one.parts["lengths"]
        return {
            "codes": (int(lengths.sum()),), "lengths": (-(-2 * values // entropy.SEGMENT),),
            "frequencies": tuple(one.parts["symbols"].shape), "step": (1,),
        }  # fmt: skip
    scales = {"scales": (-(-values // one.settings["block"]),)}
    if one.scheme == "int8":
        return {"codes": (values, 2), **scales}
    magnitude = one.settings["magnitude"]
    if "levels" in one.parts:
        scales["levels"] = (1 << magnitude,)
    return {"codes": (-(-values * (magnitude + one.settings["phase"]) // 8),), **scales}


_DECODERS = {"polar": _decode_polar, "int8": _decode_int8, "entropy": _decode_entropy}


def _paired(w: Any) -> torch.Tensor:
    """Return a tensor as complex values (count,), or say why it cannot be quantised."""
    if not isinstance(w, torch.Tensor):
        raise ArgumentTypeError(f"w must be a torch tensor, got {type(w).__name__}")
    if w.dtype not in (*FLOATS, *COMPLEX):
        raise DtypeError(
            f"w has dtype {w.dtype}; accepted: complex64, complex128, float16, bfloat16, float32 and float64"
        )
    flat = w.detach().reshape(-1).resolve_conj()
    if not w.is_complex():
        flat = torch.nn.functional.pad(flat.to(working_dtype(w.dtype)), (0, flat.numel() % 2))
        flat = torch.view_as_complex(flat.reshape(-1, 2))
    if not bool(torch.isfinite(torch.view_as_real(flat)).all()):
        raise ArgumentError("w must be finite, it holds an infinity or NaN")
    return flat


def _scales(
    w: torch.Tensor, values: torch.Tensor, block: int | None, *, largest: bool = False
) -> tuple[int, torch.Tensor]:
    """Return the values in a block, and every block's scale in bfloat16: root mean square, or largest part / 127."""
    if block is None:
        row = (w.shape[-1] if w.is_complex() else w.shape[-1] // 2) if w.ndim > 1 else 0
        block = row if row >= LEAST_BLOCK else USUAL_BLOCK
    block = min(block, max(len(values), 1))
    parts = torch.view_as_real(torch.nn.functional.pad(values, (0, -len(values) % block))).reshape(-1, 2 * block)
    top = torch.linalg.vector_norm(parts, math.inf, dim=1, dtype=torch.float64)
    if bool(((top > 0) & (top < SMALLEST)).any() or (top > 1 / SMALLEST).any()):
        raise ArgumentError(
            f"w has blocks of values of a size beyond {SMALLEST:.0e} to {1 / SMALLEST:.0e}; rescale it first"
        )
    if largest:
        return block, (top / 127).to(torch.bfloat16)
    held = torch.full_like(top, block)
    held[-1:] = max(len(values) - (len(parts) - 1) * block, 1)
    return block, (torch.linalg.vector_norm(parts, dim=1, dtype=torch.float64) / held.sqrt()).to(torch.bfloat16)


def _each(scales: torch.Tensor, block: int, start: int, stop: int, *, decode: bool = False) -> torch.Tensor:
    """Return the scale of every value in a range; 1 for that of a block of zeros, unless it is to decode."""
    found = scales[start // block : -(-stop // block)]
    found = found.repeat_interleave(block)[start % block : start % block + stop - start]
    return found if decode else torch.where(found == 0, torch.ones_like(found), found)


def _levels(parts: dict[str, Any], bits: int, dtype: Any, device: Any) -> torch.Tensor:
    if "levels" in parts:
        return parts["levels"].to(dtype)
    return torch.from_numpy(rayleigh_levels(bits)).to(device, dtype)


def _pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return codes (count,) as bytes, the highest bit first."""
    places = torch.arange(bits - 1, -1, -1, device=codes.device)
    digits = (codes[:, None] >> places & 1).reshape(-1)
    digits = torch.nn.functional.pad(digits, (0, -len(digits) % 8)).reshape(-1, 8)
    return (digits << torch.arange(7, -1, -1, device=codes.device)).sum(1).to(torch.uint8)


def _unpack(packed: torch.Tensor, bits: int, start: int, stop: int) -> torch.Tensor:
    """Return codes ``start`` to ``stop``, int64."""
    first = start * bits
    held = packed[first // 8 : -(-stop * bits // 8)].to(torch.int64)
    digits = (held[:, None] >> torch.arange(7, -1, -1, device=packed.device) & 1).reshape(-1)
    digits = digits[first % 8 : first % 8 + (stop - start) * bits].reshape(-1, bits)
    return (digits << torch.arange(bits - 1, -1, -1, device=packed.device)).sum(1)


def _split(split: Any, bits: int) -> tuple[int, int]:
    if not isinstance(split, tuple) or len(split) != 2:
        raise ArgumentTypeError(f"split must be two whole numbers (magnitude, phase), got {split!r}")
    magnitude, phase = whole(split[0], "split[0]", 0), whole(split[1], "split[1]", 1)
    if magnitude + phase != bits:
        raise ArgumentError(f"split must add up to bits={bits}, got {split}")
    return magnitude, phase
