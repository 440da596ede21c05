"""Products with a compressed matrix that is never made: quantised rows a block at a time, sparse spectra not at all.

For a matrix w (rows, columns) whose spectrum is v, with w = F_rows^-1 v F_columns^-1, a product is
``x w = ((x F_rows^-1) v) F_columns^-1``: an inverse transform of x, a sparse product, and an inverse transform of the
result. That is the dense product's value at the cost of the kept coefficients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

import adaptive_compute as ac

from ..core.errors import ArgumentTypeError, BackendUnavailable, DtypeError, ShapeError
from .layer import FLOATS, whole, working_dtype
from .quantize import COMPLEX, QuantizedTensor
from .sparse import SparseSpectralTensor
from .spectral_index import Panel, SpectralIndex

BLOCK = 1024
ROWS = 1 << 12  # of the result that are worked on together, so that few are held twice
LITTLE = 1 << 18  # products of coefficients and vectors below which threads would cost more than they save
GATHERED = 1 << 13  # pairs of rows whose inner products are taken at a time


def block_streaming_matmul(
    x: torch.Tensor, w: SparseSpectralTensor | QuantizedTensor, block: int | None = None
) -> torch.Tensor:
    """Return ``x @ w`` for a compressed matrix without making the matrix.

    Parameters
    ----------
    x : Tensor
        (..., rows); real or complex, in any floating-point dtype (half precision is computed in float32).
    w : SparseSpectralTensor or QuantizedTensor
        (rows, columns).
    block : int, optional
        How many rows of w may be decoded at a time: what bounds the memory besides x's and the result's (and their
        transforms'). By default 1024 of a quantised matrix, and a panel of a sparse spectrum, which is decoded in the
        panels it was made with; fewer rows than those are refused. On the CPU the next panel is decoded ahead where
        threads share the work, and the gradients decode one panel a thread.

    Returns
    -------
    Tensor
        (..., columns), in x's dtype; complex where w is. Gradients reach x, and the values of a sparse spectrum that
        are not quantised. They have no gradients of their own.

    Raises
    ------
    ArgumentTypeError, ShapeError, DtypeError, BackendUnavailable, ArgumentError
        If w is no compressed matrix, x does not fit it or is on another device, or ``block`` is less than a panel.

    Examples
    --------
    >>> import torch
    >>> from adaptive_compute import nn
    >>> w = nn.SparseSpectralTensor.from_dense(torch.randn(96, 64), keep=0.1)
    >>> x = torch.randn(4, 96)
    >>> torch.allclose(nn.block_streaming_matmul(x, w), x @ w.dense(), atol=1e-4)
    True
    """
    _check(x, w)
    wide = working_dtype(x.dtype)
    rows = x.reshape(-1, w.shape[0])
    rows = rows.to(wide.to_complex() if x.is_complex() else wide)
    if isinstance(w, QuantizedTensor):
        y = _Decoded.apply(rows, w, BLOCK if block is None else whole(block, "block"))
    else:
        if block is not None and whole(block, "block") < w.index.panel:
            raise ShapeError(
                f"block={block} is less than the {w.index.panel} rows of a panel of w; make w with panel={block}"
            )
        y = _spectral(rows, w)
    return y.to(_result(x.dtype, w.dtype)).reshape(*x.shape[:-1], w.shape[1])


def _spectral(x: torch.Tensor, w: SparseSpectralTensor) -> torch.Tensor:
    if x.is_complex() and not w.dtype.is_complex:
        both = _spectral(torch.cat([x.real, x.imag]), w)
        return torch.complex(*both.chunk(2))
    if not x.numel():  # nothing to transform; what remains is linear in x, so that gradients are zeros
        return (x.sum() * 0).expand(len(x), w.shape[1])
    wide = x.dtype.to_complex()
    values = w.values if isinstance(w.values, torch.Tensor) else x.new_empty(0, dtype=wide)
    # Vectors are columns in the product: a panel's rows of them are neighbours in memory. No name holds what one step
    # hands to the next, so that no more than two of them are in memory.
    product = _SparseProduct.apply(ac.ifft(x.to(wide)).mT.contiguous(), values, w)
    product = product.mT.contiguous()
    return ac.ifft(product) if w.dtype.is_complex else ac.irfft(product, w.shape[1])


class _SparseProduct(torch.autograd.Function):  # type: ignore[misc]
    """v^T x for a sparse spectrum v (leading, last) and columns x (leading, vectors), and its two gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, values: torch.Tensor, w: SparseSpectralTensor) -> torch.Tensor:
        ctx.save_for_backward(x, values)
        ctx.w = w
        kernels = _kernels(x)
        return kernels.forward(x, w.index, lambda panel: _held(w, values, panel, x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        x, values = ctx.saved_tensors
        w, kernels, g = ctx.w, _kernels(x), g.contiguous()
        to_x = to_values = None
        if ctx.needs_input_grad[0]:
            to_x = kernels.to_x(g, w.index, lambda panel: _held(w, values, panel, x.dtype))
        if ctx.needs_input_grad[1]:
            to_values = kernels.to_values(g, x, w.index).to(values.dtype)
        return to_x, to_values, None


def _held(w: SparseSpectralTensor, values: torch.Tensor, panel: Panel, dtype: Any) -> torch.Tensor:
    begin, end = panel.begin, panel.begin + len(panel.leading)
    # The tensor that autograd was given, since a functional call may put another one in the place of w's own.
    return values[begin:end].to(dtype) if len(values) else w.coefficients(begin, end, dtype)


Values = Callable[[Panel], torch.Tensor]


class _OnTheHost:
    """The three products on the CPU: SciPy's sparse ones, which let threads run side by side."""

    @staticmethod
    def forward(x: torch.Tensor, index: SpectralIndex, values: Values) -> torch.Tensor:
        last = index.shape[1]
        out = np.zeros((last, x.shape[1]), _numpy(x).dtype)

        def prepared(number: int) -> tuple[Panel, torch.Tensor]:
            panel = index.decode(number)
            return panel, values(panel)

        def add(panel: Panel, held: torch.Tensor, first: int) -> None:
            mine = _numpy(x[panel.first : panel.first + panel.size])
            out[first : first + ROWS] += _matrix(panel, held, first, min(first + ROWS, last)) @ mine

        with _threads(index, x.shape[1]) as pool:
            ahead = pool.submit(prepared, 0)
            for number in range(index.panels):
                panel, held = ahead.result()
                if number + 1 < index.panels:
                    ahead = pool.submit(prepared, number + 1)
                list(pool.map(partial(add, panel, held), range(0, last, ROWS)))
        return torch.from_numpy(out)

    @staticmethod
    def to_x(g: torch.Tensor, index: SpectralIndex, values: Values) -> torch.Tensor:
        out = torch.empty(index.shape[0], g.shape[1], dtype=g.dtype)

        def work(number: int) -> None:
            panel = index.decode(number)
            found = _matrix(panel, values(panel).conj(), 0, index.shape[1]).T @ _numpy(g)
            out[panel.first : panel.first + panel.size] = torch.from_numpy(found)

        with _threads(index, g.shape[1]) as pool:
            list(pool.map(work, range(index.panels)))
        return out

    @staticmethod
    def to_values(g: torch.Tensor, x: torch.Tensor, index: SpectralIndex) -> torch.Tensor:
        out = torch.empty(len(index), dtype=g.dtype)

        def work(number: int) -> None:
            panel = index.decode(number)
            mine = _numpy(x[panel.first : panel.first + panel.size])
            starts = panel.starts.numpy()
            last = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            for at in range(0, len(last), GATHERED):
                some = slice(at, at + GATHERED)
                left, right = _numpy(g)[last[some]], mine[panel.leading[some].numpy()]
                found = np.einsum("ev,ev->e", left, right.conj())
                out[panel.begin + at : panel.begin + at + len(found)] = torch.from_numpy(found)

        with _threads(index, x.shape[1]) as pool:
            list(pool.map(work, range(index.panels)))
        return out


class _OnTheDevice:
    """The three products by torch's sparse matrices: on CUDA, cuSPARSE's."""

    @staticmethod
    def forward(x: torch.Tensor, index: SpectralIndex, values: Values) -> torch.Tensor:
        out = x.new_zeros(index.shape[1], x.shape[1])
        for number in range(index.panels):
            panel = index.decode(number)
            torch.addmm(out, _compressed(panel, values(panel)), x[panel.first : panel.first + panel.size], out=out)
        return out

    @staticmethod
    def to_x(g: torch.Tensor, index: SpectralIndex, values: Values) -> torch.Tensor:
        out = g.new_empty(index.shape[0], g.shape[1])
        for number in range(index.panels):
            panel = index.decode(number)
            order = torch.argsort(panel.leading, stable=True)
            last = torch.arange(index.shape[1], dtype=torch.int32, device=g.device)
            columns = last.repeat_interleave(panel.starts.diff())[order]
            bounds = torch.arange(panel.size + 1, device=g.device)
            starts = torch.searchsorted(panel.leading[order].to(torch.int64), bounds, out_int32=True)
            held = values(panel)[order].conj().resolve_conj()
            turned = _compressed(panel, held, starts, columns, (panel.size, index.shape[1]))
            out[panel.first : panel.first + panel.size] = turned @ g
        return out

    @staticmethod
    def to_values(g: torch.Tensor, x: torch.Tensor, index: SpectralIndex) -> torch.Tensor:
        out = g.new_empty(len(index))
        for number in range(index.panels):
            panel = index.decode(number)
            zeros = _compressed(panel, g.new_zeros(len(panel.leading)))
            mine = x[panel.first : panel.first + panel.size].mH.resolve_conj().contiguous()
            found = torch.sparse.sampled_addmm(zeros, g, mine, beta=0.0)
            out[panel.begin : panel.begin + len(panel.leading)] = found.values()
        return out


def _kernels(x: torch.Tensor) -> Any:
    return _OnTheHost if x.device.type == "cpu" else _OnTheDevice


class _Alone:
    """What stands in for a pool of threads where the work is too little for one."""

    submit = staticmethod(lambda call, *arguments: _Done(call(*arguments)))
    map = staticmethod(map)


class _Done(NamedTuple):
    value: Any

    def result(self) -> Any:
        return self.value


@contextmanager
def _threads(index: SpectralIndex, vectors: int) -> Iterator[Any]:
    """Give a pool of as many threads as torch uses."""
    threads = torch.get_num_threads()
    if threads == 1 or len(index) * vectors < LITTLE:
        yield _Alone
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool


def _matrix(panel: Panel, values: torch.Tensor, first: int, stop: int) -> scipy.sparse.csr_matrix:
    """Return last frequencies ``first`` to ``stop`` of a panel."""
    starts = panel.starts[first : stop + 1].numpy()
    some = slice(int(starts[0]), int(starts[-1]))
    shape = (stop - first, panel.size)
    return scipy.sparse.csr_matrix((_numpy(values[some]), panel.leading[some].numpy(), starts - starts[0]), shape=shape)


def _compressed(
    panel: Panel, values: torch.Tensor, starts: torch.Tensor | None = None, columns: torch.Tensor | None = None,
    shape: tuple[int, int] | None = None,
) -> torch.Tensor:  # fmt: skip
    shape = (len(panel.starts) - 1, panel.size) if shape is None else shape
    starts, columns = panel.starts if starts is None else starts, panel.leading if columns is None else columns
    _hush()
    return torch.sparse_csr_tensor(starts, columns, values, shape, device=values.device, check_invariants=False)


@lru_cache(maxsize=1)
def _hush() -> None:
    """Have torch say once, to nobody, that these matrices are new: whose warnings are errors could not multiply."""
    none = torch.empty(0, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(none.new_zeros(1), none, torch.empty(0), (0, 0), check_invariants=False)


def _numpy(x: torch.Tensor) -> np.ndarray:
    return x.detach().resolve_conj().numpy()


class _Decoded(torch.autograd.Function):  # type: ignore[misc]
    """x w, w's rows decoded a block at a time; and again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: QuantizedTensor, block: int) -> torch.Tensor:
        ctx.w, ctx.block, ctx.dtype = w, block, x.dtype
        out = x.new_zeros(len(x), w.shape[1], dtype=torch.promote_types(x.dtype, _held_in(w, x.dtype)))
        for start in range(0, w.shape[0], block):
            stop = min(start + block, w.shape[0])
            out += x[:, start:stop].to(out.dtype) @ w.rows(start, stop).to(out.dtype)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:
        w, block = ctx.w, ctx.block
        found = [
            g @ w.rows(start, min(start + block, w.shape[0])).to(g.dtype).mH for start in range(0, w.shape[0], block)
        ]
        whole_ = torch.cat(found, 1) if found else g.new_zeros(len(g), 0)
        return (whole_ if ctx.dtype.is_complex else whole_.real if whole_.is_complex() else whole_), None, None


def _held_in(w: QuantizedTensor, dtype: Any) -> Any:
    wide = working_dtype(dtype)
    return wide.to_complex() if w.dtype.is_complex else wide


def _result(x: Any, w: Any) -> Any:
    if not w.is_complex or x.is_complex:
        return x
    return working_dtype(x).to_complex()


def _check(x: Any, w: Any) -> None:
    if not isinstance(w, SparseSpectralTensor | QuantizedTensor):
        raise ArgumentTypeError(f"w must be a SparseSpectralTensor or QuantizedTensor, got {type(w).__name__}")
    if len(w.shape) != 2:
        raise ShapeError(f"w must be a matrix (rows, columns), got shape {w.shape}")
    if not isinstance(x, torch.Tensor):
        raise ArgumentTypeError(f"x must be a torch tensor (..., rows), got {type(x).__name__}")
    if x.dtype not in (*FLOATS, *COMPLEX):
        raise DtypeError(f"x has dtype {x.dtype}; accepted: real and complex floating point")
    if not x.ndim or x.shape[-1] != w.shape[0]:
        raise ShapeError(f"x must be (..., {w.shape[0]}) for w {w.shape}, got shape {tuple(x.shape)}")
    if x.device != w.device:
        raise BackendUnavailable(f"x is on {x.device}, w on {w.device}; move one of them")
