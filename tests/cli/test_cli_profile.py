"""``adaptive profile``: what it prints, what it keeps, and every way its file can be bad."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from adaptive_compute.cli import profile as cli_profile
from adaptive_compute.core.errors import ProfileError
from adaptive_compute.core.profile import Measurement, Profile, Section, locked
from tests.simulated import SimBackend, SimFFT, installed

LIMITED = ("profile", "--quick", "--op", "fft", "--budget", "6")


def test_it_saves_a_profile_and_prints_a_table(profiled):
    profile = Profile.load(profiled.profile)
    assert {"pocketfft", "pocketfft-threads"} & set(profile.sections["cpu"].kernels["fft"])
    table = profiled.first.stdout
    for column in ("operation", "size", "kernel", "time", "rate", "runner-up", "error"):
        assert column in table
    assert re.search(r"\d (GB|GFLOP)/s", table)
    assert str(profiled.profile) in profiled.first.stderr


def test_json_holds_the_profile_and_the_rows_and_replaces_the_bad_file_that_was_named(adaptive, tmp_path):
    other = tmp_path / "mine.json"
    other.write_text(BAD["truncated"])
    result = adaptive(*LIMITED, "--json", "--output", other)
    data = json.loads(result.stdout)  # and nothing else on stdout
    assert f"replaced: {other}" in result.stderr
    assert "cpu" in Profile.load(other).sections
    assert Profile.load(other).sections.keys() == Profile.from_dict(data).sections.keys()
    assert not adaptive.profile.exists()
    assert data["path"] == str(other)
    row = data["rows"][0]
    assert set(row) == {
        "operation", "request", "kernel", "device", "seconds", "rate", "unit", "runner_up", "runner_up_ratio", "error",
    }  # fmt: skip
    assert row["operation"] == "fft"
    assert row["seconds"] > 0
    assert row["unit"] in ("GB/s", "GFLOP/s")


@pytest.mark.parametrize(("option", "named"), [("--op", "fft"), ("--backend", "cpu")])
def test_an_unknown_name_exits_with_2_and_names_the_accepted_ones(adaptive, option, named):
    result = adaptive("profile", option, "abacus", code=2)
    (line,) = result.stderr.splitlines()
    assert "abacus" in line
    assert named in line
    assert not adaptive.profile.exists()


@pytest.mark.parametrize("budget", ["0", "-1", "nan"])
def test_a_budget_that_is_no_time_is_wrong_usage(adaptive, budget):
    assert "--budget" in adaptive("profile", f"--budget={budget}", code=2).stderr


# Bad files


@pytest.mark.parametrize("below", [".", "a-file/profile.json"], ids=["a folder", "a file in the way"])
def test_a_path_that_cannot_be_written_fails_before_anything_is_measured(adaptive, tmp_path, below):
    (tmp_path / "a-file").write_text("in the way")
    start = time.monotonic()
    result = adaptive("profile", "--output", tmp_path / below, code=1)
    assert time.monotonic() - start < 30  # a full run takes longer
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"adaptive: cannot write {tmp_path}")
    assert (tmp_path / "a-file").read_text() == "in the way"


BAD = {
    "empty": "",
    "not JSON": "hello",
    "truncated": '{"schema": 1, "devices": {"cpu": {"validators"',
    "another program's": '{"name": "something else"}',
    "another schema": '{"schema": 99, "devices": {}}',
    "wrong types": '{"schema": 1, "devices": {"cpu": {"validators": 3}}}',
    "negative time": '{"schema": 1, "devices": {"cpu": {"validators": {}, "up": null, "down": null, "rejected": {}, '
    '"kernels": {"fft": {"k": {"c": [[[1.0], -1.0, 0.1, null]]}}}}}}',
    "binary": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name(tmp_path, kind):
    path = tmp_path / "profile.json"
    bad = BAD[kind]
    path.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    with pytest.raises(ProfileError, match=re.escape(str(path))):
        Profile.load(path)


def test_calls_go_on_without_a_bad_file_and_say_so_once(adaptive):
    adaptive.profile.write_text(BAD["truncated"])
    result = adaptive("explain", "fft", "--shape", "64", "--dtype", "complex64", "--json")
    assert json.loads(result.stdout)["chosen"]
    (line,) = result.stderr.splitlines()
    assert str(adaptive.profile) in line
    assert "routing without a profile" in line


def test_another_machines_profile_is_set_aside_with_the_reason(profiled, adaptive):
    data = json.loads(profiled.profile.read_text())
    data["devices"]["cpu"]["validators"]["processor"] = "Abacus 9000"
    adaptive.profile.write_text(json.dumps(data))
    result = adaptive("explain", "fft", "--shape", "64", "--dtype", "complex64", "--json")
    assert "processor was Abacus 9000" in result.stderr
    on_cpu = [c for c in json.loads(result.stdout)["candidates"] if c["device"] == "cpu"]
    assert {c["compute_s"] for c in on_cpu} == {None}


# Keeping what was there


def small(kernel: str, validators: dict[str, str] | None = None, operation: str = "fft") -> Profile:
    classes = {"class": [Measurement((1.0,), 1.0, 0.0, 1e-7)]}
    return Profile({"cpu": Section(validators or {"threads": "2"}, {operation: {kernel: classes}})})


def test_a_limited_run_keeps_what_was_measured_before(tmp_path):
    path = tmp_path / "new folder" / "profile.json"
    cli_profile.keep(small("old"), path, merge=True)
    cli_profile.keep(small("new"), path, merge=True)
    assert set(Profile.load(path).sections["cpu"].kernels["fft"]) == {"old", "new"}
    cli_profile.keep(small("only"), path, merge=False)
    assert set(Profile.load(path).sections["cpu"].kernels["fft"]) == {"only"}


def test_a_limited_run_on_a_changed_machine_says_what_it_drops(tmp_path, capsys):
    path = tmp_path / "profile.json"
    cli_profile.keep(small("old", {"threads": "2"}, "reduce"), path, merge=True)
    cli_profile.keep(small("new", {"threads": "4"}), path, merge=True)
    assert set(Profile.load(path).sections["cpu"].kernels) == {"fft"}
    assert "dropped (reduce)" in capsys.readouterr().err


WRITER = """
import sys
from pathlib import Path
from adaptive_compute.cli.profile import keep
from adaptive_compute.core.profile import Measurement, Profile, Section
path, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    classes = {"class": [Measurement((1.0,), 1.0, 0.0, None)]}
    keep(Profile({"cpu": Section({"threads": "2"}, {"fft": {f"{who}{number}": classes}})}), path, merge=True)
"""


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "profile.json"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), who, "20"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for who in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.communicate(b"go\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert set(Profile.load(path).sections["cpu"].kernels["fft"]) == {f"{w}{n}" for w in "ab" for n in range(20)}


SAVER = """
import sys
from pathlib import Path
from adaptive_compute.core.profile import Measurement, Profile, Section, locked
path = Path(sys.argv[1])
points = [Measurement((float(n % 100),), 1.0, 0.0, None) for n in range(20000)]
profile = Profile({"cpu": Section({}, {"fft": {"k": {"class": points}}})})
print("ready", flush=True)
while True:
    with locked(path):
        profile.save(path)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_writer_killed_in_the_middle_leaves_a_whole_file_and_no_lock(tmp_path):
    path = tmp_path / "profile.json"
    small("before").save(path)
    chance = random.Random(0)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(chance.uniform(0.01, 0.15))
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=30)
        (kernels,) = [Profile.load(path).sections["cpu"].kernels["fft"]]
        assert kernels.keys() in ({"before"}, {"k"})
        assert "before" in kernels or len(kernels["k"]["class"]) == 20000
        with locked(path, timeout=1.0):
            pass


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "profile.json"
    small("before").save(path)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ProfileError, match="No space left"):
        small("after").save(path)
    assert set(Profile.load(path).sections["cpu"].kernels["fft"]) == {"before"}
    assert [file.name for file in tmp_path.iterdir()] == ["profile.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT")
def test_an_interrupted_run_leaves_the_old_file(adaptive):
    small("before").save(adaptive.profile)
    before = adaptive.profile.read_text()
    environment = {**os.environ, "ADAPTIVE_PROFILE": str(adaptive.profile)}
    run = subprocess.Popen(
        [sys.executable, "-m", "adaptive_compute.cli", "profile"],
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    time.sleep(3)
    assert run.poll() is None
    for _ in range(30):  # a library that is just being imported may swallow the first one
        run.send_signal(signal.SIGINT)
        try:
            run.communicate(timeout=2)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        run.kill()
        run.communicate()
        pytest.fail("thirty interrupts did not end the run")
    assert run.returncode != 0
    assert adaptive.profile.read_text() == before


def test_a_wrong_kernel_is_named_and_kept_out(tmp_path, capsys):
    path = tmp_path / "p.json"
    with installed(SimBackend(SimFFT("zeros", change=np.zeros_like))):
        cli_profile.command(quick=True, op=["fft"], backend=["sim"], output=path, budget=10.0, as_json=True)
    printed = capsys.readouterr()
    assert "wrong: fft/zeros on sim:0: relative error" in printed.err
    section = Profile.load(path).sections["sim:0"]
    assert "zeros" in section.rejected["fft"]
    assert not section.kernels.get("fft")
    assert json.loads(printed.out)["rows"] == []
