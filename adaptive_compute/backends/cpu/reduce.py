"""Placeholder room."""


def kernels():
    return []
