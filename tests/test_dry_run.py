"""`train --dry-run`: everything up to the first step, for every task, and not one file of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.runs import ALL_TASKS, places, register_tiny, run_of, train
from tests.tiny_task import TinyTask
from training.cli import main
from training.commands.dry_run import describe
from training.tasks.protocol import Prepared


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("task", ALL_TASKS)
def test_it_tells_everything_and_leaves_no_run(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, task, "--dry-run") == 0
    out = said(capsys)
    for words in (
        "data: ",
        "device: ",
        "splits: train ",
        "overlaps between splits: ",
        "model: ",
        "a row: input ",
        "; output ",
        "micro_batch_size: ",
        "epochs: ",
        "it would begin a new run: ",
    ):
        assert words in out, words
    assert "unknown" not in out
    assert not (tmp_path / "out" / task).exists()


def test_shapes_and_numbers_are_the_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "convlstm", "--dry-run", sets=("data.levels=max",)) == 0
    out = said(capsys)
    assert "a row: input [1, 3, 16, 16] float32; output [1, 2, 16, 16] float32" in out
    assert "overlaps between splits: frames 0, windows 0" in out
    assert "in all, at most 3 by training.max_steps" in out


def test_it_names_the_run_that_would_be_continued_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny") == 0
    run, before = run_of(tmp_path, "tiny"), contents(tmp_path / "out")
    said(capsys)
    assert train(tmp_path, "tiny", "--dry-run") == 0
    assert f"it would do nothing: {run} is finished" in said(capsys)
    assert train(tmp_path, "tiny", "--dry-run", "--resume", "never") == 0
    assert "it would begin a new run" in said(capsys)
    assert main(["train", "--dry-run", *places(tmp_path), "--resume", run.name, "--set", "training.epochs=5"]) == 0
    assert f"it would continue {run} from step 20" in said(capsys)
    assert contents(tmp_path / "out") == before


def test_other_data_make_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "numbers"
    data.mkdir()
    TinyTask.make_sample(data)
    assert train(tmp_path, "tiny", data=str(data)) == 0
    said(capsys)
    with (data / "numbers.csv").open("a") as file:
        file.write("1,2,3,4,5,1\n" * 8)
    assert train(tmp_path, "tiny", "--dry-run", data=str(data)) == 0
    assert "it would begin a new run" in said(capsys)
    again = ["train", "--dry-run", *places(tmp_path), "--resume", run_of(tmp_path, "tiny").name]
    assert main(again) == 65
    assert "not the data that" in capsys.readouterr().err


def test_classes_are_counted_where_a_task_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(self: TinyTask, prepared: Prepared) -> Mapping[str, Mapping[str, int]]:
        return {name: {"small": len(items), "large": 0} for name, items in prepared.splits.items()}

    monkeypatch.setattr(TinyTask, "class_counts", counts)
    assert train(tmp_path, "tiny", "--dry-run") == 0
    assert "classes of train: small 36, large 0\n" in said(capsys)


@pytest.mark.parametrize(
    ("words", "sets", "code", "line"),
    [
        ([], ("data.rows_per_item=100",), 65, "split holds no pairs"),
        ([], ("selection.metric=val/mea",), 78, "did you mean val/mae"),
        ([], ("goals.test/mea='<1'",), 78, "goals names test/mea, which no evaluation"),
        (["--max-cost", "3"], (), 78, "--max-cost"),
        (["--run-name", "a/b"], (), 78, "--run-name"),
    ],
)
def test_what_training_would_refuse_is_refused(
    words: list[str], sets: tuple[str, ...], code: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "tiny", "--dry-run", *words, sets=sets) == code
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out" / "tiny").exists()


def test_a_store_is_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where it holds a run that this command would continue."""
    sync = ("--sync-to", f"file://{tmp_path}/store")
    assert train(tmp_path / "other machine", "tiny", *sync, sets=("training.max_steps=1",)) == 0
    capsys.readouterr()
    assert train(tmp_path, "tiny", "--dry-run", *sync, sets=("training.max_steps=1",)) == 0
    told = said(capsys)
    assert "the store of --sync-to was not asked" in told
    assert "it would begin a new run" in told
    assert not list((tmp_path / "out").glob("tiny/2*"))


def test_nested_values_are_described() -> None:
    import torch

    value = {"boxes": [torch.zeros(2, 4), torch.zeros(0, 4)], "n": 3}
    assert describe(value) == "{boxes: ([2, 4] float32, [0, 4] float32), n: int}"
