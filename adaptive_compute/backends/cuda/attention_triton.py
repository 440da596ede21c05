"""Triton kernels of attention over tiles: forward, and the gradients of queries and of keys and values.

Each program owns one tile of queries (or of keys) of one head and goes through the tiles that a topology lists for it:
first those in which every pair is kept, then those that a pattern of bits or the end of the keys cuts. The softmax runs
in float32 whatever the operands are, with the maximum and the sum carried from tile to tile [1]_.

References
----------
.. [1] T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023,
   https://arxiv.org/abs/2307.08691
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# A kernel's parameters are what Triton compiles: pointers, numbers and constants, which Python's types do not describe.

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _kept(bits, pattern, rows, columns, lk, tile_m: tl.constexpr, tile_n: tl.constexpr, first):
    """Return which pairs of a tile are kept; ``rows`` and ``columns`` count from the tile's own corner."""
    inside = (first + columns < lk)[None, :] & (rows >= 0)[:, None]
    place = tl.maximum(pattern, 0).to(tl.int64) * (tile_m * tile_n // 8)
    byte = tl.load(bits + place + rows[:, None] * (tile_n // 8) + (columns // 8)[None, :]).to(tl.int32)
    bit = (byte >> (7 - columns % 8)[None, :]) & 1
    return inside & ((bit == 1) | (pattern < 0))


@triton.jit
def _row(base, place, columns, inside, SIZE: tl.constexpr, SIDE: tl.constexpr, CUT: tl.constexpr):
    """Load rows of a matrix; without a mask where every row is inside and the head fills its power of two."""
    if CUT:
        x = tl.load(
            base + place[:, None] + columns[None, :], mask=inside[:, None] & (columns < SIZE)[None, :], other=0.0
        )
    elif SIZE == SIDE:
        x = tl.load(base + place[:, None] + columns[None, :])
    else:
        x = tl.load(base + place[:, None] + columns[None, :], mask=(columns < SIZE)[None, :], other=0.0)
    return x


@triton.jit
def _binary(lse):
    """Return a logsumexp in units of log 2, +inf where a query keeps nothing."""
    return tl.where(lse == float("-inf"), float("inf"), lse * LOG2E)


@triton.jit
def _accumulate(
    q, k, v, kept, m, l, acc, scale, CUT: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """Add one tile of keys to the running softmax."""
    s = tl.dot(q, k, input_precision=PRECISION) * (scale * LOG2E)
    if CUT:
        s = tl.where(kept, s, float("-inf"))
    top = tl.maximum(m, tl.max(s, 1))
    shift = tl.where(top == float("-inf"), 0.0, top)
    p = tl.math.exp2(s - shift[:, None])
    alpha = tl.math.exp2(m - shift)
    l = l * alpha + tl.sum(p, 1)
    acc = acc * alpha[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    return top, l, acc


@triton.jit
def forward(
    Q, K, V, O, L, start, middle, keys, patterns, bits, scale, lq, lk, heads, group,
    q_head, q_row, k_head, k_row, v_head, v_row,
    D: tl.constexpr, DV: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attend from one tile of queries of one head; ``O`` is (matrices, lq, DV), ``L`` (matrices, lq), both in order."""
    tile, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    kv = n // heads * (heads // group) + n % heads // group
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    i = tile * M + rows
    d, dv = tl.arange(0, HEAD), tl.arange(0, HEAD_V)
    q = tl.load(Q + n * q_head + i[:, None] * q_row + d[None, :], mask=(i < lq)[:, None] & (d < D)[None, :], other=0.0)
    k_base = K + kv * k_head + d[:, None]
    v_base = V + kv * v_head + dv[None, :]
    m = tl.full([M], float("-inf"), tl.float32)
    l = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, HEAD_V], tl.float32)
    for at in range(tl.load(start + tile), tl.load(middle + tile)):
        j = tl.load(keys + at) * N + columns
        k = tl.load(k_base + j[None, :] * k_row, mask=(d < D)[:, None], other=0.0)
        v = tl.load(v_base + j[:, None] * v_row, mask=(dv < DV)[None, :], other=0.0)
        m, l, acc = _accumulate(q, k, v, 0, m, l, acc, scale, False, PRECISION)
    for at in range(tl.load(middle + tile), tl.load(start + tile + 1)):
        first = tl.load(keys + at) * N
        j = first + columns
        k = tl.load(k_base + j[None, :] * k_row, mask=(d < D)[:, None] & (j < lk)[None, :], other=0.0)
        v = tl.load(v_base + j[:, None] * v_row, mask=(dv < DV)[None, :] & (j < lk)[:, None], other=0.0)
        kept = _kept(bits, tl.load(patterns + at), rows, columns, lk, M, N, first)
        m, l, acc = _accumulate(q, k, v, kept, m, l, acc, scale, True, PRECISION)
    acc = acc / tl.where(l == 0.0, 1.0, l)[:, None]
    lse = tl.where(l == 0.0, float("-inf"), (m + tl.math.log2(tl.where(l == 0.0, 1.0, l))) / LOG2E)
    out = O + n * lq * DV + i[:, None].to(tl.int64) * DV + dv[None, :]
    tl.store(out, acc.to(O.dtype.element_ty), mask=(i < lq)[:, None] & (dv < DV)[None, :])
    tl.store(L + n * lq + i, lse, mask=i < lq)


@triton.jit
def _dq_step(q, g, k, v, lse, delta, kept, dq, scale, CUT: tl.constexpr, PRECISION: tl.constexpr):
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)
    p = tl.math.exp2(s - lse[:, None])
    if CUT:
        p = tl.where(kept, p, 0.0)
    ds = p * (tl.dot(g, tl.trans(v), input_precision=PRECISION) - delta[:, None])
    return dq + tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)


@triton.jit
def backward_queries(
    Q, K, V, O, G, DQ, L, DL, DELTA, start, middle, keys, patterns, bits, scale, lq, lk, heads, group,
    q_head, q_row, k_head, k_row, v_head, v_row,
    D: tl.constexpr, DV: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, LSE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradient of one tile of queries, and in ``DELTA`` what ``backward_keys`` needs of each query.

    ``LSE`` tells whether ``DL``, the gradient of the logsumexp ``L``, is given.
    """
    tile, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    kv = n // heads * (heads // group) + n % heads // group
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    i = tile * M + rows
    d, e = tl.arange(0, HEAD), tl.arange(0, HEAD_V)
    own = n * lq * DV
    wide = i.to(tl.int64)
    q = _row(Q + n * q_head, i * q_row, d, i < lq, D, HEAD, True)
    g = _row(G + own, wide * DV, e, i < lq, DV, HEAD_V, True)
    o = _row(O + own, wide * DV, e, i < lq, DV, HEAD_V, True)
    delta = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    if LSE:
        delta -= tl.load(DL + n * lq + i, mask=i < lq, other=0.0)
    tl.store(DELTA + n * lq + i, delta, mask=i < lq)
    lse = _binary(tl.load(L + n * lq + i, mask=i < lq, other=float("-inf")))
    dq = tl.zeros([M, HEAD], tl.float32)
    for at in range(tl.load(start + tile), tl.load(middle + tile)):
        j = tl.load(keys + at) * N + columns
        k = _row(K + kv * k_head, j * k_row, d, j < lk, D, HEAD, False)
        v = _row(V + kv * v_head, j * v_row, e, j < lk, DV, HEAD_V, False)
        dq = _dq_step(q, g, k, v, lse, delta, 0, dq, scale, False, PRECISION)
    for at in range(tl.load(middle + tile), tl.load(start + tile + 1)):
        first = tl.load(keys + at) * N
        j = first + columns
        k = _row(K + kv * k_head, j * k_row, d, j < lk, D, HEAD, True)
        v = _row(V + kv * v_head, j * v_row, e, j < lk, DV, HEAD_V, True)
        kept = _kept(bits, tl.load(patterns + at), rows, columns, lk, M, N, first)
        dq = _dq_step(q, g, k, v, lse, delta, kept, dq, scale, True, PRECISION)
    out = DQ + n * lq * D + wide[:, None] * D + d[None, :]
    tl.store(out, (dq * scale).to(DQ.dtype.element_ty), mask=(i < lq)[:, None] & (d < D)[None, :])


@triton.jit
def _dkv_step(k, v, q, g, lse, delta, kept, dk, dv, scale, CUT: tl.constexpr, PRECISION: tl.constexpr):
    s = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E)
    p = tl.math.exp2(s - lse[None, :])
    if CUT:
        p = tl.where(kept, p, 0.0)
    dv += tl.dot(p.to(g.dtype), g, input_precision=PRECISION)
    ds = p * (tl.dot(v, tl.trans(g), input_precision=PRECISION) - delta[None, :])
    dk += tl.dot(ds.to(q.dtype), q, input_precision=PRECISION)
    return dk, dv


@triton.jit
def backward_keys(
    Q, K, V, G, DK, DVALUE, L, DELTA, start, middle, queries, patterns, bits, scale, lq, lk, heads, group,
    q_head, q_row, k_head, k_row, v_head, v_row,
    D: tl.constexpr, DV: tl.constexpr, HEAD: tl.constexpr, HEAD_V: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradients of one tile of keys and values: over all query heads that share them."""
    tile, kv = tl.program_id(0), tl.program_id(1).to(tl.int64)
    key_heads = heads // group
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    first = tile * N
    j = first + columns
    d, e = tl.arange(0, HEAD), tl.arange(0, HEAD_V)
    k = _row(K + kv * k_head, j * k_row, d, j < lk, D, HEAD, True)
    v = _row(V + kv * v_head, j * v_row, e, j < lk, DV, HEAD_V, True)
    dk = tl.zeros([N, HEAD], tl.float32)
    dv = tl.zeros([N, HEAD_V], tl.float32)
    for member in range(group):
        n = kv // key_heads * heads + kv % key_heads * group + member
        for at in range(tl.load(start + tile), tl.load(middle + tile)):
            i = tl.load(queries + at) * M + rows
            q = _row(Q + n * q_head, i * q_row, d, i < lq, D, HEAD, False)
            g = _row(G + n * lq * DV, i.to(tl.int64) * DV, e, i < lq, DV, HEAD_V, False)
            lse = _binary(tl.load(L + n * lq + i))
            delta = tl.load(DELTA + n * lq + i)
            dk, dv = _dkv_step(k, v, q, g, lse, delta, 0, dk, dv, scale, False, PRECISION)
        for at in range(tl.load(middle + tile), tl.load(start + tile + 1)):
            i = tl.load(queries + at) * M + rows
            q = _row(Q + n * q_head, i * q_row, d, i < lq, D, HEAD, True)
            g = _row(G + n * lq * DV, i.to(tl.int64) * DV, e, i < lq, DV, HEAD_V, True)
            lse = _binary(tl.load(L + n * lq + i, mask=i < lq, other=float("-inf")))
            delta = tl.load(DELTA + n * lq + i, mask=i < lq, other=0.0)
            kept = _kept(bits, tl.load(patterns + at), rows, columns, lk, M, N, first)
            dk, dv = _dkv_step(k, v, q, g, lse, delta, tl.trans(kept), dk, dv, scale, True, PRECISION)
    wide = j.to(tl.int64)[:, None]
    inside = (j < lk)[:, None]
    out = DK + kv * lk * D + wide * D + d[None, :]
    tl.store(out, (dk * scale).to(DK.dtype.element_ty), mask=inside & (d < D)[None, :])
    out = DVALUE + kv * lk * DV + wide * DV + e[None, :]
    tl.store(out, dv.to(DVALUE.dtype.element_ty), mask=inside & (e < DV)[None, :])
