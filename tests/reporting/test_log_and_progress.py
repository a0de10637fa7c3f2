"""Lines for people, the bar, and that neither ever stops a training."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from training.reporting import gpu
from training.reporting import progress as progress_module
from training.reporting.gpu import GpuMeter, GpuUse
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.reporting.units import duration, percent, significant

ROOT = Path(__file__).parents[2]


def console(terminal: bool = False, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, markup=False, highlight=False)


def shown(log: RunLog) -> str:
    stream = log.console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_goes_to_the_terminal_and_with_its_time_to_the_file(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "train.log", console())
    log.say("epoch 1 [bold]of[/bold] 5: loss 0.1")
    log.note("only in the file")
    assert shown(log) == "epoch 1 [bold]of[/bold] 5: loss 0.1\n"
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  epoch 1 \[bold\]of\[/bold\] 5: loss 0\.1", lines[0])
    assert lines[1].endswith("Z  only in the file")


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for word in ("first", "second"):
        RunLog(tmp_path / "train.log", console()).say(word)
    assert [line.split()[1] for line in (tmp_path / "train.log").read_text().splitlines()] == ["first", "second"]


def test_several_lines_stay_aligned(tmp_path: Path) -> None:
    RunLog(tmp_path / "train.log", console()).say("one\ntwo\x85three")
    lines = (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line[22:] for line in lines] == ["one", "two", "three"]


def test_a_log_that_cannot_be_written_warns_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "missing" / "train.log", console(width=400))
    log.say("one")
    log.say("two")
    assert shown(log).startswith("one\nwarning: ")
    assert "No such file or directory" in shown(log)
    assert shown(log).endswith("\ntwo\n")
    assert shown(log).count("warning") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_does_not_stop_the_run() -> None:
    log = RunLog(Path("/dev/full"), console(width=400))
    log.say("one")
    assert "No space left on device" in shown(log)


def test_a_reader_that_went_away_does_not_stop_the_run(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from training.reporting.log import RunLog\n"
        f"log = RunLog(Path({str(tmp_path / 'train.log')!r}))\n"
        "for i in range(20000): log.say(f'line {i}')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.wait(60) == 0
    assert (tmp_path / "train.log").read_text().splitlines()[-1].endswith("line 19999")


def test_a_terminal_without_unicode_still_shows_the_line() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    log = RunLog(None, Console(file=ascii_only, force_terminal=True))
    with Progress(log) as progress:
        log.say("5 µs → done")
        progress.update("training", 1, 2, detail="Übung", loss=0.5)
    ascii_only.flush()
    written = ascii_only.buffer.getvalue()
    assert written.startswith(b"5 ?s ? done\n")
    assert b"?bung ? loss 0.5" in written


def test_without_a_terminal_there_are_plain_lines_now_and_then(tmp_path: Path, clock: list[float]) -> None:
    log = RunLog(tmp_path / "train.log", console())
    with Progress(log) as progress:
        for step in range(1, 4001):
            clock[0] += 0.0625
            progress.update("training", step, 8000, detail="main, epoch 1 of 2", loss=0.25, data_wait=0.015)
    lines = shown(log).splitlines()
    assert len(lines) == 24
    assert lines[0] == (
        "training: 161 of 8,000 (2 %) | main, epoch 1 of 2 | loss 0.25 | waiting for data 2 % | 8 min 10 s left"
    )
    assert "\r" not in shown(log)
    assert "\x1b" not in shown(log)
    assert [line[22:] for line in (tmp_path / "train.log").read_text().splitlines()] == lines


def test_lines_get_rarer_in_a_long_stage(clock: list[float]) -> None:
    log = RunLog(None, console())
    with Progress(log) as progress:
        for step in range(2 * 3600):
            clock[0] += 1
            progress.update("training", step, 10**6)
    assert len(shown(log).splitlines()) < 60 + 120


def test_a_stage_that_ends_says_how_long_it_took(clock: list[float]) -> None:
    log = RunLog(None, console())
    with Progress(log) as progress:
        progress.update("reading volumes", 0, 92)
        clock[0] += 5
        progress.update("reading volumes", 92, 92)
    assert shown(log) == "reading volumes: 92 of 92 in 5 s\n"


def test_what_was_done_before_a_resume_does_not_flatter_the_pace(clock: list[float]) -> None:
    log = RunLog(None, console())
    with Progress(log) as progress:
        progress.update("training", 9000, 10000)
        clock[0] += 100
        progress.update("training", 9100, 10000)
    assert "15 min 00 s left" in shown(log)


def test_on_a_terminal_there_is_a_bar_and_the_lines_go_to_the_file(tmp_path: Path, clock: list[float]) -> None:
    log = RunLog(tmp_path / "train.log", console(terminal=True))
    with Progress(log) as progress:
        for step in range(60):
            clock[0] += 1
            progress.update("training", step, 100, detail="main, epoch 3 of 50", loss=0.125, items_per_second=41.0)
        log.say("step 60: a line above the bar")
        progress.update("validation", 1, 4)
    text = shown(log)
    for piece in ("training", "59 of 100", "main, epoch 3 of 50", "loss 0.125", "41 items/s", "validation", "left"):
        assert piece in text, piece
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert "training: 10 of 100 (10 %)" in (tmp_path / "train.log").read_text()
    assert "training: 10 of 100 (10 %)" not in text


def test_the_terminal_comes_back_after_an_error() -> None:
    log = RunLog(None, console(terminal=True))
    with pytest.raises(RuntimeError, match="boom"), Progress(log) as progress:
        progress.update("training", 1, 100)
        raise RuntimeError("boom")
    assert shown(log).rindex("\x1b[?25h") > shown(log).rindex("\x1b[?25l")


def test_the_terminal_comes_back_when_nobody_closed_the_bar() -> None:
    program = (
        "from training.reporting.log import RunLog; from training.reporting.progress import Progress\n"
        "Progress(RunLog(None)).update('training', 1, 100)\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=theirs, cwd=ROOT, env=environment)
    assert process.wait(60) == 0
    os.close(theirs)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "1 of 100" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_between_drawings_nothing_is_written(clock: list[float]) -> None:
    log = RunLog(None, console(terminal=True))
    with Progress(log) as progress:
        progress.update("training", 1, 10**6)
        before = shown(log)
        for step in range(1000):
            progress.update("training", step, 10**6)
        assert shown(log) == before


def test_ending_an_unknown_stage_and_an_empty_one_is_harmless() -> None:
    log = RunLog(None, console())
    with Progress(log) as progress:
        progress.finish("nothing")
        progress.update("reading volumes", 0, 0)
    assert shown(log) == "reading volumes: 0 of 0 in 0 s\n"


def test_the_gpu_is_asked_at_most_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def mem_get_info(_: torch.device) -> tuple[int, int]:
        asked.append(1)
        return 60 * 2**30, 80 * 2**30

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(gpu, "gpu_name", lambda _: "GPU-1")
    monkeypatch.setattr(gpu.Utilization, "read", lambda _: 0.97)
    meter = GpuMeter(torch.device("cuda"))
    assert [str(meter.read()) for _ in range(5)] == ["GPU 97 %, 20.0 of 80 GiB"] * 5
    assert len(asked) == 1


def test_without_nvidia_smi_the_memory_is_still_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60 * 2**30, 80 * 2**30))
    monkeypatch.setattr(gpu, "gpu_name", lambda _: "GPU-1")
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    assert GpuMeter(torch.device("cuda")).read() == GpuUse(20 * 2**30, 80 * 2**30, None)
    assert GpuMeter(torch.device("cpu")).read() is None


@pytest.mark.parametrize(("answer", "busy"), [("echo 42", 0.42), ("echo '[N/A]'", None), ("exit 9", None)])
def test_utilization_is_what_nvidia_smi_answered_last(tmp_path: Path, answer: str, busy: float | None) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{answer}\n")
    command.chmod(0o755)
    meter = gpu.Utilization("GPU-1", str(command))
    assert meter.read() is None
    assert meter._asked is not None
    meter._asked.wait()
    assert meter.read() == busy
    assert meter._asked is not None
    meter._asked.communicate()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (65, "1 min 05 s"), (7440, "2 h 04 min"), (273600, "3 d 04 h"), (-1, "0 s")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_numbers() -> None:
    assert (percent(0.016), significant(0.123456), significant(1234567.0)) == ("2 %", "0.1235", "1,234,567")
