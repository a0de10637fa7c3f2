"""A machine that vanishes, and another with empty volumes: the run goes on from a store, through the real rclone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.artifact import best_checkpoint, checkpoints
from backend.files import sha256_of
from tests.container.docker import CALLER, Place, run, short, started
from training.files import read_json_lines
from training.runs.run import read_yaml

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]
STEPS = ["-e", "TRAIN_WORKER_TRAINING__MAX_STEPS=40", "-e", "TRAIN_WORKER_TRAINING__CHECKPOINT_MINUTES=0"]


def options(place: Place, store: Path) -> list[str]:
    remote = ["-e", "RCLONE_CONFIG_STORE_TYPE=local", "-v", f"{store}:/store"]
    user = ["--user", f"{CALLER[0]}:{CALLER[1]}"]
    return [*short(), *STEPS, *user, *remote, "-e", "TRAIN_WORKER_SYNC_TO=store:/store/runs", *place.volumes]


def published(store: Path) -> bool:
    return any(store.glob("runs/convlstm/*/checkpoints/*/manifest.json"))


def weights(place: Place) -> str:
    return sha256_of(best_checkpoint(place.run) / "model.safetensors")


def test_a_run_goes_on_with_empty_volumes(image: str, tmp_path: Path) -> None:
    first, second, alone = (Place.make(tmp_path / name) for name in ("first", "second", "alone"))
    store, other = tmp_path / "store", tmp_path / "other store"
    for folder in (store, other):
        folder.mkdir()
        os.chown(folder, *CALLER)
    with started(image, "train", "--data", "sample", options=options(first, store)) as container:
        container.wait_for(lambda: published(store))
        container.end("kill")
    done = run(image, "train", "--data", "sample", options=options(second, store))
    assert second.run.name == first.run.name
    assert f"run id: {first.run.name}" in done.stdout
    resumed = [event for event in read_json_lines(second.run / "events.jsonl") if event["event"] == "resumed"]
    assert resumed and resumed[-1]["step"] > 0
    (kept,) = store.glob("runs/convlstm/*")
    assert read_yaml(kept / "metadata.yaml")["state"] == "finished"
    newest = checkpoints(second.run / "checkpoints")[-1].name
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert sha256_of(kept / "checkpoints" / newest / name) == sha256_of(second.run / "checkpoints" / newest / name)
    run(image, "train", "--data", "sample", options=options(alone, other))
    assert weights(alone) == weights(second)
