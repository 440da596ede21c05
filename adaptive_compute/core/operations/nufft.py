"""Nonuniform FFTs with FINUFFT's names, argument order and defaults [1]_, run by whichever kernel finishes first.

Type 1 goes from points to modes, type 2 from modes to points, type 3 from points to arbitrary frequencies. In types 1
and 2 the points are periodic, so that a coordinate may lie outside [-pi, pi). A leading axis of the strengths or modes
holds several transforms over the same points. Plans are kept with what they know of the points: a call with points that
equal those of an earlier one does not prepare them again.

Common to all functions: ``eps`` is the relative L2 error asked for; ``isign`` the sign of the exponent (zero counts as
positive); ``out`` an array that takes the result; and the keywords are FINUFFT's options. ``modeord`` (0: frequencies
count up from -N//2; 1: FFT order) and ``nthreads`` work with every kernel; any other option chooses FINUFFT's kernels.

References
----------
.. [1] A. H. Barnett, J. F. Magland, L. af Klinteberg, "A parallel non-uniform fast Fourier transform library based on
   an exponential of semicircle kernel", SIAM J. Sci. Comput. 41(5), 2019; https://finufft.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import autocast, autocasting
from ..dispatcher import dispatcher
from ..errors import DeviceError
from ..traced import compiling, in_graph
from .nufft_arguments import checked, equivalent_modes
from .nufft_rule import FAMILY

OPERATIONS = (FAMILY,)


def _transform(
    nufft_type: int, points: Sequence[Any], data: Any, targets: Sequence[Any], n_modes: Any, out: Any, eps: Any,
    isign: Any, options: Mapping[str, Any],
) -> Any:  # fmt: skip
    """Check the arguments and run, by the short way where the same call on plain NumPy arrays was made before."""
    if type(data) is not np.ndarray and compiling():
        args = (nufft_type, points, data, targets, n_modes, out, eps, isign, options)
        return in_graph("nufft", "_transform", *args)
    if type(data) is not np.ndarray and autocasting():
        points, targets = ([autocast(x, lower=False) for x in given] for given in (points, targets))
    key = None
    plain = out is None and not options and type(data) is np.ndarray and data.flags.c_contiguous
    if plain and all(map(_plain, (*points, *targets))):
        layout = [(x.shape, x.dtype) for x in (data, *points, *targets)]
        extents = equivalent_modes(points, targets) if targets else None  # for type 3 the data decide the plan
        # With the types, because 4.0 equals 4 but is no number of modes.
        kinds = (*map(type, n_modes if type(n_modes) is tuple else ()), type(n_modes), type(eps), type(isign))
        key = (nufft_type, len(points), n_modes, eps, isign, kinds, extents, *layout, _settings.current())
        try:
            call = dispatcher.fast[key]
        except KeyError:
            pass
        except TypeError:  # an argument that cannot be hashed: the checks below name it
            key = None
        else:
            try:
                return call(data, *points, *targets)
            except (MemoryError, DeviceError):
                pass  # the whole path hands over to the next candidate
    params, threads, arrays = checked(nufft_type, points, data, targets, n_modes, out, eps, isign, options)
    with _settings.using(threads=threads) if threads else nullcontext():
        result = dispatcher.run(FAMILY, params, *arrays)
    if key is not None and params.eps >= np.finfo(data.dtype).eps:  # what warns must warn again
        dispatcher.bind(key, FAMILY, params, arrays, None)
    if out is None:
        return result
    out[...] = result.reshape(out.shape)
    return out


def _plain(x: Any) -> bool:
    return type(x) is np.ndarray and x.ndim == 1 and x.dtype.kind == "f" and x.flags.c_contiguous


def nufft1d1(
    x: Any, c: Any, n_modes: Any = None, out: Any = None, eps: float = 1e-6, isign: int = 1, **kwargs: Any
) -> Any:
    """Transform from points to modes in one dimension: ``f[k] = sum_j c[j] exp(i isign k x[j])``.

    Parameters
    ----------
    x : array of float64 or float32, shape (M,)
        Points, in radians; their dtype decides the precision.
    c : array of complex128 or complex64, shape (M,) or (n_trans, M)
        Strengths.
    n_modes : int or tuple of int, optional
        Number of modes N, odd or even: the frequencies k are -N//2 .. (N-1)//2. Default: ``out``'s.
    out : array, optional
        Takes the result; of ``c``'s kind and dtype, contiguous.
    eps : float
        Relative L2 error asked for.
    isign : int
        Sign of the exponent.
    **kwargs
        FINUFFT's options.

    Returns
    -------
    array of shape (N,) or (n_trans, N)
        Of ``c``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points must be finite); the message names it.

    Warns
    -----
    NufftWarning
        If the precision cannot reach ``eps``, or FINUFFT has no option of that name.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.nufft.nufft1d1(np.array([0.0]), np.array([2.0 + 0j]), 3).real.round(4).tolist()
    [2.0, 2.0, 2.0]
    """
    return _transform(1, (x,), c, (), n_modes, out, eps, isign, kwargs)


def nufft1d2(x: Any, f: Any, out: Any = None, eps: float = 1e-6, isign: int = -1, **kwargs: Any) -> Any:
    """Transform from modes to points in one dimension: ``c[j] = sum_k f[k] exp(i isign k x[j])``.

    Parameters
    ----------
    x : array of float64 or float32, shape (M,)
        Points, in radians; their dtype decides the precision.
    f : array of complex128 or complex64, shape (N,) or (n_trans, N)
        Modes, of frequencies k = -N//2 .. (N-1)//2.
    out : array, optional
        Takes the result; of ``f``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (M,) or (n_trans, M)
        Of ``f``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points must be finite); the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> abs(ac.nufft.nufft1d2(np.array([0.0, np.pi]), np.array([1, 1, 1j]))).round(4).tolist()
    [2.2361, 1.0]
    """
    return _transform(2, (x,), f, (), None, out, eps, isign, kwargs)


def nufft1d3(x: Any, c: Any, s: Any, out: Any = None, eps: float = 1e-6, isign: int = 1, **kwargs: Any) -> Any:
    """Transform from points to frequencies in one dimension: ``f[k] = sum_j c[j] exp(i isign s[k] x[j])``.

    Parameters
    ----------
    x : array of float64 or float32, shape (M,)
        Points; their dtype decides the precision. Neither they nor ``s`` are periodic here.
    c : array of complex128 or complex64, shape (M,) or (n_trans, M)
        Strengths.
    s : array of ``x``'s dtype, shape (N,)
        Target frequencies, in radians per unit of ``x``.
    out : array, optional
        Takes the result; of ``c``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (N,) or (n_trans, N)
        Of ``c``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points and frequencies must be finite, and the product of their extents is
        the size of a grid that must fit the memory); the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x, c = np.array([0.0, 1.0]), np.array([1, 1 + 0j])
    >>> abs(ac.nufft.nufft1d3(x, c, np.array([0.0, np.pi]))).round(4).tolist()
    [2.0, 0.0]
    """
    return _transform(3, (x,), c, (s,), None, out, eps, isign, kwargs)


def nufft2d1(
    x: Any, y: Any, c: Any, n_modes: Any = None, out: Any = None, eps: float = 1e-6, isign: int = 1, **kwargs: Any
) -> Any:
    """Transform from points to modes in two dimensions: ``f[k, l] = sum_j c[j] exp(i isign (k x[j] + l y[j]))``.

    Parameters
    ----------
    x, y : arrays of float64 or float32, shape (M,)
        Coordinates of the points, in radians; ``x`` goes with the first axis of modes.
    c : array of complex128 or complex64, shape (M,) or (n_trans, M)
        Strengths.
    n_modes : int or tuple of int, optional
        Number of modes (N1, N2); one number is for both. Default: ``out``'s.
    out : array, optional
        Takes the result; of ``c``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (N1, N2) or (n_trans, N1, N2)
        Of ``c``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points must be finite); the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x = np.linspace(-1.0, 1.0, 5)
    >>> ac.nufft.nufft2d1(x, x, np.ones(5, complex), (4, 6), eps=1e-9).shape
    (4, 6)
    """
    return _transform(1, (x, y), c, (), n_modes, out, eps, isign, kwargs)


def nufft2d2(x: Any, y: Any, f: Any, out: Any = None, eps: float = 1e-6, isign: int = -1, **kwargs: Any) -> Any:
    """Transform from modes to points in two dimensions: ``c[j] = sum_kl f[k, l] exp(i isign (k x[j] + l y[j]))``.

    Parameters
    ----------
    x, y : arrays of float64 or float32, shape (M,)
        Coordinates of the points, in radians; ``x`` goes with the first axis of modes.
    f : array of complex128 or complex64, shape (N1, N2) or (n_trans, N1, N2)
        Modes.
    out : array, optional
        Takes the result; of ``f``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (M,) or (n_trans, M)
        Of ``f``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points must be finite); the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x = np.zeros(2)
    >>> ac.nufft.nufft2d2(x, x, np.ones((2, 3), complex)).real.round(4).tolist()
    [6.0, 6.0]
    """
    return _transform(2, (x, y), f, (), None, out, eps, isign, kwargs)


def nufft2d3(
    x: Any, y: Any, c: Any, s: Any, t: Any, out: Any = None, eps: float = 1e-6, isign: int = 1, **kwargs: Any
) -> Any:
    """Transform from points to frequencies in two dimensions.

    ``f[k] = sum_j c[j] exp(i isign (s[k] x[j] + t[k] y[j]))``

    Parameters
    ----------
    x, y : arrays of float64 or float32, shape (M,)
        Coordinates of the points.
    c : array of complex128 or complex64, shape (M,) or (n_trans, M)
        Strengths.
    s, t : arrays of ``x``'s dtype, shape (N,)
        Target frequencies, in radians per unit of ``x`` and ``y``.
    out : array, optional
        Takes the result; of ``c``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (N,) or (n_trans, N)
        Of ``c``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        As in ``nufft1d3``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x, s = np.array([0.0, 1.0]), np.array([0.0, 0.0, np.pi])
    >>> abs(ac.nufft.nufft2d3(x, x, np.array([1, 1 + 0j]), s, 0 * s)).round(4).tolist()
    [2.0, 2.0, 0.0]
    """
    return _transform(3, (x, y), c, (s, t), None, out, eps, isign, kwargs)


def nufft3d1(
    x: Any, y: Any, z: Any, c: Any, n_modes: Any = None, out: Any = None, eps: float = 1e-6, isign: int = 1,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """Transform from points to modes in three dimensions.

    ``f[k, l, m] = sum_j c[j] exp(i isign (k x[j] + l y[j] + m z[j]))``

    Parameters
    ----------
    x, y, z : arrays of float64 or float32, shape (M,)
        Coordinates of the points, in radians; ``x`` goes with the first axis of modes.
    c : array of complex128 or complex64, shape (M,) or (n_trans, M)
        Strengths.
    n_modes : int or tuple of int, optional
        Number of modes (N1, N2, N3); one number is for all three. Default: ``out``'s.
    out : array, optional
        Takes the result; of ``c``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (N1, N2, N3) or (n_trans, N1, N2, N3)
        Of ``c``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points must be finite); the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x = np.zeros(3)
    >>> float(ac.nufft.nufft3d1(x, x, x, np.ones(3, complex), 2).real.round(4).max())
    3.0
    """
    return _transform(1, (x, y, z), c, (), n_modes, out, eps, isign, kwargs)


def nufft3d2(x: Any, y: Any, z: Any, f: Any, out: Any = None, eps: float = 1e-6, isign: int = -1, **kwargs: Any) -> Any:
    """Transform from modes to points in three dimensions.

    ``c[j] = sum_klm f[k, l, m] exp(i isign (k x[j] + l y[j] + m z[j]))``

    Parameters
    ----------
    x, y, z : arrays of float64 or float32, shape (M,)
        Coordinates of the points, in radians; ``x`` goes with the first axis of modes.
    f : array of complex128 or complex64, shape (N1, N2, N3) or (n_trans, N1, N2, N3)
        Modes.
    out : array, optional
        Takes the result; of ``f``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (M,) or (n_trans, M)
        Of ``f``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        If an argument is not acceptable (points must be finite); the message names it.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x = np.zeros(2)
    >>> ac.nufft.nufft3d2(x, x, x, np.ones((2, 2, 2), complex)).real.round(4).tolist()
    [8.0, 8.0]
    """
    return _transform(2, (x, y, z), f, (), None, out, eps, isign, kwargs)


def nufft3d3(
    x: Any, y: Any, z: Any, c: Any, s: Any, t: Any, u: Any, out: Any = None, eps: float = 1e-6, isign: int = 1,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """Transform from points to frequencies in three dimensions.

    ``f[k] = sum_j c[j] exp(i isign (s[k] x[j] + t[k] y[j] + u[k] z[j]))``

    Parameters
    ----------
    x, y, z : arrays of float64 or float32, shape (M,)
        Coordinates of the points.
    c : array of complex128 or complex64, shape (M,) or (n_trans, M)
        Strengths.
    s, t, u : arrays of ``x``'s dtype, shape (N,)
        Target frequencies, in radians per unit of ``x``, ``y`` and ``z``.
    out : array, optional
        Takes the result; of ``c``'s kind and dtype, contiguous.
    eps, isign, **kwargs
        As in ``nufft1d1``.

    Returns
    -------
    array of shape (N,) or (n_trans, N)
        Of ``c``'s kind, device and dtype.

    Raises
    ------
    NufftError, NufftTypeError, TooLargeError
        As in ``nufft1d3``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> x, s = np.array([0.0, 1.0]), np.zeros(4)
    >>> ac.nufft.nufft3d3(x, x, x, np.array([1, 1 + 0j]), s, s, s).real.round(4).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    return _transform(3, (x, y, z), c, (s, t, u), None, out, eps, isign, kwargs)
