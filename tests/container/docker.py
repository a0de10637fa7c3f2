"""Docker's command line for the tests: build, run, watch and stop; at run time without a network if none is asked for.

`DOCKER` names the client, `CONTAINER_IMAGE` an image that is built already. `CONTAINER_BUILD_OPTIONS` are added to each
build, such as ``--network host`` where the engine has no network of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.runs import SHORT

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKER = os.environ.get("DOCKER", "docker")
DOCKERFILE = "training/Dockerfile.train"
BASE = "pytorch/pytorch:2.5.1-cuda12.1-cudnn9-runtime"
# Who "the caller" is: a user that the image does not know, where the tests may give files to one.
CALLER = (12345, 23456) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
Done = subprocess.CompletedProcess[str]
UNMOUNTED_OK = ["-e", "TRAIN_WORKER_UNMOUNTED_OK=1"]  # the worker would refuse results that nobody keeps


def docker(*words: str, check: bool = True, timeout: float = 600, **options: Any) -> Done:
    """Run Docker's client and keep what it says."""
    done = subprocess.run([DOCKER, *words], capture_output=True, text=True, check=False, timeout=timeout, **options)
    assert not check or done.returncode == 0, f"docker {shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done


def has_engine() -> bool:
    return shutil.which(DOCKER) is not None and docker("info", check=False).returncode == 0


def build(tag: str, context: Path = ROOT, dockerfile: str = DOCKERFILE, **arguments: str) -> str:
    """Build an image from ``context``, with build arguments; its name."""
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    extra = shlex.split(os.environ.get("CONTAINER_BUILD_OPTIONS", ""))
    docker("build", *extra, *given, "-t", tag, "-f", str(context / dockerfile), str(context), timeout=1500)
    return tag


def layers(image: str) -> list[str]:
    return list(json.loads(docker("image", "inspect", image).stdout)[0]["RootFS"]["Layers"])


def config(image: str) -> dict[str, Any]:
    return dict(json.loads(docker("image", "inspect", image).stdout)[0]["Config"])


def as_environment(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``-e`` options, so that the command itself stays as a user types it."""
    names = {key: "TRAIN_WORKER_" + key.upper().replace(".", "__") for key in settings}
    return [word for key, value in settings.items() for word in ("-e", f"{names[key]}={value}")]


def short(task: str = "convlstm") -> list[str]:
    """The settings that make a training of ``task`` a matter of seconds, as options."""
    return [*as_environment(dict(entry.split("=", 1) for entry in SHORT[task])), "-e", "OMP_NUM_THREADS=1"]


@dataclass(frozen=True)
class Place:
    """A folder on the host with the two volumes in it, which belong to the caller."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Place:
        for path in (folder / "model_output", folder / "datasets"):
            path.mkdir(parents=True)
            os.chown(path, *CALLER)
        return cls(folder)

    @property
    def output(self) -> Path:
        return self.folder / "model_output"

    @property
    def datasets(self) -> Path:
        return self.folder / "datasets"

    @property
    def volumes(self) -> list[str]:
        """As in the documentation, with the folder for ``$(pwd)``."""
        return ["-v", f"{self.output}:/app/model_output", "-v", f"{self.datasets}:/app/datasets"]

    @property
    def run(self) -> Path:
        """The only run."""
        (found,) = (path for path in self.output.glob("*/*") if (path / "metadata.yaml").exists())
        return found

    def written(self) -> list[Path]:
        """Everything that appeared in the volumes."""
        return [path for folder in (self.output, self.datasets) for path in folder.rglob("*")]


def run(image: str, *words: str, options: Sequence[str] = (), check: bool = True, network: str = "none") -> Done:
    """``docker run --rm`` to its end."""
    return docker("run", "--rm", "--network", network, *options, image, *words, check=check)


@contextmanager
def started(image: str, *words: str, options: Sequence[str], network: str = "none") -> Iterator[Container]:
    """A container at work in the background, removed afterwards."""
    name = f"worker-{uuid.uuid4().hex[:12]}"
    docker("run", "--detach", "--name", name, "--network", network, *options, image, *words)
    try:
        yield Container(name)
    finally:
        docker("rm", "--force", name, check=False)


@dataclass(frozen=True)
class Container:
    """One that was started."""

    name: str

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(docker("inspect", self.name).stdout)[0]["State"])

    @property
    def health(self) -> str:
        return str(self.state["Health"]["Status"])

    def said(self) -> Done:
        return docker("logs", self.name)

    def wait_for(self, happened: Callable[[], bool], seconds: float = 400) -> None:
        """Until ``happened``; the container must not end meanwhile."""
        end = time.monotonic() + seconds
        next_look = 0.0
        while not happened():
            now = time.monotonic()
            assert now < end, f"it did not happen\n{self.said()}"
            if now >= next_look:
                assert self.state["Running"], self.said()
                next_look = now + 1
            time.sleep(0.005)

    def end(self, how: str) -> tuple[int, float]:
        """``docker stop`` or ``docker kill``: the exit code, and the seconds until it came."""
        began = time.monotonic()
        docker(how, self.name)
        code = int(docker("wait", self.name).stdout)
        return code, time.monotonic() - began
