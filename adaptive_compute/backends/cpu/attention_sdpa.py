"""Attention by torch.nn.functional.scaled_dot_product_attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core.masks import Causal
from ...core.operation import Request
from ...core.operations.attention_rule import given
from ..base import Kernel, Plan
from .device import needs, torch_threads

DENSE_LIMIT = 1 << 26  # pairs for which a mask is written out for SDPA: 64 MiB of booleans


class SdpaKernel(Kernel):
    """torch.nn.functional.scaled_dot_product_attention: flash attention on float operands, masks written out in full.

    The logsumexp and the gradient come from the operators that it is made of; where a torch has them no more, those
    requests are left to the tiles.
    """

    name = "sdpa"
    native = "torch"

    def __init__(self, operation: str) -> None:
        self.operation = operation

    def supports(self, request: Request) -> bool | str:
        reason = needs("torch")
        if reason is not True:
            return reason
        g, p, s = given(request), request.params, given(request).sizes
        backward = self.operation == "attention_backward"
        masked = (p.mask is not None and p.mask != Causal()) or g.bias is not None
        if masked and s.lq * s.lk > DENSE_LIMIT:
            return f"the mask written out would have {s.lq * s.lk} entries, more than {DENSE_LIMIT}"
        if min(s.matrices, s.lq, s.lk, s.d, s.dv) == 0:
            return "an axis is empty"
        if backward or p.return_lse:
            if _flash() is None:
                return "this torch has no flash attention operator for the CPU that gives the logsumexp"
            if s.d != s.dv:
                return "flash attention needs keys and values of one head size"
            if backward and p.bias_gradient:
                return "flash attention has no gradient of a bias"
            if backward and request.operands[8] is not None:
                return "flash attention has no gradient through the logsumexp"
        return True

    def plan(self, request: Request) -> Plan:
        return _SdpaPlan(request)


def _flash() -> Any:
    """Return torch's forward and backward flash operators for the CPU, or None where this torch lacks one."""
    import torch

    names = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
    found = [getattr(torch.ops.aten, name, None) for name in names]
    return None if None in found else found


class _SdpaPlan(Plan):
    def __init__(self, request: Request) -> None:
        import torch

        self.request, self.given = request, given(request)
        p, s = request.params, self.given.sizes
        self.sizes, self.group = s, s.heads // s.key_heads
        self.dtype = getattr(torch, p.precision) if p.precision else getattr(torch, request.first.dtype)
        plain = self.given.mask is None and self.given.bias is None
        # torch scales what it dropped too: with a scale of 0 or less -inf becomes NaN, so the mask is written out.
        self.causal = plain and p.mask == Causal() and (p.scale is None or p.scale > 0)
        self.kept: Any = None
        if p.mask is not None and not self.causal:
            kept = p.mask.keep(np.arange(s.lq)[:, None], np.arange(s.lk)[None, :], s.lq, s.lk)
            self.kept = torch.from_numpy(np.array(np.broadcast_to(kept, (s.lq, s.lk))))
            self.nbytes = self.kept.nbytes
        self.run = self._backward if request.operation.name == "attention_backward" else self._forward  # type: ignore[method-assign]

    def _mask(self, mask: Any, bias: Any) -> Any:
        """Return everything that is asked of the scores as the one mask that SDPA takes."""
        if self.kept is not None:
            mask = self.kept if mask is None else mask & self.kept
        if bias is None:
            return mask
        bias = bias.to(self.dtype)
        return bias if mask is None else bias.masked_fill(~mask, -math.inf)

    def _heads(self, array: Any) -> Any:
        """Return an operand as (B, heads, length, size) with as many heads as the query has."""
        array = array.to(self.dtype)
        array = array.reshape(-1, *array.shape[-3:]) if array.ndim > 2 else array[None, None]
        return array.repeat_interleave(self.group, 1) if array.shape[1] != self.sizes.heads else array

    def _full(self, mask: Any) -> Any:
        """Return the mask with four axes, as the operators want it, floating so that both read it."""
        import torch

        if mask is None:
            return None
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=self.dtype).masked_fill_(~mask, -math.inf)
        s = self.sizes
        return mask.expand(*s.batch, s.heads, s.lq, s.lk).reshape(-1, s.heads, s.lq, s.lk)

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        import torch

        mask = self._mask(mask, bias)
        q, k, v = (self._heads(a) for a in (query, key, value))
        p = self.request.params
        with torch_threads(self.request.threads), torch.no_grad():
            if p.return_lse:
                out, lse = _flash()[0](q, k, v, 0.0, self.causal, attn_mask=self._full(mask), scale=p.scale)
                return self._finish(out, lse, mask, query)
            if mask is not None and mask.ndim > 2:
                mask = self._full(mask) if len(self.sizes.batch) != 1 else mask
            out = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=self.causal, scale=p.scale
            )
        return out.reshape(*query.shape[:-1], self.sizes.dv).to(query.dtype)

    def _finish(self, out: Any, lse: Any, mask: Any, query: Any) -> Any:
        """Give rows that keep nothing a logsumexp of -inf, where the operator leaves 0."""
        lse = lse.reshape(query.shape[:-1]).contiguous()
        if mask is not None:
            nothing = (mask == -math.inf).all(-1) if mask.is_floating_point() else ~mask.any(-1)
            lse.masked_fill_(nothing.expand(lse.shape), -math.inf)
        return out.reshape(*query.shape[:-1], self.sizes.dv).to(query.dtype), lse

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        import torch

        s, p = self.sizes, self.request.params
        full = self._full(self._mask(mask, bias))
        q, k, v, grad, out = (self._heads(a) for a in (query, key, value, grad, out))
        lse = lse.masked_fill(lse == -math.inf, 0.0).reshape(-1, s.heads, s.lq)
        with torch_threads(self.request.threads), torch.no_grad():
            dq, dk, dv = _flash()[1](grad, q, k, v, out, lse, 0.0, self.causal, attn_mask=full, scale=p.scale)
        if self.group > 1:
            dk, dv = (a.reshape(-1, s.key_heads, self.group, *a.shape[-2:]).sum(2) for a in (dk, dv))
        return tuple(a.reshape(o.shape).to(o.dtype) for a, o in zip((dq, dk, dv), (query, key, value)))
