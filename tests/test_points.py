"""Points in image files: the table, the overlays, and the inputs that are refused."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend.artifact import open_artifact
from backend.errors import BadDataError, UsageError
from backend.points import find_points, image_files, write_points
from tests.runs import places, run_of, train
from training.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("points")
    assert train(place, "landmarks") == 0
    return run_of(place, "landmarks")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of different sizes, one in a folder below, and a file that is none."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for path, size in ((folder / "wide one.png", (60, 120)), (folder / "more" / "tall.jpg", (200, 90))):
        cv2.imwrite(str(path), rng.integers(0, 256, size, dtype=np.uint8))
    (folder / "notes.txt").write_text("no image", "utf-8")
    return folder


def test_a_row_for_each_image_in_its_own_pixels(run: Path, images: Path, tmp_path: Path) -> None:
    assert main(["predict", str(run), str(images), "--out", str(tmp_path / "out"), *places(run.parents[2])]) == 0
    with (tmp_path / "out" / "points.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["tall.jpg", "wide one.png"]
    assert list(rows[0]) == ["image", *(f"L{number}_{axis}" for number in range(1, 16) for axis in "xy")]
    for row, (width, height) in zip(rows, ((90, 200), (120, 60)), strict=True):
        for number in range(1, 16):
            assert 0 <= float(row[f"L{number}_x"]) <= width
            assert 0 <= float(row[f"L{number}_y"]) <= height
        overlay = cv2.imread(str(tmp_path / "out" / "overlays" / f"{Path(row['image']).stem}.png"))
        assert overlay is not None
        assert overlay.shape == (height, width, 3)


def test_a_mirrored_image_has_mirrored_points(run: Path, images: Path, tmp_path: Path) -> None:
    """Because the prediction is the mean over both, whatever the model has learned."""
    path = images / "wide one.png"
    mirrored = tmp_path / "mirrored.png"
    cv2.imwrite(str(mirrored), cv2.flip(cv2.imread(str(path)), 1))
    artifact = open_artifact(run)
    artifact.state["preprocessing"]["landmarks"]["clahe"] = False  # its tiles are not mirrored to the bit
    (_, one), (_, other) = find_points(artifact, [path, mirrored], [])
    order = torch.tensor([0, 1, 3, 2, 5, 4, 7, 6, 8, 9, 10, 12, 11, 14, 13]).numpy()
    np.testing.assert_allclose(120 - other[order][:, 0], one[:, 0], atol=0.05)
    np.testing.assert_allclose(other[order][:, 1], one[:, 1], atol=0.05)


def test_files_are_found_once_and_told_apart(images: Path) -> None:
    assert [path.name for path in image_files([images, images / "wide one.png"])] == ["tall.jpg", "wide one.png"]
    (images / "more" / "wide one.jpg").write_bytes((images / "more" / "tall.jpg").read_bytes())
    with pytest.raises(UsageError, match=r"wide one.*two images of one name"):
        image_files([images])


def test_two_of_one_name_are_told_also_with_a_third_between_them(images: Path) -> None:
    for name in ("x.bmp", "x.c.jpg", "x.png"):
        (images / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"x\.bmp and .*x\.png"):
        image_files([images])


def test_what_cannot_be_predicted_is_told(run: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        image_files([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images found"):
        image_files([tmp_path / "empty"])
    with pytest.raises(BadDataError, match=r"notes\.txt"):
        write_points(open_artifact(run), [images / "notes.txt"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_image_is_left_out_and_told_after_the_others_are_done(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.png").write_bytes(b"\x89PNG no more of it")
    capsys.readouterr()
    assert main(["predict", str(run), str(images), "--out", str(tmp_path / "out"), *places(run.parents[2])]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert "broken.png: damaged or no image" in line
    assert f"the result of the rest is in {tmp_path / 'out'}" in line
    with (tmp_path / "out" / "points.csv").open(newline="", encoding="utf-8") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["tall.jpg", "wide one.png"]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 2
