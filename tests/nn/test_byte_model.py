"""The byte model's benchmark at a tiny size: it learns, its scores are joint scores, and it is certified."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch

from adaptive_compute import nn
from adaptive_compute.core.errors import NoProfileWarning
from benchmarks.byte_model.data import load, starts
from benchmarks.byte_model.model import ByteModel, made
from benchmarks.byte_model.score import bits_per_byte, losses, prefix_only
from benchmarks.byte_model.train import Recipe, Trainer

pytestmark = pytest.mark.filterwarnings(f"ignore::{NoProfileWarning.__module__}.{NoProfileWarning.__name__}")

LENGTH = 32
TINY = Recipe(steps=30, batch=8, length=LENGTH, rate=1e-2, warm_up=5, dropout=0.0, compiled="none", graph=False)
SIZE = {"dim": 16, "layers": 2, "length": LENGTH, "heads": 2}
KINDS = ("spectral", "transformer")


@pytest.fixture(scope="module")
def text():
    return torch.frombuffer(bytearray(b"to be or not to be, that is the question. " * 60), dtype=torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_a_score_needs_the_prefix_alone(kind, text):
    model = made(kind, **SIZE, hidden=32)
    before = bits_per_byte(model, text[:300], length=LENGTH, stride=16)
    told = []
    result = Trainer(model, text, TINY, 0, "cpu").run(told.append, every=10)
    after = bits_per_byte(model, text[:300], length=LENGTH, stride=16)
    assert result["steps"] == 30
    assert len(result["curve"]) == len(told) == 3
    assert before == pytest.approx(8, abs=0.2)
    assert after < 0.6 * before
    alone = prefix_only(model, text, length=LENGTH, count=8)
    assert alone["largest_difference"] < 1e-4
    assert nn.certify_causal(model, (2, LENGTH - 1), vocabulary=256, positions=(1, 8, 15, 30)).causal


def test_a_model_that_leaks_is_found_out(text):
    class Leaking(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mixer, self.out = nn.leaks.UnpaddedConvolution(16, LENGTH), torch.nn.Linear(16, 16)

        def forward(self, x):
            return self.out(self.mixer(x))

    torch.manual_seed(0)
    model = ByteModel([Leaking(), Leaking()], 16, 32, 0.0)
    Trainer(model, text, TINY, 0, "cpu").run(lambda _: None)
    assert prefix_only(model, text, length=LENGTH, count=8)["largest_difference"] > 0.01
    assert not nn.certify_causal(model, (2, LENGTH - 1), vocabulary=256, positions=(1, 8, 15, 30)).causal


@pytest.mark.parametrize("size", [20, LENGTH, LENGTH + 5, 300])
@pytest.mark.parametrize("stride", [8, 32])
def test_every_byte_is_scored_once_with_the_context_that_the_rule_says(text, size, stride):
    model = made("transformer", **SIZE, hidden=32)
    part = text[:size]
    inputs = torch.cat([torch.tensor([10], dtype=torch.uint8), part[:-1]])
    total = 0.0
    for place in range(size):  # the window that scores this byte, by the rule, byte for byte
        begin = 0 if place < LENGTH else stride * -(-(place - LENGTH + 1) // stride)
        window = slice(begin, min(begin + LENGTH, size))
        with torch.no_grad():
            total += float(losses(model, inputs[None, window], part[None, window])[0, place - begin])
    assert bits_per_byte(model, part, length=LENGTH, stride=stride, batch=3) == pytest.approx(
        total / size / math.log(2), rel=1e-6
    )


def test_both_models_have_as_many_parameters():
    one, other = (sum(p.numel() for p in made(kind).parameters()) for kind in KINDS)
    assert abs(one - other) < 0.01 * one
    assert 4.7e6 < one < 5.5e6


def test_the_data_is_read_without_repetition():
    first = starts(1000, 10, 7, 20, seed=3)
    assert first.shape == (20, 7)
    assert int(first.max()) + 11 <= 1000
    once = first.flatten()[:98]
    assert len(set(once.tolist())) == 98
    assert len({int(at) % 10 for at in once}) == 1
    assert torch.equal(first, starts(1000, 10, 7, 20, seed=3))
    assert not torch.equal(first, starts(1000, 10, 7, 20, seed=4))


def test_a_run_writes_its_record_after_every_seed(tmp_path, monkeypatch, text, capsys):
    from benchmarks.byte_model.__main__ import main

    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_bytes(text.numpy().tobytes()[:600])
    command = (
        f"byte_model --data {tmp_path} --model transformer --seeds 0 1 --dim 16 --layers 1 --hidden 16 --length 32 "
        f"--batch 4 --steps 6 --warm-up 2 --stride 16 --compiled none --certificate-length 9 --device cpu "
        f"--out {tmp_path / 'out.json'} --try rate=1e-2 rate=1e-9,dropout=0.5"
    )
    monkeypatch.setattr(sys, "argv", command.split())
    main()
    record = json.loads((tmp_path / "out.json").read_text())
    assert [(run["seed"], run["changes"][:9], run["chosen"]) for run in record["runs"]] == [
        (0, "rate=1e-2", True), (0, "rate=1e-9", False), (1, "rate=1e-2", True)
    ]  # fmt: skip
    assert all(run["certificate"]["causal"] for run in record["runs"])
    assert record["summary"]["transformer"]["seeds"] == [0, 1]
    assert record["data"]["train"]["bytes"] == 600
    assert str(tmp_path) not in record["command"]
    assert "--data FOLDER --model transformer" in record["command"]
    assert "test" in capsys.readouterr().out


def test_missing_data_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"train\.txt"):
        load(tmp_path)
