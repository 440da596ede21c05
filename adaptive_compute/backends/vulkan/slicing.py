"""Views of resident arrays, made as copies on the device: slicing, cutting and padding, reshaping."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...core.array import itemsize
from ...core.errors import ArgumentError, AxisError, ShapeError
from .array import VulkanArray
from .program import Builder, Program, spread_groups
from .runtime import runtime

MOST_AXES = 7  # the shader takes eight, and elements longer than a word need one
LOCAL = 64


def take(array: VulkanArray, key: Any) -> VulkanArray:
    """Return ``array[key]`` for whole numbers, slices, ``None`` and ``...``."""
    key = key if isinstance(key, tuple) else (key,)
    if sum(part is Ellipsis for part in key) > 1:
        raise AxisError("an index can hold one ellipsis")
    used = sum(part is not None and part is not Ellipsis for part in key)
    if used > array.ndim:
        raise AxisError(f"too many indices: the array has {array.ndim} axes, {used} were given")
    fill = [slice(None)] * (array.ndim - used)
    at = next((i for i, part in enumerate(key) if part is Ellipsis), len(key))
    parts = [*key[:at], *fill, *key[at + 1 :]]
    strides = _strides(array.shape)
    shape, steps, offset, axis = [], [], 0, 0
    for part in parts:
        if part is None:
            shape.append(1)
            steps.append(0)
            continue
        length = array.shape[axis]
        if isinstance(part, slice):
            start, _, step = part.indices(length)
            shape.append(len(range(*part.indices(length))))
            steps.append(step * strides[axis])
        else:
            start = _whole(part, axis, length)
        offset += start * strides[axis]
        axis += 1
    return _copied(array, shape, steps, shape, offset)


def fitted(array: VulkanArray, axis: int, length: int) -> VulkanArray:
    """Return the array cut, or padded with zeros at the end, to a length along one axis."""
    shape = list(array.shape)
    valid = [*shape]
    shape[axis] = length
    valid[axis] = min(valid[axis], length)
    return _copied(array, shape, _strides(array.shape), valid, 0)


def reshaped(array: VulkanArray, shape: Sequence[int]) -> VulkanArray:
    """Return a copy with another shape."""
    wanted = [operator.index(n) for n in shape]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise ShapeError(f"shape={tuple(wanted)}: lengths are at least 0, and one may be -1")
    if -1 in wanted:
        known = -math.prod(wanted)
        wanted[wanted.index(-1)] = array.size // known if known else 0
    if math.prod(wanted) != array.size:
        raise ShapeError(f"an array of shape {array.shape} cannot take the shape {tuple(shape)}")
    flat = _copied(array, (array.size,), (1,), (array.size,), 0)
    flat.shape = tuple(wanted)
    return flat


def _strides(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return strides[::-1]


def _whole(part: Any, axis: int, length: int) -> int:
    try:
        index = operator.index(part)
    except TypeError:
        raise ArgumentError(
            f"an index must hold whole numbers, slices, None or ..., not {type(part).__name__}; ac.gather takes arrays"
        ) from None
    if not -length <= index < length:
        raise AxisError(f"index {index} is out of range for axis {axis} of length {length}")
    return index % length


def _copied(
    array: VulkanArray, shape: Sequence[int], strides: Sequence[int], valid: Sequence[int], offset: int
) -> VulkanArray:
    owner = runtime(array.device)
    if math.prod(shape) == 0 or array.memory is None:
        if math.prod(shape):
            raise ShapeError("an empty array cannot be padded on the device")
        return VulkanArray(None, tuple(shape), array.dtype, owner)
    program = _program(tuple(shape), tuple(strides), tuple(valid), offset, itemsize(array.dtype), array.nbytes)
    (memory,) = owner.run_resident(program, [array.memory])
    return VulkanArray(memory, tuple(shape), array.dtype, owner)


@lru_cache(maxsize=256)
def _program(
    shape: tuple[int, ...], strides: tuple[int, ...], valid: tuple[int, ...], offset: int, item: int, nbytes: int
) -> Program:
    """Return the program of a strided copy; sizes in elements, ``item`` and ``nbytes`` (of the source) in bytes."""
    axes = [(n, s, v) for n, s, v in zip(shape, strides, valid) if n != 1 or v < n]
    if len(axes) > MOST_AXES:
        raise ShapeError(f"slices of at most {MOST_AXES} axes longer than 1 can be copied, got {len(axes)}")
    words = max(item // 4, 1)
    if words > 1:
        axes = [(n, s * words, v) for n, s, v in axes] + [(words, 1, words)]
    total = math.prod(n for n, _, _ in axes)
    pack = max(4 // item, 1)
    axes = axes[::-1] + [(1, 0, 1)] * (8 - len(axes))
    b = Builder()
    source, target = b.operand(0, nbytes), b.result(0, math.prod(shape) * item)
    target_words = -(-total // pack)
    constants = [LOCAL, target_words, pack, 8, offset * words, *(n for n, _, _ in axes), *(s for _, s, _ in axes)]
    constants += [v for _, _, v in axes]
    b.dispatch(
        "strided_copy", [source, target], writes=[target], groups=spread_groups(-(-target_words // LOCAL)),
        constants=constants,
    )  # fmt: skip
    return b.program()
