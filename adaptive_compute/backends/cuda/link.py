"""The link between the host and a GPU: small arrays by the driver's own copy, large ones through pinned buffers."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from ...core import settings as _settings
from ...core.array import kind_named
from ...core.host_memory import results
from ...core.staging import Stager, address_of
from ...core.transfer import counters, is_constant
from . import small
from .array import stream_pointer
from .pinned import LEAST as LEAST_PINNED
from .pinned import pinned
from .raw import driver
from .small import LEAST, STRAIGHT, numpy_name

_NOBODYS = np.empty(0, np.uint8)
LANES = 2  # chunks that are copied on the host at once, each by a share of the threads
# Of less than so many bytes, one lane of so many threads copies all: more of them would wait for each other.
MIDDLE, MIDDLE_UP, MIDDLE_DOWN = 16 << 20, 4, 8


class PinnedBuffer:
    """Pinned memory as torch allocates it, and an event for its last copy."""

    def __init__(self, nbytes: int) -> None:
        import torch

        self.tensor = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self.array = self.tensor.numpy()
        self.address = address_of(self.array)
        self.event = driver().event()
        # Not at the interpreter's end: the driver takes everything back then, and may be gone already.
        self.finalizer = weakref.finalize(self, driver().destroy, self.event)
        self.finalizer.atexit = False


class CudaLink:
    """One GPU's copy engines, each direction on a stream of its own. A device address stands for memory there."""

    def __init__(self, index: int) -> None:
        import torch

        self.index = index
        self.up, self.down, self.work = (torch.cuda.Stream(index) for _ in range(3))
        self._up, self._down = self.up.cuda_stream, self.down.cuda_stream
        self._driver = driver()
        self._context = self._driver.context(index)

    def allocate(self, nbytes: int) -> PinnedBuffer:
        """Return a pinned buffer."""
        return PinnedBuffer(nbytes)

    @contextmanager
    def lane(self, threads: int) -> Iterator[None]:
        """Let the calling thread start copies of this GPU, and copy on the host by torch with so many threads."""
        import torch

        before, had = self._driver.current(), torch.get_num_threads()
        self._driver.enter(self._context)
        if threads != had:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if threads != had:
                torch.set_num_threads(had)
            self._driver.enter(before)

    def view(self, host: np.ndarray) -> Any:
        """Return a host array's bytes as a tensor, which torch copies by several threads in one call."""
        import torch

        return torch.from_numpy(host) if host.flags.writeable else kind_named("torch").from_numpy(host)

    def fill(self, buffer: Any, host: Any, start: int, nbytes: int) -> None:
        """Copy bytes of a host array into a buffer."""
        buffer.tensor[:nbytes].copy_(host[start : start + nbytes])

    def drain(self, buffer: Any, host: Any, start: int, nbytes: int) -> None:
        """Copy a buffer into a host array."""
        host[start : start + nbytes].copy_(buffer.tensor[:nbytes])

    def send(self, buffer: Any, nbytes: int, target: int, offset: int) -> None:
        """Start copying to the device."""
        self._driver.up(target + offset, buffer.address, nbytes, self._up, buffer.event)

    def fetch(self, source: Any, offset: int, buffer: Any, nbytes: int) -> None:
        """Start copying from the device."""
        self._driver.down(buffer.address, source + offset, nbytes, self._down, buffer.event)

    def send_from(self, buffer: Any, address: int, nbytes: int, target: int) -> None:
        """Start copying locked memory to the device; a buffer stands for the copy, and is not touched."""
        self._driver.up(target, address, nbytes, self._up, buffer.event)

    def fetch_to(self, buffer: Any, source: Any, address: int, nbytes: int) -> None:
        """Start copying from the device to locked memory; a buffer stands for the copy, and is not touched."""
        self._driver.down(address, source + 0, nbytes, self._down, buffer.event)

    def wait(self, buffer: Any) -> None:
        """Wait for a buffer's last copy."""
        self._driver.wait(buffer.event)

    def straight_up(self, target: int, source: int, nbytes: int) -> None:
        """Copy locked memory to the device; returns when it has been read."""
        self._straight(self._driver.up, target, source, nbytes, self._up)

    def straight_down(self, target: int, source: int, nbytes: int) -> None:
        """Copy from the device to locked memory; returns when the bytes are there."""
        self._straight(self._driver.down, target, source, nbytes, self._down)

    def _straight(self, copy: Any, target: int, source: int, nbytes: int, stream: int) -> None:
        before = self._driver.current()
        self._driver.enter(self._context)
        event = self._driver.event()
        try:
            copy(target, source, nbytes, stream, event)
            self._driver.wait(event)
        finally:
            self._driver.destroy(event)
            self._driver.enter(before)


@cache
def stager(index: int) -> Stager:
    """Return the stager of a GPU."""
    return Stager(CudaLink(index))


def shares(threads: int | None = None) -> tuple[int, int]:
    """Return how many threads copy on the host, and in how many lanes."""
    count = _settings.threads(_settings.current()) if threads is None else threads
    return count, max(1, min(LANES, count // 2))


def _shares(nbytes: int, most: int) -> tuple[int, int]:
    """Return the same for an array of so many bytes, where ``most`` threads are enough for a middling one."""
    count, lanes = shares()
    return (min(count, most), 1) if nbytes < MIDDLE else (count, lanes)


# Copies of arrays that were promised to stay as they are (an index topology's), by array and GPU.
_copies: dict[tuple[int, int], Any] = {}


def kept(host: Any, index: int) -> Any:
    """Return the copy that a GPU has of a constant array, or None."""
    return _copies.get((id(host), index))


def upload(host: Any, index: int) -> Any:
    """Copy a host array to a GPU as a torch tensor. Work that the caller queues afterwards waits for it there."""
    if not is_constant(host):
        return _upload(host, index)
    import torch

    key = (id(host), index)
    copy = _copies.get(key)
    if copy is None:
        copy = _upload(host, index)
        torch.cuda.synchronize(index)  # later calls may come on any stream
        weakref.finalize(host, _copies.pop, key, None).atexit = False
        _copies[key] = copy
    return copy


@cache
def torch_tensor() -> type:
    """Return ``torch.Tensor``."""
    import torch

    return torch.Tensor


@cache
def _device(index: int) -> Any:
    import torch

    return torch.device("cuda", index)


def tensor_of(host: np.ndarray) -> Any:
    """Return a NumPy array of any layout as a tensor: the same memory where torch can describe it, else one copy."""
    import torch

    flags, each = host.flags, host.itemsize
    # Strides are looked at even of a contiguous array: that of an axis of length 1 may be anything.
    if not flags.aligned or not host.dtype.isnative or any(step < 0 or step % each for step in host.strides):
        counters.count_copy("NumPy array with a layout that torch cannot have")
        return torch.from_numpy(np.array(host, host.dtype.newbyteorder("="), order="C"))
    return torch.from_numpy(host) if flags.writeable else kind_named("torch").from_numpy(host)


def _upload(host: Any, index: int) -> Any:
    tensor = tensor_of(host) if isinstance(host, np.ndarray) else host.detach().resolve_conj().resolve_neg()
    nbytes = tensor.nbytes
    if nbytes < LEAST_PINNED:
        return _small_up(tensor, nbytes, index)
    mine = isinstance(host, np.ndarray) and address_of(host) == tensor.data_ptr()
    with pinned.using(host if mine else _NOBODYS) as locked:
        if nbytes < (STRAIGHT if locked else LEAST) or (not locked and tensor.is_pinned()):
            return _small_up(tensor, nbytes, index)
        return _large_up(tensor.contiguous(), locked and tensor.is_contiguous(), index)


def _large_up(tensor: Any, locked: bool, index: int) -> Any:
    import torch

    engine = stager(index)
    link: Any = engine.link
    side, caller = link.up, torch.cuda.current_stream(index)
    with torch.cuda.stream(side):  # its memory belongs to that stream, so that nothing queued elsewhere need be awaited
        result = torch.empty(tensor.shape, dtype=tensor.dtype, device=_device(index))
    if locked:
        link.straight_up(result.data_ptr(), tensor.data_ptr(), tensor.nbytes)
    else:
        engine.up(_bytes(tensor).numpy(), result.data_ptr(), *_shares(tensor.nbytes, MIDDLE_UP))
    caller.wait_stream(side)
    result.record_stream(caller)
    return result


def _small_up(tensor: Any, nbytes: int, index: int) -> Any:
    """Copy a small tensor to a GPU by the driver's own copy, on the caller's stream."""
    import torch

    # Of pinned memory the driver's copy would return before it has read it; torch waits.
    if not nbytes or not tensor.is_contiguous() or torch._C._cuda_getDevice() != index or tensor.is_pinned():
        return tensor.to(_device(index))
    result = torch.empty(tensor.shape, dtype=tensor.dtype, device=_device(index))
    if not driver().pageable_up(result.data_ptr(), tensor.data_ptr(), nbytes, stream_pointer(index), False):
        result.copy_(tensor)  # this thread has no context yet
    return result


def download(tensor: Any, out: np.ndarray | None = None) -> Any:
    """Copy a tensor to the host: into ``out``, or into memory of earlier results that are gone.

    Returns a NumPy array; of bfloat16, which NumPy does not have, a torch tensor.
    """
    import torch

    nbytes, dtype = tensor.nbytes, tensor.dtype
    found = small.down(tensor, nbytes, out) if nbytes <= small.TINY_DOWN else None
    if found is None:
        found = _down(tensor, out)
    return torch.from_numpy(found).view(torch.bfloat16) if dtype is torch.bfloat16 else found


def _down(tensor: Any, out: np.ndarray | None) -> np.ndarray:
    import torch

    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    source = tensor if tensor.is_contiguous() else tensor.contiguous()
    nbytes, index = source.nbytes, source.get_device()
    few = nbytes < LEAST_PINNED
    # The memory of a small array of its own was not pinned by anybody.
    ordinary = few and (out is None or out.base is None)
    if out is None:
        out = (np.empty if few else results.empty)(source.shape, numpy_name(source.dtype))
    if not nbytes:
        return out
    straight = out.flags.c_contiguous and torch._C._cuda_getDevice() == index
    target, stream = address_of(out), torch._C._cuda_getCurrentRawStream(index)
    if few:
        if not (straight and driver().pageable_down(target, source.data_ptr(), nbytes, stream, not ordinary)):
            torch.from_numpy(out).copy_(source.view(torch.uint16) if source.dtype is torch.bfloat16 else source)
        return out
    with pinned.using(out) as locked:
        once = driver().down_now if locked else partial(driver().pageable_down, foreign=True)
        at_once = straight and nbytes < (STRAIGHT if locked else LEAST)
        if not (at_once and once(target, source.data_ptr(), nbytes, stream)):
            _large_down(source, out, nbytes, index, locked)
    return out


def _large_down(source: Any, out: np.ndarray, nbytes: int, index: int, locked: bool) -> None:
    import torch

    engine = stager(index)
    link: Any = engine.link
    link.down.wait_stream(torch.cuda.current_stream(index))
    if locked and out.flags.c_contiguous:
        link.straight_down(address_of(out), source.data_ptr(), nbytes)
    elif out.flags.c_contiguous:
        engine.down(source.data_ptr(), out.reshape(-1).view(np.uint8), *_shares(nbytes, MIDDLE_DOWN))
    else:
        torch.from_numpy(out).copy_(source.view(torch.uint16) if source.dtype is torch.bfloat16 else source)


def _bytes(tensor: Any) -> Any:
    """Return the memory of a contiguous tensor as bytes."""
    import torch

    return tensor.reshape(-1).view(torch.uint8)


_releasing = threading.Lock()


def release() -> None:
    """Give back pinned memory."""
    from .driver import found

    _copies.clear()
    small.release()
    pinned.clear()
    with _releasing:
        for index in range(len(found().gpus) if stager.cache_info().currsize else 0):
            stager(index).release()
    empty = getattr(sys.modules["torch"]._C, "_host_emptyCache", None) if "torch" in sys.modules else None
    if empty is not None:
        empty()
