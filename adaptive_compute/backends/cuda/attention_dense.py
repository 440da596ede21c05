"""Attention by dense products, by the definition: any mask, bias, dtype and gradient, in float32 or float64.

Holds the scores of all heads at once; what the fused implementations are checked against, and what is left where none
of them takes a request.
"""

from __future__ import annotations

import math
from typing import Any

from ...core.operation import Request
from ...core.operations.attention_rule import given
from . import memory
from .attention_sdpa import bulk, written_out


class DensePlan(memory.GuardedPlan):
    """Attention or its gradient by two or five products of whole matrices."""

    def __init__(self, request: Request, device: str) -> None:
        backward = request.operation.name == "attention_backward"
        super().__init__(self._backward if backward else self._forward)
        self.params, self.sizes, self.dtype = request.params, given(request).sizes, bulk(request)
        self.kept: Any = None
        s = self.sizes
        if request.params.mask is not None:
            self.kept = written_out(request.params.mask, s.lq, s.lk, device)
            self.nbytes = self.kept.nbytes

    def _grouped(self, x: Any, heads: int) -> Any:
        """Return an operand as (batch, key heads, query heads of each or 1, length, size)."""
        s = self.sizes
        return x.to(self.dtype).reshape(math.prod(s.batch), s.key_heads, heads // s.key_heads, *x.shape[-2:])

    def _scores(self, query: Any, key: Any, mask: Any, bias: Any) -> Any:
        s = self.sizes
        scores = (self._grouped(query, s.heads) @ self._grouped(key, s.key_heads).mT).mul_(self.params.scale)
        scores = scores.reshape(*s.batch, s.heads, s.lq, s.lk)
        if bias is not None:
            scores = scores + bias.to(self.dtype)
        if self.kept is not None:
            scores = scores.masked_fill(~self.kept, -math.inf)
        return scores if mask is None else scores.masked_fill(~mask, -math.inf)

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        s = self.sizes
        shape = (*query.shape[:-1], s.dv)
        if not (s.matrices and s.lq and s.lk):
            out, lse = query.new_zeros(shape), query.new_full(query.shape[:-1], -math.inf, dtype=self.dtype)
            return (out, lse) if self.params.return_lse else out
        scores = self._scores(query, key, mask, bias)
        lse = scores.logsumexp(-1)
        weights = (scores - lse.masked_fill(lse == -math.inf, 0)[..., None]).exp_()
        out = self._grouped(weights, s.heads) @ self._grouped(value, s.key_heads)
        out = out.reshape(shape).to(query.dtype)
        return (out, lse.reshape(query.shape[:-1])) if self.params.return_lse else out

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        s = self.sizes
        if not (s.matrices and s.lq and s.lk):
            found = [x.new_zeros(x.shape) for x in (query, key, value)]
            return tuple([*found, bias.new_zeros(bias.shape)] if self.params.bias_gradient else found)
        scores = self._scores(query, key, mask, bias)
        rows = lse.to(self.dtype).reshape(*s.batch, s.heads, s.lq, 1)
        weights = (scores - rows.masked_fill(rows == -math.inf, 0)).exp_()
        g, q = self._grouped(grad, s.heads), self._grouped(query, s.heads)
        k, v = self._grouped(key, s.key_heads), self._grouped(value, s.key_heads)
        delta = (grad.to(self.dtype) * out.to(self.dtype)).sum(-1, keepdim=True)
        if dlse is not None:
            delta = delta - dlse.to(self.dtype)[..., None]
        w = self._grouped(weights, s.heads)
        ds = w * (g @ v.mT - self._grouped(delta, s.heads))
        dq = (ds @ k).mul_(self.params.scale)
        dk = (ds.mT @ q).sum(2).mul_(self.params.scale)
        dv = (w.mT @ g).sum(2)
        results = [d.reshape(x.shape).to(x.dtype) for d, x in zip((dq, dk, dv), (query, key, value))]
        if self.params.bias_gradient:
            full = ds.reshape(*s.batch, s.heads, s.lq, s.lk)
            shape = (*([1] * (full.ndim - bias.ndim)), *bias.shape)
            results.append(full.sum_to_size(*shape).reshape(bias.shape).to(bias.dtype))
        return tuple(results)
