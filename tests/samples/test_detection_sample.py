from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.errors import DiskError
from tests.data.world import World
from training.data.detection.prepare import class_counts, prepare_detection
from training.samples.detection import CLASSES, make_detection_sample
from training.schemas.detection import DetectionDataSection


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    make_detection_sample(folder, images=48)
    return folder


def scenes(folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each image (BGR), its classes and its boxes in pixels."""
    found = []
    for path in sorted((folder / "images").rglob("*.jpg")):
        image = cv2.imread(str(path))
        text = (folder / "labels" / path.parent.name / f"{path.stem}.txt").read_text()
        rows = np.array([line.split() for line in text.splitlines()], float).reshape(-1, 5)
        half = rows[:, 3:] / 2
        boxes = np.concatenate([rows[:, 1:3] - half, rows[:, 1:3] + half], axis=1)
        found.append((image, rows[:, 0].astype(int), boxes * np.tile(image.shape[1::-1], 2)))
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_detection_sample(tmp_path / name, seed, images=6, size=(96, 64))
    files = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert files["a"] == files["b"] != files["c"]


def test_objects_are_large_enough_and_hardly_cover_one_another(sample):
    boxes_of = [boxes for _, _, boxes in scenes(sample)]
    assert {len(boxes) for boxes in boxes_of} >= {0, 1, 2, 3}
    every = np.concatenate(boxes_of)
    assert (every[:, 3] - every[:, 1]).min() >= 0.12 * 192 and every.min() >= 0
    assert (every[:, 2] <= 256).all() and (every[:, 3] <= 192).all()
    for boxes in boxes_of:
        for i, one in enumerate(boxes):
            for other in boxes[i + 1 :]:
                sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
                smaller = min(np.prod(box[2:] - box[:2]) for box in (one, other))
                assert (sides <= 0).any() or sides.prod() <= 0.051 * smaller


def test_a_box_is_what_was_drawn(sample):
    """The colours of buses and cars, which nothing else has, reach just to their boxes' sides."""
    checked = 0
    for image, labels, boxes in scenes(sample):
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        for name, low, high in (("bus", 12, 32), ("car", 95, 135)):
            if (labels == CLASSES.index(name)).sum() != 1 or len(labels) != 1:
                continue
            body = (hue >= low) & (hue <= high) & (saturation > 150) & (value > 90)
            rows, columns = np.flatnonzero(body.sum(axis=1) > 2), np.flatnonzero(body.sum(axis=0) > 2)
            box = boxes[labels == CLASSES.index(name)][0]
            found = (columns[0], rows[0], columns[-1] + 1)
            np.testing.assert_allclose(found, box[:3], atol=2.1)
            checked += 1
    assert checked >= 3


def test_it_can_be_prepared_and_nothing_is_said_against_it(sample, tmp_path):
    prepared = prepare_detection(DetectionDataSection(image_size=128), World(sample, tmp_path).context)
    assert prepared.facts["classes"] == list(CLASSES)
    assert {name: len(items) for name, items in prepared.splits.items()} == {"train": 32, "val": 8, "test": 8}
    assert all(count >= 10 for count in class_counts(prepared)["train"].values())
    audit = prepared.audit
    assert audit["notes"] == [] and not audit["weak"] and audit["duplicates"]["within_a_split"] == 0
    assert audit["groups"]["known"] == 0 and audit["splits"]["train"]["background images"] > 0


@pytest.mark.slow
def test_the_whole_sample_is_quickly_made_and_small(tmp_path):
    began = time.process_time()
    make_detection_sample(tmp_path)
    assert time.process_time() - began < 6
    assert len(scenes(tmp_path)) == 144
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) < 5e6


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        make_detection_sample(tmp_path / "file", images=3)
