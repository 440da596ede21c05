"""Scaled dot-product attention over any mask, with torch's names and conventions.

    out = softmax(scale * query @ key^T + bias, over the keys that the mask keeps) @ value

Masks are rules (``Causal``, ``Window``, ``Blocks``, ``Prefix``, combined by ``&``, ``|`` and ``~``), compiled arrays
(``Topology.from_mask``) or plain boolean arrays; True = keep. A query that keeps no key gives zeros, and a logsumexp of
-inf. The definition is torch's [1]_ with masks in the sense of its boolean ``attn_mask``.

References
----------
.. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import settings as _settings
from ..array import as_array, autocast, autocasting, call_key, describe
from ..dispatcher import dispatcher
from ..errors import ArgumentError, DeviceError, DtypeError, ShapeError
from ..masks import Causal
from ..topology import Mask, Topology
from ..traced import compiling, in_graph
from .attention_rule import BACKWARD, DTYPES, FAMILY, AttentionParams, Given

OPERATIONS = (FAMILY, BACKWARD)


def _check_shapes(g: Given, enable_gqa: bool) -> None:
    q, k, v = g.query.shape, g.key.shape, g.value.shape
    for name, shape in (("query", q), ("key", k), ("value", v)):
        if len(shape) < 2:
            raise ShapeError(f"{name} must have shape (..., heads, length, head size), it has {shape}")
        if len(shape) != len(q):
            raise ShapeError(f"{name} has {len(shape)} axes and query has {len(q)}; give all the same number")
        if shape[:-3] != q[:-3]:
            raise ShapeError(f"{name} has batch axes {shape[:-3]}, query has {q[:-3]}; expand them to be the same")
    if k[-1] != q[-1]:
        raise ShapeError(f"key has head size {k[-1]}, query has {q[-1]}; they must agree")
    if v[-2] != k[-2]:
        raise ShapeError(f"value has length {v[-2]}, key has {k[-2]}; they must agree")
    if len(q) > 2:
        if v[-3] != k[-3]:
            raise ShapeError(f"value has {v[-3]} heads, key has {k[-3]}; they must agree")
        if enable_gqa and (k[-3] == 0 or q[-3] % k[-3]):
            raise ShapeError(f"key has {k[-3]} heads, which does not divide query's {q[-3]}, as enable_gqa needs")
        if not enable_gqa and k[-3] != q[-3]:
            raise ShapeError(f"key has {k[-3]} heads, query has {q[-3]}; pass enable_gqa=True to share key heads")


def _check_broadcast(name: str, shape: tuple[int, ...], full: tuple[int, ...]) -> None:
    if len(shape) > len(full) or any(a not in (1, b) for a, b in zip(shape[::-1], full[::-1])):
        raise ShapeError(f"{name} has shape {shape}, which does not broadcast to {full} (..., heads, Lq, Lk)")


def _split_mask(mask: Any, is_causal: bool) -> tuple[Mask | None, Any]:
    """Return a mask argument as a rule and a boolean array, either of which may be None."""
    rule: Mask | None = Causal() if is_causal else None
    if mask is None:
        return rule, None
    if isinstance(mask, Mask):
        return (mask if rule is None else mask & rule), None
    if isinstance(mask, Topology):
        raise ArgumentError(f"mask is a {type(mask).__name__}, which is no mask of attention")
    array = as_array(mask, "mask")
    dtype = describe(array).dtype
    if dtype != "bool":
        raise DtypeError(f"mask must be boolean (True = keep), it has dtype {dtype}; one to add to the scores is bias=")
    return rule, array


def attention(
    query: Any, key: Any, value: Any, *, mask: Any = None, bias: Any = None, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False, return_lse: bool = False,
    precision: str | None = None, tol: float | None = None,
) -> Any:  # fmt: skip
    """Attend from each query to the keys that a mask keeps.

    Parameters
    ----------
    query : array_like, shape (..., heads, Lq, D)
        float16, bfloat16 (torch), float32 or float64. Leading axes may be missing: (Lq, D) is one head.
    key : array_like, shape (..., heads, Lk, D)
        Same batch axes and dtype as ``query``.
    value : array_like, shape (..., heads, Lk, Dv)
        Same batch axes, heads and length as ``key``.
    mask : Mask or array_like of bool, optional
        ``ac.Causal()``, ``ac.Window(n)``, ``ac.Blocks(...)``, ``ac.Prefix(n)``, ``ac.Topology.from_mask(...)`` or a
        combination by ``&``, ``|`` and ``~``; or a boolean array that broadcasts to (..., heads, Lq, Lk). True = keep.
    bias : array_like, optional
        Added to the scaled scores; broadcasts to (..., heads, Lq, Lk), dtype of ``query``. Has a gradient.
    is_causal : bool, default False
        Keep also only keys up to the query's own position, aligned at the top left like torch's.
    scale : float, optional
        Factor of the scores; default ``1 / sqrt(D)``.
    enable_gqa : bool, default False
        Let query head h use key head ``h * key_heads // heads``: the number of heads is a multiple of the keys'.
    return_lse : bool, default False
        Return also the natural logarithm of the sum of exponentials of each query's kept scores.
    precision : {"float32", "float64", "adaptive"}, optional
        Precision of the bulk work. Default: the operands' own; half precisions are computed in float32. "adaptive": the
        lowest with which the call still meets ``tol``, where that is predicted to be faster.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    out : array, shape (..., heads, Lq, Dv)
        Of ``query``'s kind, device and dtype. Zeros for a query that keeps nothing.
    lse : array, shape (..., heads, Lq)
        With ``return_lse`` only; float32, or float64 where the work is done in it. -inf for a query that keeps nothing.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If an argument is not acceptable; the message names it.

    Notes
    -----
    Relative L2 error at most 2e-6 in float32, gradients included. Second derivatives work for torch tensors, with
    memory that grows with Lq * Lk. The work of a tiled kernel follows the tiles of 64 x 64 pairs that the mask keeps.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> from adaptive_compute.core.operations.attention import attention
    >>> from adaptive_compute.core.masks import Window
    >>> q = k = v = np.ones((8, 256, 64), np.float32)
    >>> attention(q, k, v, mask=Window(16)).shape
    (8, 256, 64)
    """
    if type(query) is not np.ndarray and compiling():
        return in_graph(
            "attention", "attention", query, key, value, mask=mask, bias=bias, is_causal=is_causal, scale=scale,
            enable_gqa=enable_gqa, return_lse=return_lse, precision=precision, tol=tol,
        )  # fmt: skip
    if precision == "adaptive":
        with _settings.using(precision="adaptive"):
            return attention(
                query, key, value, mask=mask, bias=bias, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa,
                return_lse=return_lse, tol=tol,
            )  # fmt: skip
    if type(query) is not np.ndarray and autocasting():
        query, key, value, bias = (autocast(a, lower=True) for a in (query, key, value, bias))
    # For plain arrays, these decide everything; a call that was seen before goes straight to its plan.
    known = (call_key(query), call_key(key), call_key(value))
    seen: tuple[Any, ...] | None = None
    if None not in known and bias is None and (mask is None or isinstance(mask, Mask)):
        seen = (
            FAMILY, known, mask, is_causal, scale, type(scale), enable_gqa, return_lse, precision, tol, type(tol),
            _settings.current(),
        )  # fmt: skip
        try:
            call = dispatcher.fast.get(seen)
        except TypeError:  # an argument that cannot be hashed: the checks below name it
            call = seen = None
        if call is not None:
            try:
                return call(query, key, value, None, None)
            except (MemoryError, DeviceError):
                pass  # the whole path hands over to the next candidate
    given = query, key, value
    query, key, value = as_array(query, "query"), as_array(key, "key"), as_array(value, "value")
    rule, array = _split_mask(mask, bool(is_causal))
    bias = None if bias is None else as_array(bias, "bias")
    g = Given(*(None if a is None else describe(a) for a in (query, key, value, array, bias)))  # type: ignore[arg-type]
    if g.query.dtype not in DTYPES:
        raise DtypeError(f"query has dtype {g.query.dtype}; attention computes in {', '.join(DTYPES)}")
    for name, operand in (("key", g.key), ("value", g.value), ("bias", g.bias)):
        if operand is not None and operand.dtype != g.query.dtype:
            raise DtypeError(f"{name} has dtype {operand.dtype}, query has {g.query.dtype}; they must agree")
    _check_shapes(g, enable_gqa)
    s = g.sizes
    full = (*g.query.shape[:-1], s.lk)
    for name, operand in (("mask", g.mask), ("bias", g.bias)):
        if operand is not None:
            _check_broadcast(name, operand.shape, full)
    if rule is not None:
        rule.check(s.lq, s.lk)
    if precision is None:
        precision = _settings.current().precision
    elif precision not in _settings.PRECISIONS:
        raise ArgumentError(f"precision={precision!r} is not accepted; use {' or '.join(_settings.PRECISIONS)}")
    if precision in ("adaptive", "float64" if g.query.dtype == "float64" else "float32"):
        precision = None  # the operands' own, or the router's to choose: the same request
    tol = None if tol is None else _settings.check_tol("tol", tol)
    params = AttentionParams(rule, _scale(scale, s.d), bool(return_lse), precision)
    result = dispatcher.run(FAMILY, params, query, key, value, array, bias, tol=tol)
    if seen is not None and all(a is b for a, b in zip(given, (query, key, value))):
        dispatcher.bind(seen, FAMILY, params, (query, key, value, array, bias), tol)
    return result


def _scale(scale: Any, d: int) -> float:
    if scale is None:
        return 1 / math.sqrt(d) if d else 1.0
    try:
        number = float(scale)
    except (TypeError, ValueError):
        raise ArgumentError(f"scale must be a number, got {scale!r}") from None
    if not math.isfinite(number):
        raise ArgumentError(f"scale must be finite, got {scale!r}")
    return number
