"""A host batch in pieces, the host standing in for the GPU: every entry comes back in its place, and is counted."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.core.operations.fft_rule import FAMILY, _sample
from adaptive_compute.core.staging import Stager

torch = pytest.importorskip("torch")

from adaptive_compute.backends.cuda import fft, pipeline  # noqa: E402


class Buffer:
    def __init__(self, nbytes):
        self.tensor = torch.empty(nbytes, dtype=torch.uint8)
        self.array = self.tensor.numpy()


class HostLink:
    def allocate(self, nbytes):
        return Buffer(nbytes)

    def wait(self, copy):
        pass


@pytest.fixture
def host_as_gpu(monkeypatch):
    """Let tensors that are sent to a GPU stay here; copies are done when they are asked for."""
    stager, move = Stager(HostLink()), torch.Tensor.to

    def to(tensor, *args, **kwargs):
        return tensor.clone() if args and args[0] == "cuda:0" else move(tensor, *args, **kwargs)

    monkeypatch.setattr(pipeline, "stager", lambda index: stager)
    monkeypatch.setattr(pipeline, "_streams", lambda index: (None,) * pipeline.STREAMS)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(
        torch.cuda, "Event", lambda: types.SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    )
    monkeypatch.setattr(torch.Tensor, "to", to)


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        ("c2c", (4099, 256), (1,)), ("r2c", (1000, 2000), (1,)), ("c2r", (700, 3, 1024), (2,)),
        ("c2c", (300, 64, 64), (1, 2)),
    ],
)  # fmt: skip
def test_every_entry_comes_back(host_as_gpu, kind, shape, axes):
    request = _sample(kind, "float32", shape, axes)
    run = fft.TorchFFT("cuda:0").plan(request).through_host
    assert run is not None
    (x,) = FAMILY.arrays(request, np.random.default_rng(0))
    before = x.copy()
    ac.transfers(reset=True)
    result = run(x)
    assert np.array_equal(x, before)
    expected = {"c2c": np.fft.fftn, "r2c": np.fft.rfftn, "c2r": np.fft.irfftn}[kind](x.astype(complex).real
        if kind == "r2c" else x.astype(complex), axes=axes)  # fmt: skip
    if kind == "c2r":
        expected = expected * shape[-1]
    assert result.dtype == FAMILY.result(request)[0].dtype
    assert np.linalg.norm(result - expected) <= 1e-6 * np.linalg.norm(expected)
    counted = ac.transfers(reset=True)["transfers"]
    assert counted["cpu -> cuda:0"]["bytes"] == x.nbytes
    assert counted["cuda:0 -> cpu"]["bytes"] == result.nbytes


def test_an_operand_in_another_order_is_copied_and_counted(host_as_gpu):
    request = _sample("c2c", "float32", (4096, 256), (1,))
    (x,) = FAMILY.arrays(request, np.random.default_rng(0))
    ac.transfers(reset=True)
    result = fft.TorchFFT("cuda:0").plan(request).through_host(np.asfortranarray(x))
    assert np.linalg.norm(result - np.fft.fft(x)) <= 1e-6 * np.linalg.norm(result)
    assert sum(ac.transfers(reset=True)["copies"].values()) == 1


@pytest.mark.parametrize(("shape", "axes"), [((4096, 256), (0,)), ((64, 64), (1,)), ((1, 1 << 21), (1,))])
def test_what_cannot_or_need_not_be_cut_goes_whole(shape, axes):
    assert fft.TorchFFT("cuda:0").plan(_sample("c2c", "float32", shape, axes)).through_host is None
