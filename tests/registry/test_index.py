"""The list of runs: what it tells of each, and that it is right however old, damaged or absent the file is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from backend.errors import UsageError
from training.registry import hook, index
from training.registry.entry import Entry
from training.registry.index import Registry
from training.registry.lock import at_work

from .made import make_run, write_evaluation, write_metadata, write_validations

A, B, C = "20261125_100000_a", "20261125_110000_b", "20261125_120000_c"


def registry_of(output: Path, said: list[str] | None = None) -> Registry:
    return Registry(output / "registry.json", output, said.append if said is not None else lambda line: None)


def states(entries: list[Entry]) -> dict[str, str]:
    return {entry["run_id"]: entry["state"] for entry in entries}


def stored(output: Path) -> list[Entry]:
    runs: list[Entry] = json.loads((output / "registry.json").read_text())["runs"]
    return runs


def test_an_entry_tells_what_the_folder_holds(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, metrics={"val/loss": 0.5, "val/csi": 0.3, "test/loss": 0.6}, subtask="vehicles")
    entry = registry_of(tmp_path).register(run)
    assert entry["checkpoint_path"] == str(run / "best_model.pth")
    assert entry["metrics"] == {"best_val_metric": 0.5, "val/loss": 0.5, "val/csi": 0.3, "test/loss": 0.6}
    assert entry["selection"] == {"metric": "val/loss", "mode": "min", "value": 0.5, "step": 24, "n": 12, "of": 12}
    assert (entry["task"], entry["subtask"], entry["timestamp"]) == ("convlstm", "vehicles", "2026-11-25T10:00:00Z")
    assert entry["metadata"]["pytorch_version"] == "2.5.1"
    assert stored(tmp_path)[0]["checkpoint_path"] == f"convlstm/{A}/best_model.pth"


def test_runs_that_nobody_registered_are_found_and_noted(tmp_path: Path) -> None:
    make_run(tmp_path, A)
    make_run(tmp_path, B, task="video")
    (tmp_path / "convlstm" / ".new-123").mkdir()
    (tmp_path / ".prepared" / "x").mkdir(parents=True)
    (tmp_path / "convlstm" / "notes").mkdir()
    assert [entry["run_id"] for entry in registry_of(tmp_path).entries()] == [B, A]
    assert {entry["run_id"] for entry in stored(tmp_path)} == {A, B}


def test_what_changed_in_a_folder_is_seen(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, state="interrupted")
    registry = registry_of(tmp_path)
    assert states(registry.entries()) == {A: "interrupted"}
    write_evaluation(run, "val", {"val/loss": 0.25})
    write_metadata(run, state="finished", preset="later")
    (entry,) = registry.entries()
    assert (entry["state"], entry["metrics"]["val/loss"]) == ("finished", 0.25)


def test_scores_that_were_not_registered_are_seen_by_the_next_look(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, metrics={"val/loss": 0.5})
    registry = registry_of(tmp_path)
    registry.entries()
    write_evaluation(run, "val", {"val/loss": 0.25})
    assert registry.entries()[0]["metrics"]["val/loss"] == 0.25
    write_evaluation(run, "test", {"test/loss": 0.75})
    assert registry.entries()[0]["metrics"]["test/loss"] == 0.75


def test_an_entry_of_an_earlier_version_is_read_anew(tmp_path: Path) -> None:
    make_run(tmp_path, A)
    registry_of(tmp_path).entries()
    (entry,) = stored(tmp_path)
    page = entry.pop("page")
    (tmp_path / "registry.json").write_text(json.dumps({"format": 1, "left_out": [], "runs": [entry]}))
    assert registry_of(tmp_path).entries()[0]["page"] == page
    assert stored(tmp_path)[0]["page"] == page


def test_a_run_at_work_shows_its_hours_so_far(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, state="running")
    registry = registry_of(tmp_path)
    with FileLock(run / ".lock"):
        assert registry.entries()[0]["page"]["hours"] is None
        (run / "usage.json").write_text('{"seconds": 7200, "cost": 0, "priced_seconds": 0}')
        assert registry.entries()[0]["page"]["hours"] == 2


def test_a_run_whose_worker_is_gone_is_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, state="running")
    registry = registry_of(tmp_path)
    with FileLock(run / ".lock"):
        assert at_work(str(run))
        assert states(registry.entries()) == {A: "running"}
    assert not at_work(str(run))
    assert states(registry.entries()) == {A: "killed"}
    assert stored(tmp_path)[0]["state"] == "killed"
    with FileLock(run / ".lock"):  # the same command goes on
        assert states(registry.entries()) == {A: "running"}


def test_a_run_at_work_shows_its_best_validation_so_far(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, state="running")
    registry = registry_of(tmp_path)
    with FileLock(run / ".lock"):
        assert registry.entries()[0]["metrics"] == {}
        write_validations(run, 0.5, 0.3, 0.4, n=6)
        (entry,) = registry.entries()
    assert entry["metrics"] == {"best_val_metric": 0.3, "val/loss": 0.3, "val/other": 1.0}
    assert entry["selection"] == {"metric": "val/loss", "mode": "min", "value": 0.3, "step": 20, "n": 6, "of": 12}


def test_the_best_validation_is_the_highest_where_higher_is_better(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, state="failed", selection=("val/csi", "max"))
    write_validations(run, 0.5, 0.3, 0.4, metric="val/csi")
    assert registry_of(tmp_path).entries()[0]["metrics"]["best_val_metric"] == 0.5


def test_of_very_many_metrics_the_headlines_are_kept(tmp_path: Path) -> None:
    heads = {f"val/{score}_{dbz}": 0.1 for score in ("csi", "pod") for dbz in range(20, 50)}
    details = {f"{name}_lead_{lead}": 0.2 for name in heads for lead in (1, 2)}
    base = {name.replace("/", "/persistence_"): 0.3 for name in heads}
    losses = {"val/loss": 0.4, "val/loss_huber": 0.5}
    tested = {name.replace("val/", "test/"): value for name, value in {**heads, **details, **losses}.items()}
    run = make_run(
        tmp_path,
        A,
        metrics={**heads, **details, **base, **losses, **tested},
        selection=("val/csi_30_lead_2", "max"),
        config={"goals": {"val/pod_20_lead_1": ">0.1"}},
    )
    kept = registry_of(tmp_path).register(run)["metrics"]
    of_test = {"test/loss", "test/csi_30_lead_2", "test/pod_20_lead_1"}
    assert kept.keys() == {*heads, *losses, *of_test, "best_val_metric", "val/csi_30_lead_2", "val/pod_20_lead_1"}
    assert kept["best_val_metric"] == 0.2


def test_headlines_that_a_task_names_are_kept(tmp_path: Path) -> None:
    points = {f"val/L{number}_px_224": 0.1 for number in range(70)}
    shown = {"val/error_px_224": 0.2, "val/loss": 0.3, "val/loss_wing": 0.3, "val/L7_px_224": 0.1}
    goal = {"goals": {"val/L7_px_224": "<1"}}
    run = make_run(tmp_path, A, task="landmarks", metrics={**points, **shown}, config=goal)
    path = run / "evaluations/val/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "record": {"headlines": ["error_px_224"]}}))
    assert registry_of(tmp_path).register(run)["metrics"].keys() == {*shown, "best_val_metric"}


# --- places ---------------------------------------------------------------------------------------------------------


def test_everything_can_move_together(tmp_path: Path) -> None:
    make_run(tmp_path / "here", A)
    registry_of(tmp_path / "here").entries()
    (tmp_path / "here").rename(tmp_path / "there")
    (entry,) = registry_of(tmp_path / "there").entries()
    assert Path(entry["checkpoint_path"]) == tmp_path / "there" / "convlstm" / A / "best_model.pth"
    assert Path(entry["checkpoint_path"]).read_bytes() == b"weights"


def test_a_run_that_was_moved_elsewhere_is_gone_until_it_is_registered_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", A)
    registry = registry_of(tmp_path / "out")
    assert states(registry.entries()) == {A: "finished"}
    shutil.move(run, tmp_path / "archive" / "convlstm" / A)
    assert states(registry.entries()) == {A: "gone"}
    registry.register(tmp_path / "archive" / "convlstm" / A)
    (entry,) = registry.entries()
    assert (entry["state"], entry["folder"]) == ("finished", str(tmp_path / "archive" / "convlstm" / A))
    assert stored(tmp_path / "out")[0]["folder"] == f"../archive/convlstm/{A}"


def test_a_copy_of_a_run_is_not_taken_for_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, A, metrics={"val/loss": 0.5})
    registry = registry_of(tmp_path)
    registry.entries()
    shutil.copytree(run, tmp_path / "backup" / A)
    for _ in range(2):
        assert [entry["folder"] for entry in registry.entries()] == [str(run)]


def test_a_copy_does_not_take_the_place_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", A, metrics={"val/loss": 0.5})
    registry = registry_of(tmp_path / "out")
    registry.register(run)
    copy = Path(shutil.copytree(run, tmp_path / "backup" / A))
    before = (tmp_path / "out" / "registry.json").read_bytes()
    for text in (before, json.dumps(json.loads(before), indent=1).encode()):  # as written, and as others may write it
        (tmp_path / "out" / "registry.json").write_bytes(text)
        with pytest.raises(UsageError, match=f"a copy of {run}, which is the run on the list"):
            registry.register(copy)
        assert [entry["folder"] for entry in registry.entries()] == [str(run)]
    said: list[str] = []
    hook.register_run(copy, tmp_path / "out", said.append)
    assert len(said) == 1
    assert f"{copy}: a copy of {run}" in said[0]
    shutil.rmtree(run)
    assert registry.register(copy)["folder"] == str(copy)


def test_two_tasks_may_have_runs_of_one_name(tmp_path: Path) -> None:
    make_run(tmp_path, A)
    make_run(tmp_path, A, task="video")
    assert sorted(entry["task"] for entry in registry_of(tmp_path).entries()) == ["convlstm", "video"]


def test_links_on_the_way_do_not_matter(tmp_path: Path) -> None:
    make_run(tmp_path / "real", A)
    (tmp_path / "link").symlink_to("real")
    registry = Registry(tmp_path / "link" / "registry.json", tmp_path / "link")
    registry.register(tmp_path / "link" / "convlstm" / A)
    before = (tmp_path / "real" / "registry.json").stat().st_mtime_ns
    assert states(registry.entries()) == {A: "finished"}
    assert (tmp_path / "real" / "registry.json").stat().st_mtime_ns == before  # nothing was new


# --- damage ---------------------------------------------------------------------------------------------------------


def cut(text: str) -> str:
    return text[: len(text) - 40]


def of_another_version(text: str) -> str:
    return text.replace('"format": 1', '"format": 7')


def with_wrong_types(text: str) -> str:
    return text.replace('"metrics": {', '"metrics": [], "old": {', 1)


DAMAGES: list[tuple[Callable[[str], str], str]] = [
    (cut, "no valid JSON"),
    (of_another_version, "of format 7, this version reads format 1"),
    (with_wrong_types, "1 of 2 entries"),
    (lambda text: "[]\n", "expected an object"),
    (lambda text: "", "no valid JSON"),
    (lambda text: text.replace('"runs": [', '"runs": {}, "x": ['), "no list"),
    (lambda text: "[" * 100_000, "no valid JSON"),
    (lambda text: text.replace("0.5", "NaN"), "no valid JSON"),
    (lambda text: text.replace("0.5", "1e999"), "entries"),
    (lambda text: "\x00\x80", "no valid JSON"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_registry_is_set_aside_and_rebuilt(tmp_path: Path, damage: Callable[[str], str], reason: str) -> None:
    for run_id in (A, B):
        make_run(tmp_path, run_id, metrics={"val/loss": 0.5})
    registry_of(tmp_path).entries()
    file = tmp_path / "registry.json"
    damaged = damage(file.read_text()).encode("latin-1")
    file.write_bytes(damaged)
    said: list[str] = []
    assert states(registry_of(tmp_path, said).entries()) == {A: "finished", B: "finished"}
    (aside,) = tmp_path.glob("registry.damaged-*.json")
    assert aside.read_bytes() == damaged
    assert len(said) == 1
    assert reason in said[0]
    assert aside.name in said[0]
    assert {entry["run_id"] for entry in stored(tmp_path)} == {A, B}
    assert registry_of(tmp_path, said).entries()
    assert len(said) == 1


def test_what_only_a_damaged_registry_knew_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", A)
    registry_of(tmp_path / "out").register(run)
    registry_of(tmp_path / "out").register(make_run(tmp_path / "out", B))
    shutil.rmtree(run)
    file = tmp_path / "out" / "registry.json"
    file.write_text(cut(file.read_text()))
    assert states(registry_of(tmp_path / "out").entries()) == {B: "finished", A: "gone"}


def test_a_damaged_registry_of_somebody_else_is_told_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, A)
    (tmp_path / "registry.json").write_text("{")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    said: list[str] = []
    assert states(registry_of(tmp_path, said).entries()) == {A: "finished"}
    assert "cannot be set aside" in said[0]
    assert (tmp_path / "registry.json").read_text() == "{"


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda run: (run / "metadata.yaml").unlink(), "metadata.yaml is missing"),
        (lambda run: (run / "metadata.yaml").write_text("a: [1"), "metadata.yaml is not readable"),
        (lambda run: (run / "metadata.yaml").write_bytes(b"\x80\x00"), "metadata.yaml is not readable"),
        (lambda run: (run / "metadata.yaml").write_text("- a list\n"), "metadata.yaml is not readable"),
    ],
)
def test_a_run_without_sound_metadata_is_shown_as_damaged(
    tmp_path: Path, break_it: Callable[[Path], None], error: str
) -> None:
    break_it(make_run(tmp_path, A, metrics={"val/loss": 0.5}))
    for _ in range(2):
        (entry,) = registry_of(tmp_path).entries()
        assert (entry["run_id"], entry["task"], entry["state"], entry["error"]) == (A, "convlstm", "damaged", error)


def test_metadata_lost_after_registering_are_noticed(tmp_path: Path) -> None:
    run = make_run(tmp_path, A)
    registry_of(tmp_path).entries()
    (run / "metadata.yaml").unlink()
    assert states(registry_of(tmp_path).entries()) == {A: "damaged"}


@pytest.mark.parametrize("name", ["config.yaml", "evaluations/val/metrics.json", "metrics.jsonl"])
@pytest.mark.parametrize(
    "content", [b"", b"\x80\x00{", b"[1, 2]", b'{"selection": 3, "metrics": [1], "kind": "validation"}\n']
)
def test_other_damaged_records_cost_their_numbers_alone(tmp_path: Path, name: str, content: bytes) -> None:
    run = make_run(tmp_path, A, metrics={"val/loss": 0.5})
    (run / name).write_bytes(content)
    assert states(registry_of(tmp_path).entries()) == {A: "finished"}


def test_metadata_of_wrong_types_do_no_harm(tmp_path: Path) -> None:
    run = make_run(tmp_path, A)
    write_metadata(run, state="finished", versions=[1], git="x", dataset=None, data=3, run_name=4, usage=[], device=1)
    (entry,) = registry_of(tmp_path).entries()
    assert (entry["state"], entry["run_name"], entry["dataset_fingerprint"]) == ("finished", None, None)


def test_what_cannot_be_written_as_text_does_no_harm(tmp_path: Path) -> None:
    run = make_run(tmp_path, A)
    (run / "metadata.yaml").write_text('state: failed\nerror: "a\\ud800b"\nversions: {torch: "\\ud800"}\n')
    Path(os.fsdecode(os.fsencode(tmp_path / "convlstm") + b"/20261125_110000_\xff")).mkdir()
    (entry,) = registry_of(tmp_path).entries()
    assert (entry["state"], entry["error"]) == ("failed", "a?b")
    assert stored(tmp_path)[0]["metadata"]["pytorch_version"] == "?"


# --- rebuilding and leaving out -------------------------------------------------------------------------------------


def test_rebuilding_starts_from_the_folders(tmp_path: Path) -> None:
    run, elsewhere = make_run(tmp_path / "out", A), make_run(tmp_path / "other", C)
    make_run(tmp_path / "out", B)
    registry = registry_of(tmp_path / "out")
    registry.entries()
    registry.register(elsewhere)
    shutil.rmtree(run)
    assert registry.rebuild() == (2, [("convlstm", A)])
    assert states(registry.entries()) == {B: "finished", C: "finished"}


def test_what_is_registered_during_a_rebuilding_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, A)
    registry = registry_of(tmp_path)
    registry.entries()
    read = index.read_entry

    def meanwhile(folder: Path, base: Path) -> Entry:
        monkeypatch.setattr(index, "read_entry", read)
        registry_of(tmp_path).register(make_run(tmp_path, B))
        return read(folder, base)

    monkeypatch.setattr(index, "read_entry", meanwhile)
    registry.rebuild()
    assert {entry["run_id"] for entry in stored(tmp_path)} == {A, B}


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done after the next folder was read and before that is written."""
    read = index.read_entry

    def arrange(act: Callable[[], object]) -> None:
        def reading(folder: Path, base: Path) -> Entry:
            monkeypatch.setattr(index, "read_entry", read)
            entry = read(folder, base)
            act()
            return entry

        monkeypatch.setattr(index, "read_entry", reading)

    return arrange


Between = Callable[[Callable[[], object]], None]


def test_a_look_does_not_undo_what_was_written_meanwhile(tmp_path: Path, between: Between) -> None:
    run = make_run(tmp_path, A, metrics={"val/loss": 0.5})
    make_run(tmp_path, B)
    registry_of(tmp_path).entries()

    def score() -> None:
        write_evaluation(run, "val", {"val/loss": 0.25})
        registry_of(tmp_path).register(run)

    os.utime(run / "metadata.yaml")
    between(score)
    registry_of(tmp_path).entries()
    assert {entry["metrics"].get("val/loss") for entry in stored(tmp_path) if entry["run_id"] == A} == {0.25}


def test_a_look_does_not_bring_back_what_was_left_out_meanwhile(tmp_path: Path, between: Between) -> None:
    run = make_run(tmp_path, A)
    registry_of(tmp_path).entries()
    os.utime(run / "metadata.yaml")
    between(lambda: registry_of(tmp_path).file.remove([("convlstm", A)], leave_out=True))
    registry_of(tmp_path).entries()
    assert registry_of(tmp_path).entries() == []


@pytest.mark.parametrize("leave_out", [True, False])
def test_a_rebuilding_does_not_bring_back_what_was_removed_meanwhile(
    tmp_path: Path, between: Between, leave_out: bool
) -> None:
    make_run(tmp_path, A)
    make_run(tmp_path, B)
    registry_of(tmp_path).entries()
    between(lambda: registry_of(tmp_path).file.remove([("convlstm", A)], leave_out=leave_out))
    registry_of(tmp_path).rebuild()
    assert [entry["run_id"] for entry in stored(tmp_path)] == [B]
    assert [entry["run_id"] for entry in registry_of(tmp_path).entries()] == ([B] if leave_out else [B, A])


def test_a_run_that_was_left_out_stays_out_until_it_is_worked_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, A)
    registry = registry_of(tmp_path)
    registry.entries()
    registry.file.remove([("convlstm", A)], leave_out=True)
    assert registry.entries() == []
    registry.register(make_run(tmp_path, B))
    assert states(registry.entries()) == {B: "finished"}
    registry.register(run)
    assert states(registry.entries()) == {A: "finished", B: "finished"}


def test_a_folder_that_cannot_be_written_is_listed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, A)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert states(registry_of(tmp_path).entries()) == {A: "finished"}
    assert not os.path.lexists(tmp_path / "registry.json")
