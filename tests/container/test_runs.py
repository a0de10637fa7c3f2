"""The runs that the documentation shows, on the CPU and without a network."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from contextlib import suppress
from urllib.request import urlopen

import pytest

from backend.artifact import checkpoints, read_state
from tests.container.docker import CALLER, ROOT, UNMOUNTED_OK, Place, config, docker, run, short
from training.runs.run import read_yaml
from training.tasks import TASKS

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]
COMPOSE = os.environ.get("DOCKER_COMPOSE", "docker-compose").split()


def assert_files_belong_to_the_caller_and_can_be_read(place: Place) -> None:
    for path in place.written():
        facts = path.stat()
        assert (facts.st_uid, facts.st_gid) == CALLER, path
        assert stat.S_IMODE(facts.st_mode) == (0o755 if path.is_dir() else 0o644), path


def assert_finished(place: Place) -> None:
    assert read_yaml(place.run / "metadata.yaml")["state"] == "finished"
    assert (place.run / "report.html").stat().st_size > 10_000
    assert (place.run / "best_model.pth").is_file()


@pytest.mark.parametrize("task", TASKS)
def test_production_run_trains_the_sample_and_leaves_files_of_the_caller(image: str, place: Place, task: str) -> None:
    options = [*short(task), "-e", f"TASK={task}", *place.volumes]
    done = run(image, options=options)
    assert f"the built-in sample, because datasets/{task} holds nothing" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1] == f"run id: {place.run.name}"
    assert place.run.parent.name == task
    assert_finished(place)
    assert_files_belong_to_the_caller_and_can_be_read(place)
    revision = config(image)["Labels"]["org.opencontainers.image.revision"]
    assert read_state(checkpoints(place.run / "checkpoints")[-1])["git"]["commit"] == revision
    again = run(image, "evaluate", place.run.name[:13], "--split", "val", options=options)
    assert f"look 2: /app/model_output/{task}/{place.run.name}/evaluations/val/metrics.json" in again.stdout


def test_development_run_uses_the_edited_code(image: str, place: Place) -> None:
    for name in ("backend", "training"):
        shutil.copytree(ROOT / name, place.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    edited = place.folder / "training" / "stages.py"
    before = edited.read_text("utf-8")
    edited.write_text(before.replace("run id: {run.run_id}", "EDITED: {run.run_id}"), "utf-8")
    assert edited.read_text("utf-8") != before
    code = [word for name in ("backend", "training") for word in ("-v", f"{place.folder / name}:/app/{name}")]
    done = run(image, options=[*short(), *code, *place.volumes])
    assert done.stdout.rstrip().splitlines()[-1] == f"EDITED: {place.run.name}"
    assert not list(place.folder.rglob("__pycache__"))


@pytest.mark.parametrize("tmpfs", [["--tmpfs", "/tmp"], []], ids=["tmpfs", "no tmpfs"])
def test_an_unknown_user_on_a_read_only_root(image: str, place: Place, tmpfs: list[str]) -> None:
    user = ["--user", f"{CALLER[0]}:{CALLER[1]}", "--cap-drop", "ALL", "--read-only", *tmpfs]
    done = run(image, "train", "--task", "convlstm", options=[*short(), *user, *place.volumes])
    assert_finished(place)
    assert "could not be made" not in done.stdout
    assert done.stderr == ""
    assert_files_belong_to_the_caller_and_can_be_read(place)


def test_root_keeps_to_root_where_the_folder_is_roots(image: str) -> None:
    script = "docker/entrypoint >&2; stat -c %u:%a model_output/*/*/report.html"
    done = run(image, "sh", "-c", script, options=[*short(), *UNMOUNTED_OK])
    assert done.stdout == "0:644\n"


def test_the_task_comes_from_the_environment_unless_the_command_names_one(image: str) -> None:
    options = ["-e", "TASK=no-such-task"]
    refused = run(image, "--print-config", options=options, check=False)
    assert refused.returncode != 0
    assert "no-such-task" in refused.stderr
    named = run(image, "--task", "convlstm", "--print-config", options=options)
    assert "task: convlstm" in named.stdout


# --- compose --------------------------------------------------------------------------------------------------------


def compose(place: Place, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Compose in ``place``; the engine that tests run on may have no network of its own."""
    override = {"services": {"train-cpu": {"network_mode": "none"}, "tensorboard": {"network_mode": "host"}}}
    (place.folder / "override.json").write_text(json.dumps(override))
    files = ["-f", "compose.yaml", "-f", "override.json"]
    done = subprocess.run(
        [*COMPOSE, *files, *words], cwd=place.folder, capture_output=True, text=True, check=False, timeout=280
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def composed(image: str, place: Place) -> Place:
    if shutil.which(COMPOSE[0]) is None:
        pytest.skip("no docker-compose")
    text = (ROOT / "compose.yaml").read_text("utf-8")
    (place.folder / "compose.yaml").write_text(text.replace("image: convlstm-training", f"image: {image}"))
    return place


def test_compose_trains_on_the_cpu_and_shows_it_in_tensorboard(composed: Place) -> None:
    done = compose(composed, "run", "--rm", "-T", *short(), "train-cpu")
    assert "device: cpu (training.device is cpu)" in done.stdout
    assert_finished(composed)
    assert_files_belong_to_the_caller_and_can_be_read(composed)

    name = f"tensorboard-{os.getpid()}"
    compose(composed, "run", "--detach", "--name", name, "tensorboard")
    try:
        assert wait_for_runs() == [f"convlstm/{composed.run.name}/tensorboard"]
    finally:
        docker("rm", "--force", name)


def wait_for_runs() -> list[str]:
    """What TensorBoard shows, once it answers and has read the files."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), urlopen("http://127.0.0.1:6006/data/runs", timeout=5) as answer:
            if runs := json.load(answer):
                return list(runs)
        time.sleep(0.1)
    raise AssertionError("TensorBoard did not answer")
