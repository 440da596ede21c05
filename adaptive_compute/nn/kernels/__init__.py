"""Triton kernels of the layers: loaded on CUDA alone, each behind the layer that it serves."""
