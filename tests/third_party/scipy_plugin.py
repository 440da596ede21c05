"""A pytest plugin that makes this library the backend of ``scipy.fft`` for a whole run of SciPy's own tests.

``python -m pytest --pyargs scipy.fft.tests -p scipy_plugin`` with this folder on the path. At the end it says how many
calls of ``scipy.fft`` were run here and how many were declined, so that a run that tested SciPy alone cannot pass for
one of this library.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import adaptive_compute as ac
from adaptive_compute.core.errors import NoProfileWarning
from adaptive_compute.integrations import scipy as room

LEFT_OUT = Path(__file__).with_name("scipy_left_out.txt")
served = 0


def left_out(text):
    """Return the tests that a list names, each with its reason: ``test # reason``, or a line of its own as comment."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            test, _, reason = line.partition("#")
            found[test.strip()] = reason.strip()
    return found


def _counting(function):
    def counted(*args, **kwargs):
        global served
        result = function(*args, **kwargs)
        served += 1
        return result

    return counted


def pytest_configure(config):
    warnings.simplefilter("ignore", NoProfileWarning)
    for method, function in room._FUNCTIONS.items():
        room._FUNCTIONS[method] = _counting(function)
    ac.register_with_scipy()


def pytest_runtest_setup(item):
    ac.register_with_scipy()  # an earlier test may have made something else the backend


def pytest_collection_modifyitems(config, items):
    names = left_out(LEFT_OUT.read_text(encoding="utf-8"))
    found = {name for item in items for name in names if item.nodeid.endswith(name)}
    unknown = sorted(set(names) - found) if config.getoption("complete") else []
    if unknown:
        raise SystemExit(f"left out, but not there: {unknown}")
    dropped = [item for item in items if any(item.nodeid.endswith(name) for name in names)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in set(dropped)]


def pytest_addoption(parser):
    parser.addoption("--complete", action="store_true", help="every name in the list must be a test")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"served {served} declined {sum(ac.integrations.scipy.declined().values())}")
