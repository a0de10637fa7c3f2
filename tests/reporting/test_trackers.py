"""What is brought to a tracker: every point once, whatever ended in between, and no secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from backend.errors import ConfigError, UsageError
from training.reporting.trackers import choice, delivery
from training.reporting.trackers.choice import asked_for, check_tracker, make_tracker
from training.reporting.trackers.delivery import NOTE, Delivery, outcome_of, subject_of
from training.reporting.trackers.tracker import Outcome, Subject, Tracker, shown
from training.schemas.shared import RunConfig, TrackingSection
from training.yaml_core import write_yaml


class Died(Exception):
    """The process ends here."""


class Memory(Tracker):
    """Keeps what it is told; may end the process before or after it does."""

    name = "memory"
    drops_doubles = False

    def __init__(self, points: list[tuple[str, int]], where: str = "memory") -> None:
        self.points, self.where = points, where
        self.dies_at: int | None = None
        self.asked = False  # whether it can say what it has
        self.known: list[str | None] = []
        self.outcome: Outcome | None = None
        self.id: str | None = None  # by default the subject's token

    @property
    def place(self) -> str:
        return self.where

    def open(self, subject: Subject, known_id: str | None) -> str:
        self.known.append(known_id)
        return self.id or subject.token

    def reached(self) -> Mapping[str, int]:
        if not self.asked:
            return {}
        return {
            kind: max((step for k, step in self.points if k == kind), default=-1) for kind in ("train", "validation")
        }

    def log(self, records: Sequence[Mapping[str, Any]]) -> None:
        for record in records:
            if record["step"] == self.dies_at:
                raise Died
            self.points.append((record["kind"], record["step"]))

    def finish(self, outcome: Outcome) -> str:
        self.outcome = outcome
        return "there"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "tiny" / "20261125_140000_run"
    folder.mkdir(parents=True)
    write_yaml(
        folder / "metadata.yaml",
        {
            "run_id": folder.name,
            "task": "tiny",
            "token": "0123456789ab",
            "config_hash": "c" * 64,
            "command": "train --sync-to s3://key:secret@bucket/runs",
            "dataset": {"name": "storms", "fingerprint": "f" * 32, "is_sample": False},
        },
    )
    write_yaml(
        folder / "config.yaml",
        {
            "task": "tiny",
            "data": {"cache_dir": "ftp://u:p@h/x"},
            "training": {"epochs": 3},
            "tracking": {"project": "p"},
        },
    )
    return folder


def log(run: Path, first: int, last: int, every: int = 5) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            file.write(json.dumps({"kind": "train", "step": step, "loss": 1.0, "time": "2026-11-25T14:00:00Z"}) + "\n")
            if step % every == 0:
                file.write(json.dumps({"kind": "validation", "step": step, "metrics": {}, "time": "x"}) + "\n")


def wanted(last: int, every: int = 5) -> list[tuple[str, int]]:
    trained = [("train", step) for step in range(1, last + 1)]
    return sorted([*trained, *(("validation", step) for step in range(every, last + 1, every))])


def begun(run: Path, tracker: Tracker) -> Delivery:
    made = Delivery(run, tracker)
    made.begin()
    return made


def test_what_comes_in_while_it_follows_is_brought_once(run: Path) -> None:
    tracker = Memory([])
    follower = begun(run, tracker)
    assert not follower.round()
    log(run, 1, 7)
    assert follower.round()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 8')  # torn: not written whole yet
    assert not follower.round()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(', "loss": 1}\nnoise\n[1]\n{"kind": "other", "step": 9}\n')
    assert follower.round()
    assert not follower.round()
    assert sorted(tracker.points) == wanted(8)
    assert follower.finish("finished") == "there"


def test_steps_done_again_after_a_resume_are_not_brought_again(run: Path) -> None:
    points: list[tuple[str, int]] = []
    log(run, 1, 12)
    first = begun(run, Memory(points))
    first.round()
    first.close()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 10))
    log(run, 11, 16)
    tracker = Memory(points)
    begun(run, tracker).finish("finished")
    assert tracker.known == ["0123456789ab"]
    assert sorted(points) == wanted(16)


@pytest.mark.parametrize("drops_doubles", [False, True])
def test_killed_between_telling_and_noting_no_point_is_there_twice(
    run: Path, drops_doubles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_MOST_RECORDS", 3)
    points: list[tuple[str, int]] = []
    log(run, 1, 12)
    tracker = Memory(points)
    tracker.drops_doubles, tracker.dies_at = drops_doubles, 9  # type: ignore[misc]
    dying = begun(run, tracker)
    with pytest.raises(Died):
        while dying.round():
            pass
    dying.close()  # as the lock of a dead process is
    again = Memory(points)
    again.drops_doubles, again.asked = drops_doubles, drops_doubles  # type: ignore[misc]
    begun(run, again).finish("finished")
    assert len(points) == len(set(points))
    lost = set(wanted(12)) - set(points)
    assert lost == set() if drops_doubles else len(lost) <= 3


def test_a_tracker_that_has_more_than_was_noted_is_believed(run: Path) -> None:
    points = [("train", step) for step in range(1, 8)]
    log(run, 1, 9)
    tracker = Memory(points)
    tracker.asked = True
    begun(run, tracker).finish("finished")
    assert sorted(points) == wanted(9)


def test_another_place_gets_everything(run: Path) -> None:
    log(run, 1, 6)
    for where in ("memory", "elsewhere"):
        points: list[tuple[str, int]] = []
        tracker = Memory(points, where)
        begun(run, tracker).finish("finished")
        assert sorted(points) == wanted(6)
        assert tracker.known == [None]
    assert json.loads((run / NOTE).read_text())["memory"]["place"] == "elsewhere"


def test_a_run_that_was_deleted_there_is_brought_as_a_whole(run: Path) -> None:
    log(run, 1, 6)
    begun(run, Memory([])).finish("finished")
    anew = Memory([])
    anew.id = "another"
    begun(run, anew).finish("finished")
    assert sorted(anew.points) == wanted(6)
    assert json.loads((run / NOTE).read_text())["memory"]["id"] == "another"
    again = Memory([])
    again.id = "another"
    begun(run, again).finish("finished")
    assert (again.known, again.points) == (["another"], [])


def test_two_processes_do_not_bring_the_same_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_LOCK_SECONDS", 0.0)
    first = begun(run, Memory([]))
    with pytest.raises(Timeout):
        begun(run, Memory([]))
    first.close()
    begun(run, Memory([])).close()


def test_what_is_told_of_a_run_holds_no_secrets(run: Path) -> None:
    subject = subject_of(run)
    assert (subject.name, subject.project, subject.token) == (run.name, "p", "0123456789ab")
    assert subject.settings == {
        "task": "tiny",
        "data.cache_dir": "ftp://h/x",
        "training.epochs": 3,
        "tracking.project": "p",
    }
    assert subject.tags["command"] == "train --sync-to s3://bucket/runs"
    assert subject.tags["dataset"] == "storms"


def test_errors_are_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k3y")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pa55")
    told = shown(RuntimeError("no https://user:pa55@host/x?token=1\n with k3y or pa55"))
    assert told == "no https://host/x with … or …"


def test_scores_of_the_best_checkpoint_come_last(run: Path) -> None:
    for split in ("val", "test"):
        (run / "evaluations" / split).mkdir(parents=True)
        content = {"metrics": {f"{split}/mae": 0.5}, "checkpoint": "step-00000012", "time": "2026-11-25T14:00:00Z"}
        (run / "evaluations" / split / "metrics.json").write_text(json.dumps(content))
    (run / "report.html").write_text("x")
    outcome = outcome_of(run, "finished")
    assert outcome.metrics == {"best/val/mae": 0.5, "test/mae": 0.5}
    assert (outcome.step, [path.name for path in outcome.files]) == (12, ["config.yaml", "report.html"])


# --- the choice -------------------------------------------------------------------------------------------------------


def test_trackers_are_off_unless_asked_for() -> None:
    assert asked_for(RunConfig(task="t")) == []
    assert asked_for(RunConfig(task="t", tracking=TrackingSection(mlflow=True, wandb="offline"))) == ["mlflow", "wandb"]


def test_a_missing_package_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        check_tracker("mlflow", "off", {})
    assert str(caught.value) == (
        "mlflow needs mlflow, sqlalchemy, alembic, which are not installed here; run `python -m pip install "
        "--require-hashes -r training/requirements.trackers.txt`, or leave it out with --set tracking.mlflow=false"
    )


def test_wandb_online_needs_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    file = tmp_path / "netrc"
    with pytest.raises(ConfigError, match="set WANDB_API_KEY"):
        check_tracker("wandb", "online", {"NETRC": str(file)})
    check_tracker("wandb", "offline", {"NETRC": str(file)})
    check_tracker("wandb", "online", {"NETRC": str(file), "WANDB_API_KEY": "k"})
    file.write_text("machine api.wandb.ai login user password k\n")
    check_tracker("wandb", "online", {"NETRC": str(file)})


def test_an_unknown_tracker_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected mlflow or wandb"):
        make_tracker("aim", tmp_path)
