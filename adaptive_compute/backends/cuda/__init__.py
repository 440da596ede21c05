"""NVIDIA GPUs: torch, and where they are installed CuPy, Triton and cuFINUFFT."""

from .device import CudaBackend

backend = CudaBackend()
