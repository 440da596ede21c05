"""A complete small backend: one device with memory of its own (played by the host) and one kernel."""

import numpy as np

from adaptive_compute.backends.base import Backend, Kernel, Plan
from adaptive_compute.core.array import ArrayKind, Operand, register_kind
from adaptive_compute.core.operations.fft_rule import NONE
from adaptive_compute.core.profile import TIMING_METHOD


class Held:
    """An array in the sandbox's memory. Callers may look at its shape, not at its values."""

    def __init__(self, values):
        self.values = values
        self.shape, self.ndim = values.shape, values.ndim


class HeldKind(ArrayKind):
    """Tells the library what a Held is; only objects whose type comes from ``modules`` are asked."""

    name = "sandbox"
    modules = (__name__.partition(".")[0],)

    def matches(self, kind):
        return issubclass(kind, Held)

    def describe(self, array):
        return Operand(array.shape, array.values.dtype.name, "sandbox:0", "sandbox")


class FFTPlan(Plan):
    """Everything that calls of one request share; ``run`` keeps no state, so any number of threads may be in it."""

    def __init__(self, axis, dtype):
        self.axis, self.dtype = axis, dtype

    def run(self, x):
        return Held(np.fft.fft(x.values, axis=self.axis).astype(self.dtype))


class FFTKernel(Kernel):
    """Plain forward transforms over one axis."""

    name = "sandbox-fft"
    operation = "fft"
    device = "sandbox:0"
    native = "sandbox"

    def supports(self, request):
        p = request.params
        if p.kind != "c2c" or not p.forward or p.scale != NONE:
            return "only plain forward transforms are here"
        if len(p.axes) != 1 or p.lengths[0] != request.first.shape[p.axes[0]]:
            return "only one whole axis can be transformed"
        if request.first.dtype not in ("complex64", "complex128"):
            return "only complex64 and complex128 operands are accepted"
        return True

    def plan(self, request):
        return FFTPlan(request.params.axes[0], request.first.dtype)


class Sandbox(Backend):
    """The device, its memory and its kernels."""

    name = "sandbox"

    def available(self):
        return True  # or why not: "libsandbox.so was not found"

    def remedy(self):
        return "pip install sandbox-driver"  # what `adaptive doctor` advises when available() is a reason

    def devices(self):
        return ["sandbox:0"]

    def kernels(self):
        return [FFTKernel()]

    def validators(self, device):
        return {"numpy": np.__version__, "timing": TIMING_METHOD}

    def upload(self, host, device):
        return Held(np.array(host))

    def download(self, array):
        return np.array(array.values)

    def synchronize(self, device):
        pass  # every call above has finished when it returns


register_kind(HeldKind())
backend = Sandbox()
