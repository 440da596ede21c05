"""Streams in chunks of any size give what the whole sequence gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")

from adaptive_compute import nn  # noqa: E402
from adaptive_compute.core.errors import ArgumentError, ArgumentTypeError, NoProfileWarning, ShapeError  # noqa: E402
from adaptive_compute.nn.streaming import convolve_step, initial_convolution  # noqa: E402

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")
LENGTH = 10_000
LAYERS = {
    "gated": lambda length: nn.GatedConvolution(4, max_length=length),
    "gated, order 3": lambda length: nn.GatedConvolution(4, max_length=length, order=3, filter="multi-scale", taps=1),
    "mixing": lambda length: nn.SpectralMixing(4, max_length=length, glu=True, rotary=True),
}


def streamed(layer, x, sizes):
    """Return the outputs of a stream; ``sizes`` are those of the chunks, the last of them again and again."""
    state, outputs, place = layer.initial_state(len(x)), [], 0
    while place < x.shape[1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        out, state = layer.step(x[:, place : place + size], state)
        outputs.append(out)
        place += size
    return torch.cat(outputs, 1)


def sample(layer, length, dtype=torch.float32, batch=2):
    torch.manual_seed(0)
    made = LAYERS[layer](length)
    torch.nn.init.normal_(made.skip)
    return made.to(dtype), torch.randn(batch, length, 4, dtype=dtype)


@pytest.mark.parametrize("chunk", [7, 16, 1000])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_stream_is_the_whole(layer, chunk):
    made, x = sample(layer, LENGTH)
    whole = made(x).detach()
    assert (streamed(made, x, [chunk]) - whole).abs().max() < 1e-5 * max(1.0, float(whole.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("layer", list(LAYERS))
def test_a_stream_of_single_positions_is_the_whole(layer):
    made, x = sample(layer, LENGTH)
    whole = made(x).detach()
    assert (streamed(made, x, [1]) - whole).abs().max() < 1e-5 * max(1.0, float(whole.abs().max()))


@pytest.mark.parametrize("layer", list(LAYERS))
@pytest.mark.parametrize("sizes", [[1], [300, 1, 2, 64, 5, 0, 128, 100], [1, 1, 1, 600]])
def test_chunks_of_changing_sizes_in_float64(layer, sizes):
    made, x = sample(layer, 700, torch.float64)
    assert (streamed(made, x, list(sizes)) - made(x)).abs().max() < 1e-12


@pytest.mark.parametrize("taps", [1, 2, 3, 63, 64, 65])
@pytest.mark.parametrize("chunk", [1, 5, 64, 200])
def test_a_stream_goes_on_beyond_the_kernel(taps, chunk):
    torch.manual_seed(0)
    u, h = torch.randn(3, 2, 300, dtype=torch.float64), torch.randn(3, taps, dtype=torch.float64)
    wanted = torch.zeros_like(u)
    for s in range(taps):
        wanted[..., s:] += h[:, None, s : s + 1] * u[..., : 300 - s]
    state = initial_convolution(h, 2)
    held = sum(v.numel() for v in state.values())
    found = torch.cat([convolve_step(part, state) for part in u.split(chunk, 2)], 2)
    assert (found - wanted).abs().max() < 1e-12
    assert sum(v.numel() for v in state.values()) == held


def test_a_state_is_plain_tensors_and_branches_by_cloning():
    made, x = sample("gated", 100)
    _, state = made.step(x[:, :50], made.initial_state(2))
    assert all(type(v) is torch.Tensor for v in state.values())
    branch = {key: value.clone() for key, value in state.items()}
    first, _ = made.step(x[:, 50:], state)
    second, _ = made.step(x[:, 50:], branch)
    assert torch.equal(first, second)
    assert int(state["0.position"]) == 100


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_streams_as_it_runs_whole(dtype):
    made, x = sample("gated", 300, dtype)
    whole = made(x).float()
    assert (streamed(made, x, [70]).float() - whole).norm() < 1e-2 * whole.norm()


def test_an_empty_batch_streams():
    made, x = sample("mixing", 64, batch=0)
    assert streamed(made, x, [10]).shape == (0, 64, 4)


def test_bad_states_and_chunks_are_refused():
    made, x = sample("gated", 64)
    state = made.initial_state(2)
    with pytest.raises(ShapeError, match="chunk has a batch of 1, state one of 2"):
        made.step(x[:1, :5], state)
    with pytest.raises(ArgumentTypeError, match="state must be what initial_state"):
        made.step(x, None)
    with pytest.raises(ShapeError, match="chunk must have dim 4"):
        made.step(x[..., :3], state)
    with pytest.raises(ArgumentError, match="batch must be a whole number of at least 0, got -1"):
        made.initial_state(-1)
    with pytest.raises(ArgumentError, match="looks ahead cannot stream"):
        nn.SpectralMixing(4, max_length=8, causal=False).initial_state()
