"""A training and its trackers' processes: what they bring, and that nothing they do can stop or slow it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import places, register_tiny, run_of, train
from training.cli import main
from training.files import read_json_lines
from training.reporting.trackers import choice, follow

ROOT = Path(__file__).resolve().parent.parent.parent
ON = ("tracking.wandb=offline", "training.log_every_steps=1")

WORKING = """
import json, pathlib
class Settings:
    def __init__(self, **settings): pass
class Run:
    resumed, url = False, None
    def __init__(self, **told):
        self.id, self.summary = told["id"], {}
        self.file = open(pathlib.Path(told["dir"]).parent / "told.jsonl", "a")
        self.tell("init", id=told["id"], name=told["name"], config=told["config"])
    def tell(self, what, **more):
        self.file.write(json.dumps({"what": what, **more}) + "\\n"); self.file.flush()
    def define_metric(self, *names, **more): pass
    def log(self, values): self.tell("log", values=values)
    def finish(self, exit_code): self.tell("finish", code=exit_code, summary=self.summary)
print("noise on standard output")
def init(**told): return Run(**told)
"""
FAULTS = {
    "fails": WORKING + "\ndef init(**told): raise RuntimeError('no route to https://user:pw@host/?key=1')\n",
    "hangs": WORKING + "\ndef init(**told):\n    import time\n    time.sleep(1000)\n",
    "crashes": WORKING + "\ndef init(**told):\n    import os\n    os._exit(3)\n",
    "exits": WORKING + "\ndef init(**told): raise SystemExit(4)\n",
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Let the tracker's process find this as the package wandb."""
    (folder / "wandb").mkdir(parents=True)
    (folder / "wandb" / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(choice, "find_spec", lambda name: name)


def told(place: Path, what: str) -> list[dict[str, Any]]:
    return [line for line in read_json_lines(place / "out" / "tiny" / "told.jsonl") if line["what"] == what]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_json_lines(run / "events.jsonl") if event["event"] == name]


def test_everything_arrives_once_also_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "packages", WORKING)
    assert train(tmp_path, "tiny", sets=ON) == 0
    run = next(path for path in (tmp_path / "out" / "tiny").iterdir() if path.is_dir() and path.name[0] == "2")
    words = ["train", "--task", "tiny", *places(tmp_path), "--resume", run.name, "--set", "training.epochs=5"]
    assert main(words) == 0
    logged = [line["values"] for line in told(tmp_path, "log")]
    trained = [values["step"] for values in logged if "train/loss" in values]
    validated = [values["step"] for values in logged if "val/loss" in values]
    assert (trained, validated) == ([*range(1, 26)], [5, 10, 15, 20, 25])
    first, second = told(tmp_path, "init")
    assert first["id"] == second["id"]
    assert first["config"]["settings"]["training.epochs"] == 4
    assert [line["code"] for line in told(tmp_path, "finish")] == [0, 0]
    assert "test/mae" in told(tmp_path, "finish")[1]["summary"]
    assert [event["tracker"] for event in events(run, "tracked")] == ["wandb", "wandb"]


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("fails", "no route to https://host/; the training goes on"),
        ("hangs", "was not done in time; `wandb sync`"),
        ("crashes", "its process ended with 3"),
        ("exits", "its process ended with 4"),
    ],
)
def test_a_tracker_that_does_not_work_harms_nothing(
    fault: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path / "packages", FAULTS[fault])
    monkeypatch.setattr(follow, "SECONDS_AT_THE_END", 20.0 if fault != "hangs" else 0.1)
    monkeypatch.setattr(follow, "SECONDS_AT_THE_END", 3.0 if fault == "fails" else follow.SECONDS_AT_THE_END)
    assert train(tmp_path, "tiny", sets=ON) == 0
    out = capsys.readouterr().out
    assert line in out
    assert "pw" not in out
    assert out.splitlines()[-1].startswith("run id: ")
    failing = events(run_of(tmp_path, "tiny"), "tracking failing")
    assert len(failing) == (0 if fault == "hangs" else 1)


def test_without_the_package_nothing_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    for sets in (("tracking.mlflow=true",), ("tracking.wandb=offline",)):
        assert train(tmp_path, "tiny", sets=sets) == 78
        err = capsys.readouterr().err
        assert "training/requirements.trackers.txt" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out" / "tiny").exists()


def test_trackers_change_no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    install(monkeypatch, tmp_path / "packages", WORKING)
    assert train(tmp_path, "tiny") == 0
    assert train(tmp_path, "tiny", sets=ON[:1]) == 0
    assert "finished before" in capsys.readouterr().out


def test_the_trackers_process_imports_nothing_heavy() -> None:
    code = "import sys, training.reporting.trackers.live; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "matplotlib"} & set(done.stdout.split())


DOOMED = """
import sys
from pathlib import Path
from tests.runs import TASKS, TINY
TASKS["tiny"] = TINY
from training.reporting.trackers import choice
choice.find_spec = lambda name: name
from tests.crash.victim import Executioner, arm
from training.cli import main
arm(Executioner("training", 13, Path(sys.argv[1])))
main(sys.argv[2:])
"""


def kill_at_step_13(place: Path, *sets: str) -> None:
    """A training that logs every step and is killed between two checkpoints: 11 and 12 will be done again."""
    words = ["train", "--task", "tiny", "--data", "sample", *places(place)]
    words += [word for text in ("training.epochs=4", "training.log_every_steps=1", *sets) for word in ("--set", text)]
    command = [sys.executable, "-c", DOOMED, str(place / "killed"), *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -9, done.stderr


def test_killed_between_checkpoints_no_point_is_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "packages", WORKING)
    kill_at_step_13(tmp_path, ON[0])
    assert train(tmp_path, "tiny", sets=ON) == 0
    trained = [line["values"]["step"] for line in told(tmp_path, "log") if "train/loss" in line["values"]]
    assert trained == [*range(1, 21)]
    assert [line["code"] for line in told(tmp_path, "finish")] == [75, 0]
