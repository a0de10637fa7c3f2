"""Fetching inside the commands: `fetch` alone in a process of its own, and in `train` and `evaluate`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import CONFIG, DONE, INTERRUPTED, SOURCE_UNAVAILABLE, USAGE
from tests.fetching.fake_drive import File, Web, web_in
from tests.fetching.world import DRIVE_ID, FILES, contents, sha256, tar_gz
from tests.runs import places, register_tiny, run_of, train
from tests.tiny_task import TinyTask
from training.cli import main
from training.files import read_json, read_json_lines
from training.runs.run import Run
from training.yaml_core import write_yaml

WORKER = Path(__file__).parents[2] / "training" / "train_worker.py"
ARCHIVE = tar_gz()
URL = "https://files.example/events.tar.gz"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_in(tmp_path) as web:
        web.enter(monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield web


def manifest(*sources: dict[str, str], **keys: object) -> str:
    write_yaml(Path("radar.yaml"), {"sources": list(sources), **keys})
    return "data.manifest=radar.yaml"


# --- the command, in a process of its own ---------------------------------------------------------------------------


def worker(*words: str) -> list[str]:
    return [sys.executable, str(WORKER), *words]


def test_a_drive_file_is_fetched_by_its_id(web: Web) -> None:
    web.files[DRIVE_ID] = File(ARCHIVE, page="form")
    command = worker("fetch", "--drive-id", f"https://drive.google.com/file/d/{DRIVE_ID}/view?usp=sharing")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (DONE, "")
    assert contents(Path("datasets/convlstm")) == FILES
    lines = done.stdout.splitlines()
    assert lines[0] == "data: datasets/convlstm (from --drive-id)"
    assert any(line.startswith("download: 3") and " kB of 3" in line for line in lines)
    assert f"  sha256: {sha256(ARCHIVE)}" in lines
    assert lines[-1] == "complete: datasets/convlstm"


def test_stopped_in_the_middle_of_a_slow_download_and_continued_from_a_mirror_too(web: Web) -> None:
    """The Drive file is over its quota; the mirror falls silent in the middle."""
    large = tar_gz({"a.nc": os.urandom(2 << 20)})
    mirror = File(large, stall_after=1 << 20)
    web.files |= {DRIVE_ID: File(page="quota"), "/events.tar.gz": mirror}
    command = worker("fetch", "--set", manifest({"gdrive": DRIVE_ID}, {"https": URL}, sha256=sha256(large)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        end = time.monotonic() + 60
        while sum(part.stat().st_size for part in Path("datasets").rglob("data.part")) < 1 << 19:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        out, err = running.communicate(timeout=30)
    print(f"SIGTERM in a silent download: {time.monotonic() - sent:.2f} s to exit {running.returncode}")  # noqa: T201
    assert running.returncode == 75
    assert err == "stopped by SIGTERM; run the same command to continue\n"
    assert "quota page" in out
    mirror.stall_after = None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (DONE, "")
    assert mirror.asked[-1].startswith("bytes=")
    assert len(contents(Path("datasets/radar"))["a.nc"]) == 2 << 20


# --- in this process: what it says and how it ends ------------------------------------------------------------------


def test_when_nothing_can_be_fetched_it_is_one_line_and_69(web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    web.files[DRIVE_ID] = File(page="quota")
    assert main(["fetch", "--drive-id", DRIVE_ID]) == SOURCE_UNAVAILABLE
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"error: convlstm: none of its 1 sources gives it: (1) gdrive {DRIVE_ID}: Drive's quota page")


@pytest.mark.parametrize(
    ("words", "environ", "code", "said"),
    [
        ([], {}, USAGE, "nothing says what to fetch"),
        (["--set", "data.manifest=gone.yaml"], {}, CONFIG, "data.manifest gone.yaml: no such file"),
        (["--drive-id", "x"], {}, CONFIG, "--drive-id: expected a Drive file's id"),
        ([], {"TRAIN_WORKER_DRIVE_ID": "x"}, CONFIG, "TRAIN_WORKER_DRIVE_ID: expected a Drive file's id"),
        (["--drive-id", DRIVE_ID, "--set", "data.manifest=x.yaml"], {}, CONFIG, "both say what to fetch"),
        ([], {"TRAIN_WORKER_DRIVE_ID": DRIVE_ID, "TRAIN_WORKER_DATA__MANIFEST": "x.yaml"}, CONFIG, "drop one of them"),
    ],
)
def test_what_is_asked_for_wrongly(
    web: Web,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    environ: dict[str, str],
    code: int,
    said: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["fetch", *words]) == code
    err = capfd.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert web.requests == []


def test_a_folder_needs_no_fetching(web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    (Path("datasets/convlstm/event")).mkdir(parents=True)
    assert main(["fetch"]) == DONE
    assert "nothing to fetch" in capfd.readouterr().out


# --- training on what is fetched ------------------------------------------------------------------------------------


@pytest.fixture
def numbers(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    """The tiny task's data as an archive of the web."""
    register_tiny(monkeypatch)
    made = tmp_path / "made"
    made.mkdir()
    TinyTask.make_sample(made)
    file = web.files["/events.tar.gz"] = web.files[DRIVE_ID] = File(
        tar_gz({"numbers.csv": (made / "numbers.csv").read_bytes()})
    )
    return file


def train_tiny(place: Path, *words: str) -> int:
    return main(["train", "--task", "tiny", *places(place), "--set", "training.epochs=4", *words])


def stages(run: Path) -> list[str]:
    return [event["stage"] for event in read_json_lines(run / "events.jsonl") if event["event"] == "stage"]


def test_training_fetches_within_its_run_and_never_again(
    web: Web, numbers: File, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--set", manifest({"https": URL})]
    assert train_tiny(tmp_path, *words) == DONE
    run = run_of(tmp_path, "tiny")
    assert stages(run)[:4] == ["download", "unpack", "preparation", "training"]
    data = Run(run).metadata["data"]
    assert data["fetched"]["sha256"] == sha256(numbers.content)
    assert "data: " in (run / "train.log").read_text()

    web.requests.clear()
    assert train_tiny(tmp_path, *words) == DONE
    shutil.rmtree(tmp_path / "datasets" / "radar")
    assert train_tiny(tmp_path, *words) == DONE
    assert capfd.readouterr().out.count("finished before") == 2
    assert web.requests == []

    assert main(["evaluate", run.name, *places(tmp_path)]) == DONE, "fetched again, for its files are needed"
    assert len(numbers.asked) == 2
    assert read_json(run / "evaluations" / "val" / "metrics.json")["n"] > 0
    assert run_of(tmp_path, "tiny") == run


def test_a_run_that_could_not_fetch_is_continued(
    web: Web, numbers: File, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers.page = "quota"
    assert train_tiny(tmp_path, "--drive-id", DRIVE_ID) == SOURCE_UNAVAILABLE
    run = run_of(tmp_path, "tiny")
    assert Run(run).metadata["state"] == "failed"
    numbers.page = ""
    assert train_tiny(tmp_path, "--drive-id", DRIVE_ID) == DONE
    assert run_of(tmp_path, "tiny") == run
    shutil.rmtree(tmp_path / "datasets" / "tiny")
    assert main(["evaluate", run.name, *places(tmp_path)]) == DONE, "the run knows its Drive file"
    assert len(numbers.asked) == 2
    capfd.readouterr()


def test_a_training_that_is_stopped_while_it_fetches_is_continued(
    web: Web, numbers: File, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers.stall_after = 1000
    numbers.step = 500
    words = ["--set", manifest({"https": URL})]

    def stop() -> None:
        while numbers.sent < 1000:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert train_tiny(tmp_path, *words) == INTERRUPTED
    assert capfd.readouterr().err == "stopped by SIGTERM; run the same command to continue\n"
    run = run_of(tmp_path, "tiny")
    assert Run(run).metadata["state"] == "interrupted"
    assert stages(run) == ["download"]
    numbers.stall_after = None
    assert train_tiny(tmp_path, *words) == DONE
    assert run_of(tmp_path, "tiny") == run
    assert stages(run)[:4] == ["download", "download", "unpack", "preparation"]


def test_other_data_than_the_runs_begin_another_run(web: Web, numbers: File, tmp_path: Path) -> None:
    assert train_tiny(tmp_path, "--set", manifest({"https": URL})) == DONE
    shutil.rmtree(tmp_path / "datasets" / "radar")
    changed = File(tar_gz({"numbers.csv": contents(tmp_path / "made")["numbers.csv"].replace(b",1\r\n", b",0\r\n", 1)}))
    web.files["/events.tar.gz"] = changed
    assert train_tiny(tmp_path, "--set", manifest({"https": URL}, sha256=sha256(changed.content))) == DONE
    assert len([path for path in (tmp_path / "out" / "tiny").iterdir() if not path.name.startswith(".")]) == 2


def test_data_given_by_name_go_before_a_manifest(web: Web, numbers: File, tmp_path: Path) -> None:
    assert train(tmp_path, "tiny", sets=(manifest({"https": URL}),), data=str(tmp_path / "made")) == DONE
    assert web.requests == []


def test_a_manifests_secrets_are_copied_nowhere(
    web: Web, numbers: File, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = manifest(
        {"https": "https://us:HUSH@files.example/events.tar.gz"}, {"rclone": ":s3,pass=HUSH:b/events.tar.gz"}
    )
    assert train_tiny(tmp_path, "--set", own) == DONE
    said = capfd.readouterr()
    assert "HUSH" not in said.out + said.err
    files = [path for top in ("out", "datasets") for path in (tmp_path / top).rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if b"HUSH" in path.read_bytes()]
