"""`evaluate` over runs, kept predictions, other configurations, other data, and goals; for every task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend.errors import BadDataError
from tests.runs import ALL_TASKS, places, register_tiny, run_of, train
from tests.tiny_task import TinyTask
from training.cli import main
from training.config_compare import parse
from training.files import read_json, write_json
from training.tasks import task_class

ONE_STEP = ("training.max_steps=1",)


@pytest.fixture(autouse=True)
def every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def evaluate(place: Path, *words: str) -> int:
    return main(["evaluate", *words, *places(place)])


def metrics(run: Path, place: str) -> dict[str, float]:
    return read_json(run / "evaluations" / place / "metrics.json")["metrics"]


@pytest.mark.parametrize("task", ALL_TASKS)
def test_kept_predictions_give_the_same_scores_without_the_model(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, task, sets=ONE_STEP) == 0
    run = run_of(tmp_path, task)
    before = metrics(run, "test")
    assert evaluate(tmp_path, run.name, "--split", "test", "--keep-predictions") == 0
    kept = run / "evaluations/test/predictions"
    assert str(kept) in capsys.readouterr().out.replace("\n", "")
    assert read_json(kept / "index.json")["run_id"] == run.name

    def never(*given: object) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(task_class(task), "outputs", never)
    assert evaluate(tmp_path, "--predictions", str(kept), "--split", "test") == 0
    assert metrics(run, "test") == pytest.approx(before, rel=1e-6)


def test_predictions_about_something_else_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    assert evaluate(tmp_path, run.name, "--keep-predictions") == 0
    kept = run / "evaluations/val/predictions"
    capsys.readouterr()
    assert evaluate(tmp_path, "--predictions", str(kept), "--split", "test") == 65
    assert "about something else: split val, not test" in capsys.readouterr().err
    assert evaluate(tmp_path, "--predictions", str(run / "evaluations")) == 2
    assert "--keep-predictions" in capsys.readouterr().err
    (shard, *_) = sorted(kept.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    assert evaluate(tmp_path, "--predictions", str(kept)) == 65
    assert "sha256 differs" in capsys.readouterr().err
    index = read_json(kept / "index.json")
    write_json(kept / "index.json", {**index, "files": index["files"][1:]})
    assert evaluate(tmp_path, "--predictions", str(kept)) == 65
    assert "fewer predictions" in capsys.readouterr().err
    write_json(kept / "index.json", {**index, "format": 7})
    assert evaluate(tmp_path, "--predictions", str(kept)) == 65
    assert "format 7" in capsys.readouterr().err


def test_all_runs_of_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in ("1", "2", "3"):
        assert train(tmp_path, "tiny", "--seed", seed, sets=ONE_STEP) == 0
    runs = sorted(path for path in (tmp_path / "out/tiny").iterdir() if path.name.startswith("2"))
    capsys.readouterr()
    assert evaluate(tmp_path, "--all", "--task", "tiny") == 0
    out = capsys.readouterr().out
    assert all(f"{run.name}  val/loss 0." in out for run in runs)
    shutil.rmtree(runs[1] / "checkpoints")
    assert evaluate(tmp_path, "--all", "--task", "tiny") == 65
    said = capsys.readouterr()
    assert f"error: {runs[1]}" in said.err
    assert f"{runs[0].name}  val/loss" in said.out and f"{runs[2].name}  val/loss" in said.out
    assert evaluate(tmp_path, runs[0].name, runs[2].name, "--json") == 0
    assert [one["run_id"] for one in json.loads(capsys.readouterr().out)] == [runs[0].name, runs[2].name]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "name a run"),
        (["--all", "--task", "tiny"], "no finished run of tiny"),
        (["--all", "r"], "name no run beside it"),
        (["r", "--predictions", "p"], "name no run"),
    ],
)
def test_nothing_to_score(words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tmp_path, *words) == 2
    assert line in capsys.readouterr().err


def test_a_configuration_is_held_against_the_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--verify-config") == 0
    assert "the configuration is the checkpoint's" in capsys.readouterr().out
    other = ["--verify-config", "--set", "training.learning_rate=0.5", "--set", "training.num_workers=1"]
    assert evaluate(tmp_path, run.name, *other) == 0
    out = capsys.readouterr().out
    (warning,) = [line for line in out.splitlines() if "mismatch" in line]
    hashes = warning.removeprefix("Config hash mismatch! Checkpoint config hash: ").split(", Current config hash: ")
    assert warning.endswith(". This may affect reproducibility.")
    assert len(hashes[0]) == 8 and hashes[0] != hashes[1][:8]
    assert "training.learning_rate: " in out and "0.5 here" in out and "num_workers:" not in out
    before = metrics(run, "val")
    assert evaluate(tmp_path, run.name, *other, "--strict") == 1
    assert "Config hash mismatch!" in capsys.readouterr().err
    assert metrics(run, "val") == before


def test_a_checkpoint_of_another_version_is_told() -> None:
    config = task_class("tiny").config_type(task="tiny").model_dump(mode="json")
    config["training"]["momentum_of_old"] = 3
    with pytest.raises(BadDataError, match=r"step-1: its configuration .*training.momentum_of_old"):
        parse(TinyTask.config_type, config, "step-1")


def test_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    goals = ("goals.val/mae='<100'", "goals.test/mae='<0.000001'")
    assert train(tmp_path, "tiny", sets=(*ONE_STEP, *goals)) == 0
    run = run_of(tmp_path, "tiny").name
    capsys.readouterr()
    assert evaluate(tmp_path, run, "--check-goals") == 0
    assert f"{run}: goal val/mae <100: reached (" in capsys.readouterr().out
    assert evaluate(tmp_path, run, "--split", "test", "--check-goals") == 1
    assert "goal test/mae <0.000001: missed (" in capsys.readouterr().out
    assert train(tmp_path / "other", "tiny", sets=ONE_STEP) == 0
    assert evaluate(tmp_path / "other", run_of(tmp_path / "other", "tiny").name, "--check-goals") == 2


def test_other_data_are_looked_through_for_what_the_model_has_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    (own,) = (tmp_path / "datasets/.samples/tiny").glob("*.csv")
    lines = own.read_text().splitlines()
    mixed, fresh = tmp_path / "mixed", tmp_path / "fresh"
    fresh.mkdir()
    TinyTask.make_sample(fresh, seed=9)
    mixed.mkdir()
    others = (fresh / "numbers.csv").read_text().splitlines()
    (mixed / "numbers.csv").write_text("\n".join([*others[:110], *lines[:10]]))  # its last pairs were trained on
    test = ["--split", "test", "--json"]
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--data", str(fresh), *test) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert "leaks" not in result
    assert evaluate(tmp_path, run.name, "--data", str(mixed), *test) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["leaks"]["tainted"], result["leaks"]["n"], result["clean"]["n"]) == (5, 12, 7)
    assert result["clean"]["metrics"]["test/mae"] != result["metrics"]["test/mae"]
    assert evaluate(tmp_path, run.name, "--data", str(mixed), "--split", "test") == 0
    assert "warning: what the run learned from and test: 5 of 12" in capsys.readouterr().out
    (run / "split.json").unlink()
    assert evaluate(tmp_path, run.name, "--data", str(mixed), "--split", "test") == 0
    assert "nobody knows what this model was trained on" in capsys.readouterr().out


def test_report_and_card_tell_of_the_new_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    pages = [run / "report.html", run / "MODEL_CARD.md"]
    assert not [page for page in pages if "looked at twice" in page.read_text("utf-8")]
    assert evaluate(tmp_path, run.name, "--split", "test") == 0
    assert [page for page in pages if "looked at twice" in page.read_text("utf-8")] == pages

    def refuse(folder: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.reporting.report.write_report", refuse)
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--split", "test") == 0
    assert "report.html could not be made anew" in capsys.readouterr().out
    assert "looked at 3 times" in (run / "MODEL_CARD.md").read_text("utf-8")
    (run / "MODEL_CARD.md").unlink()  # not wanted: it does not come back
    assert evaluate(tmp_path, run.name, "--split", "test") == 0
    assert not (run / "MODEL_CARD.md").exists()
