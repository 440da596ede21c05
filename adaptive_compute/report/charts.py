"""Charts as inline SVG, drawn without a script: lines over sizes, points of accuracy against time, bars.

A series is told by its colour, by its marker and, for devices, by its dash, so that no one of them has to be seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

from ..core.decision import show_seconds
from .scale import Axis, decades, power, size

WIDTH, HEIGHT = 420.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 412.0, 26.0, 242.0
COLOURS = 8  # --c0 to --c7 in the style sheet
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "4 4")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus", "hexagon", "bar")


class Style(NamedTuple):
    """How a series looks."""

    colour: int
    marker: str
    dash: str


class Styles:
    """Gives each kernel one look on the whole page, in the order in which they come."""

    def __init__(self) -> None:
        self._kernels: dict[tuple[str, str], int] = {}
        self._devices: dict[str, int] = {"cpu": 0}

    def of(self, operation: str, kernel: str, device: str) -> Style:
        """Return the look of a kernel on a device."""
        family = operation.removesuffix("_backward")
        own = [place for place in self._kernels if place[0] == family]
        number = self._kernels.setdefault((family, f"{kernel}@{device}"), len(own))
        dash = self._devices.setdefault(device, len(self._devices))
        return Style(number % COLOURS, MARKERS[number % len(MARKERS)], DASHES[dash % len(DASHES)])


def name_of(kernel: str, device: str) -> str:
    """Return how a kernel is called on the page."""
    return kernel if device == "cpu" else f"{kernel} on {device}"


def marker(shape: str, x: float, y: float, r: float = 2.6) -> str:
    """Return a marker centred at a place."""
    if shape == "circle":
        return f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}"/>'
    if shape == "square":
        return f'<rect x="{x - r:g}" y="{y - r:g}" width="{2 * r:g}" height="{2 * r:g}"/>'
    d = 1.4 * r
    ways = {
        "triangle": f"M{x:g} {y - 1.3 * r:g}l{1.2 * r:g} {2.1 * r:g}h{-2.4 * r:g}z",
        "diamond": f"M{x:g} {y - d:g}l{d:g} {d:g}l{-d:g} {d:g}l{-d:g} {-d:g}z",
        "cross": f"M{x - r:g} {y - r:g}l{2 * r:g} {2 * r:g}m0 {-2 * r:g}l{-2 * r:g} {2 * r:g}",
        "plus": f"M{x:g} {y - 1.3 * r:g}v{2.6 * r:g}M{x - 1.3 * r:g} {y:g}h{2.6 * r:g}",
        "hexagon": f"M{x - 1.3 * r:g} {y:g}l{0.65 * r:g} {-1.1 * r:g}h{1.3 * r:g}l{0.65 * r:g} {1.1 * r:g}"
        f"l{-0.65 * r:g} {1.1 * r:g}h{-1.3 * r:g}z",
        "bar": f"M{x:g} {y - 1.5 * r:g}v{3 * r:g}",
    }
    return f'<path class="mark" d="{ways[shape]}"/>'


def swatch(style: Style) -> str:
    """Return a small picture of a series, for a legend."""
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    return (
        f'<svg class="swatch s{style.colour}" viewBox="0 0 26 10" aria-hidden="true">'
        f'<path class="line" d="M0 5h26"{dash}/>{marker(style.marker, 13, 5, 3)}</svg>'
    )


Ticks = Iterable[tuple[float, str]]


def frame(x: Axis, y: Axis, xticks: Ticks, yticks: Ticks, name: str) -> str:
    """Return the grid, the ticks and the name of the axis across."""
    parts = ['<g class="grid">']
    labels = ['<g class="ticks">']
    for value, text in yticks:
        parts.append(f'<path d="M{LEFT:g} {y.at(value):g}H{RIGHT:g}"/>')
        labels.append(f'<text x="{LEFT - 6:g}" y="{y.at(value) + 3.5:g}" text-anchor="end">{escape(text)}</text>')
    for value, text in xticks:
        parts.append(f'<path d="M{x.at(value):g} {TOP:g}V{BOTTOM:g}"/>')
        labels.append(f'<text x="{x.at(value):g}" y="{BOTTOM + 14:g}" text-anchor="middle">{escape(text)}</text>')
    middle = (LEFT + RIGHT) / 2
    labels.append(f'<text x="{middle:g}" y="{HEIGHT - 6:g}" text-anchor="middle" class="name">{escape(name)}</text>')
    return "".join([*parts, "</g>", *labels, "</g>"])


def svg(title: str, body: str, role: str = "group") -> str:
    """Return a picture that scales with its column and says what it shows; ``"img"`` where no part of it is focused."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="{role}" aria-label="{escape(title, quote=True)}">'
        f"{body}</svg>"
    )


def crossover(chart: dict[str, Any], styles: Styles, number: int) -> str:
    """Return the chart of one sweep: a line a kernel, transfers as a band, the router's choice as shading."""
    series, sizes = chart["series"], chart["sizes"]
    times = [t for s in series for p in s["points"] for t in (p["total_s"], p["compute_s"]) if t > 0]
    x = Axis(sizes[0] / 1.1, sizes[-1] * 1.1, LEFT, RIGHT)
    y = decades(times, BOTTOM, TOP)
    body = [_chosen(chart, styles, x)]
    body.append(frame(x, y, [(n, size(n)) for n in x.octaves()], [(t, show_seconds(t)) for t in y.ticks()],
                      chart["axis"]))  # fmt: skip
    for index, one in enumerate(series):
        style = styles.of(chart["operation"], one["kernel"], one["device"])
        body.append(f'<g class="series s{style.colour}" data-series="{number}-{index}">{_line(one, style, x, y)}</g>')
    body.append(f'<path class="cursor" d="M0 {TOP:g}V{BOTTOM:g}" hidden=""/>')
    title = f"{chart['title']} ({chart['dtype']}): predicted time against {chart['axis']}, for {len(series)} kernels"
    return f'<div class="plot" data-cursor="{number}">{svg(title, "".join(body), "img")}{_data(chart, x, number)}</div>'


def _chosen(chart: dict[str, Any], styles: Styles, x: Axis) -> str:
    """Return the shading of what the router chooses: a band over each run of sizes, with its name on top."""
    parts = ['<g class="chosen">']
    found = runs(chart["chosen"])
    # A run reaches half-way to its neighbours, on the logarithmic axis.
    edges = [x.low, *(math.sqrt(a[1] * b[0]) for a, b in pairwise(found)), x.high]
    for (_, _, kernel, device), low, high in zip(found, edges, edges[1:]):
        start, end = x.at(low), x.at(high)
        style = styles.of(chart["operation"], kernel, device)
        span = f'x="{start:g}" width="{max(end - start, 1):g}"'
        name = name_of(kernel, device)
        parts.append(f'<g class="s{style.colour}"><rect class="shade" {span} y="{TOP:g}" height="{BOTTOM - TOP:g}"/>')
        parts.append(f'<rect class="strip" {span} y="{TOP - 5:g}" height="4"/>')
        room = int((end - start - 8) / 6)
        if room >= 4:
            short = kernel if device == "cpu" else device
            shown = next((text for text in (name, short) if len(text) <= room), short[: room - 1] + "…")
            parts.append(
                f'<text x="{(start + end) / 2:g}" y="{TOP - 10:g}" text-anchor="middle">{escape(shown)}</text>'
            )
        parts.append("</g>")
    return "".join([*parts, "</g>"])


def runs(chosen: Sequence[dict[str, Any]]) -> list[tuple[int, int, str, str]]:
    """Return (first size, last size, kernel, device) of each run of sizes with one choice."""
    found: list[list[Any]] = []
    for row in chosen:
        if found and found[-1][2:] == [row["kernel"], row["device"]]:
            found[-1][1] = row["n"]
        else:
            found.append([row["n"], row["n"], row["kernel"], row["device"]])
    return [(a, b, kernel, device) for a, b, kernel, device in found]


def _line(one: dict[str, Any], style: Style, x: Axis, y: Axis) -> str:
    points = one["points"]
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    total = [(x.at(p["n"]), y.at(p["total_s"])) for p in points]
    parts = []
    if any(p["transfer_s"] for p in points):
        compute = [(x.at(p["n"]), y.at(max(p["compute_s"], 1e-12))) for p in points]
        parts.append(f'<path class="transfer" d="{_way(total)}{_way(compute[::-1]).replace("M", "L", 1)}z"/>')
        if any(abs(a[1] - b[1]) > 1.5 for a, b in zip(total, compute)):
            parts.append(f'<path class="compute" d="{_way(compute)}"/>')
    # Where nothing was measured the line is faint and its markers are hollow.
    for part, known in _split(points, total):
        parts.append(f'<path class="line{"" if known else " beyond"}" d="{_way(part)}"{dash}/>')
    for place, p in list(zip(total, points))[:: max(1, len(points) // 9)]:
        shape = marker(style.marker, *place)
        parts.append(f'<g class="hollow">{shape}</g>' if p["extrapolated"] else shape)
    return "".join(parts)


def _way(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in places)


def _split(points: Sequence[dict[str, Any]], places: Sequence[tuple[float, float]]) -> list[tuple[list[Any], bool]]:
    """Return a line in parts, each inside what was measured or beyond it; neighbours share a point."""
    parts: list[tuple[list[Any], bool]] = []
    for number in range(1, len(points)):
        known = not (points[number]["extrapolated"] or points[number - 1]["extrapolated"])
        if parts and parts[-1][1] == known:
            parts[-1][0].append(places[number])
        else:
            parts.append(([places[number - 1], places[number]], known))
    return parts or [(list(places), not points[0]["extrapolated"])]


def _data(chart: dict[str, Any], x: Axis, number: int) -> str:
    """Return what the cursor reads out at each size, the fastest first."""
    rows = []
    for n, chosen in zip(chart["sizes"], chart["chosen"]):
        here = [
            (p["total_s"], {
                "id": f"{number}-{index}", "name": name_of(s["kernel"], s["device"]),
                "total": show_seconds(p["total_s"]),
                "transfer": show_seconds(p["transfer_s"]) if p["transfer_s"] else "",
                "chosen": (s["kernel"], s["device"]) == (chosen["kernel"], chosen["device"]),
            })
            for index, s in enumerate(chart["series"]) for p in s["points"] if p["n"] == n
        ]  # fmt: skip
        rows.append({"n": f"{n:,}", "x": x.at(n), "rows": [row for _, row in sorted(here, key=lambda pair: pair[0])]})
    return f'<script type="application/json">{in_script(rows)}</script>'


def in_script(data: Any) -> str:
    """Return JSON that may stand inside a script element."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def pareto(chart: dict[str, Any], styles: Styles, number: int) -> str:
    """Return the chart of accuracy against time: a point a candidate, a line through the front."""
    points = chart["points"]
    least = min((p["error"] for p in points if p["error"] > 0), default=1e-16)
    x = decades([p["total_s"] for p in points], LEFT, RIGHT)
    y = decades([max(p["error"], least) for p in points], BOTTOM, TOP)
    body = [frame(x, y, [(t, show_seconds(t)) for t in x.ticks()], [(e, power(e)) for e in y.ticks()],
                  "predicted time")]  # fmt: skip
    front = [(x.at(p["total_s"]), y.at(max(p["error"], least))) for p in points if p["pareto"]]
    stairs = [(b[0], a[1]) for a, b in pairwise(front)]
    steps = [place for pair in zip(front, [*stairs, front[-1]]) for place in pair]
    body.append(f'<path class="front" d="{_way(steps)}"/>')
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for p in points:
        groups.setdefault((p["kernel"], p["device"]), []).append(p)
    for index, ((kernel, device), own) in enumerate(groups.items()):
        style = styles.of(chart["operation"], kernel, device)
        dots = []
        for p in own:
            place = x.at(p["total_s"]), y.at(max(p["error"], least))
            tip = f"{name_of(kernel, device)}, {p['label'] or p['precision']}"
            tip += f", {p['precision']}" if p["label"] else ""
            tip += f": {show_seconds(p['total_s'])}, error {p['error']:.1e}" + (
                " (on the front)" if p["pareto"] else ""
            )
            ring = f'<circle class="ring" cx="{place[0]:g}" cy="{place[1]:g}" r="6.5"/>' if p["pareto"] else ""
            dots.append(
                f'<g class="dot{"" if p["precision"] == "float64" else " low"}" tabindex="0" role="img" '
                f'aria-label="{escape(tip, quote=True)}" data-tip="{escape(tip, quote=True)}">{ring}'
                f"{marker(style.marker, *place, 3.4)}</g>"
            )
        body.append(f'<g class="series s{style.colour}" data-series="p{number}-{index}">{"".join(dots)}</g>')
    title = f"{chart['title']}: error against predicted time of {len(points)} ways to compute it"
    return f'<div class="plot">{svg(title, "".join(body))}</div>'


def groups_of(chart: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the series of a chart of accuracy against time, in the order in which they are drawn."""
    return list(dict.fromkeys((p["kernel"], p["device"]) for p in chart["points"]))


def links(rows: Sequence[dict[str, Any]], styles: Styles) -> str:
    """Return the chart of what each link carries, in bytes a second, against the size of a transfer."""
    lines = [(row, [(n, n / s) for n, s in row["points"]]) for row in rows if len(row["points"]) > 1]
    sizes = [n for _, points in lines for n, _ in points]
    x = Axis(min(sizes) / 1.2, max(sizes) * 1.2, LEFT, RIGHT)
    y = decades([rate for _, points in lines for _, rate in points], BOTTOM, TOP)
    body = [frame(x, y, [(n, f"{size(n)}B") for n in x.octaves(6)], [(r, _rate(r)) for r in y.ticks()],
                  "bytes in one transfer")]  # fmt: skip
    for index, (row, points) in enumerate(lines):
        style = styles.of("link", row["from"], row["to"])
        places = [(x.at(n), y.at(rate)) for n, rate in points]
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        marks = "".join(marker(style.marker, *place) for place in places)
        line = f'<path class="line" d="{_way(places)}"{dash}/>'
        body.append(f'<g class="series s{style.colour}" data-series="l-{index}">{line}{marks}</g>')  # fmt: skip
    return f'<div class="plot">{svg("Bytes a second that each link carries, by size", "".join(body), "img")}</div>'


def _rate(bytes_per_s: float) -> str:
    for unit, factor in (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3)):
        if bytes_per_s >= factor:
            return f"{bytes_per_s / factor:g} {unit}"
    return f"{bytes_per_s:g} B/s"


BINS = (1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0)


def histogram(regrets: Sequence[float]) -> tuple[str, list[tuple[str, int]]]:
    """Return the bars of how often the chosen kernel took how many times the fastest one's time, and their counts."""
    names = ["exactly 1", *(f"to {high:g}" for high in BINS[1:]), f"over {BINS[-1]:g}"]
    counts = [0] * len(names)
    for value in regrets:
        counts[next((i for i, high in enumerate(BINS) if value <= high + 1e-12), len(BINS))] += 1
    most, total = max([*counts, 1]), max(len(regrets), 1)
    width = (RIGHT - LEFT) / len(names)
    body = ['<g class="grid">' + "".join(f'<path d="M{LEFT:g} {BOTTOM - f * (BOTTOM - TOP):g}H{RIGHT:g}"/>'
                                         for f in (0.25, 0.5, 0.75, 1.0)) + "</g>"]  # fmt: skip
    for index, (name, count) in enumerate(zip(names, counts)):
        height = (BOTTOM - TOP) * count / most
        left = LEFT + index * width
        tip = f"regret {name}: {count} of {len(regrets)} requests"
        short = name.replace("exactly ", "").replace("to ", "≤").replace("over ", ">")
        middle, above = left + width / 2, BOTTOM - height - 4
        label = f'<text x="{middle:g}" y="{above:g}" text-anchor="middle">{count / total:.0%}</text>' if count else ""
        body.append(
            f'<g class="bar s{0 if index < 4 else 1 if index < 7 else 5}" tabindex="0" role="img" '
            f'aria-label="{escape(tip, quote=True)}" data-tip="{escape(tip, quote=True)}">'
            f'<rect class="back" x="{left:g}" y="{TOP:g}" width="{width:g}" height="{BOTTOM - TOP:g}"/>'
            f'<rect class="fill" x="{left + 3:g}" y="{BOTTOM - height:g}" width="{width - 6:g}" height="{height:g}"/>'
            f"{label}"
            f'<text class="tick" x="{left + width / 2:g}" y="{BOTTOM + 14:g}" text-anchor="middle">{short}</text></g>'
        )
    middle = (LEFT + RIGHT) / 2
    body.append(f'<g class="ticks"><text class="name" x="{middle:g}" y="{HEIGHT - 6:g}" text-anchor="middle">'
                "time of the chosen kernel over the fastest one's</text></g>")  # fmt: skip
    title = f"Histogram of regret over {len(regrets)} requests"
    return f'<div class="plot">{svg(title, "".join(body))}</div>', list(zip(names, counts))
