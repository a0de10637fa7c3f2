from __future__ import annotations

import csv
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.errors import DiskError
from tests.data.world import World
from training.data.landmarks.prepare import prepare_landmarks
from training.samples.landmarks import make_landmark_sample
from training.schemas.landmarks import LandmarkDataSection


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    make_landmark_sample(folder, images=48)
    return folder


def rows_of(folder: Path) -> list[tuple[str, np.ndarray]]:
    with (folder / "coordenadas" / "coordenadas_maestro.csv").open(newline="") as file:
        return [(cells[-1], np.array(cells[1:-1], float).reshape(15, 2)) for cells in csv.reader(file)]


def image_of(folder: Path, name: str) -> np.ndarray:
    return cv2.imread(str(next(folder.rglob(f"{name}.png"))), cv2.IMREAD_GRAYSCALE)


def test_the_files_are_as_the_real_ones(sample):
    rows = rows_of(sample)
    assert len(rows) == 48 and len({name for name, _ in rows}) == 48
    assert {path.name for path in (sample / "dataset").iterdir()} == {"COVID", "Normal", "Viral_Pneumonia"}
    assert any(name.startswith("Viral Pneumonia-") for name, _ in rows)
    channels = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape[2:] for path in sample.rglob("*.png")]
    assert channels.count((3,)) == 1 and channels.count(()) == 47
    assert all(image_of(sample, name).shape == (299, 299) for name, _ in rows[:5])


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_landmark_sample(tmp_path / name, seed, images=6, size=64)
    files = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert files["a"] == files["b"] != files["c"]


def test_the_points_lie_on_the_contour(sample):
    """Inside the contour a lung is darker than the wall outside, at all points of the sides."""
    right = total = 0
    for name, points in rows_of(sample):
        image = cv2.GaussianBlur(image_of(sample, name), (5, 5), 0)
        for index in (2, 3, 4, 5, 6, 7):
            x, y = points[index]
            inwards = 8 if x < points[0, 0] else -8
            inside, outside = (image[int(y), int(x + step)] for step in (inwards, -inwards))
            right += inside + 10 < outside
            total += 1
    assert right / total > 0.95


def test_shapes_vary_as_real_ones_do(sample):
    points = np.stack([shape for _, shape in rows_of(sample)])
    error = np.linalg.norm(points - points.mean(axis=0), axis=2).mean() * 224 / 299
    assert 12 < error < 20  # 17 on real images


def test_it_can_be_prepared_and_its_pairs_hold(sample, tmp_path):
    prepared = prepare_landmarks(LandmarkDataSection(image_size=64), World(sample, tmp_path).context, 42)
    assert any("confirmed by the labels" in line for line in prepared.summary)
    assert [len(prepared.splits[name]) for name in ("train", "val", "test")] == [36, 7, 5]
    assert prepared.audit["duplicates"]["images"] == 0 and not prepared.audit["not_as_asked"]


@pytest.mark.slow
def test_the_whole_sample_is_quickly_made_and_small(tmp_path):
    began = time.process_time()
    make_landmark_sample(tmp_path)
    assert time.process_time() - began < 6
    assert len(rows_of(tmp_path)) == 160
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) < 9e6


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        make_landmark_sample(tmp_path / "file", images=3, size=64)
