"""Checks of NUFFT arguments, by FINUFFT's rules; each error names the argument, what came and what is accepted."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import Operand, as_array, describe, kind_of
from ..dispatcher import physical_memory
from ..errors import ArgumentError, DtypeError, NufftError, NufftTypeError, NufftWarning, TooLargeError
from ..precision import COMPLEX_OF
from .nufft_rule import LARGEST_PHASE, NufftParams, direct_limit, grid_bytes

# What FINUFFT's option structure holds, besides the FFTW locks that it does not show to Python.
# Each whole number with what is accepted: outside, FINUFFT may end the process (fftw, a C int, nthreads) or ignore it.
_C_INT = (1 << 31) - 1
_WHOLE = {
    "modeord": (0, 1), "spreadinterponly": (0, 1), "debug": (0, 2), "spread_debug": (0, 2), "showwarn": (0, 1),
    "nthreads": (0, 4096), "fftw": (0, 127), "spread_sort": (0, 2), "spread_kerevalmeth": (0, 1),
    "spread_kerpad": (0, 1), "spread_thread": (0, 2), "maxbatchsize": (0, _C_INT), "spread_nthr_atomic": (-1, _C_INT),
    "spread_max_sp_size": (0, _C_INT), "spread_kerformula": (0, _C_INT),
}  # fmt: skip
LARGEST_UPSAMPLING = 100  # FINUFFT doubts what is above 3; far above it overflows and gives NaN
_LOCKS = ("fftw_lock_fun", "fftw_unlock_fun", "fftw_lock_data")
_EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}


def whole(value: Any, name: str) -> int:
    """Return a whole number as an int."""
    try:
        return operator.index(value)
    except TypeError:
        raise NufftTypeError(f"{name} must be a whole number, got {value!r}") from None


def _real(value: Any, name: str) -> float:
    if not hasattr(value, "__float__"):
        raise NufftTypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def check_isign(isign: Any, nufft_type: int) -> int:
    """Return the sign of the exponent as +1 or -1; None means FINUFFT's default for the type."""
    if isign is None:
        return -1 if nufft_type == 2 else 1
    return 1 if whole(isign, "isign") >= 0 else -1


def check_eps(eps: Any, real: str, stacklevel: int = 5) -> float:
    """Return the tolerance as a float, warning where the precision cannot reach it."""
    number = _real(eps, "eps")
    if not (math.isfinite(number) and number >= 0):
        raise NufftError(f"eps must be a finite number that is not negative (a relative error), got {eps!r}")
    tol = _settings.current().tol
    if tol is not None:  # of a `with ac.using(tol=...)` around the call; kernels keep four times eps
        number = min(number, tol / 4)
    if number < _EPS[real]:
        warnings.warn(
            f"eps={number:.3g} is too small for {real}, which cannot resolve less than {_EPS[real]:.3g}; the transform "
            "is as precise as it can be",
            NufftWarning,
            stacklevel=stacklevel,
        )
    return number


def check_options(options: Mapping[str, Any], stacklevel: int = 5) -> tuple[int, int, tuple[tuple[str, float], ...]]:
    """Return modeord, the thread count (0: all) and FINUFFT's other options; warn of a name that it does not have."""
    kept: dict[str, float] = {}
    for name, value in options.items():
        if name in _LOCKS:
            raise NufftTypeError(f"option {name!r} is not accepted: FFTW's locks are not for Python")
        if name == "upsampfac":
            kept[name] = _real(value, name)
            if kept[name] != 0 and not 1 < kept[name] <= LARGEST_UPSAMPLING:
                raise NufftError(
                    f"upsampfac must be greater than 1 and at most {LARGEST_UPSAMPLING}, or 0 for FINUFFT's own "
                    f"choice, got {value!r}"
                )
        elif name not in _WHOLE:
            warnings.warn(f"FINUFFT has no option {name!r}, which is ignored", NufftWarning, stacklevel=stacklevel)
        else:
            number, (least, most) = whole(value, name), _WHOLE[name]
            if not least <= number <= most:
                raise NufftError(f"option {name} must be from {least} to {most}, got {value!r}")
            kept[name] = number
    modeord, threads = (int(kept.pop(name, 0)) for name in ("modeord", "nthreads"))
    return modeord, threads, tuple(sorted(kept.items()))


def _array(value: Any, name: str) -> tuple[Any, Operand]:
    try:
        array = as_array(value, name)
    except DtypeError as error:
        raise NufftTypeError(str(error)) from None
    except ArgumentError as error:
        raise NufftError(str(error)) from None
    return array, describe(array)


def check_coordinates(values: Sequence[Any], names: str, real: str | None) -> tuple[list[Any], str, int]:
    """Return coordinates of one set of points as arrays, their dtype, and the number of points."""
    arrays: list[Any] = []
    count = 0
    for value, name in zip(values, names):
        if value is None:
            raise NufftError(f"{name} is missing: {len(values)} dimensions need {', '.join(names[: len(values)])}")
        array, operand = _array(value, name)
        if operand.dtype not in _EPS:
            raise NufftTypeError(f"{name} has dtype {operand.dtype}; float64 and float32 are accepted")
        real = real or operand.dtype
        if operand.dtype != real:
            raise NufftTypeError(f"{name} has dtype {operand.dtype}; this transform's coordinates must all be {real}")
        if len(operand.shape) != 1:
            raise NufftError(f"{name} must be a vector, it has shape {operand.shape}")
        if not arrays:
            count = operand.size
        elif operand.size != count:
            raise NufftError(f"{name} must have the length of {names[0]}, {count}; it has {operand.size}")
        arrays.append(array)
    assert real is not None
    return arrays, real, count


def check_data(value: Any, name: str, real: str) -> tuple[Any, tuple[int, ...]]:
    """Return strengths or modes as an array, and its shape."""
    array, operand = _array(value, name)
    if operand.dtype != COMPLEX_OF[real]:
        raise NufftTypeError(f"{name} has dtype {operand.dtype}; {COMPLEX_OF[real]} goes with {real} points")
    return array, operand.shape


def check_strengths(shape: tuple[int, ...], count: int, name: str, n_trans: int | None = None) -> int:
    """Return the number of transforms that the shape of values at points stands for."""
    accepted = f"({count},) or ({'n_trans' if n_trans is None else n_trans}, {count})"
    if len(shape) not in (1, 2) or shape[-1] != count or 0 in shape[:-1]:
        raise NufftError(f"{name} must have shape {accepted}, got {shape}")
    found = shape[0] if len(shape) == 2 else 1
    if n_trans is not None and found != n_trans:
        raise NufftError(f"{name} must have shape {accepted}, got {shape}")
    return found


def check_modes(
    shape: tuple[int, ...], dim: int, name: str, n_modes: tuple[int, ...] | None = None, n_trans: int | None = None
) -> tuple[tuple[int, ...], int]:
    """Return the modes of each dimension and the number of transforms that an array of modes stands for."""
    if len(shape) not in (dim, dim + 1) or 0 in shape:
        raise NufftError(
            f"{name} must have {dim} axes of modes, and may have a leading one of transforms, none of them empty; "
            f"got shape {shape}"
        )
    modes, found = shape[-dim:], shape[0] if len(shape) > dim else 1
    if modes != (n_modes or modes) or found != (n_trans or found):
        wanted = f"{'n_modes' if n_modes is None else n_modes} modes and {n_trans or 1} transforms"
        raise NufftError(f"{name} has shape {shape}, which does not match {wanted}")
    return modes, found


def check_n_modes(n_modes: Any, dim: int) -> tuple[int, ...]:
    """Return the number of modes of each dimension from a whole number or a tuple of them."""
    if isinstance(n_modes, (int, np.integer)) and not isinstance(n_modes, bool):
        n_modes = (n_modes,) * dim
    if not isinstance(n_modes, tuple):
        raise NufftTypeError(f"n_modes must be a whole number or a tuple of {dim}, got {n_modes!r}")
    if len(n_modes) != dim:
        raise NufftError(f"n_modes must have {dim} numbers for {dim} dimensions, got {n_modes!r}")
    modes = tuple(whole(n, "each of n_modes") for n in n_modes)
    if min(modes) < 1:
        raise NufftError(f"n_modes must be at least 1 in each dimension, got {n_modes!r}")
    return modes


def check_out(out: Any, shape: tuple[int, ...], n_trans: int, data: Any) -> None:
    """Refuse an output array that the result cannot be written to as it is.

    As for FINUFFT, a single transform may have a leading axis of 1 or none, on either side.
    """
    kind, like = kind_of(out), describe(data)
    if kind is None or kind is not kind_of(data):
        raise NufftTypeError(f"out must be an array of the same kind as the data, got {type(out).__name__}")
    found = kind.describe(out)
    if (found.dtype, found.device) != (like.dtype, like.device):
        raise NufftTypeError(f"out is {found.dtype} on {found.device}; {like.dtype} on {like.device} is needed")
    if found.shape != shape and not (n_trans == 1 and found.shape in ((1, *shape), shape[1:])):
        raise NufftError(f"out has shape {found.shape}; the result has {shape}")
    flags = getattr(out, "flags", None)
    if flags is not None and not (flags.c_contiguous and flags.writeable):
        raise NufftTypeError("out must be C-contiguous and writeable")
    if flags is None and not out.is_contiguous():
        raise NufftTypeError("out must be contiguous")
    if kind.needs_gradient(data) or kind.needs_gradient(out):
        raise NufftError("out cannot be used where a gradient is wanted; take the returned array instead")


def equivalent_modes(points: Sequence[Any], targets: Sequence[Any]) -> tuple[int, ...]:
    """Return the modes per dimension that a type 3 transform's extents amount to.

    Points that are not finite are refused, and phases so large that their rounding leaves no digit of the result.
    """
    modes = []
    for x, s, names in zip(points, targets, ("xs", "yt", "zu")):
        (a, b), (c, d) = check_range(x, names[0]), check_range(s, names[1])
        phase = max(-a, b) * max(-c, d)
        if not phase <= LARGEST_PHASE:
            raise TooLargeError(
                f"{names[0]} times {names[1]} reaches {phase:.3g} radians; beyond {LARGEST_PHASE:.3g} the rounding of "
                "a phase is more than a radian"
            )
        n = 2 / math.pi * (b / 2 - a / 2) * (d / 2 - c / 2)
        # Beyond 2^60 every grid is too large alike; rounding up lets calls with new random points share their plan.
        modes.append(1 if n <= 1 else math.ceil(2.0 ** (math.ceil(4 * math.log2(min(n, 2.0**60))) / 4)))
    return tuple(modes)


def check_range(values: Any, name: str) -> tuple[float, float]:
    """Return the smallest and the largest coordinate, refusing what is not finite."""
    if values.shape[0] == 0:
        return 0.0, 0.0
    values = values.detach() if hasattr(values, "detach") else values
    kind = kind_of(values)
    assert kind is not None
    low, high = kind.extremes(values)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NufftError(f"{name} is not finite everywhere (it ranges from {low} to {high}); points must be")
    return low, high


def check_grid(params: NufftParams, dtype: str, count: int, outputs: int) -> None:
    """Raise before a fast transform's grid could exceed this machine's memory, where no direct sum can stand in."""
    memory = physical_memory()
    needed = grid_bytes(params, dtype)
    if memory is not None and needed > memory and count * outputs > direct_limit(params):
        cause = "points times targets span" if params.type == 3 else "n_modes asks for"
        raise TooLargeError(
            f"{cause} a grid of about {' x '.join(map(str, params.n_modes))} modes, at least {needed / 2**30:.3g} GiB; "
            f"this machine has {memory / 2**30:.1f} GiB of memory"
        )


def checked(
    nufft_type: int, points: Sequence[Any], data: Any, targets: Sequence[Any], n_modes: Any, out: Any, eps: Any,
    isign: Any, options: Mapping[str, Any],
) -> tuple[NufftParams, int, tuple[Any, ...]]:  # fmt: skip
    """Return parameters, thread count (0: the settings') and operands of a call, or raise for what is wrong with it."""
    dim, name = len(points), "f" if nufft_type == 2 else "c"
    points, real, count = check_coordinates(points, "xyz", None)
    targets, _, outputs = check_coordinates(targets, "stu", real)
    data, shape = check_data(data, name, real)
    if nufft_type == 2:
        modes, n_trans = check_modes(shape, dim, name)
        shape = (*shape[:-dim], count)
    else:
        n_trans = check_strengths(shape, count, name)
        if nufft_type == 3:
            modes = equivalent_modes(points, targets)
            shape = (*shape[:-1], outputs)
        else:
            if n_modes is None and out is None:
                raise NufftError("n_modes is missing: give the number of modes, or out")
            wanted = None if n_modes is None else check_n_modes(n_modes, dim)
            modes = wanted or ()
            if out is not None:
                modes, _ = check_modes(tuple(np.shape(out)), dim, "out", wanted, n_trans)
            shape = (*shape[:-1], *modes)
    sign = check_isign(isign, nufft_type)
    modeord, threads, kept = check_options(options)
    eps = check_eps(eps, real)
    if out is not None:
        check_out(out, shape, n_trans, data)
    params = NufftParams(nufft_type, dim, modes, n_trans, sign, modeord, eps, kept)
    check_grid(params, real, count, outputs)
    return params, threads, (data, *points, *targets)
