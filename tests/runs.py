"""Short trainings for tests: each task's name, and settings that make its sample a matter of seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from training.cli import main
from training.samples.detection import make_detection_sample
from training.samples.landmarks import make_landmark_sample
from training.samples.radar import make_radar_sample
from training.tasks import TASKS, Places, task_class

TINY = Places("tests.tiny_task:TinyTask", "tests.tiny_task:TinyConfig")
SHORT: dict[str, list[str]] = {
    "tiny": ["training.epochs=4"],
    "convlstm": [
        "training.max_steps=3",
        "training.batch_size=2",
        "model.hidden_dims=[4]",
        "data.input_steps=3",
        "data.prediction_steps=2",
        "data.downsample_size=[16, 16]",
        "data.stride=20",
        "evaluation.max_samples=2",
        "data.prepare_workers=1",
    ],
    "landmarks": [
        "training.max_steps=3",
        "training.batch_size=2",
        "model.hidden_dim=32",
        "data.image_size=64",
        "evaluation.max_samples=4",
        "evaluation.bootstrap=20",
        "data.prepare_workers=1",
    ],
    "detection": [
        "training.max_steps=3",
        "training.batch_size=2",
        "training.warmup_steps=0",
        "model.name=retinanet_resnet18",
        "model.pretrained=none",
        "model.norm=batch",
        "model.max_detections=20",
        "data.image_size=64",
        "evaluation.max_samples=4",
        "data.prepare_workers=1",
    ],
}
# Small samples of the tasks whose built-in one takes long to make and to prepare.
SMALL: dict[str, Callable[[Path], None]] = {
    "convlstm": lambda folder: make_radar_sample(folder, events=12, frames=8),
    "landmarks": lambda folder: make_landmark_sample(folder, images=48, size=96),
    "detection": lambda folder: make_detection_sample(folder, images=24, size=(96, 72)),
}
ALL_TASKS = sorted({*TASKS, "tiny"})


def register_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the tiny task to the list of tasks for one test."""
    monkeypatch.setitem(TASKS, "tiny", TINY)


def train(place: Path, task: str, *words: str, sets: tuple[str, ...] = (), data: str = "sample") -> int:
    """`train` in ``place``, shortened; the exit code."""
    all_sets = [word for text in (*SHORT[task], *sets) for word in ("--set", text)]
    return main(["train", "--task", task, *places(place), "--data", data, *all_sets, *words])


@cache
def _samples() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="samples-")


@cache
def small_sample(task: str) -> Path:
    """A small dataset in the task's file format, made once for all tests; not to be changed."""
    folder = Path(_samples().name) / task
    folder.mkdir()
    SMALL.get(task, task_class(task).make_sample)(folder)
    return folder


def places(place: Path) -> list[str]:
    """The two folders' flags. The built-in sample is a small one there, unless something is in its way."""
    samples = place / "datasets" / ".samples"
    for task in SMALL:
        with suppress(OSError):
            samples.mkdir(parents=True, exist_ok=True)
            (samples / task).symlink_to(small_sample(task), target_is_directory=True)
    return ["--output", str(place / "out"), "--datasets", str(place / "datasets")]


def run_of(place: Path, task: str) -> Path:
    """The only run of ``task`` in ``place``."""
    (folder,) = [path for path in (place / "out" / task).iterdir() if not path.name.startswith(".")]
    return folder
