"""Gradients of the operator for MRI-NUFFT: by images, samples, sensitivity maps and the trajectory, through torch."""

from __future__ import annotations

from typing import Any

import torch
from mrinufft._utils import proper_trajectory

from ..core.errors import ArgumentError


class AdaptiveAutograd(torch.nn.Module):  # type: ignore[misc]
    """An operator of MRI-NUFFT's kind for torch tensors, in the place of its ``MRINufftAutoGrad``.

    Parameters
    ----------
    nufft_op : MRIAdaptive
        The operator.
    wrt_data, wrt_traj : bool
        What gradients are wanted by.
    paired_batch : bool
        Operands have one more leading axis; see ``op``.

    Attributes
    ----------
    samples : Tensor, shape (n_samples, d)
        The trajectory, in radians; a leaf that requires a gradient if ``wrt_traj``. Another one may be assigned, for
        example a ``torch.nn.Parameter``.

    Notes
    -----
    Gradients are those of the transforms themselves, by NUFFTs; those of ``op`` do not include the density
    compensation, which is no part of it (MRI-NUFFT's backward passes include it).

    Examples
    --------
    >>> import torch, mrinufft
    >>> import adaptive_compute.integrations.mri_nufft
    >>> trajectory = 6 * torch.rand(40, 2, generator=torch.manual_seed(0)) - 3
    >>> make = mrinufft.get_operator("adaptive", wrt_data=True, wrt_traj=True)
    >>> E = make(samples=trajectory.numpy(), shape=(8, 8), squeeze_dims=False)
    >>> E.op(torch.ones(1, 1, 8, 8, dtype=torch.complex64)).abs().square().sum().backward()
    >>> E.samples.grad.shape
    torch.Size([40, 2])
    """

    def __init__(
        self, nufft_op: Any, *, wrt_data: bool = True, wrt_traj: bool = False, paired_batch: bool = False
    ) -> None:
        super().__init__()
        self.nufft_op = nufft_op
        self.wrt_data, self.wrt_traj = wrt_data, wrt_traj
        self.paired_batch = paired_batch
        self._trajectory = torch.tensor(nufft_op.samples, requires_grad=wrt_traj)
        self._radians = True

    @property
    def samples(self) -> torch.Tensor:
        """The trajectory."""
        return self._trajectory

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "samples":  # torch would register a parameter of that name, and find the property in its way
            self.update_samples(value)
        else:
            super().__setattr__(name, value)

    def update_samples(self, new_samples: torch.Tensor, *, unsafe: bool = False) -> None:
        """Take another trajectory, ``(n_samples, d)``; gradients go to the tensor given.

        Parameters
        ----------
        new_samples : Tensor
            In [-0.5, 0.5] or radians.
        unsafe : bool
            It is in radians.
        """
        self.__dict__["_trajectory"], self._radians = new_samples, unsafe
        self.nufft_op.update_samples(new_samples.detach(), unsafe=unsafe)

    def _points(self, like: torch.Tensor) -> list[torch.Tensor]:
        """Return the coordinates of the trajectory, recorded where a gradient by it is wanted."""
        samples = self._trajectory if self.wrt_traj else self._trajectory.detach()
        if not self._radians:
            samples = proper_trajectory(samples, normalize="pi")
        return [column.contiguous() for column in samples.reshape(-1, samples.shape[-1]).to(like.device).T]

    def op(self, x: torch.Tensor, smaps: Any = None, samples: Any = None) -> torch.Tensor:
        """Sample the spectra of images.

        Parameters
        ----------
        x : Tensor, shape (n_batchs, n_coils or 1, \\*shape)
            Images; with ``paired_batch`` there is one more leading axis.
        smaps : Tensor, shape (batch, n_coils, \\*shape), optional
            Sensitivity maps of each element, with ``paired_batch`` alone.
        samples : Tensor, shape (batch, n_samples, d), optional
            Trajectory of each element, with ``paired_batch`` alone.

        Returns
        -------
        Tensor, shape (n_batchs, n_coils, n_samples)
            Samples; with ``paired_batch`` there is one more leading axis.
        """
        return self._each(self._op, x, smaps, samples)

    def adj_op(self, kspace: torch.Tensor, smaps: Any = None, samples: Any = None) -> torch.Tensor:
        """Apply the adjoint, with the density compensation if there is one.

        Parameters
        ----------
        kspace : Tensor, shape (n_batchs, n_coils, n_samples)
            Samples; with ``paired_batch`` there is one more leading axis.
        smaps, samples : Tensor, optional
            As in ``op``.

        Returns
        -------
        Tensor, shape (n_batchs, n_coils or 1, \\*shape)
            Images; with ``paired_batch`` there is one more leading axis.
        """
        return self._each(self._adj_op, kspace, smaps, samples)

    def _op(self, x: torch.Tensor, smaps: Any) -> torch.Tensor:
        nufft = self.nufft_op
        nufft.check_shape(image=x)
        return nufft.forward(nufft._images(self._data(x)), self._points(x), smaps)

    def _adj_op(self, kspace: torch.Tensor, smaps: Any) -> torch.Tensor:
        nufft = self.nufft_op
        nufft.check_shape(ksp=kspace)
        data = self._data(kspace).reshape(nufft.ksp_full_shape)
        return nufft.backward(data, self._points(kspace), smaps, nufft._weights(kspace))

    def _data(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.wrt_data else x.detach()

    def _each(self, apply: Any, data: torch.Tensor, smaps: Any, samples: Any) -> torch.Tensor:
        if not self.paired_batch:
            if smaps is not None or samples is not None:
                raise ArgumentError("smaps and samples are for operators with paired_batch; set them on the operator")
            return apply(data, self.nufft_op._maps(data))
        for name, given in (("smaps", smaps), ("samples", samples)):
            if given is not None and len(given) != len(data):
                raise ArgumentError(f"{name} must have one element for each of the {len(data)} of the batch")
        found = []
        for index, part in enumerate(data):
            if samples is not None:
                self.update_samples(samples[index])
            maps = self.nufft_op._maps(part)
            if smaps is not None:
                maps = torch.as_tensor(smaps[index]).to(device=part.device, dtype=part.dtype)
                maps = maps.reshape(-1, *self.nufft_op.shape)
            found.append(apply(part, maps))
        return torch.stack(found)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["nufft_op"], name)
