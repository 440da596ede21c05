"""Element-wise neighbours as one expression, which goes over memory once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..core.errors import AdaptiveError, ExpressionError
from ..core.expression import Node as Term
from ..core.expression import make, ordered, scalar, variable
from ..core.operations.elementwise_rule import FAMILY
from .costs import Decisions
from .graph import Graph, Node

MOST_OPERANDS = 8  # arrays that one kernel reads
MOST_TERMS = 64  # operations of one expression
_HALVES = frozenset(("float16", "bfloat16"))  # rounded between two calls, and not within one


def fused(graph: Graph, decisions: Decisions) -> Graph:
    """Return a graph in which each element-wise node that feeds one other of the same shape is part of that one."""
    nodes: dict[int, Node] = dict(enumerate(graph.nodes))
    uses = Counter(v for node in graph.nodes for v in node.operands if v is not None)
    uses.update(graph.outputs)
    maker = {v: i for i, node in nodes.items() for v in node.results}
    for index in range(len(graph.nodes)):
        tried: set[int] = set()
        while True:
            node = nodes[index]
            if node.operation is not FAMILY:
                break
            before = next((maker[v] for v in node.operands if v in maker and maker[v] not in tried), None)
            if before is None:
                break
            tried.add(before)
            first = nodes[before]
            (value,) = first.results if len(first.results) == 1 else (None,)
            if (
                first.operation is FAMILY
                and value is not None
                and uses[value] == node.operands.count(value)
                and graph.values[value].shape == graph.values[node.results[0]].shape
                and graph.values[value].dtype not in _HALVES
                and (first.state, first.tol) == (node.state, node.tol)
            ):
                joined = _joined(graph, first, node, value)
                if joined is not None and _as_free(graph, decisions, first, node, joined):
                    uses.subtract(v for v in (*first.operands, *node.operands) if v is not None)
                    uses.update(v for v in joined.operands if v is not None)
                    nodes[index] = joined
                    del nodes[before]
    return replace(graph, nodes=list(nodes.values()))


def _joined(graph: Graph, first: Node, second: Node, value: int) -> Node | None:
    """Return two nodes as one, or None where the expression would be too large."""
    operands: list[int] = []
    for v in second.operands:
        for w in first.operands if v == value else (v,):
            if w is not None and w not in operands:
                operands.append(w)
    operands.sort(key=graph.is_number)  # numbers come after the arrays, which keep their order
    place = {v: i for i, v in enumerate(operands)}
    if sum(not graph.is_number(v) for v in operands) > MOST_OPERANDS:
        return None
    try:
        inner = _exchanged(first.params, {i: place[v] for i, v in enumerate(first.operands) if v is not None}, {})
        renamed = {i: place[v] for i, v in enumerate(second.operands) if v is not None and v != value}
        fed = {i: inner for i, v in enumerate(second.operands) if v == value}
        root = _exchanged(second.params, renamed, fed)
    except ExpressionError:  # nested too deeply
        return None
    if len(ordered(root)) > MOST_TERMS:
        return None
    return second._replace(params=root, operands=tuple(operands))


def _exchanged(root: Term, places: dict[int, int], fed: dict[int, Term]) -> Term:
    """Return an expression with its variables renumbered, and some of them replaced by expressions."""
    new: dict[Term, Term] = {}
    for term in ordered(root):
        if term.children:
            new[term] = make(term.op, *(new[child] for child in term.args))
        elif term.op == "var":
            new[term] = fed.get(term.args[0]) or variable(places[term.args[0]])
        elif term.op == "scalar":
            new[term] = scalar(places[term.args[0]], term.args[1])
        else:
            new[term] = term
    return new[root]


def _as_free(graph: Graph, decisions: Decisions, first: Node, second: Node, joined: Node) -> bool:
    """Tell whether every device that runs both nodes runs the joined one too."""

    def devices(node: Node) -> set[str]:
        return {c.device for c in decisions.of(graph, node).candidates}

    try:
        return devices(first) & devices(second) <= devices(joined)
    except AdaptiveError:
        return False
