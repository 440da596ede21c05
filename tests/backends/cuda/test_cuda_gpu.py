"""Transfers, host batches, memory and several GPUs on the real thing: skipped where there is none."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.cuda import driver
from adaptive_compute.core.errors import AdaptiveError, AdaptiveWarning
from adaptive_compute.core.registry import registry

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.skipif(not driver.found().gpus or not torch.version.cuda, reason="this machine has no GPU"),
    pytest.mark.filterwarnings(f"ignore::{AdaptiveWarning.__module__}.{AdaptiveWarning.__name__}"),
]
two_gpus = pytest.mark.skipif(len(driver.found().gpus) < 2, reason="this machine has one GPU at most")
SIZES = [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (9 << 20) + 3, (75 << 20) + 5]


@pytest.fixture
def backend():
    return registry.require("cuda")


@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_goes_there_and_back(backend, size, threads):
    from adaptive_compute.backends.cuda import link

    host = np.random.default_rng(size).integers(0, 255, size, np.uint8)
    host.flags.writeable = False
    with ac.using(threads=threads):
        there = backend.upload(host, "cuda:0")
        assert np.array_equal(there.cpu().numpy(), host)
        assert np.array_equal(backend.download(there), host)
        out = np.empty_like(host)
        assert link.download(there, out) is out
    assert np.array_equal(out, host)


@pytest.mark.parametrize("dtype", ["bool", "int16", "float16", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("large", [False, True])
def test_any_dtype_and_layout(backend, dtype, large):
    whole = np.random.default_rng(0).integers(0, 2, (6, 700 if large else 7, 400)).astype(dtype)
    for host in (whole, whole[::2, :, ::-1], whole.transpose(2, 0, 1), np.asfortranarray(whole), whole[:, :1, :1]):
        assert np.array_equal(backend.download(backend.upload(host, "cuda:0")), host)
    there = backend.upload(whole, "cuda:0")
    assert np.array_equal(backend.download(there.permute(2, 0, 1)), whole.transpose(2, 0, 1))
    if whole.dtype.kind == "c":
        assert np.array_equal(backend.download(there.conj()), whole.conj())
        assert np.array_equal(backend.download(there.conj().imag), whole.conj().imag)


def test_bfloat16_comes_back_as_a_tensor(backend):
    for size in (100, 3 << 20):
        tensor = torch.randn(size).to(torch.bfloat16)
        there = backend.upload(tensor, "cuda:0")
        assert there.dtype is torch.bfloat16
        assert torch.equal(backend.download(there), tensor)


def test_the_caller_may_write_to_an_array_that_was_uploaded(backend):
    for size in (1 << 12, 1 << 21, 1 << 26):
        host = np.ones(size, np.uint8)
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(10_000_000)
            there = backend.upload(host, "cuda:0")
            host[:] = 2
            assert int((there == 1).sum()) == size


def test_work_on_the_callers_stream_is_ordered(backend):
    stream = torch.cuda.Stream()
    for size in (1 << 10, 1 << 24):
        with torch.cuda.stream(stream):
            x = torch.zeros(size, device="cuda")
            torch.cuda._sleep(20_000_000)
            x += 1
            assert backend.download(x).min() == 1
            y = backend.upload(np.full(size, 3, np.float32), "cuda:0") * 2
            assert float(y.min()) == float(y.max()) == 6


def together(count, work):
    failed = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert not any(thread.is_alive() for thread in running), "threads wait for each other"
    assert not failed, failed


def test_several_threads_at_once(backend):
    def work(number):
        rng = np.random.default_rng(number)
        for size in (100, 3 << 20, 33 << 20, 5 << 20):
            host = rng.integers(0, 255, size + number, np.uint8)
            assert np.array_equal(backend.download(backend.upload(host, "cuda:0")), host)

    together(8, work)


@pytest.mark.parametrize("name", ["fft", "rfft", "irfft", "ihfft", "hfft"])
def test_host_batches_through_the_gpu(name):
    rng = np.random.default_rng(0)
    for shape in ((4099, 256), (700, 3, 1025)):
        x = rng.standard_normal(shape).astype(np.float32)
        if name in ("fft", "irfft", "hfft"):
            x = x + 1j * rng.standard_normal(shape).astype(np.float32)
        expected = getattr(np.fft, name)(x.astype(np.result_type(x, np.float64)))
        for threads in (None, 1):
            with ac.using(kernel="torch", device="cuda:0", threads=threads):
                result = getattr(ac, name)(x)
            assert np.linalg.norm(result - expected) <= 6e-7 * np.linalg.norm(expected)


def test_host_batches_from_several_threads():
    def work(number):
        x = (
            np.random.default_rng(number)
            .standard_normal((3000 + number, 512, 2), np.float32)
            .view(np.complex64)[..., 0]
        )
        with ac.using(kernel="torch", device="cuda:0"):
            for _ in range(3):
                result = ac.fft(x)
                expected = np.fft.fft(x[::97])
                assert np.linalg.norm(result[::97] - expected) <= 6e-7 * np.linalg.norm(expected)

    together(6, work)


def test_what_cannot_fit_ends_in_an_error_and_the_next_call_works(backend):
    backend.release()
    free, _ = torch.cuda.mem_get_info()
    x = torch.zeros(int(free * 0.6) // 8, dtype=torch.complex64, device="cuda")
    for kernel in ("torch", "cupy", None):
        with ac.using(kernel=kernel, device="cuda:0"), pytest.raises((MemoryError, AdaptiveError)):
            ac.fft(x)
        assert ac.fft(torch.ones(8, device="cuda")).sum().item() == 8
    del x
    backend.release()
    assert torch.cuda.mem_get_info()[0] >= free - (256 << 20)


def test_memory_kept_for_later_calls_makes_room(backend):
    """What plans and pools keep is given up before a call fails."""
    import cupy

    backend.release()
    free, _ = torch.cuda.mem_get_info()
    hoard = cupy.zeros(int(free * 0.7), cupy.uint8)
    del hoard  # now in CuPy's pool, which torch knows nothing of
    x = torch.zeros(int(free * 0.25) // 8, dtype=torch.complex64, device="cuda")
    try:
        with ac.using(kernel="torch", device="cuda:0"):
            assert ac.fft(x.reshape(-1, 16)[:, :8]).shape[-1] == 8
    finally:
        del x
        backend.release()


def test_released_means_given_back():
    ac.release()
    x = np.zeros((4096, 1024), np.complex64)
    with ac.using(kernel="torch", device="cuda:0"):
        ac.fft(x)
    ac.release()
    assert torch.cuda.memory_reserved() <= 32 << 20
    with ac.using(kernel="torch", device="cuda:0"):
        assert not ac.fft(x).any()


@two_gpus
def test_every_gpu_computes():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((64, 512)) + 1j * rng.standard_normal((64, 512))).astype(np.complex64)
    a, b = (rng.standard_normal(5000).astype(np.float32) for _ in range(2))
    points = [rng.uniform(-3, 3, 2000).astype(np.float32) for _ in range(2)]
    strengths = (rng.standard_normal(2000) + 1j * rng.standard_normal(2000)).astype(np.complex64)
    q = rng.standard_normal((1, 2, 64, 32)).astype(np.float32)
    with ac.using("cpu"):
        expected = (
            ac.fft(x), ac.evaluate("a*b + sin(a)", a=a, b=b), ac.nufft.nufft2d1(*points, strengths, (20, 30), eps=1e-4),
            ac.attention(q, q, q, mask=ac.Window(9)), ac.sum(x, axis=0), ac.scatter_add(a, np.arange(5000) % 7, 7),
        )  # fmt: skip
    for device in ("cuda:0", "cuda:1"):
        move = lambda h, d=device: ac.to(torch.from_numpy(h), d)  # noqa: E731
        found = (
            ac.fft(move(x)), ac.evaluate("a*b + sin(a)", a=move(a), b=move(b)),
            ac.nufft.nufft2d1(*map(move, points), move(strengths), (20, 30), eps=1e-4),
            ac.attention(*(move(q),) * 3, mask=ac.Window(9)), ac.sum(move(x), axis=0),
            ac.scatter_add(move(a), np.arange(5000) % 7, 7),
        )  # fmt: skip
        for result, right in zip(found, expected):
            assert str(result.device) == device
            error = np.linalg.norm(result.cpu().numpy() - right) / np.linalg.norm(right)
            assert error < 1e-3
        batch = np.random.default_rng(1).standard_normal((4096, 512, 2), np.float32).view(np.complex64)[..., 0]
        with ac.using(kernel="torch", device=device):
            assert np.allclose(ac.fft(batch), np.fft.fft(batch), atol=1e-3)


@two_gpus
def test_one_gpu_to_another(backend):
    x = torch.randn(1 << 22, device="cuda:0")
    moved = ac.to(x, "cuda:1")
    assert str(moved.device) == "cuda:1"
    assert torch.equal(moved.cpu(), x.cpu())


@two_gpus
def test_operands_on_two_gpus_are_refused_or_moved_where_that_is_allowed():
    a, b = torch.ones(1000, device="cuda:0"), torch.ones(1000, device="cuda:1")
    with pytest.raises(AdaptiveError, match="cuda:1"):
        ac.evaluate("a + b", a=a, b=b)
    with ac.using(transfers="allow"):
        result = ac.evaluate("a + b", a=a, b=b)
    assert float(result.sum()) == 2000


@two_gpus
def test_streams_of_each_gpu_are_respected(backend):
    for device in ("cuda:1", "cuda:0"):
        stream = torch.cuda.Stream(device)
        with torch.cuda.stream(stream):
            x = torch.zeros(1 << 20, device=device)
            torch.cuda._sleep(20_000_000)
            x += 1
            results = ac.evaluate("2*x", x=x), ac.sum(x), ac.norm(x), ac.fft(x), ac.to(x, "cuda:0"), ac.to(x, "cuda:1")
            doubled, total, norm, spectrum, *moved = [r.cpu() for r in results]
        assert float(doubled.min()) == 2
        assert float(total) == 1 << 20
        assert float(norm) == 1 << 10
        assert float(spectrum[0].real) == 1 << 20
        assert all(float(m.min()) == 1 for m in moved)


def test_expressions_of_cupy_arrays_are_computed_where_they_are():
    cupy = pytest.importorskip("cupy", reason="pip install 'adaptive-compute[cuda13]' brings CuPy")
    rng = np.random.default_rng(0)
    host = rng.standard_normal((33, 65)).astype(np.float32)
    a = cupy.asarray(host)
    row = cupy.asarray(host[0])
    stream = cupy.cuda.Stream(non_blocking=True)
    with ac.using(kernel="fused"):
        for view in (lambda x: x, lambda x: x[::-1], lambda x: x[:, ::2], lambda x: x[1:, 1:], lambda x: x[:, :1]):
            for _ in range(2):
                got = ac.evaluate("a*b + sin(a)", a=view(a), b=view(a))
                assert type(got) is cupy.ndarray
                right = view(host) * view(host) + np.sin(view(host))
                assert np.allclose(cupy.asnumpy(got), right, atol=1e-6)
        assert np.allclose(cupy.asnumpy(ac.evaluate("a + r", a=a, r=row)), host + host[0])
        assert ac.evaluate("a + r", a=a[:0], r=row).shape == (0, 65)
        with stream:
            x = cupy.zeros(1 << 22, cupy.float32)
            for _ in range(50):
                x += 1
            y = ac.evaluate("2*x", x=x)
        stream.synchronize()
    assert float(y.min()) == float(y.max()) == 100
    assert np.allclose(cupy.asnumpy(ac.evaluate("a + 1.5", a=a)), host + 1.5)
    mixed = ac.evaluate("a + b", a=a, b=torch.from_numpy(host).cuda())
    assert type(mixed) is cupy.ndarray
    assert np.allclose(cupy.asnumpy(mixed), 2 * host)


@pytest.mark.parametrize("kernel", ["torch", "cupy"])
def test_a_batch_in_pieces_is_what_it_is_as_a_whole(kernel):
    rng = np.random.default_rng(0)
    for shape in ((4097, 256), (3, 1 << 20), (9, 700, 300)):
        x = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
        right = np.fft.fft(x)
        with ac.using(kernel=kernel, device="cuda:0"):
            ac.transfers(reset=True)
            for _ in range(6):  # until the memory of results is locked
                got = ac.fft(x)
                assert np.linalg.norm(got - right) <= 6e-7 * np.linalg.norm(right)
                del got
            counted = ac.transfers(reset=True)["transfers"]
            got = ac.fft(x[::-1].conj())
            assert np.linalg.norm(got - np.fft.fft(x[::-1].conj())) <= 6e-7 * np.linalg.norm(right)
        assert counted["cpu -> cuda:0"]["bytes"] == counted["cuda:0 -> cpu"]["bytes"] == 6 * x.nbytes


def test_expressions_in_pieces():
    rng = np.random.default_rng(0)
    a, column = rng.standard_normal((3001, 1031)), rng.standard_normal((3001, 1))
    row = rng.standard_normal(1031)
    for kernel in ("fused", "torch"):
        with ac.using(kernel=kernel, device="cuda:0"):
            got = ac.evaluate("a*r + c*s + 0.5", a=a, r=row, c=column, s=2.0)
            assert np.allclose(got, a * row + 2 * column + 0.5)
            assert np.allclose(ac.evaluate("a + a", a=a.T), 2 * a.T)
    half = torch.randn(3000, 2000).to(torch.bfloat16)
    with ac.using("cuda"):
        assert torch.equal(ac.evaluate("2*x", x=half), 2 * half)


@pytest.mark.parametrize("size", [1000, 1 << 18, 1 << 21])
def test_the_caller_may_write_to_a_part_of_locked_memory_that_was_uploaded(backend, size):
    whole = np.ones(16 << 20, np.uint8)
    for _ in range(5):
        backend.upload(whole, "cuda:0")
    part = whole[4096 : 4096 + size]
    for _ in range(3):
        part[:] = 1
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(20_000_000)
            there = backend.upload(part, "cuda:0")
            part[:] = 2
            assert int((there == 1).sum()) == size
    into = np.zeros(16 << 20, np.uint8)
    for _ in range(5):
        assert from_gpu(backend, torch.ones(16 << 20, dtype=torch.uint8, device="cuda"), into).all()
    for _ in range(3):
        with torch.cuda.stream(torch.cuda.Stream()):
            x = torch.zeros(size, dtype=torch.uint8, device="cuda")
            torch.cuda._sleep(20_000_000)
            x += 7
            assert (from_gpu(backend, x, into[:size]) == 7).all()


def from_gpu(backend, tensor, out):
    from adaptive_compute.backends.cuda import link

    return link.download(tensor, out)


def test_memory_that_shares_a_page_with_locked_memory(backend):
    from adaptive_compute.backends.cuda.pinned import LEAST, pinned

    whole = np.empty(LEAST + 12_288, np.uint8)  # stands for the allocator's: parts of it belong to several arrays
    start = -whole.ctypes.data % 4096 + 1000
    host = whole[start : start + LEAST]
    there = backend.upload(np.zeros(LEAST, np.uint8), "cuda:0")
    for turn in range(6):  # locked on the way
        host[:] = turn
        assert int((backend.upload(host, "cuda:0") == turn).sum()) == LEAST
        assert (from_gpu(backend, there + turn, host) == turn).all()
    assert pinned.total
    stream = torch.cuda.Stream()
    for turn, place in enumerate((0, start - 100, start + LEAST - 100, start + LEAST + 50)):
        near = whole[place : place + 200]
        with torch.cuda.stream(stream):
            torch.cuda._sleep(5_000_000)
            near[:] = turn
            up = backend.upload(near, "cuda:0")
            near[:] = 99
            assert (from_gpu(backend, up + 1, near) == turn + 1).all()


def test_small_arrays_of_a_shape_that_was_met_before(backend):
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (7, 5), (3, 4, 5), (1 << 18,)):
        for dtype in (np.float32, np.complex128, np.int16, np.bool_):
            for _ in range(3):
                host = np.asarray(rng.integers(0, 2, shape), dtype)
                for array in (host, np.asfortranarray(host), np.stack([host, host])[1, ...]):
                    there = backend.upload(array, "cuda:0")
                    assert there.shape == array.shape
                    assert np.array_equal(there.cpu().numpy(), array)
                    assert np.array_equal(backend.download(there), array)
