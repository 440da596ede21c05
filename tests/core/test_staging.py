"""The transfer engine against a simulated device, whose copies finish late and whose memory is only bytes."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from adaptive_compute.core.staging import Stager


class Memory:
    """Pinned memory of the simulation."""

    def __init__(self, nbytes):
        self.array = np.full(nbytes, 0xEE, np.uint8)


class SlowLink:
    """A link whose copies happen only when they are waited for, or when a later one of the same buffer needs them."""

    def __init__(self, seconds=0.0):
        self.seconds, self.lock = seconds, threading.Lock()
        self.allocated = self.copies = self.running = self.most = 0
        self.fail_at = None
        self.entered = {}

    def allocate(self, nbytes):
        with self.lock:
            self.allocated += 1
        return Memory(nbytes)

    @contextlib.contextmanager
    def going(self, up):
        assert threading.get_ident() not in self.entered, "one direction within another"
        self.entered[threading.get_ident()] = up
        try:
            yield
        finally:
            del self.entered[threading.get_ident()]

    def _start(self, action):
        with self.lock:
            self.copies += 1
            if self.fail_at == self.copies:
                raise RuntimeError("the link failed")
            self.running += 1
            self.most = max(self.most, self.running)
        done = threading.Event()

        def later():
            time.sleep(self.seconds)
            action()
            with self.lock:
                self.running -= 1
            done.set()

        threading.Thread(target=later).start()
        return done

    def send(self, buffer, nbytes, target, offset):
        assert self.entered.get(threading.get_ident(), True)

        def action():
            target[offset : offset + nbytes] = buffer.array[:nbytes]

        return self._start(action)

    def fetch(self, source, offset, buffer, nbytes):
        assert not self.entered.get(threading.get_ident(), False)

        def action():
            buffer.array[:nbytes] = source[offset : offset + nbytes]

        return self._start(action)

    def wait(self, copy):
        assert copy.wait(10)


def settle(stager):
    stager.release()  # waits for every copy


@pytest.mark.parametrize("buffers", [1, 2, 4])
@pytest.mark.parametrize("nbytes", [0, 1, 999, 1000, 1001, 17_345])
def test_every_byte_goes_both_ways_while_buffers_are_used_again(nbytes, buffers):
    link = SlowLink(0.001)
    stager = Stager(link, chunk=1000, buffers=buffers)
    host = np.random.default_rng(nbytes).integers(0, 255, nbytes, np.uint8)
    device, back = np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    stager.up(host, device)
    settle(stager)
    assert np.array_equal(device, host)
    stager.down(device, back)
    assert np.array_equal(back, host)
    assert link.allocated <= 2 * buffers


def test_the_host_array_may_change_as_soon_as_up_returns():
    link = SlowLink(0.02)
    stager = Stager(link, chunk=100, buffers=20)
    host = np.arange(1000, dtype=np.uint16).view(np.uint8)[:1000].copy()
    kept, device = host.copy(), np.zeros(1000, np.uint8)
    stager.up(host, device)
    host[:] = 0
    settle(stager)
    assert np.array_equal(device, kept)


@pytest.mark.parametrize("way", ["up", "down"])
def test_copies_overlap(way):
    link = SlowLink(0.02)
    stager = Stager(link, chunk=100, buffers=8)
    getattr(stager, way)(np.ones(1600, np.uint8), np.zeros(1600, np.uint8))
    settle(stager)
    assert link.most >= 4


def test_the_host_copies_by_the_function_that_was_given():
    copied = []

    def copy(target, source):
        copied.append(source.nbytes)
        target[:] = source

    stager = Stager(SlowLink(), copy, chunk=100, buffers=2)
    stager.up(np.ones(250, np.uint8), np.zeros(250, np.uint8))
    stager.down(np.ones(150, np.uint8), np.zeros(150, np.uint8))
    assert copied == [100, 100, 50, 100, 50]


def test_one_buffer_carries_a_small_array_whole():
    link = SlowLink(0.002)
    stager = Stager(link, chunk=1000, buffers=2)
    host = np.random.default_rng(0).integers(0, 255, 1000, np.uint8)
    device, back = np.zeros(1000, np.uint8), np.zeros(1000, np.uint8)
    stager.up_whole(host, device)
    settle(stager)
    assert np.array_equal(device, host)
    stager.down_whole(device, back)
    assert np.array_equal(back, host)
    assert link.copies == 2
    link.fail_at = 3
    with pytest.raises(RuntimeError, match="the link failed"):
        stager.down_whole(device, back)
    stager.up_whole(host, device)


def test_a_small_array_goes_in_pieces_that_are_not_too_small():
    stager = Stager(SlowLink(), chunk=1 << 23)
    assert [stager.step(n) >> 10 for n in (1, 1 << 20, 1 << 22, 3 << 22, 1 << 30)] == [1024, 1024, 1024, 3072, 8192]


def test_no_more_buffers_than_allowed_and_all_come_back():
    link = SlowLink()
    stager = Stager(link, chunk=100, buffers=3)
    for _ in range(5):
        stager.up(np.ones(5000, np.uint8), np.zeros(5000, np.uint8))
    assert link.allocated == 3
    assert stager.release() == 300
    assert stager.release() == 0
    stager.up(np.ones(100, np.uint8), np.zeros(100, np.uint8))
    assert link.allocated == 4


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_failing_link_raises_and_the_next_transfer_works(way):
    link = SlowLink()
    stager = Stager(link, chunk=100, buffers=3)
    link.fail_at = 7
    a, b = np.ones(5000, np.uint8), np.zeros(5000, np.uint8)
    with pytest.raises(RuntimeError, match="the link failed"):
        getattr(stager, way)(a, b)
    link.fail_at = None
    getattr(stager, way)(a, b)
    settle(stager)
    assert b.all()


def test_several_threads_at_once():
    link = SlowLink(0.0005)
    stager = Stager(link, chunk=256, buffers=5)
    rng = np.random.default_rng(0)
    data = [rng.integers(0, 255, 5000 + i, np.uint8) for i in range(6)]
    devices = [np.zeros_like(d) for d in data]
    backs = [np.zeros_like(d) for d in data]

    def there_and_back(i):
        stager.up(data[i], devices[i])
        while not np.array_equal(devices[i], data[i]):  # the simulation has no stream to order the two
            time.sleep(0.001)
        stager.down(devices[i], backs[i])

    running = [threading.Thread(target=there_and_back, args=(i,)) for i in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert all(np.array_equal(d, b) for d, b in zip(data, backs))
