"""``runs …`` as people and programs use it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from filelock import FileLock

from backend import errors
from training.cli import main
from training.commands import runs as runs_cli

from .made import make_run, write_metadata, write_validations

ROOT = Path(__file__).parent.parent.parent
A, B, C = "20261125_100000_a", "20261125_110000_b", "20261125_120000_c"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def blank_pictures() -> None:
    """Here figures are rendered."""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    rate = {"training": {"learning_rate": 0.1, "epochs": 3}}
    run = make_run(folder, A, metrics={"val/loss": 0.5, "val/csi_30": 0.25, "test/loss": 0.7}, config=rate)
    write_validations(run, 0.9, 0.6, 0.5)
    other = {"training": {"learning_rate": 0.01, "epochs": 3, "patience": None}, "model": {"dims": [1, 2]}}
    run = make_run(folder, B, metrics={"val/loss": 0.4, "test/loss": 0.8}, config=other)
    write_validations(run, 0.8, 0.4)
    make_run(folder, C, metrics={"val/loss": 0.1}, is_sample=True)
    return folder


@pytest.fixture
def runs(output: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["runs", *words, "--output", str(output)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_list_shows_each_run_with_its_state_and_best(runs: Run, output: Path) -> None:
    make_run(output, "20261124_000000_broken", metrics={})
    (output / "convlstm" / "20261124_000000_broken" / "metadata.yaml").write_text("a: [")
    code, out, err = runs("list")
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("2026")]
    assert (code, err) == (0, "")
    assert [row[0] for row in rows] == [C, B, A, "20261124_000000_broken"]
    assert rows[1][1:5] == ["convlstm", "finished", "val/loss", "0.4"]
    assert "sample" in rows[0]
    assert rows[3][2] == "damaged"


def test_what_folders_are_called_is_shown_as_it_is(runs: Run, output: Path) -> None:
    make_run(output, "20261126_000000_[red]x:smile:")
    assert "20261126_000000_[red]x:smile:" in runs("list")[1]


def test_list_says_how_many_it_leaves_out(runs: Run) -> None:
    _, out, _ = runs("list", "--limit", "1")
    assert A not in out
    assert "and 2 more (--limit 0 shows all 3)" in out
    assert A in runs("list", "--limit", "0")[1]


def test_list_as_json_is_everything(runs: Run, output: Path) -> None:
    code, out, err = runs("list", "--limit", "1", "--json")
    assert (code, err) == (0, "")
    assert [entry["run_id"] for entry in json.loads(out)] == [C, B, A]
    assert json.loads(out)[2]["checkpoint_path"] == str(output / "convlstm" / A / "best_model.pth")


def test_list_filters_and_sorts(runs: Run) -> None:
    ordered = [entry["run_id"] for entry in json.loads(runs("list", "--sort", "val/loss", "--json")[1])]
    assert ordered == [C, B, A]
    assert "no runs of that kind" in runs("list", "--state", "failed")[1]
    code, _, err = runs("list", "--state", "fialed")
    assert (code, err.count("\n")) == (errors.USAGE, 1)


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == errors.USAGE
    assert capsys.readouterr().err == "error: Missing command. (--help shows what there is)\n"


def test_an_empty_place_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--output", str(tmp_path / "none")]) == 0
    assert "no runs under" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_show_tells_everything(runs: Run) -> None:
    code, out, _ = runs("show", A)
    assert code == 0
    for words in ("chosen by val/loss (min)", "val/csi_30", "test/loss", "0" * 40, "best_model.pth"):
        assert words in out
    assert json.loads(runs("show", A, "--json")[1])["metrics"]["test/loss"] == 0.7


def test_show_of_very_many_scores_shows_the_headlines(runs: Run, output: Path) -> None:
    many_scores = "20261125_130000_d"
    many = {f"val/csi_30_lead_{lead}": 0.5 for lead in range(1, 80)}
    make_run(output, many_scores, metrics={"val/loss": 0.1, "val/csi_30": 0.5, **many})
    out = runs("show", many_scores)[1]
    assert "val/csi_30 " in out
    assert "val/csi_30_lead_7" not in out
    assert "79 more metrics: --all-metrics" in out
    assert "val/csi_30_lead_7" in runs("show", many_scores, "--all-metrics")[1]
    assert "val/csi_30_lead_7" in runs("show", many_scores, "--json")[1]


def test_best_names_run_value_and_checkpoint(runs: Run, output: Path) -> None:
    code, out, _ = runs("best")
    assert code == 0
    assert f"best of 2 by val/loss (min): {B} with 0.4" in out
    assert f"checkpoint: {output / 'convlstm' / B / 'best_model.pth'}" in out
    assert "note:" not in out
    assert json.loads(runs("best", "--json")[1])["run_id"] == B
    assert runs("best", "--metric", "val/loss") == (0, out, "")  # its mode is the runs' own
    assert json.loads(runs("best", "--metric", "val/csi_30", "--mode", "max", "--json")[1])["run_id"] == A


def test_best_wants_to_know_the_task_where_there_are_several(runs: Run, output: Path) -> None:
    make_run(output, A, task="video", metrics={"val/auc": 0.9}, selection=("val/auc", "max"))
    assert runs("best")[2] == "error: there are runs of convlstm, video; name one with --task\n"
    assert "val/auc (max)" in runs("best", "--task", "video")[1]


def test_best_says_where_datasets_differ(runs: Run, output: Path) -> None:
    make_run(output, "20261126_000000_d", metrics={"val/loss": 0.3}, dataset="e" * 32)
    assert "validated on 2 different datasets" in runs("best")[1]
    assert "note:" not in runs("best", "--dataset", "dd")[1]


@pytest.mark.parametrize("config", [{"loss": {"ssim_weight": 0.1}}, {"data": {"max_dbz": 80.0}}])
def test_best_and_compare_say_where_losses_differ(runs: Run, output: Path, config: dict[str, object]) -> None:
    other = "20261126_000000_d"
    make_run(output, other, metrics={"val/loss": 0.01, "val/csi_30": 0.1}, config=config)
    assert "these runs have 2 different losses" in runs("best")[1]
    by_name = ("best", "--metric", "best_val_metric", "--mode", "min")
    assert "these runs have 2 different losses" in runs(*by_name)[1]
    assert "note:" not in runs("best", "--metric", "val/csi_30", "--mode", "max")[1]
    assert "their losses do not compare" in runs("compare", A, other)[1]
    assert "do not compare" not in runs("compare", A, other, "--metric", "val/csi_30")[1]
    assert "do not compare" not in runs("compare", A, B)[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--metric", "test/loss", "--mode", "min"), "take val/loss"),
        (("--metric", "val/csi_30"), "--mode min or --mode max"),
        (("--mode", "max"), "has the mode min"),
        (("--metric", "val/lsos", "--mode", "min"), "did you mean val/loss?"),
        (("--task", "video"), "video: no runs; there are runs of convlstm"),
        (("--dataset", "x"), "no runs to rank"),
    ],
)
def test_what_best_refuses_is_one_line(runs: Run, words: tuple[str, ...], told: str) -> None:
    code, out, err = runs("best", *words)
    assert (code, out, err.count("\n")) == (errors.USAGE, "", 1)
    assert told in err


# --- compare --------------------------------------------------------------------------------------------------------


def test_compare_shows_settings_that_differ_and_scores(runs: Run) -> None:
    code, out, err = runs("compare", A, B)
    assert (code, err) == (0, "")
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert rows["training.learning_rate"] == ["0.1", "0.01"]
    assert rows["training.patience"] == ["–", "–"]  # only one of them has it at all
    assert rows["val/loss"] == ["0.5", "0.4"]
    assert rows["val/csi_30"] == ["0.25", "–"]
    assert "training.epochs" not in rows


def test_compare_for_programs(runs: Run) -> None:
    found = json.loads(runs("compare", A, B, "--format", "json")[1])
    assert found["settings"]["model.dims"] == {A: None, B: [1, 2]}
    assert found["metrics"]["test/loss"] == {A: 0.7, B: 0.8}
    rows = list(csv.DictReader(io.StringIO(runs("compare", A, B, "--format", "csv")[1])))
    assert {"kind": "metric", "name": "val/csi_30", A: "0.25", B: ""} in rows


def test_compare_for_papers(runs: Run) -> None:
    markdown = runs("compare", A, B, "--format", "markdown", "--metric", "val/csi_30")[1]
    assert f"| metric | {A} | {B} |\n| --- | ---: | ---: |\n| val/csi_30 | 0.25 | – |\n" in markdown
    assert "val/loss" not in markdown
    latex = runs("compare", A, B, "--format", "latex")[1]
    assert r"val/csi\_30 & 0.25 & – \\" in latex
    assert latex.count(r"\begin{tabular}{lrr}") == latex.count(r"\end{tabular}") == 3


def test_compare_warns_of_what_does_not_compare(runs: Run, output: Path) -> None:
    make_run(output, "20261126_000000_d", dataset="e" * 32)
    assert "different datasets or splits" in runs("compare", A, "20261126")[1]
    code, out, err = runs("compare", A, C, "--format", "json")
    assert (code, json.loads(out)["notes"]) == (0, [f"on the built-in sample, which says nothing about your data: {C}"])
    assert "built-in sample" not in err


def test_compare_of_two_tasks_shows_the_settings_that_both_have(runs: Run, output: Path) -> None:
    other = "20261126_000000_points"
    make_run(output, other, task="landmarks", config={"training": {"learning_rate": 7}, "model": {"head": "deep"}})
    code, out, _ = runs("compare", A, other)
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    assert (code, rows["training.learning_rate"]) == (0, ["0.1", "7"])
    assert "model.head" not in rows and "training.patience" not in rows
    assert "different tasks: settings that only one of them has are left out" in out


def test_compare_takes_two_runs_and_known_metrics(runs: Run) -> None:
    assert runs("compare", A)[0] == errors.USAGE
    assert "two different runs" in runs("compare", A, A[:-1])[2]
    assert "did you mean val/csi_30?" in runs("compare", A, B, "--metric", "val/csi_3")[2]


def test_compare_of_damaged_runs_shows_what_there_is(runs: Run, output: Path) -> None:
    (output / "convlstm" / A / "config.yaml").write_text("a: [")
    (output / "convlstm" / A / "metadata.yaml").unlink()
    code, out, _ = runs("compare", A, B)
    assert code == 0
    assert f"settings cannot be read: {A}" in out


def test_compare_draws_curves(runs: Run, tmp_path: Path) -> None:
    code, _, _ = runs("compare", A, B, "--curves", str(tmp_path / "figures" / "both.png"))
    assert code == 0
    assert (tmp_path / "figures" / "both.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figures" / "both.svg").read_text()
    code, _, err = runs("compare", A, C, "--metric", "val/loss", "--curves", str(tmp_path / "one"))
    assert (code, err.count("one.png")) == (0, 1)
    code, _, err = runs("compare", A, B, "--metric", "test/loss", "--curves", str(tmp_path / "none"))
    assert (code, "no curve to draw" in err) == (errors.BAD_DATA, True)


# --- export, rebuild, delete ----------------------------------------------------------------------------------------


def test_export_has_a_column_for_whatever_any_run_has(runs: Run, output: Path, tmp_path: Path) -> None:
    code, out, _ = runs("export", str(tmp_path / "deep" / "all.csv"))
    assert (code, out) == (0, f"3 runs: {tmp_path / 'deep' / 'all.csv'}\n")
    text = (tmp_path / "deep" / "all.csv").read_text()
    rows = {row["run_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert text.startswith("run_id,task,config_hash,checkpoint_path,timestamp,dataset_version,")
    assert (rows[A]["metric_val/csi_30"], rows[B]["metric_val/csi_30"]) == ("0.25", "")
    assert rows[B]["selection_metric"] == "val/loss"
    assert "metric_test/loss" in rows[A]
    many = {f"test/score_{number}": 0.0 for number in range(70)}
    make_run(output, "20261126_000000_many", metrics={"val/loss": 0.5, **many})
    assert "test/score_9" not in runs("export")[1]
    assert "metric_test/score_9" in runs("export", "--all-metrics")[1]


def test_rebuild_says_what_is_gone(runs: Run, output: Path) -> None:
    runs("list")
    (output / "convlstm" / A).rename(output.parent / "moved")
    code, out, _ = runs("rebuild")
    assert (code, out.splitlines()) == (
        0,
        [f"{output / 'registry.json'}: 2 runs", f"convlstm/{A} is off the list: its folder is gone"],
    )


def test_delete_takes_folder_and_entry(runs: Run, output: Path) -> None:
    code, out, _ = runs("delete", A, C, "--yes")
    assert (code, out) == (0, f"{A} is deleted\n{C} is deleted\n")
    assert [path.name for path in (output / "convlstm").iterdir()] == [B]
    assert [entry["run_id"] for entry in json.loads(runs("list", "--json")[1])] == [B]


def test_delete_asks_first(
    runs: Run, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = runs("delete", A)
    assert (code, "--yes" in err) == (errors.USAGE, True)
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return len(asked) > 1

    monkeypatch.setattr(runs_cli.sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "confirm", answer)
    assert runs("delete", A) == (0, f"{A} stays\n", "")
    assert (output / "convlstm" / A).is_dir()
    assert runs("delete", A) == (0, f"{A} is deleted\n", "")
    assert f"Delete {A}" in asked[0]
    assert "on your own data" in asked[0]


def test_delete_refuses_a_run_at_work(runs: Run, output: Path) -> None:
    with FileLock(output / "convlstm" / A / ".lock"):
        code, _, err = runs("delete", A, "--yes")
    assert (code, "a worker is at work on this run" in err) == (errors.CONFIG, True)
    assert (output / "convlstm" / A / "config.yaml").is_file()


def test_delete_of_a_damaged_or_moved_run(runs: Run, output: Path) -> None:
    runs("list")
    (output / "convlstm" / A / "metadata.yaml").write_text("a: [")
    (output / "convlstm" / B).rename(output.parent / "moved")
    assert runs("delete", A, B, "--yes")[0] == 0
    assert [entry["run_id"] for entry in json.loads(runs("list", "--json")[1])] == [C]
    assert (output.parent / "moved" / "config.yaml").is_file()


def test_delete_of_a_link_leaves_what_it_points_to(runs: Run, output: Path) -> None:
    (output / "convlstm" / A).rename(output.parent / A)
    (output / "convlstm" / A).symlink_to(output.parent / A)
    assert runs("delete", A, "--yes")[0] == 0
    assert (output.parent / A / "config.yaml").is_file()
    assert not (output / "convlstm" / A).is_symlink()


def test_the_registry_may_lie_elsewhere(
    runs: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIN_WORKER_REGISTRY", str(tmp_path / "lists" / "mine.json"))
    found = json.loads(runs("list", "--json")[1])
    assert Path(found[0]["checkpoint_path"]).is_file()
    assert not (output / "registry.json").exists()
    listed = json.loads((tmp_path / "lists" / "mine.json").read_text())["runs"]
    assert {entry["folder"] for entry in listed} == {f"../out/convlstm/{run_id}" for run_id in (A, B, C)}


@pytest.fixture
def with_secrets(output: Path) -> list[str]:
    """Two runs of an earlier version, which let addresses with secrets in."""
    names = ["20261126_100000_d", "20261126_110000_e"]
    for number, name in enumerate(names):
        address = f"https://me:S3CRET@host/{number}?sig=S3CRET"
        data = {"manifest": address, "more": [{address: [f":s3,secret_access_key=S3CRET:{number}"]}]}
        run = make_run(output, name, metrics={"val/loss": 0.5}, config={"data": data, "goals": {address: ">0"}})
        write_metadata(run, state="failed", error=f"no answer from {address}", preset=address)
    return names


@pytest.mark.parametrize("form", [form.value for form in runs_cli.Format])
def test_compare_hides_the_secrets_of_older_settings(runs: Run, with_secrets: list[str], form: str) -> None:
    code, out, err = runs("compare", *with_secrets, "--format", form)
    assert code == 0
    assert "host/0" in out
    assert "host/1" in out
    assert "S3CRET" not in out + err


@pytest.mark.parametrize("words", [["show"], ["show", "--json"], ["list", "--json"], ["export"]])
def test_a_run_is_shown_without_the_secrets_in_its_records(
    runs: Run, with_secrets: list[str], words: list[str]
) -> None:
    named = with_secrets[:1] if words[0] == "show" else []
    code, out, err = runs(*words, *named)
    assert code == 0
    assert "no answer from https://host/0" in out
    assert "S3CRET" not in out + err


@pytest.mark.parametrize("words", [["list"], ["best"], ["show", A], ["compare", A, B], ["export"], ["--help"]])
def test_no_command_imports_torch_and_the_like(output: Path, words: list[str]) -> None:
    code = (
        "import sys; from training.cli import main; "
        f"main(['runs', *{words!r}, *{[] if words == ['--help'] else ['--output', str(output)]!r}]); "
        "print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout
    for heavy in ("torch", "numpy", "pandas", "matplotlib", "requests", "training.config"):
        assert f"'{heavy}'" not in done.stderr
