"""The real MLflow (its sqlite store) and the real Weights & Biases (offline), where they are installed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.mlflow_server import PASSWORD, Server
from tests.reporting.test_trackers_live import events, kill_at_step_13
from tests.runs import places, register_tiny, run_of, train
from training.cli import main
from training.reporting.trackers import follow

ROOT = Path(__file__).resolve().parent.parent.parent
LOGGED = ("training.log_every_steps=1",)
needs_mlflow = pytest.mark.skipif(
    not all(map(find_spec, ("mlflow", "sqlalchemy", "alembic"))), reason="mlflow is not installed"
)
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)


def push(place: Path, to: str, code: int = 0, **environ: str) -> str:
    """`runs push` in a process of its own: the libraries stay out of this one."""
    run = run_of(place, "tiny").name
    command = [sys.executable, "training/train_worker.py", "runs", "push", run, "--to", to]
    done = subprocess.run(
        [*command, "--output", str(place / "out")],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


# --- MLflow -----------------------------------------------------------------------------------------------------------


def rows(place: Path, query: str) -> list[Any]:
    database = sqlite3.connect(place / "out" / "mlflow.db")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def points(place: Path, key: str) -> list[int]:
    return [step for (step,) in rows(place, f"select step from metrics where key = '{key}' order by step")]


@needs_mlflow
def test_mlflow_has_every_point_once_after_a_kill_a_resume_and_a_push(tmp_path: Path) -> None:
    kill_at_step_13(tmp_path, "tracking.mlflow=true")
    assert train(tmp_path, "tiny", sets=("tracking.mlflow=true", *LOGGED)) == 0
    assert push(tmp_path, "mlflow").startswith(f"{run_of(tmp_path, 'tiny').name}: mlflow.db, run ")
    assert points(tmp_path, "train/loss") == [*range(1, 21)]
    assert points(tmp_path, "val/loss") == [5, 10, 15, 20]
    assert points(tmp_path, "test/mae") == [20]
    ((name, status),) = rows(tmp_path, "select name, status from runs")
    assert (name, status) == (run_of(tmp_path, "tiny").name, "FINISHED")
    settings = dict(rows(tmp_path, "select key, value from params"))
    assert (settings["training.epochs"], settings["task"]) == ("4", "tiny")
    assert dict(rows(tmp_path, "select key, value from tags"))["task"] == "tiny"
    kept = {path.name for path in (tmp_path / "out" / "mlartifacts").rglob("*") if path.is_file()}
    assert kept == {"config.yaml", "report.html", "MODEL_CARD.md"}
    assert not (ROOT / "mlruns").exists()


@pytest.mark.slow
@needs_mlflow
def test_a_push_after_the_database_was_deleted_brings_everything(tmp_path: Path) -> None:
    assert train(tmp_path, "tiny", sets=LOGGED) == 0
    push(tmp_path, "mlflow")
    (tmp_path / "out" / "mlflow.db").unlink()
    push(tmp_path, "mlflow")
    assert points(tmp_path, "train/loss") == [*range(1, 21)]


@pytest.mark.slow
@needs_mlflow
def test_mlflow_gets_a_finished_run_and_then_what_came_after(tmp_path: Path) -> None:
    assert train(tmp_path, "tiny", sets=LOGGED) == 0
    push(tmp_path, "mlflow")
    words = ["train", "--task", "tiny", *places(tmp_path), "--resume", run_of(tmp_path, "tiny").name]
    assert main([*words, "--set", "training.epochs=5"]) == 0
    push(tmp_path, "mlflow")
    push(tmp_path, "mlflow")
    assert points(tmp_path, "train/loss") == [*range(1, 26)]
    assert len(rows(tmp_path, "select name from runs")) == 1


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(tmp_path / "artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.url)
    yield made
    made.close()


@needs_mlflow
def test_an_mlflow_server_gets_every_point_once_and_its_password_is_shown_nowhere(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusals = 2  # what was refused is brought later
    assert train(tmp_path, "tiny", sets=("tracking.mlflow=true", *LOGGED)) == 0
    told = push(tmp_path, "mlflow")
    assert server.points("train/loss") == [*range(1, 21)]
    assert server.points("val/loss") == [5, 10, 15, 20]
    assert server.points("test/mae") == [20]
    ((run_id, kept),) = server.runs.items()
    assert (kept["run_name"], kept["status"]) == (run_of(tmp_path, "tiny").name, "FINISHED")
    artifacts = {path.name for path in (tmp_path / "artifacts" / run_id).iterdir()}
    assert artifacts == {"config.yaml", "report.html", "MODEL_CARD.md"}
    assert server.unauthorised == 0
    run = run_of(tmp_path, "tiny")
    assert len(events(run, "tracking failing")) == 1
    assert "not now, user:…" in events(run, "tracking failing")[0]["error"]
    everything = [told, capsys.readouterr().out, *(path.read_text("utf-8", "replace") for path in files_of(run))]
    assert not [text for text in everything if PASSWORD in text]


@needs_mlflow
def test_an_mlflow_server_that_is_away_is_told_once_and_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = {"MLFLOW_TRACKING_URI": "http://user:pa55@127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    for name, value in away.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(follow, "SECONDS_WHEN_FAILING", 0.0)
    assert train(tmp_path, "tiny", sets=("tracking.mlflow=true",)) == 0
    run = run_of(tmp_path, "tiny")
    assert len(events(run, "tracking failing")) == 1
    told = push(tmp_path, "mlflow", code=69)
    assert told.count("\n") == 1
    everything = [told, capsys.readouterr().out, *(path.read_text("utf-8", "replace") for path in files_of(run))]
    assert "127.0.0.1:9" in told
    assert not [text for text in everything if "pa55" in text]


def files_of(run: Path) -> list[Path]:
    return [path for path in run.rglob("*") if path.is_file() and path.suffix not in (".png", ".safetensors", ".pth")]


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def history(run: Path) -> list[dict[str, str]]:
    """What all offline files of ``run`` say was logged, oldest first."""
    code = (
        "import sys, json, warnings; warnings.simplefilter('ignore')\n"
        "from wandb.proto import wandb_internal_pb2 as pb\n"
        "data = open(sys.argv[1], 'rb').read(); at = 7; whole = b''\n"  # LevelDB's log format behind a header of 7
        "while at + 7 <= len(data):\n"
        "    left = 32768 - at % 32768\n"
        "    if left < 7: at += left; continue\n"
        "    size, kind = int.from_bytes(data[at+4:at+6], 'little'), data[at+6]\n"
        "    whole += data[at+7:at+7+size]; at += 7 + size\n"
        "    if kind in (1, 4):\n"
        "        record = pb.Record(); record.ParseFromString(whole); whole = b''\n"
        "        if record.WhichOneof('record_type') == 'history':\n"
        "            print(json.dumps({i.key or '.'.join(i.nested_key): i.value_json for i in record.history.item}))\n"
    )
    lines: list[str] = []
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        lines += done.stdout.splitlines()
    return [json.loads(line) for line in lines]


def steps(run: Path, key: str) -> list[int]:
    return [int(values["step"]) for values in history(run) if key in values]


@pytest.mark.slow
@needs_wandb
def test_wandb_offline_has_every_point_once_after_a_kill_and_a_resume(tmp_path: Path) -> None:
    kill_at_step_13(tmp_path, "tracking.wandb=offline")
    assert train(tmp_path, "tiny", sets=("tracking.wandb=offline", *LOGGED)) == 0
    push(tmp_path, "wandb")
    run = run_of(tmp_path, "tiny")
    assert steps(run, "train/loss") == [*range(1, 21)]
    assert steps(run, "val/loss") == [5, 10, 15, 20]
    ids = {path.name.rpartition("-")[2] for path in run.glob("wandb/offline-run-*")}
    assert len(ids) == 1


@needs_wandb
def test_wandb_gets_a_finished_run_offline(tmp_path: Path) -> None:
    assert train(tmp_path, "tiny", sets=LOGGED) == 0
    assert "`wandb sync` brings it online" in push(tmp_path, "wandb", WANDB_MODE="offline")
    assert steps(run_of(tmp_path, "tiny"), "train/loss") == [*range(1, 21)]
    told = push(tmp_path, "wandb", code=78, NETRC=str(tmp_path / "none"))
    assert "set WANDB_API_KEY" in told
