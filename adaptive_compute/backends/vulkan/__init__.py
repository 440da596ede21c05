"""Any vendor's GPU through Vulkan compute shaders, run by Kompute."""

from .device import backend

__all__ = ["backend"]
