"""The kernels that only run on a GPU are asked where they run, in the precision they have."""

from __future__ import annotations

import pytest
import torch

from adaptive_compute import nn
from adaptive_compute.core.errors import NoProfileWarning

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
    pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}"),
]


def layer(length: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return nn.GatedConvolution(32, max_length=length).to("cuda")


@pytest.mark.parametrize("length", [255, 1000, 1024, 2048, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gated_convolution_is_causal_on_a_gpu(length, dtype):
    report = nn.certify_causal(layer(length), (2, length, 32), dtype=dtype)
    assert report.causal, str(report)
    print(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_leak_behind_it_is_seen_in_the_same_precision(dtype):
    weight = 1e-3 if dtype == torch.float32 else 1.0
    model = torch.nn.Sequential(layer(1000), nn.leaks.MaskedBins(32, weight=weight)).to("cuda")
    if dtype == torch.bfloat16:
        model[1] = Shift()
    assert not nn.certify_causal(model, (2, 1000, 32), dtype=dtype).causal


class Shift(torch.nn.Module):
    """What comes next is added: no transform, which would not take bfloat16."""

    def forward(self, x):
        return x + torch.nn.functional.pad(x, (0, 0, 0, 1))[:, 1:]


def test_a_recorded_step_trains_as_one_by_one_does():
    from benchmarks.byte_model.model import made
    from benchmarks.byte_model.train import Recipe, Trainer

    text = torch.frombuffer(bytearray(b"to be or not to be, that is the question. " * 200), dtype=torch.uint8)
    curves = []
    for graph in (False, True):
        recipe = Recipe(steps=30, batch=4, length=256, rate=3e-3, warm_up=5, dropout=0.0, compiled="none", graph=graph)
        model = made("spectral", dim=32, layers=2, length=256, hidden=64)
        curves.append(Trainer(model, text, recipe, 0, "cuda:0").run(lambda _: None, every=5)["curve"])
    for (_, one), (_, other) in zip(*curves):
        assert one == pytest.approx(other, abs=0.05)
    assert curves[1][-1][1] < 0.8 * curves[1][0][1]
