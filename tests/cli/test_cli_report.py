from __future__ import annotations

import json
import sys
import warnings

import pytest

from adaptive_compute.cli import main
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.operations import operations
from adaptive_compute.core.registry import registry
from tests.profiles import Took, made_up


@pytest.fixture
def report(monkeypatch, tmp_path, capsys):
    """The command, on a profile of one FFT; returns its exit code and what it printed."""
    made = made_up([Took(operations()["fft"].example((1 << n,), "complex64"), 1e-6 * n) for n in (6, 12, 20)])
    made.sections["cpu"].validators.update(registry.backend_of("cpu").validators("cpu"))
    path = tmp_path / "profiles" / "profile.json"
    made.save(path)
    monkeypatch.setattr(dispatcher, "profile_path", lambda: path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["adaptive", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    run.path = path
    return run


def test_a_page_is_written_where_it_was_asked_for(report, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = report("--output", page)
    assert (code, out) == (0, "")
    assert str(page) in err
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "pocketfft" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "profiles"]  # no part of a file beside it
    assert report()[0] == 0
    assert (tmp_path / "adaptive-report.html").exists()


def test_json_has_the_figures_of_the_page_and_writes_none(report, tmp_path):
    code, out, _ = report("--json")
    data = json.loads(out)
    assert code == 0
    assert {"machine", "devices", "links", "crossovers", "paretos", "regret", "health", "profile"} <= set(data)
    assert data["crossovers"][0]["operation"] == "fft"
    assert data["regret"]["state"] == "none"
    assert data["profile"]["path"] == str(report.path)
    assert [path.name for path in tmp_path.iterdir()] == ["profiles"]


def test_open_asks_the_browser_for_the_file(report, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("webbrowser.open", lambda url: asked.append(url))
    assert "open the file yourself" in report("--open")[2]  # what is not true was not opened
    assert asked == [(tmp_path / "adaptive-report.html").as_uri()]


@pytest.mark.parametrize(("name", "code", "told"), [(".", 2, "is a folder"), ("no/such/page.html", 1, "cannot write")])
def test_a_page_that_cannot_be_written_says_why(report, tmp_path, name, code, told):
    got, _, err = report("--output", tmp_path / name)
    assert got == code
    assert told in err
    assert len(err.splitlines()) == 1


def test_without_a_profile_the_command_that_makes_one_is_named(report):
    report.path.unlink()
    code, _, err = report()
    assert code == 1
    assert "`adaptive profile` measures one" in err


def test_a_damaged_profile_is_an_error(report):
    report.path.write_text("{")
    code, _, err = report("--json")
    assert code == 1
    assert "not JSON" in err


def test_a_section_that_does_not_hold_is_in_the_report(report):
    data = json.loads(report.path.read_text())
    data["devices"]["cpu"]["validators"]["processor"] = "another one"
    report.path.write_text(json.dumps(data))
    told = json.loads(report("--json")[1])
    assert "another one" in told["health"]["set_aside"]["cpu"]
    assert told["crossovers"] == []
