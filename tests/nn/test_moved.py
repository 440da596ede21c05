"""Layers made without memory, or kept in another precision for a while, are themselves again afterwards."""

import copy

import pytest
import torch

from adaptive_compute import nn

MAKE = [
    lambda: nn.GatedConvolution(6, max_length=50),
    lambda: nn.GatedConvolution(6, max_length=50, filter="multi-scale"),
    lambda: nn.SpectralMixing(6, max_length=50, rotary=True, phase=True),
]


@pytest.mark.parametrize("make", MAKE, ids=["implicit", "multi-scale", "shaped"])
def test_made_on_meta_and_loaded(make):
    torch.manual_seed(3)
    layer, x = make(), torch.randn(2, 50, 6)
    with torch.device("meta"):
        empty = make()
    loaded = empty.to_empty(device="cpu")
    loaded.load_state_dict(layer.state_dict())
    torch.testing.assert_close(loaded(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("make", MAKE, ids=["implicit", "multi-scale", "shaped"])
def test_half_precision_loses_the_parameters_digits_only(make):
    torch.manual_seed(3)
    layer, x = make(), torch.randn(2, 50, 6)
    back = copy.deepcopy(layer).bfloat16().float()
    rounded = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    torch.testing.assert_close(back(x), rounded(x), rtol=0, atol=0)
    assert not torch.equal(back(x), layer(x))
