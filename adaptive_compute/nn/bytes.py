"""Text as bytes: spectral features of a byte's value, computed and not looked up, and a learned table beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..core.errors import ArgumentError, ArgumentTypeError, BackendUnavailable, DtypeError, ShapeError
from .layer import FLOATS, Layer, whole, working_dtype

VALUES = 256
FINEST = 1 << 9  # parts of a whole frequency: finer ones would make angles that float32 does not hold exactly


def to_bytes(text: str | bytes | Sequence[str | bytes]) -> torch.Tensor:
    """Return text as its bytes in UTF-8.

    Parameters
    ----------
    text : str, bytes or a sequence of them
        One text, or a batch of texts.

    Returns
    -------
    Tensor
        (batch, length), uint8: a batch of one for a single text. A shorter text is followed by zeros, the byte of the
        character NUL, up to the longest of the batch.

    Raises
    ------
    ArgumentTypeError
        If something else comes.
    ArgumentError
        If a text cannot be encoded (a lone surrogate).

    Examples
    --------
    >>> from adaptive_compute import nn
    >>> nn.to_bytes(["né", "a"]).tolist()
    [[110, 195, 169], [97, 0, 0]]
    """
    texts = [text] if isinstance(text, str | bytes) else text
    if not isinstance(texts, Sequence) or not all(isinstance(one, str | bytes) for one in texts):
        raise ArgumentTypeError(f"text must be a str, bytes or a sequence of them, got {_kind(text)}")
    try:
        coded = [one.encode("utf-8") if isinstance(one, str) else one for one in texts]
    except UnicodeEncodeError as error:
        raise ArgumentError(f"text cannot be encoded as UTF-8: {error}") from None
    length = max(map(len, coded), default=0)
    joined = bytearray(b"".join(one.ljust(length, b"\0") for one in coded))
    return torch.tensor(joined, dtype=torch.uint8).reshape(len(coded), length)


def byte_frequencies(count: int) -> torch.Tensor:
    """Return the frequencies of a byte's features: cycles over the 256 values, evenly spaced from 1 to 127.

    Parameters
    ----------
    count : int
        How many. 128 and more reach 128, where a cosine alternates from value to value.

    Returns
    -------
    Tensor
        (count,), float64, all different: whole numbers up to 128 of them, binary fractions beyond. So the product with
        a byte's value is exact in float32, and with it the angle.

    Examples
    --------
    >>> from adaptive_compute.nn import byte_frequencies
    >>> byte_frequencies(4).tolist()
    [1.0, 43.0, 85.0, 127.0]
    """
    whole(count, "count")
    top = VALUES // 2 - (count < VALUES // 2)
    if count > top * FINEST:
        raise ArgumentError(f"count must be at most {top * FINEST}, got {count}")
    part = 2.0 ** max(math.ceil(math.log2(max(count - 1, 1) / (top - 1))), 0)
    return torch.from_numpy(np.round(np.linspace(1, top, count) * part) / part)


def byte_features(values: torch.Tensor, dim: int, dtype: Any = torch.float32) -> torch.Tensor:
    """Return the spectral features of bytes.

    For the frequencies f_j of `byte_frequencies` and a byte of value v they are
    ``sqrt(2) sin(2 pi f_j v / 256)``, then ``sqrt(2) cos(2 pi f_j v / 256)``: every byte has the norm sqrt(dim), so
    that no normalisation need follow. 256 features are all harmonics: any function of a byte, but for its mean, is
    linear in them.

    Parameters
    ----------
    values : Tensor
        Any shape, uint8.
    dim : int
        How many features; even.
    dtype : torch.dtype
        float16, bfloat16, float32 or float64.

    Returns
    -------
    Tensor
        (..., dim), on the device of ``values``. On CUDA a Triton kernel computes every element where it is stored (but
        in float64, which it does not compute in); elsewhere each of the 256 values is computed once and copied.

    Raises
    ------
    ArgumentTypeError, DtypeError, ArgumentError
        If ``values`` is no tensor, the dtypes are others, or ``dim`` is odd.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute.nn import byte_features
    >>> byte_features(torch.tensor([32, 160], dtype=torch.uint8), 2)
    tensor([[ 1.0000,  1.0000],
            [-1.0000, -1.0000]])
    """
    if not isinstance(values, torch.Tensor):
        raise ArgumentTypeError(f"values must be a torch tensor of dtype uint8, got {_kind(values)}")
    if values.dtype is not torch.uint8:
        raise DtypeError(f"values has dtype {values.dtype}; bytes are uint8: convert with values.to(torch.uint8)")
    if dtype not in FLOATS:
        raise DtypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
    _even(dim, "dim")
    if values.is_cuda and dtype is not torch.float64 and _triton_is_there():
        from .kernels import byte_encoder

        found = byte_encoder.encode(values.reshape(-1), _steps(dim, values.device), dtype)
        return found.reshape(*values.shape, dim)
    every = torch.arange(VALUES, device=values.device)
    few = values.reshape(-1) if values.numel() <= VALUES else every
    wide = working_dtype(dtype)
    steps = _steps(dim, values.device, wide)
    turns = few.to(wide)[:, None] * steps[0] + steps[1]
    found = (math.sqrt(2) * torch.cos(2 * math.pi * (turns - turns.round()))).to(dtype)
    if few is every:
        found = found.index_select(0, values.reshape(-1).to(torch.int32))
    return found.reshape(*values.shape, dim)


@lru_cache(maxsize=1)
def _triton_is_there() -> bool:
    return find_spec("triton") is not None


def _steps(dim: int, device: Any, dtype: Any = torch.float32) -> torch.Tensor:
    """Return (2, dim): the turns of each feature for a unit of a byte's value, and those at the value zero."""
    # what a mode such as FakeTensorMode makes of them must not be kept for other calls
    make = _kept_steps if _get_current_dispatch_mode() is None else _kept_steps.__wrapped__
    return make(dim, device, dtype)


@lru_cache(maxsize=64)
def _kept_steps(dim: int, device: Any, dtype: Any) -> torch.Tensor:
    turns = byte_frequencies(dim // 2) / VALUES
    shift = torch.zeros(dim // 2, dtype=turns.dtype)
    return torch.stack([turns.repeat(2), torch.cat([shift - 0.25, shift])]).to(device, dtype)


class _Bytes(Layer):
    """What the two ways to give bytes to a network share: their input."""

    causal = True

    def values(self, text: Any, device: Any) -> torch.Tensor:
        """Return the input as bytes (batch, length) on the layer's device, or say what is wrong with it."""
        if not isinstance(text, torch.Tensor):
            text = to_bytes(text).to(device)
        if text.dtype is not torch.uint8:
            raise DtypeError(f"x has dtype {text.dtype}; bytes are uint8: convert with x.to(torch.uint8)")
        if text.ndim != 2:
            raise ShapeError(f"x must be bytes (batch, length), got shape {tuple(text.shape)}")
        if text.device != device:
            raise BackendUnavailable(f"x is on {text.device}, {type(self).__name__} on {device}; move one of them")
        if self.max_length is not None and text.shape[1] > self.max_length:
            raise ShapeError(f"x has {text.shape[1]} positions, more than max_length={self.max_length}")
        return text


class ByteEncoder(_Bytes):
    """Bytes to vectors without tokenizer and without table: `byte_features`, and a learned projection where asked.

    Parameters
    ----------
    dim : int
        Width of the output; even where there is no projection.
    features : int, optional
        Compute this many features (even) and project them to ``dim`` with a learned matrix. Without it the features
        are the output and the layer has no parameters.
    max_length : int, optional
        Longest length that is accepted.
    dtype : torch.dtype
        Of the output: float16, bfloat16, float32 or float64, by default torch's; ``layer.to(dtype)`` changes it.
    device : torch.device, optional
        Where the layer is.

    Examples
    --------
    >>> from adaptive_compute import nn
    >>> nn.ByteEncoder(64)(["hello", "wörld"]).shape
    torch.Size([2, 6, 64])
    """

    causal = True
    _anchor: torch.Tensor

    def __init__(
        self, dim: int, *, features: int | None = None, max_length: int | None = None, dtype: Any = None,
        device: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        self.features = _even(dim, "dim") if features is None else _even(features, "features")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in FLOATS:
            raise DtypeError(f"dtype must be float16, bfloat16, float32 or float64, got {dtype}")
        self.projection: torch.nn.Linear | None = None
        if features is not None:
            self.projection = torch.nn.Linear(features, dim, bias=False, dtype=dtype, device=device)
        # Holds nothing; follows the layer to its device and dtype, which a layer without parameters could not tell.
        self.register_buffer("_anchor", torch.empty(0, dtype=dtype, device=device), persistent=False)

    def forward(self, x: Any) -> torch.Tensor:
        """Return vectors (batch, length, dim) of bytes.

        Parameters
        ----------
        x : Tensor, str, bytes or a sequence of str or bytes
            (batch, length), uint8; or text, see `to_bytes`. Batch and length may be 0.

        Raises
        ------
        DtypeError, ShapeError, ArgumentTypeError, ArgumentError, BackendUnavailable
            If the input is something else, too long, or on another device than the layer.
        """
        found = byte_features(self.values(x, self._anchor.device), self.features, self._anchor.dtype)
        return found if self.projection is None else self.projection(found)


class ByteEmbedding(_Bytes):
    """The plain learned table for comparison: one vector of parameters for each of the 256 bytes.

    Parameters
    ----------
    dim : int
        Width of the output.
    max_length : int, optional
        Longest length that is accepted.
    dtype, device : optional
        Of the table.

    Examples
    --------
    >>> from adaptive_compute import nn
    >>> nn.ByteEmbedding(64)("hello").shape
    torch.Size([1, 5, 64])
    """

    causal = True

    def __init__(self, dim: int, *, max_length: int | None = None, dtype: Any = None, device: Any = None) -> None:
        super().__init__(dim, max_length=max_length)
        self.table = torch.nn.Embedding(VALUES, self.dim, dtype=dtype, device=device)

    def forward(self, x: Any) -> torch.Tensor:
        """Return vectors (batch, length, dim) of bytes (batch, length), uint8, or of text; errors as there."""
        return self.table(self.values(x, self.table.weight.device).to(torch.int32))


def _even(value: Any, name: str) -> int:
    found = whole(value, name, 2)
    if found % 2:
        raise ArgumentError(f"{name} must be even (each frequency has a sine and a cosine), got {found}")
    return found


def _kind(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {', '.join(sorted({type(one).__name__ for one in value}))}"
    return type(value).__name__
