"""`docker stop` and `docker kill` in each stage: nothing done is lost, and the same command ends with the same weights.

`pytest -s` shows the seconds from the command to the container's end; only what Docker itself grants is asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.artifact import checkpoints, sha256_of, verify
from tests.container.docker import Container, Place, as_environment, run, started
from training.files import read_json_lines
from training.runs.run import read_yaml
from training.samples.radar import make_radar_sample

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]
SETTINGS = {
    "data.input_steps": 3,
    "data.prediction_steps": 2,
    "data.stride": 1,
    "data.downsample_size": "[32, 32]",
    "data.prepare_workers": 1,
    "data.split.fractions": "[0.2, 0.6, 0.2]",
    "model.hidden_dims": "[16]",
    "training.max_steps": 24,
    "training.batch_size": 2,
    "training.log_every_steps": 1,
}
STOPPED, KILLED = 75, 137
Moment = Callable[[Place], Callable[[], bool]]


def events(place: Place) -> list[dict[str, Any]]:
    return [event for path in place.output.glob("convlstm/*/events.jsonl") for event in read_json_lines(path)]


def preparing(place: Place) -> Callable[[], bool]:
    """Some blocks are made; many are not."""
    journals = lambda: place.datasets.glob(".prepared/convlstm/.building-*/journal.jsonl")  # noqa: E731
    return lambda: any(journal.read_bytes().count(b"\n") > 5 for journal in journals())


def begun(**what: str) -> Moment:
    """An event like this happens once more than up to now."""

    def moment(place: Place) -> Callable[[], bool]:
        def count() -> int:
            return sum(what.items() <= event.items() for event in events(place))

        before = count()
        return lambda: count() > before

    return moment


# Each stage, in the order of a training, and how to see that it is under way.
STAGES: dict[str, Moment] = {
    "preparation": preparing,
    "training": begun(event="stage", stage="training"),
    "validation": begun(event="validation"),
    "evaluation": begun(event="stage", stage="evaluation of val"),
    "report": begun(event="stage", stage="report"),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that each stage lasts until a signal has come."""
    folder = tmp_path_factory.mktemp("events")
    folder.chmod(0o755)
    make_radar_sample(folder, events=10, frames=24, levels=4, size=192)
    return folder


def options(place: Place, dataset: Path) -> list[str]:
    return [*as_environment(SETTINGS), "-e", "OMP_NUM_THREADS=1", *place.volumes, "-v", f"{dataset}:/data:ro"]


def weights(place: Place) -> tuple[str, str]:
    """The newest checkpoint's name, and the hash of its weights."""
    newest = checkpoints(place.run / "checkpoints")[-1]
    verify(newest)
    return newest.name, sha256_of(newest / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(image: str, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    place = Place.make(tmp_path_factory.mktemp("undisturbed") / "place")
    run(image, "train", "--data", "/data", options=options(place, dataset))
    return weights(place)


@pytest.mark.parametrize(("how", "code"), [("stop", STOPPED), ("kill", KILLED)])
def test_ended_in_every_stage_and_continued(
    image: str, dataset: Path, undisturbed: tuple[str, str], place: Place, how: str, code: int
) -> None:
    for stage, moment in STAGES.items():
        happened = moment(place)
        with started(image, "train", "--data", "/data", options=options(place, dataset)) as container:
            container.wait_for(happened)
            found, seconds = container.end(how)
            print(f"docker {how} in {stage}: {seconds:.2f} s to exit {found}")  # noqa: T201
            assert found == code, container.said()
            if how == "stop":
                assert_told(container, place)
    done = run(image, "train", "--data", "/data", options=options(place, dataset))
    assert f"run id: {place.run.name}" in done.stdout
    assert weights(place) == undisturbed
    assert read_yaml(place.run / "metadata.yaml")["state"] == "finished"
    if how == "stop":
        assert {event["steps_done_again"] for event in events(place) if event["event"] == "resumed"} == {0}


def assert_told(container: Container, place: Place) -> None:
    """One line that says what to do, and the same in the record."""
    (line,) = container.said().stderr.strip().splitlines()
    assert "stopped by SIGTERM" in line
    assert "run the same command to continue" in line
    assert events(place)[-1]["event"] == "interrupted"
    assert read_yaml(place.run / "metadata.yaml")["state"] == "interrupted"
