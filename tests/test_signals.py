"""A real worker process is asked to stop in each of its stages, and the disk fills while it saves.

`pytest -s` shows the seconds from the signal to the exit in each stage; only a generous bound is asserted.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.artifact import checkpoints, read_state, sha256_of, step_of, verify
from backend.errors import IO_ERROR
from tests.runs import places, register_tiny, run_of, train
from training.engine.checkpoint import CheckpointStore
from training.files import read_json_lines
from training.runs.run import read_yaml
from training.samples.radar import make_radar_sample

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "training" / "train_worker.py"
GENEROUS_SECONDS = 10  # what `docker stop` grants
SETTINGS = {
    "data.input_steps": 3,
    "data.prediction_steps": 2,
    "data.stride": 1,
    "data.downsample_size": "[16, 16]",
    "data.prepare_workers": 1,
    "data.split.fractions": "[0.2, 0.7, 0.1]",
    "model.hidden_dims": "[4]",
    "training.max_steps": 40,
    "training.batch_size": 2,
    "training.log_every_steps": 1,
}
TERM_INT_TERM = [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]
INT_TERM_INT = [signal.SIGINT, signal.SIGTERM, signal.SIGINT]
SLOW_STEPS = {"data.downsample_size": "[32, 32]", "model.hidden_dims": "[64]", "training.batch_size": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    make_radar_sample(folder, events=10, frames=24, levels=2, size=32)
    return folder


class Worker:
    """One and the same training command in a place of its own, started as often as needed."""

    def __init__(self, place: Path, data: Path, **settings: Any) -> None:
        self.place = place
        sets = [f"{key}={value}" for key, value in {**SETTINGS, **settings}.items()]
        self.command = [sys.executable, str(WORKER), "train", "--data", str(data), "--run-name", "stopped"]
        self.command += [*places(place), *(word for text in sets for word in ("--set", text))]
        self.environ = {**os.environ, "OMP_NUM_THREADS": "1"}

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            self.command, cwd=self.place, env=self.environ, stdout=-1, stderr=-1, text=True, start_new_session=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def finish(self) -> str:
        done = subprocess.run(
            self.command, cwd=self.place, env=self.environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def run(self) -> Path:
        return next((self.place / "out" / "convlstm").glob("*_stopped"))

    def events(self, name: str) -> list[dict[str, Any]]:
        with_run = list((self.place / "out" / "convlstm").glob("*_stopped"))
        found = read_json_lines(with_run[0] / "events.jsonl") if with_run else []
        return [event for event in found if event["event"] == name]

    def preparing(self) -> bool:
        """Some blocks are made; many are not."""
        journals = self.place.glob("datasets/.prepared/convlstm/.building-*/journal.jsonl")
        return any(journal.read_bytes().count(b"\n") > 5 for journal in journals)

    def begun(self, name: str) -> Callable[[], bool]:
        """Whether this happened once more than up to now: a validation, or a training (a stage)."""
        is_stage = name == "training"

        def count() -> int:
            found = self.events("stage" if is_stage else name)
            return sum(event["stage"] == name for event in found) if is_stage else len(found)

        before = count()
        return lambda: count() > before


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def stop_in(worker: Worker, stage: str, number: signal.Signals, happened: Callable[[], bool]) -> str:
    """Start, wait, send the signal; the line on stderr of the exit with 75."""
    with worker.started() as process:
        wait_for(process, happened)
        process.send_signal(number)
        sent = time.monotonic()
        _, said = process.communicate(timeout=60)
        seconds = time.monotonic() - sent
    print(f"{number.name} in {stage}: {seconds:.2f} s to exit {process.returncode}")  # noqa: T201
    assert process.returncode == 75, said
    assert seconds < GENEROUS_SECONDS
    assert len(said.strip().splitlines()) == 1
    assert f"stopped by {number.name}" in said
    assert "run the same command to continue" in said
    assert read_yaml(worker.run / "metadata.yaml")["state"] == "interrupted"
    assert worker.events("interrupted")[-1]["signal"] == number.name
    return said


def newest_checkpoint(worker: Worker) -> Path:
    newest = checkpoints(worker.run / "checkpoints")[-1]
    verify(newest)
    return newest


@pytest.mark.crash
@pytest.mark.parametrize(
    "signals",
    [TERM_INT_TERM, pytest.param(INT_TERM_INT, marks=pytest.mark.slow)],
    ids=["term-int-term", "int-term-int"],
)
def test_stopped_in_every_stage_and_continued(data: Path, tmp_path: Path, signals: list[signal.Signals]) -> None:
    worker = Worker(tmp_path, data)
    stop_in(worker, "preparation", signals[0], worker.preparing)
    assert not checkpoints(worker.run / "checkpoints")

    said = stop_in(worker, "training", signals[1], worker.begun("training"))
    step = step_of(newest_checkpoint(worker))
    assert f"at step {step}, which is saved" in said
    assert read_state(newest_checkpoint(worker))["progress"]["step"] == step

    stop_in(worker, "validation", signals[2], worker.begun("validation"))
    validated = step_of(newest_checkpoint(worker))
    assert worker.events("validation")[-1]["step"] == validated
    records = read_json_lines(worker.run / "metrics.jsonl")
    assert not [record for record in records if record["kind"] == "validation" and record["step"] == validated]

    worker.finish()
    assert read_yaml(worker.run / "metadata.yaml")["state"] == "finished"
    assert [event["steps_done_again"] for event in worker.events("resumed")] == [0, 0]
    assert step_of(newest_checkpoint(worker)) == SETTINGS["training.max_steps"]


@pytest.mark.crash
def test_a_second_signal_ends_at_once(data: Path, tmp_path: Path) -> None:
    worker = Worker(tmp_path, data, **SLOW_STEPS)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with worker.started() as process:
            wait_for(process, worker.begun("training"))
            began = time.monotonic()
            while process.poll() is None:  # Python sees signals between two operations, and those in one as one
                process.send_signal(number)
                time.sleep(0.02)
                assert time.monotonic() - began < GENEROUS_SECONDS
            print(f"{number.name} again and again: {time.monotonic() - began:.2f} s to exit {code}")  # noqa: T201
            assert process.returncode == code


@pytest.mark.crash
def test_stopped_when_nobody_reads_any_more(data: Path, tmp_path: Path) -> None:
    """The terminal, or the `make` that started it, is gone, and with it who read its output."""
    worker = Worker(tmp_path, data)
    with worker.started() as process:
        wait_for(process, worker.begun("training"))
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75
    newest_checkpoint(worker)
    assert read_yaml(worker.run / "metadata.yaml")["state"] == "interrupted"


# --- a full disk ------------------------------------------------------------------------------------------------------


@contextmanager
def files_limited() -> Iterator[None]:
    """No file may grow beyond 4 KB: the weights do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def fsync_refused() -> Iterator[None]:
    """Data that were taken find no room when they are to be made durable."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield


@contextmanager
def disk_seen_full() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1024))
        yield


@pytest.mark.parametrize("full", [files_limited, fsync_refused, disk_seen_full])
def test_a_full_disk_while_saving(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full: Callable[[], Any],
) -> None:
    register_tiny(monkeypatch)
    sets = ("model.hidden=2000",)
    save, calls = CheckpointStore.save, []

    def save_third_on_full_disk(store: CheckpointStore, *given: Any) -> Path:
        calls.append(given[0])
        if len(calls) != 3:
            return save(store, *given)
        with full():
            return save(store, *given)

    monkeypatch.setattr(CheckpointStore, "save", save_third_on_full_disk)
    assert train(tmp_path, "tiny", sets=sets) == IO_ERROR
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert "the checkpoint could not be written" in said[0]
    assert "free space" in said[0]
    run = run_of(tmp_path, "tiny")
    published = checkpoints(run / "checkpoints")
    assert [step_of(folder) for folder in published] == calls[:2]
    hashes = {}
    for folder in published:
        verify(folder)
        hashes[folder] = sha256_of(folder / "model.safetensors")
    assert not list((run / "checkpoints").glob(".tmp-*"))

    assert train(tmp_path, "tiny", sets=sets) == 0
    assert run_of(tmp_path, "tiny") == run
    assert train(tmp_path / "undisturbed", "tiny", sets=sets) == 0
    mine, others = (checkpoints(one / "checkpoints")[-1] for one in (run, run_of(tmp_path / "undisturbed", "tiny")))
    assert mine.name == others.name
    assert sha256_of(mine / "model.safetensors") == sha256_of(others / "model.safetensors")
