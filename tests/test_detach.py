"""`--detach`: the command goes on in a session of its own, and what is printed follows and stops it."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from backend.errors import DiskError, UsageError
from training.cli import main
from training.commands import detach as module
from training.commands.detach import detach

SLOW = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(75)))
print(sys.argv[1:], os.getsid(0) == os.getpid(), sys.stdin.read() == "", flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the worker's place, looked at for half a second."""
    path = tmp_path / "worker.py"
    monkeypatch.setattr(module, "_ENTRY", path)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.5)
    return path


def wait_for(path: Path, words: str) -> None:
    until = time.monotonic() + 20
    while words not in path.read_text():
        assert time.monotonic() < until, path.read_text()
        time.sleep(0.05)


def test_it_goes_on_and_can_be_followed_and_stopped(
    worker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker.write_text(SLOW)
    words = ["train", "--detach", "--run-name", "a b", "--sync-to", "s3://me:secret@host/x"]
    assert detach(words, tmp_path / "new out") == 0
    out = capsys.readouterr().out
    assert "started in the background: train --run-name 'a b'" in out
    assert "secret" not in out
    (log,) = (tmp_path / "new out/logs").iterdir()
    assert f"tail -f '{log}'" in out
    assert log.name.endswith("_train.log")
    pid = int(re.findall(r"kill (\d+)", out)[0])
    try:
        wait_for(log, "\n")
        assert log.read_text() == f"{[word for word in words if word != '--detach']} True True\n"
        os.kill(pid, signal.SIGTERM)
        wait_for(log, "saved")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("code", [0, 65])
def test_what_ends_at_once_is_told_at_once(
    code: int, worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 30)
    worker.write_text(f"import sys; print('said'); sys.exit({code})")
    assert detach(["--detach"], tmp_path) == code
    said = capsys.readouterr()
    assert (said.err if code else said.out) == "said\n"


@pytest.mark.parametrize("command", [["train", "--task", "landmarks"], ["sweep", "a", "b"]])
def test_the_commands_hand_their_own_line_on(
    command: list[str],
    worker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 30)
    worker.write_text("import sys; print(*sys.argv[1:])")
    words = [*command, "--output", str(tmp_path)]
    assert main([*words, "--detach"]) == 0
    assert capsys.readouterr().out.split() == words


def test_not_where_it_would_end_with_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(UsageError, match="docker run -d"):
        detach(["train", "--detach"], tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("TRAIN_WORKER_IMAGE", "1")  # below tini
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(UsageError, match="docker run -d"):
        detach(["train", "--detach"], tmp_path)
    assert not (tmp_path / "logs").exists()


def test_a_place_that_cannot_be_written_is_told(worker: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="choose another --output"):
        detach(["train", "--detach"], tmp_path / "file" / "out")
