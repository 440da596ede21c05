"""The certificate catches what leaks, however little, and lets pass what only rounds."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional

from adaptive_compute.core.errors import ArgumentError, ArgumentTypeError, DtypeError, NoProfileWarning, ShapeError
from adaptive_compute.nn.certificate import certify_causal
from adaptive_compute.nn.leaks import LEAKS, MaskedBins, SequenceNorm, UnpaddedConvolution

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")


class Direct(torch.nn.Module):
    """y_t = sum_(j <= t) h_j x_(t-j) + weight x_(t + reach), added up term by term."""

    def __init__(self, taps: int = 5, dim: int = 4, weight: float = 0.0, reach: int = 1, only: int | None = None):
        super().__init__()
        self.h = torch.nn.Parameter(torch.linspace(1, 0.5, taps * dim).reshape(taps, dim))
        self.weight, self.reach, self.only = weight, reach, only

    def forward(self, x):
        y = sum(functional.pad(x, (0, 0, j, 0))[:, : x.shape[1]] * self.h[j] for j in range(len(self.h)))
        later = functional.pad(x, (0, 0, 0, self.reach))[:, self.reach :]
        if self.only is not None:
            later = later * (torch.arange(x.shape[1]) == self.only)[:, None]
        return y + self.weight * later if self.weight else y


class Padded(torch.nn.Module):
    """A causal convolution by transforms of 2T points, several in a row."""

    def __init__(self, length: int, dim: int = 4, layers: int = 1):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.h = torch.nn.Parameter(torch.randn(layers, length, dim, generator=random) / length**0.5)

    def forward(self, x):
        length = x.shape[1]
        for h in self.h:
            spectrum = torch.fft.rfft(x, 2 * length, dim=1) * torch.fft.rfft(h[:length], 2 * length, dim=0)
            x = x + torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length]
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return x


class Function(torch.nn.Module):
    def __init__(self, function, **values):
        super().__init__()
        self.function, self.values = function, values

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("length", [5, 16, pytest.param(257, marks=pytest.mark.slow)])
@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_the_three_known_leaks_are_caught(leak, length):
    report = certify_causal(leak(4, length), (2, length, 4))
    assert not report.causal
    assert report.first_leak.output == 0
    assert report.first_leak.input == 1
    assert report.future_gradient_share > 0.1
    assert "NOT causal" in str(report)


def test_masked_bins_share_is_that_of_the_dirichlet_kernel():
    length, keep = 64, 0.5
    bins = math.ceil(keep * (length // 2 + 1))
    lags = torch.arange(length)
    kernel = (1 + 2 * sum(torch.cos(2 * math.pi * k * lags / length) for k in range(1, bins))) / length
    kernel = kernel.double()
    kernel[0] += 1  # x itself
    size = torch.stack([kernel[(t - lags) % length].abs() for t in range(length)])
    expected = size.triu(1).sum() / size.sum()
    report = certify_causal(MaskedBins(3, keep=keep), (1, length, 3), positions=range(1, length))
    assert report.future_gradient_share == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("weight", [1e-2, 1e-8, 1e-13])
def test_a_leak_of_little_weight_is_caught(weight):
    report = certify_causal(MaskedBins(4, weight=weight), (2, 64, 4))
    assert not report.causal
    assert 0.1 * weight < report.first_leak.size < 10 * weight


@pytest.mark.parametrize("length", [2, 17, pytest.param(256, marks=pytest.mark.slow)])
def test_a_direct_sum_is_causal_bit_for_bit(length):
    report = certify_causal(Direct(), (2, length, 4))
    assert report.causal
    assert report.exact
    assert report.future_gradient_share == 0.0
    assert report.first_leak is None


@pytest.mark.parametrize("reach", [1, 2, 7, 40])
def test_a_direct_sum_that_sees_one_later_input_is_caught(reach):
    report = certify_causal(Direct(weight=1e-12, reach=reach), (2, 65, 4))
    assert not report.causal
    assert report.first_leak.output == 0
    assert report.first_leak.input <= reach


@pytest.mark.parametrize("only", [63, 127])
def test_a_leak_at_one_position_alone_is_caught(only):
    """As a kernel's would be that is wrong at the border of a tile."""
    report = certify_causal(Direct(weight=0.1, only=only), (1, 200, 4))
    assert report.first_leak == (only, only + 1, report.first_leak.size, "perturbation", "eval")


@pytest.mark.parametrize(("length", "layers"), [(65, 1), pytest.param(256, 6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_only_rounds_is_causal(length, layers, dtype):
    report = certify_causal(Padded(length, layers=layers), (2, length, 4), dtype=dtype)
    assert report.causal
    assert not report.exact
    assert 0 < report.largest_change < report.threshold < (1e-13 if dtype == torch.float64 else 1e-4)
    assert report.future_gradient_share < 100 * torch.finfo(dtype).eps
    assert "rounding" in str(report)


def test_rounding_hides_no_leak_a_hundred_times_its_size():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = Padded(64), MaskedBins(4, weight=1e-13)

        def forward(self, x):
            return self.two(self.one(x))

    assert not certify_causal(Both(), (2, 64, 4)).causal


def test_comparisons_leak_without_a_gradient():
    report = certify_causal(Function(lambda x: x + (x > x.amax(1, keepdim=True) - 0.1)), (2, 30, 4))
    assert not report.causal
    assert report.first_leak.found_by == "perturbation"


def test_a_gradient_alone_is_caught():
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):  # wrong: the next output's slope comes along
            return slope + torch.roll(slope, 1, 1)

    report = certify_causal(Function(Backwards.apply), (2, 12, 4))
    assert not report.causal
    assert report.first_leak.found_by == "gradient"
    assert report.first_leak.input == report.first_leak.output + 1


def test_what_zero_parameters_hide_is_caught():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return x + self.gate * x.mean(1, keepdim=True)

    report = certify_causal(Gated(), (2, 10, 4))
    assert not report.causal
    assert report.first_leak.mode == "train"


def test_statistics_of_the_batch():
    class Batch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(x.mT).mT

    module = Batch()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = certify_causal(module, (2, 20, 4))
    assert not report.causal
    assert report.first_leak.mode == "train"
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training


def test_a_leak_along_the_batch_alone():
    report = certify_causal(Function(lambda x: x + 0.1 * x.flip(0)), (3, 20, 4))
    assert not report.causal
    assert report.first_leak.found_by == "batch"
    assert (report.first_leak.output, report.first_leak.input) == (0, 2)
    assert certify_causal(Function(lambda x: x + 0.1 * x.flip(0)), (1, 20, 4)).causal
    for batch in (2, 3):  # a sequence that sees those before it, and none that sees the last
        report = certify_causal(Function(lambda x: x.cumsum(0)), (batch, 20, 4))
        assert not report.causal
        assert (report.first_leak.output, report.first_leak.input) == (batch - 1, batch - 2)


def test_it_takes_gradients_under_no_grad_too():
    with torch.no_grad():
        assert certify_causal(SequenceNorm(4), (2, 9, 4)).future_gradient_share > 0.1


def test_dropout_is_held_still():
    module = torch.nn.Sequential(Direct(), torch.nn.Dropout(0.5))
    state = torch.random.get_rng_state()
    report = certify_causal(module, (2, 33, 4))
    assert report.causal
    assert report.exact
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not certify_causal(torch.nn.Sequential(SequenceNorm(4), torch.nn.Dropout(0.5)), (2, 33, 4)).causal


def test_a_state_outside_buffers_is_held_still():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    module = Counting()
    assert certify_causal(module, (2, 9, 4)).causal
    assert module.calls == 0


def test_tokens_through_an_embedding():
    class Model(torch.nn.Module):
        def __init__(self, mixer):
            super().__init__()
            self.bytes, self.places = torch.nn.Embedding(256, 4), torch.nn.Embedding(64, 4)
            self.mixer, self.out = mixer, torch.nn.Linear(4, 256)

        def forward(self, tokens):
            return self.out(self.mixer(self.bytes(tokens) + self.places(torch.arange(tokens.shape[1]))))

    good = certify_causal(Model(Padded(50)), (2, 50), vocabulary=256)
    assert good.causal
    assert 0 < good.future_gradient_share < 1e-14
    for leak in LEAKS:
        bad = certify_causal(Model(leak(4, 50)), (2, 50), vocabulary=256)
        assert not bad.causal
        assert bad.future_gradient_share > 0.1


def test_integers_without_an_embedding_have_no_share():
    report = certify_causal(Function(lambda x: x.cumsum(1)), (2, 20), vocabulary=10)
    assert report.causal
    assert report.future_gradient_share is None
    assert not certify_causal(Function(lambda x: x.flip(1).cumsum(1)), (2, 20), vocabulary=10).causal


def test_complex_inputs():
    weight = torch.nn.Linear(4, 4, dtype=torch.complex64)
    assert certify_causal(weight, (2, 9, 4), dtype=torch.complex128).causal
    roll = Function(lambda x: x + 1e-9 * x.roll(-1, 1).conj())
    report = certify_causal(roll, (2, 9, 4), dtype=torch.complex128)
    assert not report.causal
    assert report.dtype == "complex128"


def test_lower_precisions_see_large_leaks():
    module = UnpaddedConvolution(4, 32)
    for dtype in (torch.float32, torch.bfloat16):
        assert certify_causal(Direct(), (2, 32, 4), dtype=dtype).causal
    assert not certify_causal(module, (2, 32, 4), dtype=torch.float32).causal
    assert not certify_causal(Direct(weight=1.0), (2, 32, 4), dtype=torch.bfloat16).causal


def test_a_tuple_begins_with_the_output():
    assert certify_causal(Function(lambda x: (x.cumsum(1), None)), (2, 9, 4)).causal


def test_the_report_is_plain_values():
    plain = json.loads(json.dumps(certify_causal(SequenceNorm(4), (2, 9, 4)).as_dict()))
    assert plain["causal"] is False
    assert plain["first_leak"]["found_by"] == "perturbation"
    assert json.loads(json.dumps(certify_causal(Direct(), (2, 9, 4)).as_dict()))["first_leak"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((lambda x: x, (2, 9, 4), {}), ArgumentTypeError, "module: function"),
        ((Direct(), (9,), {}), ShapeError, "shape"),
        ((Direct(), (2, 1, 4), {}), ShapeError, "shape"),
        ((Direct(), (0, 9, 4), {}), ShapeError, "shape"),
        ((Direct(), (2, 9, 4), {"positions": [0]}), ArgumentError, "positions"),
        ((Direct(), (2, 9, 4), {"positions": []}), ArgumentError, "positions"),
        ((Direct(), (2, 9, 4), {"dtype": torch.int64}), DtypeError, "dtype"),
        ((Direct(), (2, 9), {"vocabulary": 1}), ArgumentError, "vocabulary"),
        ((Direct(), (2, 9), {"vocabulary": 300, "tokens": torch.uint8}), ArgumentError, "vocabulary"),
        ((Direct(), (2, 9), {"vocabulary": 9, "tokens": torch.float32}), DtypeError, "tokens"),
        ((Function(lambda x: x[:, 1:]), (2, 9, 4), {}), ShapeError, "outputs"),
        ((Function(lambda x: None), (2, 9, 4), {}), ArgumentTypeError, "NoneType"),
        ((Function(lambda x: x / 0), (2, 9, 4), {}), ArgumentError, "finite"),
        ((Function(lambda x: 0 * x), (2, 9, 4), {}), ArgumentError, "none of its inputs"),
    ],
)
def test_what_cannot_be_certified_is_refused(arguments, error, says):
    module, shape, others = arguments
    with pytest.raises(error, match=says):
        certify_causal(module, shape, **others)


def test_numbers_from_elsewhere_are_refused():
    import random

    with pytest.raises(ArgumentError, match="from call to call"):
        certify_causal(Function(lambda x: x + random.random()), (2, 9, 4))


class WhereLoud(torch.nn.Module):
    """Sees the next position where that is larger than inputs usually are: no gradient tells of it."""

    def forward(self, x):
        after = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
        return x + (after > 8).to(x.dtype)


def test_a_leak_that_only_loud_inputs_show_is_found():
    report = certify_causal(WhereLoud(), (2, 20, 4))
    assert not report.causal
    assert report.first_leak.found_by == "perturbation"
