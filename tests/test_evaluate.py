"""`evaluate` over runs, kept predictions, other configurations, other data, and goals; for every task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from backend.errors import BadDataError
from tests.runs import ALL_TASKS, places, register_tiny, run_of, train
from tests.tiny_task import TinyTask
from training.cli import main
from training.config.compare import parse
from training.evaluation import predictions
from training.files import read_json, write_json
from training.runs.run import read_yaml
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


def test_kept_predictions_are_scored_by_other_settings_of_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "convlstm", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "convlstm")
    assert evaluate(tmp_path, run.name, "--keep-predictions") == 0
    kept, before = str(run / "evaluations/val/predictions"), metrics(run, "val")
    assert evaluate(tmp_path, "--predictions", kept, "--set", "evaluation.thresholds_dbz=[20, 25]") == 0
    (folder,) = (run / "evaluations").glob("val-set-*")
    found = read_json(folder / "metrics.json")
    assert found["changed"] == {"evaluation.thresholds_dbz": [[20.0, 30.0, 35.0, 40.0, 45.0, 50.0], [20.0, 25.0]]}
    assert "val/persistence_csi_25" in found["metrics"]
    assert "val/persistence_csi_30" not in found["metrics"]
    assert found["metrics"]["val/persistence_csi_20"] == before["val/persistence_csi_20"]
    assert found["metrics"]["val/loss"] == pytest.approx(before["val/loss"], rel=1e-6)
    assert metrics(run, "val") == before  # the headline stays
    capsys.readouterr()
    for setting, words in (
        ("training.seed=1", "only how they are scored can change"),
        ("loss.ssim_weight=0.1", "only how they are scored can change"),
        ("evaluation.max_samples=1", "not evaluation.every_epochs, evaluation.max_samples"),
        ("evaluation.thresholds_dbz=20", "evaluation.thresholds_dbz is 20"),
        ("evaluation.thresholds=[20]", "did you mean evaluation.thresholds_dbz?"),
    ):
        assert evaluate(tmp_path, "--predictions", kept, "--set", setting) == 78
        assert words in capsys.readouterr().err
    assert evaluate(tmp_path, run.name, "--set", "evaluation.thresholds_dbz=[20]") == 2


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
        assert train(tmp_path, "tiny", "--seed", seed, sets=(*ONE_STEP, "selection.metric=val/mae")) == 0
    runs = sorted(path for path in (tmp_path / "out/tiny").iterdir() if path.name.startswith("2"))
    capsys.readouterr()
    assert evaluate(tmp_path, "--all", "--task", "tiny") == 0
    out = capsys.readouterr().out
    assert all(f"{run.name}  val/mae {metrics(run, 'val')['val/mae']:.5g}\n" in out for run in runs)
    assert all(out.count(f"\n{run.name}:\n") == 1 for run in runs), "each table says whose it is"
    shutil.rmtree(runs[1] / "checkpoints")
    assert evaluate(tmp_path, "--all", "--task", "tiny") == 65
    said = capsys.readouterr()
    assert f"error: {runs[1]}" in said.err
    assert f"{runs[0].name}  val/mae" in said.out and f"{runs[2].name}  val/mae" in said.out
    assert evaluate(tmp_path, runs[0].name, runs[2].name, "--json") == 0
    assert [one["run_id"] for one in json.loads(capsys.readouterr().out)] == [runs[0].name, runs[2].name]


def test_all_runs_of_a_subtask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    monkeypatch.setattr(TinyTask, "subtask", "small_tiny")
    assert train(tmp_path, "tiny", "--seed", "2", sets=ONE_STEP) == 0
    capsys.readouterr()
    assert evaluate(tmp_path, "--all", "--task", "small_tiny", "--json") == 0
    (only,) = json.loads(capsys.readouterr().out)
    found = {run.name: read_yaml(run / "metadata.yaml") for run in (tmp_path / "out/tiny").glob("2*")}
    assert len(found) == 2 and found[only["run_id"]]["subtask"] == "small_tiny"


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


def test_scores_need_no_sound_config_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of another version, damaged or lost: the checkpoint knows its settings."""
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    before = metrics(run, "val")
    for content in ("training: {momentum: 1}", "training: [", None):
        (run / "config.yaml").unlink()
        if content is not None:
            (run / "config.yaml").write_text(content)
        assert evaluate(tmp_path, run.name) == 0
        assert "the checkpoint's own settings are used instead" in capsys.readouterr().err
        assert metrics(run, "val") == before
        (run / "config.yaml").touch()


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


def copied_pairs(place: Path, fresh_seed: int) -> Path:
    """A dataset whose last ten rows, of its test split, stand in its training split too."""
    place.mkdir()
    TinyTask.make_sample(place, seed=fresh_seed)
    lines = (place / "numbers.csv").read_text().splitlines()
    (place / "numbers.csv").write_text("\n".join([*lines[:110], *lines[:10]]))
    return place


def test_leaks_inside_the_runs_own_split_are_told_before_training_and_at_every_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied_pairs(tmp_path / "copied", 3)
    goal = ("goals.test/mae='<100'",)
    assert train(tmp_path, "tiny", sets=(*ONE_STEP, *goal), data=str(data)) == 0
    run = run_of(tmp_path, "tiny")
    said = "train and test: 5 of 12 in test are not independent"
    assert f"warning: {said}" in capsys.readouterr().out
    audit = read_yaml(run / "metadata.yaml")["audit"]
    assert audit["weak"] and said in audit["weak_reason"]
    assert [pair["tainted"] for pair in audit["leaks"]] == [5]
    assert evaluate(tmp_path, run.name, "--split", "test", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["leaks"]["tainted"], result["clean"]["n"]) == (5, 7)
    assert evaluate(tmp_path, run.name, "--json") == 0
    assert "leaks" not in json.loads(capsys.readouterr().out)[0]


def test_goals_are_judged_on_what_is_independent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", sets=(*ONE_STEP, "goals.test/mae='<100'")) == 0
    run = run_of(tmp_path, "tiny")
    data = tmp_path / "seen"
    data.mkdir()
    (own,) = (tmp_path / "datasets/.samples/tiny").glob("*.csv")
    (data / "numbers.csv").write_text("\n".join(own.read_text().splitlines()[:60]))  # all of it was trained on
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--split", "test", "--data", str(data), "--check-goals") == 1
    out = capsys.readouterr().out
    assert "no part of test is independent" in out
    assert "not known (not measured)" in out


def test_weights_to_start_from_that_have_seen_the_test_items_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "turned"
    other.mkdir()
    (tmp_path / "own").mkdir()
    TinyTask.make_sample(tmp_path / "own", seed=5)
    lines = (tmp_path / "own/numbers.csv").read_text().splitlines()
    pairs = ["\n".join(lines[i : i + 2]) for i in range(0, len(lines), 2)]
    (other / "numbers.csv").write_text("\n".join(pairs[::-1]))
    assert train(tmp_path / "first", "tiny", sets=ONE_STEP, data=str(other)) == 0
    weights = run_of(tmp_path / "first", "tiny") / "best_model.pth"
    capsys.readouterr()
    own = str(tmp_path / "own")
    assert train(tmp_path, "tiny", sets=(*ONE_STEP, f"model.init_from={weights}"), data=own) == 0
    found = read_yaml(run_of(tmp_path, "tiny") / "metadata.yaml")["audit"]["leaks"]
    assert [(pair["examined"], pair["seen"].startswith("what best_model.pth")) for pair in found] == [
        ("val", True),
        ("test", True),
    ]
    alone = shutil.copy(weights, tmp_path / "alone.pth")
    capsys.readouterr()
    assert train(tmp_path / "second", "tiny", sets=(*ONE_STEP, f"model.init_from={alone}"), data=own) == 0
    assert "nobody knows what" in capsys.readouterr().out


def test_scores_are_made_with_the_checkpoints_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "convlstm", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "convlstm")
    before = metrics(run, "val")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("ssim_weight: 0.5", "ssim_weight: 0.8"))
    assert "0.8" in (run / "config.yaml").read_text()
    monkeypatch.setenv("TRAIN_WORKER_LOSS__HIGH_PENALTY_WEIGHT", "2")
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--verify-config", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert metrics(run, "val") == before
    assert "Config hash mismatch!" in result["config_mismatch"][0]
    assert "loss.ssim_weight: 0.5 there, 0.8 here" in result["config_mismatch"][1]


def test_a_published_file_means_the_checkpoint_it_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("training.epochs=4", "training.keep_every_epochs=1", "training.max_steps=1000")
    assert train(tmp_path, "tiny", sets=sets) == 0
    run = run_of(tmp_path, "tiny")
    before = metrics(run, "val")
    assert evaluate(tmp_path, str(run / "checkpoint_epoch_1.pth")) == 0
    (apart,) = (run / "evaluations").glob("val-step-*")
    assert metrics(run, "val") == before, "another checkpoint took the headline"
    assert metrics(run, apart.name) != before
    assert evaluate(tmp_path, str(run / "best_model.pth")) == 0
    assert metrics(run, "val") == before
    foreign = shutil.copy(run / "best_model.pth", run / "mine.pth")
    capsys.readouterr()
    assert evaluate(tmp_path, str(foreign)) == 2
    assert "was not published by this run" in capsys.readouterr().err


def test_kept_predictions_need_no_checkpoint_and_no_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    before = metrics(run, "test")
    assert evaluate(tmp_path, run.name, "--split", "test", "--keep-predictions") == 0
    kept = str(run / "evaluations/test/predictions")
    (tmp_path / "other").mkdir()
    TinyTask.make_sample(tmp_path / "other", seed=9)
    capsys.readouterr()
    assert evaluate(tmp_path, "--predictions", kept, "--split", "test", "--data", str(tmp_path / "other")) == 65
    assert "about something else: dataset" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")
    assert evaluate(tmp_path, "--predictions", kept, "--split", "test") == 0
    assert metrics(run, "test") == pytest.approx(before, rel=1e-6)


def test_a_full_disk_keeps_the_earlier_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    assert evaluate(tmp_path, run.name, "--keep-predictions") == 0
    before = read_json(run / "evaluations/val/predictions/index.json")

    def full(*given: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(predictions, "save_file", full)
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--keep-predictions") == 74
    assert "could not be kept" in capsys.readouterr().err
    assert read_json(run / "evaluations/val/predictions/index.json") == before
    assert [path.name for path in (run / "evaluations/val").glob(".predictions*")] == []


def test_a_dataset_that_moved_is_told_in_words_that_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "here").mkdir()
    TinyTask.make_sample(tmp_path / "here")
    assert train(tmp_path, "tiny", sets=ONE_STEP, data=str(tmp_path / "here")) == 0
    (tmp_path / "here").rename(tmp_path / "there")
    capsys.readouterr()
    run = run_of(tmp_path, "tiny").name
    assert evaluate(tmp_path, run) == 65
    assert f"{run}: its dataset is not at" in capsys.readouterr().err
    assert evaluate(tmp_path, run, "--data", str(tmp_path / "there")) == 0


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


def test_what_the_run_was_selected_on_counts_as_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", sets=ONE_STEP) == 0
    run = run_of(tmp_path, "tiny")
    (own,) = (tmp_path / "datasets/.samples/tiny").glob("*.csv")
    validated = own.read_text().splitlines()[72:96]
    other = tmp_path / "other"
    other.mkdir()
    TinyTask.make_sample(other, seed=9)
    lines = (other / "numbers.csv").read_text().splitlines()
    (other / "numbers.csv").write_text("\n".join([*lines[:96], *validated]))  # its test split is our validation split
    capsys.readouterr()
    assert evaluate(tmp_path, run.name, "--split", "test", "--data", str(other), "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["leaks"]["tainted"], result["leaks"]["n"]) == (12, 12)
