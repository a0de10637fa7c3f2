"""What a training of any task leaves for people: report, model card, list of runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.runs import ALL_TASKS, register_tiny, run_of, train
from training.reporting import index_page
from training.reporting.run_folder import RunFolder
from training.reporting.run_index import index_rows
from training.reporting.verdict import verdict_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The place where a task was trained, once."""

    @cache
    def place_of(task: str) -> Path:
        place = tmp_path_factory.mktemp(task)
        with pytest.MonkeyPatch.context() as patch:
            register_tiny(patch)
            assert train(place, task, sets=("training.learning_rate=0.003",)) == 0
        return place

    return place_of


@pytest.mark.parametrize("task", ALL_TASKS)
def test_a_training_leaves_its_report_its_card_and_the_list(trained: Callable[[str], Path], task: str) -> None:
    place = trained(task)
    run = run_of(place, task)
    metadata = RunFolder(run).metadata
    there, here = metadata["differences"]["keys"]["training.learning_rate"]
    assert (here, there != here) == (0.003, True)
    for name in ("report.html", "MODEL_CARD.md"):
        text = (run / name).read_text("utf-8")
        assert run.name in text
        assert "could not" not in text
    assert "training.learning_rate" in (run / "report.html").read_text("utf-8")
    assert "@inproceedings{loshchilov2019adamw" in (run / "MODEL_CARD.md").read_text("utf-8")
    assert f'href="{task}/{run.name}/report.html"' in (place / "out" / "index.html").read_text("utf-8")
    (row,) = index_rows(place / "out")
    metric, mode = (RunFolder(run).config["selection"][key] for key in ("metric", "mode"))
    assert (row.state, row.is_sample, row.best_of, row.mode) == ("finished", True, 0, mode)
    assert row.value == pytest.approx(RunFolder(run).evaluations["val"]["metrics"][metric])  # on the whole split
    assert row.hours is not None
    assert not [event for event in RunFolder(run).events if event["event"] == "not drawn"]
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {path.stem for path in RunFolder(run).figures} >= {"curves"}
    assert figures == {f"{path.stem}.{kind}" for path in RunFolder(run).figures for kind in ("png", "svg")}


def test_a_nowcast_is_judged_and_its_task_describes_it(trained: Callable[[str], Path]) -> None:
    run = RunFolder(run_of(trained("convlstm"), "convlstm"))
    verdict = verdict_of(run.evaluations["test"])
    assert verdict is not None
    assert verdict.columns == ["lead 1", "lead 2"]
    assert "persistence" in verdict.sentence
    card = (run.path / "MODEL_CARD.md").read_text("utf-8")
    assert verdict.sentence in card
    assert "It forecasts the next 2 frames of radar reflectivity from the last 3" in card
    assert "shi2015convlstm" in card


def test_a_training_that_fails_stands_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)
    monkeypatch.setattr("training.commands.train.run_stages", lambda run, work: 1 / 0)
    assert train(tmp_path, "tiny") == 70
    assert [row.state for row in index_rows(tmp_path / "out")] == ["failed"]
    assert "failed" in (tmp_path / "out" / "index.html").read_text("utf-8")


def test_a_list_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_tiny(monkeypatch)

    def refuse(output: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_page, "write_index", refuse)
    assert train(tmp_path, "tiny") == 0
    assert "the list of runs could not be written" in capsys.readouterr().out
    assert RunFolder(run_of(tmp_path, "tiny")).metadata["state"] == "finished"
