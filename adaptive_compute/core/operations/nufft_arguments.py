"""Checks of NUFFT arguments, by FINUFFT's rules; each error names the argument, what came and what is accepted.

Where FINUFFT raises or warns as well, its own words stand at the end, in brackets, so that programs which look for them
find them. Where it does not, and this library does, that is said in docs/coming-from-finufft.md.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import Operand, as_array, describe, is_abstract, kind_of
from ..dispatcher import physical_memory
from ..errors import ArgumentError, DtypeError, NufftError, NufftTypeError, NufftWarning, TooLargeError
from ..precision import COMPLEX_OF
from .nufft_rule import LARGEST_PHASE, NufftParams, direct_limit, grid_bytes

# What FINUFFT's option structure holds, besides the FFTW locks that it does not show to Python.
# Each whole number with what is accepted: outside, FINUFFT may end the process (fftw, a C int, nthreads) or ignore it.
_C_INT = (1 << 31) - 1
_WHOLE = {
    "modeord": (0, 1), "spreadinterponly": (0, 1), "debug": (0, _C_INT), "spread_debug": (0, _C_INT),
    "showwarn": (0, 1), "nthreads": (0, 4096), "fftw": (0, 127), "spread_sort": (0, 2), "spread_kerevalmeth": (0, 1),
    "spread_kerpad": (0, 1), "spread_thread": (0, 2), "maxbatchsize": (0, _C_INT), "spread_nthr_atomic": (-1, _C_INT),
    "spread_max_sp_size": (0, _C_INT), "spread_kerformula": (0, _C_INT),
}  # fmt: skip
# What FINUFFT takes where nothing is said. Given so, an option chooses nothing, and every kernel remains a candidate.
_DEFAULTS = {
    "spreadinterponly": 0, "debug": 0, "spread_debug": 0, "fftw": 64, "spread_sort": 2, "spread_kerevalmeth": 1,
    "spread_kerpad": 1, "spread_thread": 0, "maxbatchsize": 0, "spread_nthr_atomic": -1, "spread_max_sp_size": 0,
    "spread_kerformula": 0, "upsampfac": 0,
}  # fmt: skip
# cuFINUFFT's names. How its threads share the work does not change a result and is chosen here by measurement, so these
# are checked and have no effect; ``gpu_spreadinterponly`` does change the result and is FINUFFT's option.
_OF_GPU = (
    "gpu_method", "gpu_sort", "gpu_kerevalmeth", "gpu_binsizex", "gpu_binsizey", "gpu_binsizez", "gpu_obinsizex",
    "gpu_obinsizey", "gpu_obinsizez", "gpu_maxsubprobsize", "gpu_maxbatchsize", "gpu_device_id", "gpu_stream", "gpu_np",
)  # fmt: skip
LARGEST_UPSAMPLING = 100  # FINUFFT doubts what is above 3; far above it overflows and gives NaN
_LOCKS = ("fftw_lock_fun", "fftw_unlock_fun", "fftw_lock_data")
OPTIONS = frozenset(
    [*_WHOLE, "upsampfac", *_OF_GPU, "gpu_spreadinterponly", *_LOCKS]
)  # every name that means something
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
    if not math.isfinite(number):
        raise NufftError(f"eps must be a finite number (a relative error), got {eps!r}")
    tol = _settings.current().tol
    if tol is not None:  # of a `with ac.using(tol=...)` around the call; kernels keep four times eps
        number = min(number, tol / 4)
    if number < _EPS[real]:
        warnings.warn(
            f"eps={number:.3g} is too small for {real}, which cannot resolve less than {_EPS[real]:.3g}; the transform "
            "is as precise as it can be [FINUFFT eps tolerance too small to achieve]",
            NufftWarning,
            stacklevel=stacklevel,
        )
    return max(number, 0.0)


def check_options(options: Mapping[str, Any], stacklevel: int = 5) -> tuple[int, int, tuple[tuple[str, float], ...]]:
    """Return modeord, the thread count (0: all) and FINUFFT's other options; warn of a name that it does not have."""
    kept: dict[str, float] = {}
    for given, value in options.items():
        name = "spreadinterponly" if given == "gpu_spreadinterponly" else given
        if name in _LOCKS:
            raise NufftTypeError(
                f"option {name!r} is not accepted [Invalid option {name!r}: FFTW locks are not exposed in Python]"
            )
        if name in _OF_GPU:
            whole(value, name)
            continue
        if name == "upsampfac":
            kept[name] = _real(value, name)
            if kept[name] != 0 and not 1 < kept[name] <= LARGEST_UPSAMPLING:
                raise NufftError(
                    f"upsampfac must be greater than 1 and at most {LARGEST_UPSAMPLING}, or 0 for FINUFFT's own "
                    f"choice, got {value!r}"
                )
        elif name not in _WHOLE:
            warnings.warn(
                f"FINUFFT has no option {name!r}, which is ignored [finufft_opts does not have attribute {name!r}]",
                NufftWarning,
                stacklevel=stacklevel,
            )
        else:
            number, (least, most) = whole(value, name), _WHOLE[name]
            if not least <= number <= most:
                raise NufftError(f"option {name} must be from {least} to {most}, got {value!r}")
            kept[name] = number
    modeord, threads = (int(kept.pop(name, 0)) for name in ("modeord", "nthreads"))
    kept.pop("showwarn", None)  # about what FINUFFT writes to stderr; here warnings are Python's
    return modeord, threads, tuple(sorted(item for item in kept.items() if _DEFAULTS[item[0]] != item[1]))


def _warn_of_copy(array: Any, name: str, stacklevel: int) -> None:
    if type(array) is np.ndarray and not array.flags.c_contiguous:
        warnings.warn(
            f"{name} is not contiguous, so that it is copied [Argument `{name}` does not satisfy the following "
            "requirement: C. Copying array (this may reduce performance)]",
            NufftWarning,
            stacklevel=stacklevel + 1,
        )


def _array(value: Any, name: str) -> tuple[Any, Operand]:
    try:
        array = as_array(value, name)
    except DtypeError as error:
        raise NufftTypeError(str(error)) from None
    except ArgumentError as error:
        raise NufftError(str(error)) from None
    return array, describe(array)


def check_coordinates(
    values: Sequence[Any], names: str, real: str | None, stacklevel: int = 5
) -> tuple[list[Any], str, int]:
    """Return coordinates of one set of points as arrays, their dtype, and the number of points."""
    arrays: list[Any] = []
    count = 0
    for value, name in zip(values, names):
        if value is None:
            raise NufftError(f"{name} is missing: {len(values)} dimensions need {', '.join(names[: len(values)])}")
        array, operand = _array(value, name)
        if real is None and operand.dtype not in _EPS:
            raise NufftTypeError(
                f"{name} has dtype {operand.dtype}; float64 and float32 are accepted [FINUFFT {name} dtype should be "
                "float64 for double precision or float32 for single precision]"
            )
        real = real or operand.dtype
        if operand.dtype != real:
            raise NufftTypeError(
                f"{name} has dtype {operand.dtype}; this transform's coordinates must all be {real} [Argument `{name}` "
                f"does not have the correct dtype: {operand.dtype} was given, but {real} was expected]"
            )
        if len(operand.shape) != 1:
            raise NufftError(f"{name} must be a vector, it has shape {operand.shape}")
        _warn_of_copy(value, name, stacklevel)
        if not arrays:
            count = operand.size
        elif operand.size != count:
            raise NufftError(f"{name} must have same length as {names[0]}, {count}; it has {operand.size}")
        arrays.append(array)
    assert real is not None
    return arrays, real, count


def check_data(value: Any, name: str, real: str, stacklevel: int = 5) -> tuple[Any, tuple[int, ...]]:
    """Return strengths or modes as an array, and its shape."""
    array, operand = _array(value, name)
    if operand.dtype != COMPLEX_OF[real]:
        raise NufftTypeError(
            f"{name} has dtype {operand.dtype}; {COMPLEX_OF[real]} goes with {real} points [Argument `data` does not "
            f"have the correct dtype: {operand.dtype} was given, but {COMPLEX_OF[real]} was expected]"
        )
    _warn_of_copy(value, name, stacklevel)
    return array, operand.shape


def check_strengths(shape: tuple[int, ...], count: int, name: str, n_trans: int | None = None) -> int:
    """Return the number of transforms that the shape of values at points stands for."""
    found = shape[0] if len(shape) == 2 else 1
    if len(shape) in (1, 2) and shape[-1] == count and 0 not in shape[:-1] and found == (n_trans or found):
        return found
    size = math.prod(shape)
    if n_trans is None and count and size % count:
        said = "c.size must be divisible by x.size"
    elif (n_trans or (size // count if count else 1)) == 1:
        said = "c.size must be same as x.size" if len(shape) in (1, 2) else "c.ndim must be 1 or 2"
        said += " if n_trans == 1"
    else:
        said = "c.shape must be (n_trans, x.size)" if len(shape) == 2 else "c.ndim must be 2"
        said += " if n_trans > 1"
    accepted = f"({count},) or ({'n_trans' if n_trans is None else n_trans}, {count})"
    raise NufftError(f"{name} must have shape {accepted}, got {shape} [FINUFFT {said}]")


def check_modes(
    shape: tuple[int, ...], dim: int, name: str, n_modes: tuple[int, ...] | None = None, n_trans: int | None = None,
    in_plan: bool = False,
) -> tuple[tuple[int, ...], int]:  # fmt: skip
    """Return the modes of each dimension and the number of transforms that an array of modes stands for."""
    modes, found = shape[-dim:], shape[0] if len(shape) > dim else 1
    several = (n_trans or 1) > 1
    if len(shape) not in (dim, dim + 1) or 0 in shape:
        said = "type 1 output dimension or type 2 input dimension must be either dim (n_trans==1) or dim+1 (n_trans>=1)"
        if in_plan:
            said = f"f.ndim must be same as the problem dimension {'+ 1 ' * several}for type 1 or 2"
        raise NufftError(
            f"{name} must have {dim} axes of modes, and may have a leading one of transforms, none of them empty; "
            f"got shape {shape} [FINUFFT {said}]"
        )
    if modes == (n_modes or modes) and found == (n_trans or found):
        return modes, found
    if not in_plan:
        different = "n_modes" if found == (n_trans or found) else "n_trans"
        said = f"input {different} and output {different} do not match"
    elif found == n_trans:
        said = "f.shape is not consistent with n_modes"
    elif len(shape) > dim:
        said = f"f.shape[0] must be {'n_trans' if several else 1} for type 1 or 2"
    else:
        said = "f.ndim must be same as the problem dimension + 1 for type 1 or 2 if n_trans > 1"
    wanted = f"{'n_modes' if n_modes is None else n_modes} modes and {n_trans or 1} transforms"
    raise NufftError(f"{name} has shape {shape}, which does not match {wanted} [FINUFFT {said}]")


def check_n_modes(n_modes: Any, dim: int) -> tuple[int, ...]:
    """Return the number of modes of each dimension from a whole number or a tuple of them."""
    if isinstance(n_modes, (int, np.integer)) and not isinstance(n_modes, bool):
        n_modes = (n_modes,) * dim
    if not isinstance(n_modes, tuple):
        raise NufftTypeError(
            f"n_modes must be a whole number or a tuple of {dim}, got {n_modes!r} [FINUFFT input n_modes must be a "
            "tuple or an integer]"
        )
    if len(n_modes) != dim:
        raise NufftError(
            f"n_modes must have {dim} numbers for {dim} dimensions, got {n_modes!r} [FINUFFT input n_modes dimension "
            "does not match problem dimension]"
        )
    try:
        modes = tuple(map(operator.index, n_modes))
    except TypeError:
        raise NufftTypeError(
            f"n_modes must be whole numbers, got {n_modes!r} [FINUFFT all elements of input n_modes must be integer]"
        ) from None
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
        raise NufftTypeError(
            f"out is {found.dtype} on {found.device}; {like.dtype} on {like.device} is needed [Argument `out` does not "
            f"have the correct dtype: {found.dtype} was given, but {like.dtype} was expected]"
        )
    flags = getattr(out, "flags", None)
    if flags is not None and not (flags.c_contiguous and flags.writeable):
        missing = "W" if flags.c_contiguous else "C"
        raise NufftTypeError(
            "out must be C-contiguous and writeable [Argument `out` does not satisfy the following requirement: "
            f"{missing}]"
        )
    if found.shape != shape and not (n_trans == 1 and found.shape in ((1, *shape), shape[1:])):
        raise NufftError(f"out has shape {found.shape}; the result has {shape}{_out_said(found.shape, shape, n_trans)}")
    if flags is None and not hasattr(out, "is_contiguous"):
        raise NufftTypeError(f"out cannot be a {found.kind} array, which is not written to; take the returned array")
    if flags is None and not out.is_contiguous():
        raise NufftTypeError("out must be contiguous")
    if kind.needs_gradient(data) or kind.needs_gradient(out):
        raise NufftError("out cannot be used where a gradient is wanted; take the returned array instead")


def _out_said(found: tuple[int, ...], shape: tuple[int, ...], n_trans: int) -> str:
    """Return what FINUFFT says of an output with values at points or targets, where the result is one."""
    if len(shape) > 2:
        return ""
    if n_trans > 1:
        said = "f.shape must be (n_trans, nk)" if len(found) == 2 else "f.ndim must be 2 for type 3"
        return f" [FINUFFT {said} if n_trans > 1]"
    said = "f.size of must be nk" if len(found) in (1, 2) else "f.ndim must be 1 or 2 for type 3"
    return f" [FINUFFT {said} if n_trans == 1]"


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
    wanted = None if n_modes is None else check_n_modes(n_modes, dim)
    if nufft_type == 1 and n_modes is None and out is None:
        raise NufftError(
            "n_modes is missing: give the number of modes, or out [FINUFFT type 1 input must supply n_modes or output "
            "vector, or both]"
        )
    data, shape = check_data(data, name, real)
    if nufft_type == 2:
        modes, n_trans = check_modes(shape, dim, name)
        shape = (*shape[:-dim], count)
    else:
        n_trans = check_strengths(shape, count, name)
        if nufft_type == 3:
            # Where they have no values yet, their extents are told when they have.
            open_ = any(map(is_abstract, (*points, *targets)))
            modes = () if open_ else equivalent_modes(points, targets)
            shape = (*shape[:-1], outputs)
        else:
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
    if modes:
        check_grid(params, real, count, outputs)
    return params, threads, (data, *points, *targets)
