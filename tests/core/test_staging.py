"""The transfer engine against a simulated device, whose copies finish late and whose memory is only bytes."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import numpy as np
import pytest

from adaptive_compute.core import staging
from adaptive_compute.core.staging import Stager


class Memory:
    """Pinned memory of the simulation."""

    def __init__(self, nbytes):
        self.array = np.full(nbytes, 0xEE, np.uint8)


class SlowLink:
    """A link whose copies happen some time after they were asked for, each in a thread of its own."""

    def __init__(self, seconds=0.0):
        self.seconds, self.lock = seconds, threading.Lock()
        self.allocated = self.copies = self.running = self.most = 0
        self.fail_at = None
        self.lanes, self.threads = set(), set()
        self.done = {}

    def allocate(self, nbytes):
        with self.lock:
            self.allocated += 1
        return Memory(nbytes)

    @contextlib.contextmanager
    def lane(self, threads):
        self.threads.add(threads)
        thread = threading.get_ident()
        assert thread not in self.lanes, "one lane within another"
        self.lanes.add(thread)
        try:
            yield
        finally:
            self.lanes.remove(thread)

    def _start(self, buffer, action):
        assert threading.get_ident() in self.lanes
        assert id(buffer) not in self.done, "a buffer was used again before its copy was waited for"
        with self.lock:
            self.copies += 1
            if self.fail_at == self.copies:
                raise RuntimeError("the link failed")
            self.running += 1
            self.most = max(self.most, self.running)
        done = self.done[id(buffer)] = threading.Event()

        def later():
            time.sleep(self.seconds)
            action()
            with self.lock:
                self.running -= 1
            done.set()

        threading.Thread(target=later).start()

    def view(self, host):
        return host

    def _idle(self, buffer):
        assert id(buffer) not in self.done, "the host touches a buffer that a copy may still use"

    def fill(self, buffer, host, start, nbytes):
        self._idle(buffer)
        buffer.array[:nbytes] = host[start : start + nbytes]

    def drain(self, buffer, host, start, nbytes):
        self._idle(buffer)
        host[start : start + nbytes] = buffer.array[:nbytes]

    def send(self, buffer, nbytes, target, offset):
        def action():
            target[offset : offset + nbytes] = buffer.array[:nbytes]

        self._start(buffer, action)

    def fetch(self, source, offset, buffer, nbytes):
        def action():
            buffer.array[:nbytes] = source[offset : offset + nbytes]

        self._start(buffer, action)

    def wait(self, buffer):
        assert self.done.pop(id(buffer)).wait(10)


def settle(stager):
    stager.release()  # waits for every copy


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(staging, "SMALLEST", 1)
    monkeypatch.setattr(staging, "PAGE", 1)


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("buffers", [2, 4, 16])
@pytest.mark.parametrize("nbytes", [0, 1, 999, 1000, 1001, 17_345])
def test_every_byte_goes_both_ways_while_buffers_are_used_again(nbytes, buffers, workers):
    link = SlowLink(0.001)
    stager = Stager(link, chunk=1000, buffers=buffers)
    host = np.random.default_rng(nbytes).integers(0, 255, nbytes, np.uint8)
    device, back = np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    stager.up(host, device, workers, workers)
    settle(stager)
    assert np.array_equal(device, host)
    stager.down(device, back, workers, workers)
    assert np.array_equal(back, host)
    assert link.allocated <= 2 * buffers


def test_the_host_array_may_change_as_soon_as_up_returns():
    link = SlowLink(0.02)
    stager = Stager(link, chunk=100, buffers=20)
    host = np.arange(1000, dtype=np.uint16).view(np.uint8)[:1000].copy()
    kept, device = host.copy(), np.zeros(1000, np.uint8)
    stager.up(host, device, 4, 4)
    host[:] = 0
    settle(stager)
    assert np.array_equal(device, kept)


@pytest.mark.parametrize("way", ["up", "down"])
def test_copies_overlap(way):
    link = SlowLink(0.02)
    stager = Stager(link, chunk=100, buffers=8)
    getattr(stager, way)(np.ones(1600, np.uint8), np.zeros(1600, np.uint8), 4, 4)
    settle(stager)
    assert link.most >= 4


def test_every_lane_has_several_chunks_of_an_array_that_is_not_too_small(monkeypatch):
    monkeypatch.setattr(staging, "SMALLEST", 1000)
    monkeypatch.setattr(staging, "TURNS", 2)
    for nbytes, lanes in itertools.product((0, 1, 999, 1001, 8000, 64_001, 1 << 20), (1, 4)):
        chunks = staging.cuts(nbytes, 8000, lanes)
        assert [start for start, _ in chunks] == [0, *itertools.accumulate(n for _, n in chunks)][: len(chunks)]
        assert sum(n for _, n in chunks) == nbytes
        assert all(0 < n <= 8000 for _, n in chunks)
        assert len(chunks) >= min(2 * lanes, nbytes // 1000)


def test_threads_are_shared_out_among_lanes():
    for threads, lanes, each in ((1, 4, {1}), (8, 4, {2}), (16, 4, {4}), (6, 4, {1}), (3, 1, {3})):
        link = SlowLink()
        stager = Stager(link, chunk=100, buffers=8)
        stager.up(np.ones(5000, np.uint8), np.zeros(5000, np.uint8), threads, lanes)
        assert link.threads == each


def test_no_more_buffers_than_allowed_and_all_come_back():
    link = SlowLink()
    stager = Stager(link, chunk=100, buffers=4)
    for _ in range(5):
        stager.up(np.ones(5000, np.uint8), np.zeros(5000, np.uint8), 8, 8)
    assert link.allocated in (2, 4)
    assert stager.release() == 100 * link.allocated
    assert stager.release() == 0
    before = link.allocated
    stager.up(np.ones(100, np.uint8), np.zeros(100, np.uint8), 1)
    assert link.allocated == before + 2


def test_memory_that_cannot_be_pinned_leaves_the_stager_usable(monkeypatch):
    link = SlowLink()
    stager = Stager(link, chunk=100, buffers=4)
    monkeypatch.setattr(link, "allocate", lambda nbytes: (_ for _ in ()).throw(MemoryError("no page is left")))
    with pytest.raises(MemoryError, match="no page"):
        stager.up(np.ones(500, np.uint8), np.zeros(500, np.uint8), 3, 3)
    monkeypatch.undo()
    a, b = np.ones(500, np.uint8), np.zeros(500, np.uint8)
    stager.up(a, b, 3, 3)
    assert stager.release() <= 400
    assert b.all()


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_failing_link_raises_and_the_next_transfer_works(way):
    link = SlowLink()
    stager = Stager(link, chunk=100, buffers=4)
    link.fail_at = 7
    a, b = np.ones(5000, np.uint8), np.zeros(5000, np.uint8)
    with pytest.raises(RuntimeError, match="the link failed"):
        getattr(stager, way)(a, b, 4, 4)
    link.fail_at = None
    getattr(stager, way)(a, b, 4, 4)
    settle(stager)
    assert b.all()


def test_several_threads_at_once():
    link = SlowLink(0.0005)
    stager = Stager(link, chunk=256, buffers=6)
    rng = np.random.default_rng(0)
    data = [rng.integers(0, 255, 5000 + i, np.uint8) for i in range(6)]
    devices = [np.zeros_like(d) for d in data]
    backs = [np.zeros_like(d) for d in data]

    def there_and_back(i):
        stager.up(data[i], devices[i], 3, 3)
        while not np.array_equal(devices[i], data[i]):  # the simulation has no stream to order the two
            time.sleep(0.001)
        stager.down(devices[i], backs[i], 3, 3)

    running = [threading.Thread(target=there_and_back, args=(i,)) for i in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert all(np.array_equal(d, b) for d, b in zip(data, backs))
