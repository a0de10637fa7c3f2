"""Figures of detection: of any number of classes, of images without boxes, and with the right mistakes marked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.pictures import render_nothing
from training.reporting import detection_examples, detection_pictures
from training.reporting.detection_examples import draw_examples
from training.reporting.detection_figures import _pooled
from training.reporting.detection_pictures import FALSE, MANY, MISSED, RIGHT, TRUE
from training.scores.detection import DetectionScores
from training.tasks.protocol import Batch

SIZE = 64  # of the model's input
WIDTH, HEIGHT = 160, 80  # of an image as it came
SCALE, PAD = SIZE / WIDTH, (SIZE - HEIGHT * SIZE / WIDTH) / 2
Row = tuple[float, float, float, float, float, int]


@dataclass
class Scenes:
    """Pictures of noise; ``true`` has (box, label, crowd) of each, ``found`` what is detected there."""

    true: list[list[tuple[tuple[float, float, float, float], int, bool]]] = field(default_factory=list)
    found: list[list[Row]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.true)

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        image = np.full((3, SIZE, SIZE), 114, dtype=np.uint8)
        top = round(PAD)
        image[:, top : SIZE - top] = np.random.default_rng(index).integers(0, 255, (3, SIZE - 2 * top, SIZE))
        image[0, 0, 0] = index  # by which the stand-in knows it
        boxes = torch.tensor([box for box, _, _ in self.true[index]]).reshape(-1, 4)
        frame = [SCALE, SCALE, 0.0, PAD, WIDTH, HEIGHT]
        if rng is not None:  # an augmented image is one of its own
            boxes, frame = boxes * SCALE + torch.tensor([0, PAD, 0, PAD]), [1, 1, 0, 0, SIZE, SIZE]
        return {
            "image": torch.from_numpy(image)[None],
            "boxes": [boxes],
            "labels": [torch.tensor([label for _, label, _ in self.true[index]], dtype=torch.int64)],
            "crowd": [torch.tensor([crowd for _, _, crowd in self.true[index]], dtype=torch.bool)],
            "area": [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])],
            "frame": torch.tensor([frame], dtype=torch.float32),
            "draw": torch.tensor([index]),
        }


class StandIn(nn.Module):
    """Gives of each image what `Scenes` says."""

    def __init__(self, scenes: Scenes) -> None:
        super().__init__()
        self.scenes = scenes

    def forward(self, images: Tensor, frames: Tensor) -> Tensor:
        assert frames.shape == (len(images), 6)
        found = torch.zeros(len(images), 20, 6)
        found[..., 5] = -1
        for row, image in zip(found, images, strict=True):
            for place, one in enumerate(self.scenes.found[int(image[0, 0, 0])]):
                row[place] = torch.tensor(one)
        return found


def prepared(scenes: Scenes, classes: list[str], split: str = "test") -> Any:
    splits = {"train": scenes, "val": Scenes(), "test": Scenes()} | {split: scenes}
    members = {name: [SimpleNamespace(name=f"street_{n:03d}") for n in range(len(splits[name]))] for name in splits}
    return SimpleNamespace(splits=splits, members=members, facts={"classes": classes})


def made(classes: int, images: int = 12) -> Scenes:
    rng = np.random.default_rng(classes)
    scenes = Scenes()
    for _ in range(images):
        true, found = [], []
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(0, 100), rng.uniform(0, 40)
            box, label = (x, y, x + rng.uniform(10, 60), y + rng.uniform(10, 40)), int(rng.integers(classes))
            true.append((box, label, bool(rng.random() < 0.1)))
            if rng.random() < 0.8:
                told = label if rng.random() < 0.8 else int(rng.integers(classes))
                moved = np.array(box) + rng.normal(0, 2, 4)
                found.append((*moved, float(rng.uniform(0.3, 1)), told))
        scenes.true.append(true)
        scenes.found.append(sorted(found, key=lambda row: -row[4]))
    return scenes


def names_of(classes: int) -> list[str]:
    return [f"kind {number} of vehicle" for number in range(classes)]


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering takes seconds: two tests do it."""
    if request.node.name not in ("test_figures_are_rendered", "test_names_are_no_formulas"):
        render_nothing(monkeypatch.setattr)


STEMS = ["augmented_training_images", "test_examples", "test_precision_recall", "test_confusion_matrix"]


def draw(scenes: Scenes, classes: int, folder: Path) -> list[Path]:
    split = prepared(scenes, names_of(classes))
    return draw_examples(StandIn(scenes), split, "test", folder, torch.device("cpu"), 0.5)


def test_figures_are_rendered(tmp_path: Path) -> None:
    for path in draw(made(4, images=3), 4, tmp_path)[::2]:
        image = cv2.imread(str(path))
        assert image is not None
        assert min(image.shape[:2]) > 300
        assert image.std() > 10


@pytest.mark.parametrize("classes", [1, 4, 12, 25])
def test_every_figure_is_drawn_of_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    written = draw(made(classes), classes, tmp_path)
    assert [path.name for path in written] == [f"{stem}.{kind}" for stem in STEMS for kind in ("png", "svg")]


def test_names_are_no_formulas(tmp_path: Path) -> None:
    scenes = made(2, images=3)
    split = prepared(scenes, [r"$\alpha_{$", "b"])
    for member in split.members["test"]:
        member.name += "_$_$"
    written = draw_examples(StandIn(scenes), split, "test", tmp_path, torch.device("cpu"), 0.5)
    assert {path.stem for path in written} == set(STEMS)


def test_an_empty_test_split_is_stood_in_for_by_val(tmp_path: Path) -> None:
    scenes = made(2)
    written = draw_examples(
        StandIn(scenes), prepared(scenes, names_of(2), "val"), "test", tmp_path, torch.device("cpu")
    )
    assert {path.stem for path in written} >= {"val_examples", "val_confusion_matrix"}
    assert not [path for path in written if path.stem.startswith("test")]


def test_images_without_any_box_have_no_curves(tmp_path: Path) -> None:
    scenes = Scenes([[], []], [[], []])
    written = draw_examples(StandIn(scenes), prepared(scenes, ["car"]), "test", tmp_path, torch.device("cpu"))
    assert {path.stem for path in written} == {"augmented_training_images", "test_examples"}


CAR, BUS, MANY_CARS, FAR = (
    (10.0, 10.0, 50.0, 40.0),
    (60.0, 10.0, 90.0, 40.0),
    (100.0, 0.0, 160.0, 40.0),
    (1.0, 50.0, 9.0, 70.0),
)


def test_each_box_is_marked_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = [(CAR, 0, False), (BUS, 1, False), (MANY_CARS, 0, True)]
    found: list[Row] = [(*CAR, 0.9, 0), (*FAR, 0.8, 1), (110, 5, 130, 20, 0.7, 0), (*BUS, 0.4, 1)]
    scenes = Scenes([true, [(CAR, 0, False)]], [found, [(*CAR, 0.95, 0)]])
    shown: list[Any] = []
    monkeypatch.setattr(
        detection_examples, "draw_detections", lambda path, pictures, title: shown.extend(pictures) or []
    )
    draw_examples(StandIn(scenes), prepared(scenes, ["car", "bus"]), "test", tmp_path, torch.device("cpu"), 0.5)
    worst, best = shown
    assert [(box.kind, box.text) for box in worst.boxes] == [
        (TRUE, ""),
        (MISSED, "missed: bus"),
        (MANY, "many: car"),
        (RIGHT, "car 0.90"),
        (FALSE, "false: bus 0.80"),
    ]
    assert worst.title == "worst: street_000\n1 found, 1 missed, 1 false"
    assert best.title.startswith("best: street_001\n1 found, 0 missed, 0 false")
    assert worst.image.shape == (HEIGHT * SCALE, SIZE, 3)  # without the grey
    assert worst.corners == pytest.approx((0, 0, WIDTH, HEIGHT))


def test_pooling_the_less_confused_classes_loses_no_count() -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (41, 41))
    matrix[-1, -1] = 0
    names, pooled = _pooled(names_of(40), matrix)
    assert len(names) == 20
    assert names[-1] == "21 others"
    assert pooled.shape == (21, 21)
    assert pooled.sum() == matrix.sum()
    assert pooled[-1].sum() == matrix[-1].sum()
    assert pooled[:, -1].sum() == matrix[:, -1].sum()


def test_of_very_many_images_evenly_spaced_ones_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection_examples, "_MOST_IMAGES", 5)
    scenes = made(2)
    kept: list[DetectionScores] = []
    real = detection_examples._scored
    monkeypatch.setattr(detection_examples, "_scored", lambda *given: kept.append(real(*given)) or kept[-1])
    draw_examples(StandIn(scenes), prepared(scenes, names_of(2)), "test", tmp_path, torch.device("cpu"))
    assert len(kept[0].pictures()) == 5


@pytest.mark.parametrize(("colour", "text"), [("#ffffff", "#1b1f24"), ("#f0e442", "#1b1f24"), ("#0072b2", "white")])
def test_text_can_be_read_on_its_colour(colour: str, text: str) -> None:
    assert detection_pictures._readable_on(colour) == text
