"""The files that start the worker elsewhere: they are well formed, and act on its exit codes as the README says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend import errors

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
ONSTART = DOCKER / "vast" / "onstart.sh"
AGAIN = {errors.SOURCE_UNAVAILABLE, errors.INTERRUPTED, 130, 143}
ENDS = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)} - AGAIN

# Stands where the worker stands: notes how it was called, and ends with the next of the codes in `codes`.
WORKER = """
import os, signal, sys, time
from pathlib import Path
here = Path(__file__).parent
codes = (here / "codes").read_text().split()
with (here / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
done = len((here / "calls").read_text().splitlines())
if codes[done - 1] == "wait":
    def saved(number, frame):
        time.sleep(0.2)  # it takes a while to save
        os.write(1, b"saved\\n")
        os._exit(75)
    signal.signal(signal.SIGTERM, saved)
    (here / "waiting").touch()
    time.sleep(60)
sys.exit(int(codes[done - 1]))
"""


class Home:
    """A folder that looks like the image's /app."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "training").mkdir(parents=True)
        (folder / "training" / "train_worker.py").write_text(WORKER)

    def codes(self, *codes: int | str) -> None:
        (self.folder / "training" / "codes").write_text(" ".join(map(str, codes)))

    @property
    def calls(self) -> list[str]:
        path = self.folder / "training" / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def environ(self, **more: str) -> dict[str, str]:
        own = {"TRAIN_HOME": str(self.folder), "TRAIN_PAUSE": "0", "TRAIN_PAUSE_69": "0"}
        return {"PATH": os.environ["PATH"], **own, **more}

    def wait_for(self, name: str, process: subprocess.Popen[str] | None = None) -> None:
        end = time.monotonic() + 60
        while not list(self.folder.rglob(name)):
            assert time.monotonic() < end
            assert process is None or process.poll() is None
            time.sleep(0.01)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "app")


def onstart(home: Home, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(ONSTART), *words],
        env=home.environ(**environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- Vast.ai ----------------------------------------------------------------------------------------------------------


def test_the_on_start_script_fits_into_its_field() -> None:
    assert len(ONSTART.read_bytes()) <= 4048
    assert ONSTART.stat().st_mode & stat.S_IXUSR


def test_it_runs_again_until_the_worker_is_done(home: Home) -> None:
    home.codes(75, 69, 143, 75, 0)
    done = onstart(home, "--foreground", TRAIN_COMMAND="train --task convlstm --set training.epochs=3")
    assert done.returncode == 0, done.stderr
    assert home.calls == ["train --task convlstm --set training.epochs=3"] * 5
    assert "ended with exit code 69" in done.stdout


@pytest.mark.parametrize("code", sorted(ENDS))
def test_it_stops_where_trying_again_mends_nothing(home: Home, code: int) -> None:
    home.codes(code, 0)
    assert onstart(home, "--foreground").returncode == code
    assert home.calls == ["train"]


def test_in_ssh_mode_it_returns_and_works_in_the_background(home: Home) -> None:
    home.codes("wait")
    done = onstart(home)
    assert done.returncode == 0
    assert "tail -f" in done.stdout
    home.wait_for("waiting")
    assert "already running" in onstart(home, "--foreground").stdout  # the container was started again
    assert len(home.calls) == 1
    (script,) = processes_with(str(home.folder / "training" / "train_worker.py"), home)
    os.kill(script, signal.SIGTERM)
    end = time.monotonic() + 60
    while "ended with exit code 75" not in (home.folder / "model_output" / "onstart.log").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert "saved" in (home.folder / "model_output" / "onstart.log").read_text()


def processes_with(name: str, home: Home) -> Iterator[int]:
    """The scripts at work in ``home``, by the folder that they are in."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(ONSTART).encode() in words and (folder / "cwd").resolve() == home.folder:
                yield int(folder.name)
        except OSError:
            continue


def test_asked_to_stop_it_lets_the_worker_save_and_does_not_begin_again(home: Home) -> None:
    home.codes("wait", 0)
    with subprocess.Popen(
        ["bash", str(ONSTART), "--foreground"], env=home.environ(), stdout=subprocess.PIPE, text=True
    ) as script:
        home.wait_for("waiting", script)
        script.send_signal(signal.SIGTERM)
        said, _ = script.communicate(timeout=60)
    assert script.returncode == 75
    assert "saved" in said
    assert len(home.calls) == 1


def test_without_the_code_it_says_what_to_set(tmp_path: Path) -> None:
    script = tmp_path / "elsewhere" / "deep" / "onstart.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ONSTART, script)
    if Path("/app/training/train_worker.py").exists():
        pytest.skip("this is the image")
    done = subprocess.run(
        ["bash", str(script)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False
    )
    assert done.returncode == errors.CONFIG
    assert "TRAIN_HOME" in done.stderr


def test_the_offer_query_asks_for_what_the_image_can_use() -> None:
    text = (DOCKER / "vast" / "README.md").read_text("utf-8")
    for part in ("cuda_vers>=12.1", "driver_version>=525", "compute_cap>=700", "compute_cap<1000", "verified=true"):
        assert part in text
    assert "vastai destroy instance -y" in text  # without it the question is never answered, and nothing happens


# --- Slurm ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path, home: Home) -> dict[str, str]:
    """What a Slurm node has: scontrol, and here the checkout's Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    write_program(tools / "scontrol", f'echo "$@" >> {tmp_path}/scontrol.log')
    (home.folder / ".venv" / "bin").mkdir(parents=True)
    python = shutil.which("python3")
    write_program(home.folder / ".venv" / "bin" / "python", f'exec {python} "$@"')
    write_program(tools / "apptainer", f'echo "$@" >> {tmp_path}/apptainer.log; exit 75')
    path = f"{tools}:{os.environ['PATH']}"
    return {"PATH": path, "SLURM_SUBMIT_DIR": str(home.folder), "SLURM_JOB_ID": "77"}


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("code", sorted(ENDS | AGAIN))
def test_slurm_requeues_what_was_interrupted(home: Home, cluster: dict[str, str], tmp_path: Path, code: int) -> None:
    home.codes(code)
    command = ["bash", str(DOCKER / "slurm.sbatch"), "--task", "convlstm"]
    done = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert home.calls == ["train --task convlstm"]
    requeued = tmp_path / "scontrol.log"
    assert requeued.exists() is (code in AGAIN - {errors.SOURCE_UNAVAILABLE})
    assert not requeued.exists() or requeued.read_text() == "requeue 77\n"


def test_slurm_s_warning_lets_the_worker_save(home: Home, cluster: dict[str, str], tmp_path: Path) -> None:
    home.codes("wait")
    with subprocess.Popen(["bash", str(DOCKER / "slurm.sbatch")], env=cluster, stdout=-1, text=True) as script:
        home.wait_for("waiting", script)
        script.send_signal(signal.SIGTERM)
        said, _ = script.communicate(timeout=60)
    assert (script.returncode, said) == (75, "saved\n")
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"


def test_slurm_runs_the_image_where_one_is_named(home: Home, cluster: dict[str, str], tmp_path: Path) -> None:
    environ = {**cluster, "IMAGE": "docker://x/y"}
    command = ["bash", str(DOCKER / "slurm.sbatch"), "--seed", "3"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 75
    called = (tmp_path / "apptainer.log").read_text()
    assert "--nv" in called
    assert f"{home.folder}/model_output:/app/model_output" in called
    assert called.endswith("docker://x/y python /app/training/train_worker.py train --seed 3\n")


def test_slurm_warns_the_script_in_time() -> None:
    assert "#SBATCH --signal=B:TERM@120" in (DOCKER / "slurm.sbatch").read_text()


# --- Kubernetes, SkyPilot, systemd ------------------------------------------------------------------------------------


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DOCKER / name).read_text("utf-8")))


def test_the_kubernetes_job_acts_on_exit_codes() -> None:
    job = next(document for document in documents("kubernetes-job.yaml") if document["kind"] == "Job")
    ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert set(fail["onExitCodes"]["values"]) == ENDS - {errors.DONE}
    pod = job["spec"]["template"]["spec"]
    assert fail["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["restartPolicy"] == "Never"  # a failure policy needs it
    assert pod["terminationGracePeriodSeconds"] >= 120
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"/app/datasets", "/app/model_output", "/dev/shm"}


def test_the_skypilot_task_recovers_on_exit_codes() -> None:
    (task,) = documents("skypilot.yaml")
    assert set(task["resources"]["job_recovery"]["recover_on_exit_codes"]) == AGAIN
    assert task["resources"]["use_spot"] is True
    assert "--sync-to" in task["run"]
    assert subprocess.run(["bash", "-n"], input=task["run"], text=True, check=False).returncode == 0


def test_the_service_restarts_by_exit_code() -> None:
    text = (DOCKER / "systemd" / "train-worker.service").read_text()
    codes = re.search(r"(?m)^RestartForceExitStatus=(.*)$", text)
    assert codes is not None
    assert {int(code) for code in codes[1].split()} - {137} == AGAIN
    assert re.search(r"(?m)^Restart=on-abnormal$", text)  # no other exit code starts it again


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_service(tmp_path: Path) -> None:
    unit = tmp_path / "train-worker.service"
    unit.write_text((DOCKER / "systemd" / unit.name).read_text().replace("/usr/bin/docker", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "train-worker" in line and "docker.service" not in line]
    assert complaints == []


@pytest.mark.parametrize("script", [*DOCKER.rglob("*.sh"), DOCKER / "slurm.sbatch"], ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
