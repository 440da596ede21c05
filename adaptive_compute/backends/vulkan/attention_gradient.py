"""The gradient of attention as dispatches: of the queries first, then of keys and values, then of a bias."""

from __future__ import annotations

import math

import numpy as np

from ...core.operation import Request
from ...core.operations.attention_rule import given
from .attention_tiles import FOR_KEYS, FOR_QUERIES, LOG2_E, STORAGE, Call, chunks, mask_table, shape_for
from .gather import Sums, add_narrowing, add_sums
from .limits import Limits
from .program import Buffer, Program, spread_groups

FILL_LOCAL = 64


def gradient_program(request: Request, device: str, limits: Limits) -> Program:
    """Return the dispatches of a request's gradient."""
    call, p = Call(request), request.params
    b, s, storage = call.b, call.sizes, request.first.dtype
    results = request.operation.result(request)
    delta = b.scratch(4 * s.matrices * s.lq)
    grad, out, lse, dlse = (call.operand(n) for n in (0, 6, 7, 8))
    wanted = p.bias_gradient and call.given.bias is not None
    of_scores = _of_scores(call) if wanted else delta
    tail = [*chunks(s.d), *chunks(s.dv), float(p.scale)]

    name, shape = shape_for(device, limits, FOR_QUERIES, "attention_dq", max(s.d, s.dv), s.d)
    topology = call.topology((shape.queries, shape.keys))
    table = call.places if topology is None else b.table(mask_table(topology))
    if wanted and topology is not None:
        _fill(call, of_scores)  # tiles that the mask drops are not visited
    tiles = -(-s.lq // shape.queries)
    option = int(request.operands[8] is not None) + 2 * int(wanted)
    target = call.target(0, results[0])
    b.dispatch(
        f"attention_dq_{name}",
        [*call.shared(), call.places, table, grad, lse, delta, out, dlse, target, of_scores],
        writes=[delta, target, *([of_scores] if wanted else [])],
        groups=spread_groups(tiles * s.matrices),
        constants=[*call.constants(topology is not None, p.scale * LOG2_E, storage, option), *tail],
        sizes=call.lengths(tiles, tiles * s.matrices, topology),
    )

    name, shape = shape_for(device, limits, FOR_KEYS, "attention_dkv", max(s.d, s.dv), s.d)
    topology = call.topology((shape.queries, shape.keys))
    table = call.places if topology is None else b.table(mask_table(topology, by_keys=True))
    tiles = -(-s.lk // shape.keys)
    groups = tiles * math.prod(s.batch) * s.key_heads
    targets = [call.target(1, results[1]), call.target(2, results[2])]
    b.dispatch(
        f"attention_dkv_{name}",
        [*call.shared(), call.places, table, grad, lse, delta, *targets],
        writes=targets,
        groups=spread_groups(groups),
        constants=[*call.constants(topology is not None, p.scale * LOG2_E, storage, 0), *tail],
        sizes=call.lengths(tiles, groups, topology),
    )
    if wanted:
        _sum_over_repeats(call, of_scores)
    return call.program()


def scores_nbytes(request: Request) -> int:
    """Return the bytes of the gradient of all scores, which that of a bias is summed from."""
    s = given(request).sizes
    return 4 * s.matrices * s.lq * s.lk


def _of_scores(call: Call) -> Buffer:
    """Return a buffer for the gradient of the scores: the result itself where the bias has one value for each."""
    s, bias = call.sizes, call.given.bias
    assert bias is not None
    nbytes = 4 * s.matrices * s.lq * s.lk
    return call.b.result(3, bias.nbytes) if bias.nbytes == nbytes else call.b.scratch(nbytes)


def _fill(call: Call, target: Buffer) -> None:
    """Add the dispatch that fills a buffer with zeros: a copy of which nothing lies inside the source."""
    words = target.nbytes // 4
    constants = [FILL_LOCAL, words, 1, 1, 0, words, *[1] * 7, *[0] * 16]
    groups = spread_groups(-(-words // FILL_LOCAL))
    call.b.dispatch("strided_copy", [call.places, target], writes=[target], groups=groups, constants=constants)


def _sum_over_repeats(call: Call, scores: Buffer) -> None:
    """Add the sums of the scores' gradient over the heads, queries and keys that share an element of the bias."""
    b, s, bias = call.b, call.sizes, call.given.bias
    assert bias is not None
    if scores.role == "result":
        return
    places, slot = np.unique(call.bias.places, return_inverse=True)
    order = np.argsort(slot, kind="stable")
    starts = np.searchsorted(slot[order], np.arange(len(places) + 1))
    by_query, by_key = call.bias.query > 0 or s.lq == 1, call.bias.key > 0 or s.lk == 1
    steps: list[tuple[Sums, np.ndarray, np.ndarray]] = []
    if len(places) < s.matrices:
        longest = int(np.diff(starts).max())
        heads = Sums(1, s.matrices, len(places), s.lq * s.lk, longest, ordered=False)
        steps.append((heads, order, starts))
    if not by_query:
        queries = Sums(len(places), s.lq, 1, s.lk, s.lq)
        steps.append((queries, np.zeros(1), np.array([0, s.lq])))
    if not by_key:
        rows = len(places) * (s.lq if by_query else 1)
        keys = Sums(rows, s.lk, 1, 1, s.lk)
        steps.append((keys, np.zeros(1), np.array([0, s.lk])))
    storage = STORAGE[bias.dtype]
    made = b.result(3, bias.nbytes)
    for number, (what, entries, begins) in enumerate(steps):
        last = number == len(steps) - 1 and not storage
        target = made if last else b.scratch(4 * what.before * what.slots * what.columns)
        tables = [b.table(entries.astype(np.uint32)), b.table(begins.astype(np.uint32))]
        add_sums(b, [scores, *tables], target, "gather_sum_float", 0, what)
        scores = target
    if storage:
        add_narrowing(b, scores, made, bias.size, storage)
