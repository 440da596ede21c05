"""The driver's calls, against a library of the same names whose GPU is host memory."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading

import numpy as np
import pytest

from adaptive_compute.backends.cuda import raw

SOURCE = r"""
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long ptr;
static __thread void *current;
static long events;
int cuDeviceGet(int *device, int index) { *device = index + 40; return index < 2 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(size_t)(device * 8); return 0; }
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuCtxGetCurrent(void **context) { *context = current; return 0; }
int cuEventCreate(void **event, unsigned flags) {
  if (!current) return 201;
  *event = calloc(1, 8); events++; return flags == 2 ? 0 : 1;
}
int cuEventRecord(void *event, void *stream) { *(int *)event = stream == (void *)7 ? 2 : 0; return 0; }
int cuEventQuery(void *event) { return *(int *)event ? 600 : 0; }
int cuEventSynchronize(void *event) { *(int *)event = 0; return 0; }
int cuEventDestroy_v2(void *event) { free(event); events--; return 0; }
int cuMemcpyHtoDAsync_v2(ptr to, const void *from, size_t n, void *s) {
  if (!current) return 201;
  memcpy((void *)to, from, n); return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, ptr from, size_t n, void *s) {
  if (!current) return 201;
  memcpy(to, (void *)from, n); return 0;
}
static int waited[16];
int cuStreamSynchronize(void *stream) { waited[(size_t)stream]++; return 0; }
int waits(size_t stream) { return waited[stream]; }
static void *locked[16];
int cuMemHostRegister_v2(void *p, size_t n, unsigned flags) {
  for (int i = 0; i < 16; i++) if (locked[i] == p) return 712;
  for (int i = 0; i < 16; i++) if (!locked[i]) { locked[i] = p; return flags == 1 ? 0 : 1; }
  return 2;
}
int cuMemHostUnregister(void *p) {
  for (int i = 0; i < 16; i++) if (locked[i] == p) { locked[i] = 0; return 0; }
  return 713;
}
int cuPointerGetAttribute(void *found, int attribute, ptr p) {
  for (int i = 0; i < 16; i++) if (locked[i] && (ptr)locked[i] <= p && p < (ptr)locked[i] + 4096) {
    *(long long *)found = attribute == 2 ? 1 : -1; return 0;
  }
  return 1;
}
static long long started[8];
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  if (!current) return 201;
  if (by != 1 || bz != 1 || shared || extra || !f) return 1;
  started[0] = gx; started[1] = gy; started[2] = gz; started[3] = bx; started[4] = (long long)stream;
  started[5] = *(long long *)arguments[0]; started[6] = *(int *)arguments[1]; started[7] = (long long)current;
  return 0;
}
long long *kernels(void) { return started; }
int cuGetErrorString(int code, const char **text) {
  *text = code == 201 ? "invalid device context" : "other"; return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "fake.c").write_text(SOURCE)
    library = folder / "libfake.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "fake.c")], check=True)
    return raw.Driver(str(library))


def test_copies_and_events(driver):
    before = driver.current()
    driver.enter(driver.context(1))
    assert driver.current() == 41 * 8
    host, there, back = np.arange(5000, dtype=np.uint8), np.zeros(5000, np.uint8), np.zeros(5000, np.uint8)
    event = driver.event()
    driver.up(there.ctypes.data + 100, host.ctypes.data, 900, 7, event)
    driver.wait(event)
    assert np.array_equal(there[100:1000], host[:900])
    assert not there[:100].any()
    assert not there[1000:].any()
    driver.down(back.ctypes.data, there.ctypes.data + 100, 900, 9, event)
    driver.wait(event)
    assert np.array_equal(back[:900], host[:900])
    driver.destroy(event)
    driver.enter(before)


def test_errors_come_in_the_drivers_words(driver):
    found = []

    def without_context():
        try:
            driver.event()
        except RuntimeError as error:
            found.append(str(error))

    thread = threading.Thread(target=without_context)
    thread.start()
    thread.join()
    assert found == ["CUDA error 201: invalid device context"]
    with pytest.raises(RuntimeError, match="CUDA error 101"):
        driver.context(5)


def test_only_pinned_memory_is_waited_for(driver):
    driver.enter(driver.context(0))
    whole, there = np.arange(8192, dtype=np.uint8), np.zeros(8192, np.uint8)
    host, device = whole.ctypes.data, there.ctypes.data

    def waited(copy, *arguments):
        before = driver._quick.waits(5)
        assert copy(*arguments)
        return driver._quick.waits(5) - before

    assert waited(driver.pageable_up, device, host, 8192, 5, True) == 0  # ordinary memory: the driver has read it
    assert np.array_equal(there, whole)
    assert driver.pin(host + 4096, 4096)  # by somebody, and not from the beginning
    assert waited(driver.pageable_up, device, host, 8192, 5, True) == 1
    assert waited(driver.pageable_down, host, device, 8192, 5, True) == 1
    assert waited(driver.pageable_up, device, host, 4096, 5, True) == 0  # ends before it
    assert waited(driver.pageable_down, host, device, 8192, 5, False) == 0  # known to be nobody's
    driver.unpin(host + 4096)
    assert waited(driver.pageable_down, host, device, 8192, 5, True) == 0


def test_a_kernel_finds_its_arguments_also_in_a_thread_that_is_new_to_the_gpu(driver):
    from adaptive_compute.backends.cuda.fused import Slots

    driver._quick.kernels.restype = ctypes.POINTER(ctypes.c_longlong)
    slots = Slots([np.uint32(7)], [(), (3, 4)])
    out, pointers = 1 << 40, ((1 << 41) + 1, (1 << 42) + 5)
    seen = []

    def work():
        driver.launch(1 << 33, (5, 6), 256, 1 << 45, slots.filled(out, pointers), 1)
        seen.extend(driver._quick.kernels()[:8])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [5, 6, 1, 256, 1 << 45, out, 7, 41 * 8]
    slots.filled(out, pointers)
    places = list(slots.places)
    read = [ctypes.c_int64.from_address(place).value for place in (places[0], *places[2:])]
    assert read == [out, pointers[0], pointers[1], 3, 4]
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        driver.launch(0, (5,), 256, 0, slots.filled(out, pointers), 0)


def test_addresses_are_not_cut_to_32_bits(driver):
    for name, arguments in raw._SIGNATURES.items():
        assert all(kind is not ctypes.c_int or name in ("cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuGetErrorString")
                   for kind in arguments), name  # fmt: skip


def test_a_stager_moves_everything_by_these_calls(driver, monkeypatch):
    torch = pytest.importorskip("torch")
    from adaptive_compute.backends.cuda import link
    from adaptive_compute.core.staging import Stager

    class Stream:
        cuda_stream = 7

    empty = torch.empty
    monkeypatch.setattr(link, "driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "Stream", lambda index: Stream())
    monkeypatch.setattr(torch, "empty", lambda n, **given: empty(n, dtype=given["dtype"]))
    engine = Stager(link.CudaLink(0), chunk=1 << 19, buffers=6)
    for size in (1, (3 << 20) + 17, 20 << 20):
        host = np.random.default_rng(size).integers(0, 255, size, np.uint8)
        there, back = np.zeros_like(host), np.zeros_like(host)
        for threads, lanes in ((1, 1), (3, 3), (4, 2)):
            engine.up(host, there.ctypes.data, threads, lanes)
            assert np.array_equal(there, host)
            engine.down(there.ctypes.data, back, threads, lanes)
            assert np.array_equal(back, host)
            there[:], back[:] = 0, 0
    assert engine.release() <= 6 << 19


def test_an_event_goes_with_its_buffer_but_not_at_the_interpreters_end(driver, monkeypatch):
    torch = pytest.importorskip("torch")
    from adaptive_compute.backends.cuda import link

    empty, gone = torch.empty, []
    monkeypatch.setattr(link, "driver", lambda: driver)
    monkeypatch.setattr(torch, "empty", lambda n, **given: empty(n, dtype=given["dtype"]))
    monkeypatch.setattr(driver, "destroy", gone.append)
    driver.enter(driver.context(0))
    buffer = link.PinnedBuffer(100)
    event = buffer.event
    assert not buffer.finalizer.atexit
    assert gone == []
    del buffer
    assert gone == [event]
