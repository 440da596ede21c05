from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from adaptive_compute.backends.base import Kernel, Plan
from adaptive_compute.backends.vulkan import tuning
from adaptive_compute.backends.vulkan.array import download, upload
from adaptive_compute.core.array import Operand
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations import operations

DEVICE = "vulkan:0"


def request(n: int = 64) -> Request:
    """Return a plain transform of some sample's parameters."""
    sample = next(r for r in operations()["fft"].samples(True) if r.params.kind == "c2c")
    return Request(sample.operation, sample.operands, sample.params, None, None)


class Paced(Plan):
    """Takes as long as its tile says, and gives a result of its own for the tile that is wrong."""

    def __init__(self, tile):
        self.tile = tile

    def run(self, x):
        time.sleep(self.tile * 1e-3)
        return upload(download(x) * (2 if self.tile == 1 else 1), DEVICE)


class Tiled(Kernel):
    name, operation, device, native = "tiled", "fft", DEVICE, "vulkan"

    def supports(self, request):
        return True

    def plan(self, request):
        tile = tuning.tuned(DEVICE, "test.tile", 6)
        if tile == 2:
            raise ValueError("this tile does not fit")
        return Paced(tile)


@pytest.fixture(autouse=True)
def _defaults_again():
    yield
    tuning.apply(DEVICE, {}, {})


def known(**changes) -> dict[str, tuning.Tunable]:
    return tuning.tunables([SimpleNamespace(TUNING={"test.tile": (6, (1, 2, 3, 12), request), **changes}), object()])


def test_the_fastest_tile_that_is_right_and_runs_is_found():
    assert tuning.search(DEVICE, [Tiled()], known(), 5.0) == {"test.tile": 3}
    assert tuning.tuned(DEVICE, "test.tile", 6) == 6, "a search must leave what is in use as it was"


def test_the_default_stays_where_nothing_is_faster():
    slower = {"test.tile": (3, (6, 12), request)}
    assert tuning.search(DEVICE, [Tiled()], known(**slower), 5.0) == {}


def test_a_search_keeps_to_its_time():
    start = time.perf_counter()
    many = {f"test.{n}": (6, tuple(range(7, 40)), request) for n in range(20)}
    tuning.search(DEVICE, [Tiled()], known(**many), 0.3)
    assert time.perf_counter() - start < 3.0


def test_a_tunable_without_a_request_or_a_kernel_is_left_alone():
    assert tuning.search(DEVICE, [Tiled()], known(**{"test.tile": (6, (3,))}), 1.0) == {}
    assert tuning.search(DEVICE, [], known(), 1.0) == {}


def test_only_known_values_are_applied():
    tuning.apply(DEVICE, {"test.tile": 3, "test.other": 5}, known())
    assert tuning.tuned(DEVICE, "test.tile", 6) == 3
    assert tuning.tuned(DEVICE, "test.other", 1) == 1
    tuning.apply(DEVICE, {"test.tile": 1000}, known())
    assert tuning.tuned(DEVICE, "test.tile", 6) == 6


def test_a_shape_comes_back_from_json_as_it_was():
    shapes = tuning.tunables([SimpleNamespace(TUNING={"test.shape": ((8, 8), ((16, 4), (4, 16)))})])
    tuning.apply(DEVICE, {"test.shape": [16, 4]}, shapes)
    assert tuning.tuned(DEVICE, "test.shape", (8, 8)) == (16, 4)


def test_every_room_names_its_tunables_well():
    from adaptive_compute.backends.vulkan.device import _rooms

    for name, tunable in tuning.tunables(_rooms()).items():
        assert "." in name, name
        assert tunable.candidates, name
        if tunable.request is not None:
            operand = tunable.request().first
            assert isinstance(operand, Operand)
            assert np.dtype(operand.dtype if operand.dtype != "bfloat16" else "uint16")
