"""How the image is built: what is in it, what is not, and what a change makes anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.docker import BASE, ROOT, Place, build, config, docker, layers, run, short

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]
TORCH = "import torch; print(torch.__version__, torch.version.cuda, torch.__file__)"
COMPILERS = "for tool in cc gcc g++ c++ clang nvcc ld as; do command -v $tool; done; true"
CONTEXT = ["Makefile", ".dockerignore", "backend", "docker", "training"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What a build reads, as a copy to be changed."""
    for name in CONTEXT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def scrap() -> Iterator[list[str]]:
    """Images to remove afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        docker("rmi", "--force", name, check=False)


def in_base(*words: str) -> str:
    return docker("run", "--rm", "--network", "none", BASE, *words).stdout


def test_torch_is_the_bases_and_no_tool_was_left_behind(image: str) -> None:
    assert run(image, "python", "-c", TORCH).stdout == in_base("python3", "-c", TORCH)
    assert run(image, "bash", "-c", COMPILERS).stdout == in_base("bash", "-c", COMPILERS)
    assert layers(image)[: len(layers(BASE))] == layers(BASE)
    listed = run(image, "bash", "-c", "ls /var/lib/apt/lists /opt/venv/lib/python3*/site-packages").stdout.split()
    assert not {"torch", "torchvision", "triton", "nvidia"} & set(listed)
    assert not [name for name in listed if name.endswith("Packages")]


def test_what_the_worker_needs_is_there(image: str) -> None:
    run(image, "bash", "-c", "command -v tini pigz zstd make && ls /etc/ssl/certs/ca-certificates.crt")
    assert "make train" in run(image, "make", "help").stdout
    done = run(image, "bash", "-c", "cat /proc/1/comm; umask; pwd")
    assert done.stdout.split() == ["tini", "0022", "/app"]
    helped = run(image, "--help", options=["--init"])  # another init below which tini is not the first process
    assert "Usage: train_worker.py" in helped.stdout
    assert helped.stderr == ""


def test_labels_and_signals(image: str) -> None:
    found = config(image)
    assert found["StopSignal"] == "SIGTERM"
    assert found["WorkingDir"] == "/app"
    assert found["Entrypoint"] == ["tini", "-s", "--", "/app/docker/entrypoint"]
    labels = {name.rpartition(".")[2] for name in found["Labels"] if name.startswith("org.opencontainers.image.")}
    assert {"title", "description", "source", "revision", "version", "licenses"} <= labels


def test_only_code_goes_into_the_image(image: str) -> None:
    listed = run(image, "bash", "-c", "ls -A; find . -name '.*' -not -name . -o -name '*.md'").stdout.split()
    assert sorted(listed) == ["Makefile", "backend", "datasets", "docker", "model_output", "training"]


def test_a_change_of_the_code_makes_only_the_code_anew(image: str, context: Path, scrap: list[str]) -> None:
    scrap += ["convlstm-training:test-before", "convlstm-training:test-after"]
    build(scrap[0], context, REVISION="one")
    with (context / "training" / "cli.py").open("a") as file:
        file.write("# changed\n")
    build(scrap[1], context, REVISION="two")
    before, after = layers(scrap[0]), layers(scrap[1])
    shared = [a for a, b in zip(before, after, strict=True) if a == b]
    history = docker("history", "--no-trunc", "--format", "{{json .}}", scrap[1]).stdout.splitlines()
    filled = [entry for line in history if (entry := json.loads(line))["Size"] != "0B"]  # newest first
    made_anew = [str(entry["CreatedBy"]) for entry in filled[: len(after) - len(shared)]]
    assert 0 < len(made_anew) <= 2, made_anew
    assert not [step for step in made_anew if "pip install" in step or "apt-get" in step]


EXTERNALLY_MANAGED = f"""
FROM {BASE}
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN apt-get update && apt-get install --yes --no-install-recommends --no-upgrade python3 python3-pip
RUN echo /opt/conda/lib/python3.11/site-packages \
    >"$(python3 -c 'import site; print(site.getsitepackages()[0])')/torch_of_the_base.pth"
RUN ! python3 -m pip install --no-index six 2>said.txt && grep externally-managed said.txt
"""


def test_a_base_whose_python_belongs_to_the_distribution(image: str, tmp_path: Path, scrap: list[str]) -> None:
    """The system's Python is externally managed (PEP 668), has no ensurepip, and finds torch elsewhere."""
    (tmp_path / "Dockerfile").write_text(EXTERNALLY_MANAGED)
    scrap += ["convlstm-training:test-managed", "managed-base:test"]
    base = build(scrap[1], tmp_path, "Dockerfile")
    managed = build(scrap[0], BASE_IMAGE=base)
    python = run(managed, "python", "-c", "import os, sys; print(os.path.realpath(sys.executable))").stdout
    assert python.startswith("/usr/bin/python3")
    assert run(managed, "python", "-c", TORCH).stdout == in_base("python3", "-c", TORCH)
    done = run(managed, options=[*short(), *Place.make(tmp_path).volumes])
    assert "run id:" in done.stdout
