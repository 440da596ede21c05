"""Backends: each a world of devices, memory and kernels. They import the core and never each other."""
