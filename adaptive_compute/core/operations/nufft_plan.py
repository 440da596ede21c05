"""FINUFFT's plan interface: parameters first, then points, then as many transforms as one likes."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import describe
from ..dispatcher import dispatcher
from ..errors import DeviceError, NufftError, NufftTypeError
from ..precision import REAL_OF
from .nufft_arguments import (
    check_coordinates,
    check_data,
    check_eps,
    check_grid,
    check_isign,
    check_modes,
    check_n_modes,
    check_options,
    check_out,
    check_range,
    check_strengths,
    equivalent_modes,
    whole,
)  # fmt: skip
from .nufft_rule import FAMILY, NufftParams


class _Direction(NamedTuple):
    """What one direction of a plan needs to run: parameters, coordinates, number of points and of targets."""

    params: NufftParams
    coordinates: tuple[Any, ...]
    points: int
    targets: int


class Plan:
    """A nonuniform FFT of fixed parameters, with FINUFFT's interface.

    Parameters
    ----------
    nufft_type : {1, 2, 3}
        Points to modes, modes to points, points to frequencies.
    n_modes_or_dim : int or sequence of int
        For types 1 and 2 the number of modes of each dimension; for type 3 the number of dimensions.
    n_trans : int
        Number of transforms in one execution.
    eps : float
        Relative L2 error asked for.
    isign : int, optional
        Sign of the exponent. Default: +1 for types 1 and 3, -1 for type 2.
    dtype : str or dtype
        ``"complex64"`` or ``"complex128"``.
    **kwargs
        FINUFFT's options.

    Attributes
    ----------
    type, dim, n_trans : int
        As given.
    n_modes : tuple of int
        Modes of each dimension, in the order of an array's axes; ones for type 3.
    dtype : numpy.dtype
        Of the data.

    Raises
    ------
    NufftError, NufftTypeError
        If an argument is not acceptable; the message names it.

    Notes
    -----
    The plan keeps copies of its points, so that changing the arrays given to ``setpts`` changes nothing. It may be
    executed from several threads at once. Each execution is routed like any call of this library.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> plan = ac.nufft.Plan(1, (4, 4), eps=1e-9)
    >>> plan.setpts(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    >>> plan.execute(np.ones(2, complex)).shape
    (4, 4)
    """

    def __init__(
        self, nufft_type: int, n_modes_or_dim: Any, n_trans: int = 1, eps: float = 1e-6, isign: int | None = None,
        dtype: Any = "complex128", **kwargs: Any,
    ) -> None:  # fmt: skip
        self._type = whole(nufft_type, "nufft_type")
        if self._type not in (1, 2, 3):
            raise NufftError(f"nufft_type must be 1, 2 or 3, got {nufft_type!r} [FINUFFT transform type invalid]")
        try:
            self._dtype = np.dtype(dtype)
        except TypeError:
            raise NufftTypeError(f"dtype must be complex64 or complex128, got {dtype!r}") from None
        if self._dtype.name not in ("complex64", "complex128"):
            raise NufftTypeError(
                f"dtype must be complex64 or complex128, got {dtype!r} [FINUFFT dtype(precision type) must be single "
                "or double]"
            )
        self._n_trans = whole(n_trans, "n_trans")
        if self._n_trans < 1:
            raise NufftError(
                f"n_trans must be at least 1, got {n_trans!r} [FINUFFT number of transforms ntrans invalid]"
            )
        self._dim, self._n_modes = _sizes(self._type, n_modes_or_dim)
        self._isign = check_isign(isign, self._type)
        self._modeord, self._threads, self._options = check_options(kwargs, stacklevel=3)
        self._eps = check_eps(eps, REAL_OF[self._dtype.name], stacklevel=3)
        self._directions: dict[bool, _Direction] = {}

    @property
    def type(self) -> int:
        """Type of the transform."""
        return self._type

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the data."""
        return self._dtype

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return self._dim

    @property
    def n_modes(self) -> tuple[int, ...]:
        """Modes of each dimension."""
        return self._n_modes

    @property
    def n_trans(self) -> int:
        """Number of transforms in one execution."""
        return self._n_trans

    def setpts(self, x: Any = None, y: Any = None, z: Any = None, s: Any = None, t: Any = None, u: Any = None) -> None:
        """Set the points, and for type 3 the target frequencies.

        Parameters
        ----------
        x, y, z : arrays of the plan's real dtype, shape (M,)
            Coordinates of the points, as many as the plan has dimensions.
        s, t, u : arrays of the plan's real dtype, shape (N,)
            Target frequencies, for type 3 alone.

        Raises
        ------
        NufftError, NufftTypeError, TooLargeError
            If a coordinate is missing, too many, not finite, or of another shape or dtype; the message names it. The
            plan then keeps the points that it had.

        Examples
        --------
        >>> import numpy as np, adaptive_compute as ac
        >>> plan = ac.nufft.Plan(3, 1)
        >>> plan.setpts(np.zeros(2), s=np.zeros(5))
        >>> plan.execute(np.ones(2, complex)).shape
        (5,)
        """
        dim, real = self._dim, REAL_OF[self._dtype.name]
        given = {"x": x, "y": y, "z": z, "s": s, "t": t, "u": u}
        names = "xyz"[:dim] + ("stu"[:dim] if self._type == 3 else "")
        for name, value in given.items():
            if value is not None and name not in names:
                raise NufftError(f"{name} is not a coordinate of this plan, which takes {', '.join(names)}")
        points, _, count = check_coordinates([given[name] for name in names[:dim]], names, real, 3)
        targets, _, outputs = check_coordinates([given[name] for name in names[dim:]], names[dim:], real, 3)
        for values, name in zip(points, names):
            check_range(values, name)
        grid = equivalent_modes(points, targets) if self._type == 3 else self._n_modes
        params = NufftParams(
            self._type, dim, grid, self._n_trans, self._isign, self._modeord, self._eps, self._options
        )  # fmt: skip
        check_grid(params, real, count, outputs)
        points, targets = list(map(_copy, points)), list(map(_copy, targets))
        back = params._replace(type={1: 2, 2: 1, 3: 3}[self._type], isign=-self._isign)
        forward = _Direction(params, (*points, *targets), count, outputs)
        if self._type == 3:
            adjoint = _Direction(back, (*targets, *points), outputs, count)
        else:
            adjoint = _Direction(back, tuple(points), count, outputs)
        self._directions = {False: forward, True: adjoint}

    def execute(self, data: Any, out: Any = None) -> Any:
        """Transform strengths (types 1 and 3) or modes (type 2).

        Parameters
        ----------
        data : array of the plan's dtype
            Strengths ``(M,)`` or modes ``n_modes``, with a leading axis of ``n_trans`` where that is more than 1.
        out : array, optional
            Takes the result; of ``data``'s kind and dtype, contiguous.

        Returns
        -------
        array
            Modes (type 1), values at the points (type 2) or at the target frequencies (type 3).

        Raises
        ------
        NufftError, NufftTypeError
            If ``setpts`` has not been called, or an argument is not acceptable.

        Examples
        --------
        >>> import numpy as np, adaptive_compute as ac
        >>> plan = ac.nufft.Plan(2, (3,))
        >>> plan.setpts(np.zeros(2))
        >>> plan.execute(np.ones(3, complex)).real.round(4).tolist()
        [3.0, 3.0]
        """
        return self._run(False, data, out)

    def execute_adjoint(self, data: Any, out: Any = None) -> Any:
        """Apply the adjoint of ``execute``: from what it gives to what it takes, with the opposite sign.

        Parameters
        ----------
        data : array of the plan's dtype
            Of the shape that ``execute`` returns.
        out : array, optional
            Takes the result; of ``data``'s kind and dtype, contiguous.

        Returns
        -------
        array
            Of the shape that ``execute`` takes.

        Raises
        ------
        NufftError, NufftTypeError
            If ``setpts`` has not been called, or an argument is not acceptable.

        Examples
        --------
        >>> import numpy as np, adaptive_compute as ac
        >>> plan = ac.nufft.Plan(1, (3,))
        >>> plan.setpts(np.zeros(2))
        >>> plan.execute_adjoint(np.ones(3, complex)).real.round(4).tolist()
        [3.0, 3.0]
        """
        return self._run(True, data, out)

    def _run(self, adjoint: bool, data: Any, out: Any) -> Any:
        if not self._directions:
            raise NufftError("setpts must be called before execute: the plan has no points yet")
        params, coordinates, count, outputs = self._directions[adjoint]
        key = None
        if out is None and type(data) is np.ndarray and not self._threads and type(coordinates[0]) is np.ndarray:
            key = (params, data.shape, data.dtype, data.flags.c_contiguous, count, outputs, _settings.current())
            call = dispatcher.fast.get(key)
            if call is not None:
                with suppress(MemoryError, DeviceError):  # then the whole path hands over to the next candidate
                    return call(data, *coordinates)
        data, shape = check_data(data, "data", REAL_OF[self._dtype.name], 4)
        if params.type == 2:
            check_modes(shape, self._dim, "data", self._n_modes, self._n_trans, in_plan=True)
            shape = (*shape[: -self._dim], count)
        else:
            check_strengths(shape, count, "data", self._n_trans)
            shape = (*shape[:-1], *(self._n_modes if params.type == 1 else (outputs,)))
        if out is not None:
            check_out(out, shape, self._n_trans, data)
        with _settings.using(threads=self._threads) if self._threads else nullcontext():
            result = dispatcher.run(FAMILY, params, data, *coordinates)
        if key is not None and data.flags.c_contiguous:  # what warns must warn again
            dispatcher.bind(key, FAMILY, params, (data, *coordinates), None)
        if out is None:
            return result
        out[...] = result.reshape(out.shape)
        return out


def _sizes(nufft_type: int, n_modes_or_dim: Any) -> tuple[int, tuple[int, ...]]:
    """Return the number of dimensions and the modes of each."""
    if nufft_type == 3:
        if np.ndim(n_modes_or_dim):
            raise NufftTypeError(
                f"n_modes_or_dim must be the number of dimensions for type 3, got {n_modes_or_dim!r} [FINUFFT type 3 "
                "plan n_modes_or_dim must be one number, the dimension]"
            )
        dim = whole(_as_whole(n_modes_or_dim), "n_modes_or_dim (for type 3, the number of dimensions)")
        if dim not in (1, 2, 3):
            raise NufftError(
                f"n_modes_or_dim must be 1, 2 or 3 dimensions for type 3, got {n_modes_or_dim!r} [FINUFFT number of "
                "dimensions dim invalid]"
            )
        return dim, (1,) * dim
    if isinstance(n_modes_or_dim, (list, np.ndarray)):
        n_modes_or_dim = tuple(np.atleast_1d(n_modes_or_dim))
    modes = n_modes_or_dim if isinstance(n_modes_or_dim, tuple) else (n_modes_or_dim,)
    if not 1 <= len(modes) <= 3:
        raise NufftError(
            f"n_modes_or_dim must have 1, 2 or 3 numbers of modes, got {n_modes_or_dim!r} [FINUFFT n_modes dimension "
            "must be 1, 2, or 3]"
        )
    return len(modes), check_n_modes(tuple(map(_as_whole, modes)), len(modes))


def _as_whole(number: Any) -> Any:
    """Return 2.0 as 2, which FINUFFT's plans accept; anything else as it is."""
    return int(number) if isinstance(number, (float, np.floating)) and float(number).is_integer() else number


def _copy(values: Any) -> Any:
    """Return a copy that nobody else can change; of a torch tensor one that the gradient flows through."""
    return values.clone() if describe(values).kind == "torch" else values.copy()
