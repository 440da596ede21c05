"""Arrays in the device's memory, and what the library has to know of them."""

from __future__ import annotations

from adaptive_compute.core.array import ArrayKind, Operand, register_kind


class Resident:
    """An array on the device. Its values are for kernels and ``download`` alone."""

    def __init__(self, memory):
        self.memory = memory  # a handle of the device's own, in a real backend
        self.shape, self.ndim = memory.shape, memory.ndim


class ResidentKind(ArrayKind):
    """Tells the library what a ``Resident`` is, without looking at its values."""

    name = "example"
    modules = ("adaptive_example",)  # only objects whose type comes from here are asked

    def matches(self, kind):
        return issubclass(kind, Resident)

    def describe(self, array):
        return Operand(array.shape, array.memory.dtype.name, "example:0", "example")


register_kind(ResidentKind())
