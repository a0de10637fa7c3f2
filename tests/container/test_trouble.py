"""What a caller gets wrong, or a machine has not: one clear line, and the exit code that fits."""

from __future__ import annotations

import pytest

from backend.errors import CONFIG, IO_ERROR, USAGE
from tests.container.docker import UNMOUNTED_OK, Done, Place, run, short

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]


def the_line(done: Done, code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(("options", "words"), [(["-e", "TASK=nowcast"], []), ([], ["--task", "nowcast"])])
def test_an_unknown_task(image: str, options: list[str], words: list[str]) -> None:
    line = the_line(run(image, *words, options=options, check=False), USAGE)
    assert line.startswith("error: there is no task 'nowcast'")
    assert "convlstm" in line


def test_a_gpu_is_asked_for_where_there_is_none(image: str, place: Place) -> None:
    words = ["train", "--set", "training.device=cuda"]
    line = the_line(run(image, *words, options=[*short(), *place.volumes], check=False), CONFIG)
    assert "training.device is cuda" in line
    assert "--gpus all" in line


def test_the_output_is_mounted_read_only(image: str, place: Place) -> None:
    output = ["-v", f"{place.output}:/app/model_output:ro"]
    line = the_line(run(image, options=[*short(), *output], check=False), IO_ERROR)
    assert "model_output" in line
    assert "mount it writable" in line


def test_the_datasets_are_mounted_read_only(image: str, place: Place) -> None:
    """Caches then go to the output."""
    volumes = ["-v", f"{place.output}:/app/model_output", "-v", f"{place.datasets}:/app/datasets:ro"]
    done = run(image, options=[*short(), *volumes])
    assert f"run id: {place.run.name}" in done.stdout
    assert not list(place.datasets.iterdir())


def test_a_disk_that_is_too_small_is_told_before_anything_is_trained(image: str, place: Place) -> None:
    """A volume of 2 MB does not hold the weights and the optimizer's state."""
    small = ["--tmpfs", "/app/model_output:size=2m", "-v", f"{place.datasets}:/app/datasets", *UNMOUNTED_OK]
    line = the_line(run(image, options=[*short(), *small], check=False), IO_ERROR)
    assert "needed (checkpoints" in line
    assert "larger disk" in line


def test_an_output_that_vanishes_with_the_container(image: str, place: Place) -> None:
    line = the_line(run(image, options=[*short(), "-v", f"{place.datasets}:/app/datasets"], check=False), CONFIG)
    assert "lost with the container" in line
    assert '-v "$PWD/model_output:/app/model_output"' in line
