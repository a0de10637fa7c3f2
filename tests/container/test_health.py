"""The image's health check sees a worker that stands still, and one that goes on again."""

from __future__ import annotations

import pytest

from tests.container.docker import Place, as_environment, config, docker, run, short, started
from tests.container.test_stops import begun

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]
QUICK = ["--health-interval", "1s", "--health-retries", "1", "-e", "TRAIN_WORKER_STALL_MINUTES=0.1"]
LONG = as_environment({"training.max_steps": 1_000_000, "training.epochs": 1_000_000})
CHECK = ["python3", "-IS", "/app/docker/healthcheck.py"]


def test_a_worker_that_stands_still_becomes_unhealthy(image: str, place: Place) -> None:
    with started(image, options=[*short(), *LONG, *QUICK, *place.volumes]) as container:
        container.wait_for(begun(event="stage", stage="training")(place))
        container.wait_for(lambda: container.health == "healthy")
        worker = docker("exec", container.name, "cat", "/dev/shm/train_worker.heartbeat").stdout.strip()
        docker("exec", container.name, "bash", "-c", f"kill -STOP {worker}")
        container.wait_for(lambda: container.health == "unhealthy")
        assert "stalled: no progress for" in str(container.state["Health"]["Log"][-1]["Output"])
        docker("exec", container.name, "bash", "-c", f"kill -CONT {worker}")
        container.wait_for(lambda: container.health == "healthy")
        assert container.end("stop")[0] == 75


def test_the_image_checks_its_health(image: str) -> None:
    assert config(image)["Healthcheck"]["Test"] == ["CMD", *CHECK]


def test_where_no_worker_is_at_work_nothing_is_wrong(image: str) -> None:
    done = run(image, *CHECK)
    assert "at work or idle" in done.stdout
