"""The profile's error model against results: what runs under a ``tol`` is as exact as was asked, on a real profile.

Requests are of sizes that the profile did not measure. Errors are the operations' own, against float64 references.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core import settings as _settings
from adaptive_compute.core.dispatcher import dispatcher
from adaptive_compute.core.errors import PrecisionWarning, ToleranceError
from adaptive_compute.core.measure import measure
from adaptive_compute.core.operations import operations
from adaptive_compute.core.registry import registry

OPERATIONS = ("fft", "reduce", "scatter_add", "attention", "elementwise")
TOLERANCES = (1e-1, 1e-3, 1e-5, 1e-6, 4e-7, 2e-7, 1e-7, 5e-8, 1e-9, 1e-12, 1e-14, 1e-15, 4e-16, 2e-16)
REQUESTS = 14

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def profile():
    dispatcher.use_profile(measure(registry, operations=OPERATIONS, backends=["cpu"], quick=True, budget=12.0))
    yield
    dispatcher.use_profile(None)


@pytest.mark.parametrize("precision", [None, "adaptive"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_runs_under_a_tol_meets_it(name, precision):
    operation, rng = operations()[name], np.random.default_rng(7)
    met, refused, lower = 0, 0, 0
    for _ in range(REQUESTS):
        request = operation.held_out(rng)
        arrays = operation.arrays(request, rng)
        for tol in TOLERANCES:
            with ac.using(tol=tol, precision=precision), warnings.catch_warnings():
                warnings.simplefilter("ignore", PrecisionWarning)
                asked = dispatcher.request(operation, request.params, arrays, _settings.current(), None)
                try:
                    decision = dispatcher.entry(asked, _settings.current()).decision
                except ToleranceError:
                    refused += 1
                    continue
                result = dispatcher.run(operation, request.params, *arrays)
            error = operation.error(request, arrays, result)
            assert error <= tol, (request, tol, decision.chosen.shown, decision.chosen.error)
            met += 1
            lower += any(c.narrow is not None for c in decision.candidates)
    assert met > REQUESTS * len(TOLERANCES) / 4
    assert refused > 0
    assert (lower > 0) == (precision == "adaptive" and name in ("fft", "attention", "elementwise"))
