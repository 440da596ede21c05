"""Attention by torch's implementations: cuDNN's, flash attention, memory-efficient attention, and dense products.

The operators are called by themselves, without torch's own choice among them: their order changes with the shape, and
the router decides by what was measured. They also give the logsumexp, from which the gradient's operators start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.masks import Causal, Window
from ...core.operation import Request
from ...core.operations.attention_rule import Given, given, working
from ...core.topology import Both, Mask
from ..base import Kernel, Plan
from . import memory
from .device import dtype_of

WAYS = ("cudnn", "flash", "efficient", "dense")
HALF = ("float16", "bfloat16")
MOST_PAIRS = 1 << 29  # pairs for which a mask is written out
MOST_SCORES = 1 << 32  # scores that dense products may hold at once: 16 GiB in float32
_OPERATORS = {
    "cudnn": ("_scaled_dot_product_cudnn_attention", "_scaled_dot_product_cudnn_attention_backward"),
    "flash": ("_flash_attention_forward", "_flash_attention_backward"),
    "efficient": ("_scaled_dot_product_efficient_attention", "_scaled_dot_product_efficient_attention_backward"),
}


def window_of(mask: Mask | None, lq: int, lk: int) -> tuple[int, int] | None:
    """Return a mask as flash attention's window, or None where it is none.

    The window is how far a query sees to the left and to the right of its own place (-1: all the way), with the last
    query at the last key.
    """
    if mask is None:
        return -1, -1
    if isinstance(mask, Causal):
        aligned = lq == lk or mask.align == "bottom-right"
        return (-1, 0) if aligned and lq <= lk else None
    if isinstance(mask, Window):
        return (mask.n - 1, mask.n - 1) if lq == lk else None
    if type(mask) is Both:
        sides = [window_of(part, lq, lk) for part in (mask.left, mask.right)]
        if None in sides:
            return None
        left, right = (_narrower(side) for side in zip(*sides))
        return left, right
    return None


def _narrower(sides: tuple[int, ...]) -> int:
    return min((side for side in sides if side >= 0), default=-1)


def positive(scale: float | None) -> bool:
    """Say whether a scale keeps -inf what it is: the libraries scale what a mask dropped too."""
    return scale is None or scale > 0


class SdpaKernel(Kernel):
    """One of torch's implementations of attention, or of its gradient."""

    native = "torch"

    def __init__(self, operation: str, way: str, device: str) -> None:
        self.operation, self.name, self.device = operation, way, device

    def supports(self, request: Request) -> bool | str:
        g, s = given(request), given(request).sizes
        if min(s.matrices, s.lq, s.lk, s.d, s.dv) == 0:
            return True if self.name == "dense" else "an axis is empty"
        reason = getattr(self, f"_{self.name}")(request, g)
        if reason is not None:
            return reason
        if self.name != "dense":
            import torch

            missing = [name for name in _OPERATORS[self.name] if not hasattr(torch.ops.aten, name)]
            if missing:
                return f"this torch has no operator {missing[0]}"
        return True

    def _halves(self, request: Request, g: Given) -> str | None:
        s = g.sizes
        if g.query.dtype not in HALF or request.params.precision:
            return "it computes in float16 and bfloat16 only"
        if g.mask is not None or g.bias is not None:
            return "it takes no mask array and no bias here"
        if request.params.mask is not None and not positive(request.params.scale):
            return f"a mask needs a positive scale here, not {request.params.scale}"
        if s.d != s.dv or s.d % 8 or s.d > (128 if self.name == "cudnn" else 256):
            most = 128 if self.name == "cudnn" else 256
            return (
                f"it needs one head size for keys and values, a multiple of 8 up to {most}; they have {s.d} and {s.dv}"
            )
        return self._gradient(request)

    def _gradient(self, request: Request) -> str | None:
        if self.operation != "attention_backward":
            return None
        if request.params.bias_gradient:
            return "it has no gradient of a bias"
        return "it has no gradient through the logsumexp" if request.operands[8] is not None else None

    def _cudnn(self, request: Request, g: Given) -> str | None:
        s, mask = g.sizes, request.params.mask
        if mask is not None and not (mask == Causal() and s.lq == s.lk):
            return "it takes no mask but a causal one of as many queries as keys"
        return self._halves(request, g)

    def _flash(self, request: Request, g: Given) -> str | None:
        if window_of(request.params.mask, g.sizes.lq, g.sizes.lk) is None:
            return "its mask must be a window around the diagonal, causal or not"
        return self._halves(request, g)

    def _efficient(self, request: Request, g: Given) -> str | None:
        s = g.sizes
        if g.query.dtype not in (*HALF, "float32") or request.params.precision == "float64":
            return "it computes in float16, bfloat16 and float32 only"
        if s.d % 4 or s.dv % 4 or (g.query.dtype in HALF and (s.d % 8 or s.dv % 8)):
            return "it needs head sizes that are multiples of 8, in float32 of 4"
        if (request.params.mask is not None or g.mask is not None) and s.lq * s.lk > MOST_PAIRS:
            return f"the mask written out would have {s.lq * s.lk} entries, more than {MOST_PAIRS}"
        return self._gradient(request)

    def _dense(self, request: Request, g: Given) -> str | None:
        s = g.sizes
        scores = s.matrices * s.lq * s.lk
        return None if scores <= MOST_SCORES else f"{scores} scores at once are more than {MOST_SCORES}"

    def plan(self, request: Request) -> Plan:
        if self.name == "dense" or min(given(request).sizes[2:]) == 0 or given(request).sizes.matrices == 0:
            from .attention_dense import DensePlan

            return DensePlan(request, self.device)
        plans: dict[str, Callable[[Request, str], Plan]] = {
            "cudnn": CudnnPlan,
            "flash": FlashPlan,
            "efficient": EfficientPlan,
        }
        return plans[self.name](request, self.device)


class _OperatorPlan(memory.GuardedPlan):
    """What the plans by operators share: the operands' layout."""

    def __init__(self, request: Request, device: str) -> None:
        import torch

        backward = request.operation.name == "attention_backward"
        super().__init__(self._backward if backward else self._forward)
        self.given = given(request)
        self.sizes = self.given.sizes
        self.group = self.sizes.heads // self.sizes.key_heads
        operands = (self.given.query, self.given.key, self.given.value)
        # Known before any call: no operand needs another shape, which every call would look at else.
        self.plain = self.group == 1 and all(len(o.shape) == 4 for o in operands)
        self.scale, self.mask = request.params.scale, request.params.mask
        self.lse = not backward and request.params.return_lse
        # torch's own functions where there are some: they read their arguments faster than the operators do.
        names = _OPERATORS[self.way]
        self.operators = [getattr(torch, n, None) or getattr(torch.ops.aten, n).default for n in names]

    way = ""

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        raise NotImplementedError

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        raise NotImplementedError

    def _four(self, x: Any, repeat: bool = True) -> Any:
        """Return an operand as (batch, heads, length, size), by the operators' rules with a contiguous last axis."""
        if self.plain:
            return x if x.stride(-1) == 1 else x.contiguous()
        if x.ndim != 4:
            x = x.reshape(-1, *x.shape[-3:]) if x.ndim > 2 else x[None, None]
        if x.stride(-1) != 1:
            x = x.contiguous()
        return x.repeat_interleave(self.group, 1) if repeat and x.shape[1] != self.sizes.heads else x

    def _shared(self, x: Any) -> Any:
        """Add up the gradients of a key head that several query heads share."""
        if self.group == 1 or x.shape[1] == self.sizes.key_heads:
            return x
        return x.reshape(x.shape[0], self.sizes.key_heads, self.group, *x.shape[2:]).sum(2)

    def _results(self, out: Any, lse: Any, query: Any) -> Any:
        if not self.plain and query.ndim != 4:
            out = out.reshape(*query.shape[:-1], self.sizes.dv)
        return (out, lse.reshape(query.shape[:-1])) if self.lse else out


class CudnnPlan(_OperatorPlan):
    """cuDNN's fused attention."""

    way = "cudnn"

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        q, k, v = self._four(query), self._four(key), self._four(value)
        found = self.operators[0](q, k, v, None, self.lse, 0.0, self.mask is not None, False, scale=self.scale)
        return self._results(found[0], found[1], query)

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        import torch

        s = self.sizes
        g, q, k, v, o = (self._four(x) for x in (grad, query, key, value, out))
        seed = torch.zeros((), dtype=torch.int64, device=query.device)
        found = self.operators[1](
            g, q, k, v, o, lse.reshape(-1, s.heads, s.lq, 1).contiguous(), seed, seed, None, None, None, s.lq, s.lk,
            0.0, self.mask is not None, scale=self.scale,
        )  # fmt: skip
        dq, dk, dv = found[0], self._shared(found[1]), self._shared(found[2])
        return tuple(d.reshape(x.shape) for d, x in zip((dq, dk, dv), (query, key, value)))


class FlashPlan(_OperatorPlan):
    """Flash attention, which visits only the tiles that a window around the diagonal touches."""

    way = "flash"

    def __init__(self, request: Request, device: str) -> None:
        import torch

        super().__init__(request, device)
        window = window_of(self.mask, self.sizes.lq, self.sizes.lk)
        assert window is not None
        left, right = window
        self.causal = (left, right) == (-1, 0)
        self.windows: dict[str, int] = {}
        if not self.causal and window != (-1, -1):
            self.windows = {"window_size_left": left, "window_size_right": right}
        # The same without a window, and called in less time.
        self.whole = None if self.windows else getattr(torch, "_scaled_dot_product_flash_attention", None)

    def _lengths_first(self, x: Any) -> Any:
        return self._four(x, repeat=False).transpose(1, 2)

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        s = self.sizes
        if self.whole is not None:
            q, k, v = self._four(query, False), self._four(key, False), self._four(value, False)
            found = self.whole(q, k, v, 0.0, self.causal, scale=self.scale)
            return self._results(found[0], found[1], query)
        q, k, v = (self._lengths_first(x) for x in (query, key, value))
        found = self.operators[0](
            q, k, v, None, None, s.lq, s.lk, 0.0, self.causal, False, scale=self.scale, **self.windows
        )
        return self._results(found[0].transpose(1, 2), found[1], query)

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        import torch

        s = self.sizes
        g, q, k, v, o = (self._lengths_first(x) for x in (grad, query, key, value, out))
        state = torch.zeros(2, dtype=torch.uint64, device=query.device)
        found = self.operators[1](
            g, q, k, v, o, lse.reshape(-1, s.heads, s.lq), None, None, s.lq, s.lk, 0.0, self.causal, state, state[:1],
            scale=self.scale, **self.windows,
        )  # fmt: skip
        dq, dk, dv = (d.transpose(1, 2) for d in found)
        return tuple(d.reshape(x.shape) for d, x in zip((dq, self._shared(dk), self._shared(dv)), (query, key, value)))


class EfficientPlan(_OperatorPlan):
    """Memory-efficient attention; masks and biases are written out."""

    way = "efficient"

    def __init__(self, request: Request, device: str) -> None:
        super().__init__(request, device)
        self.dtype = dtype_of(request.params.precision or self.given.query.dtype)
        self.causal = (
            self.mask == Causal() and self.given.mask is None and self.given.bias is None and positive(self.scale)
        )
        # The operator for gradients in half precision gave NaN on an H100 (torch 2.11), with scores added in every run
        # and without in some, where lengths are no whole tiles; the one in float32 is right.
        added = (
            self.given.mask is not None or self.given.bias is not None or (self.mask is not None and not self.causal)
        )
        if request.operation.name == "attention_backward" and (added or self.sizes.lq % 64 or self.sizes.lk % 64):
            self.dtype = dtype_of("float32")
        self.kept: Any = None
        if self.mask is not None and not self.causal:
            self.kept = written_out(self.mask, self.sizes.lq, self.sizes.lk, device)
            self.nbytes = self.kept.nbytes

    def _scores_bias(self, mask: Any, bias: Any) -> tuple[Any, Any]:
        """Return all that is added to the scores as one array with aligned rows, and which queries keep nothing."""
        import torch

        s = self.sizes
        if self.kept is not None:
            mask = self.kept if mask is None else mask & self.kept
        if mask is None and bias is None:
            return None, None
        shape = torch.broadcast_shapes((1, 1), *(x.shape for x in (mask, bias) if x is not None))
        device = (mask if mask is not None else bias).device
        padded = torch.zeros((*shape[:-1], -(-s.lk // 8) * 8), dtype=self.dtype, device=device)  # rows are aligned
        full = padded[..., : s.lk]
        if bias is not None:
            full.add_(bias.to(self.dtype))
        if mask is not None:
            full.masked_fill_(~mask, -math.inf)
        nothing = (full == -math.inf).all(-1)
        whole = (*s.batch, s.heads, s.lq, padded.shape[-1])
        return padded.expand(whole).reshape(-1, *whole[-3:])[..., : s.lk], nothing

    def _forward(self, query: Any, key: Any, value: Any, mask: Any, bias: Any) -> Any:
        added, nothing = self._scores_bias(mask, bias)
        q, k, v = (self._four(x.to(self.dtype)) for x in (query, key, value))
        found = self.operators[0](q, k, v, added, self.lse, 0.0, self.causal, scale=self.scale)
        out = found[0].reshape(*query.shape[:-1], self.sizes.dv).to(query.dtype)
        if nothing is not None:
            out = out.masked_fill(nothing.expand(query.shape[:-1])[..., None], 0)
        if not self.lse:
            return out
        lse = found[1][..., : self.sizes.lq].reshape(query.shape[:-1])
        if nothing is not None:
            lse = lse.masked_fill(nothing.expand(lse.shape), -math.inf)
        return out, lse.contiguous()

    def _backward(
        self, grad: Any, query: Any, key: Any, value: Any, mask: Any, bias: Any, out: Any, lse: Any, dlse: Any
    ) -> Any:
        import torch

        s = self.sizes
        added, nothing = self._scores_bias(mask, bias)
        g, q, k, v, o = (self._four(x.to(self.dtype)) for x in (grad, query, key, value, out))
        if nothing is not None:  # such a row has no part in any gradient
            g = g.masked_fill(nothing.expand(*s.batch, s.heads, s.lq).reshape(-1, s.heads, s.lq, 1), 0)
        rows = lse.to(torch.float32).masked_fill(lse == -math.inf, math.inf).reshape(-1, s.heads, s.lq)
        rows = torch.nn.functional.pad(rows, (0, -s.lq % 32), value=math.inf).contiguous()
        seed = torch.zeros((), dtype=torch.int64, device=query.device)
        found = self.operators[1](
            g, q, k, v, added, o, rows, seed, seed, 0.0, [True, True, True, False], self.causal, scale=self.scale
        )
        dq, dk, dv = found[0], self._shared(found[1]), self._shared(found[2])
        return tuple(d.reshape(x.shape).to(x.dtype) for d, x in zip((dq, dk, dv), (query, key, value)))


def written_out(mask: Mask, lq: int, lk: int, device: str) -> Any:
    """Return a mask as a boolean tensor on a device."""
    import torch

    kept = mask.keep(np.arange(lq)[:, None], np.arange(lk)[None, :], lq, lk)
    return torch.from_numpy(np.array(np.broadcast_to(kept, (lq, lk)))).to(device)


def bulk(request: Request) -> Any:
    """Return the dtype of the bulk work as torch's."""
    return dtype_of(working(request))
