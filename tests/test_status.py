"""`status.json`: what the worker does, in every stage; gone when nobody is at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import register_tiny, run_of, train
from training.files import read_json
from training.runs import status
from training.runs.status import FILE, Status


def test_every_stage_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    write = Status.write

    def note(self: Status, facts: dict) -> bool:
        self._next = 0.0  # as if a second had passed
        written = write(self, facts)
        told.append(read_json(self._folder / FILE)["stage"])
        return written

    monkeypatch.setattr(Status, "write", note)
    register_tiny(monkeypatch)
    assert train(tmp_path, "tiny", sets=("training.epochs=1",)) == 0
    assert {"reading", "training", "validation", "evaluating val", "evaluating test"} <= set(told)
    assert not (run_of(tmp_path, "tiny") / FILE).exists()


def test_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    kept = Status(tmp_path)
    for now[0], stage in ((100.0, "a"), (100.9, "b")):
        kept.write({"stage": stage})
        assert read_json(tmp_path / FILE)["stage"] == "a"
    now[0] = 101.0
    kept.write({"stage": "c"})
    assert read_json(tmp_path / FILE)["stage"] == "c"


def test_a_status_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    Status(tmp_path / "gone").write({"stage": "training"})
    Status(tmp_path / "gone").clear()


def test_a_number_that_json_does_not_have_is_no_reason_to_fail(tmp_path: Path) -> None:
    kept = Status(tmp_path)
    assert kept.write({"stage": "training", "loss": float("nan")})
    assert not (tmp_path / FILE).exists()
    kept._next = 0.0
    assert kept.write({"stage": "training", "loss": 0.5})
    assert read_json(tmp_path / FILE)["loss"] == 0.5
