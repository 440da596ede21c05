"""``adaptive zeta`` as people and scripts run it."""

import json

import numpy as np
import pytest


@pytest.fixture
def run(adaptive, tmp_path):
    folder = tmp_path / "run"
    adaptive("zeta", "hunt", "--from", 2000, "--to", 6000, "--block", 2000, "--checkpoint", folder)
    return folder


def test_hunt_in_json(adaptive, tmp_path):
    result = adaptive("zeta", "hunt", "--from", 14, "--to", 1000, "--json", "--output", tmp_path / "zeros.npz")
    found = json.loads(result.stdout)
    assert (found["zeros"], found["verified"], found["t0"], found["t1"]) == (649, True, "14", "1000")
    assert found["open_blocks"] == []
    assert found["zeros_per_second"] > 0
    with np.load(tmp_path / "zeros.npz") as file:
        assert len(file["base"]) == 649
        assert abs(file["base"][0] + file["offset"][0] - 14.134725141734693) < 1e-10


def test_hunt_says_what_it_guarantees_and_no_more(adaptive):
    text = adaptive("zeta", "hunt", "--from", 14, "--count", 10).stdout
    assert "10 zeros from 14 on, all simple and on the line within the stated floating-point error budget" in text


def test_hunt_goes_on_where_it_stopped(adaptive, run):
    (run / "00000001.block").unlink()
    before = (run / "00000000.block").stat().st_mtime_ns
    adaptive("zeta", "hunt", "--from", 2000, "--to", 6000, "--block", 2000, "--checkpoint", run)
    assert (run / "00000001.block").exists()
    assert (run / "00000000.block").stat().st_mtime_ns == before


def test_verify_and_plot(adaptive, run, tmp_path):
    assert json.loads(adaptive("zeta", "verify", run, "--sample", 3, "--json").stdout)["verified"]
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'adaptive-compute[zeta]'")
    adaptive("zeta", "plot", run, "--output", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG"


def test_a_changed_block_is_named(adaptive, run):
    path = run / "00000001.block"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert "block 1 " in adaptive("zeta", "verify", run, code=1).stderr


def test_processes_share_a_range(adaptive, tmp_path):
    for rank in range(2):
        adaptive(
            "zeta", "hunt", "--from", 2000, "--to", 6000, "--block", 2000, "--checkpoint", tmp_path / "all",
            RANK=str(rank), WORLD_SIZE="2",
        )  # fmt: skip
    found = json.loads(adaptive("zeta", "merge", tmp_path / "all", "--json").stdout)
    assert (found["verified"], found["t0"], found["t1"]) == (True, "2000", "6000")
    assert found["zeros"] == 4081  # FLINT: zeta_nzeros(6000) - zeta_nzeros(2000)


def test_processes_that_share_a_range_write_no_common_file(adaptive, tmp_path):
    said = adaptive(
        "zeta", "hunt", "--from", 2000, "--to", 6000, "--block", 2000, "--checkpoint", tmp_path / "all",
        "--output", tmp_path / "zeros.npz", RANK="0", WORLD_SIZE="2", code=2,
    ).stderr  # fmt: skip
    assert "merge" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", 5, "--to", 100), "t0 must be from 14"),
        (("--from", 500, "--to", 100), "t1 must be above t0"),
        (("--from", 500, "--to", "1e14"), "t1 must be from 14"),
        (("--from", 500), "one of --to and --count"),
        (("--from", 500, "--count", 0), "count must be"),
        (("--from", 500, "--to", 600, "--output", "zeros.csv"), ".npz or .parquet"),
        (("--from", 500, "--to", 600, "--device", "gpu"), "device must be"),
    ],
)
def test_wrong_usage(adaptive, arguments, told):
    assert told in adaptive("zeta", "hunt", *arguments, code=2).stderr
