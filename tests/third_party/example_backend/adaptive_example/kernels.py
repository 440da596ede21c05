"""What the device computes: Fourier transforms of every kind."""

from __future__ import annotations

import numpy as np

from adaptive_compute.backends.base import Kernel, Plan
from adaptive_compute.core.operations.fft_rule import FULL, NONE, fit

from .array import Resident

FUNCTIONS = {
    ("c2c", True): np.fft.fftn, ("c2c", False): np.fft.ifftn,
    ("r2c", True): np.fft.rfftn, ("c2r", False): np.fft.irfftn,
}  # fmt: skip


class FFTPlan(Plan):
    """A transform made ready; ``run`` keeps no state, so that any number of threads may be in it."""

    def __init__(self, request):
        (result,) = request.operation.result(request)
        self.params, self.dtype = request.params, result.dtype
        kind, forward, scale = self.params.kind, self.params.forward, self.params.scale
        # Hermitian transforms are real ones of the conjugate, in the other direction.
        self.conjugate = (kind, forward) in (("r2c", False), ("c2r", True))
        direction = forward != self.conjugate
        self.function = FUNCTIONS[kind, direction]
        self.norm = "ortho" if scale not in (NONE, FULL) else "backward" if (scale == NONE) == direction else "forward"

    def run(self, x):
        p = self.params
        values = fit(x.memory, p)
        values = values.astype(np.complex128 if p.kind != "r2c" else np.float64)
        if self.conjugate and p.kind == "c2r":
            values = values.conj()
        with np.errstate(invalid="ignore"):  # infinity in, not a number out, and no warning of NumPy's
            found = self.function(values, p.lengths, p.axes, self.norm)
        if self.conjugate and p.kind == "r2c":
            found = found.conj()
        return Resident(found.astype(self.dtype))


class FFTKernel(Kernel):
    """Every transform, in double precision."""

    name = "example-fft"
    operation = "fft"
    device = "example:0"
    native = "example"

    def supports(self, request):
        # Shapes, dtypes and parameters decide; "no" is a fine answer, with a reason.
        if request.first.dtype in ("bfloat16", "float128", "complex256"):
            return f"the device computes no {request.first.dtype}"
        if 0 in request.first.shape:
            return "the device takes no empty arrays"
        return True

    def plan(self, request):
        return FFTPlan(request)
