"""Copies of what is small, or locked already, between the host and a GPU: by as few steps as there can be."""

from __future__ import annotations

import threading
from functools import cache, partial
from typing import Any

import numpy as np

from ...core.host_memory import owner_of
from ...core.staging import address_of
from ...core.transfer import is_constant
from .pinned import LEAST as LEAST_PINNED
from .pinned import pinned
from .raw import driver

LEAST = 2 << 20  # bytes below which the driver's own copy of ordinary memory is as fast as chunks are, either way
STRAIGHT = 8 << 20  # bytes of locked memory below which a copy on the caller's stream takes fewer steps than beside it
# Up to this a copy to the host goes by pinned memory of the thread: the driver takes longer to copy to ordinary memory
# than to pinned memory and the host from there.
TINY_DOWN = 1 << 16
TINY_UP = 1 << 14  # foreign memory up to this is copied on the host sooner than it is asked whether it is pinned
MOST_LIKES = 256


# How a small array of a shape and dtype that was met is copied, by device, shape and dtype: what makes the tensor for
# it (the like of a number that is repeated, which is faster than by shape and dtype), and the calls that it takes.
_likes: dict[tuple[str, tuple[int, ...], np.dtype], tuple[Any, ...]] = {}


def up(host: np.ndarray, device: str) -> Any:
    """Copy a contiguous array of a shape and dtype that was met by a few steps; None where more must be looked at."""
    known = _likes.get((device, host.shape, host.dtype))
    if known is None:
        _meet(host, device)
        return None
    make, index, here, stream, copy = known
    if not host.flags.c_contiguous or here() != index or is_constant(host):
        return None
    nbytes, base = host.nbytes, host.base
    if nbytes >= LEAST_PINNED:
        if base is None and nbytes < STRAIGHT and (memory := pinned.held(host)) is not None:
            with memory:
                result = make()
                return result if driver().up_now(result.data_ptr(), memory.address, nbytes, stream(index)) else None
        if nbytes >= LEAST or owner_of(host) is not None:
            return None
    elif base is not None and nbytes <= TINY_UP:
        host = host.copy()
        base = None
    result = make()
    # The memory of a small array of its own was not pinned by anybody.
    place = host.__array_interface__["data"][0]
    return result if copy(result.data_ptr(), place, nbytes, stream(index), base is not None) else None


def _meet(host: np.ndarray, device: str) -> None:
    """Find out how arrays of this shape and dtype are copied."""
    import torch

    if not host.nbytes or not host.dtype.isnative:
        return
    if len(_likes) >= MOST_LIKES:
        _likes.clear()
    like = torch.empty((), dtype=torch.from_numpy(np.empty(0, host.dtype)).dtype, device=device).expand(host.shape)
    make = partial(torch.empty_like, like, memory_format=torch.contiguous_format)
    here, stream = torch._C._cuda_getDevice, torch._C._cuda_getCurrentRawStream
    _likes[device, host.shape, host.dtype] = make, like.get_device(), here, stream, driver().pageable_up


@cache
def numpy_name(dtype: Any) -> np.dtype:
    """Return NumPy's dtype for one of torch's; of bfloat16 that of its bits."""
    name = str(dtype)[6:]
    return np.dtype("uint16" if name == "bfloat16" else name)


class _Scratch(threading.local):
    """A thread's own pinned memory for what is small."""

    def __init__(self) -> None:
        import torch

        self.array = torch.empty(TINY_DOWN, dtype=torch.uint8, pin_memory=True).numpy()
        self.address = address_of(self.array)
        self.views: dict[Any, np.ndarray] = {}

    def view(self, shape: Any, dtype: Any, nbytes: int) -> np.ndarray:
        """Return the memory as an array of a shape and of torch's dtype."""
        found = self.views.get((shape, dtype))
        if found is None:
            if len(self.views) >= MOST_LIKES:
                self.views.clear()
            found = self.views[shape, dtype] = self.array[:nbytes].view(numpy_name(dtype)).reshape(shape)
        return found


_scratch: dict[str, _Scratch] = {}  # one, or none


def down(tensor: Any, nbytes: int, out: np.ndarray | None) -> np.ndarray | None:
    """Copy a small tensor to the host; None where more must be looked at."""
    import torch

    index = tensor.get_device()
    lazy = tensor.is_conj() or tensor.is_neg() or not tensor.is_contiguous()
    if lazy or not nbytes or torch._C._cuda_getDevice() != index:
        return None
    own = _scratch.get("own") or _scratch.setdefault("own", _Scratch())
    view = own.view(tensor.shape, tensor.dtype, nbytes)
    if out is not None and (out.shape != view.shape or out.dtype != view.dtype):
        return None
    if not driver().down_now(own.address, tensor.data_ptr(), nbytes, torch._C._cuda_getCurrentRawStream(index)):
        return None
    if out is None:
        return view.copy()
    np.copyto(out, view)
    return out


def release() -> None:
    """Forget what was met, and give back pinned memory."""
    _likes.clear()
    _scratch.clear()
