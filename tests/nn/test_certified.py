"""Every layer that says it is causal is certified: none can be added without being asked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import adaptive_compute as ac
from adaptive_compute import nn
from adaptive_compute.core.errors import NoProfileWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")

DIM = 8
# Further forms of layers that say they are causal: what is made by (DIM) or (DIM, max_length=length) is asked anyway.
FORMS: dict[str, Callable[[int], torch.nn.Module]] = {
    "gated, order 3": lambda length: nn.GatedConvolution(DIM, max_length=length, order=3, taps=5),
    "gated, full filter": lambda length: nn.GatedConvolution(DIM, max_length=length, filter="full"),
    "gated, low-rank filter": lambda length: nn.GatedConvolution(DIM, max_length=length, filter="low-rank"),
    "gated, multi-scale filter": lambda length: nn.GatedConvolution(DIM, max_length=length, filter="multi-scale"),
    "mixing, all switches": lambda length: nn.SpectralMixing(
        DIM, max_length=length, filter="implicit", rotary=True, phase=True, glu=True
    ),
    "topology": lambda length: nn.TopologyAttention(DIM, ac.Causal() & ac.Window(9), max_length=length),
    "precisions": lambda length: nn.AdaptivePrecisionAttention(DIM, ac.Causal(), max_length=length),
    "spectral attention, nufft": lambda length: nn.CausalSpectralAttention(DIM, method="nufft"),
}
BASES = ("Headed",)  # classes that are no layers by themselves
OVER_BYTES = ("ByteEmbedding", "ByteEncoder")
NEEDS_OTHERS = ("kernels",)  # folders whose modules need a library that is not always there


def layers() -> list[type]:
    """Return every layer class of the room, listed among its public names or not."""
    for module in pkgutil.walk_packages(nn.__path__, f"{nn.__name__}."):
        if not any(f".{folder}" in module.name for folder in NEEDS_OTHERS):
            importlib.import_module(module.name)
    found, open_ = set(), [nn.Layer]
    while open_:
        for one in open_.pop().__subclasses__():
            open_.append(one)
            if one.__module__.startswith(nn.__name__):
                found.add(one)
    return sorted(found, key=lambda one: one.__name__)


def made(layer: type, length: int) -> torch.nn.Module:
    """Return a layer for sequences of some length, from fixed random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        accepted = inspect.signature(layer).parameters
        return layer(DIM, max_length=length) if "max_length" in accepted else layer(DIM)


def certificate(layer: type, length: int) -> nn.CausalityReport:
    if layer.__name__ == "ComplexEmbedding":
        return nn.certify_causal(made(layer, length), (2, length), vocabulary=256)
    if layer.__name__ in OVER_BYTES:
        return nn.certify_causal(made(layer, length), (2, length), vocabulary=256, tokens=torch.uint8)
    dtype = torch.complex128 if getattr(layer, "complex_inputs", False) else torch.float64
    return nn.certify_causal(made(layer, length), (2, length, DIM), dtype=dtype)


CAUSAL = [layer for layer in layers() if layer.causal and not layer.__name__.startswith("_")]

OTHERS = [
    layer for layer in layers() if not (layer.causal or layer.__name__ in BASES or layer.__name__.startswith("_"))
]


@pytest.mark.parametrize("layer", CAUSAL, ids=lambda layer: layer.__name__)
def test_a_layer_that_says_it_is_causal_is(layer):
    report = certificate(layer, 17)
    assert report.causal, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_says_it_is_causal_is(form):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = FORMS[form](33)
    report = nn.certify_causal(layer, (2, 33, DIM))
    assert layer.causal
    assert report.causal, str(report)


@pytest.mark.parametrize("layer", OTHERS, ids=lambda layer: layer.__name__)
def test_a_layer_that_says_it_is_not_causal_is_not(layer):
    report = certificate(layer, 16)
    assert not report.causal
    assert report.first_leak.found_by != "batch"


@pytest.mark.slow
@pytest.mark.parametrize("layer", CAUSAL, ids=lambda layer: layer.__name__)
def test_at_greater_lengths_too(layer):
    for length in (32, 129):
        report = certificate(layer, length)
        assert report.causal, str(report)


def test_a_layer_that_only_says_so_would_be_caught():
    class Pretends(nn.leaks.MaskedBins):
        causal = True

    assert not certificate(Pretends, 17).causal


@pytest.mark.parametrize("name", [name for name in nn.__all__ if inspect.isclass(getattr(nn, name))])
def test_every_public_module_says_whether_it_is_causal(name):
    one = getattr(nn, name)
    if issubclass(one, torch.nn.Module) and one is not nn.Layer:
        assert isinstance(one.causal, bool)


def test_the_leaks_say_that_they_are_not():
    assert not any(leak.causal for leak in nn.leaks.LEAKS)


def test_the_index_names_every_public_name_and_says_of_each_layer_whether_it_is_causal():
    page = (Path(__file__).parents[2] / "docs" / "nn.md").read_text(encoding="utf-8")
    reports = {"PrecisionReport", "RoutingReport"}  # returned by methods, and told of where those are
    for name in set(nn.__all__) - reports:
        assert re.search(rf"\b{name}\b", page), name
    rows = dict(re.findall(r"^\| `(\w+)` \| (yes|no|if)\b", page, re.MULTILINE))
    for layer in [one for one in layers() if one.__name__ in nn.__all__ and one.__name__ in rows]:
        assert rows[layer.__name__] in ("yes" if layer.causal else "no", "if"), layer


def test_the_reference_has_every_public_name():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "nn.md").read_text(encoding="utf-8")
    for name in set(nn.__all__) - {"leaks"}:
        assert f"::: {getattr(nn, name).__module__}.{name}\n" in page, name
