"""CUDA kernels generated from expressions: one pass over memory, vectorised, whatever the operands' shapes.

Operands that have the result's shape and are contiguous are read in packs of 16 bytes, single elements once a thread,
and anything else by its strides over the fewest axes that the operands' memory allows.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from ctypes import addressof, c_uint64
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ...core.array import Operand, itemsize
from ...core.program import Program
from ...core.staging import address_of
from ...core.transfer import counters
from . import memory
from .array import launch, start
from .compiled import compiled
from .device import dtype_of
from .fused_source import THREADS, UNROLL, Layout, source
from .raw import driver

BLOCK = (THREADS,)
WIDEST = 8  # elements of one pack


class Slots(threading.local):
    """A kernel's arguments where only its pointers differ from call to call, for each thread by itself.

    The driver wants to know where each argument is, and reads them before a launch returns. So the places stay, and a
    call writes its pointers there.
    """

    def __init__(self, head: Sequence[Any], strides: Sequence[Sequence[int]]) -> None:
        self.kept = [np.asarray(value) for value in head] + [np.asarray(n, np.int64) for own in strides for n in own]
        self.values = (c_uint64 * (1 + len(strides)))()
        place = addressof(self.values)
        fixed = iter([address_of(value) for value in self.kept])
        places = [place, *islice(fixed, len(head))]
        for number, own in enumerate(strides, 1):
            places += [place + 8 * number, *islice(fixed, len(own))]
        self.places = (c_uint64 * len(places))(*places)
        self.table = addressof(self.places)

    def filled(self, out: int, pointers: Sequence[int]) -> int:
        """Write a call's pointers, and return where the table of arguments is."""
        values = self.values
        values[0] = out
        for number, pointer in enumerate(pointers, 1):
            values[number] = pointer
        return self.table


class _Launch(NamedTuple):
    """A kernel with what of its arguments depends on shapes and strides alone."""

    kernel: Any
    grid: tuple[int]
    head: tuple[Any, ...]
    strides: tuple[tuple[int, ...], ...]
    slots: Slots
    like: int | None  # an operand that the result is like, which spares reading its shape and dtype


class FusedPlan(memory.GuardedPlan):
    """An expression over operands of given shapes; kernels are made when a memory layout is first met.

    Operands come as tensors on the GPU, those without axes that a caller had on the host as NumPy arrays.
    """

    def __init__(self, steps: Program, operands: Sequence[Operand], shape: tuple[int, ...], index: int) -> None:
        import torch

        super().__init__(self._compute)
        self.steps, self.shape, self.index = steps, shape, index
        self.variables = sorted({v.data for v in steps.values if v.op == "var"})
        self.dtypes = {v.data: v.dtype for v in steps.values if v.op == "var"}
        self.numbers = {n for n in self.variables if operands[n].device == "cpu" and not operands[n].shape}
        self.tensors = [number for number in self.variables if number not in self.numbers]
        self.scalars = [
            (number, np.dtype(dtype).type)
            for number, dtype in sorted({(v.data, v.dtype) for v in steps.values if v.op == "scalar"})
        ]
        self.size = math.prod(shape)
        self._empty = partial(torch.empty, shape, dtype=dtype_of(steps.dtype), device=torch.device("cuda", index))
        self.varies = bool(self.numbers or self.scalars)
        self._empty_like, self._tensor, self._dtype = torch.empty_like, torch.Tensor, dtype_of(steps.dtype)
        self._launches: dict[Any, _Launch] = {}
        self._of_cupy: dict[Any, _Launch] = {}
        self._numpy_dtype = None if steps.dtype == "bfloat16" else np.dtype(steps.dtype)

    def _compute(self, *arrays: Any) -> Any:
        if not self.size:
            return self._empty()
        tensors = [arrays[number] for number in self.tensors]
        for place, tensor in enumerate(tensors):
            if tensor.is_neg() or tensor.is_conj():
                tensors[place] = tensor.resolve_conj().resolve_neg()
        pointers = [t.data_ptr() for t in tensors]
        key = tuple([(t.stride(), pointer % 16 == 0) for t, pointer in zip(tensors, pointers)])
        found = self._launches.get(key)
        if found is None:
            views = [View(tuple(t.shape), tuple(t.stride()), p % 16 == 0) for t, p in zip(tensors, pointers)]
            found = self._prepare(views)
            alike = (
                number for number, tensor in enumerate(tensors)
                if type(tensor) is self._tensor and views[number].shape == self.shape
                and tensor.dtype is self._dtype and tensor.is_contiguous()
            )  # fmt: skip
            found = found._replace(like=next(alike, None))
            if len(self._launches) >= 64:
                self._launches.clear()
            self._launches[key] = found
        out = self._empty() if found.like is None else self._empty_like(tensors[found.like])
        if self.varies:
            launch(
                found.kernel, found.grid, BLOCK, self._arguments(found, out.data_ptr(), pointers, arrays), self.index
            )
        else:
            start(found.kernel, found.grid, THREADS, found.slots.filled(out.data_ptr(), pointers), self.index)
        return out

    def run_as(self, kind: str) -> Callable[..., Any] | None:
        return partial(memory.guarded, self._compute_cupy) if kind == "cupy" and not self.varies else None

    def _compute_cupy(self, *arrays: Any) -> Any:
        """Compute on CuPy arrays as they are, on CuPy's own stream, which spares viewing each as a tensor."""
        cupy = sys.modules["cupy"]
        used = [arrays[number] for number in self.variables]
        pointers = [array.data.ptr for array in used]
        key = tuple([(array.strides, pointer % 16 == 0) for array, pointer in zip(used, pointers)])
        found = self._of_cupy.get(key)
        if found is None:
            if any(map(_odd, used)):
                counters.count_copy("CuPy array with strides that no kernel reads")
                return self._compute_cupy(*[array.copy() if _odd(array) else array for array in arrays])
            found = self._prepare([_view_of(array) for array in used])
            if len(self._of_cupy) >= 64:
                self._of_cupy.clear()
            self._of_cupy[key] = found
        if cupy.cuda.runtime.getDevice() != self.index:
            with cupy.cuda.Device(self.index):
                return self._start(cupy, found, pointers)
        return self._start(cupy, found, pointers)

    def _start(self, cupy: Any, found: _Launch, pointers: Sequence[int]) -> Any:
        out = cupy.empty(self.shape, self._numpy_dtype)
        if self.size:
            table, stream = found.slots.filled(out.data.ptr, pointers), cupy.cuda.get_current_stream().ptr
            driver().launch(found.kernel.ptr, found.grid, THREADS, stream, table, self.index)
        return out

    def _arguments(self, found: _Launch, out: int, pointers: Sequence[int], arrays: Sequence[Any]) -> list[Any]:
        """Return the kernel's arguments where some are numbers that come with the call."""
        arguments: list[Any] = [out, *found.head]
        placed = iter(zip(pointers, found.strides))
        for number in self.variables:
            if number in self.numbers:
                value = arrays[number][()]
                arguments.append(value.view(np.uint16) if value.itemsize == 2 else value)
                continue
            pointer, strides = next(placed)
            arguments.append(pointer)
            arguments.extend(strides)
        arguments.extend([kind(arrays[number].item()) for number, kind in self.scalars])
        return arguments

    def _prepare(self, views: Sequence[View]) -> _Launch:
        dtypes = [self.dtypes[number] for number in self.variables if number not in self.numbers]
        layout, count, dims, strides = arrange(self.shape, views, dtypes, self.steps.dtype)
        found = iter(layout.places)
        places = tuple("value" if number in self.numbers else next(found) for number in self.variables)
        layout = layout._replace(places=places)
        kernel = compiled(source(self.steps, layout), self.index)
        kind = np.int64 if layout.wide else np.uint32
        head = (kind(count), *(kind(d) for d in dims))
        return _Launch(kernel, (-(-count // (THREADS * UNROLL)),), head, strides, Slots(head, strides), None)


class View(NamedTuple):
    """An operand's shape, strides in elements, and whether its memory starts at a multiple of 16 bytes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    aligned: bool


def _odd(array: Any) -> bool:
    """Tell whether a CuPy array steps backwards, or by parts of an element."""
    return any(stride < 0 or stride % array.itemsize for stride in array.strides)


def _view_of(array: Any) -> View:
    """Return a CuPy array's layout."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return View(array.shape, strides, array.data.ptr % 16 == 0)


def arrange(
    shape: tuple[int, ...], views: Sequence[View], dtypes: Sequence[str], result: str
) -> tuple[Layout, int, tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Choose how each operand is read.

    Returns
    -------
    layout : Layout
    count : int
        Packs of the result.
    dims : tuple of int
        Lengths of the outer axes, the last one in packs.
    strides : tuple of tuple of int
        For each operand what the kernel takes besides its pointer.
    """
    full = [_expanded(view, shape) for view in views]
    sizes = [n for n in shape if n != 1] or [1]
    keep = [axis for axis, n in enumerate(shape) if n != 1]
    steps = [[strides[axis] for axis in keep] or [0] for strides in full]
    sizes, steps = joined(sizes, steps)
    size = math.prod(sizes)
    ones = [all(step == 0 for step in own) for own in steps]
    linear = len(sizes) == 1 and all(one or own[0] == 1 for one, own in zip(ones, steps))
    width = min(WIDEST, max(1, 16 // max(itemsize(d) for d in (result, *dtypes))))
    inner = sizes[-1]

    def fits(width: int) -> bool:
        for view, own, one in zip(views, steps, ones):
            if one or own[-1] == 0:
                continue
            if own[-1] != 1 or not view.aligned or any(step % width for step in own[:-1]):
                return False
        return inner % width == 0

    while width > 1 and not fits(width):
        width //= 2
    count = size // width
    wide = size >= 1 << 31
    if linear:
        places = tuple("one" if one else "full" for one in ones)
        return Layout(places, 0, width, wide), count, (), tuple(() for _ in views)
    read: list[str] = []
    given: list[tuple[int, ...]] = []
    dims = (*sizes[:-1], inner // width)
    for own, one in zip(steps, ones):
        outer = (*own[:-1], own[-1] * width)
        if one:
            read.append("one")
            given.append(())
        elif own[-1] == 0:
            read.append("same")
            given.append(outer)
        elif own[-1] == 1:
            read.append("row")
            given.append(outer)
        else:
            read.append("step")
            given.append((*outer, own[-1]))
    return Layout(tuple(read), len(dims), width, wide), count, dims, tuple(given)


def _expanded(view: View, shape: tuple[int, ...]) -> list[int]:
    """Return an operand's strides over the result's axes; 0 where it is repeated."""
    missing = len(shape) - len(view.shape)
    return [0] * missing + [0 if n == 1 else s for n, s in zip(view.shape, view.strides)]


def joined(sizes: list[int], steps: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Join neighbouring axes that every operand steps through as through one."""
    kept, new = [sizes[0]], [[own[0]] for own in steps]
    for axis in range(1, len(sizes)):
        n = sizes[axis]
        if all(own[-1] == n * old[axis] for own, old in zip(new, steps)):
            kept[-1] *= n
            for own, old in zip(new, steps):
                own[-1] = old[axis]
        else:
            kept.append(n)
            for own, old in zip(new, steps):
                own.append(old[axis])
    return kept, new
