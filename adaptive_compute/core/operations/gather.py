"""Gather, scatter-add and segment sums along one axis, by an index or by a topology compiled from one.

Sums are the same bits in every run: entries of a slot are added in their order, whatever the number of threads.
"""

from __future__ import annotations

import operator
from typing import Any

from .. import settings as _settings
from ..array import as_array, call_key, describe, is_abstract, is_recorded
from ..dispatcher import dispatcher
from ..errors import ArgumentError, ArgumentTypeError, AxisError, DeviceError, DtypeError, ShapeError
from ..index_topology import IndexTopology, check_fits, check_size
from ..topology import Topology
from ..traced import compiling, in_graph
from .gather_rule import GATHER, SCATTER, IndexParams, indexing, indices

OPERATIONS = (GATHER, SCATTER)


def gather(x: Any, topology_or_index: Any, axis: int = 0, *, tol: float | None = None) -> Any:
    """Read entries from slots: ``result[e] = x[index[e]]`` along an axis.

    Parameters
    ----------
    x : array_like
        Any dtype of numbers or booleans, with at least one axis; ``x.shape[axis]`` slots.
    topology_or_index : IndexTopology or array_like of int, shape (entries,)
        Which slot each entry reads. An index is checked and compiled in every call; ``ac.Topology.from_index`` does
        that once.
    axis : int, default 0
        Axis of the slots.
    tol : float, optional
        Accepted for the sake of uniform calls; a copy is exact.

    Returns
    -------
    array
        Of the kind, device and dtype of ``x``; along ``axis`` it has one element for each entry.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If an argument is not acceptable; an index out of range or negative is named with its position.

    Notes
    -----
    Its gradient is ``scatter_add``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.gather(np.array([10.0, 20.0, 30.0]), [2, 2, 0])
    array([30., 30., 10.])
    """
    if compiling():
        return in_graph("gather", "gather", x, topology_or_index, axis, tol=tol)
    key = _known(x, topology_or_index, axis, tol)
    call = None if key is None else dispatcher.fast.get(key)
    if call is not None:
        try:
            return call(x, topology_or_index.index, None)
        except (MemoryError, DeviceError):
            pass  # the whole path hands over to the next candidate
    x, along = _operand(x, "x", axis)
    if is_abstract(topology_or_index):
        return _run_open(GATHER, x, along, topology_or_index, x.shape[along], "index", tol)
    if not isinstance(topology_or_index, Topology):  # where it is one, the dispatcher checks the result's size in time
        topology_or_index = as_array(topology_or_index, "index")
        entries, operand = describe(topology_or_index).size, describe(x)
        check_fits(entries * (operand.nbytes // max(operand.shape[along], 1)), f"a result of {entries} entries")
    topology = _topology(topology_or_index, x.shape[along], f"x.shape[{along}]", "index", x)
    result = _run(GATHER, x, along, topology, tol)
    if key is not None:
        dispatcher.bind(key, GATHER, IndexParams(along, topology.size, False, 1), (x, topology.index, None), tol)
    return result


def _known(x: Any, topology: Any, axis: Any, tol: Any) -> tuple[Any, ...] | None:
    """Return all that decides how a gather by a compiled index is run; None where the call must be checked."""
    known = call_key(x)
    if known is None or type(topology) is not IndexTopology or type(axis) is not int or tol is not None:
        return None
    return "gather", known, axis, topology.size, topology.entries, _settings.current()


def scatter_add(
    values: Any, topology_or_index: Any, size: int | None = None, axis: int = 0, *, tol: float | None = None
) -> Any:
    """Add entries into slots: ``result[s]`` is the sum of ``values[e]`` over all e with ``index[e] == s``.

    Parameters
    ----------
    values : array_like
        Integers, floats or complex numbers, with at least one axis; ``values.shape[axis]`` entries.
    topology_or_index : IndexTopology or array_like of int, shape (entries,)
        The slot of each entry. An index is checked and compiled in every call; ``ac.Topology.from_index`` does that
        once.
    size : int, optional
        Number of slots; by default that of the topology, or one more than the largest index.
    axis : int, default 0
        Axis of the entries.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Of the kind, device and dtype of ``values``; along ``axis`` it has ``size`` elements, zero where nothing was
        added. Integers wrap around.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If an argument is not acceptable; an index out of range or negative is named with its position.

    Notes
    -----
    Deterministic: the same bits in every run. float32 and narrower sums of more than 32 entries are accumulated in
    float64. The gradient is ``gather``.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.scatter_add(np.array([1.0, 2.0, 4.0]), [2, 0, 2], size=4)
    array([2., 0., 5., 0.])
    """
    return _scatter(values, topology_or_index, size, axis, tol, "index", "size")


def segment_sum(
    values: Any, topology_or_segment_ids: Any, num_segments: int | None = None, axis: int = 0, *,
    tol: float | None = None,
) -> Any:  # fmt: skip
    """Sum the entries of each segment; ``scatter_add`` by the name and arguments that graph libraries use.

    Parameters
    ----------
    values : array_like
        Integers, floats or complex numbers, with at least one axis.
    topology_or_segment_ids : IndexTopology or array_like of int, shape (entries,)
        The segment of each entry, in any order; sorted ids are the fastest.
    num_segments : int, optional
        Number of segments; by default that of the topology, or one more than the largest id.
    axis : int, default 0
        Axis of the entries.
    tol : float, optional
        Relative L2 error that the kernel's measured error must not exceed.

    Returns
    -------
    array
        Along ``axis`` one sum for each segment; zero for an empty one.

    Raises
    ------
    ShapeError, DtypeError, ArgumentError
        If an argument is not acceptable; a segment id out of range or negative is named with its position.

    Examples
    --------
    >>> import numpy as np, adaptive_compute as ac
    >>> ac.segment_sum(np.arange(5.0), [0, 0, 1, 1, 1])
    array([1., 9.])
    """
    return _scatter(values, topology_or_segment_ids, num_segments, axis, tol, "segment_ids", "num_segments")


def _scatter(values: Any, index: Any, size: Any, axis: Any, tol: Any, index_name: str, size_name: str) -> Any:
    if compiling():
        return in_graph("gather", "_scatter", values, index, size, axis, tol, index_name, size_name)
    values, along = _operand(values, "values", axis)
    if describe(values).dtype == "bool":
        raise DtypeError("values has dtype bool, which has no sum of its own; count with values of an integer dtype")
    if is_abstract(index):
        if size is None:
            raise ArgumentError(f"{size_name} is needed where {index_name} has no values yet (a graph, or torch.vmap)")
        return _run_open(SCATTER, values, along, index, check_size(size), index_name, tol)
    topology = _topology(index, size, size_name, index_name, values)
    if topology.entries != values.shape[along]:
        raise ShapeError(
            f"values has {values.shape[along]} entries along axis {along} and {index_name} has {topology.entries}; "
            "they must agree"
        )
    return _run(SCATTER, values, along, topology, tol)


def _operand(x: Any, name: str, axis: Any) -> tuple[Any, int]:
    x = as_array(x, name)
    ndim = len(x.shape)
    if ndim == 0:
        raise AxisError(f"{name} is 0-dimensional: there is no axis to index")
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentTypeError(f"axis must be a whole number, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise AxisError(f"axis={number} does not exist in {name}, which has {ndim} axes")
    return x, number % ndim


def _topology(given: Any, size: Any, size_name: str, name: str, x: Any) -> IndexTopology:
    """Return a compiled index of the given size, compiling it here where it is a plain one."""
    if isinstance(given, IndexTopology):
        if size is not None and size != given.size:
            raise ShapeError(f"{size_name} is {size!r} and the topology has {given.size} slots; they must agree")
        return given
    if isinstance(given, Topology):
        raise ArgumentTypeError(f"{name} is a mask of attention; compile an index with Topology.from_index")
    # What a graph keeps for its backward pass must not change when the caller's array does.
    return IndexTopology.from_index(given, size, copy=is_recorded(x), name=name)


def _run_open(family: Any, x: Any, axis: int, index: Any, size: int, name: str, tol: Any) -> Any:
    """Run a call whose index has no values yet: it is checked and compiled when it has."""
    operand = describe(index)
    if len(operand.shape) != 1:
        raise ShapeError(f"{name} must have one axis, got shape {operand.shape}")
    if not operand.dtype.startswith(("int", "uint")):
        raise DtypeError(f"{name} has dtype {operand.dtype}; integers are accepted")
    if family is SCATTER and operand.shape[0] != x.shape[axis]:
        raise ShapeError(
            f"values has {x.shape[axis]} entries along axis {axis} and {name} has {operand.shape[0]}; they must agree"
        )
    tol = None if tol is None else _settings.check_tol("tol", tol)
    return dispatcher.run(family, IndexParams(axis, size, False, 0), x, index, None, tol=tol)


def _run(family: Any, x: Any, axis: int, topology: IndexTopology, tol: Any) -> Any:
    tol = None if tol is None else _settings.check_tol("tol", tol)
    if family is GATHER and not is_recorded(x):  # then nothing asks how the index is ordered
        params, starts = IndexParams(axis, topology.size, False, 1), None
    else:
        params, (_, starts) = indexing(axis, topology), indices(topology)
    known = call_key(x)
    key = None if known is None else (family, known, params, topology.entries, tol, _settings.current())
    call = None if key is None else dispatcher.fast.get(key)
    if call is not None:
        try:
            return call(x, topology.index, starts)
        except (MemoryError, DeviceError):
            pass  # the whole path hands over to the next candidate
    result = dispatcher.run(family, params, x, topology.index, starts, tol=tol)
    if key is not None:
        dispatcher.bind(key, family, params, (x, topology.index, starts), tol)
    return result
