"""Which run is the best, which are shown, and which one is meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backend.errors import BadDataError, UsageError
from training.registry.entry import Entry
from training.registry.index import Registry
from training.registry.names import named_run
from training.registry.ranking import own_metric, ranked
from training.registry.selection import select, sort_by
from training.runs.run import resolve_run
from training.yaml_core import read_yaml, write_yaml

from .made import make_run

A, B, C, D, E = (f"20261125_1{at}0000_{name}" for at, name in enumerate("abcde"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    make_run(tmp_path, A, metrics={"val/loss": 0.5, "val/csi": 0.1, "test/loss": 0.1})
    make_run(tmp_path, B, metrics={"val/loss": 0.4, "val/csi": 0.3}, subtask="rain")
    make_run(tmp_path, C, metrics={"val/loss": 0.1}, is_sample=True)
    make_run(tmp_path, D, metrics={"val/loss": 0.2}, state="interrupted", dataset="e" * 32)
    make_run(tmp_path, E, task="video", metrics={"val/auc": 0.9}, selection=("val/auc", "max"))
    return Registry(tmp_path / "registry.json", tmp_path)


def ids(entries: list[Entry]) -> list[str]:
    return [entry["run_id"] for entry in entries]


def test_only_finished_runs_on_real_data_are_ranked(registry: Registry) -> None:
    entries = registry.entries()
    assert ids(ranked(entries, "convlstm", "val/loss", "min")) == [B, A]
    assert ids(ranked(entries, "convlstm", "val/loss", "max")) == [A, B]
    assert ids(ranked(entries, "rain", "val/loss", "min")) == [B]


def test_of_equals_the_earliest_is_first(tmp_path: Path) -> None:
    for run_id in (A, B, C):
        make_run(tmp_path, run_id, metrics={"val/loss": 0.5})
    entries = Registry(tmp_path / "registry.json", tmp_path).entries()
    for mode in ("min", "max"):
        assert ids(ranked(entries, "convlstm", "val/loss", mode)) == [A, B, C]


def test_a_run_whose_folder_is_gone_is_not_the_best(registry: Registry, tmp_path: Path) -> None:
    registry.entries()
    (tmp_path / "convlstm" / B).rename(tmp_path / "elsewhere")
    assert ids(ranked(registry.entries(), "convlstm", "val/loss", "min")) == [A]


def test_a_metric_that_only_the_folders_have_ranks_too(tmp_path: Path) -> None:
    many = {f"val/score_{number}": 0.0 for number in range(70)}
    for run_id, value in ((A, 0.2), (B, 0.7)):
        make_run(tmp_path, run_id, metrics={**many, "val/score_1_lead_1": value, "val/loss": 0.1})
    entries = Registry(tmp_path / "registry.json", tmp_path).entries()
    assert "val/score_1_lead_1" not in entries[0]["metrics"]
    first = ranked(entries, "convlstm", "val/score_1_lead_1", "max")[0]
    assert (first["run_id"], first["metrics"]["val/score_1_lead_1"]) == (B, 0.7)


@pytest.mark.parametrize(
    ("task", "metric", "mode", "words"),
    [
        ("convlstm", "test/loss", "min", "by validation alone.*take val/loss"),
        ("convlstm", "val/los", "min", "did you mean val/loss"),
        ("convlstm", "csi", "max", "did you mean val/csi"),
        ("convlstm", "val/loss", "lowest", "expected min or max"),
        ("convlstm", "best_val_metric", "max", "is val/loss, whose mode is min, not max"),
        ("conv", "val/loss", "min", "no runs; there are runs of convlstm, rain, video"),
    ],
)
def test_what_cannot_be_ranked_is_one_line(registry: Registry, task: str, metric: str, mode: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        ranked(registry.entries(), task, metric, mode)
    assert "\n" not in str(caught.value)


def test_runs_on_the_sample_alone_have_no_best(tmp_path: Path) -> None:
    make_run(tmp_path, A, metrics={"val/loss": 0.5}, is_sample=True)
    with pytest.raises(UsageError, match="built-in sample, which never counts"):
        ranked(Registry(tmp_path / "registry.json", tmp_path).entries(), "convlstm", "val/loss", "min")


def test_best_val_metric_ranks_only_where_it_is_one_metric(tmp_path: Path, registry: Registry) -> None:
    assert ids(ranked(registry.entries(), "convlstm", "best_val_metric", "min")) == [B, A]
    assert own_metric(registry.entries(), "video") == ("val/auc", "max")
    make_run(tmp_path, "20261126_000000_f", metrics={"val/csi": 0.3}, selection=("val/csi", "max"))
    with pytest.raises(UsageError, match=r"not the same in these runs: val/csi \(max\), val/loss \(min\)"):
        ranked(registry.entries(), "convlstm", "best_val_metric", "min")
    with pytest.raises(UsageError, match="name one with --metric and --mode"):
        own_metric(registry.entries(), "convlstm")


# --- selection ------------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_and_sorted(registry: Registry) -> None:
    entries = registry.entries()
    assert ids(select(entries, "rain", (), None)) == [B]
    assert ids(select(entries, None, ("interrupted",), None)) == [D]
    assert ids(select(entries, None, (), "ee")) == [D]
    assert ids(sort_by(entries, "val/loss", False)) == [C, D, B, A, E]
    assert ids(sort_by(entries, "val/loss", True)) == [A, B, D, C, E]
    with pytest.raises(UsageError, match="there is no such state; there are running, killed"):
        select(entries, None, ("done",), None)
    with pytest.raises(UsageError, match="by validation alone"):
        sort_by(entries, "test/loss", False)
    with pytest.raises(UsageError, match="did you mean val/loss"):
        sort_by(entries, "val/lss", False)


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_run_is_named_by_id_beginning_or_folder(registry: Registry, tmp_path: Path) -> None:
    entries = registry.entries()
    folder = tmp_path / "convlstm" / A
    (folder / "checkpoints" / "step-00000024").mkdir(parents=True)
    names = [A, A[:-1], A[:11], f"convlstm/{A}", str(folder), str(folder / "checkpoints" / "step-00000024")]
    assert [named_run(registry, entries, name)["run_id"] for name in names] == [A] * len(names)


def test_an_id_that_others_begin_with_is_that_run(tmp_path: Path) -> None:
    make_run(tmp_path, A)
    make_run(tmp_path, f"{A}_2")
    registry = Registry(tmp_path / "registry.json", tmp_path)
    assert named_run(registry, registry.entries(), A)["run_id"] == A


def test_what_is_ambiguous_or_unknown_is_one_line(registry: Registry, tmp_path: Path) -> None:
    make_run(tmp_path, A, task="video")
    entries = registry.entries()
    with pytest.raises(UsageError, match=rf"20261125_1: matches 6 runs \(video/{E}, .*…\); name more of it"):
        named_run(registry, entries, "20261125_1")
    with pytest.raises(UsageError, match=f"matches 2 runs .*video/{A}"):
        named_run(registry, entries, A)
    assert named_run(registry, entries, f"video/{A}")["task"] == "video"
    with pytest.raises(UsageError, match=f"2025: no such run under .*the newest is {E}"):
        named_run(registry, entries, "2025")
    with pytest.raises(UsageError, match="no such run"):
        named_run(registry, [], "")


@pytest.mark.parametrize("name", ["", "**", "**x", "[", "tiny/", "/", "x" * 5000, "a\0b", "*/*"])
def test_names_of_no_run_are_one_line(registry: Registry, tmp_path: Path, name: str) -> None:
    for look in (lambda: resolve_run(tmp_path, name), lambda: named_run(registry, registry.entries(), name)):
        with pytest.raises(UsageError, match="no such run") as caught:
            look()
        assert "\n" not in str(caught.value)


def test_every_command_finds_the_runs_that_the_list_has(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "convlstm" / A
    (folder / "checkpoints").mkdir()
    names = [A, A[:-1], f"convlstm/{A}", f"convlstm/{A[:-1]}", str(folder), str(folder / "checkpoints")]
    assert [resolve_run(tmp_path, name).folder for name in names] == [folder] * len(names)
    elsewhere = make_run(tmp_path / "other", "20251125_100000_x")
    registry.register(elsewhere)
    for name in ("20251125", "convlstm/20251125_100000_x"):
        assert resolve_run(tmp_path, name).folder == elsewhere
    shutil.rmtree(elsewhere)
    with pytest.raises(UsageError, match=r"20251125: its folder .* is gone"):
        resolve_run(tmp_path, "20251125")
    assert named_run(registry, registry.entries(), "20251125")["state"] == "gone"


def test_a_copy_is_named_by_its_folder_alone(registry: Registry, tmp_path: Path) -> None:
    run, copy = tmp_path / "convlstm" / A, tmp_path / "backup" / A
    registry.entries()
    shutil.copytree(run, copy)
    assert resolve_run(tmp_path, A).folder == run
    assert resolve_run(tmp_path, f"backup/{A}").folder == copy
    assert named_run(registry, registry.entries(), A)["folder"] == str(run)
    assert named_run(registry, registry.entries(), f"backup/{A}")["folder"] == str(copy)


def test_a_registry_that_cannot_be_read_hides_no_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path, A)
    (tmp_path / "registry.json").mkdir()
    assert resolve_run(tmp_path, A).folder == run


def test_a_run_without_metadata_is_no_run_to_work_with(tmp_path: Path) -> None:
    (make_run(tmp_path, A) / "metadata.yaml").unlink()
    with pytest.raises(UsageError, match=r"metadata\.yaml is missing"):
        resolve_run(tmp_path, A)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("dataset", "abc", "dataset is a text, expected a mapping"),
        ("result", [1], "result is a list, expected a mapping"),
        ("git", "x", "git is a text, expected a mapping"),
        ("data", None, "data is null, expected a mapping"),
        ("data", {"path": 3}, "data.path is a number, expected a text"),
        ("data", {"fetched": None}, "data.fetched is null, expected a mapping"),
        ("data", {"fetched": {"sha256": ["a"]}}, "data.fetched.sha256 is a list, expected a text"),
        ("dataset", {"fingerprint": {}}, "dataset.fingerprint is a mapping, expected a text"),
        ("determinism", {"asked": "yes"}, "determinism.asked is a text, expected true or false"),
        ("usage", {"hours": True}, "usage.hours is a boolean, expected a number"),
        ("files_sha256", {"model.init_from": 7}, "files_sha256.model.init_from is a number, expected a text"),
        ("config_hash", 12, "config_hash is a number, expected a text"),
        ("task", None, "task is null, expected a task's name"),
        ("task", 3, "task is a number, expected a task's name"),
    ],
)
def test_metadata_of_wrong_types_are_one_line(tmp_path: Path, name: str, value: object, told: str) -> None:
    run = make_run(tmp_path, A, data={"path": None, "fetched": {}}, usage={"hours": 1}, files_sha256={"a": "b"})
    assert resolve_run(tmp_path, A).folder == run
    write_yaml(run / "metadata.yaml", {**read_yaml(run / "metadata.yaml"), name: value})
    with pytest.raises(BadDataError, match=rf"{A}/metadata\.yaml: {told}; mend it"):
        resolve_run(tmp_path, A)


def test_a_folder_that_is_not_on_the_list_is_looked_at(registry: Registry, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", A, state="running", metrics={"val/loss": 0.7})
    found = named_run(registry, registry.entries(), str(other))
    assert (found["folder"], found["state"], found["metrics"]["val/loss"]) == (str(other), "killed", 0.7)
