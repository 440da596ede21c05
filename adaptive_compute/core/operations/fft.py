"""Discrete Fourier transforms with SciPy's signatures: complex, real, Hermitian; one axis or several.

Normalisation and sign are SciPy's [1]_: ``fft`` has the exponent -2 pi i jk/n, and ``norm`` says which direction
carries the factor 1/n. Inputs are never modified, so ``overwrite_x`` is accepted and has no effect.

References
----------
.. [1] https://docs.scipy.org/doc/scipy/reference/fft.html
"""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import as_array, call_key, describe
from ..dispatcher import dispatcher
from ..errors import ArgumentError, ArgumentTypeError, AxisError, DeviceError, DtypeError, ShapeError
from ..traced import compiling, in_graph
from .fft_rule import FAMILY, FULL, NONE, SQRT, WORKING, FFTParams

OPERATIONS = (FAMILY,)

_SCALES = {
    (None, True): NONE, ("backward", True): NONE, ("ortho", True): SQRT, ("forward", True): FULL,
    (None, False): FULL, ("backward", False): FULL, ("ortho", False): SQRT, ("forward", False): NONE,
}  # fmt: skip


def _axis_of(axis: Any, ndim: int, name: str = "axis") -> int:
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentTypeError(f"{name} must be a whole number, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise AxisError(f"{name}={number} does not exist in x, which has {ndim} axes")
    return number % ndim


def _length(n: Any, name: str) -> int:
    try:
        number = operator.index(n)
    except TypeError:
        raise ArgumentTypeError(f"{name} must be a whole number, got {n!r}") from None
    if number < 1:
        raise ArgumentError(f"invalid number of data points ({number}) specified: {name} must be at least 1")
    return number


def _scale(norm: Any, forward: bool) -> int:
    try:
        return _SCALES[norm, forward]
    except (KeyError, TypeError):
        raise ArgumentError(f"norm={norm!r} is not accepted; use 'backward', 'ortho' or 'forward'") from None


def _operand(x: Any, kind: str) -> Any:
    x = as_array(x, "x")
    dtype = describe(x).dtype
    if dtype not in WORKING and not dtype.startswith(("int", "uint")):
        raise DtypeError(f"x has dtype {dtype}, which fft does not compute in")
    if kind == "r2c" and dtype.startswith("complex"):
        raise DtypeError(f"x must be a real sequence for this transform, it has dtype {dtype}")
    if x.ndim == 0:
        raise AxisError("x is 0-dimensional: there is no axis to transform")
    return x


def _threads(workers: Any) -> int:
    """Return the thread count that SciPy's ``workers`` means: negative numbers count down from all processors."""
    try:
        count = operator.index(workers)
    except TypeError:
        raise ArgumentTypeError(f"workers must be a whole number, got {workers!r}") from None
    have, all_of_them = _settings.available_threads(), os.cpu_count() or 1  # SciPy counts those it may not use as well
    if not -max(have, all_of_them) <= count or count == 0:
        said = "workers must not be zero" if count == 0 else f"workers value out of range; got workers={count}"
        raise ArgumentError(f"{said}: use 1 or more, or -{all_of_them} to -1 to count down from all")
    return count if count > 0 else max(count + 1 + have, 1)


def _one_axis(kind: str, forward: bool, x: Any, n: Any, axis: Any, norm: Any, workers: Any, tol: Any) -> Any:
    """Run a transform over one axis, by the short way where the same call was made before.

    For a plain array, its shape, dtype and place and the arguments decide everything; a call that was seen before goes
    straight to its plan and builds no request.
    """
    if type(x) is not np.ndarray and compiling():
        return in_graph("fft", "_one_axis", kind, forward, x, n, axis, norm, workers, tol)
    key: tuple[Any, ...] | None = None
    known = call_key(x)
    if known is not None:
        # With the types, because 2.0 equals 2 but is no length.
        key = (
            kind, forward, known, n, type(n), axis, type(axis), norm, workers, type(workers), tol, type(tol),
            _settings.current(),
        )  # fmt: skip
        try:
            call = dispatcher.fast[key]
        except KeyError:
            pass
        except TypeError:  # an argument that cannot be hashed: the checks below name it
            key = None
        else:
            try:
                return call(x)
            except (MemoryError, DeviceError):
                pass  # the whole path hands over to the next candidate
    given, x = x, _operand(x, kind)
    scale = _scale(norm, forward)
    index = _axis_of(axis, x.ndim)
    length = x.shape[index] if n is None else _length(n, "n")
    if n is None and kind == "c2r":
        length = 2 * (length - 1)
    params = FFTParams(kind, forward, (_length(length, "x.shape[axis], or n,"),), (index,), scale)
    return _run(params, x, workers, tol, key if x is given else None)


def _several_axes(kind: str, forward: bool, x: Any, s: Any, axes: Any, norm: Any, workers: Any, tol: Any) -> Any:
    """Run a transform over several axes, the last of which is the real one where there is one.

    As for one axis, a call on a plain array that was made before goes straight to its plan.
    """
    if type(x) is not np.ndarray and compiling():
        return in_graph("fft", "_several_axes", kind, forward, x, s, axes, norm, workers, tol)
    key: tuple[Any, ...] | None = None
    known = call_key(x)
    if known is not None:
        key = (
            "n", kind, forward, known, s, _types(s), axes, _types(axes), norm, workers, type(workers), tol, type(tol),
            _settings.current(),
        )  # fmt: skip
        try:
            call = dispatcher.fast[key]
        except KeyError:
            pass
        except TypeError:  # a list, say, which is as good as a tuple but cannot be hashed
            key = None
        else:
            try:
                return call(x)
            except (MemoryError, DeviceError):
                pass
    given, x = x, _operand(x, kind)
    scale = _scale(norm, forward)
    lengths = None if s is None else _sequence(s, "s")
    if axes is not None:
        indices = [_axis_of(axis, x.ndim, "axes") for axis in _sequence(axes, "axes")]
        if len(set(indices)) != len(indices):
            raise ArgumentError(f"all axes must be unique, got axes={axes!r}")
        if lengths is not None and len(lengths) != len(indices):
            raise ArgumentError(
                f"when given, axes and shape arguments have to be of the same length: s={s!r}, axes={axes!r}"
            )
    else:
        count = x.ndim if lengths is None else len(lengths)
        if count > x.ndim:
            raise ShapeError(f"shape requires more axes than are present: s={s!r}, x has {x.ndim} axes")
        indices = list(range(x.ndim - count, x.ndim))
    if not indices:
        if kind != "c2c":
            raise ArgumentError("at least 1 axis must be transformed")
        return x[...]  # nothing to transform: as it is, in its own dtype, like SciPy
    full = [x.shape[axis] if n == -1 else n for n, axis in zip(lengths or [-1] * len(indices), indices)]
    if kind == "c2r" and lengths is None:
        full[-1] = 2 * (full[-1] - 1)
    params = FFTParams(kind, forward, tuple(_length(n, "each length in s") for n in full), tuple(indices), scale)
    return _run(params, x, workers, tol, key if x is given else None)


def _types(value: Any) -> Any:
    return tuple(map(type, value)) if type(value) is tuple else type(value)


def _sequence(value: Any, name: str) -> list[int]:
    try:
        return [operator.index(n) for n in ([value] if np.ndim(value) == 0 else value)]
    except TypeError:
        raise ArgumentTypeError(f"{name} must be a sequence of whole numbers, got {value!r}") from None


def _run(params: FFTParams, x: Any, workers: Any, tol: Any, key: Any) -> Any:
    tol = None if tol is None else _settings.check_tol("tol", tol)
    threads = None if workers is None else _threads(workers)
    if threads is None:
        result = dispatcher.run(FAMILY, params, x, tol=tol)
        if key is not None:
            dispatcher.bind(key, FAMILY, params, (x,), tol)
        return result
    with _settings.using(threads=threads):
        result = dispatcher.run(FAMILY, params, x, tol=tol)
        if key is not None:
            dispatcher.bind(key, FAMILY, params, (x,), tol)
        return result


def fft(
    x: Any, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False,
    workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """Complex spectrum of a sequence: ``y[k] = sum_j x[j] exp(-2 pi i j k / n)``.

    Parameters
    ----------
    x : array_like
        Real or complex array_like with at least one axis. NumPy array, torch tensor or anything NumPy reads.
    n : int, optional
        Length of the transform; the axis is cut or padded with zeros. Default: the axis' own length.
    axis : int, default -1
        Axis to transform.
    norm : {"backward", "ortho", "forward"}, optional
        Which direction divides by n (default "backward": the inverse); "ortho" divides both by sqrt(n).
    overwrite_x : bool
        Accepted for SciPy's sake; the input is never modified.
    workers : int, optional
        CPU threads that this call may use; negative numbers count down from all processors.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Complex, of the input's kind and device; complex64 for float16, float32 and complex64, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Notes
    -----
    Signature and normalisation are those of ``scipy.fft.fft``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.fft(np.array([1.0, 0.0, 0.0, 0.0])).real.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return _one_axis("c2c", True, x, n, axis, norm, workers, tol)


def ifft(
    x: Any, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False,
    workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """Inverse of ``fft``: ``x[j] = 1/n sum_k y[k] exp(+2 pi i j k / n)``.

    Parameters
    ----------
    x : array_like
        Real or complex array_like with at least one axis. NumPy array, torch tensor or anything NumPy reads.
    n : int, optional
        Length of the transform; the axis is cut or padded with zeros. Default: the axis' own length.
    axis : int, default -1
        Axis to transform.
    norm : {"backward", "ortho", "forward"}, optional
        Which direction divides by n (default "backward": the inverse); "ortho" divides both by sqrt(n).
    overwrite_x : bool
        Accepted for SciPy's sake; the input is never modified.
    workers : int, optional
        CPU threads that this call may use; negative numbers count down from all processors.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Complex, of the input's kind and device; complex64 for float16, float32 and complex64, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Notes
    -----
    Signature and normalisation are those of ``scipy.fft.ifft``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.ifft(np.ones(4)).real.tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    return _one_axis("c2c", False, x, n, axis, norm, workers, tol)


def rfft(
    x: Any, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False,
    workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """First half of the spectrum of a real sequence, which determines the rest.

    Parameters
    ----------
    x : array_like
        Real array_like with at least one axis. NumPy array, torch tensor or anything NumPy reads.
    n : int, optional
        Number of real points used; the axis is cut or padded with zeros. Default: the axis' own length.
    axis : int, default -1
        Axis to transform.
    norm : {"backward", "ortho", "forward"}, optional
        Which direction divides by n (default "backward": the inverse); "ortho" divides both by sqrt(n).
    overwrite_x : bool
        Accepted for SciPy's sake; the input is never modified.
    workers : int, optional
        CPU threads that this call may use; negative numbers count down from all processors.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Complex, ``n//2 + 1`` long on the transformed axis (the last of several); complex64 for float16 and float32
        input, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Notes
    -----
    Signature and normalisation are those of ``scipy.fft.rfft``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.rfft(np.ones(4)).real.tolist()
    [4.0, 0.0, 0.0]
    """
    return _one_axis("r2c", True, x, n, axis, norm, workers, tol)


def irfft(
    x: Any, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False,
    workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """Real sequence that has the given half spectrum; inverse of ``rfft``.

    Parameters
    ----------
    x : array_like
        Real or complex array_like with at least one axis. NumPy array, torch tensor or anything NumPy reads.
    n : int, optional
        Number of real points of the result; ``n//2 + 1`` points of the axis are used. Default: ``2*(m - 1)`` for an
        axis of ``m``.
    axis : int, default -1
        Axis to transform.
    norm : {"backward", "ortho", "forward"}, optional
        Which direction divides by n (default "backward": the inverse); "ortho" divides both by sqrt(n).
    overwrite_x : bool
        Accepted for SciPy's sake; the input is never modified.
    workers : int, optional
        CPU threads that this call may use; negative numbers count down from all processors.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Real, ``n`` long on the transformed axis (the last of several); float32 for complex64 and float32 input, else
        float64.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Notes
    -----
    Signature and normalisation are those of ``scipy.fft.irfft``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.irfft(np.array([4.0, 0.0, 0.0])).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return _one_axis("c2r", False, x, n, axis, norm, workers, tol)


def hfft(
    x: Any, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False,
    workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """Real spectrum of a sequence with Hermitian symmetry, given by its first half.

    Parameters
    ----------
    x : array_like
        Real or complex array_like with at least one axis. NumPy array, torch tensor or anything NumPy reads.
    n : int, optional
        Number of real points of the result; ``n//2 + 1`` points of the axis are used. Default: ``2*(m - 1)`` for an
        axis of ``m``.
    axis : int, default -1
        Axis to transform.
    norm : {"backward", "ortho", "forward"}, optional
        Which direction divides by n (default "backward": the inverse); "ortho" divides both by sqrt(n).
    overwrite_x : bool
        Accepted for SciPy's sake; the input is never modified.
    workers : int, optional
        CPU threads that this call may use; negative numbers count down from all processors.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Real, ``n`` long on the transformed axis (the last of several); float32 for complex64 and float32 input, else
        float64.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Notes
    -----
    Signature and normalisation are those of ``scipy.fft.hfft``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.hfft(np.array([1.0, 0.0, 0.0])).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return _one_axis("c2r", True, x, n, axis, norm, workers, tol)


def ihfft(
    x: Any, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False,
    workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """First half of the Hermitian sequence that has the given real spectrum; inverse of ``hfft``.

    Parameters
    ----------
    x : array_like
        Real array_like with at least one axis. NumPy array, torch tensor or anything NumPy reads.
    n : int, optional
        Number of real points used; the axis is cut or padded with zeros. Default: the axis' own length.
    axis : int, default -1
        Axis to transform.
    norm : {"backward", "ortho", "forward"}, optional
        Which direction divides by n (default "backward": the inverse); "ortho" divides both by sqrt(n).
    overwrite_x : bool
        Accepted for SciPy's sake; the input is never modified.
    workers : int, optional
        CPU threads that this call may use; negative numbers count down from all processors.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Complex, ``n//2 + 1`` long on the transformed axis (the last of several); complex64 for float16 and float32
        input, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Notes
    -----
    Signature and normalisation are those of ``scipy.fft.ihfft``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.ihfft(np.ones(4)).real.tolist()
    [1.0, 0.0, 0.0]
    """
    return _one_axis("r2c", False, x, n, axis, norm, workers, tol)


def fft2(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, int] = (-2, -1), norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``fft`` over two axes.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``fft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        The two axes to transform.
    norm, overwrite_x, workers, tol
        As in ``fft``.

    Returns
    -------
    array
        Complex, of the input's kind and device; complex64 for float16, float32 and complex64, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.fft2(np.ones((2, 3))).shape
    (2, 3)
    """
    return _several_axes("c2c", True, x, s, axes, norm, workers, tol)


def ifft2(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, int] = (-2, -1), norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``ifft`` over two axes.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``ifft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        The two axes to transform.
    norm, overwrite_x, workers, tol
        As in ``ifft``.

    Returns
    -------
    array
        Complex, of the input's kind and device; complex64 for float16, float32 and complex64, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.ifft2(np.ones((2, 3))).shape
    (2, 3)
    """
    return _several_axes("c2c", False, x, s, axes, norm, workers, tol)


def rfft2(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, int] = (-2, -1), norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``rfft`` over two axes. The half spectrum is taken over the last of the axes.

    Parameters
    ----------
    x : array_like
        Real array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``rfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        The two axes to transform.
    norm, overwrite_x, workers, tol
        As in ``rfft``.

    Returns
    -------
    array
        Complex, ``n//2 + 1`` long on the transformed axis (the last of several); complex64 for float16 and float32
        input, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.rfft2(np.ones((2, 4))).shape
    (2, 3)
    """
    return _several_axes("r2c", True, x, s, axes, norm, workers, tol)


def irfft2(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, int] = (-2, -1), norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``irfft`` over two axes. The last of the axes is the half spectrum's.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``irfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        The two axes to transform.
    norm, overwrite_x, workers, tol
        As in ``irfft``.

    Returns
    -------
    array
        Real, ``n`` long on the transformed axis (the last of several); float32 for complex64 and float32 input, else
        float64.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.irfft2(np.ones((2, 3))).shape
    (2, 4)
    """
    return _several_axes("c2r", False, x, s, axes, norm, workers, tol)


def hfft2(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, int] = (-2, -1), norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``hfft`` over two axes. The last of the axes is the half spectrum's.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``hfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        The two axes to transform.
    norm, overwrite_x, workers, tol
        As in ``hfft``.

    Returns
    -------
    array
        Real, ``n`` long on the transformed axis (the last of several); float32 for complex64 and float32 input, else
        float64.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.hfft2(np.ones((2, 3))).shape
    (2, 4)
    """
    return _several_axes("c2r", True, x, s, axes, norm, workers, tol)


def ihfft2(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, int] = (-2, -1), norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``ihfft`` over two axes. The half spectrum is taken over the last of the axes.

    Parameters
    ----------
    x : array_like
        Real array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``ihfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        The two axes to transform.
    norm, overwrite_x, workers, tol
        As in ``ihfft``.

    Returns
    -------
    array
        Complex, ``n//2 + 1`` long on the transformed axis (the last of several); complex64 for float16 and float32
        input, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.ihfft2(np.ones((2, 4))).shape
    (2, 3)
    """
    return _several_axes("r2c", False, x, s, axes, norm, workers, tol)


def fftn(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None, norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``fft`` over several axes.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``fft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        Axes to transform, each once. Default: the last ``len(s)``, or all.
    norm, overwrite_x, workers, tol
        As in ``fft``.

    Returns
    -------
    array
        Complex, of the input's kind and device; complex64 for float16, float32 and complex64, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.fftn(np.ones((2, 3))).shape
    (2, 3)
    """
    return _several_axes("c2c", True, x, s, axes, norm, workers, tol)


def ifftn(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None, norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``ifft`` over several axes.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``ifft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        Axes to transform, each once. Default: the last ``len(s)``, or all.
    norm, overwrite_x, workers, tol
        As in ``ifft``.

    Returns
    -------
    array
        Complex, of the input's kind and device; complex64 for float16, float32 and complex64, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.ifftn(np.ones((2, 3))).shape
    (2, 3)
    """
    return _several_axes("c2c", False, x, s, axes, norm, workers, tol)


def rfftn(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None, norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``rfft`` over several axes. The half spectrum is taken over the last of the axes.

    Parameters
    ----------
    x : array_like
        Real array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``rfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        Axes to transform, each once. Default: the last ``len(s)``, or all.
    norm, overwrite_x, workers, tol
        As in ``rfft``.

    Returns
    -------
    array
        Complex, ``n//2 + 1`` long on the transformed axis (the last of several); complex64 for float16 and float32
        input, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.rfftn(np.ones((2, 4))).shape
    (2, 3)
    """
    return _several_axes("r2c", True, x, s, axes, norm, workers, tol)


def irfftn(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None, norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``irfft`` over several axes. The last of the axes is the half spectrum's.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``irfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        Axes to transform, each once. Default: the last ``len(s)``, or all.
    norm, overwrite_x, workers, tol
        As in ``irfft``.

    Returns
    -------
    array
        Real, ``n`` long on the transformed axis (the last of several); float32 for complex64 and float32 input, else
        float64.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.irfftn(np.ones((2, 3))).shape
    (2, 4)
    """
    return _several_axes("c2r", False, x, s, axes, norm, workers, tol)


def hfftn(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None, norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``hfft`` over several axes. The last of the axes is the half spectrum's.

    Parameters
    ----------
    x : array_like
        Real or complex array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``hfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        Axes to transform, each once. Default: the last ``len(s)``, or all.
    norm, overwrite_x, workers, tol
        As in ``hfft``.

    Returns
    -------
    array
        Real, ``n`` long on the transformed axis (the last of several); float32 for complex64 and float32 input, else
        float64.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.hfftn(np.ones((2, 3))).shape
    (2, 4)
    """
    return _several_axes("c2r", True, x, s, axes, norm, workers, tol)


def ihfftn(
    x: Any, s: tuple[int, ...] | None = None, axes: tuple[int, ...] | None = None, norm: str | None = None,
    overwrite_x: bool = False, workers: int | None = None, *, tol: float | None = None,
) -> Any:  # fmt: skip
    """``ihfft`` over several axes. The half spectrum is taken over the last of the axes.

    Parameters
    ----------
    x : array_like
        Real array_like.
    s : tuple of int, optional
        Length over each axis, as ``n`` in ``ihfft``; -1 leaves an axis as it is.
    axes : tuple of int, optional
        Axes to transform, each once. Default: the last ``len(s)``, or all.
    norm, overwrite_x, workers, tol
        As in ``ihfft``.

    Returns
    -------
    array
        Complex, ``n//2 + 1`` long on the transformed axis (the last of several); complex64 for float16 and float32
        input, else complex128.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If ``x`` or an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.ihfftn(np.ones((2, 4))).shape
    (2, 3)
    """
    return _several_axes("r2c", False, x, s, axes, norm, workers, tol)
