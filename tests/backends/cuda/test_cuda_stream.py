"""Host operands in pieces, against a simulated device whose copies and computations finish late.

Memory of the simulation is spoilt as soon as it may be used for something else, so that a piece that is computed before
it came, or read after its place was given to another one, is wrong.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from adaptive_compute.backends.cuda import stream
from adaptive_compute.core.staging import Stager

COLUMNS = 5


class Memory:
    def __init__(self, nbytes):
        self.array = np.full(nbytes, 0xEE, np.uint8)
        self.done = None


class SlowLink:
    """Copies each way, one after the other on a thread of each direction, a while after they were asked for."""

    def __init__(self):
        self.up, self.down, self.work = (ThreadPoolExecutor(1) for _ in range(3))
        self.fail_at = None
        self.sent = self.straight = 0
        self.lock = threading.Lock()

    def allocate(self, nbytes):
        return Memory(nbytes)

    def lane(self, threads):
        return contextlib.nullcontext()

    def view(self, host):
        return host

    def fill(self, buffer, host, start, nbytes):
        assert buffer.done is None, "a buffer is filled that a copy still uses"
        buffer.array[:nbytes] = host[start : start + nbytes]

    def drain(self, buffer, host, start, nbytes):
        assert buffer.done is None
        host[start : start + nbytes] = buffer.array[:nbytes]

    def _start(self, buffer, direction, action):
        assert buffer.done is None
        with self.lock:
            self.sent += 1
            if self.sent == self.fail_at:
                raise RuntimeError("the link failed")

        def later():
            time.sleep(0.001)
            action()

        buffer.done = direction.submit(later)

    def send(self, buffer, nbytes, target, offset):
        self._start(buffer, self.up, lambda: target.bytes.__setitem__(slice(0, nbytes), buffer.array[:nbytes]))

    def send_from(self, buffer, address, nbytes, target):
        self.straight += 1
        self._start(buffer, self.up, lambda: target.bytes.__setitem__(slice(0, nbytes), at(address, nbytes)))

    def fetch(self, source, offset, buffer, nbytes):
        def action():
            buffer.array[:nbytes] = source.result()[:nbytes]

        self._start(buffer, self.down, action)

    def fetch_to(self, buffer, source, address, nbytes):
        self.straight += 1
        self._start(buffer, self.down, lambda: at(address, nbytes).__setitem__(slice(None), source.result()))

    def wait(self, buffer):
        done, buffer.done = buffer.done, None
        done.result(10)


def at(address, nbytes):
    import ctypes

    return np.frombuffer((ctypes.c_ubyte * nbytes).from_address(address), np.uint8)


class Place:
    """An operand's place on the device: earlier computations that must be over before it is written again."""

    def __init__(self, nbytes):
        self.bytes = np.full(nbytes, 0xDD, np.uint8)


class Device:
    """Computes 2*a + b, on one thread like a GPU's stream, from pieces that its link brought."""

    def __init__(self, link, step):
        self.link, self.step = link, step
        self.lanes = 0

    @contextlib.contextmanager
    def lane(self):
        self.lanes += 1
        ring = [[Place(self.step * COLUMNS * 8), Place(self.step * COLUMNS * 8), None] for _ in range(stream.RING)]
        yield ring
        for *places, _ in ring:
            for place in places:
                place.bytes[:] = 0xCC

    def targets(self, lane, turn):
        a, b, done = lane[turn % stream.RING]
        if done is not None:
            self.link.up.submit(done.result)
        return a, b

    def compute(self, lane, turn, rows):
        a, b, _ = lane[turn % stream.RING]
        came = self.link.up.submit(lambda: None)
        count = rows * COLUMNS * 8

        def work():
            came.result()
            time.sleep(0.001)
            x, y = (place.bytes[:count].view(np.float64) for place in (a, b))
            result = (2 * x + y).view(np.uint8)
            a.bytes[:] = b.bytes[:] = 0xBB
            return result

        lane[turn % stream.RING][2] = done = self.link.work.submit(work)
        return done


def cut_up(count, step):
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def run(link, count, step, lanes, locked=(False, False, False), buffers=12):
    rng = np.random.default_rng(count)
    a, b = rng.standard_normal((2, count, COLUMNS))
    out = np.full((count, COLUMNS), np.nan)
    stager = Stager(link, chunk=step * COLUMNS * 8, buffers=buffers)
    rows = [stream.Rows(array, lock) for array, lock in zip((a, b, out), locked)]
    device = Device(link, step)
    stream.flow(stager, device, cut_up(count, step), rows[:2], rows[2], 4, lanes)
    assert stager.release() % (step * COLUMNS * 8) == 0
    return np.array_equal(out, 2 * a + b), device


@pytest.mark.parametrize("locked", [(False,) * 3, (True, False, False), (False, False, True), (True,) * 3])
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(("count", "step"), [(1, 1), (7, 3), (40, 4), (41, 4)])
def test_every_row_is_computed_from_its_own_operands(count, step, lanes, locked):
    link = SlowLink()
    right, device = run(link, count, step, lanes, locked)
    assert right
    assert device.lanes <= lanes
    assert link.straight == sum(locked) * -(-count // step)
    assert link.sent == 3 * -(-count // step)


def test_the_directions_overlap():
    link = SlowLink()
    run(link, 8, 4, 1)
    start = time.perf_counter()
    assert run(link, 400, 4, 1)[0]
    together = time.perf_counter() - start
    # A copy or a computation takes at least a millisecond: 200 ups, 100 computations, 100 downs.
    assert together < 0.001 * 400
    assert together >= 0.001 * 200


@pytest.mark.parametrize("fail_at", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_failing_link_raises_when_nothing_is_on_its_way_any_more(fail_at, lanes):
    link = SlowLink()
    link.fail_at = fail_at
    with pytest.raises(RuntimeError, match="the link failed"):
        run(link, 40, 4, lanes)
    link.fail_at = None
    assert run(link, 40, 4, lanes)[0]


def test_fewer_buffers_than_lanes_want():
    assert run(SlowLink(), 60, 4, 8, buffers=6)[0]
