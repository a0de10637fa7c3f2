"""Pushing never gets in the way, and nothing counts in the store before it is whole there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from backend.artifact import checkpoints
from backend.errors import SOURCE_UNAVAILABLE
from tests.runs import register_tiny, run_of, train
from training.files import read_json_lines
from training.sync import push, session
from training.sync.fsspec_store import FsspecStore
from training.sync.remote_run import RemoteRun
from training.sync.stores import Store, StoreError, open_store


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)
    monkeypatch.setattr(push, "_LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(session, "_TRIES_AT_THE_START", 1)


def trained(tmp_path: Path, *words: str) -> Path:
    assert train(tmp_path, "tiny", *words) == 0
    return run_of(tmp_path, "tiny")


def nothing() -> None:
    return


def failing(method: str, times: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next ``times`` calls of a store's method fail; what was asked for is listed."""
    original, asked = getattr(FsspecStore, method), []

    def wrapped(store: FsspecStore, *arguments: Any) -> Any:
        asked.append(str(arguments[-1]))
        if len(asked) <= times:
            raise StoreError(f"{store.shown}: out of reach")
        return original(store, *arguments)

    monkeypatch.setattr(FsspecStore, method, wrapped)
    return asked


def test_the_manifest_comes_last_and_after_the_check(store: Store, tmp_path: Path) -> None:
    run = trained(tmp_path)
    remote = RemoteRun(store, "tiny", run.name)
    newest = checkpoints(run / "checkpoints")[-1]

    def not_yet() -> None:
        assert len(store.files(remote.path("checkpoints", newest.name))) == 3
        assert remote.checkpoints() == []

    remote.put_checkpoint(newest, not_yet)
    assert remote.checkpoints() == [newest.name]
    assert remote.has_checkpoint(newest)
    remote.remove_checkpoint(newest.name)
    assert store.files(remote.path("checkpoints")) == {}


def test_what_arrives_damaged_never_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path)
    remote = RemoteRun(open_store(f"file://{tmp_path}/remote"), "tiny", run.name)
    newest = checkpoints(run / "checkpoints")[-1]
    remote.put_checkpoint(newest, nothing)
    upload = FsspecStore.upload

    def damaging(store: FsspecStore, local: Path, path: str) -> None:
        upload(store, local, path)
        if path.endswith("model.safetensors"):
            place = tmp_path / "remote" / path
            place.write_bytes(place.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(FsspecStore, "upload", damaging)
    with pytest.raises(StoreError, match=r"model.safetensors: what arrived is not what was sent"):
        remote.put_checkpoint(newest, nothing)
    assert remote.checkpoints() == []  # nor does the one before, of the same step, any more


def test_a_store_that_fails_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing("upload", 3, monkeypatch)
    run = trained(tmp_path, "--sync-to", f"file://{tmp_path}/remote")
    said = capsys.readouterr().out
    assert said.count("out of reach") == 1
    assert "works again" in said
    events = read_json_lines(run / "events.jsonl")
    assert [event["event"] for event in events if event["event"].startswith("sync ")] == [
        "sync failing",
        "sync works again",
    ]
    remote = RemoteRun(open_store(f"file://{tmp_path}/remote"), "tiny", run.name)
    assert remote.differing(run) == []
    assert remote.checkpoints() == [folder.name for folder in checkpoints(run / "checkpoints")]


def test_a_store_that_never_works_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing("upload", 10**6, monkeypatch)
    words = ("--sync-to", f"file://{tmp_path}/remote")
    assert train(tmp_path, "tiny", *words) == SOURCE_UNAVAILABLE
    err = capsys.readouterr().err
    assert "is whole here, but not in file://" in err
    assert "run the same command again" in err
    assert err.count("\n") == 1
    run = run_of(tmp_path, "tiny")
    assert "state: finished" in (run / "metadata.yaml").read_text()
    monkeypatch.undo()
    register_tiny(monkeypatch)
    assert train(tmp_path, "tiny", *words) == 0
    assert RemoteRun(open_store(words[1]), "tiny", run.name).differing(run) == []


def test_a_store_that_takes_nothing_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing("write", 10**6, monkeypatch)
    assert train(tmp_path, "tiny", "--sync-to", f"file://{tmp_path}/remote") == SOURCE_UNAVAILABLE
    assert "out of reach" in capsys.readouterr().err
    assert not list(tmp_path.rglob("step-*"))


def test_an_unreachable_store_on_an_empty_disk_is_no_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing("folders", 10**6, monkeypatch)
    assert train(tmp_path, "tiny", "--sync-to", f"file://{tmp_path}/remote") == SOURCE_UNAVAILABLE
    assert "out of reach" in capsys.readouterr().err
    assert not (tmp_path / "out" / "tiny").exists()


def test_old_checkpoints_go_only_after_the_newest_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote_folder = tmp_path / "remote"
    kept: list[set[str]] = []
    remove = RemoteRun.remove_checkpoint

    def watched(remote: RemoteRun, name: str) -> None:
        kept.append(set(remote.checkpoints()) - {name})
        remove(remote, name)

    monkeypatch.setattr(RemoteRun, "remove_checkpoint", watched)
    monkeypatch.setattr("training.engine.loop._TICK_SECONDS", 0.0)
    monkeypatch.setattr(push, "_POLL_SECONDS", 0.0)
    sets = ("training.checkpoint_minutes=0", "training.keep_checkpoints=1", "training.epochs=6")
    assert train(tmp_path, "tiny", "--sync-to", f"file://{remote_folder}", sets=sets) == 0
    run = run_of(tmp_path, "tiny")
    there = {path.name for path in (remote_folder / "tiny" / run.name / "checkpoints").glob("step-*")}
    assert there == {folder.name for folder in checkpoints(run / "checkpoints")}
    assert all(kept)


def test_milestones_that_are_only_there_stay(tmp_path: Path) -> None:
    sets = ("training.keep_every_epochs=1", "training.keep_checkpoints=1")
    words = ("--sync-to", f"file://{tmp_path}/remote")
    assert train(tmp_path / "a", "tiny", *words, sets=sets) == 0
    run = run_of(tmp_path / "a", "tiny")
    copy = tmp_path / "remote" / "tiny" / run.name
    names = {folder.name for folder in checkpoints(copy / "checkpoints")}
    assert len(names) == 4
    text = (copy / "metadata.yaml").read_text().replace("state: finished", "state: interrupted")
    (copy / "metadata.yaml").write_text(text)
    newest = checkpoints(copy / "checkpoints")[-1]
    (newest / "manifest.json").unlink()  # it ended on its way
    assert train(tmp_path / "b", "tiny", *words, sets=sets) == 0
    assert {folder.name for folder in checkpoints(copy / "checkpoints")} == names


def test_the_commands_secrets_are_kept_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", "--sync-to", "gs://me:hush@bucket/x?token=hush") == 78
    assert "hush" not in capsys.readouterr().err
    run = trained(tmp_path, "--sync-to", "memory://me:hush@place/runs?token=hush", "--run-name", "x")
    MemoryFileSystem.store.clear()
    assert not [path for path in run.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
    assert "hush" not in capsys.readouterr().out


@pytest.mark.parametrize(("signal_name", "error", "bounded"), [("SIGTERM", None, 4.0), (None, RuntimeError(), 60.0)])
def test_the_last_push_is_bounded(
    signal_name: str | None, error: Exception | None, bounded: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stop:
        pass

    stop: Any = Stop()
    stop.signal_name = None
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    sync = session.Sync(open_store(f"file://{tmp_path}"), "tiny", tmp_path, stop)
    patient: Callable[[], bool] = sync._patience(error)
    now[0] = 10.0
    assert patient()
    stop.signal_name = signal_name
    assert patient()
    now[0] = 10.0 + bounded - 10.0 * (error is not None) - 0.1
    assert patient()
    now[0] += 0.2
    assert not patient()


def test_owner_notes_are_no_records(tmp_path: Path) -> None:
    trained(tmp_path, "--sync-to", f"file://{tmp_path}/remote")
    (note,) = (tmp_path / "remote" / "tiny").glob("*/owner.json")
    assert json.loads(note.read_text())["state"] == "left"
    assert json.loads(note.read_text())["usage"]["seconds"] > 0
