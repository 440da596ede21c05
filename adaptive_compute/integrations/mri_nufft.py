"""MRI-NUFFT: an operator whose transforms run where they finish first, registered there as the backend ``adaptive``.

Importing this module registers it; then ``mrinufft.get_operator("adaptive")`` makes operators with coils, batches,
sensitivity maps and density compensation as MRI-NUFFT defines them [1]_. Data may be NumPy arrays, torch tensors or
CuPy arrays; what comes back is of the same kind, and tensors carry gradients. Beyond MRI-NUFFT's interface there are

- ``normal_op``: density-weighted E^H E as one product with a kernel in Fourier space (a Toeplitz operator [2]_), for
  which no point is spread again in each iteration of a reconstruction;
- ``real=True``: images known to be real, whose adjoint is the real part and whose normal operator is half the work;
- plans that are kept for as long as the trajectory stays the same, over all operators that share it.

References
----------
.. [1] https://mind-inria.github.io/mri-nufft
.. [2] J. A. Fessler, S. Lee, V. T. Olafsson, H. R. Shi, D. C. Noll, "Toeplitz-based iterative image reconstruction for
   MRI with correction for magnetic field inhomogeneity", IEEE Trans. Signal Process. 53(9), 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import nufft
from ..core.errors import ArgumentError, DtypeError, ShapeError
from ..core.operations import fft
from ..core.operations.nufft_arguments import check_options
from ..core.waits import short_waits

with short_waits():  # MRI-NUFFT loads FINUFFT
    from mrinufft._array_compat import _array_to_numpy, auto_cast, get_array_module
    from mrinufft._utils import proper_trajectory
    from mrinufft.operators.base import FourierOperatorBase, get_operator

_TO_POINTS: dict[int, Callable[..., Any]] = {1: nufft.nufft1d2, 2: nufft.nufft2d2, 3: nufft.nufft3d2}
_TO_IMAGE: dict[int, Callable[..., Any]] = {1: nufft.nufft1d1, 2: nufft.nufft2d1, 3: nufft.nufft3d1}
PIECE_BYTES = 256 << 20  # of coil images, or their samples, that are transformed at once


class MRIAdaptive(FourierOperatorBase):  # type: ignore[misc]
    """Samples of an image's spectrum along a trajectory, coil by coil: MRI-NUFFT's operator E.

    ``op`` gives ``E x = F S x / norm``, with the sensitivity maps S and the nonuniform transform F (sign -), and
    ``adj_op`` gives ``E^H D y``, with the density compensation D.

    Parameters
    ----------
    samples : array, shape (n_samples, d) or (n_shots, n_per_shot, d)
        Trajectory in [-0.5, 0.5] or [-pi, pi], float32 or float64, which decides the precision. d is 1, 2 or 3.
    shape : tuple of int
        Shape of an image.
    density : bool, str, dict, callable or array
        Density compensation, by MRI-NUFFT's methods (``True`` and ``"pipe"``: Pipe's iteration; ``"voronoi"``; ...) or
        as an array.
    n_coils, n_batchs : int
        Number of coils, and of images that are transformed alike.
    n_trans : int
        Accepted for MRI-NUFFT's sake. As many transforms as fit are run at once.
    smaps : array, shape (n_coils, \\*shape), optional
        Sensitivity maps.
    squeeze_dims : bool
        Leave out axes of one coil and of one batch in results.
    eps : float
        Relative L2 error of a transform.
    real : bool
        Images are real.
    **kwargs
        FINUFFT's options.

    Raises
    ------
    ArgumentError, ShapeError, DtypeError
        If an argument is not acceptable; the message names it.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np, mrinufft
    >>> import adaptive_compute.integrations.mri_nufft
    >>> trajectory = np.random.default_rng(0).uniform(-np.pi, np.pi, (500, 2)).astype(np.float32)
    >>> E = mrinufft.get_operator("adaptive")(trajectory, (16, 16), n_coils=2)
    >>> x = np.ones((2, 16, 16), np.complex64)
    >>> E.op(x).shape
    (2, 500)
    >>> bool(np.allclose(E.normal_op(x), E.adj_op(E.op(x)), atol=1e-4))
    True
    """

    backend = "adaptive"
    available = True
    autograd_available = True

    def __init__(
        self, samples: Any, shape: Sequence[int], density: Any = False, n_coils: int = 1, n_batchs: int = 1,
        n_trans: int = 1, smaps: Any = None, squeeze_dims: bool = True, *, eps: float = 1e-6, real: bool = False,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape = shape
        if self.ndim not in (1, 2, 3):
            raise ShapeError(f"shape must have 1, 2 or 3 axes, got {tuple(shape)!r}")
        check_options(kwargs, stacklevel=3)
        self._options = {"eps": eps, **kwargs}
        self.real = bool(real)
        self._set_samples(samples, unsafe=False)
        self.n_coils, self.n_batchs, self.n_trans = n_coils, n_batchs, n_trans
        self.squeeze_dims = squeeze_dims
        self.compute_density(density)
        self.compute_smaps(smaps)

    # The trajectory

    def _set_samples(self, samples: Any, unsafe: bool) -> None:
        if samples.shape[-1] != self.ndim:
            raise ShapeError(
                f"samples must have {self.ndim} coordinates on their last axis, for images of {self.ndim} axes; "
                f"they have shape {tuple(samples.shape)}"
            )
        samples = _array_to_numpy(samples)
        if samples.dtype not in (np.float32, np.float64):
            raise DtypeError(f"samples have dtype {samples.dtype}; float32 and float64 are accepted")
        self._samples = samples if unsafe else np.asarray(proper_trajectory(samples, normalize="pi"))
        self.dtype = self._samples.dtype
        self._points = [np.array(column) for column in self._samples.T]
        self._elsewhere: dict[Any, Any] = {}  # what is constant, as other kinds of array and on other devices
        self._kernel: np.ndarray | None = None
        self._kernel_of: Any = None  # the density that it was made with

    def update_samples(self, new_samples: Any, *, unsafe: bool = False) -> None:
        """Take another trajectory; a density that was computed is computed again.

        Parameters
        ----------
        new_samples : array, shape (n_samples, d)
            As in the constructor.
        unsafe : bool
            Take it as it is: radians, one row for each sample.
        """
        self._set_samples(new_samples, unsafe)
        self.compute_density(self._density_method)

    def _like(self, name: str, values: Any, like: Any) -> Any:
        """Return something constant as an array of another one's kind, on its device."""
        module = get_array_module(like)
        if module is np:
            return _array_to_numpy(values)
        key = (name, module.__name__, str(like.device))
        known = self._elsewhere.get(key)
        if known is None or known[0] is not values:
            made = module.asarray(values) if module.__name__ == "cupy" else module.as_tensor(values, device=like.device)
            known = self._elsewhere[key] = (values, made)
        return known[1]

    def points_like(self, like: Any) -> list[Any]:
        """Return the trajectory's coordinates, one array each, of the kind and on the device of another array."""
        return [self._like(f"point {i}", column, like) for i, column in enumerate(self._points)]

    # Transforms

    def _pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield batches and coils in parts that are transformed at once."""
        most = PIECE_BYTES // (self.cpx_dtype.itemsize * max(int(np.prod(self.shape)), self.n_samples))
        if most >= self.n_batchs * self.n_coils:
            yield slice(None), slice(None)
            return
        step = max(most, 1)
        for batch in range(self.n_batchs):
            for coil in range(0, self.n_coils, step):
                yield slice(batch, batch + 1), slice(coil, coil + step)

    def forward(self, image: Any, points: Sequence[Any], smaps: Any = None) -> Any:
        """Return E of images ``(n_batchs, n_coils or 1, *shape)``, at points, as ``(n_batchs, n_coils, n_samples)``."""
        found: list[Any] = []
        for batches, coils in self._pieces():
            part = image[batches] * smaps[coils] if smaps is not None else image[batches, coils]
            values = _TO_POINTS[self.ndim](*points, part.reshape(-1, *self.shape), **self._options)
            found.append(values.reshape(*part.shape[:2], -1))
        return self._joined(found) / float(self.norm_factor)

    def backward(self, kspace: Any, points: Sequence[Any], smaps: Any = None, density: Any = None) -> Any:
        """Return E^H D of samples ``(n_batchs, n_coils, n_samples)``, as ``(n_batchs, n_coils or 1, *shape)``."""
        found: list[Any] = []
        for batches, coils in self._pieces():
            part = kspace[batches, coils]
            weighted = (part if density is None else part * density).reshape(-1, kspace.shape[-1])
            images = _TO_IMAGE[self.ndim](*points, weighted, self.shape, **self._options)
            images = images.reshape(*part.shape[:2], *self.shape)
            found.append((smaps[coils].conj() * images).sum(1)[:, None] if smaps is not None else images)
        joined = self._joined(found, add=smaps is not None) / float(self.norm_factor)
        return joined.real if self.real else joined

    def _joined(self, parts: list[Any], add: bool = False) -> Any:
        """Put the parts of all pieces together; those of one batch's coils add up where coils are combined."""
        if len(parts) == 1:
            return parts[0]
        module = get_array_module(parts[0])
        each = len(parts) // self.n_batchs
        rows = [parts[batch * each : (batch + 1) * each] for batch in range(self.n_batchs)]
        return module.concatenate([sum(row[1:], row[0]) if add else module.concatenate(row, 1) for row in rows], 0)

    def op(self, data: Any, ksp: Any = None) -> Any:
        """Sample the spectra of images.

        Parameters
        ----------
        data : array
            Images, ``(n_batchs, n_coils, *shape)``, with one coil where there are sensitivity maps; axes of one may be
            missing.
        ksp : array, optional
            Takes the result.

        Returns
        -------
        array, shape (n_batchs, n_coils, n_samples)
            Of the kind and on the device of ``data``; without axes of one if ``squeeze_dims``.
        """
        self.check_shape(image=data, ksp=ksp)
        found = self.forward(self._images(data), self.points_like(data), self._maps(data))
        return self._given(found, ksp)

    def adj_op(self, coeffs: Any, img: Any = None) -> Any:
        """Apply the adjoint, with the density compensation if there is one.

        Parameters
        ----------
        coeffs : array, shape (n_batchs, n_coils, n_samples)
            Samples; axes of one may be missing.
        img : array, optional
            Takes the result.

        Returns
        -------
        array, shape (n_batchs, n_coils, \\*shape)
            Images, one for all coils where there are sensitivity maps; of the kind and on the device of ``coeffs``;
            without axes of one if ``squeeze_dims``; real if the operator is.
        """
        self.check_shape(image=img, ksp=coeffs)
        kspace = auto_cast(coeffs, self.cpx_dtype).reshape(self.ksp_full_shape)
        found = self.backward(kspace, self.points_like(coeffs), self._maps(coeffs), self._weights(coeffs))
        return self._given(found, img)

    def data_consistency(self, image_data: Any, obs_data: Any) -> Any:
        """Return ``E^H D (E x - y)``, the gradient of half the weighted squared distance to the data.

        Parameters
        ----------
        image_data : array
            Images x, as ``op`` takes them.
        obs_data : array
            Samples y, as ``adj_op`` takes them.

        Returns
        -------
        array
            As ``adj_op`` gives it.
        """
        self.check_shape(image=image_data, ksp=obs_data)
        points, smaps = self.points_like(image_data), self._maps(image_data)
        observed = auto_cast(obs_data, self.cpx_dtype).reshape(self.ksp_full_shape)
        residual = self.forward(self._images(image_data), points, smaps) - observed
        return self._given(self.backward(residual, points, smaps, self._weights(image_data)), None)

    def _images(self, data: Any) -> Any:
        kind = getattr(data.dtype, "kind", "c" if "complex" in str(data.dtype) else "f")
        if self.real and kind == "c":
            raise DtypeError(f"data must be real for this operator, which was made with real=True; got {data.dtype}")
        return auto_cast(data, self.cpx_dtype).reshape(self.img_full_shape)

    def _maps(self, like: Any) -> Any:
        return None if self.smaps is None else auto_cast(self._like("smaps", self.smaps, like), self.cpx_dtype)

    def _weights(self, like: Any) -> Any:
        if self.density is None:
            return None
        weights = self._like("density", self.density, like)
        return auto_cast(weights.real if "complex" in str(weights.dtype) else weights, self.dtype)

    def _given(self, found: Any, out: Any) -> Any:
        if out is None:
            return self._safe_squeeze(found)
        out[...] = found.reshape(out.shape)
        return out

    # The normal operator

    def normal_op(self, data: Any) -> Any:
        """Apply ``E^H D E`` by fast Fourier transforms alone.

        Parameters
        ----------
        data : array
            Images, as ``op`` takes them.

        Returns
        -------
        array
            As ``adj_op(op(data))``, to the operator's ``eps``.

        Notes
        -----
        ``F^H D F`` is a convolution with the trajectory's point spread function, on images padded with zeros to twice
        their size [2]_. The function's spectrum is computed when it is first needed and kept for the trajectory and
        density.

        References
        ----------
        .. [2] See the module's.
        """
        self.check_shape(image=data)
        images, smaps = self._images(data), self._maps(data)
        halved = self.real and smaps is None
        kernel = self._like("kernel", self._spectrum(), data)
        axes = tuple(range(2, 2 + self.ndim))
        full = self._kernel_shape()
        if halved:
            kernel, images = kernel[..., : full[-1] // 2 + 1], images.real
        found: list[Any] = []
        for batches, coils in self._pieces():
            part = images[batches] * smaps[coils] if smaps is not None else images[batches, coils]
            if halved:
                wide = fft.irfftn(fft.rfftn(part, full, axes) * kernel, full, axes)
            else:
                wide = fft.ifftn(fft.fftn(part, full, axes) * kernel, None, axes)
            part = wide[(slice(None), slice(None), *map(slice, self.shape))]
            found.append((smaps[coils].conj() * part).sum(1)[:, None] if smaps is not None else part)
        joined = self._joined(found, add=smaps is not None)
        return self._given(joined.real if self.real else joined, None)

    def _kernel_shape(self) -> tuple[int, ...]:
        from scipy.fft import next_fast_len

        return tuple(int(next_fast_len(2 * n - 1)) for n in self.shape)

    def _spectrum(self) -> np.ndarray:
        """Return the spectrum of the point spread function, which is real because the function is Hermitian.

        For real images the function's real part counts, which is even; its spectrum is the even part of the other.
        """
        density = self.density
        if self._kernel is None or self._kernel_of is not density:
            weights = np.ones(self.n_samples) if density is None else np.real(_array_to_numpy(density))
            wide = tuple(2 * n - 1 for n in self.shape)
            spread = _TO_IMAGE[self.ndim](*self._points, weights.astype(self.cpx_dtype), wide, **self._options)
            full = self._kernel_shape()
            placed = np.zeros(full, self.cpx_dtype)
            placed[tuple(slice(n) for n in wide)] = spread
            placed = np.roll(placed, tuple(1 - n for n in self.shape), tuple(range(self.ndim)))
            if self.real and not self.uses_sense:
                placed = placed.real.astype(self.cpx_dtype)
            self._kernel = np.real(fft.fftn(placed)) / float(self.norm_factor) ** 2
            self._kernel = self._kernel.astype(self.dtype)
            self._kernel_of = density
        return self._kernel

    # Gradients and density compensation

    def compute_density(self, method: Any = None) -> None:
        """Compute the density compensation and set it.

        Parameters
        ----------
        method : bool, str, dict, callable or array
            As in the constructor.
        """
        super().compute_density({"name": "pipe"} if isinstance(method, str) and method == "pipe" else method)

    def make_autograd(self, *, wrt_data: bool = True, wrt_traj: bool = False, paired_batch: bool = False) -> Any:
        """Return the operator as a torch module with gradients by images or samples, and by the trajectory.

        Parameters
        ----------
        wrt_data, wrt_traj : bool
            What gradients are wanted by.
        paired_batch : bool
            Operands have one more leading axis, and each element of it may have sensitivity maps and a trajectory of
            its own.

        Returns
        -------
        AdaptiveAutograd
            A ``torch.nn.Module`` with ``op`` and ``adj_op``, in the place of MRI-NUFFT's ``MRINufftAutoGrad``.

        Raises
        ------
        ArgumentError
            If the operator leaves out axes of one (``squeeze_dims=True``).
        """
        if (wrt_data or wrt_traj) and self.squeeze_dims:
            raise ArgumentError("squeeze_dims must be False for an operator with gradients")
        from .mri_nufft_autograd import AdaptiveAutograd

        return AdaptiveAutograd(self, wrt_data=wrt_data, wrt_traj=wrt_traj, paired_batch=paired_batch)

    @classmethod
    def pipe(cls, kspace_loc: Any, volume_shape: Sequence[int], **kwargs: Any) -> np.ndarray:
        """Return Pipe's density compensation of a trajectory, as MRI-NUFFT computes it with FINUFFT.

        Parameters
        ----------
        kspace_loc : array, shape (n_samples, d)
            The trajectory.
        volume_shape : tuple of int
            Shape of an image.
        **kwargs
            MRI-NUFFT's: ``max_iter``, ``osf``, ``normalize``.

        Returns
        -------
        array, shape (n_samples,)
            Weights, real.
        """
        operator: Any = get_operator("finufft")
        return np.real(operator.pipe(_array_to_numpy(kspace_loc), volume_shape, **kwargs))
