"""Complex linear maps and embeddings, in two parametrisations: real and imaginary parts, or magnitude and phase."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..core.errors import ArgumentError, BackendUnavailable, DtypeError, ShapeError
from .layer import Layer, one_of, whole

PARAMETRISATIONS = ("cartesian", "polar")


class ComplexLinear(Layer):
    """A complex matrix, and a bias, applied to each position.

    ``y = x W^T + b`` with complex W and b. Parameters are kept as real numbers: as pairs of parts ("cartesian"), or as
    magnitude and phase ("polar", W = magnitude * e^{i phase}). A polar weight's phase is an ordinary real number that
    training may move by more than a turn; W itself depends on it modulo 2 pi alone. A magnitude may become negative,
    which is the same weight turned by pi.

    Parameters
    ----------
    dim : int
        Width of the inputs.
    out_dim : int, optional
        Width of the outputs; by default ``dim``.
    bias : bool
        Whether there is one.
    parametrisation : {"cartesian", "polar"}
        How the weight is kept. Both start from the same distribution: complex Gaussian of variance 1 / dim.
    max_length : int, optional
        Longest length that is accepted.
    device, dtype
        dtype of the real parameters: float32 or float64, by default torch's.

    Attributes
    ----------
    parts : Parameter, (out_dim, dim, 2)
        Real and imaginary parts; cartesian only.
    magnitude, phase : Parameter, (out_dim, dim)
        Polar only; the phase in radians.
    bias : Parameter, (out_dim, 2), or None

    Notes
    -----
    Gradients are PyTorch's: for a real loss, dL/dRe z + i dL/dIm z, that is 2 dL/dz* (see docs/nn/complex.md).

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer = nn.ComplexLinear(4, 3, parametrisation="polar")
    >>> y = layer(torch.randn(2, 5, 4, dtype=torch.complex64))
    >>> y.shape, y.dtype
    (torch.Size([2, 5, 3]), torch.complex64)
    """

    causal = True
    complex_inputs = True

    def __init__(
        self, dim: int, out_dim: int | None = None, *, bias: bool = True, parametrisation: str = "cartesian",
        max_length: int | None = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        self.out_dim = self.dim if out_dim is None else whole(out_dim, "out_dim")
        self.parametrisation = one_of(parametrisation, "parametrisation", PARAMETRISATIONS)
        where = {"device": device, "dtype": wide_only(dtype)}
        size = (self.out_dim, self.dim)
        if self.parametrisation == "polar":
            self.magnitude = torch.nn.Parameter(torch.empty(size, **where))
            self.phase = torch.nn.Parameter(torch.empty(size, **where))
        else:
            self.parts = torch.nn.Parameter(torch.empty(*size, 2, **where))
        self.bias = torch.nn.Parameter(torch.zeros(self.out_dim, 2, **where)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew: complex Gaussian, of variance 1 / dim; the bias is zero."""
        with torch.no_grad():
            if self.parametrisation == "polar":
                # The magnitude of a complex Gaussian is Rayleigh: the square root of an exponential variable.
                self.magnitude.exponential_().div_(self.dim).sqrt_()
                self.phase.uniform_(-math.pi, math.pi)
            else:
                self.parts.normal_(std=math.sqrt(0.5 / self.dim))
            if self.bias is not None:
                self.bias.zero_()

    @property
    def weight(self) -> torch.Tensor:
        """The complex matrix, (out_dim, dim), as it is now; gradients flow through it to the parameters."""
        if self.parametrisation == "polar":
            return torch.polar(torch.ones_like(self.phase), self.phase) * self.magnitude
        return torch.view_as_complex(self.parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the matrix.

        Parameters
        ----------
        x : Tensor
            (batch, length, dim), complex, or real (float32, float64), which is taken as complex.

        Returns
        -------
        Tensor
            (batch, length, out_dim), complex.

        Raises
        ------
        DtypeError
            Besides what every layer refuses: half precision, for which torch has no complex products.
        """
        x = as_complex(self, x)
        y = x @ self.weight.mT
        return y if self.bias is None else y + torch.view_as_complex(self.bias)

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{super().extra_repr()}, {self.out_dim}, parametrisation={self.parametrisation}"


class ComplexEmbedding(Layer):
    """A table of complex vectors, and relations between them that are rotations: t = h e^{i theta_r}.

    With entities h and t and a relation r of angles theta_r, one for each of the ``dim`` components, a triple is the
    more plausible the smaller ``sum_d |h_d e^{i theta_rd} - t_d|`` is (RotatE [1]_). Rotations compose by adding
    angles, are inverted by negating them, can be cyclic (n theta a multiple of 2 pi), symmetric (theta 0 or pi) and
    antisymmetric (else). Each component commutes, so that relations do.

    Parameters
    ----------
    dim : int
        Number of complex components.
    entities : int
        Size of the table: identifiers are 0 to entities - 1.
    relations : int
        Number of relations, may be zero.
    max_length : int, optional
        Longest length that is accepted.
    device, dtype
        dtype of the real parameters: float32 or float64, by default torch's.

    Attributes
    ----------
    table : torch.nn.Embedding, (entities, 2 dim)
        Real parts, then imaginary parts.
    angles : Parameter, (relations, dim)
        In radians.

    References
    ----------
    .. [1] Z. Sun, Z.-H. Deng, J.-Y. Nie, J. Tang, "RotatE: Knowledge Graph Embedding by Relational Rotation in Complex
       Space", ICLR 2019.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> layer = nn.ComplexEmbedding(4, entities=10, relations=2)
    >>> layer(torch.tensor([[3, 7]])).shape
    torch.Size([1, 2, 4])
    >>> layer.score(torch.tensor([3]), torch.tensor([1]), torch.tensor([7])).shape
    torch.Size([1])
    """

    causal = True

    def __init__(
        self, dim: int, entities: int = 256, relations: int = 0, *, max_length: int | None = None,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(dim, max_length=max_length)
        self.entities, self.relations = whole(entities, "entities"), whole(relations, "relations", 0)
        where = {"device": device, "dtype": wide_only(dtype)}
        self.table = torch.nn.Embedding(self.entities, 2 * self.dim, **where)
        self.angles = torch.nn.Parameter(torch.empty(self.relations, self.dim, **where))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw entities from a complex Gaussian of variance one, and angles evenly from the circle."""
        torch.nn.init.normal_(self.table.weight, std=math.sqrt(0.5))
        torch.nn.init.uniform_(self.angles, -math.pi, math.pi)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look entities up.

        Parameters
        ----------
        ids : Tensor
            (batch, length), int32 or int64; the batch may be empty.

        Returns
        -------
        Tensor
            (batch, length, dim), complex.

        Raises
        ------
        ShapeError, DtypeError, BackendUnavailable, ArgumentError
            If ``ids`` has another shape or dtype, is elsewhere, or (on the CPU, where looking costs no wait) holds what
            is no identifier.
        """
        self._check(ids, "ids", self.entities)
        if ids.ndim != 2:
            raise ShapeError(f"ids must be (batch, length), got shape {tuple(ids.shape)}")
        if self.max_length is not None and ids.shape[1] > self.max_length:
            raise ShapeError(f"ids has {ids.shape[1]} positions, more than max_length={self.max_length}")
        return self._vectors(ids)

    def relate(self, vectors: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
        """Return vectors turned by relations: ``vectors * e^{i theta_r}``.

        Parameters
        ----------
        vectors : Tensor, shape (..., dim)
            Complex.
        relations : Tensor, shape (...)
            int32 or int64, 0 to relations - 1.
        """
        self._check(relations, "relations", self.relations)
        theta = self.angles[relations]
        return vectors * torch.polar(torch.ones_like(theta), theta)

    def score(self, heads: torch.Tensor, relations: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
        """Return ``-sum_d |h_d e^{i theta_rd} - t_d|`` of triples; shapes broadcast, zero is the most plausible."""
        self._check(heads, "heads", self.entities)
        self._check(tails, "tails", self.entities)
        return -(self.relate(self._vectors(heads), relations) - self._vectors(tails)).abs().sum(-1)

    def _vectors(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.complex(*self.table(ids).chunk(2, -1))

    def _check(self, ids: Any, name: str, count: int) -> None:
        if not isinstance(ids, torch.Tensor) or ids.dtype not in (torch.int32, torch.int64):
            what = ids.dtype if isinstance(ids, torch.Tensor) else type(ids).__name__
            raise DtypeError(f"{name} must be a tensor of int32 or int64, got {what}")
        if ids.device != self.table.weight.device:
            raise BackendUnavailable(
                f"{name} is on {ids.device}, the table on {self.table.weight.device}; move one of them"
            )
        if ids.device.type == "cpu" and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
            raise ArgumentError(f"{name} must be 0 to {count - 1}, got {int(ids.min())} to {int(ids.max())}")

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` tells besides the parts."""
        return f"{super().extra_repr()}, entities={self.entities}, relations={self.relations}"


def wide_only(dtype: Any) -> Any:
    """Return a dtype of real parameters of complex values, or say which are accepted."""
    if dtype not in (None, torch.float32, torch.float64):
        raise DtypeError(f"dtype must be float32 or float64, because torch has no complex half precision; got {dtype}")
    return dtype


def as_complex(layer: Layer, x: Any) -> torch.Tensor:
    """Return a layer's checked input as a complex tensor; half precision is refused."""
    layer.checked(x)
    if x.dtype in (torch.float16, torch.bfloat16, torch.complex32):
        raise DtypeError(
            f"x has dtype {x.dtype}; complex layers compute in float32 and float64: convert with x.float()"
        )
    return x if x.is_complex() else torch.complex(x, torch.zeros_like(x))
