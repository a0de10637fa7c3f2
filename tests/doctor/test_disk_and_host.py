"""Space on each file system, memory, processors, shared memory and clock, judged by numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.assemble import fitting_workers, workers_that_fit
from training.doctor import disk, host
from training.doctor.disk import Need, Space
from training.doctor.job import Sizes
from training.engine.device import Choice
from training.reporting.units import GIB

MIB = 1 << 20
SIZES = Sizes(weights=100 * MIB, trained=80 * MIB, ema=0, row=GIB)


def test_a_run_needs_its_checkpoints_the_best_and_the_one_being_written() -> None:
    needs = {need.what: need.size for need in disk.run_needs(SIZES, Path("o"), 2, False, 0, 0)}
    assert SIZES.checkpoint == 260 * MIB
    assert needs["checkpoints"] == 4 * 260 * MIB
    assert needs["copies of the weights"] == 2 * 100 * MIB
    more = disk.run_needs(SIZES, Path("o"), 2, False, milestones=5, kept=0)
    assert sum(need.size for need in more) - sum(needs.values()) == 5 * 360 * MIB


def test_what_a_continued_run_holds_already_is_not_needed_again() -> None:
    checkpoints = disk.run_needs(SIZES, Path("o"), 2, False, 0, kept=3 * 260 * MIB)[0]
    assert checkpoints.size == 260 * MIB
    assert disk.run_needs(SIZES, Path("o"), 2, False, 0, kept=99 * GIB)[0].size == 260 * MIB


def test_needs_on_one_file_system_are_added_up(tmp_path: Path) -> None:
    needs = [Need("a", tmp_path / "not" / "yet", 10), Need("b", tmp_path, 20), Need("nothing", tmp_path, 0)]
    (space,) = disk.spaces(needs)
    assert space.need == 30
    assert space.free > 0
    shared = Path("/dev/shm")
    if shared.is_dir() and shared.stat().st_dev != tmp_path.stat().st_dev:
        assert [space.need for space in disk.spaces([*needs, Need("c", shared, 5)])] == [30, 5]


@pytest.mark.parametrize(("free", "state"), [(30, "ok"), (21, "warning"), (19, "failed")])
def test_space(free: int, state: str) -> None:
    found = disk.check_space(
        Space(Path("o"), free * GIB, [Need("a", Path("o"), 15 * GIB), Need("b", Path("o"), 5 * GIB)])
    )
    assert found.state == state
    assert found.code == (74 if state == "failed" else 78)
    assert "a 16.1 GB, b 5.4 GB" in found.found
    if state == "failed":
        assert "free 1.1 GB" in found.todo


@pytest.mark.parametrize(
    ("free", "total", "need", "state"),
    [(8, 16, 4, "ok"), (8, 16, 10, "warning"), (8, 16, 18, "warning"), (8, 16, 21, "failed")],
)
def test_memory(free: int, total: int, need: int, state: str) -> None:
    assert host.check_memory(free * GIB, total * GIB, None, need * GIB).state == state
    limited = host.check_memory(free * GIB, total * GIB, total * GIB, need * GIB)
    assert "limited by the container" in limited.found
    assert state == "ok" or "--memory" in limited.todo


def test_memory_that_is_needed() -> None:
    on_cpu = host.memory_need(SIZES, "cpu", batch=10 * MIB, workers=0, prepare_workers=0)
    assert on_cpu == GIB + SIZES.state + GIB + 20 * MIB
    assert host.memory_need(SIZES, "cuda", 10 * MIB, 4, 0) == 4 * GIB + SIZES.checkpoint + 100 * MIB
    assert host.memory_need(SIZES, "cpu", 0, 0, prepare_workers=64) == 33 * GIB


def test_processors() -> None:
    assert host.check_processors(4, 8, "cuda", 3).found == "4 of 8"
    assert host.check_processors(1, 8, "cuda", 1).state == "warning"
    assert host.check_processors(1, 1, "cpu", 0).state == "ok"


def test_workers_are_as_many_as_shared_memory_has_room_for() -> None:
    wanted = Choice("4", "training.num_workers says so")
    assert fitting_workers(wanted, None, MIB) is wanted
    assert fitting_workers(wanted, 64 * MIB, MIB) is wanted
    fewer = fitting_workers(wanted, 64 * MIB, 8 * MIB)
    assert fewer.value == "2"
    assert fewer.reason.startswith("not 4, because /dev/shm has 64 MiB free and a batch takes 8 MiB")
    assert "--shm-size" in fewer.reason
    assert fitting_workers(wanted, 64 * MIB, 225 * MIB).value == "0"
    assert workers_that_fit(64 * MIB, 8 * MIB) * 2 * 8 + 2 * 8 <= 64


def test_shared_memory_is_told_with_what_will_be_done() -> None:
    wanted = Choice("4", "training.num_workers says so")
    assert host.check_shared_memory(GIB, MIB, wanted, wanted).state == "ok"
    assert host.check_shared_memory(None, MIB, wanted, wanted).state == "note"
    fewer = host.check_shared_memory(64 * MIB, 8 * MIB, wanted, fitting_workers(wanted, 64 * MIB, 8 * MIB))
    assert fewer.state == "warning"
    assert "2 loader processes in place of 4" in fewer.found


def test_a_clock_behind_the_newest_file_is_warned_of(tmp_path: Path) -> None:
    run = tmp_path / "convlstm" / "20300101_000000_x"
    run.mkdir(parents=True)
    os.utime(run, (4e9, 4e9))
    assert host.newest_time(tmp_path) == 4e9
    assert host.newest_time(tmp_path / "gone") < host.now()
    assert host.check_clock(3.9e9, 4e9).state == "warning"
    assert "2096-10-02" in host.check_clock(3.9e9, 4e9).found
    assert host.check_clock(4e9 + 1, 4e9).state == "ok"
