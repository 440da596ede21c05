"""The page: the figures of a report as one HTML document that needs nothing from elsewhere.

Style and script are put into the document; a policy in it forbids the browser to load anything. Every text goes through
``html.escape``: names of devices, kernels and errors come from drivers and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ..core.decision import show_seconds
from . import charts
from .charts import Styles, name_of, runs
from .scale import size

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
DASH = "-"
SECTIONS = (
    ("crossovers", "Where calls run"), ("accuracy", "Accuracy"), ("regret", "Regret"), ("machine", "Machine"),
    ("health", "Health"),
)  # fmt: skip
FACTS = 4  # of a device, that stand open


def page(data: dict[str, Any]) -> str:
    """Return the document for the figures that ``collect`` gave."""
    styles = Styles()
    room = files(__package__ or "adaptive_compute.report")
    body = "".join((
        _head(data), "<main>", _crossovers(data, styles), _accuracy(data, styles), _regret(data),
        _machine(data, styles), _health(data), "</main>", _foot(data),
    ))  # fmt: skip
    title = f"adaptive-compute on {data['machine']['processor']}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title>"
        f"<style>{(room / 'style.css').read_text(encoding='utf-8')}</style></head>"
        f"<body>{body}<script>{(room / 'page.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = ()) -> str:
    """Return a table; ``numbers`` are the columns that are aligned at their right edge."""
    right = set(numbers)
    kinds = [' class="num"' if i in right else "" for i in range(len(columns))]
    head = "".join(f'<th scope="col"{kind}>{escape(str(c))}</th>' for kind, c in zip(kinds, columns))
    lines = (
        "<tr>" + "".join(f"<td{kind}>{escape(str(cell))}</td>" for kind, cell in zip(kinds, row)) + "</tr>"
        for row in rows
    )
    body = "".join(lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, body: str) -> str:
    """Return what is there to be opened."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def legend(operation: str, series: Sequence[tuple[str, str]], prefix: str, styles: Styles) -> str:
    """Return the switches of a chart's series."""
    items = "".join(
        f'<li><button type="button" aria-pressed="true" data-for="{prefix}-{i}">'
        f"{charts.swatch(styles.of(operation, kernel, device))}{escape(name_of(kernel, device))}</button></li>"
        for i, (kernel, device) in enumerate(series)
    )
    return f'<ul class="legend" aria-label="Kernels shown">{items}</ul>'


def _tiles(tiles: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _head(data: dict[str, Any]) -> str:
    machine, profile, regret = data["machine"], data["profile"], data["regret"]
    used = [d for d in data["devices"] if d["state"] == "in use"]
    figures = regret.get("figures") or {}
    mean = figures.get("mean")
    counted = f"over {regret['count']} requests" if mean else "not measured yet"
    points, took = sum(d["points"] for d in used), f"in {profile['seconds']} s" if profile["seconds"] else ""
    tiles = [
        ("Devices measured", str(len(used)), ", ".join(d["device"] for d in used) or "none"),
        ("Ways to compute", str(sum(d["kernels"] for d in used)), "kernels, over all operations"),
        ("Points measured", f"{points:,}", took),
        ("Mean regret", f"{mean:.3f}" if mean else DASH, counted),
        ("Profile", _age(profile["age_days"]), "quick" if profile["quick"] else "full"),
    ]
    links = "".join(f'<li><a href="#{anchor}">{escape(text)}</a></li>' for anchor, text in SECTIONS)
    return (
        f"<header><h1>Where this machine runs your calls</h1>"
        f'<p class="lead">{escape(machine["processor"])}, {escape(str(machine["threads"]))} threads, '
        f"{escape(machine['system'])}. Times are predicted from what was measured here, transfers counted.</p>"
        f'{_tiles(tiles)}</header><nav aria-label="Sections"><ul>{links}</ul></nav>'
    )


def _age(days: float | None) -> str:
    if days is None:
        return "undated"
    if days < 1 / 24:
        return "just now"
    return f"{days * 24:.0f} h old" if days < 2 else f"{days:.0f} days old"


def _machine(data: dict[str, Any], styles: Styles) -> str:
    cards = []
    for device in data["devices"]:
        state = device["state"]
        kind = "good" if state == "in use" else "bad" if state.startswith("set aside") else "warn"
        software = " (a software driver)" if device["software"] else ""
        facts = list(device["facts"].items())
        more = details("More about it", _facts(facts[FACTS:])) if len(facts) > FACTS else ""
        counted = f"{device['kernels']} kernels, {device['points']:,} points" if device["points"] else "no measurements"
        cards.append(
            f'<section class="card"><h3>{escape(device["device"])}{software} '
            f'<span class="tag {kind}">{escape(state.partition(":")[0])}</span></h3>'
            f'<p class="soft">{escape(state.partition(": ")[2] or counted)}</p>{_facts(facts[:FACTS])}{more}</section>'
        )
    links = data["links"]
    if any(len(row["points"]) > 1 for row in links):
        rows = [
            (row["from"], row["to"], show_seconds(row["latency_s"]), _bandwidth(row["bytes_per_s"])) for row in links
        ]
        shown = [(row["from"], row["to"]) for row in links if len(row["points"]) > 1]
        keys = "".join(
            f'<li><button type="button" aria-pressed="true" data-for="l-{i}">'
            f"{charts.swatch(styles.of('link', a, b))}{escape(a)} → {escape(b)}</button></li>"
            for i, (a, b) in enumerate(shown)
        )
        drawn = charts.links([row for row in links if len(row["points"]) > 1], styles)
        cards.append(
            '<figure class="card"><h3>Links between host and devices</h3><p class="soft">What one transfer carries, '
            f'by its size; higher is better.</p>{drawn}<ul class="legend" aria-label="Links shown">{keys}</ul>'
            f"{details('Table of links', table(('from', 'to', 'latency', 'large transfers'), rows, (2, 3)))}</figure>"
        )
    return f'<section id="machine"><h2>Machine</h2><div class="grid2">{"".join(cards)}</div></section>'


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def _bandwidth(bytes_per_s: float) -> str:
    return "unlimited" if bytes_per_s == float("inf") else f"{bytes_per_s / 1e9:.3g} GB/s"


def _crossovers(data: dict[str, Any], styles: Styles) -> str:
    cards = []
    for number, chart in enumerate(data["crossovers"]):
        series = [(s["kernel"], s["device"]) for s in chart["series"]]
        drawn = charts.crossover(chart, styles, number)
        rows = [
            (f"{n:,}", name_of(c["kernel"], c["device"]), *(_cell(s, n) for s in chart["series"]))
            for n, c in zip(chart["sizes"], chart["chosen"])
        ]
        columns = ("n", "chosen", *(name_of(*one) for one in series))
        cards.append(
            f'<figure class="card"><h3>{escape(chart["title"])}</h3><p class="soft">{escape(chart["dtype"])}, operands '
            f"on the host</p>{drawn}{legend(chart['operation'], series, str(number), styles)}"
            f'<figcaption><p class="says">{escape(says(chart))}</p>'
            f"{details('Table of times', table(columns, rows, range(2, len(columns))))}</figcaption></figure>"
        )
    intro = (
        "Predicted time of each kernel against size, both logarithmic. The shading, and the strip on top, show which "
        "one the router chooses. Where a device is involved, the thick line is the whole call, the thin one its "
        "computing, and the band between them the transfers. Faint lines and hollow marks lie beyond what was "
        "measured. Point at a chart, or focus it and use the arrow keys, to read it out."
    )
    return (
        f'<section id="crossovers"><h2>Where calls run</h2><p class="soft">{escape(intro)}</p>'
        f'<div class="grid2">{"".join(cards) or "<p>No operation was measured.</p>"}</div></section>'
    )


def _cell(series: dict[str, Any], n: int) -> str:
    for p in series["points"]:
        if p["n"] == n:
            moving = f" ({show_seconds(p['transfer_s'])} moving)" if p["transfer_s"] else ""
            return show_seconds(p["total_s"]) + moving
    return DASH


def says(chart: dict[str, Any]) -> str:
    """Return in words what the router chooses over the sizes of a chart."""
    found = runs(chart["chosen"])
    if len(found) == 1:
        return f"{name_of(*found[0][2:])} at every size."
    parts = [f"{name_of(*found[0][2:])} up to {size(found[0][1])}"]
    parts += [f"{name_of(kernel, device)} from {size(first)}" for first, _, kernel, device in found[1:]]
    return f"{', '.join(parts[:4])}{', and so on' if len(parts) > 4 else ''}."


def _accuracy(data: dict[str, Any], styles: Styles) -> str:
    cards = []
    for number, chart in enumerate(data["paretos"]):
        drawn = charts.pareto(chart, styles, number)
        rows = [
            (name_of(p["kernel"], p["device"]), p["precision"], p["label"], show_seconds(p["total_s"]),
             f"{p['error']:.1e}", "yes" if p["pareto"] else "") for p in chart["points"]
        ]  # fmt: skip
        columns = ("kernel", "precision", "tolerance", "time", "error", "on the front")
        series = charts.groups_of(chart)
        cards.append(
            f'<figure class="card"><h3>{escape(chart["title"])}</h3><p class="soft">{escape(chart["dtype"])} operands; '
            f"filled marks compute in float64, hollow ones in less</p>{drawn}"
            f"{legend(chart['operation'], series, f'p{number}', styles)}"
            f"{details('Table of errors', table(columns, rows, (3, 4)))}</figure>"
        )
    intro = (
        "Relative error against predicted time, both logarithmic: further left is faster, further down more exact. "
        "Ringed marks are on the front: nothing measured is both faster and more exact. A looser tol= and "
        "precision='adaptive' let the router go left along it."
    )
    return (
        f'<section id="accuracy"><h2>Accuracy against time</h2><p class="soft">{escape(intro)}</p>'
        f'<div class="grid2">{"".join(cards) or "<p>No errors were measured.</p>"}</div></section>'
    )


def _regret(data: dict[str, Any]) -> str:
    regret = data["regret"]
    intro = (
        '<p class="soft">Regret is the time of the chosen kernel over the fastest one\'s, on requests of sizes that '
        "were not measured; 1 is perfect.</p>"
    )
    state = regret["state"]
    command = f"<code>{escape(regret['command'])}</code>"
    if state == "none":
        text = f"<p>No regret was measured for this profile yet. {command} measures it, and keeps the result here:<br>"
        inner = f"{text}<code>{escape(regret['path'])}</code></p>"
    elif state == "damaged":
        text = f"{regret['path']} cannot be read ({regret['reason']})."
        inner = f"<p>{escape(text)} {command} measures it again.</p>"
    else:
        inner = _regret_cards(regret, command)
    wrapped = inner if state in ("current", "earlier") else f'<div class="card">{inner}</div>'
    return f'<section id="regret"><h2>Regret</h2>{intro}{wrapped}</section>'


def _regret_cards(regret: dict[str, Any], command: str) -> str:
    figures = regret["figures"]
    names = {"mean": "mean", "median": "median", "p90": "90th percentile", "p99": "99th percentile", "worst": "worst"}
    tiles = [(text, f"{figures[name]:.3f}", "") for name, text in names.items() if figures.get(name) is not None]
    if figures.get("optimal") is not None:
        tiles.append(("chose the fastest", f"{figures['optimal']:.0%}", "of the counted requests"))
    cards = []
    if regret["regrets"]:
        drawn, counts = charts.histogram(regret["regrets"])
        cards.append(
            '<figure class="card"><h3>How far from the fastest</h3>'
            f'<p class="soft">{len(regret["regrets"])} requests where '
            f"two kernels differ by 1.2 times or more; {regret['undecided']} more where they do not</p>{drawn}"
            f"{details('Table of counts', table(('regret', 'requests'), counts, (1,)))}</figure>"
        )
    rows = [("the router", f"{figures['mean']:.3f}")] if figures.get("mean") is not None else []
    rows += [(name, f"{mean:.3f}") for name, mean in regret["policies"].items() if mean is not None]
    if len(rows) > 1:
        cards.append(
            '<div class="card"><h3>Against simple rules</h3><p class="soft">Mean regret on the same requests</p>'
            f"{table(('rule', 'mean regret'), rows, (1,))}{_by_operation(regret)}</div>"
        )
    elif regret["operations"]:
        cards.append(f'<div class="card"><h3>By operation</h3>{_by_operation(regret)}</div>')
    old = "" if regret["state"] == "current" else (
        f"<p>This judged an earlier profile; {command} judges the one in use.</p>"
    )  # fmt: skip
    return f'{old}{_tiles(tiles)}<div class="grid2">{"".join(cards)}</div>'


def _by_operation(regret: dict[str, Any]) -> str:
    rows = []
    for name, row in regret["operations"].items():
        figures = [DASH if row[k] is None else f"{row[k]:.3f}" for k in ("mean", "p90", "worst")]
        rows.append((name, f"{row['count'] or 0:.0f}", *figures))
    return table(("operation", "requests", "mean", "p90", "worst"), rows, (1, 2, 3, 4)) if rows else ""


def _health(data: dict[str, Any]) -> str:
    health, profile = data["health"], data["profile"]
    notes: list[tuple[str, str]] = []
    for device, why in health["set_aside"].items():
        notes.append(("bad", f"{device} is set aside: {why}. `adaptive profile` measures it again"))
    for w in health["wrong"]:
        what = f"{w['operation']}/{w['kernel']} on {w['device']}"
        notes.append(("bad", f"{what} was found wrong and is not used: {w['reason']}"))
    for device, why in health["broken"].items():
        notes.append(("bad", f"{device} failed while it was measured: {why}"))
    if health["left_out"]:
        notes.append(("warn", f"{health['left_out']} points were left out for want of time; a larger --budget has it"))
    for device in health["skipped"]:
        remedy = f"--backend {device.partition(':')[0]} measures it"
        notes.append(("warn", f"{device} was skipped, because it is a software driver; {remedy}"))
    if profile["quick"]:
        notes.append(("warn", "this is a quick profile; `adaptive profile` without --quick measures more sizes"))
    if not notes:
        notes.append(("good", "everything that was measured is in use"))
    words = {"bad": "look", "warn": "note", "good": "fine"}
    items = "".join(f'<li><span class="tag {kind}">{words[kind]}</span> {escape(text)}</li>' for kind, text in notes)
    names = sorted({name for own in health["validators"].values() for name in own})
    rows = [(name, *(own.get(name, DASH) for own in health["validators"].values())) for name in names]
    validators = table(("must be unchanged", *health["validators"]), rows) if rows else ""
    return (
        f'<section id="health"><h2>Profile health</h2><div class="card"><ul class="notes">{items}</ul>'
        f'<dl class="facts"><dt>measured</dt><dd>{escape(profile["measured"] or "undated")}</dd><dt>file</dt>'
        f"<dd>{escape(profile['path'])}</dd></dl>{validators}</div></section>"
    )


def _foot(data: dict[str, Any]) -> str:
    return (
        f"<footer>Made by adaptive-compute {escape(data['version'])} on {escape(data['made'])}. Times are predictions "
        "from measurements. <code>adaptive report --json</code> gives the same figures.</footer>"
    )
