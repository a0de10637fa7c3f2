"""A machine is gone with all that was on it, and the same command on another one ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backend.artifact import checkpoints, open_artifact, step_of
from tests.crash.test_kills import SETTINGS, same_end
from tests.runs import SHORT, places, register_tiny, run_of, train
from training.cli import main
from training.files import read_json_lines
from training.runs.run import Run
from training.samples.radar import make_radar_sample
from training.sync import lease

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.0)  # the dead machine renews nothing: nobody needs to wait here


def events(run: Path, name: str) -> list[dict[str, object]]:
    return [event for event in read_json_lines(run / "events.jsonl") if event["event"] == name]


def words_for(task: str, place: Path) -> list[str]:
    """A command that takes a checkpoint at every step."""
    if task == "tiny":
        sets, data = [*SHORT["tiny"], "training.checkpoint_minutes=0"], "sample"
    else:
        settings = {**SETTINGS, "training.epochs": 4, "training.num_workers": 0, "data.prepare_workers": 1}
        sets, data = [f"{key}={value}" for key, value in settings.items()], str(place.parent / "radar")
    return ["train", "--task", task, "--data", data, *(word for text in sets for word in ("--set", text))]


@pytest.mark.crash
@pytest.mark.parametrize(("task", "step"), [("tiny", 8), ("convlstm", 8)])
def test_killed_and_continued_on_an_empty_disk(
    task: str, step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "convlstm":
        (tmp_path / "radar").mkdir()
        make_radar_sample(tmp_path / "radar", events=6, frames=14, levels=2, size=32)
    here, whole, remote = tmp_path / "here", tmp_path / "whole", tmp_path / "remote"
    command = [*words_for(task, here), *places(here), "--sync-to", f"file://{remote}"]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.sync.victim", str(step), str(remote), "--", *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    dead = run_of(here, task)
    pushed = max(int(path.parent.name[5:]) for path in remote.glob("*/*/checkpoints/step-*/manifest.json"))
    assert read_json_lines(dead / "metrics.jsonl")[-1]["step"] < step
    used = json.loads((remote / task / dead.name / "owner.json").read_text())
    assert used["state"] == lease.AT_WORK
    shutil.rmtree(here)

    assert main(command) == 0
    run = run_of(here, task)
    assert run.name == dead.name
    resumed = events(run, "resumed")
    assert [event["step"] for event in resumed] == [pushed]
    assert f"fetched {run.name}" in capsys.readouterr().out
    assert Run(run).metadata["usage"]["hours"] * 3600 > used["usage"]["seconds"] > 0

    assert main([*words_for(task, whole), *places(whole)]) == 0
    same_end(run, run_of(whole, task))
    assert same_files(run, remote / task / run.name)


def same_files(run: Path, copy: Path) -> bool:
    """Whether the copy holds every file of the run, and no checkpoint more."""
    for path in run.rglob("*"):
        name = path.relative_to(run)
        if path.is_file() and not name.name.startswith(".") and name.name != "status.json":
            assert (copy / name).read_bytes() == path.read_bytes(), name
    mine, theirs = ([step_of(folder) for folder in checkpoints(place / "checkpoints")] for place in (run, copy))
    assert mine == theirs
    return True


def synced(place: Path, remote: Path, *words: str, sets: tuple[str, ...] = ()) -> int:
    return train(place, "tiny", "--sync-to", f"file://{remote}", *words, sets=sets)


def test_a_finished_run_is_fetched_and_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synced(tmp_path / "a", tmp_path / "remote") == 0
    capsys.readouterr()
    assert synced(tmp_path / "b", tmp_path / "remote") == 0
    assert "finished before" in capsys.readouterr().out
    a, b = run_of(tmp_path / "a", "tiny"), run_of(tmp_path / "b", "tiny")
    assert a.name == b.name
    assert len(events(b, "started")) == 1
    assert open_artifact(a).folder.name == open_artifact(b).folder.name


def test_another_setting_or_other_data_are_another_run(tmp_path: Path) -> None:
    assert synced(tmp_path / "a", tmp_path / "remote") == 0
    assert synced(tmp_path / "b", tmp_path / "remote", sets=("training.learning_rate=0.02",)) == 0
    assert synced(tmp_path / "b", tmp_path / "remote", "--run-name", "other") == 0
    assert synced(tmp_path / "b", tmp_path / "remote", "--resume", "never") == 0
    names = {path.name for path in (tmp_path / "remote" / "tiny").iterdir()}
    assert len(names) == 4
    assert not (tmp_path / "b" / "out" / "tiny" / run_of(tmp_path / "a", "tiny").name).exists()


def two_copies(tmp_path: Path) -> tuple[Path, Path]:
    """A run here, and its copy in the store; both unfinished, as after a kill."""
    assert synced(tmp_path / "a", tmp_path / "remote", sets=("training.keep_checkpoints=9",)) == 0
    run = run_of(tmp_path / "a", "tiny")
    copy = tmp_path / "remote" / "tiny" / run.name
    for folder in (run, copy):
        text = (folder / "metadata.yaml").read_text()
        (folder / "metadata.yaml").write_text(text.replace("state: finished", "state: interrupted"))
    assert len(checkpoints(run / "checkpoints")) == 4
    return run, copy


def lose_newest(folder: Path, number: int) -> None:
    for checkpoint in checkpoints(folder / "checkpoints")[-number:]:
        shutil.rmtree(checkpoint)


def test_the_run_that_is_further_on_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, copy = two_copies(tmp_path)
    steps = [step_of(folder) for folder in checkpoints(run / "checkpoints")]
    weights = (run / "checkpoints" / f"step-{steps[-1]:08d}" / "model.safetensors").read_bytes()
    for behind, winner in ((run, "store"), (copy, "here")):
        lose_newest(behind, 2)
        capsys.readouterr()
        assert synced(tmp_path / "a", tmp_path / "remote", sets=("training.keep_checkpoints=9",)) == 0
        said = capsys.readouterr().out
        assert f"the run here is at step {steps[1]}" in said or winner == "here", said
        assert f"has {run.name} at step {steps[1]}; the one here is at step {steps[-1]}" in said or winner == "store"
        assert events(run, "resumed")[-1]["step"] == steps[-1]
        for folder in (run, copy):
            text = (folder / "metadata.yaml").read_text()
            (folder / "metadata.yaml").write_text(text.replace("state: finished", "state: interrupted"))
    assert (run / "checkpoints" / f"step-{steps[-1]:08d}" / "model.safetensors").read_bytes() == weights


def test_damaged_copies_are_left_out_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, copy = two_copies(tmp_path)
    good, cut, flipped, no_manifest = checkpoints(copy / "checkpoints")
    whole = (flipped / "model.safetensors").read_bytes()
    (flipped / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (cut / "optimizer.safetensors").write_bytes(b"cut")
    (no_manifest / "manifest.json").unlink()
    shutil.rmtree(tmp_path / "a")
    capsys.readouterr()
    assert synced(tmp_path / "a", tmp_path / "remote", sets=("training.keep_checkpoints=9",)) == 0
    said = capsys.readouterr().out
    assert f"{flipped.name} is damaged and left out" in said
    assert "sha256 differs" in said
    assert f"{cut.name} is damaged and left out ({cut.name}/optimizer.safetensors: has 3 bytes, expected" in said
    assert f"fetched {run.name}" in said
    run = run_of(tmp_path / "a", "tiny")
    assert events(run, "resumed")[-1]["step"] == step_of(good)
    assert same_files(run, copy)


def test_names_from_a_store_lead_nowhere_else(tmp_path: Path) -> None:
    run, copy = two_copies(tmp_path)
    (copy / "sub").mkdir()
    (copy / ".hidden").write_text("x")
    (copy / "sub" / ".hidden").write_text("x")
    for newest in checkpoints(copy / "checkpoints"):
        manifest = json.loads((newest / "manifest.json").read_text())
        manifest["files"]["../../outside"] = {"size": 1, "sha256": "0"}
        (newest / "manifest.json").write_text(json.dumps(manifest))
        (copy / "outside").write_text("x")
    shutil.rmtree(tmp_path / "a")
    assert synced(tmp_path / "a", tmp_path / "remote") == 0
    run = run_of(tmp_path / "a", "tiny")
    assert not list(run.rglob(".hidden"))
    assert events(run, "resumed")[-1]["step"] == 0


def test_an_unreadable_run_in_the_store_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, copy = two_copies(tmp_path)
    (copy / "metadata.yaml").write_text("state: [")
    shutil.rmtree(tmp_path / "a")
    assert synced(tmp_path / "a", tmp_path / "remote") == 0
    assert "so that run is left out" in capsys.readouterr().out


def test_a_named_run_is_fetched_before_it_is_extended(tmp_path: Path) -> None:
    run, copy = two_copies(tmp_path)
    steps = [step_of(folder) for folder in checkpoints(copy / "checkpoints")]
    lose_newest(run, 3)
    words = ["train", "--resume", run.name, "--sync-to", f"file://{tmp_path}/remote", *places(tmp_path / "a")]
    assert main([*words, "--set", "training.epochs=5"]) == 0
    assert events(run, "resumed")[-1]["step"] == steps[-1]
