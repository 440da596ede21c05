"""Sparse spectra: against NumPy's transforms and direct sums in float64, products and gradients, layers and files."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from adaptive_compute import nn
from adaptive_compute.core.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendUnavailable,
    DtypeError,
    NoProfileWarning,
    ShapeError,
)
from adaptive_compute.nn import streaming_matmul
from adaptive_compute.nn.spectral_index import SpectralIndex

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")

SHAPES = [(96, 64), (37, 53), (1, 7), (9, 1), (8, 2), (5,), (8,), (4, 6, 8), (3, 5, 7)]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def reference(w, keep):
    """Return what remains of a tensor: its largest coefficients, mirrors in pairs, by NumPy in float64."""
    spectrum = np.fft.fftn(w.numpy())
    flat = spectrum.reshape(-1)
    mirror = np.roll(np.flip(np.arange(flat.size).reshape(spectrum.shape)), 1, range(spectrum.ndim)).reshape(-1)
    kept = np.zeros(flat.size, bool)
    for place in np.argsort(-np.abs(flat), kind="stable"):
        pair = {place} if np.iscomplexobj(w.numpy()) else {place, mirror[place]}
        if kept[place] or (kept.sum() + len(pair) > max(keep * flat.size, 1) + 0.5 and kept.any()):
            if not kept[place]:
                break
            continue
        kept[list(pair)] = True
    dense = np.fft.ifftn(np.where(kept, flat, 0).reshape(spectrum.shape))
    return dense if np.iscomplexobj(w.numpy()) else dense.real


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_coefficients_are_kept(shape, dtype):
    w = random(shape, dtype)
    for keep in (0.05, 0.3, 1.0):
        small = nn.SparseSpectralTensor.from_dense(w, keep, panel=16)
        dense = small.dense()
        assert np.abs(dense.numpy() - reference(w, keep)).max() < 1e-12
        retained = 1 - float(((dense - w).norm() / w.norm()) ** 2)
        assert small.retained_energy == pytest.approx(retained, abs=1e-12)
        assert small.nbytes == small.index.nbytes + small.values.numel() * 16


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_kept_is_the_tensor(dtype):
    for shape in SHAPES:
        w = random(shape, dtype)
        dense = nn.SparseSpectralTensor.from_dense(w, 1.0).dense()
        assert dense.dtype is dtype
        assert torch.allclose(dense, w, atol=1e-5 if dtype in (torch.float32, torch.complex64) else 1e-12)


def test_one_percent_of_random_weights_hold_little_energy():
    small = nn.SparseSpectralTensor.from_dense(random((512, 512), torch.float32), 0.01)
    assert small.retained_energy == pytest.approx(0.056, abs=0.001)
    assert 8 * small.index.nbytes / len(small.index) < 9.5  # bits a place
    assert small.kept == pytest.approx(0.01, abs=0.0002)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.12, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(100, 33), (1, 2000), (300, 7)])
def test_places_come_back(shape, density):
    size = shape[0] * shape[1]
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(1))[: round(density * size)]
    index, order = SpectralIndex.of(shape, chosen, panel=64)
    places = index.places()
    assert torch.equal(places, chosen[order])
    assert torch.equal(places.sort().values, chosen.sort().values)
    for number in range(index.panels):
        panel = index.decode(number)
        assert panel.begin == int(index.counts[:number].sum())
        assert int(panel.starts[-1]) == len(panel.leading) == int(index.counts[number])
    if density == 0.01:
        assert not index.bitmap
    elif density >= 0.6:
        assert index.bitmap
        assert len(index.codes) <= size / 8 + index.panels


@pytest.fixture(params=["host", "device"])
def kernels(request, monkeypatch):
    """Both ways to multiply; torch's sparse matrices, which CUDA has, work on the CPU as well."""
    if request.param == "device":
        monkeypatch.setattr(streaming_matmul, "_kernels", lambda x: streaming_matmul._OnTheDevice)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_is_the_dense_one(dtype, kernels):
    for shape, panel in (((96, 64), 32), ((37, 53), 1024), ((1, 7), 4), ((64, 1), 7), ((50, 2), 7)):
        small = nn.SparseSpectralTensor.from_dense(random(shape, dtype), 0.2, panel=panel)
        dense = small.dense().to(torch.complex128)
        for like in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            x = random((2, 3, shape[0]), like, seed=1)
            y = nn.block_streaming_matmul(x, small)
            right = x.to(torch.complex128) @ dense
            assert y.dtype is (like.to_complex() if dtype.is_complex else like)
            bound = 1e-12 if {like, dtype} <= {torch.float64, torch.complex128} else 1e-5
            assert (y.to(torch.complex128) - right).norm() <= bound * right.norm()


def test_gradients(kernels):
    for shape, dtype in (((5, 6), torch.float64), ((4, 3), torch.complex128)):
        small = nn.SparseSpectralTensor.from_dense(random(shape, dtype), 0.5, panel=3)
        values = small.values.clone().requires_grad_()

        def product(x, values, small=small):
            return nn.block_streaming_matmul(x, nn.SparseSpectralTensor(small.shape, small.dtype, small.index, values))

        def dense(values, small=small):
            return nn.SparseSpectralTensor(small.shape, small.dtype, small.index, values).dense()

        for like in (torch.float64, torch.complex128):
            x = random((2, shape[0]), like, seed=1).requires_grad_()
            assert torch.autograd.gradcheck(product, (x, values))
        assert torch.autograd.gradcheck(dense, (values,))


def test_threads_do_not_change_the_product(monkeypatch):
    monkeypatch.setattr(streaming_matmul, "LITTLE", 0)
    monkeypatch.setattr(streaming_matmul, "ROWS", 7)
    small = nn.SparseSpectralTensor.from_dense(random((50, 40)), 0.3, panel=8)
    x = random((3, 50), seed=1).requires_grad_()
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        values = small.values.clone().requires_grad_()
        y = nn.block_streaming_matmul(x, nn.SparseSpectralTensor(small.shape, small.dtype, small.index, values))
        found.append((y.detach(), *torch.autograd.grad(y.square().sum(), (x, values))))
    for one in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(one, found[0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_quantised_matrix_is_streamed(dtype):
    w = random((50, 31), dtype)
    quantizers = [nn.PolarQuantizer(12), nn.Int8Quantizer()]
    for quantizer in quantizers:
        small = quantizer.quantize(w)
        for like in (torch.float64, torch.complex128):
            x = random((4, 50), like, seed=1).requires_grad_()
            for block in (1, 7, 50, None):
                y = nn.block_streaming_matmul(x, small, block)
                right = x.to(torch.complex128) @ small.dequantize().to(torch.complex128)
                assert (y.to(torch.complex128) - right).norm() <= 1e-12 * right.norm()
            few = quantizer.quantize(w[:5, :4])
            x = random((2, 5), like, seed=2).requires_grad_()
            assert torch.autograd.gradcheck(lambda x, few=few: nn.block_streaming_matmul(x, few, 2), (x,))


def test_a_quantised_matrix_is_never_whole(monkeypatch):
    small = nn.PolarQuantizer(8).quantize(random((64, 32)))
    seen = []
    rows = nn.QuantizedTensor.rows
    monkeypatch.setattr(nn.QuantizedTensor, "rows", lambda self, a, b: seen.append(b - a) or rows(self, a, b))
    nn.block_streaming_matmul(random((1, 64)), small, 10)
    assert max(seen) == 10


def test_sparse_spectrum_in_few_bits():
    w = random((128, 128), torch.float32)
    small = nn.SparseSpectralTensor.from_dense(w, 0.1)
    x = random((3, 128), torch.float32, seed=2)
    right = x @ small.dense()
    for quantizer, bound in ((nn.PolarQuantizer(8, levels="fitted"), 0.1), (nn.Int8Quantizer(), 0.02)):
        coded = small.quantize(quantizer)
        assert coded.nbytes < 0.4 * small.nbytes
        y = nn.block_streaming_matmul(x, coded)
        assert (y - right).norm() < bound * right.norm()
        assert torch.allclose(y, x @ coded.dense(), atol=1e-4)
    with pytest.raises(ArgumentTypeError, match="already"):
        coded.quantize(nn.Int8Quantizer())


def test_half_precision_and_empty_batches():
    small = nn.SparseSpectralTensor.from_dense(random((16, 12), torch.float32), 0.5)
    coded = nn.PolarQuantizer(8).quantize(random((16, 12), torch.float32))
    for w in (small, coded):
        dense = w.dense() if w is small else w.dequantize()
        for dtype, bound in ((torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
            x = random((5, 16), torch.float32).to(dtype)
            y = nn.block_streaming_matmul(x, w)
            assert y.dtype is dtype
            assert (y.float() - x.float() @ dense).norm() <= bound * y.float().norm()
        x = torch.zeros(0, 3, 16, requires_grad=True)
        y = nn.block_streaming_matmul(x, w)
        assert y.shape == (0, 3, 12)
        y.sum().backward()
        assert x.grad.shape == x.shape


def test_spectrum_given_by_hand():
    # w[a, b] = cos(2 pi (2 a / 6 + b / 8)) + cos(2 pi 1 a / 6), by its coefficients.
    places, values = torch.tensor([2 * 5 + 1, 1 * 5 + 0]), torch.tensor([24.0 + 0j, 24.0 + 0j])
    found = nn.SparseSpectralTensor.from_spectrum((6, 8), places, values, torch.float64).dense()
    a, b = np.mgrid[:6, :8]
    right = np.cos(2 * np.pi * (2 * a / 6 + b / 8)) + np.cos(2 * np.pi * a / 6)
    assert np.abs(found.numpy() - right).max() < 1e-12
    with pytest.raises(ArgumentError, match="mirrored"):
        nn.SparseSpectralTensor.from_spectrum((6, 8), torch.tensor([25]), torch.tensor([1j]))
    with pytest.raises(ArgumentError, match="differ"):
        nn.SparseSpectralTensor.from_spectrum((6, 8), torch.tensor([3, 3]), torch.tensor([1j, 1j]))
    with pytest.raises(ArgumentError, match="below 30"):
        nn.SparseSpectralTensor.from_spectrum((6, 8), torch.tensor([30]), torch.tensor([1j]))


def test_spectralize():
    linear = torch.nn.Linear(40, 60)
    linear.requires_grad_(False)
    x = random((2, 5, 40), torch.float32)
    layer = nn.spectralize(linear, keep=1, sample=x)
    assert torch.allclose(layer(x), linear(x), atol=1e-5)
    assert layer.report.retained_energy == pytest.approx(1)
    assert layer.report.output_error < 1e-5
    assert layer.causal
    for keep, quantizer in ((0.1, None), (0.1, nn.Int8Quantizer())):
        layer = nn.spectralize(linear, keep=keep, quantizer=quantizer, sample=x)
        report = layer.report
        dense = layer.weight.dense().detach()
        assert torch.allclose(layer(x), x @ dense + linear.bias, atol=1e-5)
        assert report.error == pytest.approx(float((dense - linear.weight.T).norm() / linear.weight.norm()), rel=1e-4)
        assert report.error == pytest.approx(math.sqrt(1 - report.retained_energy), rel=1e-3)
        assert report.dense_nbytes == 40 * 60 * 4
        assert report.nbytes == layer.weight.nbytes < report.dense_nbytes
        error = (layer(x) - linear(x)).detach().norm() / linear(x).norm()
        assert report.output_error == pytest.approx(float(error), rel=1e-4)
        assert f"{report.retained_energy:.2%}" in str(report)


def test_spectral_layer_trains_and_keeps_its_precision():
    double = nn.spectralize(torch.nn.Linear(16, 24), keep=0.3).double()
    x = random((3, 16), torch.float64)
    assert double(x).dtype is torch.float64
    assert torch.allclose(double(x), x @ double.weight.dense() + double.bias, atol=1e-12)
    names = [name for name, _ in double.named_parameters()]
    assert names == ["values", "bias"]

    def run(*parameters):
        return torch.func.functional_call(double, dict(zip(names, parameters)), (x,))

    assert torch.autograd.gradcheck(run, [p.detach().clone().requires_grad_() for p in double.parameters()])

    coded = nn.spectralize(torch.nn.Linear(16, 24), keep=0.3, quantizer=nn.PolarQuantizer(8))
    before = coded(x.float()) - coded.bias
    coded.bfloat16().float()  # what holds its bits as integers stays as it is
    assert torch.allclose(coded(x.float()) - coded.bias, before, atol=1e-6)


def test_what_is_loaded_takes_the_place_of_what_was_there():
    x = random((3, 16), torch.float32)
    one, other = (
        nn.SpectralLinear(nn.SparseSpectralTensor.from_spectrum((16, 24), torch.tensor(places), torch.ones(3) + 0j))
        for places in ([1, 20, 55], [3, 28, 90])
    )
    assert not torch.allclose(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_files(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed (pip install safetensors)")
    path = tmp_path / "w.safetensors"
    w = random((33, 20), torch.float32)
    sparse = nn.SparseSpectralTensor.from_dense(w, 0.2)
    for small in (
        nn.PolarQuantizer(12).quantize(w),
        nn.PolarQuantizer(8, levels="fitted").quantize(w.to(torch.complex128)),
        nn.Int8Quantizer().quantize(w.bfloat16()),
    ):
        nn.save(small, path)
        again = nn.load(path)
        assert again.nbytes == small.nbytes
        assert (again.shape, again.dtype) == (small.shape, small.dtype)
        assert torch.equal(again.dequantize(), small.dequantize())
    for small in (sparse, sparse.quantize(nn.Int8Quantizer())):
        nn.save(small, str(path))
        again = nn.load(str(path))
        assert again.nbytes == small.nbytes
        assert again.retained_energy == small.retained_energy
        assert torch.equal(again.dense(), small.dense())
    x = random((2, 33), torch.float32)
    for bias in (True, False):
        layer = nn.spectralize(torch.nn.Linear(33, 7, bias=bias), keep=0.3, sample=x)
        nn.save(layer, path)
        again = nn.load(path)
        assert torch.equal(again(x), layer(x))
        assert again.report == layer.report
        assert path.stat().st_size < layer.report.nbytes + 7 * 4 + 2000
    assert [one.name for one in tmp_path.iterdir()] == ["w.safetensors"]


def test_entropy_codes_in_files(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed (pip install safetensors)")
    pytest.importorskip("constriction", reason="constriction is not installed (pip install constriction)")
    small = nn.PolarQuantizer(8, entropy_coded=True).quantize(random((300, 300), torch.complex64))
    nn.save(small, tmp_path / "w")
    again = nn.load(tmp_path / "w")
    assert torch.equal(again.dequantize(), small.dequantize())
    assert (tmp_path / "w").stat().st_size < 300 * 300 + 1000  # the bytes are real
    x = random((2, 300), torch.float32)
    right = x.to(torch.complex64) @ small.dequantize()
    assert torch.allclose(nn.block_streaming_matmul(x, again, 64), right, atol=1e-3)
    with pytest.raises(ArgumentError, match="CPU"):
        small.to("cuda")


def test_files_that_are_refused(tmp_path, monkeypatch):
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed (pip install safetensors)")
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"):
        nn.load(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ArgumentError, match="damaged"):
        nn.load(path)
    library.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ArgumentError, match="format"):
        nn.load(path)
    sparse = nn.SparseSpectralTensor.from_dense(random((64, 20), torch.float32), 0.05, panel=16)
    nn.save(sparse, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ArgumentError, match="damaged"):
        nn.load(path)
    tensors = library.load(whole)
    about = __import__("json").loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    for name, wrong in (("sizes", tensors["sizes"] + 1), ("values", tensors["values"][:-1])):
        library.save_file({**tensors, name: wrong}, path, metadata=about)
        with pytest.raises(ArgumentError, match="damaged"):
            nn.load(path)
    for part, number in (('"kind": "sparse"', '"kind": "dense"'), ('"shape": [64, 20]', '"shape": []')):
        assert part in about["about"]
        library.save_file(tensors, path, metadata={**about, "about": about["about"].replace(part, number)})
        with pytest.raises(ArgumentError, match="damaged"):
            nn.load(path)
    library.save_file({**tensors, "codes": torch.full_like(tensors["codes"], 254)}, path, metadata=about)
    with pytest.raises(ShapeError, match="damaged"):
        nn.load(path).dense()
    with pytest.raises(ArgumentTypeError, match="Tensor"):
        nn.save(torch.zeros(3), path)

    def fails(*arguments, **others):
        raise OSError("no space left")

    nn.save(sparse, path)
    before = path.read_bytes()
    monkeypatch.setattr(library, "save_file", fails)
    with pytest.raises(OSError, match="no space"):
        nn.save(sparse, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_refused():
    w = random((8, 6))
    for keep in (0, 0.0, -0.1, 1.1, math.nan, True, "1%", None):
        with pytest.raises(ArgumentError, match="keep"):
            nn.SparseSpectralTensor.from_dense(w, keep)
        with pytest.raises(ArgumentError, match="keep"):
            nn.spectralize(torch.nn.Linear(3, 4), keep=keep)
    small = nn.SparseSpectralTensor.from_dense(w, 0.5)
    coded = nn.PolarQuantizer(8).quantize(w)
    for call, error, words in (
        (lambda: nn.SparseSpectralTensor.from_dense([1.0]), ArgumentTypeError, "list"),
        (lambda: nn.SparseSpectralTensor.from_dense(torch.zeros(3, dtype=torch.int8)), DtypeError, "int8"),
        (lambda: nn.SparseSpectralTensor.from_dense(torch.zeros(0, 3)), ShapeError, "element"),
        (lambda: nn.SparseSpectralTensor.from_dense(torch.full((3,), math.inf)), ArgumentError, "finite"),
        (lambda: nn.SparseSpectralTensor.from_dense(w, panel=0), ArgumentError, "panel"),
        (lambda: nn.spectralize(torch.nn.Conv1d(3, 4, 1), keep=0.5), ArgumentTypeError, "Conv1d"),
        (lambda: nn.SpectralLinear(w), ArgumentTypeError, "Tensor"),
        (lambda: nn.SpectralLinear(small, torch.zeros(5)), ShapeError, r"\(6,\)"),
        (lambda: nn.block_streaming_matmul(w.T, w), ArgumentTypeError, "Tensor"),
        (lambda: nn.block_streaming_matmul([1.0], small), ArgumentTypeError, "list"),
        (lambda: nn.block_streaming_matmul(w, small), ShapeError, "8"),
        (lambda: nn.block_streaming_matmul(w, coded), ShapeError, "8"),
        (lambda: nn.block_streaming_matmul(torch.ones(8, dtype=torch.int64), small), DtypeError, "int64"),
        (lambda: nn.block_streaming_matmul(torch.ones(8, device="meta"), small), BackendUnavailable, "meta"),
        (lambda: nn.block_streaming_matmul(w.T, small, 3), ShapeError, "panel=3"),
        (lambda: nn.block_streaming_matmul(w.T, coded, 0), ArgumentError, "block"),
        (lambda: nn.block_streaming_matmul(w, nn.SparseSpectralTensor.from_dense(w[0])), ShapeError, "matrix"),
    ):
        with pytest.raises(error, match=words):
            call()


MEMORY = """
import torch
from pathlib import Path
from adaptive_compute import nn

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

side, last = 16384, 8193
places = torch.arange(1, side * last, 100)
places = places[(places % last > 0) & (places % last < last - 1)]
weight = nn.SparseSpectralTensor.from_spectrum((side, side), places, torch.ones(len(places), dtype=torch.complex64))
del places
x = torch.ones(8, side)
nn.block_streaming_matmul(x[:, :4096], nn.SparseSpectralTensor.from_dense(torch.ones(4096, 1)))  # imports
before = peak()
nn.block_streaming_matmul(x, weight)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from Linux's /proc")
def test_the_matrix_is_never_in_memory():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 64  # MiB; the dense matrix has 1024


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
def test_on_cuda():
    w = random((300, 200), torch.float32)
    small = nn.SparseSpectralTensor.from_dense(w, 0.1, panel=64)
    x = random((5, 300), torch.float32)
    found = []
    for one in (small, small.to("cuda")):
        moved, values = (t.detach().clone().to(one.device).requires_grad_() for t in (x, one.values))
        weight = nn.SparseSpectralTensor(one.shape, one.dtype, one.index, values)
        y = nn.block_streaming_matmul(moved, weight)
        y.square().sum().backward()
        found.append([t.detach().cpu() for t in (y, moved.grad, values.grad)])
    for one, other in zip(*found):
        assert (one - other).norm() <= 1e-5 * one.norm()
    for quantizer in (nn.PolarQuantizer(8), nn.PolarQuantizer(12), nn.Int8Quantizer()):
        coded = quantizer.quantize(w.cuda())
        assert coded.device.type == "cuda"
        y = nn.block_streaming_matmul(x.cuda(), coded, 64)
        right = x.cuda().double() @ coded.dequantize().double()
        assert (y - right).norm() <= 1e-5 * right.norm()
