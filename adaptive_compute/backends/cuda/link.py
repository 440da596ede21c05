"""The link between the host and a GPU: small arrays by the driver's own copy, large ones through pinned buffers."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ...core import settings as _settings
from ...core.array import kind_named
from ...core.host_memory import results
from ...core.staging import Stager, address_of
from ...core.transfer import counters, is_constant
from .device import dtype_of
from .raw import driver

# Below these the driver's own copy of pageable memory is as fast, and one call. Beside an H100, up and down took
# for 8 MiB 0.66 and 0.66 ms by the driver, 0.60 and 0.85 by four threads; for 16 MiB 1.12 and 1.21, 0.75 and 1.17; for
# 32 MiB 2.47 and 2.53, 1.32 and 1.69.
LEAST_UP, LEAST_DOWN = 16 << 20, 24 << 20
# Threads wait for each other between chunks: 4 were best up to 64 MiB, 8 at 256 MiB.
FEW, MOST, EACH_TAKES = 4, 8, 16 << 20


class PinnedBuffer:
    """Pinned memory as torch allocates it, and an event for its last copy."""

    def __init__(self, nbytes: int) -> None:
        import torch

        self._tensor = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self.array = self._tensor.numpy()
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
        self.up, self.down = torch.cuda.Stream(index), torch.cuda.Stream(index)
        self._up, self._down = self.up.cuda_stream, self.down.cuda_stream
        self._driver = driver()
        self._context = self._driver.context(index)

    def allocate(self, nbytes: int) -> PinnedBuffer:
        """Return a pinned buffer."""
        return PinnedBuffer(nbytes)

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Let the calling thread start copies of this GPU."""
        before = self._driver.current()
        self._driver.enter(self._context)
        try:
            yield
        finally:
            self._driver.enter(before)

    def send(self, buffer: Any, nbytes: int, target: int, offset: int) -> None:
        """Start copying to the device."""
        self._driver.up(target + offset, buffer.address, nbytes, self._up, buffer.event)

    def fetch(self, source: int, offset: int, buffer: Any, nbytes: int) -> None:
        """Start copying from the device."""
        self._driver.down(buffer.address, source + offset, nbytes, self._down, buffer.event)

    def wait(self, buffer: Any) -> None:
        """Wait for a buffer's last copy."""
        self._driver.wait(buffer.event)


@cache
def stager(index: int) -> Stager:
    """Return the stager of a GPU."""
    return Stager(CudaLink(index))


def workers(nbytes: int) -> int:
    """Return how many threads copy so much on the host."""
    return min(_settings.threads(_settings.current()), max(FEW, min(nbytes // EACH_TAKES, MOST)))


# Copies of arrays that were promised to stay as they are (an index topology's), by array and GPU.
_copies: dict[tuple[int, int], Any] = {}


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
    import torch

    tensor = tensor_of(host) if isinstance(host, np.ndarray) else host.detach().resolve_conj().resolve_neg()
    device = _device(index)
    if tensor.nbytes < LEAST_UP or tensor.is_pinned():
        return tensor.to(device)
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    engine = stager(index)
    side, caller = engine.link.up, torch.cuda.current_stream(index)  # type: ignore[attr-defined]
    with torch.cuda.stream(side):  # its memory belongs to that stream, so that nothing queued elsewhere need be awaited
        result = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    engine.up(_bytes(tensor).numpy(), result.data_ptr(), workers(tensor.nbytes))
    caller.wait_stream(side)
    result.record_stream(caller)
    return result


def download(tensor: Any, out: np.ndarray | None = None) -> Any:
    """Copy a tensor to the host: into ``out``, or into memory of earlier results that are gone.

    Returns a NumPy array; of bfloat16, which NumPy does not have, a torch tensor.
    """
    import torch

    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if tensor.nbytes < LEAST_DOWN:
        if out is not None and tensor.dtype is not torch.bfloat16:
            torch.from_numpy(out).copy_(tensor)
            return out
        if out is None:
            host = tensor.cpu()
            return host if host.dtype is torch.bfloat16 else host.numpy()
    source = tensor.contiguous()
    brain = source.dtype is torch.bfloat16
    name = "uint16" if brain else str(source.dtype)[6:]
    target = results.empty(tuple(source.shape), name) if out is None else out
    if source.nbytes < LEAST_DOWN:
        torch.from_numpy(target).copy_(source.view(dtype_of(name)))
    else:
        index = source.device.index
        engine = stager(index)
        link: Any = engine.link
        link.down.wait_stream(torch.cuda.current_stream(index))
        engine.down(source.data_ptr(), target.reshape(-1).view(np.uint8), workers(source.nbytes))
    return torch.from_numpy(target).view(torch.bfloat16) if brain else target


def _bytes(tensor: Any) -> Any:
    """Return the memory of a contiguous tensor as bytes."""
    import torch

    return tensor.reshape(-1).view(torch.uint8)


_releasing = threading.Lock()


def release() -> None:
    """Give back pinned memory."""
    from .driver import found

    _copies.clear()
    with _releasing:
        for index in range(len(found().gpus) if stager.cache_info().currsize else 0):
            stager(index).release()
    empty = getattr(sys.modules["torch"]._C, "_host_emptyCache", None) if "torch" in sys.modules else None
    if empty is not None:
        empty()
