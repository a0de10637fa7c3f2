"""Two machines that do not see each other begin runs of one name in one second, and sync to one store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.artifact import checkpoints
from backend.errors import ConfigError
from tests.runs import register_tiny, run_of, train
from tests.sync.test_new_machine import same_files
from training.engine.interruption import StopRequest
from training.runs import run as run_module
from training.runs.run import Run, create_run, move_to_free_id
from training.sync.push import Pusher
from training.sync.session import Sync
from training.sync.stores import StoreError, open_store
from training.yaml_core import read_yaml, write_yaml


class Stopped(datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> Stopped:
        return cls(2026, 11, 25, 14, 0, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)
    monkeypatch.setattr(run_module, "datetime", Stopped)


@pytest.fixture
def said() -> list[str]:
    return []


def made(place: Path, **metadata: Any) -> Run:
    return create_run(place / "out", "tiny", "run", "task: tiny\n", {"task": "tiny", **metadata})


def sync_of(place: Path, store: Path) -> Sync:
    return Sync(open_store(f"file://{store}"), "tiny", place / "out", StopRequest())


def synced(place: Path, store: Path, *words: str, sets: tuple[str, ...] = ()) -> int:
    return train(place, "tiny", "--sync-to", f"file://{store}", *words, sets=sets)


def test_both_runs_are_whole_in_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, store = tmp_path / "a", tmp_path / "b", tmp_path / "store"
    assert synced(a, store) == 0
    assert synced(b, store, sets=("training.learning_rate=0.02",)) == 0
    assert "has another run 20261125_140000_run; this one is 20261125_140000_run_2" in capsys.readouterr().out
    for place, name in ((a, "20261125_140000_run"), (b, "20261125_140000_run_2")):
        run = run_of(place, "tiny")
        assert run.name == name == read_yaml(run / "metadata.yaml")["run_id"]
        assert same_files(run, store / "tiny" / name)
    assert synced(b, store, sets=("training.learning_rate=0.02",)) == 0
    assert "finished before" in capsys.readouterr().out


def test_what_is_there_from_the_first_moment_can_be_continued_elsewhere(tmp_path: Path, said: list[str]) -> None:
    run = made(tmp_path / "a", config_hash="c", data={"is_sample": True})
    sync_of(tmp_path / "a", tmp_path / "store").own_place(run, said.append)
    known = {"config_hash": "c", "run_name": "run"}
    fetched = sync_of(tmp_path / "b", tmp_path / "store").find(None, known, True, said.append)
    assert fetched is not None
    assert fetched.path("config.yaml").read_text() == "task: tiny\n"
    assert fetched.metadata["token"] == run.metadata["token"]


def test_a_run_that_is_there_already_keeps_its_place(tmp_path: Path, said: list[str]) -> None:
    run = made(tmp_path / "a")
    for _ in range(2):
        assert sync_of(tmp_path / "a", tmp_path / "store").own_place(run, said.append).run_id == run.run_id
    assert said == []


def test_a_run_with_checkpoints_is_refused_and_harms_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, store = tmp_path / "a", tmp_path / "b", tmp_path / "store"
    assert synced(a, store) == 0
    assert train(b, "tiny", sets=("training.learning_rate=0.02",)) == 0
    capsys.readouterr()
    assert synced(b, store, sets=("training.learning_rate=0.02",)) == 78
    assert "is another run of the same id" in capsys.readouterr().err
    run = Run(run_of(b, "tiny"))
    run.update(state="interrupted")
    assert synced(b, store, sets=("training.learning_rate=0.02",)) == 78
    assert "keep this one elsewhere" in capsys.readouterr().err
    assert same_files(run_of(a, "tiny"), store / "tiny" / run.run_id)


def test_nothing_is_pushed_into_another_runs_place(tmp_path: Path) -> None:
    here, there = made(tmp_path / "a"), made(tmp_path / "b")
    sync = sync_of(tmp_path / "b", tmp_path / "store")
    sync.own_place(there, print)
    told: list[dict[str, Any]] = []
    pusher = Pusher(sync_of(tmp_path / "a", tmp_path / "store").remote(here), here.folder, lambda _, f: told.append(f))
    pusher.start()
    assert not pusher.finish(lambda: not told)
    assert "is another run of the same id" in told[0]["error"]
    assert read_yaml(tmp_path / "store" / "tiny" / here.run_id / "metadata.yaml")["token"] == there.metadata["token"]


def test_a_place_that_another_run_took_meanwhile_gets_nothing_more(tmp_path: Path) -> None:
    here, there = made(tmp_path / "a"), made(tmp_path / "b")
    place = tmp_path / "store" / "tiny" / here.run_id
    told: list[tuple[str, Any]] = []
    pusher = Pusher(sync_of(tmp_path / "a", tmp_path / "store").remote(here), here.folder, lambda *f: told.append(f))
    pusher._round(everything=True)
    assert read_yaml(place / "metadata.yaml")["token"] == here.metadata["token"]
    write_yaml(place / "metadata.yaml", there.metadata)
    here.path("train.log").write_text("more")
    with pytest.raises(StoreError, match="is another run of the same id"):
        pusher._round(everything=True)
    assert read_yaml(place / "metadata.yaml")["token"] == there.metadata["token"]
    assert not (place / "train.log").exists()


def test_another_runs_checkpoints_are_not_fetched_into_a_named_run(tmp_path: Path, said: list[str]) -> None:
    a, b, store = tmp_path / "a", tmp_path / "b", tmp_path / "store"
    assert synced(a, store) == 0
    run = made(b)
    assert sync_of(b, store).update(run, said.append).folder == run.folder
    assert checkpoints(run.path("checkpoints")) == []


def test_a_run_that_is_at_work_is_not_moved(tmp_path: Path) -> None:
    run = made(tmp_path)
    with run.locked(), pytest.raises(ConfigError, match="another worker"):
        move_to_free_id(Run(run.folder))
    assert move_to_free_id(run).run_id == "20261125_140000_run_2"
    assert move_to_free_id(Run(tmp_path / "out" / "tiny" / "20261125_140000_run_2")).run_id == "20261125_140000_run_3"
