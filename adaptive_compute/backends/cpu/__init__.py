"""The CPU: NumPy, SciPy, FINUFFT and, where it is installed, torch."""

from .device import CpuBackend

backend = CpuBackend()
