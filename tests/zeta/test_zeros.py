"""The hunt: counts, places, checkpoints and what goes wrong."""

import errno
import os
import random
import time

import numpy as np
import pytest

from adaptive_compute import zeta
from adaptive_compute.zeta import archive, blocks, checkpoint, hunt, sign, spectral, turing
from adaptive_compute.zeta.blocks import Height

pytestmark = pytest.mark.filterwarnings("ignore:this machine has no profile")


def _all(found):
    found = list(found)
    assert all(block.verified for block in found), [block.open for block in found]
    return found, np.concatenate([block.base + block.offsets for block in found])


def test_the_first_zeros():
    _, found = _all(zeta.zeros(14, 50))
    known = [14.134725141734693, 21.022039638771555, 25.010857580145688, 30.424876125859513, 32.935061587739190]
    known += [37.586178158825671, 40.918719012147495, 43.327073280914999, 48.005150881167160, 49.773832477672302]
    assert np.allclose(found, known, rtol=0, atol=1e-11)


def test_counts_up_to_one_hundred_thousand_and_beyond():
    """138,069 and 160,131: FLINT's zeta_nzeros(1e5) and its difference to 2e5."""
    found, heights = _all(zeta.zeros(14, 100_000))
    assert len(heights) == 138_069
    assert np.all(np.diff(heights) > 0)
    assert found[-1].below + len(found[-1].offsets) == 138_069
    assert len(_all(zeta.zeros(100_000, 200_000))[1]) == 160_131


@pytest.mark.parametrize(("t", "length"), [(10**6, 11_000), (10**8, 8_000), (10**9, 7_000)])
def test_windows_high_up(t, length):
    flint = pytest.importorskip("flint", reason="needs python-flint: pip install 'adaptive-compute[zeta]'")
    found, heights = _all(zeta.zeros(t, t + length))
    n0, n1 = (int(float(flint.arb(x).zeta_nzeros())) for x in (t, t + length))
    assert (found[0].below, len(heights)) == (n0, n1 - n0)
    before, flint.ctx.prec = flint.ctx.prec, 120
    for i in random.Random(1).sample(range(len(found[0].offsets)), 12):
        exact = flint.acb.zeta_zero(n0 + i + 1).imag - found[0].base
        assert abs(float(exact - flint.arb(float(found[0].offsets[i])))) < 1e-8
    flint.ctx.prec = before


@pytest.mark.slow
@pytest.mark.parametrize(("t", "length"), [(10**10, 6_200), (10**12, 5_000)])
def test_windows_of_20000_zeros_very_high_up(t, length):
    flint = pytest.importorskip("flint", reason="needs python-flint: pip install 'adaptive-compute[zeta]'")
    found, heights = _all(zeta.zeros(t, t + length))
    n0, n1 = (int(float(flint.arb(x).zeta_nzeros())) for x in (t, t + length))
    assert (found[0].below, len(heights)) == (n0, n1 - n0)
    assert len(heights) > 20_000


def test_lehmers_close_pair():
    _, heights = _all(zeta.zeros(7004, 7006))
    pair = heights[np.abs(heights - 7005.08) < 0.05]
    assert np.allclose(pair, [7005.062866, 7005.100565], atol=1e-6)


def test_gram_failures_are_found():
    """g_126 is the first Gram point at which Gram's law fails; the 127th zero lies beyond it."""
    _, heights = _all(zeta.zeros(14, 290))
    assert np.searchsorted(heights, zeta.gram(125)) == 126
    assert np.searchsorted(heights, zeta.gram(126)) == 126
    block = next(zeta.zeros(14, 290))
    assert block.statistics["gram_intervals"][0] > 0


def test_rossers_first_exception_is_counted_right():
    """The Gram block at g_13999525 (t near 6,820,051) has too few zeros, its neighbour one more."""
    t = int(zeta.gram(13_999_525))
    block = next(zeta.zeros(t - 30, t + 30))
    assert block.verified
    points = np.array([float(turing.gram_exact(n) - block.base) for n in range(13_999_524, 13_999_529)])
    counts = np.diff(np.searchsorted(block.offsets, points))
    assert (counts != 1).any()


def test_heights_keep_their_last_digit():
    first, last = "1000000000000.0001", "1000000000000.9"
    block = next(zeta.zeros(first, last))
    assert block.base == 10**12
    assert block.verified
    assert abs(block.first.offset - 0.0001) < 1e-18
    base, offset = zeta.zeros_array([block])
    assert base.dtype == np.int64
    assert np.array_equal(base - 10**12 + offset, block.offsets)


def test_the_result_does_not_depend_on_threads(tmp_path):
    for threads in (1, 3):
        list(zeta.zeros(5_000, 12_000, threads=threads, block=3_000, checkpoint=tmp_path / str(threads)))
    names = sorted(p.name for p in (tmp_path / "1").iterdir())
    assert len(names) >= 3
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


@pytest.mark.parametrize("value", [14.1, 1e6 + 0.3, 1e12 + 0.1, "1000000000000.123456789012345678", "14.00000000001"])
def test_a_height_as_text_is_the_same_height(value):
    height = Height.of(value)
    assert Height.of(str(height)) == height


def test_numbers_of_numpy_are_heights():
    for t0 in (np.int64(20), np.float32(20), np.float64(20)):
        assert next(zeta.zeros(t0, 22)).offsets.size == 1
    assert zeta.N(0) == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((5, 100), "t0 must be from 14"), ((100, 2e13), "t1 must be from 14"), ((200, 100), "t1 must be above t0"),
        ((100, 100), "t1 must be above t0"), (("x", 100), "t0 must be a number, got 'x'"),
        ((float("nan"), 100), "t0 must be from 14"), ((None, 100), "t0 must be a number"),
    ],
)  # fmt: skip
def test_bad_ranges(arguments, match):
    with pytest.raises(ValueError, match=match):
        zeta.zeros(*arguments)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"threads": 0}, "threads must be"), ({"threads": True}, "threads must be"), ({"block": 10}, "block must be"),
        ({"device": "gpu"}, "device must be 'cpu' or 'cuda:0'"), ({"device": "cuda:99"}, "cuda:99"),
    ],
)  # fmt: skip
def test_bad_choices(keywords, match):
    with pytest.raises(ValueError, match=match):
        zeta.zeros(14, 100, **keywords)


def test_a_missed_pair_is_looked_for_and_found(monkeypatch):
    """Without the look for close pairs the count is short, and the second look finds them."""
    plain, looks = sign.zeros, []

    def blind(samples, every=False):
        looks.append(every)
        found = plain(samples, every)
        if every:
            return found
        close = [np.flatnonzero(np.diff(f.offsets) < 0.08) for f in found]
        return [sign.Found(np.delete(f.offsets, np.r_[c, c + 1]), f.doubtful) for f, c in zip(found, close)]

    monkeypatch.setattr(blocks.sign, "zeros", blind)
    block = next(zeta.zeros(7_000, 9_000))
    assert True in looks
    assert block.verified
    monkeypatch.undo()
    assert np.array_equal(np.round(block.offsets, 8), np.round(next(zeta.zeros(7_000, 9_000)).offsets, 8))


def test_a_block_that_stays_short_is_open(monkeypatch):
    plain = sign.zeros

    def losing(samples, every=False):
        return [sign.Found(found.offsets[:-1], found.doubtful) for found in plain(samples, every)]

    monkeypatch.setattr(blocks.sign, "zeros", losing)
    block = next(zeta.zeros(7_000, 7_400))
    assert not block.verified
    assert "zeros found" in block.open
    summary = zeta.Summary()
    summary.add(block)
    assert "NOT all verified" in str(summary)
    assert "7000 to 7400" in str(summary)


def test_a_count_that_cannot_be_closed_is_open(monkeypatch):
    monkeypatch.setattr(turing, "_near", lambda *_: None)
    block = next(zeta.zeros(7_000, 7_400))
    assert not block.verified
    assert "N(t) at t = 7000" in block.open
    assert block.expected == -1
    with pytest.raises(zeta.OpenCountError):
        zeta.N(7_000)


def test_gram_blocks_that_break_rossers_rule_close_nothing(monkeypatch):
    """One zero in each of a hundred Gram intervals, but none in the 51st: only points far enough from it close."""
    zeros = np.delete(np.arange(100) + 0.5, 50)
    near = turing._Neighbourhood(7_000, zeros, np.arange(101.0), 6_000, np.ones(101, bool))
    monkeypatch.setattr(turing, "_neighbourhood", lambda first, last: near)
    needed = turing._needed(7_100)
    assert turing._near(7_000, 20.2, 0, 0) == (6_021, 6_020, needed)
    for offset in (49.8, 51.2):
        found = turing._near(7_000, offset, 0, 0)
        assert abs(found.point - 6_050.5) > needed
    everywhere = turing._Neighbourhood(7_000, np.arange(0, 100, 9) + 0.5, near.points, 6_000, near.good)
    monkeypatch.setattr(turing, "_neighbourhood", lambda first, last: everywhere)
    assert turing._near(7_000, 50.2, 0, 0) is None


def test_where_a_grid_meets_a_zero_another_grid_is_taken(monkeypatch):
    plain, taken = spectral.sample, []

    def vague(window, oversampling):
        taken.append(oversampling)
        found = plain(window, oversampling)
        return spectral.Samples(found.base, found.first, found.step, found.values, 0.5 if len(taken) < 3 else 1e-9)

    windows = spectral.windows(7_000, 0.0, 20.0, zeros=10)
    wanted = [part.offsets for part in blocks.find(windows, 4.0, False)]
    monkeypatch.setattr(blocks.spectral, "sample", vague)
    found = blocks.find(windows[:1], 4.0, False)
    assert len(set(taken)) == 3
    assert found[0].undecided == ()
    assert np.abs(found[0].offsets - wanted[0]).max() < 1e-9


def test_a_sign_that_cannot_be_told_is_open(monkeypatch):
    plain = spectral.sample

    def vague(window, oversampling):
        found = plain(window, oversampling)
        return spectral.Samples(found.base, found.first, found.step, found.values, 1e-2)

    monkeypatch.setattr(blocks.spectral, "sample", vague)
    monkeypatch.setattr(blocks.probe, "budget", lambda t: 1e-2)
    block = next(zeta.zeros(7_000, 7_200))
    assert "the sign of Z at 7000 +" in block.open


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    list(zeta.zeros(2_000, 8_000, block=2_000, checkpoint=folder))
    return folder


def test_the_same_head_in_other_characters_is_refused(run):
    path = run / "00000001.block"
    data = path.read_bytes()
    place = data.index(b'"error":') + data[data.index(b'"error":') :].index(b"e-")
    path.write_bytes(data[:place] + b"E" + data[place + 1 :])
    with pytest.raises(zeta.CheckpointError, match=r"block 1 .* was changed"):
        list(zeta.Checkpoint(run).blocks())
    path.write_bytes(b"[1]\n")
    with pytest.raises(zeta.CheckpointError, match=r"block 1 .* is damaged"):
        list(zeta.Checkpoint(run).blocks())


def test_what_a_killed_run_left_half_written_is_removed(run):
    old, young = run / "00000001.block.a.part", run / "00000001.block.b.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3600,) * 2)
    list(zeta.zeros(2_000, 8_000, block=2_000, checkpoint=run))
    assert (old.exists(), young.exists()) == (False, True)


def test_files_have_the_permissions_of_any_file(run, tmp_path):
    (tmp_path / "any").touch()
    archive.save(tmp_path / "zeros.npz", [])
    for path in (run / "run.json", run / "00000000.block", tmp_path / "zeros.npz"):
        assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_range_that_ends_beside_a_zero_is_told_by_the_sign_at_its_end(monkeypatch):
    """The doubtful point is the last of its window: what the window told there is compared, not its first point."""
    plain, asked = spectral.sample, []

    def vague(window, oversampling):
        found = plain(window, oversampling)
        edge = abs(float(found.values[-1 - spectral.MARGIN]))
        assert abs(float(found.values[spectral.MARGIN])) > edge  # the last alone is in doubt
        return spectral.Samples(found.base, found.first, found.step, found.values, edge * 1.001)

    def value(base, offset):
        asked.append(offset)
        return zeta.Z(base, offset)

    # A zero at 7000.7177 lies between the two beginnings: from one of them the ends' signs differ, as this test needs.
    first = next(at for at in (0.5, 1.2) if (zeta.Z(7_000, at) > 0) != (zeta.Z(7_000, 5.0628) > 0))
    window = spectral.Window(7_000, first, 5.0628, 33)
    monkeypatch.setattr(blocks.spectral, "sample", vague)
    monkeypatch.setattr(blocks.probe, "Z", lambda base, at: value(base, at))
    (part,) = blocks.find([window], sign.OVERSAMPLING, False)
    assert asked == [pytest.approx(window.last)]
    assert part.undecided == ()


@pytest.mark.parametrize("place", [0, 30, -1, 700])
def test_a_flipped_bit_is_refused_by_name(run, place):
    path = run / "00000001.block"
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    for call in (lambda: list(zeta.zeros(2_000, 8_000, block=2_000, checkpoint=run)), lambda: archive.verify(run)):
        with pytest.raises(zeta.CheckpointError, match="block 1 "):
            call()


def test_blocks_out_of_their_order_are_refused(run):
    a, b = run / "00000000.block", run / "00000001.block"
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)
    with pytest.raises(zeta.CheckpointError, match="does not follow"):
        list(zeta.Checkpoint(run).blocks())


def test_a_changed_range_is_refused_by_the_file_it_stands_in(run):
    path = run / checkpoint.RUN
    path.write_text(path.read_text().replace('"8000"', '"9000"'))
    with pytest.raises(zeta.CheckpointError, match=r"does not follow run\.json"):
        archive.verify(run)


def test_another_runs_checkpoint_is_refused(run):
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(zeta.CheckpointError, match="another run: t1 '8000' there, '9000' asked"):
        zeta.zeros(2_000, 9_000, block=2_000, checkpoint=run)
    assert before == {p.name: p.read_bytes() for p in run.iterdir()}
    (run / "run.json").write_text("{")
    with pytest.raises(zeta.CheckpointError, match="damaged"):
        zeta.Checkpoint(run)


def test_a_run_goes_on_where_it_began(run, monkeypatch):
    assert zeta.Checkpoint(run).settings["device"] == "cpu"
    asked = []
    monkeypatch.setattr(hunt, "_place", lambda device, first: asked.append(device))
    list(zeta.zeros(2_000, 8_000, block=2_000, checkpoint=run))
    assert asked == ["cpu"]
    monkeypatch.setattr(hunt, "_place", lambda device, first: 0)
    with pytest.raises(zeta.CheckpointError, match="device 'cpu' there, 'cuda:0' asked"):
        zeta.zeros(2_000, 8_000, block=2_000, checkpoint=run, device="cuda:0")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    plain, calls = checkpoint.os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:  # run.json, the first block, the second
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(handle)

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        list(zeta.zeros(2_000, 8_000, block=2_000, checkpoint=tmp_path))
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000000.block", "run.json"]
    assert len(list(zeta.zeros(2_000, 8_000, block=2_000, checkpoint=tmp_path))) == 4


def test_verify_recomputes_a_sample(run):
    result = archive.verify(run, sample=6)
    assert (result["verified"], result["failures"], result["sampled"]) == (True, [], 6)


def test_verify_notices_a_wrong_zero_under_a_right_hash(tmp_path):
    store = zeta.Checkpoint(tmp_path, {"t0": "2000", "t1": "3000", "block": 2_000})
    block = next(zeta.zeros(2_000, 3_000, block=2_000))
    wrong = blocks.Block(0, Height(2000, 0.0), Height(3000, 0.0), block.offsets + 0.05, block.below + 1, block.expected,
                         "", block.error, block.statistics)  # fmt: skip
    store.append(wrong)
    result = archive.verify(tmp_path, sample=5)
    assert not result["verified"]
    assert any("same sign" in failure for failure in result["failures"])
    assert any("N at 2000" in failure for failure in result["failures"])


def test_verify_notices_a_lost_zero_under_a_right_hash(tmp_path):
    store = zeta.Checkpoint(tmp_path, {"t0": "2000", "t1": "3000", "block": 2_000})
    b = next(zeta.zeros(2_000, 3_000, block=2_000))
    store.append(blocks.Block(0, b.first, b.last, b.offsets[:-1], b.below, b.expected, "", b.error, b.statistics))
    result = archive.verify(tmp_path, sample=2)
    assert not result["verified"]
    assert any("are there" in failure for failure in result["failures"])
    assert "NOT verified" in result["summary"]


def test_a_run_that_is_not_complete_is_not_verified(run):
    (run / "00000002.block").unlink()
    with pytest.raises(zeta.CheckpointError, match="not complete"):
        archive.verify(run)
    with pytest.raises(zeta.CheckpointError, match="not complete"):
        archive.merge([run])


def test_parts_make_the_whole(tmp_path, run):
    parts = [archive.share(2_000, 8_000, rank, 3, 2_000) for rank in range(3)]
    assert (parts[0][0], parts[-1][1]) == ("2000", "8000")
    for number, (first, last) in enumerate(parts):
        list(zeta.zeros(first, last, block=2_000, checkpoint=tmp_path / str(number)))
    summary, found = archive.merge([tmp_path / "2", tmp_path / "0", tmp_path / "1"])
    assert summary.verified
    base, offset = zeta.zeros_array(found)
    one, other = zeta.zeros_array(zeta.Checkpoint(run).blocks())
    assert np.array_equal(base, one)
    assert np.array_equal(offset, other)
    with pytest.raises(zeta.CheckpointError, match="the range before ends at"):
        archive.merge([tmp_path / "0", tmp_path / "2"])
    with pytest.raises(ValueError, match="cannot share"):
        archive.share(2_000, 8_000, 0, 50, 2_000)


def test_a_range_of_many_million_blocks_begins_at_once():
    found = zeta.zeros(10**12, 10**13, block=1000)
    try:
        assert next(found).verified
    finally:
        found.close()


def test_so_many_zeros_and_no_more():
    for first, count in ((14, 1), (14, 500), (7_000, 100), (10**8, 1_000)):
        end = archive.end_of(first, count)
        assert sum(len(block.offsets) for block in _all(zeta.zeros(first, end))[0]) == count


def test_more_zeros_than_there_are_heights_for():
    with pytest.raises(ValueError, match="count must be at most"):
        archive.end_of(14, 10**21)


def test_zeros_in_a_file(tmp_path, run):
    count = archive.save(tmp_path / "zeros.npz", zeta.Checkpoint(run).blocks())
    with np.load(tmp_path / "zeros.npz") as file:
        assert len(file["base"]) == len(file["offset"]) == count
        assert file["base"][0] + file["offset"][0] == next(zeta.Checkpoint(run).blocks()).offsets[0] + 2000
    with pytest.raises(ValueError, match=r"\.npz or \.parquet"):
        archive.save(tmp_path / "zeros.csv", [])
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        archive.check_output(tmp_path / "folder.npz")
    with pytest.raises(ValueError, match="is not there"):
        archive.save(tmp_path / "nowhere" / "zeros.npz", [])
