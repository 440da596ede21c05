"""What was recorded: values without data, and the operations that lead from some to others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..core.array import Operand
from ..core.operation import Operation, Request
from ..core.settings import Settings, threads
from .views import View

# Where a value that no operation gives comes from.
SOURCES = ARGUMENT, CAPTURED, CONSTANT, NUMBER = "argument", "captured", "constant", "number"


class Source(NamedTuple):
    """Where a value comes from that the function does not compute: what kind, and its place among those."""

    kind: str
    place: int


class Node(NamedTuple):
    """One recorded call: an operation of this library, or a view (``operation`` is None)."""

    operation: Operation | None
    params: Any
    tol: float | None
    operands: tuple[int | None, ...]
    results: tuple[int, ...]
    state: Settings
    view: View | None = None

    @property
    def name(self) -> str:
        """What explain calls it."""
        return self.operation.name if self.operation is not None else str(self.view)


@dataclass
class Graph:
    """Values, the nodes between them in the order of recording, and what the function returns.

    Attributes
    ----------
    values : list of Operand
        Shape, dtype, device and kind that each value has where the function runs call by call.
    sources : dict
        Of the values that are not computed.
    nodes : list of Node
    outputs : tuple of int
        Values that the function returns, in order.
    form : object
        How they are arranged, see ``tree``.
    constant : set of int
        Values that are known never to change, so that a device may keep a copy.
    """

    values: list[Operand] = field(default_factory=list)
    sources: dict[int, Source] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    form: Any = None
    constant: set[int] = field(default_factory=set)

    def add(self, operand: Operand, source: Source | None = None) -> int:
        """Add a value and return its number."""
        self.values.append(operand)
        if source is not None:
            self.sources[len(self.values) - 1] = source
        return len(self.values) - 1

    def pruned(self) -> Graph:
        """Return the graph with equal nodes computed once, and without what no output needs."""
        same: dict[int, int] = {}  # value -> the equal one that was there first
        first: dict[Any, tuple[int, ...]] = {}
        nodes = []
        for node in self.nodes:
            node = node._replace(operands=tuple(None if v is None else same.get(v, v) for v in node.operands))
            key = node._replace(results=())
            # Outputs stay apart: who changes one of them in place must not change another.
            known = None if set(self.outputs).intersection(node.results) else first.get(key)
            if known is not None:
                same.update(zip(node.results, known))
                continue
            if not set(self.outputs).intersection(node.results):
                first[key] = node.results
            nodes.append(node)
        wanted, kept = set(self.outputs), []
        for node in reversed(nodes):
            if not wanted.isdisjoint(node.results):
                kept.append(node)
                wanted.update(v for v in node.operands if v is not None)
        return replace(self, nodes=kept[::-1])

    def request(self, node: Node, operands: tuple[Operand | None, ...] | None = None) -> Request:
        """Return a node as a request, its operands by default where they are when the function runs call by call."""
        assert node.operation is not None
        if operands is None:
            operands = tuple(None if v is None else self.values[v] for v in node.operands)
        return Request(node.operation, operands, node.params, node.tol or node.state.tol, threads(node.state))

    def is_number(self, value: int) -> bool:
        """Tell whether a value is a number that is handed over with the call, wherever that runs."""
        source = self.sources.get(value)
        return source is not None and source.kind == NUMBER

    def moved(self, node: Node) -> list[int]:
        """Return the values that a node must have on its device, each once."""
        return list(dict.fromkeys(v for v in node.operands if v is not None and not self.is_number(v)))

    def key(self) -> tuple[Any, ...]:
        """Return all that decides how the graph is placed and run; graphs with equal keys share a program."""
        nodes = tuple((n.operation and n.operation.name, *n[1:]) for n in self.nodes)
        return tuple(self.values), tuple(self.sources.items()), nodes, self.outputs, frozenset(self.constant)
