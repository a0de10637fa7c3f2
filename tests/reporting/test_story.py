"""What happened to a run and what it cost, in a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reporting.made_run import CONFIG, EVENTS, write_lines
from training.reporting.model_card import write_model_card
from training.reporting.report import write_report
from training.reporting.report_parts import differences, heading, settings
from training.reporting.report_story import by_start, speed, step_seconds, story, used
from training.reporting.run_folder import RunFolder
from training.yaml_core import read_yaml, write_yaml


@pytest.fixture
def run(finished: Path) -> Path:
    return finished


def test_lost_work_is_told_in_steps_and_seconds(run: Path) -> None:
    found = story(RunFolder(run))
    assert (found["interruptions"], found["redone"], found["redoing"]) == (2, 15, "3 s")  # 15 steps of 4 / 21 s
    assert found["starting"] == "6 s"
    assert [session["step"] for session in found["sessions"]] == [0, 80, 130]


def test_the_last_logged_line_is_a_killed_process_last_sign_of_life(run: Path) -> None:
    lines = [{"kind": "train", "step": 80, "time": "2026-11-21T09:03:50Z"}]
    lines += [{"kind": "train", "step": 130, "time": "2026-11-21T09:06:30Z"}]
    write_lines(run / "metrics.jsonl", lines)
    sessions = story(RunFolder(run))["sessions"]
    assert sessions[0]["to"] == "2026-11-21 09:03:50 UTC"
    assert sessions[1]["to"] == "2026-11-21 09:07:00 UTC"  # it said that it stopped
    assert story(RunFolder(run))["still"] == "2 min 30 s"


def test_what_is_done_to_a_finished_run_is_no_work_on_it(run: Path) -> None:
    before = story(RunFolder(run)), [len(events) for events in by_start(RunFolder(run))]
    later = {"time": "2027-01-01T00:00:00Z", "event": "evaluated", "split": "test", "looks": 3}
    write_lines(run / "events.jsonl", [*EVENTS, later])
    assert (story(RunFolder(run)), [len(events) for events in by_start(RunFolder(run))]) == before


def test_an_extended_run_that_was_killed_is_not_finished(run: Path) -> None:
    path = run / "metadata.yaml"
    write_yaml(path, read_yaml(path) | {"state": "running"})
    write_lines(run / "events.jsonl", EVENTS[:-1])  # as the report finds it that the training itself makes
    assert heading(RunFolder(run))["state"] == "finished"
    assert story(RunFolder(run))["sessions"][-1]["ended"] == "reached this report"
    again = [
        {"time": "2026-11-21T10:00:00Z", "event": "started"},
        {"time": "2026-11-21T10:00:01Z", "event": "extended"},
    ]
    write_lines(run / "events.jsonl", [*EVENTS, *again, {"time": "2026-11-21T11:00:00Z", "event": "verified"}])
    assert heading(RunFolder(run))["state"] == "running"
    assert story(RunFolder(run))["sessions"][-1]["ended"] == "at work, or killed without a word"
    assert write_model_card(run) is None
    assert "This run is not finished." in write_report(run).read_text("utf-8")


def test_hours_and_cost_come_from_the_meter_then_the_metadata_then_the_events(run: Path) -> None:
    assert used(RunFolder(run)) == {"kind": "CPU", "hours": 0.2, "worked": "12 min 00 s", "cost": 0.08}
    (run / "usage.json").write_text('{"seconds": ')
    path = run / "metadata.yaml"
    content = read_yaml(path)
    write_yaml(path, content | {"usage": {"hours": 1.5, "cost": None}, "device": {"kind": "cuda", "name": "A card"}})
    assert used(RunFolder(run)) == {"kind": "GPU", "hours": 1.5, "worked": "1 h 30 min", "cost": None}
    write_yaml(path, content)
    hours = used(RunFolder(run))["hours"]
    assert hours is not None
    assert 0.13 < hours < 0.24  # three processes within a quarter of an hour


def test_throughput_and_waiting(run: Path) -> None:
    found = speed(RunFolder(run))
    assert found is not None
    assert found["items_per_second"] == pytest.approx(21, abs=0.3)
    assert found["data_wait"] == pytest.approx(0.012)
    assert found["step"] == step_seconds(RunFolder(run)) == pytest.approx(4 / found["items_per_second"])
    (run / "metrics.jsonl").unlink()
    (run / "events.jsonl").unlink()
    assert speed(RunFolder(run)) is None


def test_differences_from_the_preset_are_shown(run: Path) -> None:
    found = differences(RunFolder(run))
    assert found is not None
    assert found["preset"] == "sample"
    assert found["keys"][0] == ("training.seed", "42", "7")
    assert found["keys"][1][1:] == ("{}", json.dumps(CONFIG["goals"]))
    (run / "metadata.yaml").unlink()
    assert differences(RunFolder(run)) is None


def test_no_password_is_shown(run: Path) -> None:
    config = read_yaml(run / "config.yaml")
    config["data"]["manifest"] = "https://me:secret@example.org/set.yaml?token=secret"
    write_yaml(run / "config.yaml", config)
    shown = json.dumps(settings(RunFolder(run)))
    assert "https://example.org/set.yaml" in shown
    assert "secret" not in shown
