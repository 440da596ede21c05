"""A pytest plugin that gives FINUFFT's own Python tests this library in FINUFFT's place.

The tests are in FINUFFT's repository (python/finufft/test), not in its packages. With a checkout, this folder and this
repository on the path: ``python -m pytest CHECKOUT/python/finufft/test -p finufft_plugin -c /dev/null``, or
``FINUFFT_TESTS=CHECKOUT/python/finufft/test python -m pytest tests/third_party``.
"""

from __future__ import annotations

import warnings
from types import ModuleType

import finufft

from adaptive_compute import nufft
from adaptive_compute.core.dispatcher import Dispatcher
from adaptive_compute.core.errors import NoProfileWarning

served = 0


def pytest_configure(config):
    warnings.simplefilter("ignore", NoProfileWarning)
    original = Dispatcher.run

    def counting(*args, **kwargs):
        global served
        served += 1
        return original(*args, **kwargs)

    Dispatcher.run = counting


def pytest_collection_modifyitems(items):
    # By name in each module, not in sys.modules: one of our kernels is FINUFFT and imports it.
    for module in {item.module for item in items}:
        for name, value in list(vars(module).items()):
            if value is finufft:
                setattr(module, name, nufft)
            elif not isinstance(value, ModuleType) and getattr(value, "__module__", "").partition(".")[0] == "finufft":
                setattr(module, name, getattr(nufft, name))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"served {served}")
