"""Attention along topologies, given and learned, and in several precisions, against softmax in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import adaptive_compute as ac
from adaptive_compute import nn
from adaptive_compute.core.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendUnavailable,
    DtypeError,
    NoProfileWarning,
    ShapeError,
    ToleranceError,
)

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = ["cpu", CUDA]
SPARSE = ac.Blocks(np.random.default_rng(0).random((7, 7)) < 0.4, 16)


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weights(layer, x, kept=None):
    """Softmax over the kept pairs, (batch, heads, length, length), and the values, in float64."""
    w = layer.project.weight.detach().double().cpu()
    q, k, v = (x.double().cpu() @ w.T).unflatten(2, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if kept is not None:
        scores = scores.masked_fill(~torch.from_numpy(kept), -torch.inf)
    return torch.softmax(scores, -1).nan_to_num(0), v


def by_hand(layer, x, kept=None):
    found, v = weights(layer, x, kept)
    return (found @ v).transpose(1, 2).flatten(2) @ layer.out.weight.detach().double().cpu().T


def pairs(mask, length):
    kept = mask.keep(np.arange(length)[:, None], np.arange(length), length, length)
    return np.broadcast_to(kept, (length, length)).copy()


def apart(found, expected):
    return float((found.detach().double().cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("topology", "causal"),
    [
        (None, False), (ac.Window(9), False), (ac.Causal(), True), (ac.Window(9) & ac.Causal(), True),
        (ac.Prefix(3) | ac.Causal(), False), (SPARSE, False), (SPARSE & ac.Causal(), True), (~ac.Causal(), False),
        (ac.Causal() & ~ac.Window(4), True), (ac.Window(1), True),
    ],
)  # fmt: skip
def test_it_is_softmax_over_the_kept_pairs(topology, causal, device):
    torch.manual_seed(0)
    layer = nn.TopologyAttention(12, topology, heads=3, max_length=101).to(device)
    assert layer.causal is causal
    for length in (101, 40, 1):
        x = drawn(2, length, 12, seed=length)
        kept = None if topology is None else pairs(layer.mask_for(length), length)
        if topology is not None:
            assert (kept == pairs(topology, 101)[:length, :length]).all()
        expected = by_hand(layer, x, kept)
        assert (layer(x.to(device)).double().cpu() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("topology", [ac.Causal(), SPARSE & ac.Causal(), ac.Window(5) & ac.Causal()])
def test_certificates_agree_with_what_a_topology_says(topology):
    torch.manual_seed(0)
    layer = nn.TopologyAttention(4, topology, heads=1, max_length=37)
    assert nn.certify_causal(layer, (2, 37, 4), positions=(1, 15, 16, 17, 36)).causal
    given = topology.left if hasattr(topology, "left") else ~ac.Causal()
    other = nn.TopologyAttention(4, given, heads=1, max_length=37)
    assert not other.causal
    assert not nn.certify_causal(other, (2, 37, 4), positions=(1, 15, 16, 17, 36)).causal


def test_a_compiled_array_is_for_one_length():
    mask = np.tril(np.ones((33, 33), bool))
    layer = nn.TopologyAttention(4, ac.Topology.from_mask(mask), heads=1, max_length=33)
    assert layer.causal
    assert apart(layer(drawn(1, 33, 4)), by_hand(layer, drawn(1, 33, 4), mask)) < 1e-5
    with pytest.raises(ShapeError, match="33"):
        layer(drawn(1, 32, 4))
    mask[3, 4] = True
    assert not nn.TopologyAttention(4, ac.Topology.from_mask(mask), heads=1, max_length=33).causal


@pytest.mark.parametrize("given", [None, ac.Causal()])
def test_a_learned_topology_keeps_the_tiles_with_most_mass(given):
    torch.manual_seed(0)
    length, side = 150, 32
    layer = nn.TopologyAttention(8, given, heads=2, max_length=200)
    samples = [3 * drawn(2, length, 8), 3 * drawn(1, length, 8, seed=1)]
    kept = None if given is None else np.tril(np.ones((length, length), bool))
    mass = torch.cat([weights(layer, x, kept)[0].flatten(0, 1) for x in samples]).mean(0).numpy()
    starts = np.arange(0, length, side)
    by_tile = np.add.reduceat(np.add.reduceat(mass, starts, 0), starts, 1)
    rows = by_tile.sum(1, keepdims=True)

    report = layer.learn(samples, block=side, keep=2)
    assert np.abs(report.mass - by_tile / rows).max() < 1e-6
    diagonal = np.eye(5, dtype=bool)
    best = np.argsort(-np.where(diagonal, np.inf, by_tile), axis=1)[:, :2]
    layout = np.zeros((5, 5), bool)
    np.put_along_axis(layout, best, True, 1)
    layout &= by_tile > 0
    assert (report.layout == layout).all()
    assert report.dropped == pytest.approx(by_tile[~layout].sum() / by_tile.sum(), abs=1e-6)
    assert report.dropped_by_row == pytest.approx(np.where(layout, 0, by_tile).sum(1) / rows[:, 0], abs=1e-6)
    assert report.given_tiles == (25 if given is None else 15)
    assert "tiles of 32 kept" in str(report)
    assert layer.causal is (given is not None)
    assert layer.max_length == length

    seen = np.kron(layout, np.ones((side, side), bool))[:length, :length] & (True if kept is None else kept)
    for n in (length, 70):
        assert apart(layer(samples[1][:, :n]), by_hand(layer, samples[1][:, :n], seen[:n, :n])) < 1e-5
    if layer.causal:
        assert nn.certify_causal(layer, (2, 70, 8), positions=(1, 32, 33, 65)).causal


def test_what_was_learned_is_saved(tmp_path):
    torch.manual_seed(0)
    x = 3 * drawn(1, 100, 8)
    layer = nn.TopologyAttention(8, ac.Causal(), heads=2, max_length=128)
    fresh = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.learn(x, block=16, keep=2)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = nn.TopologyAttention(8, ac.Causal(), heads=2, max_length=128)
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(other(x), layer(x))
    assert other.causal
    assert other.max_length == 100
    whole = nn.TopologyAttention(8, ac.Causal(), heads=2, max_length=128)
    whole.load_state_dict(fresh)
    assert not torch.allclose(whole(x), layer(x))
    with pytest.raises(ArgumentError, match="do not cover 100"):
        other.set_extra_state(torch.tensor([100, 16, 1]))


def test_a_share_of_the_mass_is_held_by_as_few_tiles_as_can():
    torch.manual_seed(0)
    layer = nn.TopologyAttention(8, heads=1)
    report = layer.learn(4 * drawn(1, 128, 8), block=16, mass=0.8)
    off = report.mass * ~np.eye(8, dtype=bool)
    assert (report.dropped_by_row <= 0.2 + 1e-6).all()
    for row in range(8):
        least = off[row][report.layout[row] & (off[row] > 0)].min(initial=np.inf)
        held = report.mass[row][report.layout[row]].sum()
        assert not np.isfinite(least) or held - least < 0.8 or report.mass[row, row] < least
    assert layer.learn(4 * drawn(1, 128, 8), block=16, mass=1.0).dropped == 0.0


@pytest.mark.parametrize("make", [
    lambda: nn.TopologyAttention(4, ac.Window(3) & ac.Causal(), heads=2, max_length=9),
    lambda: nn.AdaptivePrecisionAttention(4, heads=2, scores=None, values=None),
])  # fmt: skip
def test_gradients(make):
    torch.manual_seed(0)
    layer = make().double()
    names, values = zip(*layer.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    x = drawn(2, 5, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values))


EPS = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-24}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("scores", "values"), [("bfloat16",) * 2, ("float16",) * 2, ("bfloat16", "float32"), (None, "float16")]
)
def test_precision_follows_its_path(scores, values, device):
    torch.manual_seed(0)
    layer = nn.AdaptivePrecisionAttention(16, heads=2, scores=scores, values=values).to(device)
    x = drawn(2, 67, 16)
    expected = by_hand(layer, x)
    found = layer(x.to(device))
    assert found.dtype is torch.float32
    report = layer.error(x.to(device))
    assert apart(found, expected) == pytest.approx(report.total, rel=1e-2)
    assert report.rest < 2e-6
    assert (report.scores < 1e-12) is (scores is None)
    for error, precision in ((report.scores, scores), (report.values, values)):
        if precision is not None:
            assert error < 2 * EPS[precision]
    assert report.values > 0.05 * EPS[values]
    assert "values alone" in str(report)
    # Gradients pass the rounding as if it were not there, and are as exact as it is.
    x = x.to(device).requires_grad_()
    (slope,) = torch.autograd.grad(layer(x).square().sum(), x)
    exact = x.detach().double().cpu().requires_grad_()
    w, v = (z.detach().double().cpu() for z in (layer.project.weight, layer.out.weight))
    q, k, u = (exact @ w.T).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    y = (torch.softmax(q @ k.mT / 8**0.5, -1) @ u).transpose(1, 2).flatten(2) @ v.T
    (expected,) = torch.autograd.grad(y.square().sum(), exact)
    assert apart(slope, expected) < 4 * max(EPS[p] for p in (scores, values) if p)


def test_precision_adapts_to_a_tolerance():
    torch.manual_seed(0)
    layer, x = nn.AdaptivePrecisionAttention(8, ac.Causal(), heads=2, max_length=50), drawn(1, 50, 8)
    assert layer.adapt(x, tol=1e-2).total <= 1e-2
    assert {layer.scores, layer.values} <= {"float16", "bfloat16"}
    assert layer.adapt(x, tol=1e-6).total <= 1e-6
    assert (layer.scores, layer.values) == ("float32", "float32")
    with pytest.raises(ToleranceError, match="tol=1e-12"):
        layer.adapt(x, tol=1e-12)
    # Values beyond float16's largest leave bfloat16.
    with torch.no_grad():
        layer.project.weight[16:] *= 1e6
    assert layer.adapt(x, tol=1e-2).total <= 1e-2
    assert layer.values == "bfloat16"
    layer.values = layer.scores = "float16"
    assert layer.error(x).total == np.inf


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", [nn.TopologyAttention, nn.AdaptivePrecisionAttention])
def test_half_precision_and_empty_batches(form, device):
    torch.manual_seed(0)
    layer, x = form(8, heads=2).to(device), drawn(2, 33, 8).to(device)
    assert layer(x[:0]).shape == (0, 33, 8)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(device, dtype):
            assert layer(x).dtype is dtype
        narrow = form(8, heads=2).to(device, dtype)
        assert narrow(x.to(dtype)).dtype is dtype
        assert apart(narrow(x.to(dtype)), by_hand(narrow, x.to(dtype))) < 2e-2


def test_what_is_refused():
    layer = nn.TopologyAttention(8, heads=2)
    for x, error, words in (
        (drawn(1, 9, 7), ShapeError, "dim 8"),
        (drawn(1, 9, 8).double(), DtypeError, "float64"),
        (torch.ones(1, 9, 8, device="meta"), BackendUnavailable, "meta"),
    ):
        with pytest.raises(error, match=words):
            layer(x)
    for arguments, options, error, words in (
        ((8, ac.Causal()), {}, ArgumentError, "max_length"),
        ((8, np.ones((3, 3), bool)), {}, ArgumentTypeError, "topology"),
        ((8, ac.Topology.from_index([0], size=1)), {"max_length": 1}, ArgumentTypeError, "IndexTopology"),
        ((8, None, 3), {}, ArgumentError, "heads"),
        ((8, SPARSE), {"max_length": 200}, ShapeError, "layout"),
    ):
        with pytest.raises(error, match=words):
            nn.TopologyAttention(*arguments, **options)
    for options, error, words in (
        ({}, ArgumentError, "one of keep and mass"),
        ({"keep": 0}, ArgumentError, "keep"),
        ({"mass": 1.5}, ArgumentError, "mass"),
    ):
        with pytest.raises(error, match=words):
            layer.learn(drawn(1, 9, 8), **options)
    with pytest.raises(ShapeError, match="one length"):
        layer.learn([drawn(1, 9, 8), drawn(1, 8, 8)], keep=1)
    for nothing in ([], [drawn(0, 9, 8)]):
        with pytest.raises(ShapeError, match="at least one"):
            layer.learn(nothing, keep=1)
    with pytest.raises(ArgumentError, match="scores"):
        nn.AdaptivePrecisionAttention(8, scores="int8")
    with pytest.raises(ArgumentError, match="at least one"):
        nn.AdaptivePrecisionAttention(8).error(drawn(0, 4, 8))
