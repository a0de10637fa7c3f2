"""Hours and money of a run over all its starts, and how a run ends when they are spent."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from backend.artifact import checkpoints, sha256_of
from backend.errors import BUDGET_SPENT, CONFIG, BudgetSpentError, ConfigError
from tests.runs import register_tiny, run_of, train
from training.engine.interruption import StopReason, StopRequest
from training.engine.step import Stepper
from training.files import read_json_lines
from training.rented import budget as budget_module
from training.rented.budget import Budget, Meter, Usage, seconds_at_work
from training.runs.run import Run, create_run
from training.yaml_core import read_yaml


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def test_a_price_holds_from_when_it_is_known() -> None:
    used = Usage().plus(3600, None)
    assert (used.seconds, used.cost) == (3600, 0)
    used = used.plus(3600, 0.5)  # the hour before is counted at the price that is known now
    assert used == Usage(7200, 7200, 1.0)
    assert used.plus(1800, 2.0) == Usage(9000, 9000, 2.0)
    assert used.plus(1800, None) == Usage(9000, 7200, 1.0)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(max_hours=0), "--max-hours 0"),
        (Budget(max_cost=-1, price_per_hour=1), "--max-cost -1"),
        (Budget(max_hours=float("nan")), "--max-hours nan"),
        (Budget(price_per_hour=-0.1), "--price-per-hour -0.1"),
        (Budget(max_cost=3), "give --price-per-hour, or set VAST_DPH"),
        (Budget(max_cost=3, price_per_hour=0), "--max-cost needs the machine's price"),
    ],
)
def test_limits_that_cannot_be_kept(budget: Budget, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        budget.check()


def test_what_is_spent_is_said() -> None:
    hours = Budget(max_hours=2).spent(Usage(7200))
    assert hours is not None
    assert "2 of 2 hours are used" in hours.what
    assert "larger --max-hours" in hours.then
    money = Budget(max_cost=1.5, price_per_hour=0.5).spent(Usage(0, 0, 1.6))
    assert money is not None
    assert "1.6 of 1.5 are spent" in money.what
    assert Budget(max_hours=2, max_cost=2).spent(Usage(7199, 7199, 1.99)) is None
    assert Budget(max_hours=2, max_cost=1, price_per_hour=0.5).seconds_left(Usage(3600, 3600, 0.75)) == 1800


def event(name: str, minute: int) -> dict[str, str]:
    return {"event": name, "time": f"2026-11-21T09:{minute:02d}:00Z"}


def test_events_tell_the_time_at_work_without_the_time_between() -> None:
    killed = [event("started", 0), event("checkpoint", 5)]
    assert seconds_at_work(killed) == 300
    stopped = [*killed, event("started", 20), event("stage", 21), event("interrupted", 23)]
    assert seconds_at_work(stopped) == 300 + 180
    done = [*stopped, event("started", 30), event("finished", 40), event("evaluated", 55), event("evaluated", 58)]
    assert seconds_at_work(done) == 300 + 180 + 600
    assert seconds_at_work([]) == 0


@pytest.mark.parametrize("later", ["verified", "evaluated", "imported"])
def test_what_is_done_to_a_killed_run_later_is_no_work(later: str) -> None:
    killed = [event("started", 0), event("stage", 1), event("checkpoint", 2)]
    assert seconds_at_work([*killed, event(later, 50)]) == 120
    assert seconds_at_work([event(later, 0), *killed, event(later, 30), event(later, 50)]) == 120
    again = [event("started", 52), event("finished", 55), event("published", 56)]  # a hand that repaired it
    assert seconds_at_work([*killed, event(later, 50), *again, event(later, 59)]) == 120 + 180


def new_run(tmp_path: Path) -> Run:
    return create_run(tmp_path, "tiny", "x", "", {"task": "tiny"})


def counted_on(run: Run, elsewhere: dict[str, Any]) -> float:
    with StopRequest() as stop, run.locked():
        meter = Meter(Budget(price_per_hour=1.0), stop)
        meter.begin(run, elsewhere)
        meter.end()
    return float(json.loads(run.path("usage.json").read_text())["seconds"])


def test_counting_goes_on_from_the_last_sign_of_life_anywhere(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert 0 <= counted_on(run, {}) < 100
    assert counted_on(run, {"seconds": 500.0, "priced_seconds": 500.0, "cost": 1.0}) >= 500  # another machine's word
    assert counted_on(run, {"seconds": 400.0, "priced_seconds": 0.0, "cost": 0.0}) >= 500
    assert counted_on(run, {"seconds": "damaged"}) >= 500
    run.path("usage.json").write_text("{")  # torn by a power failure: the events tell
    with run.path("events.jsonl").open("a") as events:
        events.writelines(json.dumps(line) + "\n" for line in (event("started", 0), event("checkpoint", 50)))
    assert 3000 <= counted_on(run, {}) < 3100
    assert run.metadata["usage"]["hours"] == pytest.approx(3000 / 3600, abs=0.03)
    assert run.metadata["usage"]["cost"] == pytest.approx(3000 / 3600, abs=0.03)


def test_events_count_only_where_the_note_is_older(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    lines = [event("started", 0), event("checkpoint", 50), event("verified", 59)]
    run.path("events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    note = {"seconds": 60.0, "priced_seconds": 0.0, "cost": 0.0}
    run.write_json("usage.json", {**note, "time": event("x", 50)["time"]})
    assert 60 <= counted_on(run, {}) < 100  # the clock of the machine jumped, say: the worker's own note holds
    run.write_json("usage.json", {**note, "time": event("x", 49)["time"]})
    assert 3000 <= counted_on(run, {}) < 3100


def test_the_first_reason_to_stop_holds() -> None:
    stop = StopRequest()
    assert not stop.requested
    stop.ask(StopReason("budget spent: 1 of 1 hours are used", "do this", BudgetSpentError))
    stop.ask(StopReason("another"))
    stop.signal_name = "SIGTERM"
    assert stop.requested
    with pytest.raises(BudgetSpentError, match=r"^budget spent: 1 of 1 hours are used; do this$"):
        stop.check()
    assert "used at step 3, which is saved; do this" in str(stop.error(" at step 3, which is saved"))


def spend_at_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten hours seem to be used once so many steps were begun, and the next poll finds it noticed."""
    take, usage, steps = Stepper.take, Meter.usage, []
    meters: list[Meter] = []

    def known(meter: Meter) -> Usage:
        meters.append(meter)
        used = usage(meter)
        return used.plus(36000, meter.budget.price_per_hour) if len(steps) >= number else used

    def counted(stepper: Stepper, *arguments: Any) -> Any:
        steps.append(1)
        while len(steps) == number and not meters[0]._stop.requested:
            time.sleep(0.001)
        return take(stepper, *arguments)

    monkeypatch.setattr(budget_module, "_NOTE_SECONDS", 0.001)
    monkeypatch.setattr(Meter, "usage", known)
    monkeypatch.setattr(Stepper, "take", counted)


@pytest.mark.parametrize("limit", ["--max-hours", "--max-cost"])
def test_spent_in_the_middle_of_training(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--price-per-hour", "0.5") if limit == "--max-cost" else ()
    with pytest.MonkeyPatch.context() as patch:
        spend_at_step(7, patch)
        assert train(tmp_path, "tiny", limit, "5", *words) == BUDGET_SPENT
    err = capsys.readouterr().err
    assert err.startswith("budget spent: ")
    assert "of 5" in err
    assert "at step 7, which is saved; run the same command with a larger " + limit in err
    assert err.count("\n") == 1
    run = run_of(tmp_path, "tiny")
    assert checkpoints(run / "checkpoints")[-1].name == "step-00000007"
    metadata = read_yaml(run / "metadata.yaml")
    assert metadata["state"] == "interrupted"
    assert metadata["usage"][limit.removeprefix("--").replace("-", "_")] == 5
    run_file = run / "usage.json"
    spent = {"seconds": 36001.0, "priced_seconds": 36001.0, "cost": 5.1, "time": "2026-11-21T09:00:00Z"}
    run_file.write_text(json.dumps(spent))  # as it stood when it was noted in those ten hours

    before = {path: path.stat().st_mtime_ns for path in run.rglob("step-*/*")}
    starts = len([line for line in read_json_lines(run / "events.jsonl") if line["event"] == "started"])
    assert train(tmp_path, "tiny", limit, "5", *words) == BUDGET_SPENT  # nothing is left: not even prepared
    assert "run the same command with a larger" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("step-*/*")} == before
    assert len([line for line in read_json_lines(run / "events.jsonl") if line["event"] == "started"]) == starts

    assert train(tmp_path, "tiny", limit, "500", *words) == 0
    assert run_of(tmp_path, "tiny") == run
    assert read_yaml(run / "metadata.yaml")["usage"]["hours"] > 10
    assert train(tmp_path / "whole", "tiny") == 0
    mine, whole = (checkpoints(one / "checkpoints")[-1] for one in (run, run_of(tmp_path / "whole", "tiny")))
    assert sha256_of(mine / "model.safetensors") == sha256_of(whole / "model.safetensors")


def test_spent_while_preparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "tiny", "--max-hours", "1e-9") == BUDGET_SPENT
    assert "budget spent" in capsys.readouterr().err
    run = run_of(tmp_path, "tiny")
    assert not list(run.glob("checkpoints/step-*"))
    assert train(tmp_path, "tiny", "--max-hours", "1") == 0
    assert run_of(tmp_path, "tiny") == run


def test_what_was_used_is_said_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VAST_DPH", "0.25")
    monkeypatch.setenv("TRAIN_WORKER_MAX_COST", "7")
    assert train(tmp_path, "tiny") == 0
    out = capsys.readouterr().out
    assert "at 0.25 an hour; budget 7" in out
    usage = read_yaml(run_of(tmp_path, "tiny") / "metadata.yaml")["usage"]
    assert usage.keys() == {"hours", "cost", "max_hours", "max_cost", "price_per_hour"}
    assert usage["cost"] == pytest.approx(usage["hours"] * 0.25, abs=1e-3)


def test_a_budget_that_cannot_be_kept_ends_before_anything_is_done(tmp_path: Path) -> None:
    assert train(tmp_path, "tiny", "--max-cost", "3") == CONFIG
    assert not (tmp_path / "out").exists()
