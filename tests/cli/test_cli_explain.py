from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pytest

from adaptive_compute.cli import explain, main
from adaptive_compute.core.operations import operations
from tests.simulated import SimBackend, SimFFT, installed

FFT = ("explain", "fft", "--shape", "16x512", "--dtype", "complex64")


def test_json_has_every_candidate_and_the_choice(profiled):
    decision = json.loads(profiled(*FFT, "--json").stdout)
    assert {"candidates", "refused", "chosen", "reason"} <= set(decision)
    names = [candidate["kernel"] for candidate in decision["candidates"]]
    assert decision["chosen"] in names
    assert "pocketfft" in names
    for candidate in decision["candidates"]:
        assert {"kernel", "device", "transfer_s", "compute_s", "error"} <= set(candidate)
        assert candidate["device"] != "cpu" or candidate["transfer_s"] == 0
    measured = [candidate for candidate in decision["candidates"] if candidate["compute_s"] is not None]
    assert all(candidate["compute_s"] > 0 and candidate["error"] < 1e-6 for candidate in measured)
    assert measured
    assert decision["reason"]


def test_what_refuses_gives_its_reason(profiled):
    decision = json.loads(profiled(*FFT, "--json", ADAPTIVE_THREADS="1").stdout)
    (refused,) = [entry for entry in decision["refused"] if entry["kernel"] == "pocketfft-threads"]
    assert "one thread" in refused["reason"]


def test_the_text_says_the_same(profiled):
    text = profiled(*FFT).stdout
    assert "pocketfft" in text
    assert "chosen" in text


def test_a_tolerance_and_lower_precision_can_be_asked_for(capsys):
    explain.command("fft", "16x512", "complex128", tol=1e-4, precision="adaptive", as_json=True)
    decision = json.loads(capsys.readouterr().out)
    assert {candidate["precision"] for candidate in decision["candidates"]} == {None, "float32"}
    assert decision["advice"]["suggestion"]
    explain.command("fft", "16x512", "complex128", as_json=True)
    assert {c["precision"] for c in json.loads(capsys.readouterr().out)["candidates"]} == {None}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("abacus", "--shape", "8", "--dtype", "float32"), "fft"),
        (("using", "--shape", "8", "--dtype", "float32"), "fft"),
        (("fft", "--shape", "8x", "--dtype", "float32"), "4096x1024"),
        (("fft", "--shape=-8", "--dtype", "float32"), "4096x1024"),
        (("fft", "--shape", "", "--dtype", "float32"), "4096x1024"),
        (("rfft", "--shape", "9" * 30, "--dtype", "float32"), "too large"),
        (("fft", "--shape", "9" * 5000, "--dtype", "float32"), "too large"),
        (("rfft", "--shape", "x".join("1" * 33), "--dtype", "float32"), "too large"),
        (("fft", "--shape", "8", "--dtype", "float33"), "complex64"),
        (("fft", "--shape", "8", "--dtype", "object"), "complex64"),
        (("fft", "--shape", "8", "--dtype", "float32", "--on", "abacus"), "cpu"),
        (("fft", "--shape", "8", "--dtype", "float32", "--on", "cpu:7"), "cpu"),
        (("rfft", "--shape", "8", "--dtype", "complex64"), "real"),
        (("fft", "--shape", "8", "--dtype", "float32", "--tol", "-1"), "tol must be a positive"),
        (("fft", "--shape", "8", "--dtype", "float32", "--precision", "half"), "adaptive"),
    ],
)
def test_a_mistake_exits_with_2_and_one_line_that_names_what_is_accepted(monkeypatch, capsys, arguments, named):
    monkeypatch.setattr(sys, "argv", ["adaptive", "explain", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("adaptive: ")
    assert named in line
    assert printed.out == ""


@pytest.mark.parametrize("name", operations())
def test_every_operation_has_an_example(name):
    shape = {"attention": (1, 2, 64, 16), "nufft": (64, 64)}.get(name, (64, 32))
    dtype = "complex64" if name in ("fft", "nufft") else "float32"
    request = explain.request_for(name, shape, dtype)
    assert request.operation.name == name
    assert request.first.shape == shape
    assert request.first.dtype == dtype


@pytest.mark.parametrize(
    ("said", "meant"),
    [("evaluate", "elementwise"), ("exp", "elementwise"), ("add", "elementwise"), ("sum", "reduce"), ("rfft", "fft"),
     ("scaled_dot_product_attention", "attention"), ("segment_sum", "scatter_add")],
)  # fmt: skip
def test_functions_lead_to_their_operation(said, meant):
    request = explain.request_for(said, (64, 32), "float32")
    assert request.operation.name == meant
    assert request.first.shape == (64, 32)


def test_a_function_of_the_public_face_gives_its_own_request():
    request = explain.request_for("irfft", (16, 33), "complex128")
    assert request.params.kind == "c2r"
    assert request.params.lengths == (64,)
    huge = explain.request_for("rfft", (1 << 20, 1 << 20), "float32")  # nothing is allocated
    assert huge.first.shape == (1 << 20, 1 << 20)


@pytest.mark.parametrize("device", ["sim", "sim:0"])
def test_operands_elsewhere_stay_there(device, capsys):
    with installed(SimBackend(SimFFT("elsewhere"))):
        explain.command("fft", "8x8", "complex64", device, as_json=True)
    decision = json.loads(capsys.readouterr().out)
    assert decision["chosen"] == "elsewhere"
    assert [c["device"] for c in decision["candidates"]] == ["sim:0"]
    assert all("transfers='host'" in entry["reason"] for entry in decision["refused"])


def test_every_dtype_that_is_offered_is_one_that_numpy_knows():
    for name in ("float16", "int8", "uint64", "complex128", np.dtype(np.longdouble).name):
        assert explain.parse_dtype(name) == name
    assert explain.parse_dtype("bfloat16") == "bfloat16"
