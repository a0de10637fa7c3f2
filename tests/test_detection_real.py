"""Detection on real pictures: from Roboflow's export of 120 trucks to a run, its scores and its predictions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.runs import places, run_of, train
from training.cli import main
from training.files import read_json
from training.scores.detection import DetectionScores

REAL = os.environ.get("REAL_DATA")
pytestmark = pytest.mark.skipif(not REAL, reason="REAL_DATA names no folder of real data")
SETS = (
    "training.max_steps=25",
    "training.batch_size=4",
    "training.learning_rate=1e-3",
    "training.trunk_learning_rate=1e-3",
    "training.num_workers=0",
    "model.anchor_sizes=[8, 16, 24, 40, 56]",
    "augmentation.mosaic=0",
    "augmentation.scale=[0.9, 1.1]",
    "evaluation.max_samples=null",
)
IMAGES = {"train": 105, "val": 10, "test": 5}


def folder() -> Path:
    return Path(str(REAL), "detection")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a short training on the real pictures has its run."""
    place = tmp_path_factory.mktemp("real")
    assert train(place, "detection", sets=SETS, data=str(folder())) == 0
    return place


def truth(split: str) -> dict[str, np.ndarray]:
    """The only box of each picture, x1, y1, x2, y2 in pixels, by the picture's stem."""
    found = {}
    for path in sorted((folder() / split / "labels").iterdir()):
        cx, cy, width, height = np.loadtxt(path)[1:]
        found[path.stem] = 640 * np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    sides = (np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(min=0)
    return float(sides.prod() / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - sides.prod()))


@pytest.mark.parametrize(("split", "scores"), [("valid", (0.334, 1.0)), ("test", (0.276, 0.802))])
def test_what_one_box_for_every_picture_reaches(split: str, scores: tuple[float, float]) -> None:
    """The mean box of the training split, whatever the picture shows: docs/detection.md tells it beside the model's."""
    mean, boxes = np.mean(list(truth("train").values()), axis=0), truth(split).values()
    ragged = [torch.tensor(box[None], dtype=torch.float32) for box in boxes]
    count, found = len(ragged), DetectionScores(["trucks"])
    detections = torch.tensor([*mean, 1.0, 0.0], dtype=torch.float32).expand(count, 1, 6)
    labels, crowd = [torch.zeros(1, dtype=torch.int64)] * count, [torch.zeros(1, dtype=torch.bool)] * count
    found.update(detections, ragged, labels, crowd, [(box[:, 2:] - box[:, :2]).prod(1) for box in ragged])
    metrics = found.compute()
    assert (metrics["map"], metrics["map_50"]) == pytest.approx(scores, abs=1e-3)


def test_the_splits_are_the_datasets_and_every_picture_is_scored(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(place, "detection")
    split = read_json(run / "split.json")["splits"]
    assert {name: len(members["names"]) for name, members in split.items()} == IMAGES
    for name, images in (("val", 10), ("test", 5)):
        assert main(["evaluate", run.name, "--split", name, *places(place)]) == 0
        assert f"{images} images with {images} true boxes of 1 class." in capsys.readouterr().out
        metrics = read_json(run / "evaluations" / name / "metrics.json")["metrics"]
        assert 0 < metrics[f"{name}/map"] <= metrics[f"{name}/map_50"] <= 1
        assert f"{name}/map_large" in metrics and f"{name}/map_small" not in metrics


def test_the_surest_boxes_lie_on_the_trucks(place: Path, tmp_path: Path) -> None:
    out, images = tmp_path / "out", [folder() / split / "images" for split in ("valid", "test")]
    run = run_of(place, "detection").name
    assert main(["predict", run, *map(str, images), "--out", str(out), *places(place)]) == 0
    boxes = {**truth("valid"), **truth("test")}
    listed = {image["id"]: Path(image["file_name"]) for image in read_json(out / "images.json")["images"]}
    assert sorted(path.stem for path in listed.values()) == sorted(boxes)
    surest: dict[int, dict] = {}
    for row in json.loads((out / "detections.json").read_text()):
        x, y, width, height = row["bbox"]
        assert x >= 0 and y >= 0 and x + width <= 640.02 and y + height <= 640.02 and row["category_id"] == 0
        if row["score"] > surest.get(row["image_id"], {"score": 0})["score"]:
            surest[row["image_id"]] = row
    assert surest.keys() == listed.keys()
    overlaps = []
    for number, path in listed.items():
        x, y, width, height = surest[number]["bbox"]
        overlaps.append(overlap(np.array([x, y, x + width, y + height]), boxes[path.stem]))
        drawn = cv2.imread(str(out / "drawn" / path))
        assert drawn.shape == (640, 640, 3)
    assert np.mean(overlaps) > 0.35  # boxes drawn at random have 0.14
