"""Masks and topologies: what they keep, what they compile to, and their files."""

from __future__ import annotations

import gc
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_compute.core.errors import ArgumentError, DtypeError, ShapeError
from adaptive_compute.core.masks import Blocks, Causal, Prefix, Window
from adaptive_compute.core.topology import FULL, Topology, compile_tiles


def written_out(tiles):
    """Return the boolean matrix that a compiled mask stands for."""
    kept = np.zeros((tiles.lq, tiles.lk), bool)
    rows, columns = tiles.tile
    for r in range(len(tiles.start) - 1):
        for at in range(tiles.start[r], tiles.start[r + 1]):
            c = tiles.keys[at]
            part = kept[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            pattern = tiles.pattern[at]
            part[...] = True if pattern == FULL else tiles.keep(pattern)[: part.shape[0], : part.shape[1]]
    return kept


def by_definition(mask, lq, lk):
    """Return the matrix of a rule, pair by pair in plain Python."""
    rule = {
        Causal(): lambda i, j: j <= i,
        Causal("bottom-right"): lambda i, j: j - lk <= i - lq,
        Window(7): lambda i, j: -7 < i - j < 7,
        Prefix(5): lambda i, j: j < 5,
    }[mask]
    return np.array([[rule(i, j) for j in range(lk)] for i in range(lq)], bool).reshape(lq, lk)


@pytest.mark.parametrize("mask", [Causal(), Causal("bottom-right"), Window(7), Prefix(5)], ids=str)
@pytest.mark.parametrize(("lq", "lk"), [(1, 1), (20, 33), (33, 20), (0, 4), (4, 0)])
def test_rules_keep_what_they_say(mask, lq, lk):
    expected = by_definition(mask, lq, lk)
    kept = mask.keep(np.arange(lq)[:, None], np.arange(lk)[None, :], lq, lk)
    assert np.array_equal(np.broadcast_to(kept, (lq, lk)), expected)
    assert np.array_equal(written_out(mask.tiles(lq, lk, (8, 8))), expected)


@st.composite
def masks(draw, lq, lk, depth=2):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if depth and draw(st.booleans()):
        left = draw(masks(lq, lk, depth - 1))
        kind = draw(st.sampled_from("&|~"))
        if kind == "~":
            return ~left
        right = draw(masks(lq, lk, depth - 1))
        return left & right if kind == "&" else left | right
    block = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shape = -(-lq // block[0]), -(-lk // block[1])
    return draw(
        st.sampled_from([
            Causal(), Causal("bottom-right"), Window(1), Window(17), Window(1000), Prefix(0), Prefix(29),
            Blocks(rng.random(shape) < 0.4, block),
            Topology.from_mask(rng.random((lq, lk)) < 0.02, 16),
            Topology.from_mask(np.kron(rng.random((lq, 1)) < 0.5, rng.random((1, lk)) < 0.9), 8),
        ])
    )  # fmt: skip


@given(data=st.data(), lq=st.integers(0, 130), lk=st.integers(0, 130))
@settings(max_examples=150, deadline=None)
def test_compiled_tiles_say_what_the_mask_says(data, lq, lk):
    mask = data.draw(masks(lq, lk))
    tile = data.draw(st.sampled_from([(64, 64), (16, 32), (1, 64), (48, 8)]))
    kept = np.broadcast_to(mask.keep(np.arange(lq)[:, None], np.arange(lk)[None, :], lq, lk), (lq, lk))
    tiles = mask.tiles(lq, lk, tile)
    assert np.array_equal(written_out(tiles), kept)
    # Nothing is visited in vain, and a tile is FULL exactly where everything in it is kept.
    for r in range(len(tiles.start) - 1):
        for at in range(tiles.start[r], tiles.start[r + 1]):
            c = tiles.keys[at]
            part = kept[r * tile[0] : (r + 1) * tile[0], c * tile[1] : (c + 1) * tile[1]]
            assert part.any()
            assert part.all() == (tiles.pattern[at] == FULL)


def test_memory_follows_the_kept_tiles():
    short, long = (Window(256).tiles(n, n).nbytes for n in (8192, 32768))
    assert long < 4.5 * short
    assert Window(256).tiles(32768, 32768).visited < 10 * 512


def test_long_sequences_compile():
    tiles = (Window(100) & Causal()).tiles(1 << 18, 1 << 18)
    assert tiles.visited < 3.1 * (1 << 12)
    assert tiles.nbytes < 1 << 18


def test_equal_masks_are_one_value():
    a = np.random.default_rng(0).random((40, 40)) < 0.3
    assert Topology.from_mask(a) == Topology.from_mask(a.copy())
    assert Topology.from_mask(a) != Topology.from_mask(~a)
    assert hash(Topology.from_mask(a)) == hash(Topology.from_mask(a.copy()))
    assert Blocks(a, 4) == Blocks(a.tolist(), (4, 4))
    assert Blocks(a, 4) != Blocks(a, 5)
    assert Causal() & Window(3) == Causal() & Window(3)
    assert Causal() & Window(3) != Causal() | Window(3)
    assert len({Window(3), Window(3), Window(4), Prefix(3)}) == 3
    assert Window(300).tiles(64, 64) is Window(300).tiles(64, 64)


def test_blocks_do_not_share_the_callers_memory():
    layout = np.ones((2, 2), bool)
    blocks = Blocks(layout, 8)
    layout[:] = False
    assert blocks.keep(0, 0, 16, 16)


@given(data=st.data(), lq=st.integers(1, 90), lk=st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_files_bring_back_the_same_value(data, lq, lk, tmp_path_factory):
    mask = data.draw(masks(lq, lk))
    path = tmp_path_factory.mktemp("topology") / "mask.npz"
    mask.save(path)
    back = Topology.load(path)
    assert back == mask
    assert type(back) is type(mask)
    assert [file.name for file in path.parent.iterdir()] == ["mask.npz"]


def test_saving_replaces_the_file_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    Window(3).save(path)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        Window(4).save(path)
    assert Topology.load(path) == Window(3)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def damage_text(path):
    path.write_text("hello")


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def damage_empty(path):
    path.write_bytes(b"")


def damage_version(path):
    np.savez(path, kind="window", version=99, n=3)


def damage_kind(path):
    np.savez(path, kind="sieve", version=1, n=3)


def damage_value(path):
    np.savez(path, kind="window", version=1, n=-3)


def damage_missing(path):
    np.savez(path, kind="window", version=1)


def damage_pickle(path):
    np.savez(path, kind="window", version=1, n=np.array([{}], object))


def damage_array(path):
    with open(path, "wb") as file:
        np.save(file, np.ones(3))


@pytest.mark.parametrize(
    "damage",
    [damage_text, damage_truncate, damage_empty, damage_version, damage_kind, damage_value, damage_missing,
     damage_pickle, damage_array],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, damage):
    path = tmp_path / "a.npz"
    Window(3).save(path)
    damage(path)
    with pytest.raises(ArgumentError, match=r"a\.npz"):
        Topology.load(path)


def test_a_file_that_contradicts_itself_is_refused(tmp_path):
    mask = Topology.from_mask(np.random.default_rng(1).random((100, 100)) < 0.01, 16)
    changes = {
        "keys": lambda a: a + 100,
        "pattern": lambda a: a + len(a),
        "start": lambda a: a[::-1],
        "bits": lambda a: a[:, :3],
    }
    for name, change in changes.items():
        arrays = mask.to_arrays()
        arrays[name] = change(arrays[name])
        np.savez(tmp_path / "a.npz", kind="array", version=1, **arrays)
        with pytest.raises(ArgumentError, match="damaged"):
            Topology.load(tmp_path / "a.npz")


@pytest.mark.parametrize("mask", [Window(3), Prefix(3)])
def test_a_fraction_where_a_whole_number_belongs_is_refused(tmp_path, mask):
    np.savez(tmp_path / "a.npz", kind=mask.kind, version=1, n=np.array(1.5))
    with pytest.raises(ArgumentError, match=r"damaged.*whole number"):
        Topology.load(tmp_path / "a.npz")


def test_a_truncated_file_is_closed(tmp_path):
    path = tmp_path / "a.npz"
    Window(3).save(path)
    damage_truncate(path)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with pytest.raises(ArgumentError):
            Topology.load(path)
        gc.collect()
    assert not [w for w in given if w.category is ResourceWarning]


def test_a_topology_has_an_example():
    assert ">>>" in Topology.__doc__


def test_compiling_takes_a_step_a_row_and_not_one_a_tile(monkeypatch):
    asked = []
    monkeypatch.setattr(Causal, "keep", lambda self, i, j, lq, lk: asked.append(1) or j <= i)
    start = time.perf_counter()
    tiles = compile_tiles.__wrapped__(Causal(), 1 << 16, 1 << 16, (64, 64))
    assert time.perf_counter() - start < 0.4  # 0.07 s measured; 0.7 s with a step for each tile
    assert (len(asked), tiles.visited) == (1024, 1024 * 1025 // 2)


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        Topology.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: Window(0), ArgumentError, "n must be at least 1"),
        (lambda: Window(2.5), ArgumentError, "n must be a whole number"),
        (lambda: Prefix(-1), ArgumentError, "n must be at least 0"),
        (lambda: Causal("middle"), ArgumentError, "align"),
        (lambda: Blocks(np.ones((2, 2)), 8), DtypeError, "layout"),
        (lambda: Blocks(np.ones(2, bool), 8), ShapeError, "layout"),
        (lambda: Blocks(np.ones((2, 2), bool), 0), ArgumentError, "block"),
        (lambda: Blocks(np.ones((2, 2), bool), (8, 8, 8)), ArgumentError, "block"),
        (lambda: Topology.from_mask(np.ones((4, 4))), DtypeError, "mask"),
        (lambda: Topology.from_mask(np.ones((4, 4, 4), bool)), ShapeError, "mask"),
        (lambda: Topology.from_mask(np.ones((4, 4), bool), 12), ArgumentError, "tile"),
        (lambda: Topology.from_mask(np.ones((4, 4), bool)).tiles(4, 5), ShapeError, "4 queries and 4 keys"),
        (lambda: (Causal() & Blocks(np.ones((2, 2), bool), 8)).tiles(16, 17), ShapeError, "layout"),
        (lambda: Causal() & 3, TypeError, "unsupported operand"),
    ],
)
def test_bad_masks_raise_and_name_what_is_wrong(make, error, named):
    with pytest.raises(error, match=named):
        make()
