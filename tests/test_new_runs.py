"""What killed starts leave beside the runs is swept by the next start, unless somebody is still at it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from backend import files
from training.registry.lock import LOCK, at_work
from training.runs import run as run_module
from training.runs.run import create_run


def left_behind(output: Path, name: str, age: float) -> Path:
    folder = output / "tiny" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("task: tiny\n")
    (folder / LOCK).touch()
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def made(output: Path) -> Path:
    return create_run(output, "tiny", "run", "task: tiny\n", {"task": "tiny"}).folder


def test_only_what_is_old_and_held_by_nobody_goes(tmp_path: Path) -> None:
    old, held, new = (left_behind(tmp_path, f".new-{name}", age) for name, age in (("a", 90), ("b", 90), ("c", 5)))
    run = left_behind(tmp_path, "20261125_140000_run", 1e6)
    with FileLock(held / LOCK):
        os.utime(held, (0, 0))
        made(tmp_path)
        assert [folder.exists() for folder in (old, held, new, run)] == [False, True, True, True]
    made(tmp_path)
    assert not held.exists()


def test_a_run_in_the_making_is_held_and_a_made_one_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def write(path: Path, content: str) -> None:
        seen.append(at_work(str(path.parent)))
        files.write_atomic(path, content)

    monkeypatch.setattr(run_module, "write_atomic", write)
    folder = made(tmp_path)
    assert seen == [True]
    assert not at_work(str(folder))
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(run_module, "write_atomic", full)
    with pytest.raises(MemoryError):
        made(tmp_path)
    assert list((tmp_path / "tiny").iterdir()) == []
