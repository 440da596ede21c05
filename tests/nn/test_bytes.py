"""Bytes as vectors: against the definition in float64, text in, and what is refused. The kernel runs interpreted."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from adaptive_compute import nn
from adaptive_compute.core.errors import ArgumentError, ArgumentTypeError, BackendUnavailable, DtypeError, ShapeError

torch = pytest.importorskip("torch")

EVERY = torch.arange(256, dtype=torch.uint8).reshape(2, 128)
BOUND = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 8e-4,
    torch.bfloat16: 8e-3,  # the interpreter cuts it off
}


def definition(values, dim):
    """Return sines and cosines of every byte in float64, one by one."""
    frequencies = nn.byte_frequencies(dim // 2).tolist()
    rows = []
    for value in values.reshape(-1).tolist():
        angles = [2 * math.pi * math.fmod(f * value, 256) / 256 for f in frequencies]
        rows.append([math.sqrt(2) * wave(angle) for wave in (math.sin, math.cos) for angle in angles])
    return np.array(rows).reshape(*values.shape, dim)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("dim", [2, 6, 256, 300])
def test_features_follow_the_definition(dim, dtype):
    found = nn.byte_features(EVERY, dim, dtype)
    assert found.dtype is dtype
    assert np.abs(found.double().numpy() - definition(EVERY, dim)).max() <= BOUND[dtype]
    many = EVERY.repeat(2, 3)  # more bytes than there are values: computed once each
    assert torch.equal(nn.byte_features(many, dim, dtype), found.repeat(2, 3, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 126, 127, 128, 129, 500, 3000])
def test_frequencies_differ_and_their_angles_are_exact(count):
    frequencies = nn.byte_frequencies(count)
    assert frequencies.unique().numel() == count
    assert frequencies[0] == 1
    assert frequencies[-1] <= 128
    exact = frequencies[:, None] * torch.arange(256, dtype=torch.float64) / 256 - 0.25
    assert torch.equal(exact.float().double(), exact)


def test_every_byte_has_its_own_vector_of_one_norm():
    for dim in (2, 16, 256, 512):
        found = nn.byte_features(EVERY.reshape(-1), dim, torch.float64)
        assert torch.allclose(found.norm(dim=1), torch.full((256,), math.sqrt(dim), dtype=torch.float64))
        assert torch.pdist(found).min() > 0.01


def test_256_features_hold_every_function_of_a_byte_but_its_mean():
    found = nn.byte_features(EVERY.reshape(-1), 256, torch.float64)
    assert torch.linalg.matrix_rank(found) == 255
    target = torch.randn(256, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target -= target.mean()
    fitted = found @ torch.linalg.lstsq(found, target, driver="gelsd").solution
    assert torch.allclose(fitted, target, atol=1e-10)


def test_text_is_bytes_in_utf8():
    text = ["na\u00efve", "\u65e5\u672c", ""]
    found = nn.to_bytes(text)
    assert found.dtype is torch.uint8
    for row, one in zip(found, text):
        assert bytes(row.tolist()).rstrip(b"\0") == one.encode()
    assert nn.to_bytes(b"\xff\x00").tolist() == [[255, 0]]
    assert nn.to_bytes([]).shape == (0, 0)
    assert nn.to_bytes("").shape == (1, 0)


@pytest.mark.parametrize("layer", [nn.ByteEncoder(8), nn.ByteEncoder(5, features=16), nn.ByteEmbedding(5)])
def test_layers_take_text_and_bytes_alike(layer):
    text = "spectral"
    found = layer(text)
    assert found.shape == (1, 8, layer.dim)
    assert torch.equal(found, layer(torch.tensor([list(text.encode())], dtype=torch.uint8)))
    for shape in ((0, 4), (3, 0)):
        assert layer(torch.zeros(shape, dtype=torch.uint8)).shape == (*shape, layer.dim)
    assert layer.bfloat16()(text).dtype is torch.bfloat16
    layer.float()


def test_an_output_depends_on_its_own_byte_alone():
    x = torch.randint(0, 256, (2, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for layer in (nn.ByteEncoder(8), nn.ByteEncoder(8, features=4), nn.ByteEmbedding(8)):
        changed = x.clone()
        changed[:, 7] += 1
        same = (layer(x) == layer(changed)).all(-1)
        assert layer.causal
        assert not same[:, 7].any()
        assert same.sum() == 38


@pytest.mark.parametrize("make", [lambda: nn.ByteEncoder(3, features=4), lambda: nn.ByteEmbedding(3)])
def test_gradients(make):
    layer = make().double()
    (weight,) = layer.parameters()
    x = torch.tensor([[0, 7, 255], [7, 7, 1]], dtype=torch.uint8)
    name = next(iter(dict(layer.named_parameters())))

    def run(weight):
        return torch.func.functional_call(layer, {name: weight}, (x,))

    assert torch.autograd.gradcheck(run, (weight.detach().clone().requires_grad_(),))


def test_what_is_refused():
    layer = nn.ByteEncoder(4, max_length=3)
    for wrong, error, words in (
        (torch.zeros(1, 3), DtypeError, "uint8"),
        (torch.zeros(1, 3, dtype=torch.int64), DtypeError, "torch.int64"),
        (torch.zeros(3, dtype=torch.uint8), ShapeError, "batch, length"),
        (torch.zeros(1, 4, dtype=torch.uint8), ShapeError, "max_length=3"),
        (torch.zeros(1, 3, dtype=torch.uint8, device="meta"), BackendUnavailable, "meta"),
        (["a", 1], ArgumentTypeError, "list of int, str"),
        (7, ArgumentTypeError, "got int"),
        ("\ud800", ArgumentError, "surrogate"),
    ):
        with pytest.raises(error, match=words):
            layer(wrong)
    for make, words in (
        (lambda: nn.ByteEncoder(5), "dim must be even"),
        (lambda: nn.ByteEncoder(4, features=3), "features must be even"),
        (lambda: nn.ByteEncoder(0), "at least 1"),
        (lambda: nn.byte_frequencies(1 << 20), "at most"),
    ):
        with pytest.raises(ArgumentError, match=words):
            make()
    with pytest.raises(DtypeError, match="bfloat16"):
        nn.ByteEncoder(4, dtype=torch.int8)
    with pytest.raises(DtypeError, match="complex64"):
        nn.byte_features(EVERY, 4, torch.complex64)
    with pytest.raises(ArgumentTypeError, match="got ndarray"):
        nn.byte_features(EVERY.numpy(), 4)


def check_kernel():
    """Compare the kernel with the definition; called in a process of its own, where the interpreter is on."""
    from adaptive_compute.nn.bytes import _steps
    from adaptive_compute.nn.kernels.byte_encoder import encode

    for dim in (2, 6, 256, 1500, 2048):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            found = encode(EVERY.reshape(-1), _steps(dim, torch.device("cpu")), dtype)
            assert found.dtype is dtype
            error = np.abs(found.double().numpy() - definition(EVERY.reshape(-1), dim)).max()
            assert error <= BOUND[dtype], (dim, dtype, error)
        assert encode(EVERY.reshape(-1)[:0], _steps(dim, torch.device("cpu")), dtype).shape == (0, dim)


def test_kernel_follows_the_definition():
    pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")
    code = (
        f"import importlib.util as util; spec = util.spec_from_file_location('test_bytes', {__file__!r}); "
        "module = util.module_from_spec(spec); spec.loader.exec_module(module); module.check_kernel()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
def test_on_cuda():
    x = torch.randint(0, 256, (3, 1001), dtype=torch.uint8)
    for dim in (2, 6, 256, 1500, 2048):
        for dtype, bound in BOUND.items():
            found = nn.ByteEncoder(dim, dtype=dtype, device="cuda")(x.cuda())
            assert found.dtype is dtype
            assert np.abs(found.double().cpu().numpy() - definition(x, dim)).max() <= bound
    with pytest.raises(BackendUnavailable, match="x is on cpu"):
        nn.ByteEncoder(4, device="cuda")(x)


def test_what_a_mode_without_data_made_is_not_kept():
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        assert isinstance(nn.byte_features(torch.zeros(1, 3, dtype=torch.uint8), 26), FakeTensor)
    found = nn.byte_features(torch.zeros(1, 3, dtype=torch.uint8), 26)
    assert type(found) is torch.Tensor
