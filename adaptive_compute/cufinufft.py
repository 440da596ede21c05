"""Nonuniform FFTs under cuFINUFFT's names, for programs that import it.

The transforms are those of ``adaptive_compute.nufft``, on arrays of any kind. What is cuFINUFFT's: the names of the
arguments, plans in single precision where nothing is said, and errors, of which each is a TypeError as well.

>>> import numpy as np
>>> import adaptive_compute.cufinufft as cufinufft
>>> plan = cufinufft.Plan(1, (4, 4), eps=1e-4, gpu_method=2)
>>> plan.setpts(np.zeros(3, np.float32), np.zeros(3, np.float32))
>>> plan.execute(np.ones(3, np.complex64)).dtype
dtype('complex64')
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from . import nufft as _nufft
from .core.errors import NufftError, NufftTypeError
from .core.operations.nufft_arguments import OPTIONS

__all__ = ["Plan", "nufft1d1", "nufft1d2", "nufft2d1", "nufft2d2", "nufft3d1", "nufft3d2"]
__version__ = "2.5.1"  # of cuFINUFFT's Python interface, which this one follows

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _in_its_kind(function: _Function) -> _Function:
    """Raise every error as one that is a TypeError too, and refuse an option that does not exist."""
    own = frozenset(signature(function).parameters)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in own and name not in OPTIONS:
                raise NufftTypeError(f"cuFINUFFT and FINUFFT have no option {name!r} [Invalid option {name!r}]")
        try:
            return function(*args, **kwargs)
        except NufftTypeError:
            raise
        except NufftError as error:
            raise NufftTypeError(str(error)) from None

    return call  # type: ignore[return-value]


class Plan(_nufft.Plan):
    """A nonuniform FFT of fixed parameters, with cuFINUFFT's interface; see ``adaptive_compute.nufft.Plan``.

    Parameters
    ----------
    nufft_type : {1, 2, 3}
        Points to modes, modes to points, points to frequencies.
    n_modes : int or tuple of int
        Modes of each dimension; for type 3 the number of dimensions.
    n_trans : int
        Number of transforms in one execution.
    eps : float
        Relative L2 error asked for.
    isign : int, optional
        Sign of the exponent. Default: +1 for types 1 and 3, -1 for type 2.
    dtype : str or dtype
        ``"complex64"`` or ``"complex128"``.
    **kwargs
        cuFINUFFT's options; see docs/coming-from-finufft.md.
    """

    @_in_its_kind
    def __init__(
        self, nufft_type: int, n_modes: Any, n_trans: int = 1, eps: float = 1e-6, isign: int | None = None,
        dtype: Any = "complex64", **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(nufft_type, n_modes, n_trans, eps, isign, dtype, **kwargs)

    setpts = _in_its_kind(_nufft.Plan.setpts)
    execute = _in_its_kind(_nufft.Plan.execute)
    execute_adjoint = _in_its_kind(_nufft.Plan.execute_adjoint)


@_in_its_kind
def nufft1d1(
    x: Any, data: Any, n_modes: Any = None, out: Any = None, eps: float = 1e-6, isign: int = 1, **kwargs: Any
) -> Any:
    """Transform from points to modes in one dimension; see ``adaptive_compute.nufft.nufft1d1``."""
    return _nufft.nufft1d1(x, data, n_modes, out, eps, isign, **kwargs)


@_in_its_kind
def nufft1d2(x: Any, data: Any, out: Any = None, eps: float = 1e-6, isign: int = -1, **kwargs: Any) -> Any:
    """Transform from modes to points in one dimension; see ``adaptive_compute.nufft.nufft1d2``."""
    return _nufft.nufft1d2(x, data, out, eps, isign, **kwargs)


@_in_its_kind
def nufft2d1(
    x: Any, y: Any, data: Any, n_modes: Any = None, out: Any = None, eps: float = 1e-6, isign: int = 1, **kwargs: Any
) -> Any:
    """Transform from points to modes in two dimensions; see ``adaptive_compute.nufft.nufft2d1``."""
    return _nufft.nufft2d1(x, y, data, n_modes, out, eps, isign, **kwargs)


@_in_its_kind
def nufft2d2(x: Any, y: Any, data: Any, out: Any = None, eps: float = 1e-6, isign: int = -1, **kwargs: Any) -> Any:
    """Transform from modes to points in two dimensions; see ``adaptive_compute.nufft.nufft2d2``."""
    return _nufft.nufft2d2(x, y, data, out, eps, isign, **kwargs)


@_in_its_kind
def nufft3d1(
    x: Any, y: Any, z: Any, data: Any, n_modes: Any = None, out: Any = None, eps: float = 1e-6, isign: int = 1,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """Transform from points to modes in three dimensions; see ``adaptive_compute.nufft.nufft3d1``."""
    return _nufft.nufft3d1(x, y, z, data, n_modes, out, eps, isign, **kwargs)


@_in_its_kind
def nufft3d2(
    x: Any, y: Any, z: Any, data: Any, out: Any = None, eps: float = 1e-6, isign: int = -1, **kwargs: Any
) -> Any:
    """Transform from modes to points in three dimensions; see ``adaptive_compute.nufft.nufft3d2``."""
    return _nufft.nufft3d2(x, y, z, data, out, eps, isign, **kwargs)
