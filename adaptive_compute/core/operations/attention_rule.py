"""Attention and its gradient as operations: parameters, work, gradient rule, reference. The function: attention.py."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import settings as _settings
from ..array import Operand, kind_of
from ..dispatcher import dispatcher
from ..errors import DtypeError, ShapeError
from ..masks import Causal, Window
from ..narrow import Narrow
from ..operation import Features, Operation, Request, Variant, Work, log2, relative_error
from ..precision import conformance
from ..scattered import between, pick, scattered
from ..topology import Mask
from .attention_narrow import narrower

BATCH = 8  # calls that `explain` considers to make as one
DTYPES = ("float16", "bfloat16", "float32", "float64")


class AttentionParams(NamedTuple):
    """What distinguishes calls on the same operands (query, key, value, boolean array or None, bias or None).

    ``mask`` is a mask that compiles to a topology, or None; ``precision`` the dtype of the bulk work, or None for the
    operands' own (float32 for the half precisions).
    """

    mask: Mask | None
    scale: float
    return_lse: bool
    precision: str | None


class BackwardParams(NamedTuple):
    """The same for the gradient, whose operands are the incoming gradient, those five, and out, lse, gradient of lse.

    ``bias_gradient`` asks for the gradient of the bias as a fourth result.
    """

    mask: Mask | None
    scale: float
    bias_gradient: bool
    precision: str | None


class Sizes(NamedTuple):
    """Lengths of a call. ``batch`` are the axes before the heads; ``heads`` those of the query."""

    batch: tuple[int, ...]
    heads: int
    key_heads: int
    lq: int
    lk: int
    d: int
    dv: int

    @property
    def matrices(self) -> int:
        """Number of (batch, query head) pairs."""
        return math.prod(self.batch) * self.heads


class Given(NamedTuple):
    """The operands of a call that both operations share."""

    query: Operand
    key: Operand
    value: Operand
    mask: Operand | None
    bias: Operand | None

    @property
    def sizes(self) -> Sizes:
        """Lengths of the call; an operand of two axes is one head."""
        q, k, v = self.query.shape, self.key.shape, self.value.shape
        heads, key_heads = (q[-3], k[-3]) if len(q) > 2 else (1, 1)
        return Sizes(q[:-3], heads, key_heads, q[-2], k[-2], q[-1], v[-1])


def given(request: Request) -> Given:
    """Return the operands that a forward and a backward request share."""
    first = 1 if request.operation.name == BACKWARD.name else 0
    return Given(*request.operands[first : first + 5])  # type: ignore[arg-type]


def working(request: Request) -> str:
    """Return the dtype of the bulk work."""
    return request.params.precision or ("float64" if request.first.dtype == "float64" else "float32")


def visited(request: Request) -> float:
    """Return how many keys a query visits on average in the tiles that a mask keeps."""
    s, mask = given(request).sizes, request.params.mask
    if mask is None or not s.lq:
        return float(s.lk)
    tile = (min(64, s.lq), 64)
    return min(mask.tiles(s.lq, s.lk, tile).visited * tile[0] * tile[1] / s.lq, float(s.lk))


EXPONENTIAL = 32  # values of a head


def place(request: Request, structure: str, keys: float) -> Features:
    """Return where a call stands in a time model by structure of the mask: work, queries, keys a query, matrices.

    The head size counts as work only, which spares a coordinate for it; so does the exponential of each pair, which
    takes as long as so many more values of a head.
    """
    s = given(request).sizes
    dtype = {"bfloat16": "float16"}.get(request.first.dtype, request.first.dtype)
    name = f"{dtype}{'-' + request.params.precision if request.params.precision else ''}/{structure}"
    work = s.matrices * s.lq * keys * (s.d + s.dv + EXPONENTIAL)
    return Features(name, (log2(work), log2(s.lq), log2(keys), log2(s.matrices)))


class _Family(Operation):
    """What the two operations share."""

    gemms = 2  # products of Lq x D by D x Lk, or of that size

    def work(self, request: Request) -> Work:
        s = given(request).sizes
        flops = self.gemms * s.matrices * s.lq * visited(request) * (s.d + s.dv)
        moved = sum(o.nbytes for o in (*request.operands, *self.result(request)) if o is not None)
        return Work(flops, float(moved))

    def features(self, request: Request) -> Features:
        g, mask = given(request), request.params.mask
        masked = mask is not None or g.mask is not None or g.bias is not None
        plain = g.mask is None and g.bias is None
        structure = "causal" if plain and mask == Causal() else "masked" if masked else "none"
        return place(request, structure, g.sizes.lk)

    def tolerance(self, request: Request) -> float:
        width = working(request)
        return max(conformance(request.first.dtype), conformance(width))

    def samples(self, quick: bool) -> Iterable[Request]:
        for dtype in ("float32", "float64", "float16"):
            for shape, mask in _scattered(dtype, quick, self.gemms):
                yield self.sample(*shape, dtype, mask)

    def held_out(self, rng: np.random.Generator) -> Request:
        while True:
            heads, d = int(2 ** rng.uniform(0, 6)), int(rng.choice([32, 48, 64, 96, 128]))
            lq = lk = int(2 ** rng.uniform(4, 12))
            kind = rng.choice(["none", "causal", "window", "decode"])
            mask = {"causal": Causal(), "window": Window(max(2, int(lk * 2 ** rng.uniform(-5, -1))))}.get(str(kind))
            if kind == "decode":
                lq = 1
            elif kind == "none" and rng.random() < 0.3:
                lk = int(2 ** rng.uniform(4, 12))
            work = self.gemms * heads * lq * lk * d
            if 3e4 < work < 2e9:
                return self.sample(heads, lq, lk, d, "float32" if rng.random() < 0.7 else "float64", mask)

    def example(self, shape: tuple[int, ...], dtype: str) -> Request:
        if len(shape) < 2:
            raise ShapeError(f"{self.name} needs a shape (..., heads, length, head size), got {shape}")
        if dtype not in DTYPES:
            raise DtypeError(f"dtype {dtype!r} is not one that attention computes in; use {', '.join(DTYPES)}")
        return self._request(shape, shape, dtype, None)

    def sample(self, heads: int, lq: int, lk: int, d: int, dtype: str, mask: Any) -> Request:
        """Return a request; ``mask`` is a mask, None, or "array" for a boolean operand."""
        return self._request((1, heads, lq, d), (1, heads, lk, d), dtype, mask)

    def _request(self, query: tuple[int, ...], key: tuple[int, ...], dtype: str, mask: Any) -> Request:
        q, k = (Operand(shape, dtype, "cpu", "numpy") for shape in (query, key))
        array = Operand((query[-2], key[-2]), "bool", "cpu", "numpy") if mask == "array" else None
        operands = self._complete((q, k, k, array, None))
        threads = _settings.threads(_settings.current())
        scale = 1 / math.sqrt(query[-1]) if query[-1] else 1.0
        return Request(self, operands, self._params(None if mask == "array" else mask, scale), None, threads)

    def _complete(self, operands: tuple[Operand | None, ...]) -> tuple[Operand | None, ...]:
        raise NotImplementedError

    def _params(self, mask: Mask | None, scale: float) -> Any:
        raise NotImplementedError


# Samples by dtype, in a full run and in a quick one; of the backward operation, half as many.
SAMPLES = {"float32": (48, 22), "float64": (26, 14), "float16": (14, 10)}
STRUCTURES = ("none", "none", "keys", "decode", "causal", "causal", "window", "window", "array")


def _scattered(dtype: str, quick: bool, gemms: int) -> Iterator[tuple[tuple[int, int, int, int], Any]]:
    """Yield (heads, queries, keys, head size) and a mask: what the time model interpolates between."""
    # Pairs times head size in one product: 5 to 25 ms in all on most machines, half of that in a quick run.
    most = (1 << (25 if quick else 26)) // gemms
    count = SAMPLES[dtype][quick] // (2 if gemms > 2 else 1)
    for many, long, other, size, kind in scattered(count, 5):
        structure, d = pick(kind, STRUCTURES), pick(size, (32, 64, 64, 128))
        heads, lq = round(between(many, 0.0, 6.0)), round(between(long, 4.0, 12.0))
        lk = round(between(other, 4.0, 12.0)) if structure in ("keys", "decode") else lq
        lq = 1 if structure == "decode" else lq
        limit = (4 * most if structure in ("causal", "window") else most) // d
        heads = min(heads, max(limit // (lq * lk), 1))
        if lq * lk > limit:
            lq, lk = (min(side, math.isqrt(limit)) for side in (lq, lk))
        mask: Any = {"causal": Causal(), "array": "array"}.get(structure)
        if structure == "window":
            mask = Window(max(2, round(lk * between(other, -5.0, -1.0))))
        yield (heads, lq, lk, d), mask
    if dtype == "float32" and not quick:  # what long windows cost, where most tiles are never visited
        yield (1, 4096, 4096, 64), Window(256)
        if gemms == 2:  # whose reference takes seconds for the other one
            yield (8, 4096, 4096, 64), Window(256)


class Attention(_Family):
    """``softmax(scale q k^T + bias, where kept) v``."""

    name = "attention"
    saves = True
    _exact: tuple[tuple[Any, ...], Request, list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]] | None = None

    def result(self, request: Request) -> tuple[Operand, ...]:
        q, v = request.first, request.operands[2]
        assert v is not None
        out = Operand((*q.shape[:-1], v.shape[-1]), q.dtype, q.device, q.kind)
        if not request.params.return_lse:
            return (out,)
        return out, Operand(q.shape[:-1], working(request), q.device, q.kind)

    def _complete(self, operands: tuple[Operand | None, ...]) -> tuple[Operand | None, ...]:
        return operands

    def _params(self, mask: Mask | None, scale: float) -> AttentionParams:
        return AttentionParams(mask, scale, False, None)

    def describe(self, request: Request) -> str:
        mask = "" if request.params.mask is None else f", {request.params.mask!r}"
        return f"{super().describe(request)}{mask}"

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        return _random(given(request), rng)

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        p, s = request.params, given(request).sizes
        out, lse = result if p.return_lse else (result, None)
        exact = self._exact
        if exact is None or exact[0] is not arrays or exact[1] != request:  # several kernels are checked in a row
            exact = self._exact = arrays, request, self._reference(request, arrays) if out.size else []
        got, expected = [], []
        for n, rows, values, logs in exact[2]:
            got.append(np.asarray(out).reshape(-1, s.lq, s.dv)[n, rows].ravel())
            expected.append(values.ravel())
            if lse is not None:
                got.append(np.asarray(lse).reshape(-1, s.lq)[n, rows])
                expected.append(logs)
        return relative_error(np.concatenate(got), np.concatenate(expected)) if got else 0.0

    def _reference(
        self, request: Request, arrays: tuple[Any, ...]
    ) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Return some rows of some heads: which, their output and their logsumexp in float64."""
        p, s = request.params, given(request).sizes
        heads, rng, found = _Heads(s, p.mask, arrays), np.random.default_rng(s.lq), []
        for n in np.unique(rng.integers(0, max(s.matrices, 1), 3)):
            rows = np.unique(rng.integers(0, s.lq, 32))
            found.append((int(n), rows, *forward_reference(heads.of(n, rows), p.scale)[:2]))
        return found

    def variants(self, request: Request) -> Iterable[Variant]:
        if len(request.first.shape) < 3 or request.operands[3] is not None or request.operands[4] is not None:
            return
        many = tuple(o and o._replace(shape=(BATCH, *o.shape)) for o in request.operands)
        text = f"{BATCH} such calls as one, with a leading axis"
        yield Variant(text, Request(self, many, request.params, request.tol, request.threads), BATCH)

    def narrowed(self, request: Request) -> Sequence[Narrow]:
        return narrower(self, request)

    def forward_for_gradient(self, params: Any, arrays: tuple[Any, ...], run: Any) -> tuple[Any, tuple[Any, ...]]:
        out, lse = run(self, params._replace(return_lse=True), *arrays)
        return ((out, lse) if params.return_lse else out), (out, lse)

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        query, key, value, mask, bias = arrays
        dlse = grads[1] if params.return_lse else None
        back = BackwardParams(params.mask, params.scale, bias is not None and wanted[4], params.precision)
        found = dispatcher.run(BACKWARD, back, grads[0], query, key, value, mask, bias, *saved, dlse)
        return (*found[:3], None, found[3] if back.bias_gradient else None)

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], None]:
        query, key, value = (_leading(array, has, size) for array, has in zip(arrays[:3], stacked))
        mask, bias = (_between(array, has, query.ndim) for array, has in zip(arrays[3:], stacked[3:]))
        return params, (query, key, value, mask, bias), None


def _leading(array: Any, has: bool, size: int) -> Any:
    """Return an operand with a leading axis over calls, which it may have already."""
    return array if has or array is None else array.expand(size, *array.shape)


def _between(array: Any, has: bool, ndim: int) -> Any:
    """Return a mask or a bias that has a leading axis over calls so that the other axes broadcast as before."""
    return array.reshape(array.shape[0], *[1] * (ndim - array.ndim), *array.shape[1:]) if has else array


class AttentionBackward(_Family):
    """The gradient of attention with respect to query, key, value and, where asked for, bias."""

    name = "attention_backward"
    gemms = 5
    _exact: tuple[tuple[Any, ...], Request, tuple[np.ndarray, ...]] | None = None

    def result(self, request: Request) -> tuple[Operand, ...]:
        g = given(request)
        like = [g.query, g.key, g.value]
        if request.params.bias_gradient and g.bias is not None:
            like.append(g.bias)
        return tuple(Operand(o.shape, o.dtype, request.first.device, request.first.kind) for o in like)

    def _complete(self, operands: tuple[Operand | None, ...]) -> tuple[Operand | None, ...]:
        q, v = operands[0], operands[2]
        assert q is not None
        assert v is not None
        out = q._replace(shape=(*q.shape[:-1], v.shape[-1]))
        lse = q._replace(shape=q.shape[:-1], dtype="float64" if q.dtype == "float64" else "float32")
        return (out, *operands, out, lse, None)

    def _params(self, mask: Mask | None, scale: float) -> BackwardParams:
        return BackwardParams(mask, scale, False, None)

    def arrays(self, request: Request, rng: np.random.Generator) -> tuple[Any, ...]:
        g, s, p = given(request), given(request).sizes, request.params
        inputs = _random(g, rng)
        out = np.empty((s.matrices, s.lq, s.dv), request.first.dtype)
        lse = np.empty((s.matrices, s.lq), working(request))
        heads = _Heads(s, p.mask, inputs)
        for n in range(s.matrices):
            for i in range(0, s.lq, 1024):
                rows = np.arange(i, min(i + 1024, s.lq))
                out[n, rows], lse[n, rows], _ = forward_reference(heads.of(n, rows), p.scale)
        grad = rng.standard_normal((*g.query.shape[:-1], s.dv)).astype(request.first.dtype)
        return grad, *inputs, out.reshape(grad.shape), lse.reshape(grad.shape[:-1]), None

    def error(self, request: Request, arrays: tuple[Any, ...], result: Any) -> float:
        s = given(request).sizes
        if not s.matrices * s.lq * s.lk:
            return 0.0
        group, chosen = s.heads // s.key_heads, s.lq % max(math.prod(s.batch) * s.key_heads, 1)
        exact = self._exact
        if exact is None or exact[0] is not arrays or exact[1] != request:  # several kernels are checked in a row
            exact = self._exact = arrays, request, self._reference(request, arrays, chosen, group)
        found = [np.asarray(part) for part in result[:3]]
        pairs = zip(
            (
                found[0].reshape(-1, s.lq, s.d)[chosen * group : (chosen + 1) * group],
                found[1].reshape(-1, s.lk, s.d)[chosen],
                found[2].reshape(-1, s.lk, s.dv)[chosen],
            ),
            exact[2],
        )
        # Together, because one of them alone may be zero (a query that sees a single key has no gradient).
        got, expected = (np.concatenate([part.ravel() for part in side]) for side in zip(*pairs))
        return relative_error(got, expected)

    def _reference(
        self, request: Request, arrays: tuple[Any, ...], chosen: int, group: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the gradients of one key head and of the queries that share it, in float64."""
        p, s = request.params, given(request).sizes
        heads = _Heads(s, p.mask, arrays[1:6])
        dlse = arrays[8]
        dq = np.zeros((group, s.lq, s.d))
        dk, dv = np.zeros((s.lk, s.d)), np.zeros((s.lk, s.dv))
        for n in range(group):
            at = chosen * group + n
            for i in range(0, s.lq, 1024):
                rows = np.arange(i, min(i + 1024, s.lq))
                q, k, v, *_ = one = heads.of(at, rows)
                out, _, weights = forward_reference(one, p.scale)
                grad = np.asarray(arrays[0], np.float64).reshape(-1, s.lq, s.dv)[at, rows]
                delta = (grad * out).sum(1)
                if dlse is not None:
                    delta -= np.asarray(dlse, np.float64).reshape(-1, s.lq)[at, rows]
                ds = weights * (grad @ v.T - delta[:, None]) * p.scale
                dq[n, rows] = ds @ k
                dk += ds.T @ q
                dv += weights.T @ grad
        return dq, dk, dv

    def gradient(
        self, params: Any, arrays: tuple[Any, ...], saved: tuple[Any, ...], grads: tuple[Any, ...],
        wanted: tuple[bool, ...],
    ) -> tuple[Any, ...]:  # fmt: skip
        torch = sys.modules["torch"]  # the operands are its tensors, so it is loaded
        _, _, _, _, mask, bias, _, lse, dlse = arrays
        varied = [0, 1, 2, 3, *([5] if bias is not None else []), *([8] if dlse is not None else [])]

        def dense(*given: Any) -> tuple[Any, ...]:
            now = list(arrays)
            for place, array in zip(varied, given):
                now[place] = array
            operands = (now[1], now[2], now[3], mask, now[5])
            found = _differentiable_gradient(params, operands, lse.dtype, now[0], now[8])
            return (*found[:3], found[4]) if params.bias_gradient else found[:3]

        # What was saved of the call is a function of the other operands, by way of which its share arrives.
        _, pull = torch.func.vjp(dense, *(arrays[place] for place in varied))
        found: list[Any] = [None] * len(arrays)
        for place, part in zip(varied, pull(tuple(grads))):
            found[place] = part
        return tuple(found)

    def batched(
        self, params: Any, arrays: tuple[Any, ...], stacked: tuple[bool, ...], size: int
    ) -> tuple[Any, tuple[Any, ...], Any]:
        grad, query, key, value, mask, bias, out, lse, dlse = (
            array if place in (4, 5) else _leading(array, stacked[place], size) for place, array in enumerate(arrays)
        )
        own = stacked[5]
        if bias is not None and params.bias_gradient and not own:  # each call has a gradient of its own for it
            bias, own = bias.expand(size, *bias.shape), True
        shape = None if bias is None else bias.shape
        mask, bias = _between(mask, stacked[4], query.ndim), _between(bias, own, query.ndim)

        def finish(results: list[Any]) -> list[Any]:
            return [*results[:3], results[3].reshape(shape)] if params.bias_gradient else results

        return params, (grad, query, key, value, mask, bias, out, lse, dlse), finish


FAMILY = Attention()
BACKWARD = AttentionBackward()


def _random(g: Given, rng: np.random.Generator) -> tuple[Any, ...]:
    q, k, v, bias = (
        None if o is None else rng.standard_normal(o.shape).astype(o.dtype) for o in (g.query, g.key, g.value, g.bias)
    )
    return q, k, v, None if g.mask is None else rng.random(g.mask.shape) < 0.5, bias


class _Heads:
    """One (batch, query head) pair at a time, in float64: what the references read."""

    def __init__(self, s: Sizes, mask: Mask | None, arrays: tuple[Any, ...]) -> None:
        self.s, self.mask = s, mask
        self.q, self.k, self.v = (np.asarray(a).reshape(-1, *a.shape[-2:]) for a in arrays[:3])
        full = (*s.batch, s.heads, s.lq, s.lk)
        self.array, self.bias = (None if a is None else np.broadcast_to(a, full) for a in arrays[3:5])

    def of(self, n: int, rows: np.ndarray) -> tuple[Any, ...]:
        """Return query rows, keys, values, kept pairs and bias of pair ``n``."""
        s = self.s
        kv = n // s.heads * s.key_heads + n % s.heads * s.key_heads // s.heads
        keep = np.ones((len(rows), s.lk), bool)
        if self.mask is not None:
            keep &= self.mask.keep(rows[:, None], np.arange(s.lk), s.lq, s.lk)
        at = np.unravel_index(n, (*s.batch, s.heads))
        if self.array is not None:
            keep &= self.array[at][rows]
        bias = 0.0 if self.bias is None else self.bias[at][rows].astype(np.float64)
        q, k, v = (a.astype(np.float64) for a in (self.q[n, rows], self.k[kv], self.v[kv]))
        return q, k, v, keep, bias


def forward_reference(one: tuple[Any, ...], scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return output, logsumexp and weights of one head (what ``_Heads.of`` gives) by the definition, in float64."""
    q, k, v, keep, bias = one
    scores = np.where(keep, q @ k.T * scale + bias, -np.inf)
    top = scores.max(1, initial=-np.inf, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    weights = np.exp(scores - top)
    total = weights.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[:, 0]
    weights /= np.where(total == 0, 1.0, total)
    return weights @ v, lse, weights


def _differentiable_gradient(params: Any, arrays: tuple[Any, ...], dtype: Any, grad: Any, dlse: Any) -> tuple[Any, ...]:
    """Return the gradient by dense products on tensors, which torch can differentiate again.

    Second derivatives are asked for on small problems; memory grows with the product of the lengths.
    """
    query, key, value, array, bias = arrays
    kind = kind_of(query)
    assert kind is not None
    lq, lk = query.shape[-2], key.shape[-2]
    lead = query.shape[:-2] if query.ndim > 2 else (1,)
    heads, key_heads = lead[-1], key.shape[-3] if key.ndim > 2 else 1
    grouped = (*lead[:-1], key_heads, heads // key_heads)
    q, g = (a.to(dtype).reshape(*grouped, lq, a.shape[-1]) for a in (query, grad))
    k, v = (a.to(dtype).reshape(*grouped[:-1], 1, lk, a.shape[-1]) for a in (key, value))
    scores = (q @ k.mT * params.scale).reshape(*lead, lq, lk)
    if bias is not None:
        scores = scores + bias.to(dtype)
    if params.mask is not None:
        kept = params.mask.keep(np.arange(lq)[:, None], np.arange(lk)[None, :], lq, lk)
        scores = scores.masked_fill(kind.from_numpy(~kept).to(scores.device), -math.inf)
    if array is not None:
        scores = scores.masked_fill(~array, -math.inf)
    top = scores.detach().amax(-1, keepdim=True) if lk else scores.new_zeros((*lead, lq, 1))
    weights = (scores - top.masked_fill(top == -math.inf, 0.0)).exp()
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-37)
    grouped_weights = weights.reshape(*grouped, lq, lk)
    delta = (g * (grouped_weights @ v)).sum(-1, keepdim=True)
    if dlse is not None:
        delta = delta - dlse.to(dtype).reshape(delta.shape)
    ds = grouped_weights * (g @ v.mT - delta)
    dquery = (ds @ k * params.scale).reshape(query.shape)
    dkey = (ds.mT @ q * params.scale).sum(-3).reshape(key.shape)
    dvalue = (grouped_weights.mT @ g).sum(-3).reshape(value.shape)
    dbias = None
    if bias is not None:
        shape = (*([1] * (len(lead) + 2 - bias.ndim)), *bias.shape)
        dbias = ds.reshape(*lead, lq, lk).sum_to_size(*shape).reshape(bias.shape)
    return dquery, dkey, dvalue, None, dbias
