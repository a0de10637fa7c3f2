"""The list of runs and the command `report`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backend.errors import BAD_DATA
from tests.reporting.made_run import light, make_output
from training.cli import main
from training.reporting import anew
from training.reporting.index_page import write_index
from training.reporting.report import render_report
from training.reporting.run_folder import RunFolder
from training.reporting.run_index import index_rows
from training.runs.metadata_shape import GROUPS
from training.yaml_core import read_yaml, write_yaml


def best(output: Path) -> dict[str, tuple[int, int]]:
    return {row.run_id: (row.best_of, row.best_over) for row in index_rows(output) if row.best_of}


def test_rows_hold_what_runs_recorded(tmp_path: Path) -> None:
    make_output(tmp_path)
    rows = index_rows(tmp_path)
    assert [row.run_id[-1] for row in rows] == ["y", "x", "d", "e", "c", "b", "a"]
    newest = rows[0]
    assert (newest.task, newest.state, newest.folder) == ("tiny", "finished", "tiny/20261107_100000_y")
    assert (newest.metric, newest.mode, newest.value) == ("val/auc", "max", 0.7)
    assert newest.verdict == "Beats guessing for pairs."
    assert rows[2].state == "failed"
    assert rows[2].value is None


def test_subtasks_and_scores_without_a_baseline_are_shown(tmp_path: Path) -> None:
    run = light(tmp_path, "tiny", "20261107_100000_y", 0.7, selection=("val/auc", "max"))
    write_yaml(run / "metadata.yaml", read_yaml(run / "metadata.yaml") | {"subtask": "small_tiny"})
    place = run / "evaluations" / "test" / "metrics.json"
    scores = {f"test/score_{number}": number / 8 for number in range(1, 6)}
    record = {"headlines": ["score_3", "score_9", "score_2", "score_1", "score_4"]}
    place.write_text(json.dumps({**json.loads(place.read_text()), "metrics": scores, "record": record}))
    (row,) = index_rows(tmp_path)
    assert (row.subtask, row.verdict) == ("small_tiny", "score 3 0.375, score 2 0.250")
    page = write_index(tmp_path).read_text()
    assert '<td>tiny <span class="soft">small_<wbr>tiny</span></td>' in page and row.verdict in page


def test_the_best_is_chosen_by_each_runs_own_validation_metric_and_never_among_samples(tmp_path: Path) -> None:
    make_output(tmp_path)
    assert best(tmp_path) == {"20261107_100000_y": (2, 1), "20261103_100000_c": (3, 2)}
    light(tmp_path, "convlstm", "20261108_100000_csi", 0.9, selection=("val/csi_30", "max"))
    assert best(tmp_path)["20261108_100000_csi"] == (1, 1)  # another metric is another competition
    light(tmp_path, "convlstm", "20261109_100000_running", 0.001, state="interrupted")
    light(tmp_path, "convlstm", "20261110_100000_equal", 0.075, data="77aa00")
    assert best(tmp_path)["20261103_100000_c"] == (4, 2)  # of two equal ones the earlier
    shutil.rmtree(tmp_path / "convlstm" / "20261103_100000_c")
    assert best(tmp_path)["20261110_100000_equal"] == (3, 2)


def test_the_page_and_the_ranking_name_the_same_best_of_equals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in (3, 1, 2):
        light(tmp_path, "convlstm", f"2026110{day}_100000_equal", 0.5)
    assert best(tmp_path) == {"20261101_100000_equal": (3, 1)}
    assert main(["runs", "best", "--output", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == "20261101_100000_equal"


def test_the_page_says_where_losses_differ(tmp_path: Path) -> None:
    for day, weight in ((1, 0.5), (2, 0.5), (3, 0.1)):
        run = light(tmp_path, "convlstm", f"2026110{day}_100000_x", day / 10)
        write_yaml(run / "config.yaml", {**read_yaml(run / "config.yaml"), "loss": {"ssim_weight": weight}})
    assert [row.best_losses for row in index_rows(tmp_path) if row.best_of] == [2]
    assert "by 2 different losses, which do not compare" in write_index(tmp_path).read_text("utf-8")


def test_a_damaged_run_stands_there_and_hides_none(tmp_path: Path) -> None:
    make_output(tmp_path)
    (tmp_path / "tiny" / "20261107_100000_y" / "metadata.yaml").write_text("{: [")
    (tmp_path / "tiny" / ".new-17").mkdir()
    (tmp_path / "tiny" / ".new-17" / "metadata.yaml").write_text("{}")
    rows = {row.run_id: row for row in index_rows(tmp_path)}
    assert len(rows) == 7
    assert rows["20261107_100000_y"].state == "damaged"
    assert best(tmp_path)["20261106_100000_x"] == (1, 1)


def test_an_empty_folder_has_a_list_too(tmp_path: Path) -> None:
    html = write_index(tmp_path).read_text("utf-8")
    assert "There is no run in this folder yet" in html
    assert "<script" not in html


def test_names_are_escaped_in_text_and_in_addresses(tmp_path: Path) -> None:
    run = light(tmp_path, "convlstm", "20261101_100000_<b>&#", 0.5)
    (run / "report.html").write_text("")
    html = write_index(tmp_path).read_text("utf-8")
    assert "<b>&#" not in html
    assert 'href="convlstm/20261101_100000_%3Cb%3E%26%23/report.html"' in html


# --- the command ----------------------------------------------------------------------------------------------------


def test_report_of_one_run_writes_it_its_card_and_the_list(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(made, tmp_path / "convlstm" / made.name)
    assert main(["report", run.name[:8], "--output", str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written == [run / "report.html", run / "MODEL_CARD.md", tmp_path / "index.html"]
    assert all(path.is_file() for path in written)
    assert 'href="convlstm/20261121_090000_sample/MODEL_CARD.md"' in written[2].read_text("utf-8")


def test_a_run_that_lies_elsewhere_gets_no_list_beside_it(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made, tmp_path / "elsewhere" / "there" / made.name)
    assert main(["report", str(run), "--output", str(tmp_path / "out")]) == 0
    assert (run / "report.html").is_file()
    assert not list(tmp_path.rglob("index.html"))


@pytest.mark.parametrize("wrong", ["abc", [1], None, 3])
def test_metadata_of_wrong_types_cost_the_report_their_words_alone(made: Path, tmp_path: Path, wrong: object) -> None:
    run = shutil.copytree(made, tmp_path / "convlstm" / made.name)
    known = read_yaml(run / "metadata.yaml")
    for name in (*GROUPS, "task", "state", "seed"):
        write_yaml(run / "metadata.yaml", {**known, name: wrong})
        assert render_report(RunFolder(run))
    inside = {
        name: {**value, **dict.fromkeys(value, wrong)} for name, value in known.items() if isinstance(value, dict)
    }
    write_yaml(run / "metadata.yaml", {**known, **inside})
    assert render_report(RunFolder(run))
    write_yaml(run / "metadata.yaml", dict.fromkeys(known, wrong))
    assert main(["report", str(run), "--output", str(tmp_path)]) == 0


def test_a_run_that_cannot_be_reported_keeps_none_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_output(tmp_path)
    write = anew.write_report

    def broken(folder: Path) -> Path:
        if folder.name == "20261103_100000_c":
            raise TypeError("of another kind")
        return write(folder)

    monkeypatch.setattr(anew, "write_report", broken)
    assert main(["report", "--all", "--output", str(tmp_path)]) == BAD_DATA
    assert len(list(tmp_path.glob("*/*/report.html"))) == 6
    assert (tmp_path / "index.html").is_file()
    told = capsys.readouterr().err
    assert "1 of the runs could not be reported: 20261103_100000_c (TypeError('of another kind'))" in told
    assert "Traceback" not in told


def test_report_of_all_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_output(tmp_path)
    assert main(["report", "--all", "--output", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*/*/report.html"))) == 7
    assert len(list(tmp_path.glob("*/*/MODEL_CARD.md"))) == 6  # none of the one that failed
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "index.html")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name a run"),
        (["20261121", "--all"], "name a run"),
        (["--all"], "holds no run"),
        (["nothing"], "no such run"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["report", *words, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
