"""What every layer of this room is: a module over (batch, length, dim) that says whether it is causal."""

from __future__ import annotations

import operator
from typing import Any, ClassVar

import torch

from ..core.errors import ArgumentError, ArgumentTypeError, BackendUnavailable, DtypeError, ShapeError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Layer(torch.nn.Module):  # type: ignore[misc]
    """Base of the layers: input (batch, length, dim) in, the same shape out.

    Attributes
    ----------
    causal : bool
        True where output position t depends on inputs 0..t alone, and a certificate says so. A subclass must set it.
    dim : int
        Width of the last axis.
    max_length : int or None
        Longest length that is accepted; None: any.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> class Twice(nn.Layer):
    ...     causal = True
    ...
    ...     def forward(self, x):
    ...         return 2 * self.checked(x)
    >>> Twice(3)(torch.ones(1, 2, 3)).tolist()
    [[[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]]
    """

    causal: ClassVar[bool]
    complex_inputs: ClassVar[bool] = False

    def __init_subclass__(cls, **others: Any) -> None:
        super().__init_subclass__(**others)
        if not isinstance(getattr(cls, "causal", None), bool):
            raise ArgumentTypeError(f"{cls.__name__} must say `causal = True` or `causal = False` in its class")

    def __init__(self, dim: int, *, max_length: int | None = None) -> None:
        super().__init__()
        self.dim = whole(dim, "dim")
        self.max_length = None if max_length is None else whole(max_length, "max_length")

    def checked(self, x: Any, name: str = "x", *, limited: bool = True) -> Any:
        """Return an input that this layer computes with, or say what is wrong with it.

        Parameters
        ----------
        x : Tensor
            (batch, length, dim), floating point (complex where the class says ``complex_inputs``), in the dtype of the
            layer's parameters (any, under ``torch.autocast``) and on their device. The batch may be empty.
        name : str
            What messages call it.
        limited : bool
            Whether it needs at least one position and at most ``max_length``; chunks of a stream do not.

        Raises
        ------
        ArgumentTypeError, ShapeError, DtypeError, BackendUnavailable
            If ``x`` is no tensor, or has the wrong shape, dtype or device.
        """
        most, least = (self.max_length, 1) if limited else (None, 0)
        check_sequence(x, name, self.dim, most, complex_inputs=self.complex_inputs, least=least)
        parameter = next((p for p in self.parameters() if p.is_floating_point() or p.is_complex()), None)
        if parameter is not None:
            check_alike(x, parameter, name, f"{type(self).__name__}'s parameters")
        return x

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{self.dim}" + ("" if self.max_length is None else f", max_length={self.max_length}")


def check_sequence(
    x: Any, name: str, dim: int | None = None, max_length: int | None = None, *, complex_inputs: bool = False,
    least: int = 1,
) -> None:  # fmt: skip
    """Raise unless ``x`` is a floating-point tensor (batch, length, dim) with least <= length <= max_length."""
    if not isinstance(x, torch.Tensor):
        raise ArgumentTypeError(f"{name} must be a torch tensor (batch, length, dim), got {type(x).__name__}")
    if x.ndim != 3:
        raise ShapeError(f"{name} must be (batch, length, dim), got shape {tuple(x.shape)}")
    if x.dtype not in FLOATS and not (complex_inputs and x.is_complex()):
        accepted = "float16, bfloat16, float32 or float64" + (", or complex" if complex_inputs else "")
        raise DtypeError(f"{name} has dtype {x.dtype}; accepted: {accepted}")
    if dim is not None and x.shape[2] != dim:
        raise ShapeError(f"{name} must have dim {dim} as its last axis, got shape {tuple(x.shape)}")
    if x.shape[1] < least:
        raise ShapeError(f"{name} must have at least one position, got shape {tuple(x.shape)}")
    if max_length is not None and x.shape[1] > max_length:
        raise ShapeError(f"{name} has {x.shape[1]} positions, more than max_length={max_length}")


def check_alike(x: Any, other: Any, name: str, what: str) -> None:
    """Raise unless ``x`` is on the device of ``other`` and, outside ``torch.autocast``, in its precision."""
    if x.device != other.device:
        raise BackendUnavailable(f"{name} is on {x.device}, {what} on {other.device}; move one of them")
    if real_dtype(x.dtype) != real_dtype(other.dtype) and not torch.is_autocast_enabled(x.device.type):
        raise DtypeError(
            f"{name} has dtype {x.dtype}, {what} have {other.dtype}; convert one of them, or use torch.autocast"
        )


def real_dtype(dtype: Any) -> Any:
    """Return the dtype of a complex dtype's parts; a real one as it is."""
    return dtype.to_real()


def working_dtype(dtype: Any) -> Any:
    """Return the dtype in which transforms and sums are computed: float64 for float64, float32 for what is narrower."""
    return torch.float64 if real_dtype(dtype) == torch.float64 else torch.float32


def whole(value: Any, name: str, least: int = 1) -> int:
    """Return a whole number that is at least ``least``, or say which argument is none."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < least or isinstance(value, bool):
        raise ArgumentError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return number


def one_of(value: Any, name: str, accepted: tuple[str, ...]) -> str:
    """Return a word that is among those accepted, or say which are."""
    if value not in accepted:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")
    return value
