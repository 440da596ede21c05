"""A backend for adaptive-compute in a package of its own: a device with memory, played by the host, and a kernel.

The template of docs/writing-a-backend.md. What a real backend would have instead of the host's memory and NumPy, the
comments say.
"""

from __future__ import annotations

import numpy as np

from adaptive_compute.backends.base import Backend
from adaptive_compute.core.profile import TIMING_METHOD

from .array import Resident
from .kernels import FFTKernel


class ExampleBackend(Backend):
    """One device, ``example:0``."""

    name = "example"

    def available(self):
        # The exact reason where it is not: "libexample.so was not found", "no device answers".
        return True

    def remedy(self):
        return "pip install adaptive-compute-example"

    def devices(self):
        return ["example:0"]

    def kernels(self):
        return [FFTKernel()]  # one for each way and device, the safest first

    def validators(self, device):
        # Driver and library versions, name and serial number of the device: whatever changes what was measured.
        return {"numpy": np.__version__, "timing": TIMING_METHOD}

    def upload(self, host, device):
        return Resident(np.array(host))

    def download(self, array):
        return np.array(array.memory)

    def synchronize(self, device):
        pass  # every call above has finished when it returns


backend = ExampleBackend()
