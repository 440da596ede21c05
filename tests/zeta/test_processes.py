"""The hunt as processes that are killed, that run out of disk, and that torch's launcher starts."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from adaptive_compute import zeta

pytestmark = pytest.mark.filterwarnings("ignore:this machine has no profile")
ADAPTIVE = (sys.executable, "-m", "adaptive_compute.cli")
HUNT = ("zeta", "hunt", "--from", "2000", "--to", "30000", "--block", "10000")


def _run(*command, **keywords):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, **keywords)


def test_a_disk_that_fills_up_keeps_what_was_found_and_the_run_goes_on(tmp_path):
    """A real file system, full first in a block and then in the output; with room, the run ends as if nothing was."""
    script = tmp_path / "script.sh"
    disk = tmp_path / "disk"
    disk.mkdir()
    hunt = f"{' '.join(ADAPTIVE)} {' '.join(HUNT)} --checkpoint {disk}/run --output {disk}/zeros.npz"
    script.write_text(
        f"mount -t tmpfs -o size=160k tmpfs {disk} || exit 77\n"
        f"{hunt}; echo code $? files $(ls {disk} {disk}/run | tr '\\n' ' ')\n"
        f"mount -o remount,size=640k {disk}\n"
        f"{hunt}; echo code $? files $(ls {disk} {disk}/run | tr '\\n' ' ')\n"
        f"mount -o remount,size=20m {disk}\n"
        f"{hunt} --json || exit 1\n"
        f"cp -r {disk}/. {tmp_path}/kept\n"
    )
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare (util-linux) to mount a small file system")
    result = _run("unshare", "--user", "--map-root-user", "--mount", "bash", script)
    if result.returncode == 77 or "Operation not permitted" in result.stderr:
        pytest.skip("mounting a small file system is not permitted here: run as root or allow user namespaces")
    assert result.returncode == 0, result.stderr
    first, second, *found = result.stdout.split("\n", 2)
    assert first.startswith("code 1 ")
    assert "zeros.npz" not in first + second
    assert "00000001.block" in first
    assert ".part" not in first + second
    assert "00000002.block" not in first
    assert second.startswith("code 1 ")
    assert "00000003.block" in second
    assert result.stderr.count("No space left on device") == 2
    assert f"{disk}/zeros.npz" in result.stderr
    told = json.loads(found[0])
    assert (told["verified"], told["zeros"]) == (True, zeta.N(30_000) - zeta.N(2_000))
    plain = tmp_path / "plain"
    list(zeta.zeros(2_000, 30_000, block=10_000, checkpoint=plain))
    for path in plain.glob("*.block"):
        assert (tmp_path / "kept" / "run" / path.name).read_bytes() == path.read_bytes()


def test_an_output_that_cannot_be_written_to_its_end(tmp_path):
    """Files may not grow beyond 200 KB: the blocks fit, the output does not."""
    limit = (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    command = (*ADAPTIVE, *HUNT, "--checkpoint", tmp_path / "run", "--output", tmp_path / "zeros.npz")
    result = _run(*command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert result.returncode == 1
    assert f"File too large: {tmp_path / 'zeros.npz'}" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    assert sum(len(b.offsets) for b in zeta.Checkpoint(tmp_path / "run").blocks()) == zeta.N(30_000) - zeta.N(2_000)


_KILLED = """
import sys, warnings; warnings.simplefilter("ignore")
from adaptive_compute import zeta
for block in zeta.zeros(5_000, sys.argv[2], block=2_000, checkpoint=sys.argv[1]): print(block.number, flush=True)
"""


def _kill(folder, end, times, rng, reach):
    """Start a run again and again, each time killed a random while after its first block; returns how many died."""
    died = 0
    for _ in range(times):
        command = [sys.executable, "-c", _KILLED, str(folder), str(end)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0, reach))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        died += process.returncode != 0
    return died


@pytest.mark.parametrize(
    ("end", "times", "reach"), [(150_000, 3, 0.02), pytest.param(500_000, 20, 0.05, marks=pytest.mark.slow)]
)
def test_resume_after_kills_at_random_moments_gives_the_same_bytes(tmp_path, end, times, reach):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    list(zeta.zeros(5_000, end, block=2_000, checkpoint=whole))
    assert _kill(broken, end, times, random.Random(3), reach) >= times - 1
    assert 0 < len(list(broken.glob("*.block"))) < len(list(whole.glob("*.block")))
    list(zeta.zeros(5_000, end, block=2_000, checkpoint=broken))
    names = sorted(p.name for p in whole.iterdir())
    assert names == sorted(p.name for p in broken.iterdir() if p.suffix != ".part")
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


@pytest.mark.slow
def test_torchs_launcher_starts_processes_that_share_a_range(tmp_path):
    pytest.importorskip("torch", reason="needs torch: pip install torch")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    folder = tmp_path / "all"
    hunt = ("zeta", "hunt", "--from", 2000, "--to", 12000, "--block", 2000, "--checkpoint", folder)
    result = _run(*launcher, "--module", "adaptive_compute.cli", *hunt)
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["part-0000", "part-0001"]
    merged = _run(*ADAPTIVE, "zeta", "merge", folder, "--json", "--output", tmp_path / "zeros.npz")
    found = json.loads(merged.stdout)
    assert (found["verified"], found["t0"], found["t1"]) == (True, "2000", "12000")
    assert found["zeros"] == zeta.N(12_000) - zeta.N(2_000)
