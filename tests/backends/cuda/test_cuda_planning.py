"""What the CUDA backend decides before it touches a GPU: which there are, what is read how, what errors become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import adaptive_compute as ac
from adaptive_compute.backends.cuda import (
    attention_sdpa,
    attention_tiles,
    backend,
    driver,
    fft,
    fused,
    fused_source,
    memory,
)
from adaptive_compute.core.array import Operand
from adaptive_compute.core.errors import BackendUnavailable, DeviceLost, DeviceOutOfMemory
from adaptive_compute.core.expression import parse
from adaptive_compute.core.masks import Window
from adaptive_compute.core.operation import Request
from adaptive_compute.core.operations.attention_rule import BACKWARD
from adaptive_compute.core.operations.attention_rule import FAMILY as ATTENTION
from adaptive_compute.core.operations.fft_rule import FAMILY, FFTParams
from adaptive_compute.core.program import program
from adaptive_compute.core.registry import registry

GPUS = tuple(driver.Gpu(f"gpu {i}", f"GPU-{i}abc", 1 << 34) for i in range(4))


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        ("1,-1,2", [1]),
        ("9", []),
        ("0,9,1", [0]),
        ("GPU-2", [2]),
        ("GPU-", []),
        ("GPU-1a, 3", [1, 3]),
    ],
)
def test_visible_gpus_follow_cuda(asked, seen):
    environment = {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked}
    assert driver.visible(GPUS, environment) == tuple(GPUS[i] for i in seen)


@pytest.mark.skipif(backend.available() is True, reason="this machine has a GPU: make test-cuda checks it")
def test_without_a_gpu_the_reason_and_the_remedy_are_told():
    reason, remedy = backend.available(), backend.remedy()
    assert isinstance(reason, str)
    assert remedy
    with pytest.raises(BackendUnavailable) as said, ac.using("cuda"):
        ac.fft(np.ones(4))
    assert reason in str(said.value)
    assert remedy in str(said.value)
    assert "cuda" in registry.backends()


# How generated kernels read their operands


def read(place, strides, memory_, start, at, k, dims, width):
    """Return element k of pack ``at``, by what the generated source does with a layout."""
    if place == "one":
        return memory_[start]
    if place == "full":
        return memory_[start + at * width + k]
    offset, rest = 0, at
    *outer, inner = strides if place == "step" else (*strides, None)
    for axis in range(len(dims) - 1, -1, -1):
        offset += rest % dims[axis] * outer[axis]
        rest //= dims[axis]
    step = {"row": 1, "same": 0}.get(place, inner)
    return memory_[start + offset + k * step]


@st.composite
def operands(draw):
    """Return the result's shape and operands that broadcast to it, in various memory layouts."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 8, 16]), max_size=4)))
    assume(np.prod(shape, dtype=int) <= 4096)  # every element is looked at
    found = []
    for number in range(draw(st.integers(1, 3))):
        own = tuple(n if draw(st.booleans()) else 1 for n in shape)[draw(st.integers(0, len(shape))) :]
        array = np.arange(1000 * number, 1000 * number + int(np.prod(own, dtype=int))).reshape(own)
        how = draw(st.sampled_from(["plain", "fortran", "strided", "transposed"]))
        if how == "fortran":
            array = np.asfortranarray(array)
        elif how == "strided" and own:
            array = np.repeat(array, 2, -1)[..., ::2]
        elif how == "transposed":
            array = np.ascontiguousarray(array.T).T
        found.append(array)
    return np.broadcast_shapes(*(a.shape for a in found)), found


@settings(deadline=None, max_examples=300)
@given(drawn=operands(), dtype=st.sampled_from(["float32", "float64", "int8", "complex128"]), aligned=st.booleans())
def test_every_element_is_read_from_its_place(drawn, dtype, aligned):
    shape, arrays = drawn
    views = [fused.View(a.shape, tuple(s // a.itemsize for s in a.strides), aligned) for a in arrays]
    layout, count, dims, strides = fused.arrange(shape, views, [dtype] * len(arrays), dtype)
    assert count * layout.width == int(np.prod(shape, dtype=int))
    assert aligned or layout.width == 1 or all(place in ("one", "same") for place in layout.places)
    for array, place, own in zip(arrays, layout.places, strides):
        base = array
        while base.base is not None:
            base = base.base
        flat = base.ravel(order="K")
        start = (array.__array_interface__["data"][0] - flat.__array_interface__["data"][0]) // array.itemsize
        expected = np.broadcast_to(array, shape).ravel()
        got = [
            read(place, own, flat, start, at, k, dims, layout.width) for at in range(count) for k in range(layout.width)
        ]
        assert np.array_equal(got, expected)


def test_operands_that_will_be_brought_are_no_numbers():
    steps = program(parse("a + b", ("a", "b")), ("float32", "float32"))
    whole, one = Operand((4,), "float32", "cpu", "numpy"), Operand((), "float32", "cpu", "numpy")
    assert fused.FusedPlan(steps, [whole, one], (4,), 0).numbers == {1}


@pytest.mark.parametrize("name", ["dense", "efficient"])
@pytest.mark.parametrize("operation", [ATTENTION, BACKWARD], ids=lambda operation: operation.name)
def test_masks_are_put_on_the_kernels_device_wherever_the_operands_are(name, operation):
    request = operation.sample(2, 40, 40, 16, "float32", Window(9))
    assert request.home == "cpu"
    assert attention_sdpa.SdpaKernel(operation.name, name, "meta").plan(request).kept.device.type == "meta"
    topology = attention_tiles.TilesKernel(operation.name, "meta").plan(request).topologies[0]
    assert topology.bits.device.type == topology.by_query.start.device.type == "meta"


def test_the_source_holds_nothing_of_the_callers_text():
    names = ("evil__name", "b")
    steps = program(parse("evil__name * 2.5 + b", names), ("float32", "float32"))
    text = fused_source.source(steps, fused_source.Layout(("full", "full"), 0, 4, False))
    assert "evil" not in text
    assert "(float)(2.5)" in text


@pytest.mark.parametrize("value", [0.1, -1e300, 1e-310, float("inf"), float("-inf"), 1 / 3])
def test_numbers_in_the_source_are_exact(value):
    text = fused_source._literal(value, "float64")
    if np.isinf(value):
        assert "0x7ff0000000000000" in text
    else:
        assert float(text.rpartition("(")[2].strip(")")) == value
    assert fused_source._literal(-(2**63), "int64") == "(long long)(-9223372036854775807LL - 1)"


# cuFFT's layouts


def test_layouts_of_cufft_plans():
    def layout(shape, axes, kind="c2c"):
        lengths = tuple(shape[a] for a in axes)
        x, params = Operand(shape, "complex64", "cuda:0", "torch"), FFTParams(kind, True, lengths, axes, 0)
        request = Request(FAMILY, (x,), params, None, 1)
        return fft._layout(shape, request.operation.result(request)[0].shape, request.params)

    assert layout((5, 8), (1,)) == ([8], [8], 1, 8, [8], 1, 8)
    assert layout((8, 5), (0,)) == ([8], [8], 5, 1, [8], 5, 1)
    assert layout((3, 8, 6), (1, 2)) == ([8, 6], [8, 6], 1, 48, [8, 6], 1, 48)
    assert layout((5, 8), (1,), "r2c") == ([8], [8], 1, 8, [5], 1, 5)


# Memory that runs out


class Failing:
    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self, *arrays):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return arrays


def test_room_is_made_once_and_the_call_repeated(monkeypatch):
    released = []
    monkeypatch.setattr(memory, "release", lambda: released.append(True))
    short = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    plan = memory.GuardedPlan(Failing(short))
    assert plan.run(1) == (1,)
    assert released == [True]
    plan = memory.GuardedPlan(Failing(short, short))
    with pytest.raises(DeviceOutOfMemory, match="all caches freed"):
        plan.run(1)
    assert plan.compute.calls == 2


def test_a_lost_gpu_and_other_errors_are_told_apart(monkeypatch):
    monkeypatch.setattr(memory, "release", lambda: None)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        memory.GuardedPlan(Failing(RuntimeError("CUDA error: an illegal memory access was encountered\nmore"))).run()
    plan = memory.GuardedPlan(Failing(ValueError("wrong argument")))
    with pytest.raises(ValueError, match="wrong argument"):
        plan.run()
    assert plan.compute.calls == 1


def transform(shape, *axes):
    params = FFTParams("c2c", True, tuple(shape[a] for a in axes), axes, 0)
    return Request(FAMILY, (Operand(shape, "complex64", "cpu", "numpy"),), params, None, 4)


@pytest.mark.parametrize("kernel", [fft.TorchFFT("cuda:0"), fft.CupyFFT("cuda:0")])
def test_batches_from_the_host_are_cut_into_pieces(kernel):
    assert kernel.stages(transform((4096, 1024), 1)) == 4
    assert kernel.stages(transform((5000, 1024), 1)) == 5
    assert kernel.stages(transform((8, 512, 512), 1, 2)) == 2
    assert kernel.stages(transform((4096, 1024), 0)) == 1
    assert kernel.stages(transform((64, 64), 1)) == 1, "not worth it"
    assert kernel.stages(transform((2, 1 << 21), 1)) == 1, "a piece would be larger than a buffer"
    request = transform((4096, 1024), 1)
    there = Request(FAMILY, (request.first._replace(device="cuda:0"),), request.params, None, 4)
    assert kernel.stages(there) == 1


def test_the_plan_of_a_batch_from_the_host_knows_its_pieces():
    pytest.importorskip("torch", reason="pip install torch")
    plan = fft.TorchFFT("cuda:0").plan(transform((5000, 1024), 1))
    pieces = plan.through_host.pieces
    assert [start for start, _ in pieces] == [0, *(end for _, end in pieces[:-1])]
    assert pieces[-1][1] == 5000
    assert fft.TorchFFT("cuda:0").plan(transform((64, 64), 1)).through_host is None
    plan.close()
