"""What the driver is told when a layer's CUDA kernel starts; CuPy's part is played by a stand-in."""

from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from adaptive_compute.nn.kernels import compiled  # noqa: E402


class Driver:
    """CUDA's driver: it keeps what it is told. A thread has no context at first."""

    def __init__(self):
        self.context, self.launches = 0, []

    def ctxGetCurrent(self):  # noqa: N802
        return self.context

    def ctxSetCurrent(self, context):  # noqa: N802
        self.context = context

    def launchKernel(self, function, *numbers):  # noqa: N802
        *shape, stream, parameters, extra = numbers
        assert self.context == 77
        assert extra == 0
        places = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))
        values = [ctypes.cast(places[n], ctypes.POINTER(ctypes.c_uint64))[0] for n in range(4)]
        self.launches.append((function, tuple(shape), stream, values))


class Raw:
    """A kernel, whose address is its name's length."""

    def __init__(self, name):
        self.kernel = SimpleNamespace(ptr=len(name))
        self.max_dynamic_shared_size_bytes = 0


@pytest.fixture
def cupy(monkeypatch):
    driver, made = Driver(), {}

    class Module:
        def __init__(self, code, options):
            made["code"], made["options"] = code, options

        def compile(self):
            driver.context = 77

        def get_function(self, name):
            made[name] = Raw(name)
            return made[name]

    cuda = SimpleNamespace(driver=driver, Device=lambda index: nullcontext())
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, RawModule=Module))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=1000 + index))
    compiled._launcher.cache_clear()
    yield SimpleNamespace(driver=driver, made=made)
    compiled._launcher.cache_clear()


def test_a_launch(cupy):
    launch = compiled.launcher(("quarter_transform.cuh",), {"LENGTH": 256}, 0)
    assert cupy.made["options"] == ("--std=c++17", "-DLENGTH=256")
    assert "template" in cupy.made["code"]
    x = torch.zeros(3)
    for context in (77, 0):  # a thread with the device's context, and one without
        cupy.driver.context = context
        launch("gated", (5, 2), 128, 1 << 10, (x, 0, 1 << 40, 9))
    launch("longer", (1, 1), 64, 1 << 16, (x,))
    first, second, third = cupy.driver.launches
    assert first == second == (5, (5, 2, 1, 128, 1, 1, 1 << 10), 1000, [x.data_ptr(), 0, 1 << 40, 9])
    assert third[:3] == (6, (1, 1, 1, 64, 1, 1, 1 << 16), 1000)
    assert cupy.made["gated"].max_dynamic_shared_size_bytes == 0
    assert cupy.made["longer"].max_dynamic_shared_size_bytes == 1 << 16


def test_a_launch_on_another_device(cupy, monkeypatch):
    entered = []

    class Guard:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            entered.append(self.index)
            monkeypatch.setattr(torch.cuda, "current_device", lambda: self.index)

        def __exit__(self, *error):
            monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    monkeypatch.setattr(torch.cuda, "device", Guard)
    compiled.launcher(("quarter_transform.cuh",), {}, 1)("gated", (1, 1), 32, 0, (4, 3, 2, 1))
    assert entered == [1]
    assert cupy.driver.launches == [(5, (1, 1, 1, 32, 1, 1, 0), 1001, [4, 3, 2, 1])]
