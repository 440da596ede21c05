"""How long FINUFFT's threads wait for more work before they sleep: to be said before FINUFFT is loaded, or never."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Turns that a thread of FINUFFT waits for more work before it sleeps, some 20 us. FINUFFT's FFT has threads of its own,
# and while those of its OpenMP wait without sleeping, 300000 turns by default, they share their cores with them: on two
# cores a transform of 0.3 ms was measured at 8 ms.
WAITING = "1000"


@contextmanager
def short_waits() -> Iterator[None]:
    """Keep the waits of OpenMP's threads short in what is loaded inside, unless the caller has chosen them."""
    if "finufft" in sys.modules or os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = WAITING
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)
