"""What counts as a transfer."""

from __future__ import annotations

import numpy as np

from adaptive_compute.backends.base import Backend
from adaptive_compute.core.transfer import mark_constant, move, transfers


class Keeping(Backend):
    """Keeps what was promised to stay as it is."""

    def __init__(self):
        self.copies = {}

    def kept(self, host, device):
        return self.copies.get(id(host))

    def upload(self, host, device):
        self.copies[id(host)] = host.copy()
        return self.copies[id(host)]


def test_what_a_device_keeps_is_counted_when_it_is_moved_and_not_when_it_is_found_there():
    transfers(reset=True)
    backend, constant, other = Keeping(), np.arange(100), np.arange(50)
    mark_constant(constant)
    for _ in range(3):
        for array in (constant, other):
            assert np.array_equal(move(array, None, backend, "dev:0", array.nbytes, origin="cpu"), array)
    counted = transfers(reset=True)["transfers"]["cpu -> dev:0"]
    assert counted["count"] == 1 + 3
    assert counted["bytes"] == constant.nbytes + 3 * other.nbytes
