"""The page as a browser shows it: it renders, says the same as the figures, and can be read by everyone."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from adaptive_compute.report.page import page as document
from tests.report.conftest import EVIL

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Tree(HTMLParser):
    """Checks that what is opened is closed, and keeps what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "data", "action") and not (value or "").startswith(("#", "data:")):
                self.loads.append((tag, name, value))
            assert not name.startswith("on"), (tag, name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(data):
    return document(data)


def test_the_document_is_whole_and_loads_nothing(text):
    tree = Tree()
    tree.feed(text)
    tree.close()
    assert tree.open == []
    assert tree.loads == []
    assert "img" not in tree.tags  # every text from outside is escaped
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text


def test_every_text_from_outside_is_escaped(text):
    assert EVIL not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#x27;&lt;/script&gt;" in text


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip(
        "playwright.sync_api", reason="the browser is driven by playwright: pip install playwright"
    )
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium was found: apt-get install chromium, or name it in CHROMIUM")
    with sync.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def views(browser, file):
    """Pages by width and colour scheme, opened once each, with what the console and the network complain of."""
    opened = {}

    def view_of(width, scheme):
        if (width, scheme) not in opened:
            view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            view.set_default_timeout(5000)
            complaints = []
            view.on("console", lambda message: complaints.append(message.text))
            view.on("pageerror", lambda error: complaints.append(str(error)))
            view.on("request", lambda asked: None if asked.url == file.as_uri() else complaints.append(asked.url))
            view.goto(file.as_uri())
            opened[width, scheme] = view, complaints
        return opened[width, scheme]

    return view_of


@pytest.fixture
def shown(views, request):
    """The page as it is shown; fails on anything that the console complains of, and on any request."""
    view, complaints = views(*getattr(request, "param", (1280, "light")))
    yield view
    view.mouse.move(0, 0)
    assert complaints == []


def test_charts_have_a_series_for_each_kernel(shown, data):
    charts = shown.locator("#crossovers figure")
    assert charts.count() == len(data["crossovers"])
    for number, chart in enumerate(data["crossovers"]):
        figure = charts.nth(number)
        assert figure.locator("g.series").count() == len(chart["series"])
        assert figure.locator(".legend button").count() == len(chart["series"])
        assert figure.locator("tbody tr").count() == len(chart["sizes"])
        behind = figure.locator("g.series path.transfer").count()
        assert behind == sum(s["device"] != "cpu" for s in chart["series"])
        boxes = [box.bounding_box() for box in figure.locator("g.series").all()]
        assert all(box["width"] > 20 and box["height"] > 2 for box in boxes)
    for number, chart in enumerate(data["paretos"]):
        figure = shown.locator("#accuracy figure").nth(number)
        assert figure.locator(".dot").count() == len(chart["points"])
        assert figure.locator(".dot .ring").count() == sum(p["pareto"] for p in chart["points"])
    assert shown.locator("#regret .bar").count() == 10
    assert shown.locator("#machine g.series").count() == 2


def test_the_choice_is_shaded_where_it_is_made(shown, data):
    strips = shown.locator("#crossovers figure").nth(0).locator(".chosen .strip")
    chosen = [row["device"] for row in data["crossovers"][0]["chosen"]]
    changes = sum(a != b for a, b in pairwise(chosen))
    assert strips.count() == changes + 1 >= 2
    boxes = [strip.bounding_box() for strip in strips.all()]
    assert all(a["x"] + a["width"] <= b["x"] + 1 for a, b in pairwise(boxes))


@pytest.mark.parametrize("shown", [(375, "light"), (320, "dark"), (1280, "light")], indirect=True)
def test_nothing_overflows_sideways(shown):
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("shown", [(375, "light")], indirect=True)
def test_text_in_charts_is_large_enough_on_a_phone(shown):
    sizes = shown.evaluate("[...document.querySelectorAll('.chart text')].map((t) => t.getBoundingClientRect().height)")
    assert min(sizes) > 9


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a)); };
  const backOf = (element) => {
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(parse(getComputedStyle(e).backgroundColor));
    return chain.reduce((under, c) => (c.length ? over(c, under) : under), [255, 255, 255]);
  };
  const light = (c) => {
    const straight = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.slice(0, 3).map((v) => straight(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    if (!walk.currentNode.data.trim()) continue;
    const style = getComputedStyle(element);
    const ink = over(parse(element instanceof SVGElement ? style.fill : style.color), backOf(element));
    const [a, b] = [light(ink), light(backOf(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walk.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("shown", [(1280, "light"), (1280, "dark")], indirect=True)
def test_text_stands_out_from_its_background(shown):
    shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    ratios = shown.evaluate(CONTRAST)
    assert len(ratios) > 200
    assert min(ratios)[0] >= 4.5, min(ratios)
    assert (shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 26)") == (
        shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    )


def test_the_keyboard_reaches_the_switches_and_works_them(shown):
    shown.evaluate("document.body.focus()")
    focused = []
    for _ in range(60):
        shown.keyboard.press("Tab")
        focused.append(shown.evaluate("document.activeElement.dataset.for || document.activeElement.tagName"))
        if focused[-1] == "0-1":
            break
    assert focused[-1] == "0-1", focused
    line = shown.locator('g[data-series="0-1"]')
    assert line.is_visible()
    shown.keyboard.press("Enter")
    assert not line.is_visible()
    assert shown.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    shown.keyboard.press(" ")
    assert line.is_visible()
    outline = shown.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_arrow_keys_read_a_chart_out(shown, data):
    plot = shown.locator("#crossovers [data-cursor]").first
    plot.focus()
    shown.keyboard.press("Home")
    tip = plot.locator(".tip")
    assert tip.is_visible()
    assert tip.inner_text().startswith(f"{data['crossovers'][0]['sizes'][0]:,}")
    shown.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith(f"{data['crossovers'][0]['sizes'][1]:,}")
    assert "chosen" in plot.get_attribute("aria-valuetext")
    assert plot.get_attribute("aria-valuenow") == "1"
    shown.keyboard.press("Escape")
    assert not tip.is_visible()


def test_pointer_and_focus_show_the_same_tip(shown):
    bar = shown.locator("#regret .bar").nth(2)
    bar.hover()
    tip = shown.locator("#regret .plot .tip").first
    hovered = tip.inner_text()
    assert "requests" in hovered
    shown.mouse.move(0, 0)
    assert not tip.is_visible()
    bar.focus()
    assert tip.inner_text() == hovered
    shown.locator("#crossovers .chart").first.hover()
    assert shown.locator("#crossovers .tip").first.is_visible()


def test_without_a_regret_result_the_command_is_given(browser, data, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(document({**data, "regret": {"state": "none", "path": "/x/y", "command": "adaptive bench regret"}}))
    view = browser.new_page()
    view.goto(path.as_uri())
    assert "adaptive bench regret" in view.locator("#regret").inner_text()
    view.close()
