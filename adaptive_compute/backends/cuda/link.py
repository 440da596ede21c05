"""The link between the host and a GPU: small arrays by the driver's own copy, large ones through pinned buffers."""

from __future__ import annotations

import sys
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np

from ...core import settings as _settings
from ...core.array import kind_named
from ...core.host_memory import results
from ...core.staging import Stager
from ...core.transfer import is_constant
from .device import dtype_of

# Below these the driver's own copy of pageable memory is as fast, and one call.
LEAST_UP, LEAST_DOWN = 1 << 19, 1 << 19
# Up to this, one pinned buffer on the caller's own stream: a side stream and chunks would cost more than they overlap.
WHOLE = 4 << 20


class PinnedBuffer:
    """Pinned memory as torch allocates it."""

    def __init__(self, nbytes: int) -> None:
        import torch

        self.tensor = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        self.array = self.tensor.numpy()


class CudaLink:
    """One GPU's copy engines, each direction on a stream of its own."""

    def __init__(self, index: int) -> None:
        import torch

        self.index = index
        self.up, self.down = torch.cuda.Stream(index), torch.cuda.Stream(index)
        self._stream = torch.cuda.stream
        self._event = torch.cuda.Event

    def allocate(self, nbytes: int) -> PinnedBuffer:
        """Return a pinned buffer."""
        return PinnedBuffer(nbytes)

    def going(self, up: bool) -> Any:
        """Let the calling thread's copies go to this link's stream."""
        return self._stream(self.up if up else self.down)

    def send(self, buffer: Any, nbytes: int, target: Any, offset: int) -> Any:
        """Start copying to the device."""
        target[offset : offset + nbytes].copy_(buffer.tensor[:nbytes], non_blocking=True)
        return self._record()

    def fetch(self, source: Any, offset: int, buffer: Any, nbytes: int) -> Any:
        """Start copying from the device."""
        buffer.tensor[:nbytes].copy_(source[offset : offset + nbytes], non_blocking=True)
        return self._record()

    def _record(self) -> Any:
        event = self._event()
        event.record()
        return event

    def wait(self, copy: Any) -> None:
        """Wait for an event."""
        copy.synchronize()


def copy_bytes(target: np.ndarray, source: np.ndarray) -> None:
    """Copy host bytes by torch's threads, which stand ready: waking Python's own takes longer than copying a chunk."""
    import torch

    to, given = torch.from_numpy(target), kind_named("torch").from_numpy(source)
    allowed, have = _settings.threads(_settings.current()), torch.get_num_threads()
    if have <= allowed:
        to.copy_(given)
        return
    torch.set_num_threads(allowed)
    try:
        to.copy_(given)
    finally:
        torch.set_num_threads(have)


@cache
def stager(index: int) -> Stager:
    """Return the stager of a GPU."""
    return Stager(CudaLink(index), copy_bytes)


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
def _device(index: int) -> Any:
    import torch

    return torch.device("cuda", index)


def _upload(host: Any, index: int) -> Any:
    import torch

    if isinstance(host, np.ndarray):
        tensor = kind_named("torch").from_numpy(host)
    else:
        tensor = host.detach().resolve_conj().resolve_neg()
    device = _device(index)
    if tensor.nbytes < LEAST_UP or tensor.is_pinned():
        return tensor.to(device)
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    engine = stager(index)
    if tensor.nbytes <= WHOLE:
        result = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        with torch.cuda.device(index):
            engine.up_whole(_bytes(tensor).numpy(), _bytes(result))
        return result
    side, caller = engine.link.up, torch.cuda.current_stream(index)  # type: ignore[attr-defined]
    with torch.cuda.stream(side):  # its memory belongs to that stream, so that nothing queued elsewhere need be awaited
        result = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    engine.up(_bytes(tensor).numpy(), _bytes(result))
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
        if source.nbytes <= WHOLE:
            with torch.cuda.device(index):
                engine.down_whole(_bytes(source), target.reshape(-1).view(np.uint8))
        else:
            _down(engine, source, target)
    return torch.from_numpy(target).view(torch.bfloat16) if brain else target


def _down(engine: Stager, source: Any, target: np.ndarray) -> None:
    import torch

    link: Any = engine.link
    link.down.wait_stream(torch.cuda.current_stream(link.index))
    engine.down(_bytes(source), target.reshape(-1).view(np.uint8))


def _bytes(tensor: Any) -> Any:
    """Return the memory of a contiguous tensor as bytes."""
    import torch

    return tensor.reshape(-1).view(torch.uint8)


_releasing = threading.Lock()


def release() -> None:
    """Give back pinned memory."""
    from . import driver

    _copies.clear()
    with _releasing:
        for index in range(len(driver.found().gpus) if stager.cache_info().currsize else 0):
            stager(index).release()
    empty = getattr(sys.modules["torch"]._C, "_host_emptyCache", None) if "torch" in sys.modules else None
    if empty is not None:
        empty()
