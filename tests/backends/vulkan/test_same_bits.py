"""Every Vulkan kernel gives the same bits in every run, with its steps ordered by copies or by separate submissions."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_compute.backends.vulkan.array import download, upload
from adaptive_compute.backends.vulkan.runtime import runtime, strict
from adaptive_compute.core.measure import relocated
from adaptive_compute.core.operations import operations
from adaptive_compute.core.registry import registry

DEVICE = "vulkan:0"
EACH, LARGEST = 3, 1 << 19  # requests a kernel, bytes of a request's operands

KERNELS = [
    pytest.param(kernel, id=f"{kernel.operation}-{kernel.name}")
    for name in operations()
    for kernel in registry.kernels(name)
    if kernel.device == DEVICE
]


def requests(kernel):
    """Return a few of the operation's own samples that the kernel runs, of different parameters where there are."""
    found = {}
    for request in operations()[kernel.operation].samples(quick=True):
        there = relocated(request, kernel)
        if sum(o.nbytes for o in there.operands if o is not None) <= LARGEST and kernel.supports(there) is True:
            found.setdefault(repr(there.params)[:60], there)
    return list(found.values())[:EACH]


def bits(made) -> list[bytes]:
    return [download(part).tobytes() for part in (made if isinstance(made, tuple) else (made,))]


@pytest.mark.parametrize("kernel", KERNELS)
def test_same_bits_in_every_run_and_in_strict_mode(kernel):
    chosen = requests(kernel)
    assert chosen, "the operation has no sample that this kernel runs"
    counts = runtime(DEVICE).counts
    for request in chosen:
        arrays = [
            None if a is None else upload(np.asarray(a), DEVICE)
            for a in request.operation.arrays(request, np.random.default_rng(3))
        ]
        plan = kernel.plan(request)
        first = bits(plan.run(*arrays))
        assert bits(plan.run(*arrays)) == first, request
        before = counts.submits
        with strict():
            assert bits(plan.run(*arrays)) == first, request
        assert counts.submits > before
        plan.close()
        again = kernel.plan(request)
        assert bits(again.run(*arrays)) == first, request
        again.close()
