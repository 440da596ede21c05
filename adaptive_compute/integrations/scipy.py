"""SciPy: this library as a backend of ``scipy.fft``, so that programs written for SciPy run where they finish first.

``scipy.fft.set_backend(ac.scipy_backend)`` for a block of code, ``ac.register_with_scipy()`` for a whole process. What
SciPy hands over goes to the function of the same name here, unchanged. A call that this library does not make (cosine
transforms, a precomputed plan, arrays of objects) is declined: SciPy then asks its next backend, and ``declined()``
tells what was declined and how often.

Kernels never come back here: ours call SciPy's transforms beneath its dispatch, and a call that arrives while another
one of the same thread is being run, from a backend of somebody else's, is declined as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import fft as scipy_fft
from scipy.fft import get_workers

from ..core.array import NUMPY, kind_of
from ..core.errors import AdaptiveError, DtypeError
from ..core.operations import fft as _ours

_NAMES = (
    "fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifft2", "rfft2", "irfft2", "hfft2", "ihfft2",
    "fftn", "ifftn", "rfftn", "irfftn", "hfftn", "ihfftn",
)  # fmt: skip
_FUNCTIONS: dict[Any, Callable[..., Any]] = {getattr(scipy_fft, name): getattr(_ours, name) for name in _NAMES}
_WORKERS_AT = 5  # where SciPy's signatures, and ours, have ``workers``


class _Busy(threading.local):
    """Whether this thread is inside a call that came from SciPy."""

    now = False


_busy = _Busy()
_lock = threading.Lock()
_declined: dict[str, int] = {}
_behind = False  # whether SciPy's own backend is registered


class ScipyBackend:
    """What ``scipy.fft.set_backend`` and ``set_global_backend`` take; ``ac.scipy_backend`` is the one object of it."""

    __ua_domain__ = "numpy.scipy.fft"

    def __ua_function__(self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call of ``scipy.fft``, or return NotImplemented so that SciPy asks its next backend."""
        function = _FUNCTIONS.get(method)
        if function is None:
            return _decline(method, "not a transform of this library")
        if _busy.now:
            return _decline(method, "called by a kernel of this library")
        if kwargs and kwargs.get("plan") is not None:
            return _decline(method, "a plan of somebody else's")
        # SciPy's own choice for a block of code; its default, one worker, stands for no choice at all.
        if (workers := get_workers()) != 1 and len(args) <= _WORKERS_AT and kwargs.get("workers") is None:
            kwargs = {**kwargs, "workers": workers}
        _busy.now = True
        try:
            return function(*args, **kwargs)
        except AdaptiveError as error:
            why = _reason(args[0] if args else kwargs.get("x"), error)
            if why is None:
                raise
            return _decline(method, why)
        finally:
            _busy.now = False

    def __repr__(self) -> str:
        return "<adaptive_compute's backend for scipy.fft>"


scipy_backend = ScipyBackend()


def _reason(x: Any, error: AdaptiveError) -> str | None:
    """Return in words why SciPy is to try what was refused here, or None where the error stands.

    SciPy may where only NumPy can make something of the operand. A tensor is not such a one: SciPy would read its
    values and lose its gradient.
    """
    if kind_of(x) not in (None, NUMPY):
        return None
    if isinstance(x, np.ma.MaskedArray):
        return "a masked array"
    if not isinstance(error, DtypeError):
        return None
    return f"an operand of dtype {x.dtype}" if hasattr(x, "dtype") else f"a {type(x).__name__} that holds no numbers"


def _decline(method: Any, why: str) -> Any:
    key = f"{method.__name__}: {why}"
    with _lock:
        _declined[key] = _declined.get(key, 0) + 1
    return NotImplemented


def declined(*, reset: bool = False) -> dict[str, int]:
    """Return which calls of ``scipy.fft`` were declined since the start (or the last reset), and how often.

    Parameters
    ----------
    reset : bool, default False
        Set every count to zero after reading it.

    Returns
    -------
    dict
        The number of calls by function and reason, such as ``"dct: not a transform of this library"``.

    Examples
    --------
    >>> import numpy as np, scipy.fft, adaptive_compute as ac
    >>> from adaptive_compute.integrations.scipy import declined
    >>> _ = declined(reset=True)
    >>> with scipy.fft.set_backend(ac.scipy_backend):
    ...     spectrum = scipy.fft.fft(np.ones(4))
    ...     cosines = scipy.fft.dct(np.ones(4))
    >>> declined(reset=True)
    {'dct: not a transform of this library': 1}
    """
    with _lock:
        counted = dict(_declined)
        if reset:
            _declined.clear()
    return counted


def register_with_scipy() -> None:
    """Make this library the backend of ``scipy.fft`` for the whole process, in every thread.

    SciPy's own transforms stay registered behind it, for the calls that are declined; ``set_global_backend`` alone
    would take them away. ``scipy.fft.set_global_backend("scipy")`` undoes it.

    Examples
    --------
    >>> import numpy as np, scipy.fft, adaptive_compute as ac
    >>> ac.register_with_scipy()
    >>> scipy.fft.fft(np.ones(4)).real.tolist()
    [4.0, 0.0, 0.0, 0.0]
    >>> scipy.fft.dct(np.ones(2)).tolist()
    [4.0, 0.0]
    >>> scipy.fft.set_global_backend("scipy")
    """
    global _behind
    with _lock:
        if not _behind:
            scipy_fft.register_backend("scipy")
            _behind = True
    scipy_fft.set_global_backend(scipy_backend)
