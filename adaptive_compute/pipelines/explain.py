"""How a pipeline was placed, as text and as plain data."""

from __future__ import annotations

import math
from typing import Any

from ..core.expression import show
from ..core.operations.elementwise_rule import FAMILY
from ..core.router import show_seconds
from .execute import Program
from .graph import Node


class Placement:
    """Where each operation of a pipeline runs, what is moved, and what that is predicted to take.

    Attributes
    ----------
    steps : list of dict
        In order: ``{"move": value, "from": ..., "to": ..., "bytes": ..., "seconds": ...}`` or ``{"run": operation,
        "kernel": ..., "device": ..., "seconds": ..., "result": ...}``.
    seconds : float or None
        Predicted time of the whole; None where the pipeline runs call by call or nothing was measured.
    greedy_seconds : float or None
        Predicted time of the same operations routed one by one.
    reason : str or None
        Why the pipeline runs call by call.
    where : str or None
        File and line of what could not be recorded.
    anew : str or None
        Why the function is recorded again in every call.
    exact : bool
        Whether every placement was ruled out or followed, so that none is predicted to be faster.
    """

    def __init__(
        self, name: str, program: Program | None, reason: str | None, where: str | None, anew: str | None
    ) -> None:
        self.name, self.reason, self.where, self.anew = name, reason, where, anew
        self.steps: list[dict[str, Any]] = []
        self.seconds: float | None = None
        self.greedy_seconds: float | None = None
        self.exact = True
        if program is not None:
            self.exact = program.placed.exact
            self.greedy_seconds = program.by_call
            measured = any(option.seconds for option in program.placed.options if option.kernel is not None)
            self.seconds = program.placed.seconds if measured else None
            self._draw(program)
            if not measured:
                self.steps = [{**step, "seconds": None} for step in self.steps]

    def _draw(self, program: Program) -> None:
        model, graph = program.model, program.model.graph
        for event in program.events:
            if len(event) > 1:
                v, a, b = event
                kept = v in graph.constant
                seconds = 0.0 if kept else model.edges(model.nbytes[v])[a][b]
                self.steps.append({
                    "move": self._value(program, v), "from": model.devices[a], "to": model.devices[b],
                    "bytes": model.nbytes[v], "seconds": seconds if math.isfinite(seconds) else None, "kept": kept,
                })  # fmt: skip
                continue
            node, option = graph.nodes[event[0]], program.placed.options[event[0]]
            result = graph.values[node.results[0]]
            self.steps.append({
                "run": self._operation(program, node), "kernel": option.kernel.name if option.kernel else "view",
                "device": option.device, "seconds": option.seconds,
                "result": ", ".join(self._value(program, v) for v in node.results),
                "shape": list(result.shape), "dtype": result.dtype, "round_trip": option.returns,
            })  # fmt: skip

    def _operation(self, program: Program, node: Node) -> str:
        names = [self._value(program, v) for v in node.operands if v is not None]
        if node.operation is FAMILY:
            return show(node.params, names, 6)
        return f"{self._name(node)} of {', '.join(names)}"

    def _name(self, node: Node) -> str:
        p, name = node.params, node.name
        if name == "fft":
            return f"fft {p.kind} {'forward' if p.forward else 'inverse'}, lengths {list(p.lengths)}"
        if name == "nufft":
            return f"nufft {p.dim}d{p.type}, eps {p.eps:g}"
        return f"{name} {p.function}" if name == "reduce" else name

    def _value(self, program: Program, value: int) -> str:
        source = program.model.graph.sources.get(value)
        return f"v{value}" if source is None else f"{source.kind}{source.place}"

    def as_dict(self) -> dict[str, Any]:
        """Return the placement as JSON-ready data."""
        return {
            "pipeline": self.name, "seconds": self.seconds, "greedy_seconds": self.greedy_seconds, "exact": self.exact,
            "reason": self.reason, "where": self.where, "recorded_anew": self.anew, "steps": self.steps,
        }  # fmt: skip

    def __str__(self) -> str:
        if self.reason is not None:
            place = f" ({self.where})" if self.where else ""
            return f"pipeline {self.name} runs call by call: {self.reason}{place}"
        head = f"pipeline {self.name}: {show_seconds(self.seconds)} predicted"
        if self.greedy_seconds is not None:
            head += f", {show_seconds(self.greedy_seconds)} call by call"
        rows = []
        for step in self.steps:
            if "move" in step:
                how = "kept there" if step["kept"] else show_seconds(step["seconds"])
                rows.append(("", f"{step['from']} -> {step['to']}", step["move"], f"{step['bytes']:,} bytes", how))
            else:
                shape = f"{step['dtype']}{step['shape']}"
                name = step["kernel"] + (", there and back" if step["round_trip"] else "")
                rows.append((
                    step["result"], step["device"], step["run"], f"{name}: {shape}", show_seconds(step["seconds"])
                ))  # fmt: skip
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
        lines = [head]
        lines += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        if not self.exact:
            lines.append("  found by a beam: a cheaper placement may exist")
        if self.anew is not None:
            lines.append(f"  recorded again in every call: {self.anew}")
        return "\n".join(lines)
