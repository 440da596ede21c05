"""The colours of series under the three kinds of dichromacy, and against the card that they are drawn on.

Simulation: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, A Physiologically-based Model for Simulation of Color
Vision Deficiency, IEEE TVCG 15(6), 2009; its matrices for a severity of 1, on linear RGB.
"""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

from adaptive_compute.report.charts import COLOURS, DASHES, MARKERS, Styles, marker

SEEN = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
CSS = (files("adaptive_compute.report") / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)
)


def linear(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear RGB, white point D65."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(1)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a, b):
    high, low = sorted((float(XYZ[1] @ linear(c)) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("eyes", SEEN)
def test_the_first_five_colours_are_told_apart(theme, eyes):
    seen = [lab(np.array(SEEN[eyes]) @ linear(theme[f"c{i}"])) for i in range(5)]
    for (i, a), (j, b) in combinations(enumerate(seen), 2):
        assert np.linalg.norm(a - b) > 9, (i, j)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_colour_stands_out_from_the_card(theme):
    for i in range(COLOURS):
        assert contrast(theme[f"c{i}"], theme["card"]) >= 3, i
    for name in ("ink", "soft", "accent", "good", "warn", "bad"):
        assert contrast(theme[name], theme["card"]) >= 4.5, name
        assert contrast(theme[name], theme["page"]) >= 4.5, name


def test_no_series_is_told_by_its_colour_alone():
    styles = Styles()
    looks = [styles.of("fft", f"kernel{i}", device) for i in range(8) for device in ("cpu", "gpu:0", "gpu:1")]
    assert len({(look.marker, look.dash) for look in looks}) > 16
    assert len({look.marker for look in looks[::3]}) > 5
    assert looks[0] == styles.of("fft", "kernel0", "cpu")  # one look on the whole page
    assert looks[0] == styles.of("fft_backward", "kernel0", "cpu")
    assert {look.dash for look in looks} == set(DASHES[:3])
    assert len({marker(shape, 0, 0) for shape in MARKERS}) == len(MARKERS) == COLOURS
