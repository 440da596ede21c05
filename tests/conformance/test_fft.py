"""FFT: every kernel against the definition in extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_compute as ac
from adaptive_compute.core.errors import NoKernelError

OPERATION = "fft"
BOUND = {np.complex64: 5e-7, np.complex128: 2e-15}


def run(kernel, function, *args, **kwargs):
    """Run on one kernel; where it refuses the request, check that it says why, and return None."""
    with ac.using(kernel=kernel.name, device=kernel.device):
        try:
            return function(*args, **kwargs)
        except NoKernelError as refusal:
            assert str(refusal).partition(f"{kernel.name} on {kernel.device}: ")[2].strip()
            return None
