"""What the image weighs above its base, how fast it is built anew, and how fast it begins to train.

Usage: python benchmarks/image.py [--image convlstm-training] [--rounds 3]. Needs Docker and the image, built by
`make docker-build`; DOCKER and CONTAINER_BUILD_OPTIONS as for `make test-container`, whose tools this uses.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.container.docker import BASE, Place, as_environment, build, docker, layers, run, started  # noqa: E402
from training.samples.radar import make_radar_sample  # noqa: E402

IMPORT = "import time; began = time.perf_counter(); import torch; print(time.perf_counter() - began)"
SETTINGS = {"training.max_steps": 1000, "training.log_every_steps": 1, "training.batch_size": 1}


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(what: str, values: list[float]) -> None:
    """A line with the median of ``values`` and their range."""
    print(f"{what:<58} {statistics.median(values):6.2f} s   ({min(values):.2f} to {max(values):.2f})")


def weight(image: str) -> None:
    """Layers and bytes above the base."""
    size = {name: json.loads(docker("image", "inspect", name).stdout)[0]["Size"] for name in (image, BASE)}
    more = len(layers(image)) - len(layers(BASE))
    print(f"{more} layers and {(size[image] - size[BASE]) / 1e6:.0f} MB above the base of {size[BASE] / 1e9:.2f} GB:")
    listed, of_base = (
        docker("history", "--format", "{{.Size}}\t{{.CreatedBy}}", name).stdout.splitlines() for name in (image, BASE)
    )
    for line in listed[: len(listed) - len(of_base)]:
        if not line.startswith("0B"):
            print("   ", line[:100])


def rebuild(rounds: int) -> list[float]:
    """Building again after a line of code changed."""
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for name in ("backend", "docker", "training"):
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", ".dockerignore"):
            shutil.copy2(ROOT / name, context)
        tag = "convlstm-training:benchmark"
        build(tag, context)
        taken = []
        for number in range(rounds):
            with (context / "training" / "cli.py").open("a") as file:
                file.write(f"# {number}\n")
            taken.append(seconds(lambda: build(tag, context)))
        docker("rmi", tag)
        return taken


def has_stepped(place: Place) -> bool:
    """Whether a step's metrics are written."""
    return any(log.stat().st_size for log in place.output.glob("convlstm/*/metrics.jsonl"))


def first_step(image: str, rounds: int) -> list[float]:
    """From `docker run` to the first optimizer step's line in metrics.jsonl, on a prepared dataset."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place.make(Path(folder) / "place")
        events = Path(folder) / "events"
        make_radar_sample(events)
        options = [*as_environment(SETTINGS), *place.volumes, "-v", f"{events}:/data:ro"]
        words = ["--data", "/data", "--config", "sample", "--resume", "never"]
        run(image, "prepare", *words[:4], options=options)
        taken = []
        for _ in range(rounds):
            shutil.rmtree(place.output / "convlstm", ignore_errors=True)
            began = time.perf_counter()
            with started(image, *words, options=options) as container:
                container.wait_for(lambda: has_stepped(place))
                taken.append(time.perf_counter() - began)
                container.end("kill")
        return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="convlstm-training")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    image, rounds = given.image, given.rounds
    weight(image)
    show("built anew after a change of the code", rebuild(rounds))
    show("docker run of nothing", [seconds(lambda: run(image, "bash", "-c", ":")) for _ in range(rounds)])
    imports = [float(run(image, "python", "-c", IMPORT).stdout) for _ in range(rounds)]
    show("docker run to the first step, prepared dataset", first_step(image, rounds))
    show("   of it import torch", imports)


if __name__ == "__main__":
    main()
