"""The worker's sign of life, and the health check that looks for it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

import pytest

from backend.errors import InterruptedRunError
from tests.runs import register_tiny, train
from training import heartbeat
from training.engine.interruption import StopRequest

SCRIPT = Path(__file__).resolve().parent.parent / "docker" / "healthcheck.py"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The heartbeat file that this test's process writes; the next beat is not held back by an earlier one."""
    path = tmp_path / "heartbeat"
    monkeypatch.setenv(heartbeat.VARIABLE, str(path))
    monkeypatch.setattr(heartbeat, "_next_beat", 0.0)
    return path


@pytest.fixture(scope="module")
def healthcheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def age(file: Path, minutes: float) -> None:
    then = time.time() - 60 * minutes
    os.utime(file, (then, then))


def test_a_beat_names_the_process_and_leaves_nothing_else(file: Path) -> None:
    heartbeat.beat()
    assert file.read_text() == f"{os.getpid()}\n"
    assert list(file.parent.iterdir()) == [file]


def test_at_most_one_beat_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    written = []
    monkeypatch.setattr(heartbeat, "_write", lambda path: written.append(now[0]))
    for now[0] in (100.0, 100.5, 100.9, 101.0, 101.1, 150.0):
        heartbeat.beat()
    assert written == [100.0, 101.0, 150.0]


def test_a_beat_that_cannot_be_written_costs_nothing(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv(heartbeat.VARIABLE, str(file / "no" / "such" / "folder"))
    heartbeat.beat()


def test_nothing_is_written_where_nobody_asks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(heartbeat.VARIABLE)
    heartbeat.beat()
    assert not file.exists()


def test_a_poll_is_a_sign_of_life_and_waiting_is_none() -> None:
    beats: list[int] = []
    stop = StopRequest(lambda: beats.append(1))
    stop.check_waiting()
    assert beats == []
    stop.check()
    assert not stop.requested
    assert len(beats) == 2
    stop.signal_name = "SIGTERM"
    for check in (stop.check, stop.check_waiting):
        with pytest.raises(InterruptedRunError, match="SIGTERM"):
            check()


STAGES = {"prepare", "_accumulate", "_validate", "evaluate_split", "_draw_and_report"}  # functions at work in each


def test_a_training_beats_in_every_stage(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here every call is let through, not one a second."""
    beating: set[str] = set()

    def note(path: Path) -> None:
        beating.update(frame.name for frame in traceback.extract_stack())
        monkeypatch.setattr(heartbeat, "_next_beat", 0.0)

    monkeypatch.setattr(heartbeat, "_write", note)
    register_tiny(monkeypatch)
    assert train(tmp_path, "tiny", sets=("training.micro_batch_size=1", "training.epochs=1")) == 0
    assert not STAGES - beating


@pytest.mark.parametrize(
    ("minutes", "worker", "code"),
    [(0, os.getpid(), 0), (9, os.getpid(), 0), (11, os.getpid(), 1), (11, 2**30, 0), (11, "half a lin", 0)],
    ids=["just now", "a while ago", "too long ago", "by one that is gone", "unreadable"],
)
def test_the_health_check(
    file: Path, healthcheck: ModuleType, capsys: pytest.CaptureFixture[str], minutes: float, worker: object, code: int
) -> None:
    file.write_text(f"{worker}\n")
    age(file, minutes)
    assert healthcheck.main({heartbeat.VARIABLE: str(file)}) == code
    assert ("no progress for 11.0 minutes, expected some every 10" in capsys.readouterr().out) is bool(code)


def test_the_health_check_takes_another_limit_and_no_file_is_no_trouble(file: Path, healthcheck: ModuleType) -> None:
    environ = {heartbeat.VARIABLE: str(file), "TRAIN_WORKER_STALL_MINUTES": "30"}
    assert healthcheck.main(environ) == 0
    file.write_text(f"{os.getpid()}\n")
    age(file, 29)
    assert healthcheck.main(environ) == 0
    age(file, 31)
    assert healthcheck.main(environ) == 1


def test_the_health_check_needs_nothing_installed(file: Path) -> None:
    heartbeat.beat()
    age(file, 11)
    command = [sys.executable, "-IS", str(SCRIPT)]
    done = subprocess.run(command, env={heartbeat.VARIABLE: str(file)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
