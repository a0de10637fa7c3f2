from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadDataError, InterruptedRunError
from tests.data.blocks import SHAPE, slow_make, telling_make
from tests.data.raw_dataset import MISSING, Dataset, check_continued, expected, read
from tests.data.world import World
from training.data import prepared, prepared_build
from training.data.prepared_build import Plan, open_or_build


@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_are_made_once_and_read_back_in_their_order(dataset, workers):
    cache = dataset.open(workers=workers)
    assert dataset.made() == [f"{i:03d}" for i in range(12)]
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))
    assert np.array_equal(read(cache, 3, 2), expected([8, 7]))
    assert cache.extra == {"x": 1}
    assert cache.folder == dataset.cache / cache.fingerprint
    assert ("preparing", 12, 12) in dataset.world.progress
    assert not list(dataset.cache.glob(".building-*"))
    assert not (cache.folder / "journal.jsonl").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_making_blocks_told_is_kept_in_the_order_of_the_blocks(dataset, workers):
    assert dataset.open().block_facts == ()
    dataset.make = telling_make
    learned = [[f"{i:03d}", 50] for i in range(11, -1, -1)]
    cache = dataset.open({"a": 2}, workers)
    assert cache.block_facts == learned
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))
    assert dataset.open({"a": 2}).block_facts == learned


def test_what_blocks_told_may_end_a_building_and_is_not_asked_of_the_sources_again(dataset):
    dataset.make = telling_make
    told = []

    def refuse(facts):
        told.append(facts)
        raise BadDataError("refused")

    plain = dataset.plan
    dataset.plan = lambda pool: replace(plain(pool), check=refuse)
    for _ in range(2):
        with pytest.raises(BadDataError, match="refused"):
            dataset.open()
    assert told[0] == told[1] == [[f"{i:03d}", 50] for i in range(11, -1, -1)] and len(dataset.made()) == 12
    assert not list(dataset.cache.glob("*/index.json"))
    dataset.plan = plain
    assert dataset.open().block_facts == told[0] and not dataset.made()


def test_an_unchanged_dataset_is_found_without_opening_a_source(dataset):
    first = dataset.open()
    dataset.made()
    for path in dataset.root.iterdir():  # other content behind the same facts: whoever opens a source sees it
        times = path.stat()
        path.write_bytes(b"x" * times.st_size)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = dataset.open()
    assert (again.folder, dataset.plans, dataset.made()) == (first.folder, 1, [])
    assert np.array_equal(read(again), expected(range(11, -1, -1)))


def test_touched_files_are_compared_by_content_and_the_cache_is_reused(dataset):
    first = dataset.open()
    dataset.touch("003")
    assert dataset.open().folder == first.folder
    assert dataset.plans == 1
    assert ("comparing touched files", 1, 1) in dataset.world.progress
    dataset.world.progress.clear()
    assert dataset.open().folder == first.folder
    assert not dataset.world.progress  # the new time is remembered


def test_the_fingerprint_depends_neither_on_the_place_nor_on_times(dataset, tmp_path):
    first = dataset.open()
    other = Dataset(tmp_path / "elsewhere")
    other.touch("000")
    assert other.open().fingerprint == first.fingerprint
    shutil.copytree(other.root, tmp_path / "copy")
    dataset.root = tmp_path / "copy"
    assert dataset.open().folder == first.folder  # found in the first cache folder, although listed elsewhere
    assert dataset.plans == 1


def test_a_changed_source_or_setting_makes_a_new_cache(dataset):
    first = dataset.open()
    dataset.touch("003", b"\x40" * 50)
    second = dataset.open()
    third = dataset.open({"a": 2})
    (dataset.root / "999").write_bytes(b"\x41")
    fourth = dataset.open()
    assert len({cache.fingerprint for cache in (first, second, third, fourth)}) == 4
    assert np.array_equal(read(second)[:, 8], expected([0x40])[:, 0])
    assert np.array_equal(read(first)[:, 8], expected([3])[:, 0])


def test_an_interrupted_preparation_keeps_what_is_done(dataset):
    def stop():
        if len(dataset.world.progress) > 5:
            raise InterruptedRunError("stop")

    dataset.world.check_stop = stop
    with pytest.raises(InterruptedRunError):
        dataset.open()
    before = dataset.made()
    assert 1 <= len(before) < 12
    assert prepared.candidates(dataset.cache, dataset.request().key) == []
    dataset.world.check_stop = lambda: None
    cache = dataset.open()
    assert dataset.made() == sorted({f"{i:03d}" for i in range(12)} - set(before))
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))
    assert any(f"Continuing the preparation: {len(before)} of 12" in line for line in dataset.world.said)


def test_a_torn_journal_line_is_done_again(interrupted):
    dataset, building = interrupted
    journal = building / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    check_continued(dataset, [*MISSING, "004"])


def test_journal_lines_after_a_torn_one_still_count(interrupted):
    dataset, building = interrupted
    journal = building / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([*lines[:2], lines[2][:9], b"\xff\x00", b"[1]", *lines[3:]]) + b"\n")
    check_continued(dataset, [*MISSING, "010"])


def test_a_finished_block_that_is_not_what_the_journal_says_is_done_again(interrupted):
    dataset, building = interrupted
    with (building / "blocks.bin").open("rb+") as file:
        file.seek(5 * 24 + 3)
        file.write(b"\xee")
    check_continued(dataset, [*MISSING, "006"])


def test_a_source_touched_meanwhile_is_done_again(interrupted):
    dataset, _ = interrupted
    dataset.touch("007")
    check_continued(dataset, [*MISSING, "007"])


def test_a_journal_of_another_plan_is_not_continued(interrupted):
    dataset, building = interrupted
    journal = building / "journal.jsonl"
    journal.write_bytes(b"#" + journal.read_bytes()[1:])
    check_continued(dataset, [f"{i:03d}" for i in range(12)])


def test_a_building_folder_without_its_blocks_is_begun_anew(interrupted):
    dataset, building = interrupted
    (building / "blocks.bin").unlink()
    check_continued(dataset, [f"{i:03d}" for i in range(12)])


def test_killed_right_before_and_after_the_rename(dataset, monkeypatch):
    rename = Path.rename

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        dataset.open()
    monkeypatch.setattr(Path, "rename", rename)
    dataset.made()
    check_continued(dataset, [])

    (cache,) = [path for path in dataset.cache.iterdir() if path.is_dir()]
    (cache / "journal.jsonl").write_text("left behind")
    check_continued(dataset, [])


KILLED = """
    import sys
    from pathlib import Path

    def main():
        from tests.data.blocks import slow_make
        from tests.data.raw_dataset import Dataset
        from tests.data.world import World

        dataset, folder = Dataset.__new__(Dataset), Path(sys.argv[1])
        dataset.root, dataset.log, dataset.cache = folder / "raw", folder / "log", folder / "cache"
        dataset.world, dataset.plans, dataset.make = World(dataset.root, dataset.cache), 0, slow_make
        dataset.open(workers=2)

    if __name__ == "__main__":
        main()
"""


@pytest.mark.crash
def test_sigkill_loses_no_finished_block_and_leaves_no_process(tmp_path):
    dataset = Dataset(tmp_path, count=60)
    script = tmp_path / "kill_me.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, start_new_session=True)
    journal_lines: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(journal_lines) < 12 and time.monotonic() < deadline:
        journals = list(dataset.cache.glob(".building-*/journal.jsonl"))
        journal_lines = journals[0].read_bytes().splitlines() if journals else []
        time.sleep(0.005)
    process.kill()
    process.wait()
    journal = next(dataset.cache.glob(".building-*/journal.jsonl"))
    finished = {f"{59 - json.loads(line)[0]:03d}" for line in journal.read_bytes().splitlines()[1:]}
    assert 11 <= len(finished) < 60
    while _session_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _session_alive(process.pid)
    dataset.made()
    cache = dataset.open()
    assert not finished & set(dataset.made())
    assert np.array_equal(read(cache), expected(range(59, -1, -1)))


def _session_alive(session: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


def test_each_process_checks_each_block_once(dataset, monkeypatch):
    reader = dataset.open().reader()
    checked = []
    check = prepared.BlockReader._check
    monkeypatch.setattr(prepared.BlockReader, "_check", lambda s, b, p: (checked.append(b), check(s, b, p)))
    out = np.zeros((2, 4, 3, 4), np.uint8)
    for start in (0, 2, 0):
        reader.read_run(start, out)
    assert checked == [0, 1, 2, 3, 4, 5]
    pickle.loads(pickle.dumps(reader)).read_run(0, out)  # noqa: S301
    assert checked[6:] == [0, 1, 2, 3]


def test_a_reader_opens_its_file_in_the_process_that_reads(dataset):
    cache = dataset.open()
    reader = cache.reader()
    read(cache)
    reader.read_run(0, np.zeros((2, 4, 3, 4), np.uint8))
    pickled = pickle.dumps(reader)
    assert len(pickled) < 2000
    assert pickle.loads(pickled)._file is None  # noqa: S301


def test_a_reader_refuses_what_is_not_there(dataset):
    reader = dataset.open().reader()
    with pytest.raises(IndexError):
        reader.read_run(10, np.zeros((2, 4, 3, 4), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        reader.read_run(0, np.zeros((2, 4, 3, 4), np.int16))


def test_runs_longer_than_one_system_call_and_short_reads(dataset, monkeypatch):
    cache = dataset.open()
    monkeypatch.setattr(prepared, "_MAX_BUFFERS", 5)
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:7]], offset))
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))


def test_a_second_process_waits_and_reuses(dataset):
    dataset.make = slow_make
    other = Dataset.__new__(Dataset)
    other.__dict__.update(dataset.__dict__)
    other.world = World(dataset.root, dataset.cache)
    thread = threading.Thread(target=other.open)
    thread.start()
    while not list(dataset.cache.glob(".building-*")):
        time.sleep(0.002)
    cache = dataset.open()
    thread.join()
    assert any("Another process is preparing" in line for line in dataset.world.said)
    assert len(dataset.made()) == 12
    assert np.array_equal(read(cache), expected(range(11, -1, -1)))


def test_waiting_for_another_process_can_be_interrupted(dataset):
    dataset.cache.mkdir()
    with prepared.lock_of(dataset.cache, dataset.request().key):

        def stop():
            if dataset.world.said:
                raise InterruptedRunError("stop")

        dataset.world.check_stop = stop
        with pytest.raises(InterruptedRunError):
            dataset.open()


def test_sources_without_a_block_are_part_of_the_fingerprint(dataset):
    def plan(pool):
        whole = dataset.plan(pool)
        return Plan(SHAPE, "uint8", whole.block_sources[2:], whole.make, {})

    first = open_or_build(dataset.cache, dataset.request(), plan, dataset.world.context, 1)
    assert len(first.index["block_sources"]) == 10
    dataset.touch("011", b"other".ljust(50))
    second = open_or_build(dataset.cache, dataset.request(), plan, dataset.world.context, 1)
    assert first.fingerprint != second.fingerprint


def test_prune_keeps_the_one_asked_for_and_what_is_being_built(interrupted):
    dataset, building = interrupted
    first, second = dataset.open({"a": 2}), dataset.open({"a": 3})
    (dataset.cache / "mine").mkdir()
    with prepared.lock_of(dataset.cache, building.name.removeprefix(".building-")):
        assert prepared.prune(dataset.cache, second.fingerprint) > 0
        assert building.exists()
    assert not first.folder.exists()
    assert (dataset.cache / "mine").exists()
    assert prepared.prune(dataset.cache, second.fingerprint) > 0
    assert not building.exists()
    assert np.array_equal(read(dataset.open({"a": 3})), expected(range(11, -1, -1)))
    assert prepared.prune(dataset.cache, second.fingerprint) == 0
    assert prepared.prune(dataset.cache / "nowhere", None) == 0


def test_workers_import_no_torch():
    script = "import sys, training.data.radar.blocks, training.data.prepared_build; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def test_building_has_no_other_way_to_be_seen(interrupted):
    dataset, building = interrupted
    names = [path.name for path in dataset.cache.iterdir() if not path.name.startswith(".")]
    assert names == []
    assert prepared_build.JOURNAL in {path.name for path in building.iterdir()}
