"""Checkpoints: whole or not there, verified, ordered by step."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from backend.artifact import (
    DamagedCheckpointError,
    best_checkpoint,
    checkpoints,
    open_artifact,
    open_checkpoint,
    step_of,
    verify,
)
from backend.errors import BadDataError, DiskError
from training.engine.checkpoint import CheckpointStore

STATE = {"format": 1, "weights": "model", "config": {}, "preprocessing": {}, "facts": {}, "progress": {"best": None}}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    said: list[str] = []
    store = CheckpointStore(tmp_path / "checkpoints", 2, said.append)
    store.said = said  # type: ignore[attr-defined]
    return store


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((50, 3), value)}, "optimizer": {"w/step": torch.tensor(value)}}


def test_what_is_saved_is_what_is_opened(store: CheckpointStore) -> None:
    folder = store.save(7, tensors(1.5), STATE)
    assert folder.name == "step-00000007"
    assert torch.equal(open_checkpoint(folder).weights["w"], torch.full((50, 3), 1.5))
    assert (store.root / "latest").read_text().strip() == folder.name
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir()), "others must be able to read"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_found_and_the_one_before_is_used(store: CheckpointStore, name: str, damage: str) -> None:
    store.save(9, tensors(1.0), STATE)
    newest = store.save(10, tensors(2.0), STATE)
    path = newest / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(DamagedCheckpointError):
        verify(newest)
    found = store.newest()
    assert found is not None
    assert found[0].name == "step-00000009"
    assert (store.root / "damaged-step-00000010").is_dir()
    assert "damaged-step-00000010" in store.said[0]  # type: ignore[attr-defined]


def test_steps_are_ordered_as_numbers(store: CheckpointStore) -> None:
    for step in (9, 10, 99999999, 100000000):
        store.save(step, tensors(step), STATE)
    assert [step_of(folder) for folder in checkpoints(store.root)] == [9, 10, 99999999, 100000000]
    store.prune({9})
    assert [step_of(folder) for folder in checkpoints(store.root)] == [9, 99999999, 100000000]


def test_leftovers_of_a_killed_save_are_not_checkpoints_and_are_swept(store: CheckpointStore) -> None:
    whole = store.save(3, tensors(1.0), STATE)
    shutil.copytree(whole, store.root / ".tmp-step-00000004-123")
    shutil.copytree(whole, store.root / ".trash-step-00000001")
    assert [step_of(folder) for folder in checkpoints(store.root)] == [3]
    store.sweep()
    assert sorted(path.name for path in store.root.iterdir()) == ["latest", "step-00000003"]


def test_a_full_disk_costs_no_published_checkpoint(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(3, tensors(1.0), STATE)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(DiskError, match="MiB are free"):
        store.save(4, tensors(1.0), STATE)
    monkeypatch.undo()
    assert [step_of(folder) for folder in checkpoints(store.root)] == [3]


def test_a_failing_disk_costs_no_published_checkpoint(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(3, tensors(1.0), STATE)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match="Input/output error"):
        store.save(4, tensors(1.0), STATE)
    monkeypatch.undo()
    assert sorted(path.name for path in store.root.iterdir()) == ["latest", "step-00000003"]


def test_best_is_a_hint_that_may_be_missing(store: CheckpointStore) -> None:
    run = store.root.parent
    with pytest.raises(BadDataError, match="no checkpoint"):
        best_checkpoint(run)
    for step in (3, 4, 5):
        store.save(step, tensors(step), STATE)
    assert step_of(best_checkpoint(run)) == 5
    store.mark_best(3)
    assert open_artifact(run).folder.name == "step-00000003"
    store.mark_best(None)
    assert step_of(best_checkpoint(run)) == 5


def test_files_are_durable_before_the_name_is_given(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        order.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_rename(source: str, target: str) -> None:
        order.append("rename " + Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    store.save(3, tensors(1.0), STATE)
    renamed = order.index("rename step-00000003")
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        assert order.index(f"fsync {name}") < renamed
    assert "fsync checkpoints" in order[renamed:]
